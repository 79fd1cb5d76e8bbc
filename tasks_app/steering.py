"""STEER: what one person may do to one run, and why not the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.http import HttpRequest

from tasks_app import catalog, wording
from tasks_app.access import may
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import UNFINISHED
from tasks_app.powers import CANCEL, CHANGE, DELETE, NEEDED, RETRY, may_steer
from tasks_app.signature import find_launchable
from tasks_app.why import Kins

LAUNCH = "tasks_app.add_taskrun"
"""Whoever has it may start any task with arguments of their own choice. Seeing all runs, as staff does, is not enough:
what a task does with its arguments is up to the task."""


@dataclass(frozen=True)
class Offer:
    """A thing to do: forbidden where there is a reason."""

    why_not: str = ""

    @property
    def is_open(self) -> bool:
        return not self.why_not


class Steering:
    """The buttons of a run's page."""

    def __init__(self, request: HttpRequest, run: TaskRun, kin: Kins) -> None:
        self.request, self.run, self.kin = request, run, kin

    def _offer(self, act: str, why_not: str) -> Offer:
        if why_not:
            return Offer(why_not)
        return Offer("" if may_steer(self.request.user, self.run, act) else NEEDED[act])

    @cached_property
    def cancel(self) -> Offer:
        run = self.run
        if run.finished_at:
            return Offer(f"Already ended at {wording.clock_seconds(run.finished_at)}.")
        if run.cancel_requested_at:
            return Offer(f"Its worker was told to stop it at {wording.clock_seconds(run.cancel_requested_at)}.")
        return self._offer(CANCEL, "")

    @cached_property
    def retry(self) -> Offer:
        run = self.run
        if not run.is_finished:
            return Offer("It has not ended yet.")
        if run.previous is not None and run.is_waiting is not None:
            return Offer("It never got the results that it waited for.")
        if any(other.status in UNFINISHED for other in self.kin.get("retry", ())):
            return Offer("A retry of it goes on.")
        return self._offer(RETRY, "")

    @property
    def is_main(self) -> bool:
        """To do it over is what one comes for, most of the time."""
        return self.run.status in (Status.FAILED, Status.CANCELLED)

    @cached_property
    def again(self) -> Offer:
        try:
            find_launchable(self.run.task_path)
        except catalog.UnknownTask as unknown:
            return Offer(str(unknown))
        return Offer("" if may(self.request, LAUNCH) else "That needs the permission to add runs.")

    @cached_property
    def change(self) -> Offer:
        if self.run.is_finished:
            return Offer("It has ended.")
        if self.run.claimed_by:
            return Offer("A worker has it already.")
        return self._offer(CHANGE, "")

    @cached_property
    def delete(self) -> Offer:
        return self._offer(DELETE, "" if self.run.is_finished else "Only what has ended can be deleted.")
