"""What was sent once more, what went and what stayed: retries and retention, from the rows as they were in the end."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config.retention import Rule
from soak.promises import Notes
from soak.steering import ONCE_MORE
from soak.together import Found, Row, keeps_key_until

Act = Mapping[str, Any]
"""An entry of the audit: at, verb, runs, reason."""

FINAL = {"SUCCESSFUL", "FAILED", "CANCELLED"}


def of_retries(rows: Mapping[uuid.UUID, Row], acts: Iterable[Act]) -> Iterator[Found]:
    """Each does over a run that has ended, no two of one run go on at once, and the audit tells each.

    Of a verb for many there is one only for a run that had none before, ended or not, as far as that is still there.
    """
    wishes = by_run(acts, "retry")
    found: dict[uuid.UUID, list[Row]] = defaultdict(list)
    for row in sorted((row for row in rows.values() if row.retry_of), key=lambda row: row.made):
        assert row.retry_of
        old, earlier = rows.get(row.retry_of), found[row.retry_of]
        if old is None:
            yield f"it is a retry of {row.retry_of}, which never was there", row.id
            continue
        if old.ended is None or old.ended > row.made:
            yield f"it is a retry, made at {row.made}, of {old.id}, which ended at {old.ended}", row.id
        if (old.task, old.arguments) != (row.task, row.arguments) or row.workflow:
            yield f"it is a retry of {old.id} and not the same", row.id
        if earlier and (earlier[-1].ended is None or earlier[-1].ended > row.made):
            before = earlier[-1].id
            yield f"it is a retry of {old.id}, made at {row.made}, when {before} was one that had not ended", row.id
        reason = wishes[old.id][len(earlier)]["reason"] if len(earlier) < len(wishes[old.id]) else None
        there = [str(one.id) for one in earlier if one.gone is None or one.gone > row.made]
        if there and reason is not None and reason != ONCE_MORE:
            yield f"it is a retry of {old.id} by a verb for many, after {', '.join(there)}", row.id
        earlier.append(row)
    for run in wishes.keys() | found.keys():
        if len(wishes[run]) != len(found[run]):
            yield f"it was sent once more {len(found[run])} times, and the audit tells of {len(wishes[run])}", run


def by_run(acts: Iterable[Act], verb: str) -> dict[uuid.UUID, list[Act]]:
    found: dict[uuid.UUID, list[Act]] = defaultdict(list)
    for act in acts:
        for run in act["runs"] if act["verb"] == verb else ():
            found[run].append(act)
    return found


@dataclass
class Keeping:
    """What may go, and what has to."""

    rows: Mapping[uuid.UUID, Row]
    flows: Mapping[uuid.UUID, Mapping[str, Any]]
    notes: Notes
    deleted: Mapping[uuid.UUID, Sequence[Act]]
    """By somebody, so no rule was asked."""
    rules: Sequence[Rule]
    pruned: datetime
    """When the last prune began, after everything had ended."""

    def __post_init__(self) -> None:
        self.retries: dict[uuid.UUID, list[Row]] = defaultdict(list)
        self.members: dict[uuid.UUID, list[Row]] = defaultdict(list)
        self.of_rule: dict[Rule, list[Row]] = defaultdict(list)
        for row in sorted(self.rows.values(), key=lambda row: (row.made, row.id), reverse=True):
            if row.retry_of:
                self.retries[row.retry_of].append(row)
            if row.workflow:
                self.members[row.workflow].append(row)
            if rule := self.rule(row):
                self.of_rule[rule].append(row)

    def rule(self, row: Row) -> Rule | None:
        of_status = {rule.task: rule for rule in self.rules if rule.status == row.status}
        return of_status.get(row.task, of_status.get(None))

    def complaints(self) -> Iterator[Found]:
        for row in self.rows.values():
            if row.gone is None:
                continue
            if reason := self.why_not(row, row.gone):
                yield f"it went at {row.gone}, although {reason}", row.id
            if row.id in self.deleted:
                if row.id not in self.notes.wished_gone:
                    yield "it was deleted, and nobody wished that", row.id
            elif self.rule(row) is None:
                yield f"it was pruned, and no rule lets go of what is {row.status}", row.id
            elif row.number in self.notes.keyed and row.retry_of is None:
                yield "it was pruned, although the key that it was sent with is taken", row.id
        for run in self.deleted.keys() - {row.id for row in self.rows.values() if row.gone}:
            yield "the audit has it as deleted, and it is there", run
        for rule, rows in self.of_rule.items():
            yield from self.of_age(rule, rows) if rule.age is not None else self.of_number(rule, rows)
        yield from self.of_workflows()

    def why_not(self, row: Row, at: datetime) -> str | None:
        """Why it had to stay at that moment, whatever the rules say."""
        if row.status not in FINAL or row.ended is None or row.ended > at:
            return f"it was {row.status} and ended at {row.ended}"
        flow = self.flows.get(row.workflow) if row.workflow else None
        if flow and (flow["finished_at"] is None or flow["finished_at"] > at):
            return f"its workflow ended at {flow['finished_at']}"
        for retry in self.retries[row.id]:
            if retry.made <= at and (retry.ended is None or retry.ended > at):
                return f"its retry {retry.id} ended at {retry.ended}"
        keeps = keeps_key_until(row)
        return f"it kept its key until {keeps}" if keeps and keeps > at else None

    def has_to_go(self, row: Row) -> bool:
        is_keyed = row.number in self.notes.keyed and row.retry_of is None
        return row.gone is None and not is_keyed and self.why_not(row, self.pruned) is None

    def of_age(self, rule: Rule, rows: Sequence[Row]) -> Iterator[Found]:
        assert rule.age is not None
        for row in rows:
            if row.ended is None:
                continue
            if row.gone and row.id not in self.deleted and row.ended + rule.age >= row.gone:
                yield f"it was pruned at {row.gone}, {row.gone - row.ended} after its end, by {rule}={rule.age}", row.id
            if row.ended + rule.age < self.pruned and self.has_to_go(row):
                yield f"it is still there, although it ended at {row.ended}, and {rule}={rule.age}", row.id

    def of_number(self, rule: Rule, rows: Sequence[Row]) -> Iterator[Found]:
        """The newest of them come first."""
        assert rule.newest is not None
        newer = 0
        for place, row in enumerate(rows):
            if row.gone and row.id not in self.deleted and not had_newer(rule.newest, rows[:place], row.gone):
                yield f"it was pruned at {row.gone} and was one of the newest, by {rule}={rule.newest}", row.id
            if newer >= rule.newest and self.has_to_go(row):
                yield f"it is still there, although {newer} are newer, and {rule}={rule.newest}", row.id
            newer += row.gone is None or row.gone > self.pruned

    def of_workflows(self) -> Iterator[Found]:
        for flow, row in self.flows.items():
            if row["gone_at"] is None:
                if all(member.gone for member in self.members[flow]):
                    yield f"the workflow {flow} has no runs any more and is still there", None
                continue
            for member in self.members[flow]:
                if member.gone is None or member.gone > row["gone_at"]:
                    yield f"its workflow went at {row['gone_at']}, and it did not before", member.id


def had_newer(number: int, newer: Sequence[Row], at: datetime) -> bool:
    """So many of them had ended by then; the last is the oldest."""
    for row in reversed(newer):
        if number == 0:
            break
        number -= row.ended is not None and row.ended <= at
    return number == 0


def of_lines(
    rows: Mapping[uuid.UUID, Row], lines: Iterable[Mapping[str, Any]], notes: Notes, was_lost: Container[uuid.UUID]
) -> Iterator[Found]:
    """The log goes with its run, and not without it.

    But for what a worker says of a run that others have ended meanwhile, because its cluster was lost.
    """
    for line in lines:
        row = rows.get(line["run_id"])
        if line["here"] and (row is None or row.gone) and line["run_id"] not in was_lost:
            yield f"{line['here']} lines of its log are left, although it is gone", line["run_id"]
        # A delete takes them first: should the database break before it comes to the run, somebody has to do it again.
        if line["gone"] and row and row.gone is None and row.id not in notes.wished_gone:
            yield f"{line['gone']} lines of its log are gone, although it is there", line["run_id"]
