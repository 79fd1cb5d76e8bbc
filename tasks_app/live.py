"""WATCH: pages that ask again and again whether there is news, and what that costs when there is none.

A page with a live part has a version: a short text that is another one whenever the part would look different. The page
hands it back, signed, with each poll. A view that is `live` tells its version for a `Viewer` by one query; while that
is the signed one, the answer is 204 and nothing else is asked of the database, not even who is there: the signature
says for whom the page was made, and a browser with another session has no use for it. All it ever learns is "no news".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase

from tasks_app.access import is_operator

SALT = "tasks_app.live"
LONGEST_SECONDS = 12 * 3600
"""A page that was open for longer is asked who it is."""

SEEN = "seen"
"""The name under which a page hands its version back."""


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


def live(version: Version) -> Callable[[View], View]:
    """Mark a view as one that tells its version; `middleware.NoNewsMiddleware` answers polls that have it already."""

    def marked(view: View) -> View:
        view.version = version  # type: ignore[attr-defined]
        return view

    return marked


def digest(*looks: object) -> str:
    """A version: another text whenever any of these is another."""
    return blake2b(repr(looks).encode(errors="replace"), digest_size=8).hexdigest()


def poll_url(request: HttpRequest, version: str, **values: str) -> str:
    """Where the page of this request asks for news; `values` are put into its query, to be given back."""
    query = request.GET.copy()
    query.pop(SEEN, None)
    for name, value in values.items():
        query[name] = value
    viewer = Viewer.of(request)
    told = [version, viewer.pk, viewer.is_staff, place(request.path, query), session_of(request)]
    query[SEEN] = signing.dumps(told, salt=SALT, compress=True)
    return f"{request.path}?{urlencode(list(query.lists()), doseq=True)}"


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
    return bool(version(request, Viewer(pk, is_staff), **kwargs) == seen)


def is_poll(request: HttpRequest) -> bool:
    """The page is there already and asks for its live part alone."""
    return request.headers.get("HX-Request") == "true" and SEEN in request.GET


def place(path: str, query: QueryDict) -> str:
    """The page, with its filters."""
    return digest(path, sorted((name, values) for name, values in query.lists() if name != SEEN))


def session_of(request: HttpRequest) -> str:
    return digest(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
