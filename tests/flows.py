"""Tiny tasks for workflows, beside `tests.outcomes`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psycopg

from tasks_app.backend import task
from tasks_app.engine.context import RunContext
from tests.outcomes import wait_at


@task
def adds(*numbers: Any) -> int:
    """The sum of all the numbers, those in lists too."""
    return sum(adds.func(*number) if isinstance(number, list) else number or 0 for number in numbers)


@task
def tells(*args: Any, **kwargs: Any) -> Any:
    """What it was called with."""
    return [list(args), kwargs] if kwargs else list(args)


@task
def breaks(text: str = "on purpose", *args: Any) -> None:
    raise ValueError(text)


@task(max_attempts=3, retry_on=(ConnectionError,), backoff=0.01)
def thirds(context_file: str, number: int) -> int:
    """Fails twice, and leaves a line at each try."""
    with open(context_file, "a") as ledger:
        ledger.write(f"{number}\n")
    if Path(context_file).read_text().split().count(str(number)) < 3:
        raise ConnectionError
    return number


@task
def passes_gate(gate: str, value: Any = None) -> Any:
    wait_at(gate)
    return value


@task
def large(characters: int) -> str:
    return "x" * characters


@task
def numbers_of(count: int) -> list[int]:
    return list(range(count))


@task(max_attempts=100)  # however often its workers are killed
def squares(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return number * number


@task(takes_context=True, max_attempts=100)
def counts(context: RunContext, results: list[Any], label: Any) -> Any:
    """Leaves a row in the table `ledger`, on a connection of its own, which nothing that happens here can undo."""
    with psycopg.connect(os.environ["LEDGER_URL"], autocommit=True) as ledger:
        ledger.execute("INSERT INTO ledger (label, run, results) VALUES (%s, %s, %s)",
                       [str(label), context.run_id, len(results)])  # fmt: skip
    return results
