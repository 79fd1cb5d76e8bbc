"""STEER: pauses and limits of queues and tasks, with a real cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.tasks import async_task, schedule
from django_tasks.exceptions import InvalidTaskError

from config.local import BASE_DIR
from tasks_app.backend import PostgresTask, task
from tasks_app.engine import limits
from tasks_app.health import waiting_queues
from tasks_app.home import Home, Look
from tasks_app.live import Viewer
from tasks_app.models import AuditEntry, Cluster, Queue, Status, TaskLimit, TaskRun
from tasks_app.portrait import Portrait
from tests import limited, outcomes
from tests.engine.test_cluster import finished
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

NOTES = "tests.limited.notes"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def begun(ledger: Path, count: int, seconds: float = 20) -> float:
    """Waits for so many begins; answers the moment of the last."""
    return wait_until(lambda: limited.begins(ledger)[count - 1 :], seconds=seconds, what=f"{count} begins")[0]


def two_heartbeats() -> None:
    beat = Cluster.objects.get().heartbeat_at
    wait_until(lambda: (Cluster.objects.get().heartbeat_at - beat).total_seconds() > 1.5, what="two heartbeats")


# Pause


def test_a_paused_queue_ends_what_runs_and_begins_nothing(qcluster: ClusterFactory, ledger: Path) -> None:
    mara = User.objects.create(username="mara")
    qcluster(WORKERS=2)
    at_hand = limited.notes.enqueue(str(ledger), 0, 1.0)
    begun(ledger, 1)

    Queue.pause("default", by=mara, why="The printer is out of paper.")
    for number in range(1, 20):
        limited.notes.enqueue(str(ledger), number)

    assert finished(at_hand).status == Status.SUCCESSFUL
    two_heartbeats()
    assert limited.numbers(ledger) == [0]
    paused = Queue.objects.get()
    assert (paused.name, paused.paused_by, paused.pause_reason) == ("default", mara, "The printer is out of paper.")
    assert paused.paused_at and paused.paused_until is None


def test_resuming_wakes_at_once(qcluster: ClusterFactory, ledger: Path) -> None:
    qcluster(WORKERS=1)
    Queue.pause("default")
    limited.notes.enqueue(str(ledger), 0)
    two_heartbeats()

    resumed = time.monotonic()
    Queue.resume("default")

    assert begun(ledger, 1) - resumed < 0.5
    assert Queue.objects.get().paused_at is None


def test_a_pause_ends_by_itself(qcluster: ClusterFactory, ledger: Path) -> None:
    qcluster(WORKERS=1)
    now = time.monotonic()
    Queue.pause("default", until=timezone.now() + timedelta(seconds=2.5))
    TaskLimit.pause(NOTES, until=timezone.now() + timedelta(seconds=4.5))
    outcomes.writes_ledger.enqueue(str(ledger.with_name("plain")), 0)
    limited.notes.enqueue(str(ledger), 0)

    wait_until(ledger.with_name("plain").exists, what="the run of the queue")
    assert 2.4 < time.monotonic() - now < 3.2
    assert 4.4 < begun(ledger, 1) - now < 5.2


def test_a_paused_task_waits_while_others_of_its_queue_run(qcluster: ClusterFactory, ledger: Path) -> None:
    """A task whose code declares nothing, with runs that were sent before and after."""
    limited.notes.enqueue_many([(str(ledger), number) for number in range(2_500)])

    TaskLimit.pause(NOTES, why="It mails the wrong people.")
    qcluster(WORKERS=2)
    limited.notes.enqueue(str(ledger), 2_500)

    assert finished(outcomes.succeeds.enqueue()).status == Status.SUCCESSFUL
    two_heartbeats()
    assert limited.numbers(ledger) == []
    assert not TaskRun.objects.filter(task_path=NOTES, attempt__gt=0).exists()

    TaskLimit.resume(NOTES)
    wait_until(lambda: TaskRun.objects.successful().filter(task_path=NOTES).count() == 2_501, what="all of them")
    assert sorted(limited.numbers(ledger)) == list(range(2_501))


# Limits


def test_a_queue_runs_no_more_than_its_limit(qcluster: ClusterFactory, ledger: Path) -> None:
    qcluster(WORKERS=4)
    Queue.limit("default", 2)
    limited.notes.enqueue_many([(str(ledger), number, 0.1) for number in range(8)])
    limited.notes_three_at_most.enqueue_many([(str(ledger), number, 0.1) for number in range(8, 16)])

    wait_until(lambda: len(limited.numbers(ledger, "end")) == 16, what="all of them")
    assert limited.most_at_once(ledger) == 2

    Queue.limit("default", None)
    limited.notes.enqueue_many([(str(ledger), number, 0.3) for number in range(16, 24)])
    wait_until(lambda: len(limited.numbers(ledger, "end")) == 24, what="all of them")
    assert limited.most_at_once(ledger) > 2


def test_a_task_runs_no_more_than_its_code_says(qcluster: ClusterFactory, ledger: Path) -> None:
    qcluster(WORKERS=5)
    for number in range(12):
        limited.notes_three_at_most.enqueue(str(ledger), number, 0.2)
    outcomes.sleeps.enqueue(0.0)

    wait_until(lambda: len(limited.numbers(ledger, "end")) == 12, what="all of them")
    assert limited.most_at_once(ledger) == 3
    limit = TaskLimit.objects.get()
    assert limit.max_running == 3
    assert limit.declared == limited.notes_three_at_most.limits


def test_a_limit_set_by_hand_holds_for_runs_that_wait_already(qcluster: ClusterFactory, ledger: Path) -> None:
    limited.notes.enqueue_many([(str(ledger), number, 0.1) for number in range(6)])
    TaskLimit.limit(NOTES, 1)
    qcluster(WORKERS=3)
    limited.notes.enqueue_many([(str(ledger), number, 0.1) for number in range(6, 9)])

    wait_until(lambda: len(limited.numbers(ledger, "end")) == 9, what="all of them")
    assert limited.most_at_once(ledger) == 1


def test_higher_priority_goes_first_among_limited_and_plain(qcluster: ClusterFactory, ledger: Path) -> None:
    """In the one order of the queue, whatever has limits."""
    high = limited.notes_three_at_most.using(priority=5)
    limited.notes.using(priority=1).enqueue(str(ledger), 3, 0.1)
    high.enqueue(str(ledger), 1, 0.1)
    limited.notes.using(priority=3).enqueue(str(ledger), 2, 0.1)
    qcluster(WORKERS=1)

    begun(ledger, 3)
    assert limited.numbers(ledger) == [1, 2, 3]


def test_a_rate_makes_wait_and_says_until_when(qcluster: ClusterFactory, ledger: Path) -> None:
    qcluster(WORKERS=2)
    first = limited.notes_twice_an_hour.enqueue(str(ledger), 0)
    assert finished(first).status == Status.SUCCESSFUL

    later = TaskRun.objects.get(pk=limited.notes_twice_an_hour.enqueue(str(ledger), 1).id)

    two_heartbeats()
    assert limited.numbers(ledger) == [0]
    later.refresh_from_db()
    assert (later.status, later.claimed_by, later.attempt) == (Status.READY, None, 0)
    opens = TaskLimit.objects.get().next_at
    assert opens and timedelta(minutes=29) < opens - timezone.now() < timedelta(minutes=30)

    TaskLimit.pace(later.task_path, None)
    wait_until(lambda: TaskRun.objects.successful().filter(pk=later.pk).exists(), what="its end")


def test_a_closed_limit_keeps_nobody_busy(qcluster: ClusterFactory, ledger: Path) -> None:
    process = qcluster(WORKERS=2)
    for number in range(5):
        limited.notes_twice_an_hour.enqueue(str(ledger), number)
    begun(ledger, 1)
    two_heartbeats()
    workers = process.titled("worker idle")
    assert len(workers) == 2

    spent = sum(sum(worker.cpu_times()[:2]) for worker in workers)
    two_heartbeats()

    assert sum(sum(worker.cpu_times()[:2]) for worker in workers) - spent < 0.1


# Who declares


def test_every_door_puts_a_run_under_the_limit_of_its_code(ledger: Path) -> None:
    path = "tests.limited.notes_three_at_most"
    limited.notes_three_at_most.enqueue(str(ledger), 0)
    limited.notes_three_at_most.enqueue_many([(str(ledger), 1)])
    async_task(path, str(ledger), 2)
    schedule(path, str(ledger), 3, name="third").rules.run_now()

    assert list(TaskRun.objects.values_list("limit_key", flat=True)) == [path] * 4
    assert TaskLimit.objects.get().max_running == 3


def test_a_schedule_fires_runs_under_the_limit(qcluster: ClusterFactory, ledger: Path) -> None:
    schedule("tests.limited.notes_three_at_most", str(ledger), 0, schedule_type="O", next_run=timezone.now())
    qcluster(WORKERS=1)

    begun(ledger, 1)
    assert TaskRun.objects.get().limit_key == "tests.limited.notes_three_at_most"


def test_a_plain_run_is_sent_as_ever() -> None:
    outcomes.succeeds.enqueue()
    with CaptureQueriesContext(connection) as queries:
        outcomes.succeeds.enqueue()
    (query,) = queries.captured_queries
    assert "limit" not in query["sql"]
    assert TaskRun.objects.filter(limit_key=None).count() == 2
    assert not TaskLimit.objects.exists()


def test_what_the_code_declares_is_not_part_of_the_callers_transaction(ledger: Path) -> None:
    """Else its row would stay locked, and every claim of the task would wait for the caller."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        limited.notes_three_at_most.enqueue(str(ledger), 0)
        raise ZeroDivisionError

    assert TaskLimit.objects.get().max_running == 3
    assert not TaskRun.objects.exists()


def test_what_somebody_set_stands_until_the_code_says_something_new(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = limited.notes_three_at_most.module_path
    limited.notes_three_at_most.enqueue(str(ledger), 0)
    TaskLimit.limit(key, 7)
    limited.notes_three_at_most.enqueue(str(ledger), 1)
    assert TaskLimit.objects.get().max_running == 7

    other: PostgresTask[..., Any] = task(max_running=4)(limited.notes.func)
    monkeypatch.setattr(PostgresTask, "module_path", key)
    other.enqueue(str(ledger), 2)
    assert TaskLimit.objects.get().max_running == 7, "older code had the say"
    monkeypatch.setattr(limits, "LOADED", time.monotonic())
    other.enqueue(str(ledger), 3)

    assert TaskLimit.objects.get().max_running == 4


def test_a_limit_goes_when_the_code_declares_none_any_more(
    qcluster: ClusterFactory, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = limited.notes_twice_an_hour.limits
    TaskLimit.objects.create(key=NOTES, rate_count=2, rate_seconds=3600.0, burst=1, declared=declared)
    qcluster(WORKERS=1)
    for number in range(5):
        limited.notes.enqueue(str(ledger), number)

    begun(ledger, 5)
    assert TaskLimit.objects.get().declared is None
    assert TaskLimit.objects.get().rate_count is None


# What is refused


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_running": 0}, "max_running must be a whole number"),
        ({"max_running": True}, "max_running must be a whole number"),
        ({"max_running": 1.5}, "max_running must be a whole number"),
        ({"rate": "10"}, "rate must be a number of runs"),
        ({"rate": "0/s"}, "rate must be a whole number"),
        ({"rate": "ten/s"}, "rate must be a number of runs"),
        ({"rate": 10}, "rate must be a number of runs"),
        ({"rate": "10/s", "burst": 0}, "burst must be a whole number"),
        ({"burst": 5}, "burst needs a rate"),
    ],
)
def test_options_that_nobody_can_keep(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        task(**options)(limited.notes.func)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: Queue.limit("default", 0), "max_running must be"),
        (lambda: Queue.limit("", 1), "1 to 100 characters"),
        (lambda: Queue.pause("x" * 101), "1 to 100 characters"),
        (lambda: Queue.pause("a\0b"), "1 to 100 characters"),
        (lambda: Queue.pause("a", until=datetime(2030, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda: Queue.pause("a", until=timezone.now() - timedelta(seconds=1)), "ahead"),
        (lambda: TaskLimit.pace("a.b", "fast"), "rate must be"),
        (lambda: TaskLimit.pace("a.b", None, 3), "needs a rate"),
    ],
)
def test_acts_that_make_no_sense_change_nothing(act: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        act()
    assert not Queue.objects.exists() and not TaskLimit.objects.exists()


# The page of a run, the first page, the README


def test_pages_tell_who_paused_why_and_what_is_full(ledger: Path) -> None:
    mara = User.objects.create_superuser("mara")
    client = Client()
    client.force_login(mara)
    Cluster.objects.create(
        name="default", queues=["default"], host="a", pid=1, workers=1, started_at=Now(), heartbeat_at=Now()
    )
    run = TaskRun.objects.get(pk=limited.notes_three_at_most.enqueue(str(ledger), 0).id)
    assert Portrait(run).why.head == "It is in line."

    Queue.pause("default", by=mara, why="No paper")
    why = Portrait(run).why
    assert why.head == "The queue default is paused."
    assert re.fullmatch(r"Since .* by mara: No paper\. It waits to be resumed\.", why.text)
    everybody = Viewer(None, is_staff=True)
    health = Home(everybody, Look.of(everybody)).health
    assert [pause.subject for pause in health.paused] == ["The queue default"]
    assert (health.waiting.length, waiting_queues()) == (1, ["default"])
    assert "<b>The queue default is paused.</b> Since" in client.get("/").content.decode()
    assert "The queue default is paused." in client.get(f"/runs/{run.pk}/").content.decode()
    Queue.resume("default")

    held = [limited.notes_three_at_most.enqueue(str(ledger), number).id for number in range(3)]
    TaskRun.objects.filter(pk__in=held).update(claimed_by="a:1:1:b", attempt=1)
    why = Portrait(run).why
    assert (why.head, why.text) == ("Its task is at its limit.", "3 of 3 are at work, over all hosts.")
    assert sorted(str(other.id) for other in why.links) == sorted(held)
    TaskRun.objects.filter(pk__in=held).update(claimed_by=None, attempt=0)

    TaskLimit.pace(run.task_path, "10/m", burst=5)
    TaskLimit.objects.update(next_at=Now() + timedelta(seconds=60))
    why = Portrait(run).why
    assert why.head == "Its task is over its rate."
    said = r"10 a minute, 5 at once may begin, over all hosts; the next one at \d\d:\d\d:\d\d\."
    assert re.fullmatch(said, why.text)


def test_the_admin_acts_through_the_verbs() -> None:
    operator = User.objects.create_superuser("operator")
    client = Client()
    client.force_login(operator)
    page = "/admin/tasks_app/queue/"
    given = {"name": "mail", "is_paused": "on", "until_0": "", "until_1": "", "reason": "No paper", "most": "4"}

    assert client.post(f"{page}add/", given).status_code == 302
    queue = Queue.objects.get()
    assert (queue.name, queue.max_running, queue.paused_by, queue.pause_reason) == ("mail", 4, operator, "No paper")
    assert client.get(page).status_code == 200 and client.get(f"{page}mail/change/").status_code == 200

    assert (
        client.post(f"{page}mail/change/", {"reason": "", "most": "", "until_0": "", "until_1": ""}).status_code == 302
    )
    queue.refresh_from_db()
    assert (queue.paused_at, queue.max_running) == (None, None)
    client.post(page, {"action": "pause", "_selected_action": ["mail"]})
    queue.refresh_from_db()
    assert queue.paused_at

    page = "/admin/tasks_app/tasklimit/"
    given = {"key": "tasks_app.tasks.practice.create_task", "until_0": "", "until_1": "", "reason": "", "most": ""}
    refused = client.post(f"{page}add/", {**given, "rate": "fast", "at_once": "1"})
    assert "rate must be a number of runs" in refused.content.decode()
    assert client.post(f"{page}add/", {**given, "rate": "10/m", "at_once": "5"}).status_code == 302
    assert TaskLimit.objects.get().rate == "10 a minute, 5 at once"
    assert client.get(page).status_code == 200
    assert client.get(f"{page}{quote(given['key'])}/change/").status_code == 200


def test_the_admin_asks_for_the_permission() -> None:
    guest = User.objects.create_user("guest", is_staff=True)
    client = Client()
    client.force_login(guest)
    Queue.pause("mail")

    for page in ("queue/add/", "queue/mail/change/", "tasklimit/"):
        assert client.post(f"/admin/tasks_app/{page}", {}).status_code == 403
    guest.user_permissions.add(Permission.objects.get(codename="view_queue"))
    assert client.get("/admin/tasks_app/queue/").status_code == 200
    client.post("/admin/tasks_app/queue/", {"action": "resume", "_selected_action": ["mail"]})
    assert client.post("/admin/tasks_app/queue/mail/change/", {}).status_code == 403
    assert Queue.objects.get().paused_at


def test_the_example_of_the_readme_does_what_it_says() -> None:
    readme = (BASE_DIR / "README.md").read_text()
    lines = re.search(r"```python\n(from tasks_app\.models import Queue, TaskLimit\n.*?)```", readme, re.DOTALL)
    assert lines
    mara = User.objects.create(username="mara")

    exec(lines[1], {"mara": mara, "tomorrow": timezone.now() + timedelta(days=1)})

    queue, greet = Queue.objects.get(), TaskLimit.objects.get()
    assert (queue.paused_at, queue.max_running) == (None, 4)
    assert greet.paused_at and (greet.max_running, greet.rate) == (2, "10 a minute, 5 at once")
    assert all(f"`{option}`" in readme for option in ("max_running=2", 'rate="10/m"', "burst=5"))
    task(max_running=2, rate="10/m", burst=5)(limited.notes.func)


def test_each_act_is_audited_with_who_and_why() -> None:
    mara = User.objects.create_user("mara")

    Queue.pause("default", by=mara, why="No paper.")
    Queue.resume("default")
    Queue.limit("default", 4, by=mara)
    TaskLimit.pace("tests.outcomes.succeeds", "10/m", burst=5, by=mara)

    acts = AuditEntry.objects.order_by("id").values_list("verb", "subject", "actor_name", "reason", "details")
    assert list(acts) == [
        ("pause", "queue default", "mara", "No paper.", {}),
        ("resume", "queue default", "", "", {}),
        ("limit", "queue default", "mara", "", {"max_running": 4}),
        ("pace", "task tests.outcomes.succeeds", "mara", "", {"rate": "10/m", "burst": 5}),
    ]
