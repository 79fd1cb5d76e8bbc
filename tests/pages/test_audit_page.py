"""WATCH: the audit as a page; and, by its example, paging and polls that have no news."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import audit
from tasks_app.clock import database_now
from tasks_app.models import AuditEntry, Queue, TaskLimit, TaskRun
from tasks_app.paging import USUAL_SIZE

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def page(client: Client, address: str = "/audit/") -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def entries(text: str) -> list[int]:
    return [int(pk) for pk in re.findall(r'<tr id="entry-(\d+)"', text)]


def poll_of(text: str) -> str:
    found = re.search(r'data-poll hx-get="([^"]+)"', text)
    assert found
    return html.unescape(found[1])


def link(text: str, rel: str) -> str:
    found = re.search(rf'href="([^"]+)" rel="{rel}"', text)
    return f"/audit/{html.unescape(found[1])}" if found else ""


def written(count: int, **given: Any) -> None:
    for number in range(count):
        audit.record("pause", subject=f"queue {number}", **given)


def test_an_entry_tells_who_did_what_and_why(operators_client: Client, mara: User) -> None:
    run = TaskRun.objects.create(task_path="a.b", run_after=database_now(), enqueued_at=database_now())
    run.cancel("No longer needed.", by=audit.Actor(mara, "mara", "192.0.2.7"))
    text = page(operators_client)

    for said in ("mara", "Cancel", str(run.pk)[:8], run.get_absolute_url(), "No longer needed.", "192.0.2.7"):
        assert said in text


def test_who_is_no_operator_finds_nothing(client: Client) -> None:
    assert client.get("/audit/").status_code == 404
    assert "Audit" not in page(client, "/")


def test_a_stranger_is_asked_to_log_in() -> None:
    response = Client().get("/audit/")
    assert (response.status_code, response["Location"]) == (302, "/login/?next=/audit/")


# Pages


def test_pages_lose_no_row_of_the_same_moment(operators_client: Client) -> None:
    """All in one transaction, at very few moments of the clock; read forth and back."""
    moments = [database_now() - timedelta(seconds=number // 40) for number in range(130)]
    AuditEntry.objects.bulk_create(AuditEntry(at=at, verb="pause", subject="q") for at in moments)
    wanted = list(AuditEntry.objects.order_by("-at", "-id").values_list("id", flat=True))

    forth, addresses, address = [], [], "/audit/?size=25"
    while address:
        addresses.append(address)
        text = page(operators_client, address)
        forth += entries(text)
        address = link(text, "next")
    assert forth == wanted

    back: list[int] = []
    address = addresses[-1]
    while address:
        text = page(operators_client, address)
        back = entries(text) + back
        address = link(text, "prev")
    assert back == wanted


def test_a_page_that_was_added_to_goes_on_where_it_was(operators_client: Client) -> None:
    written(60)
    first = page(operators_client, "/audit/?size=25")
    written(30)

    second = page(operators_client, link(first, "next"))

    assert max(entries(second)) == min(entries(first)) - 1
    newer = page(operators_client, link(second, "prev"))
    assert min(entries(newer)) == max(entries(second)) + 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("older=nonsense", "That place in the list cannot be found"),
        ("older=99999999999999999999-1", "That place in the list cannot be found"),
        ("newer=9999999999999999999-1", "That place in the list cannot be found"),
        ("older=1000-c93e7d15", "That place in the list cannot be found"),
        ("size=1000000000", "A page has 25, 50, 100 or 200 rows."),
        ("size=-1", "A page has 25, 50, 100 or 200 rows."),
        ("verb=nonsense", ""),
        ("q=%00", ""),
        ("q=" + "x" * 5_000, "Nothing matches"),
        ("older=1000-5", ""),
        ("newer=253402300799000000-5", ""),
    ],
)
def test_a_bad_query_is_answered_with_a_page(operators_client: Client, query: str, said: str) -> None:
    written(3)

    assert said in page(operators_client, f"/audit/?{query}")


def test_a_page_has_as_many_rows_as_were_chosen(operators_client: Client) -> None:
    written(110)

    assert len(entries(page(operators_client))) == USUAL_SIZE
    assert len(entries(page(operators_client, "/audit/?size=100"))) == 100


def test_filters_stay_while_pages_are_turned(operators_client: Client, mara: User) -> None:
    written(60, by=mara)
    audit.record("limit", by=mara)

    text = page(operators_client, "/audit/?size=25&verb=pause&q=mara")
    assert len(entries(text)) == 25
    assert link(text, "next").startswith("/audit/?size=25&verb=pause&q=mara&older=")
    assert len(entries(page(operators_client, link(text, "next")))) == 25


def test_a_run_is_found_by_its_id(operators_client: Client) -> None:
    runs = [TaskRun.objects.create(task_path="a.b", run_after=database_now(), enqueued_at=database_now()) for _ in "12"]
    for run in runs:
        run.cancel("No.")

    assert len(entries(page(operators_client, f"/audit/?q={runs[0].pk}"))) == 1


def test_two_kinds_of_nothing(operators_client: Client) -> None:
    assert "Nobody has done anything yet" in page(operators_client)
    written(1)
    assert "Nothing matches" in page(operators_client, "/audit/?q=nobody")


# Polls


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    written(5)
    poll = poll_of(page(operators_client))

    with django_assert_num_queries(1):
        response = operators_client.get(poll, headers=HTMX)
    assert (response.status_code, response.content) == (204, b"")


def test_a_poll_with_news_brings_the_part_alone(operators_client: Client) -> None:
    written(5)
    poll = poll_of(page(operators_client))
    written(1)

    text = operators_client.get(poll, headers=HTMX).content.decode()

    assert text.startswith('<section class="card list" id="audit"')
    assert len(entries(text)) == 6
    assert poll_of(text) != poll


def test_without_script_the_same_address_is_the_whole_page(operators_client: Client) -> None:
    written(2)
    assert "<!doctype html>" in page(operators_client, poll_of(page(operators_client)))


def test_only_the_session_that_had_the_page_polls_it(operators_client: Client, client: Client) -> None:
    written(5)
    poll = poll_of(page(operators_client))

    assert client.get(poll, headers=HTMX).status_code == 404
    assert Client().get(poll, headers=HTMX).status_code == 401


@pytest.mark.parametrize("seen", ["", "nonsense", signing.dumps("x", salt="tasks_app.live"), signing.dumps([1] * 5)])
def test_what_was_not_signed_here_is_no_version(operators_client: Client, seen: str) -> None:
    written(5)

    response = operators_client.get("/audit/", {"seen": seen}, headers=HTMX)
    assert (response.status_code, len(entries(response.content.decode()))) == (200, 5)


def test_a_version_counts_for_its_page_and_filters_only(operators_client: Client) -> None:
    written(5)
    poll = poll_of(page(operators_client))

    assert operators_client.get(f"{poll}&verb=limit", headers=HTMX).status_code == 200


# What people write


def test_a_hostile_reason_is_text(operators_client: Client, mara: User) -> None:
    written(1, by=mara, why="<script>alert(1)</script> \u202egnp.exe \x1b[31m red")

    text = page(operators_client)

    assert "&lt;script&gt;" in text
    assert "\u202e" not in text
    assert "[202e]gnp.exe" in text
    assert "\x1b" not in text


def test_the_pace_of_refreshing_is_remembered(operators_client: Client) -> None:
    assert 'data-every="2"' in page(operators_client)
    response = operators_client.post("/refresh/", {"seconds": "15"}, headers={"Referer": "http://testserver/audit/"})
    assert (response.status_code, response["Location"]) == (302, "http://testserver/audit/")
    text = page(operators_client)
    assert 'data-every="15"' in text
    assert 'value="15" aria-pressed="true"' in text
    assert operators_client.post("/refresh/", {"seconds": "3"}).status_code == 400

    operators_client.cookies["refresh"] = "1; nonsense"
    assert 'data-every="2"' in page(operators_client)


def test_a_limit_tells_what_it_was_set_to(operators_client: Client, mara: User) -> None:
    Queue.limit("default", 3, by=mara)
    Queue.limit("default", None, by=mara)
    TaskLimit.pace("shop.tasks.greet", "10/m", 5, by=mara)
    text = page(operators_client)

    for said in ("at most 3 at work", "any number at work", "10/m, 5 at once"):
        assert said in text


def test_whatever_an_act_was_given_is_told_or_left_out(operators_client: Client) -> None:
    odd: list[Any] = [[1], {"rate": "<b>x</b>\u202e"}, {"until": "never"}, {"queues": 7}, {"desired_state": {}}]
    for details in odd:
        AuditEntry.objects.create(at=database_now(), verb="pause", subject="q", details=details)
    text = page(operators_client)

    assert "<b>x" not in text
    assert "\u202e" not in text
