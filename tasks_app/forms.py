"""SUBMIT: the forms of the first page. Each can enqueue what it was filled in with."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, cast

from django import forms
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django_tasks import task_backends

from tasks_app import belongings, wording
from tasks_app.backend import PostgresBackend
from tasks_app.engine.wishes import KeyReused
from tasks_app.fields import PlainForm
from tasks_app.files import UPLOADS
from tasks_app.ids import new_id
from tasks_app.models import TaskRun
from tasks_app.tasks import create_task, make_thumbnails
from tasks_app.tasks.images import BadImage, Kind, open_image

KINDS_OF_PRACTICE = ("Short", "Medium", "Long")


def backend() -> PostgresBackend:
    return cast(PostgresBackend, task_backends["default"])


class OnceForm(PlainForm):
    """A form with a key of its own each time it is shown: sent twice, as by a double click, it makes one run."""

    once = forms.Field(required=False)

    @property
    def new_key(self) -> str:
        """For the form that is shown next."""
        return uuid.uuid4().hex

    def clean_once(self) -> str:
        """A key that is none of ours is no key: what was sent counts."""
        try:
            return uuid.UUID(str(self.cleaned_data["once"])).hex
        except ValueError:
            return ""

    def key_for(self, what: object) -> str | None:
        """The idempotency key of sending this from this very form; another choice on the same page is another run."""
        once = self.cleaned_data["once"]
        return f"form {once} {what}" if once else None


class PracticeForm(OnceForm):
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
        kind = self.cleaned_data["type"]
        return backend().enqueue_run(
            create_task, [], {"type": kind}, owner=owner, idempotency_key=self.key_for(f"type {kind}")
        )


class ThumbnailsForm(OnceForm):
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
        key = self.key_for(digest_of(upload))
        run_id = new_id()  # the folder's name says whose it is
        path = default_storage.save(f"{UPLOADS}/{run_id}/picture.{self.kind.suffix}", upload)
        call = {"image": upload.name, "stored_as": path}
        try:
            return backend().enqueue_run(make_thumbnails, [], call, owner=owner, idempotency_key=key, run_id=run_id)
        except KeyReused as reused:  # for the same picture, stored under another name
            belongings.remove({run_id: [UPLOADS]})
            return reused.run
        except BaseException:
            belongings.remove({run_id: [UPLOADS]})
            raise


def digest_of(upload: UploadedFile) -> str:
    """What tells one picture from another."""
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return digest.hexdigest()
