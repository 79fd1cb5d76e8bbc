"""WATCH: the schedules: what each runs, when next, how its last runs ended, and what keeps it from firing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tasks_app import timetable, wording
from tasks_app.asking import Asking
from tasks_app.engine.schedule_call import BadSchedule, default_zone, read_literals
from tasks_app.engine.timing import CRON, BadTiming, Timing
from tasks_app.links import runs_url
from tasks_app.masking import MASK, masked_call, masked_source, places_of
from tasks_app.models import Failure, Status
from tasks_app.paging import NEWER, NO_PLACE, OLDER, Place, changed, linked
from tasks_app.templatetags.dumbwaiter import icon

OUTCOMES = 20
"""So many of its newest runs are shown."""

ROWS = 25
LONGEST_SEARCH = 150
NEVER = datetime(9999, 12, 30, tzinfo=UTC)
PREVIEW = 300
"""So many characters of a text without bound are read for a row."""

PAUSED = "paused_at IS NOT NULL AND coalesce(paused_until > statement_timestamp(), true)"
STATES = {
    "active": f"at < %(never)s AND error IS NULL AND NOT ({PAUSED})",
    "paused": f"at < %(never)s AND ({PAUSED})",
    "broken": "at < %(never)s AND error IS NOT NULL",
    "done": "at = %(never)s",
}
"""The word of each in the URL, and of which schedules it is true."""

# One statement, because it is also what tells whether there is news: all schedules are few, and of each the newest runs
# are found by the index `run_schedule_newest`.
LOOK = """
WITH every AS (
  SELECT schedule.id, name, func, left(args, {long}) AS args, left(kwargs, {long}) AS kwargs, schedule_type, minutes,
    cron, repeats, next_run, cluster, schedule.xmin::text AS version, rules.xmin::text AS rules_version, time_zone,
    missed, overlap, about, plan, last_due,
    CASE WHEN broken_version = schedule.xmin::text THEN left(error, {long}) END AS error,
    left(skipped, {long}) AS skipped, noted_at, paused_at, paused_until, paused_by_id, pause_reason,
    coalesce(CASE WHEN repeats <> 0 THEN next_run END, %(never)s) AS at
  FROM django_q_schedule AS schedule LEFT JOIN tasks_app_schedulerules AS rules ON rules.schedule_id = schedule.id),
page AS (SELECT * FROM every WHERE {where} ORDER BY at {way}, id {way} LIMIT %(most)s)
SELECT page.*, statement_timestamp() AS now, (
  SELECT json_agg(json_build_array(id, status, failure, claimed_by IS NOT NULL, extract(epoch FROM enqueued_at),
    extract(epoch FROM started_at), extract(epoch FROM finished_at)) ORDER BY enqueued_at DESC, id DESC)
  FROM (SELECT id, status, failure, claimed_by, enqueued_at, started_at, finished_at
    FROM tasks_app_taskrun WHERE schedule_id = page.id ORDER BY enqueued_at DESC, id DESC LIMIT {outcomes}) AS run
  ) AS runs
FROM page ORDER BY at, id
"""


def called_with(func: str, args: Any, kwargs: Any, length: int = 160) -> str:
    """The arguments of a schedule on one line."""
    try:
        return wording.arguments_line(*masked_call(func, *read_literals(args, kwargs)), length)
    except BadSchedule:  # or longer than is read for a row
        given = MASK if args and places_of(func) else masked_source(str(args or ""))
        return wording.one_line(" ".join(filter(None, (given, masked_source(str(kwargs or ""))))), length)


def run_url(run: uuid.UUID | str) -> str:
    return reverse("run", args=[run])


@dataclass(frozen=True)
class Outcome:
    """One of its newest runs."""

    id: str
    status: str
    failure: str | None
    is_held: bool
    enqueued: float
    started: float | None
    finished: float | None

    @property
    def state(self) -> str:
        """The word of its icon and class."""
        return "claimed" if self.status == Status.READY and self.is_held else self.status.lower()

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.enqueued, UTC)

    @property
    def length(self) -> float | None:
        """Seconds that its last attempt took; None before its end."""
        if self.started is None or self.finished is None:
            return None
        return max(self.finished - self.started, 0.0)

    @property
    def label(self) -> str:
        """`Failed (timed out), 12 March 2026, 14:31:51 UTC, 3.4 s`"""
        why = f" ({Failure(self.failure).label.lower()})" if self.failure in Failure.values else ""
        length = f", {wording.duration(self.length)}" if self.length is not None else ""
        return f"{Status(self.status).label}{why}, {wording.moment(self.at)}{length}"

    @property
    def html(self) -> SafeString:
        return drawn(self, timezone.get_current_timezone_name())


DRAWN = '<li><a class="status status--{}" href="{}" title="{}">{}</a></li>'


@lru_cache(maxsize=10_000)
def drawn(run: Outcome, zone: str) -> SafeString:
    """One of a strip; kept, because a page has hundreds of them, and those that have ended stay as they are."""
    return format_html(DRAWN, run.state, run_url(run.id), run.label, icon(run.state))


@dataclass(frozen=True)
class Line:
    """One schedule, as its row tells it."""

    id: int
    name: str | None
    func: str
    args: str | None
    kwargs: str | None
    schedule_type: str
    minutes: int | None
    cron: str | None
    repeats: int
    next_run: datetime | None
    cluster: str | None
    version: str
    rules_version: str | None
    time_zone: str | None
    missed: str | None
    overlap: str | None
    about: str | None
    plan: str | None
    last_due: datetime | None
    error: str | None
    skipped: str | None
    noted_at: datetime | None
    paused_at: datetime | None
    paused_until: datetime | None
    paused_by_id: Any
    pause_reason: str | None
    at: datetime
    now: datetime
    runs: list[list[Any]] | None

    @property
    def pk(self) -> int:
        return self.id

    @property
    def looks(self) -> tuple[Any, ...]:
        """All that its row shows, but for times that tick."""
        return (self.id, self.version, self.rules_version, self.state, self.is_overdue, self.runs)

    @property
    def title(self) -> str:
        return self.name or f"{self.task} ({self.id})"

    @property
    def task(self) -> str:
        return self.func.rpartition(".")[2]

    @property
    def arguments(self) -> str:
        return called_with(self.func, self.args, self.kwargs)

    @property
    def state(self) -> str:
        """`done`, `broken`, `paused` or `active`."""
        if self.at == NEVER:
            return "done"
        if self.error:
            return "broken"
        if self.paused_at and (self.paused_until is None or self.paused_until > self.now):
            return "paused"
        return "active"

    @property
    def has_fired(self) -> bool:
        """At a time of its own. One that is done and never has was skipped, or had nothing to come."""
        return self.last_due is not None

    @property
    def is_overdue(self) -> bool:
        """Its time is over and no cluster has fired it."""
        return self.state == "active" and self.at < self.now - timedelta(seconds=5)

    @property
    def zone(self) -> str:
        return self.time_zone or default_zone()

    @cached_property
    def timing(self) -> Timing:
        return Timing(self.schedule_type, self.zone, self.minutes, self.cron or None)

    @property
    def saved_plan(self) -> Any:
        return json.loads(self.plan) if self.plan else None

    @property
    def words(self) -> str:
        try:
            return timetable.words(self.timing, self.next_run, self.saved_plan)
        except (BadTiming, KeyError, OverflowError):
            return f"Cron {self.cron}" if self.schedule_type == CRON else "Cannot be told"

    @cached_property
    def moments(self) -> list[tuple[datetime, str]]:
        """The next ones, in the viewer's zone; none for what does not fire."""
        if self.state in {"done", "broken"} or (self.state == "paused" and self.paused_until is None):
            return []
        begin = self.paused_until if self.state == "paused" and self.paused_until else None
        most = timetable.TOLD + 1
        try:
            if begin is None and self.at >= self.now:
                found = timetable.moments_ahead(self.timing, self.at, self.repeats, self.plan, most)
            else:
                found = tuple(
                    timetable.moments(self.timing, self.at, begin or self.now, self.repeats, self.saved_plan, most)
                )
        except (BadTiming, KeyError, OverflowError):
            return []
        return timetable.told([at for at in found if begin is None or at >= begin][: timetable.TOLD])

    @property
    def repeats_told(self) -> str:
        """Empty for one that goes on for ever."""
        if self.schedule_type == "O" or self.repeats < 0:
            return ""
        return f"{wording.plural(self.repeats, 'time')} more" if self.repeats else "no repeats left"

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """Oldest first, as time goes."""
        return [Outcome(*run) for run in reversed(self.runs or [])]

    @property
    def strip(self) -> SafeString:
        return format_html_join("", "{}", ((run.html,) for run in self.outcomes))

    @property
    def last(self) -> Outcome | None:
        return self.outcomes[-1] if self.outcomes else None

    @property
    def average(self) -> float | None:
        """Seconds that those of them took that were successful."""
        lengths = [run.length for run in self.outcomes if run.status == Status.SUCCESSFUL and run.length is not None]
        return sum(lengths) / len(lengths) if lengths else None

    @property
    def failed(self) -> int:
        return sum(run.status == Status.FAILED for run in self.outcomes)

    @property
    def runs_url(self) -> str:
        return runs_url(schedule=str(self.id))

    @property
    def paused_by(self) -> str:
        return str(get_user_model().objects.filter(pk=self.paused_by_id).first() or "") if self.paused_by_id else ""


@dataclass(frozen=True)
class Timetable:
    """A page of schedules, the one that fires next first, and the queries of the pages beside it."""

    lines: list[Line]
    earlier: str | None
    later: str | None
    state: str
    q: str
    trouble: str = ""


def look(query: QueryDict) -> Timetable:
    """The page of this query, by one statement."""
    asking, words = Asking(query), list(STATES)
    state = asking.word("state", words, f"A schedule is {', '.join(words[:-1])} or {words[-1]}; here are all of them.")
    q = asking.search("q", LONGEST_SEARCH)
    after, before = (Place.read(query.get(name, ""), int) for name in (OLDER, NEWER))
    if (query.get(OLDER) and after is None) or (query.get(NEWER) and before is None):
        asking.tell(NO_PLACE)
    given: dict[str, Any] = {"never": NEVER, "most": ROWS + 1}
    where = [STATES[state]] if state else ["true"]
    if q:
        where.append("(strpos(lower(coalesce(name, '')), lower(%(q)s)) > 0 OR strpos(lower(func), lower(%(q)s)) > 0)")
        given["q"] = q
    if place := before or after:
        where.append(f"(at, id) {'<' if before else '>'} (%(place_at)s, %(place_id)s)")
        given |= {"place_at": place.at, "place_id": place.id}
    lines = find(" AND ".join(where), given, "DESC" if before else "ASC")
    has_more = len(lines) > ROWS
    lines = lines[-ROWS:] if before else lines[:ROWS]
    has_earlier, has_later = (has_more, True) if before else (after is not None, has_more)
    return Timetable(
        lines,
        linked(query, NEWER, lines[0], "at") if lines and has_earlier else None,  # type: ignore[arg-type]
        linked(query, OLDER, lines[-1], "at") if lines and has_later else None,  # type: ignore[arg-type]
        state, q, asking.trouble,
    )  # fmt: skip


def one(pk: int) -> Line | None:
    """This schedule, by one statement."""
    return next(iter(find("id = %(id)s", {"id": pk, "never": NEVER, "most": 1}, "ASC")), None)


def find(where: str, given: dict[str, Any], way: str) -> list[Line]:
    with connection.cursor() as cursor:
        cursor.execute(LOOK.format(where=where, way=way, long=PREVIEW, outcomes=OUTCOMES), given)
        names = [column.name for column in cursor.description or ()]
        return [Line(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def looks(lines: Sequence[Line]) -> list[tuple[Any, ...]]:
    return [line.looks for line in lines]


def tabs(query: QueryDict, chosen: str) -> list[tuple[str, str, bool]]:
    """The states to choose from: name, query, whether it is the chosen one."""
    every = [("All", ""), *((word.capitalize(), word) for word in STATES)]
    return [(name, changed(query, state=word, older=None, newer=None), word == chosen) for name, word in every]
