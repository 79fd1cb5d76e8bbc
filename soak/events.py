"""Every claim of a run and its end, written by triggers in the very transaction, so that overlaps can be told exactly.

The times of rows would not do: an insert that waits for another's commit has the time from before it waited, and a run
that was given back tells nothing of the claim that it was given back from.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from soak.promises import KEYS, ONE_AT_A_TIME

UNIQUE = [f"soak.tasks.{name}" for name in KEYS]

# All triggers fire after the statement and before its commit. So what ends is noted before anybody can see that, and
# what begins because of it is noted after.
# Keys are told by the arguments, not by what the product makes of them. A retry has none. The runs of a schedule that
# are not to overlap have its name as their key.
TABLES = """
CREATE TABLE soak_event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  what text NOT NULL, run uuid NOT NULL, task text NOT NULL, queue text NOT NULL, attempt int NOT NULL,
  holder text, key text);
CREATE FUNCTION soak_key(run tasks_app_taskrun) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN run.retry_of_id IS NOT NULL THEN NULL
    WHEN run.schedule_name IN ({one_at_a_time}) THEN run.schedule_name
    WHEN run.task_path IN ({unique}) THEN run.task_path || ' ' || (run.args->>1) END $$;
CREATE FUNCTION soak_note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was_held boolean := old.claimed_by IS NOT NULL AND old.status IN ('READY', 'RUNNING');
  is_held boolean := new.claimed_by IS NOT NULL AND new.status IN ('READY', 'RUNNING');
BEGIN
  IF was_held AND NOT is_held OR was_held AND old.claimed_by <> new.claimed_by THEN
    INSERT INTO soak_event (what, run, task, queue, attempt, holder)
    VALUES ('let go', old.id, old.task_path, old.queue_name, old.attempt, old.claimed_by);
  END IF;
  IF is_held AND NOT was_held OR is_held AND old.claimed_by <> new.claimed_by THEN
    INSERT INTO soak_event (what, run, task, queue, attempt, holder)
    VALUES ('claimed', new.id, new.task_path, new.queue_name, new.attempt, new.claimed_by);
  END IF;
  IF soak_key(new) IS NOT NULL AND new.status NOT IN ('READY', 'RUNNING') THEN
    INSERT INTO soak_event (what, run, task, queue, attempt, key)
    VALUES ('ended', new.id, new.task_path, new.queue_name, new.attempt, soak_key(new));
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION soak_note_unique() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO soak_event (what, run, task, queue, attempt, key)
  VALUES ('made', new.id, new.task_path, new.queue_name, new.attempt, soak_key(new));
  RETURN NULL;
END $$;
CREATE FUNCTION soak_note_pass() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO soak_event (what, run, task, queue, attempt, key)
  VALUES ('passed over', new.task::uuid, new.func, '', 0, new.name);
  RETURN NULL;
END $$;
CREATE TRIGGER soak_claim AFTER UPDATE ON tasks_app_taskrun FOR EACH ROW
WHEN (old.claimed_by IS DISTINCT FROM new.claimed_by OR old.status IS DISTINCT FROM new.status)
EXECUTE FUNCTION soak_note_claim();
CREATE TRIGGER soak_unique AFTER INSERT ON tasks_app_taskrun FOR EACH ROW
WHEN (soak_key(new) IS NOT NULL) EXECUTE FUNCTION soak_note_unique();
CREATE TRIGGER soak_pass AFTER UPDATE ON django_q_schedule FOR EACH ROW
WHEN (new.name IN ({one_at_a_time}) AND new.args = old.args AND new.next_run <> old.next_run AND new.task = old.task)
EXECUTE FUNCTION soak_note_pass();
"""

# What is deleted stays here as it was. Many lines of a log go before their run, so they are only counted.
GONE = """
CREATE TABLE soak_gone_run (LIKE tasks_app_taskrun, gone_at timestamptz NOT NULL);
CREATE TABLE soak_gone_flow (LIKE tasks_app_workflow, gone_at timestamptz NOT NULL);
CREATE TABLE soak_gone_lines (run_id uuid NOT NULL, n int NOT NULL);
CREATE FUNCTION soak_keep_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO soak_gone_run SELECT old.*, clock_timestamp(); RETURN NULL; END $$;
CREATE FUNCTION soak_keep_flow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO soak_gone_flow SELECT old.*, clock_timestamp(); RETURN NULL; END $$;
CREATE FUNCTION soak_count_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO soak_gone_lines SELECT run_id, count(*) FROM gone GROUP BY 1; RETURN NULL; END $$;
CREATE TRIGGER soak_gone AFTER DELETE ON tasks_app_taskrun FOR EACH ROW EXECUTE FUNCTION soak_keep_run();
CREATE TRIGGER soak_gone AFTER DELETE ON tasks_app_workflow FOR EACH ROW EXECUTE FUNCTION soak_keep_flow();
CREATE TRIGGER soak_gone AFTER DELETE ON tasks_app_runlog REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION soak_count_lines();
"""

RUNS = """
SELECT *, NULL::timestamptz AS gone_at FROM tasks_app_taskrun UNION ALL SELECT * FROM soak_gone_run
ORDER BY enqueued_at, id
"""
FLOWS = """
SELECT *, NULL::timestamptz AS gone_at FROM tasks_app_workflow UNION ALL SELECT * FROM soak_gone_flow
ORDER BY enqueued_at, id
"""
LINES = """
SELECT run_id, sum(here)::int AS here, sum(gone)::int AS gone FROM (
  SELECT run_id, 1 AS here, 0 AS gone FROM tasks_app_runlog UNION ALL SELECT run_id, 0, n FROM soak_gone_lines) AS line
GROUP BY 1
"""
ACTS = "SELECT at, verb, runs, reason FROM tasks_app_auditentry WHERE verb IN ('retry', 'delete') ORDER BY at, id"

QUERY = "SELECT at, what, run, task, queue, attempt, holder, key FROM soak_event ORDER BY at, id"


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    what: str
    """`claimed`, `let go`; of runs with a key also `made` and `ended`.

    `passed over` is a time of a schedule whose last run, it says, had not ended."""
    run: uuid.UUID
    task: str
    queue: str
    attempt: int
    holder: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Hold:
    """From then until then no claim may leave more than so many runs of a queue or task held."""

    what: str
    """`queue` or `task`."""
    name: str
    most: int
    """0 for a pause."""
    since: datetime
    until: datetime

    def covers(self, event: Event) -> bool:
        return (event.queue if self.what == "queue" else event.task) == self.name


def create(connect: Callable[[], psycopg.Connection[Any]]) -> None:
    statements = TABLES + GONE
    with connect() as connection:
        for name, values in (("{unique}", UNIQUE), ("{one_at_a_time}", ONE_AT_A_TIME)):
            statements = statements.replace(name, ", ".join(f"'{value}'" for value in values))
        connection.execute(statements)
