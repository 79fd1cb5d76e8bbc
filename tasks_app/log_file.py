"""WATCH: the end of the worker's log file, read backwards, so that its size does not matter."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from tasks_app import wording

BLOCK = 64 * 1024
MOST_READ = 8 * 1024 * 1024
"""Bytes that are looked through for lines that match; what stands before them is not searched."""

LONGEST_LINE = 2_000
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

LINE = re.compile(r"([12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z ([A-Z]+) (\d+) (.*)", re.DOTALL)


@dataclass(frozen=True)
class LogLine:
    """One record of the file; what is no record of ours has no time and no level."""

    offset: int
    """Where it begins, which is its name."""
    text: str
    at: str = ""
    level: str = ""
    pid: str = ""

    @property
    def moment(self) -> datetime | None:
        """When it was written; None for what is no record of ours."""
        try:
            return datetime.fromisoformat(f"{self.at}+00:00") if self.at else None
        except ValueError:  # it has the figures of a time, and is none
            return None

    @property
    def modifier(self) -> str:
        return {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}.get(self.level, "")


@dataclass(frozen=True)
class Tail:
    """The newest lines that match, the newest first."""

    lines: list[LogLine]
    size: int
    """Of the file, in bytes."""
    is_searched_whole: bool
    """False when the search ended before the beginning of the file."""


def tail(path: Path, count: int, text: str = "", level: str = "") -> Tail | None:
    """The last so many lines that have this text, whatever its case, and at least this level; None without a file.

    A line that goes on, as those of a traceback do, belongs to the record before it.
    """
    wanted = set(LEVELS[LEVELS.index(level) :]) if level in LEVELS else set()
    needle = text.casefold()
    found: list[LogLine] = []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = size
            for offset, raw in records(file, size):
                end = offset
                line = read(offset, raw)
                if (not wanted or line.level in wanted) and needle in line.text.casefold():
                    found.append(line)
                    if len(found) == count:
                        break
                if size - offset > MOST_READ:
                    break
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return None
    return Tail(found, size, end == 0)


def read(offset: int, raw: bytes) -> LogLine:
    text = raw[: 4 * LONGEST_LINE].decode("utf-8", "replace")
    if match := LINE.match(text):
        return LogLine(offset, wording.clip(match[4], LONGEST_LINE), match[1], match[2], match[3])
    return LogLine(offset, wording.clip(text, LONGEST_LINE))


def records(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Each record with the lines that go on from it, the last one first."""
    going_on: list[bytes] = []
    for offset, raw in lines(file, size):
        if raw.startswith(b"  | "):
            going_on.append(raw)
            continue
        yield offset, b"\n".join([raw, *reversed(going_on)])
        going_on = []
    if going_on:
        yield 0, b"\n".join(reversed(going_on))


def lines(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Each line and where it begins, the last one first; a last one without its end is still being written."""
    at, rest = size, b""
    is_last = True
    while at > 0:
        step = min(BLOCK, at)
        at -= step
        file.seek(at)
        block = file.read(step) + rest
        *_, after_last = block.rpartition(b"\n")
        if is_last:
            block = block[: len(block) - len(after_last)]
            is_last = False
        parts = block.split(b"\n")
        if parts and parts[-1] == b"":
            parts.pop()
        rest = parts.pop(0) + b"\n" if parts and at > 0 else b""
        place = at + len(rest)
        places = []
        for part in parts:
            places.append((place, part))
            place += len(part) + 1
        yield from reversed(places)
