"""How much memory the processes of the clusters have, over time."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass

import psutil

from soak.scene import Scene

ROLES = ("main", "sentinel", "worker")
EVERY_SECONDS = 1.0

WARM_SECONDS = 15.0
"""Until then a process still imports, and fills caches of a bounded size."""

FEWEST = 5
"""Samples in a stretch, without which a median says nothing."""

GROWTH_MB = 1.5
"""So much more is still flat. Measured: up to 0.2 MB in two minutes, of new connections and of what the busiest moment
left with the allocator. A leak of 1 kB a run goes beyond it within 2,500 runs."""


@dataclass(slots=True)
class Sample:
    at: float
    spared: bool
    role: str
    own: float
    """Memory that no file backs, whether or not it is still shared with the parent it was forked from: a parent's USS
    grows while its children write, although it does nothing."""
    uss: float
    pss: float


class Memory:
    """Samples of every process; only those of the spared cluster live long enough to be compared with themselves."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.samples: list[Sample] = []
        self._next = 0.0

    def look(self) -> None:
        """Take a sample, if it is time for one."""
        at = self.scene.seconds
        if at < self._next:
            return
        self._next = at + EVERY_SECONDS
        for place in self.scene.places:
            if not place.is_ready or (place.taken and not place.spared):
                continue
            for role in ROLES:
                for one in place.titled(role):
                    with suppress(psutil.Error):
                        full = one.memory_full_info()
                        figures = (figure / 2**20 for figure in (full.rss - full.shared, full.uss, full.pss))
                        self.samples.append(Sample(at, place.spared, role, *figures))

    def stretches(self, role: str) -> tuple[list[Sample], list[Sample]]:
        """Early and late samples of the spared cluster, warm: the first and the last third."""
        warm = [sample for sample in self.samples if sample.spared and sample.role == role and sample.at > WARM_SECONDS]
        if not warm:
            return [], []
        first, last = warm[0].at, warm[-1].at
        third = (last - first) / 3
        return [one for one in warm if one.at <= first + third], [one for one in warm if one.at >= last - third]

    def complaints(self) -> list[str]:
        """What grew beyond all reason."""
        found = []
        for role in ROLES:
            early, late = ([sample.own for sample in stretch] for stretch in self.stretches(role))
            if min(len(early), len(late)) < FEWEST:
                continue
            before, after = statistics.median(early), statistics.median(late)
            if after > before + GROWTH_MB:
                found.append(
                    f"the memory of a {role} grew from {before:.1f} to {after:.1f} MB (without files, medians)"
                )
        return found

    def table(self) -> list[str]:
        """One line a role: medians in MB of the spared cluster, early and late, and the largest of all places."""
        lines = []
        for role in ROLES:
            early, late = self.stretches(role)
            largest = max((sample.own for sample in self.samples if sample.role == role), default=0.0)
            figures = [
                f"{words} {_median(early, name):.1f} -> {_median(late, name):.1f} MB"
                for words, name in (("without files", "own"), ("USS", "uss"), ("PSS", "pss"))
                if early and late
            ]
            lines.append(f"{role}: {', '.join(figures)}; of all places at most {largest:.1f} MB")
        return lines


def _median(samples: list[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)
