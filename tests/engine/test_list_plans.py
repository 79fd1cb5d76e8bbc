"""How PostgreSQL finds the runs of a list: by an index, whatever a URL asks for, and never by reading them all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from tasks_app import facets
from tasks_app.finding import Finding
from tasks_app.listing import Listing
from tasks_app.models import TaskRun

ROWS = 40_000

# Nine of ten have ended, most of them well. Of each filter there is a value that hardly any run has.
FILL = f"""
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, owner_id, run_after,
  enqueued_at, claimed_by, claimed_at, started_at, finished_at, attempt, max_attempts, attempts, failure,
  failure_message, schedule_id, failure_group_id, workflow_id, step, about)
SELECT gen_random_uuid(), CASE WHEN mod(n, 20000) = 7 THEN 'a.rare' ELSE 'a.task_' || mod(n, 7) END,
  jsonb_build_array('parcel', n), '{{}}', CASE WHEN mod(n, 20000) = 9 THEN 'rare' ELSE 'default' END, 0, kind.status,
  CASE WHEN mod(n, 20000) = 11 THEN %(owner)s END,
  CASE WHEN mod(n, 200) = 3 THEN at + interval '100 d' ELSE at END, at,
  CASE WHEN kind.status <> 'READY' THEN 'c' || mod(n, 2) || ':1:1:host' END, at, at,
  CASE WHEN kind.status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED') THEN at + interval '1 s' END,
  CASE WHEN kind.status <> 'READY' OR mod(n, 2000) = 13 THEN 1 ELSE 0 END, 3, '[]',
  CASE WHEN kind.status = 'FAILED' THEN CASE WHEN mod(n, 4000) = 51 THEN 'timed_out' ELSE 'error' END END,
  CASE WHEN kind.status = 'FAILED' THEN 'ValueError: no ' || n END,
  CASE WHEN mod(n, 20000) = 17 THEN 3 END, CASE WHEN kind.status = 'FAILED' THEN mod(n, 4) + 1 END,
  NULL, NULL, CASE WHEN mod(n, 4000) IN (7, 8, 13, 23) THEN 'shop.order:7'
    WHEN mod(n, 3) = 0 THEN 'shop.order:' || n END
FROM generate_series(1, {ROWS}) AS n, LATERAL (SELECT now() - ({ROWS} - n) * interval '1 min' AS at) AS time,
  LATERAL (SELECT CASE WHEN mod(n, 10) = 3 THEN 'READY' WHEN mod(n, 4000) = 5 THEN 'RUNNING'
    WHEN mod(n, 40) = 11 THEN 'FAILED' WHEN mod(n, 4000) = 8 THEN 'CANCELLED' ELSE 'SUCCESSFUL' END AS status) AS kind
"""

STATES = ["", "ready", "scheduled", "retrying", "running", "claimed", "waiting", "successful", "failed", "cancelled"]
REST = [
    *("", "task=a.rare", "task=a.task_1", "queue=rare", "cluster=c9", "cluster=c1", "owner=mara", "owner=(nobody)"),
    *("reason=timed_out", "group=2", "schedule=3", "workflow=0d1ab5a0-7a3c-4a39-8bbf-5a3c5b6a0d11", "since=2h"),
    *("about=shop.order:7", "about=shop.order:7&group=2", "about=shop.order:7&q=parcel"),
    *("until=20d", "since=20d&until=19d", "task=a.rare&queue=rare&cluster=c1", "q=12345", "q=parcel", "q=nowhere"),
    *("q=task_1", "q=abcd", "q=rare", "older=1700000000000000-0d1ab5a07a3c4a398bbf5a3c5b6a0d11"),
]


@pytest.fixture(scope="module")
def operator(django_db_setup: None, django_db_blocker: Any) -> Iterator[User]:
    """Who sees it all, and a table full of runs."""
    with django_db_blocker.unblock():
        mara = User.objects.create_user("mara")
        operator = User.objects.create_superuser("operator")
        with connection.cursor() as cursor:
            cursor.execute(FILL, {"owner": mara.pk})
            cursor.execute("VACUUM ANALYZE tasks_app_taskrun")
        yield operator
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE tasks_app_taskrun CASCADE")
        User.objects.all().delete()


def plans(queries: CaptureQueriesContext) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was asked of the runs, and how that was done."""
    for query in list(queries.captured_queries):
        sql = query["sql"]
        strict = "set_config" in sql  # in three statements, of which the middle one asks
        sql = sql.split(";\n")[1] if strict else sql
        if "tasks_app_taskrun" in sql and sql.lstrip().upper().startswith(("SELECT", "WITH", "(")):
            with connection.cursor() as cursor:
                cursor.execute(f"SET enable_seqscan = {'off' if strict else 'on'}")
                cursor.execute(f"SET enable_indexscan = {'off' if strict else 'on'}")
                cursor.execute("EXPLAIN (FORMAT JSON) " + sql)
                explained = cursor.fetchone()[0]
                cursor.execute("RESET enable_seqscan; RESET enable_indexscan")
            yield sql, (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]


@pytest.mark.django_db(transaction=False)
@pytest.mark.parametrize("state", STATES)
def test_no_list_reads_the_whole_table(operator: User, state: str) -> None:
    for rest, sort in product(REST, ("", "oldest", "newest")):
        if sort and not rest.startswith(("task", "older", "since")):
            continue
        query = QueryDict(f"state={state}&{rest}&sort={sort}")
        finding = Finding.read(query, operator)
        with CaptureQueriesContext(connection) as queries:
            shown = Listing(finding, query)
            assert len(shown.page.rows) <= 50
            shown.current_version()
            if not sort:
                facets.facets(finding, "", facets.most_common(finding))
            if not state:
                facets.counts(finding)  # of all states
        for sql, plan in plans(queries):
            told = f"{query.urlencode()}\n{sql}\n{json.dumps(plan, indent=1)[:20_000]}"
            assert any(runs(node) for node in nodes(plan)), told
            assert not any(node["Node Type"] == "Seq Scan" and runs(node) for node in nodes(plan)), told


def runs(node: dict[str, Any]) -> bool:
    """Whether it reads the table of runs, by whatever way."""
    return node.get("Relation Name") == "tasks_app_taskrun" or str(node.get("Index Name", "")).startswith("run_")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.django_db
@pytest.mark.parametrize("state", STATES)
def test_what_is_about_one_thing_is_found_by_an_index_of_its_own(operator: User, state: str) -> None:
    for value in ("shop.order:7", "shop.order:3", "shop.order:0"):
        query = QueryDict(f"state={state}&about={value}")
        listing = Listing(Finding.read(query, operator), query)
        with CaptureQueriesContext(connection) as queries:
            assert state or len(listing.page.rows) == {"7": 40, "3": 1, "0": 0}[value[-1]]
            listing.current_version()
        for sql, plan in plans(queries):
            read = [str(node["Index Name"]) for node in nodes(plan) if "Index Name" in node]
            assert set(read) - {"run_ended"} == {"run_about"}, sql  # the other one is for the newest end of all


@pytest.mark.django_db
def test_every_run_is_found_by_the_pages_of_its_state(operator: User) -> None:
    """Of a large table as of a small one."""
    for query in (
        "state=ready&size=200",
        "state=failed&size=200&queue=rare",
        "state=scheduled&size=200",
        "about=shop.order:7&size=25",
    ):
        shown: list[Any] = []
        further = QueryDict(query)
        while True:
            listing = Listing(Finding.read(further, operator), further)
            shown += [run.pk for run in listing.page.rows]
            if not listing.page.older:
                break
            further = QueryDict(listing.page.older[1:])
        finding = Finding.read(QueryDict(query), operator)
        wanted = list(finding.runs().order_by(*order(finding)).values_list("pk", flat=True))
        assert shown == wanted


def order(finding: Finding) -> tuple[str, str]:
    return ("run_after", "pk") if finding.moment == "run_after" else (f"-{finding.moment}", "-pk")


@pytest.mark.django_db
def test_the_index_of_words_is_the_one_that_is_asked_for(operator: User) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert Finding.read(QueryDict("q=12345"), operator).hits
    found = [node["Index Name"] for _, plan in plans(queries) for node in nodes(plan) if "Index Name" in node]
    assert found == ["run_words"]
    assert TaskRun.objects.count() == ROWS
