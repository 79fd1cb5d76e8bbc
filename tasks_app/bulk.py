"""STEER: one deed for many runs, as a run of its own: it begins a moment later, so that it can be undone, tells its
progress, can be stopped between two batches, and is taken up again if its worker dies.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection, transaction
from django.db.models.expressions import RawSQL
from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from django_tasks.exceptions import InvalidTaskError

from tasks_app import powers, wording
from tasks_app.audit import REASON_LENGTH, Actor, By, actor_of, readable
from tasks_app.clock import database_now
from tasks_app.deeds import ACTS, DEEDS, Deed
from tasks_app.engine import acts, verbs
from tasks_app.engine.acts import Tally
from tasks_app.engine.context import RunContext
from tasks_app.engine.verbs import Verb
from tasks_app.engine.wishes import KeyReused
from tasks_app.finding import Finding
from tasks_app.listing import Listing
from tasks_app.models import AuditEntry, Status, TaskRun, TaskRunQuerySet
from tasks_app.powers import Person, Reach

UNDO_SECONDS = 10
MOST_IDS = 1_000
MOST_COUNTED = 10_000
COUNT_SECONDS = 0.5
"""A count that takes longer is left out: nobody waits for it."""
COMMON_COUNTED, COMMON_COUNT_SECONDS = 500, 0.05
"""Of a common word fewer are counted, and for less long: each run that has it is taken apart into words."""
WORKERS_COUNT_SECONDS = 10.0
"""Nor the run itself, which has more time."""

LONGEST_TOLD = 2_000

NOT_THEIRS = ("is not there, or not yours to change", "are not there, or not yours to change")

Options = Mapping[str, Any]


class BadOrder(ValueError):
    """It cannot be done; the message is a sentence that says why."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A wish, as the arguments of its run have it: nothing in it says whose it is, for that is the run's owner."""

    verb: str
    query: str | None = None
    """All runs that a URL of the list asks for; or else `ids`."""
    ids: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    before: str = ""
    """What was sent later than this is not meant."""
    address: str | None = None
    """Where the wish came from, for the audit."""
    what: str = ""
    """Which runs, as the one who wished was told."""
    back: str = ""
    """The filters of the list that it came from."""

    @property
    def deed(self) -> Deed:
        if deed := DEEDS.get(self.verb):
            return deed
        word = wording.visible(wording.clip(str(self.verb), 50))
        choices = "Runs can be retried, cancelled, deleted, run now or at a time, moved, and given a priority."
        raise BadOrder(f"There is no “{word}” for runs. {choices}" if word else choices)

    def act(self, by: By = None) -> Verb:
        """The verb, with its value; raises `InvalidTaskError` for one that no run can have."""
        options: dict[str, Any] = self.options
        match self.deed.word:
            case "retry":
                return verbs.retry(by, options.get("successful_too") is True, anew=False)
            case "cancel":
                return verbs.cancel(by, self.why)
            case "delete":
                return verbs.delete()
            case "run-now":
                return verbs.run_at(None)
            case "run-at":
                return verbs.run_at(moment(options.get("run_after")))
            case "priority":
                return verbs.set_priority(options.get("priority"))  # type: ignore[arg-type]  # which it looks at
        return verbs.move_to(options.get("queue"))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.deed.label}: {self.what}"

    @property
    def until(self) -> datetime:
        """Up to when what was sent is meant; never later than now, whatever was written."""
        now = database_now()
        try:
            told = parse_datetime(self.before)
        except ValueError:
            told = None
        return min(told, now) if told is not None and told.tzinfo else now

    def check(self, person: Person) -> None:
        """Raise `BadOrder` if this person may not, or if it is said of no runs or of too many."""
        deed = self.deed
        if powers.reach(person, deed.permission) is Reach.NOBODYS:
            raise BadOrder(powers.NEEDED[deed.permission])
        if (self.query is None) == (self.ids is None):
            raise BadOrder("Tick the runs that are meant, or all that match.")
        if self.ids is not None and len(self.ids) > MOST_IDS:
            raise BadOrder(f"At most {wording.count(MOST_IDS)} runs can be ticked. Choose all that match instead.")

    def reached(self, person: Person) -> TaskRunQuerySet:
        """The runs that are named and within this person's reach; raises `BadOrder` for a filter that is none."""
        if self.ids is not None:
            found = TaskRun.objects.filter(pk__in=self.ids)
        else:
            found = find(self.query or "", person).runs()
        return powers.within(person, self.deed.permission, found)

    def takes(self, task_path: str) -> bool:
        """Whether it is done to runs of this task.

        Done again, a bulk act would be another act than the one that was wished: its page alone offers it.
        """
        return self.verb != "retry" or task_path != path()

    def runs(self, person: Person) -> TaskRunQuerySet:
        """Those of them that are meant."""
        found = self.reached(person)
        return found if self.takes(path()) else found.exclude(task_path=path())


def moment(text: object) -> datetime:
    try:
        found = parse_datetime(str(text))
    except ValueError:
        found = None
    if found is None:
        raise InvalidTaskError("A moment is a day and a time.")
    return found


def path() -> str:
    """The task by which all this is done."""
    return ACTS


def send(
    by: By,
    verb: str,
    *,
    finding_query: str | None = None,
    ids: Sequence[str] | None = None,
    options: Options | None = None,
    why: str = "",
    before: datetime | None = None,
    what: str = "",
    back: str = "",
    once: str | None = None,
) -> TaskRun:
    """Wish it done to all runs that a query of the list finds, or to these; raises `BadOrder` with a sentence.

    Answers the run that will do it: in `UNDO_SECONDS`, with the permissions that its owner has then, to what was sent
    `before`. The same `once` of the same person is one wish.
    """
    from tasks_app.forms import backend
    from tasks_app.tasks.bulk import act_on_runs

    actor, now = actor_of(by), database_now()
    person = actor.user or AnonymousUser()
    if finding_query is not None:
        finding = find(finding_query, person)
        finding_query, what = fixed(finding), what or f"all {finding.sentence}"
    order = Order(
        verb=verb, query=finding_query, ids=None if ids is None else [str(each) for each in ids],
        options=dict(options or {}), why=wording.clip(why, REASON_LENGTH),
        before=min(before or now, now).isoformat(), address=actor.address,
        what=what or wording.plural(len(ids or ()), "ticked run"), back=back or finding_query or "",
    )  # fmt: skip
    order.check(person)
    task = act_on_runs.using(run_after=now + timedelta(seconds=UNDO_SECONDS))
    try:
        order.act()
        return backend().enqueue_run(task, [], asdict(order), owner=actor.user, idempotency_key=once)
    except KeyReused as reused:  # of the same page, where the count was another one by then
        return reused.run
    except InvalidTaskError as error:
        raise BadOrder(str(error)) from None


def find(query: str, person: Person) -> Finding:
    """The runs that a query of the list finds; raises `BadOrder` where the list would put it right.

    Put right it may mean more runs than were asked for.
    """
    finding = Finding.read(QueryDict(query), powers.viewer_of(person))
    if finding.troubles:
        raise BadOrder(f"The filter is not understood. {' '.join(finding.troubles)}")
    return finding


def fixed(finding: Finding) -> str:
    """Its query with the moments that it means now: the last hour is another one when the run begins."""
    moments = {"since": finding.since, "until": finding.until}
    return finding.changed(**{name: at.isoformat() for name, at in moments.items() if at})


def counted(runs: TaskRunQuerySet, most: int | None = None, seconds: float = COUNT_SECONDS) -> int | None:
    """How many they are, up to one more than `most`; None if that is not known soon.

    By an index, whichever it is: a planner that expects to find few of them would read the whole table.
    """
    limit = str(int(seconds * 1000))
    found = runs.order_by().values("pk")
    is_part = connection.in_atomic_block
    settings = "SELECT set_config('statement_timeout', %s, true), set_config('enable_seqscan', %s, true)"
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(settings, [limit, "off"])
            number = (found if most is None else found[: most + 1]).count()
            if is_part:  # of more that is done before this ends
                cursor.execute(settings, ["0", "on"])
            return number
    except OperationalError:
        if not connection.is_usable():
            raise
        return None


def counted_of(finding: Finding, runs: TaskRunQuerySet, most: int) -> tuple[int | None, int]:
    """The same of what a list finds, within these runs; and up to how many were counted.

    Words are looked for as far back as the list looks for them. How many have a common one further back is told only
    if that is known at once; else they are at least as many as were seen.
    """
    if not finding.q:
        return counted(runs, most), most
    most = min(most, COMMON_COUNTED) if finding.is_common else most
    listing = Listing(finding, QueryDict(""))
    found = listing.first(None, True, most + 1)
    if found is None:
        return 0, most
    has_more = listing.looked_to([way for way in listing.ways if way.is_bounded], None, True)
    if has_more and not finding.is_common:
        return None, most  # what waits may have it further back
    seen = runs.filter(pk__in=RawSQL(f"SELECT id FROM ({found.text}) AS found", found.given)).count()  # noqa: S608, S611
    if not has_more or seen > most:
        return seen, most
    if (number := counted(runs, most, COMMON_COUNT_SECONDS)) is not None:
        return number, most
    return (seen + 1, seen) if seen else (None, most)


# The run


def perform(context: RunContext, order: Order) -> dict[str, Any]:
    """What the run does: as its owner, and going on where an earlier attempt was cut off."""
    run = TaskRun.objects.select_related("owner").get(pk=context.run_id)
    person: Person = run.owner or AnonymousUser()
    order.check(person)
    by = Actor(run.owner, person.get_username() or "a guest", readable(order.address or ""))
    verb = order.act(by)
    meant, until = order.runs(person), order.until
    total = counted(meant.filter(enqueued_at__lte=until), seconds=WORKERS_COUNT_SECONDS)
    done = done_before(run, verb)
    tally = Tally(verb, act=run.pk, changed=len(done))
    seen: set[str] = set()
    looked_at = 0
    for ids in acts.walk(meant, until):
        context.check_cancelled()
        with uninterrupted():
            if left := [each for each in ids if each not in done]:
                acts.take(tally, left, by, order.why)
            looked_at += len(ids)
            context.progress(looked_at, total and max(total, looked_at), tally.head)
        if order.ids is not None:
            seen.update(map(str, ids))
    if missing := set(order.ids or ()) - seen - set(map(str, done)):
        tally.reasons[NOT_THEIRS] += len(missing)
    reasons = {many: number for (_, many), number in tally.reasons.most_common()}
    return {
        "told": wording.clip(str(tally), LONGEST_TOLD), "changed": tally.changed, "left": tally.left,
        "reasons": reasons, "troubles": len(tally.troubles),
    }  # fmt: skip


def done_before(run: TaskRun, verb: Verb) -> set[uuid.UUID]:
    """To which runs this very run did it in an attempt before, going by the audit, which stands or falls with the deed.

    Without this they would count as runs that somebody else had done it to.
    """
    entries = AuditEntry.objects.filter(verb=verb.name, at__gte=run.enqueued_at, act=run.pk)
    return {each for runs in entries.values_list("runs", flat=True).iterator(100) for each in runs}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """The signal to cancel cuts no batch in two; whoever comes out of here looks whether it came.

    Not by masking it: another thread of the process would get it, and Python raises in this one all the same.
    """
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, handler)


def undo(run: TaskRun, by: By) -> bool:
    """Take the wish back, if nobody has begun with it; answers whether it was in time."""
    waiting = TaskRun.objects.ready().filter(pk=run.pk, claimed_by=None, attempt=0, attempts=[])
    waiting.cancel(by=by, why="Undone before it began.")
    run.refresh_from_db()
    return is_undone(run)


def is_undone(run: TaskRun) -> bool:
    """It ended before anything was done."""
    return run.status == Status.CANCELLED and not run.attempt and not run.attempts
