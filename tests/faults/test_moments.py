"""The session ended exactly inside one statement: that one happens once, and nothing else notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.play import held_up, read, send, wait_for
from tests.server import Server
from tests.waiting import wait_until

RUN, CLUSTER = "tasks_app_taskrun", "tasks_app_cluster"

CLAIM = "old.claimed_by IS NULL AND new.claimed_by IS NOT NULL"
FINISH = "new.status = 'SUCCESSFUL'"
RELEASE = "old.claimed_by IS NOT NULL AND new.claimed_by IS NULL AND new.attempt < old.attempt"
REPORT = "old.status = 'READY' AND new.status = 'RUNNING'"
TAKE_BACK = "jsonb_array_length(new.attempts) > jsonb_array_length(old.attempts)"
HEARTBEAT = "new.heartbeat_at > old.heartbeat_at"

Once = Callable[[int], None]


def test_inside_a_claim(server: Server, assert_exactly_once: Once) -> None:
    server.qcluster(WORKERS=1)
    with held_up(server, RUN, CLAIM) as claim:
        server.enqueue(5)
        claim.terminate("worker")
        claim.let_go()

        server.wait_until_all_final()
    assert_exactly_once(5)


def test_inside_a_finish(server: Server, assert_exactly_once: Once) -> None:
    cluster = server.qcluster(WORKERS=1)
    with held_up(server, RUN, FINISH) as finish:
        server.enqueue(1)
        finish.terminate("worker")
        assert server.runs()[0]["status"] != "SUCCESSFUL"
        finish.let_go()

        server.wait_until_all_final()
    assert_exactly_once(1)
    assert "after its claim was lost" not in cluster.output


def test_inside_the_claim_that_travels_with_a_finish(server: Server, assert_exactly_once: Once, tmp_path: Path) -> None:
    """The finish before it was done by then, and is undone with it."""
    server.qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    first = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    wait_for(server, first, "RUNNING")
    send(server, "writes_ledger", str(server.ledger), 1)
    with held_up(server, RUN, CLAIM) as claim:
        gate.touch()
        claim.terminate("worker")
        assert read(server, first)["status"] == "RUNNING"
        claim.let_go()

        server.wait_until_all_final()
    assert_exactly_once(2)


def test_inside_a_release(server: Server, assert_exactly_once: Once) -> None:
    """Short runs make the batch large, then one turns out long and those behind it are given up."""
    server.enqueue(300)
    with server.connect() as connection:
        connection.execute(
            "UPDATE tasks_app_taskrun SET args = jsonb_set(args, '{2}', '0.15') WHERE (args->>1)::int % 60 = 59"
        )
    with held_up(server, RUN, RELEASE) as release:
        server.qcluster(WORKERS=1)
        release.terminate("worker")
        release.let_go()

        server.wait_until_all_final()
    assert_exactly_once(300)


def test_inside_a_report(server: Server, assert_exactly_once: Once, tmp_path: Path) -> None:
    cluster = server.qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    with held_up(server, RUN, REPORT) as report:
        run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
        report.terminate("reporter")
        report.let_go()

        wait_for(server, run_id, "RUNNING")
        gate.touch()
        server.wait_until_all_final()
    assert_exactly_once(1)
    assert "Traceback" not in cluster.output


def test_inside_a_heartbeat(server: Server, assert_exactly_once: Once) -> None:
    cluster = server.qcluster(WORKERS=1)
    with held_up(server, CLUSTER, HEARTBEAT) as heartbeat:
        heartbeat.terminate("sentinel")
        server.enqueue(3)
        heartbeat.let_go()

        server.wait_until_all_final()
        cluster.wait_for_output("the database answers again")
    assert_exactly_once(3)
    with server.connect() as connection:
        rows = connection.execute("SELECT lost_at FROM tasks_app_cluster").fetchall()
    assert rows == [{"lost_at": None}]


def test_inside_the_taking_back_of_a_dead_workers_run(server: Server, tmp_path: Path) -> None:
    cluster = server.qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    wait_for(server, run_id, "RUNNING")
    with held_up(server, RUN, TAKE_BACK) as take_back:
        cluster.titled("worker")[0].kill()
        take_back.terminate("sentinel")
        assert read(server, run_id)["attempts"] == []
        take_back.let_go()
        gate.touch()

        run = wait_for(server, run_id)
    assert (run["status"], run["attempt"]) == ("SUCCESSFUL", 2)
    assert [(entry["attempt"], entry["reason"]) for entry in run["attempts"]] == [(1, "worker_lost")]
    assert server.executions() == Counter({0: 2})


def test_the_idle_session_that_listens(server: Server, assert_exactly_once: Once) -> None:
    """It is not asked anything, so only the end of its connection tells the sentinel."""
    cluster = server.qcluster(WORKERS=1)
    wait_until(lambda: cluster.titled("worker idle"), what="the worker to be idle")
    (listening,) = server.backends("sentinel")

    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [listening])
    wait_until(lambda: server.backends("sentinel"), what="another session in its place")
    server.enqueue(3)

    server.wait_until_all_final()
    assert_exactly_once(3)
    assert min(run["started_at"] - run["enqueued_at"] for run in server.runs()) < timedelta(seconds=1.5)


@pytest.mark.parametrize("mode", ["lost", "never sent"])
def test_a_wake_up_that_never_comes_costs_no_more_than_a_heartbeat(server: Server, mode: str) -> None:
    """Enqueued by plain SQL without a NOTIFY, and by a producer whose NOTIFY nobody listens to."""
    cluster = server.qcluster(WORKERS=1)
    waits = []
    for number in range(3):
        wait_until(lambda: cluster.titled("worker idle"), what="the worker to be idle")
        with server.connect() as connection:
            if mode == "lost":
                (listening,) = server.backends("sentinel")
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [listening])
                run_id = send(server, "succeeds")
            else:
                row = connection.execute(PLAIN_INSERT, [number]).fetchone()
                assert row is not None
                run_id = row["id"]
        run = wait_for(server, run_id)
        waits.append(run["started_at"] - run["enqueued_at"])
    assert min(waits) < timedelta(seconds=1.5)


PLAIN_INSERT = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  attempt, max_attempts, attempts)
VALUES (gen_random_uuid(), 'tests.outcomes.succeeds', jsonb_build_array(%s::int), '{}', 'default', 0, 'READY',
  clock_timestamp(), clock_timestamp(), 0, 3, '[]')
RETURNING id
"""
