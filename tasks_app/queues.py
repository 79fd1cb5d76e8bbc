"""WATCH: the queues: what waits in each, since when, who takes from it, and how fast it moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from tasks_app import wording
from tasks_app.health import LIMITED, PLAIN
from tasks_app.limited import LOOK as TASKS
from tasks_app.limited import LimitedTask
from tasks_app.models import Grain, Queue, RunStat
from tasks_app.policies import told
from tasks_app.takers import COUNTS, TAKES, Takers

COUNTED = 10_000
"""Counts go no further."""

MOST = 200
"""Queues on the page."""

RATE_MINUTES = 5
"""The rates are those of so many whole minutes."""

SPARK_MINUTES = 60

NEXT = 1_000
"""Of so many runs, the next to be claimed, the oldest is told: what stands in no index costs a look at each row."""

CAME = 2_000
"""How many runs that came are looked at for the rates at which they do; where more came, only the last of them."""

# Each count stops at `most`, each is read by an index of its own, and the names are found as `health.WAITING_QUEUES`
# finds them. One statement, because it is also what tells whether there is news.
LOOK = f"""
WITH RECURSIVE waiting AS (
  SELECT least((SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} ORDER BY queue_name LIMIT 1)) AS name
  UNION ALL
  SELECT least(
    (SELECT queue_name FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name > waiting.name ORDER BY queue_name LIMIT 1),
    (SELECT queue_name FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name > waiting.name
      ORDER BY queue_name LIMIT 1))
  FROM waiting WHERE waiting.name IS NOT NULL),
held AS (
  SELECT queue_name AS name, count(*) AS runs FROM tasks_app_taskrun
  WHERE claimed_by IS NOT NULL AND status IN ('READY', 'RUNNING') GROUP BY queue_name),
served AS (
  SELECT queue.name, sum(workers) FILTER (WHERE {TAKES}) AS workers, {COUNTS}
  FROM tasks_app_cluster AS cluster, jsonb_array_elements_text(cluster.queues) AS queue(name)
  WHERE stopped_at IS NULL AND lost_at IS NULL
    AND heartbeat_at > statement_timestamp() - make_interval(secs => %(silence)s)
  GROUP BY queue.name),
minute AS (SELECT date_trunc('minute', statement_timestamp()) AS at),
ended AS (
  SELECT queue_name AS name,
    sum(count) FILTER (WHERE stat.at >= minute.at - interval '{RATE_MINUTES} min' AND stat.at < minute.at) AS runs
  FROM tasks_app_runstat AS stat, minute
  WHERE grain = {Grain.MINUTE.value} AND stat.at >= minute.at - interval '1 hour' GROUP BY queue_name),
newest AS MATERIALIZED (
  SELECT queue_name AS name, enqueued_at FROM tasks_app_taskrun
  WHERE enqueued_at < date_trunc('minute', statement_timestamp())
    AND enqueued_at >= date_trunc('minute', statement_timestamp()) - interval '{RATE_MINUTES} min'
  ORDER BY enqueued_at DESC, id DESC LIMIT {CAME}),
span AS (
  SELECT CASE WHEN count(*) < {CAME} THEN {RATE_MINUTES * 60}
    ELSE greatest(extract(epoch FROM max(minute.at) - min(enqueued_at)), 1) END AS seconds
  FROM newest, minute),
came AS (
  SELECT name, round(60 * count(*) / max(span.seconds), 1)::float8 AS each_minute FROM newest, span GROUP BY name),
later AS (
  SELECT name, count(*) AS runs, sum(count(*)) OVER () > {COUNTED} AS is_cut FROM (
    SELECT queue_name AS name FROM tasks_app_taskrun
    WHERE status = 'READY' AND claimed_by IS NULL AND is_waiting IS NULL AND run_after > enqueued_at
      AND run_after > statement_timestamp()
    ORDER BY run_after, id LIMIT {COUNTED + 1}) AS run GROUP BY name),
names AS (
  SELECT name FROM waiting WHERE name IS NOT NULL
  UNION SELECT name FROM held UNION SELECT name FROM served UNION SELECT name FROM ended
  UNION SELECT name FROM tasks_app_queue ORDER BY name LIMIT {MOST})
SELECT line.*, statement_timestamp(), ({TASKS})
FROM (SELECT) AS one LEFT JOIN LATERAL (
SELECT name, plain.runs + limited.runs AS due, oldest.at AS oldest,
  coalesce(later.runs, 0) AS later, coalesce(later.is_cut, false) AS is_cut,
  coalesce(held.runs, 0) AS held, coalesce(served.workers, 0) AS workers,
  coalesce(served.taking, 0) AS taking, coalesce(served.quiet, 0) AS quiet, coalesce(served.empty, 0) AS empty,
  coalesce(ended.runs, 0) AS ended,
  coalesce(came.each_minute, 0) AS came, queue.xmin::text AS policy,
  coalesce(queue.paused_at IS NOT NULL AND (queue.paused_until IS NULL OR queue.paused_until > statement_timestamp()),
    false) AS is_paused
FROM names LEFT JOIN held USING (name) LEFT JOIN later USING (name) LEFT JOIN served USING (name)
LEFT JOIN ended USING (name)
LEFT JOIN came USING (name) LEFT JOIN tasks_app_queue AS queue USING (name),
LATERAL (SELECT count(*) AS runs FROM (
  SELECT FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = names.name
    AND run_after <= statement_timestamp() ORDER BY priority DESC, run_after, id LIMIT {COUNTED + 1}) AS run) AS plain,
LATERAL (SELECT count(*) AS runs FROM (
  SELECT FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name = names.name
    AND run_after <= statement_timestamp() ORDER BY limit_key, priority DESC, run_after, id
  LIMIT {COUNTED + 1}) AS run) AS limited,
LATERAL (SELECT least((SELECT min(enqueued_at) FROM (
  SELECT enqueued_at FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = names.name
    AND run_after <= statement_timestamp() ORDER BY priority DESC, run_after, id LIMIT {NEXT}) AS run),
  (SELECT min(enqueued_at) FROM (
  SELECT enqueued_at FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name = names.name
    AND run_after <= statement_timestamp() ORDER BY limit_key, priority DESC, run_after, id
    LIMIT {NEXT}) AS run)) AS at) AS oldest) AS line ON true
ORDER BY name
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Line:
    """One queue, as its row tells it."""

    name: str
    due: int
    oldest: datetime | None
    later: int
    is_cut: bool
    """There are more for later, of some queue."""
    held: int
    workers: int
    """Those of the clusters that take from it."""
    taking: int
    quiet: int
    empty: int
    """Its clusters, as `Takers` counts them."""
    ended: int
    """In the last whole minutes: `RATE_MINUTES`."""
    came: float
    """In a minute, on average over the same."""
    policy_version: str | None
    is_paused: bool
    now: datetime
    policy: Queue | None = None
    course: list[int] = field(default_factory=list)
    """How many ended in each of the last minutes."""

    @property
    def looks(self) -> tuple[Any, ...]:
        """All that its row shows, but for times that tick."""
        moves = (self.due, self.oldest, self.later, self.held, self.workers, self.ended, self.came)
        return (self.name, *moves, self.takers, self.policy_version, self.is_paused)

    @property
    def takers(self) -> Takers:
        return Takers(self.taking, self.quiet, self.empty)

    @property
    def due_told(self) -> str:
        return wording.count(self.due, COUNTED)

    @property
    def later_told(self) -> str:
        return f"{wording.count(self.later)}{'+' if self.is_cut else ''}"

    @property
    def rate(self) -> str:
        """`84 a minute`: how many end."""
        return a_minute(self.ended / RATE_MINUTES)

    @property
    def rate_in(self) -> str:
        """How many come."""
        return a_minute(self.came)

    @property
    def is_stranded(self) -> bool:
        """Work waits and nobody takes it."""
        return bool(self.due) and not self.workers

    @property
    def limit(self) -> int | None:
        return self.policy.max_running if self.policy else None

    @property
    def state(self) -> str:
        """`paused`, `stranded`, `idle` or `moving`."""
        if self.is_paused:
            return "paused"
        if self.is_stranded:
            return "stranded"
        return "moving" if self.due or self.held else "idle"

    @property
    def pause_told(self) -> str:
        return told(self.policy) if self.policy and self.is_paused else ""

    @property
    def drained(self) -> str:
        """How far a pause has got: what is at hand still ends."""
        if self.held:
            return f"{wording.plural(self.held, 'run')} at hand still end{'s' if self.held == 1 else ''}."
        return "Nothing of it is at work any more."

    @property
    def spark(self) -> str:
        """The course as a line, 60 wide and 20 high, for an SVG that stretches; empty when nothing ended."""
        highest = max(self.course, default=0)
        if not highest:
            return ""
        points = [f"{at},{20 - 18 * number / highest:.1f}" for at, number in enumerate(self.course)]
        return f"M{' L'.join(points)}"


def a_minute(each: float) -> str:
    """`84 a minute`; below ten, with a figure after the point."""
    return f"{wording.count(round(each)) if each >= 10 or not each else f'{each:.1f}'} a minute"


@dataclass(frozen=True)
class Lines:
    """All queues at one moment, and the tasks that have limits."""

    now: datetime
    lines: list[Line]
    tasks: list[LimitedTask]

    @property
    def looks(self) -> list[object]:
        """Another one whenever the page would look different."""
        return [[line.looks for line in self.lines], [task.looks for task in self.tasks]]

    @property
    def held(self) -> int:
        return sum(line.held for line in self.lines)

    @property
    def drained(self) -> list[Line]:
        """Those that are paused with all the others."""
        return [line for line in self.lines if line.is_paused and line.policy and line.policy.is_drained]

    @property
    def flowing(self) -> list[str]:
        """Those from which something could begin although all were paused: they came later, or go on again."""
        return [line.name for line in self.lines if line.workers and not line.is_paused]

    @property
    def is_safe(self) -> bool:
        """Nothing is at work and nothing can begin: whatever is to be changed can be changed now."""
        return not self.held and not self.flowing


def look() -> Lines:
    """The queues as they stand, by one query."""
    with connection.cursor() as cursor:
        cursor.execute(LOOK, {"silence": settings.LOST_AFTER_SECONDS})
        rows = cursor.fetchall()
    *_, now, tasks = rows[0]
    return Lines(now, [Line(*row[:-1]) for row in rows if row[0] is not None], LimitedTask.read(tasks, now))


def with_more(found: Lines) -> Lines:
    """The same with the policies of queues and tasks and with the courses, by three more queries."""
    lines, now = found.lines, found.now
    policies = Queue.objects.select_related("paused_by").in_bulk([line.name for line in lines])
    begin = now.replace(second=0, microsecond=0) - timedelta(minutes=SPARK_MINUTES)
    courses: dict[str, list[int]] = {}
    rows = RunStat.objects.filter(grain=Grain.MINUTE, at__gte=begin).values_list("queue_name", "at", "count")
    for name, at, count in rows:
        place = int((at - begin).total_seconds() // 60)
        if place < SPARK_MINUTES:
            courses.setdefault(name, [0] * SPARK_MINUTES)[place] += count
    lines = [replace(line, policy=policies.get(line.name), course=courses.get(line.name, [])) for line in lines]
    return replace(found, lines=lines, tasks=LimitedTask.with_policies(found.tasks))
