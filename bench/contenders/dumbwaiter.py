"""This project as it stands: `.enqueue()` and `manage.py qcluster`, its own settings, everything on."""

import os
from functools import partial
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django_tasks import task  # noqa: E402

from bench import work  # noqa: E402
from bench.agent import tidy  # noqa: E402
from tasks_app.engine.context import RunContext  # noqa: E402
from tasks_app.models import Queue, TaskRun  # noqa: E402

KEEPS = "the run with arguments, times, result, progress, log"
NEEDS = "postgres"


@task
def noop(number: int) -> int:
    return work.noop(number)


@task(takes_context=True)  # type: ignore[arg-type]
def busy(context: RunContext, number: int) -> str:
    return work.busy(number, partial(context.progress, 1, 2, "half of it"))


@task
def stamp(sent: float) -> None:
    work.stamp(sent)


@task
def nap(seconds: float) -> None:
    work.nap(seconds)


@task(max_running=1_000_000)
def noop_limited(number: int) -> int:
    return work.noop(number)


@task(rate="1000000/s", burst=1_000_000)
def noop_paced(number: int) -> int:
    return work.noop(number)


@task(unique_by=("number",))
def noop_unique(number: int) -> int:
    return work.noop(number)


@task(expires_after=3_600)
def noop_expiring(number: int) -> int:
    return work.noop(number)


TASKS: dict[str, Any] = {
    "noop": noop,
    "busy": busy,
    "stamp": stamp,
    "nap": nap,
    "noop_limited": noop_limited,
    "noop_paced": noop_paced,
    "noop_unique": noop_unique,
    "noop_expiring": noop_expiring,
}
SENDS_MANY = hasattr(noop, "enqueue_many")


# What `tasks_app.ids.new_id` makes when ten thousand are sent a second.
ID = "overlay(gen_random_uuid()::text PLACING lpad(to_hex(mod(n / 10000, 4096)), 3, '0') FROM 1 FOR 3)::uuid"


def prepare() -> None:
    call_command("migrate", verbosity=0)
    tables = [name for name in connection.introspection.table_names() if name.startswith("tasks_app_")]
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(tables)}")


def send(name: str, argument: float) -> None:
    TASKS[name].enqueue(argument)


def send_many(name: str, arguments: list[float]) -> None:
    TASKS[name].enqueue_many([[argument] for argument in arguments])


def fill(name: str, count: int) -> None:
    copy_runs(name, count)


def fill_groups(count: int) -> None:
    """Members of workflows, a thousand in each, with nothing after them."""
    from tasks_app.workflows import group, step

    for first in range(0, count, 1_000):
        group(step(noop, number) for number in range(first, min(first + 1_000, count))).enqueue()
    tidy()


def copy_runs(name: str, count: int, **columns: str) -> None:
    """So many rows at once, all like the one that `.enqueue()` makes, but for the columns given as SQL.

    In the SQL, `n` counts from 1 and `run` is the row copied, which no worker ever sees. Copies are due in the order of
    `n`, all of them now, and clusters are notified once.
    """
    at = f"now() - interval '1 us' * ({count} - n)"
    given = {"id": ID, "args": "jsonb_build_array(n)", "run_after": at, "enqueued_at": at, **columns}
    names = [str(field.column) for field in TaskRun._meta.concrete_fields]
    values = [given.get(column, f"run.{column}") for column in names]
    with transaction.atomic(), connection.cursor() as cursor:
        run_id = TASKS[name].enqueue(0).id
        cursor.execute(
            f"INSERT INTO tasks_app_taskrun ({', '.join(names)}) SELECT {', '.join(values)} "
            "FROM generate_series(1, %s) AS n, tasks_app_taskrun AS run WHERE run.id = %s",
            [count, run_id],
        )
        cursor.execute("DELETE FROM tasks_app_taskrun WHERE id = %s", [run_id])


def finished() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tasks_app_taskrun WHERE status = 'SUCCESSFUL'")
        return int(cursor.fetchone()[0])


def workers(count: int) -> list[Any]:
    return [[["manage.py", "qcluster"], {"WORKERS": str(count)}]]


# Asked by `bench.product` alone


def limit_queue(queue: str) -> None:
    Queue.limit(queue, 1_000_000)


def pile_up(ready: int, scheduled: int, finished: int) -> None:
    """So many runs of each kind in one queue, the ready ones behind each other and all the rest around them."""
    past = {"enqueued_at": "now() - interval '1 day'", "run_after": "now() - interval '1 day'"}
    done = {
        "status": "'SUCCESSFUL'",
        "claimed_by": "'000000000000:1:1:host'",
        "attempt": "1",
        "return_value": "'1'",
        **dict.fromkeys(("claimed_at", "started_at", "finished_at"), "now() - interval '1 hour' + interval '1 ms' * n"),
    }
    copy_runs("noop", finished, **past, **done)
    copy_runs("noop", scheduled, run_after="now() + interval '1 day' + interval '1 ms' * n")
    copy_runs("noop", ready)
    tidy()


def count_endings() -> None:
    """Count into the statistics all that has ended.

    A cluster does that all along, some seconds after. A million at once is what no cluster ever finds, and would do
    beside the very seconds that are measured.
    """
    import psycopg

    from tasks_app.engine.counting import count

    with psycopg.connect() as db:
        while count(db) is not False:
            db.commit()


def explain_claim() -> dict[str, str]:
    """The plan of the claim, with nothing changed in the end."""
    import psycopg

    from tasks_app.engine import statements
    from tasks_app.engine.connect import SESSION

    values = {"queue": "default", "me": "nobody:0:0:host", "limit": 100}
    plans = {}
    with psycopg.connect() as db:
        db.execute(SESSION)
        for mode in ("force_custom_plan", "force_generic_plan"):
            db.execute(f"SET plan_cache_mode = {mode}")
            found = db.execute("EXPLAIN (ANALYZE, COSTS OFF) " + statements.CLAIM, values, prepare=True).fetchall()
            plans[mode.removeprefix("force_")] = "\n".join(row[0] for row in found)
            db.rollback()
    return plans
