"""WATCH: how a JSON value is shown: as text, as a table, as a tree that opens, or in part where it is huge."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tasks_app import wording
from tasks_app.jsonable import Cut

READ = 200_000
"""Characters of a value that are read for its page; of a longer one the beginning is shown."""

SHOWN = 50_000
"""Characters that are shown as they stand."""

SHORT_LINES, SHORT = 30, 3_000
"""What has no more lines and characters than this is shown as JSON; the rest as a tree."""

ROWS, COLUMNS, CELL = 100, 12, 120


def loaded(text: str | None) -> Any:
    """The value of a JSON text that was read up to `READ`; `Cut` where that is not all of it."""
    if text is None:
        return None
    if len(text) > READ:
        return Cut(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return Cut(text)


@dataclass(frozen=True)
class Shown:
    """A value on its way to a page."""

    kind: str
    """`none`, `text`, `json`, `table`, `tree` or `cut`: in part, because it is too long."""
    value: Any = None
    text: str = ""
    """All of it as it is copied, or its beginning."""
    left_out: str = ""
    """How much of the text is not there: empty when all is."""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    more_rows: int = 0

    @classmethod
    def of(cls, value: Any) -> Shown:
        if isinstance(value, Cut):
            return cls("cut", value, value[:SHOWN], "the rest")
        if value is None:
            return cls("none", value, "null")
        if isinstance(value, str):
            return cls("text", value, value[:SHOWN], rest_of(value))
        text = wording.pretty(value)
        shown, rest = text[:SHOWN], rest_of(text)
        if table := table_of(value):
            return cls("table", value, shown, rest, *table)
        if len(text) <= SHORT and text.count("\n") < SHORT_LINES:
            return cls("json", value, shown)
        return cls("tree", value, shown, rest)


def rest_of(text: str) -> str:
    return f"another {wording.size(len(text) - SHOWN)}" if len(text) > SHOWN else ""


def table_of(value: Any) -> tuple[list[str], list[list[str]], int] | None:
    """Columns, rows and the number of rows that are left out, of a list of mappings that are alike."""
    if not (isinstance(value, list) and value and all(isinstance(row, dict) and row for row in value)):
        return None
    columns = list(dict.fromkeys(name for row in value[:ROWS] for name in row))
    filled = sum(len(row) for row in value[:ROWS])
    if len(columns) > COLUMNS or filled * 2 < len(columns) * len(value[:ROWS]):
        return None  # they are not alike
    rows = [[wording.one_line(row[name], CELL) if name in row else "" for name in columns] for row in value[:ROWS]]
    return columns, rows, max(len(value) - ROWS, 0)


def call_of(args: Any, kwargs: Any) -> Any:
    """What a run was called with, as one value: a mapping where all were named, as they mostly are."""
    if isinstance(args, Cut) or isinstance(kwargs, Cut):
        return Cut(args if isinstance(args, Cut) else kwargs)
    if args and kwargs:
        return {"args": args, "kwargs": kwargs}
    return args or kwargs
