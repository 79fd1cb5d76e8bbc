from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.access import operators_only
from tasks_app.asking import Asking
from tasks_app.clock import database_now
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.log_file import LEVELS, tail
from tasks_app.paging import SIZES, changed, size_of

LONGEST_SEARCH = 200
ALL = "INFO"
"""Lines below this level are for whoever asks for them."""


def version(request: HttpRequest, viewer: Viewer) -> str:
    """Of the file alone: the database is not asked."""
    try:
        found = settings.LOG_FILE.stat()
    except OSError:
        return digest("none")
    return digest(found.st_ino, found.st_size, found.st_mtime_ns)


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """The end of the log that the workers of this host write."""
    seen = version(request, Viewer.of(request))
    asking = Asking(request.GET)
    level = asking.word("level", LEVELS, f"A level is {', '.join(LEVELS[:-1])} or {LEVELS[-1]}; here are all of them.")
    q = asking.search("q", LONGEST_SEARCH)
    count, trouble = size_of(request.GET)
    asking.tell(trouble)
    context = {
        "tail": tail(settings.LOG_FILE, count, q, level),
        "path": settings.LOG_FILE,
        "levels": [(each, changed(request.GET, level=each), each == level) for each in LEVELS[1:-1]],
        "every_level": changed(request.GET, level=None),
        "level": level,
        "q": q,
        "count": count,
        "sizes": [(each, changed(request.GET, size=str(each)), each == count) for each in SIZES],
        "trouble": asking.trouble,
        "now": database_now(),
        "poll": poll_url(request, seen),
    }
    return render(request, "logs/_live.html" if is_poll(request) else "logs.html", context)
