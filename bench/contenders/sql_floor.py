"""The floor: the same table and indexes, each row claimed and finished as the product does, and nothing else done.

Two connections in two processes, batches of 100, finish and next claim in one round trip, planned as the engine has
its own planned. No Python is called per task, nothing is logged, no payload is read. What it enqueues is the product's
own INSERT, sent prepared by psycopg alone: the rest of that time is PostgreSQL's, and above all the commit's.
"""

import os
from functools import cache
from typing import Any

import psycopg

from bench.contenders import dumbwaiter
from tasks_app.engine import statements
from tasks_app.engine.connect import SESSION
from tasks_app.ids import new_id

KEEPS = "the row, with no task called"
NEEDS = "postgres"
BATCH = 100

prepare, fill, finished = dumbwaiter.prepare, dumbwaiter.fill, dumbwaiter.finished
SENDS_MANY = False

# All that the index `run_ready` leaves out is named, or it could not be read.
CLAIM = """
WITH next AS MATERIALIZED (
  SELECT id FROM tasks_app_taskrun
  WHERE queue_name = 'default' AND status = 'READY' AND claimed_by IS NULL AND run_after <= statement_timestamp()
    AND limit_key IS NULL AND is_waiting IS NULL
  ORDER BY priority DESC, run_after, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_app_taskrun AS run SET claimed_by = %(me)s, claimed_at = clock_timestamp(), attempt = run.attempt + 1
FROM next WHERE run.id = ANY (ARRAY[next.id]) RETURNING run.id
"""
FINISH = """
UPDATE tasks_app_taskrun SET status = 'SUCCESSFUL', started_at = claimed_at, finished_at = clock_timestamp(),
  return_value = '1'
WHERE id = ANY (%(ids)s) AND claimed_by IS NOT DISTINCT FROM %(me)s AND status = 'READY'
"""


@cache
def connection() -> psycopg.Connection[Any]:
    return psycopg.connect(autocommit=True)


def send(name: str, argument: float) -> None:
    call = {"id": new_id(), "task_path": name, "args": f"[{argument}]", "kwargs": "{}", "queue_name": "default"}
    more = {"priority": 0, "owner": None, "run_after": None, "max_attempts": 1, "timeout": None}
    connection().execute(statements.ENQUEUE, {**call, **more}, prepare=True).fetchone()


def workers(count: int) -> list[Any]:
    return [[["-m", "bench.contenders.sql_floor"], {}]] * count


def work() -> None:
    """Claim and finish until nothing is left, then wait to be stopped."""
    me = f"floor:{os.getpid()}"
    with connection() as db:
        db.execute(SESSION)
        ids: list[Any] = []
        while True:
            with db.pipeline():
                if ids:
                    db.execute(FINISH, {"ids": ids, "me": me}, binary=True, prepare=True)
                claimed = db.execute(CLAIM, {"me": me, "batch": BATCH}, binary=True, prepare=True)
            ids = [row[0] for row in claimed.fetchall()]
            if not ids:
                db.execute("SELECT pg_sleep(0.2)")


if __name__ == "__main__":
    work()
