"""WATCH: what the statistics say."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from tasks_app.engine.counting import Sum
from tasks_app.models import Grain, RunStat
from tasks_app.stats import WINDOWS, Course, quantile, seconds_of

NOW = datetime(2026, 3, 12, 14, 31, 52, tzinfo=UTC)


def stat(at: datetime, grain: Grain = Grain.MINUTE, **given: Any) -> RunStat:
    own = {"task_path": "shop.tasks.greet", "queue_name": "default", "status": "SUCCESSFUL", "count": 1, **given}
    return RunStat.objects.create(grain=grain, at=at, **{**vars(Sum()), **own})


def histogram(lengths: list[float]) -> list[int]:
    """As `counting.BUCKET` has PostgreSQL do it."""
    found = [0] * 64
    for length in lengths:
        bucket = next((place for place in range(64) if length < seconds_of(place)), 63)
        found[bucket] += 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_is_at_most_a_fifth_off(seed: int) -> None:
    chance = random.Random(seed)
    lengths = sorted(chance.lognormvariate(chance.uniform(-3, 5), 1.5) for _ in range(2_000))
    cuts = statistics.quantiles(lengths, n=100)

    for part in (0.5, 0.95, 0.99):
        found = quantile(histogram(lengths), part)
        assert found is not None
        assert abs(found / cuts[round(part * 100) - 1] - 1) < 0.2


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile([0] * 64, 0.5) is None


def test_the_shortest_and_the_longest_have_a_quantile() -> None:
    assert 0 <= (quantile([5] + [0] * 63, 0.5) or -1) <= 0.001
    assert (quantile([0] * 63 + [5], 0.95) or 0) > 1_000_000


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_ends_with_the_bar_of_now(name: str) -> None:
    window = WINDOWS[name]
    last = window.begin(NOW) + (window.bars - 1) * window.length

    assert last <= NOW < last + window.length


@pytest.mark.django_db
@pytest.mark.parametrize("name", WINDOWS)
def test_each_end_stands_in_its_bar(name: str, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    window = WINDOWS[name]
    begin = window.begin(NOW)
    stat(begin, window.grain, count=3, ran=1.5)
    stat(begin + window.length, window.grain, count=2, status="FAILED", queue_name="mail")
    stat(begin - timedelta(seconds=window.grain), window.grain, count=100)
    stat(begin, Grain.DAY if window.grain != Grain.DAY else Grain.HOUR, count=100)

    with django_assert_num_queries(1):
        course = Course.of(window, NOW)

    assert [bar.sums.count for bar in course.bars] == [3, 2, *[0] * (window.bars - 2)]
    assert (course.whole.count, course.whole.failed, course.whole.ran) == (5, 2, 1.5)
    assert {queue: sums.count for queue, sums in course.queues.items()} == {"default": 3, "mail": 2}
    assert Course.of(window, NOW, queue="mail").whole.count == 2
    assert Course.of(window, NOW, task="shop.tasks.other").whole.count == 0


@pytest.mark.django_db
def test_what_was_cancelled_is_no_failure_and_no_success() -> None:
    at = NOW.replace(second=0)
    stat(at, count=3)
    stat(at, count=1, status="FAILED")
    stat(at, count=4, status="CANCELLED")

    whole = Course.of(WINDOWS["1h"], NOW).whole
    assert (whole.count, whole.failed_share) == (8, 0.25)
