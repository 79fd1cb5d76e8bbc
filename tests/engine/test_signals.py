"""Signals: what receivers are told, and that the worst of them harm nobody."""

from pathlib import Path

import pytest
from django.dispatch import receiver
from django_q.tasks import async_task
from django_tasks import TaskResult, TaskResultStatus
from django_tasks.signals import task_enqueued

from tasks_app.backend import PostgresBackend
from tasks_app.models import Status, TaskRun
from tests import outcomes
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until


@pytest.mark.django_db
def test_enqueue_tells_its_receivers_and_survives_those_that_raise() -> None:
    told = []

    @receiver(task_enqueued, sender=PostgresBackend)
    def remember(task_result: TaskResult, **_: object) -> None:
        told.append((task_result.id, task_result.status, task_result.args))

    @receiver(task_enqueued)
    def fail(**_: object) -> None:
        raise RuntimeError("on purpose")

    result = outcomes.succeeds.enqueue(1)

    assert told == [(result.id, TaskResultStatus.READY, [1])]
    assert TaskRun.objects.get().pk.hex == result.id.replace("-", "")


def test_a_worker_tells_receivers_of_starts_and_recorded_ends(qcluster: ClusterFactory, tmp_path: Path) -> None:
    log = tmp_path / "signals"
    qcluster(WORKERS=1, first=f"from tests.listeners import connect; connect({str(log)!r}, 'well')")

    outcomes.succeeds_async.enqueue(1)
    wait_until(lambda: log.exists() and "post_execute tests.outcomes.succeeds_async" in log.read_text())
    async_task("tests.outcomes.plain", 4)
    wait_until(lambda: "post_execute tests.outcomes.plain" in log.read_text())
    outcomes.fails.enqueue("no")
    wait_until(lambda: "post_execute tests.outcomes.fails" in log.read_text())
    outcomes.succeeds_at_last.enqueue()
    wait_until(lambda: "post_execute tests.outcomes.succeeds_at_last" in log.read_text())

    assert log.read_text().splitlines() == [
        "post_spawn worker",
        "task_started RUNNING 0",
        "pre_execute tests.outcomes.succeeds_async None None",
        "task_finished SUCCESSFUL 0",
        "post_execute_in_worker tests.outcomes.succeeds_async True 2",
        "post_execute tests.outcomes.succeeds_async True 2",
        "pre_execute tests.outcomes.plain None None",
        "post_execute_in_worker tests.outcomes.plain True 8",
        "post_execute tests.outcomes.plain True 8",
        "task_started RUNNING 0",
        "pre_execute tests.outcomes.fails None None",
        "task_finished FAILED 1",
        "post_execute_in_worker tests.outcomes.fails False ValueError: no",
        "post_execute tests.outcomes.fails False ValueError: no",
        *["task_started RUNNING 0", "pre_execute tests.outcomes.succeeds_at_last None None"] * 3,
        "task_finished SUCCESSFUL 0",
        "post_execute_in_worker tests.outcomes.succeeds_at_last True 3",
        "post_execute tests.outcomes.succeeds_at_last True 3",
    ]


@pytest.mark.parametrize("behaviour", ["raises", "exits", "hangs", "hangs and swallows"])
def test_a_bad_receiver_harms_no_run(qcluster: ClusterFactory, tmp_path: Path, behaviour: str) -> None:
    first = f"from tests.listeners import connect; connect({str(tmp_path / 'signals')!r}, {behaviour!r})"
    cluster = qcluster(WORKERS=1, first=first, RECEIVER_SECONDS=0.1, CANCEL_GRACE_SECONDS=0.2)

    outcomes.succeeds_async.enqueue_many([[number] for number in range(3)])

    finished = TaskRun.objects.filter(status=Status.SUCCESSFUL, attempt=1)
    wait_until(lambda: finished.count() == 3, seconds=60, what="three runs")
    assert cluster.process.poll() is None
    assert not TaskRun.objects.exclude(attempts=[]).exists()
    if behaviour == "hangs and swallows":
        assert "goes on with a signal receiver past its limit and is ended" in cluster.output
