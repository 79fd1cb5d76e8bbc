"""STEER: the policies of queues and tasks in the admin; every change goes through their verbs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from tasks_app import wording
from tasks_app.admin import CappedPaginator, queue_names
from tasks_app.audit import Actor
from tasks_app.catalog import task_paths
from tasks_app.fields import ReasonField, say_plainly
from tasks_app.models import Queue, TaskLimit
from tasks_app.models.queue import Policy
from tasks_app.pace import MOST, BadLimit, limits_of, unit_of
from tasks_app.policies import opening, told


class PolicyForm(forms.ModelForm):
    """Fields of the person's; the columns are written by the verbs."""

    is_paused = forms.BooleanField(
        label="Paused", required=False, help_text="Nothing of it is claimed; what runs ends."
    )
    until = forms.SplitDateTimeField(
        label="Until", required=False, help_text="When it goes on by itself. Empty: when somebody resumes it.",
        widget=AdminSplitDateTime,
    )  # fmt: skip
    reason = ReasonField(label="Why")
    most = forms.IntegerField(
        label="At most at work", required=False, min_value=1, max_value=MOST,
        help_text="How many of its runs may be held at once, over all hosts. Empty: any number.",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        say_plainly(self.fields.values())
        policy = self.instance
        if policy.pk:
            self.initial["most"] = policy.max_running
            if policy.is_paused(timezone.now()):
                self.initial.update(is_paused=True, until=policy.paused_until, reason=policy.pause_reason)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        until = cleaned.get("until")
        if cleaned.get("is_paused") and until and until <= timezone.now():
            self.add_error("until", "The end of a pause lies ahead of now.")
        return cleaned


class QueueForm(PolicyForm):
    """The policy of one queue."""

    class Meta:
        model = Queue
        fields = ("name",)


class TaskLimitForm(PolicyForm):
    """The limits of one task; only registered ones can be chosen."""

    rate = forms.CharField(
        label="Rate", required=False, max_length=20,
        help_text='How many of its runs may begin, over all hosts: "10/s", "10/m", "10/h". Empty: any number.',
    )  # fmt: skip
    at_once = forms.IntegerField(
        label="Burst", initial=1, min_value=1, max_value=MOST, help_text="How many of them may begin at one moment."
    )

    class Meta:
        model = TaskLimit
        fields = ("key",)
        labels = {"key": "Task"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "key" in self.fields:
            self.fields["key"] = forms.ChoiceField(label="Task", choices=[(path, path) for path in task_paths()])
        if self.instance.pk and self.instance.rate_count:
            shown = f"{self.instance.rate_count}/{unit_of(self.instance.rate_seconds)}"
            self.initial.update(rate=shown, at_once=self.instance.burst)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        try:
            limits_of(None, cleaned.get("rate") or None, cleaned.get("at_once"))
        except BadLimit as error:
            raise ValidationError(str(error)) from None
        return cleaned


class PolicyAdmin(admin.ModelAdmin):
    """Pauses and limits; whoever may change them may lift them, so nothing is deleted here."""

    actions = ("pause", "resume")
    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 100
    ordering = ("pk",)
    list_select_related = ("paused_by",)

    class Media:
        css = {"all": ("admin.css",)}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (self.model._meta.pk.name, "now") if obj else ("now",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Through the verbs, and of them only what the person has changed."""
        given, changed = form.cleaned_data, set(form.changed_data)
        if changed & {"is_paused", "until", "reason"}:
            if given["is_paused"]:
                self.model.pause(obj.pk, by=Actor.of(request), why=given["reason"], until=given["until"])
            else:
                self.model.resume(obj.pk, by=Actor.of(request))
        if "most" in changed or not change:
            self.model.limit(obj.pk, given["most"], by=Actor.of(request))
        if changed & {"rate", "at_once"}:
            burst = given["at_once"] if given["rate"] else 1
            TaskLimit.pace(obj.pk, given["rate"] or None, burst, by=Actor.of(request))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """There is nothing related."""

    @admin.action(description="Pause the selected", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for policy in queryset:
            self.model.pause(policy.pk, by=Actor.of(request))
        self.message_user(request, f"Paused: {', '.join(map(str, queryset))}.", messages.SUCCESS)

    @admin.action(description="Resume the selected", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for policy in queryset:
            self.model.resume(policy.pk, by=Actor.of(request))
        self.message_user(request, f"Resumed: {', '.join(map(str, queryset))}.", messages.SUCCESS)

    @admin.display(description="paused")
    def paused(self, policy: Policy) -> str:
        return wording.clip(told(policy), 200) if policy.is_paused(timezone.now()) else "-"

    @admin.display(description="at most at work")
    def most(self, policy: Policy) -> str:
        return str(policy.max_running or "-")

    @admin.display(description="now")
    def now(self, policy: Policy) -> str:
        if not policy.pk:
            return "New"
        return told(policy) if policy.is_paused(timezone.now()) else "It is not paused."


@admin.register(Queue)
class QueueAdmin(PolicyAdmin):
    form = QueueForm
    list_display = ("name", "paused", "most")
    fields = ("name", "now", "is_paused", "until", "reason", "most")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        known = set(Queue.objects.values_list("name", flat=True))
        return {"name": next((name for name in queue_names() if name not in known), "")}


@admin.register(TaskLimit)
class TaskLimitAdmin(PolicyAdmin):
    form = TaskLimitForm
    list_display = ("key", "paused", "most", "pace", "opens")
    fields = ("key", "now", "is_paused", "until", "reason", "most", "rate", "at_once")

    @admin.display(description="rate")
    def pace(self, policy: TaskLimit) -> str:
        return policy.rate or "-"

    @admin.display(description="next")
    def opens(self, policy: TaskLimit) -> str:
        at = opening(policy)
        return wording.moment(at) if at and at > timezone.now() else "-"
