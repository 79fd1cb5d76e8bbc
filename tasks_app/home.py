"""WATCH: the first page: is it healthy, what is running, what failed lately, what became of what was sent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Sum

from tasks_app import wording
from tasks_app.board import LONGEST_LINE, ROWS, Row, previewed, rows_of
from tasks_app.health import COUNTED, LIMITED, PLAIN, WAITING, Course, Depth, Health, Line, Stranded
from tasks_app.live import Viewer, digest
from tasks_app.models import Failure, Grain, RunStat
from tasks_app.policies import paused
from tasks_app.takers import COUNTS, Takers

AT_WORK = 3
"""So many runs are told that have been at work the longest."""

FAILURES = 3
"""So many kinds of failure are told, those of the newest `FAILED_READ` failed runs of the last day."""

FAILED_READ = 200
OWN_READ = 500
"""What failed of somebody's own is looked for among so many of the newest runs of theirs."""

COURSE_MINUTES = 60
DEEPEST = 3
"""So many queues are told by name, those with the longest lines."""

# One statement, because it is also what tells whether there is news. Each count stops somewhere and each part is read
# by an index of its own, so that a long queue or history costs no more than a short one. The place in line is that
# among the first of its queue alone, and what a policy says is told by all that the sentence is made of.
LOOK = f"""
WITH RECURSIVE {WAITING},
alive AS (
  SELECT host, workers, queues, heartbeat_at, desired_state, desired_workers FROM tasks_app_cluster
  WHERE stopped_at IS NULL AND lost_at IS NULL
    AND heartbeat_at > statement_timestamp() - make_interval(secs => %(silence)s)),
takers AS (
  SELECT queue.name, {COUNTS} FROM alive, jsonb_array_elements_text(alive.queues) AS queue(name) GROUP BY queue.name),
due AS (
  SELECT waiting.name, plain.runs + limited.runs AS runs, least(plain.oldest, limited.oldest) AS oldest
  FROM (SELECT name FROM waiting WHERE name IS NOT NULL LIMIT 100) AS waiting,
  LATERAL (SELECT count(*) AS runs, min(enqueued_at) AS oldest FROM (
    SELECT enqueued_at FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = waiting.name
      AND run_after <= statement_timestamp() ORDER BY priority DESC, run_after, id
    LIMIT {COUNTED + 1}) AS run) AS plain,
  LATERAL (SELECT count(*) AS runs, min(enqueued_at) AS oldest FROM (
    SELECT enqueued_at FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name = waiting.name
      AND run_after <= statement_timestamp() ORDER BY limit_key, priority DESC, run_after, id
    LIMIT {COUNTED + 1}) AS run) AS limited),
running AS (
  SELECT id, owner_id, attempt, started_at, cancel_requested_at, progress FROM tasks_app_taskrun
  WHERE status = 'RUNNING' ORDER BY enqueued_at DESC, id DESC LIMIT {COUNTED + 1}),
at_work AS (
  SELECT id, attempt, started_at, cancel_requested_at, md5(progress::text) AS progress FROM running
  WHERE {{own}} ORDER BY started_at, id LIMIT {AT_WORK}),
newest AS (
  SELECT id, enqueued_at, status, claimed_by, attempt, run_after, cancel_requested_at, is_waiting, queue_name,
    md5(progress::text) AS progress
  FROM tasks_app_taskrun WHERE {{listed}} ORDER BY enqueued_at DESC, id DESC LIMIT {ROWS}),
line AS (
  SELECT queue.name, ARRAY(SELECT id FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = queue.name
    AND run_after <= statement_timestamp() ORDER BY priority DESC, run_after, id LIMIT {LONGEST_LINE}) AS ids
  FROM (SELECT DISTINCT queue_name FROM newest WHERE status = 'READY' AND claimed_by IS NULL) AS queue(name)),
failed AS ({{failed}}),
failures AS (
  SELECT count(*) AS runs, max(finished_at) AS last_at,
    (array_agg(failed.id ORDER BY finished_at DESC, failed.id))[1] AS id
  FROM failed LEFT JOIN tasks_app_failuregroup AS kind ON kind.id = failure_group_id
  WHERE (kind.dismissed_at IS NULL OR kind.dismissed_at < finished_at)
    AND (kind.muted_at IS NULL OR kind.muted_until <= statement_timestamp())
  GROUP BY failed.task_path, coalesce(failure_group_id::text, concat(failed.failure, failed.message))
  ORDER BY 2 DESC, 3 LIMIT {FAILURES})
SELECT statement_timestamp() AS now,
  (SELECT max(heartbeat_at) FROM alive) AS heard,
  (SELECT json_build_array(count(*), count(DISTINCT host), coalesce(sum(workers), 0)) FROM alive)::text AS staff,
  (SELECT json_build_array(taking, quiet, empty)::text FROM (SELECT {COUNTS} FROM alive) AS whole) AS taking,
  (SELECT json_agg(json_build_array(name, taking, quiet, empty) ORDER BY name)::text FROM takers) AS takers,
  (SELECT count(*) FROM running) AS running,
  (SELECT count(*) FROM (SELECT FROM tasks_app_taskrun WHERE status = 'FAILED'
    AND finished_at > statement_timestamp() - interval '1 hour' ORDER BY finished_at DESC
    LIMIT {COUNTED + 1}) AS run) AS failed,
  (SELECT json_agg(due ORDER BY name) FROM due WHERE runs > 0)::text AS due,
  (SELECT json_agg(at_work ORDER BY started_at, id) FROM at_work)::text AS at_work,
  (SELECT json_agg(run ORDER BY enqueued_at DESC, id DESC) FROM (
    SELECT newest.*, run_after <= statement_timestamp() AS is_due, array_position(line.ids, newest.id) AS place
    FROM newest LEFT JOIN line ON line.name = newest.queue_name AND status = 'READY') AS run)::text AS newest,
  (SELECT json_agg(failures ORDER BY last_at DESC, id) FROM failures)::text AS failures,
  (SELECT count(*) FROM failed) AS failed_read,
  (SELECT count(*) FROM (SELECT paused_at, paused_until FROM tasks_app_queue
    UNION ALL SELECT paused_at, paused_until FROM tasks_app_tasklimit) AS policy
    WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > statement_timestamp())) AS paused,
  (SELECT json_agg(policy)::text FROM (
    SELECT name, paused_at, paused_until, paused_until > statement_timestamp() AS is_paused, paused_by_id, pause_reason,
      max_running, NULL::timestamptz AS opens
    FROM tasks_app_queue
    UNION ALL
    SELECT key, paused_at, paused_until, paused_until > statement_timestamp(), paused_by_id, pause_reason, max_running,
      CASE WHEN next_at - make_interval(secs => (burst - 1) * rate_seconds / rate_count) > statement_timestamp()
        THEN next_at END
    FROM tasks_app_tasklimit ORDER BY 1) AS policy) AS policies,
  (SELECT json_agg(held)::text FROM (SELECT queue_name, task_path, count(*) FROM tasks_app_taskrun
    WHERE claimed_by IS NOT NULL AND status IN ('READY', 'RUNNING')
      AND (EXISTS (SELECT FROM tasks_app_queue WHERE max_running IS NOT NULL)
        OR EXISTS (SELECT FROM tasks_app_tasklimit WHERE max_running IS NOT NULL))
    GROUP BY queue_name, task_path ORDER BY queue_name, task_path) AS held) AS held,
  (SELECT date_trunc('minute', at) FROM tasks_app_countedto ORDER BY id LIMIT 1) AS counted_to
"""  # noqa: S608  its parts are ours

# Of the failed runs only the beginning of what they say: it may be long.
FAILED = """
SELECT id, task_path, failure, failure_group_id, finished_at, left(failure_message, 80) AS message
FROM {runs} WHERE status = 'FAILED' AND finished_at > statement_timestamp() - interval '1 day'
ORDER BY finished_at DESC LIMIT {most}
"""
FAILED_OF_ALL = FAILED.format(runs="tasks_app_taskrun", most=FAILED_READ)
FAILED_OF_OWN = FAILED.format(
    runs=f"(SELECT * FROM tasks_app_taskrun WHERE owner_id = %(owner)s "  # noqa: S608
    f"ORDER BY enqueued_at DESC, id DESC LIMIT {OWN_READ}) AS own",
    most=FAILED_READ,
)
OWN = "owner_id = %(owner)s"
LOOK_AT_ALL = LOOK.format(own="true", listed="true", failed=FAILED_OF_ALL)
LOOK_AT_MINE = LOOK.format(own="true", listed=OWN, failed=FAILED_OF_ALL)
"""Of an operator who wants the own runs listed, and is told of all that is at work or has failed."""
LOOK_AT_OWN = LOOK.format(own=OWN, listed=OWN, failed=FAILED_OF_OWN)


@dataclass(frozen=True)
class Look:
    """What one query tells of the whole and of the runs that somebody may see."""

    now: datetime
    heard: datetime | None
    staff: str
    taking: str
    takers: str | None
    running: int
    failed: int
    due: str | None
    at_work: str | None
    newest: str | None
    failures: str | None
    failed_read: int
    paused: int
    policies: str | None
    held: str | None
    counted_to: datetime | None

    @classmethod
    def of(cls, viewer: Viewer, wants_own: bool = False) -> Look:
        """An operator sees the runs of all, unless only the own ones are wanted; anybody else those alone."""
        with connection.cursor() as cursor:
            statement = LOOK_AT_OWN if not viewer.is_staff else LOOK_AT_MINE if wants_own else LOOK_AT_ALL
            cursor.execute(statement, {"silence": settings.LOST_AFTER_SECONDS, "owner": viewer.pk})
            return cls(*cursor.fetchone())

    @property
    def version(self) -> str:
        """Another text whenever the page would look different, the ticking of times apart."""
        looks = (value for name, value in vars(self).items() if name not in {"now", "heard"})
        return digest(*looks, self.silent)

    @property
    def silent(self) -> int:
        """Seconds since the last heartbeat; one comes every second, so less than a few are no news."""
        silent = wording.whole_seconds(self.now - self.heard) if self.heard else 0
        return 0 if silent < 4 else silent

    def takers_of(self) -> dict[str, Takers]:
        """By the names of the queues from which some live cluster takes, or would."""
        return {name: Takers(*counts) for name, *counts in read(self.takers)}

    @property
    def served(self) -> frozenset[str]:
        """The queues from which somebody takes."""
        return frozenset(name for name, takers in self.takers_of().items() if takers.taking)


def read(text: str | None) -> list[Any]:
    return json.loads(text) if text else []


@dataclass(frozen=True)
class Kind:
    """Failures that look alike."""

    row: Row
    """The newest of them."""
    runs: int
    is_more: bool
    """There may be more of them than were read."""

    @property
    def times(self) -> str:
        return "once" if self.runs == 1 and not self.is_more else f"{self.runs}{'+' if self.is_more else ''} times"

    @property
    def reason(self) -> str:
        """`Timed out`; empty for an error, whose message says it."""
        run = self.row.run
        return "" if run.failure == Failure.ERROR else run.get_failure_display()


class Home:
    """The first page as somebody sees it."""

    def __init__(self, viewer: Viewer, look: Look, wants_own: bool = False) -> None:
        self.viewer, self.look = viewer, look
        self.lists_own = wants_own or not viewer.is_staff
        self.now = self.look.now

    @property
    def version(self) -> str:
        return self.look.version

    @property
    def may_choose(self) -> bool:
        """Whether it could list somebody else's runs, or only the own ones: a guest has none."""
        return self.viewer.is_staff and self.viewer.is_authenticated

    @cached_property
    def health(self) -> Health:
        look = self.look
        clusters, hosts, workers = json.loads(look.staff)
        lines = {line["name"]: Line(line["runs"], moment(line["oldest"])) for line in read(look.due)}
        takers = look.takers_of()
        idle = {name: takers.get(name, Takers()) for name in lines}
        return Health(
            clusters=clusters,
            hosts=hosts,
            workers=workers,
            silent=look.silent,
            running=look.running,
            waiting=together(list(lines.values())),
            deepest=deepest(lines),
            others=max(0, len(lines) - DEEPEST),
            failed=look.failed,
            stranded=tuple(Stranded(name, lines[name], found) for name, found in idle.items() if not found.taking),
            paused=paused(self.now) if look.paused else (),
            course=course(look.counted_to),
            takers=Takers(*json.loads(look.taking)),
        )

    @cached_property
    def seen(self) -> dict[uuid.UUID, Row]:
        """All runs that the page names, read at once; one may have been deleted since the look."""
        told = [entry for part in (self.look.newest, self.look.at_work, self.look.failures) for entry in read(part)]
        places = {uuid.UUID(entry["id"]): entry["place"] - 1 for entry in told if entry.get("place")}
        ids = {uuid.UUID(entry["id"]) for entry in told}
        return {row.run.pk: row for row in rows_of(previewed(ids), self.now, self.look.served, places)}

    def rows_of(self, part: str | None) -> list[Row]:
        ids = (uuid.UUID(entry["id"]) for entry in read(part))
        return [self.seen[pk] for pk in ids if pk in self.seen]

    @cached_property
    def rows(self) -> list[Row]:
        """The newest runs."""
        return self.rows_of(self.look.newest)

    @property
    def at_work(self) -> list[Row]:
        """The runs that have been at work the longest; one that has ended since the look is left out."""
        return [row for row in self.rows_of(self.look.at_work) if row.run.started_at and not row.run.is_finished]

    @property
    def failures(self) -> list[Kind]:
        """What failed lately, alike ones told once."""
        is_more = self.look.failed_read >= FAILED_READ
        kinds = {uuid.UUID(entry["id"]): entry["runs"] for entry in read(self.look.failures)}
        return [Kind(self.seen[pk], runs, is_more) for pk, runs in kinds.items() if pk in self.seen]

    @property
    def last_ended(self) -> Row | None:
        """Of the viewer's own runs the one that ended last, which is announced when it changes."""
        ended = [row for row in self.rows if row.run.finished_at and row.run.owner_id == self.viewer.pk]
        return max(ended, key=lambda row: str(row.run.finished_at), default=None)


def deepest(lines: dict[str, Line]) -> tuple[Depth, ...]:
    """The longest lines, if there is more than one."""
    if len(lines) < 2:
        return ()
    ordered = sorted(lines.items(), key=lambda each: (-each[1].length, each[0]))
    return tuple(Depth(name, line, digest(name)) for name, line in ordered[:DEEPEST])


def together(lines: Sequence[Line]) -> Line:
    oldest = min((line.oldest for line in lines if line.oldest), default=None)
    return Line(sum(line.length for line in lines), oldest)


def moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def course(counted_to: datetime | None) -> Course:
    """How many ended in each minute of the last hour; the minute that is not over yet is left out."""
    if counted_to is None:
        return Course()
    begin = counted_to - timedelta(minutes=COURSE_MINUTES)
    found = RunStat.objects.filter(grain=Grain.MINUTE, at__gte=begin, at__lt=counted_to)
    counts = dict(found.values_list("at").annotate(Sum("count")))
    return Course(tuple(counts.get(begin + timedelta(minutes=minute), 0) for minute in range(COURSE_MINUTES)))
