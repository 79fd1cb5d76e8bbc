"""A cluster that grows, shrinks, is quiet or stops because somebody said so, and workers that are replaced."""

import pytest

from tasks_app.models import Cluster, Failure, Status, TaskRun
from tasks_app.models.cluster import DesiredState
from tests import outcomes
from tests.engine.test_cluster import finished, running
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_cluster_grows_and_shrinks(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    cluster = Cluster.objects.get()

    assert cluster.steer(workers=3)
    wait_until(lambda: len(process.titled("worker")) == 3, seconds=10, what="three workers")
    assert cluster.steer(workers=1)
    wait_until(lambda: len(process.titled("worker")) == 1, seconds=10, what="one worker")
    wait_until(lambda: Cluster.objects.filter(workers=1, desired_workers=1).exists(), what="the heartbeat that says so")
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_a_shrinking_cluster_lets_runs_end(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(1))

    Cluster.objects.get().steer(workers=0)

    assert finished(outcomes.sleeps.get_result(str(run.pk))).attempt == 1


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


def test_a_worker_that_eats_memory_is_ended_in_its_run(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1, WORKER_MEMORY_MB=150, MAX_ATTEMPTS=1)
    result = outcomes.eats_memory.enqueue(400)

    run = finished(result)

    assert (run.failure, run.attempt) == (Failure.WORKER_LOST, 3)
    assert "more than the 150 MB allowed" in (run.failure_message or "")
