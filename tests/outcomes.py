"""Tiny tasks named by their outcome, run by real workers in the tests."""

import asyncio
import ctypes
import io
import logging
import logging.config
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from itertools import repeat
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import DataError, OperationalError, connection, transaction

from tasks_app.backend import task
from tasks_app.engine.context import RunContext
from tasks_app.retries import RetryLater


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@task
def succeeds(*args: Any, **kwargs: Any) -> Any:
    return {"args": list(args), "kwargs": kwargs}


@task
async def succeeds_async(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


@task
def fails(text: str = "on purpose") -> None:
    raise ValueError(text)


@task
def fails_unprintably() -> None:
    raise Unprintable


@task
def exits() -> None:
    raise SystemExit(3)


@task
def interrupts() -> None:
    raise KeyboardInterrupt


@task
def returns_an_object() -> object:
    return object()


@task
def returns(text: str) -> Any:
    return {
        "nan": float("nan"),
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "large": "x" * 2_000_000,
        "set": {1},
        "backslash": "\\u0000",
        "null": None,
    }[text]


@task
def returns_deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    return deep


@task
def sleeps(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@task(timeout=0.2)
def sleeps_too_long() -> None:
    try:
        time.sleep(30)
    except Exception:  # a careless task does not swallow its time limit
        pass


@task
def swallows_everything(gate: str) -> None:
    """Heeds nothing that is raised in it."""
    Path(gate).touch()
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass


@task(timeout=0.2, max_attempts=2)
def swallows_its_time_limit() -> None:
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass


@task(takes_context=True)
def looks_whether_it_is_cancelled(context: RunContext, gate: str) -> None:
    Path(gate).touch()
    while True:
        context.check_cancelled()
        time.sleep(0.01)


@task
def eats_memory(megabytes: int) -> None:
    kept = bytearray(megabytes * 2**20)
    for at in range(0, len(kept), 4096):
        kept[at] = 1
    time.sleep(300)


@task
def tells_its_process() -> int:
    return os.getpid()


@task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(max_attempts=1)
def dies_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(takes_context=True)
def dies_once(context: RunContext) -> int:
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


class Temporary(Exception):
    pass


class Permanent(Temporary):
    pass


@task(takes_context=True, max_attempts=3, retry_on=(Temporary,), give_up_on=(Permanent,), backoff=0.1)
def succeeds_at_last(context: RunContext, fails_for_good: bool = False) -> int:
    """Fails twice with what is worth another attempt, then succeeds; or gives up at once."""
    if fails_for_good:
        raise Permanent("no use")
    if context.attempt < 3:
        raise Temporary(f"not yet, {context.attempt}")
    return context.attempt


@task(max_attempts=2, retry_on=(Temporary,), backoff=0.1)
def keeps_failing() -> None:
    raise Temporary("still not")


@task(takes_context=True, max_attempts=2)
def asks_for_another_try(context: RunContext) -> int:
    if context.attempt == 1:
        raise RetryLater(0.5, "the shop is closed")
    return context.attempt


@task(takes_context=True)
def progresses(context: RunContext, gate: str) -> str:
    """Reports, then waits for a file, so that a test can look in between."""
    context.progress(1, 4, "one of four")
    while not Path(gate).exists():
        time.sleep(0.02)
    context.progress(4, 4, "all four")
    return context.run_id


@task
def forks_and_waits(gate: str) -> None:
    """Leaves a child behind that would outlive its worker."""
    pid = os.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "300"])
    Path(gate).write_text(str(pid))
    time.sleep(300)


@task
def talks(gate: str, lines: int = 2) -> None:
    logger = logging.getLogger("shop.orders")
    for number in range(lines):
        logger.info("line %d", number)
    logger.warning("careful\x00 %s", "now\nthen")
    print("printed", end="")
    print(" in two goes")
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("it went wrong")
    while not Path(gate).exists():
        time.sleep(0.02)
    print("no line end", end="")


@task
def comes_back_twice() -> str:
    """A careless fork: the child returns from the task as well."""
    if os.fork() == 0:
        return "from the child"
    time.sleep(0.5)
    return "from the parent"


@task
def adds_user(name: str) -> int:
    with transaction.atomic():
        return User.objects.create(username=name).pk


@task
def leaves_a_transaction_open(name: str) -> None:
    transaction.set_autocommit(False)
    User.objects.create(username=name)


def plain(number: int) -> int:
    """Not a Django task: what Django-Q2's async_task also takes."""
    return number * 2


@task
def writes_ledger(path: str, number: int, seconds: float = 0.0) -> int:
    """Leaves a line for each execution, in one write, where neither the queue nor its database can lose it."""
    with open(path, "a") as ledger:
        ledger.write(f"{number}\n")
    time.sleep(seconds)
    return number


def wait_at(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.02)


@task
def writes_ledger_at_gate(path: str, number: int, gate: str) -> int:
    """The same, and goes on only when a file is there."""
    writes_ledger.func(path, number)
    wait_at(gate)
    return number


@task(takes_context=True, max_attempts=2)
def asks_for_another_try_at_once(context: RunContext, gate: str) -> int:
    wait_at(gate)
    if context.attempt == 1:
        raise RetryLater(0)
    return context.attempt


# What no task should do


@task
def waits_for_ever() -> None:
    later = RetryLater(1)
    later.seconds = 1e300
    raise later


@task
def holds_the_gil(path: str, number: int, seconds: int) -> None:
    """No other thread of its process runs meanwhile, so nobody there can report or give anything back."""
    writes_ledger.func(path, number)
    ctypes.PyDLL(None).sleep(seconds)


@task
def segfaults() -> None:
    ctypes.string_at(0)


@task
def exits_at_once() -> None:
    os._exit(0)


@task
def ignores_sigterm(gate: str) -> None:
    """And SIGINT, and waits."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(gate).touch()
    time.sleep(300)


@task
def never_leaves_c(gate: str) -> None:
    """Holds Python's lock for ever: no other thread runs, and no handler of a signal."""
    Path(gate).touch()
    deque(repeat(None), maxlen=0)


@task
def returns_megabytes(megabytes: int) -> str:
    return "x" * (megabytes * 2**20)


@task
def closes_every_file(seconds: float) -> None:
    os.closerange(3, 4096)
    time.sleep(seconds)


@task
def starts_a_thread() -> None:
    threading.Thread(target=time.sleep, args=[300]).start()


@task
def replaces_signal_handlers() -> None:
    """And has an alarm ring when the next run is long at work."""
    for number in (signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.setitimer(signal.ITIMER_REAL, 0.05)


@task
def leads_a_session() -> None:
    os.setsid()


@task
def changes_folder() -> None:
    os.chdir("/")


@task
def recurses(limit: int) -> None:
    sys.setrecursionlimit(limit)

    def deeper() -> None:
        deeper()

    deeper()


@task
def lowers_the_recursion_limit() -> None:
    sys.setrecursionlimit(45)


@task
def closes_the_connection() -> None:
    User.objects.exists()
    connection.close()


@task
def loses_the_connection() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    except OperationalError:
        pass


@task
def leaves_a_broken_transaction() -> None:
    transaction.set_autocommit(False)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
    except DataError:
        pass


@task
def never_leaves_its_transaction() -> None:
    transaction.atomic().__enter__()
    User.objects.create(username="never committed")


@task
def replaces_stdout() -> None:
    sys.stdout.close()
    sys.stdout = sys.stderr = io.StringIO()


@task
def removes_log_handlers() -> None:
    """As a library does that configures logging for itself."""
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"handlers": []}})
    logging.getLogger("dumbwaiter").handlers.clear()
    logging.getLogger("dumbwaiter").propagate = False
    logging.disable(logging.CRITICAL)


@task
def leaves_all_as_it_should_be(name: str) -> dict[str, Any]:
    """What a well-behaved task relies on, and tells of its process."""
    print("printed", flush=True)
    logging.getLogger("shop").warning("logged")
    with transaction.atomic():
        User.objects.create(username=name)
    time.sleep(0.1)
    handlers = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)]
    return {
        "folder": os.getcwd(),
        "recursion limit": sys.getrecursionlimit(),
        "signals with a handler": sum(map(callable, handlers)),
        "blocked signals": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "child": subprocess.run(["true"]).returncode,
    }


@task
def writes_ledger_and_the_time(path: str, number: int, seconds: float) -> None:
    """As its own process believes it to be. No sleep: libfaketime breaks Python's."""
    with open(path, "a") as ledger:
        ledger.write(f"{number}\n")
    print(time.time())
    select.select([], [], [], seconds)
