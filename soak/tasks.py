"""The tasks of the soak, named by what they do; each writes its execution into the ledger before anything else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error

from soak import ledger
from tasks_app import retention
from tasks_app.backend import task
from tasks_app.engine.context import RunContext
from tasks_app.retries import RetryLater

logger = logging.getLogger("soak")

retention.BATCH = 100
"""Few, so that a prune can be cut short between two batches."""

LINES = 3
"""How many lines `talks` leaves in the run's log."""

MOST_CROWDED = 2
"""So many runs of `crowded` may be held at once."""

SELDOM_SECONDS = 3.0
"""So long after a run of `seldom` was sent there is no other with its key."""

PACE, BURST = 2, 3
"""So many runs of `paced` may begin in a second, and so many at one moment."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Temporary(Exception):
    pass


@contextmanager
def written(context: RunContext, number: int) -> Iterator[None]:
    """A line in the ledger when the block begins, completed when it ends, unless its process is ended first."""
    holder = context.task_result.worker_ids[-1]
    line = ledger.begin(uuid.UUID(context.run_id), number, context.attempt, holder)
    how = "returned"
    try:
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        ledger.end(line, how)


# Tasks that succeed


@task(takes_context=True)
def quick(context: RunContext, number: int) -> int:
    with written(context, number):
        return number


@task(takes_context=True)
def naps(context: RunContext, number: int, seconds: float) -> int:
    with written(context, number):
        time.sleep(seconds)
        return number


@task(takes_context=True)
async def naps_async(context: RunContext, number: int, seconds: float) -> int:
    with written(context, number):
        await asyncio.sleep(seconds)
        return number


@task(takes_context=True)
def progresses(context: RunContext, number: int, seconds: float) -> int:
    """Long, and tells so; heeds the wish to cancel it."""
    with written(context, number):
        for step in range(50):
            context.check_cancelled()
            context.progress(step, 50, f"step {step}")
            time.sleep(seconds / 50)
        return number


@task(takes_context=True)
def talks(context: RunContext, number: int, seconds: float) -> int:
    with written(context, number):
        for line in range(LINES - 1):
            logger.info("line %d of number %d", line, number)
            time.sleep(seconds / LINES)
        print("the last line of number", number)
        return number


@task(takes_context=True, max_attempts=4, retry_on=(Temporary,), backoff=0.2)
def succeeds_at_last(context: RunContext, number: int) -> int:
    with written(context, number):
        if context.attempt < 3:
            raise Temporary(f"not yet, {context.attempt}")
        return number


@task(takes_context=True)
def asks_for_another_try(context: RunContext, number: int) -> int:
    with written(context, number):
        if context.attempt == 1:
            raise RetryLater(0.5, "the shop is closed")
        return number


@task(takes_context=True)
def leaves_a_child(context: RunContext, number: int) -> int:
    """Its child lingers until the worker ends."""
    with written(context, number):
        pid = os.fork()
        if pid == 0:
            os.execvp("sleep", ["sleep", "3600"])
        ledger.adopt(pid)
        return number


@task(takes_context=True)
def dies_once(context: RunContext, number: int) -> int:
    with written(context, number):
        if context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


# Tasks with promises of their own


@task(takes_context=True, unique_by=("key",))
def alone(context: RunContext, number: int, key: int) -> int:
    """No two of one key at a time; who comes meanwhile is answered with the one that stands."""
    with written(context, number):
        return number


@task(takes_context=True, unique_by=("key",), on_conflict="replace")
def newest(context: RunContext, number: int, key: int) -> int:
    """The same, and who comes meanwhile takes the place of the one that nobody has begun."""
    with written(context, number):
        return number


@task(takes_context=True, unique_by=("key",), unique_for=SELDOM_SECONDS)
def seldom(context: RunContext, number: int, key: int) -> int:
    """No two of one key within a time, although the first has ended."""
    with written(context, number):
        return number


@task(takes_context=True)
def in_time(context: RunContext, number: int) -> int:
    """Sent with a time after which it is not to begin."""
    with written(context, number):
        return number


@task(takes_context=True)
def gathers(context: RunContext, number: int, before: object) -> int:
    """A step of a workflow that gets the results of what stands before it."""
    with written(context, number):
        return number


@task(takes_context=True, max_running=MOST_CROWDED)
def crowded(context: RunContext, number: int, seconds: float) -> int:
    with written(context, number):
        time.sleep(seconds)
        return number


@task(takes_context=True, rate=f"{PACE * 60}/m", burst=BURST)
def paced(context: RunContext, number: int) -> int:
    with written(context, number):
        return number


@task(takes_context=True, retry_on=(Error,), max_attempts=8, backoff=0.2)
def prunes(context: RunContext, number: int) -> int:
    """As `tasks_app.tasks.upkeep.prune_runs` does, for a schedule."""
    with written(context, number):
        retention.prune(tell=lambda done, told: context.progress(done, message=told), why="The soak's schedule")
        return number


# Tasks that fail


@task(takes_context=True)
def fails(context: RunContext, number: int) -> None:
    with written(context, number):
        raise ValueError("on purpose")


@task(takes_context=True)
def fails_unprintably(context: RunContext, number: int) -> None:
    with written(context, number):
        raise Unprintable


@task(takes_context=True, max_attempts=2, retry_on=(Temporary,), backoff=0.2)
def keeps_failing(context: RunContext, number: int) -> None:
    with written(context, number):
        raise Temporary("still not")


@task(takes_context=True)
def exits(context: RunContext, number: int) -> None:
    with written(context, number):
        sys.exit(3)


@task(takes_context=True)
def interrupts(context: RunContext, number: int) -> None:
    with written(context, number):
        raise KeyboardInterrupt


@task(takes_context=True, timeout=0.3)
def sleeps_too_long(context: RunContext, number: int) -> None:
    with written(context, number):
        time.sleep(60)


@task(takes_context=True, timeout=0.3, max_attempts=2)
def swallows_its_time_limit(context: RunContext, number: int) -> None:
    with written(context, number):
        while True:
            try:
                while True:
                    time.sleep(0.01)
            except BaseException:
                logger.debug("swallowed, as careless tasks do")


@task(takes_context=True, max_attempts=2)
def ends_its_process(context: RunContext, number: int) -> None:
    with written(context, number):
        os._exit(7)


@task(takes_context=True, max_attempts=2)
def kills_its_process(context: RunContext, number: int) -> None:
    with written(context, number):
        os.kill(os.getpid(), signal.SIGKILL)
