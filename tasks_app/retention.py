"""Retention: what the rules of RETENTION do not keep goes, in small batches that hold up nobody.

Each batch reads at most a thousand runs, from the oldest on by the index on status and time, and deletes by their ids
those that no rule keeps, passing over what somebody has locked. So nothing waits for it, two at once do no harm, and
one that is killed is taken up by the next.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection, transaction

from config.retention import Rule
from tasks_app import audit, belongings
from tasks_app.audit import By
from tasks_app.clock import database_now
from tasks_app.engine import verbs
from tasks_app.files import UPLOADS

logger = logging.getLogger("dumbwaiter.retention")

BATCH = 1_000

STATEMENT_SECONDS = 30
"""No statement of a prune takes longer: it would rather end, and be taken up by the next prune."""

GONE_FOR = timedelta(days=30)
"""How long a cluster that stopped or was lost is remembered."""

FIRST = (datetime.fromisoformat("1970-01-01T00:00:00+00:00"), uuid.UUID(int=0))
LAST = (datetime.fromisoformat("9999-01-01T00:00:00+00:00"), uuid.UUID(int=(1 << 128) - 1))

BOUNDS = """
SELECT set_config('statement_timeout', %(ms)s, true), set_config('enable_seqscan', 'off', true),
  set_config('enable_sort', 'off', true)
"""

# From the oldest, and from the newest: pages of one index, each beginning where the last one ended. An end that Python
# could not read is one that is not over. What was sent with an idempotency key stays until that is forgotten: sent once
# more, it would be done once more.
OLDEST = """
SELECT enqueued_at, id, task_path, greatest(least(finished_at, %(now)s), 'epoch') FROM tasks_app_taskrun
WHERE status = %(status)s AND (enqueued_at, id) > (%(at)s, %(id)s) AND enqueued_at <= %(before)s
  AND (idempotency_key IS NULL OR enqueued_at <= %(forgotten)s)
ORDER BY enqueued_at, id LIMIT %(limit)s
"""
NEWEST = """
SELECT enqueued_at, id, task_path FROM tasks_app_taskrun
WHERE status = %(status)s AND (enqueued_at, id) < (%(at)s, %(id)s) AND enqueued_at > 'epoch'
ORDER BY enqueued_at DESC, id DESC LIMIT %(limit)s
"""

DELETABLE = f"""
SELECT run.id FROM tasks_app_taskrun AS run WHERE run.id = ANY (%(ids)s::uuid[]) AND {verbs.DELETABLE}
"""  # noqa: S608 - constants of the engine

# Workflows that have ended and have no runs any more. With an EXISTS among the columns all runs might be read for it.
OLD_WORKFLOWS = """
SELECT enqueued_at, id, status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
  AND (SELECT true FROM tasks_app_taskrun AS run WHERE run.workflow_id = flow.id LIMIT 1) IS NULL
FROM tasks_app_workflow AS flow WHERE (enqueued_at, id) > (%(at)s, %(id)s) ORDER BY enqueued_at, id LIMIT %(limit)s
"""
DELETE_WORKFLOWS = """
DELETE FROM tasks_app_workflow WHERE id IN (
  SELECT id FROM tasks_app_workflow AS flow WHERE id = ANY (%(ids)s::uuid[])
    AND status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
    AND NOT EXISTS (SELECT FROM tasks_app_taskrun AS run WHERE run.workflow_id = flow.id)
  ORDER BY id FOR UPDATE SKIP LOCKED)
"""
OLD_NEWS = """
SELECT id FROM tasks_app_workflownews AS news
WHERE id > %(id)s AND NOT EXISTS (SELECT FROM tasks_app_workflow AS flow WHERE flow.id = news.workflow_id)
ORDER BY id LIMIT %(limit)s
"""
DELETE_NEWS = """
DELETE FROM tasks_app_workflownews WHERE id IN (
  SELECT id FROM tasks_app_workflownews WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED)
"""
# One that still has runs to its name keeps it until they were taken back.
OLD_CLUSTERS = """
SELECT id FROM tasks_app_cluster AS cluster
WHERE (stopped_at < %(before)s OR lost_at < %(before)s) AND NOT EXISTS (
  SELECT FROM tasks_app_taskrun AS run WHERE run.status IN ('READY', 'RUNNING')
    AND run.claimed_by >= left(replace(cluster.id::text, '-', ''), 12) || ':'
    AND run.claimed_by < left(replace(cluster.id::text, '-', ''), 12) || ';')
ORDER BY id LIMIT %(limit)s
"""
DELETE_CLUSTERS = """
DELETE FROM tasks_app_cluster WHERE id IN (
  SELECT id FROM tasks_app_cluster WHERE id = ANY (%(ids)s::uuid[]) AND (stopped_at IS NOT NULL OR lost_at IS NOT NULL)
  ORDER BY id FOR UPDATE SKIP LOCKED)
"""

Place = tuple[datetime, uuid.UUID]
"""A run's place by time: when it was enqueued, and its id."""

T = TypeVar("T")

Progress = Callable[[int, str], None]


def _quietly(done: int, told: str) -> None:
    """For whoever does not watch."""


@dataclass(frozen=True)
class Bound:
    """A rule with its limit as it was when the prune began."""

    rule: Rule
    ended_before: datetime | None = None
    place: Place | None = None

    def lets_go(self, place: Place, finished_at: datetime) -> bool:
        if self.ended_before is not None:
            return finished_at < self.ended_before
        return self.place is not None and place < self.place

    @property
    def latest(self) -> datetime:
        """Nothing that was enqueued later can be let go of."""
        return self.ended_before or (self.place or FIRST)[0]


@dataclass
class Pruned:
    """What went, or with a dry run what would."""

    is_dry: bool
    runs: Counter[str] = field(default_factory=Counter)
    """How many of each rule."""
    oldest: dict[str, datetime] = field(default_factory=dict)
    """When the oldest of them was enqueued."""
    others: Counter[str] = field(default_factory=Counter)
    """Folders of files, workflows, news of workflows, clusters."""

    @property
    def counts(self) -> dict[str, int]:
        return {**self.runs, **self.others}


class Prune:
    """One go over all that is kept."""

    def __init__(self, is_dry: bool = False, tell: Progress = _quietly) -> None:
        self.pruned, self.tell = Pruned(is_dry), tell
        self.now = database_now()
        self.folders = {place: belongings.owners(place) for place in belongings.ALL}

    @property
    def is_dry(self) -> bool:
        return self.pruned.is_dry

    def run(self, by: By = None, why: str = "") -> Pruned:
        """Prune all; raises `django.db.DatabaseError` when the database does not want to, and goes on the next time."""
        for status in ("SUCCESSFUL", "FAILED", "CANCELLED"):
            self._prune_runs(status)
        self._prune_workflows()
        self._prune_news()
        self._prune_clusters()
        self._sweep()
        counts = {name: number for name, number in self.pruned.counts.items() if number}
        if counts and not self.is_dry:
            audit.record("prune", subject="retention", by=by, why=why, details=counts)
        return self.pruned

    # Runs

    def _prune_runs(self, status: str) -> None:
        bounds = {rule.task: self._bound(rule) for rule in settings.RETENTION if rule.status == status}
        if not bounds:
            return
        for bound in bounds.values():
            self.pruned.runs[str(bound.rule)] = 0
        general = bounds.get(None)
        latest = max(bound.latest for bound in bounds.values())
        forgotten = self.now - timedelta(seconds=settings.IDEMPOTENCY_SECONDS)
        for page in _pages(OLDEST, FIRST, status=status, now=self.now, before=latest, forgotten=forgotten):
            doomed: dict[uuid.UUID, tuple[str, datetime]] = {}
            for enqueued_at, run, task, finished_at in page:
                its = bounds.get(task, general)
                if its and its.lets_go((enqueued_at, run), finished_at):
                    doomed[run] = (str(its.rule), enqueued_at)
            gone = self._deletable(list(doomed)) if self.is_dry else self._delete(list(doomed))
            for run in gone:
                rule, enqueued_at = doomed[run]
                self.pruned.runs[rule] += 1
                self.pruned.oldest[rule] = min(enqueued_at, self.pruned.oldest.get(rule, enqueued_at))
            self.tell(self.pruned.runs.total(), f"{status}: back to {page[-1][0]:%Y-%m-%d %H:%M}")

    def _bound(self, rule: Rule) -> Bound:
        if rule.age is not None:
            return Bound(rule, ended_before=self.now - rule.age)
        if not rule.newest:
            return Bound(rule, place=LAST)
        own = {other.task for other in settings.RETENTION if other.status == rule.status and other.task}
        left = rule.newest
        for page in _pages(NEWEST, LAST, status=rule.status):
            for enqueued_at, run, task in page:
                if task == rule.task if rule.task else task not in own:
                    left -= 1
                if left == 0:
                    return Bound(rule, place=(enqueued_at, run))
        return Bound(rule)

    def _deletable(self, runs: list[uuid.UUID]) -> set[uuid.UUID]:
        return {row[0] for row in verbs.execute(DELETABLE, {"ids": runs})} if runs else set()

    def _delete(self, runs: list[uuid.UUID]) -> set[uuid.UUID]:
        if not runs:
            return set()
        while bounded(lambda: verbs.delete_lines(runs)):
            pass
        rows = bounded(lambda: verbs.delete_rows(runs, verbs.SKIP_LOCKED))
        # Only of those that had files when this began: to look for each would take longer than to delete it.
        belongings.remove(
            {
                run: [place for place in places if run in self.folders[place]]
                for run, places in verbs.places_of(rows).items()
            }
        )
        return {row[0] for row in rows}

    # What is left of them

    def _prune_workflows(self) -> None:
        for page in _pages(OLD_WORKFLOWS, FIRST):
            self._let_go("workflows", DELETE_WORKFLOWS, [flow for _, flow, is_over in page if is_over])

    def _prune_news(self) -> None:
        last = 0
        while ids := [row[0] for row in verbs.execute(OLD_NEWS, {"id": last, "limit": BATCH})]:
            self._let_go("news of workflows", DELETE_NEWS, ids)
            last = ids[-1]

    def _prune_clusters(self) -> None:
        old = verbs.execute(OLD_CLUSTERS, {"before": self.now - GONE_FOR, "limit": BATCH})
        self._let_go("clusters", DELETE_CLUSTERS, [row[0] for row in old])

    def _let_go(self, name: str, statement: str, ids: list[Any]) -> None:
        def delete() -> int:
            with connection.cursor() as cursor:
                cursor.execute(statement, {"ids": ids})
                return cursor.rowcount

        if ids:
            self.pruned.others[name] += len(ids) if self.is_dry else bounded(delete)

    def _sweep(self) -> None:
        """What an earlier prune or delete did not come to remove, and what was sent with a run that never came."""
        for place, runs in self.folders.items():
            name = "folders of uploads" if place == UPLOADS else "folders of files"
            found = len(belongings.orphans(place, runs)) if self.is_dry else belongings.sweep(place, runs)
            self.pruned.others[name] += found


def _pages(statement: str, start: Place, **given: Any) -> Iterator[list[tuple[Any, ...]]]:
    """All that a statement finds, a batch at a time, each from where the one before has ended."""
    at, last = start
    while page := bounded(partial(verbs.execute, statement, {**given, "at": at, "id": last, "limit": BATCH})):
        yield page
        at, last = page[-1][:2]


def bounded(act: Callable[[], T]) -> T:
    """In a short transaction of its own, whose statements go by the indexes whatever the planner would rather do.

    A sort, above all, would read all the runs of a status for each of its pages.
    """
    with transaction.atomic():
        verbs.execute(BOUNDS, {"ms": str(STATEMENT_SECONDS * 1000)})
        return act()


def prune(is_dry: bool = False, tell: Progress = _quietly, by: By = None, why: str = "") -> Pruned:
    """Let go of what no rule of RETENTION keeps, with logs and files, and of what is left over; or only count it."""
    return Prune(is_dry, tell).run(by, why)
