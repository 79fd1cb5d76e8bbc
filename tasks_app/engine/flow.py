"""What follows from the states of a workflow's runs: pure, so that every course of things can be tried out.

A shape is a step number, `{"chain": [shapes]}` or `{"group": [shapes]}`. In a chain each waits for the one before it;
the members of a group wait for nothing but what stands before the group. A chain is never an element of a chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Shape = Any
"""`int | dict[str, list[Shape]]`, as JSON has it."""

WAITING, ASKING, READY, HELD, TOLD, SUCCESSFUL, FAILED, CANCELLED = "WARHTSFC"
"""How a run stands: waiting for earlier ones, the same and asking for their results, free to be claimed, held by a
worker, held and told to stop, or final."""

BEFORE = {WAITING, ASKING}
BAD = {FAILED, CANCELLED}
FINAL = {SUCCESSFUL, *BAD}

States = Mapping[int, str]


@dataclass
class Decision:
    """What has to be done now."""

    release: list[tuple[Shape, list[int]]] = field(default_factory=list)
    """What stands before them and has ended, and the steps that may begin."""
    cancel: dict[int, int | None] = field(default_factory=dict)
    """The steps that are not to begin any more, each with the step because of which; None when somebody wished it."""
    tell: list[int] = field(default_factory=list)
    """The steps whose workers are to be told to stop."""
    cause: int | None = None
    """The step because of which the workflow does not succeed, as far as one is known."""
    outcome: str | None = None
    """SUCCESSFUL, FAILED or CANCELLED once every run is final."""

    def __bool__(self) -> bool:
        return bool(self.release or self.cancel or self.tell)


def decide(shape: Shape, states: States, *, goes_on: bool, is_cancelled: bool) -> Decision:
    """What follows; `goes_on` after a failure wherever the failed run is not needed, else all that has not begun ends.

    A step that `states` does not have is gone: it counts as cancelled.
    """
    decision = Decision(cause=first(states, FAILED) if FAILED in states.values() else first(states, CANCELLED))
    if all(state in FINAL for state in states.values()):
        decision.cause = None if is_cancelled else decision.cause
        decision.outcome = SUCCESSFUL if has_succeeded(shape, states) else CANCELLED if is_cancelled else FAILED
    elif is_cancelled or (decision.cause is not None and not goes_on):
        because = None if is_cancelled else decision.cause
        decision.cancel = {step: because for step, state in states.items() if state in {*BEFORE, READY}}
        decision.tell = [step for step, state in states.items() if state == HELD] if is_cancelled else []
    else:
        _visit(shape, None, None, states, decision)
    return decision


def _visit(shape: Shape, before: Shape, broken: int | None, states: States, decision: Decision) -> str | int:
    """Note what is to be done in this part, which may begin, or may never if a step before it is `broken`.

    Answers READY while something in it goes on, SUCCESSFUL when what comes after it may begin, else the broken step.
    """
    if isinstance(shape, int):
        state = states.get(shape, CANCELLED)
        if state in BEFORE and broken is not None:
            decision.cancel[shape] = broken
        elif state in BEFORE:
            if not decision.release or decision.release[-1][0] is not before:
                decision.release.append((before, []))
            decision.release[-1][1].append(shape)
        return shape if state in BAD else SUCCESSFUL if state == SUCCESSFUL else READY
    if "group" in shape:
        ends = [_visit(member, before, broken, states, decision) for member in shape["group"]]
        return READY if READY in ends else SUCCESSFUL
    has_ended = True
    for element in shape["chain"]:
        end = _visit(element, before, broken, states, decision)
        if isinstance(end, int):
            broken = end if broken is None else broken
        elif end == READY and broken is None:
            return READY
        elif end == READY:  # it is cancelled now, and what follows comes with the news of that
            has_ended = False
        before = element
    return READY if not has_ended else SUCCESSFUL if broken is None else broken


def first(states: States, state: str) -> int | None:
    """The lowest step that stands so."""
    return min((step for step, found in states.items() if found == state), default=None)


def steps_of(shape: Shape) -> Iterator[int]:
    if isinstance(shape, int):
        yield shape
        return
    for part in shape.get("group") or shape.get("chain") or ():
        yield from steps_of(part)


def has_succeeded(shape: Shape, states: States) -> bool:
    """The last steps did, whatever became of members of a group on the way."""
    if isinstance(shape, int):
        return states.get(shape) == SUCCESSFUL
    if "group" in shape:
        return all(has_succeeded(member, states) for member in shape["group"])
    last = next((element for element in reversed(shape["chain"]) if any(True for _ in steps_of(element))), None)
    return last is None or has_succeeded(last, states)


def _is_broken(shape: Shape, states: States) -> bool:
    """It has no result: a group always has one, with null for a member without."""
    if isinstance(shape, int):
        return states.get(shape) != SUCCESSFUL
    return "chain" in shape and any(_is_broken(element, states) for element in shape["chain"])


def value_of(shape: Shape, states: States) -> Any:
    """Where the result of this part is: a step, None where there is none, or for a group a list of such."""
    if _is_broken(shape, states):
        return None
    if isinstance(shape, int):
        return shape
    if "group" in shape:
        return [value_of(member, states) for member in shape["group"]]
    return value_of(shape["chain"][-1], states) if shape["chain"] else None


def steps_in(value: Any) -> list[int]:
    """The steps whose results a value of `value_of` is made of."""
    if isinstance(value, list):
        return [step for inner in value for step in steps_in(inner)]
    return [] if value is None else [value]


def filled(value: Any, results: Mapping[int, str]) -> str:
    """A value of `value_of` as JSON text, with these results as JSON texts."""
    if isinstance(value, list):
        return f"[{','.join(filled(inner, results) for inner in value)}]"
    return results.get(value) or "null"


def put_in(value: Any, results: Mapping[int, Any]) -> Any:
    """The same with results that were read already."""
    if isinstance(value, list):
        return [put_in(inner, results) for inner in value]
    return results.get(value)


def told(shape: Shape, names: Sequence[str]) -> str:
    """`fetch, 3 x resize, publish`: the steps in words."""
    runs: list[list[Any]] = []
    for step in steps_of(shape):
        if runs and runs[-1][0] == names[step]:
            runs[-1][1] += 1
        else:
            runs.append([names[step], 1])
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in runs)
