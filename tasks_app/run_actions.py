"""STEER: what the admin's list of runs can do to them, asked back with the count before anything happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse

from tasks_app.audit import Actor
from tasks_app.models import TaskRun, TaskRunQuerySet
from tasks_app.wording import plural

if TYPE_CHECKING:
    from tasks_app.engine.acts import Tally

    Base = admin.ModelAdmin[TaskRun]
else:
    Base = object

MOST_COUNTED = 10_000


class RunActions(Base):
    """Retry, cancel and delete, each for those who have its permission."""

    actions: Any = ("retry_runs", "cancel_runs", "delete_runs")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tasks_app.retry_taskrun")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tasks_app.cancel_taskrun")

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Apart from Django's own method for it, which would also put its own delete button on the page of a run."""
        return request.user.has_perm("tasks_app.delete_taskrun")

    @admin.action(description="Retry the selected runs", permissions=["retry"])
    def retry_runs(self, request: HttpRequest, queryset: TaskRunQuerySet) -> HttpResponse | None:
        ask = "Send {} once more? Only those that failed or were cancelled are."
        return self.ask_or_do(request, queryset, "Retry", ask, queryset.retry)

    @admin.action(description="Cancel the selected runs", permissions=["cancel"])
    def cancel_runs(self, request: HttpRequest, queryset: TaskRunQuerySet) -> HttpResponse | None:
        ask = "End {}? Only those that have not ended are; a worker that is at one is told to stop it."
        return self.ask_or_do(request, queryset, "Cancel", ask, queryset.cancel)

    @admin.action(description="Delete the selected runs", permissions=["remove"])
    def delete_runs(self, request: HttpRequest, queryset: TaskRunQuerySet) -> HttpResponse | None:
        ask = "Delete {} with logs and files, for good? Only those that have ended are."
        return self.ask_or_do(request, queryset, "Delete", ask, queryset.delete_runs)

    def ask_or_do(
        self, request: HttpRequest, queryset: TaskRunQuerySet, verb: str, ask: str, act: Callable[..., Tally]
    ) -> HttpResponse | None:
        """A page that asks, at first; its button comes here again, and then it is done."""
        if request.POST.get("confirmed"):
            tally = act(by=Actor.of(request), why=request.POST.get("why", ""))
            level = messages.SUCCESS if tally.changed and not tally.troubles else messages.WARNING
            self.message_user(request, str(tally), level)
            return None
        counted = queryset.order_by().values("pk")[: MOST_COUNTED + 1].count()
        asked = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": f"{verb} runs",
            "question": ask.format(plural(counted, "run", MOST_COUNTED)),
            "button": f"{verb} {plural(counted, 'run', MOST_COUNTED)}",
            "action": request.POST["action"],
            "select_across": request.POST.get("select_across", "0"),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        }
        return TemplateResponse(request, "admin/tasks_app/confirm.html", asked)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Ids that are none are left out: Django would answer them with an error of the server."""
        if request.method == "POST" and ACTION_CHECKBOX_NAME in request.POST:
            posted: QueryDict = request.POST.copy()
            posted.setlist(ACTION_CHECKBOX_NAME, [text for text in posted.getlist(ACTION_CHECKBOX_NAME) if is_id(text)])
            request.POST = posted  # type: ignore[assignment]
        return super().changelist_view(request, extra_context)


def is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
