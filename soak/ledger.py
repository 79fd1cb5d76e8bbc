"""What was executed, written by the tasks themselves into a PostgreSQL of its own that no fault touches."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import psutil
import psycopg
from psycopg.rows import class_row

URL = "SOAK_LEDGER"
"""Names the variable with the address of the ledger's server."""

# Nothing here survives a crash of this server, and none happens: what counts is that tasks wait for it as little as
# can be.
TABLES = """
CREATE UNLOGGED TABLE execution (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run uuid NOT NULL, number int NOT NULL, attempt int NOT NULL,
  holder text NOT NULL, pid int NOT NULL, born float8 NOT NULL,
  began timestamptz NOT NULL DEFAULT clock_timestamp(), ended timestamptz, how text, beside text[]);
CREATE INDEX ON execution (run);
CREATE UNLOGGED TABLE child (pid int NOT NULL, born float8 NOT NULL);
"""

# One statement: the line of this execution, and what was begun for the same run and has not ended.
BEGIN = """
WITH earlier AS (SELECT holder, pid, born FROM execution WHERE run = %(run)s AND ended IS NULL),
mine AS (
  INSERT INTO execution (run, number, attempt, holder, pid, born)
  VALUES (%(run)s, %(number)s, %(attempt)s, %(holder)s, %(pid)s, %(born)s) RETURNING id)
SELECT mine.id, earlier.holder, earlier.pid, earlier.born FROM mine LEFT JOIN earlier ON true
"""


@dataclass(slots=True)
class Execution:
    """One line: a task was called for this run, by this holder of its claim."""

    run: uuid.UUID
    number: int
    attempt: int
    holder: str
    pid: int
    began: datetime
    ended: datetime | None
    """None when its process was ended in it."""
    how: str | None
    """`returned`, or the class of what it raised."""
    beside: list[str] | None
    """Holders of earlier executions of the same run whose processes were still there when this one began."""

    @property
    def cluster(self) -> str:
        return self.holder.partition(":")[0]

    @property
    def key(self) -> tuple[int, str]:
        return self.attempt, self.holder


# In a task


_connection: psycopg.Connection[Any] | None = None


def begin(run: uuid.UUID, number: int, attempt: int, holder: str) -> int:
    """Write that this execution begins, before it does anything else; returns the number of its line."""
    me = {"run": run, "number": number, "attempt": attempt, "holder": holder, "pid": os.getpid()}
    rows = _ask(BEGIN, {**me, "born": born(os.getpid())})
    beside = [before for _, before, pid, since in rows if pid is not None and is_alive(pid, since)]
    line = int(rows[0][0])
    if beside:
        _ask("UPDATE execution SET beside = %s WHERE id = %s RETURNING id", [beside, line])
    return line


def end(line: int, how: str) -> None:
    _ask("UPDATE execution SET ended = clock_timestamp(), how = %s WHERE id = %s RETURNING id", [how, line])


def adopt(pid: int) -> None:
    """A task has left this process behind."""
    _ask("INSERT INTO child (pid, born) VALUES (%s, %s) RETURNING pid", [pid, psutil.Process(pid).create_time()])


def _ask(query: str, parameters: Any) -> list[tuple[Any, ...]]:
    global _connection
    try:
        if _connection is None:
            _connection = psycopg.connect(os.environ[URL], autocommit=True, application_name="soak ledger")
        return _connection.execute(query, parameters).fetchall()
    except BaseException:  # also the wish to cancel or a time limit, which may come in the middle of the exchange
        lost, _connection = _connection, None
        if lost is not None:
            lost.close()
        raise


@cache
def born(pid: int) -> float:
    """When a process began, which tells it from a later one with the same number."""
    return psutil.Process(pid).create_time()


def is_alive(pid: int, since: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - since) < 0.5 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# For the proof


def create(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)


def executions(url: str) -> Iterator[Execution]:
    """All of them, in the order in which they began."""
    names = ", ".join(Execution.__slots__)
    with psycopg.connect(url) as connection, connection.cursor("lines", row_factory=class_row(Execution)) as lines:
        yield from lines.execute(f"SELECT {names} FROM execution ORDER BY id")


def children(url: str) -> list[int]:
    """The processes left behind by tasks that still live."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT pid, born FROM child").fetchall()
    return [pid for pid, since in rows if is_alive(pid, since)]
