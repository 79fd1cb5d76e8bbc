"""Celery's prefork pool with Redis as broker and as result backend, results kept.

JSON, acknowledged early and with its own prefetch (the defaults; a longer prefetch measured no better), and without
the chatter between workers.
"""

import os
from functools import partial
from typing import Any

import redis  # type: ignore[import-not-found,unused-ignore]
from celery import Celery, Task  # type: ignore[import-not-found,unused-ignore]

from bench import work

KEEPS = "result and status, for a day"
NEEDS = "redis"
QUEUE, RESULTS = (f"redis+socket://{os.environ['BENCH_REDIS']}?virtual_host={number}" for number in (0, 1))

app = Celery("bench", broker=QUEUE, backend=RESULTS)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    task_ignore_result=False,
)


@app.task
def noop(number: int) -> int:
    return work.noop(number)


@app.task(bind=True)
def busy(self: Task, number: int) -> str:
    return work.busy(number, partial(self.update_state, state="PROGRESS", meta={"done": 1, "total": 2}))


@app.task
def stamp(sent: float) -> None:
    work.stamp(sent)


@app.task
def nap(seconds: float) -> None:
    work.nap(seconds)


TASKS = {"noop": noop, "busy": busy, "stamp": stamp, "nap": nap}


def prepare() -> None:
    redis.Redis(unix_socket_path=os.environ["BENCH_REDIS"]).flushall()


def send(name: str, argument: float) -> None:
    TASKS[name].delay(argument)


def send_many(name: str, arguments: list[float]) -> None:
    """One connection for all of them, which is what its own `group` does."""
    with app.producer_pool.acquire(block=True) as producer:
        for argument in arguments:
            TASKS[name].apply_async((argument,), producer=producer)


def finished() -> int:
    """Done ones only: a busy task's PROGRESS stands under the same key, for less than a millisecond."""
    return int(results.dbsize())


results = redis.Redis(unix_socket_path=os.environ["BENCH_REDIS"], db=1)


def workers(count: int) -> list[Any]:
    arguments = ["-m", "celery", "-A", "bench.contenders.celery_redis", "worker", "--pool", "prefork"]
    quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [[[*arguments, "--concurrency", str(count), *quiet], {"C_FORCE_ROOT": "1"}]]
