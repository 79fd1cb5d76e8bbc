"""The thread in a worker that tells the database about a run while the task's own code has the main thread."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from tasks_app.engine import logs, statements
from tasks_app.engine.connect import UNREACHABLE, connect
from tasks_app.engine.execution import ClaimedRun
from tasks_app.engine.holding import Connection, Holding

logger = logging.getLogger("dumbwaiter.worker")

TICK = 0.05
"""Seconds between looks at the current run: a shorter run is never written as RUNNING, a longer one soon after."""

WRITE_EVERY = 0.25
"""Seconds between two writes about one run, however often its task reports progress."""


class Reporter(threading.Thread):
    """Writes RUNNING and the newest progress of the run at hand, on a connection of its own.

    When a run turns out long it also records the runs before it and gives back those behind it. The main thread only
    sets attributes, so that a report costs a task nothing; what the last write missed travels with the finish.
    """

    def __init__(self, holding: Holding, title: str, announce: Callable[[ClaimedRun], None]) -> None:
        super().__init__(name="reporter", daemon=True)
        self.holding, self.title, self.announce = holding, title, announce
        self.run_now: ClaimedRun | None = None
        self.progress: dict[str, Any] | None = None
        self.began = 0.0
        self._working = threading.Event()
        self._is_working = False
        self._connection: Connection | None = None

    # Called by the main thread

    def begin(self, run: ClaimedRun) -> None:
        self.progress, self.began = None, run.since_claim
        self.run_now = run
        if not self._is_working:
            self._is_working = True
            self._working.set()

    def report(self, progress: dict[str, Any]) -> None:
        self.progress = progress

    def end(self) -> dict[str, Any] | None:
        """Stop reporting this run; returns the last progress that the task told."""
        self.run_now = None
        return self.progress

    def rest(self) -> None:
        """No run at hand: the thread sleeps until the next `begin`, without a look in between."""
        self._is_working = False
        self._working.clear()

    # The thread

    def run(self) -> None:
        pause = threading.Event()
        while True:
            self._working.wait()
            pause.wait(TICK)
            if run := self.run_now:
                self._follow(run, pause)

    def _follow(self, run: ClaimedRun, pause: threading.Event) -> None:
        if run.since_claim - self.began < TICK:  # it began during the pause: look again after the next one
            return
        self.holding.give_up_rest()
        if logs.is_holding():
            self.announce(run)
            logs.hold(False)
        written: object = self  # nothing that a task can report, so that RUNNING is written without any progress
        while self.run_now is run:
            progress = self.progress
            if progress is not written and self._write(run, progress):
                written = progress
            elif self.holding.lines:
                self._settle()
            pause.wait(WRITE_EVERY)

    def _settle(self) -> None:
        try:
            self.holding.settle(self._connected())
        except psycopg.Error:  # tried again with the next write; the worker's own connection says what is wrong
            self._disconnect()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(f"{self.title} reporter", self.holding.me)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _write(self, run: ClaimedRun, progress: dict[str, Any] | None) -> bool:
        after = run.since_claim - self.began
        try:
            if not self.holding.is_settled:
                self._settle()
            self._connected().execute(
                statements.REPORT,
                {
                    "id": run.id,
                    "attempt": run.attempt,
                    "me": self.holding.me,
                    "began": self.began,
                    # How long the run had run by then: what is left is told from it, and not from when somebody looks.
                    "progress": json.dumps({**progress, "after": round(after, 2)}) if progress else None,
                },
            )
        except UNREACHABLE:
            # The worker's own connection has the same trouble and says so; here the next write tries again.
            self._disconnect()
            return False
        except psycopg.Error:
            logger.exception("The progress of run %s cannot be written.", run.id)
            self._disconnect()
        return True
