"""Django-Q2's door: what `async_task` packs is unpacked here at once and stored as a run. No pickle is kept."""

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
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog
from tasks_app.engine.submit import Submission
from tasks_app.models import Cluster, TaskRun

REFUSED = {"hook", "group", "chain", "iter_count", "iter_cached", "cached", "ack_failure", "save", "sync"}
"""Options of async_task that a run does not have: refused with a sentence, never silently dropped."""


@receiver(pre_enqueue, dispatch_uid="dumbwaiter")
def accept(sender: object, task: dict[str, Any], **kwargs: Any) -> None:
    """See a call of async_task before Django-Q2 pickles or runs it: name its function, refuse what a run does not have.

    Raises `InvalidTaskError`, which async_task passes on.
    """
    refused = sorted(key for key in REFUSED & task.keys() if task[key])
    if task["name"] != humanize(task["id"]):  # what it makes up when nobody gave one
        refused.append("task_name")
    if refused:
        raise InvalidTaskError(f"async_task cannot take {', '.join(refused)} here: runs have no such option.")
    timeout = task.get("timeout")
    if timeout == -1:  # Django-Q2's word for none
        task["timeout"] = None
    elif timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
        raise InvalidTaskError(f"A timeout is a number of seconds above 0, not {timeout!r}.")
    try:
        task["func"] = catalog.path_of(task["func"])
    except catalog.UnknownTask as error:
        raise InvalidTaskError(str(error)) from error


class PostgresBroker(Broker):
    """The broker class that `Q_CLUSTER` names; its `list_key` is the name of a queue."""

    def enqueue(self, task: str) -> str:
        """Store one run from a signed package of `async_task`; raises `InvalidTaskError`."""
        package: dict[str, Any] = SignedPackage.loads(task)
        path = package["func"]
        found = catalog.find(path)
        own = found if isinstance(found, Task) else None
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
