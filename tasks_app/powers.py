"""STEER: who may do what to which runs. It asks for the person alone, so that a worker can ask it as well as a page."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from django.conf import settings

from tasks_app.live import Viewer
from tasks_app.models import TaskRun, TaskRunQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

Person: TypeAlias = "User | AnonymousUser"

RETRY, CANCEL, DELETE, CHANGE = (f"tasks_app.{verb}_taskrun" for verb in ("retry", "cancel", "delete", "change"))

FOR_OWNERS = (RETRY, CANCEL)
"""Whoever sent a run down may do this to it without any permission."""

NEEDED = {
    RETRY: "That needs the permission to retry runs.",
    CANCEL: "That needs the permission to cancel runs.",
    DELETE: "That needs the permission to delete runs.",
    CHANGE: "That needs the permission to change runs.",
}

ASKS_FIRST = "It is not cancelled yet: a worker has it by now, or steps of a workflow wait for it. Cancel asks first."
"""Said where it was cancelled unasked, from a page that did not know."""


class Reach(Enum):
    """To whose runs somebody may do a thing."""

    NOBODYS = "nobody's"
    OWN = "own"
    ALL = "all"


def reach(person: Person, permission: str) -> Reach:
    """Operators with the permission reach all runs, and others their own; a guest of open access may do all."""
    if not person.is_authenticated:
        return Reach.ALL if is_open() else Reach.NOBODYS
    if not person.is_active:
        return Reach.NOBODYS
    if person.has_perm(permission):
        return Reach.ALL if person.is_staff else Reach.OWN
    return Reach.OWN if permission in FOR_OWNERS else Reach.NOBODYS


def may_steer(person: Person, run: TaskRun, permission: str) -> bool:
    """Whether this person may do that to this run."""
    found = reach(person, permission)
    return found is Reach.ALL or (found is Reach.OWN and run.owner_id == person.pk)


def is_open() -> bool:
    """Whether there are guests who may do all: no request of one gets far that is not from this very machine."""
    return bool(settings.OPEN_ACCESS and settings.DEBUG)


def viewer_of(person: Person) -> Viewer:
    """What this person may see, as lists of runs ask for it."""
    return Viewer(person.pk, bool(person.is_staff) or (not person.is_authenticated and is_open()))


def within(person: Person, permission: str, runs: TaskRunQuerySet | None = None) -> TaskRunQuerySet:
    """Those of the runs, or of all there are, to which this person may do it."""
    found = TaskRun.objects.all() if runs is None else runs
    match reach(person, permission):
        case Reach.ALL:
            return found
        case Reach.OWN:
            return found.owned_by(person)
    return found.none()
