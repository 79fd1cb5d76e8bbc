"""STEER: a bulk act with a real worker: undone, stopped between two batches, killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User

from tasks_app import bulk
from tasks_app.engine.acts import BATCH
from tasks_app.models import AuditEntry, Status, TaskRun
from tests.engine.test_verbs import stored
from tests.plugins.processes import ClusterFactory, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = 2 * BATCH + 500


@pytest.fixture
def operator() -> User:
    return User.objects.create_superuser("operator")


@pytest.fixture
def failed() -> list[TaskRun]:
    """More than two batches, in the order in which they are taken."""
    return sorted(stored(COUNT, status=Status.FAILED), key=lambda run: run.pk)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ten seconds to think it over."""
    monkeypatch.setattr(bulk, "UNDO_SECONDS", 0)


@contextmanager
def somebody_has(run: TaskRun) -> Iterator[None]:
    """Whoever wants this run has to wait."""
    with psycopg.connect(database_url()) as connection:
        connection.execute("SELECT FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [run.pk])
        yield


def ended(act: TaskRun) -> TaskRun:
    wait_until(TaskRun.objects.filter(pk=act.pk).finished().exists, seconds=40, what="the end of the bulk act")
    return TaskRun.objects.get(pk=act.pk)


def stands_still(act: TaskRun, changed: int) -> None:
    """So many runs are done, and it waits for the next one."""

    def is_done() -> bool:
        return sum(AuditEntry.objects.filter(act=act.pk).values_list("count", flat=True)) == changed

    wait_until(is_done, what=f"{changed} runs that are done")


def told(act: TaskRun) -> str:
    value: Any = act.return_value
    return str(value["told"]).replace("\xa0", " ")


def test_many_runs_in_several_batches(
    qcluster: ClusterFactory, operator: User, failed: list[TaskRun], at_once: None
) -> None:
    qcluster(WORKERS=1)

    act = ended(bulk.send(operator, "delete", finding_query="state=failed", why="the disk is full"))

    assert (act.status, told(act)) == (Status.SUCCESSFUL, "2 500 runs were deleted.")
    assert (act.progress_done, act.progress_total) == (COUNT, COUNT)
    assert TaskRun.objects.exclude(pk=act.pk).count() == 0
    entries = AuditEntry.objects.filter(act=act.pk)
    assert {(entry.verb, entry.actor, entry.reason) for entry in entries} == {("delete", operator, "the disk is full")}
    assert sum(entry.count for entry in entries) == COUNT


def test_a_worker_killed_midway_doubles_nothing(
    qcluster: ClusterFactory, operator: User, failed: list[TaskRun], at_once: None
) -> None:
    process = qcluster(WORKERS=1)
    with somebody_has(failed[BATCH + 500]):
        act = bulk.send(operator, "retry", finding_query="state=failed")
        stands_still(act, 2 * BATCH - 1)
        wait_until(lambda: process.titled("worker act_on_runs"), what="the worker that is at it")[0].kill()
        wait_until(lambda: TaskRun.objects.filter(pk=act.pk, attempt=2).exists(), what="another attempt")

    act = ended(act)

    assert (act.status, told(act), act.attempt) == (Status.SUCCESSFUL, "2 500 runs were sent once more.", 2)
    retried = TaskRun.objects.filter(retry_of__isnull=False).order_by("retry_of").values_list("retry_of", flat=True)
    assert list(retried) == [run.pk for run in failed]


def test_it_stops_between_two_batches(
    qcluster: ClusterFactory, operator: User, failed: list[TaskRun], at_once: None
) -> None:
    qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=30)
    with somebody_has(failed[BATCH + 500]):
        act = bulk.send(operator, "delete", finding_query="state=failed")
        stands_still(act, 2 * BATCH - 1)
        wait_until(lambda: TaskRun.objects.running().filter(pk=act.pk).exists(), what="a worker that is at it")
        act.cancel(by=operator)
        heard = TaskRun.objects.filter(pk=act.pk, cancel_requested_at__isnull=False)
        wait_until(heard.exists, what="the wish")

    act = ended(act)

    assert act.status == Status.CANCELLED
    assert (act.progress_done, act.progress_message) == (2 * BATCH, "2\xa0000 runs were deleted")
    left = TaskRun.objects.failed().values_list("pk", flat=True)
    assert sorted(left) == [run.pk for run in failed[2 * BATCH :]]


def test_undone_in_time_it_never_begins(
    qcluster: ClusterFactory, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    qcluster(WORKERS=1)
    runs = stored(3, status=Status.FAILED)
    monkeypatch.setattr(bulk, "UNDO_SECONDS", 2)
    undone = bulk.send(operator, "delete", ids=[str(run.pk) for run in runs])

    assert bulk.undo(undone, operator)

    later = ended(bulk.send(operator, "retry", ids=[str(runs[0].pk)]))
    assert told(later) == "1 run was sent once more."
    assert TaskRun.objects.failed().count() == 3


def test_undone_too_late_it_has_begun(
    qcluster: ClusterFactory, operator: User, failed: list[TaskRun], at_once: None
) -> None:
    qcluster(WORKERS=1)
    with somebody_has(failed[500]):
        act = bulk.send(operator, "delete", finding_query="state=failed")
        stands_still(act, BATCH - 1)

        assert not bulk.undo(act, operator)

    assert told(ended(act)) == "2 500 runs were deleted."
