"""STEER: a schedule as a form, for the admin and for its own page."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django_tasks.exceptions import InvalidTaskError

from tasks_app import audit, wording
from tasks_app.audit import By
from tasks_app.catalog import task_paths
from tasks_app.clock import available_timezones
from tasks_app.engine import schedules
from tasks_app.engine.schedule_call import NAMES_OF_OPTIONS, BadSchedule, default_zone, read_literals
from tasks_app.engine.schedules import title_of
from tasks_app.engine.timing import CRON, MINUTES, BadTiming, Plan, Timing, moment_of, zone_of
from tasks_app.fields import say_plainly
from tasks_app.masking import MASK, call_has_mask, has_mask, masked_call, masked_source, places_of, restored_call
from tasks_app.models import Missed, Overlap
from tasks_app.schedules import called_with
from tasks_app.signature import STAYS_MASKED, CallForm, form_of
from tasks_app.timetable import Preview

Schedule: Any = schedules.Schedule

WALL_CLOCK = "%Y-%m-%dT%H:%M:%S"
"""How a browser's own field for date and time writes them."""

ENGINES = ("next_run", "repeats")
"""What a cluster changes while the page is open: written only if the person changed it."""


WRONG_MINUTES = "Say how many minutes, at least 1 and at most 32 767."

RULES = ("time_zone", "missed", "overlap")
TIMES = ("schedule_type", "minutes", "cron", "time_zone", "next_run", "repeats")


class WallClockField(forms.DateTimeField):
    """A date and time of the schedule's own clock, as it was given: a switch of clocks may leave it out."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format=WALL_CLOCK)
    zone: tzinfo = UTC

    def to_python(self, value: Any) -> datetime | None:
        if not value:
            return None
        try:
            wall = parse_datetime(str(value).strip())
            if wall:
                wall = wall.replace(tzinfo=None)
                moment_of(wall, self.zone)  # which there is not at the ends of time
                return wall.replace(tzinfo=self.zone)
        except (ValueError, OverflowError):
            pass  # such as the 30th of February
        raise ValidationError("Give a date and a time, such as 2026-03-29 02:30.")


class MomentField(WallClockField):
    """The same as the moment that it is, or the first one after those that a switch of clocks leaves out."""

    def to_python(self, value: Any) -> datetime | None:
        given = super().to_python(value)
        return given and moment_of(given.replace(tzinfo=None), self.zone)


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
        help_text="By the clock of its time zone. Left empty, it does not fire.",
    )
    repeats = forms.IntegerField(
        min_value=-1,
        initial=-1,
        show_hidden_initial=True,
        error_messages=dict.fromkeys(("invalid", "min_value"), "Say how many more times, or -1 for ever."),
        help_text="How many more times: -1 for ever, 0 not any more. One for once is deleted after its time if this is"
        " -1; with 1 or more it fires once as well, and is kept.",
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
        error_messages = {"minutes": dict.fromkeys(("invalid", "min_value", "max_value"), WRONG_MINUTES)}
        labels = {"schedule_type": "How often", "cluster": "Queue", "intended_date_kwarg": "Argument for its time"}
        help_texts = {
            "name": "To tell it from others. Its runs bear it, too.",
            "schedule_type": "",
            "minutes": "Between two times, for the type Minutes.",
            "cron": "Five fields, minute to weekday, for the type Cron, which finds its next run by itself.",
            "cluster": "Empty for the task's own.",
            "intended_date_kwarg": "The keyword argument that is given the time that was intended, if any.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        say_plainly(self.fields.values())
        rules = getattr(self.instance, "rules", None)
        zone = rules.time_zone if rules else default_zone()
        next_run = self.instance.next_run
        self.initial.update(
            next_run=next_run and wall_clock(next_run, zone, rules.plan if rules else None),
            time_zone=zone,
            missed=rules.missed if rules else Missed.RUN_ONCE,
            overlap=rules.overlap if rules else Overlap.ALLOW,
        )
        if self.instance.pk:
            self.initial.update(task_path=self.instance.func, **masked_arguments(self.instance))
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

    def has_call(self) -> bool:
        """Its arguments have been read."""
        return True

    def call(self) -> tuple[str, list[Any], dict[str, Any]]:
        """The path of the task, its arguments and its keyword arguments, once all fields are clean."""
        return self.cleaned_data["task_path"], self.cleaned_data["arguments"], self.cleaned_data["keywords"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("schedule_type") == CRON:  # it has no such field on either page
            self.errors.pop("next_run", None)
            cleaned.pop("next_run", None)
        elif not self.instance.pk and not cleaned.get("next_run") and "next_run" not in self.errors:
            self.add_error("next_run", "When is it to run first?")
        if {"task_path", "arguments", "keywords"} <= cleaned.keys():
            self._restore_secrets(cleaned)
        return cleaned

    def _restore_secrets(self, cleaned: dict[str, Any]) -> None:
        """Those that the form showed masked; another task is not given them."""
        path, stored = cleaned["task_path"], stored_arguments(self.instance)
        call = cleaned["arguments"], cleaned["keywords"]
        if path == self.instance.func:
            call = restored_call(path, *call, (stored["arguments"], stored["keywords"]))
        if call_has_mask(path, *call):
            self.add_error("keywords" if has_mask(call[1]) else "arguments", STAYS_MASKED)
        cleaned["arguments"], cleaned["keywords"] = call

    def _post_clean(self) -> None:
        """Model and form together make a call that the task takes, at times that there are."""
        if self.instance.pk and "time_zone" not in self.changed_data:
            for name in ENGINES:
                if name not in self.changed_data:
                    self.cleaned_data.pop(name, None)
        super()._post_clean()  # type: ignore[misc]
        if self.errors or not self.has_call():
            return
        schedule = self.instance
        schedule.func, arguments, keywords = self.call()
        schedule.args = repr(tuple(arguments)) if arguments else ""
        schedule.kwargs = repr(keywords) if keywords else ""
        try:
            schedules.check(schedule, self.zone)
        except InvalidTaskError as error:
            self.add_error(None, str(error))

    def keep_rules(self) -> None:
        """Of the schedule that was just saved; raises `InvalidTaskError`."""
        kept, rules = self.instance.rules, {name: self.cleaned_data[name] for name in RULES}
        if any(getattr(kept, name) != value for name, value in rules.items()):
            kept.change(**rules)


class PageForm(ScheduleForm):
    """The same with the task's own form for its arguments, if it has one; else they stay as they are."""

    task_path = arguments = keywords = None  # type: ignore[assignment]

    def __init__(self, *args: Any, call: CallForm | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = call
        for field in self.fields.values():
            field.widget.attrs["class"] = "input"
        if call is not None and self.is_bound:
            # The engine gives it a value each time.
            intended = call.fields.get(f"arg-{self.data.get('intended_date_kwarg', '')}")
            if intended is not None:
                intended.required = False

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"] or ""
        if name and Schedule.objects.filter(name=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError("There is a schedule of this name already.")
        return name

    def clean(self) -> dict[str, Any]:
        """What the chosen type has no use for is left out, whatever was typed there before it was chosen."""
        cleaned = super().clean()
        kind = cleaned.get("schedule_type")
        for name, its_kind in {"minutes": MINUTES, "cron": CRON}.items():
            if kind != its_kind:
                self.errors.pop(name, None)
                cleaned[name] = None
        if kind == MINUTES and not cleaned.get("minutes") and "minutes" not in self.errors:
            self.add_error("minutes", WRONG_MINUTES)
        if kind == CRON and "cron" not in self.errors:
            try:
                Timing(kind, self.zone, None, cleaned.get("cron") or None).check()
            except BadTiming as error:
                self.add_error("cron", str(error))
        return cleaned

    def has_call(self) -> bool:
        return self.asked is None or self.asked.is_valid()

    def call(self) -> tuple[str, list[Any], dict[str, Any]]:
        stored = stored_arguments(self.instance)
        if self.asked is None:
            return self.instance.func, stored["arguments"], stored["keywords"]
        args, kwargs = self.asked.call()
        kept = stored["keywords"] if isinstance(stored["keywords"], dict) else {}
        return self.instance.func, args, {**kwargs, **options_among(kept)}

    @property
    def called_with(self) -> str:
        """The arguments of one that no form calls."""
        return called_with(self.instance.func, self.instance.args, self.instance.kwargs, 300)

    @property
    def preview(self) -> Preview:
        """What its times come to, saved or not."""
        for name in TIMES:
            if name in self.errors:
                return Preview(trouble=f"{self[name].label}: {self.errors[name][0]}")
        made, rules = self.instance, getattr(self.instance, "rules", None)
        timing = Timing(made.schedule_type, self.zone, made.minutes, made.cron or None)
        missed = (self.is_bound and self.cleaned_data.get("missed")) or self.initial["missed"]
        return Preview.of(timing, made.next_run, timezone.now(), made.repeats, rules.plan if rules else None, missed)

    def keep(self, by: By) -> Any:
        """Save it with its rules, and write down who did; raises `InvalidTaskError`."""
        verb = "change" if self.instance.pk else "add"
        details = {"fields": self.changed_data} if self.instance.pk else {"task": self.instance.func}
        with transaction.atomic():
            schedule = self.save()
            self.keep_rules()
            audit.record(verb, subject=f"schedule {title_of(schedule)}", by=by, details=details)
        return schedule


def options_among(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that are none of the task's, but said to async_task."""
    return {name: keywords[name] for name in NAMES_OF_OPTIONS & keywords.keys()}


def call_form(task: Any, schedule: Any, data: Any = None) -> CallForm:
    """The task's own form, filled in with what was sent or with the arguments of a schedule."""
    stored = stored_arguments(schedule)
    args, kwargs = stored["arguments"], stored["keywords"]
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        return form_of(task)(data)
    own = {key: value for key, value in kwargs.items() if key not in NAMES_OF_OPTIONS}
    return CallForm.from_call(task, args, own, data)


def wall_clock(at: datetime, zone: str, plan: Plan | None = None) -> datetime:
    """What the clock shows then; or with a plan what somebody had in mind, where a switch of clocks leaves that out."""
    try:
        return Timing("D", zone).meant(at, plan).replace(microsecond=0)
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


def masked_arguments(schedule: Any) -> dict[str, Any]:
    """The same as they are shown."""
    stored = stored_arguments(schedule)
    args, kwargs = masked_call(schedule.func, stored["arguments"], stored["keywords"])
    if isinstance(args, str):
        args = MASK if places_of(schedule.func) else masked_source(args)
    return {"arguments": args, "keywords": masked_source(kwargs) if isinstance(kwargs, str) else kwargs}


def problem_of(schedule: Any) -> str:
    rules = getattr(schedule, "rules", None)
    return (rules and (rules.error or rules.skipped)) or ""


def pause_told(rules: Any) -> str:
    """Since when and by whom it is paused, why, and until when."""
    by = f" by {rules.paused_by}" if rules.paused_by else ""
    why = f": {rules.pause_reason.rstrip('.')}" if rules.pause_reason else ""
    ends = f"goes on at {wording.moment(rules.paused_until)}" if rules.paused_until else "waits to be resumed"
    return f"Paused since {wording.moment(rules.paused_at)}{by}{why}. It {ends}."
