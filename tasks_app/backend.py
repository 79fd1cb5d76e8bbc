"""SUBMIT: the Django Tasks backend that keeps every run as a row of PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Literal, TypedDict, TypeVar, overload

from django.core import checks
from django_tasks.backends.base import BaseTaskBackend
from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django_tasks.base import task as django_task
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
from django_tasks.signals import task_enqueued
from typing_extensions import ParamSpec, Unpack

from tasks_app import catalog
from tasks_app.engine.context import RunContext
from tasks_app.engine.submit import Call, Submission
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import GIVEN_BACK, QUEUE_NAME_LENGTH, TASK_PATH_LENGTH
from tasks_app.retries import RetryPolicy

if TYPE_CHECKING:
    from tasks_app.workflows import Step

P = ParamSpec("P")
T = TypeVar("T")


class TaskOptions(TypedDict, total=False):
    """What `@task` takes."""

    priority: int
    queue_name: str
    backend: str
    max_attempts: int
    timeout: float
    retry_on: tuple[type[BaseException], ...]
    give_up_on: tuple[type[BaseException], ...]
    backoff: float
    backoff_cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresTask(Task[P, T]):
    """A task with what this backend offers besides Django's own options."""

    max_attempts: int | None = None
    """How often a run may be claimed in all; None is the setting MAX_ATTEMPTS."""

    timeout: float | None = None
    """Seconds that one attempt may take; None is no limit."""

    retry_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which a run is tried again, while an attempt is left; by default none."""

    give_up_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which it is not, although `retry_on` has a base class of theirs."""

    backoff: float = 1.0
    """Seconds before the second attempt; the wait doubles with each further one."""

    backoff_cap: float = 600.0
    """The longest wait between two attempts."""

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            retry_on=self.retry_on, give_up_on=self.give_up_on, backoff=self.backoff, backoff_cap=self.backoff_cap
        )

    def enqueue_many(self, calls: Iterable[Call]) -> list[str]:
        """Store a run for each call, in one statement for thousands, and answer their ids in order.

        A call is a list or tuple of arguments, or a mapping of keyword arguments. All of them are stored or, raising
        `InvalidTaskError`, none. As with Django's bulk operations, no signal is sent.
        """
        backend = self.get_backend()
        assert isinstance(backend, PostgresBackend)
        return [str(run_id) for run_id in backend.submission(self).store_many(calls)]

    def step(self, /, *args: Any, **kwargs: Any) -> Step:
        """One step of a workflow; `tasks_app.workflows.PREVIOUS` may stand as an argument."""
        from tasks_app.workflows import Step

        return Step(self, args, kwargs)


@overload
def task(function: Callable[P, T], /) -> PostgresTask[P, T]: ...
@overload
def task(
    *, takes_context: Literal[True], **options: Unpack[TaskOptions]
) -> Callable[[Callable[Concatenate[RunContext, P], T]], PostgresTask[P, T]]: ...
@overload
def task(
    *, takes_context: Literal[False] = False, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, T]], PostgresTask[P, T]]: ...
def task(*args: Any, **options: Any) -> Any:
    """Django's own `@task`, with the types of this backend: its options, its context, its `enqueue_many`."""
    return django_task(*args, **options)


class PostgresBackend(BaseTaskBackend):
    """Puts runs into PostgreSQL, in the caller's own transaction: committed with it, or never there."""

    task_class = PostgresTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task[..., Any]) -> None:
        super().validate_task(task)
        if not task.queue_name or len(task.queue_name) > QUEUE_NAME_LENGTH:
            raise InvalidTaskError(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters.")
        if len(task.module_path) > TASK_PATH_LENGTH:
            raise InvalidTaskError(f"The path of a task has at most {TASK_PATH_LENGTH} characters.")
        if isinstance(task, PostgresTask):
            if task.max_attempts is not None and not 1 <= task.max_attempts <= 1000:
                raise InvalidTaskError("max_attempts must be 1 to 1000.")
            if task.timeout is not None and not 0 < task.timeout < float("inf"):
                raise InvalidTaskError("timeout must be a number of seconds above 0.")
            for exceptions in (task.retry_on, task.give_up_on):
                if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in exceptions):
                    raise InvalidTaskError("retry_on and give_up_on are tuples of exception classes.")
            if not all(0 <= seconds < float("inf") for seconds in (task.backoff, task.backoff_cap)):
                raise InvalidTaskError("backoff and backoff_cap must be numbers of seconds, at least 0.")

    def enqueue(self, task: Task[P, T], args: Any, kwargs: Any) -> TaskResult[T]:
        """Store one run; raises `InvalidTaskError` when the task or its arguments cannot be taken."""
        submission = self.submission(task)
        submission.args, submission.kwargs = args, kwargs
        result = submission.store_for(task)
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def enqueue_run(
        self, task: Task[..., Any], args: Any, kwargs: Any, owner: Any = None, run_id: uuid.UUID | None = None
    ) -> TaskRun:
        """The same, for somebody, and answered with the row itself."""
        submission = self.submission(task)
        if run_id is not None:
            submission.id = run_id
        submission.args, submission.kwargs, submission.owner = args, kwargs, owner
        run = submission.store()
        task_enqueued.send_robust(type(self), task_result=to_task_result(run, task))
        return run

    def submission(self, task: Task[..., Any]) -> Submission:
        """What the task's own options make of a run, before it has arguments; they were checked when it was made."""
        return Submission(
            task_path=task.module_path,
            queue_name=task.queue_name,
            priority=task.priority,
            run_after=task.run_after,
            max_attempts=getattr(task, "max_attempts", None),
            timeout=getattr(task, "timeout", None),
        )

    def get_result(self, result_id: str) -> TaskResult[Any]:
        try:
            run = TaskRun.objects.get(pk=uuid.UUID(result_id))
            task = catalog.find(run.task_path)
        except (ValueError, TaskRun.DoesNotExist, catalog.UnknownTask) as error:
            raise TaskResultDoesNotExist(result_id) from error
        if not isinstance(task, Task):  # a plain function, sent by async_task
            raise TaskResultDoesNotExist(result_id)
        return to_task_result(run, task)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        from tasks_app.checks import check_database_is_postgres

        return check_database_is_postgres()


def to_task_result(run: TaskRun, task: Task[..., T]) -> TaskResult[T]:
    """A run as Django Tasks tells it; it has no word for a cancelled one, which counts as failed."""
    failed = {Status.FAILED, Status.CANCELLED}
    tries = run.tries
    result: TaskResult[T] = TaskResult(
        task=task,
        id=str(run.pk),
        status=TaskResultStatus.FAILED if run.status in failed else TaskResultStatus(run.status),
        enqueued_at=run.enqueued_at,
        started_at=tries[0].started_at if tries else None,
        finished_at=run.finished_at,
        last_attempted_at=tries[-1].started_at if tries else None,
        args=run.args,
        kwargs=run.kwargs,
        backend=task.backend,
        errors=[
            TaskError(exception_class_path=entry["exception"], traceback=entry["traceback"])
            for entry in run.attempts
            if entry.get("exception")
        ],
        worker_ids=[attempt.worker for attempt in tries if attempt.reason != GIVEN_BACK],  # Django counts them
    )
    object.__setattr__(result, "_return_value", run.return_value)
    return result
