"""A run whose task this worker's code lacks: in a rolling deployment another worker's code may have it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from django.utils import timezone

from tasks_app.circumstances import look
from tasks_app.engine.submit import Submission
from tasks_app.models import Failure, Status, TaskRun
from tasks_app.why import why
from tests import outcomes
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

GIVEN_BACK = {"status": Status.READY, "claimed_by": None, "attempt": 0, "unknown_since__isnull": False}


@pytest.mark.parametrize("path", ["tests.outcomes.not_there", "no_such_module.task", "tests.broken_module.task"])
def test_is_looked_for_again_uncharged_and_then_rejected(qcluster: ClusterFactory, path: str) -> None:
    run = Submission(task_path=path).store()
    qcluster(WORKERS=1, UNKNOWN_TASK_SECONDS=1.5)

    wait_until(lambda: TaskRun.objects.filter(**GIVEN_BACK), what="the run given back")
    run.refresh_from_db()
    assert run.attempts == []
    assert run.failure_message is not None
    around = look(run.pk)
    assert around
    before_it_is_looked_for = replace(around, now=run.enqueued_at)
    assert why(run, before_it_is_looked_for).head == "No worker that looked has this task."
    assert outcomes.succeeds_async.enqueue(1).status == "READY"  # and it is in nobody's way

    wait_until(lambda: TaskRun.objects.filter(status=Status.FAILED), what="the end of the run")
    run.refresh_from_db()
    assert (run.failure, run.attempt, len(run.attempts)) == (Failure.REJECTED, 1, 1)
    wait_until(lambda: TaskRun.objects.filter(status=Status.SUCCESSFUL), what="the other run")


def test_is_executed_by_a_worker_with_newer_code(qcluster: ClusterFactory, tmp_path: Path) -> None:
    run = Submission(task_path="newer.arrives").store()
    qcluster(WORKERS=1)
    wait_until(lambda: TaskRun.objects.filter(**GIVEN_BACK), what="the run given back")

    (tmp_path / "newer.py").write_text("def arrives():\n    return 'new'\n")
    qcluster(WORKERS=2, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    wait_until(lambda: TaskRun.objects.filter(status=Status.SUCCESSFUL), seconds=60, what="its success")
    run.refresh_from_db()
    assert (run.return_value, run.attempt, run.attempts, run.unknown_since) == ("new", 1, [], None)


def test_is_cancelled_while_it_waits_for_newer_code(qcluster: ClusterFactory) -> None:
    run = Submission(task_path="tests.outcomes.not_there").store()
    qcluster(WORKERS=1)
    wait_until(lambda: TaskRun.objects.filter(**GIVEN_BACK), what="the run given back")

    assert run.cancel("Not needed.")

    run.refresh_from_db()
    assert (run.status, run.failure_message) == (Status.CANCELLED, "Not needed.")
    assert run.finished_at is not None
    assert run.finished_at <= timezone.now()
