"""WATCH: is there somebody to do the work, and does it move?"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b

from django.db import connection
from django.db.models import Count, Min

from tasks_app import wording
from tasks_app.models import Cluster, TaskRun, TaskRunQuerySet
from tasks_app.policies import Paused, paused

COUNTED = 1000
"""Counts go no further: more is told as `1 000+`, so that a long queue costs no more than a short one."""

PIPS = 16
"""Workers are drawn one by one up to here."""

# The next name after the last, again and again, each found in one of the two indexes of waiting runs: DISTINCT would
# read them all.
PLAIN = "status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND limit_key IS NULL"
LIMITED = "status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND limit_key IS NOT NULL"
WAITING_QUEUES = f"""
WITH RECURSIVE queue AS (
  SELECT least((SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} ORDER BY queue_name LIMIT 1)) AS name
  UNION ALL
  SELECT least(
    (SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name > queue.name ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name > queue.name ORDER BY queue_name LIMIT 1))
  FROM queue WHERE queue.name IS NOT NULL)
SELECT name FROM queue WHERE name IS NOT NULL LIMIT 100
"""  # noqa: S608  its parts are ours


def waiting_queues() -> list[str]:
    """The names of the queues in which runs wait."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING_QUEUES)
        return [name for (name,) in cursor.fetchall()]


def served_queues() -> frozenset[str]:
    """The names of the queues from which a live worker takes."""
    return frozenset(queue for cluster in Cluster.objects.alive() for queue in cluster.queues)


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
class Stranded:
    """A queue in which runs wait and from which no live worker takes."""

    queue: str
    line: Line


@dataclass(frozen=True)
class Health:
    """What the strip at the top of the first page says."""

    clusters: int
    hosts: int
    workers: int
    silent: int
    running: int
    waiting: Line
    failed: int
    stranded: tuple[Stranded, ...]
    paused: tuple[Paused, ...]
    served: frozenset[str]

    @classmethod
    def at(cls, now: datetime) -> Health:
        """A few queries, each of bounded cost."""
        clusters = list(Cluster.objects.alive())
        served = frozenset(queue for cluster in clusters for queue in cluster.queues)
        lines = [
            Stranded(queue, Line.of(TaskRun.objects.filter(queue_name=queue), now))
            for queue in waiting_queues()
            if queue not in served
        ]
        heard = max((cluster.heartbeat_at for cluster in clusters), default=now)
        silent = wording.whole_seconds(now - heard)
        failed = TaskRun.objects.failed().filter(finished_at__gt=now - timedelta(hours=1)).order_by("-finished_at")
        return cls(
            clusters=len(clusters),
            hosts=len({cluster.host for cluster in clusters}),
            workers=sum(cluster.workers for cluster in clusters),
            silent=0 if silent < 4 else silent,  # a heartbeat comes every second: less is no news
            running=TaskRun.objects.running().newest()[: COUNTED + 1].count(),
            waiting=Line.of(TaskRun.objects.all(), now),
            failed=failed[: COUNTED + 1].count(),
            paused=paused(now),
            stranded=tuple(stranded for stranded in lines if stranded.line.length),
            served=served,
        )

    @property
    def version(self) -> str:
        """Another text whenever the strip would look different."""
        looks = astuple(replace(self, served=frozenset()))  # a set has no order, and is not shown
        return blake2b(repr(looks).encode(), digest_size=4).hexdigest()

    @property
    def headline(self) -> str:
        if not self.clusters:
            return "No worker is running"
        if self.stranded:
            return "Some work has no worker"
        if self.running or self.waiting.length:
            return "Work is moving"
        return "All quiet"

    @property
    def detail(self) -> str:
        if not self.clusters:
            return "What is sent down waits, and is done once one runs"
        clusters = wording.plural(self.clusters, "cluster")
        return f"{clusters} on {wording.plural(self.hosts, 'host')}, heard from {wording.ago(self.silent)}"

    @property
    def is_well(self) -> bool:
        return bool(self.clusters) and not self.stranded

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
