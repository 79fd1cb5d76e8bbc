"""WATCH: what the statistics say."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from pytest_django import DjangoAssertNumQueries

from tasks_app.models import Grain
from tasks_app.models.histogram import packed, unpacked
from tasks_app.stats import EPOCH, WINDOWS, Course, Tile, bounded, longest, quantile, seconds_of, tiles
from tests.figures import counted

NOW = datetime(2026, 3, 12, 14, 31, 52, tzinfo=UTC)


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


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_longer_than_the_longest_can_have_been(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.lognormvariate(chance.uniform(-3, 5), 1.5) for _ in range(chance.choice((1, 2, 3, 200)))]
    found = histogram(lengths)

    most = longest(found, sum(lengths))

    assert most >= max(lengths) - 1e-6, "or it would cut off what there was"
    told = bounded(found, sum(lengths), (0.5, 0.95, 0.99))
    assert all(part is not None and part <= most for part in told)
    if len(lengths) == 1:
        assert told == [pytest.approx(lengths[0])] * 3


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
    counted(begin, 3, ran=1.5)
    counted(begin + window.length, 2, status="FAILED", queue="mail")
    counted(begin - timedelta(seconds=window.grain), 100)
    counted(begin - window.span - timedelta(seconds=window.grain), 1_000)

    with django_assert_num_queries(3):
        course = Course.of(window, NOW)

    assert [bar.sums.count for bar in course.bars] == [3, 2, *[0] * (window.bars - 2)]
    assert (course.whole.count, course.whole.failed, course.whole.ran) == (5, 2, 7.5)
    assert {queue: sums.count for queue, sums in course.queues.items()} == {"default": 3, "mail": 2}
    assert course.before.count == (100 if begin - timedelta(seconds=window.grain) < window.until_before(NOW) else 0)
    assert Course.of(window, NOW, queue="mail").whole.count == 2
    of_another = Course.of(window, NOW, task="shop.tasks.other")
    assert of_another.whole.count == 0
    assert (of_another.tasks, of_another.task_names) == ({}, ["shop.tasks.greet"])


@pytest.mark.django_db
@pytest.mark.parametrize("name", WINDOWS)
def test_tasks_and_bars_come_to_the_same(name: str) -> None:
    """Though they are read from rows of other lengths of time."""
    chance = random.Random(name)
    window = WINDOWS[name]
    span = 2.2 * window.span.total_seconds()
    for _ in range(150):
        at = NOW - timedelta(seconds=chance.uniform(0, span))
        task = f"shop.tasks.t{chance.randrange(3)}"
        counted(at, chance.randrange(1, 9), task=task, queue=chance.choice("ab"), ran=chance.choice((0.01, 3.0, 700.0)))

    choices: list[dict[str, str]] = [{}, {"task": "shop.tasks.t1"}, {"queue": "b"}]
    for chosen in [*choices, {"task": "shop.tasks.t1", "queue": "b"}]:
        course = Course.of(window, NOW, **chosen)
        for apart in (course.tasks, course.queues):
            assert sum(sums.count for sums in apart.values()) == course.whole.count > 0
            assert sum(sums.lengths for sums in apart.values()) == course.whole.lengths
        assert sum(bar.sums.waits for bar in course.bars) == course.whole.waits
        assert course.before.count > 0


@pytest.mark.parametrize("seed", range(20))
def test_tiles_cover_a_time_once(seed: int) -> None:
    chance = random.Random(seed)
    since = EPOCH + timedelta(minutes=chance.randrange(30 * 1440))
    until = since + timedelta(minutes=chance.randrange(1, 3 * 1440))

    found = list(tiles(since, until))

    assert found[0].since == since and found[-1].until == until
    for one, other in pairwise(found):
        assert one.until == other.since
    for tile in found:
        assert tile.since < tile.until
        assert all((at - EPOCH) % timedelta(seconds=tile.grain) == timedelta(0) for at in (tile.since, tile.until))
    minutes = sum(((tile.until - tile.since) for tile in found if tile.grain == Grain.MINUTE), timedelta())
    assert minutes < timedelta(hours=2)


def test_whole_days_are_read_as_days() -> None:
    day = timedelta(days=1)
    assert list(tiles(EPOCH, EPOCH + 3 * day)) == [Tile(Grain.DAY, EPOCH, EPOCH + 3 * day)]
    assert list(tiles(EPOCH, EPOCH)) == []


@pytest.mark.django_db
def test_what_was_cancelled_is_no_failure_and_no_success() -> None:
    counted(NOW, 3)
    counted(NOW, 1, status="FAILED")
    counted(NOW, 4, status="CANCELLED")

    whole = Course.of(WINDOWS["1h"], NOW).whole
    assert (whole.count, whole.failed_share) == (8, 0.25)


@pytest.mark.parametrize("seed", range(5))
def test_histograms_are_added_as_numbers(seed: int) -> None:
    chance = random.Random(seed)
    one, other = ([chance.choice((0, 0, 1, 999_999_999)) for _ in range(64)] for _ in range(2))

    assert unpacked(packed(one)) == one
    assert unpacked(Decimal(packed(one) + packed(other))) == [a + b for a, b in zip(one, other, strict=True)]
    assert unpacked(0) == unpacked(packed([])) == [0] * 64
