"""WATCH: how things stand around one run: its place in line, who takes from its queue, what holds it up."""

from __future__ import annotations

import uuid
from dataclasses import astuple, dataclass, replace
from datetime import datetime

from django.conf import settings
from django.db import connection

from tasks_app.health import PLAIN
from tasks_app.takers import IS_EMPTY, TAKES

COUNTED = 1_000
"""A place in line is told up to here."""

REDRAWN = 15
"""While something goes on, the drawing of the life is made anew after so many seconds without other news."""

# One statement, because it is also what tells whether a page has news. A row has another `xmin` or `ctid` whenever it
# was written. CASE, because only it keeps what is not asked for from being counted.
UNHELD = "run.status = 'READY' AND run.claimed_by IS NULL"
HELD = "SELECT count(*) FROM tasks_app_taskrun WHERE claimed_by IS NOT NULL AND status IN ('READY', 'RUNNING')"
LOOK = f"""
SELECT statement_timestamp(), run.xmin::text || run.ctid::text, run.status, run.run_after <= statement_timestamp(),
  (SELECT max(id) FROM tasks_app_runlog WHERE run_id = run.id),
  CASE WHEN {UNHELD} AND run.limit_key IS NULL AND run.is_waiting IS NULL AND run.run_after <= statement_timestamp()
    THEN (SELECT count(*) FROM (SELECT FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = run.queue_name
        AND priority > run.priority AND run_after <= statement_timestamp() LIMIT {COUNTED + 1}) AS higher)
      + (SELECT count(*) FROM (SELECT FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = run.queue_name
        AND priority = run.priority AND (run_after, id) < (run.run_after, run.id) LIMIT {COUNTED + 1}) AS sooner) END,
  taking.clusters, taking.quiet, taking.empty, taking.workers, taking.busy,
  queue.xmin::text || queue.ctid::text, task.xmin::text || task.ctid::text,
  CASE WHEN queue.max_running IS NOT NULL THEN ({HELD} AND queue_name = run.queue_name) END,
  CASE WHEN task.max_running IS NOT NULL THEN ({HELD} AND task_path = run.task_path) END
FROM tasks_app_taskrun AS run
LEFT JOIN tasks_app_queue AS queue ON queue.name = run.queue_name AND {UNHELD}
LEFT JOIN tasks_app_tasklimit AS task ON task.key = run.task_path AND {UNHELD},
LATERAL (
  SELECT count(*) FILTER (WHERE {TAKES}) AS clusters,
    count(*) FILTER (WHERE desired_state <> 'run') AS quiet, count(*) FILTER (WHERE {IS_EMPTY}) AS empty,
    coalesce(sum(workers) FILTER (WHERE {TAKES}), 0) AS workers,
    coalesce(sum(busy) FILTER (WHERE {TAKES}), 0) AS busy
  FROM tasks_app_cluster AS cluster
  WHERE stopped_at IS NULL AND lost_at IS NULL
    AND heartbeat_at > statement_timestamp() - make_interval(secs => %(silence)s)
    AND queues @> jsonb_build_array(run.queue_name)) AS taking
WHERE run.id = %(id)s
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Circumstances:
    """What one look tells."""

    now: datetime
    row: str
    """Of the run as it was written last."""
    status: str
    is_due: bool
    newest_line: int | None
    """The id of the newest line of its log."""
    ahead: int | None
    """How many runs are before it; None when it is not in line, or in the line of a limit."""
    clusters: int
    """How many live ones take from its queue."""
    quiet: int
    """How many more would, but were asked to be quiet or to stop."""
    empty: int
    """And how many would, but keep no worker."""
    workers: int
    busy: int
    queue_policy: str | None
    task_policy: str | None
    held_of_queue: int | None
    held_of_task: int | None

    @property
    def is_served(self) -> bool:
        return self.clusters > 0

    @property
    def all_busy(self) -> bool:
        return 0 < self.workers <= self.busy

    @property
    def has_policies(self) -> bool:
        """A row of limits or pauses stands for its queue or its task."""
        return bool(self.queue_policy or self.task_policy)

    @property
    def looks(self) -> tuple[object, ...]:
        """All that the page shows, but for times that tick and the lines of the log."""
        beat = 0 if self.status not in {"READY", "RUNNING"} else int(self.now.timestamp()) // REDRAWN
        told = replace(self, newest_line=None, workers=int(self.all_busy), busy=0, now=datetime.min)  # noqa: DTZ901
        return (beat, *astuple(told))


def look(run: uuid.UUID) -> Circumstances | None:
    """By one query; None for a run that there is not."""
    with connection.cursor() as cursor:
        cursor.execute(LOOK, {"id": run, "silence": settings.LOST_AFTER_SECONDS})
        row = cursor.fetchone()
    return Circumstances(*row) if row else None
