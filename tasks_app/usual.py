"""WATCH: how long the runs of a task usually wait and take, from the statistics of the last days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from tasks_app.models import Grain, Status
from tasks_app.models.histogram import BUCKETS, unpacked
from tasks_app.stats import quantile, seconds_of

DAYS = 7
FEW = 5
"""With fewer runs than this nothing is told of what is usual."""
MANY = 20
"""With so many, what lasts longer than 19 of 20 is told to be unusual."""

# Summed in the database: of a week there may be hundreds of rows, each with two histograms.
USUAL = """
SELECT task_path, status, sum(count), sum(waits), sum(lengths) FROM tasks_app_runstat
WHERE grain = %(grain)s AND at >= %(since)s AND task_path = ANY (%(paths)s) GROUP BY task_path, status
"""


@dataclass(frozen=True)
class Usual:
    """What the last days tell of one task: how its runs ended, how long they waited, how long the successful took."""

    counts: dict[str, int] = field(default_factory=dict)
    waits: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    lengths: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, status: str, count: int, waits: list[int], lengths: list[int]) -> None:
        """Runs that ended so."""
        self.counts[status] = count
        if status != Status.CANCELLED:
            self.waits[:] = map(sum, zip(self.waits, waits, strict=True))
        if status == Status.SUCCESSFUL:
            self.lengths[:] = lengths

    @property
    def ended(self) -> int:
        """All but those that somebody cancelled."""
        return sum(number for status, number in self.counts.items() if status != Status.CANCELLED)

    @property
    def succeeded(self) -> int:
        return self.counts.get(Status.SUCCESSFUL, 0)

    @property
    def is_known(self) -> bool:
        return sum(self.lengths) >= FEW

    @property
    def wait(self) -> float | None:
        return quantile(self.waits, 0.5)

    @property
    def longest_wait(self) -> float | None:
        return quantile(self.waits, 0.95)

    @property
    def length(self) -> float | None:
        """Seconds that half of them took at most."""
        return quantile(self.lengths, 0.5) if self.is_known else None

    @property
    def longest(self) -> float | None:
        """Seconds that 19 of 20 took at most."""
        return quantile(self.lengths, 0.95) if self.is_known else None

    def rest(self, spent: float) -> float | None:
        """Seconds that half of those which ran at least so long ran on at most; None when too few ever did."""
        if not self.is_known:
            return None
        whole = sum(self.lengths)
        left = whole * (1 - self.part_within(spent))
        if left < 1:
            return None
        end = quantile(self.lengths, 1 - left / 2 / whole)
        return None if end is None else max(end - spent, 0.0)

    def part_within(self, spent: float) -> float:
        """Which part of them, 0 to 1, was done within so many seconds."""
        below = 0.0
        for bucket, number in enumerate(self.lengths):
            begin, end = (seconds_of(bucket - 1) if bucket else 0.0), seconds_of(bucket)
            if spent < end:
                below += number * max(spent - begin, 0.0) / (end - begin)
                break
            below += number
        whole = sum(self.lengths)
        return min(below / whole, 1.0) if whole else 0.0

    def slowness(self, spent: float) -> float | None:
        """How many times as long as usual it has taken; None unless it is beyond 19 of 20, and many are known."""
        length, longest = self.length, self.longest
        if sum(self.lengths) < MANY or not length or longest is None or spent <= longest:
            return None
        return spent / length


def usual(paths: Iterable[str], now: datetime) -> dict[str, Usual]:
    """Of each of these tasks, by one query."""
    found: dict[str, Usual] = {path: Usual() for path in paths}
    since = (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    given: dict[str, Any] = {"grain": Grain.DAY.value, "since": since, "paths": list(found)}
    with connection.cursor() as cursor:
        cursor.execute(USUAL, given)
        for path, status, count, waits, lengths in cursor.fetchall():
            found[path].add(status, int(count), unpacked(waits), unpacked(lengths))
    return found
