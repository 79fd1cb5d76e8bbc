"""SUBMIT: what gets into the queue, and what does not."""

import itertools
import math
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.tasks import async_task
from django_tasks import TaskResultStatus
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist, TaskResultMismatch

from tasks_app.models import Status, TaskRun
from tests import outcomes

pytestmark = pytest.mark.django_db


class Undone(Exception):
    pass


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_enqueue_stores_one_run_with_all_it_was_given() -> None:
    later = timezone.now() + timedelta(hours=1)
    task = outcomes.succeeds.using(priority=7, queue_name="images", run_after=later)

    result = task.enqueue(1, "two", key=[3])

    run = TaskRun.objects.get()
    assert (str(run.pk), result.status) == (result.id, TaskResultStatus.READY)
    assert (run.task_path, run.args, run.kwargs) == ("tests.outcomes.succeeds", [1, "two"], {"key": [3]})
    assert (run.priority, run.queue_name, run.run_after, run.status) == (7, "images", later, Status.READY)
    assert (run.attempt, run.max_attempts, run.state) == (0, 3, "scheduled")
    assert result.enqueued_at == run.enqueued_at


def test_a_past_run_after_means_now() -> None:
    outcomes.succeeds.using(run_after=timezone.now() - timedelta(days=1)).enqueue()

    run = TaskRun.objects.get()
    assert run.run_after == run.enqueued_at
    assert run.state == "ready"


@pytest.mark.parametrize("submit", [outcomes.succeeds.enqueue, lambda: async_task("tests.outcomes.succeeds")])
def test_a_rollback_leaves_nothing(submit: Callable[[], Any]) -> None:
    with pytest.raises(Undone), transaction.atomic():
        submit()
        assert TaskRun.objects.count() == 1
        raise Undone

    assert not TaskRun.objects.exists()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (object(), "cannot be stored as JSON"),
        ({1, 2}, "cannot be stored as JSON"),
        (math.nan, "cannot be stored as JSON"),
        ("a\x00b", "NUL"),
        ("\ud800", "surrogate"),
        ("x" * 1_000_001, "more than the 1,000,000 allowed"),
        (b"\xff", "cannot be stored as JSON"),
        (nested(201), "nested too deep"),
        (nested(100_000), "nested too deep"),
    ],
    ids=["object", "set", "nan", "nul", "surrogate", "large", "bytes", "deep", "bottomless"],
)
def test_arguments_that_cannot_be_kept_are_refused_with_a_sentence(argument: Any, sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        outcomes.succeeds.enqueue(argument)

    assert not TaskRun.objects.exists()


def test_arguments_of_some_depth_and_many_brackets_are_kept() -> None:
    outcomes.succeeds.enqueue(nested(198), [[] for _ in range(1_000)], "[" * 1_000)

    assert TaskRun.objects.get().args[0] == nested(198)


def test_a_text_that_only_looks_like_a_nul_is_kept() -> None:
    outcomes.succeeds.enqueue("\\u0000")

    assert TaskRun.objects.get().args == ["\\u0000"]


def test_enqueue_many_stores_a_run_for_each_call_in_order() -> None:
    ids = outcomes.succeeds.using(priority=3).enqueue_many([(1, 2), {"key": "value"}, []])

    runs = [TaskRun.objects.get(pk=run_id) for run_id in ids]
    assert [(run.args, run.kwargs) for run in runs] == [([1, 2], {}), ([], {"key": "value"}), ([], {})]
    assert {(run.priority, run.status, run.max_attempts) for run in runs} == {(3, Status.READY, 3)}
    assert outcomes.succeeds.enqueue_many([]) == []


@pytest.mark.parametrize("bad", [object(), "text", 7, [object()]])
def test_enqueue_many_stores_none_when_one_cannot_be_kept(bad: Any) -> None:
    with pytest.raises(InvalidTaskError):
        outcomes.succeeds.enqueue_many(itertools.chain(([number] for number in range(6_000)), [bad]))

    assert not TaskRun.objects.exists()


def test_get_result_tells_what_became_of_it() -> None:
    enqueued = outcomes.succeeds.enqueue(1)

    assert outcomes.succeeds.get_result(enqueued.id).status == TaskResultStatus.READY
    with pytest.raises(TaskResultMismatch):
        outcomes.fails.get_result(enqueued.id)
    for unknown in (str(uuid.uuid4()), "nonsense"):
        with pytest.raises(TaskResultDoesNotExist):
            outcomes.succeeds.get_result(unknown)


def test_async_task_ends_as_a_run_of_the_same_id() -> None:
    given = async_task("tests.outcomes.plain", 21)

    run = TaskRun.objects.get(pk=given)
    assert (run.task_path, run.args, run.queue_name, run.owner) == ("tests.outcomes.plain", [21], "default", None)


def test_async_task_takes_a_function_a_task_a_queue_and_a_time_limit() -> None:
    async_task(outcomes.plain, 1, cluster="images", timeout=5)
    async_task("tasks_app.tasks.create_task", type=1)

    task_run, plain_run = TaskRun.objects.newest()
    assert (plain_run.queue_name, plain_run.timeout) == ("images", 5)
    assert task_run.task_path == "tasks_app.tasks.practice.create_task"
    assert task_run.kwargs == {"type": 1}


@pytest.mark.parametrize(
    "option", [{"hook": "math.sqrt"}, {"group": "g"}, {"cached": 60}, {"sync": True}, {"task_name": "n"}]
)
def test_async_task_refuses_options_that_a_run_does_not_have(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidTaskError, match=next(iter(option))):
        async_task("tests.outcomes.plain", 1, **option)

    assert not TaskRun.objects.exists()


def test_async_task_takes_a_decorated_task_and_no_timeout() -> None:
    async_task(outcomes.succeeds, 1, timeout=-1)

    run = TaskRun.objects.get()
    assert (run.task_path, run.timeout) == ("tests.outcomes.succeeds", None)


@pytest.mark.parametrize("timeout", [0, -2, float("nan"), "soon"])
def test_async_task_refuses_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises(InvalidTaskError, match="number of seconds above 0"):
        async_task("tests.outcomes.plain", 1, timeout=timeout)


@pytest.mark.parametrize("func", [lambda: 1, 7, object()])
def test_async_task_refuses_what_no_worker_could_find(func: Any) -> None:
    with pytest.raises(InvalidTaskError, match="no worker could find it"):
        async_task(func)


@pytest.mark.parametrize("path", ["tests.outcomes.missing", "no_such_module.task", "tests.outcomes", ""])
def test_async_task_refuses_what_is_no_task(path: str) -> None:
    with pytest.raises(InvalidTaskError):
        async_task(path)

    assert not TaskRun.objects.exists()


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  what a caller may give by mistake


@pytest.mark.parametrize("options", [{"priority": 101}, {"queue_name": "q" * 101}, {"run_after": NAIVE}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTaskError):
        outcomes.succeeds.using(**options)


def prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%INSERT INTO tasks_app_taskrun%%'"
        )
        return cursor.fetchone()[0]


def test_the_insert_is_prepared_once_a_connection() -> None:
    connection.force_debug_cursor = False
    before = prepared()

    for _ in range(3):
        outcomes.succeeds.enqueue()

    assert prepared() == max(before, 1)
    assert TaskRun.objects.count() == 3


def test_whoever_watches_queries_sees_the_insert() -> None:
    with CaptureQueriesContext(connection) as queries:
        outcomes.succeeds.enqueue()

    assert [query["sql"].split()[:3] for query in queries] == [["INSERT", "INTO", "tasks_app_taskrun"]]


def test_in_a_broken_transaction_nothing_is_stored() -> None:
    with pytest.raises(TransactionManagementError), transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic(savepoint=False):
            raise IntegrityError
        outcomes.succeeds.enqueue()

    assert not TaskRun.objects.exists()


FAR = datetime.max.replace(tzinfo=timezone.get_fixed_timezone(-14 * 60))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"run_after": FAR}, "between the years 1900 and 9000"),
        ({"run_after": timedelta(seconds=3)}, "aware datetime"),
        ({"run_after": "tomorrow"}, "aware datetime"),
        ({"expires_at": FAR}, "between the years 1900 and 9000"),
        ({"expires_at": datetime.min.replace(tzinfo=timezone.get_fixed_timezone(14 * 60))}, "between the years"),
        ({"priority": True}, "whole number"),
        ({"priority": "1"}, "whole number"),
        ({"queue_name": "a\0b"}, "none of them NUL"),
        ({"queue_name": "\ud800"}, "none of them NUL"),
        ({"queue_name": 7}, "none of them NUL"),
    ],
)
def test_what_no_row_could_keep_is_refused_before_it_is_one(options: Any, sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        outcomes.succeeds.using(**options).enqueue()
    assert not TaskRun.objects.exists()
