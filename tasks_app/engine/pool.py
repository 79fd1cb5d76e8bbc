"""The workers of a sentinel: forked, woken, told to stop or to end a run, buried and replaced."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
from django.conf import settings

from tasks_app.engine import process, worker
from tasks_app.engine.slots import CLAIMING, Slot, Slots

logger = logging.getLogger("dumbwaiter.sentinel")

STILLBORN_SECONDS = 1.0
"""A worker that lived shorter is replaced with a delay, lest a broken start become a storm of forks."""


LOOK_EVERY = 0.9
"""Seconds between looks for workers that stand still, at least."""


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
    since: float = field(default_factory=time.monotonic)
    """Since when it has been idle, or has not."""
    has_begun: bool = False
    """It was heard from: it does not start up any more."""
    tally: tuple[int, int] = (0, 0)
    """How many runs had ended here, and failed, before it came."""
    leaving: bool = False
    """It was told to stop, or recycles itself."""
    cancelling: tuple[uuid.UUID, float] | None = None
    """The run that it was told to end, and when its time for that is over."""
    overtime: uuid.UUID | None = None
    """The run that it was killed for, because it went on past its limit."""
    killed_because: str = ""
    opens_at: float = float("inf")
    """While it is idle: when a rate opens that it found closed, by the monotonic clock."""
    place: tuple[int, int, int, bool] = (0, 0, 0, True)
    """How far it was in its batch when the sentinel last looked, and whether the database had runs of it."""


@dataclass
class Lost:
    """A worker that died, and what is known of the runs that it held."""

    number: int | None
    """Its slot, which no other may have before the database knows of these runs; None for one of another cluster."""
    claimed_by: str
    begun: list[uuid.UUID] | None
    """None when nobody knows."""
    sentence: str
    overtime: uuid.UUID | None = None
    kept: list[bytes] = field(default_factory=list)
    """What runs of it ended with that the database may not have; the rest of `begun` died with it."""


class Pool:
    """Keeps as many workers as it should, and shares nothing with them that a death could lock."""

    def __init__(
        self,
        name: str,
        queues: Sequence[str],
        slots: Slots,
        size: int,
        selector: selectors.BaseSelector,
        claimed_by: Callable[[int, int], str],
        let_go: Callable[[], None],
    ) -> None:
        self.name, self.queues, self.slots, self.selector = name, queues, slots, selector
        self.claimed_by, self.let_go = claimed_by, let_go
        self.children: dict[int, Child] = {}
        """By pid."""
        self.size = size
        self.is_quiet = False
        self.is_closing = False
        self.work_ahead = True
        """There may be work that no idle worker was woken for."""
        self._looked_at = 0.0
        self._highest = max((number for number, slot in enumerate(slots, 1) if slot.holder), default=0)
        """The highest number that a worker has had."""
        self._not_before: dict[int, float] = {}
        """Until when a number stays empty, because its last worker hardly lived."""

    @property
    def busy(self) -> int:
        return sum(child.slot.at_hand is not None for child in self.children.values())

    @property
    def slots_used(self) -> list[Slot]:
        """Those of the workers that there are or were."""
        return [self.slots.slot(number) for number in range(1, self._highest + 1)]

    @property
    def is_at_rest(self) -> bool:
        """Every worker has looked for work and found none."""
        return not self.work_ahead and all(child.idle for child in self.children.values()) and bool(self.children)

    def next_moment(self) -> float:
        """When `look_after` has something to do without anybody saying so, by the monotonic clock."""
        moments = [child.cancelling[1] for child in self.children.values() if child.cancelling]
        moments += [child.opens_at for child in self.children.values() if child.idle]
        return min([*moments, *self._not_before.values()], default=float("inf"))

    def look_after(self) -> list[Lost]:
        """One look at every worker; returns the dead ones whose runs have to be taken back."""
        self._end_overdue()
        self._open()
        return self._bury()

    # Size

    def resize(self, size: int) -> None:
        """Grow or shrink to so many workers; those too many stop after the run at hand."""
        size = min(size, self.slots.number)
        if size != self.size:
            logger.info("cluster %s goes from %d to %d workers", self.name, self.size, size)
            self.size = size
        for child in self.children.values():
            if child.number > size and not child.leaving:
                child.leaving = True
                child.channel.say(worker.STOP)

    def quiet(self, is_quiet: bool) -> None:
        """While quiet, workers end the run at hand and take no other."""
        if is_quiet == self.is_quiet:
            return
        self.is_quiet = is_quiet
        self.work_ahead = True
        logger.info("cluster %s %s", self.name, "takes no more runs" if is_quiet else "takes runs again")
        for child in self.children.values():
            child.channel.say(worker.QUIET if is_quiet else worker.RESUME)

    def fill(self, lost: Sequence[Lost]) -> None:
        """Replace the dead, but for those whose runs are not taken back yet.

        Only their slots tell what they had begun, should this sentinel die too before the database has heard of it.
        """
        if self.is_closing:
            return
        now = time.monotonic()
        self._not_before = {number: at for number, at in self._not_before.items() if at > now}
        taken = {child.number for child in self.children.values()} | self._not_before.keys()
        taken |= {gone.number for gone in lost if gone.number is not None}
        for number in range(1, self.size + 1):
            if number not in taken:
                self._fork(number)

    def _fork(self, number: int) -> None:
        slot = self.slots.slot(number)
        before, self._highest = slot.tally, max(self._highest, number)
        ours, theirs = process.Channel.pair()
        sentinel = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)  # a group of its own: whatever a task forks can be ended with its worker
                ours.close()
                self.selector.close()
                for child in self.children.values():
                    child.channel.close()  # so that the end of either side is seen by the other
                self.let_go()
                me = self.claimed_by(number, os.getpid())
                code = worker.live(self.name, number, self.queues, me, theirs, slot, sentinel)
            except BaseException:
                logger.exception("worker %d ended by an error of its own", number)
            finally:
                os._exit(code)  # not sys.exit: what the sentinel registered to happen at exit is not the worker's
        theirs.close()
        child = Child(number, pid, self.claimed_by(number, pid), ours, slot, tally=before)
        self.children[pid] = child
        self.selector.register(ours, selectors.EVENT_READ, child)
        if self.is_quiet:
            ours.say(worker.QUIET)

    def renew(self) -> None:
        """Have every worker end after the run at hand; a fresh one takes the place of each as soon as it is gone."""
        if self.children:
            logger.info("cluster %s replaces its workers, each after the run at hand", self.name)
        for child in self.children.values():
            if not child.leaving:
                child.leaving = True
                child.channel.say(worker.STOP)

    # Messages

    def hear(self, child: Child) -> None:
        """Something came from this worker, or it is gone."""
        heard = child.channel.heard()
        if heard is None:  # it died; waitpid tells more
            self.selector.unregister(child.channel)
            return
        if worker.MORE in heard:
            self.work_ahead = True
        child.has_begun = True
        if worker.IDLE in heard:
            child.idle, child.since = True, time.monotonic()
            child.opens_at = child.slot.opens_at
        if worker.RECYCLE in heard:
            child.leaving = True

    def _open(self) -> None:
        """A rate that an idle worker found closed is open again: whoever is woken for it tells when the next one is."""
        now = time.monotonic()
        for child in self.children.values():
            if child.idle and child.opens_at <= now:
                child.opens_at = float("inf")
                self.work_ahead = True

    def wake(self) -> None:
        """Wake one idle worker; if it finds work it says so, and the next is woken: no herd for a single run."""
        if not self.work_ahead or self.is_closing or self.is_quiet:
            return
        for child in self.children.values():
            if child.idle and not child.leaving:
                child.idle, self.work_ahead = False, False
                child.since = time.monotonic()
                child.channel.say(worker.WAKE)
                return

    # Runs that are to end

    def cancel(self, run_id: uuid.UUID) -> None:
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
                what = f"run {child.overtime}" if child.overtime else "a signal receiver"
                logger.error("worker %d goes on with %s past its limit and is ended", child.number, what)
                process.kill_group(child.pid)

    def end_the_greedy(self) -> None:
        """Kill a worker whose task uses more memory than one may have, before the system kills whom it likes."""
        limit = settings.WORKER_MEMORY_MB
        if not limit:
            return
        for child in self.children.values():
            try:
                used = psutil.Process(child.pid).memory_info().rss / 2**20
            except psutil.Error:
                continue
            if used > limit * 1.5 and not child.killed_because:
                child.killed_because = f"it used {used:,.0f} MB of memory, more than the {limit:,} MB allowed"
                logger.error("worker %d is ended: %s", child.number, child.killed_because)
                process.kill_group(child.pid)

    def standing(self, is_held: Callable[[str, list[uuid.UUID]], bool]) -> list[Child]:
        """Workers that were told a look ago to begin no more of their batch, and have not moved since.

        A task that never lets another thread run, or a process that somebody stopped, keeps its own run, but not those
        taken beside it. The first look that finds a worker where it was revokes the batch, and only the next one
        answers it, so that what it begins meanwhile is seen.

        One that is claiming may as well wait for the database. It stands if that has runs for it, look after look:
        `is_held` answers whether a holder has other runs than those that it began.
        """
        found: list[Child] = []
        if time.monotonic() < self._looked_at + LOOK_EVERY:
            return found
        self._looked_at = time.monotonic()
        for child in self.children.values():
            batch, taken, begun = child.slot.place
            is_still = child.place[:3] == (batch, taken, begun) and taken > begun
            is_known = taken != CLAIMING or (is_still and is_held(child.claimed_by, child.slot.begun))
            place = batch, taken, begun, is_known
            if is_still and place == child.place and is_known:
                if child.slot.revoked == batch:
                    found.append(child)
                child.slot.revoke(batch)
            child.place = place
        return found

    # Ends

    def _bury(self) -> list[Lost]:
        """Notice dead workers and end what they forked."""
        lost = []
        for pid in list(self.children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            child = self.children.pop(pid)
            process.kill_group(pid)
            if child.channel in self.selector.get_map():
                self.selector.unregister(child.channel)
            child.channel.close()
            how = child.killed_because or process.exit_code(status)
            said = f"The process that ran it died ({how})."
            lost.append(Lost(child.number, child.claimed_by, child.slot.begun, said, child.overtime, child.slot.kept))
            if not (self.is_closing or (child.leaving and status == 0)):
                logger.error("worker %d died (%s), starting another", child.number, how)
                if time.monotonic() - child.born < STILLBORN_SECONDS:
                    self._not_before[child.number] = time.monotonic() + STILLBORN_SECONDS
        return lost

    def close(self) -> None:
        """No new workers; those there stop after the run at hand."""
        self.is_closing = True
        for child in self.children.values():
            child.leaving = True
            child.channel.say(worker.STOP)

    def kill(self, said: str) -> list[Lost]:
        """End every worker at once; what they held is for the caller to give back."""
        for pid in self.children:
            process.kill_group(pid)
        for pid in list(self.children):
            os.waitpid(pid, 0)
        children = self.children.values()
        lost = [
            Lost(child.number, child.claimed_by, child.slot.begun, said, kept=child.slot.kept) for child in children
        ]
        self.children.clear()
        return lost
