"""What `bench.pages` asks of Django, in a process of its own: `fill`, `cost` of a page, `live`; answers in JSON."""

from __future__ import annotations

import html
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

from bench.agent import tidy  # noqa: E402
from bench.contenders.dumbwaiter import copy_runs  # noqa: E402
from tasks_app.models import TaskRun  # noqa: E402
from tasks_app.models.histogram import BUCKETS, packed  # noqa: E402

TASKS, QUEUES, OWNERS, KINDS, CLUSTERS = 20, 5, 10, 40, 8
READERS = 20
"""So many operators read, each with a session of his own."""

RUNNING, SCHEDULED, ENTRIES, LOG_LINES = 60, 10_000, 20_000, 200_000

# A month of them, the newest as close together as those of a busy hour.
PAST = "now() - interval '2 min' - interval '30 days' * power(n::float8 / {count}, 3)"
DONE = {
    "task_path": f"'bench.tasks.task_' || n % {TASKS}",
    "queue_name": f"'queue-' || n % {QUEUES}",
    "args": "jsonb_build_array(n, 'https://museum.example.org/' || n)",
    "kwargs": "jsonb_build_object('depth', n % 7, 'list', 'members', 'note', repeat(md5(n::text), 4))",
    "owner_id": f"(SELECT min(id) FROM auth_user) + n % {OWNERS}",
    "claimed_by": "'000000000000:1:4711:web-' || n % 4",
    "attempt": "1",
    "enqueued_at": PAST,
    "run_after": PAST,
    "claimed_at": f"{PAST} + interval '1 s'",
    "started_at": f"{PAST} + interval '1 s'",
    "finished_at": f"{PAST} + interval '1 s' * (2 + n % 50)",
    "status": "CASE WHEN n % 25 = 0 THEN 'FAILED' WHEN n % 100 = 1 THEN 'CANCELLED' ELSE 'SUCCESSFUL' END",
    "return_value": "CASE WHEN n % 25 > 0 AND n % 100 <> 1 THEN to_jsonb(repeat(md5(n::text), 6)) END",
    "failure": "CASE WHEN n % 25 = 0 THEN 'error' END",
    "failure_message": "CASE WHEN n % 25 = 0 THEN 'ConnectTimeout: no answer from host ' || n % 97 || ' in 10 s' "
    "WHEN n % 100 = 1 THEN 'Cancelled by tobias.' END",
    "failure_group_id": f"CASE WHEN n % 25 = 0 THEN 1 + (n / 25) % {KINDS} END",
}
AT_WORK = {"status": "'RUNNING'", "progress": """'{"done": 3, "total": 9, "message": "three of nine"}'"""}

ONES = packed([1] * BUCKETS)
STATISTICS = f"""
INSERT INTO tasks_app_runstat (grain, at, task_path, queue_name, status, count, waits, lengths, waited, ran)
SELECT grain, date_trunc(unit, now()) - number * make_interval(secs => grain), 'bench.tasks.task_' || task,
  'queue-' || task % {QUEUES}, status, 60, {ONES}, {ONES}, 30, 90
FROM (VALUES (60, 'minute', 2 * 24 * 60), (3600, 'hour', 30 * 24), (86400, 'day', 31)) AS of(grain, unit, times),
  generate_series(0, times - 1) AS number, generate_series(0, {TASKS - 1}) AS task,
  unnest(ARRAY['SUCCESSFUL', 'FAILED']) AS status
"""
QUEUE_STATISTICS = """
INSERT INTO tasks_app_queuestat (grain, at, queue_name, status, count, waits, lengths, waited, ran)
SELECT grain, at, queue_name, status, sum(count), sum(waits), sum(lengths), sum(waited), sum(ran)
FROM tasks_app_runstat GROUP BY grain, at, queue_name, status
"""
FAILURE_STATISTICS = f"""
INSERT INTO tasks_app_failurestat (group_id, grain, at, queue_name, count)
SELECT kind, grain, date_trunc(unit, now()) - number * make_interval(secs => grain), 'queue-' || kind % {QUEUES}, 3
FROM (VALUES (60, 'minute', 2 * 24 * 60), (3600, 'hour', 30 * 24), (86400, 'day', 31)) AS of(grain, unit, times),
  generate_series(0, times - 1) AS number, generate_series(1, {KINDS}) AS kind
"""
AUDIT = f"""
INSERT INTO tasks_app_auditentry (act, at, actor_name, verb, subject, runs, count, details, reason)
SELECT gen_random_uuid(), now() - interval '1 min' * n, 'operator', 'pause', 'queue queue-' || n % {QUEUES}, '{{}}', 0,
  '{{}}', 'The disk is full.' FROM generate_series(1, {ENTRIES}) AS n
"""
CLUSTER = f"""
INSERT INTO tasks_app_cluster SELECT (jsonb_populate_record(made, jsonb_build_object(
  'id', gen_random_uuid(), 'host', 'web-' || n, 'queues', jsonb_build_array('queue-' || n % {QUEUES}, 'default')))).*
FROM tasks_app_cluster AS made, generate_series(2, {CLUSTERS}) AS n
"""
LOG = f"""
INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text)
SELECT %s, 1, now() - interval '1 ms' * ({LOG_LINES} - n), 20, 'line ' || n || ' of many that it wrote'
FROM generate_series(1, {LOG_LINES}) AS n
"""


def fill(rows: str, ready: str) -> dict[str, Any]:
    from tasks_app.clock import database_now
    from tasks_app.models import Cluster, CountedTo, FailureGroup

    operator = User.objects.create_superuser("operator")
    User.objects.bulk_create(User(username=f"person-{number}") for number in range(OWNERS - 1))
    now = database_now()
    FailureGroup.objects.bulk_create(
        FailureGroup(
            id=number, fingerprint=str(number), task_path=f"bench.tasks.task_{number % TASKS}", failure="error",
            exception="httpx.ConnectTimeout", message=f"ConnectTimeout: no answer from host … ({number})",
            count=int(rows) // 25 // KINDS, first_at=now - timedelta(days=30), last_at=now,
        )
        for number in range(1, KINDS + 1)
    )  # fmt: skip
    finished(int(rows))
    held = {**DONE, **AT_WORK, **dict.fromkeys(("finished_at", "return_value", "failure"), "NULL")}
    held |= {"failure_message": "NULL", "failure_group_id": "NULL"}
    copy_runs("noop", RUNNING, **formatted(held, RUNNING * 20))
    waiting = formatted({name: DONE[name] for name in ("task_path", "queue_name", "args", "kwargs", "owner_id")}, 1)
    copy_runs("noop", SCHEDULED, **waiting, run_after="now() + interval '1 day' + interval '1 s' * n")
    copy_runs("noop", int(ready), **waiting)
    ahead = now + timedelta(days=1)  # nobody is there to tell that it lives
    Cluster.objects.create(
        name="default", queues=["default"], host="web-1", pid=1, workers=8, started_at=now, heartbeat_at=ahead
    )
    CountedTo.objects.update_or_create(pk=1, defaults={"at": now})
    states = ("ready", "running", "failed", "successful")
    ids = {state: str(getattr(TaskRun.objects, state)().newest()[0].pk) for state in states}
    made, bulk = flow(), bulk_run(operator)
    ids |= {"flow": str(made), "schedule": str(schedules()), "kind": "7", "bulk": str(bulk)}
    ids |= {"step": str(TaskRun.objects.filter(workflow=made).newest()[0].pk)}
    with connection.cursor() as cursor:
        for statement in (STATISTICS, QUEUE_STATISTICS, FAILURE_STATISTICS, AUDIT, CLUSTER):
            cursor.execute(statement)
        cursor.execute(LOG, [ids["running"]])
    write_log(settings.LOG_FILE)
    tidy()
    return {**ids, "sessions": [session_of(each) for each in (operator, *operators())]}


def operators() -> list[User]:
    return [User.objects.create_superuser(f"operator-{number}") for number in range(1, READERS)]


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def flow() -> uuid.UUID:
    """A workflow of a hundred and one steps, of which none has begun, because nobody is there."""
    from tasks_app.tasks import create_task
    from tasks_app.workflows import group

    steps = [create_task.step(type=1) for _ in range(100)]
    return group(steps, then=create_task.step(type=2)).enqueue(name="A hundred and one").pk


def bulk_run(operator: User) -> uuid.UUID:
    """One that is at work, as a reporter has told."""
    from tasks_app import bulk

    run = bulk.send(operator, "priority", finding_query="state=failed", options={"priority": 5})
    now = run.enqueued_at
    progress = {"done": 4_000, "total": 40_000, "message": "4 000 runs have another priority"}
    TaskRun.objects.filter(pk=run.pk).update(
        status="RUNNING", attempt=1, claimed_by="000000000000:1:4711:web-1", claimed_at=now, started_at=now,
        progress=progress,
    )  # fmt: skip
    return run.pk


def schedules() -> int:
    """A hundred of them; answers which one is the last."""
    from django_q.tasks import schedule

    path = "tasks_app.tasks.practice.create_task"
    made = [schedule(path, name=f"every-{n}", schedule_type="C", cron=f"{n % 60} 2 * * *", type=1) for n in range(100)]
    return int(made[-1].pk)


def finished(rows: int) -> None:
    """In several transactions, so that a million of them need no more memory than some."""
    for first in range(0, rows, 200_000):
        count = min(200_000, rows - first)
        shifted = {name: sql.replace("n::float8", f"(n + {first})::float8") for name, sql in DONE.items()}
        copy_runs("noop", count, **formatted(shifted, rows))


def formatted(columns: dict[str, str], count: int) -> dict[str, str]:
    return {name: sql.replace("{count}", str(count)).replace("%", "%%") for name, sql in columns.items()}


def write_log(path: Path) -> None:
    line = "2026-01-01T00:00:00.000Z INFO 4711 task_7 0d7e55a9 ended: SUCCESSFUL after 10.0 s\n"
    path.write_text(line * 200_000)


def cost(path: str, form: str = "") -> dict[str, int]:
    """Queries and sequential scans of the runs, of the page and of a poll that finds no news."""
    from bench.pages import poll_of

    client = Client()
    client.force_login(User.objects.get(username="operator"))

    def ask() -> Any:
        if form:
            return client.post(path, form, content_type="application/x-www-form-urlencoded")
        return client.get(path)

    ask()  # what only the first answer of a process reads
    before = scans()
    with CaptureQueriesContext(connection) as page:
        answer = ask()
    found = {"queries": len(page), "seq_scans": scans() - before, "poll_queries": 0}
    if poll := poll_of(answer.content.decode()):
        with CaptureQueriesContext(connection) as asked:
            client.get(html.unescape(poll), headers={"HX-Request": "true"})
        found["poll_queries"] = len(asked)
    return found


def scans() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'tasks_app_taskrun'")
        return int(cursor.fetchone()[0])


def live(seconds: str) -> None:
    """A run that goes on: its progress moves twice a second, as a reporter writes it."""
    from tasks_app import bulk

    run = TaskRun.objects.running().exclude(task_path=bulk.path()).newest()[0]
    deadline = time.monotonic() + float(seconds)
    done = 0
    while time.monotonic() < deadline:
        done += 1
        TaskRun.objects.filter(pk=run.pk).update(progress={"done": done, "total": 1_000, "message": f"{done} done"})
        time.sleep(0.5)


def main() -> None:
    do, *given = sys.argv[1:]
    given = given or json.load(sys.stdin)  # an address may be longer than an argument of a process can be
    deeds: dict[str, Callable[..., Any]] = {"fill": fill, "cost": cost, "live": live}
    print(json.dumps(deeds[do](*given)))


if __name__ == "__main__":
    main()
