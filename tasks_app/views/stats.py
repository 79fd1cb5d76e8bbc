from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.access import operators_only
from tasks_app.asking import Asking
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
    asking = Asking(request.GET)
    asking.word("window", WINDOWS, f"There is no such window; here are the last {WINDOWS[USUAL_WINDOW].told}.")
    sort = asking.word("sort", SORTS, "The tables cannot be sorted like that; here is first what took the most time.")
    task, queue = asking.name("task", TASK_PATH_LENGTH), asking.name("queue", QUEUE_NAME_LENGTH)
    figures = Figures(window, now, task, queue, sort or USUAL_SORT)
    is_whole = asking.word("all", ("1",), f"The table has {SHOWN} tasks at most, or with all=1 every one.")
    most = MOST_SHOWN if is_whole else SHOWN
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
        "trouble": asking.trouble,
        "now": now,
        "poll": poll_url(request, digest(beat(window, now, counted))),
    }
    return render(request, "stats/_live.html" if is_poll(request) else "stats.html", context)


def window_of(request: HttpRequest) -> Window:
    return WINDOWS.get(request.GET.get("window", ""), WINDOWS[USUAL_WINDOW])
