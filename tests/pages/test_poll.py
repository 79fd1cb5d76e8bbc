"""WATCH: the first page, and the one poll that keeps it true."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app.board import ROWS
from tasks_app.clock import database_now
from tasks_app.models import Cluster, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory, attempt, begun

SEEN = re.compile(r'name="(seen|health)" value="([^"]*)"')
ROW = re.compile(r'<tr id="run-([0-9a-f]{8})"')


def poll(client: Client, page: str) -> Any:
    """What a browser asks that shows this page: each row and the health tell which version of theirs it has."""
    return client.get(f"/runs/changes/?{urlencode(SEEN.findall(page))}")


def home(client: Client) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return response.content.decode()


def polls(page: str) -> bool:
    poller = re.search(r'<div id="runs-poll"[^>]*>', page)
    assert poller
    return "hx-get" in poller[0] and "hx-trigger" in poller[0]


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


def test_only_the_newest_are_shown(client: Client, run: RunFactory) -> None:
    runs = [run(seconds_ago=100 - number, **SITUATIONS["successful"]) for number in range(ROWS + 3)]

    assert ROW.findall(home(client)) == [found.short_id for found in reversed(runs[3:])]


def test_nothing_yet_is_told_with_a_button(client: Client) -> None:
    page = home(client)

    assert "Nothing sent down yet" in page
    assert not polls(page)


# The poll


def test_nothing_new_is_an_empty_answer(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(**SITUATIONS["running"])
    response = poll(client, home(client))

    assert (response.status_code, response.content) == (204, b"")


def test_only_the_row_that_changed_comes_back(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(**SITUATIONS["successful"])
    running = run(**SITUATIONS["running"])
    run(**SITUATIONS["running"])
    page = home(client)
    TaskRun.objects.filter(pk=running.pk).update(progress={"done": 21, "total": 30, "message": ""})

    answer = poll(client, page).content.decode()

    assert ROW.findall(answer) == [running.short_id]
    assert '<progress value="70"' in answer
    assert 'id="health"' not in answer


def test_the_poll_ends_by_itself_when_nothing_is_unfinished(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(**SITUATIONS["running"])
    page = home(client)
    assert polls(page)
    TaskRun.objects.update(status=Status.SUCCESSFUL, return_value=True, finished_at=database_now())

    answer = poll(client, page).content.decode()

    assert '<code class="clip">true</code>' in answer
    assert not polls(answer)
    assert not polls(home(client))


def test_an_end_is_announced(client: Client, run: RunFactory, cluster: Cluster) -> None:
    running = run(**SITUATIONS["running"])
    page = home(client)
    TaskRun.objects.filter(pk=running.pk).update(status=Status.FAILED, failure="error", finished_at=database_now())

    answer = poll(client, page).content.decode()

    assert f'<output class="vh" id="said" hx-swap-oob="true">create_task {running.short_id} finished: Failed.' in answer


def test_a_run_from_another_tab_comes_in_at_its_place(client: Client, run: RunFactory, cluster: Cluster) -> None:
    below = run(30, **SITUATIONS["running"])
    page = home(client)
    newest = run(1)
    late = run(60)  # its transaction took long: enqueued before the others, seen after them

    answer = poll(client, page).content.decode()

    assert re.findall(r'hx-swap-oob="(\w+:[^"]*)">\s*<tr id="run-(\w+)"', answer) == [
        ("afterbegin:#runs-rows", newest.short_id),
        (f"afterend:#run-{below.short_id}", late.short_id),
    ]


def test_rows_in_a_wrong_order_are_put_in_their_places(client: Client, run: RunFactory, cluster: Cluster) -> None:
    runs = [run(seconds, **SITUATIONS["running"]) for seconds in (3, 2, 1)]
    page = home(client)
    seen = SEEN.findall(page)
    rows = [pair for pair in seen if pair[0] == "seen"]
    rest = [pair for pair in seen if pair[0] != "seen"]

    answer = client.get(f"/runs/changes/?{urlencode([*rest, rows[1], rows[0], rows[2]])}").content.decode()

    oldest, middle, newest = (made.short_id for made in runs)
    assert re.findall(r'hx-swap-oob="(\w+:[^"]*)">\s*<tr id="run-(\w+)"', answer) == [
        ("afterbegin:#runs-rows", newest), (f"afterend:#run-{newest}", middle), (f"afterend:#run-{middle}", oldest),
    ]  # fmt: skip
    assert poll(client, page).status_code == 204


def test_the_oldest_row_falls_off(client: Client, run: RunFactory, cluster: Cluster) -> None:
    oldest = run(1000, **SITUATIONS["successful"])
    for _ in range(ROWS - 1):
        run(100, **SITUATIONS["running"])
    page = home(client)
    run(1)

    answer = poll(client, page).content.decode()

    assert re.findall(r'<tr id="run-(\w+)" hx-swap-oob="delete">', answer) == [oldest.short_id]


def test_the_health_comes_with_it_when_it_changed(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(**SITUATIONS["running"])
    page = home(client)
    Cluster.objects.update(stopped_at=database_now())

    answer = poll(client, page).content.decode()

    assert '<div class="stack stack--tight" id="health" hx-swap-oob="true">' in answer
    assert "No worker is running" in answer


@pytest.mark.parametrize(
    "query",
    [
        "seen=junk",
        "seen=",
        "seen=0123abcd-0123abcd' OR 1=1",
        "seen=%00%ff",
        "&".join(["seen=01234567-89abcdef"] * 3000),
        "seen=" + "a" * 20_000,
        "health=" + "x" * 5000,
    ],
)
def test_junk_is_answered_with_all_that_there_is(client: Client, run: RunFactory, query: str) -> None:
    shown = run(**SITUATIONS["running"])

    response = client.get(f"/runs/changes/?{query}")

    assert response.status_code in {200, 400}  # Django refuses thousands of parameters by itself
    if response.status_code == 200:
        assert ROW.findall(response.content.decode())[0] == shown.short_id
        assert b"OR 1=1" not in response.content


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

    with django_assert_max_num_queries(16):
        home(client)
    with django_assert_max_num_queries(15):
        poll(client, page)


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
