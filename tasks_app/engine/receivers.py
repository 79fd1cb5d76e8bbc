"""Signals that a worker sends around a run, so that no receiver harms a run or stops its worker for long.

Those of Django Tasks (`task_started`, `task_finished`) and of Django-Q2 (`post_spawn`, `pre_execute`,
`post_execute_in_worker`, `post_execute`). What tells that a run has ended is sent once the database has its result. A
worker that dies in between sends nothing, and neither does a run whose worker died: signals are news, not records.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.dispatch import Signal
from django_q import signals as django_q
from django_tasks import signals as django_tasks
from django_tasks.base import Task

from tasks_app import catalog
from tasks_app.backend import PostgresBackend
from tasks_app.engine.execution import ClaimedRun, Outcome, TimedOut, as_result, time_limit
from tasks_app.engine.slots import Slot
from tasks_app.models import Status

logger = logging.getLogger("dumbwaiter.worker")

BEFORE = (django_tasks.task_started, django_q.pre_execute)
AFTER = (django_tasks.task_finished, django_q.post_execute_in_worker, django_q.post_execute)


class Receivers:
    """Sends a worker's signals; costs nothing while nobody listens."""

    def __init__(self, me: str, slot: Slot) -> None:
        self.me, self.slot = me, slot

    @property
    def await_starts(self) -> bool:
        return any(signal.receivers for signal in BEFORE)

    @property
    def await_ends(self) -> bool:
        return any(signal.receivers for signal in AFTER)

    def worker_began(self, title: str) -> None:
        # The worker's log has a line for each start and end; Django Tasks would write two more.
        django_tasks.task_started.disconnect(django_tasks.log_task_started)
        django_tasks.task_finished.disconnect(django_tasks.log_task_finished)
        self._send(django_q.post_spawn, "django_q", proc_name=title)

    def run_starts(self, run: ClaimedRun) -> None:
        """Raises nothing; a receiver that does not even heed its time limit is ended with the worker."""
        if (func := func_of(run)) is None:
            return
        if isinstance(func, Task):
            self._send(django_tasks.task_started, PostgresBackend, task_result=as_result(run, func, self.me))
            func = func.func
        self._send(django_q.pre_execute, "django_q", func=func, task=as_package(run))

    def run_ended(self, run: ClaimedRun, outcome: Outcome) -> None:
        """Only for an outcome that is the end of the run, once it is recorded."""
        if (func := func_of(run)) is None:
            return
        package = as_package(run, outcome)
        if isinstance(func, Task):
            self._send(django_tasks.task_finished, PostgresBackend, task_result=as_result(run, func, self.me, outcome))
            func = func.func
        self._send(django_q.post_execute_in_worker, "django_q", func=func, task=package)
        self._send(django_q.post_execute, "django_q", task=package)

    def _send(self, signal: Signal, sender: Any, **named: Any) -> None:
        if not signal.receivers:
            return
        seconds = settings.RECEIVER_SECONDS
        self.slot.limit(time.monotonic() + seconds)
        try:
            with time_limit(seconds):
                signal.send_robust(sender, **named)  # logs what a receiver raises, and goes on with the next
        except TimedOut:
            logger.error("a signal receiver took longer than %g s and was stopped", seconds)
        except BaseException as error:
            logger.error("a signal receiver tried to end its worker: %s", type(error).__name__)
        finally:
            self.slot.end()


def func_of(run: ClaimedRun) -> Task[..., Any] | Callable[..., Any] | None:
    try:
        return catalog.find(run.task_path)
    except BaseException:  # the run itself will tell: it cannot be loaded
        return None


def as_package(run: ClaimedRun, outcome: Outcome | None = None) -> dict[str, Any]:
    """The run as Django-Q2's signals describe it."""
    package: dict[str, Any] = {
        "id": run.id.hex,
        "name": str(run.id),
        "func": run.task_path,
        "args": tuple(run.args),
        "kwargs": run.kwargs,
        "cluster": run.queue_name,
        "started": run.claimed_at,
    }
    if outcome is not None:
        value = json.loads(outcome.return_value) if outcome.return_value is not None else outcome.message
        package |= {
            "stopped": run.claimed_at + timedelta(seconds=outcome.ended),
            "success": outcome.status == Status.SUCCESSFUL,
            "result": value,
        }
    return package
