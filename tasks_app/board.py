"""WATCH: runs as the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from django.db import connection
from django.db.models import F, Func, JSONField, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left

from tasks_app import deeds, wording
from tasks_app.files import RunFile, files_of, told
from tasks_app.health import PLAIN
from tasks_app.jsonable import Cut
from tasks_app.life import time_left
from tasks_app.masking import masked, masked_call
from tasks_app.models import Status, TaskRun
from tasks_app.policies import Holds

ROWS = 20
LONGEST_LINE = 100
"""A run's place in line is told up to here."""

PREVIEW = 2_000
"""So many characters of arguments and result are read for a row; each may be a megabyte."""

HEAVY = ("args", "kwargs", "return_value")

# Of a bulk act only what it was asked for, in words: the ids of its runs would leave no place for that.
KWARGS = f"""(CASE WHEN task_path = '{deeds.ACTS}'
  THEN jsonb_build_object('verb', kwargs -> 'verb', 'what', kwargs -> 'what') ELSE kwargs END)"""

# Tracebacks are many kilobytes each, and no row shows one.
ATTEMPTS = Func(
    F("attempts"),
    template="(SELECT coalesce(jsonb_agg(entry - 'traceback' ORDER BY number), '[]') "
    "FROM jsonb_array_elements(%(expressions)s) WITH ORDINALITY AS attempt(entry, number))",
    output_field=JSONField(),
)


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
        if wished := deeds.wished(self.run.task_path, kwargs):
            return wording.one_line(wished)
        args, kwargs = masked_call(self.run.task_path, args, kwargs)
        if isinstance(args, list) and isinstance(kwargs, dict):
            return wording.arguments_line(args, kwargs)
        return wording.one_line(kwargs if args == [] else args)

    @property
    def result(self) -> str:
        value = masked(self.return_value)
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


def loaded(preview: str | None) -> Any:
    """The value of a JSON text, or its beginning as text where the rest was left out."""
    if preview is None:
        return None
    try:
        return json.loads(preview)
    except ValueError:
        return Cut(preview)


def rows_of(
    runs: Iterable[TaskRun], now: datetime, served: Container[str], places: Mapping[Any, int] | None = None
) -> list[Row]:
    """The runs as rows; `served` are the queues with a live worker, `places` those in line, looked up unless given."""
    runs = list(runs)
    if places is None:
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
    """The same rows with all that is shown of them."""
    found = {run.pk: run for run in previewed(row.run.pk for row in rows)}
    return [replace(row, run=found[row.run.pk]) for row in rows if row.run.pk in found]


def previews() -> dict[str, Left]:
    """The beginnings of arguments and result, as rows read them; of a query that has no other table."""
    kwargs = RawSQL(KWARGS, (), JSONField())  # noqa: S611  no part is anybody's
    values: dict[str, Any] = {"args": "args", "kwargs": kwargs, "return_value": "return_value"}
    return {f"{name}_preview": Left(Cast(value, TextField()), PREVIEW) for name, value in values.items()}


def previewed(ids: Iterable[Any]) -> list[TaskRun]:
    """The runs as rows show them: of values without bound only the beginning is read."""
    said = Left(Cast("failure_message", TextField()), PREVIEW)
    found = TaskRun.objects.defer(*HEAVY, "failure_message", "attempts").annotate(**previews())
    found = found.annotate(failure_message_preview=said, attempts_told=ATTEMPTS)
    runs: list[Any] = list(found.filter(pk__in=list(ids)))
    for run in runs:
        run.failure_message = run.__dict__.pop("failure_message_preview")
        run.attempts = run.__dict__.pop("attempts_told")
    return runs
