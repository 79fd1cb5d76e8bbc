"""Any order of claims, reports, finishes, losses and cancels, by several workers on several connections."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from psycopg.rows import dict_row

from tasks_app.engine import limits, statements, verbs
from tasks_app.models.run import GIVEN_BACK
from tests.plugins.processes import database_url

FINAL = {"SUCCESSFUL", "FAILED", "CANCELLED"}
WORKERS = st.integers(0, 3)
"""Four workers, of two clusters."""
MAX_ATTEMPTS = 3


class Claim:
    """What a worker believes it holds."""

    def __init__(self, me: str, run_id: uuid.UUID, attempt: int) -> None:
        self.me, self.run_id, self.attempt = me, run_id, attempt


class Queue(RuleBasedStateMachine):
    """Plays the workers with the engine's own statements, beside a model of who holds what."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        url = database_url()
        # Names and queue of its own, so that examples do not meet.
        clusters = [uuid.uuid4().hex[:12] for _ in range(2)]
        self.workers = [f"{cluster}:{number}:1:host" for cluster in clusters for number in (1, 2)]
        names = [*self.workers, "eye"]
        self.connections = {me: psycopg.connect(url, autocommit=True, row_factory=dict_row) for me in names}
        self.eye = self.connections["eye"]
        self.queue = uuid.uuid4().hex
        self.task = f"a.{self.queue}"
        self.runs: list[uuid.UUID] = []
        self.held: dict[uuid.UUID, tuple[str, int]] = {}
        self.executed: dict[uuid.UUID, int] = {}
        self.final: dict[uuid.UUID, dict[str, Any]] = {}
        self.losses: dict[uuid.UUID, int] = {}

    def teardown(self) -> None:
        for connection in self.connections.values():
            connection.close()

    # What a producer does

    @rule(count=st.integers(1, 3))
    def enqueue(self, count: int) -> None:
        ids = [uuid.uuid4() for _ in range(count)]
        options = {"task_path": self.task, "queue_name": self.queue, "priority": 0, "owner": None, "run_after": None}
        columns = {"id": ids, "args": ["[]"] * count, "kwargs": ["{}"] * count}
        limits = {"max_attempts": MAX_ATTEMPTS, "timeout": None}
        self.eye.execute(statements.ENQUEUE_MANY, {**options, **columns, **limits})
        self.runs += ids

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        if self.runs:
            run_id = self.runs[which % len(self.runs)]
            cancel = verbs.TARGET.format(legal=verbs.CANCELLABLE, locked=verbs.WAIT) + verbs.CANCEL
            self.eye.execute(cancel, {"ids": [run_id], "said": "Cancelled."})

    # What a worker does

    @rule(target=claims, worker=WORKERS)
    def claim(self, worker: int) -> Claim | None:
        me = self.workers[worker]
        query = {"queue": self.queue, "me": me, "limit": 1}
        row = self.connections[me].execute(statements.CLAIM, query).fetchone()
        if row is None:
            return None
        run_id, attempt = row["id"], row["attempt"]
        assert run_id not in self.held, "claimed beside a live claim"
        assert attempt <= MAX_ATTEMPTS
        self.held[run_id] = (me, attempt)
        return Claim(me, run_id, attempt)

    @rule(claim=claims)
    def report(self, claim: Claim | None) -> None:
        if claim:
            query = {"id": claim.run_id, "attempt": claim.attempt, "me": claim.me, "began": 0.0, "progress": None}
            changed = self.connections[claim.me].execute(statements.REPORT, query).rowcount
            assert changed == self.holds(claim)

    @rule(claim=consumes(claims), how=st.sampled_from(["SUCCESSFUL", "FAILED", "again"]), twice=st.booleans())
    def finish(self, claim: Claim | None, how: str, twice: bool) -> None:
        if claim is None:
            return
        holds = self.holds(claim)
        again = how == "again" and claim.attempt < MAX_ATTEMPTS
        status = "FAILED" if how == "again" else how
        told: dict[str, object] = {"status": status, "return_value": "1"}
        if status == "FAILED":
            told = {"status": "READY" if again else status, "failure": "error", "entry": '{"reason": "error"}'}
            told["retry_in"] = 0.0 if again else None
        told |= {"id": str(claim.run_id), "attempt": claim.attempt, "began": 0.0, "ended": 0.0}
        ending = {"me": claim.me, "done": json.dumps([told])}
        assert self.connections[claim.me].execute(statements.FINISH, ending).rowcount == holds
        if twice:  # its answer was lost, so it is sent again
            assert self.connections[claim.me].execute(statements.FINISH, ending).rowcount == 0
            query = {"me": claim.me, "attempt": claim.attempt, "status": status, "reason": "error", "id": claim.run_id}
            row = self.connections[claim.me].execute(statements.ALREADY_DONE, query).fetchone()
            assert row is not None
            if holds:
                assert next(iter(row.values())), "a finish that went through is not recognised"
        if holds:
            del self.held[claim.run_id]

    @rule(claim=consumes(claims))
    def release(self, claim: Claim | None) -> None:
        if claim is None:
            return
        row = self.read(claim.run_id)
        query = {"me": claim.me, "id": [claim.run_id], "attempt": [claim.attempt]}
        self.connections[claim.me].execute(statements.RELEASE, query)
        if self.holds(claim) and row["status"] == "READY":
            del self.held[claim.run_id]

    # What a sentinel does

    @rule(worker=WORKERS, whole_cluster=st.booleans())
    def lose(self, worker: int, whole_cluster: bool) -> None:
        me = self.workers[worker]
        held = statements.holder(me.split(":")[0] if whole_cluster else me, whole_cluster)
        query = {**held, "begun": None, "reason": "worker_lost", "message": "It died."}
        taken = {row["id"] for row in self.eye.execute(statements.TAKE_FROM_LOST, query).fetchall()}
        self.check_taken(me, whole_cluster, taken)

    @rule(worker=WORKERS, whole_cluster=st.booleans())
    def give_back(self, worker: int, whole_cluster: bool) -> None:
        me = self.workers[worker]
        held = statements.holder(me.split(":")[0] if whole_cluster else me, whole_cluster)
        taken = {
            row["id"] for row in self.eye.execute(statements.GIVE_BACK, {**held, "but": [], "begun": []}).fetchall()
        }
        self.check_taken(me, whole_cluster, taken)

    def check_taken(self, me: str, whole_cluster: bool, taken: set[uuid.UUID]) -> None:
        mine = me.split(":")[0] if whole_cluster else me
        held = {run_id for run_id, (holder, _) in self.held.items() if holder.startswith(mine)}
        assert taken == held
        for run_id in taken:
            del self.held[run_id]

    # What always holds

    def holds(self, claim: Claim) -> bool:
        return self.held.get(claim.run_id) == (claim.me, claim.attempt)

    def read(self, run_id: uuid.UUID) -> dict[str, Any]:
        row = self.eye.execute("SELECT * FROM tasks_app_taskrun WHERE id = %s", [run_id]).fetchone()
        assert row is not None
        return row

    @invariant()
    def every_run_is_as_it_should_be(self) -> None:
        rows = self.eye.execute("SELECT * FROM tasks_app_taskrun WHERE queue_name = %s", [self.queue]).fetchall()
        assert {row["id"] for row in rows} == set(self.runs), "a run is lost, or there is one too many"
        for row in rows:
            run_id, final = row["id"], row["status"] in FINAL
            if run_id in self.final:
                assert row == self.final[run_id], "a final run has changed"
            assert 0 <= row["attempt"] <= MAX_ATTEMPTS
            assert (row["finished_at"] is not None) == final
            assert (row["failure"] is not None) == (row["status"] == "FAILED")
            assert (row["return_value"] is not None) == (row["status"] == "SUCCESSFUL")
            assert (run_id in self.held) == (row["claimed_by"] is not None and not final)
            charged = [entry["attempt"] for entry in row["attempts"] if entry["reason"] != GIVEN_BACK]
            assert charged == sorted(set(charged))
            if row["cancel_requested_at"] and not row["claimed_by"]:
                assert final, "a cancelled run is back in the queue"
            if final:
                self.final[run_id] = row


class UnderPolicies(Queue):
    """The same while somebody pauses and limits the queue and its task, and workers know of it or do not yet."""

    claims = Queue.claims

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = {"queue": False, "task": False}
        self.most: dict[str, int | None] = {"queue": None, "task": None}

    def write(self, what: str, **columns: Any) -> None:
        table, key, name = {
            "queue": ("tasks_app_queue", "name", self.queue),
            "task": ("tasks_app_tasklimit", "key", self.task),
        }[what]
        more = "" if what == "queue" else ", burst"
        self.eye.execute(
            f"INSERT INTO {table} ({key}, pause_reason{more}) VALUES (%s, ''{more and ', 1'}) ON CONFLICT DO NOTHING",
            [name],
        )
        ((column, value),) = columns.items()
        self.eye.execute(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", [value, name])

    @rule(what=st.sampled_from(["queue", "task"]), is_paused=st.booleans())
    def pause(self, what: str, is_paused: bool) -> None:
        self.is_paused[what] = is_paused
        self.write(what, paused_at=datetime.now(UTC) if is_paused else None)

    @rule(what=st.sampled_from(["queue", "task"]), most=st.sampled_from([None, 1, 2, 3]))
    def limit(self, what: str, most: int | None) -> None:
        self.most[what] = most
        self.write(what, max_running=most)

    def may_begin(self) -> bool:
        room = [most for most in self.most.values() if most is not None]
        return not any(self.is_paused.values()) and len(self.held) < min(room, default=99)

    @rule(target=claims, worker=WORKERS, knows=st.booleans())
    def claim(self, worker: int, knows: bool) -> Claim | None:
        me = self.workers[worker]
        query = {"queue": self.queue, "me": me, "limit": 2, "slow": 0.02}
        connection, may_begin = self.connections[me], self.may_begin()
        is_ready = "claimed_by IS NULL AND status = 'READY' AND queue_name = %s"
        ready = self.eye.execute(f"SELECT FROM tasks_app_taskrun WHERE {is_ready}", [self.queue]).fetchall()
        if knows:
            with connection.transaction():
                connection.execute(limits.LOCK_QUEUE, query)
                connection.execute(limits.LOCK_TASKS, query)
                rows = connection.execute(limits.CLAIM, query).fetchall()
            assert rows or not (ready and may_begin), "nothing is claimed although it may begin"
        else:
            rows = connection.execute(statements.CLAIM, query).fetchall()
        taken = [row for row in rows if row["claimed_at"]]
        for row in taken:
            assert self.may_begin(), "claimed although it may not begin"
            assert row["id"] not in self.held, "claimed beside a live claim"
            self.held[row["id"]] = (me, row["attempt"])
        for row in taken[1:]:  # the model's workers have one at a time
            back = {"me": me, "id": [row["id"]], "attempt": [row["attempt"]]}
            connection.execute(statements.RELEASE, back)
            del self.held[row["id"]]
        return Claim(me, taken[0]["id"], taken[0]["attempt"]) if taken else None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("machine", [Queue, UnderPolicies])
def test_any_interleaving_keeps_the_promises(machine: type[Queue]) -> None:
    assert django_connection.vendor == "postgresql"
    quick = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)
