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
from tasks_app.models import AuditEntry, Cluster, Grain, Queue, RunStat, TaskLimit, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def page(client: Client) -> str:
    response = client.get("/queues/")
    assert response.status_code == 200
    return response.content.decode()


def line(name: str) -> queues.Line:
    return next(each for each in queues.with_more(queues.look()).lines if each.name == name)


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
    assert "at most 1 run is at work at once" in steer(operators_client, "limit", most="1")
    assert "has no limit now: any number of its runs may be" in steer(operators_client, "limit", most="")
    assert line("default").limit is None


@pytest.mark.parametrize(
    ("do", "given", "said"),
    [
        ("pause", {"minutes": "7"}, "A pause lasts until it is resumed, or 15 minutes, an hour or a day, or until"),
        ("pause", {"until": "tomorrow"}, "or until a date and time."),
        ("pause", {"until": "2001-01-01T00:00"}, "The end of a pause lies ahead of now."),
        ("drain", {"until": "2001-01-01T00:00"}, "The end of a pause lies ahead of now."),
        ("limit", {"most": "0"}, "A limit is a whole number from 1 to 10 000, or nothing for none."),
        ("limit", {"most": "many"}, "A limit is a whole number from 1 to 10 000, or nothing for none."),
        ("limit", {"most": "99999999999999"}, "A limit is a whole number"),
        ("explode", {}, "A queue can be paused, resumed, limited and drained."),
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
    assert "<b>bold" not in text

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


def test_the_rate_in_is_that_of_the_last_whole_minutes(run: RunFactory, cluster: Cluster) -> None:
    minute = database_now().replace(second=0, microsecond=0)
    for back, count in ((-1, 3), (1, 2), (299, 3), (301, 4)):
        for _ in range(count):
            found = run(5, queue_name="default")
            TaskRun.objects.filter(pk=found.pk).update(enqueued_at=minute - timedelta(seconds=back))

    assert line("default").rate_in == "1.0 a minute"


def test_the_rate_in_of_many_is_that_of_the_last_of_them(cluster: Cluster) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts) SELECT gen_random_uuid(), 'a.b', '[]', '{}',"
            " 'default', 0, 'SUCCESSFUL', now(), date_trunc('minute', now()) - n * interval '10 ms', now(), 1, 1, '[]'"
            " FROM generate_series(1, 3000) AS n"
        )

    assert line("default").rate_in == "6\u00a0000 a minute"


def test_a_pause_lasts_until_a_moment(operators_client: Client, cluster: Cluster) -> None:
    until = (database_now() + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M")
    steer(operators_client, "pause", until=until, minutes="")

    paused = Queue.objects.get()
    assert paused.paused_until
    assert paused.paused_until.strftime("%Y-%m-%dT%H:%M") == until


def test_the_end_of_a_pause_is_news(operators_client: Client, cluster: Cluster) -> None:
    Queue.pause("default", until=database_now() + timedelta(seconds=0.7))
    before = queues.look()
    assert before.lines[0].is_paused

    wait_until(lambda: not queues.look().lines[0].is_paused, what="the end of the pause")
    assert queues.look().looks != before.looks


# All at once


def test_all_are_paused_together_and_go_on_together(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    run(5, queue_name="mail")
    Queue.pause("reports", why="The printer is out of paper.")
    held = run(5, **SITUATIONS["running"])

    said = steer(operators_client, "drain", why="Upgrade")
    assert "2 queues are paused: what is at hand ends." in said
    assert "1 run still ends: not safe to deploy yet." in said
    assert "Upgrade" in said
    assert not queues.with_more(queues.look()).is_safe

    TaskRun.objects.filter(pk=held.pk).update(status="SUCCESSFUL")
    assert "Nothing is at work: safe to deploy." in page(operators_client)
    assert "All queues were paused already." in steer(operators_client, "drain")

    assert "2 queues go on." in steer(operators_client, "undrain")
    assert [name for name, *_ in Queue.objects.filter(paused_at__isnull=False).values_list("name")] == ["reports"]
    assert "safe to deploy" not in page(operators_client)
    assert [entry.given for entry in AuditEntry.objects.filter(subject="all queues").order_by("id")] == [
        "default, mail", "default, mail",
    ]  # fmt: skip


def test_a_queue_that_goes_on_is_not_safe(operators_client: Client, cluster: Cluster) -> None:
    Cluster.objects.update(queues=["default", "mail"])
    steer(operators_client, "drain")
    steer(operators_client, "resume", "mail")

    text = page(operators_client)
    assert "Not safe to deploy: work goes on." in text
    assert "Not paused: mail." in text


def test_draining_needs_the_permission(tobias: User, cluster: Cluster) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)

    assert "You may not steer queues" in steer(client, "drain")
    assert not Queue.objects.exists()


# Tasks


TASK = "tasks_app.tasks.practice.create_task"


def limit(client: Client, do: str, task: str = TASK, **given: str) -> str:
    response = client.post("/queues/limits/", {"do": do, "task": task, **given}, follow=True)
    assert response.redirect_chain == [("/queues/", 302)]
    return html.unescape(response.content.decode())


def test_a_task_with_limits_tells_how_much_is_taken(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    TaskLimit.limit(TASK, 2)
    TaskLimit.pace(TASK, "10/m", 5)
    run(5, **SITUATIONS["running"])
    text = page(operators_client)

    assert "create_task" in text
    assert "10 a minute, 5 at once" in text
    (found,) = queues.with_more(queues.look()).tasks
    assert (found.held, found.limit, found.rate_given, found.state) == (1, 2, "10/m", "open")
    run(5, **SITUATIONS["claimed"])
    assert queues.with_more(queues.look()).tasks[0].state == "full"
    TaskLimit.objects.update(max_running=None, next_at=database_now() + timedelta(minutes=1))
    assert queues.with_more(queues.look()).tasks[0].state == "closed"


def test_a_task_without_limits_is_chosen_to_be_steered(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    run(5, **SITUATIONS["running"])
    assert f'<option value="{TASK}">' in page(operators_client)
    assert f'name="task" value="{TASK}"' not in page(operators_client)

    text = operators_client.get("/queues/", {"task": TASK}).content.decode()
    assert text.count(f'name="task" value="{TASK}"') == 2  # to pause it, to limit it
    assert re.search(r'id="task-chosen-.*?class="c-held">1<', text, re.DOTALL)
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids))

    limit(operators_client, "pause")
    assert f'<option value="{TASK}">' not in page(operators_client)
    assert "There is no such task." in operators_client.get("/queues/?task=os.system").content.decode()


def test_figures_lead_to_their_runs(operators_client: Client, run: RunFactory) -> None:
    run(5, queue_name="a&b")
    run(5, queue_name="a&b", **SITUATIONS["running"])

    for query, count in (("queue=a%26b", 2), ("state=ready&queue=a%26b", 1), ("state=running&queue=a%26b", 1)):
        assert f'href="/runs/?{query}"' in html.unescape(page(operators_client))
        runs = operators_client.get(f"/runs/?{query}").content.decode()
        assert runs.count('<tr id="run-') == count


def test_a_task_is_paused_limited_and_goes_on(operators_client: Client, cluster: Cluster) -> None:
    assert "The task create_task is paused" in limit(operators_client, "pause", why="It greets the wrong people.")
    assert "It greets the wrong people" in page(operators_client)
    assert "The task create_task goes on." in limit(operators_client, "resume")
    assert "The limits of the task create_task are set." in limit(operators_client, "limit", most="3", rate="10/m")
    task = TaskLimit.objects.get()
    assert (task.max_running, task.rate_count, task.burst) == (3, 10, 1)
    TaskLimit.objects.update(next_at=database_now())
    limit(operators_client, "limit", most="4", rate="10/m", burst="1")
    task.refresh_from_db()
    assert (task.max_running, task.next_at is not None) == (4, True)  # the rate stays as used up as it was
    given = [entry.given for entry in AuditEntry.objects.filter(verb__in=("limit", "pace")).order_by("id")]
    assert given == ["at most 3 at work", "10/m", "at most 4 at work"]


@pytest.mark.parametrize(
    ("do", "given", "said"),
    [
        ("pause", {"task": "os.system"}, "There is no such task."),
        ("pause", {"task": "\0"}, "There is no such task."),
        ("pause", {"task": "x" * 100_000}, "There is no such task."),
        ("limit", {"rate": "often"}, "rate must be a number of runs"),
        ("limit", {"rate": "10/m", "burst": "-1"}, "a whole number, from 1 on"),
        ("limit", {"most": "0"}, "A limit is a whole number from 1 to 10 000"),
        ("explode", {}, "A task can be paused, resumed and limited."),
    ],
)
def test_bad_limits_of_a_task_get_a_sentence(
    operators_client: Client, do: str, given: dict[str, str], said: str
) -> None:
    assert said in limit(operators_client, do, **given)
    assert not TaskLimit.objects.exists()


def test_limits_of_a_task_need_the_permission(tobias: User) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)

    assert "You may not steer tasks" in limit(client, "pause")
    tobias.user_permissions.add(Permission.objects.get(codename="change_tasklimit"))
    assert "is paused" in limit(client, "pause")
    assert client.post("/queues/limits/").status_code == 302
