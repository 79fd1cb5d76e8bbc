"""A failed attempt that is not the end of the run."""

from typing import Any

import pytest

from tasks_app.models import Failure, Status, TaskRun
from tasks_app.retries import RetryLater, RetryPolicy
from tests import outcomes
from tests.engine.test_cluster import finished
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

POLICY = RetryPolicy(retry_on=(OSError,), give_up_on=(FileNotFoundError,), backoff=2, backoff_cap=60)


def test_the_wait_doubles_up_to_the_cap_with_some_chance() -> None:
    for attempt, wait in [(1, 2), (2, 4), (3, 8), (6, 60), (500, 60)]:
        waits = [POLICY.wait_after(OSError(), attempt, 1000) or 0 for _ in range(50)]
        assert wait * 0.9 <= min(waits) < max(waits) <= wait * 1.1


@pytest.mark.parametrize("error", [ValueError(), FileNotFoundError(), KeyboardInterrupt()])
def test_other_exceptions_are_the_end(error: BaseException) -> None:
    assert POLICY.wait_after(error, 1, 3) is None


def test_the_last_attempt_is_the_end_also_for_a_task_that_asks() -> None:
    assert POLICY.wait_after(OSError(), 3, 3) is None
    assert POLICY.wait_after(RetryLater(5), 3, 3) is None
    assert POLICY.wait_after(RetryLater(5), 2, 3) == 5
    assert POLICY.wait_after(RetryLater(), 1, 3) is not None


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        RetryLater(seconds)


@pytest.mark.django_db(transaction=True)
def test_a_run_is_tried_again_and_every_attempt_keeps_its_entry(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)

    run = finished(outcomes.succeeds_at_last.enqueue())

    assert (run.status, run.return_value, run.attempt, run.failure) == (Status.SUCCESSFUL, 3, 3, None)
    assert [entry["message"] for entry in run.attempts] == ["Temporary: not yet, 1", "Temporary: not yet, 2"]
    first, second, third = run.tries
    assert first.ended_at and second.ended_at and third.ended_at
    assert (second.started_at - first.ended_at).total_seconds() >= 0.09
    assert (third.started_at - second.ended_at).total_seconds() >= 0.18


@pytest.mark.django_db(transaction=True)
def test_a_run_fails_when_no_attempt_is_left_or_trying_is_no_use(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)

    run = finished(outcomes.keeps_failing.enqueue())
    assert (run.status, run.failure, run.attempt, len(run.attempts)) == (Status.FAILED, Failure.ERROR, 2, 2)
    run = finished(outcomes.succeeds_at_last.enqueue(fails_for_good=True))
    assert (run.status, run.failure_message, run.attempt) == (Status.FAILED, "Permanent: no use", 1)


@pytest.mark.django_db(transaction=True)
def test_a_task_asks_for_another_try(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    result = outcomes.asks_for_another_try.enqueue()

    waiting = wait_until(lambda: TaskRun.objects.waiting().filter(pk=result.id, attempt=1).first(), what="its return")
    assert waiting and waiting.state == "retrying"
    assert waiting.failure is None
    assert waiting.attempts[0]["message"] == "RetryLater: the shop is closed"
    run = finished(result)
    assert run.return_value == 2
    assert (run.tries[1].started_at - run.tries[0].ended_at).total_seconds() >= 0.49  # type: ignore[operator]


@pytest.mark.parametrize("seconds", [-1, 1e30, float("inf"), float("nan"), True, "soon"])
def test_a_wait_that_no_calendar_knows_is_refused_where_it_is_asked_for(seconds: Any) -> None:
    with pytest.raises(ValueError, match="0 or more seconds"):
        RetryLater(seconds)


def test_a_wait_that_the_database_refuses_fails_the_run_and_not_its_worker(qcluster: ClusterFactory) -> None:
    """Nobody can ask for one any more, but for a task that writes to the exception itself."""
    qcluster(WORKERS=1)
    odd, next_one = outcomes.waits_for_ever.enqueue(), outcomes.succeeds.enqueue()

    run = finished(odd)
    assert (run.status, run.failure, run.attempt) == (Status.FAILED, "error", 1)
    assert (run.failure_message or "").startswith("The result cannot be stored")
    assert finished(next_one).status == Status.SUCCESSFUL
