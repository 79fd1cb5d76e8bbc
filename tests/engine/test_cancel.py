"""Ending a run that somebody no longer wants."""

from pathlib import Path

import pytest

from tasks_app.models import Failure, Status, TaskRun
from tests import outcomes
from tests.engine.test_cluster import finished, running, working_on
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_waiting_run_is_cancelled_at_once_and_never_runs(qcluster: ClusterFactory) -> None:
    result = outcomes.succeeds.enqueue()
    run = TaskRun.objects.get(pk=result.id)

    assert run.cancel("Cancelled by mara.")
    assert not run.cancel("Cancelled by otto.")

    run.refresh_from_db()
    assert (run.status, run.failure, run.failure_message) == (Status.CANCELLED, None, "Cancelled by mara.")
    assert run.finished_at
    qcluster(WORKERS=1)
    finished(outcomes.succeeds.enqueue())
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Status.CANCELLED, 0)


def test_a_running_one_is_interrupted_and_its_worker_lives_on(qcluster: ClusterFactory) -> None:
    cluster = qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(300))
    worker = working_on(cluster, run)

    assert run.cancel("Cancelled by mara.")
    run.cancel("Cancelled by otto.")  # perhaps too late: the first wish may have been granted by then

    done = wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run.pk).first(), seconds=10, what="its end")
    assert done and (done.failure_message, done.return_value) == ("Cancelled by mara.", None)
    assert done.attempts[0]["reason"] == "cancelled"
    assert not done.cancel()
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    assert [member.pid for member in cluster.titled("worker")] == [worker.pid]


def test_a_task_may_ask_whether_it_is_cancelled(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster(WORKERS=1)
    run = running(outcomes.looks_whether_it_is_cancelled.enqueue(str(tmp_path / "gate")))

    run.cancel()

    wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run.pk).first(), seconds=10)


def test_one_that_heeds_nothing_is_ended_with_its_worker_after_the_grace(
    qcluster: ClusterFactory, tmp_path: Path
) -> None:
    cluster = qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=0.3)
    gate = tmp_path / "gate"
    run = running(outcomes.swallows_everything.enqueue(str(gate)))
    wait_until(gate.exists)
    worker = working_on(cluster, run)

    run.cancel("Cancelled by mara.")

    done = wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run.pk).first(), what="its end")
    assert done and (done.failure_message, done.attempt) == ("Cancelled by mara.", 1)
    assert not worker.is_running()
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_one_that_ignores_its_time_limit_is_ended_too_and_not_tried_again(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=0.3)

    run = finished(outcomes.swallows_its_time_limit.enqueue())

    assert (run.status, run.failure, run.attempt) == (Status.FAILED, Failure.TIMED_OUT, 1)
    assert run.failure_message == "It went on past its limit, so its process was ended."


def test_a_cancelled_run_whose_worker_dies_is_not_tried_again(qcluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=60)
    gate = tmp_path / "gate"
    run = running(outcomes.swallows_everything.enqueue(str(gate)))
    wait_until(gate.exists)
    run.cancel()

    working_on(cluster, run).kill()

    wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run.pk, attempt=1).first(), what="its end")


def test_a_stop_does_not_bring_a_cancelled_run_back(qcluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=60, STOP_GRACE_SECONDS=0.2)
    gate = tmp_path / "gate"
    run = running(outcomes.swallows_everything.enqueue(str(gate)))
    wait_until(gate.exists)
    run.cancel()

    cluster.stop()

    run.refresh_from_db()
    assert run.status == Status.CANCELLED


def test_a_lost_notification_delays_it_by_a_heartbeat_only(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(300))

    TaskRun.objects.filter(pk=run.pk).update(cancel_requested_at=run.started_at)

    wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run.pk).first(), seconds=10)


def test_finished_runs_cannot_be_cancelled(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    run = finished(outcomes.fails.enqueue())

    assert not run.cancel()

    run.refresh_from_db()
    assert (run.status, run.failure_message) == (Status.FAILED, "ValueError: on purpose")
