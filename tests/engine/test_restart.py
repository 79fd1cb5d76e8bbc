"""Workers that are replaced because somebody wished it, whatever dies in the middle."""

from __future__ import annotations

import signal

import pytest
from django.contrib.auth.models import User

from tasks_app.models import AuditEntry, Cluster, Status, TaskRun
from tasks_app.models.cluster import DesiredState
from tests import outcomes
from tests.engine.test_cluster import finished, running, working_on
from tests.plugins.processes import ClusterFactory, RunningProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def pids(process: RunningProcess) -> set[int]:
    return {found.pid for found in process.titled("worker")}


def settled(process: RunningProcess, count: int) -> set[int]:
    """The workers once each has its title, which a process that was just forked has not."""
    wait_until(lambda: len(pids(process)) == count, what=f"{count} workers")
    return pids(process)


def is_obeyed() -> bool:
    cluster = Cluster.objects.get()
    renewed = (cluster.report or {}).get("renewed")
    return bool(renewed and cluster.restart_at and abs(renewed - cluster.restart_at.timestamp()) < 0.001)


def other(process: RunningProcess, before: set[int], count: int) -> bool:
    now = pids(process)
    return len(now) == count and not now & before


def test_idle_workers_are_replaced_at_once(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=2)
    before = settled(process, 2)
    operator = User.objects.create_user("operator")

    assert Cluster.objects.get().steer(restart=True, by=operator, why="It leaks.")

    wait_until(lambda: other(process, before, 2), seconds=5, what="two fresh workers")
    wait_until(is_obeyed, seconds=5, what="the report that says so")
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    assert "died" not in process.output
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.actor, entry.reason, entry.details) == ("steer", operator, "It leaks.", {"restart": True})


def test_a_run_at_hand_ends_before_its_worker_goes(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(1.5))
    before = working_on(process, run).pid

    Cluster.objects.get().steer(restart=True)

    wait_until(is_obeyed, seconds=5, what="the wish to be obeyed")
    assert (Cluster.objects.get().report or {})["workers"][0]["leaving"]
    done = finished(outcomes.sleeps.get_result(str(run.pk)))
    assert (done.status, done.attempt, done.attempts) == (Status.SUCCESSFUL, 1, [])
    wait_until(lambda: other(process, {before}, 1), what="a fresh worker")


def test_a_wish_is_obeyed_once(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    before = settled(process, 1)
    Cluster.objects.get().steer(restart=True)
    wait_until(lambda: other(process, before, 1), what="a fresh worker")
    fresh = pids(process)
    beat = Cluster.objects.get().heartbeat_at

    wait_until(lambda: (Cluster.objects.get().heartbeat_at - beat).total_seconds() > 2, what="three heartbeats")
    assert pids(process) == fresh
    Cluster.objects.get().steer(restart=True)
    wait_until(lambda: other(process, fresh, 1), what="another one, wished once more")


def test_a_quiet_cluster_stays_quiet(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    before = settled(process, 1)
    cluster = Cluster.objects.get()
    cluster.steer(state=DesiredState.QUIET, restart=True)
    wait_until(lambda: other(process, before, 1), what="a fresh worker")

    waiting = outcomes.succeeds.enqueue()
    beat = Cluster.objects.get().heartbeat_at
    wait_until(lambda: (Cluster.objects.get().heartbeat_at - beat).total_seconds() > 1.5, what="two heartbeats")
    assert TaskRun.objects.get(pk=waiting.id).state == "ready"
    cluster.steer(state=DesiredState.RUN)
    assert finished(waiting).status == Status.SUCCESSFUL


def test_a_sentinel_killed_in_the_middle_leaves_fresh_workers_and_no_run_lost(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=2)
    run = running(outcomes.sleeps.enqueue(2))
    old = working_on(process, run)
    before = settled(process, 2)
    Cluster.objects.get().steer(restart=True)
    wait_until(lambda: old.pid in pids(process) and len(pids(process) - before) == 1, what="one of two replaced")

    process.titled("sentinel")[0].kill()

    done = finished(outcomes.sleeps.get_result(str(run.pk)))
    assert (done.status, done.attempt) == (Status.SUCCESSFUL, 2)
    assert [entry["reason"] for entry in done.attempts] == ["worker_lost"]
    wait_until(lambda: other(process, before, 2), what="two fresh workers")
    wait_until(is_obeyed, what="the report that says so")
    fresh = pids(process)
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    assert pids(process) == fresh


def test_a_leaving_worker_that_is_killed_is_replaced_and_its_run_tried_again(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    run = running(outcomes.sleeps.enqueue(2))
    old = working_on(process, run)
    Cluster.objects.get().steer(restart=True)
    wait_until(is_obeyed, what="the wish to be obeyed")

    old.kill()

    done = finished(outcomes.sleeps.get_result(str(run.pk)))
    assert (done.status, done.attempt) == (Status.SUCCESSFUL, 2)
    settled(process, 1)


def test_a_stop_in_the_middle_is_bounded(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1, STOP_GRACE_SECONDS=0.2)
    run = running(outcomes.sleeps.enqueue(300))
    Cluster.objects.get().steer(restart=True)
    wait_until(is_obeyed, what="the wish to be obeyed")

    assert process.stop(signal.SIGTERM) == 0
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Status.READY, 0)
