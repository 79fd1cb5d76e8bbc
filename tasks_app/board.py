"""WATCH: the table of recent runs, and what of it is news to a page that was told before."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast, Left

from tasks_app import wording
from tasks_app.clock import database_now
from tasks_app.files import RunFile, files_of, told
from tasks_app.health import PLAIN, Health, served_queues
from tasks_app.life import time_left
from tasks_app.models import Status, TaskRun
from tasks_app.policies import Holds

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

ROWS = 20
LONGEST_LINE = 100
"""A run's place in line is told up to here."""

PREVIEW = 2_000
"""So many characters of arguments and result are read for a row; each may be a megabyte."""

SEEN = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})")

# What tells whether a row looks different: read for all of them at each poll.
LIGHT = (
    *("task_path", "queue_name", "status", "claimed_by", "attempt", "progress", "run_after", "enqueued_at"),
    *("cancel_requested_at", "is_waiting", "limit_key"),
)
HEAVY = ("args", "kwargs", "return_value")


@dataclass(frozen=True)
class Row:
    """One run in the table."""

    run: TaskRun
    now: datetime
    ahead: int | None
    """How many runs are before it in its queue; None when it is not in line, or further back than is told."""
    is_served: bool
    """False when no live worker takes from its queue."""
    held: tuple[str, str] | None = None
    """What a policy says against its beginning, in a few words and in a sentence."""

    @property
    def version(self) -> str:
        """Another text whenever the row would look different, the ticking of times apart."""
        run = self.run
        looks = (
            *(run.status, run.claimed_by, run.attempt, run.progress, run.run_after, run.cancel_requested_at),
            *(self.ahead, self.is_due, self.is_served, self.held, run.is_waiting),
        )
        return blake2b(repr(looks).encode(), digest_size=4).hexdigest()

    @property
    def seen(self) -> str:
        return f"{self.run.short_id}-{self.version}"

    @property
    def is_due(self) -> bool:
        return self.run.run_after <= self.now

    @property
    def place(self) -> str:
        if self.held:
            return "held up"
        if self.ahead is None:
            return "in line"
        return "next in line" if self.ahead == 0 else f"{wording.ordinal(self.ahead + 1)} in line"

    @property
    def waits_for(self) -> str:
        if not self.is_served:
            return "No live worker takes from this queue"
        if self.held:
            return " ".join(self.held)
        if self.run.limit_key:
            return "Waits for its turn and a free worker"
        if self.ahead is None:
            return f"More than {LONGEST_LINE} runs are ahead of it"
        if self.ahead == 0:
            return "Waits for a free worker"
        return "1 run is ahead of it" if self.ahead == 1 else f"{self.ahead} runs are ahead of it"

    @property
    def arguments(self) -> str:
        args, kwargs = (loaded(self.run.__dict__.get(name)) for name in ("args_preview", "kwargs_preview"))
        if isinstance(args, list) and isinstance(kwargs, dict):
            return wording.arguments_line(args, kwargs)
        return wording.one_line(kwargs if args == [] else args)

    @property
    def result(self) -> str:
        value = self.return_value
        quoted = isinstance(value, str) and not isinstance(value, Cut)
        return wording.one_line(json.dumps(value, ensure_ascii=False) if quoted else value)

    @property
    def files(self) -> list[RunFile]:
        return files_of(self.return_value)

    @property
    def return_value(self) -> Any:
        return loaded(self.run.__dict__.get("return_value_preview"))

    @property
    def time_left(self) -> timedelta | None:
        return time_left(self.run, self.now)

    @property
    def ends_at(self) -> datetime | None:
        return self.now + left if (left := self.time_left) else None

    @property
    def files_told(self) -> str:
        return told(self.files)

    @property
    def files_detail(self) -> str:
        """`320, 800 and 1600 px, 412 kB in all`"""
        *most, last = [str(file.longest) for file in self.files if file.longest] or [""]
        sides = f"{', '.join(most)} and {last} px, " if most else f"{last} px, " if last else ""
        return f"{sides}{wording.size(sum(file.bytes for file in self.files))} in all"

    @property
    def last_trouble(self) -> str:
        """What ended the newest attempt that failed."""
        return str(self.run.attempts[-1].get("message", "")) if self.run.attempts else ""

    @property
    def out_template(self) -> str:
        """The cell that tells what came of it: one template a state."""
        return f"runs/out/_{self.run.state}.html"

    @property
    def run_time(self) -> timedelta | None:
        return self.run.run_time(self.now)


class Cut(str):
    """The beginning of a JSON text that is too long to be read whole."""

    __slots__ = ()


def loaded(preview: str | None) -> Any:
    """The value of a JSON text, or its beginning as text where the rest was left out."""
    if preview is None:
        return None
    try:
        return json.loads(preview)
    except ValueError:
        return Cut(preview)


def rows_of(runs: Iterable[TaskRun], now: datetime, served: Container[str]) -> list[Row]:
    """The runs as rows, with the place in line of those that wait; `served` are the queues with a live worker."""
    runs = list(runs)
    in_line = {run.queue_name for run in runs if run.status == Status.READY and not run.claimed_by}
    places = places_in(in_line, now)
    holds = Holds(runs, now)
    return [Row(run, now, places.get(run.pk), run.queue_name in served, holds.why(run)) for run in runs]


# For each queue the first runs that a worker of it would take, in its order, as their index has them.
PLACES = f"""
SELECT run.id, run.place FROM unnest(%(queues)s::text[]) AS queue(name), LATERAL (
  SELECT id, row_number() OVER (ORDER BY priority DESC, run_after, id) - 1 AS place FROM (
    SELECT id, priority, run_after FROM tasks_app_taskrun
    WHERE {PLAIN} AND queue_name = queue.name AND run_after <= %(now)s
    ORDER BY priority DESC, run_after, id LIMIT {LONGEST_LINE}) AS first) AS run
"""  # noqa: S608  its parts are ours


def places_in(queues: Iterable[str], now: datetime) -> dict[Any, int]:
    """How many runs are before each of the first ones of these queues, by its id."""
    names = list(queues)
    if not names:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(PLACES, {"queues": names, "now": now})
        return dict(cursor.fetchall())


def with_previews(rows: Sequence[Row]) -> list[Row]:
    """The same rows with all that is shown of them, of values without bound only the beginning."""
    previews = {f"{name}_preview": Left(Cast(name, TextField()), PREVIEW) for name in HEAVY}
    found = TaskRun.objects.defer(*HEAVY).annotate(**previews).in_bulk([row.run.pk for row in rows])
    return [replace(row, run=found[row.run.pk]) for row in rows if row.run.pk in found]


def full_row(run: TaskRun) -> Row:
    """The row of one run."""
    return with_previews(rows_of([run], database_now(), served_queues()))[0]


@dataclass(frozen=True)
class Inserted:
    """A row that a page does not have yet, and the row that it goes below; at the very top when None."""

    row: Row
    below: str | None


@dataclass(frozen=True)
class Changes:
    """What a page has to be told."""

    inserted: list[Inserted]
    replaced: list[Row]
    gone: list[str]
    finished: list[Row]
    health: Health | None

    def __bool__(self) -> bool:
        return bool(self.inserted or self.replaced or self.gone or self.health)


class Board:
    """The newest runs that somebody may see, and the health of the whole."""

    def __init__(self, user: User | AnonymousUser) -> None:
        self.now = database_now()
        self.health = Health.at(self.now)
        newest = TaskRun.objects.visible_to(user).newest()
        self.rows = rows_of(newest.only(*LIGHT)[:ROWS], self.now, self.health.served)

    @property
    def polling(self) -> bool:
        """False when nothing on it can change any more."""
        return any(not row.run.is_finished for row in self.rows)

    def full_rows(self) -> list[Row]:
        return with_previews(self.rows)

    def changes(self, seen: Iterable[str], health: str) -> Changes:
        """What is news to a page that shows these rows (each `short id-version`) and this version of the health."""
        shown = {match[1]: match[2] for text in list(seen)[: 2 * ROWS] if (match := SEEN.fullmatch(text))}
        order = [row.run.short_id for row in self.rows]
        if [short_id for short_id in shown if short_id in order] != [each for each in order if each in shown]:
            # An answer that was on its way for long put a row above a newer one: all of them are put in their places.
            shown = {short_id: version for short_id, version in shown.items() if short_id not in order}
        news = {
            row.run.pk: row
            for row in with_previews([row for row in self.rows if shown.get(row.run.short_id) != row.version])
        }
        inserted: list[Inserted] = []
        replaced: list[Row] = []
        above: str | None = None
        for light in self.rows:
            short_id = light.run.short_id
            if row := news.get(light.run.pk):
                # Versions are told of the earlier, light reading: what happened since comes with the next poll.
                replaced.append(row) if short_id in shown else inserted.append(Inserted(row, above))
            if short_id in shown or row:
                above = short_id
        return Changes(
            inserted=inserted,
            replaced=replaced,
            gone=[short_id for short_id in shown if short_id not in order],
            finished=[row for row in replaced if row.run.is_finished],
            health=self.health if health != self.health.version else None,
        )
