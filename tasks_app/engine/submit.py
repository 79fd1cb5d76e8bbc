"""One door for every run: `.enqueue()`, `async_task` and the forms all end in `Submission.store`."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django_tasks.base import Task, TaskResult, TaskResultStatus
from django_tasks.exceptions import InvalidTaskError
from django_tasks.utils import normalize_json
from typing_extensions import ParamSpec

from tasks_app.engine import statements
from tasks_app.engine.connect import execute_prepared
from tasks_app.engine.limits import Limits, declare
from tasks_app.engine.wishes import Placed, Wishes
from tasks_app.ids import new_id
from tasks_app.jsonable import NotJSON, to_json
from tasks_app.models import Status, TaskRun

P = ParamSpec("P")
T = TypeVar("T")

Call = Sequence[Any] | Mapping[str, Any]

PLAIN = {str, int, float, bool, type(None)}
"""Types that JSON keeps as they are; most arguments are of these, and need not be walked through."""

CHUNK = 5_000
"""Runs in one INSERT of many: more at once would gain nothing and cost memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(TaskResult[T]):
    """What an enqueue answers: Django's own result, which also tells whether there is a new run."""

    was_standing: bool = field(default=False, compare=False)
    """The key of this run was taken, so no run was made; this is the one that has the key."""

    was_replaced: bool = field(default=False, compare=False)
    """And that one was given the arguments of this submission."""


@dataclass(kw_only=True)
class Submission:
    """What somebody wants run, before it is a row."""

    task_path: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue_name: str = "default"
    priority: int = 0
    run_after: datetime | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    owner: Any = None
    wishes: Wishes | None = None
    limits: Limits | None = None
    id: uuid.UUID = field(default_factory=new_id)

    def store(self) -> TaskRun:
        """Insert the run and notify the clusters, in one statement of the caller's own transaction.

        Answers the standing run, with `was_standing`, if there is one that excludes it. Raises `InvalidTaskError` when
        the arguments are not JSON that PostgreSQL can keep.
        """
        given = self._options()
        placed = self._insert(given) if self.wishes is None else self._place(self.wishes, given)
        if placed.standing:
            placed.standing.was_standing, placed.standing.was_replaced = True, placed.was_replaced
            return placed.standing
        enqueued_at = placed.enqueued_at
        return TaskRun(
            id=self.id,
            task_path=self.task_path,
            args=self.args,
            kwargs=self.kwargs,
            queue_name=self.queue_name,
            priority=self.priority,
            status=Status.READY,
            owner=self.owner,
            run_after=enqueued_at if self.run_after is None else max(self.run_after, enqueued_at),
            expires_at=placed.expires_at,
            enqueued_at=enqueued_at,
            max_attempts=given["max_attempts"],
            timeout=self.timeout,
            about=self.wishes.about if self.wishes else None,
        )

    def store_for(self, task: Task[P, T]) -> RunResult[T]:
        """The same without wishes, answered as Django Tasks tells it, which costs less than a row's object."""
        placed = self._insert(self._options())
        return RunResult(
            task=task,
            id=str(self.id),
            status=TaskResultStatus.READY,
            enqueued_at=placed.enqueued_at,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(self.args),
            kwargs=dict(self.kwargs),
            backend=task.backend,
            errors=[],
            worker_ids=[],
        )

    def _insert(self, options: dict[str, Any]) -> Placed:
        """Store the row, and keep the arguments as JSON has them."""
        self.args, self.kwargs, args, kwargs = self._as_json(self.args, self.kwargs)
        statement = statements.ENQUEUE
        if self.limits:
            statement, options["limit_key"] = statements.ENQUEUE_LIMITED, self._limit_key()
        row = execute_prepared(statement, {"id": self.id, "args": args, "kwargs": kwargs, **options})
        return Placed(datetime.fromtimestamp(row[0], UTC))

    def _place(self, wishes: Wishes, options: dict[str, Any]) -> Placed:
        """The same, unless a run with its key is there already."""
        self.args, self.kwargs, args, kwargs = self._as_json(self.args, self.kwargs)
        options["limit_key"] = self._limit_key()
        return wishes.place({"id": self.id, "args": args, "kwargs": kwargs, **options}, self.args, self.kwargs)

    def store_many(self, calls: Iterable[Call]) -> list[uuid.UUID]:
        """Insert a run for each call, all of them or, raising `InvalidTaskError`, none; returns their ids in order.

        The id of a call whose key is taken is that of the standing run.
        """
        ids = []
        statement, options, limit_key = statements.ENQUEUE_MANY, self._options(), self._limit_key()
        if limit_key or self.wishes:
            statement, options["limit_key"] = statements.ENQUEUE_MANY_LIMITED, limit_key
        with transaction.atomic(DEFAULT_DB_ALIAS), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            remaining = iter(calls)
            while chunk := list(islice(remaining, CHUNK)):
                rows = [self._as_json(*split(call)) for call in chunk]
                if self.wishes is not None:
                    ids += self.wishes.place_many(options, rows)
                    continue
                chunk_ids = [new_id() for _ in chunk]
                columns: dict[str, Any] = {
                    "id": chunk_ids,
                    "args": [row[2] for row in rows],
                    "kwargs": [row[3] for row in rows],
                }
                cursor.execute(statement, {**columns, **options})
                ids += chunk_ids
        return ids

    def columns(self) -> dict[str, Any]:
        """Of one run, for whoever stores runs of several tasks in one statement; raises `InvalidTaskError`.

        With the `limits` that have to stand in the database before, and what they are `about`.
        """
        _, _, args, kwargs = self._as_json(self.args, self.kwargs)
        under = {"limits": self.limits, "limit_key": self.task_path if self.limits else None}
        about = self.wishes.about if self.wishes else None
        return {"id": self.id, "args": args, "kwargs": kwargs, "about": about, **under, **self._options()}

    def _options(self) -> dict[str, Any]:
        return {
            "task_path": self.task_path,
            "queue_name": self.queue_name,
            "priority": self.priority,
            "owner": self.owner.pk if self.owner else None,
            "run_after": self.run_after,
            "max_attempts": settings.MAX_ATTEMPTS if self.max_attempts is None else self.max_attempts,
            "timeout": self.timeout,
        }

    def _limit_key(self) -> str | None:
        """Under what it counts, of a task with limits, which stand in the database from now on."""
        if not self.limits:
            return None
        declare(self.task_path, self.limits)
        return self.task_path

    def _as_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], str, str]:
        try:
            plain_args = list(args) if PLAIN.issuperset(map(type, args)) else normalize_json(list(args))
            plain_kwargs = normalize_json(dict(kwargs)) if kwargs else {}
            args_json = to_json(plain_args, f"The arguments of {self.task_path}")
            kwargs_json = to_json(plain_kwargs, f"The keyword arguments of {self.task_path}")
            return plain_args, plain_kwargs, args_json, kwargs_json
        except NotJSON as error:
            raise InvalidTaskError(str(error)) from None
        except RecursionError:
            raise InvalidTaskError(
                f"The arguments of {self.task_path} cannot be stored as JSON: nested too deep."
            ) from None
        except (TypeError, ValueError) as error:
            raise InvalidTaskError(f"The arguments of {self.task_path} cannot be stored as JSON: {error}.") from None


def split(call: Call) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """A mapping is the keyword arguments of a call, a list or tuple its positional ones."""
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, Sequence) and not isinstance(call, str | bytes):
        return call, {}
    raise InvalidTaskError(f"A call is a list of arguments or a mapping of keyword arguments, not {call!r}.")
