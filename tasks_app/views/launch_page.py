from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from tasks_app import catalog
from tasks_app.access import get_run, may, owner_of
from tasks_app.again import Launch
from tasks_app.asking import Asking
from tasks_app.clock import database_now
from tasks_app.models import TaskRun
from tasks_app.signature import find_launchable, form_of, launchable
from tasks_app.steering import LAUNCH
from tasks_app.takers import warning_for
from tasks_app.usual import usual

LONGEST_SEARCH = 200


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The tasks that there are, to choose one from."""
    if not may(request, LAUNCH):
        return forbidden(request)
    asking = Asking(request.GET)
    q = asking.search("q", LONGEST_SEARCH)
    tasks = launchable()
    found = [task for task in tasks if matches(task, q)]
    known = usual([task.module_path for task in found], database_now())
    cards = [
        {"path": task.module_path, "form": form_of(task), "queue": task.queue_name, "usual": known[task.module_path]}
        for task in found
    ]
    context = {"cards": cards, "q": q, "has_tasks": bool(tasks), "trouble": asking.trouble}
    return render(request, "launch.html", context)


def matches(task: Any, q: str) -> bool:
    """Each word stands in its path or its docstring."""
    text = f"{task.module_path} {form_of(task).about}".casefold()
    return all(word in text for word in q.casefold().split())


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def launch(request: HttpRequest, path: str) -> HttpResponse:
    """The form of one task; sent, it leads to the new run."""
    return ask_or_send(request, path)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def again(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The same form, filled in as a past run was called."""
    past = get_run(request, pk, TaskRun.objects.defer("return_value", "attempts"))
    return ask_or_send(request, past.task_path, past)


def ask_or_send(request: HttpRequest, path: str, past: TaskRun | None = None) -> HttpResponse:
    if not may(request, LAUNCH):
        return forbidden(request)
    try:
        task = find_launchable(path)
    except catalog.UnknownTask as unknown:
        if past is None:
            raise Http404(str(unknown)) from None
        messages.error(request, str(unknown))
        return redirect(past)
    launch = Launch(task, request.POST if request.method == "POST" else None, past)
    if request.method == "POST" and launch.is_fine and (run := launch.send(owner_of(request))):
        if run.was_standing:
            messages.success(request, "It had been sent already: this is that run.")
        if warning := warning_for(run):
            messages.warning(request, warning)
        return redirect(run)
    status = HTTPStatus.UNPROCESSABLE_ENTITY if request.method == "POST" else HTTPStatus.OK
    known = usual([task.module_path], database_now())[task.module_path]
    context = {"launch": launch, "task": task, "past": past, "form": launch.form, "usual": known}
    context["key"] = launch.once.new_key
    return render(request, "launch_task.html", context, status=status)


def forbidden(request: HttpRequest) -> HttpResponse:
    return render(request, "launch_forbidden.html", status=HTTPStatus.FORBIDDEN)
