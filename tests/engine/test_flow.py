"""The decision what follows in a workflow, over random flows, outcomes and orders."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks_app.engine import flow
from tasks_app.workflows import PREVIOUS, Flow, Layout, chain, group
from tests import flows

FINAL = {"S", "F", "C"}


def parts() -> st.SearchStrategy[Flow]:
    step = st.builds(lambda: flows.adds.step(1))
    return st.recursive(
        step,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=4).map(chain), st.lists(inner, max_size=4).map(group)
        ),
        max_leaves=12,
    ).filter(lambda part: part.size > 0)


def befores(shape: Any, step: int, found: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
    """Everything that stands before a step in the chains around it, the outermost first."""
    if isinstance(shape, int):
        return found if shape == step else None
    for number, part in enumerate(shape.get("chain", ())):
        inner = befores(part, step, (*found, *shape["chain"][:number]))
        if inner is not None:
            return inner
    return next((inner for part in shape.get("group", ()) if (inner := befores(part, step, found)) is not None), None)


def all_steps(shape: Any) -> list[int]:
    return (
        [shape] if isinstance(shape, int) else [step for part in next(iter(shape.values())) for step in all_steps(part)]
    )


def lasts(shape: Any) -> list[int]:
    """The steps that nothing comes after."""
    if isinstance(shape, int):
        return [shape]
    if "group" in shape:
        return [step for part in shape["group"] for step in lasts(part)]
    return next((lasts(part) for part in reversed(shape["chain"]) if all_steps(part)), [])


class Play:
    """A workflow whose workers, users and sentinels do whatever chance says."""

    def __init__(self, chance: random.Random, part: Flow, *, goes_on: bool) -> None:
        self.chance, self.goes_on = chance, goes_on
        self.shape = Layout(part).shape
        self.states = {
            step: "R" if not any(all_steps(before) for before in befores(self.shape, step) or ()) else "W"
            for step in range(part.size)
        }
        self.is_cancelled = False
        self.by_hand: set[int] = set()
        self.settled: list[str] = []

    def play(self) -> None:
        for _ in range(2_000):
            if self.settled:
                return
            move = self.chance.choice(["decide", "decide", "claim", "claim", "end", "end", "meddle"])
            getattr(self, move)()
        pytest.fail(f"It does not come to an end: {self.shape} {self.states}")

    def some(self, *states: str) -> int | None:
        found = [step for step, state in self.states.items() if state in states]
        return self.chance.choice(found) if found else None

    def claim(self) -> None:
        if (step := self.some("R")) is not None:
            self.states[step] = "H"

    def end(self) -> None:
        step = self.some("H", "T")
        if step is not None:
            self.states[step] = self.chance.choice("SSSF" if self.states[step] == "H" else "SC")

    def meddle(self) -> None:
        """Seldom: somebody cancels a run, or all of it."""
        what = self.chance.randrange(20)
        if what == 0 and (step := self.some("W", "R")) is not None:
            self.states[step] = "C"
            self.by_hand.add(step)
        elif what == 1:
            self.is_cancelled = True

    def decide(self) -> None:
        """Carried out as a whole, or in part: what is locked, or too much at once, comes with the next look."""
        decision = flow.decide(self.shape, self.states, goes_on=self.goes_on, is_cancelled=self.is_cancelled)
        alive = [step for step, state in self.states.items() if state in {"R", "H", "T"}]
        assert decision or alive or decision.outcome, "stuck"
        if decision.outcome is not None:
            assert set(self.states.values()) <= FINAL
            assert not decision
            self.settled.append(decision.outcome)
        else:
            assert set(self.states.values()) - FINAL
        in_part = self.chance.random() < 0.5
        for before, steps in decision.release:
            for step in steps:
                assert self.states[step] == "W"
                self.assert_may_begin(step)
                assert before is list(befores(self.shape, step) or ())[-1]
        for step, cause in decision.cancel.items():
            assert self.states[step] in {"W", "R"}
            self.assert_may_not_begin(step, cause)
        assert all(self.states[step] == "H" and self.is_cancelled for step in decision.tell)
        for step in [step for _, steps in decision.release for step in steps]:
            if not in_part or self.chance.random() < 0.5:
                self.states[step] = "R"
        for step in decision.cancel:
            if not in_part or self.chance.random() < 0.5:
                self.states[step] = "C"
        for step in decision.tell:
            self.states[step] = "T"

    def assert_may_begin(self, step: int) -> None:
        assert not self.is_cancelled
        for before in befores(self.shape, step) or ():
            ended = {self.states[earlier] for earlier in all_steps(before)}
            assert ended <= FINAL
            if isinstance(before, int) or not self.goes_on:
                assert ended <= {"S"}

    def assert_may_not_begin(self, step: int, cause: int | None) -> None:
        bad = {earlier for earlier, state in self.states.items() if state in {"F", "C"}}
        if self.is_cancelled:
            assert cause is None
        elif not self.goes_on:
            assert bad
        else:
            assert cause in bad
            assert cause in (befores(self.shape, step) or ())


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(part=parts(), goes_on=st.booleans(), seed=st.integers(0, 2**32))
def test_every_run_ends_once_and_none_begins_before_its_time(part: Flow, goes_on: bool, seed: int) -> None:
    play = Play(random.Random(seed), part, goes_on=goes_on)

    play.play()

    ends = {play.states[step] for step in lasts(play.shape)}
    broken = any(
        isinstance(before, int) and play.states[before] != "S"
        for step in lasts(play.shape)
        for before in befores(play.shape, step) or ()
    )
    expected = "S" if ends == {"S"} and not broken else "C" if play.is_cancelled else "F"
    assert play.settled == [expected]
    if set(play.states.values()) == {"S"}:
        assert play.settled == ["S"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(part=parts())
def test_a_step_waits_for_the_steps_just_before_it(part: Flow) -> None:
    layout = Layout(part)

    assert list(flow.steps_of(layout.shape)) == list(range(part.size))
    for step, place in enumerate(layout.places):
        before = [part for part in befores(layout.shape, step) or () if all_steps(part)]
        expected = (min(all_steps(before[-1])), max(all_steps(before[-1]))) if before else None
        assert place.waits_for == expected


@pytest.mark.parametrize(
    ("shape", "states", "value"),
    [
        (0, "S", 0),
        (0, "F", None),
        ({"group": []}, "", []),
        ({"group": [0, 1, 2]}, "SFS", [0, None, 2]),
        ({"chain": [0, {"group": [1, {"group": [2, 3]}]}]}, "SSSC", [1, [2, None]]),
        ({"chain": [0, {"group": [1, 2]}]}, "FCC", None),
        ({"group": [{"chain": [0, 1]}, {"chain": [2, {"group": [3, 4]}]}]}, "SSSSF", [1, [3, None]]),
        ({"group": [{"chain": [0, 1]}, {"chain": [2, 3]}]}, "SSFC", [1, None]),
        ({"chain": [0, {"group": []}]}, "S", []),
    ],
)
def test_the_value_of_a_part_is_that_of_its_last_steps(shape: Any, states: str, value: Any) -> None:
    assert flow.value_of(shape, dict(enumerate(states))) == value


def test_values_are_put_together_as_json() -> None:
    assert flow.filled([0, [None, 1], []], {0: '{"a": 1}', 1: "2"}) == '[{"a": 1},[null,2],[]]'
    assert flow.put_in([0, [None, 1], []], {0: "x", 1: 2}) == ["x", [None, 2], []]


def test_a_flow_is_told_in_words() -> None:
    part = chain(flows.adds.step(), group(flows.tells.step(PREVIOUS) for _ in range(3)), flows.adds.step(PREVIOUS))

    names = [place.step.task.name for place in Layout(part).places]  # type: ignore[union-attr]
    assert flow.told(Layout(part).shape, names) == "adds, 3 x tells, adds"


def test_a_chain_of_nothing_has_no_result() -> None:
    assert flow.value_of({"group": [{"chain": []}, 0]}, {0: "S"}) == [None, 0]
