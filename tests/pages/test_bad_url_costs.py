"""WATCH: what the worst addresses may cost: few queries, none of which reads the table of runs from end to end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tasks_app.models import FailureGroup, RunLog, TaskRun
from tests.engine.test_list_plans import FILL, ROWS
from tests.figures import failed
from tests.pages.test_bad_urls import LONG, asked

pytestmark = pytest.mark.django_db

MOST_QUERIES = 10

WORST = {
    "as it is": "",
    "a page far off": "page=1000000000&older=1-00000000-0000-0000-0000-000000000000&before=1",
    "a number far off": "older=1-1&size=200",
    "the year 1": "since=0001-01-01T00:00:00-23:59",
    "before all": "until=1900-01-01&size=200",
    "all there ever was": "since=1900-01-01&until=9000-01-01&sort=oldest&size=200",
    "what nobody has": "queue=nothing&cluster=nothing&reason=stopped&level=error",
    "200 kB": f"q={LONG}&task={LONG}&state={LONG}",
    "a word that nobody has": "q=nowhere",
    "a rare word": "q=12345",
    "a beginning that many rare words share": "q=123",
    "a word that all have": "q=parcel",
    "more words than are searched for": "q=" + "+".join("abcdefghijklmnop"),
    "a word of nobody's": "q=parcel&queue=nothing&state=failed&since=1900-01-01",
    "a name and an id": "q=task_1&owner=mara",
}
PAGES = {
    "home": "/",
    "runs": "/runs/",
    "counts": "/runs/counts/",
    "facets": "/runs/facets/",
    "running": "/runs/{running}/",
    "failed": "/runs/{failed}/",
    "failures": "/failures/",
    "failure": "/failures/{group}/",
    "queues": "/queues/",
    "workers": "/workers/",
    "schedules": "/schedules/",
    "workflows": "/workflows/",
    "statistics": "/stats/",
    "audit": "/audit/",
    "launch": "/launch/",
}
READ = """
SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname IN ('tasks_app_taskrun', 'tasks_app_runlog')
"""


@dataclass
class Many:
    """Forty thousand runs, of which some can be named."""

    operator: User
    ids: dict[str, Any]


@pytest.fixture(scope="module")
def many(django_db_setup: None, django_db_blocker: Any) -> Iterator[Many]:
    with django_db_blocker.unblock():
        try:
            mara = User.objects.create_user("mara")
            with connection.cursor() as cursor:
                cursor.execute(FILL, {"owner": mara.pk})
            ids = {name: getattr(TaskRun.objects, name)().newest()[0].pk for name in ("running", "failed")}
            group = failed(TaskRun.objects.get(pk=ids["failed"]).enqueued_at, 2)
            TaskRun.objects.filter(failure_group=1).update(failure_group=group)
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text) SELECT %s, 1, now(), 20, 'line '"
                    " || n FROM generate_series(1, 30000) AS n",
                    [ids["running"]],
                )
                cursor.execute("VACUUM ANALYZE tasks_app_taskrun, tasks_app_runlog")
            yield Many(User.objects.create_superuser("operator"), {**ids, "group": group.pk})
        finally:
            call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def operator(many: Many) -> User:
    return many.operator


def scans() -> dict[str, int]:
    """How often each table was read from end to end, in the transaction of this test."""
    with connection.cursor() as cursor:
        cursor.execute(READ)
        return dict(cursor.fetchall())


@pytest.mark.parametrize("query", WORST)
def test_no_address_reads_all_runs(operators_client: Client, many: Many, query: str) -> None:
    for path in PAGES.values():
        address = asked(path.format(**many.ids), WORST[query])
        before = scans()
        with CaptureQueriesContext(connection) as queries:
            assert operators_client.get(address).status_code == 200
        statements = [each["sql"] for each in queries if "SAVEPOINT" not in each["sql"]]
        told = "\n".join([address[:200], *(statement[:2_000] for statement in statements)])
        assert len(statements) <= MOST_QUERIES, told
        assert scans() == before, told


SENT: dict[str, dict[str, Any]] = {
    "a thousand ids": {"id": [str(uuid.uuid4()) for _ in range(999)]},
    "all that nobody has": {"all": "1", "query": "q=nowhere&state=failed"},
    "a rare word": {"all": "1", "query": "q=12345"},
    "a beginning that many rare words share": {"all": "1", "query": "q=123"},
    "a word that all have": {"all": "1", "query": "q=parcel"},
    "a word that none of this state has": {"all": "1", "query": "q=parcel&state=failed"},
    "a queue that is not there, nobody's": {"all": "1", "query": "queue=nothing"},
}


@pytest.mark.parametrize("given", SENT)
def test_no_bulk_act_reads_all_runs(operators_client: Client, many: Many, given: str) -> None:
    TaskRun.objects.filter(status="READY").update(status="CANCELLED")  # or there may be more than is looked at
    sent = {"verb": "cancel", **SENT[given]}
    if "id" in sent:
        sent["id"] = [*sent["id"], str(many.ids["failed"])]
    before = scans()
    with CaptureQueriesContext(connection) as queries:
        kept = operators_client.post("/runs/bulk/", sent)
        asking = len(queries)
        response = operators_client.get(kept["Location"])

    assert (response.status_code, scans()) == (302 if "nobody" in given else 200, before)
    assert asking <= MOST_QUERIES
    assert len([each for each in list(queries)[asking:] if "SAVEPOINT" not in each["sql"]]) <= MOST_QUERIES


def test_a_scan_would_be_seen(many: Many) -> None:
    """The table is large enough for indexes to be worth it, and what is counted is what is done."""
    before = scans()
    assert TaskRun.objects.filter(priority=7).count() == 0

    assert scans() == {**before, "tasks_app_taskrun": before["tasks_app_taskrun"] + 1}
    assert (TaskRun.objects.count(), RunLog.objects.count(), FailureGroup.objects.count()) == (ROWS, 30_000, 1)
