"""What a worker holds at a moment, and the round trip that settles it with the database."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import psycopg
from django.conf import settings
from psycopg.rows import TupleRow

from tasks_app.engine import limits, statements
from tasks_app.engine.capture import Line
from tasks_app.engine.execution import ClaimedRun, Outcome
from tasks_app.engine.logs import one_line
from tasks_app.engine.slots import Slot
from tasks_app.models import Failure, Status

logger = logging.getLogger("dumbwaiter.worker")

Connection = psycopg.Connection[TupleRow]


class Holding:
    """Runs to begin, outcomes and log lines to record and runs to give back: all of them claimed by this worker.

    The main thread takes and adds single entries, which is atomic in Python. Only settling goes over several of them,
    and the reporter settles too when a run turns out long: so that has a lock, `settling`.
    """

    def __init__(self, me: str, number: int, slot: Slot) -> None:
        self.me, self.number, self.slot = me, number, slot
        self.waiting: deque[ClaimedRun] = deque()
        self.done: list[tuple[ClaimedRun, Outcome]] = []
        self.owed: list[ClaimedRun] = []
        self.lines: list[Line] = []
        self.ended: list[tuple[ClaimedRun, Outcome]] = []
        """Recorded, and to be told to signal receivers."""
        self.moved: list[str] = []
        """The tasks of runs that the last claim did not take: it put them under the limit that somebody gave them."""
        self.settling = threading.RLock()
        self.ended_here, self.failed_here = slot.tally
        self.is_log_refused = False

    @property
    def is_settled(self) -> bool:
        return not (self.done or self.owed or self.waiting or self.lines)

    def next(self) -> ClaimedRun | None:
        """The next run to execute, or None when the rest was given back or nothing was claimed."""
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def add(self, run: ClaimedRun, outcome: Outcome) -> None:
        """An execution has ended. Until the database has it, it is kept beyond this process too.

        What there is no room for is recorded before another run may begin.
        """
        if not outcome.is_unknown:
            outcome.ending = json.dumps(ending_of(run, outcome))
            if not self.slot.keep(outcome.ending.encode()):
                self.give_up_rest()
        self.done.append((run, outcome))

    def give_up_rest(self) -> None:
        """Runs not yet begun are for other workers: they go back at the next settling, uncharged."""
        while run := self.next():
            self.owed.append(run)
        self.slot.give_up_rest()

    def settle(
        self, connection: Connection, claim: dict[str, object] | None = None, is_limited: bool = False
    ) -> list[ClaimedRun]:
        """One round trip: record what is done, give back what is owed and, if asked, claim the next runs.

        Under limits the claim is a transaction of its own: while it waits for the locks of policies, nobody shall wait
        for the runs that are done.

        Raises `psycopg.Error` with nothing forgotten; doing it again does no harm, as every statement is fenced.
        """
        with self.settling:
            done, owed, lines = list(self.done), list(self.owed), list(self.lines)
            ended = [pair for pair in done if not pair[1].is_unknown]
            unknown = [pair for pair in done if pair[1].is_unknown]
            finished = missed = claimed = None
            if lines and self.is_log_refused:
                self._log_apart(connection, lines)
                lines = []
            try:
                with connection.pipeline() as pipeline:
                    if lines:
                        connection.execute(statements.LOG, self._columns(lines))
                    if ended:
                        finished = connection.execute(statements.FINISH, self._endings(ended))
                    if unknown:
                        missed = connection.execute(statements.NOT_FOUND, self._unknown(unknown))
                    if owed:
                        connection.execute(
                            statements.RELEASE,
                            {"me": self.me, "id": [run.id for run in owed], "attempt": [run.attempt for run in owed]},
                        )
                    if claim and is_limited:
                        if lines or ended or unknown or owed:
                            pipeline.sync()
                        connection.execute(limits.LOCK_QUEUE, claim)
                        connection.execute(limits.LOCK_TASKS, claim)
                        claimed = connection.execute(limits.CLAIM, claim)
                    elif claim:
                        claimed = connection.execute(statements.CLAIM, claim)
            except psycopg.Error as error:
                # Perhaps it was the lines: what stands in one round trip fails together.
                self.is_log_refused = self.is_log_refused or bool(lines and error.sqlstate)
                raise
            del self.owed[: len(owed)], self.lines[: len(lines)]
            if finished:
                taken = {row[0] for row in finished.fetchall()}
                for run, outcome in ended:
                    self._tell(connection, run, outcome, taken=run.id in taken)
            if missed:
                self._tell_unknown(unknown, missed.fetchall())
            if ended:
                self.slot.count(self.ended_here, self.failed_here)
            del self.done[: len(done)]
            runs = [ClaimedRun(*row) for row in claimed.fetchall()] if claimed else []
            self.moved = [run.task_path for run in runs if run.claimed_at is None]
            return [run for run in runs if run.claimed_at is not None] if self.moved else runs

    def _log_apart(self, connection: Connection, lines: list[Line]) -> None:
        """Lines are less than runs: when the database does not take them, they are dropped and the runs go on."""
        try:
            connection.execute(statements.LOG, self._columns(lines))
            self.is_log_refused = False
        except psycopg.Error as error:
            if connection.closed:
                raise
            said = error.diag.message_primary or str(error)
            logger.warning("worker %d: %d log lines are refused and not kept: %s", self.number, len(lines), said)
        del self.lines[: len(lines)]

    def settle_singly(self, connection: Connection) -> None:
        """The database can never take one of the outcomes, and does not say which: that one becomes a failure.

        `jsonable` refuses all that is known to be refused by PostgreSQL, so this is the net below it. Raises
        `psycopg.Error` other than `DataError`.
        """
        with self.settling:
            while self.done:
                run, outcome = self.done[0]
                if outcome.is_unknown:
                    missed = connection.execute(statements.NOT_FOUND, self._unknown([(run, outcome)]))
                    self._tell_unknown([(run, outcome)], missed.fetchall())
                    del self.done[0]
                    continue
                try:
                    taken = connection.execute(statements.FINISH, self._endings([(run, outcome)])).fetchone()
                except psycopg.DataError as error:
                    said = error.diag.message_primary or str(error)
                    outcome.fail(Failure.ERROR, f"The result cannot be stored: {said}.")
                    outcome.progress, outcome.retry_in = None, None
                    outcome.ending = json.dumps(ending_of(run, outcome))
                    taken = connection.execute(statements.FINISH, self._endings([(run, outcome)])).fetchone()
                self._tell(connection, run, outcome, taken=taken is not None)
                self.slot.count(self.ended_here, self.failed_here)
                del self.done[0]

    def _columns(self, lines: list[Line]) -> dict[str, object]:
        return {
            "run_id": [line.run_id for line in lines],
            "attempt": [line.attempt for line in lines],
            "at": [line.at for line in lines],
            "level": [line.level for line in lines],
            "text": [line.text for line in lines],
        }

    def _endings(self, done: list[tuple[ClaimedRun, Outcome]]) -> dict[str, str]:
        """As one JSON text, in which what is not told stays away: a list a column would cost four times as much."""
        return {"me": self.me, "done": f"[{','.join(outcome.ending for _, outcome in done)}]"}

    def _unknown(self, done: list[tuple[ClaimedRun, Outcome]]) -> dict[str, object]:
        return {
            "me": self.me,
            "id": [run.id for run, _ in done],
            "attempt": [run.attempt for run, _ in done],
            "message": [outcome.message for _, outcome in done],
            "entry": [outcome.entry for _, outcome in done],
            "patience": settings.UNKNOWN_TASK_SECONDS,
        }

    def _tell_unknown(self, unknown: list[tuple[ClaimedRun, Outcome]], rows: Sequence[tuple[Any, ...]]) -> None:
        """One line a run; a run that is not among the rows is somebody else's by now, and nothing was done with it."""
        became = {run_id: (status, wait) for run_id, status, wait in rows}
        for run, outcome in unknown:
            status, wait = became.get(run.id, (None, None))
            if status == Status.READY:
                logger.warning(
                    "run %s given back: %s Due again in %.0f s, worker %d",
                    run.id, one_line(outcome.message or "", 300), wait.total_seconds(), self.number,
                )  # fmt: skip
            elif status is not None:
                logger.warning(
                    "run %s ended as %s/%s: %s worker %d",
                    run.id, status, outcome.failure, one_line(outcome.message or "", 300), self.number,
                )  # fmt: skip

    def _tell(self, connection: Connection, run: ClaimedRun, outcome: Outcome, *, taken: bool) -> None:
        """The closing line of the log: it is written once the database has the outcome, not before."""
        if not taken:
            # Either an earlier try of this very finish went through and only its answer was lost, or the claim was.
            query = {"me": self.me, "attempt": run.attempt, "status": outcome.status, "reason": outcome.failure}
            row = connection.execute(statements.ALREADY_DONE, {**query, "id": run.id}).fetchone()
            if not (row and row[0]):
                logger.warning(
                    "run %s ended as %s after its claim was lost: nothing recorded, worker %d",
                    run.id, outcome.status, self.number,
                )  # fmt: skip
                return
        failed = outcome.status == Status.FAILED
        if outcome.retry_in is None:
            self.ended.append((run, outcome))
            self.ended_here += 1
            self.failed_here += failed
        again = "" if outcome.retry_in is None else f", tried again in {outcome.retry_in:.1f} s"
        logger.log(
            logging.WARNING if failed else logging.INFO,
            "run %s %s: task %s, attempt %d of %d, worker %d, %.3f s, %s%s%s",
            run.id, "put back" if again else "finished", run.task_path, run.attempt, run.max_attempts, self.number,
            outcome.seconds, outcome.status,
            f"/{outcome.failure}: {one_line(outcome.message or '', 300)}" if failed else "", again,
        )  # fmt: skip


def ending_of(run: ClaimedRun, outcome: Outcome) -> dict[str, object]:
    """What `statements.FINISH` takes about one run."""
    told = {
        "id": str(run.id),
        "attempt": run.attempt,
        "status": outcome.status if outcome.retry_in is None else Status.READY,
        "began": outcome.began,
        "ended": outcome.ended,
        "return_value": outcome.return_value,
    }
    if outcome.progress:
        told["progress"] = json.dumps(outcome.progress)
    if outcome.status != Status.SUCCESSFUL:
        told |= {
            "failure": outcome.failure,
            "message": outcome.message,
            "entry": outcome.entry,
            "retry_in": outcome.retry_in,
        }
    return told
