"""The database goes away, refuses, or forgets to answer: no run is lost, and none is executed twice for it."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from tests.faults.play import send, wait_for
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


REFUSE_LINES = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no lines today' USING ERRCODE = '{state}'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON tasks_app_runlog FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


@pytest.mark.parametrize("state", ["P0001", "22P05", "53100"])
def test_log_lines_that_the_database_refuses_hold_up_no_run(server: Server, tmp_path: Path, state: str) -> None:
    """By a trigger of somebody's, for good, for want of space: the run is RUNNING, ends, and the next is claimed."""
    gate = tmp_path / "gate"
    with server.connect() as connection:
        connection.execute(REFUSE_LINES.format(state=state))
        cluster = server.qcluster(WORKERS=1)
        talking = send(server, "talks", str(gate))
        wait_for(server, talking, "RUNNING")
        gate.touch()
        assert wait_for(server, talking)["status"] == "SUCCESSFUL"
        assert wait_for(server, send(server, "talks", str(gate)))["status"] == "SUCCESSFUL"
        assert "log lines are refused and not kept: no lines today" in cluster.output

        connection.execute("DROP TRIGGER full_disk ON tasks_app_runlog")
        later = [send(server, "talks", str(gate)), send(server, "talks", str(gate))]
        for run_id in later:
            assert wait_for(server, run_id)["attempt"] == 1
        kept = "SELECT count(*) AS n FROM tasks_app_runlog WHERE run_id = ANY(%s)"
        wait_until(lambda: connection.execute(kept, [later]).fetchone() == {"n": 12}, what="the lines of later runs")


def test_a_bad_row_of_a_cluster_does_not_keep_another_from_being_rescued(server: Server) -> None:
    gone = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)
    server.enqueue(1, seconds=2)
    wait_until(lambda: len(server.executions()) == 1, what="the execution")
    for member in gone.members():
        member.suspend()
    for member in gone.members():
        member.kill()
    with server.connect() as connection:
        connection.execute(
            """
            INSERT INTO tasks_app_cluster (id, name, queues, host, pid, workers, busy, desired_workers, desired_state,
              started_at, heartbeat_at, rescued)
            VALUES ('00000000-0000-0000-0000-000000000000', '', '{"no": "list"}', '', -1, -1, -1, -1, 'odd',
              '-infinity', 'infinity', 0)
            """
        )
    cluster = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)

    server.wait_until_all_final()
    assert [(run["status"], run["attempt"]) for run in server.runs()] == [("SUCCESSFUL", 2)]
    assert "the database does not answer" not in cluster.output


def test_a_locked_table_stops_neither_limits_nor_a_stop(server: Server, tmp_path: Path) -> None:
    """As by a migration that takes its time."""
    cluster = server.qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=0.1, STOP_GRACE_SECONDS=0.5)
    run_id = send(server, "never_leaves_c", str(tmp_path / "gate"), timeout=1)
    wait_until((tmp_path / "gate").exists, what="the task to be at work")

    with server.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE tasks_app_taskrun")
        cluster.wait_for_output(f"goes on with run {run_id} past its limit and is ended")
        assert cluster.stop(seconds=15) == 0

    assert not cluster.members()
    assert "cannot sign off, another will find its runs" in cluster.output
