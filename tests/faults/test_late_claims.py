"""Claims that come true, or are heard of, when it is too late: their runs stay with nobody, and none is begun twice."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.plugins.processes import RunningProcess
from tests.server import Server
from tests.waiting import wait_until

SLOW_CLAIM = """
CREATE FUNCTION slow_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN new; END $$;
CREATE TRIGGER slow_claim BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW
WHEN (old.claimed_by IS NULL AND new.claimed_by IS NOT NULL) EXECUTE FUNCTION slow_claim()
"""


@contextmanager
def a_claim_under_way(server: Server) -> Iterator[None]:
    """In the block the database is busy with the claim of one run; after it, claims are quick again."""
    with server.connect() as connection:
        connection.execute(SLOW_CLAIM)
        server.enqueue(1)
        asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: connection.execute(asleep).fetchone(), what="a claim under way")
        yield
        connection.execute("DROP FUNCTION slow_claim CASCADE")  # waits for the claim


def freeze(cluster: RunningProcess) -> None:
    for member in cluster.members():
        member.suspend()


def wake_up(cluster: RunningProcess) -> None:
    for member in cluster.members():
        member.resume()


def wait_until_lost(server: Server) -> None:
    with server.connect() as connection:
        lost = "SELECT id FROM tasks_app_cluster WHERE lost_at IS NOT NULL"
        wait_until(lambda: connection.execute(lost).fetchone(), what="a cluster to be declared lost")


def test_a_claim_that_comes_true_after_its_worker_died(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1)

    with a_claim_under_way(server):
        cluster.titled("worker")[0].kill()
        cluster.wait_for_output("worker 1 died")

    server.wait_until_all_final(seconds=20)
    assert [(run["status"], run["attempt"], run["attempts"]) for run in server.runs()] == [("SUCCESSFUL", 1, [])]
    assert server.executions() == Counter({0: 1})


def test_a_claim_whose_answer_is_read_after_the_cluster_was_lost(server: Server) -> None:
    """The run is another's by then: the worker begins nothing of what it took so long ago."""
    frozen = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    with a_claim_under_way(server):
        freeze(frozen)
    other = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    wait_until_lost(server)
    server.wait_until_all_final()
    other.stop()
    assert server.executions() == Counter({0: 1})

    server.enqueue(2)
    frozen.titled("worker")[0].resume()
    wait_until(lambda: server.executions()[1], what="the next runs")
    wake_up(frozen)

    server.wait_until_all_final()
    first, *rest = server.runs()
    assert [entry["reason"] for entry in first["attempts"]] == ["worker_lost"]
    assert server.executions()[0] <= 1 + sum(run["attempt"] for run in rest if run["args"][1] == 0)


def test_what_the_workers_of_a_lost_cluster_took_before_it_knew(server: Server) -> None:
    """Its workers wake up first, and go on claiming until their sentinel finds out."""
    frozen = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    server.enqueue(1, seconds=1)
    wait_until(server.executions, what="an execution")
    freeze(frozen)
    other = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    wait_until_lost(server)
    server.wait_until_all_final()
    other.stop()

    server.enqueue(3, seconds=2)
    frozen.titled("worker")[0].resume()
    wait_until(lambda: server.executions().total() == 3, what="one more execution")
    wake_up(frozen)

    frozen.wait_for_output("was declared lost")
    server.wait_until_all_final(seconds=30)
    assert {run["status"] for run in server.runs()} == {"SUCCESSFUL"}
