"""SUBMIT: the Django Tasks backend that keeps every run as a row of PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Self, TypedDict, TypeVar, overload

from django.core import checks
from django.db.models import Model
from django.utils import timezone
from django_tasks.backends.base import BaseTaskBackend
from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django_tasks.base import task as django_task
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
from django_tasks.signals import task_enqueued
from typing_extensions import ParamSpec, Unpack

from tasks_app import catalog, pace
from tasks_app.about import read_about, text_of
from tasks_app.engine.context import RunContext
from tasks_app.engine.submit import Call, RunResult, Submission
from tasks_app.engine.unique import OnConflict, UniqueBy, check_rule, is_seconds
from tasks_app.engine.wishes import Wishes, check_idempotency_key, wishes_of
from tasks_app.jsonable import storable
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import GIVEN_BACK, QUEUE_NAME_LENGTH, TASK_PATH_LENGTH
from tasks_app.retries import RetryPolicy

if TYPE_CHECKING:
    from tasks_app.workflows import Step

LAST_YEAR = 9000
"""A moment much later is none in some time zone."""

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
    unique_by: UniqueBy
    unique_for: float
    on_conflict: OnConflict
    expires_after: float
    max_running: int
    rate: str
    burst: int
    internal: bool


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

    unique_by: UniqueBy | None = None
    """The arguments that no two runs share while one of them is READY or RUNNING; True for all of them."""

    unique_for: float | None = None
    """And for so many seconds after the enqueue, whatever became of the run."""

    on_conflict: OnConflict = "skip"
    """`skip` answers the standing run as it is; `replace` gives it the new arguments if no worker has it yet."""

    expires_after: float | None = None
    """Seconds, from when it may begin, after which a run that was not begun ends as CANCELLED."""

    expires_at: datetime | None = None
    """The moment instead."""

    about: str | None = None
    """The object that a run is about, as `tasks_app.about` names it; `using` takes the object itself."""

    max_running: int | None = None
    """How many of its runs may be held at once, over all hosts."""

    rate: str | None = None
    """How many of its runs may begin in a second, minute or hour, over all hosts: `10/s`, `10/m`, `10/h`."""

    burst: int | None = None
    """How many of them may begin at the same moment after a time without any; by default one."""

    internal: bool = False
    """Part of the machinery, such as upkeep: code and schedules run it, no form and no request launches it."""

    if TYPE_CHECKING:

        def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> RunResult[T]: ...

        async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> RunResult[T]: ...

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        unique_for: float | None = None,
        on_conflict: OnConflict | None = None,
        expires_after: float | None = None,
        expires_at: datetime | None = None,
        about: Model | None = None,
    ) -> Self:
        """The same task with other options; raises `InvalidTaskError`."""
        given = {**locals(), "about": None if about is None else text_of(about)}
        return replace(self, **{name: value for name, value in given.items() if name != "self" and value is not None})

    @property
    def limits(self) -> dict[str, float | int | None] | None:
        """None for most tasks, which have none."""
        if self.max_running is None and self.rate is None:
            return None
        return pace.limits_of(self.max_running, self.rate, self.burst)

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            retry_on=self.retry_on, give_up_on=self.give_up_on, backoff=self.backoff, backoff_cap=self.backoff_cap
        )

    def enqueue_many(self, calls: Iterable[Call]) -> list[str]:
        """Store a run for each call, in one statement for thousands, and answer their ids in order.

        Of a unique task, the id of a call whose key is taken is that of the standing run.

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
        if not isinstance(task.priority, int) or isinstance(task.priority, bool):
            raise InvalidTaskError("priority must be a whole number.")
        check_moment("run_after", task.run_after)
        super().validate_task(task)
        name = task.queue_name
        if not (isinstance(name, str) and 1 <= len(name) <= QUEUE_NAME_LENGTH and name == storable(name)):
            raise InvalidTaskError(f"A queue's name has 1 to {QUEUE_NAME_LENGTH} characters, none of them NUL.")
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
            check_rule(task)
            check_expiry(task)
            if task.about is not None and not (isinstance(task.about, str) and read_about(task.about)):
                raise InvalidTaskError("about is an object of a model, given as .using(about=…).")
            try:
                pace.limits_of(task.max_running, task.rate, task.burst)
            except pace.BadLimit as error:
                raise InvalidTaskError(str(error)) from None

    def enqueue(self, task: Task[P, T], args: Any, kwargs: Any) -> RunResult[T]:
        """Store one run; raises `InvalidTaskError` when the task or its arguments cannot be taken."""
        submission = self.submission(task)
        submission.args, submission.kwargs = args, kwargs
        if submission.wishes is not None:
            return to_task_result(self._store(submission, task), task)
        result = submission.store_for(task)
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def enqueue_run(
        self,
        task: Task[..., Any],
        args: Any,
        kwargs: Any,
        owner: Any = None,
        idempotency_key: str | None = None,
        run_id: uuid.UUID | None = None,
    ) -> TaskRun:
        """The same, for somebody, and answered with the row itself.

        Of the same owner, the same idempotency key answers the same run for IDEMPOTENCY_SECONDS, with `was_standing`;
        raises `KeyReused`, an `InvalidTaskError`, if the task or the arguments are not the same.
        """
        submission = self.submission(task)
        if run_id is not None:
            submission.id = run_id
        submission.args, submission.kwargs, submission.owner = args, kwargs, owner
        if idempotency_key is not None:
            submission.wishes = submission.wishes or Wishes()
            submission.wishes.idempotency_key = check_idempotency_key(idempotency_key)
        return self._store(submission, task)

    def _store(self, submission: Submission, task: Task[..., Any]) -> TaskRun:
        """Tells of a new run only."""
        run = submission.store()
        if not run.was_standing:
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
            wishes=wishes_of(task),
            limits=getattr(task, "limits", None),
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


def check_moment(name: str, moment: object) -> None:
    """Raises `InvalidTaskError` for what is no moment, or one that not every clock of the world could show."""
    if moment is None:
        return
    if not isinstance(moment, datetime) or not timezone.is_aware(moment):
        raise InvalidTaskError(f"{name} must be an aware datetime.")
    if not 1900 <= moment.year <= LAST_YEAR:
        raise InvalidTaskError(f"{name} must lie between the years 1900 and {LAST_YEAR}.")


def check_expiry(task: PostgresTask[..., Any]) -> None:
    """Raises `InvalidTaskError` with one sentence."""
    if task.expires_after is not None and not is_seconds(task.expires_after):
        raise InvalidTaskError("expires_after must be a number of seconds above 0.")
    if task.expires_at is None:
        return
    check_moment("expires_at", task.expires_at)
    if task.run_after is not None and task.expires_at <= task.run_after:
        raise InvalidTaskError("expires_at must be after run_after: else nothing would ever begin.")


def to_task_result(run: TaskRun, task: Task[..., T]) -> RunResult[T]:
    """A run as Django Tasks tells it; it has no word for a cancelled one, which counts as failed."""
    failed = {Status.FAILED, Status.CANCELLED}
    tries = run.tries
    result: RunResult[T] = RunResult(
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
        was_standing=run.was_standing,
        was_replaced=run.was_replaced,
    )
    object.__setattr__(result, "_return_value", run.return_value)
    return result
