from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from tasks_app import audit
from tasks_app.audit import By
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH, Failure
from tasks_app.models.stat import Grain

OURS = {
    "tasks_app.engine.execution.TimedOut": str(Failure.TIMED_OUT.label),
    "tasks_app.jsonable.NotJSON": "Result not kept",
}
"""Exceptions that are not the task's, but the engine's way to end it, in words."""


class FailureGroupQuerySet(models.QuerySet["FailureGroup"]):
    """Reads, one method a state. A group is in one of them at any time."""

    def muted(self) -> FailureGroupQuerySet:
        """Somebody knows it, and wants to hear no more of it for now."""
        return self.filter(Q(muted_until=None) | Q(muted_until__gt=Now()), muted_at__isnull=False)

    def dismissed(self) -> FailureGroupQuerySet:
        """Somebody is done with it, and nothing failed like that since."""
        return self._heard().filter(dismissed_at__gte=F("last_at"))

    def open(self) -> FailureGroupQuerySet:
        """All the others: nobody has said anything, or it failed again after that."""
        return self._heard().filter(Q(dismissed_at=None) | Q(dismissed_at__lt=F("last_at")))

    def newest(self) -> FailureGroupQuerySet:
        return self.order_by("-last_at", "-id")

    def _heard(self) -> FailureGroupQuerySet:
        return self.filter(Q(muted_at=None) | Q(muted_until__lte=Now()))


class FailureGroup(models.Model):
    """Failures of one task that look alike: the same exception, and the same message but for names and figures."""

    id = models.BigAutoField(primary_key=True)
    fingerprint = models.CharField(max_length=32, unique=True)
    task_path = models.CharField(max_length=TASK_PATH_LENGTH)
    failure = models.CharField(max_length=12, choices=Failure)
    exception = models.CharField(max_length=200)
    message = models.CharField(max_length=300, help_text="With what differs between them left out.")
    count = models.BigIntegerField(default=0, help_text="All that were ever counted.")
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    dismissed_at = models.DateTimeField(null=True, help_text="Somebody was done with it; the next one brings it back.")
    dismissed_by = models.CharField(max_length=150, blank=True, default="")
    muted_at = models.DateTimeField(null=True, help_text="Since when nobody is to hear of it.")
    muted_until = models.DateTimeField(null=True, help_text="When it is heard of again; empty: never.")
    muted_by = models.CharField(max_length=150, blank=True, default="")
    note = models.CharField(max_length=audit.REASON_LENGTH, blank=True, default="", help_text="Why, in their words.")

    objects = FailureGroupQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["-last_at", "-id"], name="failuregroup_newest"),
            models.Index(fields=["-count", "-id"], name="failuregroup_most"),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}"

    def get_absolute_url(self) -> str:
        from django.urls import reverse

        return reverse("failure", args=[self.pk])

    # Names

    @property
    def name(self) -> str:
        """The task's own name, without its module."""
        return self.task_path.rpartition(".")[2]

    @property
    def kind(self) -> str:
        """`ConnectTimeout`, or in words how it failed where the task raised no exception: `Worker lost`."""
        if self.exception in OURS:
            return OURS[self.exception]
        return self.exception.rpartition(".")[2] or self.get_failure_display()

    def without_kind(self, message: str) -> str:
        """What a message says after the name of the exception, which stands beside it."""
        return message.removeprefix(f"{self.kind}: ")

    @property
    def text(self) -> str:
        return self.without_kind(self.message)

    # State

    def state(self, now: datetime) -> str:
        """`open`, `dismissed` or `muted`: the word of the queryset's method."""
        if self.muted_at and (self.muted_until is None or self.muted_until > now):
            return "muted"
        return "dismissed" if self.dismissed_at and self.dismissed_at >= self.last_at else "open"

    @property
    def is_back(self) -> bool:
        """It failed again after somebody was done with it."""
        return self.dismissed_at is not None and self.dismissed_at < self.last_at

    # Verbs. Each is audited, and answers whether it changed anything.

    def dismiss(self, why: str = "", *, by: By = None) -> bool:
        """Be done with it: it is out of sight until it fails like that again."""
        actor = audit.actor_of(by)
        columns = {"dismissed_at": Now(), "dismissed_by": audit.clip(actor.name, audit.NAME_LENGTH)}
        not_yet = Q(dismissed_at=None) | Q(dismissed_at__lt=F("last_at")) | Q(muted_at__isnull=False)
        return self._put("dismiss", not_yet, {**columns, **HEARD}, why, by)

    def mute(self, until: datetime | None = None, why: str = "", *, by: By = None) -> bool:
        """Have it out of sight until then, or until somebody opens it again, however often it fails."""
        actor = audit.actor_of(by)
        columns = {"muted_at": Now(), "muted_until": until, "muted_by": audit.clip(actor.name, audit.NAME_LENGTH)}
        return self._put("mute", Q(), columns, why, by, {"until": until.isoformat()} if until else {})

    def reopen(self, why: str = "", *, by: By = None) -> bool:
        """Take both back."""
        aside = Q(muted_at__isnull=False) | Q(dismissed_at__isnull=False)
        return self._put("reopen", aside, {"dismissed_at": None, "dismissed_by": "", **HEARD}, why, by)

    def _put(
        self, verb: str, legal: Q, columns: dict[str, Any], why: str, by: By, details: dict[str, Any] | None = None
    ) -> bool:
        why = audit.clip(why.strip(), audit.REASON_LENGTH)
        with transaction.atomic():
            if not FailureGroup.objects.filter(legal, pk=self.pk).update(**columns, note=why):
                return False
            audit.record(verb, subject=f"failure {self}", by=by, why=why, details={"group": self.pk, **(details or {})})
        self.refresh_from_db()
        return True


HEARD: dict[str, Any] = {"muted_at": None, "muted_until": None, "muted_by": ""}


class FailureStat(models.Model):
    """How many of a group failed in one minute, hour or day, in one queue; it stays when the runs are pruned."""

    id = models.BigAutoField(primary_key=True)
    group = models.ForeignKey(
        FailureGroup, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="stats"
    )
    grain = models.IntegerField(choices=Grain)
    at = models.DateTimeField(help_text="When its time begins.")
    queue_name = models.CharField(max_length=QUEUE_NAME_LENGTH)
    count = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "grain", "at", "queue_name"], name="failurestat_one_of_each")
        ]
        # What is old enough to go, and which failure there was most of at some time.
        indexes = [models.Index(fields=["grain", "at"], name="failurestat_time")]

    def __str__(self) -> str:
        return f"{self.count} x failure {self.group_id} at {self.at}"
