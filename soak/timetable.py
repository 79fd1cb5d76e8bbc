"""The schedules of the load: some stay and are made due again and again, some are for once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from django.db import transaction
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import schedule

from soak.promises import KEYS, TIMETABLE, Missed, Notes, Overlap, Promise

FAR = timedelta(hours=1)
"""What is due later than that is not due within the soak: each of them is daily."""

MISSED = timedelta(minutes=2)
"""Over for so long, a time counts as missed."""


class Timetable:
    def __init__(self, choice: Random, notes: Notes, number: Callable[[], int]) -> None:
        self.choice, self.notes, self.number = choice, notes, number

    def declare(self) -> None:
        for name, entry in TIMETABLE.items():
            made = schedule(
                f"soak.tasks.{entry.task}", *self.arguments(entry.task), name=name, cluster=entry.queue,
                schedule_type=Schedule.DAILY, next_run=timezone.now() + 10 * FAR,
            )  # fmt: skip
            made.rules.change(overlap=entry.overlap, missed=entry.missed)

    def make_due(self) -> None:
        """Give one that was fired another number and time, as if somebody edited it, or as if nobody had been there."""
        name = self.choice.choice(["prune", *TIMETABLE])
        entry, row = TIMETABLE[name], Schedule.objects.get(name=name)
        if row.next_run < timezone.now() + FAR:
            return  # not fired yet
        is_missed = self.choice.random() < 0.25
        promise = Promise.KEPT
        if is_missed and entry.missed == Missed.SKIP:
            promise = Promise.MISSED
        elif entry.overlap == Overlap.SKIP or entry.task in KEYS:
            promise = Promise.OFFERED
        arguments = self.arguments(entry.task)
        row.next_run = timezone.now() - MISSED if is_missed else self.soon()
        row.args = repr(tuple(arguments))
        self.save(row.save, arguments[0], row.next_run, promise)

    def make_one_for_once(self) -> None:
        number, at = self.number(), self.soon()
        self.save(lambda: schedule("soak.tasks.quick", number, next_run=at), number, at, Promise.KEPT)

    def save(self, act: Callable[[], object], number: float, at: datetime, promise: Promise) -> None:
        self.notes.due[int(number)] = at
        self.notes.note([int(number)], Promise.IN_DOUBT)
        with transaction.atomic():
            act()
        self.notes.note([int(number)], promise)

    def soon(self) -> datetime:
        return timezone.now() + timedelta(seconds=self.choice.choice((0, 0, 0.5, 2.0)))

    def arguments(self, task: str) -> list[float]:
        given: list[float] = [self.number()]
        if task == "naps":
            given.append(round(self.choice.uniform(0, 1.5), 3))
        elif task in KEYS:
            given.append(self.choice.randrange(KEYS[task]))
        return given
