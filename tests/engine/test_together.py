"""Promises that meet in one run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from tasks_app.models import Queue, Status, TaskLimit, TaskRun
from tasks_app.workflows import PREVIOUS, chain, group
from tests import flows, limited, outcomes
from tests.engine.test_cluster import finished
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_members_of_a_group_keep_the_limit_of_their_task(qcluster: ClusterFactory, tmp_path: Path) -> None:
    """Also where no run of that task was ever sent before."""
    qcluster(WORKERS=6)
    members = group(limited.notes_three_at_most.step(str(tmp_path / "ledger"), number, 0.1) for number in range(12))

    workflow = chain(members, flows.adds.step(PREVIOUS)).enqueue()
    wait_until(lambda: type(workflow).objects.get(pk=workflow.pk).status == Status.SUCCESSFUL, what="its end")

    assert TaskLimit.objects.get().key == "tests.limited.notes_three_at_most"
    assert limited.most_at_once(tmp_path / "ledger") == 3
    assert type(workflow).objects.get(pk=workflow.pk).result == sum(range(12))


def test_a_retry_counts_against_the_limit(tmp_path: Path) -> None:
    first = limited.notes_three_at_most.enqueue(str(tmp_path / "ledger"), 1)
    run = TaskRun.objects.get(pk=first.id)
    run.cancel()

    run.retry()

    assert TaskRun.objects.get(retry_of=run).limit_key == run.limit_key == run.task_path


def test_a_run_expires_in_a_paused_queue(qcluster: ClusterFactory) -> None:
    Queue.pause("default")
    sent = outcomes.succeeds.using(expires_at=timezone.now() + timedelta(seconds=0.5)).enqueue()
    qcluster()

    run = finished(sent)

    assert (run.status, run.attempt) == (Status.CANCELLED, 0)
    assert (run.failure_message or "").startswith("Not started by ")


def test_a_run_expires_behind_a_limit(qcluster: ClusterFactory, tmp_path: Path) -> None:
    TaskLimit.limit("tests.limited.notes", 1)
    qcluster(WORKERS=2)
    first = limited.notes.enqueue(str(tmp_path / "ledger"), 1, 2.0)
    wait_until(lambda: limited.begins(tmp_path / "ledger"), what="the first to begin")

    late = limited.notes.using(expires_at=timezone.now() + timedelta(seconds=0.5)).enqueue(str(tmp_path / "ledger"), 2)

    assert finished(late).status == Status.CANCELLED
    assert finished(first).status == Status.SUCCESSFUL
    assert limited.numbers(tmp_path / "ledger") == [1]
