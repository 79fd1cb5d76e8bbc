from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog, schedules, unschedule, wording
from tasks_app.access import may, operators_only, owner_of
from tasks_app.audit import Actor
from tasks_app.catalog import task_paths
from tasks_app.clock import database_now
from tasks_app.engine.schedule_call import default_zone
from tasks_app.fields import ReasonField
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import ScheduleRules
from tasks_app.schedule_form import MomentField, PageForm, Schedule, call_form, title_of
from tasks_app.signature import find_launchable, form_of, launchable
from tasks_app.subject import subject_of
from tasks_app.timetable import Preview

PAUSES = (
    ("", "until I resume it"), ("60", "for an hour"), ("1440", "for a day"), ("10080", "for a week"),
)  # fmt: skip
ADD, CHANGE, DELETE = "django_q.add_schedule", "django_q.change_schedule", unschedule.PERMISSION
LARGEST_ID = 2**31 - 1


class PauseForm(forms.Form):
    """For how long, or until when by the viewer's clock, and why."""

    minutes = forms.TypedChoiceField(choices=PAUSES, required=False, coerce=int, empty_value=None)
    until = MomentField(required=False)
    why = ReasonField()

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.fields["until"].zone = timezone.get_current_timezone()  # type: ignore[attr-defined]

    def end(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        minutes = self.cleaned_data["minutes"]
        return until or (database_now() + timedelta(minutes=minutes) if minutes else None)


# The list


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(schedules.looks(schedules.look(request.GET).lines))


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """All schedules, the one that fires next first."""
    found = schedules.look(request.GET)
    context = {
        "found": found,
        "lines": found.lines,
        "tabs": schedules.tabs(request.GET, found.state),
        "now": found.lines[0].now if found.lines else database_now(),
        "poll": poll_url(request, digest(schedules.looks(found.lines))),
        **rights(request),
    }
    return render(request, "schedules/_live.html" if is_poll(request) else "schedules.html", context)


def rights(request: HttpRequest) -> dict[str, Any]:
    """What the buttons of every schedule need to know."""
    return {
        "may_add": may(request, ADD),
        "may_change": may(request, CHANGE),
        "may_delete": may(request, DELETE),
        "registered": set(task_paths()),
        "pauses": PAUSES,
    }


# One of them


def version_of_one(request: HttpRequest, viewer: Viewer, pk: int) -> str:
    line = schedules.one(pk) if pk <= LARGEST_ID else None
    return digest(line.looks if line else None)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@live(version_of_one)
@operators_only
def schedule(request: HttpRequest, pk: int) -> HttpResponse:
    """What it does and did, and its form."""
    if request.method == "POST":
        return change(request, pk)
    line = line_of(pk)
    context = {
        "line": line, "subject": subject_of(line.about, request), "now": line.now,
        "poll": poll_url(request, digest(line.looks)), **rights(request),
    }  # fmt: skip
    if is_poll(request):
        return render(request, "schedules/_one.html", context)
    return render(request, "schedule.html", {**context, **forms_of(found(pk))})


def line_of(pk: int) -> schedules.Line:
    line = schedules.one(pk) if pk <= LARGEST_ID else None
    if line is None:
        raise Http404("There is no such schedule.")
    return line


def found(pk: int, *, is_locked: bool = False) -> Any:
    """The schedule itself; locked, a cluster fires it before or after what is done here, not in the midst of it."""
    every = Schedule.objects.select_for_update() if is_locked else Schedule.objects.select_related("rules")
    made = every.filter(pk=pk).first() if pk <= LARGEST_ID else None
    if made is None:
        raise Http404("There is no such schedule.")
    return made


def forms_of(made: Any, data: Any = None) -> dict[str, Any]:
    """Its own form and that of its task; none for what no form may call, whose arguments stay as they are."""
    try:
        asked = call_form(find_launchable(made.func), made, data)
    except catalog.UnknownTask:
        asked = None
    return {"form": PageForm(data, instance=made, call=asked), "call": asked}


def change(request: HttpRequest, pk: int) -> HttpResponse:
    """Save what the form says; with the button Preview only look at it."""
    with transaction.atomic():
        made = found(pk, is_locked=True)
        both = forms_of(made, request.POST)
        if done := kept(request, both, CHANGE):
            return done
    line = line_of(pk)
    context = {
        "line": line, "subject": subject_of(line.about, request), "now": line.now, "poll": poll_url(request, ""),
        **rights(request), **both,
    }  # fmt: skip
    return render(request, "schedule.html", context, status=status_of(request, both))


def status_of(request: HttpRequest, both: dict[str, Any]) -> int:
    """Who only looks at it has made no mistake yet, whatever is still to be filled in."""
    is_look = request.method != "POST" or request.POST.get("do") == "preview"
    return HTTPStatus.OK if is_look or is_valid(both) else HTTPStatus.UNPROCESSABLE_ENTITY


def is_valid(both: dict[str, Any]) -> bool:
    return both["form"].is_valid() and (both["call"] is None or both["call"].is_valid())


def kept(request: HttpRequest, both: dict[str, Any], permission: str) -> HttpResponse | None:
    """Where to go when it was saved; None when it is only looked at, or something is to be mended first."""
    form, do = both["form"], request.POST.get("do", "")
    if do == "preview":
        return None
    if do:
        form.add_error(None, "A schedule is saved, or only looked at before.")
    elif not may(request, permission):
        form.add_error(None, f"You may not save it: that needs the permission {permission}.")
    elif form.instance.func not in task_paths():
        form.add_error(None, f"{wording.visible(form.instance.func)} is no registered task; code alone can change it.")
    elif is_valid(both):
        try:
            made = form.keep(Actor.of(request))
        except InvalidTaskError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"The schedule {wording.visible(title_of(made))} is saved.")
            return redirect("schedule", pk=made.pk)
    return None


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@operators_only
def new(request: HttpRequest) -> HttpResponse:
    """First a task is chosen, then its form and its times are filled in."""
    path = request.POST.get("task") or request.GET.get("task", "")
    try:
        task = find_launchable(path) if path else None
    except catalog.UnknownTask as error:
        messages.error(request, str(error))
        task = None
    context: dict[str, Any] = {"task": task, **rights(request)}
    if task is None:
        tasks = [(each, form_of(each).about) for each in launchable()]
        return render(request, "schedules/new.html", {**context, "tasks": tasks})
    soon = (timezone.now() + timedelta(minutes=1)).replace(second=0, microsecond=0)
    made = Schedule(func=task.module_path, schedule_type=Schedule.DAILY, next_run=soon)
    both = forms_of(made, request.POST if request.method == "POST" else None)
    if request.method == "POST" and (done := kept(request, both, ADD)):
        return done
    return render(request, "schedules/new.html", {**context, **both}, status=status_of(request, both))


@never_cache
@require_safe
@operators_only
def preview(request: HttpRequest) -> HttpResponse:
    """What the times that a form has come to."""
    told = request.GET.get("schedule", "")
    made = Schedule.objects.select_related("rules").filter(pk=int(told)).first() if is_id(told) else None
    if told and made is None:
        preview = Preview(trouble="There is no such schedule.")
    else:
        preview = PageForm(request.GET, instance=made or Schedule(), call=None).preview
    return render(request, "schedules/_preview.html", {"preview": preview, "now": database_now()})


def is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LARGEST_ID


# Verbs


@require_POST
@operators_only
def steer(request: HttpRequest, pk: int) -> HttpResponse:
    """Run it now, pause it or resume it; the page tells what came of it. A deletion has a page of its own."""
    made = found(pk)
    do = request.POST.get("do", "")
    back = redirect("schedule", pk=pk) if request.POST.get("back") == "one" else redirect("schedules")
    permission = DELETE if do == "delete" else CHANGE
    if do not in (*DEEDS, "delete"):
        messages.error(request, "A schedule can be run now, paused, resumed and deleted.")
    elif not may(request, permission):
        messages.error(request, f"You may not do that to schedules: it needs the permission {permission}.")
    elif do == "delete":
        return redirect("bulk-run", unschedule.send(Actor.of(request), made).pk)
    else:
        try:
            messages.success(request, DEEDS[do](request, made))
        except InvalidTaskError as error:
            messages.error(request, f"{wording.visible(title_of(made))}: {error}")
    return back


def rules_of(made: Any) -> ScheduleRules:
    """Also of one that came in past every door, such as with a copy of the table."""
    return ScheduleRules.objects.get_or_create(schedule=made, defaults={"time_zone": default_zone()})[0]


def run_now(request: HttpRequest, made: Any) -> str:
    if made.func not in task_paths():
        raise InvalidTaskError(f"{wording.visible(made.func)} is no registered task, so no button runs it.")
    run = rules_of(made).run_now(owner_of(request), by=Actor.of(request))
    url = schedules.run_url(run)
    return format_html('{} has <a href="{}">a run</a> now.', wording.visible(title_of(made)), url)


def pause(request: HttpRequest, made: Any) -> str:
    form = PauseForm(request.POST)
    if "why" in form.errors:
        raise InvalidTaskError(str(form.errors["why"][0]))
    if not form.is_valid():
        raise InvalidTaskError("A pause lasts until it is resumed, an hour, a day, a week, or until a date and time.")
    rules = rules_of(made)
    rules.pause(by=Actor.of(request), why=form.cleaned_data["why"], until=form.end())
    until = rules.paused_until
    ends = f"It goes on by itself at {wording.moment(until)}." if until else "It waits to be resumed."
    return f"The schedule {wording.visible(title_of(made))} is paused. {ends}"


def resume(request: HttpRequest, made: Any) -> str:
    rules_of(made).resume(by=Actor.of(request))
    return f"The schedule {wording.visible(title_of(made))} goes on."


DEEDS: dict[str, Callable[[HttpRequest, Any], str]] = {"run": run_now, "pause": pause, "resume": resume}
