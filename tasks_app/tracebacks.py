"""WATCH: a traceback in parts: the frames of one's own code, and those of libraries between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

THEIRS = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python3|<frozen ")
"""Files of installed libraries and of Python itself."""

LONGEST_LINE = 2_000
MOST_LINES = 2_000


@dataclass(frozen=True)
class Part:
    """Lines that stand together: what is said between frames, or frames of one side."""

    kind: str
    """`said`, `own` or `theirs`."""
    lines: list[str]
    frames: int

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Traceback:
    """The text of a traceback, read."""

    parts: list[Part]

    @classmethod
    def read(cls, text: str) -> Traceback:
        lines = [line[:LONGEST_LINE] for line in text.splitlines()[:MOST_LINES]]
        grouped = groupby(zip(lines, kinds(lines), strict=True), key=lambda pair: pair[1])
        parts = []
        for kind, pairs in grouped:
            own = [line for line, _ in pairs]
            parts.append(Part(kind, own, sum(is_frame(line) for line in own) if kind != "said" else 0))
        return cls(parts)

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)

    @property
    def own_frames(self) -> int:
        return sum(part.frames for part in self.parts if part.kind == "own")

    @property
    def is_mixed(self) -> bool:
        """It has frames of both sides, so that it is worth showing one's own apart."""
        return 0 < self.own_frames < self.frames


def is_frame(line: str) -> bool:
    return line.startswith('  File "')


def kinds(lines: list[str]) -> Iterator[str]:
    kind = "said"
    for line in lines:
        if is_frame(line):
            kind = "theirs" if THEIRS.search(line) else "own"
        elif not line.startswith("    "):
            kind = "said"
        yield kind
