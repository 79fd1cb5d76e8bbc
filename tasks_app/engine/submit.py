"""One door for every run: `.enqueue()`, `async_task` and the forms all end in `Submission.store`."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django_tasks.exceptions import InvalidTaskError
from django_tasks.utils import normalize_json

from tasks_app.engine import statements
from tasks_app.jsonable import NotJSON, storable, to_json
from tasks_app.models import Status, TaskRun


def cancel(run: TaskRun, said: str) -> bool:
    """See `TaskRun.cancel`."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(statements.CANCEL, {"id": run.pk, "said": storable(said, 500)})
        return cursor.fetchone() is not None


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
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    def store(self) -> TaskRun:
        """Insert the run and notify the clusters, in one statement of the caller's own transaction.

        Raises `InvalidTaskError` when the arguments are not JSON that PostgreSQL can keep.
        """
        try:
            args, kwargs = normalize_json(list(self.args)), normalize_json(dict(self.kwargs))
            args_json = to_json(args, f"The arguments of {self.task_path}")
            kwargs_json = to_json(kwargs, f"The keyword arguments of {self.task_path}")
        except NotJSON as error:
            raise InvalidTaskError(str(error)) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidTaskError(f"The arguments of {self.task_path} are not JSON: {error}.") from None
        max_attempts = settings.MAX_ATTEMPTS if self.max_attempts is None else self.max_attempts
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(
                statements.ENQUEUE,
                {
                    "id": self.id,
                    "task_path": self.task_path,
                    "args": args_json,
                    "kwargs": kwargs_json,
                    "queue_name": self.queue_name,
                    "priority": self.priority,
                    "owner": self.owner.pk if self.owner else None,
                    "run_after": self.run_after,
                    "max_attempts": max_attempts,
                    "timeout": self.timeout,
                },
            )
            run_after, enqueued_at, _ = cursor.fetchone()
        return TaskRun(
            id=self.id,
            task_path=self.task_path,
            args=args,
            kwargs=kwargs,
            queue_name=self.queue_name,
            priority=self.priority,
            status=Status.READY,
            owner=self.owner,
            run_after=run_after,
            enqueued_at=enqueued_at,
            max_attempts=max_attempts,
            timeout=self.timeout,
        )
