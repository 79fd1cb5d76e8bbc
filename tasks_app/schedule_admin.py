"""STEER: the schedules in the admin. Only registered tasks can be chosen, so the permission to add one runs no code."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_tasks.exceptions import InvalidTaskError

from tasks_app import audit, wording
from tasks_app.admin import CappedPaginator, code, task_paths
from tasks_app.engine import schedules
from tasks_app.engine.schedule_call import BadSchedule, default_zone, read_literals
from tasks_app.engine.timing import CRON, BadTiming, moment_of, zone_of
from tasks_app.models import Missed, Overlap, Status, TaskRun

Schedule: Any = schedules.Schedule

WALL_CLOCK = "%Y-%m-%dT%H:%M:%S"
"""How a browser's own field for date and time writes them."""

ENGINES = ("next_run", "repeats")
"""What a cluster changes while the page is open: written only if the person changed it."""


class WallClockField(forms.DateTimeField):
    """A date and time of the schedule's own clock; the moments that a switch of clocks makes odd are found as there."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format=WALL_CLOCK)
    zone: tzinfo = UTC

    def to_python(self, value: Any) -> datetime | None:
        if not value:
            return None
        try:
            wall = parse_datetime(str(value).strip())
            if wall:
                return moment_of(wall.replace(tzinfo=None), self.zone)
        except (ValueError, OverflowError):
            pass  # such as the 30th of February
        raise ValidationError("Give a date and a time, such as 2026-03-29 02:30.")


def listed(field: forms.JSONField) -> forms.JSONField:
    field.widget.attrs.update({"rows": 3, "spellcheck": "false"})
    return field


class ScheduleForm(forms.ModelForm):
    """A schedule of a registered task, its arguments as JSON."""

    task_path = forms.ChoiceField(label="Task", choices=lambda: [(path, path) for path in task_paths()])
    arguments = listed(forms.JSONField(initial=list, required=False, help_text='A list, such as [1, "two"].'))
    keywords = listed(
        forms.JSONField(
            label="Keyword arguments", initial=dict, required=False, help_text='A mapping, such as {"type": 1}.'
        )
    )
    next_run = WallClockField(
        required=False,
        show_hidden_initial=True,
        help_text="By the clock of its time zone. Cron finds it by itself. Without one it does not fire.",
    )
    repeats = forms.IntegerField(
        min_value=-1,
        initial=-1,
        show_hidden_initial=True,
        help_text="How many more times; -1 for ever. One for once is deleted when it is done if this is -1, else kept.",
    )
    time_zone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(available_timezones())],
        help_text="Days, weeks, months, years and cron keep this wall clock. A time left out by a switch of clocks"
        " becomes the first moment after it; one that comes twice counts the first time.",
    )
    missed = forms.ChoiceField(
        label="If missed", choices=Missed.choices, help_text="When no cluster was there for more than a minute."
    )
    overlap = forms.ChoiceField(label="If the last run has not ended", choices=Overlap.choices)

    class Meta:
        model = Schedule
        fields = ("name", "schedule_type", "minutes", "cron", "next_run", "repeats", "cluster", "intended_date_kwarg")
        labels = {"schedule_type": "How often", "cluster": "Queue", "intended_date_kwarg": "Argument for its time"}
        help_texts = {
            "name": "For people: its runs keep it.",
            "schedule_type": "",
            "minutes": "Between two times, for the type Minutes.",
            "cron": "Five fields, minute to weekday, for the type Cron.",
            "cluster": "Empty for the task's own.",
            "intended_date_kwarg": "The keyword argument that is given the time that was intended, if any.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = getattr(self.instance, "rules", None)
        zone = rules.time_zone if rules else default_zone()
        next_run = self.instance.next_run if self.instance.pk else timezone.now()
        self.initial.update(
            next_run=next_run and wall_clock(next_run, zone),
            time_zone=zone,
            missed=rules.missed if rules else Missed.RUN_ONCE,
            overlap=rules.overlap if rules else Overlap.ALLOW,
        )
        if self.instance.pk:
            self.initial.update(task_path=self.instance.func, **stored_arguments(self.instance))
        self.zone = self.data.get("time_zone") or zone
        try:
            self.fields["next_run"].zone = zone_of(self.zone)  # type: ignore[attr-defined]
        except BadTiming:
            self.zone = zone  # the field for it says so

    def clean_arguments(self) -> list[Any]:
        given = self.cleaned_data["arguments"]
        if not isinstance(given or [], list):
            raise ValidationError('Write the arguments as a list, such as [1, "two"].')
        return given or []

    def clean_keywords(self) -> dict[str, Any]:
        given = self.cleaned_data["keywords"]
        if not isinstance(given or {}, dict):
            raise ValidationError('Write the keyword arguments as a mapping, such as {"type": 1}.')
        return given or {}

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.instance.pk and not cleaned.get("next_run") and cleaned.get("schedule_type") != CRON:
            self.add_error("next_run", "When is it to run first?")
        return cleaned

    def _post_clean(self) -> None:
        """Model and form together make a call that the task takes, at times that there are."""
        if self.instance.pk and "time_zone" not in self.changed_data:
            for name in ENGINES:
                if name not in self.changed_data:
                    self.cleaned_data.pop(name, None)
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        schedule = self.instance
        schedule.func = self.cleaned_data["task_path"]
        arguments, keywords = self.cleaned_data["arguments"], self.cleaned_data["keywords"]
        schedule.args = repr(tuple(arguments)) if arguments else ""
        schedule.kwargs = repr(keywords) if keywords else ""
        try:
            schedules.check(schedule, self.zone)
        except InvalidTaskError as error:
            self.add_error(None, str(error))


def wall_clock(at: datetime, zone: str) -> datetime:
    try:
        return at.astimezone(zone_of(zone)).replace(tzinfo=None, microsecond=0)
    except BadTiming:
        return at.replace(tzinfo=None, microsecond=0)


def stored_arguments(schedule: Any) -> dict[str, Any]:
    """The arguments as values; those that cannot be read as they stand, to be mended."""
    found: dict[str, Any] = {"arguments": schedule.args or [], "keywords": schedule.kwargs or {}}
    with suppress(BadSchedule):
        found["arguments"] = read_literals(schedule.args, None)[0]
    with suppress(BadSchedule):
        found["keywords"] = read_literals(None, schedule.kwargs)[1]
    return found


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
        rules = {name: form.cleaned_data[name] for name in ("time_zone", "missed", "overlap")}
        if any(getattr(obj.rules, name) != value for name, value in rules.items()):
            obj.rules.change(**rules)

    @admin.action(description="Run the selected schedules now", permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for schedule in queryset:
            try:
                if schedule.func not in task_paths():
                    raise InvalidTaskError(f"{schedule.func} is not a registered task.")
                with transaction.atomic():
                    run = schedule.rules.run_now(request.user)
                    subject = f"schedule {title_of(schedule)}"
                    audit.record("run now", subject=subject, by=audit.Actor.of(request), runs=[run])
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
        if not schedule.repeats:
            said = "It is done: no repeats are left."
        elif not schedule.next_run:
            said = "It does not fire: it has no next run."
        page = reverse("admin:tasks_app_taskrun_changelist")
        link = format_html('<a href="{}?schedule__id__exact={}">Its runs</a>', page, schedule.pk)
        return format_html("{} {}", wording.sentence(said), link)

    # Fields of the form, for those who may only look

    def arguments(self, schedule: Any) -> SafeString:
        return code(wording.pretty(stored_arguments(schedule)["arguments"]))

    @admin.display(description="keyword arguments")
    def keywords(self, schedule: Any) -> SafeString:
        return code(wording.pretty(stored_arguments(schedule)["keywords"]))

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


def title_of(schedule: Any) -> str:
    return schedule.name or f"{schedule.func.rpartition('.')[2]} ({schedule.pk})"


def problem_of(schedule: Any) -> str:
    rules = getattr(schedule, "rules", None)
    return (rules and (rules.error or rules.skipped)) or ""
