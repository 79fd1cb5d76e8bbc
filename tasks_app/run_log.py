"""WATCH: the lines that a run has written, some at a time, found by where the last ones ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Subquery
from django.db.models.functions import Coalesce, Left
from django.http import QueryDict

from tasks_app.asking import Asking
from tasks_app.engine.logs import one_line
from tasks_app.models import RunLog
from tasks_app.paging import changed

SHOWN = 300
"""Lines that come at once."""

LOOKED_AT = 20_000
"""A filter looks at so many lines, so that it never has to read a long log whole."""

LONGEST = 1_000
"""Characters of a line on the page; the download has all of it."""

BATCH = 2_000

LEVELS = {level.label.lower(): level.value for level in RunLog.Level}
LONGEST_SEARCH = 200
AFTER, BEFORE = "after", "before"
NEWEST = 2**63 - 1


@dataclass(frozen=True)
class Line:
    """One line as the page shows it."""

    id: int
    at: datetime
    level: int
    text: str
    attempt: int
    begins_attempt: bool = False
    """It is the first of another attempt than the line before it."""

    @property
    def word(self) -> str:
        return RunLog.Level(self.level).label.lower()

    @property
    def modifier(self) -> str:
        return {30: "warning", 40: "error", 50: "error"}.get(self.level, self.word)

    @property
    def is_cut(self) -> bool:
        return len(self.text) > LONGEST

    @property
    def shown(self) -> str:
        return self.text[:LONGEST].rstrip("\n")


@dataclass(frozen=True)
class Filters:
    """What of a log is asked for, as a URL says it."""

    level: str = ""
    q: str = ""
    before: int | None = None
    after: int | None = None
    trouble: str = ""
    """Sentences about what could not be meant."""

    @classmethod
    def read(cls, query: QueryDict) -> Filters:
        asking = Asking(query)
        words = list(LEVELS)
        level = asking.word("level", words, f"A level is {', '.join(words[:-1])} or {words[-1]}; here are all of them.")
        q = asking.search("q", LONGEST_SEARCH)
        before = number(query.get(BEFORE, "")) or None
        if query.get(BEFORE) and before is None:
            asking.tell("That place in the log cannot be found; here is its end.")
        return cls(level, q, before, number(query.get(AFTER, "")), asking.trouble)

    @property
    def is_set(self) -> bool:
        return bool(self.level or self.q)


@dataclass(frozen=True)
class Excerpt:
    """Some lines, oldest first, and where to go on."""

    lines: list[Line]
    cursor: int
    """The newest id that was looked at: what comes later is news."""
    earlier: int | None
    """The id before which there is more; None at the beginning."""
    is_search_bounded: bool = False
    """Not the whole log was looked through."""


def excerpt(run: uuid.UUID, filters: Filters, newest: int | None) -> Excerpt:
    """The newest lines up to `newest` that match or, with `after`, those that came since; by one query."""
    if newest is None or (filters.after or 0) >= newest:
        return Excerpt([], filters.after or 0, None)
    if filters.after is not None:
        rows = list(read(run, filters).filter(id__gt=filters.after, id__lte=newest).order_by("id")[: SHOWN + 1])
        has_more = len(rows) > SHOWN
        rows = rows[:SHOWN]
        return Excerpt(lines_of(rows), rows[-1]["id"] if has_more else newest, None)
    end = min(newest + 1, filters.before or NEWEST)
    found = read(run, filters).filter(id__lt=end)
    if filters.is_set:
        looked = RunLog.objects.filter(run=run, id__lt=end).order_by("-id").values("id")[LOOKED_AT : LOOKED_AT + 1]
        found = found.filter(id__gt=Coalesce(Subquery(looked), 0))
    rows = list(found.order_by("-id")[: SHOWN + 1])
    earlier = rows[SHOWN - 1]["id"] if len(rows) > SHOWN else None
    return Excerpt(lines_of(rows[:SHOWN][::-1]), newest, earlier, filters.is_set)


def read(run: uuid.UUID, filters: Filters) -> Any:
    found = RunLog.objects.filter(run=run)
    if filters.level:
        found = found.filter(level__gte=LEVELS[filters.level])
    if filters.q:
        found = found.filter(text__icontains=filters.q)
    return found.annotate(begins=Left("text", LONGEST + 1)).values("id", "at", "level", "attempt", "begins")


def lines_of(rows: list[dict[str, Any]]) -> list[Line]:
    before = None
    lines = []
    for row in rows:
        begins = before is not None and row["attempt"] != before
        lines.append(Line(row["id"], row["at"], row["level"], row["begins"], row["attempt"], begins))
        before = row["attempt"]
    return lines


def number(text: str) -> int | None:
    """What a URL says of a place in a log; None for what is no id of a line."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def as_text(run: uuid.UUID) -> Iterator[str]:
    """All of it, line by line, read in batches: a terminal takes nothing in it for a command."""
    last = 0
    while rows := list(RunLog.objects.filter(run=run, id__gt=last).order_by("id")[:BATCH]):
        yield "".join(map(told, rows))
        last = rows[-1].pk


def told(line: RunLog) -> str:
    at = f"{line.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
    first, *rest = line.text.split("\n")
    head = f"{at}Z {line.get_level_display().upper()} {line.attempt} {one_line(first, 10_000)}\n"
    return head + "".join(f"  | {one_line(part, 10_000)}\n" for part in rest)


def links(query: QueryDict) -> list[tuple[str, str, bool]]:
    """The choice of levels: a word, the query that leads there, and whether it is the one."""
    chosen = Filters.read(query).level
    offered = (("", "All"), ("info", "Info"), ("warning", "Warnings"), ("error", "Errors"))
    return [(told, linked(query, level=level), level == chosen) for level, told in offered]


def linked(query: QueryDict, **values: str) -> str:
    """The page with this in its query, at the log."""
    return f"{changed(query, **{AFTER: None, BEFORE: None, **values})}#run-log"
