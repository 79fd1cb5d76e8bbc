"""Waiting on a condition, never on a clock."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

Answer = TypeVar("Answer")


def wait_until(condition: Callable[[], Answer], seconds: float = 20, what: str = "the condition") -> Answer:
    """Asks again and again until the answer is true, and gives it; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {seconds:g} seconds for {what}; the last answer was {answer!r}.")
        time.sleep(0.02)
