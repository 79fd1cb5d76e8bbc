"""WATCH: the statistics as their page tells them: drawings, sentences, and tables of tasks and queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from statistics import median

from django.db import connection
from django.db.models import Sum

from tasks_app import wording
from tasks_app.charts import Bars, Column, Line, Lines
from tasks_app.links import runs_url
from tasks_app.models import FailureGroup, FailureStat, TaskRun
from tasks_app.models.histogram import unpacked
from tasks_app.stats import EPOCH, Bar, Course, Sums, Window, bounded, floor

KINDS = (("f-failed", "Failed"), ("f-cancelled", "Cancelled"), ("f-successful", "Successful"))

PACES = {
    "1h": ("a minute", "Minute from"),
    "6h": ("every five minutes", "Five minutes from"),
    "24h": ("an hour", "Hour from"),
    "7d": ("every two hours", "Two hours from"),
    "30d": ("a day", "Day (UTC)"),
}
"""By the name of a window: how often its bars are, and what stands above their names."""

SLOWEST_BEAT = timedelta(minutes=5)
"""While work goes on, the page is drawn anew no more seldom than that, however long its bars are."""

LATE = timedelta(minutes=1)
"""What ended longer ago and is not counted yet: somebody should be counting, and nobody does."""

RISE = 3
"""Failures are said to have risen where there are so many times as many as usually, and no fewer than that."""


def counted_to() -> tuple[datetime, datetime]:
    """The present moment, and up to where the statistics are complete; by one query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp(), (SELECT at FROM tasks_app_countedto ORDER BY id LIMIT 1)")
        now, at = cursor.fetchone()
    return now, at or EPOCH


def beat(window: Window, now: datetime, counted: datetime) -> tuple[datetime, datetime]:
    """Another value whenever the page is to be drawn anew: now and then while work ends, and once when no more does."""
    step = min(window.length / 12, SLOWEST_BEAT)
    return window.begin(now), counted if counted < now - step else floor(now, step)


class Row:
    """One task or queue in a table; only what is asked for is read from its histograms."""

    def __init__(self, full_name: str, sums: Sums, spent: float) -> None:
        self.full_name, self.sums = full_name, sums
        self.name = full_name.rpartition(".")[2] or full_name
        self.share = sums.ran / spent if spent else 0.0
        """Of all the time spent."""

    @cached_property
    def waits(self) -> dict[str, float | None]:
        return told_waits(self.sums)

    @cached_property
    def runs(self) -> dict[str, float | None]:
        return told_lengths(self.sums)

    @property
    def failed_told(self) -> str:
        return wording.percent(self.sums.failed_share)

    @property
    def share_told(self) -> str:
        return wording.percent(self.share)


PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""The quantiles that are told."""


def told_waits(sums: Sums) -> dict[str, float | None]:
    return told_parts(sums.waits, sums.waited)


def told_lengths(sums: Sums) -> dict[str, float | None]:
    return told_parts(sums.lengths, sums.ran)


def told_parts(histogram: int, spent: float) -> dict[str, float | None]:
    return dict(zip(PARTS, bounded(unpacked(histogram), spent, PARTS.values()), strict=True))


SORTS: dict[str, Callable[[Row], float]] = {
    "time": lambda row: row.share,
    "runs": lambda row: row.sums.count,
    "failed": lambda row: row.sums.failed_share,
    "waits": lambda row: row.waits["p95"] or 0.0,
    "slowest": lambda row: row.runs["p95"] or 0.0,
}
"""By the word in the URL: what the tables are sorted by, the most first."""

TITLES = {
    "time": "time spent", "runs": "runs", "failed": "failures", "waits": "time in line", "slowest": "length of a run",
}  # fmt: skip


class Figures:
    """One window of the statistics."""

    def __init__(self, window: Window, now: datetime, task: str = "", queue: str = "", sort: str = "time") -> None:
        self.window, self.now, self.task, self.queue, self.sort = window, now, task, queue, sort
        self.course = Course.of(window, now, task=task, queue=queue)
        self.pace, self.per = PACES[window.name]

    @property
    def title(self) -> str:
        return f"Runs finished {self.pace}"

    @property
    def tasks_title(self) -> str:
        return f"Tasks by {TITLES[self.sort]}"

    # What it comes to

    @property
    def whole(self) -> Sums:
        return self.course.whole

    @property
    def is_empty(self) -> bool:
        return not self.whole.count

    @property
    def count_compared(self) -> str:
        """`12 % more than before`."""
        count, before = self.whole.count, self.course.before.count
        if not before:
            return f"none in the {self.window.told} before"
        change = count / before - 1
        if abs(change) < 0.02:
            return "as many as before"
        if change >= 1:
            return f"{wording.count(round(count / before, 1))} times as many as before"
        return f"{abs(change) * 100:.0f} % {'more' if change > 0 else 'fewer'} than before"

    @property
    def failed_told(self) -> str:
        return wording.percent(self.whole.failed_share)

    @property
    def failed_before(self) -> str:
        return wording.percent(self.course.before.failed_share) if self.course.before.count else ""

    @cached_property
    def wait(self) -> dict[str, float | None]:
        return told_waits(self.whole)

    @cached_property
    def run(self) -> dict[str, float | None]:
        return told_lengths(self.whole)

    @property
    def wait_before(self) -> float | None:
        return self.course.before.wait(0.95)

    @property
    def run_before(self) -> float | None:
        return self.course.before.length(0.95)

    # Drawings

    def label(self, at: datetime) -> str:
        return wording.bar_label(at, self.window.span)

    def told_at(self, label: str) -> str:
        return f"{'at' if self.window.span <= timedelta(days=1) else 'on'} {label}"

    @cached_property
    def labels(self) -> list[str]:
        return [self.label(bar.at) for bar in self.course.bars]

    @cached_property
    def axis(self) -> list[str]:
        return wording.axis_labels(self.course.bars[0].at, self.window.span)

    @cached_property
    def bars(self) -> Bars:
        columns = [
            Column(label, (bar.sums.failed, bar.sums.cancelled, bar.sums.successful), self.runs_of(bar))
            for label, bar in zip(self.labels, self.course.bars, strict=True)
        ]
        return Bars.of(KINDS, columns, self.axis, self.bars_said)

    def runs_of(self, bar: Bar) -> str:
        return runs_url(since=bar.at, until=bar.until, task=self.task, queue=self.queue)

    @cached_property
    def bars_said(self) -> str:
        counts = [bar.sums.count for bar in self.course.bars[:-1]]
        least, most = wording.count(min(counts)), wording.count(max(counts))
        said = f"Between {least} and {most} runs {self.pace}"
        if least == most:
            said = f"{wording.plural(max(counts), 'run')} {self.pace}"
        if not max(counts) and self.whole.count:  # the last bar, which is not over, has all of them
            said = f"{wording.plural(self.whole.count, 'run')}, all since {self.labels[-1]}"
        if self.rise:
            return f"{said}; failures rose {self.told_at(self.label(self.rise.at))}."
        return f"{said}; {'no rise of failures' if self.whole.failed else 'none failed'}."

    @cached_property
    def rise(self) -> Bar | None:
        """The bar with the most failures, if they are many more than in others."""
        worst = max(self.course.bars, key=lambda bar: bar.sums.failed)
        usual = median(bar.sums.failed for bar in self.course.bars)
        return worst if worst.sums.failed >= RISE * max(usual, 1) else None

    @cached_property
    def cause(self) -> FailureGroup | None:
        """The failure that there was most of when they rose."""
        if self.rise is None:
            return None
        found = FailureStat.objects.filter(
            grain=self.window.grain, at__gte=self.rise.at, at__lt=self.rise.until,
            **({"queue_name": self.queue} if self.queue else {}),
            **({"group__task_path": self.task} if self.task else {}),
        )  # fmt: skip
        names = ("group_id", "group__task_path", "group__failure", "group__exception")
        most = found.values_list(*names).annotate(n=Sum("count")).order_by("-n", "group_id").first()
        if most is None or most[1] is None:
            return None
        return FailureGroup(pk=most[0], task_path=most[1], failure=most[2], exception=most[3])

    @cached_property
    def link(self) -> dict[str, str] | None:
        """The most of them, for the sentence below the drawing."""
        if self.cause is None:
            return None
        return {"url": self.cause.get_absolute_url(), "told": f"{self.cause.kind} in {self.cause.name}"}

    @cached_property
    def run_lines(self) -> Lines:
        return self.lines(
            told_lengths,
            lambda half, at, most: (
                f"Half of all runs take up to {half}; the slowest twentieth took longest {at}, {most} and more."
            ),
        )

    @cached_property
    def wait_lines(self) -> Lines:
        return self.lines(
            told_waits,
            lambda half, at, most: (
                f"Half of all runs start within {half}; the last twentieth waited longest {at}, {most} and more."
            ),
        )

    def lines(self, parts_of: Callable[[Sums], dict[str, float | None]], say: Callable[[str, str, str], str]) -> Lines:
        found = [parts_of(bar.sums) for bar in self.course.bars]
        lines = [Line(f"l-{name}", name, [parts[name] for parts in found]) for name in PARTS]
        half = parts_of(self.whole)["p50"]
        tops = [(value, label) for value, label in zip(lines[1].values, self.labels, strict=True) if value is not None]
        if half is None or not tops:
            return Lines.of(lines, self.labels, self.axis, "No worker took anything that ended in this time.")
        most, at = max(tops, key=lambda it: it[0])
        return Lines.of(
            lines, self.labels, self.axis, say(wording.duration(half), self.told_at(at), wording.duration(most))
        )

    # Tables

    @cached_property
    def tasks(self) -> list[Row]:
        return self.sorted(self.course.tasks)

    @cached_property
    def queues(self) -> list[Row]:
        return self.sorted(self.course.queues)

    def sorted(self, sums: Mapping[str, Sums]) -> list[Row]:
        spent = sum(each.ran for each in sums.values())
        found = (Row(name, each, spent) for name, each in sums.items())
        return sorted(found, key=lambda row: (-SORTS[self.sort](row), row.full_name))

    # What may be chosen, the chosen one also where nothing of it ended

    @property
    def task_choices(self) -> list[str]:
        return with_chosen(self.course.task_names, self.task)

    @property
    def queue_choices(self) -> list[str]:
        return with_chosen(self.course.queue_names, self.queue)


def with_chosen(names: Iterable[str], chosen: str) -> list[str]:
    return sorted({*names, *([chosen] if chosen else [])})


def uncounted_since(now: datetime, counted: datetime) -> datetime | None:
    """When the first run ended that should be in the statistics by now; None when nobody is late."""
    late = TaskRun.objects.finished().filter(finished_at__gt=counted, finished_at__lt=now - LATE)
    return late.order_by("finished_at").values_list("finished_at", flat=True).first()
