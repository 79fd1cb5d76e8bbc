"""Tasks that do what no task should: each ends as it has to, and the next run of the same cluster is as any other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.local import BASE_DIR
from tests.faults.play import send, wait_for
from tests.server import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def house(server_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One cluster with one worker for all of them, as it would be for the tasks of a careless team."""
    prepared = Server(server_data, tmp_path_factory.mktemp("house"))
    prepared.qcluster(WORKERS=1, CANCEL_GRACE_SECONDS=0.3, STOP_GRACE_SECONDS=1)
    yield prepared
    for cluster in prepared.clusters:
        cluster.end()
    with prepared.connect() as connection:
        connection.execute("TRUNCATE tasks_app_taskrun, tasks_app_cluster, tasks_app_runlog, auth_user CASCADE")


@pytest.fixture(autouse=True)
def next_run_is_as_any_other(house: Server) -> Iterator[None]:
    """By whatever worker, the same or another in its place."""
    yield
    name = uuid.uuid4().hex
    run_id = send(house, "leaves_all_as_it_should_be", name)
    run = wait_for(house, run_id)
    assert (run["status"], run["failure_message"], run["attempt"]) == ("SUCCESSFUL", None, 1)
    assert run["return_value"] == {
        "folder": str(BASE_DIR),
        "recursion limit": 1000,
        "signals with a handler": 3,
        "blocked signals": 0,
        "child": 0,
    }
    with house.connect() as connection:
        lines = connection.execute("SELECT text FROM tasks_app_runlog WHERE run_id = %s ORDER BY id", [run_id])
        assert [line["text"] for line in lines] == ["printed", "logged"]
        committed = connection.execute("SELECT FROM auth_user WHERE username = %s", [name]).fetchall()
        assert len(committed) == 1, "what it wrote is not committed"
    (cluster,) = house.clusters
    wait_until(lambda: f"run {run_id} finished" in cluster.output, what="its closing line in the log")


SUCCESSFUL = ("SUCCESSFUL", None, None)
LOST = ("FAILED", "worker_lost")
ERROR = ("FAILED", "error")


FILES_CLOSED = "The process that ran it died (its task closed files that were not its own)."
TOO_LARGE = "The result cannot be stored: 52,428,802 bytes, more than the 1,000,000 allowed."
WRONG_CALL = "fails cannot be called with these arguments: too many positional arguments."
NO_JSON = "The result cannot be stored as JSON: "


@pytest.mark.parametrize(
    ("task", "given", "end"),
    [
        ("segfaults", [], (*LOST, "The process that ran it died (killed by SIGSEGV).")),
        ("exits_at_once", [], (*LOST, "The process that ran it died (exit code 0).")),
        ("dies", [], (*LOST, "The process that ran it died (killed by SIGKILL).")),
        ("closes_every_file", [0], (*LOST, FILES_CLOSED)),
        ("closes_every_file", [0.3], (*LOST, FILES_CLOSED)),
        ("fails_unprintably", [], (*ERROR, "Unprintable: (its text cannot be shown)")),
        ("returns_an_object", [], (*ERROR, f"{NO_JSON}Object of type object is not JSON serializable.")),
        ("returns_megabytes", [50], (*ERROR, TOO_LARGE)),
        ("returns_deep", [], (*ERROR, f"{NO_JSON}nested too deep.")),
        ("returns", ["nan"], (*ERROR, f"{NO_JSON}out of range float values are not json compliant.")),
        ("returns", ["nul"], (*ERROR, "The result cannot be stored: PostgreSQL takes no NUL character.")),
        ("returns", ["surrogate"], (*ERROR, f"{NO_JSON}a text has half of a surrogate pair in it.")),
        ("fails", [1, 2, 3], ("FAILED", "rejected", WRONG_CALL)),
        ("comes_back_twice", [], SUCCESSFUL),
        ("starts_a_thread", [], SUCCESSFUL),
        ("replaces_signal_handlers", [], SUCCESSFUL),
        ("leads_a_session", [], (*ERROR, "PermissionError: [Errno 1] Operation not permitted")),
        ("changes_folder", [], SUCCESSFUL),
        ("recurses", [2_000], (*ERROR, "RecursionError: maximum recursion depth exceeded")),
        ("lowers_the_recursion_limit", [], SUCCESSFUL),
        ("closes_the_connection", [], SUCCESSFUL),
        ("loses_the_connection", [], SUCCESSFUL),
        ("leaves_a_broken_transaction", [], SUCCESSFUL),
        ("never_leaves_its_transaction", [], SUCCESSFUL),
        ("replaces_stdout", [], SUCCESSFUL),
        ("removes_log_handlers", [], SUCCESSFUL),
    ],
)
def test_ends_as_it_has_to(house: Server, task: str, given: list[Any], end: tuple[Any, ...]) -> None:
    run = wait_for(house, send(house, task, *given, attempts=1))

    assert (run["status"], run["failure"], run["failure_message"]) == end


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        ('{"a": 1}', "{}", "Its row cannot be read: the arguments are not a list."),
        ('"text"', "{}", "Its row cannot be read: the arguments are not a list."),
        ("null", "{}", "Its row cannot be read: the arguments are not a list."),
        ("[]", "[1]", "Its row cannot be read: the keyword arguments are not an object."),
        ("[1e5000]", "{}", "Its row cannot be read: the arguments are not a list."),
        ("[" * 3_000 + "]" * 3_000, "{}", "Its row cannot be read: the arguments are not a list."),
    ],
    ids=["object", "text", "null", "list", "huge number", "deep"],
)
def test_a_row_with_arguments_that_are_none_is_rejected(house: Server, args: str, kwargs: str, sentence: str) -> None:
    """Written by hand, as no door of ours writes it."""
    with house.connect() as connection:
        row = connection.execute(BY_HAND, {"args": args, "kwargs": kwargs}).fetchone()
        assert row is not None

        def is_final() -> bool:
            found = connection.execute("SELECT finished_at FROM tasks_app_taskrun WHERE id = %s", [row["id"]])
            return found.fetchone() != {"finished_at": None}

        wait_until(is_final, what="its end")
        done = connection.execute(
            "SELECT status, failure, failure_message, attempt FROM tasks_app_taskrun WHERE id = %s", [row["id"]]
        ).fetchone()
    assert done == {"status": "FAILED", "failure": "rejected", "failure_message": sentence, "attempt": 1}


BY_HAND = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  attempt, max_attempts, attempts)
VALUES (gen_random_uuid(), 'tests.outcomes.succeeds', %(args)s, %(kwargs)s, 'default', 0, 'READY', clock_timestamp(),
  clock_timestamp(), 0, 3, '[]')
RETURNING id
"""


@pytest.mark.parametrize(
    "change", ["enqueued_at = 'infinity', run_after = '-infinity'", "enqueued_at = '-infinity'", "attempt = 32767"]
)
def test_a_row_with_values_beyond_all_measure_stops_nobody(house: Server, change: str) -> None:
    with house.connect() as connection, connection.transaction():
        row = connection.execute(BY_HAND, {"args": "[]", "kwargs": "{}"}).fetchone()
        assert row is not None
        connection.execute(f"UPDATE tasks_app_taskrun SET {change} WHERE id = %s", [row["id"]])
    with house.connect() as connection:
        final = "SELECT FROM tasks_app_taskrun WHERE id = %s AND status = 'SUCCESSFUL'"
        wait_until(lambda: connection.execute(final, [row["id"]]).fetchall(), what="its end")


def at_its_limit(house: Server, task: str, gate: Path) -> dict[str, Any]:
    return wait_for(house, send(house, task, str(gate), timeout=0.3))


def cancelled(house: Server, task: str, gate: Path) -> dict[str, Any]:
    run_id = send(house, task, str(gate))
    wait_until(gate.exists, what="the task to be at work")
    with house.connect() as connection:
        connection.execute("UPDATE tasks_app_taskrun SET cancel_requested_at = now() WHERE id = %s", [run_id])
    return wait_for(house, run_id)


@pytest.mark.parametrize(
    ("how", "end"),
    [
        (at_its_limit, ("FAILED", "timed_out", "It went on past its limit, so its process was ended.")),
        (cancelled, ("CANCELLED", None, None)),
    ],
)
def test_one_that_never_leaves_c_is_ended(
    house: Server, tmp_path: Path, how: Callable[[Server, str, Path], dict[str, Any]], end: tuple[Any, ...]
) -> None:
    run = how(house, "never_leaves_c", tmp_path / "gate")

    assert (run["status"], run["failure"], run["failure_message"]) == end
    assert run["attempt"] == 1
