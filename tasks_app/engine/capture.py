"""Everything that a task logs or prints, kept as lines of its run."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tasks_app.engine.execution import ClaimedRun
from tasks_app.jsonable import storable

MOST_LINES = 5_000
"""Lines kept of one attempt; a last one says that there were more."""

LONGEST_LINE = 8_000
"""Characters kept of one line."""

OURS = "dumbwaiter"
"""The engine's own loggers speak about runs, not for them."""


@dataclass(slots=True)
class Line:
    """One line, before it is a row of `RunLog`."""

    run_id: UUID
    attempt: int
    at: datetime
    level: int
    text: str


class RunLogHandler(logging.Handler):
    """Hands each record to `keep` as a line of the run at hand; between runs it does nothing."""

    def __init__(self, keep: Callable[[Line], None]) -> None:
        super().__init__()
        self.keep = keep
        self._run: ClaimedRun | None = None
        self._count = 0

    def begin(self, run: ClaimedRun) -> None:
        self._run, self._count = run, 0

    def end(self) -> None:
        self._run = None

    def emit(self, record: logging.LogRecord) -> None:
        run = self._run
        if run is None or record.name.partition(".")[0] == OURS:
            return
        self._count += 1
        if self._count > MOST_LINES:
            if self._count == MOST_LINES + 1:
                self._keep(
                    run, logging.WARNING, f"Truncated: only the first {MOST_LINES:,} lines of an attempt are kept."
                )
            return
        try:
            text = record.getMessage()
        except Exception as error:  # the arguments of a log call can be anything, also an object that cannot be printed
            text = f"{record.msg!r} (its arguments cannot be shown: {type(error).__name__})"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._keep(run, record.levelno, text)

    def _keep(self, run: ClaimedRun, level: int, text: str) -> None:
        at = run.claimed_at + timedelta(seconds=run.since_claim)
        level = min(max(level // 10 * 10, logging.DEBUG), logging.CRITICAL)
        self.keep(Line(run.id, run.attempt, at, level, storable(text, LONGEST_LINE)))


class LoggedOutput(io.TextIOBase):
    """Stands for stdout or stderr in a worker: each full line that is printed becomes a record of logging."""

    def __init__(self, name: str, level: int) -> None:
        self._logger, self._level, self._rest = logging.getLogger(name), level, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._logger.log(self._level, "%s", line)
        if len(self._rest) > LONGEST_LINE:
            self.flush_rest()
        return len(text)

    def close(self) -> None:
        """A task that closes its stdout does not close that of the next."""
        self.flush_rest()

    def flush_rest(self) -> None:
        """At the end of a run: what was printed without a line end."""
        rest, self._rest = self._rest, ""
        if rest.strip():
            self._logger.log(self._level, "%s", rest)


def capture_output() -> LoggedOutput:
    """Replace stdout in this process; stderr stays, because the console handler of logging writes to it."""
    printed = LoggedOutput("print", logging.INFO)
    sys.stdout = printed
    return printed
