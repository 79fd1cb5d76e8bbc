"""WATCH: a run's life as its page tells it: the steps, the drawing, and why it stands where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q

from tasks_app import wording
from tasks_app.models import Failure, Status, TaskRun
from tasks_app.models.run import GIVEN_BACK, UNFINISHED, Attempt

WIDTH = 1000.0
"""The drawing is so many units wide, whatever it shows; the page stretches it."""

THINNEST = 4.0
"""A part that would be too short to be seen is drawn so wide."""

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


def time_left(run: TaskRun, now: datetime) -> timedelta | None:
    """How long the run will still take at its own pace; None while that cannot be known."""
    total, done = run.progress_total, run.progress_done
    if run.status != Status.RUNNING or not total or not 0 < done <= total:
        return None
    spent = run.run_time(now)
    if spent is None or spent < SOONEST_GUESS:
        return None
    return spent * ((total - done) / done)


class Life:
    """The life of one run, up to now."""

    def __init__(self, run: TaskRun, now: datetime) -> None:
        self.run = run
        self.now = now
        self.tries = run.tries
        self.time_left = time_left(run, now)

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
    def steps(self) -> list[Step]:
        return list(self._steps())

    def _steps(self) -> Iterator[Step]:
        run = self.run
        by = f" by {run.owner}" if run.owner_id else ""
        yield Step(f"Enqueued{by}", icon="ready", at=run.enqueued_at)
        since = run.enqueued_at
        for attempt in self.tries:
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


def why(
    run: TaskRun, now: datetime, ahead: int | None, is_served: bool, held: tuple[str, str] | None = None
) -> tuple[str, str]:
    """Why the run stands where it stands: the answer in a few words, then in a sentence.

    `ahead` is how many runs are before it (None for more than is told), `is_served` whether a live worker takes from
    its queue, `held` what a policy says against its beginning.
    """
    if run.cancel_requested_at and not run.is_finished:
        return "It is being cancelled.", f"{run.worker} was told to stop it."
    if run.status == Status.READY:
        return why_not_yet(run, now, ahead, is_served, held)
    if run.status == Status.RUNNING:
        limit = f" It is stopped after {wording.limit(run.timeout)}, its limit." if run.timeout else ""
        return "Work is going on.", f"{run.worker} is at it.{limit}"
    if run.status == Status.CANCELLED:
        return "It was ended before it was done.", wording.sentence(run.failure_message or "")
    if run.status == Status.SUCCESSFUL:
        return "It is done.", ""
    message = wording.sentence(run.failure_message or "")
    nobody = "Nothing runs it again unless someone does."
    match run.failure:
        case Failure.TIMED_OUT:
            return "It took longer than it may.", f"{message} {nobody}"
        case Failure.WORKER_LOST:
            times = "Each of its attempts" if run.attempt > 1 else "Its only attempt"
            return f"{times} lost its worker.", f"{message} {nobody}"
        case Failure.REJECTED:
            return "No worker could begin it.", f"{message} {nobody}"
    return "The task met an error.", f"{message} {nobody}"


def waits_for(run: TaskRun) -> str:
    """Of which workflow it waits for how many steps."""
    workflow, previous = run.workflow, run.previous or {}
    if workflow is None:
        return "The workflow that it belongs to is gone."
    earlier = workflow.steps.filter(step__range=(previous.get("first", 0), previous.get("last", -1)))
    counts = earlier.aggregate(whole=Count("id"), left=Count("id", filter=Q(status__in=UNFINISHED)))
    left, whole = counts["left"], counts["whole"]
    if not left:
        return f"Those of the workflow {workflow} have ended, and what follows is being looked at."
    if whole == 1:
        return f"It waits for step {previous['first'] + 1} ({earlier[0].name}) of the workflow {workflow}."
    steps = f"{wording.count(left)} of {wording.count(whole)} earlier steps"
    return f"It waits for {steps} of the workflow {workflow}."


def why_not_yet(
    run: TaskRun, now: datetime, ahead: int | None, is_served: bool, held: tuple[str, str] | None = None
) -> tuple[str, str]:
    if run.claimed_by:
        return "It begins in a moment.", f"{run.worker} holds it."
    if run.is_waiting:
        return "It waits for earlier steps.", waits_for(run)
    if run.run_after > now:
        when = wording.moment(run.run_after)
        if run.unknown_since:
            message = wording.sentence(run.failure_message or "")
            return "No worker that looked has this task.", f"{message} Workers look again after {when}."
        if run.charged:
            return "It will be tried again.", f"Attempt {run.attempt} did not end well; the next begins after {when}."
        return "Its time has not come.", f"It was sent to be done not before {when}."
    if not is_served:
        return (
            f"No live worker takes from the queue {run.queue_name}.",
            "It waits, and nothing is lost. Start a worker with manage.py qcluster.",
        )
    again = f"Attempt {run.attempt} did not end well; it will be tried again. " if run.charged else ""
    if run.attempts and run.attempts[-1]["reason"] == GIVEN_BACK:
        again = "Its worker was stopped in the middle; it starts over, and that does not count as an attempt. "
    if held:
        return held[0], f"{again}{held[1]}"
    if run.limit_key:
        return "It is in line.", f"{again}It waits for its turn and for a worker that is free."
    if ahead is None:
        return "It is in line.", f"{again}Many runs are ahead of it."
    if ahead:
        return "It is in line.", f"{again}{'One run is' if ahead == 1 else f'{ahead} runs are'} ahead of it."
    return "It is next in line.", f"{again}It waits for a worker that is free."
