"""`manage.py qcluster`: Django-Q2's cluster with a sentinel and workers of our own."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Sequence

import psutil
from django.conf import settings
from django.db import connections
from django_q.cluster import Cluster as StockCluster
from django_q.conf import Conf

from tasks_app.engine import process, sentinel
from tasks_app.engine.slots import Slots
from tasks_app.models.cluster import MOST_WORKERS

logger = logging.getLogger("dumbwaiter.cluster")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SIGN_OFF_SECONDS = 10.0
"""What a sentinel that was asked to stop has beyond the grace period, to give back what its workers held."""

RESTARTS = (5, 60.0)
"""A sentinel that dies so many times within so many seconds is not started again."""


class Cluster(StockCluster):
    """The main process: it starts the sentinel, starts another should that die, and passes on the wish to stop."""

    def __init__(self, name: str | None = None, queues: Sequence[str] | None = None, once: bool = False) -> None:
        self.wishes = 0
        """How often somebody asked to stop: the second time means now."""
        self.stop_by = float("inf")
        """When the sentinel is ended that was asked to and did not, because it stands still or the database does."""
        self.channel: process.Channel | None = None
        super().__init__()
        self.queue = name or Conf.CLUSTER_NAME
        self.queues = list(queues or [self.queue])
        self.signals = process.SignalPipe(*STOP_SIGNALS, signal.SIGCHLD)
        # A cluster may be asked to grow while it runs; unused slots cost no memory.
        self.slots = Slots(max(settings.WORKERS, MOST_WORKERS), len(self.queues))
        self.sentinel_pid = 0
        self.deaths: list[float] = []
        self.once = once
        """Do the work that is there, then stop."""

    @property
    def name(self) -> str:
        return self.queue

    def start(self) -> int:
        """Start the sentinel and return this process's id; `wait` tells when it is all over."""
        process.title(self.queue, "main")
        process.adopt_orphans()
        self._fork()
        return os.getpid()

    def stop(self) -> bool:
        """Ask the sentinel to stop, at once if asked before; answers whether there was one to ask."""
        self.wishes += 1
        grace = settings.STOP_GRACE_SECONDS if self.wishes == 1 else 0.0
        self.stop_by = min(self.stop_by, time.monotonic() + grace + SIGN_OFF_SECONDS)
        if self.channel is None:
            return False
        self.channel.say(sentinel.STOP if self.wishes == 1 else sentinel.STOP_NOW)
        return True

    def wait(self) -> int:
        """Guard the sentinel until it has ended; returns an exit code."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ)
            while True:
                left = self.stop_by - time.monotonic()
                if left <= 0 and self.sentinel_pid:
                    logger.error("the sentinel does not stop and is ended; another cluster will find its runs")
                    process.kill_group(self.sentinel_pid)
                    self.stop_by = left = float("inf")
                selector.select(None if left == float("inf") else left)
                for number in self.signals.read():
                    if number in STOP_SIGNALS:
                        self.stop()
                code = self._reap()
                if code is not None:
                    return code

    def _fork(self) -> None:
        connections.close_all()  # opened after the fork, never before
        ours, theirs = process.Channel.pair()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)  # Ctrl-C and signals to the whole group reach the main process alone
                ours.close()
                self.signals.close()
                sentinel.Sentinel(
                    self.cluster_id, self.queue, self.queues, settings.WORKERS, self.slots, theirs, self.once
                ).run()
                code = 0
            except BaseException:
                logger.exception("the sentinel ended by an error of its own")
            finally:
                os._exit(code)  # not sys.exit: what the main process registered to happen at exit is not ours
        theirs.close()
        self.sentinel_pid, self.channel = pid, ours
        if self.wishes:
            ours.say(sentinel.STOP)

    def _reap(self) -> int | None:
        """Collect ended children; an exit code once there is nothing left to guard."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0 if self.wishes else 1
            if pid == 0:
                return None
            if pid == self.sentinel_pid:
                return self._after_sentinel(status)

    def _after_sentinel(self, status: int) -> int | None:
        if self.channel:
            self.channel.close()
        self.channel = None
        self._end_descendants()
        if os.waitstatus_to_exitcode(status) == 0:
            return 0
        now = time.monotonic()
        self.deaths = [at for at in self.deaths if now - at < RESTARTS[1]] + [now]
        if self.wishes or len(self.deaths) >= RESTARTS[0]:
            logger.error("the sentinel ended (%s), giving up", process.exit_code(status))
            return 1
        logger.error("the sentinel died (%s), starting another", process.exit_code(status))
        self._fork()
        return None

    def _end_descendants(self) -> None:
        """Workers die with their sentinel; make sure of it, because the next one gives their runs to others."""
        for descendant in psutil.Process().children(recursive=True):
            process.kill_group(descendant.pid)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return
