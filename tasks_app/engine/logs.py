"""The worker's log: one line a record, and no text from a task can begin a line of its own."""

import logging
import re
import time
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, ClassVar

# Everything that a terminal, an editor or a log reader may take for a new line or a command.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]")


def one_line(text: str, limit: int = 2_000) -> str:
    """The text on one line: control characters, line ends and overrides of direction written as escapes."""
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():  # none of the controls is; the common case, and far cheaper than the search
        return text
    return CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO pid message`; a traceback follows with a bar before each of its lines."""

    converter = time.gmtime  # type: ignore[assignment]  # as its documentation says to
    _second = -1
    _shown = ""

    def format(self, record: logging.LogRecord) -> str:
        """The same for every handler, so made once and kept on the record."""
        line: str | None = record.__dict__.get("dumbwaiter_line")
        if line is None:
            line = record.__dict__["dumbwaiter_line"] = self._line(record)
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """To the second, which seldom changes between two records."""
        second = int(record.created)
        if second != self._second:
            self._second, self._shown = second, super().formatTime(record, datefmt)
        return self._shown

    def _line(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception as error:  # the arguments of a log call can be anything, also an object that cannot be printed
            message = f"{record.msg!r} (its arguments cannot be shown: {type(error).__name__})"
        at = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"
        line = f"{at} {record.levelname} {record.process} {one_line(message)}"
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n  | {one_line(part)}" for part in trace.splitlines())
        return line


class HeldLines:
    """A handler whose lines can be held for a moment, to be written together: a short run costs less than its lines.

    Mixed into a handler that has a stream. A warning or worse is written at once, and what was held before it.
    """

    holding: ClassVar[bool] = False
    """For all handlers of this process; set by `hold`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.held: list[str] = []

    def emit(self: Any, record: logging.LogRecord) -> None:
        try:
            self.held.append(self.format(record))
            if not HeldLines.holding or record.levelno >= logging.WARNING:
                self.write_held()
        except OSError as error:
            self.complain(error)
        except Exception:
            self.handleError(record)

    def write_held(self: Any) -> None:
        """Write what was held, in one write."""
        with self.lock:
            lines, self.held = self.held, []
            if lines:
                self.write("".join(f"{line}\n" for line in lines))

    def complain(self, error: OSError) -> None:
        """Nothing to be done: there is nowhere left to say it."""


class ConsoleHandler(HeldLines, logging.StreamHandler):
    """The lines on stderr."""

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.flush()


class ClusterLogHandler(HeldLines, WatchedFileHandler):
    """The log file: opened at the first line, reopened when logrotate moved it."""

    def __init__(self, filename: Path) -> None:
        super().__init__(filename, encoding="utf-8", errors="backslashreplace", delay=True)
        self._complained = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def write(self, text: str) -> None:
        self.reopenIfNeeded()
        if self.stream is None:
            self.stream = self._open()
        self.stream.write(text)
        self.flush()

    def complain(self, error: OSError) -> None:
        """Once, on the console, which has every line; work goes on."""
        if not self._complained:
            self._complained = True
            logging.getLogger().warning("The log file %s cannot be written: %s.", self.baseFilename, error.strerror)


def hold(holding: bool) -> None:
    """Hold lines from now on, or write what was held and hold no more."""
    HeldLines.holding = holding
    if not holding:
        release()


def is_holding() -> bool:
    return HeldLines.holding


def release() -> None:
    """Write what was held."""
    for handler in (*logging.getLogger().handlers, *logging.getLogger("dumbwaiter").handlers):
        if isinstance(handler, HeldLines):
            try:
                handler.write_held()
            except OSError as error:
                handler.complain(error)
