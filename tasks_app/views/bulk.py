from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from tasks_app import bulk, powers, questions, unschedule, wording
from tasks_app.access import get_run
from tasks_app.admin import queue_names
from tasks_app.audit import Actor
from tasks_app.bulk import MOST_COUNTED, MOST_IDS, BadOrder, Order
from tasks_app.bulk_forms import FORMS, OrderForm
from tasks_app.clock import database_now
from tasks_app.finding import Finding
from tasks_app.health import served_queues
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import Status, TaskRun
from tasks_app.portrait import Portrait
from tasks_app.unschedule import Removal

ASKED = ("verb", "all", "query", "before", "back", "id")
ANSWERED = ("sure", "why", "successful_too", "run_after", "priority", "queue")
"""What makes up a question, and what was answered to it that could not be."""

LONGEST = 4_000
"""So much of each is kept: no list has so long an address."""

REDRAWN = 5
"""While it waits, the page is made anew after so many seconds without other news: why it waits may have changed."""


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest) -> HttpResponse:
    """The page that asks back, with the count, at an address of its own; its button comes here again, and sends it."""
    if request.method == "POST":
        return answer(request) if request.POST.get("sure") else ask(request)
    given = questions.kept(request.user, request.GET.get("asked", ""))
    if given is None:
        if "asked" in request.GET:  # else it is a login in between that made a GET of it
            messages.error(request, "What was asked there is forgotten by now. Choose the runs once more.")
        return redirect("runs")
    try:
        asked = Asked(request, given)
    except BadOrder as error:
        return to_list(request, given, error)
    context = {
        "asked": asked, "order": asked.order, "deed": asked.order.deed, "back": runs_url(asked.back),
        "form": form_of(asked.order, given if given.get("sure") else None),
        "queues": queue_names() if asked.order.verb == "move" else [], "undo_seconds": bulk.UNDO_SECONDS,
    }  # fmt: skip
    return render(request, "bulk.html", context)


def ask(request: HttpRequest) -> HttpResponse:
    """Lead to the page that asks back; not answer with it, or the browser's Back could not show it."""
    posted = request.POST
    if len(posted.get("query", "")) > LONGEST:  # of a part of it more runs would be meant
        return to_list(request, posted, BadOrder("The filter is longer than that of any list."))
    given = QueryDict(mutable=True)
    for name in (*ASKED, *ANSWERED):
        given.setlist(name, [text[:LONGEST] for text in posted.getlist(name)[: MOST_IDS + 1]])
    return redirect(f"{reverse('runs-bulk')}?{urlencode({'asked': questions.keep(request.user, given)})}")


def answer(request: HttpRequest) -> HttpResponse:
    """Send it, or lead to the question with what cannot be said to it."""
    try:
        asked = Asked(request, request.POST)
    except BadOrder as error:
        return to_list(request, request.POST, error)
    form = form_of(asked.order, request.POST)
    if not form.is_valid():
        return ask(request)
    try:
        return redirect("bulk-run", asked.send(form).pk)
    except BadOrder as error:
        messages.error(request, str(error))
        return ask(request)


def form_of(order: Order, given: QueryDict | None) -> OrderForm:
    return FORMS.get(order.verb, OrderForm)(given)


def to_list(request: HttpRequest, given: QueryDict, error: BadOrder) -> HttpResponse:
    """Back to the list, which says why."""
    back = came_from(request, given)
    said = [str(error), *(trouble for trouble in back.troubles if trouble not in str(error))]
    messages.error(request, " ".join(said))
    return redirect(runs_url(back.query))


class Asked:
    """What a form of the list asks for; raises `BadOrder` with a sentence for what cannot be done."""

    def __init__(self, request: HttpRequest, given: QueryDict) -> None:
        self.request, self.person = request, request.user
        now = database_now()
        back, before = came_from(request, given), moment(given.get("before", ""))
        self.back, self.troubles = back.query, list(back.troubles)
        self.before = min(before or now, now)
        if given.get("before") and before != self.before:
            self.troubles.append("When the list was opened cannot be told, so all that was sent by now is meant.")
        self.left_out, self.has_successful, self.most = "", True, MOST_COUNTED
        verb = given.get("verb", "")
        if given.get("all"):
            finding = bulk.find(given.get("query", ""), self.person)
            self.order = Order(verb=verb, query=bulk.fixed(finding))
            self.order.check(self.person)
            meant = self.order.runs(self.person).filter(enqueued_at__lte=self.before)
            self.count, self.most = bulk.counted_of(finding, meant, MOST_COUNTED)
            self.what = which(self.count, self.most, finding.sentence)
            self.has_successful = finding.state not in {"failed", "cancelled"}
            if self.count == 0:
                acts = " Bulk acts are retried on their own pages." if verb == "retry" else ""
                raise BadOrder(f"No run matches, so there is nothing to do.{acts}")
        else:
            ticks = Ticks.of(given.getlist("id"))
            self.order = Order(verb=verb, ids=ticks.ids)
            self.order.check(self.person)
            reached = self.order.reached(self.person).values_list("pk", "status", "task_path")
            found = {str(pk): status for pk, status, task in reached if self.order.takes(task)}
            self.order = Order(verb=verb, ids=[each for each in ticks.ids if each in found])
            self.left_out = ticks.left_out(len(ticks.ids) - len(reached), acts=len(reached) - len(found))
            self.count = len(found)
            self.what = wording.plural(self.count, "ticked run")
            self.has_successful = Status.SUCCESSFUL in found.values()
            if not found:
                raise BadOrder(f"There is nothing to do with what was ticked. {self.left_out}")

    @property
    def question(self) -> str:
        return self.order.deed.ask.format(self.what)

    @property
    def answer(self) -> str:
        counted = "all of them" if self.count is None else wording.plural(self.count, "run", self.most)
        return self.order.deed.button.format(counted)

    def send(self, form: OrderForm) -> TaskRun:
        order = self.order
        return bulk.send(
            Actor.of(self.request), order.verb, finding_query=order.query, ids=order.ids, options=form.options,
            why=form.cleaned_data["why"], before=self.before, what=self.what, back=self.back,
            once=form.key_for("bulk"),
        )  # fmt: skip


@dataclass(frozen=True)
class Ticks:
    """The ids of a post that can be ids, each once."""

    ids: list[str]
    no_ids: int
    doubled: int

    @classmethod
    def of(cls, posted: list[str]) -> Ticks:
        if not posted:
            raise BadOrder("Tick the runs that are meant first.")
        if len(posted) > MOST_IDS:
            raise BadOrder(f"At most {wording.count(MOST_IDS)} runs can be ticked. Choose all that match instead.")
        ids = [str(found) for text in posted if (found := id_of(text))]
        return cls(list(dict.fromkeys(ids)), len(posted) - len(ids), len(ids) - len(set(ids)))

    def left_out(self, unreached: int, acts: int) -> str:
        """Why fewer are meant than were posted, in a sentence; empty when none is left out."""
        counted = (
            (self.no_ids, "that is no run", "that are no runs"),
            (self.doubled, "that was ticked twice", "that were ticked twice"),
            (acts, "bulk act (only its own page retries it)", "bulk acts (only their own pages retry them)"),
            (
                unreached,
                "that cannot be found or is not yours to change", "that cannot be found or are not yours to change",
            ),
        )  # fmt: skip
        told = [f"{wording.count(number)} {one if number == 1 else many}" for number, one, many in counted if number]
        return f"Left out: {', '.join(told)}." if told else ""


def id_of(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def moment(text: str) -> datetime | None:
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def which(count: int | None, most: int, sentence: str) -> str:
    """`1 204 failed runs of resize_image`"""
    if count is None:
        return f"all {sentence}"
    return f"{wording.count(count, most)} {sentence.replace('runs', 'run', 1) if count == 1 else sentence}"


def came_from(request: HttpRequest, given: QueryDict) -> Finding:
    """The list that it came from, as far as its filters can be understood."""
    told = given.get("back") or given.get("query", "")
    return Finding.read(QueryDict(told), Viewer.of(request))


def runs_url(query: str) -> str:
    """The list with its filters."""
    return f"{reverse('runs')}{f'?{query}' if query else ''}"


# Its page


def version(request: HttpRequest, viewer: Viewer, pk: uuid.UUID) -> str:
    looks = ("status", "claimed_by", "attempt", "run_after", "progress", "cancel_requested_at")
    run = TaskRun.objects.filter(pk=pk).values_list(*looks).first()
    return digest(run, run and (run[0] not in {"READY", "RUNNING"} or int(time.time()) // REDRAWN))


@never_cache
@require_safe
@live(version)
def show(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What becomes of it: when it begins and how it is undone, how far it is, what it did."""
    run, order = get_bulk_run(request, pk)
    portrait = Portrait(run)
    context = {
        "run": run, "order": order, "portrait": portrait, "now": portrait.now,
        "is_due": run.run_after <= portrait.now, "is_undone": bulk.is_undone(run),
        "can_undo": run.status == "READY" and not (run.claimed_by or run.attempt or run.attempts),
        "told": told(run), **way_back(order),
        "strands": strands(order),
        "poll": "" if run.is_finished else poll_url(request, version(request, Viewer.of(request), pk)),
    }  # fmt: skip
    return render(request, "bulk/_live.html" if is_poll(request) else "bulk_run.html", context)


def get_bulk_run(request: HttpRequest, pk: uuid.UUID) -> tuple[TaskRun, Order | Removal]:
    """The run and what was wished, if this person may see it and it is one of this kind; else raises `Http404`."""
    run = get_run(request, pk)
    if order := order_of(run):
        return run, order
    raise Http404("There is no such bulk act.")


def order_of(run: TaskRun) -> Order | Removal | None:
    """What was wished, if it is one that can be undone before it begins."""
    try:
        if run.task_path == unschedule.path():
            return Removal(**run.kwargs)
        order = Order(**run.kwargs)
        return order if run.task_path == bulk.path() and order.deed else None
    except (TypeError, BadOrder):
        return None


def way_back(order: Order | Removal) -> dict[str, str]:
    """The list that it came from, and what it is there."""
    if isinstance(order, Removal):
        place = {"back": reverse("schedules"), "back_told": "Back to the schedules", "place": "Schedules"}
        return {**place, "label": "Delete"}
    place = {"back": runs_url(order.back), "back_told": "Back to the runs", "place": "Runs"}
    return {**place, "label": order.deed.label}


def told(run: TaskRun) -> str:
    """What it did, in a sentence."""
    value = run.return_value
    return str(value.get("told", "")) if isinstance(value, dict) else ""


def strands(order: Order | Removal) -> str:
    """The queue that runs are moved to, if no live worker takes from it."""
    queue = str(order.options.get("queue", "")) if isinstance(order, Order) and order.verb == "move" else ""
    return queue if queue and queue not in served_queues() else ""


@require_POST
def undo(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The button Undo, for as long as it has not begun."""
    run, _ = get_bulk_run(request, pk)
    if not may_end(request, run):
        messages.error(request, powers.NEEDED[powers.CANCEL])
    elif not bulk.undo(run, Actor.of(request)):
        begun = "it has begun. Stop it to keep the rest as it is."
        messages.error(request, f"Too late: {'it has ended.' if run.is_finished else begun}")
    return redirect("bulk-run", pk)


@require_POST
def stop(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The button Stop: what is done stays done, the rest stays as it is."""
    run, _ = get_bulk_run(request, pk)
    if not may_end(request, run):
        messages.error(request, powers.NEEDED[powers.CANCEL])
    elif not run.cancel(by=Actor.of(request)):
        messages.error(request, "Too late: it has ended.")
    return redirect("bulk-run", pk)


def may_end(request: HttpRequest, run: TaskRun) -> bool:
    return powers.within(request.user, powers.CANCEL, TaskRun.objects.filter(pk=run.pk)).exists()
