"""What people do to runs that are there: one verb for one run, or for many at once, whatever became of them."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from random import Random

from django.utils import timezone

from soak.promises import QUEUES, ROUGH, Notes
from tasks_app.models import Status, TaskRun, Workflow
from tasks_app.retention import prune

ONCE_MORE = "The soak wished it once more."
"""Why a run by itself is sent again, also if its retry has ended."""

MANY_ONCE_MORE = "The soak wished them once more."


class Steering:
    def __init__(self, choice: Random, notes: Notes) -> None:
        self.choice, self.notes = choice, notes
        self.recent: deque[uuid.UUID] = deque(maxlen=300)
        self.recent_flows: deque[uuid.UUID] = deque(maxlen=20)

    def some(self, least: int, most: int) -> list[uuid.UUID]:
        return self.choice.sample(list(self.recent), min(len(self.recent), self.choice.randint(least, most)))

    # One

    def cancel(self) -> None:
        for run_id in self.some(1, 3):
            self.notes.wished.add(run_id)
            TaskRun(pk=run_id).cancel("The soak wished it ended.")

    def cancel_a_workflow(self) -> None:
        if self.recent_flows:
            flow = self.recent_flows.pop()
            self.notes.wished_flows.add(flow)
            Workflow(pk=flow).cancel("The soak wished it ended.")

    def retry(self) -> None:
        """Again and again, as far as the newest retry has ended; what comes of it is sent once more, too."""
        for run_id in self.ended_badly()[:2]:
            if again := TaskRun(pk=run_id).retry(ONCE_MORE):
                self.recent.append(again.pk)

    def delete(self) -> None:
        for run_id in self.deletable(2):
            TaskRun(pk=run_id).delete_run("The soak wished it away.")

    # Many

    def steer_many(self) -> None:
        verbs: list[Callable[[], None]] = [
            self.cancel_many, self.retry_many, self.delete_many, self.hurry_many, self.move_many, self.postpone_many
        ]  # fmt: skip
        self.choice.choice(verbs)()

    def cancel_many(self) -> None:
        ids = self.some(2, 3)
        self.notes.wished.update(ids)
        TaskRun.objects.filter(pk__in=ids).cancel(why="The soak wished them ended.")

    def retry_many(self) -> None:
        """Above all what ended badly, retries among them, and twice, because of each only one retry may come of it."""
        wished = [*self.some(2, 3), *self.ended_badly()[:3]]
        wished += TaskRun.objects.failed().filter(retry_of__in=wished).values_list("pk", flat=True)
        for _ in range(2):
            runs = TaskRun.objects.filter(pk__in=wished)
            runs.retry(why=MANY_ONCE_MORE, successful_too=self.choice.random() < 0.5)

    def delete_many(self) -> None:
        TaskRun.objects.filter(pk__in=self.deletable(6)).delete_runs(why="The soak wished them away.")

    def hurry_many(self) -> None:
        TaskRun.objects.filter(pk__in=self.some(2, 20)).set_priority(self.choice.randint(-20, 20))

    def move_many(self) -> None:
        """But for those that would harm the cluster whose memory is watched."""
        runs = TaskRun.objects.filter(pk__in=self.some(2, 20)).exclude(task_path__in=ROUGH)
        runs.move_to(self.choice.choice(QUEUES))

    def postpone_many(self) -> None:
        """Or have them run at once."""
        moment = timezone.now() + timedelta(seconds=self.choice.uniform(0.2, 2)) if self.choice.random() < 0.5 else None
        TaskRun.objects.filter(pk__in=self.some(2, 20)).run_at(moment)

    def prune(self) -> None:
        """As `manage.py prune_runs` does, beside the schedule's."""
        prune(why="The soak")

    def deletable(self, most: int) -> list[uuid.UUID]:
        """Not what was sent with a key of its own, which would be free again."""
        runs = TaskRun.objects.filter(pk__in=self.some(1, most), idempotency_key=None)
        ids = list(runs.order_by("pk").values_list("pk", flat=True))
        self.notes.wished_gone.update(ids)
        return ids

    def ended_badly(self) -> list[uuid.UUID]:
        bad = TaskRun.objects.filter(pk__in=list(self.recent), status__in=(Status.FAILED, Status.CANCELLED))
        ids = list(bad.order_by("pk").values_list("pk", flat=True))
        self.choice.shuffle(ids)
        return ids
