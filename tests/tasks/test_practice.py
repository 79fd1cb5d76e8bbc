"""create_task, called directly: the same three kinds of test that its predecessor has, the third in tests/door."""

from collections.abc import Callable
from typing import Any, cast
from unittest.mock import Mock, patch

import pytest

from tasks_app.engine.context import RunContext
from tasks_app.tasks import create_task

call: Callable[[RunContext, int], bool] = cast(Any, create_task.call)
"""As a worker does it; the type of `call` leaves out the context that it has to be given."""


def context(told: list[dict[str, Any]]) -> RunContext:
    return RunContext(task_result=Mock(id="1", attempts=1), report=told.append)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_answers_true_after_its_time_and_tells_the_progress(settings: Any, kind: int) -> None:
    settings.PRACTICE_UNIT_SECONDS = 0.01
    told: list[dict[str, Any]] = []

    assert call(context(told), kind) is True

    assert told[-1] == {"done": kind * 0.01, "total": kind * 0.01, "message": ""}
    assert [progress["done"] for progress in told] == sorted(progress["done"] for progress in told)


@patch("tasks_app.tasks.practice.time")
def test_works_for_type_times_the_unit(time: Mock, settings: Any) -> None:
    """With a clock that only its own sleeping moves on."""
    settings.PRACTICE_UNIT_SECONDS = 10
    time.monotonic.return_value = 1000.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.monotonic.return_value += seconds

    time.sleep.side_effect = sleep

    assert call(context([]), 3) is True
    assert sum(slept) == pytest.approx(30)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "many"])
def test_progress_is_told_in_finite_numbers(wrong: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        context([]).progress(wrong)
