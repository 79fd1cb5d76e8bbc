"""WATCH: the first page: is it healthy, what is running, what failed; and the one poll that keeps it true."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import live
from tasks_app.board import ROWS
from tasks_app.clock import database_now
from tasks_app.engine.counting import Sum
from tasks_app.home import LOOK_AT_ALL, LOOK_AT_MINE, LOOK_AT_OWN
from tasks_app.models import Cluster, CountedTo, FailureGroup, Grain, Queue, RunStat, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory, attempt, begun

HTMX = {"HX-Request": "true"}
ROW = re.compile(r'<tr id="run-([0-9a-f]{8})"')


def home(client: Client) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return response.content.decode()


def poll(client: Client, page: str) -> Any:
    """What a browser asks that shows this page."""
    found = re.search(r'<div id="runs"[^>]* hx-get="([^"]*)"', page)
    assert found
    return client.get(html.unescape(found[1]), headers=HTMX)


def part(page: str, start: str, end: str) -> str:
    return page[page.index(start) :].partition(end)[0]


@pytest.mark.parametrize("state", SITUATIONS)
def test_a_row_tells_each_state_in_its_word(client: Client, run: RunFactory, state: str) -> None:
    shown = run(**SITUATIONS[state])
    page = home(client)

    assert shown.state == state
    assert ROW.findall(page) == [shown.short_id]
    assert f"status--{state}" in page
    assert f"icons.svg#{state}" in page


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("ready", "Waits for a free worker"),
        ("claimed", "Held by web-1, worker 2"),
        ("scheduled", "Not before"),
        ("retrying", "Tries again in"),
        ("running", '<progress value="60" max="100"'),
        ("successful", "{&quot;counted&quot;: 30}"),
        ("failed", "ValueError: no"),
        ("cancelled", "Cancelled by tobias."),
    ],
)
def test_a_row_tells_what_came_of_it(client: Client, run: RunFactory, cluster: Cluster, state: str, said: str) -> None:
    run(**SITUATIONS[state])

    assert said in home(client)


def test_a_row_tells_its_place_in_line(client: Client, run: RunFactory, cluster: Cluster) -> None:
    for seconds_ago in (30, 20, 10):
        run(seconds_ago)
    run(40, priority=-1)
    page = home(client)

    assert re.findall(r"(next|\d\w\w) in line", page) == ["3rd", "2nd", "next", "4th"]
    assert "2 runs are ahead of it" in page


def test_a_run_that_nobody_takes_says_so(client: Client, run: RunFactory) -> None:
    run(240)
    page = home(client)

    assert "No worker is running" in page
    assert "No live worker takes from the queue default.</b> 1 run waits there, the oldest for" in page
    assert "No live worker takes from this queue" in page


def test_a_queue_without_worker_is_told_beside_one_with(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run()
    run(queue_name="images")
    run(queue_name="images")
    page = home(client)

    said = re.findall(r"No live worker takes from the queue (\w+)\.</b> (\d+) runs wait there", page)
    assert said == [("images", "2")]


def test_a_cluster_that_fell_silent_counts_no_more(client: Client, cluster: Cluster) -> None:
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(minutes=5))

    assert "No worker is running" in home(client)


def test_each_sees_the_own_runs_and_staff_all(
    client: Client, operators_client: Client, run: RunFactory, tobias: User
) -> None:
    own, foreign = run(), run(owner=tobias)

    assert ROW.findall(home(client)) == [own.short_id]
    assert sorted(ROW.findall(home(operators_client))) == sorted([own.short_id, foreign.short_id])


def recent(client: Client, query: str = "") -> tuple[list[str], str]:
    """The runs of its list, and what stands above them."""
    page = client.get(f"/{query}").content.decode()
    heading = re.search(r'<h2 id="recent">([^<]*)</h2>', page)
    assert heading
    return sorted(ROW.findall(page)), heading[1]


def test_staff_choose_whose_recent_runs_they_see(
    client: Client, operators_client: Client, operator: User, run: RunFactory
) -> None:
    own, foreign = run(owner=operator), run(**SITUATIONS["running"])
    both = sorted([own.short_id, foreign.short_id])

    assert recent(operators_client) == (both, "Recent runs")
    assert recent(operators_client, "?runs=nonsense") == (both, "Recent runs")
    assert recent(operators_client, "?runs=mine") == ([own.short_id], "My recent runs")
    page = operators_client.get("/?runs=mine").content.decode()
    assert 'id="everybodys" href="/">' in page
    assert 'id="mine" href="/?runs=mine" aria-current="true">' in page
    assert 'id="all-runs" href="/runs/?owner=operator"' in page
    assert f'id="at-work-{foreign.short_id}"' in page, "what runs is told of all"

    assert recent(client, "?runs=mine") == ([foreign.short_id], "My recent runs")
    assert 'id="mine"' not in home(client)


def test_a_guest_has_no_runs_to_choose(run: RunFactory, settings: Any) -> None:
    settings.DEBUG = settings.OPEN_ACCESS = True
    shown = run()

    assert recent(Client(), "?runs=mine") == ([shown.short_id], "Recent runs")
    assert 'id="mine"' not in home(Client())


def test_the_poll_and_the_buttons_keep_to_the_own_runs(
    operators_client: Client, operator: User, run: RunFactory, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    run()
    page = operators_client.get("/?runs=mine").content.decode()
    with django_assert_num_queries(1):
        assert poll(operators_client, page).status_code == 204
    own = run(owner=operator)
    answer = poll(operators_client, page).content.decode()
    assert ROW.findall(answer) == [own.short_id]
    assert poll(operators_client, answer).status_code == 204

    button = re.search(r'id="practice" method="post" action="([^"]*)" hx-post="([^"]*)"', page)
    assert button and button[1] == button[2] == "/launch/create_task/?runs=mine"
    sent = operators_client.post(button[1], {"type": 1}, headers=HTMX).content.decode()
    assert len(ROW.findall(sent)) == 2
    assert poll(operators_client, sent).status_code == 204
    assert operators_client.post(button[1], {"type": 1})["Location"] == "/?runs=mine"


def test_two_who_look_at_their_own_runs_are_not_told_of_each_others(
    operators_client: Client, operator: User, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MEMORY_SECONDS", 60)
    monkeypatch.setattr(live, "memory", {})
    colleague = Client()
    colleague.force_login(User.objects.create_superuser("colleague"))
    run(owner=operator)
    pages = [(each, each.get("/?runs=mine").content.decode()) for each in (operators_client, colleague)]

    assert [poll(each, page).status_code for each, page in pages] == [204, 204]


def test_only_the_newest_are_shown(client: Client, run: RunFactory) -> None:
    runs = [run(seconds_ago=100 - number, **SITUATIONS["successful"]) for number in range(ROWS + 3)]

    assert ROW.findall(home(client)) == [found.short_id for found in reversed(runs[3:])]


def test_nothing_yet_is_told_with_a_button(client: Client) -> None:
    page = home(client)

    assert "Nothing sent down yet" in page
    assert 'id="send-first" form="practice"' in page
    assert "Nothing is at work." in page
    assert "Nothing has failed in the last 24 hours." in page


# What is running, what failed lately


def test_what_is_at_work_is_told_the_longest_first(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    long = run(500, **begun(status=Status.RUNNING, started_at=10, progress={"done": 1, "total": 4, "message": "one"}))
    short = run(400, **begun(status=Status.RUNNING, started_at=390))
    for _ in range(ROWS):
        run(3)
    page = home(operators_client)

    assert re.findall(r'<li id="at-work-(\w+)">', page) == [long.short_id, short.short_id]
    assert "25 %, one" in part(page, f'id="at-work-{long.short_id}"', "</li>")
    assert "on web-1, worker 2" in part(page, f'id="at-work-{short.short_id}"', "</li>")


def test_failures_that_look_alike_are_told_once(operators_client: Client, run: RunFactory) -> None:
    older, newer = (run(seconds, **SITUATIONS["failed"]) for seconds in (300, 200))
    other = run(100, **{**SITUATIONS["failed"], "failure": "timed_out", "failure_message": "Stopped after 5 s."})
    run(2 * 24 * 3600, **SITUATIONS["failed"])
    page = home(operators_client)

    assert re.findall(r'<li id="failed-(\w+)">', page) == [other.short_id, newer.short_id]
    assert "2 times" in part(page, f'id="failed-{newer.short_id}"', "</li>")
    assert "Timed out: Stopped after 5 s." in part(page, f'id="failed-{other.short_id}"', "</li>")
    assert f'id="failed-{older.short_id}"' not in page


def test_a_dismissed_kind_of_failure_comes_back_with_the_next(operators_client: Client, run: RunFactory) -> None:
    seen = run(300, **SITUATIONS["failed"])
    kind = FailureGroup.objects.create(
        fingerprint="f", task_path=seen.task_path, failure="error", exception="ValueError", message="no",
        first_at=database_now(), last_at=database_now(), dismissed_at=database_now() - timedelta(seconds=200),
    )  # fmt: skip
    TaskRun.objects.update(failure_group=kind)
    assert "Nothing has failed in the last 24 hours." in home(operators_client)

    run(100, **SITUATIONS["failed"], failure_group=kind)

    assert ">once<" in home(operators_client)


def test_others_see_their_own_work_and_failures_alone(
    client: Client, operators_client: Client, run: RunFactory, tobias: User
) -> None:
    own = [run(**SITUATIONS[state]) for state in ("running", "failed")]
    foreign = [run(**SITUATIONS[state], owner=tobias) for state in ("running", "failed")]
    told = re.compile(r'<li id="(?:at-work|failed)-(\w+)">')

    assert sorted(told.findall(home(client))) == sorted(each.short_id for each in own)
    assert set(told.findall(home(operators_client))) >= {foreign[0].short_id}


def test_the_pace_is_that_of_the_last_whole_minutes(operators_client: Client) -> None:
    minute = database_now().replace(second=0, microsecond=0)
    CountedTo.objects.create(at=minute + timedelta(seconds=5))
    for back, count in ((0, 1_000), (1, 100), (5, 50), (6, 10_000)):
        RunStat.objects.create(
            grain=Grain.MINUTE, at=minute - timedelta(minutes=back), task_path="a.b", queue_name="default",
            status="SUCCESSFUL", **{**vars(Sum()), "count": count},
        )  # fmt: skip

    page = home(operators_client)

    assert "<dd>30 <small>a minute</small>" in page
    assert 'class="spark" viewBox="0 0 59 24"' in page


def figure(page: str, name: str) -> str:
    """What the strip says under this name, without its marks."""
    match = re.search(rf"<dt>{name}</dt>\s*<dd>(.*?)</dd>", page, re.DOTALL)
    assert match
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", match[1])).split())


def test_the_strip_tells_what_waits_and_since_when(client: Client, run: RunFactory, cluster: Cluster) -> None:
    assert figure(home(client), "Waiting") == "0"
    run(200)
    run(7384, owner=None, queue_name="mail")
    run(300, **SITUATIONS["scheduled"])
    run(9000, **SITUATIONS["running"])

    assert figure(home(client), "Waiting") == "2 oldest 2 h 3 min"
    assert figure(home(client), "Running") == "1 of 4 workers"


def test_the_longest_lines_are_told_by_name(client: Client, operators_client: Client, run: RunFactory) -> None:
    sizes = {"mail": 2, "images": 3, "a & b": 1, "default": 1, "slow": 1}
    run(queue_name="images")
    assert 'id="deepest"' not in home(operators_client), "one queue is told by the figure"
    for name, size in sizes.items():
        for _ in range(size - (name == "images")):
            run(queue_name=name)

    page = part(home(operators_client), 'id="deepest"', "</p>")
    told = re.findall(r'<a id="line-\w+" href="([^"]*)">([^<]*)</a> <span class="num">(\d+)</span>', page)
    assert [(html.unescape(name), int(size)) for _, name, size in told] == [("images", 3), ("mail", 2), ("a & b", 1)]
    assert html.unescape(told[2][0]) == "/runs/?state=ready&queue=a%20%26%20b"
    assert operators_client.get(html.unescape(told[2][0])).content.count(b'<tr id="run-') == 1
    assert "and in 2 other queues" in page

    others = part(home(client), 'id="deepest"', "</p>")
    assert "images" in others and "<a" not in others


def test_a_run_in_another_line_is_news(operators_client: Client, run: RunFactory) -> None:
    for _ in range(ROWS):
        run(5)
    page = home(operators_client)
    run(60, queue_name="mail")

    assert ">mail</a>" in poll(operators_client, page).content.decode()


def test_operators_are_led_to_the_pages_behind_the_figures(client: Client, operators_client: Client) -> None:
    assert 'id="to-queues" href="/queues/"' in home(operators_client)
    assert 'id="to-queues"' not in home(client)


# The poll


def test_nothing_new_is_an_empty_answer_of_one_query(
    client: Client, run: RunFactory, cluster: Cluster, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for state in SITUATIONS:
        run(**SITUATIONS[state])
    page = home(client)

    with django_assert_num_queries(1):
        response = poll(client, page)

    assert (response.status_code, response.content) == (204, b"")


def test_many_readers_of_a_page_ask_the_database_once(
    operators_client: Client,
    run: RunFactory,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(live, "MEMORY_SECONDS", 60)
    monkeypatch.setattr(live, "memory", {})
    page = home(operators_client)

    with django_assert_num_queries(1):
        assert [poll(operators_client, page).status_code for _ in range(3)] == [204] * 3
    run()
    monkeypatch.setattr(live, "memory", {})
    assert poll(operators_client, page).status_code == 200


def test_what_one_was_told_is_not_told_to_another_who_sees_less(
    client: Client, operators_client: Client, run: RunFactory, tobias: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MEMORY_SECONDS", 60)
    monkeypatch.setattr(live, "memory", {})
    pages = [(each, home(each)) for each in (client, operators_client)]
    run(owner=tobias, run_after=3600)

    assert [poll(each, page).status_code for each, page in pages] == [204, 200]


def progresses(run: RunFactory) -> None:
    TaskRun.objects.running().update(progress={"done": 21, "total": 30, "message": ""})


def ends(run: RunFactory) -> None:
    TaskRun.objects.running().update(status=Status.FAILED, failure="error", finished_at=database_now())


def is_sent(run: RunFactory) -> None:
    run(1)


def is_claimed(run: RunFactory) -> None:
    TaskRun.objects.ready().update(claimed_by="c1:2:4711:web-1", claimed_at=database_now(), attempt=1)


def is_wished_ended(run: RunFactory) -> None:
    TaskRun.objects.running().update(cancel_requested_at=database_now())


def is_overtaken(run: RunFactory) -> None:
    run(1, priority=5, owner=None)


def stops(run: RunFactory) -> None:
    Cluster.objects.update(stopped_at=database_now())


def falls_silent(run: RunFactory) -> None:
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(seconds=8))


def is_paused(run: RunFactory) -> None:
    Queue.pause("default", why="No paper")


def is_limited(run: RunFactory) -> None:
    Queue.limit("default", 1)


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (progresses, '<progress value="70"'),
        (ends, "finished: Failed."),
        (is_sent, "2nd in line"),
        (is_claimed, "Held by web-1, worker 2"),
        (is_wished_ended, "being cancelled"),
        (is_overtaken, "1 run is ahead of it"),
        (stops, "No worker is running"),
        (falls_silent, "heard from 8 s ago"),
        (is_paused, "The queue default is paused."),
        (is_limited, "Its queue is at its limit."),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whatever_changes_its_look_is_news(
    client: Client, run: RunFactory, cluster: Cluster, happens: Callable[[RunFactory], None], said: str
) -> None:
    run(**SITUATIONS["running"])
    run(30)
    page = home(client)
    happens(run)

    answer = poll(client, page).content.decode()

    assert said in answer
    assert said not in page
    assert answer.lstrip().startswith('<div id="runs"')
    assert re.findall(r'id="([\w-]+)" hx-swap-oob="morph"', answer) == ["health", "lately"]
    assert poll(client, answer).status_code == 204


def test_the_end_of_a_strangers_run_is_not_announced(operators_client: Client, run: RunFactory) -> None:
    run(**SITUATIONS["successful"])

    assert '<output class="vh" id="said"></output>' in home(operators_client)


@pytest.mark.parametrize("query", ["seen=junk", "seen=", "seen=%00%ff", "seen=" + "a" * 20_000, "seen=a&seen=b"])
def test_a_poll_with_junk_gets_all_that_there_is(client: Client, run: RunFactory, query: str) -> None:
    shown = run(**SITUATIONS["running"])

    response = client.get(f"/?{query}", headers=HTMX)

    assert ROW.findall(response.content.decode()) == [shown.short_id]


def test_rows_of_a_megabyte_are_shown_by_their_beginning(client: Client, run: RunFactory) -> None:
    run(**{**SITUATIONS["successful"], "kwargs": {"text": "x" * 900_000}, "return_value": ["y" * 900_000]})
    page = home(client)

    assert len(page) < 20_000
    assert "text&quot;: &quot;xxx" in page
    assert "yyy" in page


def test_the_page_costs_the_same_few_queries_for_any_number_of_rows(
    client: Client, run: RunFactory, cluster: Cluster, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for state in SITUATIONS:
        run(**SITUATIONS[state])
        run(**SITUATIONS[state])
    page = home(client)

    Queue.pause("images", why="No paper")
    Queue.limit("default", 3)
    CountedTo.objects.create(at=database_now())

    with django_assert_max_num_queries(10):
        home(client)
    with django_assert_max_num_queries(10):
        assert poll(client, page).status_code == 200


def test_a_line_of_results_tells_the_files(client: Client, run: RunFactory) -> None:
    sizes = (320, 800, 1600)
    files = [{"name": f"a-{size}.jpg", "width": size, "height": size // 2, "bytes": 100_000} for size in sizes]
    run(**{**SITUATIONS["successful"], "return_value": {"files": files}})
    page = home(client)

    assert ">3 images</a><small>320, 800 and 1600 px, 300 kB in all</small>" in page


def test_a_second_attempt_keeps_the_first_ones_trouble_off_the_row(client: Client, run: RunFactory) -> None:
    run(**begun(status=Status.RUNNING, attempt=2, attempts=[attempt(1, 2, 4, message="ValueError: at first")]))
    page = home(client)

    assert "2 of 3" in page
    assert "at first" not in page


MANY = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
  enqueued_at, finished_at, failure, attempt, max_attempts, attempts)
SELECT gen_random_uuid(), task_path, args, kwargs, queue_name, 0, to_be, owner_id, now() - n * interval '1 s',
  now() - n * interval '1 s', CASE WHEN to_be <> 'READY' THEN now() - n * interval '1 s' END,
  CASE WHEN to_be = 'FAILED' THEN 'error' END, 0, max_attempts, '[]'
FROM tasks_app_taskrun, generate_series(1, 10000) AS n,
  LATERAL (SELECT (ARRAY['READY', 'SUCCESSFUL', 'SUCCESSFUL', 'FAILED'])[1 + n % 4] AS to_be) AS kind
"""


@pytest.mark.parametrize("statement", [LOOK_AT_ALL, LOOK_AT_MINE, LOOK_AT_OWN], ids=["all", "mine", "own"])
def test_the_runs_are_never_read_from_end_to_end(run: RunFactory, mara: User, tobias: User, statement: str) -> None:
    run()
    run(owner=tobias, queue_name="mail")
    Queue.limit("default", 3)
    with connection.cursor() as cursor:
        cursor.execute(MANY)
        cursor.execute("ANALYZE tasks_app_taskrun")
        cursor.execute(f"EXPLAIN (COSTS OFF) {statement}", {"silence": 15, "owner": mara.pk})
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "tasks_app_taskrun" in plan
    assert "Seq Scan on tasks_app_taskrun" not in plan
