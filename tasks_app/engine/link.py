"""What a sentinel and the database say to each other: heartbeat, hints, runs of the dead."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from django.conf import settings
from django_q.conf import Conf
from psycopg.rows import TupleRow

from tasks_app.engine import counting, firing, limits, statements
from tasks_app.engine.advance import Sweep
from tasks_app.engine.connect import UNREACHABLE, connect, end_sessions
from tasks_app.engine.pool import Lost

logger = logging.getLogger("dumbwaiter.sentinel")

PATIENCE = (0.05, 2.0)
"""Seconds between tries while the database does not answer: the first, and the longest."""


LOCK_TIMEOUT = "2s"
"""How long a statement of the sentinel's waits for a row or a table that somebody has locked."""


FORGET_EVERY = 600.0
"""Seconds between two deletions of statistics that are too old for their grain."""


KEPT = 100
"""Of so many runs that were rescued from a lost cluster its row tells the ids."""


@dataclass
class Beat:
    """What the database answers to a heartbeat."""

    is_known: bool
    """False when another cluster took this one for lost and gave its runs to others."""
    work_now: bool
    due_in: float | None
    """Seconds until the next scheduled run, if that is soon."""
    to_cancel: Sequence[uuid.UUID]
    desired_workers: int | None
    desired_state: str
    fire_in: float | None
    """Seconds until the next schedule falls due, if that is soon."""
    at: datetime
    """By the server's clock."""
    has_news: bool
    """Runs of workflows have ended and nobody has looked yet what follows."""
    expire_in: float | None
    """Seconds until the next run expires, if that is soon."""
    has_endings: bool
    """Runs have ended and are not in the statistics yet."""
    limited: Sequence[bool] = ()
    """Of each queue, whether it is to be claimed from under limits."""
    restart_at: datetime | None = None
    """When somebody wished last that the workers are replaced."""


class Link:
    """The sentinel's one connection, with the only LISTEN of its host; every method raises `psycopg.Error`."""

    def __init__(self, name: str, host: str, queues: Sequence[str], workers: int) -> None:
        self.name, self.host, self.queues, self.workers = name, host, queues, workers
        self.cluster_id = uuid.uuid4()
        self.before: uuid.UUID | None = None
        """The id that it had when it was declared lost."""
        self.main_pid = os.getppid()
        self.connection: psycopg.Connection[TupleRow] | None = None
        self.next_try = 0.0
        self._pause = 0.0
        self._seen: dict[uuid.UUID, tuple[Any, float]] = {}
        self._sweep = Sweep()
        self._forget_at = 0.0
        self._told: str | None = None

    @property
    def short_id(self) -> str:
        return self.cluster_id.hex[:12]

    @property
    def db(self) -> psycopg.Connection[TupleRow]:
        if self.connection is None:
            self.connect()
        assert self.connection is not None
        return self.connection

    def connect(self) -> None:
        db = connect(f"qcluster {self.name} sentinel")
        db.execute(
            statements.REGISTER,
            {
                "id": self.cluster_id,
                "before": self.before,
                "name": self.name,
                "queues": json.dumps(list(self.queues)),
                "host": self.host,
                "pid": self.main_pid,
                "workers": self.workers,
            },
        )
        # It has limits to keep, workers to replace and a wish to stop to hear, whoever else has locked a table.
        db.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        db.execute(f"LISTEN {statements.CHANNEL}")
        if self._pause:
            logger.info("cluster %s: the database answers again", self.name)
        self._pause = 0.0
        self._told = None
        self._seen.clear()  # a heartbeat counts as stale only if it was watched all the time
        self.connection = db

    def disconnect(self, error: psycopg.Error) -> None:
        """The database did not answer: forget the connection, and try again a little later each time."""
        if self._pause == 0:
            logger.warning("cluster %s: the database does not answer, trying again: %s", self.name, error)
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self._pause = min(max(self._pause * 2, PATIENCE[0]), PATIENCE[1])
        self.next_try = time.monotonic() + self._pause

    def let_go(self) -> None:
        """In a forked child: the descriptor only, because closing the connection would end the parent's session."""
        if self.connection is not None and not self.connection.closed:
            os.close(self.connection.fileno())

    def hints(self) -> list[str]:
        """What NOTIFY said since the last call."""
        return [notification.payload for notification in self.db.notifies(timeout=0)]

    def beat(self, busy: int, workers: int, report: str | None = None) -> Beat:
        """Say "alive", and of the cluster's report what is new; it is written only when it is another one."""
        query = {"id": self.cluster_id, "busy": busy, "workers": workers, "queues": list(self.queues)}
        held = statements.holder(self.short_id, whole_cluster=True)
        news = report if report != self._told else None
        row = self.db.execute(statements.HEARTBEAT, {**query, **held, "report": news}).fetchone()
        assert row is not None
        self._told = report
        known, work_now, due_in, to_cancel = row[:4]
        desired_workers, desired_state = (row[4], row[5]) if known else (None, "run")
        fire_in = row[6] if Conf.SCHEDULER else None
        limited = row[11] or ()
        if any(limited):
            is_open, opens_in = limits.openings(
                self.db, [queue for queue, is_limited in zip(self.queues, limited, strict=True) if is_limited]
            )
            work_now = work_now or is_open
            due_in = min((seconds for seconds in (due_in, opens_in) if seconds is not None), default=None)
        more = (fire_in, *row[7:11], limited, row[12])
        return Beat(known, work_now, due_in, to_cancel or (), desired_workers, desired_state, *more)

    def is_held(self, claimed_by: str, begun: list[uuid.UUID]) -> bool:
        """A worker has taken runs beside those that it began."""
        row = self.db.execute(statements.HOLDS_REST, {"holder": claimed_by, "begun": begun}).fetchone()
        return row is not None

    def release_rest(self, claimed_by: str, begun: list[uuid.UUID], before: datetime) -> int:
        """Give away what a worker took before that moment and has not begun; answers how many runs that were."""
        query = {"holder": claimed_by, "begun": begun, "before": before}
        return len(self.db.execute(statements.RELEASE_REST, query).fetchall())

    def count_endings(self) -> bool | None:
        """Count what has ended into the statistics; answers whether there is more of it, None if another one does."""
        try:
            has_more = counting.count(self.db)
            if not has_more and time.monotonic() >= self._forget_at:
                self._forget_at = time.monotonic() + FORGET_EVERY
                counting.forget(self.db)
            return has_more
        except psycopg.errors.LockNotAvailable:  # somebody is changing one of them: all of it again, later
            return None
        except UNREACHABLE:
            raise
        except psycopg.Error:  # a row can hold anything, and must not harm the sentinel
            logger.exception("what has ended cannot be counted into the statistics")
            return None

    def fire_schedules(self) -> bool:
        """Submit the runs of schedules that are due; answers whether there was any."""
        return firing.fire(self.db)

    def advance_workflows(self) -> float | None:
        """Do what follows for one workflow; answers when there is more to do, in seconds, or None."""
        return self._sweep.turn(self.db)

    def expire(self, limit: int) -> tuple[int, float | None]:
        """End runs that nobody began in time, so many at most.

        Answers how many it looked at, and in how many seconds the next one expires, if that is soon.
        """
        row = self.db.execute(statements.EXPIRE, {"limit": limit}).fetchone()
        assert row is not None
        if row[1]:
            logger.warning("%d runs were not started in time and have expired", row[1])
        return row[0], row[2]

    def take_back(self, gone: Lost) -> bool:
        """Record what a dead worker had ended, retry or fail what it had begun, give back the rest.

        Answers whether there was any to be run again.
        """
        held = {**statements.holder(gone.claimed_by), "begun": gone.begun, "but": gone.begun}
        died = {"reason": "worker_lost", "message": gone.sentence}
        overtime = {"reason": "timed_out", "message": "It went on past its limit, so its process was ended."}
        lost = []
        end_sessions(self.db, gone.claimed_by)
        self.record(gone)
        with self.db.transaction():
            if gone.overtime:
                query = {**held, **overtime, "begun": [gone.overtime]}
                lost += self.db.execute(statements.TAKE_FROM_LOST, query).fetchall()
            lost += self.db.execute(statements.TAKE_FROM_LOST, {**held, **died}).fetchall()
            given_back = self.db.execute(statements.GIVE_BACK, held).fetchall()
        for run_id, status, task_path, *_ in lost:
            outcome = "tried again" if status == "READY" else status
            logger.error("run %s of %s lost its worker: %s", run_id, task_path, outcome)
        return bool(lost or given_back)

    def record(self, gone: Lost) -> None:
        """What its runs had ended with before it died: of what the database has already, it changes nothing."""
        if gone.kept and not self._finish(gone, gone.kept):
            for ending in gone.kept:
                self._finish(gone, [ending])

    def _finish(self, gone: Lost, endings: list[bytes]) -> bool:
        """False when there is one among them that the database can never take."""
        done = f"[{','.join(ending.decode() for ending in endings)}]"
        try:
            taken = self.db.execute(statements.FINISH, {"me": gone.claimed_by, "done": done}).fetchall()
        except psycopg.DataError as error:
            logger.error("an ending of a dead worker's run is refused: %s", error.diag.message_primary or error)
            return False
        for (run_id,) in taken:
            logger.warning("run %s had ended before its worker died: recorded", run_id)
        return True

    def held_by_nobody(self, alive: list[str]) -> list[Lost]:
        """Holders of runs that are no more: their claims came true after they had died or were declared lost.

        Of this cluster's own workers nothing had begun, as all that had was taken back at their death.
        """
        held = statements.holder(self.short_id, whole_cluster=True)
        rows = self.db.execute(statements.HELD_BY_NOBODY, {**held, "alive": alive}).fetchall()
        said = "Whoever took it was gone before it could begin."
        return [Lost(None, claimed_by, [] if is_ours else None, said) for claimed_by, is_ours in rows]

    def look_around(self) -> bool:
        """Rescue the runs of clusters whose heartbeat this one saw standing still for LOST_AFTER_SECONDS.

        Watched, not compared with the clock: after an outage of the database everybody's last heartbeat is old.
        Answers whether there was anything to rescue.
        """
        now = time.monotonic()
        others = self.db.execute(statements.OTHER_CLUSTERS, {"id": self.cluster_id}).fetchall()
        seen, rescued = {}, False
        for other, host, heartbeat_at in others:
            last, since = self._seen.get(other, (None, now))
            seen[other] = (heartbeat_at, since if last == heartbeat_at else now)
            if now - seen[other][1] >= settings.LOST_AFTER_SECONDS:
                rescued = self._rescue(other, host, heartbeat_at) or rescued
        self._seen = seen
        return rescued

    def _rescue(self, cluster: uuid.UUID, host: str, heartbeat_at: Any) -> bool:
        said = f"The cluster that ran it, on {host}, was not heard from any more."
        end_sessions(self.db, cluster.hex[:12])
        with self.db.transaction():
            query = {"id": cluster, "heartbeat_at": heartbeat_at}
            if self.db.execute(statements.DECLARE_LOST, query).fetchone() is None:
                return False  # it came back, or another cluster was faster
            held = {**statements.holder(cluster.hex[:12], whole_cluster=True), "begun": None}
            died = {"reason": "worker_lost", "message": said}
            rescued = self.db.execute(statements.TAKE_FROM_LOST, {**held, **died}).fetchall()
            kept = [[str(run_id), status] for run_id, status, *_ in rescued[:KEPT]]
            told = json.dumps({"by": str(self.cluster_id), "runs": kept})
            query = {"id": cluster, "rescued": len(rescued), "rescue": told}
            self.db.execute(statements.COUNT_RESCUED, query)
        logger.error("the cluster %s on %s is lost; %d of its runs were taken back", cluster, host, len(rescued))
        return bool(rescued)

    def begin_anew(self) -> None:
        """Under a new id, because the old one was declared lost."""
        self.before, self.cluster_id = self.cluster_id, uuid.uuid4()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def sign_off(self, lost: Sequence[Lost], cut_short: Sequence[Lost]) -> None:
        """Take back from the dead, give back what the stopped workers held, uncharged, and say that it is gone."""
        begun = [run_id for stopped in cut_short for run_id in stopped.begun or ()]
        held = {**statements.holder(self.short_id, whole_cluster=True), "but": [], "begun": begun}
        try:
            for gone in lost:
                self.take_back(gone)
            end_sessions(self.db, self.short_id)
            for stopped in cut_short:
                self.record(stopped)
            with self.db.transaction():
                for run_id, *_ in self.db.execute(statements.GIVE_BACK, held).fetchall():
                    logger.warning("run %s given back: its worker was stopped before it ended", run_id)
                self.db.execute(statements.SIGN_OFF, {"id": self.cluster_id})
        except psycopg.Error as error:
            logger.error("cluster %s cannot sign off, another will find its runs: %s", self.name, error)
        finally:
            if self.connection is not None:
                with suppress(psycopg.Error):
                    self.connection.close()
