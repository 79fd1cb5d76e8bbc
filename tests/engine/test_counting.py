"""Statistics: what ended is counted once, whoever counts and whatever is open meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.models import Sum

from tasks_app.alike import without_differences
from tasks_app.clock import database_now
from tasks_app.engine import counting
from tasks_app.engine.connect import SESSION
from tasks_app.models import CountedTo, FailureGroup, FailureStat, Grain, QueueStat, RunStat, Status, TaskRun
from tests import outcomes
from tests.plugins.processes import ClusterFactory, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def db() -> Iterator[counting.Connection]:
    with psycopg.connect(database_url(), autocommit=True) as found:
        found.execute(SESSION)
        yield found


def ended(count: int = 1, ago: float = 60, waited: float = 1.0, ran: float = 2.0, **given: Any) -> list[TaskRun]:
    """Runs that ended so many seconds ago."""
    at = database_now() - timedelta(seconds=ago)
    begun = at - timedelta(seconds=ran)
    due = begun - timedelta(seconds=waited)
    times = {"finished_at": at, "claimed_at": begun, "started_at": begun, "run_after": due, "enqueued_at": due}
    given = {"task_path": "shop.tasks.greet", "status": Status.SUCCESSFUL, **times, **given}
    return TaskRun.objects.bulk_create(TaskRun(**given) for _ in range(count))


def count_all(db: counting.Connection, most: int = counting.AT_ONCE) -> None:
    wait_until(lambda: counting.count(db, most) is False, what="all to be counted")


def counted(grain: Grain = Grain.MINUTE) -> int:
    return RunStat.objects.filter(grain=grain).aggregate(all=Sum("count", default=0))["all"]


def test_what_ended_is_counted_in_its_minute_hour_and_day(db: counting.Connection) -> None:
    ended(3)
    ended(2, status=Status.CANCELLED, queue_name="mail")
    (run,) = ended(1, ago=3 * 3600, task_path="shop.tasks.other")

    count_all(db)

    for grain in Grain:
        assert counted(grain) == 6
        rows = RunStat.objects.filter(grain=grain)
        assert set(rows.values_list("task_path", "queue_name", "status", "count")) == {
            ("shop.tasks.greet", "default", "SUCCESSFUL", 3),
            ("shop.tasks.greet", "mail", "CANCELLED", 2),
            ("shop.tasks.other", "default", "SUCCESSFUL", 1),
        }
    minute = RunStat.objects.get(grain=Grain.MINUTE, task_path="shop.tasks.other")
    assert run.finished_at
    assert minute.at == run.finished_at.replace(second=0, microsecond=0)
    day = RunStat.objects.get(grain=Grain.DAY, task_path="shop.tasks.other")
    assert day.at == run.finished_at.replace(hour=0, minute=0, second=0, microsecond=0)


def test_the_tasks_of_a_queue_are_summed_up(db: counting.Connection) -> None:
    ended(3, waited=0.5, ran=4.0)
    ended(2, task_path="shop.tasks.other", waited=0.5, ran=9.0)
    ended(1, status=Status.FAILED, failure="error", failure_message="no")
    count_all(db)
    ended(4, ran=4.0)
    count_all(db)

    for grain in Grain:
        tasks = RunStat.objects.filter(grain=grain).values_list("queue_name", "status").order_by("status")
        queues = QueueStat.objects.filter(grain=grain).values_list("queue_name", "status").order_by("status")
        added = {name: Sum(name) for name in ("count", "waits", "lengths", "waited", "ran")}
        names = {f"all_{name}": total for name, total in added.items()}
        assert list(tasks.annotate(**names)) == list(queues.annotate(**names))
        assert dict(queues.values_list("status", "count")) == {"SUCCESSFUL": 9, "FAILED": 1}


def test_failures_are_counted_by_group_time_and_queue(db: counting.Connection) -> None:
    failed: dict[str, Any] = {"status": Status.FAILED, "failure": "error", "failure_message": "no answer in 10 s"}
    ended(3, ago=60, **failed)
    ended(2, ago=60, queue_name="mail", **failed)
    count_all(db)
    ended(4, ago=50, **failed)
    ended(1, ago=40, **{**failed, "failure_message": "something else"})
    count_all(db)

    group = FailureGroup.objects.get(message="no answer in # s")
    for grain in Grain:
        stats = FailureStat.objects.filter(group=group, grain=grain)
        assert stats.filter(queue_name="default").aggregate(all=Sum("count"))["all"] == 7
        assert stats.filter(queue_name="mail").aggregate(all=Sum("count"))["all"] == 2
    assert FailureStat.objects.filter(grain=Grain.DAY).aggregate(all=Sum("count"))["all"] == 10


def test_counting_again_changes_nothing(db: counting.Connection) -> None:
    ended(3)
    count_all(db)
    count_all(db)
    assert counted() == 3

    ended(2, ago=30)
    count_all(db)
    assert counted() == 5


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.001, 0.0013, 0.7, 20.0, 3_600.0, 86_400.0 * 20, 86_400.0 * 300])
def test_lengths_stand_in_their_buckets(db: counting.Connection, seconds: float) -> None:
    ended(2, waited=seconds, ran=seconds)
    count_all(db)

    stat = RunStat.objects.get(grain=Grain.MINUTE)

    place = 0 if seconds < 0.001 else min(63, 1 + math.floor(2 * math.log2(seconds / 0.001)))
    for histogram in (stat.waits, stat.lengths):
        assert len(histogram) == 64
        assert {at: number for at, number in enumerate(histogram) if number} == {place: 2}
    assert stat.ran == pytest.approx(2 * seconds)
    assert stat.waited == pytest.approx(2 * seconds)


def test_what_was_cancelled_in_line_has_no_length(db: counting.Connection) -> None:
    ended(status=Status.CANCELLED, claimed_at=None, started_at=None)

    count_all(db)

    stat = RunStat.objects.get(grain=Grain.MINUTE)
    assert (stat.count, sum(stat.lengths), sum(stat.waits), stat.ran) == (1, 0, 0, 0)


def test_time_until_it_was_due_is_no_waiting(db: counting.Connection) -> None:
    begun = database_now() - timedelta(seconds=62)
    due: dict[str, Any] = {"enqueued_at": begun - timedelta(hours=5), "run_after": begun - timedelta(seconds=1)}
    ended(started_at=begun, claimed_at=begun, **due)

    count_all(db)

    assert RunStat.objects.get(grain=Grain.MINUTE).waited == pytest.approx(1, abs=0.1)


def test_many_are_counted_in_parts(db: counting.Connection) -> None:
    for ago in range(60, 90):
        ended(10, ago=ago)

    assert counting.count(db, 50) is None  # it begins
    assert counting.count(db, 50) is True
    assert counted() == 50
    count_all(db, 50)

    assert counted() == 300


def test_four_who_count_at_once_count_once(db: counting.Connection) -> None:
    counting.count(db)
    for ago in range(60, 100):
        ended(25, ago=ago)

    def keep_counting() -> None:
        with psycopg.connect(database_url(), autocommit=True) as own:
            own.execute(SESSION)
            while counting.count(own, 100) is not False:
                pass

    threads = [threading.Thread(target=keep_counting) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counted() == counted(Grain.DAY) == 1000


def test_what_is_not_committed_yet_is_not_passed_over(db: counting.Connection) -> None:
    """Its end is earlier than that of others that are seen already."""
    (late,) = TaskRun.objects.bulk_create(
        [TaskRun(task_path="a.b", status=Status.RUNNING, run_after=database_now(), enqueued_at=database_now())]
    )
    with psycopg.connect(database_url()) as other:
        finish = "UPDATE tasks_app_taskrun SET status = 'SUCCESSFUL', finished_at = clock_timestamp() WHERE id = %s"
        other.execute(finish, [late.pk])
        ended(5, ago=0)
        wait_until(lambda: settled() > late_end(other, late), what="the others to be settled")
        count_all(db)
        assert counted() == 0

        other.commit()
    count_all(db)
    wait_until(lambda: counting.count(db) is False and counted() == 6, what="all of them to be counted")


def settled() -> datetime:
    return database_now() - counting.SETTLED - timedelta(seconds=0.2)


def late_end(db: psycopg.Connection[Any], run: TaskRun) -> datetime:
    row = db.execute("SELECT finished_at FROM tasks_app_taskrun WHERE id = %s", [run.pk]).fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def test_a_forgotten_transaction_does_not_stop_the_statistics(
    db: counting.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FORGOTTEN", timedelta(seconds=0.5))
    ended(2)
    with psycopg.connect(database_url()) as other:
        other.execute("CREATE TEMP TABLE forgotten (it int)")  # has a number
        ended(3, ago=0)
        wait_until(lambda: counting.count(db) is False and counted() == 5, what="all to be counted")


def test_failures_that_look_alike_are_one_group(db: counting.Connection) -> None:
    failed: dict[str, Any] = {"status": Status.FAILED, "failure": "error"}
    for number in (7, 12, 12_345):
        entry = {"reason": "error", "exception": "shop.errors.Refused", "message": f"order {number} of ada@example.com"}
        ended(2, attempts=[entry], failure_message="Refused: no", **failed)
    entry = {"reason": "error", "exception": "KeyError", "message": "'currency'"}
    (other,) = ended(attempts=[entry], **failed)
    (dead,) = ended(status=Status.FAILED, failure="worker_lost", failure_message="The process died (signal 9).")

    count_all(db)

    groups = {group.message: group for group in FailureGroup.objects.all()}
    assert {message: group.count for message, group in groups.items()} == {
        "order # of <address>": 6,
        "'currency'": 1,
        "The process died (signal #).": 1,
    }
    assert groups["order # of <address>"].exception == "shop.errors.Refused"
    assert TaskRun.objects.filter(failure_group=groups["order # of <address>"]).count() == 6
    for run, message in ((other, "'currency'"), (dead, "The process died (signal #).")):
        run.refresh_from_db()
        assert run.failure_group == groups[message]
    assert groups["'currency'"].last_at == other.finished_at


def test_a_group_goes_on_with_the_next_failure(db: counting.Connection) -> None:
    failed: dict[str, Any] = {"status": Status.FAILED, "failure": "error", "failure_message": "no answer in 10 s"}
    (first,) = ended(ago=600, **failed)
    count_all(db)
    (last,) = ended(ago=60, **{**failed, "failure_message": "no answer in 12 s"})
    count_all(db)

    (group,) = FailureGroup.objects.all()
    assert (group.count, group.first_at, group.last_at) == (2, first.finished_at, last.finished_at)


def test_a_locked_failure_puts_the_counting_off(db: counting.Connection) -> None:
    counting.count(db)
    (run,) = ended(status=Status.FAILED, failure="error", failure_message="no")
    with psycopg.connect(database_url()) as other:
        other.execute("SELECT FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [run.pk])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            counting.count(db)
        assert counted() == 0
        assert FailureGroup.objects.count() == 0
    count_all(db)
    assert counted() == FailureGroup.objects.get().count == 1


HOSTILE = [
    "",
    "\n\n",
    "x" * 100_000,
    "é" * 5_000,
    "1" * 3_000,
    "/a" * 2_000,
    "(" * 3_000,
    "a@" * 2_000,
    "\u202egnp.exe",
]


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_any_message_can_be_told(db: counting.Connection, message: str) -> None:
    ended(status=Status.FAILED, failure="error", failure_message=message)

    count_all(db)

    assert len(FailureGroup.objects.get().message) <= 300


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("no answer in 10.5 s\nfor the third time", "no answer in # s"),
        ("GET https://shop.example.net/a/b?c=1 answered 503", "GET <url> answered #"),
        ("No such file: '/var/lib/uploads/x91.csv'", "No such file: '<path>'"),
        ("run c93e7d15-3c1f-4d0e-9a57-21f6b8d4c903 is gone", "run <id> is gone"),
        ("<Shop object at 0x7f00deadbeef>", "<Shop object at <id>>"),
        ("KeyError: 'currency'", "KeyError: 'currency'"),
    ],
)
def test_what_differs_from_run_to_run_is_left_out(message: str, told: str) -> None:
    assert without_differences(message) == told


def test_old_rows_are_forgotten(db: counting.Connection) -> None:
    now = database_now()
    for days in (0, 1, 3, 39, 41, 799, 801):
        for grain in Grain:
            RunStat.objects.create(
                grain=grain, at=now - timedelta(days=days), task_path="a", queue_name="b", status="FAILED", count=1,
                waits=[], lengths=[], waited=0, ran=0,
            )  # fmt: skip

        told: dict[str, Any] = {"task_path": "a", "failure": "error", "exception": "", "message": ""}
        at = now - timedelta(days=days)
        group = FailureGroup.objects.create(fingerprint=str(days), first_at=at, last_at=at, **told)
        for grain in Grain:
            FailureStat.objects.create(group=group, grain=grain, at=at, queue_name="b", count=1)
            QueueStat.objects.create(
                grain=grain, at=at, queue_name="b", status="FAILED", count=1, waits=[], lengths=[], waited=0, ran=0
            )

    counting.forget(db)

    for model in (RunStat, QueueStat, FailureStat):
        left = {grain: model._default_manager.filter(grain=grain).count() for grain in Grain}
        assert left == {Grain.MINUTE: 2, Grain.HOUR: 4, Grain.DAY: 6}
    assert FailureGroup.objects.count() == 6


def test_only_what_is_new_is_read(db: counting.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, attempt, max_attempts, attempts)"
            " SELECT gen_random_uuid(), 'a.b', '[]', '{}', 'default', 0, 'SUCCESSFUL', now(), now(),"
            " now() - interval '1 h', 1, 1, '[]' FROM generate_series(1, 9999)"
        )
        cursor.execute("ANALYZE tasks_app_taskrun")
    now = database_now()
    CountedTo.objects.update_or_create(pk=1, defaults={"at": now - timedelta(minutes=1)})
    period = {"since": now - timedelta(minutes=1), "horizon": now, "until": now, "most": 9}

    for statement in (counting.UNTIL, counting.COUNT, counting.FAILED):
        rows = db.execute(f"EXPLAIN (ANALYZE, BUFFERS OFF) {statement}", period).fetchall()
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan
        assert "rows=9999" not in plan


def test_clusters_count_what_they_do_together(qcluster: ClusterFactory) -> None:
    for number in range(40):
        (outcomes.fails if number % 4 == 0 else outcomes.succeeds).enqueue()
    for _ in range(2):
        qcluster(WORKERS=1)

    wait_until(lambda: counted() == 40, seconds=40, what="the runs to be in the statistics")
    wait_until(lambda: not TaskRun.objects.unfinished().exists(), what="all to be final")
    assert counted(Grain.HOUR) == counted(Grain.DAY) == 40
    assert FailureGroup.objects.get().count == TaskRun.objects.filter(failure_group__isnull=False).count() == 10
