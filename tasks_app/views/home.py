from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.asking import Asking
from tasks_app.forms import PracticeForm, ThumbnailsForm
from tasks_app.home import Home, Look
from tasks_app.live import Viewer, is_poll, live, poll_url

MINE = "mine"
"""In the URL, as `runs`: an operator's own recent runs instead of everybody's."""


def version(request: HttpRequest, viewer: Viewer) -> str:
    return look_of(request, viewer).version


def look_of(request: HttpRequest, viewer: Viewer) -> Look:
    """One for a request: a poll with news was told so by it, and is answered by it."""
    looks: dict[Viewer, Look] = request.__dict__.setdefault("looks", {})
    if viewer not in looks:
        looks[viewer] = Look.of(viewer, wants_own(request, viewer))
    return looks[viewer]


def wants_own(request: HttpRequest, viewer: Viewer) -> bool:
    """Whether an operator has chosen to see the own recent runs; a guest has none."""
    return viewer.is_staff and viewer.is_authenticated and request.GET.get("runs") == MINE


def whose(request: HttpRequest) -> str:
    """That choice as the end of a URL, for the forms that lead back to the page."""
    return f"?runs={MINE}" if wants_own(request, Viewer.of(request)) else ""


@never_cache
@require_safe
@live(version, is_personal=True)
def home(request: HttpRequest) -> HttpResponse:
    """The first page: is it healthy, what is running, what failed, send work down, what became of it."""
    return render(request, "home/_live.html", live_part(request)) if is_poll(request) else page(request)


def page(request: HttpRequest, status: int = HTTPStatus.OK, **forms: Any) -> HttpResponse:
    """The first page with these forms (`practice`, `thumbnails`) as somebody filled them in."""
    asking = Asking(request.GET)
    asking.word("runs", (MINE,), "Recent runs are everybody's, or mine; here are those that you see without asking.")
    context = {"practice": PracticeForm(), "thumbnails": ThumbnailsForm(), **forms, **live_part(request)}
    context |= {"trouble": asking.trouble}
    return render(request, "home.html", context, status=status)


def live_part(request: HttpRequest) -> dict[str, Any]:
    """What its live parts are made of, wherever the request came in."""
    viewer = Viewer.of(request)
    home = Home(viewer, look_of(request, viewer), wants_own(request, viewer))
    # What one is told of the own runs is not told to another operator, whose page is another one.
    own = {"viewer": str(viewer.pk)} if whose(request) else {}
    poll = poll_url(request, home.version, reverse("home"), **own)
    return {"home": home, "now": home.now, "poll": poll, "whose": whose(request)}
