"""WATCH: a run's life as its page tells it: the steps, the drawing, and why it stands where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks_app import wording
from tasks_app.models import Failure, Status, TaskRun
from tasks_app.models.run import GIVEN_BACK, Attempt
from tasks_app.usual import Usual

WIDTH = 1000.0
"""The drawing is so many units wide, whatever it shows; the page stretches it."""

THINNEST = 4.0
"""A part that would be too short to be seen is drawn so wide."""

FIRST, LAST = 2, 20
"""Of very many attempts so many of the first and of the last are told."""

SOONEST_GUESS = timedelta(seconds=1)
"""A pace is told after so much time; before, it jumps about."""


@dataclass(frozen=True)
class Step:
    """One line of the life: a moment (with `at`), or the span between two moments (with `length`)."""

    text: str
    icon: str = ""
    modifier: str = ""
    at: datetime | None = None
    length: timedelta | None = None
    since: datetime | None = None
    """For a span that still grows: when it began."""
    is_guess: bool = False


@dataclass(frozen=True)
class Bar:
    """One part of the drawing: `wait`, `ran`, `bad` (a failed attempt) or `ahead`; it begins at `x`."""

    kind: str
    x: float
    width: float

    @property
    def stop(self) -> float:
        """Where the mark at the end of a failed attempt is drawn, which is 5 wide."""
        return round(self.x + self.width - 5, 1)


FIRST_PART = 0.2
"""Of a run's progress: how much of it is too little to go by alone."""


def time_left(run: TaskRun, now: datetime, usual: Usual | None = None) -> timedelta | None:
    """How long the run will still take; None while that cannot be known.

    Going by its own pace, and by what is usual for its task: what a run does first is seldom like the rest, so in the
    first fifth its own pace counts the more the further it is, and from then on alone.
    """
    spent = run.run_time(now)
    if run.status != Status.RUNNING or spent is None:
        return None
    paced = left_at_its_pace(run, spent)
    rest = usual.rest(spent.total_seconds()) if usual else None
    if paced is None:
        return None if rest is None else timedelta(seconds=rest)
    if rest is None:
        return paced
    own = min(run.progress_done / (run.progress_total or 1) / FIRST_PART, 1.0)
    return paced * own + timedelta(seconds=rest) * (1 - own)


def left_at_its_pace(run: TaskRun, spent: timedelta) -> timedelta | None:
    total, done = run.progress_total, run.progress_done
    if not total or not 0 < done <= total:
        return None
    # The pace is that of the moment at which the progress was told: what has passed since was work, too.
    told_after = min(timedelta(seconds=run.progress_after), spent) if run.progress_after is not None else spent
    if told_after < SOONEST_GUESS:
        return None
    return max(told_after * ((total - done) / done) - (spent - told_after), timedelta())


class Life:
    """The life of one run, up to now."""

    def __init__(self, run: TaskRun, now: datetime, usual: Usual | None = None) -> None:
        self.run = run
        self.now = now
        self.tries = run.tries
        self.time_left = time_left(run, now, usual)

    @property
    def waited(self) -> timedelta:
        """All the time in which nothing worked on it."""
        end = self.run.finished_at or self.now
        return max(end - self.run.enqueued_at - self.ran, timedelta())

    @property
    def ran(self) -> timedelta:
        """All its attempts together."""
        return sum((self.length_of(attempt) for attempt in self.tries), timedelta())

    @property
    def has_failed_tries(self) -> bool:
        return any(has_failed(attempt) for attempt in self.tries)

    def length_of(self, attempt: Attempt) -> timedelta:
        return max((attempt.ended_at or self.now) - attempt.started_at, timedelta())

    @property
    def sender(self) -> str:
        """` by mara`, ` by the schedule Night imports`; empty for code without a person."""
        if self.run.schedule_name:
            return f" by the schedule {wording.visible(self.run.schedule_name)}"
        return f" by {wording.visible(str(self.run.owner))}" if self.run.owner_id else ""

    @property
    def steps(self) -> list[Step]:
        return list(self._steps())

    def _steps(self) -> Iterator[Step]:
        run = self.run
        yield Step(f"Enqueued{self.sender}", icon="ready", at=run.enqueued_at)
        since = run.enqueued_at
        for place, attempt in enumerate(self.tries):
            if FIRST <= place < len(self.tries) - LAST:
                if place == FIRST:
                    left_out = wording.count(len(self.tries) - FIRST - LAST)
                    yield Step(f"{left_out} more attempts, not told here", icon="retrying", modifier="quiet", at=since)
                since = attempt.ended_at or since
                continue
            yield Step(self.wait_of(attempt.number), length=attempt.started_at - since)
            where = f" on {attempt.worker}" if attempt.worker else ""
            yield Step(f"Attempt {attempt.number}{where}", icon="claimed", at=attempt.started_at)
            if attempt.ended_at is None:
                yield Step("running", modifier="span--ran", since=attempt.started_at)
                break
            since = attempt.ended_at
            if has_failed(attempt):
                yield Step(how_it_failed(attempt), modifier="span--bad", length=attempt.duration)
                if not (run.is_finished and attempt is self.tries[-1]):
                    yield Step("Put back, to be tried again", icon="retrying", modifier="is-retrying", at=since)
            else:
                text = "ran, then was stopped" if attempt.reason else "ran"
                yield Step(text, modifier="span--ran", length=attempt.duration)
            if attempt.reason == GIVEN_BACK:
                yield Step("Put back, not counted as an attempt", icon="retrying", modifier="is-retrying", at=since)
        yield from self._end(since)

    def _end(self, since: datetime) -> Iterator[Step]:
        run = self.run
        if run.finished_at:
            if not self.tries:
                yield Step("in line", length=run.finished_at - since)
            text = {Status.FAILED: "Failed", Status.CANCELLED: "Cancelled"}.get(Status(run.status), "Successful")
            if run.status == Status.FAILED and run.attempt >= run.max_attempts > 1:
                text = "Failed, no attempt left"
            yield Step(text, icon=run.state, modifier=f"is-{run.state}", at=run.finished_at)
        elif run.status == Status.RUNNING:
            if self.time_left is not None:
                yield Step("Expected end", icon="ready", modifier="quiet", at=self.now + self.time_left, is_guess=True)
        else:
            yield Step(self.wait_of(run.attempt + 1), since=since)
            if run.claimed_by and run.claimed_at:
                yield Step(f"Held by {run.worker}", icon="claimed", at=run.claimed_at)
            elif run.run_after > self.now:
                yield Step("Not before this", icon="scheduled", modifier="quiet", at=run.run_after)
            if run.expires_at and not (run.claimed_by or run.attempt or run.attempts):
                yield Step("Expires, if it has not begun", icon="cancelled", modifier="quiet", at=run.expires_at)

    def wait_of(self, attempt: int) -> str:
        if attempt > 1:
            return "waited to be tried again" if attempt <= self.run.attempt else "waits to be tried again"
        # A retry moves `run_after`, and so does a worker without the task: else it is known to be somebody's wish.
        was_moved = self.run.attempts or self.run.unknown_since
        if self.run.previous is not None:
            return "waited for earlier steps, then in line" if not self.run.is_waiting else "waits for earlier steps"
        was_scheduled = self.run.has_own_time and not was_moved
        return "waited for its time, then in line" if was_scheduled else "in line"

    # The drawing

    @property
    def bars(self) -> list[Bar]:
        """The parts from left to right, as wide as they were long."""
        parts: list[tuple[str, timedelta]] = []
        at = self.run.enqueued_at
        for attempt in self.tries:
            ended = attempt.ended_at or self.now
            parts += [
                ("wait", attempt.started_at - at),
                ("bad" if has_failed(attempt) else "ran", ended - attempt.started_at),
            ]
            at = ended
        if not self.run.is_finished and self.run.status != Status.RUNNING:
            parts.append(("wait", self.now - at))
        elif not self.tries:
            parts.append(("wait", (self.run.finished_at or self.now) - at))
        if self.time_left:
            parts.append(("ahead", self.time_left))
        return drawn(parts)

    @property
    def drawing_says(self) -> str:
        """The drawing in words, for who cannot see it."""
        said = [f"waited {wording.duration(self.waited)}"]
        for attempt in self.tries:
            ran = wording.duration(self.length_of(attempt))
            said.append(f"ran {ran} and failed" if has_failed(attempt) else f"ran {ran}")
        if self.time_left:
            said.append(f"about {wording.elapsed(self.time_left)} ahead")
        return ", ".join(said).capitalize()


def drawn(parts: list[tuple[str, timedelta]]) -> list[Bar]:
    """Lengths of time as bars that fill the width, each wide enough to be seen."""
    lengths = [max(length.total_seconds(), 0.0) for _, length in parts]
    shown = [(kind, length) for (kind, _), length in zip(parts, lengths, strict=True) if length]
    whole = sum(length for _, length in shown) or 1.0
    widths = [max(WIDTH * length / whole, THINNEST) for _, length in shown]
    too_wide = sum(widths) / WIDTH
    bars, x = [], 0.0
    for (kind, _), width in zip(shown, widths, strict=True):
        bars.append(Bar(kind, round(x, 1), round(width / too_wide, 1)))
        x += width / too_wide
    return bars


def has_failed(attempt: Attempt) -> bool:
    """False for one that succeeded, still runs, or was cancelled."""
    return attempt.reason in Failure.values


def how_it_failed(attempt: Attempt) -> str:
    name = attempt.exception.rpartition(".")[2]
    return {
        Failure.TIMED_OUT.value: "ran to its time limit, was stopped",
        Failure.WORKER_LOST.value: "ran, then its worker was lost",
        Failure.REJECTED.value: "was rejected",
    }.get(attempt.reason, f"ran, then failed{': ' + name if name else ''}")
