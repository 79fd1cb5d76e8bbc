"""RUN: what is not begun in time does not begin any more."""

from __future__ import annotations

import re
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from django_q.tasks import async_task, schedule
from django_tasks.exceptions import InvalidTaskError

from tasks_app.backend import task
from tasks_app.clock import database_now
from tasks_app.engine import sentinel, statements
from tasks_app.engine.connect import connect
from tasks_app.engine.link import Link
from tasks_app.models import Status, TaskRun, Workflow
from tests import outcomes, wishful
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def in_seconds(seconds: float) -> datetime:
    return database_now() + timedelta(seconds=seconds)


def cancelled(run_id: str) -> TaskRun:
    found = wait_until(lambda: TaskRun.objects.cancelled().filter(pk=run_id).first(), what="its expiry")
    assert found
    return found


def expire(limit: int = 1_000) -> int:
    link = Link("default", "host", ["default"], 1)
    link.connection = connect("test")
    try:
        return link.expire(limit)[0]
    finally:
        link.connection.close()


def test_a_run_that_is_not_begun_in_time_is_cancelled_with_the_reason(qcluster: ClusterFactory) -> None:
    qcluster()
    at = in_seconds(1.5)
    result = outcomes.succeeds.using(queue_name="nobody's", expires_at=at).enqueue()

    run = cancelled(result.id)

    assert run.failure_message == f"Not started by {at:%H:%M:%S} UTC, when it expired."
    assert run.finished_at is not None
    assert timedelta() <= run.finished_at - at < timedelta(seconds=1)
    assert (run.attempt, run.attempts, run.started_at, run.claimed_by, run.failure) == (0, [], None, None, None)


def test_expiry_is_as_precise_as_due_runs_are(qcluster: ClusterFactory) -> None:
    """Most of them, since a machine can stand still for a moment: not only with the heartbeat, once a second."""
    qcluster()
    moments = [in_seconds(seconds) for seconds in (1.0, 1.25, 1.5, 1.75, 2.0)]
    ids = [outcomes.succeeds.using(queue_name="nobody's", expires_at=at).enqueue().id for at in moments]

    ends = [cancelled(run_id).finished_at for run_id in ids]

    delays = sorted((end - at).total_seconds() for end, at in zip(ends, moments, strict=True) if end)
    assert delays[0] >= 0
    assert delays[2] < 0.25


def test_a_run_that_is_begun_in_time_is_not_touched(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    gate, ledger, at = tmp_path / "gate", tmp_path / "ledger", in_seconds(1.5)
    outcomes.writes_ledger_at_gate.using(expires_at=at).enqueue(str(ledger), 1, str(gate))
    wait_until(ledger.exists, what="its beginning")
    late = outcomes.succeeds.using(queue_name="nobody's", expires_at=at + timedelta(seconds=0.1)).enqueue()
    cancelled(late.id)

    gate.touch()

    wait_until(lambda: TaskRun.objects.successful().exists(), what="its end")
    assert ledger.read_text() == "1\n"


def test_a_run_that_was_begun_is_tried_again_after_it_would_have_expired(
    qcluster: ClusterFactory, tmp_path: Path
) -> None:
    qcluster()
    gate, at = tmp_path / "gate", in_seconds(1.5)
    result = outcomes.asks_for_another_try_at_once.using(expires_at=at).enqueue(str(gate))
    wait_until(lambda: TaskRun.objects.exclude(claimed_by=None).exists(), what="its claim")
    late = outcomes.succeeds.using(queue_name="nobody's", expires_at=at + timedelta(seconds=0.1)).enqueue()
    cancelled(late.id)

    gate.touch()

    run = wait_until(lambda: TaskRun.objects.successful().filter(pk=result.id).first(), what="its second attempt")
    assert run and run.attempt == 2


def test_expired_runs_that_were_begun_only_forget_it() -> None:
    past = in_seconds(-10)
    tried = outcomes.succeeds.using(expires_at=past).enqueue()
    TaskRun.objects.filter(pk=tried.id).update(attempt=1, attempts=[{"reason": "error"}])
    given_back = outcomes.succeeds.using(expires_at=past).enqueue()
    TaskRun.objects.filter(pk=given_back.id).update(attempts=[{"reason": "given_back"}])
    sought = outcomes.succeeds.using(expires_at=past).enqueue()
    TaskRun.objects.filter(pk=sought.id).update(unknown_since=past, run_after=in_seconds(10))

    assert expire() == 3
    assert expire() == 0

    found = {str(run.pk): (run.status, run.expires_at) for run in TaskRun.objects.all()}
    assert found == {tried.id: ("READY", None), given_back.id: ("READY", None), sought.id: ("CANCELLED", past)}


def test_no_worker_takes_an_expired_run() -> None:
    expired = outcomes.succeeds.using(expires_at=in_seconds(-1)).enqueue()
    begun = outcomes.succeeds.using(expires_at=in_seconds(-1)).enqueue()
    TaskRun.objects.filter(pk=begun.id).update(attempt=1)
    fresh = outcomes.succeeds.using(expires_at=in_seconds(60)).enqueue()

    with connect("test") as db:
        rows = db.execute(statements.CLAIM, {"queue": "default", "me": "c:1:1:h", "limit": 10}).fetchall()

    assert {str(row[0]) for row in rows} == {begun.id, fresh.id} != {expired.id}


def test_whatever_it_waits_for_it_expires() -> None:
    past, now = in_seconds(-1), database_now()
    limited = outcomes.succeeds.using(expires_at=past).enqueue()
    TaskRun.objects.filter(pk=limited.id).update(limit_key="tests.outcomes.succeeds")
    workflow = Workflow.objects.create(name="w", size=1, shape=[], enqueued_at=now)
    waiting = outcomes.succeeds.using(expires_at=past).enqueue()
    TaskRun.objects.filter(pk=waiting.id).update(is_waiting=True, workflow=workflow, step=0)

    assert expire() == 2

    assert TaskRun.objects.cancelled().count() == 2


def test_a_task_says_how_long_its_runs_last() -> None:
    later = in_seconds(3600)
    wishful.lasts_a_minute.enqueue()
    wishful.lasts_a_minute.using(run_after=later).enqueue()
    wishful.lasts_a_minute.using(expires_after=5).enqueue()
    wishful.lasts_a_minute.using(expires_at=later).enqueue()
    wishful.lasts_a_minute.enqueue_many([[]])
    async_task("tests.wishful.lasts_a_minute")

    at_once, due, shorter, until, many, by_async = TaskRun.objects.order_by("enqueued_at")
    assert at_once.expires_at == at_once.enqueued_at + timedelta(seconds=60)
    assert due.expires_at == later + timedelta(seconds=60)
    assert shorter.expires_at == shorter.enqueued_at + timedelta(seconds=5)
    assert until.expires_at == later
    assert many.expires_at == many.run_after + timedelta(seconds=60)
    assert by_async.expires_at == by_async.enqueued_at + timedelta(seconds=60)


def test_runs_of_a_schedule_expire_as_their_task_says(qcluster: ClusterFactory) -> None:
    qcluster()
    schedule("tests.wishful.lasts_a_minute", schedule_type="H", cluster="nobody's")

    run = wait_until(lambda: TaskRun.objects.first(), what="its run")

    assert run and run.expires_at == run.enqueued_at + timedelta(seconds=60)


def test_replace_counts_the_time_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    wishful.writes_newest.using(expires_after=60).enqueue(path, 1)
    before = TaskRun.objects.get().expires_at

    wishful.writes_newest.using(expires_after=60).enqueue(path, 2)

    after = TaskRun.objects.get().expires_at
    assert before and after and before < after
    wishful.writes_newest.enqueue(path, 3)
    assert TaskRun.objects.get().expires_at is None


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  what a caller may give by mistake


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"expires_at": NAIVE}, "expires_at must be an aware datetime."),
        ({"expires_at": 60}, "expires_at must be an aware datetime."),
        ({"expires_after": 0}, "expires_after must be a number of seconds above 0."),
        ({"expires_after": float("nan")}, "expires_after must be a number of seconds above 0."),
        ({"expires_after": 1e300}, "expires_after must be a number of seconds above 0."),
        ({"expires_at": timezone.now(), "run_after": timezone.now() + timedelta(days=1)}, "must be after run_after"),
    ],
)
def test_what_is_no_time_to_expire_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        outcomes.succeeds.using(**options)


def test_a_task_that_would_never_last_is_refused_when_it_is_defined() -> None:
    with pytest.raises(InvalidTaskError, match="expires_after must be a number"):
        task(expires_after=-1)(outcomes.plain)


def many_expired(count: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,
              enqueued_at, attempt, max_attempts, attempts, expires_at)
            SELECT gen_random_uuid(), 'tests.outcomes.succeeds', '[]', '{}', 'default', 100, 'READY', now(), now(), 0,
              3, '[]', clock_timestamp() - interval '1 s' FROM generate_series(1, %s)""",
            [count],
        )


def test_a_hundred_thousand_expired_ones_hold_up_nothing(qcluster: ClusterFactory, tmp_path: Path) -> None:
    """Runs behind them go on, and their cluster hears and does all else meanwhile."""
    ledger = tmp_path / "ledger"
    many_expired(100_000)
    cluster = qcluster()
    began = database_now()
    behind = [outcomes.writes_ledger.enqueue(str(ledger), number).id for number in range(20)]

    wait_until(lambda: TaskRun.objects.successful().count() == 20, seconds=60, what="the runs behind")
    left = TaskRun.objects.ready().count()
    wait_until(lambda: not TaskRun.objects.ready().exists(), seconds=120, what="the expiry of all")

    done = max(run.finished_at for run in TaskRun.objects.filter(pk__in=behind) if run.finished_at)
    assert TaskRun.objects.cancelled().count() == 100_000
    assert left > 0
    assert not re.search(r"is lost|start over|stands still", cluster.output)
    print(f"20 runs behind them: {done - began}; all expired: {database_now() - began}")


def test_two_sentinels_expire_together(qcluster: ClusterFactory) -> None:
    many_expired(5_000)
    clusters = [qcluster(wait=False) for _ in range(2)]

    wait_until(lambda: not TaskRun.objects.ready().exists(), seconds=60, what="the expiry of all")

    def said() -> int:
        return sum(int(n) for one in clusters for n in re.findall(r"(\d+) runs were not started in time", one.output))

    wait_until(lambda: all("is ready" in one.output for one in clusters), what="both clusters")
    wait_until(lambda: said() >= 5_000, what="word of all of them, which comes after the deed")
    assert said() == TaskRun.objects.cancelled().count() == 5_000


def test_a_turn_expires_so_many() -> None:
    many_expired(sentinel.EXPIRE_AT_ONCE + 10)

    assert [expire(sentinel.EXPIRE_AT_ONCE) for _ in range(3)] == [sentinel.EXPIRE_AT_ONCE, 10, 0]


def test_a_run_that_somebody_has_locked_is_left_for_later() -> None:
    held = outcomes.succeeds.using(expires_at=in_seconds(-1)).enqueue()
    other = outcomes.succeeds.using(expires_at=in_seconds(-1)).enqueue()
    answers = []
    with transaction.atomic():
        TaskRun.objects.select_for_update().get(pk=held.id)
        thread = threading.Thread(target=lambda: answers.append(expire()))
        thread.start()
        thread.join(20)

    assert answers == [1]
    assert TaskRun.objects.get(pk=other.id).status == Status.CANCELLED
    assert expire() == 1


def test_a_runs_page_says_when_it_expires(client: Client, admin_user: Any) -> None:
    client.force_login(admin_user)
    run_id = wishful.lasts_a_minute.enqueue().id

    before = client.get(f"/runs/{run_id}/").content.decode()
    TaskRun.objects.update(expires_at=in_seconds(-1))
    assert expire() == 1
    after = client.get(f"/runs/{run_id}/").content.decode()

    assert "Expires, if it has not begun" in before
    assert "Expires, if it has not begun" not in after
    assert "UTC, when it expired." in after
