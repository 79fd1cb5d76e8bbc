"""WATCH: what the statistics say: how much ended when and how, and how long it waited and ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from tasks_app.models import Grain, RunStat, Status
from tasks_app.models.stat import BUCKETS, FINENESS, SHORTEST


@dataclass(frozen=True)
class Window:
    """A stretch of time up to now, drawn as so many bars of the same length."""

    name: str
    told: str
    bars: int
    length: timedelta
    """Of one bar."""
    grain: Grain
    """Of the rows that are read for it."""

    @property
    def span(self) -> timedelta:
        return self.bars * self.length

    def begin(self, now: datetime) -> datetime:
        """When its first bar begins; the last one is not over yet. Bars begin on round times of UTC."""
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        last = epoch + (now - epoch) // self.length * self.length
        return last - (self.bars - 1) * self.length


WINDOWS = {
    window.name: window
    for window in (
        Window("1h", "1 h", 60, timedelta(minutes=1), Grain.MINUTE),
        Window("6h", "6 h", 72, timedelta(minutes=5), Grain.MINUTE),
        Window("24h", "24 h", 24, timedelta(hours=1), Grain.HOUR),
        Window("7d", "7 d", 84, timedelta(hours=2), Grain.HOUR),
        Window("30d", "30 d", 30, timedelta(days=1), Grain.DAY),
    )
}


def seconds_of(bucket: float) -> float:
    """The length at this place of a histogram: whole numbers are the ends of buckets, 0 the end of the first."""
    return float(SHORTEST * 2 ** (bucket / FINENESS))


def quantile(histogram: Sequence[int], part: float) -> float | None:
    """Seconds within which this part (0 to 1) of them was done, as far as buckets tell; None for an empty histogram."""
    whole = sum(histogram)
    if not whole:
        return None
    wanted = part * whole
    below = 0
    for bucket, (number, reached) in enumerate(zip(histogram, accumulate(histogram), strict=True)):
        if number and reached >= wanted:
            share = min(max((wanted - below) / number, 0.0), 1.0)
            return seconds_of(bucket - 1 + share) if bucket else SHORTEST * share
        below = reached
    return seconds_of(len(histogram) - 1)


@dataclass
class Sums:
    """What ended in some time, of some tasks: how many of each status, and how long they waited and ran."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("SUCCESSFUL", "FAILED", "CANCELLED"), 0))
    waits: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    lengths: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    waited: float = 0.0
    ran: float = 0.0

    def add(self, row: RunStat) -> None:
        self.counts[row.status] = self.counts.get(row.status, 0) + row.count
        self.waits = [one + other for one, other in zip(self.waits, row.waits, strict=True)]
        self.lengths = [one + other for one, other in zip(self.lengths, row.lengths, strict=True)]
        self.waited += row.waited
        self.ran += row.ran

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        return self.counts[Status.FAILED]

    @property
    def failed_share(self) -> float:
        """Of those that did not end by somebody's wish, 0 to 1."""
        ended = self.count - self.counts[Status.CANCELLED]
        return self.failed / ended if ended else 0.0

    def wait(self, part: float) -> float | None:
        return quantile(self.waits, part)

    def length(self, part: float) -> float | None:
        return quantile(self.lengths, part)


@dataclass(frozen=True)
class Bar:
    """One bar of a window."""

    at: datetime
    sums: Sums


@dataclass(frozen=True)
class Course:
    """What a window shows: its bars, all of it together, and each task and queue apart."""

    window: Window
    bars: list[Bar]
    whole: Sums
    tasks: dict[str, Sums]
    queues: dict[str, Sums]

    @classmethod
    def of(cls, window: Window, now: datetime, *, task: str = "", queue: str = "") -> Course:
        """Read by one query; of one task or queue if they are given."""
        begin = window.begin(now)
        rows = RunStat.objects.filter(grain=window.grain, at__gte=begin)
        if task:
            rows = rows.filter(task_path=task)
        if queue:
            rows = rows.filter(queue_name=queue)
        return cls.summed(window, begin, rows)

    @classmethod
    def summed(cls, window: Window, begin: datetime, rows: Iterable[RunStat]) -> Course:
        course = cls(window, [Bar(begin + n * window.length, Sums()) for n in range(window.bars)], Sums(), {}, {})
        for row in rows:
            place = (row.at - begin) // window.length
            if not 0 <= place < window.bars:
                continue
            for sums in (
                course.bars[place].sums,
                course.whole,
                course.tasks.setdefault(row.task_path, Sums()),
                course.queues.setdefault(row.queue_name, Sums()),
            ):
                sums.add(row)
        return course
