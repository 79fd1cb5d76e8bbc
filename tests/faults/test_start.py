"""A cluster that cannot start says why in one sentence."""

import subprocess
import sys
from typing import Any

from config.local import BASE_DIR
from tests.server import Server


def start(server: Server, *arguments: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "qcluster", *arguments],
        cwd=BASE_DIR,
        env=server.environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_database_that_cannot_be_reached(server: Server) -> None:
    done = start(server, DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/nothing")

    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: The database cannot be reached: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_a_database_that_was_not_migrated(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS fresh")
        connection.execute("CREATE DATABASE fresh")

    done = start(server, DATABASE_URL=server.url.removesuffix("dumbwaiter") + "fresh")

    assert done.returncode == 1
    assert done.stderr == "CommandError: The database is not migrated. Run `python manage.py migrate` first.\n"


def test_a_setting_that_cannot_be_read(server: Server) -> None:
    done = start(server, WORKERS="many")

    assert done.returncode == 1
    assert done.stderr == "WORKERS is 'many': write a whole number, from 1 to 1000.\n"


def test_run_once_does_the_work_at_hand_and_ends(server: Server) -> None:
    server.enqueue(3)

    assert start(server, "--run-once").returncode == 0

    assert {run["status"] for run in server.runs()} == {"SUCCESSFUL"}
