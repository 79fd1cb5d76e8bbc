"""SUBMIT: chains and groups of tasks, stored as one and settled as one.

    flow = chain(fetch.step(url), group(resize.step(PREVIOUS, size) for size in SIZES), publish.step(PREVIOUS))
    workflow = flow.enqueue(name="album", owner=user, on_failure="continue")

In a **chain** each step begins when the one before it has succeeded. The members of a **group** begin together, and
what comes after the group when all of them have ended. `PREVIOUS` as an argument becomes the result of what stands
before: of a step its return value, of a group the list of its members' results in their order, of a chain the result of
its last step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog
from tasks_app.engine import flow, workflow_statements
from tasks_app.engine.limits import declare
from tasks_app.engine.submit import CHUNK, Submission
from tasks_app.jsonable import storable
from tasks_app.models import OnFailure, Status, Workflow

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_RUNS = 10_000
"""In one workflow."""

MOST_PARTS = 3 * MOST_RUNS
"""Groups without members count as well: they make no runs, but have results."""

DEEPEST = 50
"""Levels of groups and chains in each other."""

NAME_LENGTH = 200


class Placeholder(Enum):
    """What stands for a value that is not there yet."""

    PREVIOUS = "PREVIOUS"

    def __repr__(self) -> str:
        return self.name


PREVIOUS = Placeholder.PREVIOUS
"""As an argument of a step: the result of what stands before it in its chain."""


class Flow:
    """Steps that belong together: one step, a chain or a group."""

    size: int
    """How many runs it makes."""
    weight: int
    """How many steps, chains and groups it consists of."""
    depth: int

    def enqueue(self, *, name: str = "", owner: User | None = None, on_failure: str = OnFailure.STOP) -> Workflow:
        """Store a workflow with all its runs, in the caller's own transaction, and start those that wait for nothing.

        `on_failure="stop"` cancels all that has not begun when a run fails or is cancelled; `"continue"` only what
        comes after it in its chain, and for what comes after its group its result is null. Raises `InvalidTaskError`.
        """
        if not isinstance(name, str) or len(name) > NAME_LENGTH:
            raise InvalidTaskError(f"The name of a workflow is a text of at most {NAME_LENGTH} characters.")
        if on_failure not in OnFailure.values:
            raise InvalidTaskError(f'on_failure is "stop" or "continue", not {on_failure!r}.')
        if not self.size:
            raise InvalidTaskError("A workflow needs a step.")
        layout = Layout(self)
        rows = [row_of(place) for place in layout.places]
        names = [row["task_path"].rpartition(".")[2] for row in rows]
        workflow = Workflow(
            name=storable(name or flow.told(layout.shape, names))[:NAME_LENGTH],
            on_failure=on_failure,
            owner=owner if owner and owner.pk else None,
            size=self.size,
            shape=layout.shape,
            status=Status.READY,
        )
        _store(workflow, rows)
        return workflow


@dataclass(frozen=True)
class Step(Flow):
    """One run to be, of a task with its arguments."""

    task: Task[..., Any] | Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    size: int = field(default=1, init=False)
    weight: int = field(default=1, init=False)
    depth: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for value in (*self.args, *self.kwargs.values()):
            if value is not PREVIOUS and holds_previous(value):
                raise InvalidTaskError("PREVIOUS stands for a whole argument, not for a part of one.")


@dataclass(frozen=True)
class Parts(Flow):
    """What chains and groups have in common."""

    parts: tuple[Flow, ...]
    size: int = field(init=False)
    weight: int = field(init=False)
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(part.size for part in self.parts))
        object.__setattr__(self, "weight", 1 + sum(part.weight for part in self.parts))
        object.__setattr__(self, "depth", 1 + max((part.depth for part in self.parts), default=0))
        if self.size > MOST_RUNS or self.weight > MOST_PARTS:
            raise InvalidTaskError(
                f"A workflow has at most {MOST_RUNS:,} runs, and with its chains and groups at most "
                f"{MOST_PARTS:,} parts."
            )
        if self.depth > DEEPEST:
            raise InvalidTaskError(f"Chains and groups stand in each other at most {DEEPEST} levels deep.")


class Chain(Parts):
    """One after the other."""


class Group(Parts):
    """All at once."""


def step(task: Task[..., Any] | Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Step:
    """One step of a workflow: a task, a plain function or the dotted path of one, with its arguments.

    Raises `InvalidTaskError`.
    """
    try:
        found = catalog.find(catalog.path_of(task))
    except catalog.UnknownTask as error:
        raise InvalidTaskError(str(error)) from error
    # The task as it was given, because it may have options of its own from `.using()`.
    return Step(task if isinstance(task, Task) else found if isinstance(found, Task) else task, args, kwargs)


def chain(*parts: Flow | Iterable[Flow]) -> Chain:
    """Each when the one before it has succeeded; raises `InvalidTaskError`."""
    given = _parts("chain", parts)
    # A chain within a chain is the same as its steps.
    return Chain(tuple(inner for part in given for inner in (part.parts if isinstance(part, Chain) else [part])))


def group(*parts: Flow | Iterable[Flow], then: Flow | None = None) -> Flow:
    """All at once, and `then` when the last of them has ended; raises `InvalidTaskError`."""
    members = Group(tuple(_parts("group", parts)))
    return members if then is None else chain(members, then)


def _parts(kind: str, given: tuple[Any, ...]) -> list[Flow]:
    """The parts themselves, or one iterable of them."""
    if len(given) == 1 and isinstance(given[0], Iterable) and not isinstance(given[0], str | bytes | Mapping):
        given = tuple(islice(given[0], MOST_RUNS + 1))
    for part in given:
        if isinstance(part, Task):
            raise InvalidTaskError(f"A {kind} is made of steps: write {part.name}.step(...) with its arguments.")
        if not isinstance(part, Flow):
            raise InvalidTaskError(f"A {kind} is made of steps, chains and groups, not of {part!r:.200}.")
    return list(given)


def holds_previous(value: Any) -> bool:
    """True when PREVIOUS stands somewhere in it, however deep; it may contain itself."""
    left, seen = [value], set()
    while left:
        inner = left.pop()
        if inner is PREVIOUS:
            return True
        if isinstance(inner, Mapping | list | tuple | set | frozenset) and id(inner) not in seen:
            seen.add(id(inner))
            left += [*inner.keys(), *inner.values()] if isinstance(inner, Mapping) else inner
    return False


# From parts to rows


@dataclass(frozen=True)
class Place:
    """Where a step stands in its workflow."""

    step: Step
    waits_for: tuple[int, int] | None
    """The first and the last of the steps just before it; None for one that begins at once."""
    has_before: bool
    """Something stands before it in a chain."""
    given: Any
    """The result of that, if it is known already: of groups without members."""


class Layout:
    """The steps in the order in which they are written, which is that of their numbers."""

    def __init__(self, whole: Flow) -> None:
        self.places: list[Place] = []
        self.shape = self._lay_out(whole, None, None, has_before=False)

    def _lay_out(
        self, part: Flow, waits_for: tuple[int, int] | None, before: flow.Shape, *, has_before: bool
    ) -> flow.Shape:
        first = len(self.places)
        if isinstance(part, Step):
            given = flow.value_of(before, {}) if has_before and waits_for is None else None
            self.places.append(Place(part, waits_for, has_before, given))
            return first
        assert isinstance(part, Parts)
        if isinstance(part, Group):
            return {"group": [self._lay_out(inner, waits_for, before, has_before=has_before) for inner in part.parts]}
        elements: list[flow.Shape] = []
        for inner in part.parts:
            first = len(self.places)
            before = self._lay_out(inner, waits_for, before, has_before=has_before)
            elements.append(before)
            has_before = True
            if inner.size:
                waits_for = (first, len(self.places) - 1)
        return {"chain": elements}


def row_of(place: Place) -> dict[str, Any]:
    """A run's columns; raises `InvalidTaskError`."""
    step, waits = place.step, place.waits_for
    positions = [number for number, value in enumerate(step.args) if value is PREVIOUS]
    names = [name for name, value in step.kwargs.items() if value is PREVIOUS]
    if (positions or names) and not place.has_before:
        raise InvalidTaskError("Nothing stands before the first step of a chain, so it has no PREVIOUS.")
    submission = submission_of(step.task)
    if submission.wishes and submission.wishes.is_unsteady:
        name = submission.task_path.rpartition(".")[2]
        raise InvalidTaskError(f"A step of a workflow can neither be unique nor expire, as {name} may.")
    submission.args = [place.given if value is PREVIOUS else value for value in step.args]
    submission.kwargs = {name: place.given if value is PREVIOUS else value for name, value in step.kwargs.items()}
    previous: dict[str, Any] | None = None
    if waits is not None:
        previous = {"first": waits[0], "last": waits[1]}
        if positions or names:
            previous |= {"args": positions, "kwargs": names}
        if submission.run_after is not None:
            previous["has_own_time"] = True
    return {**submission.columns(), "previous": json.dumps(previous) if previous else None}


def submission_of(task: Task[..., Any] | Callable[..., Any] | str) -> Submission:
    """What the task's own options make of a run, whatever backend it was written for."""
    from tasks_app.backend import PostgresBackend

    if not isinstance(task, Task):
        return Submission(task_path=catalog.path_of(task))
    backend = task.get_backend()
    if isinstance(backend, PostgresBackend):
        return backend.submission(task)
    return Submission(task_path=task.module_path, priority=task.priority, run_after=task.run_after)


COLUMNS = (
    "id", "task_path", "args", "kwargs", "queue_name", "priority", "run_after", "max_attempts", "timeout", "previous",
    "limit_key", "about",
)  # fmt: skip


def _store(workflow: Workflow, rows: list[dict[str, Any]]) -> None:
    """All of it or, raising a database error, nothing; the numbers of the steps are those of the rows."""
    owner: int | None = workflow.owner.pk if workflow.owner else None
    for path, limits in {row["task_path"]: row["limits"] for row in rows if row["limits"]}.items():
        declare(path, limits)
    with transaction.atomic(DEFAULT_DB_ALIAS), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        about: dict[str, Any] = {"name": workflow.name, "on_failure": workflow.on_failure, "size": workflow.size}
        shape = json.dumps(workflow.shape)
        cursor.execute(workflow_statements.START, {"id": workflow.pk, "owner": owner, "shape": shape, **about})
        (workflow.enqueued_at,) = cursor.fetchone()
        own: dict[str, Any] = {"workflow": workflow.pk, "owner": owner, "now": workflow.enqueued_at}
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK]
            columns: dict[str, Any] = {name: [row[name] for row in chunk] for name in COLUMNS}
            columns["step"] = list(range(first, first + len(chunk)))
            cursor.execute(workflow_statements.ENQUEUE, {**own, **columns})
    workflow._state.adding = False
    workflow._state.db = DEFAULT_DB_ALIAS
