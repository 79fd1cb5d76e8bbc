"""WATCH: a page that gets no news any more, or never did, says so."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django_q.models import Schedule
from django_q.tasks import schedule

from tasks_app import audit, bulk
from tasks_app.clock import database_now
from tasks_app.models import FailureGroup, TaskRun, Workflow
from tasks_app.tasks import create_task
from tasks_app.workflows import chain
from tests.figures import failed
from tests.pages.conftest import made

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def poll_of(text: str) -> str:
    found = re.search(r'data-poll hx-get="([^"]+)"', text)
    return html.unescape(found[1]) if found else ""


# Lists


def fill_audit(by: User) -> None:
    for number in range(30):
        audit.record("pause", subject=f"queue {number}", by=by)


def fill_failures(by: User) -> None:
    now = database_now()
    for number in range(30):
        failed(now - timedelta(minutes=number), 5, message=f"m{number:02}")


def fill_workflows(by: User) -> None:
    common: dict[str, Any] = {"name": "album", "owner": by, "size": 0, "shape": []}
    Workflow.objects.bulk_create(Workflow(enqueued_at=database_now(), **common) for _ in range(30))


@pytest.mark.parametrize(
    ("path", "fill"), [("/audit/", fill_audit), ("/failures/", fill_failures), ("/workflows/", fill_workflows)]
)
def test_only_the_first_page_refreshes_itself_and_the_others_say_so(
    operators_client: Client, operator: User, path: str, fill: Callable[[User], None]
) -> None:
    fill(operator)

    first = page(operators_client, f"{path}?size=25")
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    second = page(operators_client, path + html.unescape(older[1]))

    assert poll_of(first)
    assert 'id="fresh"' in first
    assert 'id="not-fresh"' not in first
    assert not poll_of(second)
    assert 'id="fresh"' not in second
    assert 'id="refresh"' not in second
    assert "Only the first page refreshes itself." in second
    assert 'id="to-first" href="?size=25"' in second


# Things


def a_run(by: User) -> tuple[str, Callable[[], Any]]:
    run = made(by)
    return run.get_absolute_url(), lambda: ended_and_deleted(run)


def a_bulk_act(by: User) -> tuple[str, Callable[[], Any]]:
    run = bulk.send(by, "cancel", ids=[str(made(by).pk)])
    return f"/runs/bulk/{run.pk}/", lambda: ended_and_deleted(run)


def ended_and_deleted(run: TaskRun) -> None:
    found = TaskRun.objects.filter(pk=run.pk)
    found.update(status="SUCCESSFUL", finished_at=run.enqueued_at)
    assert found.delete_runs()


def a_failure(by: User) -> tuple[str, Callable[[], Any]]:
    group = failed(database_now(), 5)
    return group.get_absolute_url(), FailureGroup.objects.all().delete


def a_schedule(by: User) -> tuple[str, Callable[[], Any]]:
    made = schedule("tasks_app.tasks.practice.create_task", name="nightly", schedule_type="D", type=1)
    return f"/schedules/{made.pk}/", Schedule.objects.all().delete


def a_workflow(by: User) -> tuple[str, Callable[[], Any]]:
    flow = chain(create_task.step(type=1), create_task.step(type=2)).enqueue(name="album", owner=by)
    return f"/workflows/{flow.pk}/", Workflow.objects.all().delete


@pytest.mark.parametrize(
    ("thing", "make", "back"),
    [
        ("run", a_run, "/runs/"), ("bulk act", a_bulk_act, "/runs/"), ("failure", a_failure, "/failures/"),
        ("schedule", a_schedule, "/schedules/"), ("workflow", a_workflow, "/workflows/"),
    ],
)  # fmt: skip
def test_the_page_of_a_thing_has_the_words_for_when_it_is_gone(
    operators_client: Client, operator: User, thing: str, make: Callable[[User], Any], back: str
) -> None:
    address, delete = make(operator)
    text = page(operators_client, address)

    delete()

    assert operators_client.get(poll_of(text), headers=HTMX).status_code == 404
    assert f"<b>This {thing} is no longer there.</b>" in text
    assert f'<a class="btn" href="{back}">All {back.strip("/")}</a>' in text


def test_who_is_no_operator_any_more_is_told_so_by_a_page_for_operators(
    operators_client: Client, operator: User
) -> None:
    fill_audit(operator)
    text = page(operators_client, "/audit/")
    User.objects.filter(pk=operator.pk).update(is_staff=False, is_superuser=False)
    fill_audit(operator)

    assert operators_client.get(poll_of(text), headers=HTMX).status_code == 404
    assert "<b>This page is not for you to see any more.</b>" in text
