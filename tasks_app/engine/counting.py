"""COUNT: what has ended is counted into the statistics, each run once, by whichever sentinel is first.

Nothing of it is done while a run ends: a moment later all that ended since the last time is read in the order of its
end, by an index, some thousands at once, and counted in one transaction that also moves `CountedTo` on.

A run's `finished_at` is the moment of the statement that ended it, which others see only when that is committed. So
nothing is read that ended after the oldest open transaction with changes began: whatever that one commits ended later.
One that only reads as yet may be about to write its first change, with a moment that is a little past: hence `SETTLED`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from tasks_app.alike import fingerprint, without_differences
from tasks_app.jsonable import storable
from tasks_app.models.histogram import BUCKETS, packed
from tasks_app.models.stat import FINENESS, KEPT, SHORTEST, Grain

Connection = psycopg.Connection[TupleRow]

AT_ONCE = 20_000
"""Runs counted in one transaction."""

SETTLED = timedelta(seconds=2)
"""What ended longer ago has its transaction's number, if it is not committed."""

FORGOTTEN = timedelta(minutes=10)
"""A transaction that is open for longer holds the statistics up no more; what it ends is not counted."""

LOCK_TIMEOUT = "100ms"
"""A failed run that somebody has locked: all of it again, later. The sentinel has workers to look after."""

BEGIN = "INSERT INTO tasks_app_countedto (id, at) VALUES (1, 'epoch') ON CONFLICT DO NOTHING"

TAKE = "SELECT id, at FROM tasks_app_countedto ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"

HORIZON = """
SELECT least(clock_timestamp() - %(settled)s, min(xact_start) FILTER (
  WHERE backend_xid IS NOT NULL AND xact_start > clock_timestamp() - %(forgotten)s))
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

UNTIL = """
SELECT max(finished_at) FROM (
  SELECT finished_at FROM tasks_app_taskrun
  WHERE status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') AND finished_at > %(since)s AND finished_at <= %(horizon)s
  ORDER BY finished_at LIMIT %(most)s) AS ended
"""

# One that no worker ever took has neither; -1 stands for no length at all.
COUNT = """
WITH ended AS (
  SELECT date_trunc('minute', finished_at, 'UTC') AS minute, task_path, queue_name, status,
    CASE WHEN claimed_at IS NOT NULL THEN greatest(extract(epoch FROM
      coalesce(started_at, claimed_at) - greatest(enqueued_at, least(run_after, started_at, claimed_at))), 0)::float8
      END AS waited,
    CASE WHEN claimed_at IS NOT NULL THEN
      greatest(extract(epoch FROM finished_at - coalesce(started_at, claimed_at)), 0)::float8 END AS ran
  FROM tasks_app_taskrun
  WHERE status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') AND finished_at > %(since)s AND finished_at <= %(until)s)
SELECT minute, task_path, queue_name, status, {bucket_of_wait} AS wait, {bucket_of_run} AS run, count(*)::int,
  coalesce(sum(waited), 0)::float8, coalesce(sum(ran), 0)::float8
FROM ended GROUP BY minute, task_path, queue_name, status, wait, run
"""
BUCKET = f"""CASE WHEN {{seconds}} IS NULL THEN -1 WHEN {{seconds}} < {SHORTEST} THEN 0
  ELSE least({BUCKETS - 1}, 1 + floor(ln({{seconds}} / {SHORTEST}) * {FINENESS / math.log(2)}))::int END"""
COUNT = COUNT.format(bucket_of_wait=BUCKET.format(seconds="waited"), bucket_of_run=BUCKET.format(seconds="ran"))

# Histograms are numbers (`tasks_app.models.histogram`), so they are added like them.
ADD = """
INSERT INTO {table} AS old ({key}, count, waits, lengths, waited, ran)
VALUES ({values}, %(count)s, %(waits)s, %(lengths)s, %(waited)s, %(ran)s)
ON CONFLICT ({key}) DO UPDATE SET count = old.count + excluded.count, waits = old.waits + excluded.waits,
  lengths = old.lengths + excluded.lengths, waited = old.waited + excluded.waited, ran = old.ran + excluded.ran
"""
OF_TASKS = ("grain", "at", "task_path", "queue_name", "status")
OF_QUEUES = ("grain", "at", "queue_name", "status")


def add(table: str, key: tuple[str, ...]) -> str:
    return ADD.format(table=table, key=", ".join(key), values=", ".join(f"%({name})s" for name in key))


ADD_TO_TASKS, ADD_TO_QUEUES = add("tasks_app_runstat", OF_TASKS), add("tasks_app_queuestat", OF_QUEUES)

FAILED = """
SELECT id, task_path, coalesce(failure, 'error'), coalesce(attempts -> -1 ->> 'exception', ''),
  coalesce(nullif(attempts -> -1 ->> 'message', ''), failure_message, ''), finished_at, queue_name
FROM tasks_app_taskrun
WHERE status = 'FAILED' AND finished_at > %(since)s AND finished_at <= %(until)s ORDER BY finished_at
"""

# A group that was dismissed is there again with the next failure: `last_at` is then later than `dismissed_at`.
JOIN = """
WITH grouped AS (
  INSERT INTO tasks_app_failuregroup AS old
    (fingerprint, task_path, failure, exception, message, count, first_at, last_at, dismissed_by, muted_by, note)
  VALUES (%(fingerprint)s, %(task)s, %(failure)s, %(exception)s, %(message)s, %(count)s, %(first)s, %(last)s,
    '', '', '')
  ON CONFLICT (fingerprint) DO UPDATE SET count = old.count + excluded.count,
    first_at = least(old.first_at, excluded.first_at), last_at = greatest(old.last_at, excluded.last_at)
  RETURNING id),
counted AS (
  INSERT INTO tasks_app_failurestat AS old (group_id, grain, at, queue_name, count)
  SELECT grouped.id, stat.grain, stat.at, stat.queue, stat.count FROM grouped,
    unnest(%(grains)s::int[], %(times)s::timestamptz[], %(queues)s::text[], %(counts)s::int[])
      AS stat(grain, at, queue, count)
  ON CONFLICT (group_id, grain, at, queue_name) DO UPDATE SET count = old.count + excluded.count)
UPDATE tasks_app_taskrun AS run SET failure_group_id = grouped.id
FROM grouped WHERE run.id = ANY (%(ids)s) AND run.status = 'FAILED'
"""

MOVE = "UPDATE tasks_app_countedto SET at = %(until)s WHERE id = %(id)s"

FORGET = """
DELETE FROM {table} WHERE id = ANY (ARRAY (
  SELECT id FROM {table} WHERE grain = %(grain)s AND at < clock_timestamp() - %(kept)s ORDER BY at LIMIT 1000))
"""
TABLES = ("tasks_app_runstat", "tasks_app_queuestat", "tasks_app_failurestat")

FORGET_GROUPS = """
DELETE FROM tasks_app_failuregroup WHERE id = ANY (ARRAY (
  SELECT id FROM tasks_app_failuregroup WHERE last_at < clock_timestamp() - %(kept)s ORDER BY last_at LIMIT 1000))
"""


@dataclass
class Sum:
    """One row of statistics in the making."""

    count: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    lengths: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    waited: float = 0.0
    ran: float = 0.0


def count(db: Connection, most: int = AT_ONCE) -> bool | None:
    """Count what has ended since the last time; answers whether there is more, None when another one is at it.

    Raises `psycopg.Error` with nothing counted.
    """
    with db.transaction():
        db.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        taken = db.execute(TAKE).fetchone()
        if taken is None:
            db.execute(BEGIN)  # it is another's just now, or was never there
            return None
        row, since = taken
        (horizon,) = one(db, HORIZON, {"settled": SETTLED, "forgotten": FORGOTTEN})
        (until,) = one(db, UNTIL, {"since": since, "horizon": horizon, "most": most})
        if until is None:
            return False
        period = {"since": since, "until": until}
        found = db.execute(COUNT, period).fetchall()
        with db.cursor() as cursor:
            cursor.executemany(ADD_TO_TASKS, summed(found, OF_TASKS))
            cursor.executemany(ADD_TO_QUEUES, summed(found, OF_QUEUES))
            cursor.executemany(JOIN, grouped(db.execute(FAILED, period).fetchall()))
        db.execute(MOVE, {"id": row, "until": until})
    return sum(entry[6] for entry in found) >= most


def one(db: Connection, statement: str, given: dict[str, Any]) -> TupleRow:
    row = db.execute(statement, given).fetchone()
    assert row is not None
    return row


def summed(found: Iterable[TupleRow], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """What `COUNT` found as rows of every grain, one for each that these names tell apart."""
    sums: dict[tuple[Any, ...], Sum] = {}
    for minute, task, queue, status, wait, run, number, waited, ran in found:
        for grain, at in starts(minute):
            key = (grain, at, task, queue, status) if "task_path" in names else (grain, at, queue, status)
            entry = sums.setdefault(key, Sum())
            entry.count += number
            entry.waited += waited
            entry.ran += ran
            if wait >= 0:
                entry.waits[wait] += number
            if run >= 0:
                entry.lengths[run] += number
    return [
        {
            **dict(zip(names, key, strict=True)),
            **vars(entry),
            # As text: a number without bounds is another type to the driver than a small one.
            "waits": str(packed(entry.waits)),
            "lengths": str(packed(entry.lengths)),
        }
        for key, entry in sorted(sums.items(), key=lambda it: it[0])
    ]


def starts(minute: datetime) -> list[tuple[int, datetime]]:
    """When the minute, the hour and the day of this minute begin."""
    hour = minute.replace(minute=0)
    return [(Grain.MINUTE.value, minute), (Grain.HOUR.value, hour), (Grain.DAY.value, hour.replace(hour=0))]


def grouped(failed: Iterable[TupleRow]) -> list[dict[str, Any]]:
    """What `FAILED` found as rows for `JOIN`."""
    groups: dict[str, dict[str, Any]] = {}
    for run_id, task, failure, exception, message, at, queue in failed:
        message = without_differences(message)
        key = fingerprint(task, failure, exception, message)
        group = groups.setdefault(
            key,
            {
                "fingerprint": key,
                "task": task,
                "failure": failure,
                "exception": storable(exception, 200),
                "message": storable(message, 300),
                "count": 0,
                "first": at,
                "ids": [],
                "stats": Counter(),
            },
        )
        group["count"] += 1
        group["last"] = at
        group["ids"].append(run_id)
        for grain, begin in starts(at.replace(second=0, microsecond=0)):
            group["stats"][grain, begin, queue] += 1
    for group in groups.values():
        stats = group.pop("stats")
        for place, name in enumerate(("grains", "times", "queues")):
            group[name] = [key[place] for key in stats]
        group["counts"] = list(stats.values())
    return [groups[key] for key in sorted(groups)]


def forget(db: Connection) -> None:
    """Delete some of what is too old for its grain, and failures that nobody has seen for as long."""
    for grain, kept in KEPT.items():
        for table in TABLES:
            db.execute(FORGET.format(table=table), {"grain": grain.value, "kept": kept})
    db.execute(FORGET_GROUPS, {"kept": KEPT[Grain.DAY]})
