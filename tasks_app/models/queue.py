from __future__ import annotations

from django.conf import settings
from django.db import models

from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH


class Policy(models.Model):
    """What holds for a queue or a task on all hosts."""

    paused_at = models.DateTimeField(null=True, blank=True, help_text="Since when nothing of it is claimed.")
    paused_until = models.DateTimeField(null=True, blank=True, help_text="When it goes on by itself; empty: never.")
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    pause_reason = models.CharField(max_length=500, blank=True, default="")
    max_running = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many of its runs may be held at once, over all hosts; empty: any number."
    )

    class Meta:
        abstract = True


class Queue(Policy):
    """The policy of one queue. A queue without a row has none."""

    name = models.CharField(max_length=QUEUE_NAME_LENGTH, primary_key=True)

    def __str__(self) -> str:
        return self.name


class TaskLimit(Policy):
    """The limits of one task, and how much of its rate is used up."""

    key = models.CharField(max_length=TASK_PATH_LENGTH, primary_key=True, help_text="The path of the task.")
    rate_count = models.PositiveIntegerField(null=True, help_text="How many runs may begin in `rate_seconds`.")
    rate_seconds = models.FloatField(null=True)
    burst = models.PositiveIntegerField(default=1, help_text="How many of them may begin at the same moment.")
    next_at = models.DateTimeField(
        null=True, help_text="When the next would begin if all came evenly: the TAT of the generic cell rate algorithm."
    )

    class Meta:
        verbose_name = "limit of a task"
        verbose_name_plural = "limits of tasks"

    def __str__(self) -> str:
        return self.key
