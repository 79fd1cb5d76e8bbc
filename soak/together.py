"""What runs promise together: keys, limits, pauses, rates and workflows, from the events of their claims."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from soak.events import Event, Hold
from soak.ledger import Execution
from soak.promises import ONE_AT_A_TIME, Answer, Sent, Shape
from soak.tasks import BURST, MOST_CROWDED, PACE, SELDOM_SECONDS

Found = tuple[str, uuid.UUID | None]
"""What is wrong, and with which run."""

CROWDED, PACED = "soak.tasks.crowded", "soak.tasks.paced"

ALWAYS = Hold("task", CROWDED, MOST_CROWDED, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

SELDOM = "soak.tasks.seldom"

NOTED_BEFORE = timedelta(seconds=3)
"""An end is noted before it is committed, and until then the run stands for everybody else."""

SLACK_SECONDS = 0.3
"""Between the moment for which a claim counts and its note in the same statement a busy machine may do other things."""


@dataclass(slots=True)
class Row:
    """What is kept of each run until all of them were read."""

    id: uuid.UUID
    task: str
    number: int
    status: str
    made: datetime
    ended: datetime | None
    gone: datetime | None
    """When it was pruned or deleted."""
    given: Any
    """What it got of the results before it; None for a task that gets none."""
    arguments: tuple[Any, Any] | None
    """Of a retry, and of what may have one."""
    retry_of: uuid.UUID | None
    workflow: uuid.UUID | None
    is_wished: bool
    """Somebody wished it cancelled by itself."""

    @classmethod
    def of(cls, run: Mapping[str, Any], wished: set[uuid.UUID]) -> Row:
        given = None
        if run["task_path"].endswith(".gathers"):
            given = run["kwargs"]["before"] if run["kwargs"] else run["args"][1]
        return cls(
            run["id"], run["task_path"], run["args"][0], run["status"], run["enqueued_at"], run["finished_at"],
            run["gone_at"], given, (run["args"], run["kwargs"]), run["retry_of_id"], run["workflow_id"],
            run["id"] in wished,
        )  # fmt: skip


# Claims


def of_keys(events: Iterable[Event], rows: Mapping[uuid.UUID, Row]) -> Iterator[Found]:
    """No two runs of one key at a time, nor of a task that keeps it for a time; no schedule waits for nothing."""
    standing: dict[str, uuid.UUID] = {}
    kept: dict[str, tuple[datetime, uuid.UUID]] = {}
    ended: dict[uuid.UUID, datetime] = {}
    for event in events:
        if event.key is None:
            continue
        if event.what == "made":
            if other := standing.get(event.key):
                yield f"it was made at {event.at} with the key of {other}, which had not ended", event.run
            until, other = kept.get(event.key, (event.at, None))
            if event.at < until:
                yield f"it was made at {event.at} with the key of {other}, which kept it until {until}", event.run
            standing[event.key] = event.run
            if event.run in rows and (keeps := keeps_key_until(rows[event.run])):
                kept[event.key] = (keeps, event.run)
        elif event.what == "ended":
            ended[event.run] = event.at
            if standing.get(event.key) == event.run:
                del standing[event.key]
        elif event.at > ended.get(event.run, event.at) + NOTED_BEFORE:
            said = f"which was this and had ended at {ended[event.run]}"
            yield f"the schedule {event.key!r} waited at {event.at} for the end of its last run, {said}", event.run


def keeps_key_until(row: Row) -> datetime | None:
    """Until when no other has its key, whatever becomes of it; None for a task that does not say."""
    if row.task != SELDOM or row.retry_of:
        return None
    return row.made + timedelta(seconds=SELDOM_SECONDS)


def of_answers(answers: Iterable[Answer], events: Iterable[Event], rows: Mapping[uuid.UUID, Row]) -> Iterator[Found]:
    """Whoever sent a unique run in vain was told the one that stood then."""
    made: dict[str, dict[uuid.UUID, datetime]] = defaultdict(dict)
    ended: dict[uuid.UUID, datetime] = {}
    for event in events:
        if event.key in ONE_AT_A_TIME or event.key is None:
            continue
        if event.what == "made":
            made[event.key][event.run] = event.at
        else:
            ended[event.run] = event.at
    for answer in answers:
        said = f"number {answer.number} was answered with it at {answer.answered}"
        runs = made[f"{answer.task} {answer.key}"]
        at = runs.get(answer.run)
        if at is None or at > answer.answered or answer.run not in rows:
            yield f"{said}, and no run with the key {answer.key} of {answer.task} was it then", answer.run
            continue
        if later := [str(run) for run, other in runs.items() if at < other < answer.asked]:
            yield f"{said}, although {', '.join(later)} came after it with its key", answer.run
        last = max(ended.get(answer.run, answer.asked), keeps_key_until(rows[answer.run]) or at)
        if last + NOTED_BEFORE < answer.asked:
            yield f"{said}, asked at {answer.asked}, and it had stood only until {last}", answer.run


def of_holds(events: Iterable[Event], holds: Sequence[Hold]) -> Iterator[Found]:
    """No claim under a limit goes beyond it, and none happens under a pause."""
    held: dict[uuid.UUID, Event] = {}
    for event in events:
        if event.what == "let go":
            held.pop(event.run, None)
        elif event.what == "claimed":
            if other := held.get(event.run):
                yield f"{event.holder} claimed it at {event.at} from {other.holder}, who held it", event.run
            held[event.run] = event
            for hold in holds:
                if not (hold.covers(event) and hold.since <= event.at < hold.until):
                    continue
                count = sum(hold.covers(other) for other in held.values())
                if count > hold.most:
                    said = "is paused" if not hold.most else f"is limited to {hold.most}, and {count} were held"
                    yield f"it was claimed at {event.at}, when the {hold.what} {hold.name} {said}", event.run


def of_crowds(events: Iterable[Event], executed: Mapping[uuid.UUID, list[Execution]]) -> Iterator[Found]:
    """The same as the ledger has it: of executions, for as long as their claims are live."""
    claims: dict[tuple[uuid.UUID, int, str | None], list[list[datetime]]] = defaultdict(list)
    for event in events:
        if event.task == CROWDED and event.what == "claimed":
            claims[event.run, event.attempt, event.holder].append([event.at, datetime.max.replace(tzinfo=UTC)])
        elif event.task == CROWDED and event.what == "let go" and claims[event.run, event.attempt, event.holder]:
            claims[event.run, event.attempt, event.holder][-1][1] = event.at
    turns: list[tuple[datetime, int, uuid.UUID]] = []
    for run, attempt, holder in claims:
        for one in executed.get(run, ()):
            for claimed, over in claims[run, attempt, holder] if one.key == (attempt, holder) else ():
                if claimed <= one.began < over:
                    turns += [(one.began, 1, run), (min(one.ended or over, over), -1, run)]
    at_once = 0
    for at, step, run in sorted(turns):
        at_once += step
        if at_once > MOST_CROWDED:
            yield f"at {at} it was one of {at_once} executions of {CROWDED} with live claims", run


def of_pace(events: Iterable[Event]) -> Iterator[Found]:
    """In any time no more claims than the burst and what the rate allows for it."""
    claims = [event for event in events if event.task == PACED and event.what == "claimed"]
    for first, one in enumerate(claims):
        for count, other in enumerate(claims[first:], 1):
            seconds = (other.at - one.at).total_seconds()
            if count > BURST + (seconds + SLACK_SECONDS) * PACE:
                yield f"it was the {count}th claim of {PACED} within {seconds:.2f} s", other.run
                break


# Workflows


def of_flows(
    flows: Mapping[int, Sent],
    workflows: Iterable[Mapping[str, Any]],
    rows: Iterable[Row],
    wished: set[uuid.UUID],
    events: Iterable[Event],
) -> Iterator[Found]:
    """Each as it was sent: the product's own shape of it is not asked."""
    first_claims: dict[uuid.UUID, datetime] = {}
    for event in events:
        if event.what == "claimed":
            first_claims.setdefault(event.run, event.at)
    members: dict[uuid.UUID, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row.workflow:
            members[row.workflow][row.number] = row
    for workflow in workflows:
        found = members.pop(workflow["id"], {})
        sent = flows.get(min(found, default=0))
        if sent is None:
            yield f"the workflow {workflow['id']} has runs that nobody sent: {sorted(found)}", None
            continue
        judging = Judging(workflow, sent, found, first_claims, workflow["id"] in wished)
        for said, number in judging.complaints():
            said = f"{said}, in the workflow {workflow['id']}: {sent.on_failure}, {sent.shape}"
            yield said, found[number].id if number in found else None
    for flow in members:
        yield f"the workflow {flow} has runs and is not there", None


@dataclass
class Judging:
    """One workflow."""

    workflow: Mapping[str, Any]
    sent: Sent
    members: dict[int, Row]
    first_claims: dict[uuid.UUID, datetime]
    is_wished: bool
    needed: set[int] = field(default_factory=set)
    """Steps that nothing before them keeps from beginning."""

    def complaints(self) -> Iterator[tuple[str, int | None]]:
        workflow, shape = self.workflow, self.sent.shape
        if sorted(self.members) != sorted(numbers(shape)):
            yield f"its workflow has the steps {sorted(self.members)}", None
            return
        ends = [row.ended for row in self.members.values() if row.ended]
        if workflow["status"] not in {"SUCCESSFUL", "FAILED", "CANCELLED"} or workflow["finished_at"] is None:
            yield f"its workflow is {workflow['status']} and not final", None
        elif workflow["finished_at"] < max(ends):
            yield (
                f"its workflow ended at {workflow['finished_at']}, before the last of its runs did ({max(ends)})",
                None,
            )
        was_cancelled = workflow["cancel_requested_at"] is not None
        if was_cancelled and not self.is_wished:
            yield "its workflow was cancelled, and nobody wished that", None
        expected = "SUCCESSFUL" if self.has_succeeded(shape) else "CANCELLED" if was_cancelled else "FAILED"
        if workflow["status"] != expected:
            yield f"its workflow is {workflow['status']}, not {expected}", None
        yield from self.visit(shape, None, is_barred=False)
        yield from self.of_cancelled(was_cancelled)

    def of_cancelled(self, was_cancelled: bool) -> Iterator[tuple[str, int]]:
        """Nothing is cancelled without a reason: a wish, a failure that stops all, or one before it in its chain."""
        stops = self.sent.on_failure == "stop" and any(
            row.status == "FAILED" or (row.status == "CANCELLED" and row.is_wished) for row in self.members.values()
        )
        for number, row in self.members.items():
            has_reason = was_cancelled or stops or number not in self.needed or row.is_wished
            if row.status == "CANCELLED" and not has_reason:
                yield f"step {number} is cancelled without a reason", number

    def visit(self, shape: Shape, before: Shape | None, *, is_barred: bool) -> Iterator[tuple[str, int]]:
        """Whether each step began when it might, with the results before it, or never."""
        if isinstance(shape, int):
            if not is_barred:
                self.needed.add(shape)
            claimed = self.first_claims.get(self.members[shape].id)
            if claimed is not None and before is not None:
                yield from self.of_begin(shape, claimed, before, is_barred=is_barred)
            return
        for part in shape:
            yield from self.visit(part, before, is_barred=is_barred)
            if isinstance(shape, tuple):
                before, is_barred = part, is_barred or self.is_broken(part)

    def of_begin(self, step: int, claimed: datetime, before: Shape, *, is_barred: bool) -> Iterator[tuple[str, int]]:
        row, earlier = self.members[step], [self.members[number] for number in numbers(before)]
        for other in earlier:
            if other.ended is None or other.ended > claimed:
                yield f"step {step} was claimed at {claimed}, before step {other.number} ended ({other.ended})", step
        if is_barred:
            yield f"step {step} was claimed at {claimed}, although one before it in its chain had no success", step
        elif self.sent.on_failure == "stop" and any(other.status != "SUCCESSFUL" for other in earlier):
            yield f"step {step} was claimed at {claimed}, although a failure before it stops all", step
        if row.task.endswith(".gathers") and row.given != self.result(before):
            yield f"step {step} got {row.given!r} and not {self.result(before)!r}", step

    def is_good(self, number: int) -> bool:
        return self.members[number].status == "SUCCESSFUL"

    def is_broken(self, shape: Shape) -> bool:
        """It has no result; a group always has one."""
        if isinstance(shape, int):
            return not self.is_good(shape)
        return isinstance(shape, tuple) and any(self.is_broken(part) for part in shape)

    def result(self, shape: Shape) -> Any:
        """Each step returns its number."""
        if self.is_broken(shape):
            return None
        if isinstance(shape, list):
            return [self.result(part) for part in shape]
        return shape if isinstance(shape, int) else self.result(shape[-1])

    def has_succeeded(self, shape: Shape) -> bool:
        if isinstance(shape, int):
            return self.is_good(shape)
        return all(map(self.has_succeeded, shape)) if isinstance(shape, list) else self.has_succeeded(shape[-1])


def numbers(shape: Shape) -> list[int]:
    return [shape] if isinstance(shape, int) else [number for part in shape for number in numbers(part)]
