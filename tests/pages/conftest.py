"""People, and runs in the situations that pages show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tasks_app import drawn, live
from tasks_app.circumstances import Circumstances, look
from tasks_app.clock import database_now
from tasks_app.models import Cluster, Status, TaskRun

RunFactory = Callable[..., TaskRun]

WORKER = "c1:2:4711:web-1"


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll is answered by what is, not by what was a moment ago."""
    monkeypatch.setattr(live, "MEMORY_SECONDS", 0)
    monkeypatch.setattr(drawn, "KEPT_SECONDS", 0)


@pytest.fixture
def mara(db: None) -> User:
    """Someone who sends work down."""
    return User.objects.create_user("mara")


@pytest.fixture
def tobias(db: None) -> User:
    """Somebody else."""
    return User.objects.create_user("tobias")


@pytest.fixture
def operator(db: None) -> User:
    """Who sees it all."""
    return User.objects.create_superuser("operator")


@pytest.fixture
def client(mara: User) -> Client:
    """Mara's browser."""
    client = Client()
    client.force_login(mara)
    return client


@pytest.fixture
def operators_client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


@pytest.fixture
def cluster(db: None) -> Cluster:
    """A live cluster that takes from the queue `default`."""
    now = database_now()
    return Cluster.objects.create(
        name="default", queues=["default"], host="web-1", pid=1, workers=4, started_at=now, heartbeat_at=now
    )


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still around a run, so that its page has no news but what somebody has done."""
    now = database_now()

    def look_now(run: Any) -> Circumstances | None:
        around = look(run)
        return around and replace(around, now=now)

    monkeypatch.setattr("tasks_app.views.run.look", look_now)


@pytest.fixture
def run(mara: User) -> RunFactory:
    """Makes runs of Mara's as `made` does."""
    return partial(made, mara)


def made(sender: User | None, seconds_ago: float = 60, **fields: Any) -> TaskRun:
    """A run as the engine would leave it, sent `seconds_ago`; its other times are seconds from then."""
    enqueued = database_now() - timedelta(seconds=seconds_ago)

    def at(seconds: float) -> Any:
        return enqueued + timedelta(seconds=seconds)

    for name in ("run_after", "claimed_at", "started_at", "finished_at"):
        if name in fields:
            fields[name] = at(fields[name])
    entries = fields.pop("attempts", [])
    fields["attempts"] = [
        {**entry, **{name: at(entry[name]).isoformat() for name in ("started_at", "ended_at")}} for entry in entries
    ]
    values: dict[str, Any] = {
        "task_path": "tasks_app.tasks.practice.create_task",
        "kwargs": {"type": 3},
        "owner": sender,
        "enqueued_at": enqueued,
        "run_after": enqueued,
        "max_attempts": 3,
    }
    return TaskRun.objects.create(**{**values, **fields})


def attempt(number: int, started_at: float, ended_at: float, **told: Any) -> dict[str, Any]:
    """An entry of `attempts`, with times in seconds from the enqueue."""
    entry = {"attempt": number, "worker": WORKER, "started_at": started_at, "ended_at": ended_at, "reason": "error"}
    return {**entry, "exception": "builtins.ValueError", "message": "ValueError: no", "traceback": "Traceback…", **told}


def begun(**fields: Any) -> dict[str, Any]:
    """The fields of a run whose first attempt began two seconds after its enqueue."""
    return {"claimed_by": WORKER, "claimed_at": 2, "started_at": 2, "attempt": 1, **fields}


SITUATIONS: dict[str, dict[str, Any]] = {
    "ready": {},
    "claimed": {"claimed_by": WORKER, "claimed_at": 2, "attempt": 1},
    "scheduled": {"run_after": 4000},
    "waiting": {"is_waiting": True, "step": 1, "previous": {"first": 0, "last": 0}},
    "retrying": {"attempt": 1, "run_after": 4000, "attempts": [attempt(1, 2, 5, message="ValueError: once")]},
    "running": begun(status=Status.RUNNING, progress={"done": 18, "total": 30, "message": "counting"}),
    "successful": begun(status=Status.SUCCESSFUL, finished_at=12, return_value={"counted": 30}),
    "failed": begun(
        status=Status.FAILED,
        finished_at=12,
        failure="error",
        failure_message="ValueError: no",
        attempts=[attempt(1, 2, 12)],
    ),
    "cancelled": begun(status=Status.CANCELLED, finished_at=12, failure_message="Cancelled by tobias."),
}
"""The fields of a run in each state, by the word of the state."""
