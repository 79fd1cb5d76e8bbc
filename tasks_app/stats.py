"""WATCH: what the statistics say: how much ended when and how, and how long it waited and ran."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from django.db import connection

from tasks_app.clock import EPOCH
from tasks_app.models import Grain, RunStat, Status
from tasks_app.models.histogram import packed, unpacked
from tasks_app.models.stat import FINENESS, KEPT, SHORTEST


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
        return floor(now, self.length) - (self.bars - 1) * self.length

    def until_before(self, now: datetime) -> datetime:
        """Up to where the window before is compared with what has passed of this one, as exactly as rows are kept."""
        finest = Grain.MINUTE if 2 * self.span <= KEPT[Grain.MINUTE] else Grain.HOUR
        return floor(now - self.span, timedelta(seconds=finest))


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


def floor(at: datetime, length: timedelta) -> datetime:
    """The last round time of this length."""
    return EPOCH + (at - EPOCH) // length * length


def ceiling(at: datetime, length: timedelta) -> datetime:
    return EPOCH - (EPOCH - at) // length * length


@dataclass(frozen=True)
class Tile:
    """All rows of one grain that begin from then on, and before then."""

    grain: Grain
    since: datetime
    until: datetime


def tiles(since: datetime, until: datetime) -> Iterator[Tile]:
    """This time in as few rows as there can be: whole days in the middle, then hours, minutes at its ends alone.

    Both moments begin a minute. Where `until` lies ahead, what has not ended yet is told by nothing but its rows.
    """
    yield from tiled(since, until, (Grain.DAY, Grain.HOUR, Grain.MINUTE))


def tiled(since: datetime, until: datetime, grains: tuple[Grain, ...]) -> Iterator[Tile]:
    if since >= until or not grains:
        return
    length = timedelta(seconds=grains[0])
    first, last = ceiling(since, length), floor(until, length)
    if first >= last:
        yield from tiled(since, until, grains[1:])
        return
    yield from tiled(since, first, grains[1:])
    yield Tile(grains[0], first, last)
    yield from tiled(last, until, grains[1:])


def seconds_of(bucket: float) -> float:
    """The length at this place of a histogram: whole numbers are the ends of buckets, 0 the end of the first."""
    return float(SHORTEST * 2 ** (bucket / FINENESS))


def quantiles(histogram: Sequence[int], parts: Iterable[float]) -> list[float | None]:
    """For each part (0 to 1) the seconds within which so much was done, as far as buckets tell; None for no runs."""
    reached = list(accumulate(histogram))
    if not reached or not reached[-1]:
        return [None for _ in parts]
    found: list[float | None] = []
    for part in parts:
        wanted = part * reached[-1]
        # The first bucket that has any and reaches so far.
        bucket = bisect_left(reached, max(wanted, 1e-9))
        share = (wanted - (reached[bucket] - histogram[bucket])) / histogram[bucket]
        share = min(max(share, 0.0), 1.0)
        found.append(seconds_of(bucket - 1 + share) if bucket else SHORTEST * share)
    return found


def longest(histogram: Sequence[int], spent: float) -> float:
    """What no length exceeded, going by `spent`, all of them together: of one run it is its length, of many no help.

    The last bucket that has any holds the longest; all the others took at least as long as their buckets begin.
    """
    last = max((bucket for bucket, number in enumerate(histogram) if number), default=0)
    others = sum(
        (number - (bucket == last)) * seconds_of(bucket - 1) for bucket, number in enumerate(histogram) if bucket
    )
    return max(spent - others, seconds_of(last - 1) if last else 0.0)


def bounded(histogram: Sequence[int], spent: float, parts: Iterable[float]) -> list[float | None]:
    """`quantiles`, none of which is longer than the longest can have been; of one length, that one itself."""
    if sum(histogram) == 1:
        return [spent for _ in parts]
    most = longest(histogram, spent)
    return [None if found is None else min(found, most) for found in quantiles(histogram, parts)]


def quantile(histogram: Sequence[int], part: float) -> float | None:
    """One of `quantiles`."""
    return quantiles(histogram, [part])[0]


@dataclass
class Sums:
    """What ended in some time, of some tasks: how many of each status, and how long they waited and ran."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("SUCCESSFUL", "FAILED", "CANCELLED"), 0))
    waits: int = 0
    """A histogram as one number, as the database has it."""
    lengths: int = 0
    waited: float = 0.0
    ran: float = 0.0

    def add(self, row: RunStat) -> None:
        self.take((row.status, row.count, packed(row.waits), packed(row.lengths), row.waited, row.ran))

    def take(self, summed: Sequence[Any]) -> None:
        """Add what the database has summed up: `SUMS`."""
        status, count, waits, lengths, waited, ran = summed
        self.counts[status] = self.counts.get(status, 0) + count
        self.waits += int(waits)
        self.lengths += int(lengths)
        self.waited += waited
        self.ran += ran

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def successful(self) -> int:
        return self.counts[Status.SUCCESSFUL]

    @property
    def failed(self) -> int:
        return self.counts[Status.FAILED]

    @property
    def cancelled(self) -> int:
        return self.counts[Status.CANCELLED]

    @property
    def failed_share(self) -> float:
        """Of those that did not end by somebody's wish, 0 to 1."""
        ended = self.count - self.counts[Status.CANCELLED]
        return self.failed / ended if ended else 0.0

    def wait(self, part: float) -> float | None:
        return bounded(unpacked(self.waits), self.waited, [part])[0]

    def length(self, part: float) -> float | None:
        return bounded(unpacked(self.lengths), self.ran, [part])[0]


@dataclass(frozen=True)
class Bar:
    """One bar of a window."""

    at: datetime
    until: datetime
    sums: Sums


SUMS = "status, sum(count)::bigint, sum(waits), sum(lengths), sum(waited), sum(ran)"

BARS = """
SELECT floor(extract(epoch FROM at - %(begin)s) / %(length)s)::int, {sums} FROM {table}
WHERE grain = %(grain)s AND at >= %(begin)s AND at < %(end)s {filters} GROUP BY 1, status
"""

PARTS = """
SELECT task_path, queue_name, {sums} FROM tasks_app_runstat WHERE {tiles} GROUP BY task_path, queue_name, status
"""

BEFORE = "SELECT {sums} FROM {table} WHERE ({tiles}) {filters} GROUP BY status"


@dataclass(frozen=True)
class Course:
    """What a window shows: its bars, all of it together, and each task and queue apart; and the window before."""

    window: Window
    bars: list[Bar]
    whole: Sums
    before: Sums
    """Of the time before, which is just as long as what has passed of this one."""
    tasks: dict[str, Sums]
    queues: dict[str, Sums]
    task_names: list[str]
    """All tasks that ended something in this time, chosen or not."""
    queue_names: list[str]

    @classmethod
    def of(cls, window: Window, now: datetime, *, task: str = "", queue: str = "") -> Course:
        """Read by three queries; of one task or queue if they are given."""
        begin = window.begin(now)
        end = begin + window.span
        # Where no task is chosen, their sum is there already.
        table = "tasks_app_runstat" if task else "tasks_app_queuestat"
        filters = f"{'AND task_path = %(task)s' if task else ''} {'AND queue_name = %(queue)s' if queue else ''}"
        chosen = {"task": task, "queue": queue}

        bars = [Bar(at := begin + n * window.length, at + window.length, Sums()) for n in range(window.bars)]
        period = {"begin": begin, "end": end, "length": window.length.total_seconds(), "grain": window.grain.value}
        whole = Sums()
        for place, *summed in rows(BARS.format(sums=SUMS, table=table, filters=filters), {**period, **chosen}):
            bars[place].sums.take(summed)
            whole.take(summed)

        before = Sums()
        sql, given = tiles_sql(tiles(begin - window.span, window.until_before(now)))
        for one_way in rows(BEFORE.format(sums=SUMS, table=table, tiles=sql, filters=filters), {**given, **chosen}):
            before.take(one_way)

        tasks: dict[str, Sums] = {}
        queues: dict[str, Sums] = {}
        task_names, queue_names = set(), set()
        # Today's row tells of today so far, so that no finer one need be read for it.
        sql, given = tiles_sql(tiles(begin, ceiling(end, timedelta(days=1))))
        for its_task, its_queue, *summed in rows(PARTS.format(sums=SUMS, tiles=sql), given):
            task_names.add(its_task)
            queue_names.add(its_queue)
            if task in ("", its_task) and queue in ("", its_queue):
                tasks.setdefault(its_task, Sums()).take(summed)
                queues.setdefault(its_queue, Sums()).take(summed)
        return cls(window, bars, whole, before, tasks, queues, sorted(task_names), sorted(queue_names))


def tiles_sql(found: Iterable[Tile]) -> tuple[str, dict[str, Any]]:
    """The condition that a row belongs to one of them, and what it is given."""
    conditions: list[str] = []
    given: dict[str, Any] = {}
    for n, tile in enumerate(found):
        conditions.append(f"grain = %(grain{n})s AND at >= %(since{n})s AND at < %(until{n})s")
        given |= {f"grain{n}": tile.grain.value, f"since{n}": tile.since, f"until{n}": tile.until}
    return " OR ".join(f"({condition})" for condition in conditions), given


def rows(statement: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, given)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found
