"""What a sentinel tells of itself and its workers with its heartbeat, for people to read."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from tasks_app.engine.pool import Child, Pool

SAMPLE_EVERY = 10.0
"""Seconds between two looks at the memory of a process."""

SAMPLES_AT_ONCE = 4
"""Processes looked at with one heartbeat: the kernel adds up all the pages of each, which takes a millisecond."""

STRAY = 2.0
"""Seconds that the clocks may drift apart before they are compared anew."""


class Account:
    """The cluster in figures. Nothing here is asked of a worker: its slot says it, or the system does."""

    def __init__(self) -> None:
        self._memory: dict[int, tuple[float, int, int]] = {}
        """Of each process: when it was looked at, what is its own alone, and its share of what they have together."""
        self._ahead: float | None = None
        """What the server's clock, in seconds since 1970, is ahead of the monotonic one here."""
        self._host: dict[str, Any] = {}
        self._host_at = float("-inf")

    def set_clock(self, at: datetime, now: float) -> None:
        """The server said that it is `at`; kept while it is about right, so that no moment told wavers."""
        ahead = at.timestamp() - now
        if self._ahead is None or abs(ahead - self._ahead) > STRAY:
            self._ahead = ahead

    def report(self, pool: Pool, renewed: datetime | None, is_stopping: bool) -> str:
        """As JSON: what `Cluster.report` keeps."""
        now = time.monotonic()
        pids = [os.getpid(), os.getppid(), *pool.children]
        self._sample(pids, now)
        tallies = [slot.tally for slot in pool.slots_used]
        told = {
            "state": "stop" if is_stopping else "quiet" if pool.is_quiet else "run",
            "size": pool.size,
            "renewed": renewed.timestamp() if renewed else None,
            "ended": sum(ended for ended, _ in tallies),
            "failed": sum(failed for _, failed in tallies),
            "memory": sum(self._memory[pid][2] for pid in pids if pid in self._memory),
            "host": self._look_at_host(now),
            "python": platform.python_version(),
            "workers": [self._line(child) for child in sorted(pool.children.values(), key=lambda child: child.number)],
        }
        return json.dumps(told, separators=(",", ":"))

    def _line(self, child: Child) -> dict[str, Any]:
        ended, failed = child.slot.tally
        at_hand = child.slot.at_hand
        does = "busy" if at_hand else "idle" if child.idle else "busy" if child.has_begun else "starting"
        told = {
            "number": child.number,
            "pid": child.pid,
            "does": does,
            "since": None if self._ahead is None else round(child.since + self._ahead, 1),
            "ended": ended - child.tally[0],
            "failed": failed - child.tally[1],
            "memory": self._memory[child.pid][1] if child.pid in self._memory else None,
        }
        if at_hand:
            told["run"] = str(at_hand)
        if child.leaving:
            told["leaving"] = True
        return told

    def _sample(self, pids: list[int], now: float) -> None:
        """Those that were looked at longest ago, a few at a time; the dead are forgotten."""
        self._memory = {pid: seen for pid, seen in self._memory.items() if pid in pids}
        due = [pid for pid in pids if self._memory.get(pid, (float("-inf"),))[0] <= now - SAMPLE_EVERY]
        for pid in sorted(due, key=lambda pid: self._memory.get(pid, (float("-inf"),))[0])[:SAMPLES_AT_ONCE]:
            with suppress(psutil.Error, OSError):
                self._memory[pid] = (now, *memory_of(psutil.Process(pid)))

    def _look_at_host(self, now: float) -> dict[str, Any]:
        if now >= self._host_at + SAMPLE_EVERY:
            self._host_at = now
            with suppress(OSError):
                whole = psutil.virtual_memory()
                load = round(os.getloadavg()[0], 1)
                self._host = {"cores": os.cpu_count(), "memory": whole.total, "free": whole.available, "load": load}
        return self._host


def memory_of(process: psutil.Process) -> tuple[int, int]:
    """Bytes that a process has for itself, and those with its share of what it has together with others.

    A fork shares nearly all with its parent until either writes to it, so that added up the resident sizes would tell
    far too much. Where the system does not tell them apart both are the resident size.
    """
    with suppress(psutil.AccessDenied, AttributeError):
        full = process.memory_full_info()
        return full.uss, getattr(full, "pss", full.uss)
    resident = process.memory_info().rss
    return resident, resident
