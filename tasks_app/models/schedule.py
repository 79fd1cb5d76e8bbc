from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models

from tasks_app.models.run import ABOUT_LENGTH

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from tasks_app.audit import By


class Missed(models.TextChoices):
    """What becomes of a time at which no cluster was there, once it is over by more than a minute."""

    RUN_ONCE = "once", "Run once, as soon as a cluster is there"
    """However many times were missed."""

    SKIP = "skip", "Skip it and wait for the next time"


class Overlap(models.TextChoices):
    """What becomes of a time at which the last run has not ended yet."""

    ALLOW = "allow", "Run beside it"
    """As Django-Q2 does."""

    SKIP = "skip", "Skip it and wait for the next time"


class ScheduleRules(models.Model):
    """What Django-Q2's own row of a schedule has no column for: its rules, and what the engine remembers of it."""

    schedule = models.OneToOneField(
        "django_q.Schedule", primary_key=True, on_delete=models.CASCADE, related_name="rules"
    )
    time_zone = models.CharField(max_length=64, help_text="The clock that days, weeks, months, years and cron go by.")
    missed = models.CharField(max_length=4, choices=Missed, default=Missed.RUN_ONCE)
    overlap = models.CharField(max_length=5, choices=Overlap, default=Overlap.ALLOW)

    # Its times go by while it is paused, and count as missed ones afterwards.
    paused_at = models.DateTimeField(null=True, editable=False, help_text="Since when it does not fire.")
    paused_until = models.DateTimeField(
        null=True, editable=False, help_text="When it goes on by itself, or was resumed; empty: never."
    )
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        db_index=False,
        related_name="+",
    )
    pause_reason = models.CharField(max_length=500, null=True, editable=False)

    about = models.CharField(
        max_length=ABOUT_LENGTH, null=True, editable=False, help_text="The object that its runs are about."
    )

    plan = models.JSONField(null=True, editable=False, help_text="What its times are counted from.")
    options = models.JSONField(default=dict, editable=False, help_text="The task's own options when it was saved.")
    last_due = models.DateTimeField(null=True, editable=False, help_text="The time that it was fired for last.")
    last_run = models.UUIDField(null=True, editable=False)

    error = models.TextField(null=True, editable=False, help_text="One sentence: why it cannot be fired.")
    broken_version = models.CharField(
        max_length=20, null=True, editable=False, help_text="The version of the row that is broken; another is tried."
    )
    skipped = models.TextField(null=True, editable=False, help_text="One sentence: why it was skipped the last time.")
    noted_at = models.DateTimeField(null=True, editable=False, help_text="When it was found broken, or skipped.")

    class Meta:
        verbose_name = "rules of a schedule"
        verbose_name_plural = "rules of schedules"

    def __str__(self) -> str:
        return f"rules of schedule {self.pk}"

    def change(self, **rules: Any) -> None:
        """Set `time_zone`, `missed`, `overlap`, or the object that its runs are `about`; raises `InvalidTaskError`."""
        from tasks_app.engine import schedules

        schedules.change_rules(self, rules)

    def run_now(self, owner: User | None = None, *, by: By = None, why: str = "") -> uuid.UUID:
        """Submit a run of it at once, beside its times, which stay; raises `InvalidTaskError` when it is broken."""
        from tasks_app.engine import schedules

        return schedules.run_now(self, owner, by, why)

    def pause(self, *, by: By = None, why: str = "", until: datetime | None = None) -> None:
        """Fire it no more, until then or until somebody resumes it; raises `InvalidTaskError` for a bad moment."""
        from tasks_app.engine import schedules

        schedules.pause(self, by, why, until)

    def resume(self, *, by: By = None, why: str = "") -> bool:
        """End its pause; a time that went by meanwhile is a missed one. Answers whether it was paused."""
        from tasks_app.engine import schedules

        return schedules.resume(self, by, why)

    def is_paused(self, now: datetime) -> bool:
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > now)
