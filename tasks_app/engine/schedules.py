"""Django-Q2's schedules: checked when they are saved, fired by any sentinel, exactly once.

A firing is one transaction: it locks the row, submits the run and moves the row to its next time, so it happens as a
whole or not at all. Nothing here imports or calls a task's code when it fires: a sentinel must outlive all of it.
"""

from __future__ import annotations

import ast
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models.signals import post_save, pre_delete, pre_save
from django.dispatch import receiver
from django_q.conf import Conf
from django_q.models import Schedule
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError
from django_tasks.utils import normalize_json
from psycopg.rows import TupleRow

from tasks_app import catalog
from tasks_app.engine import statements
from tasks_app.engine.connect import UNREACHABLE
from tasks_app.engine.context import RunContext
from tasks_app.engine.execution import signature_of
from tasks_app.engine.logs import one_line
from tasks_app.engine.timing import CRON, ONCE, BadTiming, Plan, Timing
from tasks_app.jsonable import NotJSON, storable, to_json
from tasks_app.models import Missed, Overlap, ScheduleRules
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH

logger = logging.getLogger("dumbwaiter.schedules")

MISSED_AFTER = timedelta(seconds=60)
"""A time counts as missed when nobody fired it within so long."""

AT_ONCE = 100
"""Schedules fired in one transaction; a sentinel looks after its workers between two of them."""

NAMES_OF_OPTIONS = {
    "hook", "save", "sync", "cached", "ack_failure", "iter_count", "iter_cached", "chain", "broker", "timeout",
    "task_name", "q_options",
}  # fmt: skip
"""Keyword arguments that async_task, by which Django-Q2 fires its schedules, keeps for itself."""

EDITED = {"func", "hook", "args", "kwargs", "schedule_type", "minutes", "cron", "cluster", "intended_date_kwarg"}
"""The columns of a schedule that can be wrong."""

# Locks what is due and not locked by a cluster that was faster, or by somebody who is just editing it. A broken row
# waits for another version of itself. All of a row that may be wrong is judged here in Python, not by the database.
DUE = """
SELECT schedule.id, name, func, hook, args, kwargs, schedule_type, minutes, cron, repeats, next_run, cluster,
  intended_date_kwarg, schedule.xmin::text, time_zone, missed, overlap, plan, options, last_due,
  EXISTS (SELECT FROM tasks_app_taskrun AS run WHERE run.id = rules.last_run AND run.status IN ('READY', 'RUNNING')),
  clock_timestamp()
FROM django_q_schedule AS schedule LEFT JOIN tasks_app_schedulerules AS rules ON rules.schedule_id = schedule.id
WHERE repeats <> 0 AND next_run <= clock_timestamp()
  AND (error IS NULL OR broken_version <> schedule.xmin::text)
  AND (%(only)s::int IS NULL OR schedule.id = %(only)s)
ORDER BY next_run, schedule.id LIMIT %(limit)s FOR UPDATE OF schedule SKIP LOCKED
"""

SUBMIT = """
WITH run AS (
  INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, schedule_id,
    schedule_name, run_after, enqueued_at, attempt, max_attempts, timeout, attempts)
  SELECT call.id, task_path, args::jsonb, kwargs::jsonb, queue_name, priority, 'READY', %(owner)s, schedule_id,
    schedule_name, now.at, now.at, 0, max_attempts, timeout, '[]'
  FROM (SELECT clock_timestamp() AS at) AS now,
    unnest(%(id)s::uuid[], %(task_path)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue_name)s::text[],
      %(priority)s::int2[], %(schedule_id)s::int[], %(schedule_name)s::text[], %(max_attempts)s::int2[],
      %(timeout)s::float8[])
    AS call(id, task_path, args, kwargs, queue_name, priority, schedule_id, schedule_name, max_attempts, timeout)
  RETURNING queue_name)
SELECT pg_notify('dumbwaiter', queue_name) FROM (SELECT DISTINCT queue_name FROM run) AS queue
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

LAST_RUN = """
WITH schedule AS (UPDATE django_q_schedule SET task = %(task)s WHERE id = %(id)s)
UPDATE tasks_app_schedulerules SET last_run = %(run)s WHERE schedule_id = %(id)s
"""


class BadSchedule(ValueError):
    """The row cannot be fired; the message is a sentence."""


def default_zone() -> str:
    """The clock of a schedule for which nobody named one: of Q_CLUSTER, or of Django."""
    return Conf.TIME_ZONE or settings.TIME_ZONE


# What a row says


@dataclass(frozen=True, slots=True)
class Call:
    """The call that a row describes, read as Django-Q2 reads it."""

    args: list[Any]
    kwargs: dict[str, Any]
    queue: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """`timeout`, if it was given; its value is never Django-Q2's -1."""


def read_call(func: str, hook: str | None, args: object, kwargs: object, queue: str | None) -> Call:
    """Raises `BadSchedule` for what is not written as literals, is not JSON, or asks for what a run does not have."""
    if len(func) > TASK_PATH_LENGTH:
        raise BadSchedule(f"The path of a task has at most {TASK_PATH_LENGTH} characters.")
    given, named = read_literals(args, kwargs)
    options = named.pop("q_options", None) or {}
    if not isinstance(options, dict):
        raise BadSchedule(f"q_options is a mapping, not {one_line(repr(options), 100)}.")
    options = options | {name: named.pop(name) for name in NAMES_OF_OPTIONS & named.keys() - options.keys()}
    queue = queue or options.pop("cluster", None) or options.pop("broker_name", None)
    if queue is not None and not (isinstance(queue, str) and len(queue) <= QUEUE_NAME_LENGTH):
        raise BadSchedule(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters.")
    taken: dict[str, Any] = {}
    if options.get("timeout") is not None:
        timeout = options["timeout"]
        taken["timeout"] = None if timeout == -1 else timeout  # Django-Q2's word for none
        if timeout != -1 and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
            raise BadSchedule(f"A timeout is a number of seconds above 0, not {timeout!r}.")
    refused = sorted(name for name, value in {**options, "hook": hook or options.get("hook")}.items() if value)
    if refused := [name for name in refused if name != "timeout"]:
        raise BadSchedule(f"A schedule cannot take {', '.join(refused)} here: runs have no such option.")
    try:
        plain = normalize_json([given, named])
        to_json(plain, "The arguments")
    except NotJSON as error:
        raise BadSchedule(str(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSchedule(f"The arguments cannot be stored as JSON: {error}.") from None
    return Call(plain[0], plain[1], queue, taken)


def read_literals(args: object, kwargs: object) -> tuple[list[Any], dict[str, Any]]:
    """The values that stand in a row, with the options among the keyword arguments; raises `BadSchedule`."""
    positional = _literal(args, "arguments")
    if not isinstance(positional, tuple):  # a single value is written without a comma
        positional = () if positional is None else (positional,)
    return list(positional), _keywords(kwargs)


def _literal(text: object, what: str) -> Any:
    """A value as Python writes it, never evaluated; None for nothing."""
    if not isinstance(text, str):  # not saved yet: `schedule()` gives the values themselves
        text = "" if text is None else str(text)
    if len(text) > settings.MAX_JSON_BYTES:
        raise BadSchedule(
            f"The {what} have {len(text):,} characters, more than the {settings.MAX_JSON_BYTES:,} allowed."
        )
    try:
        return ast.literal_eval(text.strip()) if text.strip() else None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        shown = one_line(text, 100)
        raise BadSchedule(f"The {what} cannot be read as plain values: {shown}") from None


def _keywords(text: object) -> dict[str, Any]:
    """`{"x": 1}` or `x=1`, as Django-Q2 takes them; what is neither is not silently taken for nothing."""
    try:
        value = _literal(text, "keyword arguments")
    except BadSchedule:
        try:
            call = ast.parse(f"f({text})", mode="eval").body
            assert isinstance(call, ast.Call)
            assert not call.args
            value = {str(keyword.arg or ""): ast.literal_eval(keyword.value) for keyword in call.keywords}
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, AssertionError):
            value = ""
        if isinstance(value, str) or "" in value:
            raise
    if value is not None and not (isinstance(value, dict) and all(isinstance(name, str) for name in value)):
        raise BadSchedule(f"The keyword arguments are not written as x=1 or as a mapping: {one_line(str(text), 100)}")
    return dict(value or {})


# Saving


def check(schedule: Schedule, zone: str | None = None) -> tuple[Call, Task[..., Any] | None]:
    """See that a schedule can be fired, before it is saved, and name its task as a worker finds it.

    Raises `InvalidTaskError` with one sentence. Answers the call, and the task unless it is a plain function.
    """
    try:
        schedule.func = catalog.path_of(schedule.func)
        found = catalog.find(schedule.func)
        call = read_call(schedule.func, schedule.hook, schedule.args, schedule.kwargs, schedule.cluster)
        _timing(schedule, zone or default_zone()).check()
    except (BadSchedule, BadTiming, catalog.UnknownTask) as error:
        raise InvalidTaskError(str(error)) from error
    task = found if isinstance(found, Task) else None
    first = [RunContext] if task and task.takes_context else []
    intended = {schedule.intended_date_kwarg: ""} if schedule.intended_date_kwarg else {}
    if signature := signature_of(task.func if task else found):
        try:
            signature.bind(*first, *call.args, **{**call.kwargs, **intended})
        except TypeError as error:
            name = schedule.func.rpartition(".")[2]
            raise InvalidTaskError(f"{name} cannot be called with these arguments: {error}.") from None
    return call, task


def _timing(schedule: Schedule, zone: str) -> Timing:
    return Timing(schedule.schedule_type, zone, schedule.minutes, schedule.cron or None)


def calculate_next_run(schedule: Schedule, next_run: datetime | None = None) -> datetime | None:
    """The time after the next one, or of cron the next one from now; raises `InvalidTaskError`."""
    rules = ScheduleRules.objects.filter(pk=schedule.pk).first() if schedule.pk else None
    timing = _timing(schedule, rules.time_zone if rules else default_zone())
    due = datetime.now(UTC) if timing.kind == CRON else next_run or schedule.next_run
    try:
        return timing.after(due, due, rules.plan if rules else None)
    except BadTiming as error:
        raise InvalidTaskError(str(error)) from error


# In place of Django-Q2's own, which it calls before any signal, and which answers otherwise where clocks are switched.
Schedule.calculate_next_run = calculate_next_run


@receiver(pre_save, sender=Schedule, dispatch_uid="dumbwaiter")
def before_save(sender: object, instance: Schedule, raw: bool, update_fields: Any, **kwargs: Any) -> None:
    """Refuse what cannot be fired; raises `InvalidTaskError`. A fixture is loaded as it is, and judged when due."""
    if raw or not (update_fields is None or EDITED & set(update_fields)):
        return
    rules = ScheduleRules.objects.filter(pk=instance.pk).first() if instance.pk else None
    if not instance._state.adding:
        # Also waits for a cluster that is just firing it, or holds the next one off until the caller commits.
        locked = Schedule.objects.filter(pk=instance.pk)
        if transaction.get_connection().in_atomic_block:
            locked = locked.select_for_update()
        if not locked.values_list("pk").first():
            raise InvalidTaskError("This schedule is gone: it is done, or somebody deleted it. Make a new one.")
    zone = rules.time_zone if rules else default_zone()
    _, task = check(instance, zone)
    instance._noted = {"options": _options_of(task)}
    if instance.schedule_type == CRON:
        timing, now = _timing(instance, zone), datetime.now(UTC)
        if not timing.is_of(rules.plan if rules else None):
            # Django-Q2 reckons a new one only.
            instance.next_run = timing.after(now, now)
            instance._noted["plan"] = timing.plan(instance.next_run, instance.next_run)


@receiver(post_save, sender=Schedule, dispatch_uid="dumbwaiter")
def after_save(sender: object, instance: Schedule, raw: bool, **kwargs: Any) -> None:
    """Remember what firing needs, take an old error back, and have the clusters look at once."""
    if raw:
        return
    noted = {"error": None, "broken_version": None, "skipped": None, "noted_at": None}
    noted |= vars(instance).pop("_noted", {})
    rules, _ = ScheduleRules.objects.update_or_create(
        schedule_id=instance.pk, defaults=noted, create_defaults={**noted, "time_zone": default_zone()}
    )
    rules.schedule = instance  # so that `schedule.rules` is this very row
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [statements.CHANNEL, statements.STEER_HINT])


@receiver(pre_delete, sender=Schedule, dispatch_uid="dumbwaiter")
def before_delete(sender: object, instance: Schedule, **kwargs: Any) -> None:
    """Take the locks in the order of a firing, schedule before rules: a deadlock would fail one of the two."""
    Schedule.objects.select_for_update().filter(pk=instance.pk).values_list("pk").first()


def _options_of(task: Task[..., Any] | None) -> dict[str, Any]:
    """What the task itself says of its runs."""
    if task is None:
        return {}
    return {
        "queue": task.queue_name,
        "priority": task.priority,
        "max_attempts": getattr(task, "max_attempts", None),
        "timeout": getattr(task, "timeout", None),
    }


def change_rules(rules: ScheduleRules, changes: Mapping[str, Any]) -> None:
    """Set rules of a schedule and have it go by them from now on; raises `InvalidTaskError`."""
    kinds = {"missed": Missed, "overlap": Overlap}
    for name, value in changes.items():
        if name not in {"time_zone", *kinds}:
            raise InvalidTaskError(f"A schedule has no rule {name}; it has time_zone, missed and overlap.")
        if name in kinds and value not in kinds[name].values:
            raise InvalidTaskError(f"{name} is one of {', '.join(kinds[name].values)}, not {value!r}.")
        setattr(rules, name, value)
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        check(schedule, rules.time_zone)
        rules.save(update_fields=list(changes))
        schedule.save()


# Firing


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
    plan: Plan | None
    options: dict[str, Any] | None
    last_due: datetime | None
    is_unfinished: bool
    now: datetime

    @property
    def title(self) -> str:
        return self.name or f"{self.func.rpartition('.')[2]} ({self.id})"


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
        submission = submission_of(due, call, due.options)
    except (BadSchedule, BadTiming) as error:
        return Firing(due, error=str(error))
    except Exception as error:  # a row can hold anything, and must not harm the sentinel
        return Firing(due, error=f"It cannot be fired: {type(error).__name__}: {error}")
    firing.skipped = reason_to_skip(due)
    firing.repeats = -1 if due.repeats < 0 else due.repeats
    if due.kind == ONCE:
        firing.repeats = 0
    if firing.skipped is None:
        firing.submission = submission
        if due.kind != ONCE and due.repeats > 0:
            firing.repeats = due.repeats - 1
    return firing


def reason_to_skip(due: Due) -> str | None:
    """One sentence, or None when it is to be fired."""
    at = f"{due.next_run.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if due.next_run == due.last_due:
        # Somebody wrote the row back as it was before: the same moment is never fired twice.
        return f"Skipped: it was fired for {at} already."
    if due.missed == Missed.SKIP and due.now - due.next_run > MISSED_AFTER:
        return f"Skipped: no cluster was there at {at}."
    if due.overlap == Overlap.SKIP and due.is_unfinished and due.kind != ONCE:
        return f"Skipped at {at}: its last run has not ended."
    return None


def submission_of(schedule: Any, call: Call, saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns of the run; the task's own options come from its code if that is loaded here, else as saved."""
    task = catalog.loaded(schedule.func)
    own = {**(saved or {}), **_options_of(task)}
    most = own.get("max_attempts")
    return {
        "id": uuid.uuid4(),
        "task_path": schedule.func,
        "args": json.dumps(call.args),
        "kwargs": json.dumps(call.kwargs),
        "queue_name": call.queue or own.get("queue") or Conf.PREFIX,
        "priority": own.get("priority") or 0,
        "schedule_id": schedule.id,
        "schedule_name": schedule.name or str(schedule.id),
        "max_attempts": settings.MAX_ATTEMPTS if most is None else most,
        "timeout": call.options.get("timeout", own.get("timeout")),
    }


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
            _carry_out(db, firings)
    for firing in firings:
        _tell(firing)
    return len(firings)


def _carry_out(db: psycopg.Connection[TupleRow], firings: Sequence[Firing]) -> None:
    submissions = [firing.submission for firing in firings if firing.submission]
    staying = [firing for firing in firings if not firing.is_over]
    moving = [firing for firing in staying if firing.error is None]
    if submissions:
        db.execute(SUBMIT, {"owner": None, **_columns(submissions)})
    if moving:
        db.execute(MOVE_ON, _columns([_moved(firing) for firing in moving]))
    if staying:
        db.execute(REMEMBER, _columns([_noted(firing) for firing in staying]))
    if over := [firing.due.id for firing in firings if firing.is_over]:
        db.execute(FORGET, {"id": over})


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
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


def run_now(rules: ScheduleRules, owner: Any = None) -> uuid.UUID:
    """Submit a run of the schedule for somebody, whatever its time; raises `InvalidTaskError`."""
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        call, task = check(schedule, rules.time_zone)
        if schedule.intended_date_kwarg:
            call.kwargs[schedule.intended_date_kwarg] = datetime.now(UTC).isoformat()
        run = submission_of(schedule, call, _options_of(task))
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(SUBMIT, {"owner": owner.pk if owner else None, **_columns([run])})
            cursor.execute(LAST_RUN, {"id": schedule.pk, "run": run["id"], "task": run["id"].hex})
    return run["id"]
