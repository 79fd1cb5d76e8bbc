"""A cluster that grows, shrinks, is quiet or stops because somebody said so, and workers that are replaced."""

import time

import pytest

from tasks_app.models import Cluster, Failure, Status, TaskRun
from tasks_app.models.cluster import DesiredState
from tests import outcomes
from tests.engine import greedy
from tests.engine.test_cluster import finished, running
from tests.plugins.processes import ClusterFactory, RunningProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def seconds_to_obey(process: RunningProcess) -> list[float]:
    """Of one wish after the other, each made just after the cluster asked for them, and with no NOTIFY that tells it.

    The last is to stop.
    """
    wishes: list[tuple[dict[str, object], str, int]] = [
        ({"desired_workers": 3}, "goes from 1 to 3 workers", 3),
        ({"desired_workers": 1}, "goes from 3 to 1 workers", 1),
        ({"desired_state": DesiredState.QUIET}, "takes no more runs", 1),
        ({"desired_state": DesiredState.RUN}, "takes runs again", 1),
        ({"desired_state": DesiredState.STOP}, "has stopped", 0),
    ]
    cluster = Cluster.objects.started().get()
    heard_from = Cluster.objects.filter(pk=cluster.pk, heartbeat_at__gt=cluster.heartbeat_at)
    wait_until(heard_from.exists, what="a heartbeat, as also precedes all wishes but the first")
    took = []
    for wish, said, workers in wishes:
        wished_at = time.monotonic()
        Cluster.objects.filter(pk=cluster.pk).update(**wish)
        wait_until(lambda said=said: said in process.output, what=said)  # type: ignore[misc]
        wait_until(lambda workers=workers: len(process.titled("worker")) == workers, what=f"{workers} workers")  # type: ignore[misc]
        took.append(time.monotonic() - wished_at)
    assert process.wait() == 0
    return took


def test_wishes_are_obeyed_within_two_seconds(qcluster: ClusterFactory) -> None:
    quickest = seconds_to_obey(qcluster(WORKERS=1))
    for _ in range(2):  # at most three times, because a machine may stand still for a moment of its own
        if max(quickest) >= 2:
            quickest = [min(pair) for pair in zip(quickest, seconds_to_obey(qcluster(WORKERS=1)), strict=True)]

    assert max(quickest) < 2, quickest


def test_a_cluster_shrinks_when_its_runs_end_and_grows_again(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(1))
    cluster = Cluster.objects.get()

    assert cluster.steer(workers=0)
    assert finished(outcomes.sleeps.get_result(str(run.pk))).attempt == 1
    wait_until(lambda: Cluster.objects.filter(workers=0, desired_workers=0).exists(), what="the heartbeat that says so")
    assert not process.titled("worker")
    assert cluster.steer(workers=2)
    wait_until(lambda: len(process.titled("worker")) == 2, what="two workers")
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_a_quiet_cluster_takes_nothing_until_told_to(qcluster: ClusterFactory) -> None:
    qcluster()
    finished(outcomes.succeeds.enqueue())
    cluster = Cluster.objects.get()
    at_hand = running(outcomes.sleeps.enqueue(1))

    cluster.steer(state=DesiredState.QUIET)
    assert finished(outcomes.sleeps.get_result(str(at_hand.pk))).status == Status.SUCCESSFUL
    waiting = outcomes.succeeds.enqueue()
    beat = Cluster.objects.get().heartbeat_at
    wait_until(lambda: (Cluster.objects.get().heartbeat_at - beat).total_seconds() > 1.5, what="two heartbeats")
    assert TaskRun.objects.get(pk=waiting.id).state == "ready"

    cluster.steer(state=DesiredState.RUN)
    assert finished(waiting).status == Status.SUCCESSFUL


def test_a_cluster_stops_when_told_to(qcluster: ClusterFactory) -> None:
    process = qcluster()

    Cluster.objects.get().steer(state=DesiredState.STOP)

    assert process.wait(seconds=15) == 0
    assert not Cluster.objects.get().steer(state=DesiredState.RUN)


@pytest.mark.parametrize("workers", [-1, 257])
def test_an_impossible_number_is_refused(qcluster: ClusterFactory, workers: int) -> None:
    with pytest.raises(ValueError, match="0 to 256"):
        Cluster().steer(workers=workers)


def test_a_worker_is_replaced_after_its_runs(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1, RECYCLE_AFTER=2)

    pids = [finished(outcomes.tells_its_process.enqueue()).return_value for _ in range(6)]

    assert len(set(pids)) == 3
    assert "died" not in process.output


def test_a_worker_that_grew_is_replaced_after_its_run_and_one_that_eats_memory_is_ended_in_it(
    qcluster: ClusterFactory,
) -> None:
    process = qcluster(WORKERS=1, WORKER_MEMORY_MB=200, MAX_ATTEMPTS=1)
    (old,) = wait_until(lambda: process.titled("worker idle"), what="the worker to be idle")
    results = [greedy.grows.enqueue(250), *(outcomes.tells_its_process.enqueue() for _ in range(4))]

    runs = [finished(result) for result in results]

    assert [(run.status, run.attempt, run.attempts) for run in runs] == [(Status.SUCCESSFUL, 1, [])] * 5
    assert runs[0].return_value == old.pid
    (fresh,) = {run.return_value for run in runs[1:]}
    assert fresh != old.pid
    assert not old.is_running()
    assert [worker.pid for worker in process.titled("worker")] == [fresh]
    assert "died" not in process.output

    run = finished(outcomes.eats_memory.enqueue(400))
    assert (run.failure, run.attempt) == (Failure.WORKER_LOST, 3)
    assert "more than the 200 MB allowed" in (run.failure_message or "")
