"""WATCH: one cluster as its part of the page tells it: its workers, what was wished of it, what became of its runs."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from django.conf import settings

from tasks_app import wording
from tasks_app.board import Row
from tasks_app.models import Status, TaskRun
from tasks_app.models.cluster import MOST_WORKERS, DesiredState

MOST_LINES = 64
"""Workers that are told one by one of one cluster."""

NEWS_AFTER = 4.0
"""Seconds of silence that are worth telling: a heartbeat comes every second."""

UNKNOWN = {"number": 0, "pid": None, "does": "busy", "since": None, "ended": 0, "failed": 0, "memory": None}
"""A worker of which nothing is told."""


def short(cluster_id: str) -> str:
    """As claims name it."""
    return uuid.UUID(cluster_id).hex[:12]


@dataclass(frozen=True)
class AtWork:
    """A run that a worker is at."""

    id: uuid.UUID
    worker: tuple[str, str, str]
    """Of its claim: the cluster, the worker's number and its process."""
    started_at: datetime | None
    progress: Mapping[str, Any] | None
    row: Row | None = None
    """With its name and the beginning of its arguments, once those are read."""


@dataclass(frozen=True)
class Worker:
    """One worker, as its line tells it."""

    number: int
    pid: int | None
    does: str
    """`starting`, `idle` or `busy`."""
    since: datetime | None
    ended: int
    failed: int
    memory: int | None
    is_leaving: bool
    run: AtWork | None = None

    @property
    def began(self) -> datetime | None:
        return self.run.started_at if self.run and self.run.started_at else self.since

    @property
    def told(self) -> str:
        """What it does, when there is no run to name."""
        if self.is_leaving:
            return "Leaves, a fresh one takes its place" if self.does != "starting" else "Leaves"
        return {"starting": "Starting", "idle": "Idle"}.get(self.does, "Short runs, one after the other")


@dataclass(frozen=True)
class Unit:
    """One cluster, as its part of the page tells it."""

    row: Mapping[str, Any]
    now: datetime
    at_work: tuple[AtWork, ...] = ()
    rescued: tuple[TaskRun, ...] = ()
    """Of a lost one: what became of the runs that were taken back from it."""
    rescuer: str = ""
    is_back: bool = False
    """It was lost, and the same process goes on under another id."""

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def takes(self) -> str:
        return ", ".join(self.queues)

    @property
    def host(self) -> str:
        return str(self.row["host"])

    @property
    def pid(self) -> int:
        return int(self.row["pid"])

    @property
    def queues(self) -> list[str]:
        return [str(queue) for queue in self.row["queues"]]

    @property
    def wanted(self) -> str:
        """What somebody wants of it: a word of `DesiredState`."""
        return str(self.row["desired_state"])

    def at(self, name: str) -> datetime | None:
        text = self.row[name]
        return datetime.fromisoformat(text) if text else None

    @property
    def short_id(self) -> str:
        return short(self.row["id"])

    @property
    def label(self) -> str:
        return f"{self.name} on {self.host}"

    @property
    def started_at(self) -> datetime | None:
        return self.at("started_at")

    @property
    def heartbeat_at(self) -> datetime | None:
        return self.at("heartbeat_at")

    @property
    def stopped_at(self) -> datetime | None:
        return self.at("stopped_at")

    @property
    def lost_at(self) -> datetime | None:
        return self.at("lost_at")

    @property
    def was_up(self) -> timedelta:
        """Of one that is no more."""
        ended = self.stopped_at or self.heartbeat_at
        return ended - self.started_at if ended and self.started_at else timedelta()

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """What it tells of itself; empty of a cluster of an older release, or of one that has only begun."""
        report = self.row["report"]
        if not isinstance(report, dict):
            return {}
        lines = report.get("workers")
        lines = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
        # What another release may leave out is not known, which is no reason to show nothing.
        return {"ended": 0, "failed": 0, "python": "", **report, "workers": [{**UNKNOWN, **line} for line in lines]}

    @property
    def is_older(self) -> bool:
        """It is of a release that tells nothing of itself and knows no restart."""
        young = self.started_at is not None and self.now - self.started_at < timedelta(seconds=5)
        return not self.report and not young

    @property
    def host_facts(self) -> Mapping[str, Any]:
        facts = self.report.get("host")
        return facts if isinstance(facts, dict) else {}

    @property
    def silence(self) -> float:
        return (self.now - self.heartbeat_at).total_seconds() if self.heartbeat_at else 0.0

    @property
    def is_heard(self) -> bool:
        """It was heard from so lately that its age is no news."""
        return self.silence < NEWS_AFTER

    @property
    def state(self) -> str:
        """`lost`, `stopped`, `silent`, `stopping`, `quiet` or `live`."""
        if self.row["lost_at"]:
            return "lost"
        if self.row["stopped_at"]:
            return "stopped"
        if self.silence >= settings.LOST_AFTER_SECONDS:
            return "silent"
        if self.wanted == DesiredState.STOP or self.report.get("state") == "stop":
            return "stopping"
        return "quiet" if self.wanted == DesiredState.QUIET else "live"

    # Its pool

    @cached_property
    def workers(self) -> list[Worker]:
        """Those that it told of, and any that has begun a run since."""
        at_work = {run.worker: run for run in self.at_work}
        lines = []
        for told in self.report.get("workers", ()):
            run = at_work.pop((self.short_id, str(told["number"]), str(told["pid"])), None)
            since = datetime.fromtimestamp(told["since"], UTC) if told.get("since") else None
            counts = (told["ended"], told["failed"], told.get("memory"), bool(told.get("leaving")))
            lines.append(Worker(told["number"], told["pid"], "busy" if run else told["does"], since, *counts, run))
        for run in at_work.values():
            _, number, pid = run.worker
            if number.isdigit() and pid.isdigit():
                lines.append(Worker(int(number), int(pid), "busy", run.started_at, 0, 0, None, False, run))
        return sorted(lines, key=lambda line: line.number)

    @property
    def lines(self) -> list[Worker]:
        """The first of them; busy ones before idle ones where there are too many."""
        if len(self.workers) <= MOST_LINES:
            return self.workers
        return sorted(self.workers, key=lambda line: (not line.run, line.does != "busy", line.number))[:MOST_LINES]

    @property
    def more_lines(self) -> int:
        return len(self.workers) - len(self.lines)

    @property
    def busy(self) -> int:
        return sum(worker.does == "busy" for worker in self.workers) if self.report else int(self.row["busy"])

    @property
    def starting(self) -> int:
        return sum(worker.does == "starting" for worker in self.workers)

    @property
    def count(self) -> int:
        return len(self.workers) if self.report else int(self.row["workers"])

    @property
    def size(self) -> int:
        """How many it is to have."""
        wanted = self.row["desired_workers"]
        return int(self.report.get("size", self.row["workers"]) if wanted is None else wanted)

    @property
    def fewer(self) -> int | None:
        return self.size - 1 if self.size > 0 else None

    @property
    def more(self) -> int | None:
        return self.size + 1 if self.size < MOST_WORKERS else None

    # What was wished

    @property
    def wishes(self) -> list[str]:
        """What it is asked for, and how far it has come: one sentence each."""
        return [said for said in (self._state_told, self._restart_told, self._size_told) if said]

    @property
    def to_end(self) -> str:
        """`3 runs to end`"""
        return f"{wording.plural(self.busy, 'run')} to end" if self.busy else "nothing is left to end"

    @property
    def _state_told(self) -> str:
        obeyed = self.report.get("state")
        if self.state == "stopping":
            return f"{'Stopping' if obeyed == 'stop' else 'Asked to stop'}: {self.to_end}."
        if self.wanted == DesiredState.QUIET:
            return f"Takes nothing new: {self.to_end}." if obeyed in ("quiet", None) else "Asked to take nothing new."
        return "Asked to take runs again." if obeyed == "quiet" else ""

    @property
    def _restart_told(self) -> str:
        wished = self.at("restart_at")
        if wished is None or self.state == "stopping":
            return ""
        if abs(wished.timestamp() - (self.report.get("renewed") or 0.0)) > 0.001:
            return "Asked to replace its workers."
        leaving = sum(worker.is_leaving for worker in self.workers)
        if not leaving:
            return ""
        still = "ends its run" if leaving == 1 else "end their runs"
        return f"Replaces its workers: {leaving} of {self.count} still {still}."

    @property
    def _size_told(self) -> str:
        obeyed = self.report.get("size")
        if obeyed is None or self.state == "stopping":
            return ""
        if obeyed != self.size:
            return f"Asked for {wording.plural(self.size, 'worker')}."
        if (over := self.count - self.size) > 0:
            return f"Shrinks to {self.size}: {over} still end{'s' if over == 1 else ''} the run at hand."
        return f"Grows to {self.size}." if over < 0 else ""

    # When it was lost

    @property
    def rescue_told(self) -> str:
        """What became of the runs that it held."""
        held = int(self.row["rescued"])
        if not held:
            return "It held no runs."
        kept = (self.row["rescue"] or {}).get("runs", ())
        became = Counter(status for _, status in kept)
        at = f" at {wording.clock_seconds(self.lost_at)}" if self.lost_at else ""
        them = "it" if held == 1 else "them"
        took = f"It held {wording.plural(held, 'run')}. {self.rescuer or 'Another cluster'} took {them} over{at}"
        ends = (
            (Status.READY, "went back in line"),
            (Status.FAILED, "had no attempt left and failed"),
            (Status.CANCELLED, "was to be cancelled, and is"),
        )
        told = [f"{became[status]} {end}" for status, end in ends if became[status]]
        if not told:
            return f"{took}."
        return f"{took}: {', '.join(told)}{'' if len(kept) == held else f', of the first {len(kept)}'}."

    @property
    def looks(self) -> tuple[object, ...]:
        """All that its part shows, but for times that tick."""
        report = {**self.report, "host": {**self.host_facts, "free": None}, "memory": self.memory_told}
        workers = self.report.get("workers", ())
        report["workers"] = [{**told, "memory": megabytes(told.get("memory"))} for told in workers]
        row = {**self.row, "report": report, "heartbeat_at": None, "busy": None}
        at_work = [(run.id, run.progress) for run in self.at_work]
        age = None if self.is_heard else self.row["heartbeat_at"]
        return (sorted(row.items(), key=str), age, self.state, self.is_older, at_work, self.rescuer, self.is_back)

    @property
    def memory_told(self) -> str:
        used, whole = self.report.get("memory"), self.host_facts.get("memory")
        if not used:
            return ""
        return f"{wording.size(used)} of {wording.size(whole)}" if whole else wording.size(used)


def megabytes(number: int | None) -> int | None:
    """As finely as it is shown."""
    return None if number is None else round(number / 1e6)
