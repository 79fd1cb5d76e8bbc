"""WATCH: news are drawn once for all who see the same, and for nobody else."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from tasks_app import audit, drawn
from tasks_app.models import Queue, Status, TaskRun
from tests.pages.conftest import RunFactory, begun

HTMX = {"HX-Request": "true"}
POLL = re.compile(r'data-poll hx-get="([^"]*)"')
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]*)"')


@pytest.fixture(autouse=True)
def remembering(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "KEPT_SECONDS", 60)
    monkeypatch.setattr(drawn, "drawings", type(drawn.drawings)())


@pytest.fixture
def colleague(db: None) -> Client:
    """The browser of another who may do everything, held to its tokens as a real one is."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("colleague"))
    return client


@pytest.fixture
def assistant(db: None) -> User:
    """Who sees all of it and may change nothing."""
    return User.objects.create_user("assistant", is_staff=True)


def opened(client: Client, path: str) -> str:
    """Where a page that is open asks for news."""
    found = POLL.search(client.get(path).content.decode())
    assert found
    return html.unescape(found[1])


def news(client: Client, poll: str, queries: Any = None) -> str:
    response = client.get(poll, headers=HTMX)
    assert response.status_code == 200
    return response.content.decode()


def stripped(text: str) -> str:
    """It without what is each reader's own."""
    return TOKEN.sub("", POLL.sub("", text))


def something_is_done() -> None:
    audit.record("pause", subject="queue mail", why="To have news.")
    Queue.objects.update_or_create(name="mail")


@pytest.mark.parametrize("path", ["/queues/", "/runs/", "/audit/"])
def test_the_second_who_sees_the_same_is_shown_what_the_first_was(
    operators_client: Client, colleague: Client, run: RunFactory, path: str
) -> None:
    run(queue_name="mail")
    first, second = opened(operators_client, path), opened(colleague, path)
    run(queue_name="other")
    something_is_done()

    seen = news(operators_client, first)
    with CaptureQueriesContext(connection) as captured:
        again = news(colleague, second)

    assert stripped(again) == stripped(seen)
    assert len(captured) == 3, "the version, the session, who it is"


def test_each_is_given_a_poll_of_the_own_session(operators_client: Client, colleague: Client, run: RunFactory) -> None:
    first, second = opened(operators_client, "/queues/"), opened(colleague, "/queues/")
    run()
    polls = [POLL.search(news(client, poll)) for client, poll in ((operators_client, first), (colleague, second))]
    own, others = (html.unescape(poll[1]) for poll in polls if poll)

    assert own != others
    assert operators_client.get(own, headers=HTMX).status_code == 204
    assert colleague.get(others, headers=HTMX).status_code == 204
    assert colleague.get(own, headers=HTMX).status_code == 200, "a poll of somebody else's is good for nothing"


def test_each_is_given_a_token_with_which_forms_are_taken(operators_client: Client, colleague: Client) -> None:
    Queue.objects.create(name="mail")
    first, second = opened(operators_client, "/queues/"), opened(colleague, "/queues/")
    Queue.pause("mail", by=None, why="To have news.")
    theirs, own = (
        TOKEN.search(news(client, poll)) for client, poll in ((operators_client, first), (colleague, second))
    )
    assert theirs
    assert own
    form = {"queue": "mail", "do": "resume"}

    refused = colleague.post("/queues/steer/", {**form, "csrfmiddlewaretoken": theirs[1]})
    taken = colleague.post("/queues/steer/", {**form, "csrfmiddlewaretoken": own[1]})

    assert (refused.status_code, taken.status_code) == (403, 302)


def test_who_may_do_less_is_drawn_for_alone(operators_client: Client, assistant: User, run: RunFactory) -> None:
    client = Client()
    client.force_login(assistant)
    shown = run(**begun(status=Status.FAILED, failure="error", failure_message="ValueError: no", finished_at=9))
    first, second = opened(operators_client, "/runs/"), opened(client, "/runs/")
    run()

    mighty, weak = news(operators_client, first), news(client, second)

    needed = "That needs the permission to retry runs."
    assert (needed in mighty, needed in weak) == (False, True)
    assert shown.short_id in weak


def test_who_was_given_a_permission_meanwhile_sees_that(assistant: User, run: RunFactory) -> None:
    client = Client()
    client.force_login(assistant)
    run(**begun(status=Status.FAILED, failure="error", failure_message="ValueError: no", finished_at=9))
    poll = opened(client, "/runs/")
    run()
    news(client, poll)

    User.objects.filter(pk=assistant.pk).update(is_superuser=True)

    assert "That needs the permission" not in news(client, poll)


def test_the_first_page_is_drawn_for_each_alone(operators_client: Client, colleague: Client, run: RunFactory) -> None:
    """It announces what became of one's own."""
    mine = run(owner=User.objects.get(username="operator"), **begun(status=Status.RUNNING))
    first, second = opened(operators_client, "/"), opened(colleague, "/")
    TaskRun.objects.filter(pk=mine.pk).update(status=Status.SUCCESSFUL, finished_at=mine.enqueued_at)

    told = [stripped(news(client, poll)) for client, poll in ((operators_client, first), (colleague, second))]

    assert told[0] != told[1]


def test_another_clock_is_another_drawing(operators_client: Client, colleague: Client, run: RunFactory) -> None:
    colleague.cookies["time_zone"] = "Asia/Tokyo"
    first, second = opened(operators_client, "/runs/"), opened(colleague, "/runs/")
    run()

    assert stripped(news(operators_client, first)) != stripped(news(colleague, second))


def test_newer_news_are_drawn_anew(operators_client: Client, run: RunFactory) -> None:
    poll = opened(operators_client, "/runs/")
    first = run()
    assert first.short_id in news(operators_client, poll)

    second = run()

    assert second.short_id in news(operators_client, poll)


# Who comes while it is drawn


@pytest.fixture
def asked(db: None, operator: User) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = operator
    return request


def together(asked: HttpRequest, draw: Callable[[], HttpResponse]) -> list[bytes]:
    """What two are shown of whom both have come before it is drawn."""
    come, shown = Barrier(3), []

    def slowly() -> HttpResponse:
        both_came.wait(20)
        return draw()

    def ask() -> None:
        come.wait(20)
        response: Any = drawn.once(("key",), asked, slowly, lambda: None)
        shown.append(response.content)

    both_came = Event()
    readers = [Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    come.wait(20)
    both_came.set()
    for reader in readers:
        reader.join(20)
    return shown


def test_who_comes_meanwhile_waits_for_it(asked: HttpRequest) -> None:
    answers = [HttpResponse(b"news")]

    assert together(asked, lambda: answers.pop()) == [b"news", b"news"]


def test_who_comes_meanwhile_draws_it_when_that_failed(asked: HttpRequest) -> None:
    answers = [HttpResponse(b"no", status=500), HttpResponse(b"news")]

    assert sorted(together(asked, lambda: answers.pop(0))) == [b"news", b"no"]


def test_so_many_are_kept_and_no_more(asked: HttpRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "MOST_KEPT", 3)

    for number in range(10):
        drawn.once((number,), asked, lambda: HttpResponse(b"news"), lambda: None)

    assert list(drawn.drawings) == [(7,), (8,), (9,)]
