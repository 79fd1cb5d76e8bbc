"""Tiny tasks that want much of what others need too, beside `tests.outcomes`."""

from __future__ import annotations

import logging
import os
import time

import psutil

from tasks_app.backend import task
from tasks_app.engine.context import RunContext

KEPT: list[bytes] = []


@task(takes_context=True)
def talks_without_end(context: RunContext, rounds: int, pause: float) -> None:
    """In each round 50 calls of progress, 10 lines logged and 10 printed."""
    logger = logging.getLogger("shop.orders")
    for number in range(rounds):
        for part in range(1, 51):
            context.progress(50 * number + part, 50 * rounds)
        for part in range(10):
            logger.info("round %d, part %d", number, part)
            print("printed", number, part)
        time.sleep(pause)


@task
def grows(megabytes: int) -> int:
    """Keeps what it took when it is over: until its process has that much, whatever it began with."""
    process = psutil.Process()
    while process.memory_info().rss < megabytes * 2**20:
        KEPT.append(b"x" * 2**20)
    return os.getpid()
