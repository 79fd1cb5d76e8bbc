"""STEER: the schedules in the admin. Only registered tasks can be chosen, so the permission to add one runs no code."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_tasks.exceptions import InvalidTaskError

from tasks_app import wording
from tasks_app.admin import CappedPaginator, code
from tasks_app.audit import Actor
from tasks_app.catalog import task_paths
from tasks_app.engine import schedules
from tasks_app.engine.schedule_call import default_zone
from tasks_app.engine.schedules import title_of
from tasks_app.engine.timing import CRON
from tasks_app.models import Missed, Overlap, Status, TaskRun
from tasks_app.schedule_form import ScheduleForm, masked_arguments, pause_told, problem_of, wall_clock

Schedule: Any = schedules.Schedule


@admin.register(Schedule)
class ScheduleAdmin(admin.ModelAdmin):
    form = ScheduleForm
    list_display = ("title", "task_name", "how_often", "next_time", "left", "outcome", "problem")
    list_display_links = ("title",)
    list_select_related = ("rules",)
    paginator = CappedPaginator
    list_per_page = 100
    show_full_result_count = False
    ordering = ("next_run", "id")
    search_fields = ("name", "func")
    actions = ("run_now",)
    readonly_fields = ("state",)
    fieldsets = (
        (None, {"fields": ("name", "state", "task_path", "arguments", "keywords", "intended_date_kwarg", "cluster")}),
        ("When", {"fields": ("schedule_type", "minutes", "cron", "next_run", "repeats", "time_zone")}),
        ("Missed and overlapping times", {"fields": ("missed", "overlap")}),
    )

    class Media:
        css = {"all": ("admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = TaskRun.objects.filter(pk=OuterRef("rules__last_run"))
        return super().get_queryset(request).annotate(last_status=Subquery(last.values("status")[:1]))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Locked while its page is written: a cluster fires it before or after that, not in the midst of it."""
        if transaction.get_connection().in_atomic_block and object_id.isdigit():
            schedules.Schedule.objects.select_for_update().filter(pk=object_id).first()
        return super().get_object(request, object_id, from_field)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A function that is no registered task can be looked at and deleted; code alone can schedule it."""
        return super().has_change_permission(request, obj) and (obj is None or obj.func in task_paths())

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        form.keep_rules()

    @admin.action(description="Run the selected schedules now", permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for schedule in queryset:
            try:
                if schedule.func not in task_paths():
                    raise InvalidTaskError(f"{schedule.func} is not a registered task.")
                run = schedule.rules.run_now(request.user, by=Actor.of(request))
            except (InvalidTaskError, schedules.Schedule.rules.RelatedObjectDoesNotExist) as error:
                self.message_user(request, f"{title_of(schedule)} was not run: {error}", messages.ERROR)
            else:
                page = reverse("admin:tasks_app_taskrun_change", args=[run])
                told = format_html('{} has <a href="{}">a run</a> now.', title_of(schedule), page)
                self.message_user(request, told, messages.SUCCESS)

    # What the list and the page say

    @admin.display(description="schedule")
    def title(self, schedule: Any) -> str:
        return title_of(schedule)

    @admin.display(description="task")
    def task_name(self, schedule: Any) -> str:
        return schedule.func.rpartition(".")[2]

    @admin.display(description="task")
    def task_path(self, schedule: Any) -> str:
        return schedule.func

    @admin.display(description="how often")
    def how_often(self, schedule: Any) -> str:
        if schedule.schedule_type == CRON:
            return f"Cron {schedule.cron}"
        if schedule.minutes:
            return f"Every {wording.plural(schedule.minutes, 'minute')}"
        return schedule.get_schedule_type_display()

    @admin.display(description="next run")
    def next_time(self, schedule: Any) -> str:
        if not schedule.next_run or not schedule.repeats:
            return "-"
        return f"{wall_clock(schedule.next_run, self.time_zone(schedule)):%Y-%m-%d %H:%M:%S} {self.time_zone(schedule)}"

    @admin.display(description="left")
    def left(self, schedule: Any) -> str:
        return "for ever" if schedule.repeats < 0 else str(schedule.repeats)

    @admin.display(description="last run")
    def outcome(self, schedule: Any) -> SafeString | str:
        if not schedule.last_status:
            return "-"
        page = reverse("admin:tasks_app_taskrun_change", args=[schedule.rules.last_run])
        return format_html('<a href="{}">{}</a>', page, Status(schedule.last_status).label)

    @admin.display(description="problem")
    def problem(self, schedule: Any) -> str:
        return wording.clip(problem_of(schedule), 200)

    @admin.display(description="state")
    def state(self, schedule: Any) -> SafeString | str:
        """Why it does not fire, what it skipped, and its history."""
        if not schedule.pk:
            return "New"
        rules = getattr(schedule, "rules", None)
        said = problem_of(schedule) or "It fires as planned."
        if rules and rules.error and rules.noted_at:
            said = f"{wording.sentence(said)} Found so on {wording.moment(rules.noted_at)}."
        if rules and rules.is_paused(timezone.now()):
            said = pause_told(rules)
        if not schedule.repeats and rules and rules.last_due is None:
            said = " ".join(filter(None, (rules.skipped, "It never fired, and no repeats are left.")))
        elif not schedule.repeats:
            said = "It is done: no repeats are left."
        elif not schedule.next_run:
            said = "It does not fire: it has no next run."
        page = reverse("admin:tasks_app_taskrun_changelist")
        link = format_html('<a href="{}?schedule__id__exact={}">Its runs</a>', page, schedule.pk)
        return format_html("{} {}", wording.sentence(said), link)

    # Fields of the form, for those who may only look

    def arguments(self, schedule: Any) -> SafeString:
        return code(wording.pretty(masked_arguments(schedule)["arguments"]))

    @admin.display(description="keyword arguments")
    def keywords(self, schedule: Any) -> SafeString:
        return code(wording.pretty(masked_arguments(schedule)["keywords"]))

    def time_zone(self, schedule: Any) -> str:
        rules = getattr(schedule, "rules", None)
        return rules.time_zone if rules else default_zone()

    @admin.display(description="if missed")
    def missed(self, schedule: Any) -> str:
        rules = getattr(schedule, "rules", None)
        return (rules.get_missed_display() if rules else Missed.RUN_ONCE.label) or ""

    @admin.display(description="if the last run has not ended")
    def overlap(self, schedule: Any) -> str:
        rules = getattr(schedule, "rules", None)
        return (rules.get_overlap_display() if rules else Overlap.ALLOW.label) or ""
