"""WATCH: where nobody takes the work every page says so, with the next step."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from tasks_app.clock import database_now
from tasks_app.models import Cluster, TaskRun
from tasks_app.takers import Takers, start_command
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}
QUIET: dict[str, Any] = {"desired_state": "quiet"}
EMPTY: dict[str, Any] = {"desired_workers": 0}
STOPPING: dict[str, Any] = {"desired_state": "stop"}


def page(client: Client, path: str = "/") -> str:
    """Its words and links, without other marks."""
    response = client.get(path)
    assert response.status_code == 200
    return " ".join(html.unescape(re.sub(r"<(?!a )[^>]*>", " ", response.content.decode())).split())


def another(cluster: Cluster, **fields: Any) -> Cluster:
    values = {name: getattr(cluster, name) for name in ("name", "queues", "host", "workers", "started_at")}
    return Cluster.objects.create(**{**values, "pid": 2, "heartbeat_at": database_now(), **fields})


@pytest.mark.parametrize(
    ("wish", "detail", "banner"),
    [
        (
            QUIET,
            "1 cluster on 1 host, asked to take nothing more: resume it",
            "1 cluster would, but was asked to take nothing more:",
        ),
        (EMPTY, "1 cluster on 1 host, without a worker: grow it", "1 cluster would, but keeps no worker:"),
        ({**QUIET, **EMPTY}, "asked to take nothing more: resume it", "was asked to take nothing more:"),
    ],
)
def test_the_first_page_tells_that_nobody_takes_what_waits(
    operators_client: Client, run: RunFactory, cluster: Cluster, wish: dict[str, Any], detail: str, banner: str
) -> None:
    run()
    assert "Work is moving" in page(operators_client)
    Cluster.objects.update(**wish)

    said = page(operators_client)

    assert "Work is moving" not in said
    assert "No worker takes new work" in said and detail in said
    assert "Nobody takes from the queue default now. 1 run waits there, the oldest for" in said
    assert re.search(rf'{banner} <a id="takers-1" href="/workers/">(resume|grow) it .', said)
    assert 'class="strip__say strip__say--warn"' not in said
    assert 'strip__say--warn"' in operators_client.get("/").content.decode()


@pytest.mark.parametrize("wish", [QUIET, EMPTY, STOPPING])
def test_it_is_told_before_anything_waits(operators_client: Client, cluster: Cluster, wish: dict[str, Any]) -> None:
    assert "All quiet" in page(operators_client)
    Cluster.objects.update(**wish)

    assert "No worker takes new work" in page(operators_client)
    assert Client().get("/healthz").content == b"ok\n", "which tells of this process alone"


def test_one_that_stops_is_nobody_to_be_resumed(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    run()
    Cluster.objects.update(**STOPPING)

    said = page(operators_client)

    assert "1 cluster on 1 host, stopping: start a worker with manage.py qcluster" in said
    assert "No live worker takes from the queue default." in said
    assert "Start a worker for it with manage.py qcluster --queues=default ." in said


def test_one_of_two_is_enough(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    run()
    run(queue_name="mail")
    Cluster.objects.update(**QUIET)
    another(cluster)
    another(cluster, queues=["mail"], pid=3, **EMPTY)
    another(cluster, queues=["mail"], pid=4, **EMPTY)

    said = page(operators_client)

    assert "Some work has no worker" in said and "heard from" in said
    assert "from the queue default" not in said
    assert "Nobody takes from the queue mail now. 1 run waits there, the oldest for" in said
    assert '2 clusters would, but keep no worker: <a id="takers-1" href="/workers/">grow one .' in said


def test_who_cannot_steer_is_told_without_the_link(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run()
    Cluster.objects.update(**QUIET)

    said = page(client)

    assert "1 cluster would, but was asked to take nothing more. " in said
    assert "/workers/" not in said
    assert "No live worker takes from this queue" in said, "its row"


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, QUIET), ({}, EMPTY), (QUIET, {"desired_state": "run"}), (EMPTY, {"desired_workers": 1}), (QUIET, STOPPING)],
)
def test_a_wish_is_news_for_one_query(
    operators_client: Client,
    run: RunFactory,
    cluster: Cluster,
    django_assert_num_queries: DjangoAssertNumQueries,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    run()
    Cluster.objects.update(**before)
    found = re.search(r'<div id="runs"[^>]* hx-get="([^"]*)"', operators_client.get("/").content.decode())
    assert found
    poll = html.unescape(found[1])

    with django_assert_num_queries(1):
        assert operators_client.get(poll, headers=HTMX).status_code == 204
    Cluster.objects.update(**after)
    assert 'id="health"' in operators_client.get(poll, headers=HTMX).content.decode()


def test_the_first_page_takes_few_queries(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    for state in SITUATIONS:
        run(**SITUATIONS[state])
    Cluster.objects.update(**QUIET)

    with CaptureQueriesContext(connection) as queries:
        page(operators_client)
    assert len(queries) <= 10


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (QUIET, "1 cluster would, but was asked to take nothing more: <a"),
        (EMPTY, "1 cluster would, but keeps no worker: <a"),
    ],
)
def test_the_page_of_queues_tells_it(
    operators_client: Client, run: RunFactory, cluster: Cluster, wish: dict[str, Any], said: str
) -> None:
    assert "4 workers take from it" in page(operators_client, "/queues/")
    Cluster.objects.update(**wish)

    idle = page(operators_client, "/queues/")
    assert "4 workers take" not in idle
    assert "no worker takes from it" in idle and said in idle

    run()
    assert "Nobody takes from it now" in page(operators_client, "/queues/")


def test_the_page_of_workers_tells_it(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    run()
    assert "from the queue default" not in page(operators_client, "/workers/")
    Cluster.objects.update(**EMPTY)

    said = page(operators_client, "/workers/")

    assert "Nobody takes from the queue default now. 1 run waits there, the oldest for" in said
    assert "1 cluster would, but keeps no worker. " in said


def test_the_page_of_a_run_tells_of_a_cluster_without_workers(
    client: Client, run: RunFactory, cluster: Cluster
) -> None:
    Cluster.objects.update(**EMPTY)

    assert "Nobody takes from the queue default now. Whoever would keeps no worker." in page(
        client, f"/runs/{run().pk}/"
    )


def test_who_launches_into_a_queue_of_nobody_is_told(client: Client, mara: User, cluster: Cluster) -> None:
    mara.user_permissions.add(Permission.objects.get(codename="add_taskrun"))
    path = "/launch/tasks_app.tasks.practice.create_task/"

    for queue, is_told in (("nope", True), ("", False)):
        shown = client.post(path, {"arg-type": "2", "queue": queue}, follow=True).content.decode()
        assert ("No live worker takes from the queue nope. It waits until one does." in shown) is is_told
    assert TaskRun.objects.count() == 2


@pytest.mark.parametrize(
    ("queue", "command"),
    [
        ("mail", "manage.py qcluster --queues=mail"),
        ("a b/<c>", "manage.py qcluster --queues='a b/<c>'"),
        ("it's $HOME; ls", """manage.py qcluster --queues='it'"'"'s $HOME; ls'"""),
        ("-x", "manage.py qcluster --queues=-x"),
        ("a,b", ""),
        (" a", ""),
        ("a\u202eb", ""),
        ("a\nb", ""),
    ],
)
def test_the_command_is_one_for_a_shell(operators_client: Client, run: RunFactory, queue: str, command: str) -> None:
    run(queue_name=queue)

    assert start_command(queue) == command
    text = operators_client.get("/").content.decode()
    assert html.escape(command or "manage.py qcluster --queues") + "</code>" in text
    assert ("and its name." in text) is not bool(command)


def test_a_cluster_that_fell_silent_would_not(cluster: Cluster) -> None:
    assert Takers.of("default") == Takers(1, 0, 0)
    Cluster.objects.update(**QUIET)
    assert Takers.of("default") == Takers(0, 1, 0)
    assert Takers.of("mail") == Takers()
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(minutes=5))
    assert Takers.of("default") == Takers()
