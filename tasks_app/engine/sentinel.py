"""The sentinel of a cluster: forks workers, wakes them, replaces dead ones, and looks after what the dead held."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.conf import settings
from psycopg.rows import TupleRow

from tasks_app.engine import process, statements, worker
from tasks_app.engine.connect import connect
from tasks_app.engine.slots import Slot, Slots
from tasks_app.models.cluster import HEARTBEAT_SECONDS

logger = logging.getLogger("dumbwaiter.sentinel")

# What a sentinel and the main process say to each other, one byte each.
READY = b"r"
"""Sentinel: the workers are there."""
STOP = b"s"
"""Main: stop, with grace."""
STOP_NOW = b"k"
"""Main: stop without grace."""

LOOK_AROUND_SECONDS = 5.0
"""Between looks at the heartbeats of the other clusters."""

STILLBORN_SECONDS = 1.0
"""A worker that lived shorter is replaced with a delay, lest a broken start become a storm of forks."""


@dataclass
class Child:
    """A worker as its sentinel sees it."""

    number: int
    pid: int
    claimed_by: str
    channel: process.Channel
    slot: Slot
    born: float = field(default_factory=time.monotonic)
    idle: bool = False
    cancelling: tuple[uuid.UUID, float] | None = None
    """The run that it was told to end, and when its time for that is over."""
    overtime: uuid.UUID | None = None
    """The run that it was killed for, because it went on past its limit."""


@dataclass
class Lost:
    """A worker that died."""

    claimed_by: str
    begun: list[uuid.UUID]
    sentence: str
    overtime: uuid.UUID | None = None


class Sentinel:
    """One process that runs no task, so that nothing which a task does can stop it."""

    def __init__(
        self, cluster_id: uuid.UUID, name: str, queues: Sequence[str], slots: Slots, main: process.Channel
    ) -> None:
        self.cluster_id, self.name, self.queues, self.slots, self.main = cluster_id, name, queues, slots, main
        self.workers = slots.workers
        self.host = socket.gethostname()
        self.children: dict[int, Child] = {}
        self.lost: list[Lost] = []
        """Workers that died: what they held is taken back as soon as the database answers."""
        self.unborn: dict[int, float] = {}
        """Numbers of workers to start, and when."""
        self.stopping_since: float | None = None
        self.grace: float = settings.STOP_GRACE_SECONDS
        self.work_ahead = True
        """There may be work that no idle worker was woken for."""
        self.due_at: float | None = None
        self.next_beat = 0.0
        self.next_look = 0.0
        self.seen: dict[uuid.UUID, tuple[Any, float]] = {}
        self.db: psycopg.Connection[TupleRow] | None = None
        self.next_try = 0.0
        self._pause = 0.0

    @property
    def short_id(self) -> str:
        return self.cluster_id.hex[:12]

    def run(self) -> None:
        """Guard the workers until told to stop, then stop them, give back what they held and sign off."""
        process.title(self.name, "sentinel")
        self.signals = process.SignalPipe(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.signals, selectors.EVENT_READ)
        self.selector.register(self.main, selectors.EVENT_READ)
        # A sentinel before this one may have died with this cluster's id: its workers are dead, their runs are not.
        said = "The sentinel of its cluster died, and its worker with it."
        slots = [self.slots.slot(number) for number in range(1, self.workers + 1)]
        self.lost += [Lost(slot.holder, slot.begun, said) for slot in slots if slot.holder]
        self._talk_to_database()
        self.unborn = dict.fromkeys(range(1, self.workers + 1), 0.0)
        self._start_workers()
        logger.info(
            "cluster %s is ready: %d workers on %s take from %s", self.name, self.workers, self.host, ", ".join(self.queues)
        )
        self.main.say(READY)
        while not self._finished():
            for key, _ in self.selector.select(self._time_to_next()):
                if isinstance(key.fileobj, process.Channel) and key.fileobj is not self.main:
                    self._hear_worker(key.data)
            self._hear_signals()
            self._hear_main()
            self._end_overdue()
            self._bury()
            self._start_workers()
            self._talk_to_database()
            self._wake()
        self._sign_off()

    # Workers

    def _start_workers(self) -> None:
        now = time.monotonic()
        for number in [number for number, at in self.unborn.items() if at <= now]:
            if self.stopping_since is None:
                self._fork(number)
            del self.unborn[number]

    def _fork(self, number: int) -> None:
        ours, theirs = process.Channel.pair()
        sentinel = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)  # a group of its own: whatever a task forks can be ended with its worker
                ours.close()
                self._let_go()
                me, slot = self._holder(number, os.getpid()), self.slots.slot(number)
                code = worker.live(self.name, number, self.queues, me, theirs, slot, sentinel)
            except BaseException:
                logger.exception("worker %d ended by an error of its own", number)
            finally:
                os._exit(code)  # not sys.exit: what the sentinel registered to happen at exit is not the worker's
        theirs.close()
        child = Child(number, pid, self._holder(number, pid), ours, self.slots.slot(number))
        self.children[pid] = child
        self.selector.register(ours, selectors.EVENT_READ, child)

    def _holder(self, number: int, pid: int) -> str:
        return f"{self.short_id}:{number}:{pid}:{self.host[:64]}"

    def _let_go(self) -> None:
        """In a new worker: close what belongs to the sentinel, so that its end is seen by all who watch for it."""
        self.selector.close()
        self.signals.close()
        self.main.close()
        for child in self.children.values():
            child.channel.close()
        if self.db is not None and not self.db.closed:
            os.close(self.db.fileno())  # the descriptor only; closing the connection would end the sentinel's session

    def _hear_worker(self, child: Child) -> None:
        heard = child.channel.heard()
        if heard is None:  # it died; waitpid tells more
            self.selector.unregister(child.channel)
            return
        if worker.MORE in heard:
            self.work_ahead = True
        if worker.IDLE in heard:
            child.idle = True

    def _wake(self) -> None:
        """Wake one idle worker; if it finds work it says so, and the next is woken: no herd for a single run."""
        if not self.work_ahead or self.stopping_since is not None:
            return
        for child in self.children.values():
            if child.idle:
                child.idle, self.work_ahead = False, False
                child.channel.say(worker.WAKE)
                return

    def _bury(self) -> None:
        """Notice dead workers, end what they forked, and plan their successors."""
        for pid in list(self.children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            child = self.children.pop(pid)
            process.kill_group(pid)
            if child.channel in self.selector.get_map():
                self.selector.unregister(child.channel)
            child.channel.close()
            how = process.exit_code(status)
            said = f"The process that ran it died ({how})."
            self.lost.append(Lost(child.claimed_by, child.slot.begun, said, child.overtime))
            if self.stopping_since is None:
                logger.error("worker %d died (%s), starting another", child.number, how)
                early = time.monotonic() - child.born < STILLBORN_SECONDS
                self.unborn[child.number] = time.monotonic() + (STILLBORN_SECONDS if early else 0)

    # Runs that are to end

    def _cancel(self, run_id: uuid.UUID) -> None:
        """Tell the worker that has this run at hand; one that lies in a batch is told when its turn has come."""
        for child in self.children.values():
            if child.slot.at_hand == run_id and (child.cancelling is None or child.cancelling[0] != run_id):
                child.cancelling = (run_id, time.monotonic() + settings.CANCEL_GRACE_SECONDS)
                child.slot.wish_cancelled(run_id)
                os.kill(child.pid, signal.SIGUSR1)

    def _end_overdue(self) -> None:
        """Kill a worker whose task heeded neither the wish to cancel it nor its time limit within the grace period."""
        now = time.monotonic()
        for child in self.children.values():
            deadline = child.slot.deadline
            if child.cancelling and now >= child.cancelling[1]:
                run_id, _ = child.cancelling
                child.cancelling = None
                if child.slot.at_hand == run_id:
                    logger.error("worker %d goes on with the cancelled run %s and is ended", child.number, run_id)
                    process.kill_group(child.pid)
            elif deadline and now >= deadline + settings.CANCEL_GRACE_SECONDS and child.overtime is None:
                child.overtime = child.slot.at_hand
                logger.error("worker %d goes on with run %s past its limit and is ended", child.number, child.overtime)
                process.kill_group(child.pid)

    # Stopping

    def _hear_signals(self) -> None:
        if signal.SIGTERM in self.signals.read():
            self._stop()

    def _hear_main(self) -> None:
        heard = self.main.heard()
        if heard is None:  # the main process is gone, and with it whoever could stop this cluster
            self._stop()
        elif STOP_NOW in heard:
            self.grace = 0.0
            self._stop()
        elif STOP in heard:
            self._stop()

    def _stop(self) -> None:
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            logger.info("cluster %s is stopping, with %g s for runs to end", self.name, self.grace)
            process.title(self.name, "sentinel stopping")
            for child in self.children.values():
                child.channel.say(worker.STOP)

    def _finished(self) -> bool:
        if self.stopping_since is None:
            return False
        if time.monotonic() >= self.stopping_since + self.grace:
            for pid, child in self.children.items():
                logger.warning("worker %d is still at work after %g s and is ended", child.number, self.grace)
                process.kill_group(pid)
            for pid in list(self.children):
                os.waitpid(pid, 0)
            self.children.clear()
        return not self.children

    def _sign_off(self) -> None:
        """Give back what the stopped workers held, uncharged, and say that this cluster is gone."""
        held = {**statements.holder(self.short_id, whole_cluster=True), "but": []}
        try:
            db = self.db if self.db is not None and not self.db.closed else self._connect()
            with db.transaction():
                for run_id, *_ in db.execute(statements.GIVE_BACK, held).fetchall():
                    logger.warning("run %s given back: its worker was stopped before it ended", run_id)
                db.execute(statements.SIGN_OFF, {"id": self.cluster_id})
            db.close()
        except psycopg.Error as error:
            logger.error("cluster %s cannot sign off, another will find its runs: %s", self.name, error)
        logger.info("cluster %s has stopped", self.name)

    # The database

    def _time_to_next(self) -> float:
        now = time.monotonic()
        times = [self.next_beat if self.db is not None else self.next_try, *self.unborn.values()]
        if self.due_at is not None:
            times.append(self.due_at)
        times += [child.cancelling[1] for child in self.children.values() if child.cancelling]
        if self.stopping_since is not None:
            times.append(self.stopping_since + self.grace)
        return max(min(times) - now, 0.0)

    def _talk_to_database(self) -> None:
        """Everything that the sentinel says to the database; trouble there stops nothing else."""
        now = time.monotonic()
        if self.due_at is not None and now >= self.due_at:
            self.work_ahead, self.due_at = True, None
        if self.db is None and now < self.next_try:
            return
        try:
            if self.db is None:
                self.db = self._connect()
            for notification in self.db.notifies(timeout=0):
                self._hear_database(notification.payload)
            self._take_back()
            if now >= self.next_beat:
                self._beat()
            if now >= self.next_look and self.stopping_since is None:
                self._look_around()
        except psycopg.Error as error:
            self._disconnect(error)

    def _hear_database(self, said: str) -> None:
        if said.startswith(statements.CANCEL_HINT):
            with suppress(ValueError):  # anybody who may connect may notify
                self._cancel(uuid.UUID(said.removeprefix(statements.CANCEL_HINT)))
        elif said in self.queues:
            self.work_ahead = True

    def _connect(self) -> psycopg.Connection[TupleRow]:
        db = connect(f"qcluster {self.name} sentinel")
        db.execute(
            statements.REGISTER,
            {
                "id": self.cluster_id,
                "name": self.name,
                "queues": json.dumps(list(self.queues)),
                "host": self.host,
                "pid": os.getppid(),
                "workers": self.workers,
            },
        )
        db.execute(f"LISTEN {statements.CHANNEL}")
        self.selector.register(db.fileno(), selectors.EVENT_READ)
        if self._pause:
            logger.info("cluster %s: the database answers again", self.name)
        self._pause, self.work_ahead = 0.0, True
        self.seen.clear()  # a heartbeat counts as stale only if it was watched all the time
        return db

    def _disconnect(self, error: psycopg.Error) -> None:
        if self._pause == 0:
            logger.warning("cluster %s: the database does not answer, trying again: %s", self.name, error)
        if self.db is not None:
            # By the descriptor's number: a connection that is already closed has forgotten it.
            for key in list(self.selector.get_map().values()):
                if isinstance(key.fileobj, int):
                    self.selector.unregister(key.fileobj)
            self.db.close()
            self.db = None
        self._pause = min(max(self._pause * 2, worker.PATIENCE[0]), worker.PATIENCE[1])
        self.next_try = time.monotonic() + self._pause

    def _beat(self) -> None:
        assert self.db is not None
        busy = sum(not child.idle for child in self.children.values())
        query = {"id": self.cluster_id, "busy": busy, "queues": list(self.queues)}
        held = statements.holder(self.short_id, whole_cluster=True)
        row = self.db.execute(statements.HEARTBEAT, {**query, **held}).fetchone()
        assert row is not None
        mine, work_now, due_in, to_cancel = row
        self.next_beat = time.monotonic() + HEARTBEAT_SECONDS
        if work_now:
            self.work_ahead = True
        self.due_at = time.monotonic() + due_in if due_in is not None else None
        for run_id in to_cancel or ():
            self._cancel(run_id)
        if not mine:
            self._start_over()

    def _start_over(self) -> None:
        """Another cluster took this one for lost and gave its runs to others: end the workers, begin as a new one."""
        logger.error("cluster %s was silent too long and was declared lost: its workers start over", self.name)
        for pid in self.children:
            process.kill_group(pid)
        self.cluster_id = uuid.uuid4()
        assert self.db is not None
        raise psycopg.OperationalError("this cluster begins again under a new id")

    def _take_back(self) -> None:
        """Retry or fail what dead workers had begun, give back the rest; forgotten only when the database has it."""
        while self.lost:
            assert self.db is not None
            gone = self.lost[0]
            held = {**statements.holder(gone.claimed_by), "begun": gone.begun, "but": gone.begun}
            died = {"reason": "worker_lost", "message": gone.sentence}
            overtime = {"reason": "timed_out", "message": "It went on past its limit, so its process was ended."}
            with self.db.transaction():
                lost = []
                if gone.overtime:
                    query = {**held, **overtime, "begun": [gone.overtime]}
                    lost += self.db.execute(statements.TAKE_FROM_LOST, query).fetchall()
                lost += self.db.execute(statements.TAKE_FROM_LOST, {**held, **died}).fetchall()
                given_back = self.db.execute(statements.GIVE_BACK, held).fetchall()
            for run_id, status, *_ in lost:
                outcome = "tried again" if status == "READY" else status
                logger.error("run %s lost its worker: %s", run_id, outcome)
            self.work_ahead = self.work_ahead or bool(lost or given_back)
            self.lost.pop(0)

    def _look_around(self) -> None:
        """Rescue the runs of clusters whose heartbeat this one saw standing still for LOST_AFTER_SECONDS.

        Watched, not compared with the clock: after an outage of the database everybody's last heartbeat is old.
        """
        assert self.db is not None
        now = time.monotonic()
        self.next_look = now + LOOK_AROUND_SECONDS
        others = self.db.execute(statements.OTHER_CLUSTERS, {"id": self.cluster_id}).fetchall()
        seen = {}
        for other, host, heartbeat_at in others:
            last, since = self.seen.get(other, (None, now))
            seen[other] = (heartbeat_at, since if last == heartbeat_at else now)
            if now - seen[other][1] >= settings.LOST_AFTER_SECONDS:
                self._rescue(other, host, heartbeat_at)
        self.seen = seen

    def _rescue(self, cluster: uuid.UUID, host: str, heartbeat_at: Any) -> None:
        assert self.db is not None
        said = f"The cluster that ran it, on {host}, was not heard from any more."
        with self.db.transaction():
            query = {"id": cluster, "heartbeat_at": heartbeat_at}
            if self.db.execute(statements.DECLARE_LOST, query).fetchone() is None:
                return  # it came back, or another cluster was faster
            held = {**statements.holder(cluster.hex[:12], whole_cluster=True), "begun": None}
            died = {"reason": "worker_lost", "message": said}
            rescued = self.db.execute(statements.TAKE_FROM_LOST, {**held, **died}).fetchall()
            self.db.execute(statements.COUNT_RESCUED, {"id": cluster, "rescued": len(rescued)})
        logger.error("the cluster %s on %s is lost; %d of its runs were taken back", cluster, host, len(rescued))
        self.work_ahead = True
