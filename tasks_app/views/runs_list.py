from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app import board, facets, wording
from tasks_app.access import get_run, is_operator
from tasks_app.audit import Actor
from tasks_app.clock import database_now
from tasks_app.finding import SPAN, Finding
from tasks_app.health import served_queues
from tasks_app.listing import NEWS, SORT, TOP, Listing
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import BadView, SavedView, TaskRun
from tasks_app.paging import NEWER, OLDER, changed
from tasks_app.powers import ASKS_FIRST, CANCEL, CHANGE, NEEDED, RETRY, may_steer

HEADS = {
    "": ("Status", "Progress and result"),
    "ready": ("Status", "Place in line"),
    "scheduled": ("Status", "Not before"),
    "retrying": ("Status", "Tries again"),
    "waiting": ("Status", "Waits for"),
    "claimed": ("Status", "Held by"),
    "running": ("Status", "Progress"),
    "successful": ("Status", "Result"),
    "failed": ("Reason", "What happened"),
    "cancelled": ("Status", "By whom, and how far"),
}
"""What stands above the first column and the one with the outcome, by state."""

MOMENTS = {"enqueued_at": "Enqueued", "finished_at": "Failed", "run_after": "Due"}
LONGEST_QUERY = 4_000


def version(request: HttpRequest, viewer: Viewer) -> str:
    listing = Listing(Finding.read(request.GET, viewer), request.GET)
    return listing.current_version() if listing.is_live else digest()


@never_cache
@require_safe
@live(version)
def index(request: HttpRequest) -> HttpResponse:
    """The runs that the URL asks for, newest first, a page at a time."""
    listing = Listing(Finding.read(request.GET, Viewer.of(request)), request.GET)
    return render(request, "runs/list/_live.html" if is_poll(request) else "runs.html", context_of(request, listing))


def context_of(request: HttpRequest, listing: Listing) -> dict[str, Any]:
    finding, page = listing.finding, listing.page
    now = page.rows[0].read_at if page.rows else database_now()  # type: ignore[attr-defined]
    served = served_queues() if any(run.status == "READY" for run in page.rows) else frozenset()
    rows = board.rows_of(page.rows, now, served)
    context = {
        "listing": listing,
        "finding": finding,
        "page": page,
        "lines": [{"row": row, "is_new": listing.is_new(row.run), "button": button(request, row.run)} for row in rows],
        "heads": HEADS[finding.state],
        "moment": MOMENTS[listing.moment],
        "sorted_otherwise": changed(
            listing.query, **{SORT: otherwise(listing), OLDER: None, NEWER: None, TOP: None, "seen": None}
        ),
        "new": f"{NEWS}+" if listing.new > NEWS else listing.new,
        "beginning": changed(listing.query, **{OLDER: None, NEWER: None, TOP: None}),
        "now": now,
        "clear": f"?state={finding.state}{listing.keep}" if finding.state else f"?{listing.keep[1:]}",
    }
    is_whole, here = not is_poll(request), changed(listing.query, **{TOP: None})[1:]
    context["poll"] = polled(request, listing)
    if not is_whole:
        return context
    keep = listing.keep
    views = list(SavedView.objects.visible_to(request.user, is_operator(request)).order_by("name", "pk"))
    return context | {
        "tabs": facets.tabs(finding, keep),
        "spans": facets.spans(finding, keep),
        "facets": facets.facets(finding, keep, facets.most_common(finding)) if "facets" in request.GET else None,
        "chips": finding.chips(keep),
        "here": here,
        "dates": {"since": written(finding, "since"), "until": written(finding, "until")},
        "views": views,
        "own_views": [view for view in views if view.owner_id == request.user.pk],
        "is_operator": is_operator(request),
        "hidden": [(name, value) for name, value in {**finding.given, **listing.kept}.items() if name != "q" and value],
    }


def written(finding: Finding, name: str) -> str:
    """A moment as a field of a form has it; none where it was told by how long ago it is."""
    moment = getattr(finding, name)
    if moment is None or SPAN.fullmatch(finding.given[name]):
        return ""
    return f"{timezone.localtime(moment):%Y-%m-%dT%H:%M}"


def otherwise(listing: Listing) -> str | None:
    """The word that turns the order around; none where that is the usual one."""
    if listing.descending is listing.is_upward:
        return None
    return "oldest" if listing.descending else "newest"


def polled(request: HttpRequest, listing: Listing) -> str:
    """Where the page asks for news: as it is now, with the first row that it had."""
    if not listing.is_live:
        return ""
    request.GET = listing.poll_query  # type: ignore[assignment]
    return poll_url(request, listing.version)


def button(request: HttpRequest, run: TaskRun) -> dict[str, str]:
    """The one thing that is most likely wanted of a run in its state, and why it cannot be had."""
    if run.is_finished and run.status != "SUCCESSFUL":
        return act(request, run, "retry", "Retry", "retrying")
    if run.is_finished:
        return {"link": reverse("run-again", args=[run.pk]), "told": "Run again…", "icon": "retrying"}
    if run.state == "scheduled" and run.run_after > run.read_at:  # type: ignore[attr-defined]
        return act(request, run, "now", "Run now", "send")
    if run.cancel_requested_at:
        return {"do": "cancel", "told": "Cancelling…", "icon": "close", "why": "Its worker was told to stop it."}
    if run.loses_by_cancel:
        return {**act(request, run, "stop", "Cancel", "close"), "ask": "yes"}
    return act(request, run, "cancel", "Cancel", "close")


def act(request: HttpRequest, run: TaskRun, do: str, told: str, icon: str) -> dict[str, str]:
    _, permission = DEEDS[do]
    why = "" if may_steer(request.user, run, permission) else NEEDED[permission]
    return {"do": do, "told": told, "icon": icon, "why": why}


@require_POST
def steer(request: HttpRequest) -> HttpResponse:
    """A button of a row: the run is named by the button, what to do with it by the button's name."""
    do = next((name for name in DEEDS if name in request.POST), None)
    if do is None:
        messages.error(request, "A run in the list can be cancelled, retried, and run now.")
        return back(request)
    run = get_run(request, request.POST[do])
    deed, permission = DEEDS[do]
    if not may_steer(request.user, run, permission):
        messages.error(request, NEEDED[permission])
        return back(request)
    if do == "cancel" and run.loses_by_cancel:
        messages.error(request, ASKS_FIRST)
        return HttpResponseRedirect(run.get_absolute_url())
    told = deed(request, run)
    messages.success(request, told) if told else messages.error(request, f"{run} has changed meanwhile: look again.")
    return back(request)


def cancel(request: HttpRequest, run: TaskRun) -> str:
    return f"{run} is cancelled. Retry sends it once more." if run.cancel(by=Actor.of(request)) else ""


def stop(request: HttpRequest, run: TaskRun) -> str:
    return f"{run} is cancelled, or will be in a moment." if run.cancel(by=Actor.of(request)) else ""


def retry(request: HttpRequest, run: TaskRun) -> str:
    again = run.retry(by=Actor.of(request))
    return f"{run} was sent once more, as {again}." if again else ""


def now(request: HttpRequest, run: TaskRun) -> str:
    return f"{run} begins as soon as a worker is free." if run.run_at(by=Actor.of(request)) else ""


DEEDS = {
    "cancel": (cancel, CANCEL),
    "stop": (stop, CANCEL),
    "retry": (retry, RETRY),
    "now": (now, CHANGE),
}


@require_POST
def saved(request: HttpRequest) -> HttpResponse:
    """Keep this list under a name, or rename, share or delete one that was kept."""
    do = request.POST.get("do", "")
    try:
        if do == "save":
            messages.success(request, save(request))
        elif do in {"rename", "delete"}:
            messages.success(request, change(request, do))
        else:
            messages.error(request, "A view can be saved, renamed and deleted.")
    except BadView as error:
        messages.error(request, str(error))
    return back(request)


def save(request: HttpRequest) -> str:
    asked = QueryDict(request.POST.get("query", ""))
    finding = Finding.read(asked, Viewer.of(request))
    if finding.troubles:  # put right it would be another list than the one that was wished
        raise BadView(f"The filter is not understood. {' '.join(finding.troubles)}")
    is_wished = "is_shared" in request.POST
    is_shared = is_wished and is_operator(request)
    lasting = Listing(finding, asked).lasting
    view = SavedView.objects.keep(request.user, request.POST.get("name", ""), lasting, is_shared)
    for_whom = "" if is_shared == is_wished else " For you alone: only operators share their views."
    return f"Kept as “{wording.visible(view.name)}”.{for_whom}"


def change(request: HttpRequest, do: str) -> str:
    pk = request.POST.get("view", "")
    if not pk.isdecimal() or len(pk) > 18:
        raise Http404("There is no such view.")
    view = get_object_or_404(SavedView.objects.owned_by(request.user), pk=int(pk))
    if do == "delete":
        view.delete()
        return f"The view “{wording.visible(view.name)}” is deleted."
    view.rename(request.POST.get("name", ""))
    return f"The view is named “{wording.visible(view.name)}” now."


def back(request: HttpRequest) -> HttpResponseRedirect:
    """To the list that the button was in."""
    finding_query = request.POST.get("back", "")
    if len(finding_query) > LONGEST_QUERY:
        messages.error(request, "The list had more filters than can be gone back to; here are all runs.")
        finding_query = ""
    query = f"?{finding_query}" if finding_query else ""
    return HttpResponseRedirect(f"{reverse('runs')}{query}")
