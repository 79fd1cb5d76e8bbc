"""How PostgreSQL finds what the engine asks for: by an index, however many rows are of no concern."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection

from tasks_app.engine import limits, statements, workflow_statements
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


# Of each kind that the engine looks for ten among many that are READY: under a limit, expired, held, of a workflow.
INSERT = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  attempt, max_attempts, attempts, claimed_by, claimed_at, limit_key, expires_at, workflow_id, step, is_waiting,
  previous)
SELECT gen_random_uuid(), task_path, args, kwargs, queue_name, mod(n, 3), status, now() - interval '1 s', now(),
  CASE WHEN kind = 'held' THEN 1 ELSE 0 END, 3, '[]',
  CASE WHEN kind = 'held' THEN '0:1:1:host' END, CASE WHEN kind = 'held' THEN now() END,
  CASE WHEN kind = 'limited' THEN 'key' END, CASE WHEN kind = 'late' THEN now() - interval '1 s' END,
  CASE WHEN kind = 'step' THEN %(workflow)s::uuid END, CASE WHEN kind = 'step' THEN n END,
  CASE WHEN kind = 'step' THEN true END, CASE WHEN kind = 'step' THEN '{}'::jsonb END
FROM tasks_app_taskrun, generate_series(1, 50000) AS n,
  LATERAL (SELECT CASE WHEN n <= 10 THEN 'held' WHEN n <= 20 THEN 'limited' WHEN n <= 30 THEN 'late'
    WHEN n <= 40 THEN 'step' END AS kind) AS of
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_statistics_from_before_a_large_insert_make_no_statement_read_the_table(mode: str) -> None:
    """What is analysed while its rows are not committed counts as one row until the next time, a minute or more."""
    succeeds.enqueue()
    workflow = uuid.uuid4()
    with connect("test of plans") as connection, connect("autovacuum") as other:
        with connection.transaction():
            connection.execute("TRUNCATE tasks_app_taskrun")
            connection.execute("DELETE FROM tasks_app_workflow")
        succeeds.enqueue()
        connection.execute(workflow_statements.START, {"id": workflow, "name": "", "on_failure": "stop", "owner": None,
                                                       "size": 10, "shape": "{}"})  # fmt: skip
        with connection.transaction():
            connection.execute(INSERT, {"workflow": workflow})
            other.execute("ANALYZE tasks_app_taskrun")
        row = connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'tasks_app_taskrun'").fetchone()
        assert row is not None and row[0] < 50
        held = [row[0] for row in connection.execute("SELECT id FROM tasks_app_taskrun WHERE claimed_by IS NOT NULL")]
        me, steps = {"me": "0:1:1:host"}, {"workflow": workflow, "steps": list(range(31, 41))}
        owed = {"id": held, "attempt": [1] * 10}
        done = [{"id": str(run_id), "attempt": 1, "status": "SUCCESSFUL", "began": 0, "ended": 1} for run_id in held]
        claim = {**me, "queue": "default", "limit": 10, "slow": 0.02}
        lost = {**statements.holder("0", whole_cluster=True), "begun": None, "reason": "worker_lost", "message": ""}
        beat = {"id": uuid.uuid4(), "busy": 0, "workers": 2, "report": None, "queues": ["default"]}
        calls: dict[str, tuple[str, dict[str, Any]]] = {
            "claim": (statements.CLAIM, claim),
            "claim under limits": (limits.CLAIM, claim),
            "openings": (limits.OPENINGS, {"queues": ["default"]}),
            "finish": (statements.FINISH, {**me, "done": json.dumps(done)}),
            "report": (statements.REPORT, {**me, "id": held[0], "attempt": 1, "began": 1.0, "progress": None}),
            "not found": (
                statements.NOT_FOUND,
                {**me, **owed, "patience": 1.0, "message": ["no such task"] * 10, "entry": ["{}"] * 10},
            ),
            "release": (statements.RELEASE, {**me, **owed}),
            "give back": (statements.GIVE_BACK, {**lost, "begun": [], "but": []}),
            "take from lost": (statements.TAKE_FROM_LOST, lost),
            "expire": (statements.EXPIRE, {"limit": 10}),
            "heartbeat": (statements.HEARTBEAT, {**beat, **lost}),
            "release of steps": (
                workflow_statements.RELEASE,
                {**steps, "values": ["1"], "sizes": [1], "numbers": [1] * 10, "most": 100, "said": "too large"},
            ),
            "cancel of steps": (workflow_statements.CANCEL, {**steps, "said": ["no"] * 10}),
            "telling of steps": (workflow_statements.TELL, {**steps, "said": "no"}),
        }
        explained = {name: plan(connection, mode, *call) for name, call in calls.items()}

    read = {name: one["Shared Hit Blocks"] + one["Shared Read Blocks"] for name, one in explained.items()}
    assert {name: pages for name, pages in read.items() if pages >= 3_000} == {}
    assert explained["finish"]["Actual Rows"] == explained["claim"]["Actual Rows"] == 10
