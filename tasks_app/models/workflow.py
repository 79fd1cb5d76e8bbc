from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import Count

from tasks_app import audit
from tasks_app.audit import By
from tasks_app.engine import flow, workflow_statements
from tasks_app.jsonable import storable
from tasks_app.models.run import FINISHED, UNFINISHED, Status, TaskRun

LETTERS = {
    Status.SUCCESSFUL.value: flow.SUCCESSFUL,
    Status.FAILED.value: flow.FAILED,
    Status.CANCELLED.value: flow.CANCELLED,
}


class OnFailure(models.TextChoices):
    """What becomes of a workflow when one of its runs fails or is cancelled."""

    STOP = "stop", "Cancel all that has not begun"
    CONTINUE = "continue", "Go on wherever that run is not needed"


class Workflow(models.Model):
    """Runs that depend on each other, submitted as one and settled as one.

    READY until the first of its runs has ended, RUNNING until the last has, and then SUCCESSFUL if its last steps were:
    those that nothing comes after. `tasks_app.workflows` makes them, `tasks_app.engine.advance` moves them.
    """

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
            models.Index(fields=["status", "-enqueued_at", "-id"], name="workflow_status_newest"),
            models.Index(fields=["owner", "-enqueued_at", "-id"], name="workflow_owner_newest"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def length(self) -> timedelta | None:
        """From its enqueue to its end; None before that."""
        return self.finished_at - self.enqueued_at if self.finished_at else None

    @property
    def steps(self) -> models.QuerySet[TaskRun]:
        """Its runs in the order in which they were written."""
        return TaskRun.objects.filter(workflow=self).order_by("step")

    @property
    def totals(self) -> dict[str, int]:
        """How many of its runs are in each state that any of them is in."""
        counted = TaskRun.objects.filter(workflow=self).values_list("status").annotate(Count("id")).order_by("status")
        return dict(counted)

    @property
    def result(self) -> Any:
        """The result of its last step, for a group a list; None for what has none, or not yet."""
        found = self.steps.values_list("step", "status")
        states = {step: LETTERS.get(status, flow.HELD) for step, status in found if step is not None}
        value = flow.value_of(self.shape, states)
        last = self.steps.filter(step__in=flow.steps_in(value)).values_list("step", "return_value")
        return flow.put_in(value, {step: result for step, result in last if step is not None})

    def cancel(self, said: str = "", by: By = None) -> bool:
        """End it: what no worker holds at once, what one holds as `TaskRun.cancel` does; `said` is kept as the reason.

        Doing it again changes nothing. Answers whether it was still unfinished.
        """
        why, name = said, audit.actor_of(by).name
        said = storable(said or (f"Cancelled by {name}." if name else "Cancelled."), 500)
        about = {"workflow": self.pk}
        with transaction.atomic(), connection.cursor() as cursor:
            # The lock that whoever advances it takes first, too: so nothing begins while this looks.
            cursor.execute(workflow_statements.WISH_CANCELLED, {**about, "said": said})
            wished = cursor.fetchone()
            if wished is None:
                return False
            audit.record("cancel", subject=f"workflow {self.name}", by=by, why=why, details={"workflow": self.pk})
            unfinished = list(self.steps.filter(status__in=UNFINISHED).values_list("step", flat=True))
            said = wished[0]
            cursor.execute(workflow_statements.CANCEL, {**about, "steps": unfinished, "said": [said] * len(unfinished)})
            cursor.execute(workflow_statements.TELL, {**about, "steps": unfinished, "said": said})
            # Whatever could not be ended here, and its own end, are for whoever advances it.
            cursor.execute(workflow_statements.LEAVE_NEWS, about)
            cursor.execute(workflow_statements.TELL_SENTINELS)
        return True


class WorkflowNews(models.Model):
    """A run of a workflow has ended and nobody has looked yet what follows from it; written by a trigger."""

    workflow_id = models.UUIDField()

    class Meta:
        verbose_name = "news of a workflow"
        verbose_name_plural = "news of workflows"
        indexes = [models.Index(fields=["workflow_id"], name="workflownews_workflow")]

    def __str__(self) -> str:
        return str(self.workflow_id)
