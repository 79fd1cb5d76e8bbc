"""The machines of `test_interleavings` with people who steer runs in bulk, with workflows, and with all of it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tasks_app.engine import verbs, workflow_statements
from tasks_app.engine.advance import advance
from tasks_app.models import Workflow
from tasks_app.workflows import PREVIOUS, Flow, chain, group
from tests import flows
from tests.faults.test_interleavings import (
    FINAL,
    SOON,
    Claim,
    Connections,
    Queue,
    Row,
    UnderPolicies,
    WithWishes,
    is_free,
    is_over,
    play,
)  # fmt: skip

RUNS = st.sets(st.integers(0, 20), min_size=1, max_size=6)
"""Places in the list of all runs, counted on from its end."""


class UnderPeople(Queue):
    """People change, retry and delete several runs at once, and have some of them locked for a while."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.somebody = connections["somebody"]
        self.is_open = False
        self.asked: list[uuid.UUID] = []
        """The runs that somebody has locked to retry them, but has not yet."""
        self.workflow_ends: dict[uuid.UUID, bool] = {}

    def pick(self, places: set[int]) -> list[uuid.UUID]:
        return sorted({self.runs[place % len(self.runs)] for place in places}) if self.runs else []

    def act(self, verb: verbs.Verb, places: set[int], is_legal: Callable[[Row], bool]) -> set[uuid.UUID]:
        """It is done to exactly those that it is legal for, but for locked ones."""
        picked = self.pick(places)
        with transaction.atomic():
            done = verb.act(picked, verbs.SKIP_LOCKED)
        assert done == {run_id for run_id in picked if is_legal(self.seen[run_id])} - self.locked
        return done

    @rule(places=RUNS, priority=st.sampled_from([-1, 0, 1]))
    def set_priority(self, places: set[int], priority: int) -> None:
        self.act(verbs.set_priority(priority), places, lambda row: is_free(row) and row["priority"] != priority)

    @rule(places=RUNS, to=st.integers(0, 1))
    def move(self, places: set[int], to: int) -> None:
        queue = self.queues[to]
        self.act(verbs.move_to(queue), places, lambda row: is_free(row) and row["queue_name"] != queue)

    @rule(places=RUNS, is_now=st.booleans())
    def run_at(self, places: set[int], is_now: bool) -> None:
        moment = None if is_now else datetime.now(UTC) + SOON
        verb = verbs.run_at(moment)
        self.act(verb, places, lambda row: is_free(row) and not (is_now and is_over(row["run_after"])))

    @rule(places=RUNS)
    def cancel_many(self, places: set[int]) -> None:
        self.act(
            verbs.cancel(None, ""),
            places,
            lambda row: row["status"] not in FINAL and (row["claimed_by"] is None or not row["cancel_requested_at"]),
        )

    # Retries

    def retries(self) -> dict[uuid.UUID, list[uuid.UUID]]:
        """Of each run the retries that have not ended."""
        found: dict[uuid.UUID, list[uuid.UUID]] = {}
        for run_id, row in self.seen.items():
            if row["retry_of_id"] and row["status"] not in FINAL:
                found.setdefault(row["retry_of_id"], []).append(run_id)
        return found

    def may_be_retried(self, row: Row, successful_too: bool = False) -> bool:
        if row["status"] not in FINAL or (row["previous"] and row["is_waiting"]) or row["id"] in self.retries():
            return False
        return successful_too or row["status"] != "SUCCESSFUL"

    def has_retried(self, done: set[uuid.UUID]) -> None:
        copies = [row for run_id, row in self.read().items() if run_id not in self.seen]
        assert Counter(row["retry_of_id"] for row in copies) == Counter(done), "not one retry of each"
        for copy in copies:
            assert copy["status"] == "READY"
            for name in ("task_path", "args", "kwargs", "queue_name", "priority", "max_attempts"):
                assert copy[name] == self.seen[copy["retry_of_id"]][name]
            assert copy["unique_key"] is copy["workflow_id"] is copy["expires_at"] is None
            self.runs.append(copy["id"])

    @rule(places=RUNS, successful_too=st.booleans())
    def retry(self, places: set[int], successful_too: bool) -> None:
        verb = verbs.retry(None, successful_too)
        self.has_retried(self.act(verb, places, lambda row: self.may_be_retried(row, successful_too)))

    # Somebody in no hurry

    @rule(places=RUNS)
    def lock(self, places: set[int]) -> None:
        """For a change of what nobody holds or what has ended; nobody waits for it."""
        if not self.is_open:
            self.begin()
            ids = [run_id for run_id in self.pick(places) if run_id not in self.held]
            self.somebody.execute("SELECT FROM tasks_app_taskrun WHERE id = ANY (%s) FOR UPDATE", [ids])
            self.locked = set(ids)

    @rule(places=RUNS)
    def begin_to_retry(self, places: set[int]) -> None:
        """The first statement of a retry, whose second one comes later."""
        if not self.is_open:
            self.begin()
            query = verbs.TARGET.format(legal=verbs.RETRYABLE, locked=verbs.SKIP_LOCKED) + verbs.LOCK
            given = {"ids": self.pick(places), "statuses": ["FAILED", "CANCELLED"]}
            self.locked = {row["id"] for row in self.somebody.execute(query, given).fetchall()}
            self.asked = sorted(self.locked)

    def begin(self) -> None:
        self.somebody.execute("BEGIN")
        self.is_open = True

    @rule(commits=st.booleans())
    def unlock(self, commits: bool) -> None:
        if not self.is_open:
            return
        done = set()
        if self.asked and commits:
            given = {"ids": self.asked, "copies": [uuid.uuid4() for _ in self.asked], "owner": None}
            done = {row["id"] for row in self.somebody.execute(verbs.RETRY + verbs.AND_NOTIFY, given).fetchall()}
            assert done == {run_id for run_id in self.asked if self.may_be_retried(self.seen[run_id])}
        self.somebody.execute("COMMIT" if commits else "ROLLBACK")
        self.is_open, self.asked, self.locked = False, [], set()
        self.has_retried(done)

    # Deletes

    def may_be_deleted(self, row: Row) -> bool:
        keeps_key = row["unique_until"] and not is_over(row["unique_until"])
        goes_on = row["workflow_id"] and not self.workflow_ends[row["workflow_id"]]
        return row["status"] in FINAL and not keeps_key and not goes_on and row["id"] not in self.retries()

    @rule(places=RUNS)
    def delete(self, places: set[int]) -> None:
        deleted = self.act(verbs.delete(), places, self.may_be_deleted)
        assert all(self.seen[run_id]["status"] in FINAL for run_id in deleted), "deleted before its end"
        self.runs = [run_id for run_id in self.runs if run_id not in deleted]

    def check(self, rows: dict[uuid.UUID, Row]) -> None:
        super().check(rows)
        unfinished = Counter(row["retry_of_id"] for row in rows.values() if row["status"] not in FINAL)
        for run_id, count in unfinished.items():
            if run_id is not None:
                assert count == 1, "two retries of one run go on"
                assert rows[run_id]["status"] in FINAL, "a retry of what has not ended, or is gone"

    def come_to_rest(self) -> None:
        if self.is_open:
            self.somebody.execute("ROLLBACK")
            self.is_open, self.asked, self.locked = False, [], set()
        super().come_to_rest()


# Workflows

Plan = Any
"""`None` for a step, `("chain", plans)` or `("group", plans)`; laid out, with the numbers of the steps instead."""

PLANS = st.recursive(
    st.none(),
    lambda inner: st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, max_size=3)),
    max_leaves=6,
)


def numbered(plan: Plan, first: int = 0) -> tuple[Plan, int]:
    """With the numbers of its steps, and how many there are."""
    if plan is None:
        return first, first + 1
    parts = []
    for inner in plan[1]:
        part, first = numbered(inner, first)
        parts.append(part)
    return (plan[0], parts), first


def needs_of(plan: Plan, before: Plan = ("group", ()), has_before: bool = False) -> dict[int, Plan]:
    """What stands before each of its steps, for those that something stands before."""
    if isinstance(plan, int):
        return {plan: before} if has_before else {}
    needs: dict[int, Plan] = {}
    for part in plan[1]:
        needs |= needs_of(part, before, has_before)
        if plan[0] == "chain":
            before, has_before = part, True
    return needs


def steps_in(plan: Plan) -> list[int]:
    return [plan] if isinstance(plan, int) else [step for part in plan[1] for step in steps_in(part)]


def is_broken(plan: Plan, statuses: dict[int, str]) -> bool:
    """Nothing may follow in its chain."""
    if isinstance(plan, int):
        return statuses[plan] in {"FAILED", "CANCELLED"}
    return plan[0] == "chain" and any(is_broken(part, statuses) for part in plan[1])


def result_of(plan: Plan, results: dict[int, Any]) -> Any:
    if isinstance(plan, int):
        return results[plan]
    if plan[0] == "group":
        return [result_of(part, results) for part in plan[1]]
    if not plan[1] or any(isinstance(part, int) and results[part] is None for part in plan[1]):
        return None
    return result_of(plan[1][-1], results)


def has_succeeded(plan: Plan, statuses: dict[int, str]) -> bool:
    if isinstance(plan, int):
        return statuses[plan] == "SUCCESSFUL"
    if plan[0] == "group":
        return all(has_succeeded(part, statuses) for part in plan[1])
    lasts = [part for part in plan[1] if steps_in(part)]
    return not lasts or has_succeeded(lasts[-1], statuses)


class Meanwhile:
    """A sentinel's connection, with something that others do when it has looked and before it acts."""

    def __init__(self, db: psycopg.Connection[Any], deed: Callable[[], None]) -> None:
        self.db, self.deed = db, deed

    def transaction(self) -> Any:
        return self.db.transaction()

    def execute(self, statement: str, given: dict[str, Any]) -> Any:
        with self.db.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
            found = cursor.execute(statement, given)
            if statement == workflow_statements.STATES:
                self.deed()
            return Answer(found.fetchall() if found.description else [])


class Answer:
    def __init__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.rows = rows

    def fetchall(self) -> Sequence[tuple[Any, ...]]:
        return self.rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None


class WithWorkflows(UnderPeople):
    """Chains and groups, which sentinels carry on and people cancel."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.sentinel = connections["sentinel"]
        self.plans: dict[uuid.UUID, Plan] = {}
        self.goes_on: dict[uuid.UUID, bool] = {}
        self.workflows: dict[uuid.UUID, Row] = {}
        """As they were after the last step."""
        self.released: set[uuid.UUID] = set()
        self.cancelled: set[uuid.UUID] = set()
        """The workflows that somebody cancelled."""

    @rule(plan=PLANS, goes_on=st.booleans())
    def start(self, plan: Plan, goes_on: bool) -> None:
        plan, size = numbered(plan)
        if not size:
            return
        plan = laid_out(plan)
        needs = needs_of(plan)

        def built(part: Plan) -> Flow:
            if isinstance(part, int):
                previous = {"given": PREVIOUS} if part % 2 else {}
                arguments = [part, PREVIOUS] if part in needs else [part]
                return flows.tells.using(queue_name=self.queue).step(*arguments, **(previous if part in needs else {}))
            parts = [built(inner) for inner in part[1]]
            return chain(parts) if part[0] == "chain" else group(parts)

        with transaction.atomic():
            workflow = built(plan).enqueue(on_failure="continue" if goes_on else "stop")
            workflow.steps.update(task_path=self.task)
        self.plans[workflow.pk] = plan
        self.goes_on[workflow.pk] = goes_on
        self.workflow_ends[workflow.pk] = False
        self.runs += workflow.steps.values_list("pk", flat=True)

    @rule(which=st.integers(0, 5))
    def cancel_workflow(self, which: int) -> None:
        if self.plans:
            workflow = list(self.plans)[which % len(self.plans)]
            is_final = self.workflows[workflow]["status"] in FINAL
            assert Workflow.objects.get(pk=workflow).cancel("Enough.") != is_final
            if not is_final:
                self.cancelled.add(workflow)

    @rule(
        after=st.sampled_from([uuid.UUID(int=0), uuid.UUID(int=1 << 127)]),
        meanwhile=st.sampled_from(["nothing", "claim", "finish", "finish", "fail", "cancel"]),
        worker=st.integers(0, 3),
        which=st.integers(0, 20),
    )
    def advance(self, after: uuid.UUID, meanwhile: str, worker: int, which: int) -> None:
        def deed() -> None:
            nonlocal meanwhile
            if meanwhile == "claim":
                self.take(self.workers[worker], self.queue, knows=True)
            elif meanwhile == "cancel":
                self.cancel(which)
            elif meanwhile in {"finish", "fail"} and self.held:
                run_id, (me, attempt) = list(self.held.items())[which % len(self.held)]
                self.finish(Claim(me, run_id, attempt), "FAILED" if meanwhile == "fail" else "SUCCESSFUL", twice=False)
            meanwhile = "nothing"

        db: Any = Meanwhile(self.sentinel, deed)
        advance(db, after)

    # What always holds

    def check(self, rows: dict[uuid.UUID, Row]) -> None:
        super().check(rows)
        found = self.eye.execute("SELECT * FROM tasks_app_workflow").fetchall()
        workflows = {row["id"]: row for row in found}
        assert set(workflows) == set(self.plans)
        for workflow, row in workflows.items():
            before, ended = self.workflows.get(workflow), row["status"] in FINAL
            assert "cannot be carried on" not in (row["message"] or "")
            assert ended == (row["finished_at"] is not None)
            if before and before["status"] in FINAL:
                assert row == before, "a final workflow has changed"
                assert not any(self.seen[run["id"]] != run for run in rows.values() if run["workflow_id"] == workflow)
                continue
            steps = {run["step"]: run for run in rows.values() if run["workflow_id"] == workflow}
            self.check_steps(workflow, steps)
            if ended:
                self.check_end(workflow, row, {step: run["status"] for step, run in steps.items()})
            self.workflow_ends[workflow] = ended
        self.workflows = workflows

    def check_steps(self, workflow: uuid.UUID, steps: dict[int, Row]) -> None:
        statuses = {step: run["status"] for step, run in steps.items()}
        results = {step: run["return_value"] for step, run in steps.items()}
        needs = needs_of(self.plans[workflow])
        has_trouble = bool({"FAILED", "CANCELLED"} & set(statuses.values()))
        for step, run in steps.items():
            need = needs.get(step)
            before = self.seen.get(run["id"])
            if before is None:
                assert run["is_waiting"] or need is None or not steps_in(need), "it does not wait"
                assert not run["is_waiting"] or need is not None, "it waits for nothing"
                continue
            if run["id"] in self.released or not before["is_waiting"]:
                assert not run["is_waiting"], "it waits once more"
                assert (run["args"], run["kwargs"]) == (before["args"], before["kwargs"]), "it got other arguments"
            elif not run["is_waiting"]:
                assert {statuses[one] for one in steps_in(need)} <= FINAL, "released too early"
                assert not is_broken(need, statuses), "released although what it needs is broken"
                result = result_of(need, results)
                assert run["args"] == [step, result]
                assert run["kwargs"] == ({"given": result} if step % 2 else {})
                self.released.add(run["id"])
            elif run["status"] == "CANCELLED" and not run["cancel_requested_at"]:
                pytest.fail("cancelled without a wish")
            elif run["status"] in FINAL and before["status"] not in FINAL and not self.goes_on[workflow]:
                assert has_trouble

    def check_end(self, workflow: uuid.UUID, row: Row, statuses: dict[int, str]) -> None:
        assert set(statuses.values()) <= FINAL, "a workflow has ended before its runs"
        if has_succeeded(self.plans[workflow], statuses):
            assert row["status"] == "SUCCESSFUL"
        else:
            assert row["status"] == ("CANCELLED" if workflow in self.cancelled else "FAILED")

    # The end

    def carry_on(self) -> bool:
        turns = 0
        while self.eye.execute("SELECT FROM tasks_app_workflownews LIMIT 1").rowcount:
            self.advance(uuid.UUID(int=0), "nothing", 0, 0)
            self.every_run_is_as_it_should_be()
            turns += 1
            assert turns < 100, "workflows are looked at for ever"
        return super().carry_on() or turns > 0

    def run_out(self) -> None:
        super().run_out()
        assert {row["status"] for row in self.workflows.values()} <= FINAL, "a workflow never ends"


def laid_out(plan: Plan) -> Plan:
    """With chains within chains taken for the same as their steps."""
    if isinstance(plan, int):
        return plan
    parts = [laid_out(part) for part in plan[1]]
    if plan[0] == "chain":
        parts = [
            inner for part in parts for inner in (part[1] if isinstance(part, tuple) and part[0] == "chain" else [part])
        ]
    return (plan[0], parts)


class Everything(WithWorkflows, WithWishes, UnderPolicies):
    """All of it at once."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("machine", [UnderPeople, WithWorkflows, Everything])
def test_any_interleaving_keeps_these_promises_too(machine: type[Queue]) -> None:
    play(machine, examples=40, steps=40)
