"""WATCH: everything that the page of one run shows."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from hashlib import blake2b

from tasks_app.board import rows_of
from tasks_app.clock import database_now
from tasks_app.files import RunFile, files_of, told
from tasks_app.health import served_queues
from tasks_app.life import Life, has_failed, why
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import Attempt

REDRAWN = 5
"""While something goes on, the drawing of the life is made anew after so many seconds without other news."""


class Portrait:
    """One run at one moment."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.now = database_now()
        self.life = Life(run, self.now)
        self.row = rows_of([run], self.now, served_queues())[0]

    @property
    def version(self) -> str:
        """Another text whenever the page would look different, the ticking of times apart."""
        beat = 0 if self.run.is_finished else int(self.now.timestamp()) // REDRAWN
        return blake2b(repr((self.row.version, len(self.run.attempts), beat)).encode(), digest_size=4).hexdigest()

    @cached_property
    def why(self) -> tuple[str, str]:
        """Why the run stands where it stands: a few words, then a sentence."""
        return why(self.run, self.now, self.row.ahead, self.row.is_served, self.row.held)

    @property
    def banner(self) -> str:
        """How much the reason weighs: the modifier of its banner, none where the rest of the page says it all."""
        if self.run.status == Status.FAILED:
            return "failed"
        if self.run.cancel_requested_at and not self.run.is_finished:
            return "plain"
        if self.run.status == Status.READY:
            return "lost" if self.why[0].startswith("No live worker") else "live"
        return "plain" if self.run.status == Status.CANCELLED else ""

    @property
    def last_try(self) -> Attempt | None:
        """The attempt that ended the run, where it failed and left a traceback."""
        tries = self.life.tries
        return tries[-1] if self.run.status == Status.FAILED and tries and tries[-1].traceback else None

    @property
    def earlier_tries(self) -> list[Attempt]:
        """The attempts that did not succeed, without the one that has a card of its own."""
        return [attempt for attempt in self.life.tries if has_failed(attempt) and attempt != self.last_try]

    @property
    def files_told(self) -> str:
        return told(self.files)

    @property
    def files(self) -> list[RunFile]:
        return files_of(self.run.return_value)

    @property
    def wait_time(self) -> timedelta:
        """From enqueue to the first start."""
        return self.run.wait_time(self.now)
