"""WATCH: what stands around the list of runs: counts, the box for all, saved views, times, how old a search is."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tasks_app import drawn
from tasks_app.models import SavedView
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_runs_list import found, ids, link, many, page

pytestmark = pytest.mark.django_db


def all_told(text: str) -> str:
    """The label of the box that means all runs of the list."""
    match = re.search(r'<span id="all-told"[^>]*>(.*?)</span>', text)
    assert match
    return html.unescape(match[1]).replace("\u00a0", ",")


# Counts


def test_the_tabs_are_asked_for_again_when_there_is_news(operators_client: Client, run: RunFactory) -> None:
    run(**SITUATIONS["failed"])
    tabs = re.compile(r'<nav class="tabs" id="tabs"[^>]* data-counted hx-get="([^"]*)" hx-trigger="([^"]*)"')
    asked = tabs.search(page(operators_client, "state=failed&size=25"))
    assert asked and asked[2] == "load, news"

    again = tabs.search(operators_client.get(html.unescape(asked[1])).content.decode())

    assert again and again[2] == "news"
    assert again[1] == asked[1]


def counted(client: Client, query: str) -> tuple[str, int]:
    """What a browser is told, and how many queries it took beside those for who asks."""
    with CaptureQueriesContext(connection) as queries:
        text = page(client, query, "/runs/counts/")
    match = re.search(r'id="tab-failed".*?<span class="num">(\S+)</span>', text)
    assert match
    return match[1], len(queries) - 2


@pytest.fixture
def remembering(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "KEPT_SECONDS", 60)
    monkeypatch.setattr(drawn, "drawings", type(drawn.drawings)())


@pytest.mark.usefixtures("remembering")
def test_those_who_have_the_same_list_share_a_count(operators_client: Client, run: RunFactory) -> None:
    colleague = Client()
    colleague.force_login(User.objects.create_superuser("colleague"))
    run(**SITUATIONS["failed"])
    assert counted(operators_client, "of=first") == ("1", 1)
    run(**SITUATIONS["failed"])

    assert counted(colleague, "of=first") == ("1", 0)
    assert counted(colleague, "of=second") == ("2", 1), "another list was told of, so it is counted anew"
    assert counted(operators_client, "of=second&queue=mail") == ("0", 1)
    assert counted(operators_client, "") == ("2", 1), "a page that is opened is told what is"


@pytest.mark.usefixtures("remembering")
def test_who_sees_less_is_counted_for_alone(client: Client, operators_client: Client, run: RunFactory) -> None:
    run(**SITUATIONS["failed"])
    run(owner=None, **SITUATIONS["failed"])

    assert counted(operators_client, "of=same")[0] == "2"
    assert counted(client, "of=same")[0] == "1"


# All that match


def test_the_box_for_all_tells_how_many_they_are(operators_client: Client, run: RunFactory, monkeypatch: Any) -> None:
    many(1_284, status="'FAILED'", finished_at="now()", failure="'error'")
    run(queue_name="mail")
    assert all_told(page(operators_client)) == "All that match"
    assert all_told(page(operators_client, "state=failed")) == "All that match the filter"

    def counts(query: str) -> str:
        return all_told(page(operators_client, query, "/runs/counts/"))

    assert counts("") == "All 1,285 that match"
    assert counts("state=failed") == "All 1,284 that match the filter"
    assert counts("queue=mail") == "The 1 that matches the filter"
    assert counts("q=mail.nothing") == "All 0 that match the filter"
    monkeypatch.setattr("tasks_app.facets.COUNTED", 1_000)
    assert counts("state=failed") == "All 1,000+ that match the filter"


# A search


def test_a_search_says_that_it_does_not_refresh_itself(operators_client: Client, run: RunFactory) -> None:
    run(kwargs={"order": 48102}, **SITUATIONS["successful"])
    text = page(operators_client, "state=successful&q=48102&size=25")

    assert "data-poll" not in text
    assert 'id="refresh"' not in text and "Updates paused" not in text
    said = re.search(r'<small class="quiet" id="not-fresh">(.*?)</small>', text)
    assert said and "A search does not refresh itself." in said[1] and "<time" in said[1]
    again = re.search(r'id="search-again" href="([^"]*)"', text)
    assert again and html.unescape(again[1]) == "?state=successful&q=48102&size=25"

    listed = page(operators_client, "state=successful")
    assert 'id="refresh"' in listed and "data-poll" in listed
    assert "does not refresh itself" not in listed


# Saved views


def keep(client: Client, query: str) -> str:
    client.post("/runs/views/", {"do": "save", "name": "Mine", "query": query, "back": ""})
    return SavedView.objects.get().query


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("state=failed&size=25&sort=oldest", "state=failed&sort=oldest&size=25"),
        ("sort=oldest", "sort=oldest"),
        ("size=200&older=1-2&top=1-2&seen=x", "size=200"),
        ("state=failed&sort=newest&size=50", "state=failed"),
        ("state=scheduled&sort=newest", "state=scheduled&sort=newest"),
        ("state=scheduled&sort=oldest", "state=scheduled"),
        ("size=7&sort=longest", ""),
    ],
)
def test_a_view_keeps_order_and_size(operators_client: Client, query: str, kept: str) -> None:
    assert keep(operators_client, query) == kept


def test_a_kept_view_shows_the_list_as_it_was(operators_client: Client) -> None:
    many(60, queue_name="'mail'")
    text = page(operators_client, "queue=mail&sort=oldest&size=25&top=1-2")
    offered = re.search(r'name="query" value="([^"]*)">\s*<label class="field"><span>Save', text)
    assert offered

    kept = keep(operators_client, html.unescape(offered[1]))

    shown = page(operators_client, kept)
    assert ids(shown) == ids(text) and len(ids(shown)) == 25
    assert 'aria-current="true">Mine</a>' in shown
    assert 'aria-current="true">Mine</a>' not in page(operators_client, "queue=mail")
    assert set(ids(shown)) != found(operators_client, "queue=mail&size=25")
    assert "older=" in link(shown, "next")


# The form of times


def form_of_times(text: str) -> dict[str, str]:
    match = re.search(r'<details class="dates".*?<form[^>]*>(.*?)</form>', text, re.DOTALL)
    assert match
    return {
        name: html.unescape(value) for name, value in re.findall(r'<input[^>]* name="(\w+)" value="([^"]*)"', match[1])
    }


def test_times_are_chosen_by_a_form_that_keeps_all_else(operators_client: Client, run: RunFactory) -> None:
    hours = {hour: run(3600 * hour, queue_name="mail") for hour in (1, 3, 5)}
    run(3 * 3600)
    form = form_of_times(page(operators_client, "state=ready&queue=mail&size=25"))
    assert form == {"state": "ready", "queue": "mail", "size": "25", "since": "", "until": ""}

    now = timezone.localtime()
    given = {"since": now - timedelta(hours=4), "until": now - timedelta(hours=2)}
    filled = {**form, **{name: f"{at:%Y-%m-%dT%H:%M}" for name, at in given.items()}}
    text = operators_client.get("/runs/", filled).content.decode()

    assert ids(text) == [str(hours[3].pk)]
    assert form_of_times(text) == filled
    assert '<details class="dates" open>' in text
    assert len(re.findall(r"Remove filter: </span>(?:since|until) ", text)) == 2
