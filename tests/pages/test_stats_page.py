"""WATCH: the page of the statistics, and what its drawings say."""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tasks_app import charts, wording
from tasks_app.charts import Bars, Column, Line, Lines, Scale, Spark
from tasks_app.clock import database_now
from tasks_app.figures import Figures, beat
from tasks_app.models import CountedTo, Status, TaskRun
from tasks_app.stats import EPOCH, WINDOWS
from tests.figures import all_counted, counted, failed

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def now() -> datetime:
    found = database_now()
    all_counted(found - timedelta(hours=1))
    return found


def page(client: Client, query: str = "") -> str:
    response = client.get(f"/stats/?{query}")
    assert response.status_code == 200
    return html.unescape(response.content.decode()).replace(wording.NBSP, " ")


def test_the_page_tells_what_ended(operators_client: Client, now: datetime) -> None:
    counted(now, 90, ran=3.0)
    counted(now, 10, status="FAILED", ran=3.0)
    counted(now, 4, status="CANCELLED", task="shop.tasks.other", queue="mail")
    counted(now - timedelta(hours=30), 52)

    text = page(operators_client)

    for said in (
        "104 <small>in 24 h<br>2 times as many as before",
        "10.0 % <small>10 runs<br>0.0 % before",
        "greet",
        "mail",
    ):
        assert said in text
    bar = re.search(r'aria-label="([^"]*90 successful[^"]*)"', text)
    assert bar
    assert bar[1].endswith(": 90 successful, 4 cancelled, 10 failed")


@pytest.mark.parametrize("name", WINDOWS)
def test_each_window_draws_and_tells_every_bar(operators_client: Client, now: datetime, name: str) -> None:
    window = WINDOWS[name]
    at = window.begin(now) + 3 * window.length
    counted(at, 12)
    counted(at, 3, status="FAILED")

    text = page(operators_client, f"window={name}")

    label = wording.bar_label(at, window.span)
    throughput = text[text.index('id="throughput"') : text.index('id="run-time"')]
    assert throughput.count('<th scope="row">') == window.bars
    row = re.search(rf'<th scope="row"><a href="([^"]+)">{label}</a></th>(.*?)</tr>', throughput)
    assert row
    assert re.findall(r'<td class="n">(\d+)', row[2]) == ["12", "0", "3"]
    assert row[1] == f"/runs/?since={at:%Y-%m-%dT%H%%3A%M%%3A%SZ}&until={at + window.length:%Y-%m-%dT%H%%3A%M%%3A%SZ}"
    assert f'aria-label="{label}: 12 successful, 0 cancelled, 3 failed"' in throughput
    blocks = {
        kind: float(high) for kind, high in re.findall(r'class="(f-\w+)" d="M[\d. ]+h[\d.]+v([\d.]+)', throughput)
    }
    assert blocks["f-successful"] == pytest.approx(4 * blocks["f-failed"], rel=0.01)


def test_where_failures_rose_their_cause_is_named(operators_client: Client, now: datetime) -> None:
    for hours in range(10):
        counted(now - timedelta(hours=hours), 100)
        counted(now - timedelta(hours=hours), 1, status="FAILED")
    counted(now - timedelta(hours=5), 40, status="FAILED")
    group = failed(now, *[300.0] * 3, exception="httpx.ConnectTimeout")
    failed(now, 300, message="a rare one")

    text = page(operators_client)

    at = wording.bar_label(WINDOWS["24h"].begin(now) + timedelta(hours=18), timedelta(days=1))
    assert f"failures rose at {at}." in text
    assert f'<a href="/failures/{group.pk}/">ConnectTimeout in greet</a>' in text


def test_what_ended_in_the_last_bar_alone_is_told_so(operators_client: Client, now: datetime) -> None:
    counted(now, 12)
    counted(now, 7, status="FAILED")

    text = page(operators_client)

    at = wording.bar_label(WINDOWS["24h"].begin(now) + timedelta(hours=23), timedelta(days=1))
    assert f"19 runs, all since {at}; failures rose at {at}." in text
    assert "0 runs an hour" not in text


def test_one_run_took_as_long_as_it_took(operators_client: Client, now: datetime) -> None:
    counted(now, waited=9.0, ran=30.0)

    text = page(operators_client)

    assert "<dt>Waits, p95</dt><dd>9.0 s <small>p50 9.0 s, p99 9.0 s" in text
    assert "<dt>Runs, p95</dt><dd>30.0 s <small>p50 30.0 s, p99 30.0 s" in text


def test_task_and_queue_are_chosen_in_the_url(operators_client: Client, now: datetime) -> None:
    counted(now, 7)
    counted(now, 5, task="shop.tasks.send", queue="mail")
    counted(now, 3, task="shop.tasks.send")

    def finished(query: str) -> str:
        found = re.search(r"<dt>Finished</dt><dd>(\d+)", page(operators_client, query))
        return found[1] if found else ""

    assert finished("") == "15"
    assert finished("task=shop.tasks.send") == "8"
    assert finished("queue=mail") == "5"
    assert finished("task=shop.tasks.send&queue=default") == "3"
    text = page(operators_client, "task=shop.tasks.gone")
    assert "Nothing of that ended in the last 24 h" in text
    assert '<option value="shop.tasks.gone" selected>' in text


def test_the_tables_are_sorted_by_what_is_asked_for(operators_client: Client, now: datetime) -> None:
    counted(now, 100, task="a.often", ran=0.01)
    counted(now, 1, task="a.slow", ran=60, waited=0.001)
    counted(now, 10, task="a.failing", ran=1, status="FAILED")
    counted(now, 20, task="a.waiting", ran=1, waited=300)

    def first(sort: str) -> str:
        found = re.search(r'<a class="task"[^>]*>(\w+)<', page(operators_client, f"sort={sort}"))
        return found[1] if found else ""

    assert {sort: first(sort) for sort in ("time", "runs", "failed", "waits", "slowest")} == {
        "time": "slow", "runs": "often", "failed": "failing", "waits": "waiting", "slowest": "slow",
    }  # fmt: skip


def test_many_tasks_are_shown_in_part(operators_client: Client, now: datetime) -> None:
    for n in range(60):
        counted(now, 1, task=f"a.t{n}")
    assert page(operators_client).count('class="task"') == 50
    assert "Show 10 more" in page(operators_client)
    assert page(operators_client, "all=1").count('class="task"') == 60


def test_who_is_no_operator_finds_nothing(client: Client) -> None:
    assert client.get("/stats/").status_code == 404


def test_nothing_yet_says_what_will_be_here(operators_client: Client) -> None:
    assert "Nothing ended in the last 24 h" in page(operators_client)


def test_what_nobody_counts_is_told(operators_client: Client, now: datetime) -> None:
    at = now - timedelta(minutes=30)
    TaskRun.objects.create(
        task_path="a.b", status=Status.SUCCESSFUL, run_after=at, enqueued_at=at, finished_at=at, attempt=1
    )
    assert f"What ended since {timezone.localtime(at):%H:%M} is not counted yet" in re.sub(
        r"\d+ \w+ (?=\d\d:\d\d is not)", "", page(operators_client)
    )
    CountedTo.objects.update(at=now)
    assert "is not counted yet.</b>" not in page(operators_client)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("window=9y", "There is no such window; here are the last 24 h."),
        ("sort=%00", "The tables cannot be sorted like that"),
        ("task=%00" + "x" * 20_000, "Nothing of that ended"),
        ("queue=%ff%fe", "Nothing of that ended"),
        ("all=" + "9" * 5_000, "Nothing ended"),
    ],
)
def test_a_bad_url_is_put_right_with_a_sentence(operators_client: Client, query: str, said: str) -> None:
    assert said in page(operators_client, query)


def test_hostile_names_are_shown_and_do_nothing(operators_client: Client, now: datetime) -> None:
    hostile = "<script>alert(1)</script>\u202e\"'>"
    counted(now, 3, task=f"a.{hostile}", queue=hostile, status="FAILED")
    failed(now, 1, task=f"a.{hostile}", exception=hostile, queue=hostile)
    text = operators_client.get("/stats/").content.decode()
    assert "<script>alert" not in text
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", text)


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, now: datetime, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    counted(now, 3)
    found = re.search(r'data-poll hx-get="([^"]+)"', operators_client.get("/stats/?window=30d").content.decode())
    assert found
    poll = html.unescape(found[1])

    with django_assert_num_queries(1):
        assert operators_client.get(poll, headers=HTMX).status_code == 204
    all_counted(now - timedelta(minutes=30))
    assert operators_client.get(poll, headers=HTMX).status_code == 200


def test_the_page_is_drawn_now_and_then_while_work_ends() -> None:
    window, now = WINDOWS["24h"], EPOCH + timedelta(days=20_000, minutes=1)
    second = timedelta(seconds=1)

    busy = [beat(window, now + n * second, now + (n - 3) * second) for n in range(60)]
    assert len(set(busy)) == 1
    assert beat(window, now + timedelta(minutes=5), now + timedelta(minutes=4)) != busy[0]
    # The last one to end is drawn, too, though nothing comes after it.
    end = now + 59 * second
    assert beat(window, end + timedelta(minutes=6), end) != beat(window, end + timedelta(minutes=4), end)
    assert beat(window, end + timedelta(minutes=6), end) == beat(window, end + timedelta(minutes=9), end)


def test_a_page_takes_few_queries(operators_client: Client, now: datetime) -> None:
    counted(now, 3, status="FAILED")
    failed(now, 1)
    with CaptureQueriesContext(connection) as queries:
        page(operators_client)
    assert len(queries) <= 10


def test_no_run_is_read_but_those_not_counted(operators_client: Client, now: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts) SELECT gen_random_uuid(), 'a.b', '[]', '{}',"
            " 'default', 0, 'SUCCESSFUL', now(), now(), now() - interval '2 h', 1, 1, '[]'"
            " FROM generate_series(1, 30000)"
        )
        cursor.execute("ANALYZE tasks_app_taskrun")
    counted(now, 3)
    with CaptureQueriesContext(connection) as queries:
        page(operators_client)

    asked = [query["sql"] for query in queries if "tasks_app_taskrun" in query["sql"]]
    assert len(asked) == 1
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE) {asked[0]}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "run_ended" in plan
    assert "Seq Scan" not in plan


# Drawings


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0, ["3", "2", "1", "0"]),
        (1, ["3", "2", "1", "0"]),
        (5, ["6", "4", "2", "0"]),
        (12_500, ["15 000", "10 000", "5 000", "0"]),
    ],
)
def test_lines_stand_at_round_numbers(highest: int, labels: list[str]) -> None:
    scale = Scale.over([highest], charts.whole_step, wording.count)
    assert [label.replace(wording.NBSP, " ") for label in scale.labels] == labels
    assert scale.top >= highest


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0.0004, ["3 ms", "2 ms", "1 ms", "0"]),
        (0.41, ["450 ms", "300 ms", "150 ms", "0"]),
        (7.1, ["9 s", "6 s", "3 s", "0"]),
        (170, ["3 min", "2 min", "1 min", "0"]),
        (100_000, ["1.5 d", "1 d", "12 h", "0"]),
        (10_000_000, ["120 d", "80 d", "40 d", "0"]),
    ],
)
def test_lines_stand_at_round_lengths_of_time(highest: float, labels: list[str]) -> None:
    scale = Scale.over([highest], charts.time_step, wording.short_duration)
    assert scale.labels == labels
    assert scale.top >= highest


def test_bars_pile_up_from_the_base() -> None:
    kinds = (("f-failed", "Failed"), ("f-successful", "Successful"))
    chart = Bars.of(kinds, [Column("1", (1, 2)), Column("2", (0, 0)), Column("3", (3, 0))], [], "")

    one, none, three = chart.columns
    assert [(part.kind, part.y, part.height) for part in one.parts] == [
        ("f-failed", "66.67", "33.33"),
        ("f-successful", "0.00", "66.67"),
    ]
    assert none.parts == []
    assert [part.height for part in three.parts] == ["100.00"]
    assert (one.x, one.width, one.told) == ("24.0", "192.0", "1: 2 successful, 1 failed")
    assert dict(chart.paths) == {
        "f-failed": "M24.0 66.67h192.0v33.33h-192.0ZM504.0 0.00h192.0v100.00h-192.0Z",
        "f-successful": "M24.0 0.00h192.0v66.67h-192.0Z",
    }


def test_one_among_many_is_still_seen() -> None:
    chart = Bars.of((("f-failed", "Failed"),), [Column("1", (1,)), Column("2", (1_000_000,))], [], "")
    assert float(chart.columns[0].parts[0].height) == charts.LEAST


def test_lines_have_gaps_where_nothing_was_measured() -> None:
    low, high = [1.0, None, 2.0, 2.0], [3.0, None, 3.0, 1.0]
    chart = Lines.of([Line("a", "p50", low), Line("b", "p95", high)], ["w", "x", "y", "z"], [], "")

    assert dict(chart.drawn) == {
        "a": "M0.0 66.7h1M480.0 33.3 720.0 33.3",
        "b": "M0.0 0.0h1M480.0 0.0 720.0 66.7",
    }
    assert chart.band == "M480.0 0.0 720.0 66.7 720.0 33.3 480.0 33.3Z"
    assert [label for label, _ in chart.told_rows] == ["w", "y", "z"]


def test_a_spark_of_nothing_is_none() -> None:
    assert Spark([0, 0], "").path == Spark([], "").path == ""
    assert Spark([0, 2, 1], "").path == "M0.0 19.0 30.0 1.0 60.0 10.0"


def test_figures_are_compared_with_as_much_of_the_window_before(now: datetime) -> None:
    window = WINDOWS["24h"]
    counted(now, 10)
    counted(window.until_before(now) - timedelta(minutes=1), 20)
    counted(window.until_before(now) + timedelta(minutes=1), 1_000)  # as yet to come, a day ago

    assert Figures(window, now).course.before.count == 20
