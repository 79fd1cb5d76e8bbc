"""The producer: enqueues without a pause, in every way there is, and keeps what it was promised."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from random import Random
from typing import Any

from django.db import Error, connections, transaction
from django.utils import timezone
from django_q.tasks import async_task

from soak import tasks
from tasks_app.backend import PostgresTask
from tasks_app.engine.submit import Submission
from tasks_app.models import Failure, Status, TaskRun

QUEUES = ("calm", "default", "rough")
CALM = "calm"
"""The queue of tasks that harm nobody: the only one of the cluster whose memory is watched."""

PAUSE_SECONDS = 0.06
"""Between two acts of the producer, on the average."""

BACKLOG = 600
"""With so many unfinished runs it waits: more of them would only make the end of the soak longer."""


class Promise(Enum):
    """What an enqueue was answered with."""

    KEPT = "committed"
    TAKEN_BACK = "rolled back"
    IN_DOUBT = "the answer to the commit was lost"


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


class TakenBack(Exception):
    """Ends a transaction that is to leave nothing."""


class Load(threading.Thread):
    """A run's first argument is its number: the producer knows numbers, whether or not it ever learnt a run's id."""

    def __init__(self, seed: str) -> None:
        super().__init__(name="load", daemon=True)
        self.choice = Random(seed)
        self.promises: dict[int, Promise] = {}
        self.wished: set[uuid.UUID] = set()
        """Runs that somebody wished cancelled, perhaps in vain."""
        self.acts: Counter[str] = Counter()
        self.trouble: BaseException | None = None
        self._recent: deque[uuid.UUID] = deque(maxlen=300)
        self._next = 0
        self._enough = threading.Event()

    def stop(self) -> None:
        """Let it end after the act at hand, which may have to wait for a fault to be over."""
        self._enough.set()

    def await_end(self) -> None:
        """Raises what went wrong in it."""
        self.join(60)
        if self.trouble is not None:
            raise self.trouble

    def run(self) -> None:
        acts: dict[Callable[[], None], float] = {
            self.enqueue_in_a_transaction: 40,
            self.enqueue_one: 20,
            self.enqueue_as_django_q_does: 5,
            self.enqueue_many: 12,
            self.enqueue_for_later: 10,
            self.cancel: 8,
        }
        try:
            while not self._enough.wait(self.choice.expovariate(1 / PAUSE_SECONDS)):
                act = self.choice.choices(list(acts), list(acts.values()))[0]
                try:
                    if self.is_full():
                        continue
                    act()
                    self.acts[act.__name__] += 1
                except Error:  # the database is just being broken; each act has noted what that means for it
                    connections.close_all()
        except BaseException as error:
            self.trouble = error
        finally:
            connections.close_all()

    def is_full(self) -> bool:
        return TaskRun.objects.unfinished()[: BACKLOG + 1].count() > BACKLOG

    # Its acts

    def enqueue_in_a_transaction(self) -> None:
        """Several runs, committed together or taken back together."""
        taken_back = self.choice.random() < 0.2
        numbers: list[int] = []
        ids: list[uuid.UUID] = []
        reached_the_end = False
        try:
            with transaction.atomic():
                for _ in range(self.choice.randint(1, 4)):
                    numbers.append(self.number())
                    ids.append(self.send(numbers[-1]))
                if taken_back:
                    raise TakenBack
                reached_the_end = True
        except TakenBack:
            self.note(numbers, Promise.TAKEN_BACK)
        except Error:
            self.note(numbers, Promise.IN_DOUBT if reached_the_end else Promise.TAKEN_BACK)
            raise
        else:
            self.note(numbers, Promise.KEPT)
            self._recent.extend(ids)

    def enqueue_one(self) -> None:
        with self.promised() as number:
            self._recent.append(self.send(number))

    def enqueue_for_later(self) -> None:
        with self.promised() as number:
            later = timezone.now() + timedelta(seconds=self.choice.uniform(0.2, 8))
            self._recent.append(self.send(number, run_after=later))

    def enqueue_as_django_q_does(self) -> None:
        with self.promised() as number:
            async_task("soak.tasks.quick", number)

    def enqueue_many(self) -> None:
        numbers = [self.number() for _ in range(self.choice.randint(2, 120))]
        name, is_calm = self.choice.choice([("quick", True), ("quick", False), ("naps", False)])
        queue = CALM if is_calm else self.choice.choice(QUEUES)
        task = self.task(name, queue_name=queue, priority=self.choice.randint(-2, 2))
        try:
            ids = task.enqueue_many([[number, *self.seconds(name, most=0.02)] for number in numbers])
        except Error:
            self.note(numbers, Promise.IN_DOUBT)
            raise
        self.note(numbers, Promise.KEPT)
        self._recent.extend(map(uuid.UUID, ids))

    def cancel(self) -> None:
        for _ in range(self.choice.randint(1, 3)):
            if self._recent:
                run_id = self.choice.choice(self._recent)
                self.wished.add(run_id)
                TaskRun(pk=run_id).cancel("The soak wished it ended.")

    # How

    def send(self, number: int, **options: Any) -> uuid.UUID:
        """One run of a task that is drawn, into a queue that is drawn."""
        name = self.choice.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
        queue = "rough" if KINDS[name].is_rough else self.choice.choice(QUEUES)
        options |= {"queue_name": queue, "priority": self.choice.choice((-10, 0, 0, 0, 10))}
        if name == "is_not_there":
            return Submission(task_path=f"soak.tasks.{name}", args=[number], **options).store().pk
        return uuid.UUID(self.task(name, **options).enqueue(number, *self.seconds(name)).id)

    def task(self, name: str, **options: Any) -> PostgresTask[Any, Any]:
        found: PostgresTask[Any, Any] = getattr(tasks, name)
        using: PostgresTask[Any, Any] = found.using(**options)
        return using

    def seconds(self, name: str, most: float = float("inf")) -> list[float]:
        longest = min(KINDS[name].longest, most)
        return [round(self.choice.uniform(0, longest), 3)] if longest else []

    def number(self) -> int:
        self._next += 1
        return self._next

    def note(self, numbers: list[int], promise: Promise) -> None:
        self.promises.update(dict.fromkeys(numbers, promise))

    def promised(self) -> OneStatement:
        return OneStatement(self)


class OneStatement:
    """A block with a single statement outside any transaction; when it fails, nobody knows what became of it."""

    def __init__(self, load: Load) -> None:
        self.load, self.number = load, load.number()

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.load.note([self.number], Promise.KEPT if kind is None else Promise.IN_DOUBT)
