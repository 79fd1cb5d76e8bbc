"""WATCH: who takes from a queue; and where nobody does, why, and what would change it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from tasks_app import wording
from tasks_app.models import Status, TaskRun

TAKES = "desired_state = 'run' AND coalesce(desired_workers, 1) > 0"
"""Of a live cluster: it takes runs. One that has only begun, or whose workers died, has some in a moment."""

IS_QUIET = "desired_state = 'quiet'"
IS_EMPTY = "desired_state = 'run' AND desired_workers = 0"
"""The two that would take if somebody had them; one that is stopping will not."""

COUNTS = f"""count(*) FILTER (WHERE {TAKES}) AS taking, count(*) FILTER (WHERE {IS_QUIET}) AS quiet,
  count(*) FILTER (WHERE {IS_EMPTY}) AS empty"""

OF_QUEUE = f"""
SELECT {COUNTS} FROM tasks_app_cluster
WHERE stopped_at IS NULL AND lost_at IS NULL
  AND heartbeat_at > statement_timestamp() - make_interval(secs => %(silence)s)
  AND queues @> jsonb_build_array(%(queue)s::text)
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Takers:
    """The live clusters of a queue, or all of them: how many take, and how many would."""

    taking: int = 0
    quiet: int = 0
    """Asked to take nothing more."""
    empty: int = 0
    """They keep no worker."""

    @classmethod
    def of(cls, queue: str) -> Takers:
        with connection.cursor() as cursor:
            cursor.execute(OF_QUEUE, {"silence": settings.LOST_AFTER_SECONDS, "queue": queue})
            return cls(*cursor.fetchone())

    @property
    def would(self) -> bool:
        """Nobody takes, but somebody is there who could be had to."""
        return not self.taking and bool(self.quiet or self.empty)

    @property
    def reason(self) -> str:
        """`1 cluster would, but was asked to take nothing more`; empty where there is none that would."""
        if self.quiet:
            return f"{wording.plural(self.quiet, 'cluster')} would, but {was(self.quiet)} asked to take nothing more"
        if self.empty:
            return f"{wording.plural(self.empty, 'cluster')} would, but keep{'s' if self.empty == 1 else ''} no worker"
        return ""

    @property
    def idle(self) -> str:
        """`asked to take nothing more: resume it`; of clusters of which none takes."""
        if not self.would:
            return "stopping: start a worker with manage.py qcluster"
        return f"{'asked to take nothing more' if self.quiet else 'without a worker'}: {self.remedy}"

    @property
    def remedy(self) -> str:
        """`resume it`: what the page Workers has for it."""
        return f"{'resume' if self.quiet else 'grow'} {'it' if (self.quiet or self.empty) == 1 else 'one'}"

    def head(self, queue: str) -> str:
        """`Nobody takes from the queue mail now.`"""
        told = wording.visible(queue)
        return (
            f"Nobody takes from the queue {told} now." if self.would else f"No live worker takes from the queue {told}."
        )

    def warning(self, queue: str) -> str:
        """For who sends a run there; empty where somebody takes it."""
        if self.taking:
            return ""
        until = f" {self.reason}: it waits until that is changed." if self.would else " It waits until one does."
        return f"{self.head(queue)}{until}"


def was(number: int) -> str:
    return "was" if number == 1 else "were"


def warning_for(run: TaskRun) -> str:
    """What who has sent this run should know: nobody takes from its queue. Empty for most."""
    if run.status != Status.READY or run.claimed_by:
        return ""
    return Takers.of(run.queue_name).warning(run.queue_name)


def start_command(queue: str) -> str:
    """What starts a worker for it, for a shell; empty for a name that nobody could give there."""
    if "," in queue or queue != queue.strip() or wording.visible(queue) != queue:
        return ""
    return f"manage.py qcluster --queues={shlex.quote(queue)}"
