"""How the machines of the interleavings are played: moves by chance, and of those that fail the ones that matter.

Which moves are made does not depend on what the database answers, and ids are made in order: so a seed plays the same
again, and moves can be left out. Hypothesis chooses the seeds, and no more: most of the examples that its strategies
draw are earlier ones with a move or two changed, too little where each takes a tenth of a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from random import Random
from traceback import extract_tb
from typing import Any, NamedTuple, Protocol, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.plugins.processes import database_url

Row = dict[str, Any]
Connections = dict[str, psycopg.Connection[Row]]
Method = TypeVar("Method", bound=Callable[..., None])


def move(chances: int = 1, **arguments: Sequence[Any] | Callable[[Random], Any]) -> Callable[[Method], Method]:
    """Marks what a machine may do at any time, more often with more `chances`.

    Of each argument it tells among what it is chosen, or what chooses it.
    """

    def marked(method: Method) -> Method:
        method.move = chances, arguments  # type: ignore[attr-defined]
        return method

    return marked


class Move(NamedTuple):
    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Machine(Protocol):
    """Made anew for every example, for an empty database."""

    def __init__(self, connections: Connections) -> None: ...

    def look(self) -> None:
        """See that all is as it should be after a move."""

    def run_out(self) -> None:
        """See that all that is left comes to its end."""


def some_moves(machine: type[Machine], random: Random, number: int) -> list[Move]:
    found = {
        name: method.move for kind in machine.mro() for name, method in vars(kind).items() if hasattr(method, "move")
    }
    names = sorted(found)
    return [
        Move(name, {key: of(random) if callable(of) else random.choice(of) for key, of in found[name][1].items()})
        for name in random.choices(names, [found[name][0] for name in names], k=number)
    ]


def failure_of(machine: type[Machine], connections: Connections, moves: list[Move]) -> Exception | None:
    """What comes of one example."""
    try:
        played = machine(connections)
        for name, arguments in moves:
            getattr(played, name)(**arguments)
            played.look()
        played.run_out()
    except Exception as error:
        return error
    return None


def place_of(error: Exception | None) -> Any:
    return error and extract_tb(error.__traceback__)[-1]


def fewer(moves: list[Move], fails: Callable[[list[Move]], bool]) -> list[Move]:
    """Without most of those that it fails without, too."""
    size = len(moves) // 2
    while size:
        for first in reversed(range(0, len(moves), size)):
            left = moves[:first] + moves[first + size :]
            moves = left if fails(left) else moves
        size //= 2
    return moves


@contextmanager
def connected(names: Sequence[str]) -> Iterator[Connections]:
    """The connections of all the examples; what they write need not outlive these."""
    with ExitStack() as all_of_them:
        connections: Connections = {}
        for name in names:
            opened = psycopg.connect(database_url(), autocommit=True, row_factory=dict_row)
            connections[name] = all_of_them.enter_context(opened)
            opened.execute("SET synchronous_commit = off")
            opened.execute("SET lock_timeout = '5s'")
        yield connections


def play(machine: type[Machine], names: Sequence[str], examples: int, moves: int) -> None:
    """So many examples of so many moves, with connections of these names."""
    numbers = count(1)

    @settings(max_examples=examples, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=True))
    def any_interleaving(random: Random) -> None:
        drawn = some_moves(machine, random, moves)
        if error := failure_of(machine, connections, drawn):
            there = place_of(error)
            left = fewer(drawn, lambda moves: place_of(failure_of(machine, connections, moves)) == there)
            note("\n".join([f"{machine.__name__} fails after these moves:", *map(str, left)]))
            raise error

    with connected(names) as connections, pytest.MonkeyPatch.context() as patch:
        # So that ids come in order, and of what is equal but for its id the same is first each time.
        patch.setattr(os, "urandom", lambda size: next(numbers).to_bytes(size))
        any_interleaving()
