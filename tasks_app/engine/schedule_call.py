"""What a row of Django-Q2's schedules says: the call that it describes, read without running anybody's code."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django_q.conf import Conf
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError
from django_tasks.utils import normalize_json

from tasks_app import catalog
from tasks_app.engine import q2_options
from tasks_app.engine.logs import one_line
from tasks_app.engine.unique import key_of_saved, rule_of, saved_rule
from tasks_app.ids import new_id
from tasks_app.jsonable import NotJSON, to_json
from tasks_app.masking import MASK, masked_source, places_of
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH

NAMES_OF_OPTIONS = (q2_options.KNOWN | {"q_options"}) - {"group", "cluster"}
"""Keyword arguments that async_task, by which Django-Q2 fires its schedules, keeps for itself."""


class BadSchedule(ValueError):
    """The row cannot be fired; the message is a sentence."""


def default_zone() -> str:
    """The clock of a schedule for which nobody named one: of Q_CLUSTER, or of Django."""
    return Conf.TIME_ZONE or settings.TIME_ZONE


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
    given, named = read_literals(args, kwargs, func)
    options = named.pop("q_options", None) or {}
    if not isinstance(options, dict):
        raise BadSchedule(f"q_options is a mapping, not {one_line(repr(options), 100)}.")
    options = options | {name: named.pop(name) for name in NAMES_OF_OPTIONS & named.keys() - options.keys()}
    queue = queue or options.pop("cluster", None) or options.pop("broker_name", None)
    if queue is not None and not (isinstance(queue, str) and len(queue) <= QUEUE_NAME_LENGTH):
        raise BadSchedule(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters.")
    if twice := [name for name in ("cluster", "broker_name") if options.get(name) not in (None, queue)]:
        raise BadSchedule(f"A schedule cannot take {twice[0]} among its q_options: its queue is {queue}.")
    options.pop("broker_name", None)
    taken: dict[str, Any] = {}
    try:
        if options.get("timeout") is not None:
            taken["timeout"] = q2_options.timeout_of(options["timeout"])
        q2_options.refuse({**options, "hook": hook or options.get("hook"), "q_options": options}, "A schedule")
    except InvalidTaskError as error:
        raise BadSchedule(str(error)) from None
    try:
        plain = normalize_json([given, named])
        to_json(plain, "The arguments")
    except NotJSON as error:
        raise BadSchedule(str(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSchedule(f"The arguments cannot be stored as JSON: {error}.") from None
    return Call(plain[0], plain[1], queue, taken)


def read_literals(args: object, kwargs: object, func: str = "") -> tuple[list[Any], dict[str, Any]]:
    """The values that stand in a row, with the options among the keyword arguments; raises `BadSchedule`.

    Its sentence tells of what cannot be read the beginning, and no secret; of arguments by position `func` knows which.
    """
    positional = _literal(args, "arguments", is_secret=bool(places_of(func)))
    if not isinstance(positional, tuple):  # a single value is written without a comma
        positional = () if positional is None else (positional,)
    return list(positional), _keywords(kwargs)


def _literal(text: object, what: str, *, is_secret: bool = False) -> Any:
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
        shown = MASK if is_secret else one_line(masked_source(text), 100)
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
        raise BadSchedule(
            f"The keyword arguments are not written as x=1 or as a mapping: {one_line(masked_source(str(text)), 100)}"
        )
    return dict(value or {})


# What becomes of it


def options_of(task: Task[..., Any] | None, call: Call) -> dict[str, Any]:
    """What the task itself says of its runs, and of the keys of those that this call makes."""
    if task is None:
        return {}
    return {
        "queue": task.queue_name,
        "priority": task.priority,
        "max_attempts": getattr(task, "max_attempts", None),
        "timeout": getattr(task, "timeout", None),
        "expires_after": getattr(task, "expires_after", None),
        "unique": saved_rule(rule_of(task), call.args, call.kwargs),
        "limits": getattr(task, "limits", None),
    }


def submission_of(
    schedule: Any, call: Call, saved: Mapping[str, Any] | None, about: str | None = None
) -> dict[str, Any]:
    """The columns of the run; the task's own options come from its code if that is loaded here, else as saved."""
    task = catalog.loaded(schedule.func)
    own = {**(saved or {}), **options_of(task, call)}
    most, unique = own.get("max_attempts"), own.get("unique")
    at = schedule.intended_date_kwarg
    return {
        "id": new_id(),
        "task_path": schedule.func,
        "args": json.dumps(call.args),
        "kwargs": json.dumps(call.kwargs),
        "queue_name": call.queue or own.get("queue") or Conf.PREFIX,
        "priority": own.get("priority") or 0,
        "schedule_id": schedule.id,
        "schedule_name": schedule.name or str(schedule.id),
        "max_attempts": settings.MAX_ATTEMPTS if most is None else most,
        "timeout": call.options.get("timeout", own.get("timeout")),
        "expires_after": own.get("expires_after"),
        "unique_key": key_of_saved(schedule.func, unique, {at: call.kwargs[at]} if at else {}) if unique else None,
        "unique_for": unique["seconds"] if unique else None,
        "limits": own.get("limits"),
        "limit_key": schedule.func if own.get("limits") else None,
        "about": about,
    }
