"""The machines of `test_interleavings` with people who steer runs in bulk, with workflows, and with all of it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg
import pytest
from django.db import transaction
from psycopg.rows import tuple_row

from tasks_app.engine import verbs, workflow_statements
from tasks_app.engine.advance import Sweep
from tasks_app.ids import new_id
from tasks_app.models import Workflow
from tasks_app.workflows import PREVIOUS, Flow, chain, group
from tests import flows
from tests.faults.moves import Connections, Row, move, play
from tests.faults.test_interleavings import (
    CONNECTIONS,
    FINAL,
    PLACES,
    QUEUES,
    SOON,
    WORKERS,
    YES_OR_NO,
    Queue,
    UnderPolicies,
    WithWishes,
    is_free,
    is_over,
)


def several(random: Random) -> set[int]:
    """Places in the list of all runs."""
    return set(random.choices(PLACES, k=random.randint(1, 6)))


class UnderPeople(Queue):
    """People change, retry and delete several runs at once, and have some of them locked for a while."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.somebody = connections["somebody"]
        self.asked: list[uuid.UUID] = []
        """The locked runs that somebody is about to retry."""

    def pick(self, places: set[int]) -> list[uuid.UUID]:
        return sorted({self.runs[place % len(self.runs)] for place in places}) if self.runs else []

    def act(self, verb: verbs.Verb, places: set[int], is_legal: Callable[[Row], Any]) -> set[uuid.UUID]:
        """It is done to exactly those that it is legal for, but for locked ones."""
        picked = self.pick(places)
        with transaction.atomic():
            done = verb.act(picked, verbs.SKIP_LOCKED)
        assert done == {run_id for run_id in picked if is_legal(self.seen[run_id])} - self.locked
        return done

    @move(places=several, priority=[-1, 0, 1])
    def set_priority(self, places: set[int], priority: int) -> None:
        self.act(verbs.set_priority(priority), places, lambda row: is_free(row) and row["priority"] != priority)

    @move(places=several, queue=QUEUES)
    def change_queue(self, places: set[int], queue: str) -> None:
        self.act(verbs.move_to(queue), places, lambda row: is_free(row) and row["queue_name"] != queue)

    @move(places=several, is_now=YES_OR_NO)
    def run_at(self, places: set[int], is_now: bool) -> None:
        verb = verbs.run_at(None if is_now else datetime.now(UTC) + SOON)
        self.act(verb, places, lambda row: is_free(row) and not (is_now and is_over(row["run_after"])))

    @move(places=several)
    def cancel_many(self, places: set[int]) -> None:
        def is_legal(row: Row) -> bool:
            return row["status"] not in FINAL and not (row["claimed_by"] and row["cancel_requested_at"])

        self.wished |= self.act(verbs.cancel(None, ""), places, is_legal)

    # Retries

    def may_be_retried(self, row: Row, successful_too: bool, anew: bool) -> bool:
        retries = [one["status"] for one in self.seen.values() if one["retry_of_id"] == row["id"]]
        if row["status"] not in FINAL or (row["status"] == "SUCCESSFUL" and not successful_too):
            return False
        return not row["is_waiting"] and FINAL.issuperset(retries) and (anew or not retries)

    def has_retried(self, done: set[uuid.UUID]) -> None:
        rows = self.eye.execute("SELECT * FROM tasks_app_taskrun WHERE retry_of_id IS NOT NULL ORDER BY id").fetchall()
        copies = [row for row in rows if row["id"] not in self.seen]
        assert Counter(row["retry_of_id"] for row in copies) == Counter(done), "not one retry of each"
        for copy in copies:
            assert copy["status"] == "READY"
            for name in ("task_path", "args", "kwargs", "queue_name", "priority", "max_attempts", "limit_key"):
                assert copy[name] == self.seen[copy["retry_of_id"]][name]
            assert copy["unique_key"] is copy["workflow_id"] is copy["expires_at"] is None
            self.runs.append(copy["id"])

    @move(2, places=several, successful_too=YES_OR_NO, anew=YES_OR_NO)
    def retry(self, places: set[int], successful_too: bool, anew: bool) -> None:
        verb = verbs.retry(None, successful_too, anew)
        self.has_retried(self.act(verb, places, lambda row: self.may_be_retried(row, successful_too, anew)))

    # Somebody in no hurry

    @move(places=several)
    def lock(self, places: set[int]) -> None:
        """For a change of what nobody holds or what has ended; nobody waits for it."""
        if not self.locked:
            self.somebody.execute("BEGIN")
            self.locked = {run_id for run_id in self.pick(places) if run_id not in self.held}
            self.somebody.execute("SELECT FROM tasks_app_taskrun WHERE id = ANY (%s) FOR UPDATE", [list(self.locked)])

    @move(2, places=several)
    def begin_to_retry(self, places: set[int]) -> None:
        """The first statement of a retry, whose second one comes later."""
        if not self.locked:
            self.somebody.execute("BEGIN")
            query = verbs.TARGET.format(legal=verbs.RETRYABLE, locked=verbs.SKIP_LOCKED) + verbs.LOCK
            given = {"ids": self.pick(places), "statuses": ["FAILED", "CANCELLED"]}
            self.asked = sorted(row["id"] for row in self.somebody.execute(query, given).fetchall())
            self.locked = set(self.asked)

    @move(3, commits=YES_OR_NO, anew=YES_OR_NO)
    def unlock(self, commits: bool, anew: bool = True) -> None:
        done = set()
        if self.asked and commits:
            given = {"ids": self.asked, "copies": [new_id() for _ in self.asked], "owner": None, "anew": anew}
            done = {row["id"] for row in self.somebody.execute(verbs.RETRY + verbs.AND_NOTIFY, given).fetchall()}
            assert done == {run_id for run_id in self.asked if self.may_be_retried(self.seen[run_id], False, anew)}
        if commits:
            self.somebody.commit()
        else:
            self.somebody.rollback()
        self.asked, self.locked = [], set()
        self.has_retried(done)

    # Deletes

    def may_be_deleted(self, row: Row) -> bool:
        keeps_key = row["unique_until"] and not is_over(row["unique_until"])
        retried = [one for one in self.seen.values() if one["retry_of_id"] == row["id"] and one["status"] not in FINAL]
        return row["status"] in FINAL and not keeps_key and not retried

    @move(2, places=several)
    def delete(self, places: set[int]) -> None:
        deleted = self.act(verbs.delete(), places, self.may_be_deleted)
        self.runs = [run_id for run_id in self.runs if run_id not in deleted]

    def check_together(self) -> None:
        super().check_together()
        go_on = Counter(row["retry_of_id"] for row in self.found.values() if row["status"] not in FINAL)
        for run_id, number in go_on.items():
            if run_id is not None:
                assert number == 1, "two retries of one run go on"
                assert self.found[run_id]["status"] in FINAL, "a retry of what has not ended, or is gone"

    def come_to_rest(self) -> None:
        self.unlock(commits=False)
        super().come_to_rest()


# Workflows, by rules of their own

Plan = Any
"""The number of a step, `("chain", plans)` or `("group", plans)`."""


def some_plan(random: Random, depth: int = 2) -> Plan:
    """With None for each step."""
    if random.random() < 1 - depth / 2:
        return None
    kind = random.choice(["chain", "group"])
    return kind, [some_plan(random, depth - 1) for _ in range(random.randint(kind == "chain", 3))]


def numbered(plan: Plan, first: int = 0) -> tuple[Plan, int]:
    """With the numbers of its steps, and how many there are."""
    if plan is None:
        return first, first + 1
    parts = []
    for inner in plan[1]:
        part, first = numbered(inner, first)
        parts.append(part)
    return (plan[0], parts), first


def steps_in(plan: Plan) -> list[int]:
    return [plan] if isinstance(plan, int) else [step for part in plan[1] for step in steps_in(part)]


def needs_of(plan: Plan, before: Plan = None) -> dict[int, Plan]:
    """The chain up to each of its steps, for those that something stands before."""
    if isinstance(plan, int):
        return {plan: before} if before else {}
    needs: dict[int, Plan] = {}
    for place, part in enumerate(plan[1]):
        so_far = [*([before] if before else []), *plan[1][:place]] if plan[0] == "chain" else []
        needs |= needs_of(part, ("chain", so_far) if so_far else before)
    return needs


def has_ended(plan: Plan, runs: dict[int, Row]) -> bool:
    return all(runs[step]["status"] in FINAL for step in steps_in(plan))


def is_broken(plan: Plan, runs: dict[int, Row]) -> bool:
    """Nothing may follow it in its chain."""
    if isinstance(plan, int):
        return runs[plan]["status"] in {"FAILED", "CANCELLED"}
    return plan[0] == "chain" and any(is_broken(part, runs) for part in plan[1])


def result_of(plan: Plan, runs: dict[int, Row]) -> Any:
    if is_broken(plan, runs):
        return None
    if isinstance(plan, int):
        return runs[plan]["return_value"]
    return [result_of(part, runs) for part in plan[1]] if plan[0] == "group" else result_of(plan[1][-1], runs)


def has_succeeded(plan: Plan, runs: dict[int, Row]) -> bool:
    if isinstance(plan, int):
        return runs[plan]["status"] == "SUCCESSFUL"
    if plan[0] == "group":
        return all(has_succeeded(part, runs) for part in plan[1])
    last = [part for part in plan[1] if steps_in(part)][-1:]
    return all(has_succeeded(part, runs) for part in last)


def built(plan: Plan, needs: dict[int, Plan]) -> Flow:
    """Each step is given its number, and what stands before it: the odd ones under a name too."""
    if isinstance(plan, int):
        previous = {"given": PREVIOUS} if plan % 2 else {}
        arguments, named = ([plan, PREVIOUS], previous) if plan in needs else ([plan], {})
        return flows.tells.using(queue_name=QUEUES[0]).step(*arguments, **named)
    parts = [built(part, needs) for part in plan[1]]
    return chain(parts) if plan[0] == "chain" else group(parts)


class Sentinel:
    """Its connection, and what others do when it has looked and before it acts."""

    def __init__(self, db: psycopg.Connection[Any], others_act: Callable[[], None]) -> None:
        self.db, self.others_act = db, others_act
        self.transaction = db.transaction
        self.trouble: Exception | None = None

    def execute(self, statement: str, given: dict[str, Any]) -> Any:
        found = self.db.cursor(row_factory=tuple_row).execute(statement, given)
        if statement == workflow_statements.STATES:
            try:
                self.others_act()
            except Exception as error:
                self.trouble = error
        return found


class WithWorkflows(UnderPeople):
    """Chains and groups, which sentinels carry on and people cancel."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.sweep = Sweep()
        self.plans: dict[uuid.UUID, Plan] = {}
        self.needs: dict[uuid.UUID, dict[int, Plan]] = {}
        self.goes_on: dict[uuid.UUID, bool] = {}
        """After a failure."""
        self.workflows: dict[uuid.UUID, Row] = {}
        """As they were after the last move."""
        self.cancelled: set[uuid.UUID] = set()
        """The workflows that somebody cancelled."""

    @move(3, plan=some_plan, goes_on=YES_OR_NO)
    def start(self, plan: Plan, goes_on: bool) -> None:
        plan, size = numbered(plan)
        if size:
            needs = needs_of(plan)
            workflow = built(plan, needs).enqueue(on_failure="continue" if goes_on else "stop")
            self.plans[workflow.pk], self.needs[workflow.pk], self.goes_on[workflow.pk] = plan, needs, goes_on
            self.runs += workflow.steps.values_list("pk", flat=True)

    @move(place=PLACES)
    def cancel_workflow(self, place: int) -> None:
        if self.plans:
            workflow = list(self.plans)[place % len(self.plans)]
            goes_on = self.workflows[workflow]["status"] not in FINAL
            assert Workflow.objects.get(pk=workflow).cancel("Enough.") == goes_on
            if goes_on:
                self.cancelled.add(workflow)

    @move(5, meanwhile=["nothing", "claim", "cancel", "FAILED", "SUCCESSFUL"], me=WORKERS, place=PLACES)
    def advance(self, meanwhile: str, me: str, place: int) -> None:
        def others_act() -> None:
            if meanwhile == "claim":
                self.claim(me, QUEUES[0], knows=True)
            elif meanwhile == "cancel":
                self.cancel(place)
            elif meanwhile != "nothing":
                self.finish(place, meanwhile, twice=False)

        self.turn(others_act)

    def turn(self, others_act: Callable[[], None] = lambda: None) -> bool:
        """Of a sentinel, with one workflow that there are news of; answers whether there may be more of them."""
        sentinel: Any = Sentinel(self.connections["sentinel"], others_act)
        due_in = self.sweep.turn(sentinel)
        if sentinel.trouble:
            raise sentinel.trouble
        return due_in is not None

    # What always holds

    def steps_of(self, workflow: uuid.UUID) -> dict[int, Row]:
        return {run["step"]: run for run in self.found.values() if run["workflow_id"] == workflow}

    def may_be_cancelled(self, row: Row) -> bool:
        workflow, step = row["workflow_id"], row["step"]
        if super().may_be_cancelled(row) or workflow in self.cancelled:
            return True
        if workflow is None:
            return False
        steps = self.steps_of(workflow)
        if self.goes_on[workflow]:
            return step in self.needs[workflow] and is_broken(self.needs[workflow][step], steps)
        return any(is_broken(other, steps) for other in steps if other != step)

    def may_be_deleted(self, row: Row) -> bool:
        workflow = self.workflows.get(row["workflow_id"])
        return super().may_be_deleted(row) and (workflow is None or workflow["status"] in FINAL)

    def check_together(self) -> None:
        super().check_together()
        has_news = "EXISTS (SELECT FROM tasks_app_workflownews WHERE workflow_id = workflow.id) AS has_news"
        found = self.eye.execute(f"SELECT *, {has_news} FROM tasks_app_workflow AS workflow").fetchall()
        assert {row["id"] for row in found} == set(self.plans)
        for row in found:
            before = self.workflows.get(row["id"])
            if before and before["status"] in FINAL:
                assert row == before, "a final workflow has changed"
                continue
            steps = self.steps_of(row["id"])
            for run in steps.values():
                self.check_step(run, steps, self.needs[row["id"]].get(run["step"]))
            if row["status"] in FINAL:
                self.check_end(row, steps)
            elif not row["has_news"]:
                self.check_settled(row, steps)
        self.workflows = {row["id"]: row for row in found}

    def check_step(self, run: Row, steps: dict[int, Row], need: Plan) -> None:
        before, number = self.seen.get(run["id"]), run["step"]
        if before is None:
            assert bool(run["is_waiting"]) == bool(need and steps_in(need)), "it waits for nothing, or does not wait"
        elif not before["is_waiting"]:
            assert not run["is_waiting"], "it waits once more"
            assert (run["args"], run["kwargs"]) == (before["args"], before["kwargs"]), "it got other arguments"
        elif not run["is_waiting"]:
            assert has_ended(need, steps), "released too early"
            assert not is_broken(need, steps), "released although what it needs is broken"
            result = result_of(need, steps)
            assert (run["args"], run["kwargs"]) == ([number, result], {"given": result} if number % 2 else {})

    def check_end(self, workflow: Row, steps: dict[int, Row]) -> None:
        assert workflow["finished_at"]
        assert "cannot be carried on" not in (workflow["message"] or "")
        assert {run["status"] for run in steps.values()} <= FINAL, "a workflow has ended before its runs"
        bad = "CANCELLED" if workflow["id"] in self.cancelled else "FAILED"
        assert workflow["status"] == ("SUCCESSFUL" if has_succeeded(self.plans[workflow["id"]], steps) else bad)

    def check_settled(self, workflow: Row, steps: dict[int, Row]) -> None:
        """Nothing is left to be done for it, because there are no news of it."""
        unfinished = [run for run in steps.values() if run["status"] not in FINAL]
        assert unfinished, "all its runs have ended, but it goes on"
        for run in unfinished:
            if workflow["id"] in self.cancelled:
                assert run["cancel_requested_at"], "it is not told to stop"
            elif run["is_waiting"]:
                assert not has_ended(self.needs[workflow["id"]][run["step"]], steps), "it waits for ever"
                is_stopped = not self.goes_on[workflow["id"]] and any(is_broken(step, steps) for step in steps)
                assert not is_stopped, "it waits although it may never begin"

    # The end

    def carry_on(self) -> None:
        for _ in range(100):
            if not self.turn():
                return super().carry_on()
            self.look()
        raise AssertionError("workflows are looked at for ever")

    def run_out(self) -> None:
        super().run_out()
        self.carry_on()
        self.look()
        assert {row["status"] for row in self.workflows.values()} <= FINAL, "a workflow never ends"


class Everything(WithWorkflows, WithWishes, UnderPolicies):
    """All of it at once."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("machine", [UnderPeople, WithWorkflows, Everything])
def test_any_interleaving_keeps_these_promises_too(machine: type[Queue]) -> None:
    play(machine, CONNECTIONS, examples=25, moves=60)
