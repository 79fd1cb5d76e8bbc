"""STEER: what people do to runs: retry, cancel, delete, set priority, move to a queue, run at a time.

Each verb is one statement for up to a thousand runs, whose WHERE has the states from which it is legal; `acts`
performs it on any number of them and writes the audit.

A statement first locks the runs that it is for, by their ids, and passes over those that somebody else has locked; such
a one is then taken by itself. So a batch never waits while it holds locks, and cannot end in a deadlock with the
finishes of a worker, whatever order those are in.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import connection, transaction
from django_tasks import task_backends
from django_tasks.base import TASK_MAX_PRIORITY, TASK_MIN_PRIORITY
from django_tasks.exceptions import InvalidTaskError

from tasks_app import belongings
from tasks_app.audit import By, actor_of
from tasks_app.ids import new_id
from tasks_app.jsonable import storable
from tasks_app.wording import sentence

# Throughout, `= ANY (ARRAY (…))` where a join would say the same: whatever the planner believes of how many rows there
# are, it then finds them by the index, and does not read the whole table to join with it.

SKIP_LOCKED = "SKIP LOCKED"
WAIT = ""

TARGET = """
WITH now AS (SELECT clock_timestamp() AS at), target AS MATERIALIZED (
  SELECT run.id FROM tasks_app_taskrun AS run, now
  WHERE run.id = ANY (%(ids)s::uuid[]) AND {legal}
  ORDER BY run.id FOR UPDATE OF run {locked})
"""

# Held by nobody: it ends here. Else its worker is told to end it.
CANCELLABLE = "run.status IN ('READY', 'RUNNING') AND (run.claimed_by IS NULL OR run.cancel_requested_at IS NULL)"
CANCEL = """, done AS (
  UPDATE tasks_app_taskrun AS run
  SET status = CASE WHEN run.claimed_by IS NULL THEN 'CANCELLED' ELSE run.status END,
    finished_at = CASE WHEN run.claimed_by IS NULL THEN clock_timestamp() END,
    cancel_requested_at = coalesce(run.cancel_requested_at, clock_timestamp()),
    failure_message = CASE WHEN run.cancel_requested_at IS NULL THEN %(said)s ELSE run.failure_message END
  WHERE run.id = ANY (ARRAY (SELECT id FROM target)) AND run.status IN ('READY', 'RUNNING')
  RETURNING run.id, run.status)
SELECT id, CASE WHEN status <> 'CANCELLED' THEN pg_notify('dumbwaiter', 'cancel ' || id) END FROM done
"""

# What nobody has taken yet may still go earlier, later or elsewhere.
UNHELD = "run.status = 'READY' AND run.claimed_by IS NULL"
CHANGE = f""", done AS (
  UPDATE tasks_app_taskrun AS run SET {{change}}
  FROM now WHERE run.id = ANY (ARRAY (SELECT id FROM target)) AND {UNHELD}
  RETURNING run.id, CASE WHEN run.limit_key IS NULL THEN '' ELSE 'limited ' END || run.queue_name AS hint)
"""  # noqa: S608 - constants of this module
# One NOTIFY a queue; counted, or the database would not bother to send it.
AND_NOTIFY = """, told AS MATERIALIZED (
  SELECT pg_notify('dumbwaiter', hint) FROM (SELECT DISTINCT hint FROM done) AS queue)
SELECT id, (SELECT count(*) FROM told) FROM done
"""

LOCK = "SELECT id FROM target"

# After `LOCK`, as a statement of its own: it has to see what was committed before the locks were had, else of two who
# ask at the same moment each would find that no retry stands yet.
RETRYABLE = "run.status = ANY (%(statuses)s) AND (run.previous IS NULL OR run.is_waiting IS NULL)"
RETRY = """
WITH now AS (SELECT clock_timestamp() AS at), done AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, limit_key,
    retry_of_id, run_after, enqueued_at, attempt, max_attempts, timeout, attempts, about)
  SELECT copy.id, old.task_path, old.args, old.kwargs, old.queue_name, old.priority, 'READY',
    coalesce(%(owner)s, old.owner_id), old.limit_key, old.id, now.at, now.at, 0, old.max_attempts, old.timeout, '[]',
    old.about
  FROM now, unnest(%(ids)s::uuid[], %(copies)s::uuid[]) AS copy(old, id)
  JOIN tasks_app_taskrun AS old ON old.id = copy.old
  WHERE NOT EXISTS (SELECT FROM tasks_app_taskrun AS again
    WHERE again.retry_of_id = old.id AND (again.status IN ('READY', 'RUNNING') OR NOT %(anew)s))
  RETURNING retry_of_id AS id, CASE WHEN limit_key IS NULL THEN '' ELSE 'limited ' END || queue_name AS hint)
"""

# What has ended for good: neither its workflow nor a retry of it, which may need its files, goes on, and its unique key
# keeps no other run away any more.
FINAL = "run.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')"
DELETABLE = f"""{FINAL} AND (run.unique_until IS NULL OR run.unique_until <= clock_timestamp())
    AND NOT EXISTS (SELECT FROM tasks_app_workflow AS workflow
      WHERE workflow.id = run.workflow_id AND workflow.status IN ('READY', 'RUNNING'))
    AND NOT EXISTS (SELECT FROM tasks_app_taskrun AS again
      WHERE again.retry_of_id = run.id AND again.status IN ('READY', 'RUNNING'))"""  # noqa: S608 - constants of this module
# A run may have thousands of lines, so most of them go before it, in statements of bounded length.
LINES = 20_000
DELETE_LINES = f"""
DELETE FROM tasks_app_runlog WHERE id = ANY (ARRAY (
  SELECT id FROM tasks_app_runlog WHERE run_id = ANY (ARRAY (
    SELECT run.id FROM tasks_app_taskrun AS run WHERE run.id = ANY (%(ids)s::uuid[]) AND {DELETABLE}))
  LIMIT %(lines)s))
"""  # noqa: S608 - constants of this module
DELETE = """, lines AS (DELETE FROM tasks_app_runlog WHERE run_id = ANY (ARRAY (SELECT id FROM target))),
done AS (
  DELETE FROM tasks_app_taskrun AS run
  WHERE run.id = ANY (ARRAY (SELECT id FROM target)) AND run.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')
  RETURNING run.id)
SELECT id, (SELECT true FROM tasks_app_taskrun AS again WHERE again.retry_of_id = done.id LIMIT 1) IS NOT NULL FROM done
"""

# Why a run was left as it is. With an EXISTS among the columns all runs might be read for it; so, the index is.
FIND = """
SELECT run.id, run.status, run.claimed_by IS NOT NULL, run.cancel_requested_at IS NOT NULL, run.priority,
  run.queue_name, least(greatest(run.run_after, 'epoch'), '9999-12-31'), run.run_after <= clock_timestamp(),
  run.previous IS NOT NULL AND run.is_waiting IS NOT NULL,
  coalesce(run.unique_until > clock_timestamp(), false),
  (SELECT true FROM tasks_app_workflow AS workflow
    WHERE workflow.id = run.workflow_id AND workflow.status IN ('READY', 'RUNNING')) IS NOT NULL,
  (SELECT true FROM tasks_app_taskrun AS again
    WHERE again.retry_of_id = run.id AND again.status IN ('READY', 'RUNNING') LIMIT 1) IS NOT NULL,
  (SELECT true FROM tasks_app_taskrun AS again WHERE again.retry_of_id = run.id LIMIT 1) IS NOT NULL
FROM tasks_app_taskrun AS run WHERE run.id = ANY (%(ids)s::uuid[])
"""


@dataclass(slots=True)
class Found:
    """The columns that `FIND` returns, in its order."""

    id: uuid.UUID
    status: str
    is_held: bool
    is_stopping: bool
    priority: int
    queue_name: str
    run_after: datetime
    is_due: bool
    is_unready: bool
    is_keeping_its_key: bool
    is_in_workflow: bool
    is_being_retried: bool
    was_retried: bool

    @property
    def has_ended(self) -> bool:
        return self.status not in {"READY", "RUNNING"}


Reason = tuple[str, str]
"""Why a run was left as it is, said of one and of many."""

ENDED = ("has ended already", "have ended already")
UNFINISHED = ("has not ended yet", "have not ended yet")
HELD = ("is held by a worker", "are held by workers")
STOPPING = ("is being cancelled already", "are being cancelled already")
SUCCESSFUL = ("was successful", "were successful")
RETRIED = ("has a retry that has not ended", "have a retry that has not ended")
SENT_BEFORE = ("was sent once more before", "were sent once more before")
UNREADY = ("never got the results that it waited for", "never got the results that they waited for")
IN_WORKFLOW = ("belongs to a workflow that has not ended", "belong to a workflow that has not ended")
KEYED = ("keeps its unique key for a time yet", "keep their unique keys for a time yet")
SAME = ("is so already", "are so already")
DUE = ("is due already", "are due already")
GONE = ("is no longer there", "are no longer there")
BUSY = ("was just being changed by somebody else", "were just being changed by somebody else")


@dataclass(frozen=True)
class Verb:
    """One thing that is done to runs."""

    name: str
    done: str
    """`3 runs were …`"""
    act: Callable[[list[uuid.UUID], str], set[uuid.UUID]]
    """Do it to these runs, and wait for locked ones or not; answers whom it was done to."""
    why_not: Callable[[Found], Reason | None]
    """Why a run was left as it is; None if for no other reason than a lock that somebody had on it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What it was given, for the audit."""
    prepare: Callable[[list[uuid.UUID]], bool] | None = None
    """Done before, each time in a transaction of its own, until it answers that there is no more of it to do."""


def execute(statement: str, given: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, given)
        return cursor.fetchall()


def on(legal: str, rest: str, **given: Any) -> Callable[[list[uuid.UUID], str], set[uuid.UUID]]:
    """The act that is one statement; the first column that it returns is the id of whom it was done to."""

    def act(ids: list[uuid.UUID], locked: str) -> set[uuid.UUID]:
        return {row[0] for row in execute(TARGET.format(legal=legal, locked=locked) + rest, {**given, "ids": ids})}

    return act


def find(ids: list[uuid.UUID]) -> dict[uuid.UUID, Found]:
    """What there is to say about these runs, by their ids."""
    return {row[0]: Found(*row) for row in execute(FIND, {"ids": ids})}


def cancel(by: By, why: str) -> Verb:
    """End them: at once where nobody holds the run, else its worker is told to; the first wish counts."""

    def why_not(run: Found) -> Reason | None:
        return ENDED if run.has_ended else STOPPING if run.is_held and run.is_stopping else None

    name = actor_of(by).name
    said = why or "Cancelled."
    if name:
        said = f"Cancelled by {name}: {sentence(why)}" if why else f"Cancelled by {name}."
    return Verb("cancel", "cancelled", on(CANCELLABLE, CANCEL, said=storable(said, 500)), why_not)


def retry(by: By, successful_too: bool, anew: bool) -> Verb:
    """Make a new run of each with the same task, arguments and options, due now; one unfinished retry a run.

    One whose retry has ended is sent again only with `anew`. Of many that failed, some are retries of others among
    them: the newest of a line stands for it, or the work would double each time.

    It belongs to whoever asks, and of code to whom the old one belonged. It is a plain run of its own: no part of the
    old one's workflow or schedule, without its unique and idempotency keys and its expiry, and so it may run beside
    another that has the unique key.
    """
    statuses = ["FAILED", "CANCELLED", *(["SUCCESSFUL"] if successful_too else [])]

    def why_not(run: Found) -> Reason | None:
        if run.status not in statuses:
            return SUCCESSFUL if run.has_ended else UNFINISHED
        if run.is_being_retried or (run.was_retried and not anew):
            return RETRIED if run.is_being_retried else SENT_BEFORE
        return UNREADY if run.is_unready else None

    user = actor_of(by).user
    lock = on(RETRYABLE, LOCK, statuses=statuses)

    def act(ids: list[uuid.UUID], locked: str) -> set[uuid.UUID]:
        mine = sorted(lock(ids, locked))
        copies = [new_id() for _ in mine]
        given = {"ids": mine, "copies": copies, "owner": user.pk if user else None, "anew": anew}
        return {row[0] for row in execute(RETRY + AND_NOTIFY, given)} if mine else set()

    return Verb("retry", "sent once more", act, why_not)


def delete() -> Verb:
    """Delete what has ended, with its log at once and with its files when that is committed."""

    def why_not(run: Found) -> Reason | None:
        if not run.has_ended:
            return UNFINISHED
        if run.is_being_retried or run.is_in_workflow:
            return RETRIED if run.is_being_retried else IN_WORKFLOW
        return KEYED if run.is_keeping_its_key else None

    def act(ids: list[uuid.UUID], locked: str) -> set[uuid.UUID]:
        rows = delete_rows(ids, locked)
        transaction.on_commit(partial(belongings.remove, places_of(rows)), robust=True)
        return {row[0] for row in rows}

    return Verb("delete", "deleted", act, why_not, prepare=delete_lines)


def delete_rows(ids: list[uuid.UUID], locked: str) -> list[tuple[Any, ...]]:
    """Delete those that have ended, with their log; answers which, and whether each has a retry.

    Within a transaction, because it takes two statements, as `RETRY` does: a retry that was committed just before the
    locks were had counts.
    """
    mine = sorted(row[0] for row in execute(TARGET.format(legal=FINAL, locked=locked) + LOCK, {"ids": ids}))
    return execute(TARGET.format(legal=DELETABLE, locked=WAIT) + DELETE, {"ids": mine}) if mine else []


def places_of(rows: list[tuple[Any, ...]]) -> dict[uuid.UUID, tuple[str, ...]]:
    """Where the files of deleted runs stand that nobody needs any more.

    What was sent with a run is of use to its retries too; a prune finds it when those are gone.
    """
    return {run: belongings.MADE if has_retry else belongings.ALL for run, has_retry in rows}


def delete_lines(ids: list[uuid.UUID]) -> bool:
    """Delete some of the log of those that `delete` would take; answers whether there may be more."""
    with connection.cursor() as cursor:
        cursor.execute(DELETE_LINES, {"ids": ids, "lines": LINES})
        return cursor.rowcount == LINES


def unheld(run: Found) -> Reason | None:
    return ENDED if run.has_ended else HELD if run.is_held else None


def set_priority(priority: int) -> Verb:
    """Have them go before those with a lower one; raises `InvalidTaskError` for a priority that no task can have."""
    if type(priority) is not int or not TASK_MIN_PRIORITY <= priority <= TASK_MAX_PRIORITY:
        raise InvalidTaskError(f"A priority is a whole number from {TASK_MIN_PRIORITY} to {TASK_MAX_PRIORITY}.")

    def why_not(run: Found) -> Reason | None:
        return unheld(run) or (SAME if run.priority == priority else None)

    change = CHANGE.format(change="priority = %(priority)s") + AND_NOTIFY
    act = on(f"{UNHELD} AND run.priority <> %(priority)s", change, priority=priority)
    return Verb("set priority", f"given the priority {priority}", act, why_not, {"priority": priority})


def move_to(queue: str) -> Verb:
    """Put them into another queue, each at its place by priority and time; raises `InvalidTaskError` for a bad name."""
    check_queue(queue)

    def why_not(run: Found) -> Reason | None:
        return unheld(run) or (SAME if run.queue_name == queue else None)

    change = CHANGE.format(change="queue_name = %(queue)s") + AND_NOTIFY
    act = on(f"{UNHELD} AND run.queue_name <> %(queue)s", change, queue=queue)
    return Verb("move", f"moved to the queue {queue}", act, why_not, {"queue": queue})


def check_queue(queue: str) -> None:
    """Raise `InvalidTaskError` for what is no queue that a task could name."""
    from tasks_app.models.run import QUEUE_NAME_LENGTH

    if not isinstance(queue, str) or not 1 <= len(queue) <= QUEUE_NAME_LENGTH:
        raise InvalidTaskError(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters.")
    if storable(queue) != queue:
        raise InvalidTaskError("A queue's name has only characters that the database can keep.")
    known = task_backends["default"].queues
    if known and queue not in known:
        raise InvalidTaskError(f"There is no queue {queue}; there are {', '.join(sorted(known))}.")


def run_at(moment: datetime | None) -> Verb:
    """Have them wait until then, or no longer: a moment that is over is now. Raises `InvalidTaskError` for a bad one.

    What is due already keeps its place in line when it is to run now.
    """
    told = moment
    if told is not None:
        if not isinstance(told, datetime) or told.tzinfo is None:
            raise InvalidTaskError("A moment is a datetime with a time zone.")
        if not 1900 <= told.year <= 9000:
            raise InvalidTaskError("That moment is further away than any calendar reaches.")
        told = told.astimezone(UTC)

    def why_not(run: Found) -> Reason | None:
        return unheld(run) or (SAME if run.run_after == told else DUE if run.is_due else None)

    change = CHANGE.format(change="run_after = greatest(%(moment)s::timestamptz, now.at)") + AND_NOTIFY
    legal = f"{UNHELD} AND (run.run_after > now.at OR %(moment)s::timestamptz > now.at)"
    legal += " AND run.run_after IS DISTINCT FROM %(moment)s::timestamptz"
    said = f"set to {told:%Y-%m-%d %H:%M:%S} UTC" if told else "made due now"
    details = {"run_after": told.isoformat() if told else "now"}
    return Verb("run at", said, on(legal, change, moment=told), why_not, details)
