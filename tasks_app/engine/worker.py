"""A worker process: claim a few runs, execute them one after the other, record them and claim the next."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Sequence
from functools import partial

import psutil
import psycopg
from django.conf import settings
from django.db import close_old_connections, reset_queries

from tasks_app import catalog
from tasks_app.engine import limits, logs, process, statements
from tasks_app.engine.capture import RunLogHandler, capture_output
from tasks_app.engine.connect import connect
from tasks_app.engine.execution import ClaimedRun, execute, on_cancel_signal
from tasks_app.engine.holding import Connection, Holding
from tasks_app.engine.receivers import Receivers
from tasks_app.engine.reporter import Reporter
from tasks_app.engine.slots import BATCH, Slot
from tasks_app.engine.surroundings import Surroundings

logger = logging.getLogger("dumbwaiter.worker")

# What a worker and its sentinel say to each other, one byte each.
IDLE = b"i"
"""Worker: I found nothing and sleep until you wake me."""
MORE = b"m"
"""Worker: you woke me and there was work; perhaps there is more."""
WAKE = b"w"
"""Sentinel: look for work."""
STOP = b"s"
"""Sentinel: end after the run at hand."""
QUIET = b"q"
"""Sentinel: take no more runs until told to."""
RESUME = b"g"
"""Sentinel: take runs again."""
RECYCLE = b"c"
"""Worker: I end by myself now, to make room for a fresh one."""

BATCH_SECONDS = 0.02
"""How much work a worker takes at once: so little that nobody misses it elsewhere, so much that the round trip to the
database and its commit are shared by many short runs."""

LISTEN_EVERY = 0.001
"""Seconds between looks at the channel to the sentinel, when runs are shorter than that."""

LOOK_AGAIN = 0.05
"""Seconds until another look, when what a claim did not find could be claimed a moment later."""

STAND_BACK = (60.0, 0.05)
"""For so many seconds after this worker met a task that its code does not have, an idle one that is woken waits so long
before it looks: whoever has newer code shall come first."""

PATIENCE = (0.05, 2.0)
"""Seconds between tries while the database does not take a statement: the first, and the longest."""


class Worker:
    """Lives in a process of its own, with a database connection of its own beside those of the tasks' code."""

    def __init__(
        self, cluster: str, number: int, queues: Sequence[str], me: str, channel: process.Channel, slot: Slot
    ) -> None:
        self.cluster, self.number, self.queues, self.me, self.channel = cluster, number, queues, me, channel
        self.title = f"qcluster {cluster} worker {number}"
        self.holding = Holding(me, number, slot)
        self.reporter = Reporter(self.holding, self.title, self.announce)
        self.receivers = Receivers(me, slot)
        self.run_log = RunLogHandler(self.holding.lines.append)
        self.stopping = False
        self.is_quiet = False
        self.runs = 0
        self.woken = True
        self.batch = 1
        """How many runs the next claim asks for."""
        self.is_batch = False
        """The last claim brought more than one."""
        self.await_starts = False
        self._strays: set[str] = set()
        """Tasks of which a run was met that was sent without the limit that they have."""
        self._claimed_at = 0.0
        self._listened_at = 0.0
        self._stands_back_until = 0.0
        self._connection: Connection | None = None
        self._pause = 0.0

    def work(self) -> None:
        """Until told to stop: one round trip records the last runs and claims the next."""
        self.holding.slot.take(self.me)
        self.reporter.start()
        self._process = psutil.Process()
        self.pid = os.getpid()
        logging.getLogger().addHandler(self.run_log)
        self.printed = capture_output()
        self.surroundings = Surroundings(self.channel)
        process.title(self.cluster, "worker idle")
        self.receivers.worker_began(self.title)
        while True:
            if time.monotonic() >= self._listened_at + LISTEN_EVERY:
                self._listen(0)
            if self._is_batch_over():
                self.holding.give_up_rest()
            if run := self.holding.next():
                self._execute(run)
                continue
            if self.stopping and self.holding.is_settled:
                return
            self._recycle_if_due()
            try:
                claimed = self._settle_and_claim()
            except psycopg.Error as error:
                self._put_up_with(error)
                continue
            self._recovered()
            if not claimed and not self.stopping:
                self._sleep()

    def _recycle_if_due(self) -> None:
        """Stop after so many runs or with so much memory, as the settings say; the sentinel starts another."""
        if self.stopping or not self.holding.done:
            return
        too_old = settings.RECYCLE_AFTER and self.runs >= settings.RECYCLE_AFTER
        too_big = settings.WORKER_MEMORY_MB and self._memory_mb() > settings.WORKER_MEMORY_MB
        if too_old or too_big:
            logger.info("worker %d is replaced after %d runs, with %.0f MB", self.number, self.runs, self._memory_mb())
            self.channel.say(RECYCLE)
            self.stopping = True

    def _memory_mb(self) -> float:
        return self._process.memory_info().rss / 2**20

    # A batch

    def _is_batch_over(self) -> bool:
        """The runs at hand take longer than those before: twice the time is gone, so others may have the rest.

        Or have it already: while this process stood still, or its sentinel did, the whole cluster was taken for lost.
        """
        late = time.monotonic() - self._claimed_at > 2 * BATCH_SECONDS
        return self.stopping or self.is_quiet or late or not self.holding.slot.is_leased

    def _settle_and_claim(self) -> bool:
        """Raises `psycopg.Error` with nothing lost: what is not settled stays until the database has it."""
        if self._connection is None:
            self._connection = self._reconnect()
        if self._strays:
            self._undeclare()
        self._adapt()
        runs: list[ClaimedRun] = []
        moved = may_claim = False
        self.holding.slot.claiming()
        for place, queue in enumerate(self.queues):
            claim = {"queue": queue, "me": self.me, "limit": self.batch, "slow": BATCH_SECONDS}
            may_claim = self.holding.slot.is_leased and not (self.stopping or self.is_quiet)
            is_limited = self.holding.slot.is_limited(place)
            runs = self.holding.settle(self._connection, claim if may_claim else None, is_limited)
            if self.holding.moved:
                moved = True
                self._move_strays(place, at_once=not runs)
            if runs or not may_claim:
                break
        self.holding.slot.settle()
        self.holding.slot.claimed(len(runs))
        # The lines about a batch are written together; a single run, which may be long, tells its start at once.
        logs.release()
        self.is_batch = len(runs) > 1
        logs.hold(self.is_batch)
        if self.is_batch:
            process.title(self.cluster, f"worker {len(runs)} runs")
        reset_queries()
        close_old_connections()
        self.await_starts = self.receivers.await_starts
        self._claimed_at = time.monotonic()
        self.holding.waiting.extend(runs)
        self._tell_receivers()
        if runs and self.woken:
            self.woken = False
            self.channel.say(MORE)
        if not (runs or moved):
            self._look_ahead(may_claim)
        return bool(runs) or moved

    def _move_strays(self, place: int, at_once: bool) -> None:
        """Waiting runs of a task that has limits since they were sent: from now on the claim is one under limits.

        `at_once` when the claim met nothing else. Never between a claim and its runs: an error would give them back.
        """
        self.holding.slot.limit_queue(place)
        self._strays.update(self.holding.moved)
        if at_once:
            assert self._connection is not None
            self._connection.execute(limits.MOVE, {"queue": self.queues[place]})

    def _undeclare(self) -> None:
        """Of tasks whose runs came without a limit: those of which the code here, once it is loaded, says none."""
        assert self._connection is not None
        found = {path: task for path in self._strays if (task := catalog.loaded(path))}
        unlimited = [path for path, task in found.items() if not getattr(task, "limits", None)]
        if unlimited:
            limits.undeclare(self._connection, unlimited)
        self._strays.difference_update(found)

    def _look_ahead(self, may_claim: bool) -> None:
        """Nothing was found: note for the sentinel when a rate opens or a pause ends."""
        queues = [queue for place, queue in enumerate(self.queues) if self.holding.slot.is_limited(place)]
        opens_in = None
        if queues and may_claim:
            assert self._connection is not None
            is_open, opens_in = limits.openings(self._connection, queues)
            opens_in = LOOK_AGAIN if is_open else opens_in
        self.holding.slot.opens(math.inf if opens_in is None else time.monotonic() + opens_in)

    def _tell_receivers(self) -> None:
        """Of the runs that the database has as ended."""
        ended, self.holding.ended = self.holding.ended, []
        if self.receivers.await_ends:
            for run, outcome in ended:
                self.receivers.run_ended(run, outcome)
            close_old_connections()

    def _adapt(self) -> None:
        """Ask for as many runs as fit into BATCH_SECONDS, going by the last batch; at most twice as many as those.

        Only one while somebody awaits their ends: a long run would hold up the news of a short one before it.
        """
        done = len(self.holding.done)
        if self.receivers.await_ends:
            self.batch = 1
        elif done:
            each = max((time.monotonic() - self._claimed_at) / done, 1e-6)
            self.batch = max(1, min(BATCH, int(BATCH_SECONDS / each), 2 * done))

    def _reconnect(self) -> Connection:
        """A new connection; what the old one may have claimed without its answer arriving goes back uncharged."""
        connection = connect(self.title, self.me)
        known = [run.id for run, _ in self.holding.done] + [run.id for run in self.holding.owed]
        held = {**statements.holder(self.me), "but": known, "begun": []}
        for run_id, *_ in connection.execute(statements.GIVE_BACK, held).fetchall():
            logger.warning("run %s given back: its claim arrived after the connection was lost", run_id)
        # A run that was put back may have been claimed again in the very round trip whose answer did not arrive.
        again = {
            "id": [run.id for run, _ in self.holding.done],
            "attempt": [run.attempt + 1 for run, _ in self.holding.done],
        }
        connection.execute(statements.RELEASE, {"me": self.me, **again})
        return connection

    # A run

    def _execute(self, run: ClaimedRun) -> None:
        slot = self.holding.slot
        slot.begin(run.id, math.inf if run.timeout is None else time.monotonic() + run.timeout)
        if slot.is_revoked:
            slot.end()
            self.holding.owed.append(run)
            self.holding.give_up_rest()
            return
        if not self.is_batch:
            self.announce(run)
        self.run_log.begin(run)
        if self.await_starts:
            self.receivers.run_starts(run)
            slot.limit(math.inf if run.timeout is None else time.monotonic() + run.timeout)
        self.reporter.begin(run)
        outcome = execute(run, self.me, self.reporter.report, partial(slot.is_to_be_cancelled, run.id))
        if os.getpid() != self.pid:
            os._exit(0)  # the task forked, and this is the child coming back: run and connections are its parent's
        self.surroundings.put_back()
        slot.end()
        self.runs += 1
        self.printed.flush_rest()
        self.run_log.end()
        outcome.progress = self.reporter.end()
        if outcome.is_unknown:
            self._stands_back_until = time.monotonic() + STAND_BACK[0]
        self.holding.add(run, outcome)

    def announce(self, run: ClaimedRun) -> None:
        """In the log and in what ps shows. One of a batch only when it turns out long, by the reporter: a short one has
        a line when it ends, and that does.
        """
        process.title(self.cluster, f"worker {run.name} {run.id}")
        logger.info(
            "run %s started: task %s, attempt %d of %d, worker %d",
            run.id, run.task_path, run.attempt, run.max_attempts, self.number,
        )  # fmt: skip

    # Waiting

    def _sleep(self) -> None:
        self.reporter.rest()
        self.batch = 1
        process.title(self.cluster, "worker idle")
        self.channel.say(IDLE)
        self._listen(None)
        if time.monotonic() < self._stands_back_until:
            self._listen(STAND_BACK[1])
        self.woken = True

    def _listen(self, wait: float | None) -> None:
        heard = self.channel.heard(wait)
        self._listened_at = time.monotonic()
        if heard is None:
            os._exit(1)  # the sentinel is gone; what this worker holds will be found held by nobody
        if STOP in heard:
            self.stopping = True
        for byte in (QUIET, RESUME):
            if byte in heard:
                self.is_quiet = heard.rfind(QUIET) > heard.rfind(RESUME)

    # Trouble with the database

    def _put_up_with(self, error: psycopg.Error) -> None:
        """Wait and let the loop try again; an outcome that the database can never take becomes one that it can."""
        self._hang_up()
        if isinstance(error, psycopg.DataError) and self.holding.done:
            try:
                self._connection = self._reconnect()
                self.holding.settle_singly(self._connection)
                return
            except psycopg.Error as another:
                error = another
                self._hang_up()
        if self._pause == 0:
            logger.warning("worker %d: the database takes nothing, trying again: %s", self.number, error)
        self._pause = min(max(self._pause * 2, PATIENCE[0]), PATIENCE[1])
        self._listen(self._pause)

    def _hang_up(self) -> None:
        """After any error: a pipeline cut short leaves psycopg and the server at odds about what is prepared."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _recovered(self) -> None:
        if self._pause:
            logger.info("worker %d: the database answers again", self.number)
            self._pause = 0.0


def live(
    cluster: str, number: int, queues: Sequence[str], me: str, channel: process.Channel, slot: Slot, parent: int
) -> int:
    """The whole life of a worker, just after the fork; returns the exit code of its process."""
    process.die_with_parent(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The sentinel alone says when to stop. A handler, not SIG_IGN, which programs that a task starts would inherit.
        signal.signal(signum, lambda *_: None)
    signal.signal(signal.SIGUSR1, on_cancel_signal)
    Worker(cluster, number, queues, me, channel, slot).work()
    return 0
