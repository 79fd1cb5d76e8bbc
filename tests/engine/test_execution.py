"""RUN: one execution, called directly."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.utils import timezone

from tasks_app.engine.execution import ClaimedRun, Outcome, execute
from tasks_app.models import Failure, Status


def run(path: str, *args: Any, timeout: float | None = None, attempt: int = 1, **kwargs: Any) -> Outcome:
    now = timezone.now()
    claimed = ClaimedRun(uuid.uuid4(), path, list(args), kwargs, "default", 0, attempt, 3, timeout, now, now)
    return execute(claimed, "worker", lambda progress: None, lambda: False)


def test_a_return_value_is_kept_as_json() -> None:
    outcome = run("tests.outcomes.succeeds", 1, key="ü")

    assert (outcome.status, outcome.failure) == (Status.SUCCESSFUL, None)
    assert outcome.return_value == '{"args":[1],"kwargs":{"key":"ü"}}'
    assert 0 <= outcome.began <= outcome.ended


def test_a_coroutine_and_a_plain_function_run_too() -> None:
    # In a thread of its own, as the browser's driver leaves an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(run, "tests.outcomes.succeeds_async", 1).result().return_value == "2"
    assert run("tests.outcomes.plain", 4).return_value == "8"


def test_a_failure_tells_class_message_and_traceback() -> None:
    outcome = run("tests.outcomes.fails", "sold out")

    assert (outcome.status, outcome.failure, outcome.message) == (Status.FAILED, Failure.ERROR, "ValueError: sold out")
    assert outcome.exception == "builtins.ValueError"
    assert "raise ValueError(text)" in outcome.traceback
    assert "execution.py" not in outcome.traceback


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("exits", "SystemExit: 3"),
        ("interrupts", "KeyboardInterrupt"),
        ("fails_unprintably", "Unprintable: (its text cannot be shown)"),
    ],
)
def test_nothing_that_a_task_raises_gets_out(task: str, message: str) -> None:
    outcome = run(f"tests.outcomes.{task}")

    assert (outcome.status, outcome.failure, outcome.message) == (Status.FAILED, Failure.ERROR, message)
    assert outcome.traceback


@pytest.mark.parametrize(
    ("path", "args", "sentence"),
    [
        ("tests.outcomes.returns_an_object", [], "Object of type object is not JSON serializable"),
        ("tests.outcomes.returns", ["nan"], "cannot be stored as JSON"),
        ("tests.outcomes.returns", ["nul"], "NUL"),
        ("tests.outcomes.returns", ["surrogate"], "surrogate"),
        ("tests.outcomes.returns", ["large"], "2,000,002 bytes"),
        ("tests.outcomes.returns", ["set"], "cannot be stored as JSON"),
        ("tests.outcomes.returns_deep", [], "nested too deep"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_with_that_reason(path: str, args: list[Any], sentence: str) -> None:
    outcome = run(path, *args)

    assert (outcome.status, outcome.failure, outcome.return_value) == (Status.FAILED, Failure.ERROR, None)
    assert outcome.message is not None
    assert sentence in outcome.message


def test_null_is_a_result_like_any_other() -> None:
    assert run("tests.outcomes.returns", "null").return_value == "null"


@pytest.mark.parametrize(
    ("path", "args", "sentence"),
    [
        ("tests.outcomes.missing", [], "There is no task tests.outcomes.missing."),
        ("no_such_module.task", [], "There is no task no_such_module.task."),
        (
            "tests.outcomes.plain",
            [1, 2, 3],
            "plain cannot be called with these arguments: too many positional arguments.",
        ),
        ("tasks_app.tasks.practice.create_task", [], "missing a required argument: 'type'"),
    ],
)
def test_an_unknown_task_or_wrong_arguments_are_rejected(path: str, args: list[Any], sentence: str) -> None:
    outcome = run(path, *args)

    assert (outcome.status, outcome.failure) == (Status.FAILED, Failure.REJECTED)
    assert outcome.message is not None
    assert sentence in outcome.message


@pytest.mark.parametrize("name", ["call", "self", "args", "func"])
def test_wrong_keywords_are_rejected_whatever_their_name(name: str) -> None:
    outcome = run("tests.outcomes.fails", **{name: 1})

    assert outcome.failure == Failure.REJECTED
    assert f"unexpected keyword argument '{name}'" in (outcome.message or "")


def test_a_time_limit_ends_the_task() -> None:
    outcome = run("tests.outcomes.sleeps_too_long", timeout=0.05)

    assert (outcome.failure, outcome.message) == (Failure.TIMED_OUT, "Stopped after 0.05 s, its limit.")
    assert outcome.seconds < 10
