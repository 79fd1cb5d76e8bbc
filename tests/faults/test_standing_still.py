"""A process that is stopped for a while and goes on when its work has long been given to others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tasks_app.engine import statements
from tests.faults.play import held_up, read, send, wait_for
from tests.server import Server
from tests.waiting import wait_until

LATE = "after its claim was lost: nothing recorded"


def test_the_late_finish_of_a_worker_changes_nothing(server: Server, tmp_path: Path) -> None:
    """Its claim is taken away meanwhile, with the statement by which a rescue does it."""
    cluster = server.qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    before = wait_for(server, run_id, "RUNNING")
    worker = cluster.titled("worker writes_ledger_at_gate")[0]
    worker.suspend()

    with server.connect() as connection:
        taken = {"begun": None, "reason": "worker_lost", "message": "It was not heard from."}
        connection.execute(statements.TAKE_FROM_LOST, {**statements.holder(before["claimed_by"]), **taken})
    assert read(server, run_id)["claimed_by"] is None
    gate.touch()
    worker.resume()

    cluster.wait_for_output(LATE)
    run = wait_for(server, run_id)
    assert (run["status"], run["attempt"], run["claimed_by"]) == ("SUCCESSFUL", 2, before["claimed_by"])
    assert [(entry["attempt"], entry["reason"]) for entry in run["attempts"]] == [(1, "worker_lost")]
    assert server.executions() == Counter({0: 2})


def test_a_worker_that_stands_still_past_its_runs_limit_is_ended(server: Server, tmp_path: Path) -> None:
    cluster = server.qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=0.3)
    run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(tmp_path / "gate"), timeout=1)
    wait_for(server, run_id, "RUNNING")
    worker = cluster.titled("worker writes_ledger_at_gate")[0]

    worker.suspend()

    run = wait_for(server, run_id)
    assert (run["status"], run["failure"], run["attempt"]) == ("FAILED", "timed_out", 1)
    assert run["failure_message"] == "It went on past its limit, so its process was ended."
    assert not worker.is_running()
    assert wait_for(server, send(server, "succeeds"))["status"] == "SUCCESSFUL"


def test_a_worker_claims_nothing_while_its_sentinel_stands_still(server: Server, tmp_path: Path) -> None:
    """Others have taken its cluster for lost by then: nobody would look after what it claims."""
    silent = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    gate = tmp_path / "gate"
    run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    first = wait_for(server, run_id, "RUNNING")
    sentinel = silent.titled("sentinel")[0]
    sentinel.suspend()
    other = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2, STOP_GRACE_SECONDS=0.1)
    wait_until(lambda: read(server, run_id)["attempt"] == 2, seconds=30, what="the rescue")
    wait_until(lambda: server.executions()[0] == 2, what="the second execution")
    assert other.stop() == 0

    gate.touch()
    silent.wait_for_output(LATE)
    wait_until(lambda: silent.titled("worker idle"), what="the worker to be idle")
    assert read(server, run_id)["status"] == "READY"
    sentinel.resume()

    silent.wait_for_output("was declared lost")
    run = wait_for(server, run_id)
    assert (run["status"], run["attempt"]) == ("SUCCESSFUL", 2)
    assert run["claimed_by"].split(":")[0] != first["claimed_by"].split(":")[0]
    assert server.executions() == Counter({0: 3})  # the second was given back by the stop, uncharged


def test_a_cluster_that_was_declared_lost_leaves_nothing_held(server: Server, tmp_path: Path) -> None:
    """A claim of the moment before it hears of it is taken back from its worker, which is ended."""
    cluster = server.qcluster(WORKERS=1, STOP_GRACE_SECONDS=0.2)
    gate = tmp_path / "gate"
    run_id = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    wait_for(server, run_id, "RUNNING")

    with server.connect() as connection:
        connection.execute("UPDATE tasks_app_cluster SET lost_at = clock_timestamp()")
    cluster.wait_for_output("was declared lost")
    gate.touch()

    run = wait_for(server, run_id)
    assert (run["status"], run["attempt"]) == ("SUCCESSFUL", 2)
    assert [entry["reason"] for entry in run["attempts"]] == ["worker_lost"]


def test_a_stop_is_bounded_although_the_sentinel_stands_still(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1, STOP_GRACE_SECONDS=0)
    cluster.titled("sentinel")[0].suspend()

    assert cluster.stop(seconds=20) == 1

    assert not cluster.members()
    assert "the sentinel does not stop and is ended" in cluster.output


def test_what_was_taken_beside_a_run_that_holds_the_gil_goes_to_others(server: Server) -> None:
    """So many short runs before it that it is taken in a batch, with some behind it."""
    numbers = range(60)
    for number in numbers:
        if number == 40:
            send(server, "holds_the_gil", str(server.ledger), number, 60, attempts=1)
        else:
            send(server, "writes_ledger", str(server.ledger), number)
    first = server.qcluster(WORKERS=1)
    wait_until(lambda: server.executions()[40], what="the run that stands")
    server.qcluster(WORKERS=1)

    wait_until(lambda: set(server.executions()) == set(numbers), seconds=30, what="all the others to be executed")
    first.wait_for_output("stands still")

    assert set(server.executions().values()) == {1}
    first.titled("worker")[0].kill()
    wait_until(lambda: count(server, "SUCCESSFUL") == 59 and count(server, "FAILED") == 1, what="all to be final")


def test_a_worker_that_goes_on_begins_nothing_that_was_given_to_others(server: Server) -> None:
    for number in range(300):
        send(server, "writes_ledger", str(server.ledger), number, 0.002)
    first = server.qcluster(WORKERS=1)
    wait_until(lambda: server.executions().total() > 20, what="some batches")
    worker = first.titled("worker")[0]
    worker.suspend()
    server.qcluster(WORKERS=1)

    wait_until(lambda: count(server, "READY", "claimed_by IS NULL") == 0, seconds=30, what="an empty queue")
    wait_until(
        lambda: server.executions().total() >= 300 - 1, seconds=30, what="all but the one at hand to be executed"
    )
    worker.resume()

    wait_until(lambda: count(server, "SUCCESSFUL") == 300, seconds=30, what="all to be final")
    assert set(server.executions().values()) == {1}


def test_what_a_worker_claimed_without_hearing_of_it_goes_to_others(server: Server) -> None:
    """It is stopped in the middle of its claim, which the database then makes good."""
    first = server.qcluster(WORKERS=1)
    with held_up(server, "tasks_app_taskrun", "old.claimed_by IS NULL AND new.claimed_by IS NOT NULL") as claim:
        server.enqueue(5)
        claim.wait_for_session("worker")
        worker = first.titled("worker")[0]
        worker.suspend()
        claim.let_go()
        wait_until(lambda: count(server, "READY", "claimed_by IS NOT NULL"), what="the claim to be made good")
    server.qcluster(WORKERS=1)

    server.wait_until_all_final()
    assert server.executions() == Counter(range(5))
    first.wait_for_output("stands still")
    worker.resume()
    assert wait_for(server, send(server, "succeeds"))["status"] == "SUCCESSFUL"
    assert first.stop() == 0
    assert server.executions() == Counter(range(5))


def count(server: Server, status: str, also: str = "true") -> int:
    with server.connect() as connection:
        query = f"SELECT count(*) AS runs FROM tasks_app_taskrun WHERE status = %s AND {also}"
        row = connection.execute(query, [status]).fetchone()
        assert row is not None
        return int(row["runs"])
