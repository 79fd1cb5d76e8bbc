"""What Django-Q2's functions take, and what of it runs can do: the rest is refused in a sentence, nothing is dropped.

Its functions that read results (`result`, `fetch` and what is built on them) read runs here; those that speak of groups
or of the cache say that there are none, because what they would read stays empty for ever.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from django_q import models as django_q
from django_q.brokers import Broker
from django_tasks.exceptions import InvalidTaskError

from tasks_app.models import Status, TaskRun
from tasks_app.models.run import QUEUE_NAME_LENGTH

NEVER = ("hook", "group", "chain", "iter_count", "iter_cached", "cached", "sync", "task_name")
"""Options that a run does not have: only without them, or with a value that asks for nothing."""

ALWAYS = {"save": True, "ack_failure": True}
"""Options that cannot be other than this: every run is kept, and one that failed is not delivered once more."""

TAKEN = {"timeout", "cluster", "broker"}

KNOWN = {*NEVER, *ALWAYS, *TAKEN}
"""All that `q_options` can have in it."""


def refused(options: Mapping[str, Any]) -> list[str]:
    """The names of those options that ask for what a run does not do."""
    return sorted(
        {name for name in NEVER if options.get(name)}
        | {name for name, only in ALWAYS.items() if options.get(name) not in (None, only)}
    )


def refuse(options: Mapping[str, Any], function: str) -> None:
    """Raises `InvalidTaskError` that names them."""
    if names := refused(options):
        raise InvalidTaskError(f"{function} cannot take {', '.join(names)} here: runs have no such option.")
    if unknown := strange(options.get("q_options")):
        raise InvalidTaskError(f"{function} knows no {', '.join(unknown)} among its q_options.")
    cluster, broker = options.get("cluster"), options.get("broker")
    if broker is not None and not getattr(broker, "stores_runs", False):
        raise InvalidTaskError(f"{function} cannot take this broker here: runs are kept by PostgresBroker alone.")
    if cluster is not None and not (isinstance(cluster, str) and len(cluster) <= QUEUE_NAME_LENGTH):
        raise InvalidTaskError(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters.")
    if cluster and isinstance(broker, Broker) and broker.list_key != cluster:
        raise InvalidTaskError(f"{function} was given two queues: {cluster} and, by its broker, {broker.list_key}.")


def strange(q_options: object) -> list[str]:
    """Those of them that Django-Q2 would overlook."""
    return sorted(str(name) for name in q_options if name not in KNOWN) if isinstance(q_options, Mapping) else []


def timeout_of(timeout: Any) -> float | None:
    """None for Django-Q2's -1; raises `InvalidTaskError` for what is no limit."""
    if timeout == -1:
        return None
    if isinstance(timeout, bool) or not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
        raise InvalidTaskError(f"A timeout is a number of seconds above 0, not {timeout!r}.")
    return timeout


def beside(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function further up in the stack was given and does not tell its signal: broker and `q_options`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back  # type: ignore[assignment]
    given = frame.f_locals if frame else {}
    return {name: given[name] for name in ("broker", "q_options") if given.get(name) is not None}


# Reading results


def find_run(task_id: object) -> TaskRun | None:
    """The run that `async_task` or `.enqueue()` answered with this id."""
    try:
        return TaskRun.objects.filter(pk=uuid.UUID(str(task_id))).first()
    except ValueError:
        return None


def get_result(task_id: object) -> Any:
    """The return value, or why the run has none; None while it is not finished, or for an unknown id."""
    run = find_run(task_id)
    if run is None or not run.is_finished:
        return None
    return run.return_value if run.status == Status.SUCCESSFUL else run.failure_message


def get_task(task_id: object) -> django_q.Task | None:
    """A finished run as Django-Q2 describes it, not to be saved; None while it is not finished."""
    run = find_run(task_id)
    if run is None or not run.is_finished:
        return None
    tries = run.tries
    return django_q.Task(
        id=run.pk.hex,
        name=str(run.pk),
        func=run.task_path,
        args=tuple(run.args),
        kwargs=run.kwargs,
        cluster=run.queue_name,
        started=tries[0].started_at if tries else run.enqueued_at,
        stopped=run.finished_at,
        result=run.return_value if run.status == Status.SUCCESSFUL else run.failure_message,
        success=run.status == Status.SUCCESSFUL,
        attempt_count=run.attempt,
    )


def no_groups(*args: Any, **kwargs: Any) -> Any:
    raise InvalidTaskError("Runs are in no groups of Django-Q2's, so there is nothing to be read by one.")


class NoCache:
    """In place of a broker's cache, in which Django-Q2 would keep results."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidTaskError("Nothing of a run is kept in a cache: its row has the result.")

    get = set = delete = delete_many = _refuse


def install() -> None:
    """Have `django_q.tasks` read runs; its functions look these up at each call."""
    readers: dict[str, Callable[..., Any]] = {
        "get_result": get_result,
        "get_task": get_task,
        "get_result_group": no_groups,
        "get_task_group": no_groups,
        "get_group_count": no_groups,
        "delete_group": no_groups,
    }
    for name, reader in readers.items():
        setattr(django_q.Task, name, staticmethod(reader))
