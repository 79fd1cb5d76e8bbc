"""WATCH: a workflow as one page: its steps as they were written, folded where they are many, and what comes next.

The states of all steps are read as one text of a letter each, by one query; runs are read only for the steps that are
shown, so ten thousand of them cost little more than ten.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db import connection
from django.db.models import Case, Count, IntegerField, OuterRef, QuerySet, Subquery, TextField, When
from django.db.models.functions import Cast, Left

from tasks_app import circumstances, wording
from tasks_app.links import runs_url
from tasks_app.models import Status, TaskRun, Workflow
from tasks_app.models.run import FINISHED, UNFINISHED
from tasks_app.policies import Holds
from tasks_app.why import why

SHOWN = 20
"""So many parts of a chain or a group are shown, the more telling ones of a group."""

SHOWN_IN_ALL = 300
"""So many steps of a workflow."""

COUNTED = 1_000
"""In the list, the steps that have ended are counted for workflows up to this size."""

PREVIEW = 300

WORDS = {
    "F": "failed", "U": "running", "H": "claimed", "T": "retrying", "R": "ready", "C": "cancelled", "W": "waiting",
    "S": "successful", "-": "gone",
}  # fmt: skip
"""The letter of a step's state, and the word of its icon and class, the most telling first; gone is what was pruned."""

RANKS = {letter: rank for rank, letter in enumerate(WORDS)}
GOING_ON = "UHTR"

LOOK = """
SELECT workflow.status, workflow.message, workflow.cancel_requested_at, workflow.finished_at, workflow.size,
  runs.steps, coalesce(runs.letters, ''), runs.began, runs.ran, runs.done, statement_timestamp()
FROM tasks_app_workflow AS workflow, LATERAL (
  SELECT array_agg(step ORDER BY step) AS steps,
    string_agg(CASE status WHEN 'SUCCESSFUL' THEN 'S' WHEN 'FAILED' THEN 'F' WHEN 'CANCELLED' THEN 'C'
      WHEN 'RUNNING' THEN 'U' ELSE CASE WHEN claimed_by IS NOT NULL THEN 'H' WHEN is_waiting THEN 'W'
        WHEN attempt > 0 THEN 'T' ELSE 'R' END END, '' ORDER BY step) AS letters,
    min(started_at) AS began, sum(extract(epoch FROM finished_at - started_at))::float8 AS ran,
    string_agg(progress::text, ',' ORDER BY step) FILTER (WHERE status = 'RUNNING') AS done
  FROM tasks_app_taskrun WHERE workflow_id = workflow.id) AS runs
WHERE workflow.id = %(id)s
"""


@dataclass(frozen=True)
class Seen:
    """The columns that `LOOK` returns, in its order, with the letters of all steps in their places."""

    status: str
    message: str | None
    cancel_requested_at: datetime | None
    finished_at: datetime | None
    size: int
    letters: str
    began: datetime | None
    ran: float | None
    progress: str | None
    now: datetime

    @property
    def looks(self) -> tuple[Any, ...]:
        return (self.status, self.message, self.cancel_requested_at, self.letters, self.progress)


def look(pk: uuid.UUID) -> Seen | None:
    """How it stands, by one query."""
    with connection.cursor() as cursor:
        cursor.execute(LOOK, {"id": pk})
        row = cursor.fetchone()
    if row is None:
        return None
    status, message, cancel_requested_at, finished_at, size, steps, letters, *more = row
    if len(letters) != size:
        kept = dict(zip(steps or (), letters, strict=True))
        letters = "".join(kept.get(step, "-") for step in range(size))
    return Seen(status, message, cancel_requested_at, finished_at, size, letters, *more)


@dataclass(frozen=True)
class Total:
    """How many steps are in a state, and where those are listed."""

    state: str
    count: int
    url: str = ""

    @property
    def told(self) -> str:
        return f"{wording.count(self.count)} {'no longer there' if self.state == 'gone' else self.state}"


@dataclass
class Part:
    """A step, a chain, a group, or some parts that are folded into one line."""

    kind: str
    """`step`, `chain`, `group` or `fold`."""
    first: int
    last: int
    totals: list[Total]
    parts: list[Part] = field(default_factory=list)
    members: int = 0
    """Of a chain or a group; of a fold how many parts are folded."""
    run: TaskRun | None = None
    level: int = 0
    """How many parts it stands in: two that consist of the same steps are told apart by that."""

    @property
    def number(self) -> int:
        return self.first + 1

    @property
    def size(self) -> int:
        return sum(total.count for total in self.totals)

    @property
    def ended(self) -> int:
        return sum(total.count for total in self.totals if total.state in {"successful", "failed", "cancelled", "gone"})

    @property
    def state(self) -> str:
        """Of a step; of anything else the most telling one of its steps."""
        return self.totals[0].state if self.totals else "successful"

    @property
    def is_hidden(self) -> int:
        """How many of its parts are not shown."""
        return self.members - sum(1 if part.kind != "fold" else part.members for part in self.parts)

    @property
    def length(self) -> timedelta | None:
        """How long its last attempt took; None before its end."""
        if self.run is None or self.run.started_at is None or self.run.finished_at is None:
            return None
        return max(self.run.finished_at - self.run.started_at, timedelta())

    @property
    def trouble(self) -> str:
        return str(self.run.__dict__.get("trouble") or "") if self.run else ""


class Portrait:
    """One workflow at one moment."""

    def __init__(self, workflow: Workflow, seen: Seen) -> None:
        self.workflow, self.seen, self.now = workflow, seen, seen.now
        self.letters = seen.letters
        self._left = SHOWN_IN_ALL
        self.whole = self._part(workflow.shape)
        self._load()

    # Its parts

    def _part(self, shape: Any, level: int = 0) -> Part:
        first, last = edge(shape), edge(shape, is_last=True)
        if isinstance(shape, int):
            self._left -= 1
            return Part("step", shape, shape, self.totals(shape, shape))
        kind = "group" if "group" in shape else "chain"
        inner = shape[kind]
        if first is None or last is None:
            return Part(kind, 0, -1, [], members=len(inner))
        part = Part(kind, first, last, self.totals(first, last), members=len(inner), level=level)
        if self._left > 0:
            part.parts = list(self._group(inner, level + 1) if kind == "group" else self._chain(inner, level + 1))
        return part

    def _group(self, members: Sequence[Any], level: int) -> Iterator[Part]:
        """Those of its members that tell most, in their order."""
        chosen: Sequence[int] = range(len(members))
        if len(members) > SHOWN:
            ranks = ((self._rank(member), place) for place, member in enumerate(members))
            chosen = sorted(place for _, place in heapq.nsmallest(SHOWN, ranks))
        for place in chosen:
            if self._left > 0:
                yield self._part(members[place], level)

    def _chain(self, elements: Sequence[Any], level: int) -> Iterator[Part]:
        """Its beginning, its end, and where it stands; what is between is folded."""
        shown = set(range(len(elements)))
        if len(elements) > SHOWN:
            here = next((place for place, each in enumerate(elements) if not self._is_done(each)), len(elements))
            shown &= {0, 1, len(elements) - 2, len(elements) - 1, *range(here - 3, here + SHOWN - 7)}
        place = 0
        while place < len(elements):
            if place in shown and self._left > 0:
                yield self._part(elements[place], level)
                place += 1
                continue
            end = place + 1
            while end < len(elements) and (end not in shown or self._left <= 0):
                end += 1
            extent = {"chain": elements[place:end]}
            first, last = edge(extent), edge(extent, is_last=True)
            if first is not None and last is not None:
                yield Part("fold", first, last, self.totals(first, last), members=end - place)
            place = end

    def _rank(self, shape: Any) -> int:
        if isinstance(shape, int):
            return RANKS[self.letters[shape]] if shape < len(self.letters) else len(RANKS)
        first, last = edge(shape), edge(shape, is_last=True)
        if first is None or last is None:
            return len(RANKS)
        return min((RANKS[letter] for letter in set(self.letters[first : last + 1])), default=len(RANKS))

    def _is_done(self, shape: Any) -> bool:
        first, last = edge(shape), edge(shape, is_last=True)
        return first is None or last is None or set(self.letters[first : last + 1]) <= set("S-")

    def totals(self, first: int, last: int) -> list[Total]:
        """Of these steps, the most telling state first."""
        letters = self.letters[first : last + 1]
        return [Total(word, count) for letter, word in WORDS.items() if (count := letters.count(letter))]

    # The runs of the steps that are shown, and of those that are spoken of

    def _load(self) -> None:
        steps = {part.first: part for part in leaves(self.whole)}
        wanted = {*steps, *(self.letters.find(letter) for letter in "FURHTW")}
        self.runs: dict[int, TaskRun] = {}
        found = TaskRun.objects.filter(workflow=self.workflow, step__in=wanted - {-1})
        heavy = ("args", "kwargs", "return_value", "failure_message", "attempts")
        trouble = Left(Cast("failure_message", TextField()), PREVIEW)
        for run in found.defer(*heavy).annotate(trouble=trouble):
            if run.step is not None:
                self.runs[run.step] = run
        for step, part in steps.items():
            part.run = self.runs.get(step)

    # What there is to say

    @cached_property
    def all_totals(self) -> list[Total]:
        """Of all its steps, each with where they are listed."""
        return [replace(total, url=self._url_of(total)) for total in self.totals(0, self.seen.size)]

    def _url_of(self, total: Total) -> str:
        if total.state == "gone":
            return ""
        listed_as = {"waiting": "", "claimed": "running"}.get(total.state, total.state)
        return runs_url(workflow=str(self.workflow.pk), state=listed_as)

    @property
    def runs_url(self) -> str:
        return runs_url(workflow=str(self.workflow.pk))

    @property
    def ended(self) -> int:
        return sum(self.letters.count(letter) for letter in "SFC-")

    @property
    def failed(self) -> int:
        return self.letters.count("F")

    @property
    def progress_told(self) -> str:
        return f"{wording.count(self.ended)} of {wording.plural(self.seen.size, 'step')} ended"

    @property
    def length(self) -> timedelta:
        return max((self.seen.finished_at or self.now) - self.workflow.enqueued_at, timedelta())

    @property
    def waited(self) -> timedelta:
        """Until the first of its steps began."""
        return max((self.seen.began or self.seen.finished_at or self.now) - self.workflow.enqueued_at, timedelta())

    @property
    def ran(self) -> float:
        """Seconds, all its steps together."""
        return self.seen.ran or 0.0

    @property
    def culprit(self) -> TaskRun | None:
        """The first step that failed."""
        return self.runs.get(self.letters.find("F"))

    @property
    def culprits_trouble(self) -> str:
        return str(self.culprit.__dict__.get("trouble") or "") if self.culprit else ""

    @property
    def is_finished(self) -> bool:
        return self.seen.status in FINISHED

    @cached_property
    def why(self) -> tuple[str, str]:
        """Where it stands: a few words, then why it goes no further just now."""
        if self.is_finished:
            return "", wording.sentence(self.seen.message or "")
        if self.seen.cancel_requested_at:
            return "It is being cancelled.", "What a worker is at is told to stop; nothing else begins."
        for letters, word in (("U", "running"), ("H", "begun in a moment")):
            if count := sum(self.letters.count(letter) for letter in letters):
                step = self.runs.get(self.letters.find(letters))
                which = f"{self._name(step)} is" if count == 1 and step else f"{wording.count(count)} steps are"
                return f"{which} {word}.", self.next_told
        for letter in "RT":
            run = self.runs.get(self.letters.find(letter))
            if run and (around := circumstances.look(run.pk)):
                found = why(run, around, Holds([run], self.now).why(run) if around.has_policies else None)
                return f"{self._name(run)} is ready.", f"{found.head} {found.text}"
        return "It goes on in a moment.", "What follows from the last step that ended is being looked at."

    @property
    def next_told(self) -> str:
        """What comes next, and what that waits for."""
        run = self.runs.get(self.letters.find("W"))
        if run is None or not run.previous:
            return ""
        first, last = run.previous.get("first", 0), run.previous.get("last", -1)
        before = self.letters[first : last + 1]
        left = len(before) - sum(before.count(letter) for letter in "SFC-")
        waits = f"step {first + 1}" if first == last else f"{wording.count(left)} of {wording.count(len(before))} steps"
        return f"Next comes {wording.visible(self._name(run).lower())}; it waits for {waits}."

    @staticmethod
    def _name(run: TaskRun | None) -> str:
        return f"Step {(run.step or 0) + 1} ({run.name})" if run else "A step"


def leaves(part: Part) -> Iterator[Part]:
    if part.kind == "step":
        yield part
    for inner in part.parts:
        yield from leaves(inner)


def edge(shape: Any, *, is_last: bool = False) -> int | None:
    """The first or the last step of a shape; None for groups without members."""
    if isinstance(shape, int):
        return shape
    parts = shape.get("group") or shape.get("chain") or []
    for part in reversed(parts) if is_last else parts:
        if (found := edge(part, is_last=is_last)) is not None:
            return found
    return None


# The list


def listed(viewer: Any, state: str) -> QuerySet[Workflow]:
    """Those that somebody may see, with how many steps of an unfinished one have ended."""
    ended = TaskRun.objects.filter(workflow=OuterRef("pk"), status__in=FINISHED).order_by().values("workflow")
    counted = Subquery(ended.annotate(number=Count("id")).values("number")[:1], output_field=IntegerField())
    found = Workflow.objects.defer("shape").select_related("owner").annotate(
        ended=Case(When(status__in=UNFINISHED, size__lte=COUNTED, then=counted), default=None)
    )  # fmt: skip
    if state:
        found = found.filter(status=state.upper())
    return found if viewer.is_staff else found.filter(owner=viewer.pk)


STATES = [str(status.value).lower() for status in Status]


def looks(rows: Sequence[Workflow]) -> list[tuple[Any, ...]]:
    """All that their rows show, but for times that tick."""
    return [(row.pk, row.status, row.message, row.cancel_requested_at, row.__dict__.get("ended")) for row in rows]
