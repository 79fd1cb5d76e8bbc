"""Procrastinate: two worker processes, each an event loop with ten jobs at once. It keeps the job, but no result."""

from typing import Any

import procrastinate  # type: ignore[import-not-found,unused-ignore]
import psycopg

from bench import work

KEEPS = "the job with arguments and times, no result"
NEEDS = "postgres"
CONCURRENCY = 10

app = procrastinate.App(connector=procrastinate.PsycopgConnector())


@app.task
async def noop(argument: int) -> int:
    return work.noop(argument)


@app.task
async def busy(argument: int) -> str:
    return work.busy(argument)


@app.task
async def stamp(argument: float) -> None:
    work.stamp(argument)


TASKS = {"noop": noop, "busy": busy, "stamp": stamp}


class Sender:
    """The app with its connector for synchronous programs, and a connection that counts; not made in a worker."""

    def __init__(self) -> None:
        self.counter = psycopg.connect(autocommit=True)
        self.replaced = app.replace_connector(procrastinate.SyncPsycopgConnector())
        self.replaced.__enter__().open()


made: list[Sender] = []


def sender() -> Sender:
    if not made:
        made.append(Sender())
    return made[0]


def prepare() -> None:
    found = sender().counter.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL").fetchone()
    if not (found and found[0]):
        app.schema_manager.apply_schema()
    sender().counter.execute("TRUNCATE procrastinate_jobs, procrastinate_events CASCADE")


def send(name: str, argument: float) -> None:
    sender()
    TASKS[name].defer(argument=argument)


def send_many(name: str, arguments: list[float]) -> None:
    sender()
    TASKS[name].batch_defer(*({"argument": argument} for argument in arguments))


def finished() -> int:
    row = sender().counter.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'").fetchone()
    return int(row[0]) if row else 0


def workers(count: int) -> list[Any]:
    arguments = ["-m", "procrastinate", "--app", "bench.contenders.procrastinate_pg.app", "worker"]
    return [[[*arguments, "--concurrency", str(CONCURRENCY)], {"PROCRASTINATE_LOG_LEVEL": "WARNING"}]] * count
