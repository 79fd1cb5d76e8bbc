"""How one worker goes about its work: what it takes first and how much at once, and how often it writes.

All tests here share one cluster of two queues. Triggers note what it does to runs and log lines, by the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks_app.engine.reporter import WRITE_EVERY
from tests.faults.conftest import clean
from tests.faults.play import read, send, wait_for
from tests.plugins.processes import RunningProcess
from tests.server import Server
from tests.waiting import wait_until

NOTE = """
CREATE TABLE noted (what text, run_id uuid, at timestamptz DEFAULT clock_timestamp(),
  transaction text DEFAULT pg_current_xact_id()::text);
CREATE FUNCTION note_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO noted (what, run_id)
  VALUES (CASE WHEN old.claimed_by IS NULL AND new.claimed_by IS NOT NULL THEN 'claim' ELSE 'update' END, new.id);
  RETURN NULL; END $$;
CREATE FUNCTION note_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO noted (what, run_id) SELECT DISTINCT 'lines', run_id FROM line;
  RETURN NULL; END $$;
CREATE TRIGGER note_update AFTER UPDATE ON tasks_app_taskrun FOR EACH ROW EXECUTE FUNCTION note_update();
CREATE TRIGGER note_lines AFTER INSERT ON tasks_app_runlog REFERENCING NEW TABLE AS line
  FOR EACH STATEMENT EXECUTE FUNCTION note_lines();
"""


@pytest.fixture(scope="module")
def cluster(server_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    server = Server(server_data, tmp_path_factory.mktemp("at_work"))
    with server.connect() as connection:
        connection.execute(NOTE)
    try:
        yield server.qcluster("--queues", "images,default", WORKERS=1)
    finally:
        try:
            for process in server.clusters:
                process.end()
        finally:
            with server.connect() as connection:
                connection.execute("DROP FUNCTION note_update, note_lines CASCADE; DROP TABLE noted")
            clean(server)


@pytest.fixture
def idle(cluster: RunningProcess, server_data: Path, tmp_path: Path) -> Server:
    """The cluster's database, when its worker has nothing to do."""
    server = Server(server_data, tmp_path)
    wait_until_idle(cluster)
    with server.connect() as connection:
        connection.execute("TRUNCATE tasks_app_taskrun, tasks_app_runlog, noted")
    return server


def wait_until_idle(cluster: RunningProcess) -> None:
    wait_until(lambda: cluster.titled("worker idle"), what="the worker to be idle")


def ask(server: Server, query: str) -> list[dict[str, Any]]:
    with server.connect() as connection:
        return connection.execute(query).fetchall()


def batches(server: Server) -> list[int]:
    """How many runs were claimed at once, each time."""
    query = "SELECT count(*) AS n FROM noted WHERE what = 'claim' GROUP BY transaction ORDER BY min(at)"
    return [row["n"] for row in ask(server, query)]


def test_however_much_a_task_tells_it_is_written_a_few_times_a_second(idle: Server) -> None:
    assert wait_for(idle, send(idle, "tests.engine.greedy.talks_without_end", 100, 0.02))["progress"]["done"] == 5_000

    assert ask(idle, "SELECT count(*) AS n FROM tasks_app_runlog") == [{"n": 2_000}]
    (noted,) = ask(
        idle,
        "SELECT extract(epoch FROM max(at) - min(at))::float8 AS seconds,"
        " count(*) FILTER (WHERE what = 'lines') AS lines, count(*) FILTER (WHERE what <> 'lines') AS updates"
        " FROM noted",
    )
    assert 1 / WRITE_EVERY <= 5
    # Beside the first of the reporter: the claim and the finish, with which the last lines travel.
    assert 3 < noted["updates"] <= noted["seconds"] / WRITE_EVERY + 3
    assert 1 < noted["lines"] <= noted["seconds"] / WRITE_EVERY + 2


def test_a_queue_comes_before_those_named_after_it_and_one_not_named_is_left_alone(
    idle: Server, cluster: RunningProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    at_hand = send(idle, "writes_ledger_at_gate", str(idle.ledger), 0, str(gate))
    wait_for(idle, at_hand, "RUNNING")
    elsewhere = send(idle, "succeeds", queue="elsewhere")
    idle.enqueue(4)
    idle.enqueue(4, queue="images")

    gate.touch()
    wait_until(lambda: idle.unfinished() <= 1, what="the end of all but the one elsewhere")

    in_order = ask(idle, "SELECT queue_name FROM tasks_app_taskrun WHERE started_at IS NOT NULL ORDER BY started_at")
    assert [row["queue_name"] for row in in_order] == ["default"] + ["images"] * 4 + ["default"] * 4
    wait_until_idle(cluster)
    left = read(idle, elsewhere)
    assert (left["status"], left["attempt"], left["claimed_by"]) == ("READY", 0, None)


def test_long_runs_are_taken_one_by_one(idle: Server) -> None:
    idle.enqueue(6, seconds=0.03)
    idle.wait_until_all_final()

    assert batches(idle) == [1] * 6


def test_short_runs_are_taken_together_but_never_more_than_a_little_work(idle: Server) -> None:
    idle.enqueue(300, seconds=0.002)
    idle.wait_until_all_final()

    # A sleep may take longer and never takes less, so that 20 ms have room for no more than ten.
    assert 4 <= max(batches(idle)) <= 10
