"""What a task can change of its worker's process and the next one relies on: put back after each run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from _signal import getsignal  # type: ignore[import-not-found]
from contextlib import suppress

from django.db import connections

from tasks_app.engine import process

# `getsignal` is that of signal's C module, because signal's own makes an enum of each answer, at ten times the cost.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Surroundings:
    """Remembers how they are when it is made. Nearly always nothing has changed, so each look is as cheap as can be."""

    def __init__(self, channel: process.Channel) -> None:
        self.channel, self.inode = channel.fileno(), os.fstat(channel.fileno()).st_ino
        self.folder = os.getcwd()
        self.recursion_limit = sys.getrecursionlimit()
        self.output = (sys.stdout, sys.stderr)
        self.handlers = [(int(number), getsignal(number)) for number in SIGNALS]
        self.loggers = [
            (logger, [*logger.handlers], logger.level, logger.propagate, logger.disabled)
            for logger in all_loggers()
            if logger is logging.root or logger.name == "print" or logger.name.partition(".")[0] == "dumbwaiter"
        ]
        """The root, which has the handlers, and those that the engine speaks through."""
        self.silent = {logger for logger in all_loggers() if logger.disabled}
        self.connections = [connections[alias] for alias in connections]

    def put_back(self) -> None:
        """Ends the process where that is impossible: without its sentinel's channel a worker is nobody."""
        if sys.getrecursionlimit() != self.recursion_limit:
            sys.setrecursionlimit(self.recursion_limit)
        self._look_for_channel()
        self._put_back_signals()
        if (sys.stdout, sys.stderr) != self.output:
            sys.stdout, sys.stderr = self.output
        self._put_back_folder()
        self._put_back_logging()
        self._leave_transactions()

    def _look_for_channel(self) -> None:
        try:
            is_ours = os.fstat(self.channel).st_ino == self.inode
        except OSError:
            is_ours = False
        if not is_ours:
            os._exit(process.FILES_CLOSED)  # at once: a log line might end in whatever has the number of the log now

    def _put_back_signals(self) -> None:
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.handlers:
            if getsignal(number) != handler:
                signal.signal(number, handler)
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _put_back_folder(self) -> None:
        with suppress(OSError):  # the folder, or the one that the task went to, may be gone
            if os.getcwd() != self.folder:
                os.chdir(self.folder)
            return
        with suppress(OSError):
            os.chdir(self.folder)

    def _put_back_logging(self) -> None:
        if logging.root.manager.disable:
            logging.disable(logging.NOTSET)
        for logger, handlers, level, propagate, disabled in self.loggers:
            if (
                logger.handlers != handlers
                or logger.level != level
                or logger.propagate != propagate
                or logger.disabled != disabled
            ):
                self._configure_logging_anew()
                break

    def _configure_logging_anew(self) -> None:
        for logger, handlers, level, propagate, _ in self.loggers:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        for logger in all_loggers():  # whoever configures logging silences all those that are there
            logger.disabled = logger in self.silent

    def _leave_transactions(self) -> None:
        """Close what Django's `close_old_connections` closes, and what it does not: a connection inside `atomic`.

        All that later runs write would be lost with that transaction.
        """
        for connection in self.connections:
            if connection.in_atomic_block:
                if connection.connection is not None:
                    connection.connection.close()
                del connections[connection.alias]
                self.connections = [connections[alias] for alias in connections]
            elif connection.connection is not None:
                connection.close_if_unusable_or_obsolete()


def all_loggers() -> list[logging.Logger]:
    made = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in made if isinstance(logger, logging.Logger))]
