from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app.access import is_operator, may, owner_of
from tasks_app.asking import Asking, reason_of
from tasks_app.audit import Actor
from tasks_app.clock import database_now
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import Status, Workflow
from tasks_app.paging import Page, changed, page
from tasks_app.workflow_portrait import STATES, Portrait, listed, look, looks


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(looks(found_for(viewer, Asking(request.GET))[1].rows))


def found_for(viewer: Viewer, asking: Asking) -> tuple[str, Page[Workflow]]:
    """The state that is asked for, and the page of those."""
    state = asking.word("state", STATES, f"A workflow is {', '.join(STATES[:-1])} or {STATES[-1]}.")
    found = page(listed(viewer, state), asking.query, "enqueued_at", uuid.UUID)
    asking.tell(found.trouble)
    return state, found


@never_cache
@require_safe
@live(version)
def index(request: HttpRequest) -> HttpResponse:
    """The workflows that one may see, newest first."""
    asking = Asking(request.GET)
    state, found = found_for(Viewer.of(request), asking)
    every = [("All", ""), *((word.capitalize(), word) for word in STATES)]
    context = {
        "page": found,
        "workflows": found.rows,
        "state": state,
        "tabs": [
            (name, changed(request.GET, state=word, older=None, newer=None), word == state) for name, word in every
        ],
        "trouble": asking.trouble,
        "now": database_now(),
        "poll": poll_url(request, digest(looks(found.rows))) if found.is_first else "",
        "beginning": changed(request.GET, older=None, newer=None),
    }
    return render(request, "workflows/_live.html" if is_poll(request) else "workflows.html", context)


def version_of_one(request: HttpRequest, viewer: Viewer, pk: uuid.UUID) -> str:
    seen = look(pk)
    return digest(seen.looks if seen else None)


@never_cache
@require_safe
@live(version_of_one)
def workflow(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One workflow: its steps, its totals, what comes next."""
    found = get_workflow(request, pk)
    seen = look(pk)
    if seen is None:
        raise Http404("There is no such workflow.")
    context = {
        "workflow": found,
        "portrait": Portrait(found, seen),
        "now": seen.now,
        "poll": poll_url(request, digest(seen.looks)),
        "may_cancel": may_act(request, found, "tasks_app.cancel_taskrun"),
        "may_retry": may_act(request, found, "tasks_app.retry_taskrun"),
    }
    return render(request, "workflows/_one.html" if is_poll(request) else "workflow.html", context)


def get_workflow(request: HttpRequest, pk: uuid.UUID) -> Workflow:
    """The one with this id, if this person may see it (owner or operator); raises `Http404` for any other."""
    found = Workflow.objects.select_related("owner").filter(pk=pk).first()
    if found is None or not (is_operator(request) or is_owner(request, found)):
        raise Http404("There is no such workflow.")
    return found


def is_owner(request: HttpRequest, found: Workflow) -> bool:
    return found.owner is not None and found.owner == owner_of(request)


def may_act(request: HttpRequest, found: Workflow, permission: str) -> bool:
    """One's own, or with the permission for all."""
    return is_owner(request, found) or may(request, permission)


@require_POST
def steer(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Cancel it, or send its failed steps once more; its page tells what came of it."""
    found = get_workflow(request, pk)
    by, why = Actor.of(request), reason_of(request)
    match request.POST.get("do"):
        case "cancel" if not may_act(request, found, "tasks_app.cancel_taskrun"):
            messages.error(request, "You may not cancel it: that needs the permission to cancel runs.")
        case "cancel" if found.cancel(why, by=by):
            messages.success(request, "It is cancelled: nothing more of it begins.")
        case "cancel":
            messages.error(request, "It had ended already.")
        case "retry" if not may_act(request, found, "tasks_app.retry_taskrun"):
            messages.error(request, "You may not retry it: that needs the permission to retry runs.")
        case "retry":
            tally = found.steps.filter(status=Status.FAILED).retry(by=by, why=why)  # type: ignore[attr-defined]
            (messages.success if tally.changed else messages.error)(request, str(tally))
        case _:
            messages.error(request, "A workflow can be cancelled, and its failed steps retried.")
    return redirect("workflow", pk=pk)
