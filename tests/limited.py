"""Tasks that leave a line at their begin and at their end, some of them under limits; and how to read those lines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tasks_app.backend import task


def write(path: str, what: str, number: int) -> None:
    """One write, where neither the queue nor its database can lose it; the clock is that of all processes."""
    with open(path, "a") as ledger:
        ledger.write(f"{what} {number} {os.getpid()} {time.monotonic()}\n")


@task
def notes(path: str, number: int, seconds: float = 0.0) -> int:
    write(path, "begin", number)
    time.sleep(seconds)
    write(path, "end", number)
    return number


@task(max_running=3)
def notes_three_at_most(path: str, number: int, seconds: float = 0.0) -> int:
    return notes.func(path, number, seconds)


@task(rate="20/s", burst=5)
def notes_twenty_a_second(path: str, number: int, seconds: float = 0.0) -> int:
    return notes.func(path, number, seconds)


@task(rate="2/h")
def notes_twice_an_hour(path: str, number: int, seconds: float = 0.0) -> int:
    return notes.func(path, number, seconds)


@task(max_running=100, rate="1000000/s", burst=1_000_000)
def does_nothing_under_wide_limits() -> None:
    pass


def lines(path: Path) -> list[tuple[str, int, int, float]]:
    """What, number, process, moment; a line that is just being written is left out."""
    text = path.read_text() if path.exists() else ""
    rows = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(what, int(number), int(pid), float(at)) for what, number, pid, at in rows]


def begins(path: Path) -> list[float]:
    return sorted(at for what, _, _, at in lines(path) if what == "begin")


def numbers(path: Path, what: str = "begin") -> list[int]:
    return [number for said, number, _, _ in lines(path) if said == what]


def most_at_once(path: Path, killed: Iterable[tuple[int, float]] = ()) -> int:
    """The largest number of executions at a moment; those of a killed process ended when it was killed."""
    moments: list[tuple[float, int]] = []
    open_in: dict[int, int] = {}
    for what, _, pid, at in sorted(lines(path), key=lambda line: line[3]):
        moments.append((at, 1 if what == "begin" else -1))
        open_in[pid] = open_in.get(pid, 0) + moments[-1][1]
    moments += [(at, -1) for pid, at in killed if open_in.get(pid)]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most
