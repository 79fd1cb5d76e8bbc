"""WATCH: where a run comes from and what it leads to, as its page tells it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from tasks_app.models import Cluster, TaskRun, Workflow
from tasks_app.workflows import PREVIOUS, chain, group
from tests.flows import adds, tells
from tests.pages.conftest import SITUATIONS, RunFactory, begun

pytestmark = pytest.mark.django_db

TASK = "tasks_app.tasks.practice.create_task"
MEMBERS = 2

Told = dict[str, list[tuple[str, str]]]
"""What the card tells: by the word before it, the address and the text of each link; a text alone has no address."""


def kin_of(client: Client, run: TaskRun) -> Told:
    """Empty when there is no such card."""
    response = client.get(f"/runs/{run.pk}/")
    assert response.status_code == 200
    page = " ".join(response.content.decode().split())
    card = re.search(r'<section class="card" id="run-kin".*?</section>', page)
    told = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", card[0]) if card else []
    assert bool(card) == bool(told), "An empty card tells nothing."
    return {word: links(said) for word, said in told}


def links(said: str) -> list[tuple[str, str]]:
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>(.*?)</a>([^<]*)', said)
    told = [(address, text_of(f"{link}{rest}")) for address, link, rest in found]
    return told or [("", text_of(said))]


def text_of(fragment: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", fragment)).strip()


def to(run: TaskRun, said: str) -> tuple[str, str]:
    return (f"/runs/{run.pk}/", f"{said}: {run.name} {run.short_id}")


# Each makes a run, and tells what the card of its page must say under the word


def of_a_schedule(run: RunFactory) -> tuple[TaskRun, Any]:
    due = timezone.now() + timedelta(hours=1)
    made = Schedule.objects.create(func=TASK, kwargs="{'type': 1}", name="nightly", schedule_type="D", next_run=due)
    return run(schedule=made, schedule_name="nightly"), [(f"/schedules/{made.pk}/", "nightly")]


def of_a_schedule_that_is_gone(run: RunFactory) -> tuple[TaskRun, Any]:
    return run(schedule=None, schedule_name="nightly"), [("", "nightly")]


def of_a_workflow(run: RunFactory) -> tuple[TaskRun, Any]:
    shown = step(album(), 0)
    return shown, [(f"/workflows/{shown.workflow_id}/", "album, step 1 of 4")]


def after_a_step(run: RunFactory) -> tuple[TaskRun, Any]:
    workflow = album()
    return step(workflow, 1), [to(step(workflow, 0), "Ready")]


def after_a_group(run: RunFactory) -> tuple[TaskRun, Any]:
    """What still goes on stands before what has ended."""
    workflow = album()
    now = workflow.enqueued_at
    workflow.steps.filter(step=1).update(status="SUCCESSFUL", finished_at=now, started_at=now, is_waiting=None)
    return step(workflow, 3), [to(step(workflow, 2), "Ready"), to(step(workflow, 1), "Successful")]


def before_a_group(run: RunFactory) -> tuple[TaskRun, Any]:
    workflow = album()
    return step(workflow, 0), [to(step(workflow, number), "Ready") for number in (1, 2)]


def before_a_step(run: RunFactory) -> tuple[TaskRun, Any]:
    workflow = album()
    return step(workflow, 2), [to(step(workflow, 3), "Ready")]


def of_a_key_that_another_has_now(run: RunFactory) -> tuple[TaskRun, Any]:
    ended = run(**SITUATIONS["successful"], unique_key="customer 7")
    return ended, [to(run(**begun(status="RUNNING"), unique_key="customer 7"), "Running")]


def album() -> Workflow:
    """Steps 1; 2 and 3 beside each other; 4."""
    flow = chain(adds.step(1), group(adds.step(PREVIOUS, n) for n in range(MEMBERS)), tells.step(PREVIOUS))
    return flow.enqueue(name="album")


def step(workflow: Workflow, number: int) -> TaskRun:
    return workflow.steps.get(step=number)


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("Schedule", of_a_schedule),
        ("Schedule", of_a_schedule_that_is_gone),
        ("Workflow", of_a_workflow),
        ("After", after_a_step),
        ("After", after_a_group),
        ("Before", before_a_group),
        ("Before", before_a_step),
        ("Same key", of_a_key_that_another_has_now),
    ],
    ids=lambda each: each.__name__ if callable(each) else each,
)
def test_tells_where_it_comes_from_and_leads_to(
    operators_client: Client, run: RunFactory, word: str, made: Callable[[RunFactory], tuple[TaskRun, Any]]
) -> None:
    shown, expected = made(run)

    told = kin_of(operators_client, shown)

    assert told[word] == expected
    for address, _ in expected:
        assert not address or operators_client.get(address).status_code == 200


def test_who_has_a_key_now_tells_of_no_other(operators_client: Client, run: RunFactory) -> None:
    run(**SITUATIONS["successful"], unique_key="customer 7")

    assert kin_of(operators_client, run(unique_key="customer 7")) == {}


def test_an_owner_reads_the_schedules_name_and_is_led_to_no_page_of_operators(client: Client, run: RunFactory) -> None:
    shown, _ = of_a_schedule(run)

    assert kin_of(client, shown) == {"Schedule": [("", "nightly")]}


def test_others_runs_of_a_workflow_are_not_told(client: Client, mara: User, tobias: User) -> None:
    workflow = album()
    workflow.steps.update(owner=tobias)
    workflow.steps.filter(step=1).update(owner=mara)

    told = kin_of(client, step(workflow, 1))

    assert set(told) == {"Workflow"}


def test_of_many_some_are_told_and_that_there_are_more(operators_client: Client) -> None:
    flow = chain(adds.step(1), group(adds.step(PREVIOUS, n) for n in range(6)), tells.step(PREVIOUS))
    workflow = flow.enqueue(name="album")

    page = operators_client.get(f"/runs/{step(workflow, 0).pk}/").content.decode()

    assert page.count('id="kin-after-') == 5
    assert page.count("and more</li>") == 1
    workflow.steps.filter(step=6).update(workflow=None)
    assert "and more</li>" not in operators_client.get(f"/runs/{step(workflow, 0).pk}/").content.decode()


def test_runs_that_are_in_its_way_are_no_kin(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    Cluster.objects.update(busy=4)
    run(**{**SITUATIONS["running"], "claimed_by": f"{cluster.pk.hex[:12]}:1:77:web-1"})
    shown = run()

    assert kin_of(operators_client, shown) == {}
    assert "All 4 workers are busy." in operators_client.get(f"/runs/{shown.pk}/").content.decode()


def test_hostile_names_are_shown_and_do_nothing(operators_client: Client, run: RunFactory) -> None:
    hostile = "<script>alert(1)</script>\u202e"
    workflow = album()
    Workflow.objects.update(name=hostile)
    workflow.steps.update(schedule_name=hostile)

    page = operators_client.get(f"/runs/{step(workflow, 0).pk}/").content.decode()

    assert "<script>alert" not in page
    assert "\u202e" not in page
    told = kin_of(operators_client, step(workflow, 0))
    assert told["Schedule"] == [("", "<script>alert(1)</script>[202e]")]
    assert told["Workflow"][0][1] == "<script>alert(1)</script>[202e], step 1 of 4"
