"""WATCH: the list of runs as a file."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tasks_app import export
from tasks_app.finding import Finding
from tasks_app.live import Viewer
from tasks_app.models import Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db

FILL = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  finished_at, attempt, max_attempts, attempts)
SELECT gen_random_uuid(), 'a.b', '[]', '{}', CASE WHEN mod(n, 20000) = 0 THEN 'rare' ELSE 'default' END, 0,
  CASE WHEN mod(n, 4) = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END, at, at, at, 1, 1, '[]'
FROM generate_series(1, 80000) AS n, LATERAL (SELECT now() - n * interval '1 second' AS at) AS time
"""


def rows(client: Client, query: str = "") -> list[dict[str, str]]:
    response = client.get(f"/runs/export.csv{query}")
    assert response.status_code == 200
    text = response.getvalue().decode()
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def objects(client: Client, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(client.get(f"/runs/export.json{query}").getvalue())
    return found


def test_the_file_has_what_the_list_has(operators_client: Client, run: RunFactory) -> None:
    run(10)
    failed = [run(30, **SITUATIONS["failed"]), run(20, **SITUATIONS["failed"])]

    found = rows(operators_client, "?state=failed")

    assert [row["id"] for row in found] == [str(failed[1].pk), str(failed[0].pk)]
    assert found[0]["failure_message"] == "ValueError: no"
    assert [row["id"] for row in objects(operators_client, "?state=failed")] == [row["id"] for row in found]
    assert len(rows(operators_client)) == 3


def test_columns_are_named_as_the_model_has_them(operators_client: Client, run: RunFactory) -> None:
    run(**SITUATIONS["successful"])

    row = rows(operators_client)[0]

    assert list(row) == list(export.COLUMNS)
    assert {field.name for field in TaskRun._meta.fields} >= set(row)
    assert (row["owner"], row["status"], row["attempt"]) == ("mara", "SUCCESSFUL", "1")


def test_times_have_their_zone(operators_client: Client, run: RunFactory) -> None:
    made = run()

    for row in (rows(operators_client)[0], objects(operators_client)[0]):
        assert datetime.fromisoformat(row["enqueued_at"]) == made.enqueued_at
        assert row["enqueued_at"].endswith("+00:00")


def test_a_value_comes_back_as_it_is(operators_client: Client, run: RunFactory) -> None:
    value = {"a": [1, None, 2.5, "\u202eturned", "line\nend", "=1+1", "\x07\x7f", "né"], "b": 2**70}
    run(kwargs=value, args=[value], return_value=value, status=Status.SUCCESSFUL, finished_at=1)

    response = operators_client.get("/runs/export.json")
    text = response.getvalue().decode()

    assert response.headers["Content-Type"] == "application/json"
    found = json.loads(text)[0]
    assert (found["kwargs"], found["args"], found["return_value"]) == (value, [value], value)
    assert not set("\u202e\x7f\x07") & set(text)
    assert (
        json.loads(rows(operators_client)[0]["kwargs"].replace("[202e]", "\u202e").replace("[007f]", "\x7f")) == value
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1"])
def test_no_cell_is_a_formula(operators_client: Client, run: RunFactory, text: str) -> None:
    run(task_path=text, queue_name=text, **{**SITUATIONS["failed"], "failure_message": text})

    row = rows(operators_client)[0]

    assert [row[name][0] for name in ("task_path", "queue_name", "failure_message")] == ["'"] * 3


def test_numbers_stay_numbers(operators_client: Client, run: RunFactory) -> None:
    run(priority=-5)

    assert rows(operators_client)[0]["priority"] == "-5"


def test_nothing_hides_in_a_cell(operators_client: Client, run: RunFactory) -> None:
    run(**{**SITUATIONS["failed"], "failure_message": "\x1b[31mred\u202e\u200b\ufeff\r\nnext"})

    assert rows(operators_client)[0]["failure_message"] == "␛[31mred[202e][200b][feff]  next"


def test_everybody_gets_the_own_runs_alone(client: Client, run: RunFactory, tobias: User) -> None:
    mine = run()
    run(owner=tobias)

    assert [row["id"] for row in rows(client)] == [str(mine.pk)]
    assert [row["id"] for row in objects(client)] == [str(mine.pk)]


def test_no_run_is_lost_or_doubled_between_stretches(
    operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same instant, too."""
    made = [run(60) for _ in range(4)]
    TaskRun.objects.update(enqueued_at=made[0].enqueued_at)
    made += [run(seconds) for seconds in (50, 40, 30, 70, 80)]
    monkeypatch.setattr(export, "STRETCH", 2)
    monkeypatch.setattr(export, "ROWS_AT_ONCE", 3)

    found = [row["id"] for row in objects(operators_client)]

    assert sorted(found) == sorted(str(each.pk) for each in made)
    newest_first = TaskRun.objects.newest().values_list("pk", flat=True)
    assert found == [str(pk) for pk in newest_first]


def test_a_run_that_changes_meanwhile_is_in_it_once(
    operator: User, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [run(seconds) for seconds in (50, 40, 30)]
    monkeypatch.setattr(export, "STRETCH", 1)
    found = []

    for row in export.rows(TaskRun.objects.filter(status__in=["READY", "CANCELLED"])):
        found.append(row[0])
        made[1].cancel()
        run(1)

    assert found == [made[2].pk, made[1].pk, made[0].pk]


def test_large_values_are_read_a_few_at_a_time(run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        run(kwargs={"text": "x" * 1_000})
    monkeypatch.setattr(export, "BYTES_AT_ONCE", 2_500)

    assert [len(ids) for ids in export.portions(TaskRun.objects.all())] == [2, 1]


def test_nothing_reads_the_whole_table(operator: User) -> None:
    """However few runs match, each statement reads a stretch of it at most."""
    with connection.cursor() as cursor:
        cursor.execute(FILL)
        cursor.execute("ANALYZE tasks_app_taskrun")
    finding = Finding.read(QueryDict("state=failed&queue=rare"), Viewer(operator.pk, True))

    with CaptureQueriesContext(connection) as asked:
        assert len(list(export.rows(finding.runs()))) == 4

    assert len(asked) < 20
    for query in asked:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL random_page_cost = 1.1")  # to read all of these few would be as cheap else
            cursor.execute(f"EXPLAIN {query['sql']}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "Seq Scan on tasks_app_taskrun" not in plan, plan


def test_the_name_tells_state_and_day(operators_client: Client) -> None:
    def name(url: str) -> str:
        return operators_client.get(url).headers["Content-Disposition"]

    day = f"{timezone.localtime():%Y-%m-%d}"
    assert name("/runs/export.csv") == f'attachment; filename="runs-all-{day}.csv"'
    assert name("/runs/export.json?state=failed") == f'attachment; filename="runs-failed-{day}.json"'
    assert name("/runs/export.csv?state=failed&since=1h") == f'attachment; filename="runs-failed-filtered-{day}.csv"'


def test_an_empty_list_is_an_empty_file(operators_client: Client) -> None:
    assert rows(operators_client) == []
    assert objects(operators_client) == []


@pytest.mark.parametrize("query", ["?state=faild", "?since=never", "?workflow=7"])
def test_a_filter_that_cannot_be_meant_makes_no_file(operators_client: Client, query: str) -> None:
    response = operators_client.get(f"/runs/export.csv{query}")

    assert response.status_code == 400
    assert b"That filter was not understood" in response.content


def test_a_head_reads_no_runs(operators_client: Client, run: RunFactory) -> None:
    run()

    response = operators_client.head("/runs/export.csv")

    assert (response.status_code, response.content) == (200, b"")
