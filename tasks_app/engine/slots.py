"""Memory that workers share with their sentinel: which runs each has begun, readable after its death, without a lock."""

from __future__ import annotations

import mmap
import struct
import uuid
from collections.abc import Sequence

BATCH = 100
"""The most runs that a worker holds at once."""

HOLDER_BYTES = 128
COUNT = struct.Struct("<I")
SIZE = HOLDER_BYTES + COUNT.size + 16 * BATCH


class Slots:
    """One slot a worker, in memory that the main process makes before any fork, so that it outlives a sentinel.

    Each slot is written by its worker alone. The count is written after the id, so a reader that finds the worker dead
    in between misses a run that had not begun.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, SIZE * workers)

    def slot(self, number: int) -> Slot:
        """The slot of a worker, numbered from 1."""
        return Slot(self._memory, SIZE * (number - 1))


class Slot:
    """What one worker has begun since the database last took its results."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory, self._start = memory, start
        self._count_at, self._ids_at = start + HOLDER_BYTES, start + HOLDER_BYTES + COUNT.size
        self._begun = 0

    def take(self, holder: str) -> None:
        """In a new worker: the slot is its own now, and nothing has begun."""
        self.settle()
        name = holder.encode()[:HOLDER_BYTES]
        self._memory[self._start : self._count_at] = name.ljust(HOLDER_BYTES, b"\0")

    def begin(self, run_id: uuid.UUID) -> None:
        at = self._ids_at + 16 * self._begun
        self._memory[at : at + 16] = run_id.bytes
        self._begun += 1
        COUNT.pack_into(self._memory, self._count_at, self._begun)

    def settle(self, still: Sequence[uuid.UUID] = ()) -> None:
        """The database has the results of all but these."""
        self._begun = 0
        COUNT.pack_into(self._memory, self._count_at, 0)
        for run_id in still:
            self.begin(run_id)

    # Read by the sentinel

    @property
    def holder(self) -> str:
        return self._memory[self._start : self._count_at].rstrip(b"\0").decode(errors="replace")

    @property
    def begun(self) -> list[uuid.UUID]:
        (count,) = COUNT.unpack_from(self._memory, self._count_at)
        ids = self._memory[self._ids_at : self._ids_at + 16 * min(count, BATCH)]
        return [uuid.UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)]
