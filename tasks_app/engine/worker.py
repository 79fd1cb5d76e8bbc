"""A worker process: claim a run, execute it, finish it, and the next."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Sequence

import psycopg
from django.db import close_old_connections, reset_queries
from psycopg.rows import TupleRow

from tasks_app.engine import process, statements
from tasks_app.engine.connect import connect
from tasks_app.engine.execution import ClaimedRun, Outcome, execute
from tasks_app.engine.logs import one_line
from tasks_app.engine.reporter import Reporter
from tasks_app.models import Failure, Status

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

PATIENCE = (0.05, 2.0)
"""Seconds between tries while the database does not take a statement: the first, and the longest."""


class Worker:
    """Lives in a process of its own, with a database connection of its own beside those of the tasks' code."""

    def __init__(self, cluster: str, number: int, queues: Sequence[str], me: str, channel: process.Channel) -> None:
        self.cluster, self.number, self.queues, self.me, self.channel = cluster, number, queues, me, channel
        self.done: tuple[ClaimedRun, Outcome] | None = None
        self.stopping = False
        self.woken = True
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._pause = 0.0

    def work(self) -> None:
        """Until told to stop: one round trip finishes the last run and claims the next."""
        name = f"qcluster {self.cluster} worker {self.number}"
        self.reporter = Reporter(self.me, name)
        self.reporter.start()
        process.title(self.cluster, "worker idle")
        while True:
            self._listen(0)
            if self.stopping and self.done is None:
                return
            try:
                run = self._finish_and_claim(name)
            except psycopg.Error as error:
                self._put_up_with(error)
                continue
            self._recovered()
            if run is not None:
                self._execute(run)
            elif not self.stopping:
                self._sleep()

    # A run

    def _execute(self, run: ClaimedRun) -> None:
        if self.woken:
            self.woken = False
            self.channel.say(MORE)
        process.title(self.cluster, f"worker {run.name} {run.id}")
        logger.info(
            "run %s started: task %s, attempt %d of %d, worker %d",
            run.id, run.task_path, run.attempt, run.max_attempts, self.number,
        )  # fmt: skip
        reset_queries()
        close_old_connections()
        self.reporter.begin(run)
        outcome = execute(run, self.me, self.reporter.report)
        outcome.progress = self.reporter.end()
        close_old_connections()
        self.done = (run, outcome)

    def _finish_and_claim(self, name: str) -> ClaimedRun | None:
        """Raises `psycopg.Error` with nothing lost: `self.done` stands until the database has it."""
        if self._connection is None or self._connection.closed:
            self._connection = self._reconnect(name)
        finished = claimed = None
        with self._connection.pipeline():
            if self.done:
                finished = self._connection.execute(statements.FINISH, self._ending(*self.done))
            if not self.stopping:
                claimed = self._claim(self._connection, self.queues[0])
        if self.done and finished:
            self._tell(self._connection, *self.done, taken=finished.fetchone() is not None)
            self.done = None
        row = claimed.fetchone() if claimed else None
        for queue in self.queues[1:] if claimed else ():
            row = row or self._claim(self._connection, queue).fetchone()
        return ClaimedRun(*row) if row else None

    def _reconnect(self, name: str) -> psycopg.Connection[TupleRow]:
        """A new connection; what the old one may have claimed without its answer arriving goes back uncharged."""
        connection = connect(name)
        held = {**statements.holder(self.me), "but": self.done[0].id if self.done else None}
        for run_id, *_ in connection.execute(statements.GIVE_BACK, held):
            logger.warning("run %s given back: its claim arrived after the connection was lost", run_id)
        return connection

    def _claim(self, connection: psycopg.Connection[TupleRow], queue: str) -> psycopg.Cursor[TupleRow]:
        return connection.execute(statements.CLAIM, {"queue": queue, "me": self.me, "limit": 1})

    def _ending(self, run: ClaimedRun, outcome: Outcome) -> dict[str, object]:
        entry = None
        if outcome.status != Status.SUCCESSFUL:
            entry = json.dumps(
                {
                    "reason": outcome.failure,
                    "exception": outcome.exception,
                    "message": outcome.message,
                    "traceback": outcome.traceback,
                }
            )
        return {
            "me": self.me,
            "id": [run.id],
            "attempt": [run.attempt],
            "status": [outcome.status],
            "began": [outcome.began],
            "ended": [outcome.ended],
            "progress": [json.dumps(outcome.progress) if outcome.progress else None],
            "return_value": [outcome.return_value],
            "failure": [outcome.failure],
            "message": [outcome.message],
            "entry": [entry],
        }

    def _tell(
        self, connection: psycopg.Connection[TupleRow], run: ClaimedRun, outcome: Outcome, *, taken: bool
    ) -> None:
        """The closing line of the log: it is written once the database has the outcome, not before."""
        if not taken:
            # Either an earlier try of this very finish went through and only its answer was lost, or the claim was.
            query = {"me": self.me, "attempt": run.attempt, "status": outcome.status, "id": run.id}
            row = connection.execute(statements.STILL_MINE, query).fetchone()
            if not (row and row[0]):
                logger.warning(
                    "run %s ended as %s after its claim was lost: nothing recorded, worker %d",
                    run.id, outcome.status, self.number,
                )  # fmt: skip
                return
        failed = outcome.status == Status.FAILED
        logger.log(
            logging.WARNING if failed else logging.INFO,
            "run %s finished: task %s, attempt %d of %d, worker %d, %.3f s, %s%s",
            run.id, run.task_path, run.attempt, run.max_attempts, self.number, outcome.seconds, outcome.status,
            f"/{outcome.failure}: {one_line(outcome.message or '', 300)}" if failed else "",
        )  # fmt: skip

    # Waiting

    def _sleep(self) -> None:
        self.reporter.rest()
        process.title(self.cluster, "worker idle")
        self.channel.say(IDLE)
        self._listen(None)
        self.woken = True

    def _listen(self, wait: float | None) -> None:
        heard = self.channel.heard(wait)
        if heard is None:
            os._exit(1)  # the sentinel is gone; what this worker holds will be found held by nobody
        if STOP in heard:
            self.stopping = True

    # Trouble with the database

    def _put_up_with(self, error: psycopg.Error) -> None:
        """Wait and let the loop try again; a finish that the database can never take becomes a failure it can."""
        if self.done and isinstance(error, psycopg.DataError):
            run, outcome = self.done
            said = error.diag.message_primary or str(error)
            outcome.progress = None
            outcome.fail(Failure.ERROR, f"The result cannot be stored: {said}.")
            return
        if self._pause == 0:
            logger.warning("worker %d: the database takes nothing, trying again: %s", self.number, error)
        if self._connection is not None and self._connection.broken:
            self._connection.close()
        self._pause = min(max(self._pause * 2, PATIENCE[0]), PATIENCE[1])
        self._listen(self._pause)

    def _recovered(self) -> None:
        if self._pause:
            logger.info("worker %d: the database answers again", self.number)
            self._pause = 0.0


def start(cluster: str, number: int, queues: Sequence[str], me: str, channel: process.Channel, parent: int) -> int:
    """The whole life of a worker, just after the fork; returns the exit code of its process."""
    process.die_with_parent(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The sentinel alone says when to stop. A handler, not SIG_IGN, which programs that a task starts would inherit.
        signal.signal(number_, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    Worker(cluster, number, queues, me, channel).work()
    return 0
