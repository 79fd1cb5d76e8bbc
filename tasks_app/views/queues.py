from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app import queues, wording
from tasks_app.access import may, operators_only
from tasks_app.audit import REASON_LENGTH, Actor
from tasks_app.clock import database_now
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import Queue
from tasks_app.pace import BadLimit

PAUSES = (("", "until I resume it"), ("15", "for 15 minutes"), ("60", "for an hour"), ("1440", "for a day"))
PERMISSION = "tasks_app.change_queue"


class PauseForm(forms.Form):
    """For how long, and why."""

    minutes = forms.TypedChoiceField(choices=PAUSES, required=False, coerce=int, empty_value=None)
    why = forms.CharField(max_length=REASON_LENGTH, required=False)


class LimitForm(forms.Form):
    """How many at once; empty for any number."""

    most = forms.IntegerField(
        min_value=1, max_value=10_000, required=False, error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value"), "A limit is a whole number from 1 to 10 000, or nothing for none."
        ),
    )  # fmt: skip


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest([line.looks for line in queues.look()])


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """All queues: what waits, who takes it, what holds it up."""
    lines = queues.look()
    context = {
        "lines": queues.with_more(lines),
        "now": lines[0].now if lines else database_now(),
        "pauses": PAUSES,
        "may_steer": may(request, PERMISSION),
        "poll": poll_url(request, digest([line.looks for line in lines])),
    }
    return render(request, "queues/_live.html" if is_poll(request) else "queues.html", context)


@require_POST
@operators_only
def steer(request: HttpRequest) -> HttpResponse:
    """Pause it, resume it, or limit how many of its runs are at work; the page tells what came of it."""
    if not may(request, PERMISSION):
        messages.error(request, "You may not steer queues: that needs the permission to change them.")
        return redirect("queues")
    name = request.POST.get("queue", "")
    try:
        messages.success(request, DEEDS[request.POST.get("do", "")](request, name))
    except KeyError:
        messages.error(request, "A queue can be paused, resumed and limited.")
    except (BadLimit, forms.ValidationError) as error:
        messages.error(request, error.messages[0] if isinstance(error, forms.ValidationError) else str(error))
    return redirect("queues")


def pause(request: HttpRequest, name: str) -> str:
    form = PauseForm(request.POST)
    if not form.is_valid():
        raise forms.ValidationError("A pause lasts until it is resumed, or 15 minutes, an hour or a day.")
    minutes = form.cleaned_data["minutes"]
    until = database_now() + timedelta(minutes=minutes) if minutes else None
    Queue.pause(name, by=Actor.of(request), why=form.cleaned_data["why"], until=until)
    return f"The queue {wording.visible(name)} is paused: what is at hand ends, nothing else begins."


def resume(request: HttpRequest, name: str) -> str:
    Queue.resume(name, by=Actor.of(request))
    return f"The queue {wording.visible(name)} goes on."


def limit(request: HttpRequest, name: str) -> str:
    form = LimitForm(request.POST)
    if not form.is_valid():
        raise forms.ValidationError(str(form.errors["most"][0]))
    most = form.cleaned_data["most"]
    Queue.limit(name, most, by=Actor.of(request))
    told = f"at most {most} runs are" if most else "any number of runs is"
    return f"Of the queue {wording.visible(name)} {told} at work at once."


DEEDS = {"pause": pause, "resume": resume, "limit": limit}
