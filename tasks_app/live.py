"""WATCH: pages that ask again and again whether there is news, and what that costs when there is none.

A page with a live part has a version: a short text that is another one whenever the part would look different. The page
hands it back, signed, with each poll. A view that is `live` tells its version for a `Viewer` by one query; while that
is the signed one, the answer is 204 and nothing else is asked of the database, not even who is there: the signature
says for whom the page was made, and a browser with another session has no use for it. All it ever learns is "no news".

Many readers of one page ask the database once, not each: a version is remembered for a moment, and what an operator is
told is told to the others. A version that differs between operators would only be looked at more often than it has to.
And when there is news, it comes to all of them at once: the part is drawn once for those who see the same (`drawn`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase

from tasks_app import drawn
from tasks_app.access import is_operator
from tasks_app.paging import kept

SALT = "tasks_app.live"
LONGEST_SECONDS = 12 * 3600
"""A page that was open for longer is asked who it is."""

MEMORY_SECONDS = 0.5
"""For so long a version is remembered; news come later by as much at most."""

MOST_REMEMBERED = 1_000

SEEN = "seen"
"""The name under which a page hands its version back."""

TOLD, POLL = "told_version", "last_poll"
"""What a request was told by its poll, and what its page will ask, for as long as it is answered."""


@dataclass(frozen=True)
class Viewer:
    """Whom a page is for: as much of a user as it takes to know what may be seen."""

    pk: int | None
    is_staff: bool

    @classmethod
    def of(cls, request: HttpRequest) -> Viewer:
        return cls(request.user.pk, is_operator(request))

    @property
    def is_authenticated(self) -> bool:
        return self.pk is not None


Version = Callable[..., str]
"""Tells the version of a view's live part by one query, from the request, the `Viewer` and the arguments of its URL."""

View = Callable[..., HttpResponseBase]


def live(version: Version, *, is_personal: bool = False) -> Callable[[View], View]:
    """Mark a view as one that tells its version; `middleware.NoNewsMiddleware` answers polls that have it already.

    One that `is_personal` shows something else to each person, even to those who may see and do the same.
    """

    def marked(view: View) -> View:
        @wraps(view)
        def shown(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            told = request.__dict__.get(TOLD)
            if told is None or not is_poll(request):
                return view(request, **kwargs)
            key = (view, place(request.path, request.GET), told, *drawn.eyes(request, is_personal))
            return drawn.once(key, request, lambda: view(request, **kwargs), lambda: last_poll(request))

        shown.version = version  # type: ignore[attr-defined]
        return shown

    return marked


def digest(*looks: object) -> str:
    """A version: another text whenever any of these is another."""
    return blake2b(repr(looks).encode(errors="replace"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Poll:
    """Where a page asks for news, whoever it is that asks."""

    path: str
    query: tuple[tuple[str, tuple[str, ...]], ...]
    version: str

    def url(self, request: HttpRequest) -> str:
        """The same for the page of this request, signed."""
        viewer = Viewer.of(request)
        told = [self.version, viewer.pk, viewer.is_staff, digest(self.path, sorted(self.query)), session_of(request)]
        query = [*self.query, (SEEN, (signing.dumps(told, salt=SALT, compress=True),))]
        return f"{self.path}?{urlencode(query, doseq=True)}"


def poll_url(request: HttpRequest, version: str, path: str = "", **values: str) -> str:
    """Where the page of this request asks for news; `values` are put into its query, to be given back.

    A form that answers with parts of another page names its path.
    """
    query = kept(request.GET)
    query.pop(SEEN, None)
    for name, value in values.items():
        query[name] = value
    poll = request.__dict__[POLL] = Poll(path or request.path, lists(query), version)
    return poll.url(request)


def last_poll(request: HttpRequest) -> Poll | None:
    """What the page of this request was given to ask."""
    return request.__dict__.get(POLL)


def has_no_news(request: HttpRequest, version: Version, kwargs: dict[str, Any]) -> bool:
    """Whether the part looks as the page says it does; False for what this server has not signed for it."""
    try:
        seen, pk, is_staff, where, session = signing.loads(
            request.GET.get(SEEN, ""), salt=SALT, max_age=LONGEST_SECONDS
        )
    except (signing.BadSignature, ValueError, TypeError):
        return False
    if (where, session) != (place(request.path, request.GET), session_of(request)):
        return False
    told = request.__dict__[TOLD] = remembered(request, version, Viewer(pk, is_staff), kwargs)
    return told == seen


memory: dict[tuple[Version, str, int | None], tuple[float, str]] = {}


def remembered(request: HttpRequest, version: Version, viewer: Viewer, kwargs: dict[str, Any]) -> str:
    """The version as it is now, or was told a moment ago to somebody who sees the same."""
    key = (version, place(request.path, request.GET), None if viewer.is_staff else viewer.pk)
    now = time.monotonic()
    ends, told = memory.get(key, (now, ""))
    if ends > now:
        return told
    told = version(request, viewer, **kwargs)
    if len(memory) >= MOST_REMEMBERED:
        memory.clear()
    memory[key] = (now + MEMORY_SECONDS, told)
    return told


def is_poll(request: HttpRequest) -> bool:
    """The page is there already and asks for its live part alone."""
    return request.headers.get("HX-Request") == "true" and SEEN in request.GET


def place(path: str, query: QueryDict) -> str:
    """The page, with its filters."""
    return digest(path, sorted(lists(query)))


def lists(query: QueryDict) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, tuple(values)) for name, values in query.lists() if name != SEEN)


def session_of(request: HttpRequest) -> str:
    return digest(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
