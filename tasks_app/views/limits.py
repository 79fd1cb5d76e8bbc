from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from tasks_app import catalog, wording
from tasks_app.access import may, operators_only
from tasks_app.audit import Actor
from tasks_app.models import TaskLimit
from tasks_app.pace import BadLimit
from tasks_app.policy_forms import LimitForm, PauseForm

PERMISSION = "tasks_app.change_tasklimit"


class Refused(Exception):
    """What was asked for cannot be done; the message is a sentence."""


@require_POST
@operators_only
def steer(request: HttpRequest) -> HttpResponse:
    """Pause a task, resume it, or limit how many of its runs are at work and how many begin in a time."""
    if not may(request, PERMISSION):
        messages.error(request, "You may not steer tasks: that needs the permission to change their limits.")
        return redirect("queues")
    by, do = Actor.of(request), request.POST.get("do", "")
    try:
        key = known(request.POST.get("task", ""))
        name = wording.visible(key.rpartition(".")[2])
        if do == "pause":
            until, why = PauseForm.read(request)
            TaskLimit.pause(key, by=by, why=why, until=until)
            said = f"The task {name} is paused: what is at hand ends, nothing else begins."
        elif do == "resume":
            TaskLimit.resume(key, by=by)
            said = f"The task {name} goes on."
        elif do == "limit":
            most, rate = LimitForm.read(request), request.POST.get("rate", "").strip()
            TaskLimit.change(key, most, rate or None, burst_of(request) if rate else 1, by=by)
            said = f"The limits of the task {name} are set."
        else:
            raise Refused("A task can be paused, resumed and limited.")
        messages.success(request, said)
    except (Refused, BadLimit, forms.ValidationError) as error:
        messages.error(request, error.messages[0] if isinstance(error, forms.ValidationError) else str(error))
    return redirect("queues")


def known(key: str) -> str:
    """The path of a task that there is, or of which there are limits already; raises `Refused` for any other."""
    if "\0" not in key and (catalog.loaded(key) or TaskLimit.objects.filter(pk=key[:300]).exists()):
        return key
    raise Refused("There is no such task.")


def burst_of(request: HttpRequest) -> int:
    text = request.POST.get("burst", "").strip()
    if not text:
        return 1
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise Refused("How many may begin at once is a whole number, from 1 on.")
    return int(text)
