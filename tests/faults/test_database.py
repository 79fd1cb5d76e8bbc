"""The database goes away, refuses, or forgets to answer: no run is lost, and none is executed twice for it."""

from collections.abc import Callable
from contextlib import ExitStack, suppress

import psycopg
import pytest

from tests.server import Server
from tests.waiting import wait_until

COUNT = 300


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_survives_a_restart_under_load(server: Server, assert_exactly_once: Callable[[int], None], mode: str) -> None:
    server.qcluster()
    server.enqueue(COUNT, seconds=0.01)
    wait_until(lambda: len(server.executions()) > COUNT / 10, what="some executions")

    server.restart(mode)
    wait_until(lambda: len(server.executions()) > COUNT / 2, what="more executions")
    server.restart(mode)

    server.wait_until_all_final()
    assert_exactly_once(COUNT)


def test_survives_the_end_of_its_sessions_again_and_again(
    server: Server, assert_exactly_once: Callable[[int], None]
) -> None:
    """Wherever they are just then: in a claim, a finish, a heartbeat, waiting."""
    server.qcluster()
    server.enqueue(COUNT, seconds=0.01)

    with server.connect() as connection:
        for done in range(COUNT // 20, COUNT, COUNT // 20):
            wait_until(lambda done=done: len(server.executions()) >= done, what=f"{done} executions")  # type: ignore[misc]
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'qcluster%'"
            )

    server.wait_until_all_final()
    assert_exactly_once(COUNT)


def test_a_finish_that_the_database_refuses_is_kept_until_it_is_taken(
    server: Server, assert_exactly_once: Callable[[int], None]
) -> None:
    """A full disk, as a trigger can play it."""
    with server.connect() as connection:
        connection.execute(
            """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER full_disk BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW
            WHEN (new.status = 'SUCCESSFUL') EXECUTE FUNCTION full_disk();
            """
        )
        cluster = server.qcluster(WORKERS=1)
        server.enqueue(20)
        cluster.wait_for_output("could not extend file")
        assert not [run for run in server.runs() if run["status"] == "SUCCESSFUL"]
        connection.execute("DROP TRIGGER full_disk ON tasks_app_taskrun")

    server.wait_until_all_final()
    assert_exactly_once(20)


def test_a_row_that_the_database_refuses_for_good_does_not_stop_the_others(server: Server) -> None:
    """A result that PostgreSQL cannot take, although it passed every check of ours."""
    with server.connect() as connection:
        connection.execute(
            """
            CREATE FUNCTION no_threes() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no threes' USING ERRCODE = '22P05'; END $$;
            CREATE TRIGGER no_threes BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW
            WHEN (new.return_value = '3') EXECUTE FUNCTION no_threes();
            """
        )
    server.qcluster(WORKERS=1)
    server.enqueue(6)

    server.wait_until_all_final()
    failed = [run for run in server.runs() if run["status"] == "FAILED"]
    assert [run["args"][1] for run in failed] == [3]
    assert failed[0]["failure_message"] == "The result cannot be stored: no threes."


def test_begins_and_goes_on_when_connections_were_exhausted(
    server: Server, assert_exactly_once: Callable[[int], None]
) -> None:
    cluster = server.qcluster(WORKERS=2)
    end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'qcluster%'"
    with ExitStack() as taken:
        first = taken.enter_context(server.connect())
        for _ in range(3):  # as soon as a session of the cluster ends, one of ours takes its place
            first.execute(end_sessions)
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(server.connect())
        left = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'qcluster%'"
        assert first.execute(left).fetchone() == {"n": 0}
        cluster.wait_for_output("the database does not answer")
        assert cluster.process.poll() is None
    server.enqueue(20)

    server.wait_until_all_final()
    assert_exactly_once(20)
