"""WATCH: what goes on around one object of the project, for a page of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django_tasks.exceptions import InvalidTaskError

from tasks_app.about import text_of
from tasks_app.access import is_open_to
from tasks_app.board import ATTEMPTS
from tasks_app.links import runs_url
from tasks_app.live import Viewer, digest
from tasks_app.models import TaskRun

ROWS = 10
SHOWN = (
    *("id", "task_path", "status", "claimed_by", "is_waiting", "previous", "attempt", "progress"),
    *("run_after", "enqueued_at", "finished_at"),
)


@dataclass(frozen=True)
class Activity:
    """The newest runs about an object, as far as somebody may see them."""

    about: str
    runs: list[TaskRun]
    now: datetime | None

    @classmethod
    def of(cls, about: str, viewer: Viewer) -> Activity:
        """By one query."""
        found = TaskRun.objects.visible_to(viewer).filter(about=about).newest().only(*SHOWN)
        runs: list[Any] = list(found.annotate(attempts_told=ATTEMPTS, read_at=Now())[:ROWS])
        for run in runs:
            run.attempts = run.__dict__.pop("attempts_told")
        return cls(about, runs, runs[0].read_at if runs else None)

    @property
    def id(self) -> str:
        """Of its part of a page, which may have several."""
        return f"activity-{digest(self.about)}"

    @property
    def is_going(self) -> bool:
        return any(not run.is_finished for run in self.runs)

    @property
    def version(self) -> str:
        return digest(self.about, *((run.pk, run.state, run.percent) for run in self.runs))

    @property
    def runs_url(self) -> str:
        return runs_url(about=self.about)

    @property
    def url(self) -> str:
        """Where its part of a page asks for news."""
        return reverse("activity")


def activity_for(instance: object, request: HttpRequest) -> Activity | None:
    """None for an object that no run can be about, and for who is nobody here.

    A page of the project may be open to all: who has not logged in has no runs there, not those of nobody.
    """
    if not (request.user.is_authenticated or is_open_to(request)):
        return None
    try:
        return Activity.of(text_of(instance), Viewer.of(request))
    except InvalidTaskError:
        return None
