"""WATCH: the tasks that are paused or have limits, and how much of those is taken up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from tasks_app.models import TaskLimit, TaskRun
from tasks_app.pace import unit_of
from tasks_app.policies import opening, told

MOST = 200
"""Tasks on the page."""

# One value, to stand in a larger statement. Not the whole row: each claim under a rate writes its `next_at`.
LOOK = f"""
SELECT json_agg(json_build_array(key, coalesce(held.runs, 0), is_paused, is_closed, looks) ORDER BY key)::text
FROM (
  SELECT key, coalesce(paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > statement_timestamp()), false)
      AS is_paused,
    coalesce(next_at - make_interval(secs => (burst - 1) * rate_seconds / rate_count) > statement_timestamp(), false)
      AS is_closed,
    concat_ws(' ', max_running, rate_count, rate_seconds, burst, paused_at, paused_until, paused_by_id, pause_reason)
      AS looks
  FROM tasks_app_tasklimit WHERE max_running IS NOT NULL OR rate_count IS NOT NULL OR paused_at IS NOT NULL
  ORDER BY key LIMIT {MOST}) AS policy
LEFT JOIN (
  SELECT task_path, count(*) AS runs FROM tasks_app_taskrun
  WHERE claimed_by IS NOT NULL AND status IN ('READY', 'RUNNING') GROUP BY task_path) AS held ON task_path = key
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class LimitedTask:
    """One task, as its row tells it."""

    key: str
    held: int
    is_paused: bool
    is_closed: bool
    """As many have begun as its rate allows just now."""
    version: str
    now: datetime
    policy: TaskLimit | None = None

    @classmethod
    def read(cls, text: str | None, now: datetime) -> list[Self]:
        """From the value that `LOOK` answers."""
        rows: Sequence[Sequence[Any]] = json.loads(text or "[]")
        return [cls(key, held, is_paused, is_closed, looks, now) for key, held, is_paused, is_closed, looks in rows]

    @classmethod
    def free(cls, key: str, now: datetime) -> Self:
        """One that nobody has limited or paused yet, by one query."""
        held = TaskRun.objects.unfinished().filter(claimed_by__isnull=False, task_path=key).count()
        return cls(key, held, is_paused=False, is_closed=False, version="", now=now)

    @classmethod
    def with_policies(cls, tasks: Sequence[Self]) -> list[Self]:
        """The same with their rows, by one query; without those that are gone since."""
        if not tasks:
            return []
        found = TaskLimit.objects.select_related("paused_by").in_bulk([task.key for task in tasks])
        return [replace(task, policy=found[task.key]) for task in tasks if task.key in found]

    @property
    def looks(self) -> tuple[object, ...]:
        """All that its row shows, but for times that tick."""
        return (self.key, self.held, self.is_paused, self.is_closed, self.version)

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def limit(self) -> int | None:
        return self.policy.max_running if self.policy else None

    @property
    def rate(self) -> str:
        return self.policy.rate if self.policy else ""

    @property
    def state(self) -> str:
        """`paused`, `full`, `closed` or `open`."""
        if self.is_paused:
            return "paused"
        if self.limit and self.held >= self.limit:
            return "full"
        return "closed" if self.is_closed else "open"

    @property
    def pause_told(self) -> str:
        return told(self.policy) if self.policy and self.is_paused else ""

    @property
    def opens_at(self) -> datetime | None:
        return opening(self.policy) if self.policy else None

    @property
    def rate_given(self) -> str:
        """As a form takes it: `10/m`."""
        policy = self.policy
        if not (policy and policy.rate_count and policy.rate_seconds):
            return ""
        return f"{policy.rate_count}/{unit_of(policy.rate_seconds)}"

    @property
    def burst(self) -> int:
        return self.policy.burst if self.policy else 1
