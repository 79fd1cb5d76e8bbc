"""STEER: what a bulk act is asked for before it is sent: why, and for some of them a value."""

from __future__ import annotations

from typing import Any

from django import forms
from django_tasks.base import TASK_MAX_PRIORITY, TASK_MIN_PRIORITY
from django_tasks.exceptions import InvalidTaskError

from tasks_app.engine.verbs import check_queue
from tasks_app.fields import ReasonField
from tasks_app.forms import OnceForm
from tasks_app.models.run import QUEUE_NAME_LENGTH

BAD_PRIORITY = f"A priority is a whole number from {TASK_MIN_PRIORITY} to {TASK_MAX_PRIORITY}."


class OrderForm(OnceForm):
    """Why, for the audit."""

    why = ReasonField()

    @property
    def options(self) -> dict[str, Any]:
        """What the verb is given, as JSON."""
        return {}


class RetryForm(OrderForm):
    successful_too = forms.BooleanField(required=False)

    @property
    def options(self) -> dict[str, Any]:
        return {"successful_too": self.cleaned_data["successful_too"]}


class RunAtForm(OrderForm):
    """A wall clock's time, in the time zone of whoever reads the page."""

    run_after = forms.DateTimeField(
        error_messages={"required": "Choose a day and a time.", "invalid": "That is no time: write 2026-03-12 14:30."}
    )

    @property
    def options(self) -> dict[str, Any]:
        return {"run_after": self.cleaned_data["run_after"].isoformat()}


class PriorityForm(OrderForm):
    priority = forms.IntegerField(
        min_value=TASK_MIN_PRIORITY,
        max_value=TASK_MAX_PRIORITY,
        error_messages=dict.fromkeys(("required", "invalid", "min_value", "max_value"), BAD_PRIORITY),
    )

    @property
    def options(self) -> dict[str, Any]:
        return {"priority": self.cleaned_data["priority"]}


class MoveForm(OrderForm):
    queue = forms.CharField(
        max_length=QUEUE_NAME_LENGTH,
        error_messages={
            "required": "Name the queue.", "max_length": f"A queue's name has at most {QUEUE_NAME_LENGTH} characters."
        },
    )  # fmt: skip

    def clean_queue(self) -> str:
        try:
            check_queue(self.cleaned_data["queue"])
        except InvalidTaskError as error:
            raise forms.ValidationError(str(error)) from None
        return str(self.cleaned_data["queue"])

    @property
    def options(self) -> dict[str, Any]:
        return {"queue": self.cleaned_data["queue"]}


FORMS: dict[str, type[OrderForm]] = {
    "retry": RetryForm,
    "run-at": RunAtForm,
    "priority": PriorityForm,
    "move": MoveForm,
}
"""By the words of the deeds; the others ask for no value."""
