"""The audit at the end: what the database, the ledger and the producer say must fit together, run by run."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from config.retention import Rule
from soak import kept, together
from soak.events import Event, Hold
from soak.kept import FINAL
from soak.ledger import Execution
from soak.promises import KINDS, RUNS_OF, Notes, Promise
from soak.tasks import LINES
from tasks_app.models.run import GIVEN_BACK

NOTED_WITHIN = timedelta(seconds=1)
"""A claim is noted so soon after it was decided, however busy the machine is."""

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    sentence: str
    run: uuid.UUID | None = None


@dataclass
class Evidence:
    """What everybody says."""

    runs: Iterable[Run]
    executions: Iterable[Execution]
    notes: Notes
    lost_clusters: set[str]
    """The short ids of clusters that were declared lost."""
    lines: list[Run]
    """Of each run that had a log, how many lines of it are here, and how many gone."""
    events: list[Event]
    """Claims and their ends, in their order."""
    holds: list[Hold]
    workflows: list[Run]
    acts: list[Run]
    """What the audit tells of retries and deletes."""
    rules: list[Rule]
    """Of what is kept how long."""
    pruned: datetime
    """When the last prune began."""

    def __post_init__(self) -> None:
        self.written = {line["run_id"]: line["here"] + line["gone"] for line in self.lines}
        """How many lines were written for each run."""
        self.deleted = kept.by_run(self.acts, "delete")
        """The runs that somebody deleted."""


@dataclass
class Verdict:
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    by_run: dict[uuid.UUID, list[Execution]] = field(default_factory=dict)
    late: dict[str, list[uuid.UUID]] = field(default_factory=lambda: defaultdict(list))
    """The runs that each holder began after its cluster was lost."""


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict()
    counts = verdict.counts
    executed: dict[uuid.UUID, list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        executed[execution.run].append(execution)
        counts["executions"] += 1
    verdict.by_run = executed

    numbers: Counter[int] = Counter()
    rows: dict[uuid.UUID, together.Row] = {}
    claims: dict[uuid.UUID, datetime] = {}
    for event in evidence.events:
        if event.what == "claimed":
            claims.setdefault(event.run, event.at)
    for run in evidence.runs:
        run_id = run["id"]
        rows[run_id] = together.Row.of(run, evidence.notes.wished)
        numbers[run["args"][0]] += run["retry_of_id"] is None  # a retry has the number of what it does over
        counts["runs"] += 1
        counts[run["status"]] += 1
        found = executed.get(run_id, [])
        counts["more than one execution"] += len(found) > 1
        for entry in run["attempts"]:
            counts[f"attempt ended by {entry['reason']}"] += 1
        counts["retries"] += run["retry_of_id"] is not None
        counts["unique"] += run["unique_key"] is not None
        counts["expired"] += has_expired(run)
        counts["scheduled"] += run["schedule_name"] is not None
        counts["gone"] += run["gone_at"] is not None
        judging = Judging(run, found, evidence, verdict, claims.get(run_id))
        verdict.violations += [Violation(sentence, run_id) for sentence in judging.complaints()]

    for holder, late in verdict.late.items():
        for run_id in late[1:]:  # the one at hand cannot know; before the next it could
            said = f"{holder} began it after its cluster was lost, and {late[0]} before it"
            verdict.violations.append(Violation(said, run_id))
    promises = evidence.notes.promises
    for run_id in executed.keys() - rows.keys():
        number = executed[run_id][0].number
        said = promises[number].value if number in promises else "never sent"
        verdict.violations.append(Violation(f"number {number} ({said}) was executed and has no run", run_id))
    asked = {answer.number: answer.run for answer in evidence.notes.answers}
    for number, promise in promises.items():
        if promise is Promise.ANSWERED:
            told = rows.get(asked[number])
            promise = Promise.KEPT if told and told.number == number else Promise.STANDING
        counts[promise.value] += 1
        if numbers[number] not in RUNS_OF[promise]:
            verdict.violations.append(Violation(f"number {number} was {promise.value}, and has {numbers[number]} runs"))
    for number in numbers.keys() - promises.keys():
        verdict.violations.append(Violation(f"number {number} has a run and was never sent"))
    counts["claims"] = sum(event.what == "claimed" for event in evidence.events)
    counts["workflows"] = len(evidence.workflows)
    counts["workflows gone"] = sum(flow["gone_at"] is not None for flow in evidence.workflows)
    counts["deleted"] = len(evidence.deleted)
    verdict.violations += [Violation(said, run) for said, run in of_all(evidence, rows, executed)]
    return verdict


def of_all(
    evidence: Evidence, rows: dict[uuid.UUID, together.Row], executed: dict[uuid.UUID, list[Execution]]
) -> Iterator[together.Found]:
    """What runs promise together."""
    events, notes = evidence.events, evidence.notes
    yield from together.of_keys(events, rows)
    yield from together.of_answers(notes.answers, events, rows)
    yield from together.of_holds(events, [together.ALWAYS, *evidence.holds])
    yield from together.of_crowds(events, executed)
    yield from together.of_pace(events)
    yield from together.of_flows(notes.flows, evidence.workflows, rows.values(), notes.wished_flows, events)
    yield from kept.of_retries(rows, evidence.acts)
    was_lost = {run for run, found in executed.items() if any(one.cluster in evidence.lost_clusters for one in found)}
    yield from kept.of_lines(rows, evidence.lines, notes, was_lost)
    flows = {flow["id"]: flow for flow in evidence.workflows}
    keeping = kept.Keeping(rows, flows, notes, evidence.deleted, evidence.rules, evidence.pruned)
    yield from keeping.complaints()


def has_expired(run: Run) -> bool:
    """It ended because nobody had begun it in time, and says so."""
    return (
        run["status"] == "CANCELLED"
        and run["expires_at"] is not None
        and run["expires_at"] <= run["finished_at"]
        and run["failure_message"].startswith("Not started by ")
    )


class Judging:
    """One run: its row, its entries and its executions."""

    def __init__(
        self, run: Run, executions: list[Execution], evidence: Evidence, verdict: Verdict, claimed: datetime | None
    ) -> None:
        self.run, self.executions, self.evidence, self.verdict = run, executions, evidence, verdict
        self.claimed = claimed
        """When it was claimed for the first time."""
        self.entries = [entry for entry in run["attempts"] if entry["reason"] != GIVEN_BACK]
        """Of the attempts that count."""
        self.kind = KINDS[run["task_path"].rpartition(".")[2]]

    def complaints(self) -> Iterator[str]:
        if self.run["status"] not in FINAL:
            yield f"it is {self.run['status']}, held by {self.run['claimed_by']}, and not final"
            return
        yield from self.of_its_columns()
        yield from self.of_its_attempts()
        yield from self.of_its_end()
        yield from self.of_its_executions()
        yield from self.of_its_expiry()
        due = self.evidence.notes.due.get(self.run["args"][0])
        if due and self.run["enqueued_at"] < due:
            yield f"its schedule made it before it was due at {due}"
        is_talk = self.run["status"] == "SUCCESSFUL" and self.run["task_path"].endswith(".talks")
        if is_talk and self.evidence.written.get(self.run["id"], 0) < LINES:
            yield "lines of its log are missing"

    def of_its_columns(self) -> Iterator[str]:
        run, status = self.run, self.run["status"]
        told = [run[name] for name in ("enqueued_at", "claimed_at", "started_at", "finished_at") if run[name]]
        if told != sorted(told):
            yield f"its times are not in order: {', '.join(map(str, told))}"
        if run["finished_at"] is None:
            yield "it is final and has no end"
        if (run["failure"] is not None) != (status == "FAILED"):
            yield f"it is {status} with the failure {run['failure']}"
        if (run["return_value"] is not None) != (status == "SUCCESSFUL"):
            yield f"it is {status} with the result {run['return_value']!r}"
        if status == "SUCCESSFUL" and run["return_value"] != run["args"][0]:
            yield f"its result is {run['return_value']!r}, not its number {run['args'][0]}"
        if status != "CANCELLED" and (run["claimed_by"] is None or run["started_at"] is None):
            yield f"it is {status}, and who ended it or when it began is not written"

    def of_its_attempts(self) -> Iterator[str]:
        """Each attempt that was charged has one entry, but for the one that succeeded."""
        run = self.run
        if not 0 <= run["attempt"] <= run["max_attempts"]:
            yield f"it had {run['attempt']} attempts of {run['max_attempts']}"
        expected = run["attempt"] - (run["status"] == "SUCCESSFUL")
        if [entry["attempt"] for entry in self.entries] != list(range(1, expected + 1)):
            yield f"it is {run['status']} at attempt {run['attempt']} with entries of other attempts"
        for entry in self.entries:
            if not entry["started_at"] <= entry["ended_at"]:
                yield f"attempt {entry['attempt']} ended before it began"

    def of_its_end(self) -> Iterator[str]:
        """It ended as its task is meant to, was cancelled by somebody, or lost its worker again and again."""
        run, status, failure = self.run, self.run["status"], self.run["failure"]
        if status == "CANCELLED":
            # Those of workflows are judged with their workflow.
            if run["id"] not in self.evidence.notes.wished and not has_expired(run) and run["workflow_id"] is None:
                yield "it is cancelled, and nobody wished that"
        elif failure == "worker_lost":
            if run["attempt"] < run["max_attempts"]:
                yield f"it was given up at attempt {run['attempt']} of {run['max_attempts']}"
        elif (status, failure) != (self.kind.status, self.kind.failure):
            yield f"it ended as {status}/{failure}: {run['failure_message']}"
        if status == "FAILED" and (not self.entries or self.entries[-1]["reason"] != failure):
            yield f"it failed by {failure}, and its last entry does not say so"

    def of_its_expiry(self) -> Iterator[str]:
        """What was not begun in time never is, and nothing else expires."""
        run = self.run
        if has_expired(run) and (self.executions or run["attempt"] or run["attempts"]):
            yield f"it expired, although it was begun: {run['failure_message']}"
        if run["expires_at"] and self.claimed and self.claimed > run["expires_at"] + NOTED_WITHIN:
            yield f"it was claimed at {self.claimed}, after it had expired at {run['expires_at']}"
        if run["args"][0] in self.evidence.notes.late and run["retry_of_id"] is None and run["status"] != "CANCELLED":
            yield f"it had expired before it was sent, and is {run['status']}"

    def of_its_executions(self) -> Iterator[str]:
        """At least once, a second time only after a recorded loss, and never beside a live claim."""
        run = self.run
        final = (run["attempt"], run["claimed_by"])
        succeeded = run["status"] == "SUCCESSFUL"
        if succeeded and not any(one.key == final and one.how == "returned" for one in self.executions):
            yield "it is SUCCESSFUL, and nothing was executed to its end for that"
        entries = {(entry["attempt"], entry["worker"]): entry for entry in run["attempts"]}
        keys = Counter(one.key for one in self.executions)
        yield from (f"attempt {key[0]} was executed {n} times by {key[1]}" for key, n in keys.items() if n > 1)
        over: datetime | None = None
        timely = list(self.timely(entries))
        for before, execution in zip([None, *timely], timely, strict=False):
            said = f"attempt {execution.attempt} by {execution.holder}"
            if before is not None:
                if over is None or over > execution.began:
                    yield f"{said} began at {execution.began}, before the claim of {before.holder} was over ({over})"
                beside = before.holder in (execution.beside or ())
                if (beside or (before.ended and before.ended > execution.began)) and (
                    before.cluster not in self.evidence.lost_clusters
                ):
                    yield f"{said} began beside {before.holder}, whose cluster was not lost"
            if entry := entries.get(execution.key):
                over = datetime.fromisoformat(entry["ended_at"])
            elif succeeded and execution.key == final:
                over = None  # nothing may come after a success
                if execution.began < run["run_after"]:
                    yield f"{said} began at {execution.began}, although it was not to begin before {run['run_after']}"
            else:
                over = None
                yield f"{said} was executed, and nothing is recorded of it"

    def timely(self, entries: dict[tuple[int, str], dict[str, Any]]) -> Iterator[Execution]:
        """Without those of a worker that was frozen between its claim and the first line of the task.

        When it goes on, its cluster is lost and its claim is over, and so recorded. Nobody can tell that from one that
        was frozen right after its line in the ledger, and nothing of what it does counts.
        """
        for one in self.executions:
            entry = entries.get(one.key)
            if (
                entry
                and entry["reason"] == "worker_lost"
                and one.cluster in self.evidence.lost_clusters
                and one.began >= datetime.fromisoformat(entry["ended_at"])
            ):
                self.verdict.late[one.holder].append(one.run)
            else:
                yield one


def history(run: Run, executions: list[Execution]) -> list[str]:
    """All that is known of a run, in the order in which it happened."""
    told = [(run[name], name) for name in ("enqueued_at", "claimed_at", "started_at", "finished_at") if run[name]]
    for entry in run["attempts"]:
        words = f"attempt {entry['attempt']} by {entry['worker']}, {entry['reason']}: {entry['message']}"
        told += [(datetime.fromisoformat(entry["started_at"]), f"entry: start of {words}")]
        told += [(datetime.fromisoformat(entry["ended_at"]), f"entry: end of {words}")]
    for one in executions:
        beside = f", beside {', '.join(one.beside)}" if one.beside else ""
        told += [(one.began, f"ledger: attempt {one.attempt} by {one.holder} begins{beside}")]
        if one.ended:
            told += [(one.ended, f"ledger: attempt {one.attempt} by {one.holder} ends, {one.how}")]
    head = (
        f"{run['task_path']}{tuple(run['args'])} in {run['queue_name']}: {run['status']}/{run['failure']}, "
        f"attempt {run['attempt']} of {run['max_attempts']}, claimed by {run['claimed_by']}, "
        f"cancel requested {run['cancel_requested_at']}"
    )
    return [head, *(f"{at:%H:%M:%S.%f} {words}" for at, words in sorted(told, key=lambda one: one[0]))]
