"""WATCH: failures that look alike, group by group: how many lately, what the newest says, what its runs share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Left, Now

from tasks_app import wording
from tasks_app.alike import without_differences
from tasks_app.board import HEAVY, Row, previews
from tasks_app.charts import Bars, Column, Spark
from tasks_app.links import runs_url
from tasks_app.masking import MASK, masked_call
from tasks_app.models import FailureGroup, FailureStat, Grain, TaskRun
from tasks_app.models.failure import FailureGroupQuerySet
from tasks_app.stats import Window

STATES = ("open", "dismissed", "muted")
"""As the methods of the queryset are called, and the tabs of the page."""

COUNTED = 1_000
"""Tabs count no further."""

NAMES = 200
"""Tasks and queues to choose from, those with the newest failures."""

SEARCHED = 20_000
"""A search looks at so many groups, the newest."""

LOOKED_AT = 5_000

SPARK_HOURS = 24

RUNS = 20
"""The newest runs on the page of a group."""

COMPARED = 50
"""So many runs are looked through for what they share."""

MOST_SHARED = 6

MESSAGE = 400

TABS = f"""
SELECT clock_timestamp(), {{counts}},
  (SELECT array_agg(DISTINCT task_path) FROM (
    SELECT task_path FROM tasks_app_failuregroup ORDER BY last_at DESC, id DESC LIMIT {LOOKED_AT}) AS newest),
  (SELECT array_agg(DISTINCT queue_name) FROM (
    SELECT queue_name FROM tasks_app_failurestat WHERE grain = {Grain.DAY.value} ORDER BY at DESC
    LIMIT {LOOKED_AT}) AS newest)
"""  # noqa: S608  its parts are ours

# The last hour in minutes, the last week in hours: 228 rows a group and queue at most, found by their own index.
COUNTS = f"""
SELECT group_id, sum(count) FILTER (WHERE grain = {Grain.MINUTE.value}),
  sum(count) FILTER (WHERE grain = {Grain.HOUR.value} AND at > %(now)s - interval '{SPARK_HOURS} hours'),
  sum(count) FILTER (WHERE grain = {Grain.HOUR.value}),
  array_agg(floor(extract(epoch FROM %(now)s - at) / 3600)::int)
    FILTER (WHERE grain = {Grain.HOUR.value} AND at > %(now)s - interval '{SPARK_HOURS} hours'),
  array_agg(count) FILTER (WHERE grain = {Grain.HOUR.value} AND at > %(now)s - interval '{SPARK_HOURS} hours')
FROM (
  SELECT group_id, grain, at, count, queue_name FROM tasks_app_failurestat
  WHERE group_id = ANY (%(groups)s) AND grain = {Grain.MINUTE.value} AND at > %(now)s - interval '1 hour'
  UNION ALL
  SELECT group_id, grain, at, count, queue_name FROM tasks_app_failurestat
  WHERE group_id = ANY (%(groups)s) AND grain = {Grain.HOUR.value} AND at > %(now)s - interval '7 days') AS stat
WHERE %(queue)s IN ('', queue_name) GROUP BY group_id
"""  # noqa: S608  its parts are ours

NEWEST = f"""
SELECT groups.id, run.id, run.said FROM unnest(%(groups)s::bigint[]) AS groups(id),
LATERAL (
  SELECT id, left(failure_message, {MESSAGE}) AS said FROM tasks_app_taskrun
  WHERE failure_group_id = groups.id ORDER BY finished_at DESC, id DESC LIMIT 1) AS run
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Line:
    """One group, as its row tells it."""

    group: FailureGroup
    now: datetime
    hour: int = 0
    day: int = 0
    week: int = 0
    course: tuple[int, ...] = ()
    newest: Any = None
    """The id of its newest run; None when all of them are deleted."""
    said: str = ""
    """What that one says."""

    @property
    def state(self) -> str:
        return self.group.state(self.now)

    @property
    def is_new(self) -> bool:
        return self.group.first_at > self.now - timedelta(days=1)

    @property
    def message(self) -> str:
        return self.group.without_kind(self.said or self.group.message)

    @property
    def spark(self) -> Spark:
        return Spark(self.course, f"{wording.plural(self.day, 'failure')} in the last {SPARK_HOURS} hours")

    @property
    def windows(self) -> list[tuple[str, int]]:
        return [("1 h", self.hour), ("24 h", self.day), ("7 d", self.week)]

    @property
    def runs_url(self) -> str:
        return runs_url(group=self.group.pk, state="failed")

    @property
    def query(self) -> str:
        """Its runs, as the confirmation of an act on many of them is told."""
        return f"group={self.group.pk}&state=failed"


def looks(groups: Iterable[FailureGroup]) -> list[tuple[Any, ...]]:
    """All that their rows show, but for times that tick; figures of the last hour and week fall by the minute."""
    found: list[tuple[Any, ...]] = []
    for group in groups:
        now: datetime = group.__dict__["now"]
        fades = group.last_at > now - timedelta(days=8)
        minute = now.replace(second=0, microsecond=0) if fades else None
        found.append((group.pk, group.count, group.last_at, group.dismissed_at, group.muted_at, group.note, minute))
    return found


def found(state: str, *, task: str = "", queue: str = "", q: str = "", since: timedelta | None = None) -> Any:
    """The groups in this state, of one task, seen in one queue, like this text, or seen since then."""
    groups: FailureGroupQuerySet = getattr(FailureGroup.objects, state)()
    if task:
        groups = groups.filter(task_path=task)
    if queue:
        seen = FailureStat.objects.filter(group=OuterRef("pk"), grain=Grain.DAY, queue_name=queue)
        groups = groups.filter(Exists(seen))
    if q:
        # Told as groups are, without what differs: whoever searches for "order 77" finds "order #".
        told = Q(message__icontains=without_differences(q)) | Q(message__icontains=q)
        newest = FailureGroup.objects.newest().values("pk")[:SEARCHED]
        groups = groups.filter(told | Q(exception__icontains=q) | Q(task_path__icontains=q), pk__in=newest)
    if since:
        groups = groups.filter(last_at__gt=Now() - since)
    return groups.annotate(now=Now())


@dataclass(frozen=True)
class Tabs:
    """What there is to choose from."""

    now: datetime
    counts: dict[str, str]
    tasks: list[str]
    queues: list[str]

    @classmethod
    def look(cls) -> Tabs:
        """By one query; each count stops at `COUNTED`."""
        parts: list[str] = []
        given: list[Any] = []
        for state in STATES:
            groups: FailureGroupQuerySet = getattr(FailureGroup.objects, state)()
            sql, params = groups.newest().values("pk")[: COUNTED + 1].query.sql_with_params()
            parts.append(f"(SELECT count(*) FROM ({sql}) AS {state})")  # noqa: S608  Django's own
            given.extend(params)
        with connection.cursor() as cursor:
            cursor.execute(TABS.format(counts=", ".join(parts)), given)
            now, *counts, tasks, queues = cursor.fetchone()
        told = {state: wording.count(count, COUNTED) for state, count in zip(STATES, counts, strict=True)}
        return cls(now, told, sorted(tasks or [])[:NAMES], sorted(queues or [])[:NAMES])


def lines(groups: Sequence[FailureGroup], now: datetime, queue: str = "") -> list[Line]:
    """The groups with their figures, in one queue if it is given, and their newest runs, by two queries."""
    given: dict[str, Any] = {"groups": [group.pk for group in groups], "now": now, "queue": queue}
    with connection.cursor() as cursor:
        cursor.execute(COUNTS, given)
        counts = {row[0]: row[1:] for row in cursor.fetchall()}
        cursor.execute(NEWEST, given)
        newest = {row[0]: row[1:] for row in cursor.fetchall()}
    found = []
    for group in groups:
        hour, day, week, back, numbers = counts.get(group.pk, (0, 0, 0, None, None))
        course = [0] * SPARK_HOURS
        for hours, number in zip(back or [], numbers or [], strict=True):
            if 0 <= hours < SPARK_HOURS:
                course[SPARK_HOURS - 1 - hours] += number
        run_id, said = newest.get(group.pk, (None, ""))
        found.append(Line(group, now, hour or 0, day or 0, week or 0, tuple(course), run_id, said or ""))
    return found


def newest_runs(group: FailureGroup, most: int) -> list[TaskRun]:
    """Its newest runs, of values without bound only the beginning."""
    runs = TaskRun.objects.filter(failure_group=group).order_by("-finished_at", "-id")
    said = Left("failure_message", MESSAGE)
    return list(runs.defer(*HEAVY, "attempts", "failure_message").annotate(**previews(), said=said)[:most])


@dataclass(frozen=True)
class Shared:
    """An argument, and its commonest value among the runs that were looked through."""

    name: str
    value: str
    runs: int
    of: int

    @property
    def told(self) -> str:
        """`in all 50`, `in 31 of 50`."""
        return f"in all {self.of}" if self.runs == self.of else f"in {self.runs} of {self.of}"


def shared(runs: Sequence[TaskRun]) -> list[Shared]:
    """Which named arguments had the same value in most of them; nothing of too few runs to say so."""
    values: dict[str, Counter[str]] = {}
    for run in runs:
        try:
            arguments = json.loads(run.__dict__["kwargs_preview"])
        except ValueError:  # longer than was read
            continue
        _, named = masked_call(run.task_path, [], arguments)
        for name, value in named.items() if isinstance(named, dict) else ():
            if value != MASK:
                values.setdefault(name, Counter())[wording.one_line(value)] += 1
    found = [Shared(name, *counted.most_common(1)[0], len(runs)) for name, counted in values.items()]
    return sorted((each for each in found if each.runs > max(1, each.of / 2)), key=lambda each: -each.runs)[
        :MOST_SHARED
    ]


class Account:
    """One group with all that its page shows."""

    def __init__(self, group: FailureGroup, window: Window, now: datetime) -> None:
        self.group, self.window, self.now = group, window, now
        self.line = lines([group], now)[0]
        self.runs = newest_runs(group, COMPARED)

    @property
    def rows(self) -> list[Row]:
        return [Row(run, self.now, None, is_served=True) for run in self.runs[:RUNS]]

    @property
    def shared(self) -> list[Shared]:
        return shared(self.runs)

    @property
    def traceback(self) -> str:
        """Of the newest run's last attempt."""
        if not self.runs:
            return ""
        attempts = TaskRun.objects.filter(pk=self.runs[0].pk).values_list("attempts__-1__traceback", flat=True).first()
        return attempts if isinstance(attempts, str) else ""

    def bars(self) -> Bars:
        """How many there were when."""
        begin, length = self.window.begin(self.now), self.window.length
        counts = [0] * self.window.bars
        stats = FailureStat.objects.filter(group=self.group, grain=self.window.grain, at__gte=begin)
        for at, count in stats.values_list("at", "count"):
            place = (at - begin) // length
            if 0 <= place < self.window.bars:
                counts[place] += count
        columns = []
        for n, count in enumerate(counts):
            at = begin + n * length
            url = runs_url(group=self.group.pk, state="failed", since=at, until=at + length)
            columns.append(Column(wording.bar_label(at, self.window.span), (count,), url))
        return Bars.of(
            [("f-failed", "Failed")], columns, wording.axis_labels(begin, self.window.span), said(counts, length)
        )


def said(counts: Sequence[int], length: timedelta) -> str:
    whole = sum(counts)
    if not whole:
        return "None in this time."
    quiet = len(counts) - 1 - max(n for n, count in enumerate(counts) if count)
    end = f"none in the last {wording.about(quiet * length)}" if quiet else "and they go on"
    return f"{wording.plural(whole, 'failure')} in this time, {end}."
