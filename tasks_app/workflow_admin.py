"""HISTORY: the workflows, to be read and not to be changed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tasks_app import wording
from tasks_app.admin import ReadOnlyAdmin, value
from tasks_app.masking import masked
from tasks_app.models import Status, Workflow

LISTED = 200
"""So many of its runs are named on the page of a workflow."""


@admin.register(Workflow)
class WorkflowAdmin(ReadOnlyAdmin):
    list_display = ("name", "status", "size", "enqueued", "took", "owner", "message")
    list_select_related = ("owner",)
    list_filter = ("status",)
    ordering = ("-enqueued_at", "-id")
    fieldsets = (
        (None, {"fields": ("id", "name", "status", "message", "owner", "on_failure")}),
        ("Life", {"fields": ("enqueued_at", "finished_at", "cancel_requested_at")}),
        ("Runs", {"fields": ("size", "counted", "runs")}),
        ("Result", {"fields": ("last_result",)}),
    )

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return self.ordering

    @admin.display(description="enqueued")
    def enqueued(self, workflow: Workflow) -> str:
        return f"{timezone.localtime(workflow.enqueued_at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="took")
    def took(self, workflow: Workflow) -> str:
        return wording.duration(workflow.finished_at - workflow.enqueued_at) if workflow.finished_at else ""

    @admin.display(description="of them")
    def counted(self, workflow: Workflow) -> str:
        return ", ".join(f"{wording.count(count)} {Status(status).label}" for status, count in workflow.totals.items())

    @admin.display(description="the first of them")
    def runs(self, workflow: Workflow) -> SafeString:
        found = workflow.steps.defer("args", "kwargs", "return_value", "attempts")[:LISTED]
        rows = ((run.get_absolute_url(), (run.step or 0) + 1, run.name, run.get_status_display()) for run in found)
        return format_html("<ol>{}</ol>", format_html_join("", '<li value="{1}"><a href="{0}">{2}</a> {3}</li>', rows))

    @admin.display(description="of the last step")
    def last_result(self, workflow: Workflow) -> Any:
        return value(masked(workflow.result)) if workflow.is_finished else "-"
