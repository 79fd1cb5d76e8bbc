"""WATCH and STEER: the page of the queues."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import queues
from tasks_app.clock import database_now
from tasks_app.engine.counting import Sum
from tasks_app.models import AuditEntry, Cluster, Grain, Queue, RunStat, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def page(client: Client) -> str:
    response = client.get("/queues/")
    assert response.status_code == 200
    return response.content.decode()


def line(name: str) -> queues.Line:
    return next(each for each in queues.with_more(queues.look()) if each.name == name)


def steer(client: Client, do: str, queue: str = "default", **given: str) -> str:
    """The page that it leads to."""
    response = client.post("/queues/steer/", {"do": do, "queue": queue, **given}, follow=True)
    assert response.redirect_chain == [("/queues/", 302)]
    return html.unescape(response.content.decode())


def test_a_queue_tells_what_waits_and_since_when(run: RunFactory, cluster: Cluster) -> None:
    runs = [run(seconds_ago) for seconds_ago in (30, 20, 90)]
    run(5, run_after=3600)
    run(40, limit_key="a.b")

    found = line("default")

    assert (found.due, found.later, found.held, found.state) == (4, 1, 0, "moving")
    assert found.oldest == runs[2].enqueued_at


def test_what_is_held_is_at_work(run: RunFactory, cluster: Cluster) -> None:
    run(5, **SITUATIONS["claimed"])
    run(5, **SITUATIONS["running"])

    assert (line("default").held, line("default").due) == (2, 0)


def test_a_queue_that_nobody_takes_from_is_told(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(5, queue_name="mail")

    assert line("mail").state == "stranded"
    assert line("default").state == "idle"
    assert "No live worker takes it" in page(operators_client)


def test_the_rate_is_that_of_the_last_whole_minutes(cluster: Cluster) -> None:
    minute = database_now().replace(second=0, microsecond=0)
    for back, count in ((0, 1_000), (1, 100), (5, 50), (6, 10_000)):
        RunStat.objects.create(
            grain=Grain.MINUTE, at=minute - timedelta(minutes=back), task_path="a.b", queue_name="default",
            status="SUCCESSFUL", **{**vars(Sum()), "count": count},
        )  # fmt: skip

    found = line("default")

    assert (found.ended, found.rate) == (150, "30 a minute")
    assert found.course[-1] == 100
    assert found.spark.startswith("M0,20.0 L1,20.0")


def test_pausing_and_resuming_are_forms(operators_client: Client, operator: User, cluster: Cluster) -> None:
    said = steer(operators_client, "pause", minutes="60", why="The printer is out of paper.")

    assert "The queue default is paused: what is at hand ends, nothing else begins." in said
    assert "The printer is out of paper" in said
    queue = Queue.objects.get(pk="default")
    assert queue.paused_by == operator
    assert queue.paused_until
    assert queue.paused_until > database_now() + timedelta(minutes=59)
    assert AuditEntry.objects.filter(verb="pause", actor=operator, address="127.0.0.1").exists()
    assert line("default").state == "paused"

    assert "The queue default goes on." in steer(operators_client, "resume")
    assert line("default").state == "idle"


def test_a_limit_is_set_and_taken_away(operators_client: Client, cluster: Cluster) -> None:
    assert "at most 3 runs are at work at once" in steer(operators_client, "limit", most="3")
    assert line("default").limit == 3
    assert "any number of runs is at work" in steer(operators_client, "limit", most="")
    assert line("default").limit is None


@pytest.mark.parametrize(
    ("do", "given", "said"),
    [
        ("pause", {"minutes": "7"}, "A pause lasts until it is resumed, or 15 minutes, an hour or a day."),
        ("limit", {"most": "0"}, "A limit is a whole number from 1 to 10 000, or nothing for none."),
        ("limit", {"most": "many"}, "A limit is a whole number from 1 to 10 000, or nothing for none."),
        ("limit", {"most": "99999999999999"}, "A limit is a whole number"),
        ("explode", {}, "A queue can be paused, resumed and limited."),
        ("pause", {"queue": ""}, "The name of a queue has 1 to 100 characters."),
        ("pause", {"queue": "x" * 101}, "The name of a queue has 1 to 100 characters."),
        ("resume", {"queue": "\0"}, "The name of a queue has 1 to 100 characters."),
    ],
)
def test_bad_input_gets_a_sentence(operators_client: Client, do: str, given: dict[str, str], said: str) -> None:
    assert said in steer(operators_client, do, **{"queue": "default", **given})
    assert not Queue.objects.exists()


def test_steering_needs_the_permission(tobias: User, cluster: Cluster) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)

    assert "needs the permission to change" in page(client)
    assert "You may not steer queues" in steer(client, "pause")
    assert not Queue.objects.exists()

    tobias.user_permissions.add(Permission.objects.get(codename="change_queue"))
    assert "is paused" in steer(client, "pause")


def test_who_is_no_operator_finds_nothing(client: Client) -> None:
    assert client.get("/queues/").status_code == 404
    assert client.post("/queues/steer/", {"do": "pause", "queue": "default"}).status_code == 404
    assert not Queue.objects.exists()


@pytest.mark.parametrize("name", ["../x", "a/b?c#d", "<b>bold</b>", "\u202egnp", "x" * 100, " "])
def test_any_name_can_be_steered(operators_client: Client, run: RunFactory, name: str) -> None:
    run(5, queue_name=name)
    text = page(operators_client)
    found = re.search(r'name="queue" value="([^"]*)"', text)
    assert found
    assert html.unescape(found[1]) == name
    assert "<b>" not in text.replace("<b>The database does not answer.", "")

    steer(operators_client, "pause", name)
    assert Queue.objects.get().name == name


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, run: RunFactory, cluster: Cluster, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    run(5)
    found = re.search(r'data-poll hx-get="([^"]+)"', page(operators_client))
    assert found
    poll = html.unescape(found[1])

    with django_assert_num_queries(1):
        assert operators_client.get(poll, headers=HTMX).status_code == 204
    run(1)
    assert operators_client.get(poll, headers=HTMX).status_code == 200


def test_nothing_yet_says_what_a_queue_is(operators_client: Client) -> None:
    assert "No queue yet" in page(operators_client)


def test_a_million_rows_are_not_read(operators_client: Client, cluster: Cluster) -> None:
    """A tenth of them, planned as a server plans them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts) SELECT gen_random_uuid(), 'a.b', '[]', '{}',"
            " 'q' || n %% 7, 0, CASE WHEN n %% 10 = 0 THEN 'READY' ELSE 'SUCCESSFUL' END, now(), now(),"
            " CASE WHEN n %% 10 > 0 THEN now() END, 0, 1, '[]' FROM generate_series(1, 30000) AS n".replace("%%", "%")
        )
        cursor.execute("ANALYZE tasks_app_taskrun")
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS OFF) {queues.LOOK}", {"silence": 15.0})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on tasks_app_taskrun" not in plan
    assert TaskRun.objects.count() == 30_000
