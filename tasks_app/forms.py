"""SUBMIT: the forms of the first page. Each can enqueue what it was filled in with."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django_tasks import task_backends

from tasks_app import belongings, wording
from tasks_app.backend import PostgresBackend
from tasks_app.files import UPLOADS
from tasks_app.ids import new_id
from tasks_app.models import TaskRun
from tasks_app.tasks import create_task, make_thumbnails
from tasks_app.tasks.images import BadImage, Kind, open_image

KINDS_OF_PRACTICE = ("Short", "Medium", "Long")


def backend() -> PostgresBackend:
    return cast(PostgresBackend, task_backends["default"])


class PracticeForm(forms.Form):
    """One of the three buttons."""

    type = forms.IntegerField(
        min_value=1,
        max_value=len(KINDS_OF_PRACTICE),
        error_messages=dict.fromkeys(
            ("required", "invalid", "min_value", "max_value"),
            "There are three kinds to choose from: 1 is short, 2 is medium, 3 is long.",
        ),
    )

    @property
    def buttons(self) -> list[dict[str, Any]]:
        """What each button says: its value, its name, how long the run takes, and how much of its bar is filled."""
        seconds = settings.PRACTICE_UNIT_SECONDS
        return [
            {"type": number, "name": name, "length": f"{wording.count(number * seconds)} seconds", "load": 30 * number}
            for number, name in enumerate(KINDS_OF_PRACTICE, start=1)
        ]

    def enqueue(self, owner: Any) -> TaskRun:
        return backend().enqueue_run(create_task, [], {"type": self.cleaned_data["type"]}, owner=owner)


class ThumbnailsForm(forms.Form):
    """A picture to be made smaller."""

    image = forms.FileField(
        error_messages={
            "required": "Choose a picture first.",
            "missing": "Choose a picture first.",
            "invalid": "Choose a picture first.",
            "empty": "That file is empty: it has 0 bytes.",
        }
    )
    kind: Kind

    def __init__(self, *args: Any, too_large: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.too_large = too_large
        if too_large:
            self.fields["image"].error_messages["required"] = (
                f"That file is larger than {self.most}. Choose a smaller one."
            )

    @property
    def most(self) -> str:
        """The largest size that is taken, such as `20 MB`."""
        return f"{settings.UPLOAD_MAX_BYTES / 1024 / 1024:g} MB"

    @property
    def most_bytes(self) -> int:
        return settings.UPLOAD_MAX_BYTES

    @property
    def error(self) -> str:
        return " ".join(str(error) for error in self.errors.get("image", []))

    def clean_image(self) -> UploadedFile:
        """Refuse what the first bytes already tell; what only decoding finds, the run says."""
        upload: UploadedFile = self.cleaned_data["image"]
        try:
            _, self.kind = open_image(upload, str(upload.name))
        except BadImage as error:
            raise forms.ValidationError(str(error)) from None
        upload.seek(0)
        return upload

    def enqueue(self, owner: Any) -> TaskRun:
        """Store the picture and enqueue its run; a picture without a run does not stay."""
        upload = self.cleaned_data["image"]
        run_id = new_id()  # the folder's name says whose it is
        path = default_storage.save(f"{UPLOADS}/{run_id}/picture.{self.kind.suffix}", upload)
        call = {"image": upload.name, "stored_as": path}
        try:
            return backend().enqueue_run(make_thumbnails, [], call, owner=owner, run_id=run_id)
        except BaseException:
            belongings.remove({run_id: [UPLOADS]})
            raise
