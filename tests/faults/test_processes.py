"""Processes of a cluster killed under load: every run ends, and each second execution has its recorded loss."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.play import read, send
from tests.server import Server
from tests.waiting import wait_until

COUNT = 200


def assert_every_second_execution_is_explained(server: Server, count: int) -> None:
    """One execution for the success, and at most one more for each attempt that is recorded as lost."""
    executions = server.executions()
    runs = server.runs()
    assert len(runs) == count
    for run in runs:
        number = run["args"][1]
        lost = [entry for entry in run["attempts"] if entry["reason"] == "worker_lost"]
        assert run["status"] in {"SUCCESSFUL", "FAILED"}
        if run["status"] == "FAILED":
            assert (run["failure"], len(lost)) == ("worker_lost", run["max_attempts"])
        assert run["attempt"] == len(lost) + (run["status"] == "SUCCESSFUL")
        assert executions[number] <= run["attempt"]
        assert executions[number] >= (run["status"] == "SUCCESSFUL")


def test_each_idle_worker_killed_in_turn_twenty_times(server: Server) -> None:
    cluster = server.qcluster(WORKERS=2)

    for turn in range(20):
        idle = wait_until(lambda: cluster.titled("worker idle"), what="an idle worker")
        end(idle[turn % len(idle)])

    server.enqueue(10)
    server.wait_until_all_final()
    assert server.executions() == Counter(range(10))
    assert {run["attempt"] for run in server.runs()} == {1}


def end(process: psutil.Process) -> None:
    """Kill it and see it gone: for a moment it is still there, with its title."""
    process.kill()
    process.wait(20)


def test_busy_workers_killed_again_and_again(server: Server) -> None:
    cluster = server.qcluster(WORKERS=2)
    server.enqueue(COUNT, seconds=0.02)
    choice = random.Random(1)

    for done in range(0, COUNT * 3 // 4, COUNT // 10):
        wait_until(lambda done=done: len(server.executions()) >= done, what=f"{done} executions")  # type: ignore[misc]
        choice.choice(wait_until(lambda: cluster.titled("worker writes_ledger"), what="a busy worker")).kill()

    server.wait_until_all_final()
    assert_every_second_execution_is_explained(server, COUNT)


def test_the_sentinel_killed_under_load(server: Server) -> None:
    cluster = server.qcluster(WORKERS=2)
    server.enqueue(COUNT, seconds=0.02)

    for done in (10, 60, 110):
        wait_until(lambda done=done: len(server.executions()) >= done, what=f"{done} executions")  # type: ignore[misc]
        wait_until(lambda: cluster.titled("sentinel"), what="the sentinel")[0].kill()

    server.wait_until_all_final()
    assert_every_second_execution_is_explained(server, COUNT)


def test_the_sentinel_killed_before_the_database_has_heard_of_a_dead_worker(server: Server) -> None:
    """What that worker had begun is known to its slot alone, so nobody may have the slot until it is told."""
    cluster = server.qcluster(WORKERS=1)
    worker = wait_until(lambda: cluster.titled("worker"), what="the worker")
    wait_until(lambda: time.time() > worker[0].create_time() + 1.5, what="a worker whose place is filled at once")
    server.enqueue(1, seconds=1)

    with server.connect() as other, server.connect() as looker, other.transaction():
        wait_until(lambda: server.executions()[0] == 1, what="the first execution")
        other.execute("SELECT FROM tasks_app_taskrun FOR UPDATE")  # nobody marks it RUNNING any more
        end(worker[0])
        cluster.wait_for_output("worker 1 died")
        stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE '% sentinel'"
        wait_until(lambda: looker.execute(stuck).fetchone(), what="a sentinel that cannot tell")
        deadline = time.monotonic() + 1
        wait_until(lambda: cluster.titled("worker idle") or time.monotonic() > deadline, what="another worker, or none")
        cluster.titled("sentinel")[0].kill()
        cluster.wait_for_output("the sentinel died")

    server.wait_until_all_final(seconds=20)
    assert_every_second_execution_is_explained(server, 1)


def test_everything_killed_at_once_is_rescued_by_another_cluster(server: Server) -> None:
    """As when a host loses its power: nobody is left to give anything back."""
    gone = server.qcluster(WORKERS=2, LOST_AFTER_SECONDS=2)
    server.enqueue(COUNT, seconds=0.02)
    wait_until(lambda: len(server.executions()) > 10, what="some executions")

    for member in gone.members():
        member.suspend()  # so that none of them sees another go
    for member in gone.members():
        member.kill()
    server.qcluster(WORKERS=2, LOST_AFTER_SECONDS=2)

    server.wait_until_all_final()
    assert_every_second_execution_is_explained(server, COUNT)


@pytest.mark.parametrize(("signum", "send_to"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_a_signal_during_the_start_leaves_nothing(
    server: Server, signum: signal.Signals, send_to: Callable[[int, int], None]
) -> None:
    """To the main process alone, and as Ctrl-C comes: to the whole group."""
    for moment in ("qcluster default main", "qcluster default sentinel", "is ready"):
        cluster = server.qcluster(wait=False, WORKERS=4)
        if moment == "is ready":
            cluster.wait_for_output(moment)
        else:
            wait_until(lambda: cluster.titled(moment) or cluster.process.poll() is not None)  # noqa: B023
        send_to(cluster.pid, signum)
        assert cluster.wait() == 0
        assert not cluster.members()


def test_signals_until_the_very_end_do_not_spoil_the_exit_code(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1)
    while cluster.process.poll() is None:
        cluster.process.send_signal(signal.SIGTERM)
    assert cluster.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_with_a_sixty_second_task_is_bounded(server: Server, signum: signal.Signals) -> None:
    cluster = server.qcluster(WORKERS=2, STOP_GRACE_SECONDS=0.5)
    server.enqueue(2, seconds=60)
    wait_until(lambda: len(server.executions()) == 2, what="two executions")

    assert cluster.stop(signum, seconds=10) == 0

    assert not cluster.members()
    assert {(run["status"], run["attempt"], run["claimed_by"]) for run in server.runs()} == {("READY", 0, None)}
    for run in server.runs():
        (entry,) = run["attempts"]  # the record of why it is going to be executed once more
        assert (entry["reason"], entry["attempt"]) == ("given_back", 1)


def test_what_a_killed_worker_had_not_begun_is_not_charged(server: Server) -> None:
    """Its batch goes back as it was; only the run at hand is a loss."""
    cluster = server.qcluster(WORKERS=1)
    server.enqueue(2_000)
    wait_until(lambda: len(server.executions()) > 200, what="full batches")
    worker = cluster.titled("worker")[0]
    worker.suspend()
    worker.kill()

    server.wait_until_all_final()
    charged = [run for run in server.runs() if run["attempts"]]
    assert_every_second_execution_is_explained(server, 2_000)
    assert len(charged) <= 1
    assert all(server.executions()[run["args"][1]] >= 1 for run in charged)
    assert psutil.pid_exists(cluster.pid)


def test_what_had_ended_before_another_run_killed_its_worker_is_recorded(server: Server) -> None:
    """Also when nobody has room for it: what is too long to be kept is recorded before the next run may begin."""
    long = "x" * 80_000
    for number in range(48):
        send(server, "writes_ledger", str(server.ledger), number, attempts=1)
        if number % 12 == 11:
            send(server, "succeeds", long, attempts=1)
            send(server, "succeeds", attempts=1)
            send(server, "dies_at_once", attempts=1)

    cluster = server.qcluster(WORKERS=1)
    server.wait_until_all_final()

    ended = [run for run in server.runs() if not run["task_path"].endswith("dies_at_once")]
    assert {(run["status"], run["attempt"]) for run in ended} == {("SUCCESSFUL", 1)}
    assert server.executions() == Counter(range(48))
    assert {len(run["return_value"]["args"]) for run in ended if run["task_path"].endswith("succeeds")} == {0, 1}
    assert "had ended before its worker died: recorded" in cluster.output


def test_what_had_ended_before_its_sentinel_and_worker_died_is_recorded(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1)
    server.enqueue(2_000)
    wait_until(lambda: len(server.executions()) > 200, what="full batches")
    (worker,), (sentinel,) = cluster.titled("worker"), cluster.titled("sentinel")
    worker.suspend()
    sentinel.suspend()
    worker.kill()
    end(sentinel)

    server.wait_until_all_final()
    assert_every_second_execution_is_explained(server, 2_000)
    assert len([run for run in server.runs() if run["attempts"]]) <= 1


@pytest.mark.parametrize("task", ["never_leaves_c", "ignores_sigterm"])
def test_a_task_that_hears_no_signal_does_not_outlive_its_cluster(server: Server, tmp_path: Path, task: str) -> None:
    cluster = server.qcluster(WORKERS=1, STOP_GRACE_SECONDS=0.3)
    gate = tmp_path / "gate"
    run_id = send(server, task, str(gate))
    wait_until(gate.exists, what="the task to be at work")

    os.killpg(cluster.pid, signal.SIGTERM)

    assert cluster.wait() == 0
    assert not cluster.members()
    run = read(server, run_id)
    assert (run["status"], run["attempt"], run["claimed_by"]) == ("READY", 0, None)
