from __future__ import annotations

from django.db import models

from tasks_app.models.run import TaskRun


class RunLog(models.Model):
    """One line that a task wrote while it ran, through logging or print."""

    class Level(models.IntegerChoices):
        """The numbers of Python's own logging."""

        DEBUG = 10
        INFO = 20
        WARNING = 30
        ERROR = 40
        CRITICAL = 50

    # Without a constraint in the database: checking it would cost a look-up for every line written.
    run = models.ForeignKey(TaskRun, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="log")
    attempt = models.SmallIntegerField()
    at = models.DateTimeField()
    level = models.SmallIntegerField(choices=Level)
    text = models.TextField()

    class Meta:
        verbose_name = "log line"
        indexes = [models.Index(fields=["run", "id"], name="runlog_run")]

    def __str__(self) -> str:
        return self.text[:80]
