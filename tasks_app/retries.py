"""When a run that failed is tried again: the options of `@task` that say so, and what a task itself can say."""

from __future__ import annotations

import random
from dataclasses import dataclass

LONGEST_WAIT = 100 * 365 * 86_400.0
"""Seconds between two attempts at most: a calendar has to reach so far."""


class RetryLater(Exception):
    """Raised by a task: try this run again in so many seconds, if an attempt is left; without seconds, as usual."""

    def __init__(self, seconds: float | None = None, why: str = "") -> None:
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and 0 <= seconds <= LONGEST_WAIT):
            raise ValueError("A run is tried again in 0 or more seconds, a hundred years at most.")
        super().__init__(why or "the task asked to be tried again")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which exceptions are worth another attempt, and how long to wait for it."""

    retry_on: tuple[type[BaseException], ...] = ()
    give_up_on: tuple[type[BaseException], ...] = ()
    backoff: float = 1.0
    backoff_cap: float = 600.0

    def wait_after(self, error: BaseException, attempt: int, max_attempts: int) -> float | None:
        """Seconds until the next attempt, or None when there is none.

        The wait doubles with each attempt up to the cap; a tenth of it is chance either way, so that runs which failed
        together do not come back together.
        """
        if attempt >= max_attempts or isinstance(error, self.give_up_on):
            return None
        if isinstance(error, RetryLater):
            if error.seconds is not None:
                return error.seconds
        elif not isinstance(error, self.retry_on):
            return None
        wait = min(self.backoff * 2.0 ** min(attempt - 1, 60), self.backoff_cap, LONGEST_WAIT)
        return wait * random.uniform(0.9, 1.1)


NO_RETRY = RetryPolicy()
