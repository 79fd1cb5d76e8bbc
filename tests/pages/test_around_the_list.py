"""WATCH: what stands around the list of runs: counts, the box for all, saved views, times, how old a search is."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tasks_app import drawn, live
from tasks_app.models import SavedView
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_runs_list import HTMX, found, ids, link, many, page, poll_of

pytestmark = pytest.mark.django_db


def all_told(text: str) -> str:
    """The label of the box that means all runs of the list."""
    match = re.search(r'<span id="all-told"[^>]*>(.*?)</span>', text)
    assert match
    return html.unescape(match[1]).replace("\u00a0", ",")


# Counts


def asks(text: str, part: str) -> tuple[str, str]:
    """Where this part of a page asks for what is counted, and when."""
    match = re.search(rf'id="{part}"[^>]* data-counted="\d+" hx-get="([^"]*)" hx-trigger="([^"]*)"', text)
    assert match
    return html.unescape(match[1]), match[2]


def counted(client: Client, part: str, query: str = "") -> str:
    """Where this part asks for news once it was counted."""
    address, when = asks(page(client, query), part)
    assert when == "load, news"
    again, when = asks(client.get(address, headers=HTMX).content.decode(), part)
    assert when == "news"
    assert again.startswith(f"{address}{'' if address.endswith('?') else '&'}seen=")
    return again


def told(client: Client, poll: str, queries: int) -> str:
    """How many have failed, as somebody is told for whom that is news, in so many queries."""
    with CaptureQueriesContext(connection) as captured:
        response = client.get(poll, headers=HTMX)
    assert (response.status_code, len(captured)) == (200, queries)
    match = re.search(r'id="tab-failed".*?<span class="num">(\S+)</span>', response.content.decode())
    assert match
    return match[1]


@pytest.mark.parametrize("part", ["tabs", "facet-counts"])
def test_what_is_counted_tells_by_one_query_that_it_is_the_same(
    operators_client: Client, run: RunFactory, django_assert_num_queries: DjangoAssertNumQueries, part: str
) -> None:
    run(queue_name="mail", **SITUATIONS["failed"])
    poll = counted(operators_client, part, "state=failed&queue=mail&sort=oldest&size=25")

    with django_assert_num_queries(1):
        response = operators_client.get(poll, headers=HTMX)
    assert (response.status_code, response.content) == (204, b"")

    run(queue_name="mail", **SITUATIONS["failed"])
    with CaptureQueriesContext(connection) as queries:
        response = operators_client.get(poll, headers=HTMX)
    assert re.findall(r'<span class="num">2</span>', response.content.decode())
    assert sum("count(*)" in each["sql"] for each in queries) == 1, "it is not counted again to be drawn"


def test_a_list_without_news_has_its_tabs_counted_anew(operators_client: Client, run: RunFactory) -> None:
    """What it leaves out is news to its tabs alone."""
    text = page(operators_client, "state=running")
    tabs = counted(operators_client, "tabs", "state=running")
    run(**SITUATIONS["failed"])

    assert operators_client.get(poll_of(text), headers=HTMX).status_code == 204
    assert told(operators_client, tabs, queries=3) == "1"


@pytest.fixture
def remembering(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "KEPT_SECONDS", 60)
    monkeypatch.setattr(drawn, "drawings", type(drawn.drawings)())


@pytest.mark.usefixtures("remembering")
def test_those_who_have_the_same_list_share_a_count(
    operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    colleague = Client()
    colleague.force_login(User.objects.create_superuser("colleague"))
    first, second = counted(operators_client, "tabs"), counted(colleague, "tabs")
    others = counted(operators_client, "tabs", "queue=mail")
    monkeypatch.setattr(live, "MEMORY_SECONDS", 60)
    monkeypatch.setattr(live, "memory", {})
    run(**SITUATIONS["failed"])
    assert told(operators_client, first, queries=3) == "1"
    run(queue_name="mail", **SITUATIONS["failed"])

    assert told(colleague, second, queries=2) == "1", "who asks a moment later is told the same"
    assert told(operators_client, others, queries=3) == "1"
    monkeypatch.setattr(live, "memory", {})
    assert told(colleague, second, queries=3) == "2"


@pytest.mark.usefixtures("remembering")
def test_who_sees_less_is_counted_for_alone(client: Client, operators_client: Client, run: RunFactory) -> None:
    all_of_them, own = counted(operators_client, "tabs"), counted(client, "tabs")
    run(**SITUATIONS["failed"])
    run(owner=None, **SITUATIONS["failed"])

    assert told(operators_client, all_of_them, queries=3) == "2"
    assert told(client, own, queries=3) == "1"


# Order and size


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("sort=oldest&size=25", {"sort": ["oldest"], "size": ["25"]}),
        ("state=scheduled&sort=newest", {"sort": ["newest"]}),
        ("state=scheduled", {}),
        ("sort=longest&older=1-2&size=7", {}),
    ],
)
def test_order_and_size_stay_with_other_filters(
    operators_client: Client, run: RunFactory, query: str, kept: dict[str, list[str]]
) -> None:
    """Those that were chosen: where none was, each list begins with what it usually begins with."""
    run(queue_name="mail", **SITUATIONS["scheduled"])
    text = page(operators_client, f"{query}&since=30d&facets=1")
    beside = "".join(page(operators_client, query, address) for address in ("/runs/counts/", "/runs/facets/"))
    links = re.findall(r'<a (?:id="tab-\w+"|class="chip") href="([^"]*)"', text + beside)
    links += re.findall(r'<a href="([^"]*)"', text.partition("<aside")[2].partition("</aside>")[0] + beside)
    links += re.findall(r'<a class="btn btn--bare" href="([^"]*)">Clear filters', text)

    assert len(links) > 20
    for link_there in links:
        asked = parse_qs(urlsplit(html.unescape(link_there)).query)
        assert {name: asked[name] for name in ("sort", "size") if name in asked} == kept, link_there
    forms = re.findall(r'<form class="(?:row|stack stack--tight)".*?</form>', text, re.DOTALL)
    for form in forms:
        hidden = dict(re.findall(r'<input type="hidden" name="(sort|size)" value="([^"]*)"', form))
        assert hidden == {name: values[0] for name, values in kept.items()}
    assert len(forms) == 4  # the search, the times, other tasks, other queues


def test_the_other_end_of_a_list_stays_first_under_another_tab(operators_client: Client, run: RunFactory) -> None:
    runs = [run(3600 * hours, queue_name=f"q{hours}", **SITUATIONS["failed"]) for hours in (1, 2, 3)]
    text = page(operators_client, "sort=oldest")
    tab = re.search(r'id="tab-failed" href="([^"]*)"', text)
    assert tab

    assert ids(page(operators_client, html.unescape(tab[1]))) == [str(each.pk) for each in reversed(runs)]


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
    text = page(operators_client, "state=ready&queue=mail&size=25")
    assert f"By the clock of {timezone.get_current_timezone_name()}." in text
    form = form_of_times(text)
    assert form == {"state": "ready", "queue": "mail", "size": "25", "since": "", "until": ""}

    now = timezone.localtime()
    given = {"since": now - timedelta(hours=4), "until": now - timedelta(hours=2)}
    filled = {**form, **{name: f"{at:%Y-%m-%dT%H:%M}" for name, at in given.items()}}
    text = operators_client.get("/runs/", filled).content.decode()

    assert ids(text) == [str(hours[3].pk)]
    assert form_of_times(text) == filled
    assert '<details class="dates" open>' in text
    assert len(re.findall(r"Remove filter: </span>(?:since|until) ", text)) == 2
