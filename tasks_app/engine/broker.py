"""Django-Q2's door: what `async_task` packs is unpacked here at once and stored as a run. No pickle is kept."""

import uuid
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django_q.brokers import Broker
from django_q.signing import SignedPackage
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog
from tasks_app.engine.submit import Submission
from tasks_app.models import TaskRun

REFUSED = {"hook", "group", "chain", "iter_count", "iter_cached", "cached", "ack_failure", "save", "sync"}
"""Options of async_task that a run does not have: refused with a sentence, never silently dropped."""


class PostgresBroker(Broker):
    """The broker class that `Q_CLUSTER` names; its `list_key` is the name of a queue."""

    def enqueue(self, task: str) -> str:
        """Store one run from a signed package of `async_task`; raises `InvalidTaskError`."""
        package: dict[str, Any] = SignedPackage.loads(task)
        refused = sorted(key for key in REFUSED & package.keys() if package[key])
        if refused:
            raise InvalidTaskError(f"async_task cannot take {', '.join(refused)} here: runs have no such option.")
        func = package["func"]
        try:
            path = catalog.path_of(func)
            task_object = catalog.find(path)
        except catalog.UnknownTask as error:
            raise InvalidTaskError(str(error)) from error
        own = task_object if isinstance(task_object, Task) else None
        timeout = package.get("timeout")
        run = Submission(
            id=uuid.UUID(package["id"]),
            task_path=path,
            args=package["args"],
            kwargs=package["kwargs"],
            queue_name=self.list_key,
            priority=own.priority if own else 0,
            max_attempts=getattr(own, "max_attempts", None),
            timeout=getattr(own, "timeout", None) if timeout is None else timeout,
        ).store()
        return str(run.pk)

    def dequeue(self) -> None:
        raise RuntimeError("Only the workers of this project's own qcluster take work from PostgreSQL.")

    def queue_size(self) -> int:
        return TaskRun.objects.waiting().filter(queue_name=self.list_key).count()

    def lock_size(self) -> int:
        return TaskRun.objects.unfinished().filter(queue_name=self.list_key, claimed_by__isnull=False).count()

    def ping(self) -> bool:
        """True when the database answers; raises `django.db.OperationalError` when not."""
        connections[DEFAULT_DB_ALIAS].ensure_connection()
        return True

    def info(self) -> str:
        return "PostgreSQL"
