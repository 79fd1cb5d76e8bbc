"""Any order of claims, reports, finishes, losses and cancels, by several workers on several connections.

A machine plays people and processes with the engine's own statements, and knows what has to come of each move. At the
end of every example all that is left has to end. The machines of people and of workflows stand in
`test_more_interleavings`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from django.db import OperationalError, connection, transaction

from tasks_app import models
from tasks_app.engine import limits, statements, verbs
from tasks_app.engine.unique import UniqueRule
from tasks_app.engine.wishes import Wishes
from tasks_app.ids import new_id
from tasks_app.models.run import GIVEN_BACK
from tests import flows, wishful
from tests.faults.moves import Connections, Row, move, play

FINAL = {"SUCCESSFUL", "FAILED", "CANCELLED"}
CLUSTERS = ["a" * 12, "b" * 12]
WORKERS = [f"{cluster}:{number}:1:host" for cluster in CLUSTERS for number in (1, 2)]
QUEUES = ["first", "second"]
TASK = flows.tells.module_path
MAX_ATTEMPTS = 3
AT_ONCE = 2
"""So many runs a worker claims at most."""
SOON = timedelta(hours=1)
"""Whatever is not now is so far away, until `time_passes`."""

HOUR = SOON.total_seconds()

CONNECTIONS = [*WORKERS, "eye", "producer", "somebody", "sentinel"]
PLACES = range(40)
"""In a list of whatever length, gone round as often as it takes."""
YES_OR_NO = [True, False]


def is_over(moment: datetime | None) -> bool:
    return moment is not None and moment < datetime.now(UTC) + SOON / 2


def is_free(row: Row) -> bool:
    return row["status"] == "READY" and row["claimed_by"] is None


def has_expired(row: Row) -> bool:
    """Its time is over, and it was never begun."""
    return is_over(row["expires_at"]) and row["attempt"] == 0 and not row["attempts"]


def may_be_claimed(row: Row) -> bool:
    return is_free(row) and is_over(row["run_after"]) and not row["is_waiting"] and not has_expired(row)


def result_of_run(run_id: uuid.UUID) -> str:
    return f"the result of {run_id}"


class Claim(NamedTuple):
    """What a worker believes it holds."""

    me: str
    run_id: uuid.UUID
    attempt: int


class Queue:
    """Plays the workers and their sentinels, beside a model of who holds what."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.eye = connections["eye"]
        self.runs: list[uuid.UUID] = []
        self.seen: dict[uuid.UUID, Row] = {}
        """Every run as it was after the last move."""
        self.found: dict[uuid.UUID, Row] = {}
        """As it is now, while the two are compared."""
        self.claims: list[Claim] = []
        """What workers believe, rightly or not."""
        self.held: dict[uuid.UUID, Claim] = {}
        self.wished: set[uuid.UUID] = set()
        """The runs that somebody wished to be cancelled."""
        self.locked: set[uuid.UUID] = set()
        """The runs that somebody has locked in an open transaction."""
        for one in connections.values():
            one.rollback()
        for table in ("taskrun", "workflow", "workflownews", "queue", "tasklimit"):
            self.eye.execute(f"DELETE FROM tasks_app_{table}")

    # What a producer does

    def submission(self) -> tuple[uuid.UUID, dict[str, Any]]:
        """The id of a new run, and all that the statements of an enqueue ask for."""
        run_id = new_id()
        options = {"task_path": TASK, "queue_name": QUEUES[0], "priority": 0, "owner": None, "run_after": None}
        limits = {"max_attempts": MAX_ATTEMPTS, "timeout": None, "limit_key": None}
        return run_id, {"id": run_id, "args": "[]", "kwargs": "{}", **options, **limits}

    @move(3, number=[1, 2, 3])
    def enqueue(self, number: int) -> None:
        sent = [self.submission() for _ in range(number)]
        columns = {name: [given[name] for _, given in sent] for name in ("id", "args", "kwargs")}
        self.eye.execute(statements.ENQUEUE_MANY, sent[0][1] | columns)
        self.runs += [run_id for run_id, _ in sent]

    @move(place=PLACES)
    def cancel(self, place: int) -> None:
        if not self.runs:
            return
        run_id = self.runs[place % len(self.runs)]
        locked = verbs.SKIP_LOCKED if run_id in self.locked else verbs.WAIT
        cancel = verbs.TARGET.format(legal=verbs.CANCELLABLE, locked=locked) + verbs.CANCEL
        for row in self.eye.execute(cancel, {"ids": [run_id], "said": "Cancelled."}).fetchall():
            self.wished.add(row["id"])

    # What a worker does

    @move(5, me=WORKERS, queue=[*QUEUES[:1] * 3, QUEUES[1]], knows=YES_OR_NO)
    def claim(self, me: str, queue: str, knows: bool) -> None:
        self.claims += self.take(me, queue, knows)

    def take(self, me: str, queue: str, knows: bool) -> list[Claim]:
        """Claim what there is; `knows` of policies, if there are any."""
        ready = [row for row in self.ready(queue) if row["id"] not in self.locked]
        best = sorted(ready, key=lambda row: (-row["priority"], row["run_after"], row["id"]))[:AT_ONCE]
        query = {"queue": queue, "me": me, "limit": AT_ONCE}
        claims = self.has_taken(me, self.connections[me].execute(statements.CLAIM, query).fetchall())
        assert {claim.run_id for claim in claims} == {row["id"] for row in best}, "others are claimed than should"
        return claims

    def ready(self, queue: str) -> list[Row]:
        return [row for row in self.seen.values() if row["queue_name"] == queue and may_be_claimed(row)]

    def has_taken(self, me: str, rows: list[Row]) -> list[Claim]:
        claims = sorted(Claim(me, row["id"], row["attempt"]) for row in rows)
        for claim in claims:
            before = self.seen[claim.run_id]
            assert claim.run_id not in self.held, "claimed beside a live claim"
            assert claim.run_id not in self.locked, "claimed from under a lock"
            assert claim.attempt == before["attempt"] + 1 <= MAX_ATTEMPTS
            assert may_be_claimed(before), "claimed although it may not begin"
            self.held[claim.run_id] = claim
        return claims

    def some_claim(self, place: int, is_last: bool = True) -> Claim | None:
        """One of those that there are, and with `is_last` are no more."""
        if not self.claims:
            return None
        claim = self.claims[place % len(self.claims)]
        if is_last:
            self.claims.remove(claim)
        return claim

    def holds(self, claim: Claim) -> bool:
        return self.held.get(claim.run_id) == claim

    @move(3, place=PLACES)
    def report(self, place: int) -> None:
        if claim := self.some_claim(place, is_last=False):
            query = {"id": claim.run_id, "attempt": claim.attempt, "me": claim.me, "began": 0.0, "progress": None}
            changed = self.connections[claim.me].execute(statements.REPORT, query).rowcount
            assert changed == self.holds(claim)

    @move(4, place=PLACES, how=["SUCCESSFUL", "SUCCESSFUL", "FAILED", "again"], twice=YES_OR_NO)
    def finish(self, place: int, how: str, twice: bool) -> None:
        if claim := self.some_claim(place):
            self.end(claim, how, twice)

    def end(self, claim: Claim, how: str, twice: bool = False) -> None:
        again = how == "again" and claim.attempt < MAX_ATTEMPTS
        told: dict[str, object] = {"status": how, "return_value": json.dumps(result_of_run(claim.run_id))}
        if how != "SUCCESSFUL":
            told = {"status": "READY" if again else "FAILED", "failure": "error", "entry": '{"reason": "error"}'}
            told["retry_in"] = 0.0 if again else None
        told |= {"id": str(claim.run_id), "attempt": claim.attempt, "began": 0.0, "ended": 0.0}
        ending = {"me": claim.me, "done": json.dumps([told])}
        holds, line = self.holds(claim), self.connections[claim.me]
        assert line.execute(statements.FINISH, ending).rowcount == holds
        if twice:  # its answer was lost, so it is sent again
            assert line.execute(statements.FINISH, ending).rowcount == 0
            query = {"id": claim.run_id, "me": claim.me, "attempt": claim.attempt, "reason": "error"}
            row = line.execute(statements.ALREADY_DONE, {**query, "status": told["status"]}).fetchone()
            assert not holds or (row and next(iter(row.values()))), "a finish that went through is not recognised"
        if holds:
            del self.held[claim.run_id]

    @move(2, place=PLACES)
    def release(self, place: int) -> None:
        if claim := self.some_claim(place):
            query = {"me": claim.me, "id": [claim.run_id], "attempt": [claim.attempt]}
            self.connections[claim.me].execute(statements.RELEASE, query)
            if self.holds(claim) and self.seen[claim.run_id]["status"] == "READY":
                del self.held[claim.run_id]

    # What a sentinel does

    @move(2, whose=[*WORKERS, *CLUSTERS], knows=YES_OR_NO)
    def lose(self, whose: str, knows: bool) -> None:
        """Who `knows` what had begun takes nothing else."""
        query: dict[str, Any] = {"begun": [] if knows else None, "reason": "worker_lost", "message": "It died."}
        self.take_away(statements.TAKE_FROM_LOST, whose, query, {"RUNNING"} if knows else {"READY", "RUNNING"})

    @move(whose=[*WORKERS, *CLUSTERS])
    def give_back(self, whose: str) -> None:
        self.take_away(statements.GIVE_BACK, whose, {"but": [], "begun": []}, {"READY", "RUNNING"})

    @move(me=WORKERS)
    def give_rest_away(self, me: str) -> None:
        """Of a worker that stands still."""
        query: dict[str, Any] = {"begun": [], "before": datetime.now(UTC) + SOON}
        self.take_away(statements.RELEASE_REST, me, query, {"READY"})

    def take_away(self, statement: str, whose: str, query: dict[str, Any], statuses: set[str]) -> None:
        """From a worker or a cluster all that it holds and that stands so."""
        query |= statements.holder(whose, whose in CLUSTERS)
        taken = {row["id"] for row in self.eye.execute(statement, query).fetchall()}
        held = {run_id for run_id, claim in self.held.items() if claim.me.startswith(whose)}
        assert taken == {run_id for run_id in held if self.seen[run_id]["status"] in statuses}
        for run_id in taken:
            del self.held[run_id]

    @move()
    def time_passes(self) -> None:
        """Everything is two hours later."""
        passed = "%(by)s * (status IN ('READY', 'RUNNING'))::int"
        self.eye.execute(
            "UPDATE tasks_app_taskrun SET unique_until = unique_until - %(by)s,"
            f" run_after = run_after - {passed}, expires_at = expires_at - {passed} WHERE id <> ALL (%(locked)s)",
            {"by": 2 * SOON, "locked": list(self.locked)},
        )

    # What always holds

    def look(self) -> None:
        rows = self.eye.execute("SELECT * FROM tasks_app_taskrun ORDER BY id").fetchall()
        self.found = {row["id"]: row for row in rows}
        assert set(self.found) == set(self.runs), "a run is lost, or there is one too many"
        for run_id, row in self.found.items():
            self.check(row, self.seen.get(run_id))
        self.check_together()
        self.seen = self.found

    def check(self, row: Row, before: Row | None) -> None:
        """What has become of a run, `before` being how it was after the last move."""
        is_final, is_held = row["status"] in FINAL, row["id"] in self.held
        if before and before["status"] in FINAL:
            # All but its key, which is free for others some time later.
            assert row == before | {"unique_until": row["unique_until"]}, "a final run has changed"
        assert (row["finished_at"] is not None) == is_final
        assert (row["failure"] is not None) == (row["status"] == "FAILED")
        assert row["return_value"] == (result_of_run(row["id"]) if row["status"] == "SUCCESSFUL" else None)
        assert is_held == (row["claimed_by"] is not None and not is_final)
        charged = [entry["attempt"] for entry in row["attempts"] if entry["reason"] != GIVEN_BACK]
        assert charged == list(range(1, 1 + len(charged))), "an attempt has two entries, or none"
        assert is_final or len(charged) == row["attempt"] - is_held, "an attempt is charged without a reason"
        assert 0 <= row["attempt"] <= MAX_ATTEMPTS
        if row["cancel_requested_at"] and not row["claimed_by"]:
            assert is_final, "a cancelled run is back in the queue"
        if row["status"] == "CANCELLED" and row != before:
            assert self.may_be_cancelled(row), "cancelled, but nobody wished it"

    def check_together(self) -> None:
        """What the runs are to each other."""

    def may_be_cancelled(self, row: Row) -> bool:
        return row["id"] in self.wished

    # The end of every example

    def come_to_rest(self) -> None:
        """Whatever is open is ended, and whatever holds something up is gone."""

    def carry_on(self) -> None:
        """What a sentinel does that has nobody to rescue."""

    def run_out(self) -> None:
        """Nobody asks for more, the workers come back, and time goes on: then everything ends."""
        self.come_to_rest()
        for cluster in CLUSTERS:
            self.look()
            self.give_back(cluster)
        for _ in range(10 + 10 * len(self.runs)):
            self.time_passes()
            self.look()
            self.carry_on()
            for queue in QUEUES:
                for claim in self.take(WORKERS[0], queue, knows=True):
                    self.end(claim, "SUCCESSFUL")
                self.look()
            if {row["status"] for row in self.seen.values()} <= FINAL:
                return
        raise AssertionError("something never ends")


class UnderPolicies(Queue):
    """The same while somebody pauses, limits and paces, and workers know of it or do not yet."""

    POLICIES: dict[str, Any] = {QUEUES[0]: models.Queue, TASK: models.TaskLimit}

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.paused: set[str] = set()
        self.most: dict[str, int] = {}
        self.burst = 0
        """0 without a rate, which is one an hour."""
        self.hour, self.next_at = 0, 0

    @move(name=[QUEUES[0], TASK], is_paused=[True, False, False])
    def pause(self, name: str, is_paused: bool) -> None:
        if is_paused:
            self.POLICIES[name].pause(name)
            self.paused.add(name)
        else:
            self.POLICIES[name].resume(name)
            self.paused.discard(name)

    @move(name=[QUEUES[0], TASK], most=[None, 1, 2, 3])
    def limit(self, name: str, most: int | None) -> None:
        self.POLICIES[name].limit(name, most)
        self.most[name] = most or 99

    @move(burst=[0, 1, 2])
    def pace(self, burst: int) -> None:
        models.TaskLimit.pace(TASK, "1/h" if burst else None, burst or 1)
        self.burst, self.next_at = burst, 0

    def time_passes(self) -> None:
        super().time_passes()
        self.eye.execute("UPDATE tasks_app_tasklimit SET next_at = next_at - %s", [2 * SOON])
        self.hour += 2

    def may_begin(self, queue: str) -> bool:
        """As far as policies go, one more of its runs."""
        held = {TASK: len(self.held), queue: sum(self.seen[run_id]["queue_name"] == queue for run_id in self.held)}
        if self.burst and self.burst - max(self.next_at - self.hour, 0) < 1:
            return False
        return not any(name in self.paused or held[name] >= self.most.get(name, 99) for name in held)

    def take(self, me: str, queue: str, knows: bool) -> list[Claim]:
        query = {"queue": queue, "me": me, "limit": AT_ONCE, "slow": 0.02}
        line = self.connections[me]
        if knows:
            with line.transaction():
                line.execute(limits.LOCK_QUEUE, query)
                line.execute(limits.LOCK_TASKS, query)
                rows = line.execute(limits.CLAIM, query).fetchall()
            may_begin = self.ready(queue) and not self.locked and self.may_begin(queue)
            assert rows or not may_begin, "nothing is claimed although it may begin"
        else:
            rows = line.execute(statements.CLAIM, query).fetchall()
        claims = []
        for row in rows:
            if row["claimed_at"]:
                assert self.may_begin(queue), "claimed although it may not begin"
                claims += self.has_taken(me, [row])
                self.next_at = max(self.next_at, self.hour) + bool(self.burst)
        if knows and rows and not claims:  # put under their key only
            self.look()
            return self.take(me, queue, knows)
        return claims

    def come_to_rest(self) -> None:
        super().come_to_rest()
        for name in self.POLICIES:
            self.pause(name, is_paused=False)


class WithWishes(Queue):
    """The same with runs that are to be the only one of their key, and runs that expire."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.keys: dict[uuid.UUID, str] = {}
        self.producer = connections["producer"]
        self.open: uuid.UUID | None = None
        """The run with a key that a producer has not committed yet."""

    @move(expires_after=[None, HOUR], is_later=YES_OR_NO)
    def send_for_a_time(self, expires_after: float | None, is_later: bool) -> None:
        run_id, given = self.submission()
        given |= {"run_after": datetime.now(UTC) + SOON / 1.5 if is_later else None, "priority": 1}  # soon begun
        wishes = Wishes(expires_after=expires_after, expires_at=None if expires_after else datetime.now(UTC) + SOON)
        wishes.place(given, [], {})
        self.runs.append(run_id)

    def call(self, customer: int, replaces: bool = False) -> tuple[uuid.UUID, dict[str, Any], list[Any], UniqueRule]:
        """A run with a key; that of the second customer is taken for a time."""
        run_id, given = self.submission()
        args = [customer, str(run_id)]
        key = UniqueRule(wishful.reminds, ("customer",), HOUR if customer else None, replaces)
        return run_id, {**given, "args": json.dumps(args)}, args, key

    def standing(self, key: str) -> list[uuid.UUID]:
        rows = [row for run_id, row in self.seen.items() if self.keys.get(run_id) == key]
        keeps = [row for row in rows if row["unique_until"] and not is_over(row["unique_until"])]
        return [row["id"] for row in rows if row["status"] not in FINAL or row in keeps]

    @move(
        2,
        customer=[0, 1],
        replaces=YES_OR_NO,
        expires_after=[None, None, HOUR],
    )
    def send_once(self, customer: int, replaces: bool, expires_after: float | None) -> None:
        run_id, given, args, unique = self.call(customer, replaces)
        key = unique.key(args, {})
        standing, is_open = self.standing(key), self.open and self.keys[self.open] == key
        if any(self.keys.get(run) == key for run in self.locked):
            return  # it would wait
        wishes = Wishes(unique=unique, expires_after=expires_after)
        if is_open and not standing:
            with pytest.raises(OperationalError, match="lock timeout"), transaction.atomic():  # it waits
                connection.cursor().execute("SET LOCAL lock_timeout = '5ms'")
                wishes.place(given, args, {})
            return
        placed = wishes.place(given, args, {})
        if placed.standing is None:
            assert not standing, "a second run of one key"
            self.keys[run_id] = key
            self.runs.append(run_id)
        else:
            assert placed.standing.pk in standing
            assert placed.was_replaced == (replaces and is_free(self.seen[placed.standing.pk]))
            assert placed.was_replaced == (placed.standing.args == args)

    @move(customer=[0, 1])
    def send_once_in_a_transaction(self, customer: int) -> None:
        if self.open is None:
            run_id, given, args, unique = self.call(customer)
            key = unique.key(args, {})
            self.producer.execute("BEGIN")
            columns = Wishes(unique=unique).columns | {"unique_key": key}
            if self.producer.execute(statements.ENQUEUE_WITH_WISHES, given | columns).fetchone():
                self.open, self.keys[run_id] = run_id, key
            else:
                self.producer.rollback()

    @move(2, commits=YES_OR_NO)
    def end_the_transaction(self, commits: bool) -> None:
        if self.open is not None:
            if commits:
                self.producer.commit()
                self.runs.append(self.open)
            else:
                self.producer.rollback()
            self.open = None

    @move()
    def expire(self) -> None:
        late = {run_id for run_id, row in self.seen.items() if is_free(row) and has_expired(row)} - self.locked
        self.eye.execute(statements.EXPIRE, {"limit": 100})
        found = self.eye.execute("SELECT id, status FROM tasks_app_taskrun").fetchall()
        assert {row["id"] for row in found if row["status"] != self.seen[row["id"]]["status"]} == late

    def may_be_cancelled(self, row: Row) -> bool:
        return super().may_be_cancelled(row) or has_expired(row)

    def check_together(self) -> None:
        super().check_together()
        assert all(row["unique_key"] == self.keys.get(run_id) for run_id, row in self.found.items())
        unfinished = Counter(self.keys.get(run_id) for run_id, row in self.found.items() if row["status"] not in FINAL)
        assert all(number == 1 for key, number in unfinished.items() if key), "two unfinished runs of one key"

    def come_to_rest(self) -> None:
        self.end_the_transaction(commits=True)
        super().come_to_rest()

    def carry_on(self) -> None:
        self.expire()
        self.look()
        super().carry_on()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("machine", [Queue, UnderPolicies, WithWishes])
def test_any_interleaving_keeps_the_promises(machine: type[Queue]) -> None:
    play(machine, CONNECTIONS, examples=25, moves=60)
