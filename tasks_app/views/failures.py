from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app import wording
from tasks_app.access import may, operators_only
from tasks_app.asking import Asking
from tasks_app.audit import Actor
from tasks_app.clock import database_now
from tasks_app.failures import STATES, Account, Tabs, found, lines, looks
from tasks_app.fields import ReasonField
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import FailureGroup
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH
from tasks_app.paging import Page, changed, page
from tasks_app.stats import WINDOWS

PERMISSION = "tasks_app.change_failuregroup"
RETRY_PERMISSION = "tasks_app.retry_taskrun"

LONGEST_SEARCH = 200
LARGEST_ID = 2**63 - 1

SEEN_IN = {"1h": "1 h", "24h": "24 h", "7d": "7 d", "30d": "30 d"}
SORTS = {"newest": ("last_at", False), "most": ("count", True)}
"""By the word in the URL: the column, and whether it is one of numbers."""

MUTES = (("", "until somebody opens it again"), ("1", "for a day"), ("7", "for a week"), ("30", "for 30 days"))
DRAWN = "7d"
"""The window of the drawing on the page of one group."""


@dataclass(frozen=True)
class Asked:
    """What the URL of the list asks for, put right where it asks for what there is not."""

    state: str
    task: str
    queue: str
    q: str
    window: str
    sort: str
    trouble: str

    @classmethod
    def of(cls, request: HttpRequest) -> Asked:
        asking = Asking(request.GET)
        state = asking.word("state", STATES, "Failures are open, dismissed or muted; here are the open ones.")
        window = asking.word("window", SEEN_IN, "There is no such window; here is all that was ever seen.")
        sort = asking.word("sort", SORTS, "The list goes by the newest or by the most; here it goes by the newest.")
        task, queue = asking.name("task", TASK_PATH_LENGTH), asking.name("queue", QUEUE_NAME_LENGTH)
        q = asking.search("q", LONGEST_SEARCH)
        return cls(state or STATES[0], task, queue, q, window, sort or "newest", asking.trouble)

    @property
    def is_narrowed(self) -> bool:
        return bool(self.task or self.queue or self.q or self.window)

    def page(self, request: HttpRequest) -> Page[FailureGroup]:
        since = WINDOWS[self.window].span if self.window else None
        groups = found(self.state, task=self.task, queue=self.queue, q=self.q, since=since)
        column, is_number = SORTS[self.sort]
        return page(groups, request.GET, column, is_number=is_number)


class SteerForm(forms.Form):
    """For how many days, and why."""

    days = forms.TypedChoiceField(choices=MUTES, required=False, coerce=int, empty_value=None)
    why = ReasonField()


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(looks(Asked.of(request).page(request).rows))


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """Failures that look alike, group by group."""
    asked, tabs = Asked.of(request), Tabs.look()
    groups = asked.page(request)
    context = {
        **permissions(request),
        "asked": asked,
        "page": groups,
        "lines": lines(groups.rows, tabs.now, asked.queue),
        "tabs": [(state, there(request, state=state), state == asked.state, tabs.counts[state]) for state in STATES],
        "tasks": with_chosen(tabs.tasks, asked.task),
        "queues": with_chosen(tabs.queues, asked.queue),
        "windows": [(told, there(request, window=name), name == asked.window) for name, told in SEEN_IN.items()],
        "ever": there(request, window=None),
        "by_newest": there(request, sort=None),
        "by_most": there(request, sort="most"),
        "now": tabs.now,
        "poll": poll_url(request, digest(looks(groups.rows))) if groups.is_first else "",
        "beginning": there(request),
    }
    return render(request, "failures/_live.html" if is_poll(request) else "failures.html", context)


def version_of_one(request: HttpRequest, viewer: Viewer, pk: int) -> str:
    return digest(looks(FailureGroup.objects.filter(pk=known(pk)).annotate(now=Now())))


@never_cache
@require_safe
@live(version_of_one)
@operators_only
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """One group: since when, how often, the newest traceback, and what its runs share."""
    group = get_group(pk)
    now: Any = group.__dict__["now"]
    account = Account(group, WINDOWS[DRAWN], now)
    context = {
        **permissions(request),
        "account": account,
        "line": account.line,
        "group": group,
        "now": now,
        "poll": poll_url(request, digest(looks([group]))),
    }
    return render(request, "failures/_group.html" if is_poll(request) else "failure.html", context)


@require_POST
@operators_only
def steer(request: HttpRequest, pk: int) -> HttpResponse:
    """Dismiss it, mute it, or take that back; the page that was left tells what came of it."""
    group = get_group(pk)
    given = request.POST if "do" in request.POST else request.GET  # where Undo has it
    form = SteerForm(given)
    do = DEEDS.get(given.get("do", ""))
    wished = given.get("next", "")
    is_ours = wished.startswith("/") and url_has_allowed_host_and_scheme(wished, None)
    back = wished if is_ours else reverse("failures")
    if not may(request, PERMISSION):
        messages.error(request, "You may not steer failures: that needs the permission to change groups of failures.")
    elif do is None:
        messages.error(request, "A failure can be dismissed, muted and opened again.")
    elif "why" in form.errors:
        messages.error(request, str(form.errors["why"][0]))
    elif not form.is_valid():
        messages.error(request, "A failure is muted for 1, 7 or 30 days or for good.")
    else:
        undo = "" if do is reopen else undo_url(group, back)
        messages.success(request, do(request, group, form.cleaned_data), extra_tags=undo)
    if wished and back != wished:
        messages.error(request, "Where that was sent from is no page of this site; here are the failures.")
    return HttpResponseRedirect(back)


def undo_url(group: FailureGroup, back: str) -> str:
    """Where a group that is open now is opened again; empty for another, for which that would be something else."""
    now: Any = group.__dict__["now"]
    if group.state(now) != "open":
        return ""
    return f"{reverse('failure-steer', args=[group.pk])}?{urlencode({'do': 'reopen', 'next': back})}"


def dismiss(request: HttpRequest, group: FailureGroup, given: dict[str, Any]) -> str:
    if group.dismiss(given["why"], by=Actor.of(request)):
        return f"{said(group)} is dismissed. It comes back by itself when it fails like that again."
    return f"{said(group)} was dismissed already."


def mute(request: HttpRequest, group: FailureGroup, given: dict[str, Any]) -> str:
    until = database_now() + timedelta(days=given["days"]) if given["days"] else None
    group.mute(until, given["why"], by=Actor.of(request))
    return f"{said(group)} is muted {dict(MUTES)[str(given['days'] or '')]}, however often it fails."


def reopen(request: HttpRequest, group: FailureGroup, given: dict[str, Any]) -> str:
    if group.reopen(given["why"], by=Actor.of(request)):
        return f"{said(group)} is open again."
    return f"{said(group)} is open already."


DEEDS = {"dismiss": dismiss, "mute": mute, "reopen": reopen}


def said(group: FailureGroup) -> str:
    return wording.visible(str(group))


def get_group(pk: int) -> FailureGroup:
    """The group with this id, with the present moment as `now`; raises `Http404`."""
    group = FailureGroup.objects.filter(pk=known(pk)).annotate(now=Now()).first()
    if group is None:
        raise Http404("There is no such failure.")
    return group


def known(pk: int) -> int:
    """An id that the database can compare: what is larger is nobody's."""
    return pk if pk <= LARGEST_ID else 0


def there(request: HttpRequest, **values: str | None) -> str:
    """The list with another filter, from its beginning."""
    return changed(request.GET, older=None, newer=None, **values)


def with_chosen(names: list[str], chosen: str) -> list[str]:
    return sorted({*names, *([chosen] if chosen else [])})


def permissions(request: HttpRequest) -> dict[str, Any]:
    """What somebody may do with a group, and where that is done."""
    return {
        "may_steer": may(request, PERMISSION),
        "may_retry": may(request, RETRY_PERMISSION),
        "bulk": reverse("runs-bulk"),
        "mutes": MUTES,
        "here": f"{request.path}{changed(request.GET)}",
    }
