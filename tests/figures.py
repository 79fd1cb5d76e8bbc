"""Statistics as the engine would have counted them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from tasks_app.alike import fingerprint
from tasks_app.engine import counting
from tasks_app.models import CountedTo, FailureGroup, FailureStat, TaskRun

LENGTH = 0.25
"""Seconds that a run waited, where nothing else is said."""


def counted(
    at: datetime, count: int = 1, *, task: str = "shop.tasks.greet", queue: str = "default",
    status: str = "SUCCESSFUL", waited: float = LENGTH, ran: float = 1.5,
) -> None:  # fmt: skip
    """So many runs that ended in that minute; `waited` and `ran` are those of each."""
    minute = at.astimezone(UTC).replace(second=0, microsecond=0)
    found = [
        (minute, task, queue, status, bucket(waited), bucket(ran), count, count * waited, count * ran),
    ]
    with connection.cursor() as cursor:
        cursor.executemany(counting.ADD_TO_TASKS, counting.summed(found, counting.OF_TASKS))
        cursor.executemany(counting.ADD_TO_QUEUES, counting.summed(found, counting.OF_QUEUES))


def bucket(seconds: float) -> int:
    return next((place for place in range(63) if seconds < counting.SHORTEST * 2 ** (place / counting.FINENESS)), 63)


def all_counted(now: datetime) -> None:
    CountedTo.objects.update_or_create(pk=1, defaults={"at": now})


def failed(
    now: datetime, *minutes_ago: float, task: str = "shop.tasks.greet", exception: str = "builtins.ValueError",
    message: str = "no answer", queue: str = "default", **given: Any,
) -> FailureGroup:  # fmt: skip
    """A group of failures of so many minutes ago, without their runs."""
    times = sorted(now - timedelta(minutes=minutes) for minutes in minutes_ago)
    told = {"task_path": task, "failure": "error", "exception": exception, "message": message}
    times_told = {"first_at": times[0], "last_at": times[-1], "count": len(times)}
    key = fingerprint(task, "error", exception, message)
    group = FailureGroup.objects.create(**{"fingerprint": key, **told, **times_told, **given})
    for at in times:
        for grain, begin in counting.starts(at.astimezone(UTC).replace(second=0, microsecond=0)):
            stat, _ = FailureStat.objects.get_or_create(
                group=group, grain=grain, at=begin, queue_name=queue, defaults={"count": 0}
            )
            stat.count += 1
            stat.save()
    return group


def failing(group: FailureGroup, at: datetime, **given: Any) -> TaskRun:
    """One of its runs."""
    told = {"message": "ValueError: no answer in 30 s", "reason": "error", "traceback": "Traceback…"}
    own = {
        "task_path": group.task_path, "status": "FAILED", "failure": "error", "failure_group": group,
        "failure_message": "ValueError: no answer in 30 s", "run_after": at, "enqueued_at": at, "finished_at": at,
        "claimed_at": at, "started_at": at, "claimed_by": "c1:2:4711:web-1", "attempt": 1, "attempts": [told],
    }  # fmt: skip
    return TaskRun.objects.create(**{**own, **given})
