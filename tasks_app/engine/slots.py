"""Memory that workers share with their sentinel: what each has begun and ended, for after its death, without a lock."""

from __future__ import annotations

import math
import mmap
import struct
import time
import uuid
from collections.abc import Iterator

BATCH = 100
"""The most runs that a worker holds at once."""

KEPT_BYTES = 64 * 1024
"""Room for what the runs of a batch ended with; memory that is never written is none."""

CLAIMING = 2**32 - 1
"""Instead of how many runs a batch has: its claim is under way."""

HOLDER_BYTES = 128
COUNT = struct.Struct("<I")
DEADLINE = struct.Struct("<d")
LEASE = struct.Struct("<d")
TAKEN = struct.Struct("<II")
TALLY = struct.Struct("<QQ")
BEFORE_IDS = COUNT.size + DEADLINE.size + 16 + TAKEN.size + COUNT.size + DEADLINE.size + TALLY.size
SIZE = HOLDER_BYTES + BEFORE_IDS + 16 * BATCH + COUNT.size + KEPT_BYTES


class Slots:
    """One slot a worker, in memory that the main process makes before any fork, so that it outlives a sentinel.

    Each slot is written by its worker alone, but for the wish to cancel and the revoking of a batch, which are the
    sentinel's as the lease of them all is. The count is written after the id, so a reader that finds the worker dead
    in between misses a run that had not begun.

    Beside the lease stands a byte a queue: whether it is to be claimed from under limits.
    """

    def __init__(self, number: int, queues: int = 1) -> None:
        self.number, self.queues = number, queues
        self._memory = mmap.mmap(-1, LEASE.size + queues + SIZE * number)

    def lease(self, until: float) -> None:
        """Until that moment, of the monotonic clock, no other cluster can take this one for lost."""
        LEASE.pack_into(self._memory, 0, until)

    def limit(self, place: int, is_limited: bool) -> None:
        """Whether the queue at that place is to be claimed from under limits."""
        self._memory[LEASE.size + place] = is_limited

    def __iter__(self) -> Iterator[Slot]:
        return (self.slot(number) for number in range(1, self.number + 1))

    def slot(self, number: int) -> Slot:
        """The slot of a worker, numbered from 1."""
        return Slot(self._memory, LEASE.size + self.queues + SIZE * (number - 1))


class Slot:
    """What one worker has begun since the database last took its results."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory, self._start = memory, start
        self._count_at = start + HOLDER_BYTES
        self._deadline_at = self._count_at + COUNT.size
        self._wish_at = self._deadline_at + DEADLINE.size
        self._taken_at = self._wish_at + 16
        self._revoked_at = self._taken_at + TAKEN.size
        self._opens_at = self._revoked_at + COUNT.size
        self._tally_at = self._opens_at + DEADLINE.size
        self._ids_at = self._tally_at + TALLY.size
        self._kept_at = self._ids_at + 16 * BATCH
        self._begun = self._kept = 0
        self._batch = 0

    def take(self, holder: str) -> None:
        """In a new worker: the slot is its own now, and nothing has begun."""
        self.settle()
        self.end()
        self.opens(math.inf)
        self._batch = self.revoked
        self.claiming()
        self.claimed(0)
        name = holder.encode()[:HOLDER_BYTES]
        self._memory[self._start : self._count_at] = name.ljust(HOLDER_BYTES, b"\0")

    def begin(self, run_id: uuid.UUID, deadline: float = math.inf) -> None:
        """The run is at hand; past the deadline, of the monotonic clock, the sentinel ends its worker."""
        DEADLINE.pack_into(self._memory, self._deadline_at, deadline)
        at = self._ids_at + 16 * self._begun
        self._memory[at : at + 16] = run_id.bytes
        self._begun += 1
        COUNT.pack_into(self._memory, self._count_at, self._begun)

    def limit(self, deadline: float) -> None:
        """Another deadline, for what is done beside the run's own code."""
        DEADLINE.pack_into(self._memory, self._deadline_at, deadline)

    def settle(self) -> None:
        """The database has the results of all that had begun."""
        self._begun = self._kept = 0
        COUNT.pack_into(self._memory, self._kept_at, 0)
        COUNT.pack_into(self._memory, self._count_at, 0)

    def keep(self, ending: bytes) -> bool:
        """What a run ended with, for the sentinel to record should the next one take this process with it.

        Answers whether there was room for it. Its length is counted last, so a reader finds it whole or not at all.
        """
        end = self._kept + COUNT.size + len(ending)
        if end > KEPT_BYTES:
            return False
        at = self._kept_at + COUNT.size + self._kept
        COUNT.pack_into(self._memory, at, len(ending))
        self._memory[at + COUNT.size : at + COUNT.size + len(ending)] = ending
        self._kept = end
        COUNT.pack_into(self._memory, self._kept_at, end)
        return True

    def claiming(self) -> None:
        """Another batch is asked for: from now on the database may have runs for this worker that it does not know."""
        self._batch = (self._batch + 1) % 2**32
        TAKEN.pack_into(self._memory, self._taken_at, self._batch, CLAIMING)

    def claimed(self, count: int) -> None:
        """The batch that was asked for is known, with so many runs."""
        TAKEN.pack_into(self._memory, self._taken_at, self._batch, count)

    def give_up_rest(self) -> None:
        """What has not begun of the batch is going back."""
        TAKEN.pack_into(self._memory, self._taken_at, self._batch, 0)

    @property
    def is_revoked(self) -> bool:
        """The sentinel gives the rest of this batch to others: nothing more of it may begin here.

        Asked after `begin`, so that either the sentinel sees that the run has begun, or its worker that it may not.
        """
        return self.revoked == self._batch

    def end(self) -> None:
        """The run at hand has ended; it stays among the begun until the database has its result."""
        DEADLINE.pack_into(self._memory, self._deadline_at, 0.0)

    @property
    def is_leased(self) -> bool:
        """The sentinel was heard from lately, so what this worker claims and begins is nobody else's."""
        return bool(time.monotonic() < LEASE.unpack_from(self._memory, 0)[0])

    def is_limited(self, place: int) -> bool:
        """The queue at that place is to be claimed from under limits."""
        return bool(self._memory[LEASE.size + place])

    def limit_queue(self, place: int) -> None:
        """Found by the worker itself; the sentinel's next heartbeat says how it goes on."""
        self._memory[LEASE.size + place] = 1

    def opens(self, at: float) -> None:
        """When it is worth to look again, although nobody enqueues anything: of the monotonic clock, or infinite."""
        DEADLINE.pack_into(self._memory, self._opens_at, at)

    def count(self, ended: int, failed: int) -> None:
        """How many runs the database has as ended by this worker and those before it here, and as failed."""
        TALLY.pack_into(self._memory, self._tally_at, ended, failed)

    def is_to_be_cancelled(self, run_id: uuid.UUID) -> bool:
        return self._memory[self._wish_at : self._wish_at + 16] == run_id.bytes

    # Used by the sentinel

    def wish_cancelled(self, run_id: uuid.UUID) -> None:
        self._memory[self._wish_at : self._wish_at + 16] = run_id.bytes

    @property
    def opens_at(self) -> float:
        """What its worker said with `opens`."""
        return float(DEADLINE.unpack_from(self._memory, self._opens_at)[0])

    @property
    def tally(self) -> tuple[int, int]:
        """What was said with `count`: it goes on from one worker to the next."""
        ended, failed = TALLY.unpack_from(self._memory, self._tally_at)
        return ended, failed

    @property
    def place(self) -> tuple[int, int, int]:
        """How far its worker is: the number of the batch, its runs or `CLAIMING`, how many have begun.

        The same twice: it stands, or waits for the database.
        """
        batch, taken = TAKEN.unpack_from(self._memory, self._taken_at)
        return batch, taken, COUNT.unpack_from(self._memory, self._count_at)[0]

    def revoke(self, batch: int) -> None:
        """Nothing more of that batch may begin."""
        COUNT.pack_into(self._memory, self._revoked_at, batch)

    @property
    def revoked(self) -> int:
        """The number of the batch that was revoked last."""
        return int(COUNT.unpack_from(self._memory, self._revoked_at)[0])

    @property
    def deadline(self) -> float:
        """Of the run at hand; infinite without a limit, 0 when none is at hand."""
        return float(DEADLINE.unpack_from(self._memory, self._deadline_at)[0])

    @property
    def at_hand(self) -> uuid.UUID | None:
        begun = self.begun
        return begun[-1] if begun and self.deadline else None

    @property
    def holder(self) -> str:
        return self._memory[self._start : self._count_at].rstrip(b"\0").decode(errors="replace")

    @property
    def kept(self) -> list[bytes]:
        """What was kept since the database took results last; it may have some of it already."""
        found, at = [], self._kept_at + COUNT.size
        end = at + min(COUNT.unpack_from(self._memory, self._kept_at)[0], KEPT_BYTES)
        while at < end:
            (length,) = COUNT.unpack_from(self._memory, at)
            at += COUNT.size + length
            found.append(self._memory[at - length : at])
        return found

    @property
    def begun(self) -> list[uuid.UUID]:
        (count,) = COUNT.unpack_from(self._memory, self._count_at)
        ids = self._memory[self._ids_at : self._ids_at + 16 * min(count, BATCH)]
        return [uuid.UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)]
