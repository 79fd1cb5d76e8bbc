"""What is sent in a soak, and what was promised for it: all that the producer and the proof have in common."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from tasks_app.models import Failure, Missed, Overlap, Status

QUEUES = ("calm", "default", "rough")
CALM = "calm"
"""The queue of tasks that harm nobody: the only one of the cluster whose memory is watched."""


class Promise(Enum):
    """What an enqueue was answered with."""

    KEPT = "committed"
    TAKEN_BACK = "rolled back"
    STANDING = "answered by a run that stood, or replaced"
    MISSED = "missed by a schedule that skips"
    IN_DOUBT = "the answer to the commit was lost"
    OFFERED = "left to a schedule that may skip it"
    ANSWERED = "answered with an id"
    """Of a unique run, whose number the run with that id tells: `KEPT` if it is this one, else `STANDING`."""


RUNS_OF = {
    Promise.KEPT: {1},
    Promise.TAKEN_BACK: {0},
    Promise.STANDING: {0},
    Promise.MISSED: {0},
    Promise.IN_DOUBT: {0, 1},
    Promise.OFFERED: {0, 1},
}
"""How many runs a number may have."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, how often it is drawn, and how its runs end when nothing happens to them."""

    weight: float
    status: str
    failure: str | None = None
    longest: float = 0.0
    """Tasks that last take a number of seconds up to this."""
    is_rough: bool = False
    """It harms its worker or whoever shares it."""


KINDS = {
    "quick": Kind(30, Status.SUCCESSFUL),
    "naps": Kind(12, Status.SUCCESSFUL, longest=0.2),
    "naps_async": Kind(3, Status.SUCCESSFUL, longest=0.1),
    "progresses": Kind(2, Status.SUCCESSFUL, longest=3.0),
    "talks": Kind(4, Status.SUCCESSFUL, longest=0.3),
    "succeeds_at_last": Kind(2, Status.SUCCESSFUL),
    "asks_for_another_try": Kind(2, Status.SUCCESSFUL),
    "crowded": Kind(1, Status.SUCCESSFUL, longest=0.2),
    "paced": Kind(1, Status.SUCCESSFUL),
    "alone": Kind(0, Status.SUCCESSFUL),
    "newest": Kind(0, Status.SUCCESSFUL),
    "seldom": Kind(0, Status.SUCCESSFUL),
    "in_time": Kind(0, Status.SUCCESSFUL),
    "gathers": Kind(0, Status.SUCCESSFUL),
    "prunes": Kind(0, Status.SUCCESSFUL, is_rough=True),
    "fails": Kind(2, Status.FAILED, Failure.ERROR),
    "fails_unprintably": Kind(1, Status.FAILED, Failure.ERROR),
    "keeps_failing": Kind(1, Status.FAILED, Failure.ERROR),
    "exits": Kind(1, Status.FAILED, Failure.ERROR),
    "interrupts": Kind(1, Status.FAILED, Failure.ERROR),
    "is_not_there": Kind(1, Status.FAILED, Failure.REJECTED),
    "sleeps_too_long": Kind(0.5, Status.FAILED, Failure.TIMED_OUT),
    "leaves_a_child": Kind(0.4, Status.SUCCESSFUL, is_rough=True),
    "dies_once": Kind(0.3, Status.SUCCESSFUL, is_rough=True),
    "swallows_its_time_limit": Kind(0.2, Status.FAILED, Failure.TIMED_OUT, is_rough=True),
    "ends_its_process": Kind(0.2, Status.FAILED, Failure.WORKER_LOST, is_rough=True),
    "kills_its_process": Kind(0.2, Status.FAILED, Failure.WORKER_LOST, is_rough=True),
}

STEPS = {"quick": 8, "naps": 3, "succeeds_at_last": 0.5, "crowded": 0.5, "fails": 0.8, "keeps_failing": 0.3}
"""The tasks of the steps of workflows, and how often each is drawn; others get the results before them."""

KEYS = {"alone": 6, "newest": 6, "seldom": 2}
"""So many keys the runs of each unique task have: few, so that they meet."""

ROUGH = [f"soak.tasks.{name}" for name, kind in KINDS.items() if kind.is_rough]

Shape: TypeAlias = "int | tuple[Shape, ...] | list[Shape]"
"""A workflow as it was sent: a step by its number, a chain as a tuple, a group as a list."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A workflow that was enqueued, or perhaps was."""

    shape: Shape
    on_failure: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule of the soak, which is made due again and again, each time with another number."""

    task: str
    overlap: str = Overlap.ALLOW
    missed: str = Missed.RUN_ONCE
    queue: str = "default"


TIMETABLE = {
    "prune": Entry("prunes", overlap=Overlap.SKIP, queue="rough"),
    "one at a time": Entry("naps", overlap=Overlap.SKIP),
    "beside each other": Entry("naps"),
    "not when missed": Entry("quick", missed=Missed.SKIP),
    "of one key": Entry("alone"),
}
"""By their names, which their runs tell."""

ONE_AT_A_TIME = [name for name, entry in TIMETABLE.items() if entry.overlap == Overlap.SKIP]


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was told who sent a unique run, or one with a key of its own: a run that is new or that stood."""

    number: int
    task: str
    key: str
    run: uuid.UUID
    asked: datetime
    answered: datetime


@dataclass
class Notes:
    """What the producer keeps for the proof."""

    promises: dict[int, Promise] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    """For unique runs that were not made, or perhaps not."""
    due: dict[int, datetime] = field(default_factory=dict)
    """When schedules were to send these."""
    late: set[int] = field(default_factory=set)
    """Runs that had expired before they were sent."""
    keyed: set[int] = field(default_factory=set)
    """Runs that were sent with an idempotency key."""
    flows: dict[int, Sent] = field(default_factory=dict)
    """Workflows, each by the number of its first step."""
    wished: set[uuid.UUID] = field(default_factory=set)
    """Runs that somebody wished cancelled, perhaps in vain."""
    wished_gone: set[uuid.UUID] = field(default_factory=set)
    """Runs that somebody wished deleted, perhaps in vain."""
    wished_flows: set[uuid.UUID] = field(default_factory=set)
    """Workflows that somebody wished cancelled, perhaps in vain."""
    complaints: list[str] = field(default_factory=list)
    """Answers that cannot be."""

    def note(self, numbers: Iterable[int], promise: Promise) -> None:
        self.promises.update(dict.fromkeys(numbers, promise))
