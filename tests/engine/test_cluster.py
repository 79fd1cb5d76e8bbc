"""RUN: real `manage.py qcluster` processes, real deaths."""

import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from django_q.tasks import async_task
from django_tasks import TaskResult

from tasks_app.models import Cluster, Failure, Status, TaskRun
from tests import outcomes
from tests.plugins.processes import ClusterFactory, RunningProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def finished(result: TaskResult) -> TaskRun:
    return wait_until(lambda: TaskRun.objects.finished().filter(pk=result.id).first(), what="the end of the run")  # type: ignore[return-value]


def running(result: TaskResult) -> TaskRun:
    return wait_until(lambda: TaskRun.objects.running().filter(pk=result.id).first(), what="the run to be RUNNING")  # type: ignore[return-value]


def working_on(cluster: RunningProcess, run: TaskRun) -> psutil.Process:
    """The worker that executes the run: its title says so."""
    return wait_until(lambda: cluster.titled(f"worker {run.name} {run.pk}"), what="the worker's title")[0]


def test_runs_what_was_enqueued_and_keeps_the_record(qcluster: ClusterFactory) -> None:
    before = timezone.now()
    qcluster()

    run = finished(outcomes.succeeds.enqueue(1, key="two"))

    assert (run.status, run.return_value) == (Status.SUCCESSFUL, {"args": [1], "kwargs": {"key": "two"}})
    assert (run.attempt, run.attempts, run.failure) == (1, [], None)
    assert run.claimed_at and run.started_at and run.finished_at
    assert before < run.enqueued_at <= run.claimed_at <= run.started_at <= run.finished_at
    result = outcomes.succeeds.get_result(str(run.pk))
    assert result.return_value == run.return_value
    assert len(result.worker_ids) == 1


def test_async_task_of_django_q_runs_too(qcluster: ClusterFactory) -> None:
    qcluster()
    given = async_task("tests.outcomes.plain", 21)

    run = wait_until(lambda: TaskRun.objects.finished().filter(pk=given).first())
    assert run and run.return_value == 42


def test_a_failure_keeps_class_message_and_traceback_of_that_attempt(qcluster: ClusterFactory) -> None:
    qcluster()

    run = finished(outcomes.fails.enqueue("sold out"))

    assert (run.status, run.failure, run.failure_message) == (Status.FAILED, Failure.ERROR, "ValueError: sold out")
    (attempt,) = run.attempts
    assert (attempt["attempt"], attempt["reason"], attempt["exception"]) == (1, "error", "builtins.ValueError")
    assert attempt["worker"] == run.claimed_by
    assert "raise ValueError(text)" in attempt["traceback"]
    assert run.tries[0].duration is not None


def test_a_result_that_is_not_json_fails_with_that_reason_and_is_not_lost(qcluster: ClusterFactory) -> None:
    qcluster()

    for kind in ("nan", "nul", "surrogate", "large", "set"):
        run = finished(outcomes.returns.enqueue(kind))
        assert (run.status, run.failure) == (Status.FAILED, Failure.ERROR)
        assert (run.failure_message or "").startswith("The result ")
    assert finished(outcomes.returns.enqueue("backslash")).return_value == "\\u0000"


def test_whatever_a_task_does_the_next_one_runs(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)

    assert finished(outcomes.exits.enqueue()).failure_message == "SystemExit: 3"
    assert finished(outcomes.interrupts.enqueue()).failure_message == "KeyboardInterrupt"
    assert finished(outcomes.fails_unprintably.enqueue()).failure == Failure.ERROR
    assert finished(outcomes.sleeps_too_long.enqueue()).failure == Failure.TIMED_OUT
    assert finished(outcomes.leaves_a_transaction_open.enqueue("nobody")).status == Status.SUCCESSFUL
    assert finished(outcomes.adds_user.enqueue("somebody")).status == Status.SUCCESSFUL
    assert list(User.objects.values_list("username", flat=True)) == ["somebody"]


def test_a_worker_killed_in_the_middle_of_a_run_is_noticed_and_the_run_tried_again(qcluster: ClusterFactory) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=0.2)
    result = outcomes.sleeps.enqueue(300)
    run = running(result)
    delays = []
    for attempt in (1, 2):  # twice, because a machine may stand still for a moment of its own
        worker = working_on(cluster, running(result))
        worker.kill()
        killed = timezone.now()
        again = wait_until(lambda attempt=attempt: TaskRun.objects.filter(pk=run.pk, attempt=attempt + 1).first())  # type: ignore[misc]
        assert again
        lost = again.attempts[-1]
        assert lost["reason"] == "worker_lost"
        assert lost["message"] == "The process that ran it died (killed by SIGKILL)."
        # By the clock of the database, which is this machine's: from the kill to the record.
        delays.append((datetime.fromisoformat(lost["ended_at"]) - killed).total_seconds())
        wait_until(lambda: len(cluster.titled("worker")) == 2, what="another worker in its place")
    assert min(delays) < 1


def test_a_task_that_kills_its_worker_ends_failed_when_no_attempt_is_left(qcluster: ClusterFactory) -> None:
    qcluster()

    once = finished(outcomes.dies_at_once.enqueue())
    assert (once.status, once.failure, once.attempt) == (Status.FAILED, Failure.WORKER_LOST, 1)
    second = finished(outcomes.dies_once.enqueue())
    assert (second.status, second.return_value, len(second.attempts)) == (Status.SUCCESSFUL, 2, 1)
    thrice = finished(outcomes.dies.enqueue())
    assert (thrice.failure, thrice.attempt, len(thrice.attempts)) == (Failure.WORKER_LOST, 3, 3)
    assert thrice.failure_message == "The process that ran it died (killed by SIGKILL)."


def test_an_idle_worker_that_is_killed_is_replaced(qcluster: ClusterFactory) -> None:
    cluster = qcluster()
    for worker in wait_until(lambda: cluster.titled("worker idle")):
        worker.kill()

    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_a_killed_sentinel_is_replaced_and_its_runs_are_tried_again(qcluster: ClusterFactory) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=0.2)
    run = running(outcomes.sleeps.enqueue(300))
    worker = working_on(cluster, run)

    cluster.titled("sentinel")[0].kill()

    again = wait_until(lambda: TaskRun.objects.filter(pk=run.pk, attempt=2).first(), what="the second attempt")
    assert again and again.attempts[0]["reason"] == "worker_lost"
    assert not worker.is_running()
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_a_killed_main_process_takes_everything_with_it_and_gives_the_runs_back(qcluster: ClusterFactory) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=0.2)
    run = running(outcomes.sleeps.enqueue(300))
    # Found by pid: once the main process is gone nobody leads the session that they are in.
    members = cluster.members()

    cluster.process.kill()

    psutil.wait_procs([member for member in members if member.pid != cluster.pid], timeout=10)
    assert not [member for member in members if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    run.refresh_from_db()
    assert (run.status, run.attempt, run.claimed_by) == (Status.READY, 0, None)


def test_a_stop_waits_for_the_run_at_hand(qcluster: ClusterFactory) -> None:
    cluster = qcluster()
    run = running(outcomes.sleeps.enqueue(1))

    assert cluster.stop(signal.SIGTERM) == 0

    run.refresh_from_db()
    assert run.status == Status.SUCCESSFUL
    assert Cluster.objects.get().stopped_at


def test_a_stop_gives_a_long_run_back_uncharged_and_ends_all_that_it_forked(
    qcluster: ClusterFactory, tmp_path: Path
) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=0.2)
    gate = tmp_path / "pid"
    run = running(outcomes.forks_and_waits.enqueue(str(gate)))
    child = int(wait_until(lambda: gate.exists() and gate.read_text()))

    assert cluster.stop(signal.SIGTERM) == 0

    run.refresh_from_db()
    assert (run.status, run.attempt, run.claimed_by, run.charged) == (Status.READY, 0, None, [])
    assert [entry["reason"] for entry in run.attempts] == ["given_back"]  # it will be executed again: here is why
    wait_until(lambda: not psutil.pid_exists(child), what="the end of what the task forked")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_stops_it_too(qcluster: ClusterFactory, signum: signal.Signals) -> None:
    cluster = qcluster()
    run = running(outcomes.sleeps.enqueue(1))

    os.killpg(cluster.pid, signum)

    assert cluster.wait() == 0
    run.refresh_from_db()
    assert run.status == Status.SUCCESSFUL


def test_a_second_signal_stops_at_once(qcluster: ClusterFactory) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=60)
    run = running(outcomes.sleeps.enqueue(300))

    cluster.process.send_signal(signal.SIGTERM)
    cluster.wait_for_output("is stopping")
    cluster.process.send_signal(signal.SIGTERM)

    assert cluster.wait() == 0
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Status.READY, 0)


def test_a_silent_cluster_is_declared_lost_and_its_runs_are_rescued_once(qcluster: ClusterFactory) -> None:
    """The whole cluster stands still, as a host does that was cut off, and wakes up when all is over."""
    silent = qcluster(LOST_AFTER_SECONDS=2, WORKERS=1)
    run = running(outcomes.sleeps.enqueue(4))
    for member in silent.members():
        member.suspend()
    qcluster(LOST_AFTER_SECONDS=2, WORKERS=1)

    again = wait_until(lambda: TaskRun.objects.running().filter(pk=run.pk, attempt=2).first(), seconds=30)
    assert again and again.attempts[0]["reason"] == "worker_lost"
    lost = Cluster.objects.get(lost_at__isnull=False)
    assert lost.rescued == 1
    for member in silent.members():
        member.resume()

    # What the first worker has to say about its attempt comes too late and changes nothing.
    done = wait_until(lambda: TaskRun.objects.successful().filter(pk=run.pk).first(), seconds=30)
    assert done and (done.attempt, done.claimed_by) == (2, again.claimed_by)
    silent.wait_for_output("was declared lost")
    wait_until(lambda: Cluster.objects.alive().count() == 2, what="the silent cluster to begin again")


def test_survives_the_end_of_every_database_session(qcluster: ClusterFactory) -> None:
    qcluster()
    run = running(outcomes.sleeps.enqueue(1))

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    done = wait_until(lambda: TaskRun.objects.finished().filter(pk=run.pk).first())
    assert done and (done.status, done.attempt) == (Status.SUCCESSFUL, 1)
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL


def test_a_child_that_comes_back_from_a_task_is_nobody(qcluster: ClusterFactory) -> None:
    cluster = qcluster(WORKERS=1)

    run = finished(outcomes.comes_back_twice.enqueue())

    assert (run.return_value, run.attempt) == ("from the parent", 1)
    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    cluster.wait_for_output("finished: task tests.outcomes.succeeds")
    assert cluster.output.count("finished: task tests.outcomes.comes_back_twice") == 1
    assert len(cluster.titled("worker")) == 1


def test_titles_tell_what_each_process_does(qcluster: ClusterFactory) -> None:
    cluster = qcluster(STOP_GRACE_SECONDS=0.2)
    run = running(outcomes.sleeps.enqueue(300))

    wait_until(lambda: cluster.titled("qcluster default worker idle"))
    assert len(cluster.titled("qcluster default sentinel")) == 1
    assert len(cluster.titled("qcluster default main")) == 1
    assert cluster.titled(f"qcluster default worker sleeps {run.pk}")


def test_progress_is_written_while_the_task_computes(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    gate = tmp_path / "open"
    result = outcomes.progresses.enqueue(str(gate))

    run = wait_until(lambda: TaskRun.objects.running().filter(pk=result.id, progress__isnull=False).first())
    assert run and run.progress and run.progress.pop("after") < 20
    assert run.progress == {"done": 1, "total": 4, "message": "one of four"}
    assert run.percent == 25
    gate.touch()

    done = finished(result)
    assert (done.progress_message, done.return_value) == ("all four", str(done.pk))


def test_takes_only_its_own_queue_in_order_of_priority(qcluster: ClusterFactory) -> None:
    elsewhere = outcomes.succeeds.using(queue_name="images").enqueue()
    low = outcomes.succeeds.enqueue()
    high = outcomes.succeeds.using(priority=10).enqueue()
    qcluster(WORKERS=1)

    assert finished(low).claimed_at > finished(high).claimed_at  # type: ignore[operator]
    assert TaskRun.objects.get(pk=elsewhere.id).state == "ready"


def test_a_scheduled_run_starts_at_its_moment(qcluster: ClusterFactory) -> None:
    qcluster()
    delays = []
    for _ in range(3):
        run = finished(outcomes.succeeds.using(run_after=timezone.now() + timedelta(seconds=1.3)).enqueue())
        delays.append((run.started_at - run.run_after).total_seconds())  # type: ignore[operator]

    assert 0 <= min(delays) < 0.5


def test_an_idle_worker_is_woken_at_once(qcluster: ClusterFactory) -> None:
    """By NOTIFY: far faster than the heartbeat that would find the run a second later without it."""
    cluster = qcluster()
    waits = []
    for _ in range(10):
        wait_until(lambda: len(cluster.titled("worker idle")) == 2)
        run = finished(outcomes.succeeds.enqueue())
        waits.append((run.started_at - run.enqueued_at).total_seconds())  # type: ignore[operator]

    assert sorted(waits)[5] < 0.5


def test_logs_one_line_at_the_start_and_one_at_the_end(qcluster: ClusterFactory, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "qcluster.log"
    cluster = qcluster(LOG_FILE=log)
    good = finished(outcomes.succeeds.enqueue())
    bad = finished(outcomes.fails.enqueue("first\n2026-01-01T00:00:00.000Z INFO 1 forged\r\x1b[2J"))

    lines = wait_until(lambda: log.exists() and f"run {bad.pk} finished" in log.read_text() and log.read_text())
    of_good = [line for line in str(lines).splitlines() if str(good.pk) in line]
    assert len(of_good) == 2
    assert f"run {good.pk} started: task tests.outcomes.succeeds, attempt 1 of 3" in of_good[0]
    assert of_good[1].endswith("s, SUCCESSFUL")
    of_bad = [line for line in str(lines).splitlines() if str(bad.pk) in line]
    assert len(of_bad) == 2
    assert of_bad[1].endswith(r"FAILED/error: ValueError: first\n2026-01-01T00:00:00.000Z INFO 1 forged\r\x1b[2J")
    assert not [line for line in str(lines).splitlines() if line.startswith("2026-01-01")]
    assert f"run {good.pk} started" in cluster.output

    # As logrotate does it: the old file goes aside under another name, the next line starts a new one.
    log.rename(log.with_suffix(".1"))
    third = finished(outcomes.succeeds.enqueue())
    wait_until(lambda: log.exists() and f"run {third.pk} finished" in log.read_text(), what="the new log file")
    assert str(third.pk) not in log.with_suffix(".1").read_text()


def test_a_log_file_that_cannot_be_written_stops_nothing(qcluster: ClusterFactory) -> None:
    cluster = qcluster(LOG_FILE="/proc/nowhere/qcluster.log")

    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    assert "cannot be written" in cluster.output
    assert "Traceback" not in cluster.output
