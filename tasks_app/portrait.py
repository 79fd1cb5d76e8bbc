"""WATCH: everything that the page of one run shows."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property

from django.db.models import JSONField, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left

from tasks_app import wording
from tasks_app.audit import Deed, deeds_done_to
from tasks_app.board import Row
from tasks_app.circumstances import Circumstances, look
from tasks_app.files import RunFile, files_of, told
from tasks_app.kin import Kin, kin_of
from tasks_app.life import Life, has_failed
from tasks_app.masking import masked, masked_call
from tasks_app.models import Status, TaskRun, TaskRunQuerySet
from tasks_app.models.run import Attempt
from tasks_app.policies import Holds
from tasks_app.tracebacks import Traceback
from tasks_app.usual import DAYS, Usual, usual
from tasks_app.values import READ, Shown, call_of, loaded
from tasks_app.why import Why, why

TRACED = 20
"""The newest attempts come with their tracebacks; of the others only the message is read."""

DEEDS = 20
HEAVY = ("args", "kwargs", "return_value")

ATTEMPTS = f"""(
  SELECT coalesce(jsonb_agg(CASE WHEN place > jsonb_array_length(tasks_app_taskrun.attempts) - {TRACED} THEN entry
    ELSE (entry - 'traceback') || jsonb_build_object('message', left(entry->>'message', 500)) END ORDER BY place), '[]')
  FROM jsonb_array_elements(tasks_app_taskrun.attempts) WITH ORDINALITY AS own(entry, place))"""  # noqa: S608


def readable() -> TaskRunQuerySet:
    """Runs with what a page shows of them: never more than so much of each value, which may be a megabyte."""
    beginnings = {f"{name}_read": Left(Cast(name, TextField()), READ + 1) for name in HEAVY}
    runs: TaskRunQuerySet = (
        TaskRun.objects.select_related("owner", "workflow", "schedule", "failure_group")
        .defer(*HEAVY, "attempts")
        .annotate(**beginnings, attempts_read=RawSQL(ATTEMPTS, (), JSONField()))  # noqa: S611  no part is anybody's
    )
    return runs


class Portrait:
    """One run at one moment, for somebody who may see the `visible` ones; an own one may be read by `readable`."""

    def __init__(
        self, run: TaskRun, visible: TaskRunQuerySet | None = None, around: Circumstances | None = None
    ) -> None:
        self.run = run
        for name in HEAVY:
            if f"{name}_read" in run.__dict__:
                run.__dict__[name] = loaded(run.__dict__[f"{name}_read"])
        if "attempts_read" in run.__dict__:
            run.__dict__["attempts"] = run.__dict__["attempts_read"]
        around = around or look(run.pk)
        assert around, "a run that is gone has no portrait"
        self.around, self.now = around, around.now
        self.visible = TaskRun.objects.all() if visible is None else visible
        self.life = Life(run, self.now, self.usual)

    # What is usual

    @cached_property
    def usual(self) -> Usual:
        return usual([self.run.task_path], self.now)[self.run.task_path]

    usual_days = DAYS

    @property
    def slowness(self) -> str:
        """`4 times longer than usual`, for a run that goes on beyond what is usual; else empty."""
        spent = self.run.run_time(self.now)
        if self.run.status != Status.RUNNING or spent is None:
            return ""
        factor = self.usual.slowness(spent.total_seconds())
        return (
            f"{factor:.0f} times longer than usual" if factor and factor >= 2 else "longer than usual" if factor else ""
        )

    # Why it stands there

    @cached_property
    def holds(self) -> Holds | None:
        return Holds([self.run], self.now) if self.around.has_policies else None

    @cached_property
    def kin(self) -> dict[str, list[Kin]]:
        return kin_of(self.run, self.visible, self._asks_for())

    @property
    def has_kin(self) -> bool:
        """Whether there is anything to be told of where it comes from and leads to."""
        run = self.run
        own = (run.schedule_name, run.workflow_id, run.retry_of_id, run.again_of_id)
        return any(own) or any(kind != "at_work" for kind in self.kin)

    def _asks_for(self) -> str:
        if self.holds and (full := self.holds.full(self.run)):
            return full.what
        is_in_line = self.around.ahead is not None or self.run.limit_key
        return "workers" if is_in_line and self.around.all_busy and self.run.state == "ready" else ""

    @cached_property
    def why(self) -> Why:
        held = self.holds.why(self.run) if self.holds else None
        return why(self.run, self.around, held, self.kin)

    @property
    def banner(self) -> str:
        """How much the reason weighs: the modifier of its banner, none where the rest of the page says it all."""
        if self.run.status == Status.FAILED:
            return "failed"
        if self.run.cancel_requested_at and not self.run.is_finished:
            return "plain"
        if self.run.status == Status.READY:
            return "lost" if self.why.is_grave else "live"
        return "plain" if self.run.status == Status.CANCELLED else ""

    @property
    def alike(self) -> int:
        """How many other runs failed like this one, as far as they were counted."""
        group = self.run.failure_group
        return max(group.count - 1, 0) if group else 0

    # What came of it

    @cached_property
    def row(self) -> Row:
        return Row(self.run, self.now, None, self.around.is_served)

    @property
    def ends_at(self) -> datetime | None:
        """When it will have ended, as far as that can be guessed."""
        return self.now + left if (left := self.life.time_left) else None

    @cached_property
    def arguments(self) -> Shown:
        return Shown.of(call_of(*masked_call(self.run.task_path, self.run.args, self.run.kwargs)))

    @cached_property
    def result(self) -> Shown:
        return Shown.of(masked(self.run.return_value))

    @property
    def last_try(self) -> Attempt | None:
        """The attempt that ended the run, where it failed and left a traceback."""
        tries = self.life.tries
        return tries[-1] if self.run.status == Status.FAILED and tries and tries[-1].traceback else None

    @property
    def last_trace(self) -> Traceback | None:
        return Traceback.read(self.last_try.traceback) if self.last_try else None

    @property
    def earlier_tries(self) -> list[tuple[Attempt, Traceback]]:
        """The newest attempts that did not succeed, without the one that has a card of its own."""
        tries = [attempt for attempt in self.life.tries if has_failed(attempt) and attempt != self.last_try]
        return [(attempt, Traceback.read(attempt.traceback)) for attempt in tries[-TRACED:]]

    @property
    def files_told(self) -> str:
        return told(self.files)

    @property
    def files(self) -> list[RunFile]:
        return files_of(self.run.return_value)

    @property
    def wait_time(self) -> timedelta:
        """From enqueue to the first start."""
        return self.run.wait_time(self.now)

    # Who did what to it

    @cached_property
    def deeds(self) -> list[Deed]:
        return deeds_done_to(self.run.pk, DEEDS)

    # In words

    @property
    def name(self) -> str:
        return wording.visible(self.run.name)
