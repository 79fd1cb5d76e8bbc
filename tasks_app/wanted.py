"""SUBMIT: a run as a client of the JSON door wants it: what is not understood is refused, never dropped."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.utils import timezone
from django_tasks.exceptions import InvalidTaskError

from tasks_app import wording
from tasks_app.backend import PostgresBackend, check_moment
from tasks_app.catalog import UnknownTask
from tasks_app.jsonable import NotJSON, to_json
from tasks_app.kinds import BadText, plain, refuse_constant
from tasks_app.masking import MASK, call_has_mask
from tasks_app.models import TaskRun
from tasks_app.parameters import misfit, unfit
from tasks_app.signature import find_launchable, form_of

FIELDS = ("task", "args", "kwargs", "queue", "priority", "run_after")
EXAMPLE = '{"task": "shop.tasks.greet", "args": ["Ada"]}'

REFUSALS = (BadText, NotJSON, UnknownTask, InvalidTaskError)
"""What reading and sending raise, each with one sentence."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task by its path, what it is called with, and with which of the options of `task.using`."""

    path: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]

    @classmethod
    def read(cls, body: bytes) -> Wanted:
        """Raises one of `REFUSALS`."""
        given = read_json(body)
        if not isinstance(given, dict):
            raise BadText(f"The body is not an object: send {EXAMPLE}.")
        for name in given:
            if name not in FIELDS:
                raise BadText(f"There is no field {told(name)}: a body has {', '.join(FIELDS)}.")
        path, args, kwargs = given.get("task"), given.get("args", []), given.get("kwargs", {})
        if not isinstance(path, str):
            raise BadText('task is the path of a task, such as "shop.tasks.greet".')
        if not isinstance(args, list):
            raise BadText('args is a list, such as ["Ada"].')
        if not isinstance(kwargs, dict):
            raise BadText('kwargs is an object, such as {"name": "Ada"}.')
        options = {"queue_name": given.get("queue"), "priority": given.get("priority")}
        if given.get("run_after") is not None:
            options["run_after"] = read_moment(given["run_after"])
        return cls(path, args, kwargs, {name: value for name, value in options.items() if value is not None})

    def send(self, owner: Any, idempotency_key: str | None) -> TaskRun:
        """The run, or the one that stood already; raises one of `REFUSALS`."""
        task = find_launchable(self.path)
        to_json([self.args, self.kwargs], "This call")  # so it is not so deep that nobody could walk through it
        if sentence := misfit(task, self.args, self.kwargs):
            raise BadText(sentence)
        if call_has_mask(self.path, self.args, self.kwargs):
            raise BadText(f"Write what belongs in place of {MASK}: a mask was copied, not the secret behind it.")
        if sentence := unfit(form_of(task).parameters, self.args, self.kwargs):
            raise BadText(sentence)
        if self.options:
            task = task.using(**self.options)
        backend = cast(PostgresBackend, task.get_backend())
        return backend.enqueue_run(task, self.args, self.kwargs, owner=owner, idempotency_key=idempotency_key)


def read_json(body: bytes) -> Any:
    """Strict JSON, of which nothing is lost: neither of two values with one key, nor what is too large a number."""
    try:
        return json.loads(body, object_pairs_hook=each_key_once, parse_constant=refuse_constant, parse_float=finite)
    except BadText:
        raise
    except RecursionError:
        raise BadText("The body is nested too deep.") from None
    except ValueError:  # also bytes that are no text, and a whole number with more digits than Python reads
        raise BadText(f"The body is not JSON that can be read: send {EXAMPLE}.") from None


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise BadText(f"The key {told(name)} stands twice in one object: one of its values would be lost.")
    return found


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadText(f"The number {told(text)} is too large.")
    return number


def read_moment(value: Any) -> datetime:
    """One that names its zone: nobody here can know by which clock a client tells its times."""
    try:
        at = datetime.fromisoformat(plain(value)) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or timezone.is_naive(at):
        raise BadText("run_after is a date and a time with their zone, such as 2026-03-29T02:30:00+00:00.")
    check_moment("run_after", at)
    return at


def told(text: str) -> str:
    """As much of it as a sentence has room for."""
    return wording.visible(wording.clip(text, 100))
