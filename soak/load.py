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
from typing import Any, TypeAlias

from django.db import DataError, Error, IntegrityError, ProgrammingError, connections, transaction
from django.utils import timezone
from django_q.tasks import async_task

from soak import tasks
from tasks_app.backend import PostgresBackend, PostgresTask
from tasks_app.engine.submit import RunResult, Submission
from tasks_app.engine.wishes import KeyReused
from tasks_app.models import Failure, OnFailure, Status, TaskRun, TaskRunQuerySet, Workflow
from tasks_app.workflows import PREVIOUS, Flow, chain, group

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
    STANDING = "answered by a run that stood, or replaced"
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
    "crowded": Kind(1, Status.SUCCESSFUL, longest=0.2),
    "paced": Kind(1, Status.SUCCESSFUL),
    "alone": Kind(0, Status.SUCCESSFUL),
    "newest": Kind(0, Status.SUCCESSFUL),
    "in_time": Kind(0, Status.SUCCESSFUL),
    "gathers": Kind(0, Status.SUCCESSFUL),
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

KEYS = 6
"""So many keys unique runs have: few, so that they meet."""

OUR_MISTAKES = (ProgrammingError, IntegrityError, DataError)
"""What no broken database answers, however it is broken."""

ROUGH = [f"soak.tasks.{name}" for name, kind in KINDS.items() if kind.is_rough]

Shape: TypeAlias = "int | tuple[Shape, ...] | list[Shape]"
"""A workflow as it was sent: a step by its number, a chain as a tuple, a group as a list."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A workflow that was enqueued, or perhaps was."""

    shape: Shape
    on_failure: str


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
        self.late: set[int] = set()
        """Runs that had expired before they were sent."""
        self.flows: dict[int, Sent] = {}
        """Workflows, each by the number of its first step."""
        self.wished_flows: set[uuid.UUID] = set()
        """Workflows that somebody wished cancelled, perhaps in vain."""
        self.complaints: list[str] = []
        """Answers that cannot be."""
        self.acts: Counter[str] = Counter()
        self.trouble: BaseException | None = None
        self._recent: deque[uuid.UUID] = deque(maxlen=300)
        self._recent_flows: deque[uuid.UUID] = deque(maxlen=20)
        self._number_of: dict[uuid.UUID, int] = {}
        """Of unique runs, the number that each was given last."""
        self._last_of: dict[tuple[str, int], int] = {}
        """Of each key of a task, the number that got it last."""
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

    def declare(self) -> None:
        """See that the limits in the code stand in the database before it is broken for the first time."""
        for name in ("crowded", "paced"):
            with self.promised() as number:
                self.task(name).enqueue(number, *self.seconds(name))
        connections.close_all()

    def run(self) -> None:
        acts: dict[Callable[[], None], float] = {
            self.enqueue_in_a_transaction: 40,
            self.enqueue_one: 20,
            self.enqueue_as_django_q_does: 5,
            self.enqueue_many: 12,
            self.enqueue_for_later: 10,
            self.cancel: 8,
            self.enqueue_unique: 6,
            self.enqueue_to_expire: 4,
            self.enqueue_a_workflow: 8,
            self.enqueue_twice: 3,
            self.cancel_a_workflow: 1,
            self.steer_many: 6,
        }
        try:
            while not self._enough.wait(self.choice.expovariate(1 / PAUSE_SECONDS)):
                act = self.choice.choices(list(acts), list(acts.values()))[0]
                try:
                    if self.is_full():
                        continue
                    act()
                    self.acts[act.__name__] += 1
                except OUR_MISTAKES:
                    raise
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
        if self.choice.random() < 0.1:  # few, because they wait for each other
            name, is_calm, numbers = self.choice.choice(["crowded", "paced"]), False, numbers[:8]
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

    def enqueue_unique(self) -> None:
        """One key several times in a row, most of them while the first one stands."""
        name, key = self.choice.choice(["alone", "newest"]), self.choice.randrange(KEYS)
        for _ in range(self.choice.randint(1, 4)):
            later = timezone.now() + timedelta(seconds=self.choice.choice((0, 0, 0.3, 1.0)))
            task = self.task(name, queue_name=self.choice.choice(QUEUES), run_after=later)
            number = self.number()
            try:
                answer = task.enqueue(number, key)
            except Error:
                self.note([number], Promise.IN_DOUBT)
                if name == "newest" and (before := self._last_of.get((name, key))):
                    self.doubt(before)
                self._last_of[name, key] = number
                raise
            self.note_unique(name, key, number, answer)

    def note_unique(self, name: str, key: int, number: int, answer: RunResult[Any]) -> None:
        run_id = uuid.UUID(answer.id)
        if answer.was_standing and not answer.was_replaced:
            self.note([number], Promise.STANDING)
            return
        if answer.was_replaced and run_id in self._number_of:
            self.note([self._number_of[run_id]], Promise.STANDING)
        self.note([number], Promise.KEPT)
        self._number_of[run_id] = self._last_of[name, key] = number
        self._recent.append(run_id)

    def doubt(self, number: int) -> None:
        """Perhaps another one has its place."""
        if self.promises.get(number) is Promise.KEPT:
            self.note([number], Promise.IN_DOUBT)

    def enqueue_to_expire(self) -> None:
        """Some in good time, some that nobody may have begun when it is over, some late from the start."""
        how = self.choice.choice(["expires_after", "expires_after", "expires_at", "late"])
        seconds = -1.0 if how == "late" else self.choice.choice((0.05, 0.3, 2.0, 60.0))
        wish: dict[str, Any] = {"expires_after": seconds}
        if how != "expires_after":
            wish = {"expires_at": timezone.now() + timedelta(seconds=seconds)}
        with self.promised() as number:
            if how == "late":
                self.late.add(number)
            task = self.task("in_time", queue_name=self.choice.choice(QUEUES), **wish)
            self._recent.append(uuid.UUID(task.enqueue(number).id))

    def enqueue_twice(self) -> None:
        """Whatever became of the first time, once more with the same key: one run, and no other arguments."""
        number, key = self.number(), f"number {self._next}"
        ids: set[uuid.UUID] = set()
        self.note([number], Promise.IN_DOUBT)
        trouble: Error | None = None
        for _ in range(2):
            try:
                ids.add(self.enqueue_by_key(number, key))
            except Error as error:
                trouble = error
                connections.close_all()
                self._enough.wait(0.2)
        if ids:
            self.note([number], Promise.KEPT)
            self._recent.extend(ids)
        if len(ids) > 1:
            self.complaints.append(f"number {number} was sent twice with one key, and answered by {ids}")
        if trouble:
            raise trouble
        other = self.number()
        self.note([other], Promise.TAKEN_BACK)
        try:
            self.enqueue_by_key(other, key)
        except KeyReused:
            return
        self.complaints.append(f"number {other} was taken with the key of number {number}")

    def enqueue_by_key(self, number: int, key: str) -> uuid.UUID:
        task = self.task("quick")
        backend = task.get_backend()
        assert isinstance(backend, PostgresBackend)
        return backend.enqueue_run(task, [number], {}, idempotency_key=key).pk

    def enqueue_a_workflow(self) -> None:
        first = self._next + 1
        flow, shape = self.choice.choice([self.chain, self.fan])()
        numbers = list(range(first, self._next + 1))
        on_failure = self.choice.choice(OnFailure.values)
        self.flows[first] = Sent(shape, on_failure)
        try:
            with transaction.atomic():
                workflow = flow.enqueue(name=f"from {first}", on_failure=on_failure)
                if self.choice.random() < 0.1:
                    raise TakenBack
        except TakenBack:
            self.note(numbers, Promise.TAKEN_BACK)
        except Error:
            self.note(numbers, Promise.IN_DOUBT)
            raise
        else:
            self.note(numbers, Promise.KEPT)
            self._recent_flows.append(workflow.pk)
            if self.choice.random() < 0.2:  # so that single steps are cancelled, moved and sent once more, too
                self._recent.extend(workflow.steps.values_list("pk", flat=True))

    def cancel_a_workflow(self) -> None:
        if self._recent_flows:
            flow = self._recent_flows.pop()
            self.wished_flows.add(flow)
            Workflow(pk=flow).cancel("The soak wished it ended.")

    def steer_many(self) -> None:
        """A verb for several runs at once, whatever became of them."""
        ids = self.choice.sample(list(self._recent), min(len(self._recent), self.choice.randint(2, 20)))
        runs = TaskRun.objects.filter(pk__in=ids)
        verb = self.choice.choice([self.cancel_many, self.retry_many, self.hurry_many, self.move_many])
        verb(runs, ids)

    def cancel_many(self, runs: TaskRunQuerySet, ids: list[uuid.UUID]) -> None:
        self.wished.update(ids[:3])
        runs.filter(pk__in=ids[:3]).cancel(why="The soak wished them ended.")

    def retry_many(self, runs: TaskRunQuerySet, ids: list[uuid.UUID]) -> None:
        """Above all what ended badly, and twice, because of each only one retry may go on."""
        recent = list(self._recent)
        bad = TaskRun.objects.filter(pk__in=recent, status__in=(Status.FAILED, Status.CANCELLED))
        wished = [
            *self.choice.sample(recent, min(len(recent), 3)),
            *bad.order_by("pk").values_list("pk", flat=True)[:3],
        ]
        for _ in range(2):
            runs = TaskRun.objects.filter(pk__in=wished)
            runs.retry(why="The soak wished them once more.", successful_too=self.choice.random() < 0.5)

    def hurry_many(self, runs: TaskRunQuerySet, ids: list[uuid.UUID]) -> None:
        runs.set_priority(self.choice.randint(-20, 20))

    def move_many(self, runs: TaskRunQuerySet, ids: list[uuid.UUID]) -> None:
        """But for those that would harm the cluster whose memory is watched."""
        runs.exclude(task_path__in=ROUGH).move_to(self.choice.choice(QUEUES))

    # Workflows, each part as the product has it and as the proof does

    def chain(self, *, deep: bool = True, has_before: bool = False) -> tuple[Flow, Shape]:
        parts: list[tuple[Flow, Shape]] = []
        for place in range(self.choice.randint(2, 4)):
            is_group = deep and self.choice.random() < 0.25
            parts.append((self.group if is_group else self.step)(has_before=has_before or place > 0))
        return chain(flow for flow, _ in parts), tuple(shape for _, shape in parts)

    def group(self, *, has_before: bool = False) -> tuple[Flow, Shape]:
        parts: list[tuple[Flow, Shape]] = []
        for _ in range(self.choice.randint(3, 8)):
            if self.choice.random() < 0.15:
                parts.append(self.chain(deep=False, has_before=has_before))
            else:
                parts.append(self.step(has_before=has_before))
        return group(flow for flow, _ in parts), [shape for _, shape in parts]

    def fan(self) -> tuple[Flow, Shape]:
        """A group, and what gets its results."""
        members, shape = self.group()
        callback, last = self.step(has_before=True, asks=True)
        return chain(members, callback), (shape, last)

    def step(self, *, has_before: bool = False, asks: bool = False) -> tuple[Flow, Shape]:
        number, queue = self.number(), self.choice.choice(QUEUES)
        if has_before and (asks or self.choice.random() < 0.7):
            task = self.task("gathers", queue_name=queue)
            by_name = self.choice.random() < 0.3
            return task.step(number, before=PREVIOUS) if by_name else task.step(number, PREVIOUS), number
        name = self.choice.choices(list(STEPS), list(STEPS.values()))[0]
        return self.task(name, queue_name=queue).step(number, *self.seconds(name)), number

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
