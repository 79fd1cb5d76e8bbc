"""Policies at the claim: pauses, how many runs may be held at once, how many may begin in a time.

Nothing here is a counter that could leak. What is held is counted from the runs themselves, and of a rate only the
moment is kept at which the next run would begin if all came evenly (the generic cell rate algorithm).

Runs of a task that has limits carry its key, and a plain claim does not see them. They are taken by `CLAIM`, in a
transaction that locks first the row of the queue, then the rows of the tasks in the order of their keys, and only then
runs: whoever locks a policy and runs in one transaction does it in that order. The claim is a statement after the
locks, because its snapshot has to show what was committed while they were waited for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.rows import TupleRow

from tasks_app.engine.connect import connect, execute_prepared
from tasks_app.engine.statements import IS_IN_TIME, IS_PAUSED, IS_POLICY

LIMITED_HINT = "limited "
"""NOTIFY `limited <queue>`: there is a run under a limit in it."""

AT_ONCE = 1_000
"""How many waiting runs are looked through for those of a task that somebody limited or paused lately."""

# The next key after the last, again and again, each found in the index: DISTINCT would read all that wait.
KEYS = """
WITH RECURSIVE key AS (
  (SELECT limit_key AS name FROM tasks_app_taskrun
    WHERE queue_name = {queue} AND limit_key IS NOT NULL AND status = 'READY' AND claimed_by IS NULL
      AND is_waiting IS NULL
    ORDER BY limit_key LIMIT 1)
  UNION ALL
  SELECT (SELECT limit_key FROM tasks_app_taskrun
    WHERE queue_name = {queue} AND limit_key > key.name AND status = 'READY' AND claimed_by IS NULL
      AND is_waiting IS NULL
    ORDER BY limit_key LIMIT 1)
  FROM key WHERE key.name IS NOT NULL)"""

HELD = """
held AS MATERIALIZED (
  SELECT queue_name, task_path, count(*) AS runs FROM tasks_app_taskrun
  WHERE claimed_by IS NOT NULL AND status IN ('READY', 'RUNNING') GROUP BY queue_name, task_path)"""

LOCK_QUEUE = """
SELECT FROM tasks_app_queue WHERE name = %(queue)s AND max_running IS NOT NULL FOR UPDATE
"""

LOCK_TASKS = f"""
{KEYS.format(queue="%(queue)s")}
SELECT FROM tasks_app_tasklimit WHERE key IN (SELECT name FROM key) ORDER BY key FOR UPDATE
"""  # noqa: S608  its parts are ours

# `xmax` tells whether this transaction has locked the row: a policy that was made, or first needed, after the locks
# were taken is for the next claim. Of a task with a slow rate one run at a time, at the head of the batch, so that it
# begins when it was counted. What was found is asked again when it is locked: meanwhile somebody may have put it off,
# or into another queue. Runs of a task that somebody limited lately are put under its key here, not claimed; they
# come back without a `claimed_at`.
CLAIM = f"""
{KEYS.format(queue="%(queue)s")},
now AS MATERIALIZED (SELECT clock_timestamp() AS at),
{HELD},
room AS MATERIALIZED (
  SELECT coalesce(min(CASE WHEN {IS_PAUSED} THEN 0 WHEN max_running IS NULL THEN %(limit)s
      WHEN own.xmax <> pg_current_xact_id()::xid THEN 0
      ELSE greatest(least(%(limit)s, max_running
        - coalesce((SELECT sum(runs) FROM held WHERE queue_name = own.name), 0)), 0) END), %(limit)s)::int AS runs
  FROM tasks_app_queue AS own WHERE name = %(queue)s),
free AS MATERIALIZED (
  SELECT key.name, own.rate_count IS NOT NULL AS is_rated,
    CASE WHEN own.key IS NULL THEN %(limit)s
      WHEN own.xmax <> pg_current_xact_id()::xid OR {IS_PAUSED} THEN 0
      ELSE greatest(least(%(limit)s,
        max_running - coalesce((SELECT sum(runs) FROM held WHERE task_path = own.key), 0),
        floor(burst - greatest(extract(epoch FROM next_at - now.at)::float8, 0) * rate_count / rate_seconds),
        CASE WHEN rate_seconds / rate_count > %(slow)s THEN 1 END), 0) END::int AS runs
  FROM now, key LEFT JOIN tasks_app_tasklimit AS own ON own.key = key.name
  WHERE key.name IS NOT NULL),
best AS MATERIALIZED (
  SELECT id, name FROM (
    (SELECT id, priority, run_after, NULL AS name FROM tasks_app_taskrun
      WHERE queue_name = %(queue)s AND status = 'READY' AND claimed_by IS NULL AND run_after <= statement_timestamp()
        AND limit_key IS NULL AND is_waiting IS NULL AND {IS_IN_TIME}
      ORDER BY priority DESC, run_after, id LIMIT (SELECT runs FROM room))
    UNION ALL
    SELECT one.id, one.priority, one.run_after, free.name FROM free, LATERAL (
      SELECT id, priority, run_after FROM tasks_app_taskrun
      WHERE queue_name = %(queue)s AND status = 'READY' AND claimed_by IS NULL AND run_after <= statement_timestamp()
        AND limit_key = free.name AND is_waiting IS NULL AND {IS_IN_TIME}
      ORDER BY priority DESC, run_after, id LIMIT free.runs) AS one) AS either
  ORDER BY priority DESC, run_after, id LIMIT (SELECT runs FROM room)),
next AS MATERIALIZED (
  SELECT run.id, run.limit_key IS NULL
    AND EXISTS (SELECT FROM tasks_app_tasklimit WHERE key = run.task_path AND {IS_POLICY}) AS is_stray
  FROM best JOIN tasks_app_taskrun AS run ON run.id = ANY (ARRAY[best.id])
  WHERE run.status = 'READY' AND run.claimed_by IS NULL AND run.limit_key IS NOT DISTINCT FROM best.name
    AND run.is_waiting IS NULL AND run.queue_name = %(queue)s AND run.run_after <= statement_timestamp()
    AND {IS_IN_TIME}
  FOR UPDATE OF run SKIP LOCKED),
taken AS (
  UPDATE tasks_app_taskrun AS run
  SET claimed_by = CASE WHEN NOT is_stray THEN %(me)s END,
    claimed_at = CASE WHEN NOT is_stray THEN clock_timestamp() END, started_at = NULL, progress = NULL,
    attempt = least(run.attempt, 32766) + CASE WHEN is_stray THEN 0 ELSE 1 END,
    limit_key = CASE WHEN is_stray THEN task_path ELSE limit_key END
  FROM next WHERE run.id = ANY (ARRAY[next.id])
  RETURNING run.id, run.task_path, run.args, run.kwargs, run.queue_name, run.priority, run.attempt, run.max_attempts,
    run.timeout, greatest(least(run.enqueued_at, run.claimed_at), 'epoch') AS enqueued_at, run.claimed_at,
    run.limit_key, run.run_after),
spent AS (
  UPDATE tasks_app_tasklimit AS own
  SET next_at = greatest(next_at, now.at)
    + make_interval(secs => ceil(used.runs * rate_seconds * 1e6 / rate_count) / 1e6)
  FROM now, (SELECT limit_key, count(*) AS runs FROM taken WHERE claimed_at IS NOT NULL GROUP BY limit_key) AS used
  WHERE own.key = used.limit_key AND rate_count IS NOT NULL)
SELECT id, task_path, args, kwargs, queue_name, priority, attempt, max_attempts, timeout, enqueued_at, claimed_at
FROM taken
ORDER BY EXISTS (SELECT FROM free WHERE is_rated AND name = limit_key) DESC, priority DESC, run_after, id
"""  # noqa: S608  its parts are ours

# When the head of the line is nothing but runs of a task that somebody has limited lately: the next thousand at once.
MOVE = f"""
WITH head AS MATERIALIZED (
  SELECT id, task_path FROM tasks_app_taskrun
  WHERE queue_name = %(queue)s AND status = 'READY' AND claimed_by IS NULL AND run_after <= statement_timestamp()
    AND limit_key IS NULL AND is_waiting IS NULL
  ORDER BY priority DESC, run_after, id LIMIT {AT_ONCE}),
stray AS MATERIALIZED (
  SELECT run.id FROM head JOIN tasks_app_taskrun AS run ON run.id = ANY (ARRAY[head.id])
  WHERE run.status = 'READY' AND run.claimed_by IS NULL
    AND EXISTS (SELECT FROM tasks_app_tasklimit WHERE key = head.task_path AND {IS_POLICY})
  FOR UPDATE OF run SKIP LOCKED),
moved AS (
  UPDATE tasks_app_taskrun AS run SET limit_key = run.task_path FROM stray WHERE run.id = ANY (ARRAY[stray.id]))
SELECT pg_notify('dumbwaiter', 'limited ' || %(queue)s)
"""  # noqa: S608  its parts are ours

# Whether anything could be claimed now, and in how many seconds at the latest another look is worth it because a rate
# opens or a pause ends. A place that becomes free is seen by asking again.
OPENINGS = f"""
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at),
{HELD},
queue AS MATERIALIZED (
  SELECT given.name FROM now, unnest(%(queues)s::text[]) AS given(name)
  LEFT JOIN tasks_app_queue AS own ON own.name = given.name
  WHERE own.name IS NULL OR NOT ({IS_PAUSED})
    AND (max_running IS NULL OR max_running > coalesce((SELECT sum(runs) FROM held WHERE queue_name = own.name), 0))),
opening AS (
  SELECT 0.0::float8 AS seconds FROM queue, now, LATERAL (
    SELECT FROM tasks_app_taskrun
    WHERE queue_name = queue.name AND status = 'READY' AND claimed_by IS NULL AND run_after <= now.at
      AND limit_key IS NULL AND is_waiting IS NULL
    ORDER BY priority DESC, run_after, id LIMIT 1) AS ready
  UNION ALL
  SELECT greatest(
    CASE WHEN {IS_PAUSED} THEN extract(epoch FROM paused_until - now.at)::float8 ELSE 0 END,
    coalesce(extract(epoch FROM next_at - now.at)::float8 - (burst - 1) * rate_seconds / rate_count, 0))
  FROM now, queue, LATERAL (
    {KEYS.format(queue="queue.name")} SELECT name FROM key WHERE name IS NOT NULL) AS key
  LEFT JOIN tasks_app_tasklimit AS own ON own.key = key.name, LATERAL (
    SELECT FROM tasks_app_taskrun
    WHERE queue_name = queue.name AND status = 'READY' AND claimed_by IS NULL AND run_after <= now.at
      AND limit_key = key.name AND is_waiting IS NULL
    ORDER BY priority DESC, run_after, id LIMIT 1) AS ready
  WHERE own.key IS NULL OR NOT ({IS_PAUSED} AND paused_until IS NULL)
    AND (max_running IS NULL OR max_running > coalesce((SELECT sum(runs) FROM held WHERE task_path = own.key), 0)))
SELECT coalesce(bool_or(seconds <= 0), false), min(seconds) FILTER (WHERE seconds > 0) FROM opening
"""  # noqa: S608  its parts are ours

# While two versions of the code are at work, the one that was loaded later has the say: a process leaves alone what was
# declared since it began (`age` seconds ago).
IS_DECLARED = """
SELECT EXISTS (SELECT FROM tasks_app_tasklimit WHERE key = %(key)s
  AND (declared = %(declared)s::jsonb OR declared_at > clock_timestamp() - make_interval(secs => %(age)s)))
"""

# What somebody set by hand stands until the code says something else than it did.
DECLARE = """
WITH own AS (
  INSERT INTO tasks_app_tasklimit AS own
    (key, max_running, rate_count, rate_seconds, burst, declared, declared_at, pause_reason)
  VALUES (%(key)s, %(max_running)s, %(rate_count)s, %(rate_seconds)s, %(burst)s, %(declared)s::jsonb,
    clock_timestamp(), '')
  ON CONFLICT (key) DO UPDATE SET max_running = excluded.max_running, rate_count = excluded.rate_count,
    rate_seconds = excluded.rate_seconds, burst = excluded.burst, declared = excluded.declared,
    declared_at = excluded.declared_at,
    next_at = CASE WHEN (own.rate_count, own.rate_seconds) IS NOT DISTINCT FROM
      (excluded.rate_count, excluded.rate_seconds) THEN own.next_at END
  WHERE own.declared IS DISTINCT FROM excluded.declared
    AND coalesce(own.declared_at <= clock_timestamp() - make_interval(secs => %(age)s), true)
  RETURNING key)
SELECT pg_notify('dumbwaiter', 'steer') FROM own
"""

# The code does not limit the task any more. What somebody changed by hand meanwhile stays.
UNDECLARE = """
WITH found AS MATERIALIZED (
  SELECT key AS name, declared IS DISTINCT FROM jsonb_build_object('max_running', max_running,
    'rate_count', rate_count, 'rate_seconds', rate_seconds, 'burst', burst) AS is_changed
  FROM tasks_app_tasklimit
  WHERE key = ANY (%(keys)s) AND declared IS NOT NULL
    AND coalesce(declared_at <= clock_timestamp() - make_interval(secs => %(age)s), true)
  ORDER BY key FOR UPDATE),
own AS (
  UPDATE tasks_app_tasklimit AS own
  SET declared = NULL, declared_at = clock_timestamp(), max_running = CASE WHEN is_changed THEN max_running END,
    rate_count = CASE WHEN is_changed THEN rate_count END,
    rate_seconds = CASE WHEN is_changed THEN rate_seconds END, burst = CASE WHEN is_changed THEN burst ELSE 1 END
  FROM found WHERE own.key = found.name
  RETURNING own.key)
SELECT pg_notify('dumbwaiter', 'steer') FROM own
"""

Limits = Mapping[str, float | int | None]
"""What a task's code says: `max_running`, `rate_count`, `rate_seconds`, `burst`."""

LOADED = time.monotonic()
"""When the code of this process was loaded; the workers of a cluster have it from their main process."""


def age() -> float:
    return time.monotonic() - LOADED


def declare(key: str, limits: Limits) -> None:
    """See that the limits which the code declares stand in the database before a run counts on them.

    Written on a connection of its own: in the caller's transaction the row would stay locked for as long as that takes,
    and two callers could lock two tasks in different orders. It happens once after the code has changed.
    """
    if not execute_prepared(IS_DECLARED, {"key": key, "declared": json.dumps(limits), "age": age()})[0]:
        # The caller expects Django's errors, as of any other enqueue.
        with connections[DEFAULT_DB_ALIAS].wrap_database_errors, connect("dumbwaiter declares limits") as own:
            write(own, key, limits)


def write(db: psycopg.Connection[TupleRow], key: str, limits: Limits) -> None:
    db.execute(DECLARE, {"key": key, "declared": json.dumps(limits), "age": age(), **limits})


def undeclare(db: psycopg.Connection[TupleRow], keys: Sequence[str]) -> None:
    """The code of these tasks says nothing of limits."""
    db.execute(UNDECLARE, {"keys": list(keys), "age": age()})


def openings(db: psycopg.Connection[TupleRow], queues: Sequence[str]) -> tuple[bool, float | None]:
    """Whether something in these queues could be claimed now, and in how many seconds the next opens; None: unknown."""
    row: Any = db.execute(OPENINGS, {"queues": list(queues)}).fetchone()
    return row[0], row[1]
