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

UNIQUE = "('soak.tasks.alone', 'soak.tasks.newest')"

# Both triggers fire after the statement and before its commit. So what ends is noted before anybody can see that, and
# what begins because of it is noted after.
# Keys are told by the arguments, not by what the product makes of them. A retry has none.
TABLES = """
CREATE TABLE soak_event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  what text NOT NULL, run uuid NOT NULL, task text NOT NULL, queue text NOT NULL, attempt int NOT NULL,
  holder text, key text);
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
  IF new.task_path IN {unique} AND new.retry_of_id IS NULL AND new.status NOT IN ('READY', 'RUNNING') THEN
    INSERT INTO soak_event (what, run, task, queue, attempt, key)
    VALUES ('ended', new.id, new.task_path, new.queue_name, new.attempt, new.task_path || (new.args->>1));
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION soak_note_unique() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO soak_event (what, run, task, queue, attempt, key)
  VALUES ('made', new.id, new.task_path, new.queue_name, new.attempt, new.task_path || (new.args->>1));
  RETURN NULL;
END $$;
CREATE TRIGGER soak_claim AFTER UPDATE ON tasks_app_taskrun FOR EACH ROW
WHEN (old.claimed_by IS DISTINCT FROM new.claimed_by OR old.status IS DISTINCT FROM new.status)
EXECUTE FUNCTION soak_note_claim();
CREATE TRIGGER soak_unique AFTER INSERT ON tasks_app_taskrun FOR EACH ROW
WHEN (new.task_path IN {unique} AND new.retry_of_id IS NULL) EXECUTE FUNCTION soak_note_unique();
"""

QUERY = "SELECT at, what, run, task, queue, attempt, holder, key FROM soak_event ORDER BY at, id"


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    what: str
    """`claimed`, `let go`; of unique runs also `made` and `ended`."""
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
    with connect() as connection:
        connection.execute(TABLES.replace("{unique}", UNIQUE))
