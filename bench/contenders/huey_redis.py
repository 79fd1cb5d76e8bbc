"""huey with Redis and two worker processes, results kept. It has no progress call, and no bulk enqueue."""

import os
from typing import Any

import redis  # type: ignore[import-not-found,unused-ignore]
from huey import RedisHuey  # type: ignore[import-not-found,unused-ignore]

from bench import work

KEEPS = "result"
NEEDS = "redis"

huey = RedisHuey("bench", url=f"unix://{os.environ['BENCH_REDIS']}?db=2", store_none=True)
server = redis.Redis(unix_socket_path=os.environ["BENCH_REDIS"], db=2)

TASKS = {name: huey.task(name=name)(getattr(work, name)) for name in ("noop", "busy", "stamp", "nap")}


def prepare() -> None:
    server.flushall()


def send(name: str, argument: float) -> None:
    TASKS[name](argument)


def finished() -> int:
    return int(huey.storage.result_store_size())


def workers(count: int) -> list[Any]:
    arguments = ["-m", "huey.bin.huey_consumer", "bench.contenders.huey_redis.huey"]
    return [[[*arguments, "--worker-type", "process", "--workers", str(count), "--quiet"], {"BENCH_STOP": "INT"}]]
