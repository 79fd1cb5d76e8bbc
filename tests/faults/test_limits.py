"""Limits over several clusters, with a ledger of every begin and end, while processes are killed."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tasks_app.engine import limits, statements
from tasks_app.engine.connect import SESSION
from tests import limited
from tests.server import Server
from tests.waiting import wait_until

NOTES, THREE, TWENTY = (f"tests.limited.{name}" for name in ("notes", "notes_three_at_most", "notes_twenty_a_second"))
DECLARED: dict[str, dict[str, float | int | None]] = {
    THREE: {"max_running": 3, "rate_count": None, "rate_seconds": None, "burst": 1},
    TWENTY: {"max_running": None, "rate_count": 20, "rate_seconds": 1.0, "burst": 5},
}


def send(server: Server, task: str, count: int, seconds: float, first: int = 0) -> None:
    """So many runs that leave their begin and end in the ledger, under the limits that the task's code declares."""
    calls = [f'["{server.ledger}", {number}, {seconds}]' for number in range(first, first + count)]
    options: dict[str, Any] = {"task_path": task, "queue_name": "default", "priority": 0, "owner": None}
    columns = {"id": [uuid.uuid4() for _ in calls], "args": calls, "kwargs": ["{}"] * count}
    given = {**options, **columns, "run_after": None, "max_attempts": 9, "timeout": None, "limit_key": task}
    with server.connect() as connection:
        if task in DECLARED:
            limits.write(connection, task, DECLARED[task])  # type: ignore[arg-type]
        many = statements.ENQUEUE_MANY_LIMITED if task in DECLARED else statements.ENQUEUE_MANY
        connection.execute(many, given)


def limit_queue(server: Server, most: int) -> None:
    with server.connect() as connection:
        connection.execute(
            "INSERT INTO tasks_app_queue (name, max_running, pause_reason) VALUES ('default', %s, '')", [most]
        )


@pytest.mark.parametrize("where", ["queue", "task"])
def test_four_clusters_run_no_more_than_the_limit(server: Server, where: str) -> None:
    if where == "queue":
        limit_queue(server, 3)
    for _ in range(4):
        server.qcluster(WORKERS=2)

    send(server, NOTES if where == "queue" else THREE, 150, 0.05)
    server.wait_until_all_final()

    assert Counter(limited.numbers(server.ledger)) == Counter(range(150))
    assert limited.most_at_once(server.ledger) == 3


@pytest.mark.parametrize("where", ["queue", "task"])
def test_processes_killed_under_a_limit_leave_every_place_free(server: Server, where: str) -> None:
    """Workers one after the other, then a whole cluster; the limit is never exceeded meanwhile, and reached again."""
    if where == "queue":
        limit_queue(server, 3)
    clusters = [server.qcluster(WORKERS=2, LOST_AFTER_SECONDS=2) for _ in range(4)]
    send(server, NOTES if where == "queue" else THREE, 120, 0.1)
    choice, killed = random.Random(1), []

    def kill(process: psutil.Process) -> None:
        process.suspend()  # so that it writes nothing after the moment that is noted
        killed.append((process.pid, time.monotonic()))
        process.kill()

    for done in range(0, 60, 10):
        wait_until(lambda done=done: len(limited.begins(server.ledger)) >= done, what=f"{done} begins")  # type: ignore[misc]
        busy = wait_until(
            lambda: [one for cluster in clusters for one in cluster.titled("worker notes")], what="a busy worker"
        )
        kill(choice.choice(busy))
    gone = wait_until(lambda: [one for one in clusters if one.titled("worker notes")], what="a busy cluster")[0]
    for member in gone.members():
        member.suspend()
    for member in gone.members():
        kill(member)

    server.wait_until_all_final()
    assert {run["status"] for run in server.runs()} == {"SUCCESSFUL"}
    assert limited.most_at_once(server.ledger, killed) == 3
    lost = [run for run in server.runs() if run["attempts"]]
    assert 1 <= len(lost) <= len(killed)
    send(server, NOTES if where == "queue" else THREE, 30, 0.1, first=1_000)
    server.wait_until_all_final()
    after = server.folder / "after"
    after.write_text(
        "".join(f"{what} {n} {pid} {at}\n" for what, n, pid, at in limited.lines(server.ledger) if n >= 1_000)
    )
    assert limited.most_at_once(after) == 3


def test_a_rate_holds_over_four_clusters_and_is_reached(server: Server) -> None:
    for _ in range(4):
        server.qcluster(WORKERS=2)

    send(server, TWENTY, 105, 0.01)
    server.wait_until_all_final()

    begins = limited.begins(server.ledger)
    assert len(begins) == 105
    # Exact is the moment at which a claim is allowed; until it is written, and until its run begins, a busy machine may
    # let some time pass.
    for first, at in enumerate(begins):
        for last in range(first, len(begins)):
            assert last - first + 1 <= 5 + (begins[last] - at + 0.5) * 20
    assert 4.5 < begins[-1] - begins[0] < 8
    with server.connect() as connection:
        claims = [
            run["claimed_at"] for run in connection.execute("SELECT claimed_at FROM tasks_app_taskrun").fetchall()
        ]
    claims.sort()
    for first, at in enumerate(claims):
        for last in range(first, len(claims)):
            assert last - first + 1 <= 5 + ((claims[last] - at).total_seconds() + 0.1) * 20


def test_a_pause_reaches_every_host_within_a_second(server: Server) -> None:
    for _ in range(4):
        server.qcluster(WORKERS=2)
    send(server, NOTES, 500, 0.05)
    wait_until(lambda: len(limited.begins(server.ledger)) > 20, what="some begins")

    with server.connect() as connection:
        connection.execute(
            "INSERT INTO tasks_app_queue (name, paused_at, pause_reason) VALUES ('default', clock_timestamp(), '')"
        )
        paused = time.monotonic()
        held = "SELECT FROM tasks_app_taskrun WHERE claimed_by IS NOT NULL AND finished_at IS NULL"
        wait_until(lambda: not connection.execute(held).fetchall(), what="the runs at hand to end")
        beats = "SELECT min(heartbeat_at) AS at FROM tasks_app_cluster"
        first: Any = connection.execute(beats).fetchone()
        wait_until(lambda: (connection.execute(beats).fetchone() or {})["at"] > first["at"], what="heartbeats")

    begins, ends = limited.begins(server.ledger), limited.numbers(server.ledger, "end")
    assert max(begins) < paused + 1
    assert len(begins) == len(ends) < 500


MANY = """
INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after, enqueued_at,
  attempt, max_attempts, attempts, limit_key)
SELECT gen_random_uuid(), task_path, args, kwargs, queue_name, 9, status, run_after, enqueued_at, 0, 3, '[]', limit_key
FROM tasks_app_taskrun, generate_series(1, 100000) WHERE limit_key = %s
"""


@pytest.mark.parametrize(
    ("change", "taken"), [("run_after = now() + interval '1 h'", 0), ("queue_name = 'other'", 0), ("priority = 5", 1)]
)
def test_what_is_put_off_while_a_claim_looks_for_it_is_not_taken(server: Server, change: str, taken: int) -> None:
    """The claim has found it, and waits before it locks it."""
    send(server, THREE, 1, 0)
    gate = ", gate AS MATERIALIZED (SELECT count(*), pg_advisory_xact_lock_shared(4711) FROM best), next AS"
    slow = re.sub(r",\s*next AS", gate, limits.CLAIM).replace("FROM best JOIN", "FROM gate, best JOIN")
    given = {"queue": "default", "me": "a:1:1:b", "limit": 10, "slow": 0.02}
    waits = "SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'"

    with server.connect() as claimer, server.connect() as other, ThreadPoolExecutor() as pool, claimer.transaction():
        other.execute("SELECT pg_advisory_lock(4711)")
        claimer.execute(limits.LOCK_TASKS, given)
        claim = pool.submit(lambda: claimer.execute(slow, given).fetchall())
        wait_until(lambda: other.execute(waits).fetchall(), what="a claim that waits")
        other.execute(f"UPDATE tasks_app_taskrun SET {change}")
        other.execute("SELECT pg_advisory_unlock_all()")

        assert len(claim.result(20)) == taken


def pages_read(plan: str) -> int:
    """By all of the statement: the first line of buffers is that of its root."""
    found = re.search(r"Buffers: shared (.*)", plan)
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", found[1])) if found else 0


def test_many_runs_behind_a_closed_limit_slow_no_claim(server: Server) -> None:
    """The claims read the indexes, and of the runs that may not begin none at all, by whatever plan."""
    send(server, TWENTY, 1, 0)
    with server.connect() as connection:
        connection.execute(SESSION)
        connection.execute(MANY, [TWENTY])
        connection.execute("UPDATE tasks_app_tasklimit SET next_at = now() + interval '1 hour'")
        send(server, THREE, 1, 0)
        send(server, NOTES, 1, 0)
        given = {"queue": "default", "me": "a:1:1:b", "limit": 10, "slow": 0.02, "queues": ["default"]}
        read = {statements.CLAIM: "run_ready on", limits.LOCK_TASKS: "run_ready_limited on"}
        read |= dict.fromkeys((limits.CLAIM, limits.OPENINGS), "run_ready_limited on")
        for analysed in (False, True):
            if analysed:
                connection.execute("ANALYZE tasks_app_taskrun")
            for mode in ("force_generic_plan", "force_custom_plan"):
                connection.execute(f"SET plan_cache_mode = {mode}")
                for statement, index in read.items():
                    with connection.transaction(force_rollback=True):
                        connection.execute(limits.LOCK_TASKS, given)
                        query = "EXPLAIN (ANALYZE, BUFFERS) " + statement
                        rows = connection.execute(query, given, prepare=True).fetchall()
                    plan = "\n".join(row["QUERY PLAN"] for row in rows)
                    assert re.search(f"Index (Only )?Scan (Backward )?using {index}", plan), plan
                    assert (
                        "Seq Scan on tasks_app_taskrun" not in plan and "Bitmap Index Scan on run_ready" not in plan
                    ), plan
                    assert pages_read(plan) < 5_000, plan
    server.qcluster(WORKERS=2)
    wait_until(lambda: len(limited.begins(server.ledger)) == 2, seconds=10, what="the two that may begin")
