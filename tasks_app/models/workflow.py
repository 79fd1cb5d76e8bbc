from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from tasks_app.models.run import Status


class OnFailure(models.TextChoices):
    """What becomes of a workflow when one of its runs fails or is cancelled."""

    STOP = "stop", "Cancel all that has not begun"
    CONTINUE = "continue", "Go on wherever that run is not needed"


class Workflow(models.Model):
    """Runs that depend on each other, submitted as one and settled as one."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    status = models.CharField(max_length=10, choices=Status, default=Status.READY)
    on_failure = models.CharField(max_length=8, choices=OnFailure, default=OnFailure.STOP)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, db_index=False, related_name="+"
    )
    size = models.IntegerField(help_text="How many runs it has.")
    shape = models.JSONField(help_text="Its steps as they were written: nested chains and groups of step numbers.")
    enqueued_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True, help_text="When somebody wished it ended.")
    message = models.TextField(null=True, help_text="One sentence: why it failed or was cancelled.")

    class Meta:
        indexes = [
            models.Index(fields=["-enqueued_at", "-id"], name="workflow_newest"),
            models.Index(fields=["owner", "-enqueued_at", "-id"], name="workflow_owner_newest"),
        ]

    def __str__(self) -> str:
        return self.name


class WorkflowNews(models.Model):
    """A run of a workflow has ended and nobody has looked yet what follows from it; written by a trigger."""

    workflow_id = models.UUIDField()

    class Meta:
        verbose_name = "news of a workflow"
        verbose_name_plural = "news of workflows"
        indexes = [models.Index(fields=["workflow_id"], name="workflownews_workflow")]

    def __str__(self) -> str:
        return str(self.workflow_id)
