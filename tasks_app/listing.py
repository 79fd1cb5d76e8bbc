"""WATCH: the pages of the runs that somebody asks for, whatever of the million rows they are.

A page is read by the index that serves its filters best, in the order of that index (a `Way`). What no index serves is
asked of each row on the way, and after so many rows the page says how far back it has looked, and where to look on. So
nothing that a URL can ask for reads the whole table, and no row is left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Q
from django.http import QueryDict

from tasks_app import search
from tasks_app.board import KWARGS, PREVIEW
from tasks_app.finding import HELD, LATER, WAITS, Finding
from tasks_app.live import digest
from tasks_app.models import TaskRun
from tasks_app.models.run import FINISHED
from tasks_app.paging import NEWER, NO_PLACE, OLDER, SIZE, SIZES, USUAL_SIZE, Page, Place, changed, size_of

LOOKED_AT = 10_000
"""So many rows are read for one page, one count or one list of facets."""

LOOKED_AT_FOR_WORDS = 2_000
"""So many are where each has to be taken apart into words."""

NEWS = 100
"""New runs are counted up to here."""

TOP, SORT = "top", "sort"
"""In the URL: the first row that the page had when it was opened, for its polls; and whether the oldest come first."""

TABLE = "tasks_app_taskrun"
ENDED = Q(status__in=FINISHED)

# All that a row shows, and of values without bound only the beginning. Of what was tried before only while it counts.
COLUMNS = f"""
id, task_path, queue_name, priority, status, claimed_by, attempt, max_attempts, progress, run_after, enqueued_at,
claimed_at, started_at, finished_at, cancel_requested_at, is_waiting, limit_key, failure, owner_id, workflow_id,
previous, left(failure_message, 500) AS failure_message,
CASE WHEN status = 'READY' THEN attempts ELSE '[]' END AS attempts,
left(args::text, {PREVIEW}) AS args_preview, left({KWARGS}::text, {PREVIEW}) AS kwargs_preview,
left(return_value::text, {PREVIEW}) AS return_value_preview, progress::text AS progress_text,
statement_timestamp() AS read_at
"""

# What changes while a run is on a page. A run's place in line changes when another ends: so that counts too, for those
# that wait.
LOOKS = ("id", "status", "claimed_by", "attempt", "progress_text", "run_after", "cancel_requested_at", "is_waiting")
LIGHT = ", ".join(LOOKS).replace("progress_text", "progress::text AS progress_text")
BESIDES = f"""
(SELECT finished_at FROM {TABLE} WHERE {search.ENDED} AND EXISTS (SELECT FROM page WHERE status = 'READY')
  ORDER BY finished_at DESC LIMIT 1) AS newest_end
"""  # noqa: S608  its parts are ours
BESIDES_NAMES = ("newest_end", "new")


@dataclass(frozen=True)
class SQL:
    """A statement, or a part of one, with its values."""

    text: str
    given: tuple[Any, ...] = ()


def condition(asked: Q) -> SQL | None:
    """It as a condition on the table; empty for none, None when no row can meet it."""
    if not asked:
        return SQL("")
    try:
        text, given = TaskRun.objects.filter(asked).order_by().values_list("pk").query.sql_with_params()
    except EmptyResultSet:
        return None
    return SQL(text.partition(" WHERE ")[2], tuple(given))


@dataclass(frozen=True)
class Way:
    """One way to the runs: what its index is asked for, and what is asked of each row that is found there."""

    by: Q
    rest: Q
    moment: str
    few: str = ""
    """All of them are read, by the index on this column, because they are few; else in the order of the page."""

    most: int = 0
    """So many rows are read at most, where anything is asked of them."""

    @property
    def is_bounded(self) -> bool:
        """Whether it may end before the last row."""
        return bool(self.rest) and not self.few

    def rows(self, place: Q, descending: bool, limit: int) -> SQL | None:
        """The first so many rows beyond a place."""
        order = f"{self.moment} {sign(descending)}, id {sign(descending)}"
        found = self.looked_at(place, descending)
        rest = condition(self.rest & place if self.few else self.rest)
        if found is None or rest is None:
            return None
        where = f" WHERE {rest.text}" if rest.text else ""
        text = f'SELECT * FROM ({found.text}) AS "{TABLE}"{where} ORDER BY {order} LIMIT {limit}'  # noqa: S608
        return SQL(text, (*found.given, *rest.given))

    def looked_at(self, place: Q, descending: bool) -> SQL | None:
        """All rows that are read for it."""
        by = condition(self.by if self.few else self.by & place)
        if by is None:
            return None
        order = self.few or f"{self.moment} {sign(descending)}, id {sign(descending)}"
        where = f" WHERE {by.text}" if by.text else ""
        # Either end keeps the planner from joining this with what is asked for around it.
        limit = " OFFSET 0" if self.few else f" LIMIT {self.most}" if self.rest else ""
        return SQL(f'SELECT * FROM "{TABLE}"{where} ORDER BY {order}{limit}', by.given)  # noqa: S608

    def end(self, place: Q, descending: bool) -> SQL | None:
        """The last row that is read, if there are more."""
        found = self.looked_at(place, descending)
        if found is None:
            return None
        text = f"SELECT {self.moment} AS at, id FROM ({found.text}) AS run OFFSET {self.most - 1}"  # noqa: S608
        return SQL(text, found.given)


def sign(descending: bool) -> str:
    return "DESC" if descending else "ASC"


def union(parts: Iterable[SQL | None]) -> SQL | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    return SQL(" UNION ALL ".join(f"({part.text})" for part in found), tuple(v for part in found for v in part.given))


def ways(finding: Finding) -> list[Way]:
    """How the runs are found; they have no run in common."""
    parts = finding.parts
    if finding.q:
        return ways_of_search(finding)
    return ways_of(finding, parts)


def ways_of_search(finding: Finding) -> list[Way]:
    """By id, by task, and by words where they are rare; a common word is looked for in run after run."""
    parts = {name: part for name, part in finding.parts.items() if name != "q"}
    if finding.is_common:
        words = finding.parts["q"]
        return [replace(way, rest=way.rest & words, most=LOOKED_AT_FOR_WORDS) for way in ways_of(finding, parts)]
    others = Q(*parts.values())
    by_id = Q(id__range=finding.ids) if finding.ids else None
    result = [Way(by_id, others, finding.moment, few="id")] if by_id else []
    besides = ~by_id if by_id else Q()
    if finding.hits:
        is_hit = Q(search.OneOf(finding.hits))
        result.append(Way(is_hit, others & besides, finding.moment, few="id"))
        besides &= ~is_hit
    of_tasks = (ENDED & Q(task_path=path) for path in finding.named)
    result += [Way(is_of_one, others & besides, finding.moment, most=LOOKED_AT) for is_of_one in of_tasks]
    is_of_task = Q(task_path__in=finding.named)
    unfinished = others & (is_of_task | Q(search.Matches(finding.words)) if finding.words else is_of_task)
    if by_id:
        unfinished &= ~by_id
    result.append(Way(WAITS, unfinished, finding.moment, most=LOOKED_AT_FOR_WORDS))
    result.append(Way(HELD, unfinished, finding.moment, few="claimed_by"))
    return result


def ways_of(finding: Finding, parts: dict[str, Q]) -> list[Way]:
    """The best index for these filters."""
    moment, state = finding.moment, finding.state

    def way(*names: str, also: Q | None = None, few: str = "") -> Way:
        """By the index that serves these filters; the time is served by each that is in its order."""
        served = {*names, *(() if few else ("when",))}
        by = Q(*(part for name, part in parts.items() if name in served))
        rest = Q(*(part for name, part in parts.items() if name not in served))
        return Way(by & also if also else by, rest, moment, few, LOOKED_AT)

    if "workflow" in parts:
        return [way("workflow", few="step")]
    if "about" in parts:
        return [way("about")]
    if "group" in parts:
        return [way("group")]
    if finding.owner is not None:
        return [way("viewer", "owner")]
    if "schedule" in parts:
        return [way("schedule")]
    if state in {"running", "claimed"}:
        return [way("state", few="claimed_by")]
    if state == "scheduled" and moment == "run_after":
        return [way(also=LATER)]
    if state in {"ready", "waiting", "scheduled"}:
        return [way(also=WAITS)]
    if state == "retrying":
        return [way("state")]
    if "task" in parts and state == "failed" and moment == "finished_at":
        return [way("task", "state")]
    if "task" in parts and state in {"successful", "failed", "cancelled"}:
        return [way("task", also=ENDED)]
    if "task" in parts:
        return [way("task", also=ENDED), way(also=WAITS), way(also=HELD, few="claimed_by")]
    return [way("state")]


class Listing:
    """One page of the runs that a URL asks for, and what tells whether it has news."""

    def __init__(self, finding: Finding, query: QueryDict) -> None:
        self.finding, self.query = finding, query
        self.size, trouble = size_of(query)
        self.troubles = [*finding.troubles, *([trouble] if trouble else [])]
        self.moment = finding.moment
        self.is_upward = self.moment == "run_after"
        """What is for later begins with what is due first."""

        sort = query.get(SORT, "")
        self.sort = sort if sort in {"newest", "oldest"} else ""
        if sort and not self.sort:
            self.troubles.append("Runs are sorted by newest or by oldest.")
        self.descending = self.sort == "newest" if self.sort else not self.is_upward
        self.further, self.back = (Place.read(query.get(name, ""), uuid_of) for name in (OLDER, NEWER))
        if (query.get(OLDER) and not self.further) or (query.get(NEWER) and not self.back):
            self.troubles.append(NO_PLACE)
        self.top = Place.read(query.get(TOP, ""), uuid_of)
        if query.get(TOP) and not self.top:
            self.troubles.append("Which runs are new cannot be told: no run that was seen last has such a place.")
        self.end: Place | None = None
        """Up to where was looked, if there may be more beyond."""
        self.looks: list[tuple[Any, ...]] = []

    @cached_property
    def ways(self) -> list[Way]:
        return ways(self.finding)

    @property
    def is_live(self) -> bool:
        """Whether it can be asked for news by one query: a search cannot."""
        return not self.finding.q

    def beyond(self, place: Place | None, forwards: bool = True) -> Q:
        """The rows after a place in the order of the list, or those before it."""
        if place is None:
            return Q()
        which = "lt" if self.descending is forwards else "gt"
        same = Q(**{f"{self.moment}__{which}": place.at}) | Q(**{f"pk__{which}": place.id})
        return Q(**{f"{self.moment}__{which}e": place.at}) & same

    def first(self, place: Place | None, forwards: bool, limit: int) -> SQL | None:
        """The first rows beyond a place, in that direction."""
        descending = self.descending is forwards
        beyond = self.beyond(place, forwards)
        found = union(way.rows(beyond, descending, limit) for way in self.ways)
        if found is None or len(self.ways) == 1:
            return found
        order = f"{self.moment} {sign(descending)}, id {sign(descending)}"
        return SQL(f"SELECT * FROM ({found.text}) AS run ORDER BY {order} LIMIT {limit}", found.given)  # noqa: S608

    # The rows

    @cached_property
    def page(self) -> Page[TaskRun]:
        """The rows, and the queries of the pages beside it."""
        if self.back:
            rows, end = self.read(self.back, forwards=False)
            if end or len(rows) > self.size:
                last = self.place_of(rows[0]) if rows else self.back
                return self.paged(rows[: self.size][::-1], end or self.place_of(rows[self.size - 1]), last)
            self.back = self.further = None  # the beginning of the list is shown whole
        rows, end = self.read(self.further, forwards=True)
        newer = self.place_of(rows[0]) if rows else self.further
        older = end or (self.place_of(rows[self.size - 1]) if len(rows) > self.size else None)
        return self.paged(rows[: self.size], newer if self.further else None, older)

    def paged(self, rows: list[TaskRun], newer: Place | None, older: Place | None) -> Page[TaskRun]:
        sizes = tuple({"size": each, "is_chosen": each == self.size, "query": self.sized(each)} for each in SIZES)
        return Page(rows, self.size, self.linked(NEWER, newer), self.linked(OLDER, older), "", sizes)

    def read(self, place: Place | None, forwards: bool) -> tuple[list[TaskRun], Place | None]:
        """One row more than fit, and the place up to which was looked, if there may be more beyond it."""
        self.end, self.looks = None, []
        found = self.first(place, forwards, self.size + 1)
        if found is None:
            return [], None
        statement = self.with_besides(found, COLUMNS, forwards)
        rows = list(TaskRun.objects.raw(statement.text, statement.given))
        self.looks = [tuple(getattr(row, name) for name in (*BESIDES_NAMES, *LOOKS)) for row in rows]
        self.end = self.end_of(rows, place, forwards)
        if self.end:
            descending = self.descending is forwards
            rows = [row for row in rows if comes_before(row, self.end, self.moment, descending)]
            if len(rows) > self.size:
                self.end = None
        return rows, self.end

    def end_of(self, rows: list[TaskRun], place: Place | None, forwards: bool) -> Place | None:
        bounded = [way for way in self.ways if way.is_bounded]
        if not bounded or (len(self.ways) == 1 and len(rows) > self.size):
            return None
        return self.looked_to(bounded, place, forwards)

    def with_besides(self, found: SQL, columns: str, forwards: bool) -> SQL:
        """These columns of the rows, and with each what else the page tells: how many runs are new above it."""
        news = self.first(self.top, False, NEWS + 1) if self.top and (self.further or self.back) else None
        count = f"(SELECT count(*) FROM ({news.text}) AS new)" if news else "0"  # noqa: S608
        way = sign(self.descending is forwards)
        text = (
            f"WITH page AS ({found.text}) SELECT {columns}, {BESIDES}, {count} AS new "  # noqa: S608
            f"FROM page AS {TABLE} ORDER BY {TABLE}.{self.moment} {way}, {TABLE}.id {way}"
        )
        return SQL(text, (*found.given, *(news.given if news else ())))

    def looked_to(self, bounded: list[Way], place: Place | None, forwards: bool) -> Place | None:
        """The nearest of the places at which they end before their last row."""
        descending = self.descending is forwards
        beyond = self.beyond(place, forwards)
        found = union(way.end(beyond, descending) for way in bounded)
        if found is None:
            return None
        with connection.cursor() as cursor:
            order = f"at {sign(descending)}, id {sign(descending)}"
            text = f"SELECT at, id FROM ({found.text}) AS run ORDER BY {order} LIMIT 1"  # noqa: S608
            cursor.execute(text, found.given)
            row = cursor.fetchone()
        return Place(*row) if row else None

    def linked(self, name: str, place: Place | None) -> str | None:
        """The query that leads on from there."""
        return changed(self.query, **{OLDER: None, NEWER: None, TOP: None, name: str(place)}) if place else None

    def place_of(self, run: TaskRun) -> Place:
        return Place(getattr(run, self.moment), run.pk)

    def sized(self, size: int) -> str:
        return changed(self.query, **{SIZE: str(size), TOP: None})

    @property
    def kept(self) -> dict[str, str]:
        """What links and forms for other filters keep of this query: the order that was chosen, and the size."""
        return {SORT: self.sort, SIZE: "" if self.size == USUAL_SIZE else str(self.size)}

    @property
    def keep(self) -> str:
        """The same as the end of a URL."""
        return ending(self.kept)

    @property
    def lasting(self) -> str:
        """What a saved view keeps of this query: its filters, its order and its size, but no place in the list."""
        order = ("newest" if self.descending else "oldest") if self.descending is self.is_upward else ""
        return f"{self.finding.query}{ending({**self.kept, SORT: order})}".removeprefix("&")

    # News

    @property
    def is_first(self) -> bool:
        return not self.page.newer

    @property
    def new(self) -> int:
        """How many runs are new above this page, up to a number."""
        return self.looks[0][1] if self.page is not None and self.looks else 0

    @property
    def version(self) -> str:
        """Another text whenever the page would look different."""
        self.page  # noqa: B018  which reads it
        return digest(*self.looks)

    def current_version(self) -> str:
        """The same as it is now, by one query."""
        place, forwards = (self.back, False) if self.back else (self.further, True)
        found = self.first(place, forwards, self.size + 1)
        if found is None:
            return digest()
        statement = self.with_besides(found, LIGHT, forwards)
        with connection.cursor() as cursor:
            cursor.execute(statement.text, statement.given)
            rows = cursor.fetchall()
        return digest(*((*row[-2:], *row[:-2]) for row in rows))

    def is_new(self, run: TaskRun) -> bool:
        """Whether it came since the page was looked at last."""
        if not self.top or not self.is_first:
            return False
        return run.pk != self.top.id and comes_before(run, self.top, self.moment, self.descending)

    @property
    def opened_at(self) -> str:
        """The first row of the list, to be handed back by the polls of this page: what comes before it then is new."""
        if self.is_first:
            return str(self.place_of(self.page.rows[0])) if self.page.rows else ""
        if self.top:
            return str(self.top)
        found = self.first(None, True, 1)
        if found is None:
            return ""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {self.moment}, id FROM ({found.text}) AS run", found.given)  # noqa: S608
            row = cursor.fetchone()
        return str(Place(*row)) if row else ""

    @property
    def poll_query(self) -> QueryDict:
        """What its polls ask for."""
        query = self.query.copy()
        self.page  # noqa: B018  which finds out whether the list begins here
        if not self.back:
            query.pop(NEWER, None)
            if not self.further:
                query.pop(OLDER, None)
        query[TOP] = self.opened_at
        return query


def ending(values: dict[str, str]) -> str:
    """Those of them that are not empty, to be put behind a query."""
    return "".join(f"&{name}={value}" for name, value in values.items() if value)


def comes_before(run: TaskRun, end: Place, moment: str, descending: bool) -> bool:
    """Whether it stands before that place, or there, in the order of the list."""
    here, there = (getattr(run, moment), run.pk), (end.at, end.id)
    return here >= there if descending else here <= there


def uuid_of(text: str) -> uuid.UUID:
    return uuid.UUID(text)
