"""What a task that takes its context can do: tell its progress and know its attempt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_tasks.base import TaskContext

from tasks_app.jsonable import storable

Report = Callable[[dict[str, Any]], None]


def _nowhere(progress: dict[str, Any]) -> None:
    """For a task that is called directly, as in a unit test."""


def _never() -> bool:
    return False


class Cancelled(BaseException):
    """Raised inside a task that is to end; no `except Exception` of the task's swallows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(TaskContext):
    """The first argument of a task with `takes_context=True`."""

    report: Report = _nowhere
    is_cancelled: Callable[[], bool] = _never
    """True once somebody wished this run ended."""

    @property
    def run_id(self) -> str:
        return self.task_result.id

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if this run is to end: for a task that would rather end here than anywhere."""
        if self.is_cancelled():
            raise Cancelled

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the run is; cheap, because only the newest of many calls is written.

        `done` and `total` are in any unit of the task's own; raises `ValueError` for what is not a finite number.
        """
        for number in (done, total):
            if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
                raise ValueError(f"Progress is told in finite numbers, not {number!r}.")
        self.report({"done": done, "total": total, "message": storable(str(message), 500)})
