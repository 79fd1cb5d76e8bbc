from __future__ import annotations

from datetime import timedelta

from django.db import models

from tasks_app.models.histogram import BUCKETS, HistogramField
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH, Status

__all__ = ["BUCKETS", "FINENESS", "KEPT", "SHORTEST", "CountedTo", "Grain", "QueueStat", "RunStat"]

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


class Stat(models.Model):
    """What ended in one minute, hour or day, one way.

    A sentinel counts what ended (`tasks_app.engine.counting`), each run once, a few seconds later. Graphs read nothing
    else, and stay when the runs are pruned. Days are those of UTC.
    """

    id = models.BigAutoField(primary_key=True)
    grain = models.IntegerField(choices=Grain)
    at = models.DateTimeField(help_text="When its time begins.")
    queue_name = models.CharField(max_length=QUEUE_NAME_LENGTH)
    status = models.CharField(max_length=10, choices=Status)
    count = models.IntegerField()
    waits = HistogramField(help_text="How many of them waited how long; see `BUCKETS`.")
    lengths = HistogramField(help_text="How many of them ran how long in their last attempt.")
    waited = models.FloatField(help_text="Seconds, all of them together.")
    ran = models.FloatField(help_text="Seconds, all of them together.")

    class Meta:
        abstract = True


class RunStat(Stat):
    """Of one task, in one queue."""

    task_path = models.CharField(max_length=TASK_PATH_LENGTH)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["grain", "at", "task_path", "queue_name", "status"], name="runstat_one_of_each"
            ),
        ]
        # The course of one task, out of many.
        indexes = [models.Index(fields=["task_path", "grain", "at"], name="runstat_task")]

    def __str__(self) -> str:
        return f"{self.count} x {self.task_path} {self.status} at {self.at}"


class QueueStat(Stat):
    """Of all the tasks in one queue: a graph of everything reads few rows, however many tasks there are."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["grain", "at", "queue_name", "status"], name="queuestat_one_of_each"),
        ]

    def __str__(self) -> str:
        return f"{self.count} x {self.status} in {self.queue_name} at {self.at}"


class CountedTo(models.Model):
    """One row: all that had ended by this moment stands in the statistics, and nothing of what ended later."""

    at = models.DateTimeField()

    class Meta:
        verbose_name = "end of the statistics"
        verbose_name_plural = "end of the statistics"

    def __str__(self) -> str:
        return str(self.at)
