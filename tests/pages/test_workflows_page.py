"""WATCH and STEER: workflows as pages."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app.models import AuditEntry, Cluster, TaskRun, Workflow
from tasks_app.workflow_portrait import SHOWN, Portrait, look
from tasks_app.workflows import PREVIOUS, Flow, chain, group
from tests.flows import adds, breaks, tells

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def album(user: User | None = None, members: int = 3, **options: Any) -> Workflow:
    flow = chain(adds.step(1), group(adds.step(PREVIOUS, n) for n in range(members)), tells.step(PREVIOUS))
    return flow.enqueue(name="album", owner=user, **options)


def moved(workflow: Workflow, *steps: int, **columns: Any) -> None:
    workflow.steps.filter(step__in=steps).update(**columns)


def ends(workflow: Workflow, *steps: int, status: str = "SUCCESSFUL", **columns: Any) -> None:
    now = workflow.enqueued_at
    moved(workflow, *steps, status=status, finished_at=now, started_at=now, is_waiting=None, **columns)


def page(client: Client, workflow: Workflow | None = None, query: str = "") -> str:
    response = client.get(f"/workflows/{workflow.pk}/" if workflow else f"/workflows/{query}")
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def portrait(workflow: Workflow) -> Portrait:
    seen = look(workflow.pk)
    assert seen
    return Portrait(Workflow.objects.get(pk=workflow.pk), seen)


def steps(text: str) -> list[str]:
    return re.findall(r'<li class="step" id="step-\d+"><span class="status status--(\w+)"', text)


def poll_of(text: str) -> str:
    found = re.search(r'data-poll hx-get="([^"]+)"', text)
    assert found
    return html.unescape(found[1])


def test_its_steps_stand_in_their_order_with_their_states(client: Client, mara: User) -> None:
    workflow = album(mara)
    ends(workflow, 0)
    moved(workflow, 1, is_waiting=None, status="RUNNING", started_at=workflow.enqueued_at, claimed_by="c1:2:4711:web-1",
          attempt=1)  # fmt: skip
    moved(workflow, 2, 3, is_waiting=None)

    text = page(client, workflow)

    assert steps(text) == ["successful", "running", "ready", "ready", "waiting"]
    assert "1 of 5 steps ended" in text
    assert re.search(r'<progress class="progress--tall" value="1" max="5"', text)
    assert "Step 2 (adds) is running." in text
    assert "Next comes step 5 (tells); it waits for 3 of 3 steps." in text


def test_what_waits_says_for_what(mara: User) -> None:
    workflow = album(mara)
    ends(workflow, 0, 1)
    moved(workflow, 2, 3, is_waiting=None, status="RUNNING", started_at=workflow.enqueued_at)

    assert portrait(workflow).why == (
        "2 steps are running.", "Next comes step 5 (tells); it waits for 2 of 3 steps."
    )  # fmt: skip


def test_a_ready_step_says_why_it_does_not_begin(mara: User) -> None:
    first, second = portrait(album(mara)).why
    assert first == "Step 1 (adds) is ready."
    assert "No live worker takes from the queue default." in second


def test_the_step_that_failed_is_told_with_its_message(client: Client, mara: User) -> None:
    workflow = chain(breaks.step(), adds.step(1)).enqueue(owner=mara)
    ends(workflow, 0, status="FAILED", failure="error", failure_message="ValueError: <b>no</b>")
    ends(workflow, 1, status="CANCELLED", failure_message="Step 1 (breaks) failed.")
    Workflow.objects.update(status="FAILED", message="Step 1 (breaks) failed.", finished_at=workflow.enqueued_at)

    text = client.get(f"/workflows/{workflow.pk}/").content.decode()

    assert steps(text) == ["failed", "cancelled"]
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in text
    assert "data-poll" not in text
    assert "Send the failed step once more" in text


def test_ten_thousand_members_are_folded(
    operators_client: Client, cluster: Cluster, django_assert_max_num_queries: Any
) -> None:
    workflow = album(members=9_998)
    ends(workflow, *range(5_000))
    moved(workflow, 7_000, status="FAILED", failure="error", finished_at=workflow.enqueued_at)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks_app_taskrun")

    with django_assert_max_num_queries(10):
        text = page(operators_client, workflow)

    assert "5\u00a0001 of 10\u00a0000 steps ended" in text
    assert len(steps(text)) == SHOWN + 2
    assert steps(text).count("failed") == 1
    assert "and 9\u00a0978 more" in text
    assert len(text) < 60_000


def test_a_long_chain_is_folded_where_nothing_happens(client: Client, mara: User) -> None:
    workflow = chain(adds.step(n) for n in range(500)).enqueue(owner=mara)
    ends(workflow, *range(250))

    text = page(client, workflow)

    assert len(steps(text)) <= SHOWN + 4
    assert "245 more, steps 3 to 247: 245 successful" in text
    assert 'id="step-250"' in text
    assert 'id="step-499"' in text


@pytest.mark.parametrize(
    "flow",
    [
        adds.step(1),
        group(adds.step(1), adds.step(2)),
        chain(group(), adds.step(PREVIOUS)),
        group(chain(adds.step(n), group(tells.step(m) for m in range(3))) for n in range(40)),
        chain(chain(adds.step(1)), group(group(group(), group(adds.step(2))))),
    ],
)
def test_every_shape_is_drawn(client: Client, mara: User, flow: Flow) -> None:
    workflow = flow.enqueue(owner=mara)
    text = page(client, workflow)
    assert 1 <= len(steps(text)) <= 300
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_a_step_that_was_pruned_leaves_its_place(client: Client, mara: User) -> None:
    workflow = album(mara)
    TaskRun.objects.filter(workflow=workflow, step=1)._raw_delete(using="default")
    assert steps(page(client, workflow)) == ["ready", "gone", "waiting", "waiting", "waiting"]


def test_a_poll_without_news_costs_one_query(
    client: Client, mara: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    workflow = album(mara)
    one, every = poll_of(page(client, workflow)), poll_of(page(client))
    for poll in (one, every):
        with django_assert_num_queries(1):
            assert client.get(poll, headers=HTMX).status_code == 204
    ends(workflow, 0)
    for poll in (one, every):
        answer = client.get(poll, headers=HTMX)
        assert answer.status_code == 200
        assert "<main" not in answer.content.decode()


# The list


def test_the_list_shows_ones_own_newest_first(
    client: Client, operators_client: Client, mara: User, tobias: User
) -> None:
    mine, theirs, newer = album(mara), album(tobias), album(mara)
    ends(mine, 0, 1)

    found = re.findall(r'<tr id="workflow-([^"]+)"', page(client))

    assert found == [str(newer.pk), str(mine.pk)]
    assert "2 of 5 ended" in page(client)
    assert str(theirs.pk) in page(operators_client)


def test_another_ones_is_not_there(client: Client, tobias: User) -> None:
    theirs = album(tobias)
    assert client.get(f"/workflows/{theirs.pk}/").status_code == 404
    assert client.post(f"/workflows/{theirs.pk}/steer/", {"do": "cancel"}).status_code == 404
    nobodys = album()
    assert client.get(f"/workflows/{nobodys.pk}/").status_code == 404
    assert client.get("/workflows/00000000-0000-0000-0000-000000000000/").status_code == 404
    assert not Workflow.objects.exclude(cancel_requested_at=None).exists()


def test_the_list_is_filtered_by_state(client: Client, mara: User) -> None:
    album(mara)
    done = album(mara)
    Workflow.objects.filter(pk=done.pk).update(status="SUCCESSFUL", finished_at=done.enqueued_at)

    assert re.findall(r'<tr id="workflow-([^"]+)"', page(client, query="?state=successful")) == [str(done.pk)]
    assert "Nothing matches" in page(client, query="?state=failed")
    assert "A workflow is ready," in page(client, query="?state=pink")


@pytest.mark.parametrize("bad", ["state=%00", "older=x", "newer=1-1", "size=10", "older=" + "9" * 19 + "-" + "f" * 36])
def test_bad_input_in_the_url_is_corrected(client: Client, mara: User, bad: str) -> None:
    album(mara)
    assert client.get(f"/workflows/?{bad}").status_code == 200


def test_nothing_yet_says_what_a_workflow_is(client: Client) -> None:
    assert "No workflow yet" in page(client)


# Steering


def steer(client: Client, workflow: Workflow, do: str, **given: str) -> str:
    response = client.post(f"/workflows/{workflow.pk}/steer/", {"do": do, **given}, follow=True)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def test_ones_own_is_cancelled_with_a_reason(client: Client, mara: User) -> None:
    workflow = album(mara)

    assert "It is cancelled" in steer(client, workflow, "cancel", why="Not needed.")

    workflow.refresh_from_db()
    assert workflow.cancel_requested_at
    assert workflow.message == "Not needed."
    entry = AuditEntry.objects.get(verb="cancel")
    assert (entry.actor, entry.subject, entry.reason) == (mara, "workflow album", "Not needed.")
    assert "It had ended already." in steer(client, ended(album(mara)), "cancel")


def ended(workflow: Workflow, status: str = "FAILED") -> Workflow:
    Workflow.objects.filter(pk=workflow.pk).update(status=status, finished_at=workflow.enqueued_at)
    return workflow


def test_failed_steps_are_sent_once_more(client: Client, mara: User) -> None:
    workflow = album(mara)
    ends(workflow, 0, status="FAILED", failure="error", failure_message="ValueError: no")
    ended(workflow)

    assert "1 run was sent once more" in steer(client, workflow, "retry")

    again = TaskRun.objects.exclude(retry_of=None).get()
    assert (again.retry_of, again.workflow) == (workflow.steps[0], None)


def test_another_operator_needs_the_permissions(tobias: User, mara: User) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)
    workflow = album(mara)
    assert "You may not cancel it" in steer(client, workflow, "cancel")
    assert "You may not retry it" in steer(client, workflow, "retry")
    assert "can be cancelled" in steer(client, workflow, "explode")
    workflow.refresh_from_db()
    assert workflow.cancel_requested_at is None


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\u202egnp.exe", "\x1b[31mred"])
def test_hostile_texts_are_shown_and_do_nothing(client: Client, mara: User, text: str) -> None:
    workflow = chain(adds.step(1), adds.step(2)).enqueue(name=text, owner=mara)
    ends(workflow, 0, status="FAILED", failure="error", failure_message=text * 10_000)
    for address in ("/workflows/", f"/workflows/{workflow.pk}/"):
        answer = client.get(address).content.decode()
        assert "<script>alert" not in answer
        assert "\u202e" not in answer
        assert "\x1b" not in answer
        assert len(answer) < 40_000
