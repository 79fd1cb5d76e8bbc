"""The worker's log: one record, one line, whatever is in it."""

import logging
import sys
from typing import Any

import pytest

from tasks_app.engine.logs import LineFormatter, one_line


def formatted(message: str, *arguments: Any, exc_info: Any = None) -> str:
    return LineFormatter().format(logging.LogRecord("x", logging.INFO, "", 0, message, arguments, exc_info))


@pytest.mark.parametrize(
    "sneaky", ["\n", "\r", "\x0b", "\x85", "\u2028", "\u2029", "\x1b[2J", "\u202e", "\x00", "\ud800"]
)
def test_control_characters_are_written_as_escapes(sneaky: str) -> None:
    line = formatted("run %s", f"a{sneaky}b")

    assert sneaky not in line
    assert len(line.splitlines()) == 1
    assert "run a\\" in line


def test_a_traceback_cannot_begin_a_line_of_its_own() -> None:
    try:
        raise ValueError("one\n2026-01-01T00:00:00.000Z INFO 1 forged")
    except ValueError:
        lines = formatted("failed", exc_info=sys.exc_info()).splitlines()

    assert len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])


def test_a_record_that_cannot_be_shown_is_still_a_line() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    assert "its arguments cannot be shown: RuntimeError" in formatted("%s", Hostile())


def test_a_huge_text_is_cut() -> None:
    assert len(one_line("x" * 10_000, 100)) == 101
