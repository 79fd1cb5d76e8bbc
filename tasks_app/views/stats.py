from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.access import operators_only
from tasks_app.figures import SORTS, Figures, beat, counted_to, uncounted_since
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH
from tasks_app.paging import changed
from tasks_app.stats import WINDOWS, Window

USUAL_WINDOW = "24h"
USUAL_SORT = "time"

SHOWN = 50
"""Tasks in the table, unless all of them are wished for."""

MOST_SHOWN = 1_000


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(beat(window_of(request), *counted_to()))


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """How much ended when and how, how long it waited and ran, of which tasks and queues."""
    window = window_of(request)
    now, counted = counted_to()
    task, queue = named(request, "task", TASK_PATH_LENGTH), named(request, "queue", QUEUE_NAME_LENGTH)
    sort = request.GET.get("sort", "")
    figures = Figures(window, now, task, queue, sort if sort in SORTS else USUAL_SORT)
    most = MOST_SHOWN if request.GET.get("all") == "1" else SHOWN
    context = {
        "figures": figures,
        "tasks": figures.tasks[:most],
        "queues": figures.queues[:most],
        "more": len(figures.tasks) - most,
        "every_task": changed(request.GET, all="1"),
        "task": task,
        "queue": queue,
        "window": window,
        "windows": [(each, changed(request.GET, window=each.name), each is window) for each in WINDOWS.values()],
        "heads": {name: changed(request.GET, sort=name) for name in SORTS},
        "uncounted_since": uncounted_since(now, counted),
        "trouble": trouble(request),
        "now": now,
        "poll": poll_url(request, digest(beat(window, now, counted))),
    }
    return render(request, "stats/_live.html" if is_poll(request) else "stats.html", context)


def window_of(request: HttpRequest) -> Window:
    return WINDOWS.get(request.GET.get("window", ""), WINDOWS[USUAL_WINDOW])


def named(request: HttpRequest, name: str, longest: int) -> str:
    return request.GET.get(name, "").replace("\0", "")[:longest]


def trouble(request: HttpRequest) -> str:
    """One sentence when the URL asked for what there is not."""
    if request.GET.get("window", USUAL_WINDOW) not in WINDOWS:
        return f"There is no such window; here are the last {WINDOWS[USUAL_WINDOW].told}."
    if request.GET.get("sort", USUAL_SORT) not in SORTS:
        return "The tables cannot be sorted like that; here is first what took the most time."
    return ""
