"""How PostgreSQL finds what the engine asks for: by an index, however many rows are of no concern."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection

from tasks_app.engine import statements
from tasks_app.engine.connect import connect
from tests.outcomes import succeeds

COPY = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  attempt, max_attempts, attempts)
SELECT gen_random_uuid(), task_path, args, kwargs, queue_name, mod(n, 3), status, now() + interval '1 day', now(), 0,
  max_attempts, '[]'
FROM tasks_app_taskrun, generate_series(1, 20000) AS n
"""


def plan(connection: psycopg.Connection[Any], mode: str, statement: str, given: dict[str, object]) -> dict[str, Any]:
    """Of a statement that is executed and taken back."""
    connection.execute(f"SET plan_cache_mode = force_{mode}_plan")
    with connection.transaction(force_rollback=True):
        query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement
        row = connection.execute(query, given, prepare=True).fetchone()
    assert row is not None
    explained: dict[str, Any] = row[0][0]["Plan"]
    return explained


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_scheduled_runs_are_not_read_by_a_claim_or_a_heartbeat(mode: str) -> None:
    """With the clock's time in its condition, which no index is searched by, each would read all of them."""
    run_id = succeeds.enqueue().id
    with django_connection.cursor() as cursor:
        cursor.execute(COPY)
        cursor.execute("DELETE FROM tasks_app_taskrun WHERE id = %s", [run_id])
        cursor.execute("VACUUM (ANALYZE) tasks_app_taskrun")  # whatever other tests left there

    with connect("test of plans") as connection:
        claim = plan(connection, mode, statements.CLAIM, {"queue": "default", "me": "0:1:1:host", "limit": 100})
        held = statements.holder("0", whole_cluster=True)
        beat: dict[str, Any] = {"id": uuid.uuid4(), "busy": 0, "workers": 2, "report": None}
        heartbeat = plan(connection, mode, statements.HEARTBEAT, {**beat, "queues": ["default"], **held})

    for explained in (claim, heartbeat):
        assert "Seq Scan" not in json.dumps(explained)
        assert explained["Shared Hit Blocks"] + explained["Shared Read Blocks"] < 100
