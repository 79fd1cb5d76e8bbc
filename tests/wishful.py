"""Tiny tasks that ask for more than to be run: to be the only one, to expire."""

import os
import signal
from typing import Any

from tasks_app.backend import task
from tasks_app.engine.context import RunContext
from tasks_app.retries import RetryLater
from tests.outcomes import wait_at, writes_ledger


@task(unique_by=("customer",))
def reminds(customer: Any, text: str = "", *, number: int = 0) -> str:
    return f"{customer}: {text}"


@task(unique_by=True)
def reminds_of_all(customer: Any, text: str = "hello", **more: Any) -> None:
    pass


@task(unique_by=(), takes_context=True)
def is_alone(context: RunContext, number: int = 0) -> int:
    return number


@task(unique_by=("customer",), unique_for=3600)
def reminds_hourly(customer: Any) -> None:
    pass


@task(unique_by=("path",), on_conflict="replace")
def writes_newest(path: str, number: int) -> None:
    writes_ledger.func(path, number)


@task(unique_by=("gate",))
def waits_alone(gate: str, path: str, number: int) -> None:
    writes_ledger.func(path, number)
    wait_at(gate)


@task(unique_by=("path",), takes_context=True, max_attempts=2)
def asks_for_another_try_alone(context: RunContext, path: str) -> None:
    writes_ledger.func(path, context.attempt)
    if context.attempt == 1:
        raise RetryLater(30)


@task(unique_by=("path",), takes_context=True)
def dies_once_alone(context: RunContext, path: str, gate: str) -> None:
    writes_ledger.func(path, context.attempt)
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_at(gate)


@task(expires_after=60)
def lasts_a_minute() -> None:
    pass


@task(unique_by=("day",))
def runs_on_its_day(name: str, day: str) -> None:
    pass


@task(unique_by=("more",))
def runs_with_more(name: str, **more: str) -> None:
    pass
