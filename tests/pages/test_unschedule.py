"""STEER: a schedule is deleted by a run of its own, a moment later, so that it can be undone."""

from __future__ import annotations

import html
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from tasks_app import unschedule
from tasks_app.clock import database_now
from tasks_app.models import AuditEntry, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_bulk import done, permit, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def nightly() -> Schedule:
    due = timezone.now() + timedelta(hours=2)
    func = "tasks_app.tasks.practice.create_task"
    return Schedule.objects.create(func=func, kwargs="{'type': 1}", name="nightly", schedule_type="D", next_run=due)


def post(client: Client, address: str, **given: str) -> str:
    """The page that it leads to."""
    response = client.post(address, given, follow=True)
    assert response.status_code == 200
    return html.unescape(" ".join(response.content.decode().split()))


def delete(client: Client, schedule: Schedule) -> str:
    return post(client, f"/schedules/{schedule.pk}/steer/", do="delete", back="one")


def removal() -> TaskRun:
    """The run that is to delete it."""
    return TaskRun.objects.get(task_path=unschedule.path())


def test_it_goes_after_ten_seconds_and_leaves_its_runs(
    operators_client: Client, operator: User, run: RunFactory, nightly: Schedule
) -> None:
    mine = run(5, schedule=nightly, schedule_name="nightly")

    text = delete(operators_client, nightly)
    assert '<h1 id="question">Delete: the schedule nightly</h1>' in text
    assert "Nothing has been changed yet." in text
    assert 'href="/schedules/">Back to the schedules</a>' in text
    assert '<a id="trail" href="/schedules/">Schedules</a> / Delete</p>' in text
    assert Schedule.objects.get() == nightly
    assert timedelta() < removal().run_after - database_now() <= timedelta(seconds=10)
    assert told(done(removal())) == "The schedule nightly is deleted. Its runs stay."

    assert not Schedule.objects.exists()
    mine.refresh_from_db()
    assert (mine.schedule_id, mine.schedule_name) == (None, "nightly")
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.subject, entry.actor, entry.address, entry.act) == (
        "delete", "schedule nightly", operator, "127.0.0.1", removal().pk,
    )  # fmt: skip


def test_its_page_tells_what_came_of_it(operators_client: Client, nightly: Schedule) -> None:
    delete(operators_client, nightly)
    ended: dict[str, Any] = SITUATIONS["successful"]
    value = {"told": told(done(removal()))}
    now = database_now()
    TaskRun.objects.update(status=ended["status"], started_at=now, finished_at=now, return_value=value)

    text = operators_client.get(f"/runs/bulk/{removal().pk}/").content.decode()

    assert '<p id="bulk-told">The schedule nightly is deleted. Its runs stay.</p>' in text
    assert "Undo</button>" not in text


def test_it_is_undone_before_it_begins(operators_client: Client, nightly: Schedule) -> None:
    delete(operators_client, nightly)

    assert "<b>Undone.</b> Nothing was changed." in post(operators_client, f"/runs/bulk/{removal().pk}/undo/")

    assert removal().status == Status.CANCELLED
    assert Schedule.objects.get() == nightly
    assert "Nothing has been changed yet." in delete(operators_client, nightly)  # the next time it may be meant
    assert TaskRun.objects.ready().count() == 1


def test_two_wishes_are_one(operators_client: Client, nightly: Schedule) -> None:
    for _ in range(2):
        assert "Nothing has been changed yet." in delete(operators_client, nightly)
    assert removal().kwargs["schedule"] == nightly.pk


def test_one_that_is_gone_by_then_is_told(operators_client: Client, nightly: Schedule) -> None:
    delete(operators_client, nightly)
    nightly.delete()

    assert told(done(removal())) == "The schedule nightly is not there any more."

    assert not AuditEntry.objects.exists()


def test_who_has_lost_the_permission_by_then_deletes_nothing(tobias: User, nightly: Schedule) -> None:
    client = permit(tobias, "delete_schedule")
    assert "Nothing has been changed yet." in delete(client, nightly)
    tobias.user_permissions.clear()

    outcome = done(removal())

    assert (outcome.status, outcome.message) == ("FAILED", "BadOrder: That needs the permission to delete schedules.")
    assert Schedule.objects.get() == nightly
    assert not AuditEntry.objects.exists()


def test_a_hostile_name_does_nothing(operators_client: Client, nightly: Schedule) -> None:
    hostile = "<script>alert(1)</script>\u202e"
    Schedule.objects.update(name=hostile)
    response = operators_client.post(f"/schedules/{nightly.pk}/steer/", {"do": "delete"}, follow=True)

    for text in (response.content.decode(), told(done(removal()))):
        assert "\u202e" not in text
    assert "<script>alert" not in response.content.decode()
    assert not Schedule.objects.exists()
