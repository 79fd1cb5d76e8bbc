"""WATCH and STEER: the page of the clusters and their workers."""

from __future__ import annotations

import html
import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import workers
from tasks_app.clock import database_now
from tasks_app.engine import link
from tasks_app.models import AuditEntry, Cluster, Status, TaskRun
from tasks_app.models.cluster import DesiredState
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def page(client: Client, address: str = "/workers/") -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def steer(client: Client, do: str, cluster: Cluster | str, **given: object) -> str:
    """The page that it leads to."""
    pk = cluster.pk if isinstance(cluster, Cluster) else cluster
    response = client.post("/workers/steer/", {"do": do, "cluster": pk, **given}, follow=True)
    assert response.redirect_chain == [("/workers/", 302)]
    return html.unescape(response.content.decode())


def poll_of(text: str) -> str:
    found = re.search(r'data-poll hx-get="([^"]+)"', text)
    assert found
    return html.unescape(found[1])


def told(number: int, does: str = "idle", **more: Any) -> dict[str, Any]:
    """A worker as a report has it."""
    since = (database_now() - timedelta(seconds=18)).timestamp()
    return {
        "number": number,
        "pid": 4000 + number,
        "does": does,
        "since": since,
        "ended": 1200,
        "failed": 3,
        "memory": 71_000_000,
        **more,
    }


def tell(cluster: Cluster, *lines: dict[str, Any], **more: Any) -> None:
    """Its heartbeat, with a report."""
    host = {"cores": 4, "memory": 2_000_000_000, "free": 1, "load": 0.4}
    report = {"state": "run", "size": len(lines), "renewed": None, "ended": 48213, "failed": 61, "memory": 412_000_000}
    cluster.report = {**report, "host": host, "python": "3.11.2", "workers": list(lines), **more}
    cluster.save()


def unit(cluster: Cluster) -> workers.Unit:
    return next(each for each in workers.look().units if each.id == str(cluster.pk))


def at_work(run: RunFactory, cluster: Cluster, number: int = 1, seconds_ago: float = 30, **fields: Any) -> TaskRun:
    worker = f"{cluster.pk.hex[:12]}:{number}:{4000 + number}:{cluster.host}"
    return run(seconds_ago, **{**SITUATIONS["running"], "claimed_by": worker, **fields})


# Watch


def test_a_cluster_tells_its_facts_and_its_workers(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    tell(cluster, told(1, "busy"), told(2), told(3, "busy"), told(4, "starting", memory=None))
    found = at_work(run, cluster)
    text = html.unescape(page(operators_client))

    for said in (
        "1 cluster live on 1 host. 2 of 4 workers busy, 1 starting.",
        "web-1", "412 MB of 2.0 GB", "48\u00a0213", "61", "4 cores, load 0.4", "3.11.2, PID 1", "Idle", "Starting",
        "Short runs, one after the other", "71 MB", found.get_absolute_url(), "type=3", '<progress value="60"',
    ):  # fmt: skip
        assert said in text, said
    assert [(line.number, line.does) for line in unit(cluster).workers] == [
        (1, "busy"), (2, "idle"), (3, "busy"), (4, "starting"),
    ]  # fmt: skip


def test_it_is_told_how_long_a_cluster_is_up_and_a_worker_at_what_it_does(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    now = database_now()
    cluster.started_at = now - timedelta(hours=3, minutes=7, seconds=20)
    since = (now - timedelta(hours=1, minutes=5, seconds=20)).timestamp()
    tell(cluster, told(1, "busy", since=since), told(2, since=since))
    at_work(run, cluster, 1, seconds_ago=2 * 3600 + 9 * 60 + 20)
    text = page(operators_client)

    up = re.search(r'<dt>Up</dt><dd><time [^>]*data-tick="elapsed"[^>]*>([^<]+)</time></dd>', text)
    assert up and up[1] == "3 h 7 min"
    ticking = r'<td class="n"><time [^>]*data-tick="elapsed"[^>]*>([^<]+)</time></td>'
    lengths = re.findall(rf'<tr id="worker-\w+-(\d)-\d+">.*?{ticking}', text, re.DOTALL)
    assert lengths == [("1", "2 h 9 min"), ("2", "1 h 5 min")]  # of its run; of being idle


def test_a_worker_that_has_begun_since_the_heartbeat_is_told(cluster: Cluster, run: RunFactory) -> None:
    tell(cluster, told(1))
    at_work(run, cluster, 2)

    assert [(line.number, bool(line.run)) for line in unit(cluster).workers] == [(1, False), (2, True)]


def test_a_cluster_of_an_older_release_is_told_with_what_it_says(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    """In a rolling deployment it runs on beside the new ones: its heartbeat knows no report."""
    Cluster.objects.update(started_at=database_now() - timedelta(hours=1), busy=1)
    at_work(run, cluster, 2)
    text = page(operators_client)

    assert "It is of an older release: it has 4 workers, 1 of them busy, and tells no more." in text
    assert "which knows no restart" in text
    assert "create_task" in text


@pytest.mark.parametrize("report", [[], "x", {"workers": 7}, {"workers": [None, {}]}, {"workers": [{"number": 3}]}])
def test_a_report_of_another_release_hides_nothing(operators_client: Client, cluster: Cluster, report: Any) -> None:
    Cluster.objects.update(report=report)

    assert "web-1" in page(operators_client)


def test_silence_is_told_when_it_is_news(cluster: Cluster) -> None:
    tell(cluster, told(1))
    assert (unit(cluster).is_heard, unit(cluster).state) == (True, "live")
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(seconds=8))
    assert (unit(cluster).is_heard, unit(cluster).state) == (False, "live")
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(seconds=80))
    assert unit(cluster).state == "silent"


def test_a_cluster_that_nobody_rescued_is_shown_as_silent(operators_client: Client, cluster: Cluster) -> None:
    Cluster.objects.update(heartbeat_at=database_now() - timedelta(seconds=80))
    text = page(operators_client)

    assert "no other cluster is there to take its runs over" in text
    assert "No cluster is live, so nothing is done." in text


@pytest.mark.parametrize(
    ("wished", "report", "said"),
    [
        ({"desired_state": "stop"}, {}, "Asked to stop: 1 run to end."),
        ({"desired_state": "stop"}, {"state": "stop"}, "Stopping: 1 run to end."),
        ({"desired_state": "quiet"}, {}, "Asked to take nothing new."),
        ({"desired_state": "quiet"}, {"state": "quiet"}, "Takes nothing new: 1 run to end."),
        ({}, {"state": "quiet"}, "Asked to take runs again."),
        ({"desired_workers": 5}, {}, "Asked for 5 workers."),
        ({"desired_workers": 5}, {"size": 5}, "Grows to 5."),
        ({"desired_workers": 1}, {"size": 1}, "Shrinks to 1: 1 still ends the run at hand."),
    ],
)
def test_a_wish_is_told_with_how_far_it_has_come(
    operators_client: Client, cluster: Cluster, wished: dict[str, Any], report: dict[str, Any], said: str
) -> None:
    tell(cluster, told(1, "busy"), told(2), **report)
    Cluster.objects.update(**wished)

    assert unit(cluster).wishes == [said]
    assert said in html.unescape(page(operators_client))


def test_a_restart_is_told_until_the_last_has_left(cluster: Cluster) -> None:
    tell(cluster, told(1, "busy"), told(2))
    cluster.steer(restart=True)
    cluster.refresh_from_db()
    assert unit(cluster).wishes == ["Asked to replace its workers."]
    assert cluster.restart_at
    renewed = cluster.restart_at.timestamp()
    tell(cluster, told(1, "busy", leaving=True), told(2), renewed=renewed)
    assert unit(cluster).wishes == ["Replaces its workers: 1 of 2 still ends its run."]
    tell(cluster, told(1), told(2), renewed=renewed)
    assert unit(cluster).wishes == []


def lose(cluster: Cluster) -> Cluster:
    """Another cluster takes over what it held, with the statements of the engine."""
    Cluster.objects.filter(pk=cluster.pk).update(heartbeat_at=database_now() - timedelta(minutes=1))
    rescuer = link.Link("default", "web-2", ["default"], 2)
    rescuer.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT heartbeat_at::text FROM tasks_app_cluster WHERE id = %s", [cluster.pk])
        rescuer._rescue(cluster.pk, cluster.host, cursor.fetchone()[0])
    rescuer.db.close()
    cluster.refresh_from_db()
    return Cluster.objects.get(pk=rescuer.cluster_id)


@pytest.mark.django_db(transaction=True)
def test_a_lost_cluster_is_told_with_what_was_rescued(
    operators_client: Client, cluster: Cluster, run: RunFactory
) -> None:
    back, over = at_work(run, cluster, 1), at_work(run, cluster, 2, attempt=3)
    lose(cluster)
    text = html.unescape(page(operators_client))

    assert "It held 2 runs. web-2 took them over at " in text
    assert ": 1 went back in line, 1 had no attempt left and failed." in text
    for found in (back, over):
        assert found.get_absolute_url() in text
    assert "worker lost" in text
    assert "1 cluster live on 1 host, 1 lost." in text

    seen = poll_of(text)
    assert operators_client.get(seen, headers=HTMX).status_code == 204
    TaskRun.objects.filter(pk=back.pk).update(status=Status.SUCCESSFUL)
    assert operators_client.get(seen, headers=HTMX).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_lost_cluster_is_forgotten_when_it_was_seen(operators_client: Client, cluster: Cluster) -> None:
    lose(cluster)
    assert "It held no runs." in page(operators_client)

    assert "is forgotten" in steer(operators_client, "forget", cluster)
    assert "Lost" not in page(operators_client)
    assert AuditEntry.objects.get().details == {"forgotten": True}
    assert "Only a cluster that was lost can be forgotten." in steer(operators_client, "forget", cluster)


def test_a_rescue_of_an_older_release_is_told_without_its_runs(cluster: Cluster) -> None:
    Cluster.objects.update(lost_at=database_now(), rescued=3)

    assert unit(cluster).rescue_told.startswith("It held 3 runs. Another cluster took them over at ")


def test_stopped_ones_stay_for_a_day(operators_client: Client, cluster: Cluster) -> None:
    Cluster.objects.update(stopped_at=database_now() - timedelta(hours=3))
    assert "1 stopped within a day" in page(operators_client)
    Cluster.objects.update(stopped_at=database_now() - timedelta(hours=30))
    assert "stopped within a day" not in page(operators_client)


def test_nothing_runs_and_the_command_is_told(operators_client: Client) -> None:
    text = page(operators_client)

    assert "No cluster runs" in text
    assert "python manage.py qcluster" in text


def test_a_queue_without_a_worker_is_told(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    run(5, queue_name="mail")
    run(5, queue_name="later", run_after=3600)
    run(5)
    text = page(operators_client)

    assert "No live worker takes from the queue mail." in text
    assert "from the queue later" not in text
    assert "from the queue default" not in text


def test_names_are_shown_and_never_run(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    hostile = "<b>x</b>\u202egnp\x1b[2J"
    Cluster.objects.update(host=hostile, name=hostile, queues=[hostile])
    tell(Cluster.objects.get(), told(1, "busy"))
    run(5, queue_name="<i>lost</i>")
    text = page(operators_client)

    assert "<b>x" not in text
    assert "<i>lost" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_a_large_pool_is_cut_short(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    tell(cluster, *[told(number) for number in range(1, 257)])
    at_work(run, cluster, 200)

    assert unit(cluster).lines[0].number == 200
    assert "192 more of its workers are not listed" in page(operators_client)


# Steer


def test_buttons_and_a_number_change_the_pool(operators_client: Client, operator: User, cluster: Cluster) -> None:
    tell(cluster, told(1), told(2))

    def value_of(button: str) -> str:
        found = re.search(rf'name="to" value="(\d+)" aria-label="{button}', page(operators_client))
        assert found
        return found[1]

    assert (value_of("Shrink"), value_of("Grow")) == ("1", "3")
    said = steer(operators_client, "resize", cluster, to=value_of("Grow"), workers=2)
    assert "default on web-1 is to keep 3 workers." in said
    cluster.refresh_from_db()
    assert cluster.desired_workers == 3
    assert "is to keep 2 workers." in steer(operators_client, "resize", cluster, to=value_of("Shrink"), workers=3)
    cluster.refresh_from_db()
    assert cluster.desired_workers == 2
    assert "is to keep 7 workers" in steer(operators_client, "resize", cluster, workers=7)
    entry = AuditEntry.objects.order_by("id").first()
    assert entry
    assert (entry.actor, entry.address, entry.given) == (operator, "127.0.0.1", "3 workers")


def test_quiet_run_restart_and_stop_are_forms(operators_client: Client, cluster: Cluster) -> None:
    for do, state in (("quiet", DesiredState.QUIET), ("run", DesiredState.RUN), ("stop", DesiredState.STOP)):
        steer(operators_client, do, cluster, why="Because.")
        cluster.refresh_from_db()
        assert cluster.desired_state == state
    assert cluster.restart_at is None
    steer(operators_client, "restart", cluster)
    cluster.refresh_from_db()
    assert cluster.restart_at
    assert [entry.given for entry in AuditEntry.objects.order_by("id")] == [
        "take nothing new", "take runs again", "stop", "restart the workers",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("do", "given", "said"),
    [
        ("resize", {"workers": "-1"}, "A cluster has 0 to 256 workers."),
        ("resize", {"workers": "257"}, "A cluster has 0 to 256 workers."),
        ("resize", {"workers": "many"}, "A cluster has 0 to 256 workers."),
        ("resize", {"workers": "9" * 5000}, "A cluster has 0 to 256 workers."),
        ("resize", {}, "A cluster has 0 to 256 workers."),
        ("explode", {}, "A cluster can grow, shrink, be quiet, go on, restart its workers and stop."),
        ("stop", {"cluster": str(uuid.uuid4())}, "That cluster is not known any more."),
        ("stop", {"cluster": "x" * 300}, "That cluster is not known any more."),
        ("stop", {"cluster": "\0"}, "That cluster is not known any more."),
    ],
)
def test_bad_input_gets_a_sentence(
    operators_client: Client, cluster: Cluster, do: str, given: dict[str, str], said: str
) -> None:
    response = operators_client.post("/workers/steer/", {"do": do, "cluster": cluster.pk, **given}, follow=True)

    assert said in html.unescape(response.content.decode())
    assert not AuditEntry.objects.exists()


def test_one_that_is_gone_obeys_nobody(operators_client: Client, cluster: Cluster) -> None:
    Cluster.objects.update(stopped_at=database_now())

    assert "nobody is there to obey" in steer(operators_client, "quiet", cluster)


def test_steering_needs_the_permission(tobias: User, cluster: Cluster) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)

    assert "needs the permission to change" in page(client)
    assert "You may not steer clusters" in steer(client, "stop", cluster)
    assert not AuditEntry.objects.exists()

    tobias.user_permissions.add(Permission.objects.get(codename="change_cluster"))
    assert "was asked to stop" in steer(client, "stop", cluster)


def test_who_is_no_operator_finds_nothing(client: Client, cluster: Cluster) -> None:
    assert client.get("/workers/").status_code == 404
    assert client.post("/workers/steer/", {"do": "stop", "cluster": cluster.pk}).status_code == 404
    assert client.post("/workers/smoke-test/").status_code == 404
    assert not TaskRun.objects.exists()


# Smoke test


def test_a_smoke_test_sends_one_run_a_queue(operators_client: Client, operator: User, cluster: Cluster) -> None:
    Cluster.objects.update(queues=["default", "images"])
    response = operators_client.post("/workers/smoke-test/", follow=True)
    text = response.content.decode()

    runs = list(TaskRun.objects.order_by("queue_name"))
    assert [(run.queue_name, run.owner, run.max_attempts) for run in runs] == [
        ("default", operator, 1), ("images", operator, 1),
    ]  # fmt: skip
    assert all(run.expires_at for run in runs)
    assert text.count("Nobody has taken it yet.") == 2
    for run in runs:
        assert run.get_absolute_url() in text


def test_a_smoke_test_tells_the_round_trip(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    path = "tasks_app.tasks.smoke.smoke_test"
    found = run(5, **{**SITUATIONS["successful"], "task_path": path, "claimed_at": 0.003, "finished_at": 0.008})
    address = f"/workers/?test={found.pk}"

    text = page(operators_client, address)
    assert "Taken after 3 ms by web-1, worker 2, and back after 8 ms." in text
    assert operators_client.get(poll_of(text), headers=HTMX).status_code == 204


def test_only_smoke_tests_are_told_as_such(operators_client: Client, cluster: Cluster, run: RunFactory) -> None:
    other = run(5)
    for address in (f"/workers/?test={other.pk}", "/workers/?test=nonsense", "/workers/?" + "test=%00&" * 900):
        assert "Round trip" not in page(operators_client, address)


def test_there_is_nothing_to_be_tested_without_a_cluster(operators_client: Client) -> None:
    response = operators_client.post("/workers/smoke-test/", follow=True)

    assert "there is nothing to be tested" in response.content.decode()
    assert not TaskRun.objects.exists()


# What it costs


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, run: RunFactory, cluster: Cluster, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    tell(cluster, told(1, "busy"), told(2))
    at_work(run, cluster)
    poll = poll_of(page(operators_client))

    with django_assert_num_queries(1):
        assert operators_client.get(poll, headers=HTMX).status_code == 204
    Cluster.objects.update(heartbeat_at=database_now())
    assert operators_client.get(poll, headers=HTMX).status_code == 204
    tell(cluster, told(1, "busy"), told(2, "busy"))
    assert operators_client.get(poll, headers=HTMX).status_code == 200


def test_a_page_takes_few_queries(
    operators_client: Client, run: RunFactory, cluster: Cluster, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(1, 20):
        at_work(run, cluster, number)
    tell(cluster, *[told(number) for number in range(1, 20)])
    with django_assert_max_num_queries(6):
        page(operators_client)


def test_a_million_rows_are_not_read(cluster: Cluster) -> None:
    """A tenth of them, planned as a server plans them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts) SELECT gen_random_uuid(), 'a.b', '[]', '{}',"
            " 'q' || n % 7, 0, CASE WHEN n % 10 = 0 THEN 'READY' ELSE 'SUCCESSFUL' END, now(), now(),"
            " CASE WHEN n % 10 > 0 THEN now() END, 0, 1, '[]' FROM generate_series(1, 30000) AS n"
        )
        cursor.execute("SELECT id FROM tasks_app_taskrun LIMIT 20")
        kept = [[str(pk), "READY"] for (pk,) in cursor.fetchall()]
        Cluster.objects.update(lost_at=database_now(), rescue={"by": None, "runs": kept})
        cursor.execute("ANALYZE tasks_app_taskrun, tasks_app_cluster")
        given: dict[str, Any] = {"silence": 15.0, "tests": [uuid.uuid4()], "task": "a.b"}
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS OFF) {workers.LOOK}", given)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on tasks_app_taskrun" not in plan
