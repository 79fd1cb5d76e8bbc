"""pgqueuer with asyncpg: two worker processes, each an event loop. It keeps a log of jobs, but no arguments or results.

It deletes a finished job and writes its end to a log table in batches, so a crash repeats what was not yet written.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-not-found,unused-ignore]
import pgqueuer  # type: ignore[import-not-found,unused-ignore]
import psycopg
import uvloop  # type: ignore[import-not-found,unused-ignore]
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found,unused-ignore]
from pgqueuer.models import Job  # type: ignore[import-not-found,unused-ignore]
from pgqueuer.queries import Queries  # type: ignore[import-not-found,unused-ignore]

from bench import work

KEEPS = "a line of log per job, no arguments, no result"
NEEDS = "postgres"
BATCH = 100


@asynccontextmanager
async def worker() -> AsyncIterator[Any]:
    connection = await asyncpg.connect()
    made = pgqueuer.PgQueuer(AsyncpgDriver(connection))

    @made.entrypoint("noop")
    async def noop(job: Job) -> None:
        work.noop(number(job))

    @made.entrypoint("busy")
    async def busy(job: Job) -> None:
        work.busy(number(job))

    @made.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        work.stamp(float(job.payload or b"0"))

    try:
        yield made
    finally:
        await connection.close()


def number(job: Job) -> int:
    return int(job.payload or b"0")


class Sender:
    """Its connection and event loop, and a second connection that counts; made at the first use, not in a worker."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.queries = Queries(AsyncpgDriver(self.loop.run_until_complete(asyncpg.connect())))
        self.counter = psycopg.connect(autocommit=True)

    def call(self, name: str, *arguments: Any) -> None:
        self.loop.run_until_complete(getattr(self.queries, name)(*arguments))


made: list[Sender] = []


def sender() -> Sender:
    if not made:
        made.append(Sender())
    return made[0]


def prepare() -> None:
    found = sender().counter.execute("SELECT to_regclass('pgqueuer') IS NOT NULL").fetchone()
    if not (found and found[0]):
        sender().call("install")
    sender().counter.execute("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics")


def send(name: str, argument: float) -> None:
    sender().call("enqueue", name, str(argument).encode())


def send_many(name: str, arguments: list[float]) -> None:
    payloads = [str(argument).encode() for argument in arguments]
    sender().call("enqueue", [name] * len(payloads), payloads, [0] * len(payloads))


def finished() -> int:
    row = sender().counter.execute("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'").fetchone()
    return int(row[0]) if row else 0


def workers(count: int) -> list[Any]:
    return [[["-m", "bench.contenders.pgqueuer_pg"], {}]] * count


if __name__ == "__main__":
    # What `pgq run` does; in this version that command stumbles over its own log level.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pgqueuer.run("bench.contenders.pgqueuer_pg:worker", batch_size=BATCH))
