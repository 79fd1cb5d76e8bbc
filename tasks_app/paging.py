"""WATCH: pages of a long list, newest first, found by where the last one ended and never by counting rows.

Rows of the same instant are told apart by their ids, so none is lost or shown twice between two pages, whatever is
added or deleted meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import QueryDict

from tasks_app.clock import EPOCH

M = TypeVar("M", bound=Model)

SIZES = (25, 50, 100, 200)
USUAL_SIZE = 50

OLDER, NEWER, SIZE = "older", "newer", "size"
"""The names of a page's place in its URL: the rows after this place, those before it, and how many."""

MOST_NAMES = 100
"""An address with more of them is refused: no page reads as many, and each of its many links would repeat them."""

MOST_VALUES, LONGEST_VALUE = 50, 500
"""Values of one name and characters of a value that links repeat: more than any page reads."""

NO_PLACE = "That place in the list cannot be found; here is its beginning."

PLACE = re.compile(r"(\d{1,19})-([0-9a-fA-F-]{1,36})")


@dataclass(frozen=True)
class Place:
    """Where a row stands: its moment, and its id among those of the same moment. Some lists go by a number instead."""

    at: datetime | int
    id: Any

    def __str__(self) -> str:
        if isinstance(self.at, int):
            return f"{self.at}-{self.id}"
        past = self.at - EPOCH
        return f"{(past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds}-{self.id}"

    @classmethod
    def read(cls, text: str, id_of: Callable[[str], Any], *, is_number: bool = False) -> Place | None:
        """The place that a URL names; None for what names none."""
        if not (match := PLACE.fullmatch(text)):
            return None
        try:
            at = int(match[1])
            return cls(at if is_number else EPOCH + timedelta(microseconds=at), id_of(match[2]))
        except (ValueError, OverflowError):
            return None


@dataclass(frozen=True)
class Page(Generic[M]):
    """Some rows of a list, and the queries of the pages beside it; None where the list ends."""

    rows: list[M]
    size: int
    newer: str | None
    older: str | None
    trouble: str = ""
    """One sentence when the URL asked for what there is not."""

    sizes: tuple[dict[str, Any], ...] = ()

    @property
    def is_first(self) -> bool:
        return self.newer is None


def page(
    found: QuerySet[M], query: QueryDict, at: str, id_of: Callable[[str], Any] = int, *, is_number: bool = False
) -> Page[M]:
    """The page of this query: rows with the newest `at` first, and of one moment those with the highest id.

    With `is_number` the column is one of whole numbers, and the highest come first.
    """
    size, trouble = size_of(query)
    older, newer = (Place.read(query.get(name, ""), id_of, is_number=is_number) for name in (OLDER, NEWER))
    if (query.get(OLDER) and older is None) or (query.get(NEWER) and newer is None):
        trouble = f"{trouble} {NO_PLACE}".strip()
    if newer:
        rows = list(found.filter(beyond(at, newer, "gt")).order_by(at, "pk")[: size + 1])
        has_newer, has_older = len(rows) > size, True
        rows = rows[:size][::-1]
        if not has_newer and len(rows) < size:  # the beginning of the list is shown whole
            newer, older = None, None
    if not newer:
        rows = list((found.filter(beyond(at, older, "lt")) if older else found).order_by(f"-{at}", "-pk")[: size + 1])
        has_newer, has_older = older is not None, len(rows) > size
        rows = rows[:size]
    return Page(
        rows, size, linked(query, NEWER, rows[0], at) if rows and has_newer else None,
        linked(query, OLDER, rows[-1], at) if rows and has_older else None, trouble,
        tuple({"size": each, "is_chosen": each == size, "query": changed(query, size=str(each))} for each in SIZES),
    )  # fmt: skip


def beyond(at: str, place: Place, which: str) -> Q:
    """Rows on that side of the place; written so that the index on both columns finds the first of them."""
    return Q(**{f"{at}__{which}e": place.at}) & (Q(**{f"{at}__{which}": place.at}) | Q(**{f"pk__{which}": place.id}))


def linked(query: QueryDict, name: str, row: Model, at: str) -> str:
    """The query that leads on from this row, with all else as it is."""
    return changed(query, **{OLDER: None, NEWER: None, name: str(Place(getattr(row, at), row.pk))})


def size_of(query: QueryDict) -> tuple[int, str]:
    told = query.get(SIZE, "")
    if told in {str(size) for size in SIZES}:
        return int(told), ""
    return USUAL_SIZE, f"A page has {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} rows." if told else ""


def changed(query: QueryDict, **values: str | None) -> str:
    """The query with these values, and without those that are None or empty, as the end of a URL."""
    copy = kept(query)
    copy.pop("seen", None)
    for name, value in values.items():
        copy.pop(name, None)
        if value:
            copy[name] = value
    return f"?{copy.urlencode()}"


def kept(query: QueryDict) -> QueryDict:
    """As much of a query as any page reads: a page has many links, and none has to repeat an address without end."""
    copy = QueryDict(mutable=True)
    for name, values in query.lists():
        read = values if len(values) <= MOST_VALUES else [*values[: MOST_VALUES - 1], values[-1]]
        copy.setlist(name, [value[:LONGEST_VALUE] for value in read])
    return copy
