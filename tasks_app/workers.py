"""WATCH: the clusters on all hosts: who is heard from, what each worker does, what was wished and what is obeyed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from tasks_app import wording
from tasks_app.board import Row, with_previews
from tasks_app.health import COUNTED, LIMITED, PLAIN, WAITING_QUEUES, Line, Stranded
from tasks_app.models import Status, TaskRun
from tasks_app.takers import COUNTS, Takers
from tasks_app.tasks.smoke import smoke_test
from tasks_app.unit import AtWork, Unit, short

MOST = 300
"""Clusters on the page."""

MOST_AT_WORK = 1_000
"""Runs at work that are told."""

MOST_RESCUED = 20
"""Rescued runs that are told of one lost cluster."""

STOPPED_FOR, LOST_FOR = "1 day", "7 days"
"""How long a cluster that is no more stands on the page."""

# All that the page shows, but for what a run was called with. One statement, because it is also what tells whether
# there is news. What is RUNNING is read in the order of its index, so that stale statistics make no scan of it.
LOOK = f"""
WITH now AS (SELECT statement_timestamp() AS at),
shown AS MATERIALIZED (
  SELECT cluster.* FROM tasks_app_cluster AS cluster, now
  WHERE (stopped_at IS NULL AND lost_at IS NULL) OR stopped_at > now.at - interval '{STOPPED_FOR}'
    OR (lost_at > now.at - interval '{LOST_FOR}' AND forgotten_at IS NULL)
  ORDER BY stopped_at IS NOT NULL, lost_at IS NOT NULL, coalesce(stopped_at, lost_at) DESC, host, name, started_at, id
  LIMIT {MOST}),
at_work AS (
  SELECT id, claimed_by, started_at, progress FROM tasks_app_taskrun WHERE status = 'RUNNING'
  ORDER BY enqueued_at DESC, id DESC LIMIT {MOST_AT_WORK}),
rescued AS (
  SELECT shown.id AS cluster, run.id, run.status, run.claimed_by
  FROM shown, jsonb_array_elements(shown.rescue -> 'runs') WITH ORDINALITY AS kept(run, place),
  LATERAL (SELECT id, status, claimed_by FROM tasks_app_taskrun WHERE id = (kept.run ->> 0)::uuid LIMIT 1) AS run
  WHERE shown.lost_at IS NOT NULL AND kept.place <= {MOST_RESCUED}),
takers AS (
  SELECT queue.name, {COUNTS}
  FROM now, tasks_app_cluster AS cluster, jsonb_array_elements_text(cluster.queues) AS queue(name)
  WHERE stopped_at IS NULL AND lost_at IS NULL AND heartbeat_at > now.at - make_interval(secs => %(silence)s)
  GROUP BY queue.name),
stranded AS (
  SELECT name, plain.runs + limited.runs AS runs, least(plain.oldest, limited.oldest) AS oldest,
    coalesce(quiet, 0) AS quiet, coalesce(empty, 0) AS empty
  FROM ({WAITING_QUEUES}) AS waiting LEFT JOIN takers USING (name),
  LATERAL (SELECT count(*) AS runs, min(enqueued_at) AS oldest FROM (
    SELECT enqueued_at FROM tasks_app_taskrun WHERE {PLAIN} AND queue_name = waiting.name
      AND run_after <= statement_timestamp() ORDER BY priority DESC, run_after, id
    LIMIT {COUNTED + 1}) AS run) AS plain,
  LATERAL (SELECT count(*) AS runs, min(enqueued_at) AS oldest FROM (
    SELECT enqueued_at FROM tasks_app_taskrun WHERE {LIMITED} AND queue_name = waiting.name
      AND run_after <= statement_timestamp() ORDER BY limit_key, priority DESC, run_after, id
    LIMIT {COUNTED + 1}) AS run) AS limited
  WHERE coalesce(taking, 0) = 0),
tests AS (
  SELECT id, queue_name, status, enqueued_at, claimed_at, finished_at, claimed_by, left(failure_message, 500) AS said
  FROM tasks_app_taskrun WHERE id = ANY (%(tests)s::uuid[]) AND task_path = %(task)s)
SELECT at, (SELECT json_agg(shown)::text FROM shown), (SELECT json_agg(at_work)::text FROM at_work),
  (SELECT json_agg(rescued)::text FROM rescued), (SELECT json_agg(stranded)::text FROM stranded WHERE runs > 0),
  (SELECT json_agg(tests ORDER BY queue_name, id)::text FROM tests)
FROM now
"""  # noqa: S608  its parts are ours


@dataclass(frozen=True)
class Probe:
    """A smoke test of one queue: how its run fares."""

    row: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def queue(self) -> str:
        return str(self.row["queue_name"])

    @property
    def state(self) -> str:
        """The word of its status, as icons and classes have it."""
        status = str(self.row["status"]).lower()
        return "claimed" if status == "ready" and self.row["claimed_by"] else status

    @property
    def enqueued_at(self) -> datetime:
        return datetime.fromisoformat(self.row["enqueued_at"])

    @property
    def is_over(self) -> bool:
        return self.row["status"] in {Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED}

    @property
    def word(self) -> str:
        return str(Status(self.row["status"]).label)

    @property
    def told(self) -> str:
        """`Taken after 3 ms by web-1, worker 2, and back after 8 ms.`"""
        if self.row["status"] != Status.SUCCESSFUL:
            if self.is_over:
                return str(self.row["said"] or "It did not succeed.")
            return "On its way." if self.row["claimed_by"] else "Nobody has taken it yet."
        taken, back = (
            wording.duration(datetime.fromisoformat(self.row[name]) - self.enqueued_at)
            for name in ("claimed_at", "finished_at")
        )
        by = wording.visible(TaskRun(claimed_by=self.row["claimed_by"]).worker)
        return f"Taken after {taken} by {by}, and back after {back}."


@dataclass(frozen=True)
class Floor:
    """All clusters at one moment."""

    now: datetime
    units: list[Unit] = field(default_factory=list)
    stranded: list[Stranded] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    def those(self, *states: str) -> list[Unit]:
        return [unit for unit in self.units if unit.state in states]

    @property
    def live(self) -> list[Unit]:
        return self.those("live", "quiet", "stopping", "silent")

    @property
    def lost(self) -> list[Unit]:
        return self.those("lost")

    @property
    def stopped(self) -> list[Unit]:
        return self.those("stopped")

    @property
    def version(self) -> list[object]:
        """Another one whenever the page would look different."""
        stranded = [(line.queue, line.line.length, line.line.oldest, line.takers) for line in self.stranded]
        rescued = [[(run.pk, run.status, run.claimed_by) for run in unit.rescued] for unit in self.units]
        return [[unit.looks for unit in self.units], stranded, rescued, [probe.row for probe in self.probes]]

    @property
    def headline(self) -> str:
        """`2 clusters live on 2 hosts, 1 lost. 5 of 8 workers busy, 1 starting.`"""
        heard = self.those("live", "quiet", "stopping")
        if not heard:
            return "No cluster is live, so nothing is done."
        hosts = wording.plural(len({unit.host for unit in heard}), "host")
        rest = [(len(self.those("silent")), "silent"), (len(self.lost), "lost")]
        told = "".join(f", {number} {word}" for number, word in rest if number)
        busy, count, starting = (sum(getattr(unit, name) for unit in heard) for name in ("busy", "count", "starting"))
        began = f", {starting} starting" if starting else ""
        clusters = f"{wording.plural(len(heard), 'cluster')} live on {hosts}{told}"
        return f"{clusters}. {busy} of {wording.plural(count, 'worker')} busy{began}."

    @property
    def queues(self) -> list[str]:
        """Those from which somebody takes just now."""
        return sorted({queue for unit in self.those("live") if unit.size for queue in unit.queues})


def look(tests: Iterable[uuid.UUID] = ()) -> Floor:
    """The clusters as they stand, and how these smoke tests fare; by one query."""
    given: dict[str, Any] = {
        "silence": settings.LOST_AFTER_SECONDS,
        "tests": list(tests),
        "task": smoke_test.module_path,
    }
    with connection.cursor() as cursor:
        cursor.execute(LOOK, given)
        now, *texts = cursor.fetchone()
    clusters, at_work, rescued, stranded, smoke = (json.loads(text or "[]") for text in texts)
    runs: dict[str, list[AtWork]] = {}
    for row in at_work:
        parts = str(row["claimed_by"] or "").split(":", 3)
        if len(parts) == 4:
            began = datetime.fromisoformat(row["started_at"]) if row["started_at"] else None
            worker = (parts[0], parts[1], parts[2])
            runs.setdefault(parts[0], []).append(AtWork(uuid.UUID(row["id"]), worker, began, row["progress"]))
    taken: dict[str, list[TaskRun]] = {}
    for row in rescued:
        run = TaskRun(pk=uuid.UUID(row["id"]), status=row["status"], claimed_by=row["claimed_by"])
        taken.setdefault(row["cluster"], []).append(run)
    hosts = {row["id"]: row["host"] for row in clusters}
    alive = {(row["host"], row["pid"], row["name"]) for row in clusters if not (row["lost_at"] or row["stopped_at"])}
    units = [
        Unit(
            row,
            now,
            tuple(runs.get(short(row["id"]), ())),
            tuple(taken.get(row["id"], ())),
            hosts.get((row["rescue"] or {}).get("by"), ""),
            bool(row["lost_at"]) and (row["host"], row["pid"], row["name"]) in alive,
        )
        for row in clusters
    ]
    waiting = [
        Stranded(
            row["name"],
            Line(row["runs"], datetime.fromisoformat(row["oldest"]) if row["oldest"] else None),
            Takers(0, row["quiet"], row["empty"]),
        )
        for row in stranded
    ]
    return Floor(now, units, waiting, [Probe(row) for row in smoke])


def with_runs(floor: Floor) -> Floor:
    """The same with the names and arguments of the runs that are told, by one more query."""
    ids = [run.id for unit in floor.units for run in unit.at_work]
    ids += [run.pk for unit in floor.lost for run in unit.rescued]
    if not ids:
        return floor
    rows = {row.run.pk: row for row in with_previews([Row(TaskRun(pk=pk), floor.now, None, True) for pk in ids])}
    return replace(floor, units=[_with_rows(unit, rows) for unit in floor.units])


def _with_rows(unit: Unit, rows: Mapping[uuid.UUID, Row]) -> Unit:
    # What is deleted by now is told no more.
    at_work = tuple(replace(run, row=rows[run.id]) for run in unit.at_work if run.id in rows)
    rescued = tuple(run for run in unit.rescued if run.pk in rows)
    for run in rescued:
        run.row = rows[run.pk]  # type: ignore[attr-defined]
    return replace(unit, at_work=at_work, rescued=rescued)
