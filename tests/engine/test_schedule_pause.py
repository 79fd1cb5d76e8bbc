"""STEER: a paused schedule does not fire, and goes on when it is resumed or by itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError
from django_q.models import Schedule
from django_q.tasks import schedule
from django_tasks.exceptions import InvalidTaskError
from psycopg.rows import TupleRow

from tasks_app.clock import database_now
from tasks_app.engine import firing
from tasks_app.engine.connect import connect
from tasks_app.models import AuditEntry, Missed, ScheduleRules, TaskRun
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SUCCEEDS = "tests.outcomes.succeeds"


@pytest.fixture
def db_of_a_sentinel() -> Iterator[psycopg.Connection[TupleRow]]:
    with connect("test") as db:
        yield db


def ago(seconds: float) -> datetime:
    return database_now() - timedelta(seconds=seconds)


def make(next_run: datetime, **rules: str) -> Schedule:
    made = schedule(SUCCEEDS, name="hourly", schedule_type="H", next_run=next_run)
    made.rules.change(**rules)
    return made


def test_a_paused_one_is_not_fired_and_its_missed_time_is_made_up_for(
    db_of_a_sentinel: psycopg.Connection[TupleRow],
) -> None:
    mara = User.objects.create_user("mara")
    made = make(ago(3_700))
    made.rules.pause(by=mara, why="The printer is out of paper.")

    assert not firing.fire(db_of_a_sentinel)
    assert made.rules.is_paused(database_now())
    entry = AuditEntry.objects.get(verb="pause")
    assert (entry.subject, entry.actor, entry.reason) == ("schedule hourly", mara, "The printer is out of paper.")

    assert made.rules.resume(by=mara)
    assert not made.rules.resume(by=mara)
    assert firing.fire(db_of_a_sentinel)
    assert not firing.fire(db_of_a_sentinel)
    assert TaskRun.objects.count() == 1
    assert AuditEntry.objects.filter(verb="resume").count() == 1


def test_a_time_in_a_pause_is_skipped_if_so_wished_and_says_why(
    db_of_a_sentinel: psycopg.Connection[TupleRow],
) -> None:
    made = make(ago(120), missed=Missed.SKIP)
    ScheduleRules.objects.update(paused_at=ago(600), paused_until=ago(1))

    assert firing.fire(db_of_a_sentinel)

    made.rules.refresh_from_db()
    assert "Skipped: it was paused at" in str(made.rules.skipped)
    assert not TaskRun.objects.exists()


def test_a_time_before_the_pause_was_missed_for_another_reason(
    db_of_a_sentinel: psycopg.Connection[TupleRow],
) -> None:
    made = make(ago(1_000), missed=Missed.SKIP)
    ScheduleRules.objects.update(paused_at=ago(600), paused_until=ago(1))

    assert firing.fire(db_of_a_sentinel)

    made.rules.refresh_from_db()
    assert "was over by more than a minute" in str(made.rules.skipped)


def test_a_pause_is_kept_when_the_schedule_is_saved() -> None:
    made = make(ago(-3_600))
    made.rules.pause()
    made.name = "renamed"
    made.save()
    assert ScheduleRules.objects.get().is_paused(database_now())


@pytest.mark.parametrize("until", [datetime.fromisoformat("2040-01-01T00:00:00"),
                                   datetime.fromisoformat("2020-01-01T00:00:00Z"),
                                   datetime.fromisoformat("9999-01-01T00:00:00Z")])  # fmt: skip
def test_a_bad_end_is_refused(until: datetime) -> None:
    made = make(ago(-3_600))
    with pytest.raises(InvalidTaskError, match="The end of a pause"):
        made.rules.pause(until=until)
    assert not ScheduleRules.objects.get().is_paused(database_now())


def test_a_real_cluster_keeps_off_until_the_pause_is_over(qcluster: ClusterFactory) -> None:
    made = make(ago(-3_600))
    until = ago(-3)
    made.rules.pause(until=until)
    Schedule.objects.filter(pk=made.pk).update(next_run=ago(5))
    qcluster()

    run = wait_until(lambda: TaskRun.objects.filter(schedule=made).first(), what="the run after the pause")

    assert run
    assert run.enqueued_at >= until
    assert run.enqueued_at - until < timedelta(seconds=1)


def test_a_real_cluster_fires_at_once_when_it_is_resumed(qcluster: ClusterFactory) -> None:
    made = make(ago(-3_600))
    made.rules.pause()
    Schedule.objects.filter(pk=made.pk).update(next_run=ago(5))
    cluster = qcluster()
    witness = schedule(SUCCEEDS, name="witness", schedule_type="H")
    wait_until(lambda: TaskRun.objects.filter(schedule=witness).exists(), what="the firing of another one")
    assert not TaskRun.objects.filter(schedule=made).exists()

    made.rules.resume()

    wait_until(lambda: TaskRun.objects.filter(schedule=made).exists(), what="its run")
    assert cluster.process.poll() is None


# What Django-Q2's own function is given


def test_a_name_is_taken_once() -> None:
    schedule(SUCCEEDS, name="nightly", schedule_type="D")
    with pytest.raises(IntegrityError, match="There is a schedule nightly already"):
        schedule(SUCCEEDS, name="nightly", schedule_type="D")
    with pytest.raises(InvalidTaskError):
        schedule(SUCCEEDS, name="nightly", schedule_type="D")


@pytest.mark.parametrize("given", [{"name": "a\0b"}, {"name": "\ud800"}, {"name": "x" * 101},
                                   {"cluster": "a\0b"},
                                   {"next_run": datetime.fromisoformat("2040-01-01T00:00:00")}])  # fmt: skip
def test_what_the_database_would_refuse_gets_a_sentence(given: dict[str, object]) -> None:
    with pytest.raises(InvalidTaskError, match=r"^The .* schedule .*\.$"):
        schedule(SUCCEEDS, schedule_type="D", **given)
    with pytest.raises(InvalidTaskError, match=r"^The .* schedule .*\.$"):
        Schedule.objects.create(func=SUCCEEDS, schedule_type="D", **given)
    assert not Schedule.objects.exists()
