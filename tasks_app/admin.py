"""HISTORY: every run, to be read, and changed by the verbs alone; fast however many there are."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, cast

from django.apps import apps
from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tasks_app import wording
from tasks_app.catalog import task_paths
from tasks_app.health import waiting_queues
from tasks_app.ids import ids_beginning_with
from tasks_app.masking import masked, masked_call
from tasks_app.models import Cluster, TaskRun
from tasks_app.run_actions import RunActions
from tasks_app.templatetags.dumbwaiter import SHOWN, left_out, traceback_lines

admin.site.site_header = "Dumbwaiter"
admin.site.site_title = "Dumbwaiter"
admin.site.enable_nav_sidebar = False  # two tables need no map, and the list needs the room


def retire_stock_admin() -> None:
    """Take Django-Q2's own pages out of the admin: with them a permission to look is one to run code.

    They come after ours, whose app stands first; so they are brought in now, and do not come a second time.
    """
    stock = apps.get_app_config("django_q")
    import_module(f"{stock.name}.admin")
    for model in stock.get_models():
        if admin.site.is_registered(model):
            admin.site.unregister(model)


retire_stock_admin()


class CappedPaginator(Paginator):
    """Pages of a table that may be huge: it counts no further than `MOST`."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        return min(self.counted, self.MOST)

    @cached_property
    def counted(self) -> int:
        return cast(QuerySet[Any], self.object_list).values("pk")[: self.MOST + 1].count()

    @property
    def told(self) -> str:
        return wording.count(self.counted, self.MOST)


class ReadOnlyAdmin(admin.ModelAdmin):
    """To be looked at by staff who may view it, and changed by nobody here."""

    actions: Any = None
    sortable_by = ()  # any other order than the index's would sort the whole table
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    list_per_page = 50
    list_max_show_all = 0

    class Media:
        css = {"all": ("admin.css",)}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def queue_names() -> list[str]:
    """The queues that somebody takes from, that tasks name, or in which runs wait now."""
    taken = (queue for cluster in Cluster.objects.started() for queue in cluster.queues)
    return sorted({"default", *taken, *waiting_queues()})


class KnownValueFilter(admin.SimpleListFilter):
    """A filter on a field whose values are known without reading the table; any other can still stand in the URL."""

    field: str

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value and "\0" in value:  # which no row has, and PostgreSQL takes in no text
            return queryset.none()
        return queryset.filter(**{self.field: value}) if value else queryset


class TaskFilter(KnownValueFilter):
    title = "task"
    parameter_name = "task"
    field = "task_path"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(path, path.rpartition(".")[2]) for path in task_paths()]


class QueueFilter(KnownValueFilter):
    title = "queue"
    parameter_name = "queue"
    field = "queue_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in queue_names()]


class DateFilter(admin.SimpleListFilter):
    """How long ago a run was enqueued: ranges of the time that the list's own index is ordered by."""

    title = "enqueued"
    parameter_name = "enqueued"
    hours = {"hour": 1, "day": 24, "week": 7 * 24, "month": 30 * 24}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("hour", "In the last hour"),
            ("day", "In the last 24 hours"),
            ("week", "In the last 7 days"),
            ("month", "In the last 30 days"),
            ("older", "Before that"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        if value == "older":
            return queryset.filter(enqueued_at__lt=timezone.now() - timedelta(hours=self.hours["month"]))
        if value in self.hours:
            return queryset.filter(enqueued_at__gte=timezone.now() - timedelta(hours=self.hours[value]))
        return queryset


def code(text: str | SafeString) -> SafeString:
    return format_html('<pre class="code">{}</pre>', text)


def value(found: Any) -> SafeString:
    """A value as indented JSON, the end of a huge one left out."""
    rest = left_out(found)
    text = wording.pretty(found)[:SHOWN]
    return code(f"{text}\n… the end is left out: another {rest}" if rest else text)


@admin.register(TaskRun)
class TaskRunAdmin(RunActions, ReadOnlyAdmin):
    list_display = ("short", "status", "task", "queue_name", "enqueued", "wait", "ran", "tries", "owner")
    list_display_links = ("short",)
    list_select_related = ("owner",)
    list_filter = ("status", TaskFilter, QueueFilter, DateFilter)
    ordering = ("-enqueued_at", "-id")
    search_fields = ("id",)
    search_help_text = "An id or its beginning (at least 4 characters), or a task's name."
    fieldsets = (
        (None, {"fields": ("id", "task_path", "status", "failure", "failure_message", "owner")}),
        ("Arguments and result", {"fields": ("positional", "named", "result")}),
        ("Life", {"fields": ("enqueued_at", "run_after", "claimed_at", "started_at", "finished_at", "wait", "ran")}),
        ("Attempts", {"fields": ("tries", "claimed_by", "timeout", "told")}),
        ("Queue", {"fields": ("queue_name", "priority", "progress", "schedule_name")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskRun]:
        """Without what may be a megabyte a row and no list shows; the page of one run reads it then."""
        return super().get_queryset(request).defer("args", "kwargs", "return_value")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return self.ordering

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TaskRun], search_term: str
    ) -> tuple[QuerySet[TaskRun], bool]:
        """By id, by its beginning (a range of the primary key), or by the names of the tasks that there are."""
        term = search_term.strip().lower()
        if not term:
            return queryset, False
        named = [path for path in task_paths() if term in path.lower()]
        ids = ids_beginning_with(term)
        if ids and not named:
            return queryset.filter(id__range=ids), False
        return queryset.filter(Q(task_path__in=[*named, search_term.strip()]) | Q(id__range=ids or NO_IDS)), False

    @admin.display(description="id")
    def short(self, run: TaskRun) -> SafeString:
        return format_html("<code>{}</code>", run.short_id)

    @admin.display(description="task")
    def task(self, run: TaskRun) -> str:
        return run.name

    @admin.display(description="enqueued")
    def enqueued(self, run: TaskRun) -> str:
        return f"{timezone.localtime(run.enqueued_at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="waited")
    def wait(self, run: TaskRun) -> str:
        return wording.duration(run.wait_time(self.now(run)))

    @admin.display(description="ran")
    def ran(self, run: TaskRun) -> str:
        return wording.duration(run.run_time(self.now(run)))

    def now(self, run: TaskRun) -> datetime:
        return run.finished_at or timezone.now()

    @admin.display(description="attempt")
    def tries(self, run: TaskRun) -> str:
        return f"{run.attempt} of {run.max_attempts}"

    @admin.display(description="arguments")
    def positional(self, run: TaskRun) -> SafeString:
        return value(masked_call(run.task_path, run.args, run.kwargs)[0])

    @admin.display(description="keyword arguments")
    def named(self, run: TaskRun) -> SafeString:
        return value(masked_call(run.task_path, run.args, run.kwargs)[1])

    @admin.display(description="result")
    def result(self, run: TaskRun) -> SafeString:
        return value(masked(run.return_value))

    @admin.display(description="what went wrong")
    def told(self, run: TaskRun) -> SafeString:
        return format_html_join("", "{}", ((entry,) for entry in self.entries(run))) or SafeString("-")

    def entries(self, run: TaskRun) -> Iterator[SafeString]:
        for attempt in run.tries:
            if attempt.reason:
                took = wording.duration(attempt.duration)
                said = f"Attempt {attempt.number} on {attempt.worker}, {took}, {attempt.reason}: {attempt.message}"
                yield format_html("<p>{}</p>", said)
                if attempt.traceback:
                    yield code(traceback_lines(attempt.traceback))


NO_IDS = (uuid.UUID(int=1), uuid.UUID(int=0))


@admin.register(Cluster)
class ClusterAdmin(ReadOnlyAdmin):
    list_display = ("host", "name", "taken", "workers", "busy", "started_at", "heartbeat_at", "stopped_at", "lost_at")
    ordering = ("-started_at",)

    @admin.display(description="queues")
    def taken(self, cluster: Cluster) -> str:
        return ", ".join(cluster.queues)


# They need this module's pieces.
from tasks_app import audit_admin, policy_admin, schedule_admin, workflow_admin  # noqa: E402, F401
