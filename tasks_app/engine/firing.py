"""Firing: any sentinel submits the runs of the schedules that are due, each time exactly once over all clusters.

A firing is one transaction: it locks the row, submits the run and moves the row to its next time, so it happens as a
whole or not at all. Nothing here imports or calls a task's code: a sentinel must outlive all of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from tasks_app.engine import limits, statements
from tasks_app.engine.connect import UNREACHABLE
from tasks_app.engine.logs import one_line
from tasks_app.engine.schedule_call import BadSchedule, default_zone, read_call, submission_of
from tasks_app.engine.timing import ONCE, BadTiming, Plan, Timing
from tasks_app.jsonable import storable
from tasks_app.models import Missed, Overlap

logger = logging.getLogger("dumbwaiter.schedules")

MISSED_AFTER = timedelta(seconds=60)
"""A time counts as missed when nobody fired it within so long."""

SOON_COMMITTED = "50ms"
"""How long a firing waits for somebody who has a unique key and has not committed; then it waits for its next turn."""

MOST_PUT_OFF = 5
"""So many of them in one turn are enough to wait for."""

AT_ONCE = 100
"""Schedules fired in one transaction; a sentinel looks after its workers between two of them."""

# Locks what is due and not locked by a cluster that was faster, or by somebody who is just editing it. A broken row
# waits for another version of itself. All of a row that may be wrong is judged here in Python, not by the database.
DUE = """
SELECT schedule.id, name, func, hook, args, kwargs, schedule_type, minutes, cron, repeats, next_run, cluster,
  intended_date_kwarg, schedule.xmin::text, time_zone, missed, overlap, about, plan, options, last_due, paused_at,
  paused_until,
  EXISTS (SELECT FROM tasks_app_taskrun AS run WHERE run.id = rules.last_run AND run.status IN ('READY', 'RUNNING')),
  clock_timestamp()
FROM django_q_schedule AS schedule LEFT JOIN tasks_app_schedulerules AS rules ON rules.schedule_id = schedule.id
WHERE repeats <> 0 AND next_run <= clock_timestamp()
  AND (error IS NULL OR broken_version <> schedule.xmin::text)
  AND (paused_at IS NULL OR paused_until <= clock_timestamp())
  AND (%(only)s::int IS NULL OR schedule.id = %(only)s)
ORDER BY next_run, schedule.id LIMIT %(limit)s FOR UPDATE OF schedule SKIP LOCKED
"""

# Answers the ids of the runs that it made; one whose unique key is taken is not among them.
SUBMIT = """
WITH run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, schedule_id,
    schedule_name, run_after, enqueued_at, attempt, max_attempts, timeout, attempts, unique_key, unique_until,
    expires_at, limit_key, about)
  SELECT call.id, task_path, args::jsonb, kwargs::jsonb, queue_name, priority, 'READY', %(owner)s, schedule_id,
    schedule_name, now.at, now.at, 0, max_attempts, timeout, '[]', unique_key,
    now.at + make_interval(secs => unique_for), now.at + make_interval(secs => expires_after),
    limit_key, about
  FROM (SELECT clock_timestamp() AS at) AS now,
    unnest(%(id)s::uuid[], %(task_path)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue_name)s::text[],
      %(priority)s::int2[], %(schedule_id)s::int[], %(schedule_name)s::text[], %(max_attempts)s::int2[],
      %(timeout)s::float8[], %(unique_key)s::text[], %(unique_for)s::float8[], %(expires_after)s::float8[],
      %(limit_key)s::text[], %(about)s::text[])
    AS call(id, task_path, args, kwargs, queue_name, priority, schedule_id, schedule_name, max_attempts, timeout,
      unique_key, unique_for, expires_after, limit_key, about)
  ON CONFLICT DO NOTHING
  RETURNING id, CASE WHEN limit_key IS NULL THEN '' ELSE 'limited ' END || queue_name AS hint)
SELECT id, CASE WHEN row_number() OVER (PARTITION BY hint) = 1 THEN pg_notify('dumbwaiter', hint) END
FROM run
"""

MOVE_ON = """
UPDATE django_q_schedule AS schedule
SET next_run = coalesce(moved.next_run, schedule.next_run), repeats = moved.repeats,
  task = coalesce(moved.task, schedule.task)
FROM unnest(%(id)s::int[], %(next_run)s::timestamptz[], %(repeats)s::int[], %(task)s::text[])
  AS moved(id, next_run, repeats, task)
WHERE schedule.id = moved.id
"""

REMEMBER = """
INSERT INTO tasks_app_schedulerules AS rules (schedule_id, time_zone, missed, overlap, plan, options, last_due,
  last_run, error, broken_version, skipped, noted_at)
SELECT id, time_zone, 'once', 'allow', plan::jsonb, '{}', last_due, last_run, error, broken_version, skipped,
  CASE WHEN error IS NOT NULL OR skipped IS NOT NULL THEN clock_timestamp() END
FROM unnest(%(id)s::int[], %(time_zone)s::text[], %(plan)s::text[], %(last_due)s::timestamptz[], %(last_run)s::uuid[],
  %(error)s::text[], %(broken_version)s::text[], %(skipped)s::text[])
  AS noted(id, time_zone, plan, last_due, last_run, error, broken_version, skipped)
ON CONFLICT (schedule_id) DO UPDATE
SET plan = coalesce(excluded.plan, rules.plan), last_due = coalesce(excluded.last_due, rules.last_due),
  last_run = coalesce(excluded.last_run, rules.last_run), error = excluded.error,
  broken_version = excluded.broken_version, skipped = excluded.skipped, noted_at = excluded.noted_at
"""

# A schedule that is done deletes itself, as Django-Q2 has it. Its runs keep its name.
FORGET = """
WITH rules AS (DELETE FROM tasks_app_schedulerules WHERE schedule_id = ANY (%(id)s::int[])),
runs AS (UPDATE tasks_app_taskrun SET schedule_id = NULL WHERE schedule_id = ANY (%(id)s::int[]))
DELETE FROM django_q_schedule WHERE id = ANY (%(id)s::int[])
"""


@dataclass(slots=True)
class Due:
    """The columns that `DUE` returns, in its order."""

    id: int
    name: str | None
    func: str
    hook: str | None
    args: str | None
    kwargs: str | None
    kind: str
    minutes: int | None
    cron: str | None
    repeats: int
    next_run: datetime
    cluster: str | None
    intended_date_kwarg: str | None
    version: str
    time_zone: str | None
    missed: str | None
    overlap: str | None
    about: str | None
    plan: Plan | None
    options: dict[str, Any] | None
    last_due: datetime | None
    paused_at: datetime | None
    paused_until: datetime | None
    is_unfinished: bool
    now: datetime

    @property
    def title(self) -> str:
        return self.name or f"{self.func.rpartition('.')[2]} ({self.id})"

    @property
    def at(self) -> str:
        return f"{self.next_run.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

    @property
    def was_paused(self) -> bool:
        """When its time came."""
        if self.paused_at is None or self.paused_until is None:
            return False
        return self.paused_at <= self.next_run < self.paused_until


@dataclass(slots=True)
class Firing:
    """What becomes of a schedule that is due, as columns of the statements above."""

    due: Due
    submission: dict[str, Any] | None = None
    next_run: datetime | None = None
    repeats: int = 0
    plan: Plan | None = None
    skipped: str | None = None
    error: str | None = None
    is_put_off: bool = False
    """Somebody is just submitting a run with its key: it stays due."""

    def skip(self, sentence: str) -> None:
        """It does not count as one of its repeats."""
        self.skipped, self.submission = sentence, None
        self.repeats = 0 if self.due.kind == ONCE else max(self.due.repeats, -1)

    @property
    def is_over(self) -> bool:
        """It was for once, and is not to be kept."""
        return self.due.kind == ONCE and self.due.repeats < 0 and self.submission is not None


def decide(due: Due) -> Firing:
    """Fire it, skip this time, or find it broken; pure, and it never raises."""
    try:
        timing = Timing(due.kind, due.time_zone or default_zone(), due.minutes, due.cron or None)
        timing.check()
        firing = Firing(due, next_run=timing.after(due.next_run, due.now, due.plan))
        firing.plan = timing.plan(due.next_run, firing.next_run, due.plan)
        call = read_call(due.func, due.hook, due.args, due.kwargs, due.cluster)
        if due.intended_date_kwarg:
            call.kwargs[due.intended_date_kwarg] = due.next_run.isoformat()
        submission = submission_of(due, call, due.options, due.about)
    except (BadSchedule, BadTiming) as error:
        return Firing(due, error=str(error))
    except Exception as error:  # a row can hold anything, and must not harm the sentinel
        return Firing(due, error=f"It cannot be fired: {type(error).__name__}: {error}")
    if reason := reason_to_skip(due):
        firing.skip(reason)
        return firing
    firing.submission = submission
    firing.repeats = 0 if due.kind == ONCE else -1 if due.repeats < 0 else due.repeats - 1
    return firing


def reason_to_skip(due: Due) -> str | None:
    """One sentence, or None when it is to be fired."""
    at = due.at
    if due.next_run == due.last_due:
        # Somebody wrote the row back as it was before: the same moment is never fired twice.
        return f"Skipped: it was fired for {at} already."
    if due.missed == Missed.SKIP and due.now - due.next_run > MISSED_AFTER:
        if due.was_paused:
            return f"Skipped: it was paused at {at}."
        # Not for want of a cluster alone: it may have been over when somebody saved it.
        return f"Skipped: {at} was over by more than a minute before a cluster could fire it."
    if due.overlap == Overlap.SKIP and due.is_unfinished and due.kind != ONCE:
        return f"Skipped at {at}: its last run has not ended."
    return None


def fire(db: psycopg.Connection[TupleRow]) -> bool:
    """Fire some of the schedules that are due; answers whether there were any. Raises `psycopg.Error`.

    Should the database refuse something in the midst of them, each is tried by itself, and the one is flagged.
    """
    try:
        return bool(_fire(db, AT_ONCE))
    except UNREACHABLE:
        raise
    except psycopg.Error:
        due = [Due(*row) for row in db.execute(DUE, {"limit": AT_ONCE, "only": None}).fetchall()]
    for one in due:
        try:
            _fire(db, 1, one.id)
        except UNREACHABLE:
            raise
        except psycopg.Error as error:
            said = error.diag.message_primary or str(error)
            _carry_out(db, [Firing(one, error=f"The database cannot take it: {said}.")])
    return bool(due)


def _fire(db: psycopg.Connection[TupleRow], limit: int, only: int | None = None) -> int:
    with db.transaction():
        rows = db.execute(DUE, {"limit": limit, "only": only}).fetchall()
        firings = [decide(Due(*row)) for row in rows]
        if firings:
            _submit_unique(db, firings)
            firings = [firing for firing in firings if not firing.is_put_off]
            _carry_out(db, firings)
    for firing in firings:
        _tell(firing)
    return len(firings)


def _submit_unique(db: psycopg.Connection[TupleRow], firings: Sequence[Firing]) -> None:
    """Submit the runs that have a unique key, or skip this time of those whose key is taken.

    One by one, because a key that somebody took and has not committed is waited for, and a sentinel cannot wait long.
    """
    put_off = 0
    for firing in firings:
        run = firing.submission
        if run is None or run["unique_key"] is None:
            continue
        made = None
        try:
            if put_off < MOST_PUT_OFF:
                with db.transaction():
                    before = db.execute("SELECT current_setting('lock_timeout')").fetchone()
                    db.execute("SELECT set_config('lock_timeout', %s, true)", [SOON_COMMITTED])
                    db.execute(statements.RELEASE_KEY, {"unique_keys": [run["unique_key"]]})
                    made = db.execute(SUBMIT, {"owner": None, **columns([run])}).fetchall()
                    db.execute("SELECT set_config('lock_timeout', %s, true)", before)
        except psycopg.errors.LockNotAvailable:
            put_off += 1
        firing.is_put_off = made is None
        if made == []:
            firing.skip(f"Skipped at {firing.due.at}: its task is unique, and a run with its key is there.")


def _carry_out(db: psycopg.Connection[TupleRow], firings: Sequence[Firing]) -> None:
    """Those with a unique key are submitted already."""
    submissions = [firing.submission for firing in firings if firing.submission]
    submissions = [run for run in submissions if run["unique_key"] is None]
    staying = [firing for firing in firings if not firing.is_over]
    moving = [firing for firing in staying if firing.error is None]
    if submissions:
        declared = {run["task_path"]: run["limits"] for run in submissions if run["limits"]}
        for path in sorted(declared):  # in the order in which claims lock them
            limits.write(db, path, declared[path])
        db.execute(SUBMIT, {"owner": None, **columns(submissions)})
    if moving:
        db.execute(MOVE_ON, columns([_moved(firing) for firing in moving]))
    if staying:
        db.execute(REMEMBER, columns([_noted(firing) for firing in staying]))
    if over := [firing.due.id for firing in firings if firing.is_over]:
        db.execute(FORGET, {"id": over})


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as the arrays that `unnest` takes, by their names."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _moved(firing: Firing) -> dict[str, Any]:
    run = firing.submission
    return {
        "id": firing.due.id,
        "next_run": firing.next_run,
        "repeats": firing.repeats,
        "task": run["id"].hex if run else None,  # as async_task answers it
    }


def _noted(firing: Firing) -> dict[str, Any]:
    due, run = firing.due, firing.submission
    return {
        "id": due.id,
        "time_zone": due.time_zone or default_zone(),
        "plan": json.dumps(firing.plan) if firing.plan else None,
        "last_due": due.next_run if run else None,
        "last_run": run["id"] if run else None,
        "error": storable(firing.error, 2_000) if firing.error else None,
        "broken_version": due.version if firing.error else None,
        "skipped": firing.skipped,
    }


def _tell(firing: Firing) -> None:
    title = one_line(firing.due.title, 100)
    if firing.error:
        logger.error("schedule %s cannot be fired: %s", title, one_line(firing.error, 300))
    elif firing.skipped:
        logger.warning("schedule %s: %s", title, firing.skipped)
    elif firing.submission:
        logger.info("schedule %s submitted the run %s", title, firing.submission["id"])
