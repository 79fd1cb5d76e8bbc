"""What the measured tasks do: the same few lines for every contender, which wraps them in tasks of its own kind."""

import logging
import os
import socket
import time
from collections.abc import Callable

logger = logging.getLogger("bench.work")

STAMPS = "BENCH_STAMPS"
"""Names the variable with the path of the datagram socket at which the benchmark listens."""


def noop(number: int) -> int:
    return number


def busy(number: int, progress: Callable[[], object] | None = None) -> str:
    """Log one line, tell progress once where that exists, answer 100 bytes of JSON.

    The line is a warning, so that nobody's own chatter at INFO has to be switched on for it to be written.
    """
    logger.warning("at work on number %d", number)
    if progress is not None:
        progress()
    return "x" * 98


def stamp(sent: float) -> None:
    """Tell the benchmark how long ago this was sent; the monotonic clock is the same in all processes of a machine."""
    tell(f"{time.monotonic() - sent:.9f}")


def nap(seconds: float) -> None:
    """Tell that an execution began, then be long."""
    tell("begun")
    time.sleep(seconds)


def tell(word: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(word.encode(), os.environ[STAMPS])
