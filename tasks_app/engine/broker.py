"""Django-Q2's door: what `async_task` packs is unpacked here at once and stored as a run. No pickle is kept."""

import threading
import uuid
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.dispatch import receiver
from django_q.brokers import Broker
from django_q.conf import Conf
from django_q.humanhash import humanize
from django_q.signals import pre_enqueue
from django_q.signing import SignedPackage
from django_q.status import Stat, Status
from django_q.tasks import async_task
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog
from tasks_app.engine import q2_options
from tasks_app.engine.submit import Submission
from tasks_app.engine.wishes import wishes_of
from tasks_app.models import Cluster, TaskRun

_at_hand = threading.local()
"""The call of async_task that this thread is in, whose own `id` it answers."""


@receiver(pre_enqueue, dispatch_uid="dumbwaiter")
def accept(sender: object, task: dict[str, Any], **kwargs: Any) -> None:
    """See a call of async_task before Django-Q2 pickles or runs it: name its function, refuse what a run does not have.

    Raises `InvalidTaskError`, which async_task passes on.
    """
    options = {**q2_options.beside(async_task), **task}
    if task["name"] != humanize(task["id"]):  # what it makes up when nobody gave one
        options["task_name"] = task["name"]
    q2_options.refuse(options, "async_task")
    if (timeout := task.pop("timeout", None)) is not None:
        task["timeout"] = q2_options.timeout_of(timeout)
    try:
        task["func"] = catalog.path_of(task["func"])
    except catalog.UnknownTask as error:
        raise InvalidTaskError(str(error)) from error
    _at_hand.task = task


class PostgresBroker(Broker):
    """The broker class that `Q_CLUSTER` names; its `list_key` is the name of a queue."""

    stores_runs = True

    @staticmethod
    def get_cache() -> q2_options.NoCache:
        return q2_options.NoCache()

    def enqueue(self, task: str) -> str:
        """Store one run from a signed package of `async_task`; raises `InvalidTaskError`."""
        package: dict[str, Any] = SignedPackage.loads(task)
        path = package["func"]
        found = catalog.find(path)
        own = found if isinstance(found, Task) else None
        timeout = package["timeout"] if "timeout" in package else getattr(own, "timeout", None)
        run = Submission(
            id=uuid.UUID(package["id"]),
            task_path=path,
            args=package["args"],
            kwargs=package["kwargs"],
            queue_name=self.list_key,
            priority=own.priority if own else 0,
            max_attempts=getattr(own, "max_attempts", None),
            timeout=timeout,
            wishes=wishes_of(own),
            limits=getattr(own, "limits", None),
        ).store()
        at_hand = vars(_at_hand).pop("task", None)
        if run.was_standing and at_hand is not None and at_hand["id"] == package["id"]:
            at_hand["id"] = run.pk.hex  # async_task answers this one
        return str(run.pk)

    def dequeue(self) -> None:
        raise RuntimeError("Only the workers of this project's own qcluster take work from PostgreSQL.")

    def queue_size(self) -> int:
        runs = TaskRun.objects.filter(queue_name=self.list_key)
        return runs.waiting().count() + runs.under_limits().count()

    def lock_size(self) -> int:
        return TaskRun.objects.unfinished().filter(queue_name=self.list_key, claimed_by__isnull=False).count()

    def ping(self) -> bool:
        """True when the database answers; raises `django.db.OperationalError` when not."""
        connections[DEFAULT_DB_ALIAS].ensure_connection()
        return True

    def info(self) -> str:
        return "PostgreSQL"

    # What Django-Q2's `Stat.get_all()` and `Stat.get()` read; the clusters write their rows themselves.

    def get_stats(self, pattern: str) -> list[str]:
        """Every live cluster, as Django-Q2 packs its statistics."""
        return [SignedPackage.dumps(as_stat(cluster), True) for cluster in Cluster.objects.alive()]

    def get_stat(self, key: str) -> str | None:
        found = Cluster.objects.alive().filter(pk=key.rpartition(":")[2]).first()
        return SignedPackage.dumps(as_stat(found), True) if found else None

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        raise RuntimeError("Only this project's own qcluster tells about clusters.")


def as_stat(cluster: Cluster) -> Stat:
    """A cluster as Django-Q2 describes one; of its workers the numbers are known here, not the process ids."""
    stat = Stat.__new__(Stat)
    Status.__init__(stat, cluster.pid, cluster.pk)
    stat.host, stat.tob, stat.timestamp = cluster.host, cluster.started_at, cluster.heartbeat_at
    stat.workers = list(range(1, cluster.workers + 1))
    stat.status = Conf.WORKING if cluster.busy else Conf.IDLE
    stat.broker = None  # left out of the package
    return stat
