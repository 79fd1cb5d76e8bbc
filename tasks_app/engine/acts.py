"""STEER: performing a verb on one run or on a million, in batches that each commit by themselves, with the audit."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import DatabaseError, connection, transaction

from tasks_app import audit
from tasks_app.audit import By
from tasks_app.engine import verbs
from tasks_app.engine.verbs import Reason, Verb
from tasks_app.wording import count, plural, sentence

if TYPE_CHECKING:
    from tasks_app.models import TaskRunQuerySet

BATCH = 1_000
"""Runs in one statement: few enough that it takes milliseconds, many enough that a million take a minute or two."""


@dataclass
class Tally:
    """What became of an act; as a text, `3 runs were cancelled. 12 have ended already.`"""

    verb: Verb
    act: uuid.UUID = field(default_factory=uuid.uuid4)
    """Under which the audit has it."""
    changed: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    """Why the others were left as they are."""
    troubles: list[str] = field(default_factory=list)
    """One sentence for each batch that the database refused."""

    @property
    def left(self) -> int:
        return self.reasons.total()

    @property
    def head(self) -> str:
        return f"{plural(self.changed, 'run')} {'was' if self.changed == 1 else 'were'} {self.verb.done}"

    def __str__(self) -> str:
        rest = [
            f"{count(number)} {one if number == 1 else many}." for (one, many), number in self.reasons.most_common()
        ]
        return " ".join([f"{self.head}.", *rest, *self.troubles])


def perform(verb: Verb, queryset: TaskRunQuerySet, by: By, why: str, before: datetime | None = None) -> Tally:
    """Do it to the runs of a queryset, whatever its filter and size.

    A batch that the database refuses is told in the answer, and the others are done. In a transaction of the caller's
    all of them are one, and its locks stay until its end.
    """
    tally = Tally(verb)
    for ids in walk(queryset, before):
        take(tally, ids, by, why)
    return tally


def take(tally: Tally, ids: list[uuid.UUID], by: By, why: str) -> None:
    """Do it to one batch, which with its audit stands or falls as a whole, and add to the tally what became of it."""
    try:
        _batch(tally, ids, by, why)
    except DatabaseError as error:
        if not connection.is_usable():
            raise
        said = sentence(str(error).strip().partition("\n")[0])
        tally.troubles.append(f"{plural(len(ids), 'run')} could not be taken: {said}")


def perform_on(run: uuid.UUID, verb: Verb, by: By, why: str) -> Tally:
    """Do it to one run."""
    tally = Tally(verb)
    _batch(tally, [run], by, why)
    return tally


def walk(queryset: TaskRunQuerySet, before: datetime | None = None) -> Iterator[list[uuid.UUID]]:
    """The ids of the runs in batches, each read when the one before is done; `before` leaves out newer ones."""
    query = queryset.query
    if query.is_sliced or query.combinator or query.distinct_fields:
        # Which runs are in it may change with each batch, and nothing can be asked of it but all of it.
        yield from in_batches(list(dict.fromkeys(queryset.values_list("pk", flat=True))))
        return
    if before is not None:
        queryset = queryset.filter(enqueued_at__lte=before)
    ordered = queryset.order_by("pk").values_list("pk", flat=True)
    page = list(ordered[:BATCH])
    while page:
        yield list(dict.fromkeys(page))  # a filter over the lines of a log finds a run more than once
        page = list(ordered.filter(pk__gt=page[-1])[:BATCH])


def in_batches(ids: Sequence[uuid.UUID]) -> Iterator[list[uuid.UUID]]:
    for start in range(0, len(ids), BATCH):
        yield list(ids[start : start + BATCH])


def _batch(tally: Tally, ids: list[uuid.UUID], by: By, why: str) -> None:
    while tally.verb.prepare and tally.verb.prepare(ids):
        pass
    locked = verbs.WAIT if len(ids) == 1 else verbs.SKIP_LOCKED
    left = set(ids) - _act(tally, ids, by, why, locked)
    for run, reason in _why_not(tally.verb, left):
        if reason is None and locked and _act(tally, [run], by, why, verbs.WAIT):
            continue
        tally.reasons[reason or dict(_why_not(tally.verb, {run}))[run] or verbs.BUSY] += 1


def _act(tally: Tally, ids: list[uuid.UUID], by: By, why: str, locked: str) -> set[uuid.UUID]:
    verb = tally.verb
    with transaction.atomic():
        done = verb.act(ids, locked)
        if done:
            audit.record(verb.name, by=by, why=why, details=verb.details, runs=sorted(done), act=tally.act)
    tally.changed += len(done)
    return done


def _why_not(verb: Verb, ids: Iterable[uuid.UUID]) -> Iterator[tuple[uuid.UUID, Reason | None]]:
    asked = sorted(ids)
    found = verbs.find(asked) if asked else {}
    for run in asked:
        yield run, verb.why_not(found[run]) if run in found else verbs.GONE
