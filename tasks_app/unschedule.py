"""STEER: the deletion of a schedule, as a run of its own like a bulk act: it begins a moment later, so that it can be
undone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import transaction

from tasks_app import audit, powers, wording
from tasks_app.audit import Actor, By, actor_of, readable
from tasks_app.bulk import UNDO_SECONDS, BadOrder
from tasks_app.clock import database_now
from tasks_app.deeds import REMOVALS
from tasks_app.engine.context import RunContext
from tasks_app.engine.schedules import Schedule, title_of
from tasks_app.models import TaskRun
from tasks_app.powers import Person, Reach

PERMISSION = "django_q.delete_schedule"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A wish, as the arguments of its run have it: whose it is says the run's owner."""

    schedule: int
    title: str
    """As the one who wished was told."""
    address: str | None = None
    """Where the wish came from, for the audit."""

    def __str__(self) -> str:
        return f"Delete: the schedule {self.title}"


def path() -> str:
    """The task by which it is done."""
    return REMOVALS


def send(by: By, schedule: Schedule) -> TaskRun:
    """Wish it deleted; answers the run that will do it in `UNDO_SECONDS`, or the one that was wished for already."""
    from tasks_app.forms import backend
    from tasks_app.tasks.schedules import delete_schedule

    actor = actor_of(by)
    removal = Removal(schedule=schedule.pk, title=title_of(schedule), address=actor.address)
    task = delete_schedule.using(run_after=database_now() + timedelta(seconds=UNDO_SECONDS))
    return backend().enqueue_run(task, [], asdict(removal), owner=actor.user)


def perform(context: RunContext, removal: Removal) -> dict[str, Any]:
    """What the run does, with the permissions that its owner has now; raises `BadOrder` without them."""
    run = TaskRun.objects.select_related("owner").get(pk=context.run_id)
    person: Person = run.owner or AnonymousUser()
    if powers.reach(person, PERMISSION) is not Reach.ALL:
        raise BadOrder("That needs the permission to delete schedules.")
    by = Actor(run.owner, person.get_username() or "a guest", readable(removal.address or ""))
    title = wording.visible(removal.title)
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().filter(pk=removal.schedule).first()
        if schedule is None:
            return {"told": f"The schedule {title} is not there any more."}
        audit.record("delete", subject=f"schedule {title_of(schedule)}", by=by, act=run.pk)
        schedule.delete()
    return {"told": f"The schedule {title} is deleted. Its runs stay."}
