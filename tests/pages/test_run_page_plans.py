"""WATCH: how PostgreSQL finds what the page of a run asks for: by an index, however many other runs there are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tasks_app.models import Cluster, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory

MANY = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  finished_at, attempt, max_attempts, attempts)
SELECT gen_random_uuid(), task_path, args, kwargs, queue_name, mod(n, 3), CASE WHEN mod(n, 10) = 0 THEN 'READY'
  ELSE 'SUCCESSFUL' END, now() - n * interval '1 s', now() - n * interval '1 s',
  CASE WHEN mod(n, 10) <> 0 THEN now() END, 0, max_attempts, '[]'
FROM tasks_app_taskrun, generate_series(1, 30000) AS n WHERE id = %s
"""
LINES = """
INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text)
SELECT %s, 1, now(), 20, 'line ' || n FROM generate_series(1, 30000) AS n
"""


@pytest.mark.parametrize("state", ["ready", "running", "failed"])
def test_a_page_reads_by_indexes(
    operators_client: Client, run: RunFactory, cluster: Cluster, state: str, settings: Any
) -> None:
    shown = run(**SITUATIONS[state])
    Cluster.objects.update(busy=4)
    with connection.cursor() as cursor:
        cursor.execute(MANY, [shown.pk])
        cursor.execute(LINES, [shown.pk])
        cursor.execute("ANALYZE tasks_app_taskrun; ANALYZE tasks_app_runlog")
    with CaptureQueriesContext(connection) as asked:
        assert operators_client.get(f"/runs/{shown.pk}/?q=line+7").status_code == 200
    statements = [query["sql"] for query in asked if "taskrun" in query["sql"] or "runlog" in query["sql"]]
    assert len(statements) >= 4

    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (FORMAT JSON) " + statement.partition("SET LOCAL")[0])
            plan = cursor.fetchone()
        for node in nodes((json.loads(plan[0]) if isinstance(plan[0], str) else plan[0])[0]["Plan"]):
            is_scan = node["Node Type"] == "Seq Scan"
            assert not (is_scan and node["Relation Name"] in {"tasks_app_taskrun", "tasks_app_runlog"}), statement
    assert TaskRun.objects.count() > 30_000


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for inner in plan.get("Plans", []) for node in nodes(inner))]
