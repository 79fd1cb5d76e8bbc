"""WATCH: what the policies of queues and tasks hold up, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from django.db.models import Count, Q

from tasks_app import wording
from tasks_app.models import Queue, Status, TaskLimit, TaskRun
from tasks_app.models.queue import Policy

TOLD = 20
"""So many pauses are told on the first page."""


class Holds:
    """The policies that some runs are under. Of runs that do not wait nothing is read."""

    def __init__(self, runs: Iterable[TaskRun], now: datetime) -> None:
        self.now = now
        waiting = [run for run in runs if run.status == Status.READY and not run.claimed_by]
        paths = {run.task_path for run in waiting}
        self.queues = queues = Queue.objects.select_related("paused_by").in_bulk({run.queue_name for run in waiting})
        self.tasks = tasks = TaskLimit.objects.select_related("paused_by").in_bulk(paths) if paths else {}
        self.held: dict[tuple[str, str], int] = {}
        if any(policy.max_running for policy in (*queues.values(), *tasks.values())):
            held = TaskRun.objects.unfinished().filter(claimed_by__isnull=False)
            counted = held.values_list("queue_name", "task_path").annotate(Count("id")).order_by()
            self.held = {(queue, path): count for queue, path, count in counted}

    def why(self, run: TaskRun) -> tuple[str, str] | None:
        """Why the run may not begin although its time has come: a few words, then a sentence; None if it may."""
        if run.status != Status.READY or run.claimed_by:
            return None
        queue, task = self.queues.get(run.queue_name), self.tasks.get(run.task_path)
        for policy in (queue, task):
            if policy and policy.is_paused(self.now):
                return f"{subject(policy)} is paused.", told(policy)
        if full := self.full(run):
            whose = "Its queue" if isinstance(full, Queue) else "Its task"
            return f"{whose} is at its limit.", f"{self._held(full)} of {full.max_running} are at work, over all hosts."
        if task and (opens := opening(task)) and opens > self.now:
            at = wording.clock_seconds(opens) if opens - self.now < timedelta(hours=12) else wording.moment(opens)
            return "Its task is over its rate.", f"{task.rate} may begin, over all hosts; the next one at {at}."
        return None

    def full(self, run: TaskRun) -> Policy | None:
        """The queue or the task of the run, if as many of its runs are held as may be."""
        for policy in (self.queues.get(run.queue_name), self.tasks.get(run.task_path)):
            if policy and policy.max_running and self._held(policy) >= policy.max_running:
                return policy
        return None

    def _held(self, policy: Policy) -> int:
        if isinstance(policy, Queue):
            return sum(count for (name, _), count in self.held.items() if name == policy.name)
        return sum(count for (_, path), count in self.held.items() if path == policy.pk)


def opening(task: TaskLimit) -> datetime | None:
    """When the next of its runs may begin, going by its rate."""
    if not (task.rate_count and task.rate_seconds and task.next_at):
        return None
    return task.next_at - timedelta(seconds=(task.burst - 1) * task.rate_seconds / task.rate_count)


def subject(policy: Policy) -> str:
    return f"The {policy.what} {str(policy).rpartition('.')[2] if isinstance(policy, TaskLimit) else policy}"


def told(policy: Policy) -> str:
    """By whom it is paused, why, and until when."""
    by = f" by {policy.paused_by}" if policy.paused_by else ""
    since = f"Since {wording.moment(policy.paused_at)}{by}" if policy.paused_at else "Paused"
    why = f": {policy.pause_reason.rstrip('.')}" if policy.pause_reason else ""
    if policy.paused_until:
        return f"{since}{why}. It goes on at {wording.moment(policy.paused_until)}."
    return f"{since}{why}. It waits to be resumed."


@dataclass(frozen=True)
class Paused:
    """A queue or task of which nothing is claimed, as the first page tells it."""

    subject: str
    detail: str


def paused(now: datetime) -> tuple[Paused, ...]:
    """All of them, up to a number."""
    is_paused = Q(paused_at__isnull=False) & (Q(paused_until=None) | Q(paused_until__gt=now))
    found: list[Policy] = []
    for model in (Queue, TaskLimit):
        rows = model._default_manager.filter(is_paused).select_related("paused_by").order_by("pk")[:TOLD]
        found += cast(Iterable[Policy], rows)
    return tuple(Paused(subject(policy), told(policy)) for policy in found[:TOLD])
