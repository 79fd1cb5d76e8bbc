"""The producer: enqueues without a pause, in every way there is, and keeps what it was promised."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

from django.db import DataError, Error, IntegrityError, ProgrammingError, connections, transaction
from django.utils import timezone
from django_q.tasks import async_task

from soak import tasks
from soak.promises import CALM, KEYS, KINDS, QUEUES, STEPS, Answer, Notes, Promise, Sent, Shape
from soak.steering import Steering
from soak.timetable import Timetable
from tasks_app.backend import PostgresBackend, PostgresTask
from tasks_app.engine.submit import RunResult, Submission
from tasks_app.engine.wishes import KeyReused
from tasks_app.models import OnFailure, TaskRun
from tasks_app.workflows import PREVIOUS, Flow, chain, group

PAUSE_SECONDS = 0.06
"""Between two acts of the producer, on the average."""

BACKLOG = 600
"""With so many unfinished runs it waits: more of them would only make the end of the soak longer."""

OUR_MISTAKES = (ProgrammingError, IntegrityError, DataError)
"""What no broken database answers, however it is broken."""


class TakenBack(Exception):
    """Ends a transaction that is to leave nothing."""


class Load(threading.Thread):
    """A run's first argument is its number: the producer knows numbers, whether or not it ever learnt a run's id."""

    def __init__(self, seed: str) -> None:
        super().__init__(name="load", daemon=True)
        self.choice = Random(seed)
        self.notes = Notes()
        self.steering = Steering(self.choice, self.notes)
        self.timetable = Timetable(self.choice, self.notes, self.number)
        self.acts: Counter[str] = Counter()
        self.trouble: BaseException | None = None
        self._recent = self.steering.recent
        self._keyed: deque[tuple[int, uuid.UUID]] = deque(maxlen=100)
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
        """See that limits and schedules stand in the database before it is broken for the first time."""
        self.timetable.declare()
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
            self.enqueue_unique: 6,
            self.enqueue_many_unique: 3,
            self.enqueue_to_expire: 4,
            self.enqueue_a_workflow: 8,
            self.enqueue_twice: 2,
            self.enqueue_again: 2,
            self.timetable.make_due: 15,
            self.timetable.make_one_for_once: 3,
            self.steering.cancel: 8,
            self.steering.cancel_a_workflow: 1,
            self.steering.retry: 3,
            self.steering.delete: 1,
            self.steering.steer_many: 8,
            self.steering.prune: 4,
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

    def enqueue_unique(self) -> None:
        """One key several times in a row, most of them while the first one stands."""
        name = self.choice.choice(list(KEYS))
        key = self.choice.randrange(KEYS[name])
        for _ in range(self.choice.randint(1, 4)):
            later = timezone.now() + timedelta(seconds=self.choice.choice((0, 0, 0.3, 1.0)))
            task = self.task(name, queue_name=self.choice.choice(QUEUES), run_after=later)
            number, asked = self.number(), timezone.now()
            try:
                answer = task.enqueue(number, key)
            except Error:
                self.note([number], Promise.IN_DOUBT)
                if name == "newest" and (before := self._last_of.get((name, key))):
                    self.doubt(before)
                self._last_of[name, key] = number
                raise
            if answer.was_standing:
                self.keep(name, key, number, answer.id, asked)
            self.note_unique(name, key, number, answer)

    def keep(self, name: str, key: int, number: int, run_id: str, asked: datetime) -> None:
        answer = Answer(number, f"soak.tasks.{name}", str(key), uuid.UUID(run_id), asked, timezone.now())
        self.notes.answers.append(answer)

    def enqueue_many_unique(self) -> None:
        """Some of them with one key."""
        name = self.choice.choice(["alone", "seldom"])
        calls = [[self.number(), self.choice.randrange(KEYS[name])] for _ in range(self.choice.randint(2, 8))]
        numbers, asked = [number for number, _ in calls], timezone.now()
        try:
            ids = self.task(name, queue_name=self.choice.choice(QUEUES)).enqueue_many(calls)
        except Error:
            self.note(numbers, Promise.IN_DOUBT)
            raise
        self.note(numbers, Promise.ANSWERED)
        for (number, key), run_id in zip(calls, ids, strict=True):
            self.keep(name, key, number, run_id, asked)
        self._recent.extend({uuid.UUID(run_id) for run_id in ids})

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
        if self.notes.promises.get(number) is Promise.KEPT:
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
                self.notes.late.add(number)
            task = self.task("in_time", queue_name=self.choice.choice(QUEUES), **wish)
            self._recent.append(uuid.UUID(task.enqueue(number).id))

    def enqueue_twice(self) -> None:
        """Whatever became of the first time, once more with the same key: one run, and no other arguments."""
        number = self.number()
        key = f"number {number}"
        ids: set[uuid.UUID] = set()
        self.notes.keyed.add(number)
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
            self._keyed.extend((number, run_id) for run_id in ids)
        if len(ids) > 1:
            self.notes.complaints.append(f"number {number} was sent twice with one key, and answered by {ids}")
        if trouble:
            raise trouble
        other = self.number()
        self.note([other], Promise.TAKEN_BACK)
        try:
            self.enqueue_by_key(other, key)
        except KeyReused:
            return
        self.notes.complaints.append(f"number {other} was taken with the key of number {number}")

    def enqueue_again(self) -> None:
        """As in `enqueue_twice`, but long after its run has ended."""
        if self._keyed:
            number, run_id = self.choice.choice(self._keyed)
            if (again := self.enqueue_by_key(number, f"number {number}")) != run_id:
                self.notes.complaints.append(f"number {number} was sent again with its key, and answered by {again}")

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
        self.notes.flows[first] = Sent(shape, on_failure)
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
            self.steering.recent_flows.append(workflow.pk)
            if self.choice.random() < 0.2:  # so that single steps are cancelled, moved and sent once more, too
                self._recent.extend(workflow.steps.values_list("pk", flat=True))

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
        self.notes.note(numbers, promise)

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
