"""Hosts whose clocks are a minute off: all that is written and waited for goes by the server's."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks_app.engine import statements
from tests.server import Server
from tests.waiting import wait_until

FOLDERS = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
COUNT = 100


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that shifts the wall clock of a process, and leaves its monotonic one alone."""
    for folder in FOLDERS:
        if found := next(Path(folder).glob("**/faketime/libfaketime.so.1"), None):
            return str(found)
    pytest.skip("libfaketime is not there: install Debian's libfaketime package.")


def shifted(faketime: str, seconds: int) -> dict[str, Any]:
    """The environment of a process whose clock is so much ahead."""
    return {"LD_PRELOAD": faketime, "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": 1}


def now(server: Server) -> datetime:
    with server.connect() as connection:
        row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    return row["now"]


def test_the_library_shifts_what_a_process_sees(server: Server, faketime: str) -> None:
    show = (
        "import time, os; print(time.time() - float(os.environ['NOW']), time.monotonic() - float(os.environ['TICK']))"
    )
    environment = server.environment(**shifted(faketime, 60), NOW=time.time(), TICK=time.monotonic())
    done = subprocess.run([sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True)

    wall, monotonic = map(float, done.stdout.split())
    assert 60 <= wall < 70
    assert 0 <= monotonic < 10


def test_clusters_a_minute_ahead_and_behind(server: Server, faketime: str) -> None:
    ahead = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=5, **shifted(faketime, 60))
    behind = server.qcluster(WORKERS=1, LOST_AFTER_SECONDS=5, **shifted(faketime, -60))

    before = now(server)
    server.enqueue(COUNT, seconds=0.02, task="tests.outcomes.writes_ledger_and_the_time")
    later = [before + timedelta(seconds=seconds) for seconds in (3, 3.5, 4)]
    with server.connect() as connection:
        for number, moment in enumerate(later, COUNT):
            args = f'["{server.ledger}", {number}, 0]'
            given = {"id": uuid.uuid4(), "task_path": "tests.outcomes.writes_ledger_and_the_time", "args": args}
            options = {"kwargs": "{}", "queue_name": "default", "priority": 0, "owner": None, "timeout": 5}
            connection.execute(statements.ENQUEUE, {**given, **options, "max_attempts": 3, "run_after": moment})
    server.wait_until_all_final()
    with server.connect() as connection:
        wait_until(
            lambda: (
                connection.execute("SELECT count(*) AS n FROM tasks_app_runlog").fetchone() == {"n": COUNT + len(later)}
            ),
            what="the lines of the log",
        )
        lines = connection.execute("SELECT run_id, at, text FROM tasks_app_runlog").fetchall()
        clusters = connection.execute(
            "SELECT lost_at, heartbeat_at - started_at AS age FROM tasks_app_cluster"
        ).fetchall()

    runs = server.runs()
    assert {(run["status"], run["attempt"]) for run in runs} == {("SUCCESSFUL", 1)}
    assert server.executions() == Counter(range(COUNT + len(later)))
    assert len({run["claimed_by"].split(":")[0] for run in runs}) == 2, "one of them did nothing"
    for run in runs:
        assert before <= run["enqueued_at"] <= run["claimed_at"] <= run["started_at"] <= run["finished_at"]
        assert run["finished_at"] < before + timedelta(seconds=30)
    scheduled = [run for run in runs if run["run_after"] > run["enqueued_at"]]
    assert [run["run_after"] for run in sorted(scheduled, key=lambda run: run["run_after"])] == later
    delays = [run["started_at"] - run["run_after"] for run in scheduled]
    assert timedelta() <= min(delays) < timedelta(seconds=1)
    assert max(delays) < timedelta(seconds=3)
    by_id = {run["id"]: run for run in runs}
    for line in lines:
        run = by_id[line["run_id"]]
        assert run["started_at"] <= line["at"] <= run["finished_at"]
    off = sorted(float(line["text"]) - line["at"].timestamp() for line in lines)
    assert all(50 < abs(seconds) < 70 for seconds in off), "the clocks were not off at all"
    assert [cluster["lost_at"] for cluster in clusters] == [None, None]
    for cluster in (ahead, behind):
        assert "lost" not in cluster.output
