"""What is counted beside the list of runs: how many each tab has, and what they are of.

A page asks for both once it is there, for counting takes a while; after news of its list; and now and then without,
because a list has no news of the runs that it leaves out. While nothing has changed it is told that by one query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app import facets
from tasks_app.finding import Finding
from tasks_app.listing import Listing
from tasks_app.live import Viewer, digest, live, poll_url

COUNTED = "counted"
"""What a request has counted, and for whom."""

C = TypeVar("C")


def counted(request: HttpRequest, viewer: Viewer, count: Callable[[Finding], C]) -> C:
    """What this viewer's runs come to: counted to tell whether it has changed, it is not counted again to be drawn."""
    known = request.__dict__.setdefault(COUNTED, {})
    if viewer not in known:
        known[viewer] = count(Finding.read(request.GET, viewer))
    return known[viewer]


def version_of_tabs(request: HttpRequest, viewer: Viewer) -> str:
    return digest(counted(request, viewer, facets.counts))


@never_cache
@require_safe
@live(version_of_tabs)
def tabs(request: HttpRequest) -> HttpResponse:
    """The tabs, each with how many runs it has."""
    viewer = Viewer.of(request)
    finding, counts = Finding.read(request.GET, viewer), counted(request, viewer, facets.counts)
    listing = Listing(finding, request.GET)
    here = {
        "tabs": facets.tabs(finding, listing.keep, counts),
        "finding": finding,
        "listing": listing,
        "matching": counts.get(finding.state, ""),
        "is_fragment": True,
        "poll": poll_url(request, digest(counts)),
    }
    return render(request, "runs/list/_tabs.html", here)


def version_of_facets(request: HttpRequest, viewer: Viewer) -> str:
    return digest(counted(request, viewer, facets.most_common))


@never_cache
@require_safe
@live(version_of_facets)
def values(request: HttpRequest) -> HttpResponse:
    """What the runs that match are of, each value with how many they are."""
    viewer = Viewer.of(request)
    finding, found = Finding.read(request.GET, viewer), counted(request, viewer, facets.most_common)
    here = {
        "facets": facets.facets(finding, Listing(finding, request.GET).keep, found),
        "is_fragment": True,
        "poll": poll_url(request, digest(found)),
    }
    return render(request, "runs/list/_facets.html", here)
