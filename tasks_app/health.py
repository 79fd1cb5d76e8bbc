"""WATCH: is there somebody to do the work, and does it move?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Count, Min

from tasks_app import wording
from tasks_app.models import Cluster, TaskRunQuerySet
from tasks_app.policies import Paused
from tasks_app.takers import Takers, start_command

COUNTED = 1000
"""Counts go no further: more is told as `1 000+`, so that a long queue costs no more than a short one."""

RATE_MINUTES = 5
"""The rate at which runs end is that of so many whole minutes."""

PIPS = 16
"""Workers are drawn one by one up to here."""

# The next name after the last, again and again, each found in one of the two indexes of waiting runs: DISTINCT would
# read them all.
PLAIN = "status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND limit_key IS NULL"
LIMITED = "status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND limit_key IS NOT NULL"
WAITING = f"""
waiting AS (
  SELECT least((SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} ORDER BY queue_name LIMIT 1)) AS name
  UNION ALL
  SELECT least(
    (SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name > waiting.name ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name > waiting.name
      ORDER BY queue_name LIMIT 1))
  FROM waiting WHERE waiting.name IS NOT NULL)
"""  # noqa: S608  its parts are ours
WAITING_QUEUES = f"WITH RECURSIVE {WAITING} SELECT name FROM waiting WHERE name IS NOT NULL LIMIT 100"  # noqa: S608


def waiting_queues() -> list[str]:
    """The names of the queues in which runs wait."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING_QUEUES)
        return [name for (name,) in cursor.fetchall()]


def served_queues() -> frozenset[str]:
    """The names of the queues from which a live worker takes."""
    return frozenset(queue for cluster in Cluster.objects.taking() for queue in cluster.queues)


@dataclass(frozen=True)
class Line:
    """The runs that could begin now, if a worker took them: how many, and since when the oldest waits."""

    length: int
    oldest: datetime | None

    @classmethod
    def of(cls, runs: TaskRunQuerySet, now: datetime) -> Line:
        # In the order of their index, so that stale statistics never make it a scan of the history.
        plain = runs.waiting().filter(run_after__lte=now).order_by("queue_name", "-priority", "run_after", "id")
        limited = runs.under_limits().filter(run_after__lte=now)
        limited = limited.order_by("queue_name", "limit_key", "-priority", "run_after", "id")
        found = [
            due[: COUNTED + 1].aggregate(length=Count("id"), oldest=Min("enqueued_at")) for due in (plain, limited)
        ]
        oldest = min((line["oldest"] for line in found if line["oldest"]), default=None)
        return cls(sum(line["length"] for line in found), oldest)

    @property
    def told(self) -> str:
        return wording.count(self.length, COUNTED)

    @property
    def runs(self) -> str:
        return wording.plural(self.length, "run", COUNTED)


@dataclass(frozen=True)
class Depth:
    """The line of one queue among others."""

    queue: str
    line: Line
    key: str
    """The same for the same queue, whatever its name has in it; for an id."""


@dataclass(frozen=True)
class Stranded:
    """A queue in which runs wait and from which no live worker takes."""

    queue: str
    line: Line
    takers: Takers

    @property
    def head(self) -> str:
        return self.takers.head(self.queue)

    @property
    def command(self) -> str:
        return start_command(self.queue)


@dataclass(frozen=True)
class Course:
    """How many runs ended in each of the last whole minutes, the newest last."""

    minutes: tuple[int, ...] = ()

    @property
    def rate(self) -> int:
        """Of one minute, over the last few."""
        newest = self.minutes[-RATE_MINUTES:]
        return round(sum(newest) / len(newest)) if newest else 0

    @property
    def spark(self) -> str:
        """A line for an SVG of `width` by 24 that stretches; empty when nothing ended."""
        highest = max(self.minutes, default=0)
        if not highest:
            return ""
        return "M" + " ".join(f"{at} {22 - 20 * number / highest:.1f}" for at, number in enumerate(self.minutes))

    @property
    def width(self) -> int:
        return max(len(self.minutes) - 1, 1)


@dataclass(frozen=True)
class Health:
    """What the strip at the top of the first page says."""

    clusters: int
    hosts: int
    workers: int
    silent: int
    running: int
    waiting: Line
    deepest: tuple[Depth, ...]
    """The longest lines, where more than one queue has any."""
    others: int
    """How many queues have one besides those."""
    failed: int
    stranded: tuple[Stranded, ...]
    paused: tuple[Paused, ...]
    course: Course
    takers: Takers
    """Of all clusters, whatever they take from."""

    @property
    def headline(self) -> str:
        if not self.clusters:
            return "No worker is running"
        if not self.takers.taking:
            return "No worker takes new work"
        if self.stranded:
            return "Some work has no worker"
        if self.running or self.waiting.length:
            return "Work is moving"
        return "All quiet"

    @property
    def detail(self) -> str:
        if not self.clusters:
            return "What is sent down waits, and is done once one runs"
        clusters = f"{wording.plural(self.clusters, 'cluster')} on {wording.plural(self.hosts, 'host')}"
        if not self.takers.taking:
            return f"{clusters}, {self.takers.idle}"
        return f"{clusters}, heard from {wording.ago(self.silent)}"

    @property
    def is_well(self) -> bool:
        return bool(self.takers.taking) and not self.stranded

    @property
    def running_told(self) -> str:
        return wording.count(self.running, COUNTED)

    @property
    def failed_told(self) -> str:
        return wording.count(self.failed, COUNTED)

    @property
    def pips(self) -> list[tuple[float, bool]]:
        """Where each worker is drawn, and whether it is busy; none when there are too many to tell apart."""
        if self.workers > PIPS:
            return []
        return [(0.5 + 8 * number, number < self.running) for number in range(self.workers)]

    @property
    def pips_width(self) -> int:
        return 8 * self.workers - 2
