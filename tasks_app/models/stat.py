from __future__ import annotations

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH, Failure, Status

BUCKETS = 64
"""How many lengths of time a histogram tells apart."""

SHORTEST = 0.001
"""Seconds: all that is shorter stands in the first bucket of a histogram."""

FINENESS = 2
"""Buckets for each doubling of the length: a quantile read from them is at most a fifth off."""


class Grain(models.IntegerChoices):
    """How long a time one row of statistics is about, in seconds."""

    MINUTE = 60, "Minute"
    HOUR = 3_600, "Hour"
    DAY = 86_400, "Day"


KEPT = {Grain.MINUTE: timedelta(days=2), Grain.HOUR: timedelta(days=40), Grain.DAY: timedelta(days=800)}
"""How long the rows of each grain are kept."""


class RunStat(models.Model):
    """What ended in one minute, hour or day: of one task, in one queue, one way.

    A sentinel counts what ended (`tasks_app.engine.counting`), each run once, a few seconds later. Graphs read nothing
    else, and stay when the runs are pruned. Days are those of UTC.
    """

    id = models.BigAutoField(primary_key=True)
    grain = models.IntegerField(choices=Grain)
    at = models.DateTimeField(help_text="When its time begins.")
    task_path = models.CharField(max_length=TASK_PATH_LENGTH)
    queue_name = models.CharField(max_length=QUEUE_NAME_LENGTH)
    status = models.CharField(max_length=10, choices=Status)
    count = models.IntegerField()
    waits = ArrayField(models.IntegerField(), help_text="How many of them waited how long; see `BUCKETS`.")
    lengths = ArrayField(models.IntegerField(), help_text="How many of them ran how long in their last attempt.")
    waited = models.FloatField(help_text="Seconds, all of them together.")
    ran = models.FloatField(help_text="Seconds, all of them together.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["grain", "at", "task_path", "queue_name", "status"], name="runstat_one_of_each"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} x {self.task_path} {self.status} at {self.at}"


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
    dismissed_at = models.DateTimeField(null=True, help_text="Somebody has seen it; it comes back with the next one.")
    dismissed_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        indexes = [models.Index(fields=["-last_at", "-id"], name="failuregroup_newest")]

    def __str__(self) -> str:
        return f"{self.task_path.rpartition('.')[2]}: {self.exception or self.get_failure_display()}"


class CountedTo(models.Model):
    """One row: all that had ended by this moment stands in the statistics, and nothing of what ended later."""

    at = models.DateTimeField()

    class Meta:
        verbose_name = "end of the statistics"
        verbose_name_plural = "end of the statistics"

    def __str__(self) -> str:
        return str(self.at)
