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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(TaskContext):
    """The first argument of a task with `takes_context=True`."""

    report: Report = _nowhere

    @property
    def run_id(self) -> str:
        return self.task_result.id

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the run is; cheap, because only the newest of many calls is written.

        `done` and `total` are in any unit of the task's own; raises `ValueError` for what is not a finite number.
        """
        for number in (done, total):
            if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
                raise ValueError(f"Progress is told in finite numbers, not {number!r}.")
        self.report({"done": done, "total": total, "message": storable(str(message), 500)})
