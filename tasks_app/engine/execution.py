"""One execution: call the task and tell how it ended. It never raises and it touches no queue."""

from __future__ import annotations

import inspect
import json
import signal
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from asgiref.sync import async_to_sync
from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus

from tasks_app import catalog
from tasks_app.engine.context import Cancelled, Report, RunContext
from tasks_app.jsonable import NotJSON, storable, to_json
from tasks_app.models import Failure, Status
from tasks_app.retries import NO_RETRY, RetryPolicy


class BrokenRow(Exception):
    """The row is not one that a task could be called with."""


@dataclass(slots=True)
class ClaimedRun:
    """The columns that a claim returns, in the order of `statements.CLAIM`."""

    id: uuid.UUID
    task_path: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue_name: str
    priority: int
    attempt: int
    max_attempts: int
    timeout: float | None
    enqueued_at: datetime
    claimed_at: datetime
    received: float = field(default_factory=time.monotonic)

    @property
    def since_claim(self) -> float:
        """Seconds since the claim arrived: added to the server's `claimed_at`, it tells the server's time."""
        return time.monotonic() - self.received

    def check(self) -> None:
        """Raise `BrokenRow` for what only somebody can have written who went past every door of ours."""
        if not isinstance(self.args, list):
            raise BrokenRow("the arguments are not a list")
        if not isinstance(self.kwargs, dict):
            raise BrokenRow("the keyword arguments are not an object")

    @property
    def name(self) -> str:
        return self.task_path.rpartition(".")[2]


@dataclass(slots=True)
class Outcome:
    """How an execution ended; `began` and `ended` are seconds after the claim."""

    status: Status
    began: float
    ended: float = 0.0
    return_value: str | None = None
    failure: Failure | None = None
    message: str | None = None
    exception: str = ""
    traceback: str = ""
    progress: dict[str, Any] | None = None
    retry_in: float | None = None
    """Seconds until the next attempt, for a failure that is not the end of the run."""
    is_unknown: bool = False
    """This worker's code does not have the task: perhaps another's has, so this was no attempt."""
    ending: str = ""
    """What `statements.FINISH` takes about it, as JSON, once it is known."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def entry(self) -> str | None:
        """What `TaskRun.attempts` keeps of an attempt that did not succeed, as JSON."""
        if self.status == Status.SUCCESSFUL:
            return None
        told = {"reason": self.failure or "cancelled", "exception": self.exception, "message": self.message}
        return json.dumps({**told, "traceback": self.traceback})

    def cancel(self) -> None:
        self.status, self.failure, self.return_value = Status.CANCELLED, None, None

    def fail(self, failure: Failure, message: str, error: BaseException | None = None) -> None:
        self.status, self.failure, self.return_value = Status.FAILED, failure, None
        self.message = storable(message, 2_000)
        if error is not None:
            self.exception = storable(f"{type(error).__module__}.{type(error).__qualname__}", 500)
            self.traceback = storable(traceback_of(error))


def execute(run: ClaimedRun, worker: str, report: Report, is_cancelled: Callable[[], bool]) -> Outcome:
    """Call the run's task with its arguments; whatever it does short of ending the process becomes an `Outcome`."""
    outcome = Outcome(Status.SUCCESSFUL, began=run.since_claim)
    try:
        run.check()
        task = catalog.find(run.task_path)
        call: Callable[..., Any] = task.func if isinstance(task, Task) else task
        first: list[RunContext] = []
        if isinstance(task, Task) and task.takes_context:
            first = [RunContext(task_result=as_result(run, task, worker), report=report, is_cancelled=is_cancelled)]
    except catalog.UnknownTask as error:
        outcome.fail(Failure.REJECTED, str(error))
        outcome.is_unknown = True
    except BrokenRow as error:
        outcome.fail(Failure.REJECTED, f"Its row cannot be read: {error}.")
    except BaseException as error:  # importing the task's module ran its code, which may do anything
        outcome.fail(Failure.REJECTED, f"{run.task_path} cannot be loaded: {sentence_of(error)}", error)
        outcome.is_unknown = True
    else:
        try:
            called = async_to_sync(call) if is_async(call) else call
            with Interruptible(run.timeout, is_cancelled):
                value = called(*first, *run.args, **run.kwargs)
            outcome.return_value = to_json(value, "The result")
        except Cancelled as error:
            outcome.cancel() if is_cancelled() else outcome.fail(Failure.ERROR, sentence_of(error), error)
        except TimedOut as error:
            outcome.fail(Failure.TIMED_OUT, f"Stopped after {run.timeout:g} s, its limit.", error)
            outcome.retry_in = policy_of(task).wait_after(error, run.attempt, run.max_attempts)
        except NotJSON as error:
            outcome.fail(Failure.ERROR, str(error), error)
        except BaseException as error:  # also SystemExit and KeyboardInterrupt: a task must not end its worker
            if isinstance(error, TypeError) and (misfit := misfit_of(call, *first, *run.args, **run.kwargs)):
                outcome.fail(Failure.REJECTED, f"{run.name} cannot be called with these arguments: {misfit}.")
            else:
                outcome.fail(Failure.ERROR, sentence_of(error), error)
                outcome.retry_in = policy_of(task).wait_after(error, run.attempt, run.max_attempts)
    outcome.ended = run.since_claim
    return outcome


class TimedOut(BaseException):
    """Raised inside a task at its time limit; no `except Exception` of the task's swallows it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimedOut` in the block after so many seconds; main thread only, as signals are."""
    start_timer(seconds)
    try:
        yield
    finally:
        stop_timer()


def start_timer(seconds: float) -> None:
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def stop_timer() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _stop(*_: object) -> None:
    raise TimedOut


_wish: Callable[[], bool] | None = None


def on_cancel_signal(*_: object) -> None:
    """The handler of the signal by which a sentinel says: look whether the run at hand is to be cancelled."""
    if _wish is not None and _wish():
        raise Cancelled


class Interruptible:
    """A block that ends at its time limit, as with `time_limit`, or when the cancel signal comes and is for this run.

    Between such blocks that signal does nothing. A class, because a generator would cost more than a short task.
    """

    __slots__ = ("is_cancelled", "seconds")

    def __init__(self, seconds: float | None, is_cancelled: Callable[[], bool]) -> None:
        self.seconds, self.is_cancelled = seconds, is_cancelled

    def __enter__(self) -> None:
        global _wish
        if self.seconds is not None:
            start_timer(self.seconds)
        _wish = self.is_cancelled
        if self.is_cancelled():
            self.__exit__()
            raise Cancelled

    def __exit__(self, *raised: object) -> None:
        global _wish
        try:
            _wish = None
        finally:  # also when the signal came just before
            if self.seconds is not None:
                stop_timer()


@cache
def signature_of(call: Callable[..., Any]) -> inspect.Signature | None:
    """What a task takes; None for the few built-in functions that do not tell."""
    try:
        return inspect.signature(call)
    except ValueError:
        return None


def misfit_of(call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TypeError | None:
    """Why a call did not even begin: its arguments are not those that the task takes."""
    if signature := signature_of(call):
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            return error
    return None


is_async = cache(inspect.iscoroutinefunction)


def policy_of(task: object) -> RetryPolicy:
    """The task's own, or for a plain function and a task of another backend: an exception ends the run."""
    return getattr(task, "policy", NO_RETRY)


def as_result(run: ClaimedRun, task: Task[..., Any], worker: str, outcome: Outcome | None = None) -> TaskResult[Any]:
    """The run as Django Tasks describes it to a task while it runs, or with an outcome to receivers at its end."""
    result: TaskResult[Any] = TaskResult(
        task=task,
        id=str(run.id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=run.enqueued_at,
        started_at=run.claimed_at,
        finished_at=None,
        last_attempted_at=run.claimed_at,
        args=run.args,
        kwargs=run.kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[worker] * run.attempt,  # Django counts attempts by them
    )
    if outcome is None:
        return result
    successful = outcome.status == Status.SUCCESSFUL
    if outcome.exception:
        result.errors.append(TaskError(exception_class_path=outcome.exception, traceback=outcome.traceback))
    status = TaskResultStatus.SUCCESSFUL if successful else TaskResultStatus.FAILED
    ended = replace(result, status=status, finished_at=run.claimed_at + timedelta(seconds=outcome.ended))
    value = json.loads(outcome.return_value) if outcome.return_value is not None else None
    object.__setattr__(ended, "_return_value", value)
    return ended


def sentence_of(error: BaseException) -> str:
    """`ValueError: what it says`, also for an exception whose own text cannot be had."""
    name = type(error).__name__
    try:
        text = str(error).strip()
    except BaseException:  # its __str__ is the task's code too
        text = "(its text cannot be shown)"
    return f"{name}: {text}" if text else name


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, from the task's own frame on; the engine's frames help nobody."""
    try:
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as trouble:
        return f"{sentence_of(error)}\n(the traceback cannot be shown: {type(trouble).__name__})"
