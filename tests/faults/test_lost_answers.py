"""The server commits and its answer never arrives, or the other way round: the answer is lost and it commits later."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.play import Proxy, held_up, read, send, wait_for
from tests.plugins.processes import RunningProcess
from tests.server import Server
from tests.waiting import wait_until

WORKER = r"qcluster default worker 1 \w{12}:1:\d+"
CLAIMS = "old.claimed_by IS NULL AND new.claimed_by IS NOT NULL"


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    opened = Proxy(server.url)
    yield opened
    opened.close()


@pytest.fixture
def cluster(server: Server, proxy: Proxy) -> RunningProcess:
    """One worker, whose way to the database goes through the proxy."""
    return server.qcluster(WORKERS=1, DATABASE_URL=proxy.url)


def assert_executed_once(server: Server, cluster: RunningProcess, count: int) -> None:
    """Each at its first attempt, each once, and nobody says that a run was lost."""
    server.wait_until_all_final()
    assert {(run["status"], run["attempt"], len(run["attempts"])) for run in server.runs()} == {("SUCCESSFUL", 1, 0)}
    assert server.executions() == Counter(range(count))
    said = re.compile(r"finished: task \S*\.writes_ledger")
    wait_until(lambda: len(said.findall(cluster.output)) == count, what="one closing line for each")
    assert "after its claim was lost" not in cluster.output


def test_a_claim_whose_answer_is_lost_is_given_back_and_executed_once(
    server: Server, proxy: Proxy, cluster: RunningProcess
) -> None:
    with held_up(server, "tasks_app_taskrun", CLAIMS) as claim:
        server.enqueue(1)
        claim.wait_for_session("worker")
        line = proxy.line(WORKER)
        line.swallows.set()
        claim.let_go()
        wait_until(lambda: server.runs()[-1]["claimed_by"], what="the claim to be committed")
        assert not server.executions()
        line.cut()

    assert_executed_once(server, cluster, 1)
    assert "given back: its claim arrived after the connection was lost" in cluster.output


@pytest.mark.parametrize("then", ["nothing", "a claim", "a stop"])
def test_a_finish_whose_answer_is_lost_is_not_done_again(
    server: Server, proxy: Proxy, cluster: RunningProcess, tmp_path: Path, then: str
) -> None:
    """Alone, in one round trip with the next claim, and as the last word of a worker that stops."""
    gate = tmp_path / "gate"
    first = send(server, "writes_ledger_at_gate", str(server.ledger), 0, str(gate))
    wait_for(server, first, "RUNNING")
    line = proxy.line(WORKER)
    line.swallows.set()
    others = 1 if then == "a claim" else 0
    if others:
        send(server, "writes_ledger", str(server.ledger), 1)
    if then == "a stop":
        cluster.process.send_signal(signal.SIGTERM)
        cluster.wait_for_output("is stopping")

    gate.touch()
    wait_for(server, first, "SUCCESSFUL")
    if others:
        wait_until(lambda: server.runs()[-1]["claimed_by"], what="the claim to be committed")
    line.cut()

    assert_executed_once(server, cluster, 1 + others)
    if then == "a stop":
        assert cluster.wait() == 0


def test_a_return_to_the_queue_whose_answer_is_lost_with_the_next_claim(
    server: Server, proxy: Proxy, cluster: RunningProcess, tmp_path: Path
) -> None:
    """Put back with no wait, the run is claimed again in the very round trip that tells of its first attempt."""
    gate = tmp_path / "gate"
    run_id = send(server, "asks_for_another_try_at_once", str(gate))
    wait_for(server, run_id, "RUNNING")
    line = proxy.line(WORKER)
    line.swallows.set()

    gate.touch()
    wait_until(lambda: read(server, run_id)["attempt"] == 2, what="the second claim")
    line.cut()

    run = wait_for(server, run_id)
    assert (run["status"], run["return_value"], run["attempt"], len(run["attempts"])) == ("SUCCESSFUL", 2, 2, 1)


def test_a_claim_that_the_server_commits_late_is_held_by_nobody(
    server: Server, proxy: Proxy, cluster: RunningProcess
) -> None:
    """Its session goes on alone after the line was cut, and would commit when the worker has long asked again."""
    with held_up(server, "tasks_app_taskrun", CLAIMS) as claim:
        server.enqueue(1)
        first = claim.wait_for_session("worker")
        proxy.line(WORKER).cut()
        wait_until(lambda: first not in claim.sessions(), what="the end of the session that was cut off")
        claim.let_go()

        assert_executed_once(server, cluster, 1)


def test_a_claim_that_the_server_commits_after_the_death_of_its_worker(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1)
    with held_up(server, "tasks_app_taskrun", CLAIMS) as claim:
        server.enqueue(1)
        first = claim.wait_for_session("worker")
        cluster.titled("worker")[0].kill()
        wait_until(lambda: first not in claim.sessions(), what="the end of the dead worker's session")
        claim.let_go()

        assert_executed_once(server, cluster, 1)


def test_a_claim_that_the_server_commits_after_the_stop_of_its_cluster(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1, STOP_GRACE_SECONDS=0.2)
    with held_up(server, "tasks_app_taskrun", CLAIMS) as claim:
        server.enqueue(1)
        claim.wait_for_session("worker")
        assert cluster.stop() == 0
        assert not claim.sessions()
        claim.let_go()

    (run,) = server.runs()
    assert (run["status"], run["claimed_by"], run["attempt"]) == ("READY", None, 0)


def test_a_claim_that_the_server_commits_after_the_loss_of_its_cluster(server: Server) -> None:
    """Its host is gone, its session at the server is not."""
    gone = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    with held_up(server, "tasks_app_taskrun", CLAIMS) as claim:
        server.enqueue(1)
        first = claim.wait_for_session("worker")
        for member in gone.members():
            member.suspend()
        for member in gone.members():
            member.kill()
        other = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
        wait_until(lambda: first not in claim.sessions(), what="the end of the lost worker's session")
        claim.let_go()

        assert_executed_once(server, other, 1)
