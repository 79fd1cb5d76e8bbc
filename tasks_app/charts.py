"""WATCH: drawings of figures, made on the server: the plot stretches, and all that is read is text beside it.

A drawing knows numbers and words, nothing of where they come from. Each has a partial in `templates/charts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tasks_app import wording

WIDTH, HEIGHT = 720, 100
"""Of a plot, in units of its own."""

STEPS = 3
"""So many lines above the base."""

GAP = 0.2
"""This part of a bar's place is left empty."""

LEAST = 0.6
"""What there was at all is seen, however high the rest."""

SPARK_WIDTH, SPARK_HEIGHT = 60, 20

ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
TIMES = (*(60 * n for n in (1, 2, 3, 5, 10, 15, 20, 30)), *(3600 * n for n in (1, 2, 3, 4, 6, 8, 12)))


def round_step(least: float) -> float:
    """The next round number that is no smaller: 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15 …"""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    found = next((number * power for number in ROUND if number * power >= least * (1 - 1e-9)), 10 * power)
    return float(f"{found:.3g}")


def whole_step(least: float) -> float:
    """The same of what is counted in whole numbers."""
    step = round_step(max(least, 1.0))
    return step if step == int(step) else 2.0


def time_step(least: float) -> float:
    """A round length of time, in seconds."""
    if least <= 30:
        return round_step(max(least, 0.001))
    days = round_step(least / 86_400)
    return next((float(seconds) for seconds in TIMES if seconds >= least), max(days, 1.0) * 86_400)


@dataclass(frozen=True)
class Scale:
    """What stands at the lines of a plot, from the top to the base, and how high a value is drawn."""

    top: float
    labels: list[str]

    @classmethod
    def over(cls, values: Iterable[float], step_of: Callable[[float], float], tell: Callable[[float], str]) -> Scale:
        step = step_of(max(values, default=0.0) / STEPS)
        return cls(STEPS * step, [tell(n * step) if n else "0" for n in range(STEPS, -1, -1)])

    def height(self, value: float) -> float:
        return min(value / self.top, 1.0) * HEIGHT

    @property
    def lines(self) -> list[str]:
        """Where the lines are, the base apart."""
        return [f"{HEIGHT * n / STEPS:.1f}" for n in range(STEPS)]


@dataclass(frozen=True)
class Part:
    """One block of a bar: `kind` is the class of its colour."""

    kind: str
    y: str
    height: str


@dataclass(frozen=True)
class Column:
    """One bar: what it is of, its figures in words, and where it leads."""

    label: str
    values: Sequence[int]
    url: str = ""
    x: str = ""
    width: str = ""
    parts: list[Part] = field(default_factory=list)
    told: str = ""

    @property
    def figures(self) -> list[int]:
        """From the top of the pile down, as the legend has them."""
        return list(reversed(self.values))


@dataclass(frozen=True)
class Bars:
    """Figures side by side, one column for each stretch of time, each a pile of blocks in the order of `kinds`."""

    kinds: Sequence[tuple[str, str]]
    """The class of the colour and the word, from the base upwards."""
    columns: list[Column]
    scale: Scale
    axis: list[str]
    said: str
    """The one sentence that a person would say of it."""

    @classmethod
    def of(cls, kinds: Sequence[tuple[str, str]], columns: Sequence[Column], axis: list[str], said: str) -> Bars:
        scale = Scale.over((sum(column.values) for column in columns), whole_step, wording.count)
        place = WIDTH / max(len(columns), 1)
        drawn = [
            Column(
                column.label, column.values, column.url, f"{place * (n + GAP / 2):.1f}", f"{place * (1 - GAP):.1f}",
                piled(kinds, column.values, scale), told(kinds, column),
            )
            for n, column in enumerate(columns)
        ]  # fmt: skip
        return cls(kinds, drawn, scale, axis, said)

    @property
    def legend(self) -> list[tuple[str, str]]:
        return list(reversed(self.kinds))

    @property
    def paths(self) -> list[tuple[str, str]]:
        """All blocks of a kind as one path, because a page is made faster of three than of three hundred."""
        drawn: dict[str, list[str]] = {}
        for column in self.columns:
            for part in column.parts:
                block = f"M{column.x} {part.y}h{column.width}v{part.height}h-{column.width}Z"
                drawn.setdefault(part.kind, []).append(block)
        return [(kind, "".join(blocks)) for kind, blocks in drawn.items()]

    @property
    def is_empty(self) -> bool:
        return not any(any(column.values) for column in self.columns)


def piled(kinds: Sequence[tuple[str, str]], values: Sequence[int], scale: Scale) -> list[Part]:
    parts, base = [], float(HEIGHT)
    for (kind, _), value in zip(kinds, values, strict=True):
        if value:
            height = max(scale.height(value), LEAST)
            base -= height
            parts.append(Part(kind, f"{base:.2f}", f"{height:.2f}"))
    return parts


def told(kinds: Sequence[tuple[str, str]], column: Column) -> str:
    """`14:00: 120 successful, 3 failed`."""
    figures = [f"{wording.count(value)} {word.lower()}" for (_, word), value in zip(kinds, column.values, strict=True)]
    return f"{column.label}: {', '.join(reversed(figures))}"


@dataclass(frozen=True)
class Line:
    """One course of values; None where there was nothing to measure, and the line has a gap."""

    kind: str
    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Lines:
    """Lengths of time as lines above each other, the first the lowest, with the band between the first two.

    Each is told from the others by its stroke, too: the style of its class is whole, dashed or dotted.
    """

    lines: Sequence[Line]
    labels: Sequence[str]
    """What each place is of."""
    scale: Scale
    axis: list[str]
    said: str

    @classmethod
    def of(cls, lines: Sequence[Line], labels: Sequence[str], axis: list[str], said: str) -> Lines:
        values = (value for line in lines for value in line.values if value is not None)
        return cls(lines, labels, Scale.over(values, time_step, wording.short_duration), axis, said)

    @property
    def is_empty(self) -> bool:
        return all(value is None for line in self.lines for value in line.values)

    @property
    def drawn(self) -> list[tuple[str, str]]:
        """Class and path of each line, the highest first, so that lower ones lie above it."""
        return [(line.kind, self.path(line.values)) for line in reversed(self.lines)]

    @property
    def band(self) -> str:
        """The path around what lies between the first two lines."""
        lower, upper = self.lines[0].values, self.lines[1].values
        paths = []
        for stretch in stretches(lower, upper):
            ahead = [self.point(n, upper[n]) for n in stretch]
            back = [self.point(n, lower[n]) for n in reversed(stretch)]
            if len(stretch) > 1:
                paths.append(f"M{' '.join(ahead + back)}Z")
        return "".join(paths)

    def path(self, values: Sequence[float | None]) -> str:
        paths = []
        for stretch in stretches(values):
            points = [self.point(n, values[n]) for n in stretch]
            # A place with nothing on either side is a dot.
            paths.append(f"M{' '.join(points)}" if len(points) > 1 else f"M{points[0]}h1")
        return "".join(paths)

    def point(self, n: int, value: float | None) -> str:
        x = WIDTH * n / max(len(self.labels) - 1, 1)
        return f"{x:.1f} {HEIGHT - self.scale.height(value or 0.0):.1f}"

    @property
    def told_rows(self) -> list[tuple[str, list[str]]]:
        """As a table, without the places that have nothing."""
        found = [
            (label, [wording.duration(line.values[n]) for line in self.lines]) for n, label in enumerate(self.labels)
        ]
        return [(label, values) for label, values in found if any(values)]


def stretches(*courses: Sequence[float | None]) -> list[list[int]]:
    """The places where all of them have a value, in unbroken rows."""
    found: list[list[int]] = []
    for n, values in enumerate(zip(*courses, strict=True)):
        if any(value is None for value in values):
            continue
        if found and found[-1][-1] == n - 1:
            found[-1].append(n)
        else:
            found.append([n])
    return found


@dataclass(frozen=True)
class Spark:
    """A course as small as a word."""

    values: Sequence[int]
    said: str

    @property
    def path(self) -> str:
        """Empty when there was nothing."""
        highest = max(self.values, default=0)
        if not highest:
            return ""
        far = max(len(self.values) - 1, 1)
        points = [
            f"{SPARK_WIDTH * n / far:.1f} {SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * value / highest:.1f}"
            for n, value in enumerate(self.values)
        ]
        return f"M{' '.join(points)}"
