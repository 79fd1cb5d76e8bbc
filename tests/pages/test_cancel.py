"""STEER: ending a run from its page."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tasks_app.clock import database_now
from tasks_app.models import AuditEntry, Status, TaskRun
from tasks_app.wording import clock_seconds
from tasks_app.workflows import PREVIOUS, chain
from tests.flows import adds
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_run_page import HTMX, page_of, poll_of

WAITING = ("ready", "scheduled", "retrying")
HELD = ("claimed", "running")
ENDED = ("successful", "failed", "cancelled")
SURE = {"sure": "1"}
"""What the button sends by which a question is answered."""


def address_of(run: TaskRun) -> str:
    return f"/runs/{run.pk}/cancel/"


def button_of(page: str) -> str:
    found = re.search(r'<(button|summary) [^>]*id="cancel-run".*?</\1>', page)
    assert found
    return found[0]


def is_forbidden(page: str) -> bool:
    return 'aria-disabled="true"' in button_of(page)


@pytest.mark.parametrize("state", WAITING)
def test_a_waiting_run_is_cancelled_at_once(client: Client, run: RunFactory, state: str) -> None:
    unwanted = run(**SITUATIONS[state])

    response = client.post(address_of(unwanted))

    assert (response.status_code, response["Location"]) == (302, f"/runs/{unwanted.pk}/")
    unwanted.refresh_from_db()
    assert (unwanted.status, unwanted.failure_message) == (Status.CANCELLED, "Cancelled by mara.")
    page = page_of(client, unwanted)
    assert "It was ended before it was done.</b> Cancelled by mara." in page
    assert 'id="cancel-run"' not in page


@pytest.mark.parametrize("state", HELD)
def test_one_that_a_worker_holds_is_being_cancelled(client: Client, run: RunFactory, state: str) -> None:
    unwanted = run(**SITUATIONS[state])

    client.post(address_of(unwanted), SURE)

    was = unwanted.status
    unwanted.refresh_from_db()
    assert (unwanted.status, unwanted.failure_message) == (was, "Cancelled by mara.")
    assert unwanted.cancel_requested_at
    page = page_of(client, unwanted)
    assert is_forbidden(page)
    assert "Cancelling…" in button_of(page)
    assert f"Its worker was told to stop it at {clock_seconds(unwanted.cancel_requested_at)}." in page
    assert "It is being cancelled.</b> web-1, worker 2 was told to stop it." in page


@pytest.mark.parametrize("state", HELD)
def test_what_a_worker_holds_is_asked_first(client: Client, run: RunFactory, state: str) -> None:
    unwanted = run(**SITUATIONS[state])

    page = " ".join(page_of(client, unwanted).split())

    assert button_of(page).startswith("<summary")
    assert f"Stop create_task {unwanted.short_id} in the middle?" in page
    assert ("It is 60&nbsp;% done." in page) is (state == "running")
    assert "What it has done so far is not taken back, and no result comes of it." in page
    assert re.findall(r'<button [^>]*form="cancel"[^>]*>', page) == [
        '<button class="btn btn--harm" id="cancel-said" type="submit" form="cancel" name="sure" value="1">'
    ]


@pytest.mark.parametrize("state", WAITING)
def test_what_nobody_has_begun_goes_at_once_and_how_it_comes_back_is_told(
    client: Client, run: RunFactory, state: str
) -> None:
    unwanted = run(**SITUATIONS[state])

    page = page_of(client, unwanted)

    assert button_of(page).startswith("<button")
    assert "nothing is lost, and Retry sends it once more." in page
    client.post(address_of(unwanted))
    assert 'id="retry-run" form="retry"' in page_of(client, unwanted)


def test_a_step_of_a_workflow_is_asked_first(client: Client, mara: User) -> None:
    chain(adds.step(1), adds.step(PREVIOUS, 1)).enqueue(owner=mara)
    first, second = TaskRun.objects.order_by("step")

    for step, said in ((first, "as a run of its own that no step waits for"), (second, "It cannot be sent once more")):
        page = page_of(client, step)
        assert button_of(page).startswith("<summary")
        assert "It is a step of a workflow: steps that have not begun may end with it." in page
        assert said in page
        client.post(address_of(step))
    assert TaskRun.objects.ready().count() == 2


@pytest.mark.parametrize("state", HELD)
def test_from_a_page_that_did_not_know_nothing_is_cancelled_unasked(
    client: Client, run: RunFactory, state: str
) -> None:
    taken = run(**SITUATIONS[state])

    asked = client.post(address_of(taken), follow=True)
    open_page = client.post(address_of(taken), headers=HTMX)

    assert asked.redirect_chain == [(f"/runs/{taken.pk}/", 302)]
    assert "It is not cancelled yet: a worker has it by now" in asked.content.decode()
    assert open_page["HX-Refresh"] == "true"
    taken.refresh_from_db()
    assert taken.cancel_requested_at is None
    assert not AuditEntry.objects.exists()


def test_the_first_wish_counts(client: Client, operators_client: Client, run: RunFactory) -> None:
    unwanted = run(**SITUATIONS["running"])

    operators_client.post(address_of(unwanted), SURE)
    client.post(address_of(unwanted))

    unwanted.refresh_from_db()
    assert unwanted.failure_message == "Cancelled by operator."


@pytest.mark.parametrize("state", ENDED)
def test_one_that_has_ended_stays_as_it_is_and_is_not_offered(client: Client, run: RunFactory, state: str) -> None:
    ended = run(**SITUATIONS[state])
    before = TaskRun.objects.filter(pk=ended.pk).values().get()

    response = client.post(address_of(ended), follow=True)

    assert response.redirect_chain == [(f"/runs/{ended.pk}/", 302)]
    assert TaskRun.objects.filter(pk=ended.pk).values().get() == before
    page = page_of(client, ended)
    assert 'id="cancel-run"' not in page
    assert address_of(ended) not in page


def test_a_page_that_is_open_keeps_the_button_and_says_when_it_ended(client: Client, run: RunFactory) -> None:
    """It may have the focus."""
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown))
    TaskRun.objects.update(status=Status.SUCCESSFUL, finished_at=database_now())
    shown.refresh_from_db()

    page = " ".join(client.get(address, headers=HTMX).content.decode().split())

    assert is_forbidden(page)
    assert shown.finished_at
    assert f'id="why-not-cancel">Already ended at {clock_seconds(shown.finished_at)}.</span>' in page
    assert "data-poll" not in page


def test_a_foreign_or_unknown_run_is_not_there(client: Client, run: RunFactory, tobias: User) -> None:
    for pk in (run(owner=tobias).pk, run(owner=None).pk, uuid.uuid4()):
        response = client.post(f"/runs/{pk}/cancel/")
        assert response.status_code == 404
        assert b"There is nothing here" in response.content

    assert TaskRun.objects.ready().count() == 2


def test_a_guest_of_open_access_cancels_what_belongs_to_nobody(run: RunFactory, settings: Any) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True
    unwanted = run(owner=None)

    assert Client().post(address_of(unwanted)).status_code == 302

    unwanted.refresh_from_db()
    assert unwanted.failure_message == "Cancelled by a guest."


def test_to_look_at_the_address_cancels_nothing(client: Client, run: RunFactory) -> None:
    wanted = run()

    assert client.get(address_of(wanted)).status_code == 405
    assert client.head(address_of(wanted)).status_code == 405

    wanted.refresh_from_db()
    assert wanted.status == Status.READY


def test_no_other_site_can_cancel(mara: User, run: RunFactory) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(mara)
    shown = run()

    assert browser.post(address_of(shown)).status_code == 403
    shown.refresh_from_db()
    assert shown.status == Status.READY

    page = page_of(browser, shown)
    form = re.search(r'<form id="cancel" method="post" action="([^"]*)" [^>]*hidden>.*? value="(\w+)"></form>', page)
    assert form
    assert ' form="cancel"' in button_of(page)
    assert browser.post(form[1], {"csrfmiddlewaretoken": form[2]}).status_code == 302
    shown.refresh_from_db()
    assert shown.status == Status.CANCELLED


def test_the_wish_is_news_to_a_page_that_is_open(client: Client, run: RunFactory, still: None) -> None:
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown))
    assert client.get(address, headers=HTMX).status_code == 204

    client.post(address_of(shown), SURE)

    assert "Cancelling…" in client.get(address, headers=HTMX).content.decode()


def test_a_page_that_is_open_asks_for_news_and_goes_nowhere(client: Client, run: RunFactory) -> None:
    """So that the browser's Back leaves the page with one press."""
    response = client.post(address_of(run()), headers=HTMX)

    assert (response.status_code, response["HX-Trigger"]) == (204, '{"changed": {}}')


def test_an_operator_without_the_permission_is_refused(run: RunFactory) -> None:
    browser = Client()
    browser.force_login(User.objects.create_user("looks", is_staff=True))
    wanted = run()

    page = browser.post(address_of(wanted), follow=True).content.decode()

    assert "You may not cancel this run" in page
    assert "That needs the permission to cancel runs." in page
    wanted.refresh_from_db()
    assert wanted.status == Status.READY


@pytest.mark.parametrize("state", ["ready", "running"])
def test_a_reason_stands_on_its_page_and_in_the_audit(client: Client, run: RunFactory, state: str) -> None:
    unwanted = run(**SITUATIONS[state])
    field = re.search(r'<input [^>]*id="cancel-why"[^>]*>', page_of(client, unwanted))
    assert field and ' form="cancel"' in field[0] and ' maxlength="500"' in field[0]

    client.post(address_of(unwanted), {**SURE, "why": " The list was\0 wrong "})

    unwanted.refresh_from_db()
    assert unwanted.failure_message == "Cancelled by mara: The list was wrong."
    assert AuditEntry.objects.get().reason == "The list was wrong"
    assert "The list was wrong" in page_of(client, unwanted)


def test_a_reason_without_end_is_cut_and_does_no_harm(client: Client, run: RunFactory) -> None:
    unwanted = run()

    client.post(address_of(unwanted), {"why": "<script>" + "why" * 100_000})

    unwanted.refresh_from_db()
    assert len(unwanted.failure_message or "") < 600
    assert len(AuditEntry.objects.get().reason) == 500
    assert "<script>why" not in page_of(client, unwanted)
