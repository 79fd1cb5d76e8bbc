"""Claims that come true, or are heard of, when it is too late: their runs stay with nobody, and none is begun twice."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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


def test_a_claim_that_comes_true_after_its_worker_died(server: Server) -> None:
    cluster = server.qcluster(WORKERS=1)

    with a_claim_under_way(server):
        cluster.titled("worker")[0].kill()
        cluster.wait_for_output("worker 1 died")

    server.wait_until_all_final(seconds=20)
    assert [(run["status"], run["attempt"], run["attempts"]) for run in server.runs()] == [("SUCCESSFUL", 1, [])]
    assert server.executions() == Counter({0: 1})


def test_a_claim_of_somebody_who_is_not_there(server: Server) -> None:
    """However it came about: whoever holds a run is alive, or the run is taken back."""
    server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    with server.connect() as connection:
        row = connection.execute("SELECT id FROM tasks_app_cluster").fetchone()
        assert row is not None
        server.enqueue(1, queue="elsewhere")  # where nobody takes it meanwhile
        connection.execute(
            """
            UPDATE tasks_app_taskrun SET claimed_by = %s, claimed_at = clock_timestamp(), attempt = 1,
              queue_name = 'default'
            """,
            [f"{row['id'].hex[:12]}:9:4711:somewhere"],
        )

    server.wait_until_all_final(seconds=20)
    assert [(run["status"], run["attempt"]) for run in server.runs()] == [("SUCCESSFUL", 1)]
