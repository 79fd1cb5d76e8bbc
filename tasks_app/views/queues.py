from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app import queues, wording
from tasks_app.access import may, operators_only
from tasks_app.audit import Actor
from tasks_app.limited import LimitedTask
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import Queue
from tasks_app.pace import BadLimit
from tasks_app.policy_forms import PAUSES, LimitForm, PauseForm
from tasks_app.signature import launchable
from tasks_app.views import limits

PERMISSION = "tasks_app.change_queue"


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(queues.look().looks)


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """All queues: what waits, who takes it, what holds it up."""
    found = queues.look()
    limited = {task.key for task in found.tasks}
    free = [task.module_path for task in launchable() if task.module_path not in limited]
    chosen = request.GET.get("task", "")
    context = {
        "queues": queues.with_more(found),
        "free_tasks": free,
        "chosen": LimitedTask.free(chosen, found.now) if chosen in free else None,
        "trouble": "" if chosen in {"", *free, *limited} else "There is no such task. Choose one of the list.",
        "now": found.now,
        "pauses": PAUSES,
        "may_steer": may(request, PERMISSION),
        "may_limit": may(request, limits.PERMISSION),
        "poll": poll_url(request, digest(found.looks)),
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
        messages.error(request, "A queue can be paused, resumed, limited and drained.")
    except (BadLimit, forms.ValidationError) as error:
        messages.error(request, error.messages[0] if isinstance(error, forms.ValidationError) else str(error))
    return redirect("queues")


def pause(request: HttpRequest, name: str) -> str:
    until, why = PauseForm.read(request)
    Queue.pause(name, by=Actor.of(request), why=why, until=until)
    return f"The queue {wording.visible(name)} is paused: what is at hand ends, nothing else begins."


def resume(request: HttpRequest, name: str) -> str:
    Queue.resume(name, by=Actor.of(request))
    return f"The queue {wording.visible(name)} goes on."


def limit(request: HttpRequest, name: str) -> str:
    most = LimitForm.read(request)
    Queue.limit(name, most, by=Actor.of(request))
    if not most:
        return f"The queue {wording.visible(name)} has no limit now: any number of its runs may be at work at once."
    runs = f"{wording.plural(most, 'run')} {'is' if most == 1 else 'are'}"
    return f"The queue {wording.visible(name)} has a limit now: at most {runs} at work at once."


def drain(request: HttpRequest, name: str) -> str:
    """All of them, whatever the name."""
    until, why = PauseForm.read(request)
    names = [line.name for line in queues.look().lines]
    paused = Queue.drain(names, by=Actor.of(request), why=why or "Maintenance", until=until)
    if not paused:
        return "All queues were paused already." if names else "There is no queue to be paused."
    return f"{wording.plural(paused, 'queue')} {'is' if paused == 1 else 'are'} paused: what is at hand ends."


def undrain(request: HttpRequest, name: str) -> str:
    going = Queue.undrain(by=Actor.of(request))
    return f"{wording.plural(going, 'queue')} {'goes' if going == 1 else 'go'} on."


DEEDS = {"pause": pause, "resume": resume, "limit": limit, "drain": drain, "undrain": undrain}
