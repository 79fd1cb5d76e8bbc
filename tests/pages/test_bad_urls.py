"""WATCH: whatever stands in an address, or is sent to one, no page ends in an error of the server."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import pytest
from django.test import Client

from tasks_app.models import Cluster
from tests.door.test_access import addresses
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db

LONG = "x" * 200_000

QUERIES = {
    "page": "page=1000000000&p=1000000000&size=1000000000",
    "place": "older=99999999999999999999-zz&newer=0-0",
    "early place": "older=0-0",
    "late place": "newer=9999999999999999999-ffffffff-ffff-ffff-ffff-ffffffffffff",
    "last place": "older=9223372036854775807-9223372036854775808",
    "negative": "page=-1&size=-1&older=-1&after=-1&count=-5",
    "words": "state=unknown&status=exploded&verb=juggle&level=LOUD&sort=sideways&window=9y&kind=x&task=a&owner=c",
    "long": f"q={LONG}&task={LONG}&queue={LONG}&owner={LONG}&cluster={LONG}",
    "long state": f"state={LONG}&level={LONG}&verb={LONG}&seen={LONG}",
    "nul": "q=%00&task=%00&queue=a%00b&owner=%00&state=%00&verb=%00&level=%00&cluster=%00&since=%00",
    "not utf-8": "q=%ff%fe&task=%ed%a0%80&queue=%c0%af&state=%80",
    "surrogate": f"q={quote(chr(0xD800), errors='surrogatepass')}",
    "dates": "since=9999-99-99&until=0000-00-00T99:99&from=yesterday&to=2026-02-30&at=25:61",
    "far dates": "since=0001-01-01T00:00:00-23:59&until=9999-12-31T23:59:59%2B23:59",
    "backwards": "since=2026-02-02&until=2020-01-01",
    "twice": "state=failed&state=ready&page=1&page=x&q=a&q=b&size=25&size=50&verb=cancel&verb=retry&seen=a&seen=b",
    "nothing": "q=&state=&size=&older=&newer=&verb=&level=&since=&until=&task=&seen=",
    "signs": "q='%3B--%20%25_%5C%22%60%3Cscript%3E&task=%25&queue=_&owner=%5C",
    "operators": "q=%26%20%7C%20!%20(%3A*%20%3C-%3E&q=%27%27",
    "many": "&".join(f"a{number}=1" for number in range(3_000)),
    "ids": "&".join(f"id={uuid.uuid4()}" for _ in range(900)),
    "numbers": "group=99999999999999999999&schedule=1e9&workflow=0x10&id=1",
    "braces": "q[]=1&q[$ne]=1&{}=%7B%7D&%3D=%3D",
    "directions": "q=%E2%80%AE&task=%E2%81%A6",
}

PAGES = dict(addresses())


def is_answered(status: int) -> bool:
    """With a page, a redirect, a sentence about what was wrong, or "there is nothing here"."""
    return status < 500


@pytest.fixture
def full(run: RunFactory, cluster: Cluster) -> None:
    for fields in SITUATIONS.values():
        run(**fields)


@pytest.mark.parametrize("query", QUERIES)
def test_no_query_breaks_a_page(operators_client: Client, full: None, query: str) -> None:
    operators_client.raise_request_exception = False
    told = {}
    for name, path in PAGES.items():
        for headers in ({}, {"HX-Request": "true"}):
            response = operators_client.get(f"{path}?{QUERIES[query]}", headers=headers)
            told[name, bool(headers)] = response.status_code

    assert {name: status for name, status in told.items() if not is_answered(status)} == {}


@pytest.mark.parametrize("query", QUERIES)
def test_no_form_breaks_on_what_is_sent(operators_client: Client, full: None, query: str) -> None:
    operators_client.raise_request_exception = False
    told = {}
    for name, path in PAGES.items():
        if name == "logout":
            continue
        response = operators_client.post(
            path, f"do=explode&{QUERIES[query]}", content_type="application/x-www-form-urlencoded"
        )
        told[name] = response.status_code

    assert {name: status for name, status in told.items() if not is_answered(status)} == {}


def test_a_thousand_ids_in_a_post_are_a_page_or_a_sentence(operators_client: Client, full: None) -> None:
    operators_client.raise_request_exception = False
    ids = [str(uuid.uuid4()) for _ in range(1_000)]
    given = {"id": [*ids[:-2], "none", ids[0]], "_selected_action": ids, "action": "cancel_runs", "verb": "cancel"}
    told = {
        name: operators_client.post(path, given).status_code
        for name, path in {**PAGES, "admin": "/admin/tasks_app/taskrun/"}.items()
        if name != "logout"
    }

    assert {name: status for name, status in told.items() if not is_answered(status)} == {}
