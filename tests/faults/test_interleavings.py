"""Any order of claims, reports, finishes, losses and cancels, by several workers on several connections.

The machines of people and of workflows stand in `test_more_interleavings`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, transaction
from django.db import connection as django_connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row

from tasks_app.engine import limits, statements, verbs
from tasks_app.engine.unique import UniqueRule
from tasks_app.engine.wishes import Wishes
from tasks_app.models.run import GIVEN_BACK
from tests import wishful
from tests.plugins.processes import database_url

FINAL = {"SUCCESSFUL", "FAILED", "CANCELLED"}
WORKERS = st.integers(0, 3)
"""Four workers, of two clusters."""
MAX_ATTEMPTS = 3
SOON = timedelta(hours=1)
"""Whatever is not now is so far away, until `time_passes`."""

Row = dict[str, Any]
Connections = dict[str, psycopg.Connection[Row]]


def is_over(moment: datetime | None) -> bool:
    return moment is not None and moment < datetime.now(UTC) + SOON / 2


def is_free(row: Row) -> bool:
    return row["status"] == "READY" and row["claimed_by"] is None


def has_expired(row: Row) -> bool:
    """Its time is over, and it was never begun."""
    return is_over(row["expires_at"]) and row["attempt"] == 0 and not row["attempts"]


def may_be_claimed(row: Row) -> bool:
    return is_free(row) and is_over(row["run_after"]) and not row["is_waiting"] and not has_expired(row)


class Claim:
    """What a worker believes it holds."""

    def __init__(self, me: str, run_id: uuid.UUID, attempt: int) -> None:
        self.me, self.run_id, self.attempt = me, run_id, attempt


class Queue(RuleBasedStateMachine):
    """Plays the workers with the engine's own statements, beside a model of who holds what."""

    claims = Bundle("claims")

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        # Names and queues of its own, so that nothing of an example before it can be meant.
        clusters = [uuid.uuid4().hex[:12] for _ in range(2)]
        self.workers = [f"{cluster}:{number}:1:host" for cluster in clusters for number in (1, 2)]
        self.connections = connections
        self.lines = dict(zip(self.workers, (connections[f"worker {number}"] for number in range(4)), strict=True))
        self.eye = connections["eye"]
        self.queue = uuid.uuid4().hex
        self.queues = [self.queue, f"{self.queue} too"]
        self.task = f"a.{self.queue}"
        self.runs: list[uuid.UUID] = []
        self.held: dict[uuid.UUID, tuple[str, int]] = {}
        self.final: dict[uuid.UUID, Row] = {}
        self.seen: dict[uuid.UUID, Row] = {}
        """Every run as it was after the last step."""
        self.locked: set[uuid.UUID] = set()
        """The runs that somebody has locked in an open transaction."""

    def teardown(self) -> None:
        try:
            self.run_out()
        finally:
            self.come_to_rest()
            for table in ("taskrun", "workflow", "workflownews"):
                self.eye.execute(f"DELETE FROM tasks_app_{table}")

    # What a producer does

    def submission(self, count: int = 1) -> tuple[list[uuid.UUID], dict[str, Any]]:
        ids = [uuid.uuid4() for _ in range(count)]
        options = {"task_path": self.task, "queue_name": self.queue, "priority": 0, "owner": None, "run_after": None}
        return ids, {**options, "max_attempts": MAX_ATTEMPTS, "timeout": None}

    @rule(count=st.integers(1, 3))
    def enqueue(self, count: int) -> None:
        ids, given = self.submission(count)
        columns = {"id": ids, "args": ["[]"] * count, "kwargs": ["{}"] * count}
        self.eye.execute(statements.ENQUEUE_MANY, {**given, **columns})
        self.runs += ids

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        if self.runs:
            run_id = self.runs[which % len(self.runs)]
            locked = verbs.SKIP_LOCKED if run_id in self.locked else verbs.WAIT
            cancel = verbs.TARGET.format(legal=verbs.CANCELLABLE, locked=locked) + verbs.CANCEL
            self.eye.execute(cancel, {"ids": [run_id], "said": "Cancelled."})

    # What a worker does

    @rule(target=claims, worker=WORKERS, queue=st.sampled_from([0, 0, 0, 1]), knows=st.booleans())
    def claim(self, worker: int, queue: int, knows: bool) -> Any:
        return self.take(self.workers[worker], self.queues[queue], knows) or multiple()

    def take(self, me: str, queue: str, knows: bool) -> Claim | None:
        """Claim one run; `knows` of policies, if there are any."""
        row = self.lines[me].execute(statements.CLAIM, {"queue": queue, "me": me, "limit": 1}).fetchone()
        ready = [run for run in self.seen.values() if run["queue_name"] == queue and may_be_claimed(run)]
        if row is None:
            assert self.locked.issuperset(run["id"] for run in ready), "nothing is claimed although it may begin"
            return None
        self.has_taken(me, row)
        return Claim(me, row["id"], row["attempt"])

    def has_taken(self, me: str, row: Row) -> None:
        run_id, attempt = row["id"], row["attempt"]
        assert run_id not in self.held, "claimed beside a live claim"
        assert run_id not in self.locked, "claimed from under a lock"
        assert attempt <= MAX_ATTEMPTS
        assert not self.seen[run_id]["is_waiting"], "claimed although it waits for others"
        assert not has_expired(self.seen[run_id]), "claimed although it has expired"
        assert may_be_claimed(self.seen[run_id]), "claimed although it may not begin"
        self.held[run_id] = (me, attempt)

    @rule(claim=claims)
    def report(self, claim: Claim) -> None:
        query = {"id": claim.run_id, "attempt": claim.attempt, "me": claim.me, "began": 0.0, "progress": None}
        changed = self.lines[claim.me].execute(statements.REPORT, query).rowcount
        assert changed == self.holds(claim)

    @rule(claim=consumes(claims), how=st.sampled_from(["SUCCESSFUL", "FAILED", "again"]), twice=st.booleans())
    def finish(self, claim: Claim, how: str, twice: bool) -> None:
        holds = self.holds(claim)
        again = how == "again" and claim.attempt < MAX_ATTEMPTS
        status = "FAILED" if how == "again" else how
        told: dict[str, object] = {"status": status, "return_value": json.dumps(self.result_of(claim.run_id))}
        if status == "FAILED":
            told = {"status": "READY" if again else status, "failure": "error", "entry": '{"reason": "error"}'}
            told["retry_in"] = 0.0 if again else None
        told |= {"id": str(claim.run_id), "attempt": claim.attempt, "began": 0.0, "ended": 0.0}
        ending = {"me": claim.me, "done": json.dumps([told])}
        assert self.lines[claim.me].execute(statements.FINISH, ending).rowcount == holds
        if twice:  # its answer was lost, so it is sent again
            assert self.lines[claim.me].execute(statements.FINISH, ending).rowcount == 0
            query = {"me": claim.me, "attempt": claim.attempt, "status": status, "reason": "error", "id": claim.run_id}
            row = self.lines[claim.me].execute(statements.ALREADY_DONE, query).fetchone()
            if holds:
                assert row is not None
                assert next(iter(row.values())), "a finish that went through is not recognised"
        if holds:
            del self.held[claim.run_id]

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        query = {"me": claim.me, "id": [claim.run_id], "attempt": [claim.attempt]}
        self.lines[claim.me].execute(statements.RELEASE, query)
        if self.holds(claim) and self.seen[claim.run_id]["status"] == "READY":
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

    @rule()
    def time_passes(self) -> None:
        """Everything is two hours later."""
        later = "run_after = run_after - %(by)s, expires_at = expires_at - %(by)s, unique_until = unique_until - %(by)s"
        passed = {"by": 2 * SOON, "locked": list(self.locked), "queues": self.queues}
        mine = "queue_name = ANY (%(queues)s) AND id <> ALL (%(locked)s)"
        self.eye.execute(
            f"UPDATE tasks_app_taskrun SET {later} WHERE status IN ('READY', 'RUNNING') AND {mine}", passed
        )
        ended = "status NOT IN ('READY', 'RUNNING') AND unique_until IS NOT NULL"
        self.eye.execute(
            f"UPDATE tasks_app_taskrun SET unique_until = unique_until - %(by)s WHERE {ended} AND {mine}", passed
        )

    # What always holds

    def holds(self, claim: Claim) -> bool:
        return self.held.get(claim.run_id) == (claim.me, claim.attempt)

    def result_of(self, run_id: uuid.UUID) -> str:
        return f"the result of {run_id}"

    def read(self) -> dict[uuid.UUID, Row]:
        rows = self.eye.execute("SELECT * FROM tasks_app_taskrun WHERE queue_name = ANY (%s)", [self.queues]).fetchall()
        return {row["id"]: row for row in rows}

    @invariant()
    def every_run_is_as_it_should_be(self) -> None:
        rows = self.read()
        assert set(rows) == set(self.runs), "a run is lost, or there is one too many"
        self.check(rows)
        self.seen = rows

    def check(self, rows: dict[uuid.UUID, Row]) -> None:
        """What has become of what was `seen` after the last step."""
        for run_id, row in rows.items():
            final = row["status"] in FINAL
            # All but its key, which is free for others some time later.
            own = {name: value for name, value in row.items() if name != "unique_until"}
            assert self.final.get(run_id, own) == own, "a final run has changed"
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
                self.final[run_id] = own

    # The end of every example

    def come_to_rest(self) -> None:
        """Whatever is open is ended, whatever holds something up is gone, and the time of everything has come."""
        self.time_passes()

    def carry_on(self) -> bool:
        """What a sentinel does that has nobody to rescue; answers whether there was any of it."""
        return False

    def run_out(self) -> None:
        """Nobody asks for more, the workers come back, and time goes on: then everything ends."""
        self.come_to_rest()
        for worker in (0, 2):
            self.give_back(worker, whole_cluster=True)
        self.every_run_is_as_it_should_be()
        left = 10 * (1 + len(self.runs))
        goes_on = True
        while goes_on:
            left -= 1
            assert left, "it goes on for ever"
            goes_on = self.carry_on()
            for queue in self.queues:
                self.every_run_is_as_it_should_be()
                while claim := self.take(self.workers[0], queue, knows=True):
                    goes_on = True
                    self.finish(claim, "SUCCESSFUL", twice=False)
                    self.every_run_is_as_it_should_be()
        self.every_run_is_as_it_should_be()
        assert {row["status"] for row in self.seen.values()} <= FINAL, "something never ends"


class UnderPolicies(Queue):
    """The same while somebody pauses and limits the queue and its task, and workers know of it or do not yet."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
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

    def may_begin(self, queue: str) -> bool:
        """Of the policies; that of the queue is one of the first queue only."""
        held = {"task": len(self.held), "queue": sum(self.seen[run]["queue_name"] == queue for run in self.held)}
        own = ["task", "queue"] if queue == self.queue else ["task"]
        rooms = [most for what in own if (most := self.most[what]) is not None and held[what] >= most]
        return not rooms and not any(self.is_paused[what] for what in own)

    def take(self, me: str, queue: str, knows: bool) -> Claim | None:
        query = {"queue": queue, "me": me, "limit": 2, "slow": 0.02}
        connection, may_begin = self.lines[me], self.may_begin(queue)
        ready = [row for row in self.seen.values() if row["queue_name"] == queue and may_be_claimed(row)]
        if knows:
            with connection.transaction():
                connection.execute(limits.LOCK_QUEUE, query)
                connection.execute(limits.LOCK_TASKS, query)
                rows = connection.execute(limits.CLAIM, query).fetchall()
            assert rows or self.locked or not (ready and may_begin), "nothing is claimed although it may begin"
        else:
            rows = connection.execute(statements.CLAIM, query).fetchall()
        taken = [row for row in rows if row["claimed_at"]]
        for row in taken:
            assert self.may_begin(queue), "claimed although it may not begin"
            self.has_taken(me, row)
        for row in taken[1:]:  # the model's workers have one at a time
            back = {"me": me, "id": [row["id"]], "attempt": [row["attempt"]]}
            connection.execute(statements.RELEASE, back)
            del self.held[row["id"]]
        if rows and not taken and knows:  # put under their key only
            self.every_run_is_as_it_should_be()
            return self.take(me, queue, knows)
        return Claim(me, taken[0]["id"], taken[0]["attempt"]) if taken else None

    def come_to_rest(self) -> None:
        super().come_to_rest()
        for what in ("queue", "task"):
            self.pause(what, is_paused=False)


class WithWishes(Queue):
    """The same with runs that are to be the only one of their key, and runs that expire."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.keys: dict[uuid.UUID, str] = {}
        self.producer = connections["producer"]
        self.open: tuple[uuid.UUID, str] | None = None
        """The run and its key that a producer has not committed yet."""

    def rule_for(self, customer: int, replaces: bool = False) -> UniqueRule:
        """The key of the second customer is taken for a time."""
        return UniqueRule(wishful.reminds, ("customer",), SOON.total_seconds() if customer else None, replaces)

    def call(self, customer: int, text: str = "") -> tuple[list[Any], str]:
        """The arguments, and the key that they make."""
        args = [f"{self.queue} {customer}", text]
        return args, self.rule_for(customer).key(args, {})

    def standing(self, key: str) -> list[uuid.UUID]:
        return [
            run_id
            for run_id, row in self.seen.items()
            if self.keys.get(run_id) == key
            and (row["status"] not in FINAL or (row["unique_until"] and not is_over(row["unique_until"])))
        ]

    @rule(expires_after=st.sampled_from([None, SOON.total_seconds()]), is_later=st.booleans())
    def send_for_a_time(self, expires_after: float | None, is_later: bool) -> None:
        (run_id,), given = self.submission()
        given |= {"run_after": datetime.now(UTC) + SOON / 1.5 if is_later else None, "priority": 1}  # soon begun
        wishes = Wishes(expires_after=expires_after, expires_at=None if expires_after else datetime.now(UTC) + SOON)
        wishes.place({**given, "id": run_id, "args": "[]", "kwargs": "{}", "limit_key": None}, [], {})
        self.runs.append(run_id)

    @rule(
        customer=st.integers(0, 1),
        replaces=st.booleans(),
        expires_after=st.sampled_from([None, None, SOON.total_seconds()]),
    )
    def send_once(self, customer: int, replaces: bool, expires_after: float | None) -> None:
        text = uuid.uuid4().hex
        args, key = self.call(customer, text)
        standing = self.standing(key)
        if any(self.keys.get(run_id) == key for run_id in self.locked):
            return  # it would wait
        (run_id,), given = self.submission()
        given |= {"id": run_id, "args": json.dumps(args), "kwargs": "{}", "limit_key": None}
        wishes = Wishes(unique=self.rule_for(customer, replaces), expires_after=expires_after)
        if self.open and self.open[1] == key and not standing:
            with pytest.raises(OperationalError, match="lock timeout"), transaction.atomic():  # it waits
                django_connection.cursor().execute("SET LOCAL lock_timeout = '5ms'")
                wishes.place(given, args, {})
            return
        placed = wishes.place(given, args, {})
        if placed.standing is None:
            assert not standing, "a second run of one key"
            self.keys[run_id] = key
            self.runs.append(run_id)
            return
        assert placed.standing.pk in standing
        free = is_free(self.seen[placed.standing.pk])
        assert placed.was_replaced == (replaces and free)
        assert (placed.standing.args[1] == text) == placed.was_replaced

    @rule(customer=st.integers(0, 1))
    def send_once_in_a_transaction(self, customer: int) -> None:
        if self.open is None:
            args, key = self.call(customer)
            (run_id,), given = self.submission()
            given |= {"id": run_id, "args": json.dumps(args), "kwargs": "{}", "limit_key": None, "unique_key": key}
            given |= {
                "unique_for": self.rule_for(customer).seconds,
                "idempotency_key": None,
                "expires_at": None,
                "expires_after": None,
            }
            self.producer.execute("BEGIN")
            if self.producer.execute(statements.ENQUEUE_WITH_WISHES, given).fetchone():
                self.open = (run_id, key)
            else:
                self.producer.execute("ROLLBACK")

    @rule(commits=st.booleans())
    def end_the_transaction(self, commits: bool) -> None:
        if self.open is not None:
            self.producer.execute("COMMIT" if commits else "ROLLBACK")
            if commits:
                run_id, key = self.open
                self.keys[run_id] = key
                self.runs.append(run_id)
            self.open = None

    @rule()
    def expire(self) -> None:
        late = {run_id for run_id, row in self.seen.items() if is_free(row) and has_expired(row)} - self.locked
        row = self.eye.execute(statements.EXPIRE, {"limit": 100}).fetchone()
        assert row is not None
        found = {run_id for run_id, row in self.read().items() if row["status"] != self.seen[run_id]["status"]}
        assert found == late, "another run has expired than should"

    def check(self, rows: dict[uuid.UUID, Row]) -> None:
        super().check(rows)
        assert all(rows[run_id]["unique_key"] == key for run_id, key in self.keys.items() if run_id in rows)
        unfinished = Counter(
            key for run_id, key in self.keys.items() if run_id in rows and rows[run_id]["status"] not in FINAL
        )
        assert set(unfinished.values()) <= {1}, "two unfinished runs of one key"

    def come_to_rest(self) -> None:
        self.end_the_transaction(commits=True)
        super().come_to_rest()

    def carry_on(self) -> bool:
        self.expire()
        return super().carry_on()


@contextmanager
def connected() -> Iterator[Connections]:
    """The connections of all examples of a machine; what they write need not outlive the machine."""
    names = [*(f"worker {number}" for number in range(4)), "eye", "producer", "somebody", "sentinel"]
    with ExitStack() as all_of_them:
        connections: Connections = {}
        for name in names:
            connections[name] = all_of_them.enter_context(
                psycopg.connect(database_url(), autocommit=True, row_factory=dict_row)
            )
            connections[name].execute("SET synchronous_commit = off")
            connections[name].execute("SET lock_timeout = '5s'")
        yield connections


def play(machine: type[Queue], examples: int, steps: int) -> None:
    assert django_connection.vendor == "postgresql"
    quick = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with connected() as connections:
        made: Any = partial(machine, connections)
        run_state_machine_as_test(made, settings=quick)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("machine", [Queue, UnderPolicies, WithWishes])
def test_any_interleaving_keeps_the_promises(machine: type[Queue]) -> None:
    play(machine, examples=50, steps=30)
