"""The floor: the same table and indexes, each row claimed and finished as the product does, and nothing else done.

Two connections in two processes, batches of 100, finish and next claim in one round trip. No Python is called per
task, nothing is logged, no payload is read.
"""

import os
from typing import Any

import psycopg

from bench.contenders import dumbwaiter

KEEPS = "the row, with no task called"
NEEDS = "postgres"
BATCH = 100

prepare, fill, finished, send = dumbwaiter.prepare, dumbwaiter.fill, dumbwaiter.finished, dumbwaiter.send
SENDS_MANY = False

CLAIM = """
WITH next AS MATERIALIZED (
  SELECT id FROM tasks_app_taskrun
  WHERE queue_name = 'default' AND status = 'READY' AND claimed_by IS NULL AND run_after <= clock_timestamp()
  ORDER BY priority DESC, run_after, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_app_taskrun AS run SET claimed_by = %(me)s, claimed_at = clock_timestamp(), attempt = run.attempt + 1
FROM next WHERE run.id = next.id RETURNING run.id
"""
FINISH = """
UPDATE tasks_app_taskrun SET status = 'SUCCESSFUL', started_at = claimed_at, finished_at = clock_timestamp(),
  return_value = '1'
WHERE id = ANY (%(ids)s) AND claimed_by = %(me)s AND status = 'READY'
"""


def workers(count: int) -> list[Any]:
    return [[["-m", "bench.contenders.sql_floor"], {}]] * count


def work() -> None:
    """Claim and finish until nothing is left, then wait to be stopped."""
    me = f"floor:{os.getpid()}"
    with psycopg.connect(autocommit=True) as connection:
        ids: list[Any] = []
        while True:
            with connection.pipeline():
                if ids:
                    connection.execute(FINISH, {"ids": ids, "me": me}, binary=True)
                claimed = connection.execute(CLAIM, {"me": me, "batch": BATCH}, binary=True)
            ids = [row[0] for row in claimed.fetchall()]
            if not ids:
                connection.execute("SELECT pg_sleep(0.2)")


if __name__ == "__main__":
    work()
