"""The sentinel of a cluster: one process that runs no task, so that nothing which a task does can stop it."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
import uuid
from collections.abc import Sequence
from datetime import datetime

import psycopg
from django.conf import settings

from tasks_app.engine import process, statements, workflow_statements
from tasks_app.engine.account import Account
from tasks_app.engine.limits import LIMITED_HINT
from tasks_app.engine.link import Link
from tasks_app.engine.pool import Child, Lost, Pool
from tasks_app.engine.slots import Slots
from tasks_app.models.cluster import HEARTBEAT_SECONDS, DesiredState

logger = logging.getLogger("dumbwaiter.sentinel")

# What the main process says to its sentinel, one byte each.
STOP = b"s"
"""Stop, with grace."""
STOP_NOW = b"k"
"""Stop without grace."""

EXPIRE_AT_ONCE = 1_000
"""Runs that expire in one statement; a sentinel looks after its workers between two of them."""

EXPIRE_EVERY = 0.05
"""Seconds between two such statements at least, when there are fewer."""

COUNT_EVERY = 3.0
"""Seconds between two countings of what has ended, unless it is more than is counted at once."""

COUNT_PAUSE = 4
"""Then so many times as long as the last one took: workers are more than statistics."""

LIMITED_FOR = 10.0
"""Seconds for which a queue is claimed from under limits after the last limited run waited in it: it may come back."""

LOOK_AROUND_SECONDS = 5.0
"""Between looks at the heartbeats of the other clusters, at most."""


class Sentinel:
    """A loop that waits for whatever comes first: a signal, a word of a worker, a NOTIFY, a moment."""

    def __init__(
        self,
        cluster_id: uuid.UUID,
        name: str,
        queues: Sequence[str],
        workers: int,
        slots: Slots,
        main: process.Channel,
        once: bool = False,
    ) -> None:
        self.name, self.slots, self.main = name, slots, main
        self.host = socket.gethostname()
        self.link = Link(name, self.host, queues, workers)
        self.link.cluster_id = cluster_id
        self.selector = selectors.DefaultSelector()
        self.signals = process.SignalPipe(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self.pool = Pool(name, queues, slots, workers, self.selector, self._claimed_by, self._let_go)
        self.account = Account()
        self.renewed: datetime | None = None
        """The wish to replace the workers that was obeyed last."""
        self.lost: list[Lost] = []
        """Workers that died: what they held is taken back as soon as the database answers."""
        self.stopping_since: float | None = None
        self.cut_short: list[Lost] = []
        """The runs that were at hand when the grace period was over."""
        self.grace: float = settings.STOP_GRACE_SECONDS
        self.due_at = float("inf")
        self.fire_at = float("inf")
        """When the next schedule falls due."""
        self.advance_at = float("inf")
        """When to look what follows from the ends of workflows' runs."""
        self.rested_at = 0.0
        self.expire_at = float("inf")
        """When the next run expires."""
        self.count_at = float("inf")
        """When to count what has ended into the statistics."""
        self.limited_until: dict[str, float] = {}
        self.next_beat = self.next_look = 0.0
        self._listening_on: int | None = None
        self.once = once

    def run(self) -> None:
        """Guard the workers until told to stop, then stop them, give back what they held and sign off."""
        process.title(self.name, "sentinel")
        self.selector.register(self.signals, selectors.EVENT_READ)
        self.selector.register(self.main, selectors.EVENT_READ)
        # A sentinel before this one may have died with this cluster's id: its workers are dead, their runs are not.
        said = "The sentinel of its cluster died, and its worker with it."
        slots = enumerate(self.slots, 1)
        self.lost += [
            Lost(number, slot.holder, slot.begun, said, kept=slot.kept) for number, slot in slots if slot.holder
        ]
        self._talk_to_database()
        self.pool.fill(self.lost)
        self.next_beat = 0.0  # there are workers now: tell
        logger.info(
            "cluster %s is ready: %d workers on %s take from %s",
            self.name, self.pool.size, self.host, ", ".join(self.pool.queues),
        )  # fmt: skip
        while not self._finished():
            for key, _ in self.selector.select(self._time_to_next()):
                if isinstance(key.data, Child):
                    self.pool.hear(key.data)
            self._hear()
            self.lost += self.pool.look_after()
            self._talk_to_database()
            self.pool.fill(self.lost)
            self.pool.wake()
            if self.once and self.pool.is_at_rest and not self._has_news():
                self._stop()
        self.link.sign_off(self.lost, self.cut_short)
        logger.info("cluster %s has stopped", self.name)

    def _claimed_by(self, number: int, pid: int) -> str:
        return f"{self.link.short_id}:{number}:{pid}:{self.host[:64]}"

    def _let_go(self) -> None:
        """In a new worker: close what belongs to the sentinel."""
        self.signals.close()
        self.main.close()
        self.link.let_go()

    def _time_to_next(self) -> float:
        moments = [self.next_beat if self.link.connection else self.link.next_try, self.pool.next_moment(), self.due_at]
        if self.link.connection:
            moments += [self.fire_at, self.advance_at, self.expire_at, self.count_at]
        if self.stopping_since is not None:
            moments.append(self.stopping_since + self.grace)
        return max(min(moments) - time.monotonic(), 0.0)

    # Stopping

    def _hear(self) -> None:
        """Signals, and words of the main process; when that is gone, so is whoever could stop this cluster."""
        if signal.SIGTERM in self.signals.read():
            self._stop()
        heard = self.main.heard()
        if heard is None or STOP in heard:
            self._stop()
        elif STOP_NOW in heard:
            self.grace = 0.0
            self._stop()

    def _stop(self) -> None:
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            logger.info("cluster %s is stopping, with %g s for runs to end", self.name, self.grace)
            process.title(self.name, "sentinel stopping")
            self.pool.close()

    def _finished(self) -> bool:
        if self.stopping_since is None:
            return False
        if self.pool.children and time.monotonic() >= self.stopping_since + self.grace:
            logger.warning(
                "still at work after %g s, and ended: %d of the workers", self.grace, len(self.pool.children)
            )
            self.cut_short = self.pool.kill("It was stopped.")
        return not self.pool.children

    # The database

    def _talk_to_database(self) -> None:
        """Everything that the sentinel says to the database; trouble there stops nothing else."""
        now = time.monotonic()
        if now >= self.due_at:
            self.pool.work_ahead, self.due_at = True, float("inf")
        if self.link.connection is None and now < self.link.next_try:
            return
        try:
            if self.link.connection is None:
                self.link.connect()
                self.pool.work_ahead = True
                self._listen()
            self._heed_hints()
            while self.lost:  # each is forgotten only when the database has it
                if self.link.take_back(self.lost[0]):
                    self.pool.work_ahead = True
                self.lost.pop(0)
            if now >= self.next_beat:
                self._beat()
            if time.monotonic() >= self.fire_at:
                self._fire_schedules()
            if time.monotonic() >= self.advance_at:
                self._advance_workflows()
            if time.monotonic() >= self.expire_at:
                self._expire()
            if time.monotonic() >= self.count_at:
                self._count()
            if now >= self.next_look and self.stopping_since is None:
                self.next_look = now + min(LOOK_AROUND_SECONDS, settings.LOST_AFTER_SECONDS / 2)
                self.pool.work_ahead = self.link.look_around() or self.pool.work_ahead
                self.lost += self.link.held_by_nobody([child.claimed_by for child in self.pool.children.values()])
            # What came with the answer to one of these statements waits in the connection, where no select sees it.
            self._heed_hints()
        except psycopg.Error as error:
            self.link.disconnect(error)
            self._listen()

    def _heed_hints(self) -> None:
        for hint in self.link.hints():
            self._heed(hint)

    def _listen(self) -> None:
        """Have the loop wake up when the database says something."""
        if self._listening_on is not None:  # by its number: a closed connection has forgotten it
            self.selector.unregister(self._listening_on)
            self._listening_on = None
        if self.link.connection is not None:
            self._listening_on = self.link.connection.fileno()
            self.selector.register(self._listening_on, selectors.EVENT_READ)

    def _heed(self, hint: str) -> None:
        if hint.startswith(statements.CANCEL_HINT):
            try:
                self.pool.cancel(uuid.UUID(hint.removeprefix(statements.CANCEL_HINT)))
            except ValueError:
                logger.warning("a notification that nobody here sent is ignored: %s", hint)
        elif hint == statements.STEER_HINT:
            self.next_beat = 0.0
        elif hint == workflow_statements.HINT:
            self._expect_news()
        if hint in self.pool.queues:  # which may be named as one of the hints is
            self.pool.work_ahead = True
        elif hint.removeprefix(LIMITED_HINT) in self.pool.queues:
            self._limit([hint.removeprefix(LIMITED_HINT)])
            self.pool.work_ahead = True

    def _limit(self, queues: Sequence[str]) -> None:
        """Have the workers claim from these queues under limits."""
        for queue in queues:
            self.limited_until[queue] = time.monotonic() + LIMITED_FOR
            self.slots.limit(self.pool.queues.index(queue), True)

    def _beat(self) -> None:
        asked = time.monotonic()
        report = self.account.report(self.pool, self.renewed, self.stopping_since is not None)
        beat = self.link.beat(self.pool.busy, len(self.pool.children), report)
        now = time.monotonic()
        self.account.set_clock(beat.at, now)
        if beat.is_known:
            self.slots.lease(asked + settings.LOST_AFTER_SECONDS)
        self.next_beat = now + HEARTBEAT_SECONDS
        self._limit([queue for queue, limited in zip(self.pool.queues, beat.limited, strict=True) if limited])
        for place, queue in enumerate(self.pool.queues):
            self.slots.limit(place, self.limited_until.get(queue, 0.0) > now)
        self.pool.work_ahead = self.pool.work_ahead or beat.work_now
        if beat.has_news:
            self._expect_news()
        self.due_at = now + beat.due_in if beat.due_in is not None else float("inf")
        self.fire_at = float("inf")
        if beat.fire_in is not None and self.stopping_since is None:
            self.fire_at = now + beat.fire_in
        if beat.expire_in is not None and self.stopping_since is None:
            self.expire_at = min(self.expire_at, now + beat.expire_in)
        if beat.has_endings and self.count_at == float("inf"):
            self.count_at = now + COUNT_EVERY
        for run_id in beat.to_cancel:
            self.pool.cancel(run_id)
        self.pool.end_the_greedy()
        for child in self.pool.standing(self.link.is_held):
            if given := self.link.release_rest(child.claimed_by, child.slot.begun, beat.at):
                self.pool.work_ahead = True
                logger.warning("worker %d stands still: %d runs that it took go to others", child.number, given)
        if not beat.is_known:
            self._start_over()
        elif beat.desired_state == DesiredState.STOP:
            self._stop()
        elif self.stopping_since is None:
            if beat.desired_workers is not None:
                self.pool.resize(beat.desired_workers)
            self.pool.quiet(beat.desired_state == DesiredState.QUIET)
            if beat.restart_at and beat.restart_at != self.renewed:
                # Workers that a sentinel before this one had are gone: those here are fresh, or not even there yet.
                self.renewed = beat.restart_at
                self.pool.renew()

    def _fire_schedules(self) -> None:
        """If there were any, ask at once for the next; if others were faster, the next heartbeat is soon enough."""
        self.fire_at = float("inf")
        if self.link.fire_schedules():
            self.pool.work_ahead = True
            self.next_beat = 0.0

    def _has_news(self) -> bool:
        """Of workflows, whether or not their hints have come; those are advanced before a cluster for once stops."""
        if self.advance_at == float("inf"):
            self._expect_news()
            self._talk_to_database()
        return self.pool.work_ahead or self.advance_at != float("inf")

    def _expect_news(self) -> None:
        """At once, or when the pause after a long turn is over."""
        self.advance_at = min(self.advance_at, max(self.rested_at, time.monotonic()))

    def _advance_workflows(self) -> None:
        """One workflow a turn, so that the workers are looked after in between."""
        pause = self.link.advance_workflows()
        self.rested_at = time.monotonic() + (pause or 0.0)
        self.advance_at = float("inf") if pause is None else self.rested_at

    def _expire(self) -> None:
        """As with schedules: what another cluster is at, or somebody holds locked, is left to the next heartbeat."""
        self.expire_at = float("inf")
        found, next_in = self.link.expire(EXPIRE_AT_ONCE)
        if found == EXPIRE_AT_ONCE:
            self.expire_at = 0.0
        elif next_in is not None:
            self.expire_at = time.monotonic() + max(next_in, EXPIRE_EVERY)

    def _count(self) -> None:
        """Some of what has ended, if no other cluster is at it; the workers are looked after in between."""
        began = time.monotonic()
        has_more = self.link.count_endings()
        self.count_at = float("inf")
        if has_more:
            self.count_at = time.monotonic() + COUNT_PAUSE * (time.monotonic() - began)

    def _start_over(self) -> None:
        """Another cluster took this one for lost and gave its runs to others: end the workers, begin as a new one."""
        logger.error("cluster %s was silent too long and was declared lost: its workers start over", self.name)
        self.slots.lease(0.0)
        # Until this moment its workers went on, and may have taken more than what was given to others.
        self.lost += self.pool.kill("Its cluster had been declared lost, so its worker was ended.")
        self.link.begin_anew()
        self._listen()
