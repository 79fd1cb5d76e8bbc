"""WATCH: the pages that there are, in the order in which the bar at the top has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import SimpleLazyObject

from tasks_app.access import is_operator


@dataclass(frozen=True)
class Place:
    """A page as the bar knows it: `key` after g leads there, `pages` are the URL names that belong to it."""

    name: str
    url_name: str
    key: str = ""
    pages: tuple[str, ...] = ()
    is_wide: bool = False
    """On a narrow screen it stands under More."""
    for_operators: bool = True


BAR = (
    Place("Home", "home", "h", for_operators=False),
    Place("Runs", "runs", "r", ("run", "runs-bulk", "bulk-run"), for_operators=False),
    Place("Failures", "failures", "f", ("failure",)),
    Place("Queues", "queues", "q", is_wide=True),
    Place("Workers", "workers", "w", is_wide=True),
    Place("Schedules", "schedules", "c", ("schedule", "schedule-new"), is_wide=True),
    Place("Statistics", "stats", "t", is_wide=True),
)
MORE = (
    Place("Launch", "launch", "n", pages=("launch-task", "run-again")),
    Place("Workflows", "workflows", "o", ("workflow",), for_operators=False),
    Place("Logs", "logs", "l"),
    Place("Audit", "audit", "a"),
    Place("Admin", "admin:index"),
)


@dataclass(frozen=True)
class Item:
    """One link of the bar."""

    name: str
    url: str
    key: str
    is_here: bool
    is_wide: bool
    count: str = ""
    counted: str = ""


@dataclass(frozen=True)
class Nav:
    """The bar as one person sees it on one page."""

    items: list[Item]
    more: list[Item]

    @classmethod
    def of(cls, request: HttpRequest) -> Nav:
        return cls(list(items(request, BAR)), list(items(request, MORE)))

    @property
    def with_keys(self) -> list[Item]:
        """Those that a key leads to."""
        return [item for item in (*self.items, *self.more) if item.key]


def items(request: HttpRequest, places: tuple[Place, ...]) -> Iterator[Item]:
    here = request.resolver_match.view_name if request.resolver_match else ""
    for place in places:
        if place.for_operators and not is_operator(request):
            continue
        if place.url_name.startswith("admin:") and not request.user.is_staff:
            continue
        try:
            url = reverse(place.url_name)
        except NoReverseMatch:
            continue
        yield Item(place.name, url, place.key, here in {place.url_name, *place.pages}, place.is_wide)


def nav(request: HttpRequest) -> dict[str, object]:
    """For every template: asked of nobody until the bar is drawn, because error pages have none."""
    return {"nav": SimpleLazyObject(lambda: Nav.of(request))}
