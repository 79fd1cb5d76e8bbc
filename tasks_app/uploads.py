"""SUBMIT: uploads of bounded size, refused while they arrive and not after they were stored."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile, StopUpload
from django.http import HttpRequest

# A body above so many times the largest file is not even read to its end.
PATIENCE = 10
# What the rest of a form may take besides its file.
REST_OF_FORM = 100_000


class BoundedUploadHandler(FileUploadHandler):
    """Lets go of a file above UPLOAD_MAX_BYTES as soon as that is known; `was_too_large` tells it afterwards."""

    body_length = 0

    def handle_raw_input(
        self,
        input_data: Any,
        META: dict[str, str],  # noqa: N803 - Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> None:
        self.body_length = content_length

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.body_length > PATIENCE * settings.UPLOAD_MAX_BYTES:
            self.refuse()
            raise StopUpload(connection_reset=True)
        if self.body_length > settings.UPLOAD_MAX_BYTES + REST_OF_FORM:
            self.refuse()
            raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        if start + len(raw_data) > settings.UPLOAD_MAX_BYTES:
            self.refuse()
            raise SkipFile
        return raw_data

    def file_complete(self, file_size: int) -> UploadedFile | None:
        return None  # the next handler keeps it

    def refuse(self) -> None:
        if self.request is not None:
            self.request.META[__name__] = self.field_name


def was_too_large(request: HttpRequest, field: str) -> bool:
    """True when the file of this form field was let go of because of its size."""
    request.FILES  # noqa: B018 - reads the body
    return request.META.get(__name__) == field
