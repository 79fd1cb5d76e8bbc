from __future__ import annotations

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.access import operators_only
from tasks_app.asking import Asking
from tasks_app.audit import VERBS, entries_about
from tasks_app.clock import database_now
from tasks_app.entries import lines_of, with_first_runs
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import AuditEntry
from tasks_app.paging import changed, page

MOST_FOUND = 1_000
LONGEST_SEARCH = 150


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(AuditEntry.objects.order_by("-at", "-id").values_list("id", flat=True).first())


@never_cache
@require_safe
@live(version)
@operators_only
def audit(request: HttpRequest) -> HttpResponse:
    """Who did what to which runs, when, from where and why."""
    asking = Asking(request.GET)
    verb = asking.word("verb", VERBS, "Nobody can do that; here is everything that was done.")
    q = asking.search("q", LONGEST_SEARCH)
    found = page(with_first_runs(entries(verb, q)), request.GET, "at")
    asking.tell(found.trouble)
    context = {
        "page": found,
        "lines": lines_of(found.rows),
        "q": q,
        "verbs": [(each, changed(request.GET, verb=each, older=None, newer=None), each == verb) for each in VERBS],
        "every_verb": changed(request.GET, verb=None, older=None, newer=None),
        "chosen": verb,
        "trouble": asking.trouble,
        "now": database_now(),
        "poll": poll_url(request, version(request, Viewer.of(request))) if found.is_first else "",
        "beginning": changed(request.GET, older=None, newer=None),
    }
    return render(request, "audit/_live.html" if is_poll(request) else "audit.html", context)


def entries(verb: str, q: str) -> QuerySet[AuditEntry]:
    """Those of the chosen verb that are about the run, or by the person, that was searched for."""
    found = AuditEntry.objects.all()
    if verb:
        found = found.filter(verb=verb)
    if not q:
        return found
    about = whole_id(q)
    return found.filter(pk__in=entries_about(about)[:MOST_FOUND]) if about else found.filter(actor_name=q)


def whole_id(term: str) -> Any:
    try:
        return uuid.UUID(term)
    except ValueError:
        return None
