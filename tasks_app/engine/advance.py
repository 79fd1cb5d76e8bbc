"""Advancing: any sentinel sees to it that what follows from the end of a workflow's run happens, exactly once.

A trigger leaves news of each end. Whoever advances locks the workflow, takes all its news, looks at the states of its
runs, decides (`tasks_app.engine.flow`) and carries that out, in one transaction: as a whole or not at all. Nothing here
imports or calls a task's code.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from django.conf import settings
from psycopg.rows import TupleRow

from tasks_app.engine import flow
from tasks_app.engine import workflow_statements as statements
from tasks_app.engine.connect import DECODER, UNREACHABLE
from tasks_app.engine.logs import one_line
from tasks_app.jsonable import ENCODER, storable

logger = logging.getLogger("dumbwaiter.workflows")

Connection = psycopg.Connection[TupleRow]

AT_ONCE = 1_000
"""Runs written in one transaction; a sentinel looks after its workers between two of them."""

PARTS_AT_ONCE = 100
"""Steps and groups whose results are read in one transaction."""

BYTES_AT_ONCE = 4_000_000
"""Of results that are written into arguments in one transaction, if one run does not need more."""

SHORT_SECONDS = 0.02
"""A turn that took longer is followed by a pause of several times its length: workers are more than workflows."""

PAUSE = 4

NOBODY = uuid.UUID(int=0)


class Turn(Enum):
    """What became of a workflow."""

    THROUGH = "through"
    MORE = "more"
    """There is more of it than is done at once."""
    BLOCKED = "blocked"
    """Somebody has locked a run of it just now: again at the next heartbeat."""


@dataclass(slots=True)
class Taken:
    """The columns that `TAKE` returns, in its order."""

    id: uuid.UUID
    name: str
    status: str
    on_failure: str
    shape: flow.Shape
    is_cancelled: bool
    message: str | None

    @property
    def is_final(self) -> bool:
        return self.status not in {"READY", "RUNNING"}


class Sweep:
    """Goes through the workflows that have news, one a turn, until a whole round has found none."""

    def __init__(self) -> None:
        self.after = NOBODY
        self._has_moved = False

    def turn(self, db: Connection) -> float | None:
        """Advance one workflow; answers in how many seconds the next turn is due, None when there is no news left.

        Raises `psycopg.Error`.
        """
        began = time.monotonic()
        found = advance(db, self.after)
        if found is None:
            # What came while another sentinel had a workflow is for that one to find: hence the last, empty round.
            again, self.after, self._has_moved = self._has_moved, NOBODY, False
            return 0.0 if again else None
        self.after, turn = found
        self._has_moved = self._has_moved or turn is not Turn.BLOCKED
        spent = time.monotonic() - began
        return PAUSE * spent if spent > SHORT_SECONDS else 0.0


def advance(db: Connection, after: uuid.UUID = NOBODY) -> tuple[uuid.UUID, Turn] | None:
    """Do what follows for the next workflow with news whose id is above `after`; None when there is none.

    Raises `psycopg.Error` when the database is out of reach; any other trouble ends the one workflow.
    """
    taken: Taken | None = None
    try:
        with db.transaction():
            row = db.execute(statements.TAKE, {"after": after}).fetchone()
            if row is None:
                return None
            taken = Taken(*row)
            turn = Turn.THROUGH if taken.is_final else _Advance(db, taken).carry_on()
    except UNREACHABLE:
        raise
    except Exception as error:  # a row can hold anything, and must not harm the sentinel
        if taken is None:
            raise
        logger.exception("workflow %s cannot be carried on", taken.id)
        turn = _give_up(db, taken, storable(f"It cannot be carried on: {type(error).__name__}: {error}", 500))
    return taken.id, turn


@dataclass(slots=True)
class _Part:
    """Steps that may begin, and the one result that stands before all of them."""

    steps: list[int]
    is_asked: bool = False
    value: Any = None
    text: str = "null"
    size: int = 0


class _Advance:
    """What follows for one workflow that is locked, in the transaction that locked it."""

    def __init__(self, db: Connection, taken: Taken) -> None:
        self.db, self.taken = db, taken
        self.left, self.bytes_left = AT_ONCE, BYTES_AT_ONCE
        self.states = _states(db, taken.id)
        self.message = taken.message

    def carry_on(self) -> Turn:
        turn = Turn.THROUGH
        while True:
            decision = flow.decide(
                self.taken.shape, self.states,
                goes_on=self.taken.on_failure == "continue", is_cancelled=self.taken.is_cancelled,
            )  # fmt: skip
            if not decision:
                break
            if self.left <= 0 or self.bytes_left <= 0:
                turn = Turn.MORE
                break
            if not self._carry_out(decision):
                turn = Turn.BLOCKED
                break
        self._settle(decision)
        about = {"workflow": self.taken.id}
        self.db.execute(statements.FORGET_OWN_NEWS, about)
        if turn is not Turn.THROUGH:
            self.db.execute(statements.LEAVE_NEWS, about)
        return turn

    def _carry_out(self, decision: flow.Decision) -> bool:
        """Part of it, when it is much; answers whether anything was moved."""
        moved = 0
        if decision.cancel:
            moved += self._cancel(dict(list(decision.cancel.items())[: self.left]))
        if decision.tell:
            query = {"workflow": self.taken.id, "steps": decision.tell, "said": self.message}
            told = [step for step, _ in self.db.execute(statements.TELL, query).fetchall()]
            self.states |= dict.fromkeys(told, flow.TOLD)
            moved += len(told)
        if decision.release:
            moved += self._release(decision.release)
        self.left -= moved
        return bool(moved)

    def _cancel(self, because: dict[int, int | None]) -> int:
        causes = self._causes({cause for cause in because.values() if cause is not None})
        if self.taken.is_cancelled or self.taken.on_failure == "stop":
            # Kept at once: later the first of those that ended badly may be one that was cancelled here.
            self.message = self.message or next(iter(causes.values()), "Cancelled.")
            said = dict.fromkeys(because, self.message)
        else:
            said = {step: causes[cause] for step, cause in because.items() if cause is not None}
        query = {"workflow": self.taken.id, "steps": list(said), "said": list(said.values())}
        cancelled = [step for (step,) in self.db.execute(statements.CANCEL, query).fetchall()]
        self.states |= dict.fromkeys(cancelled, flow.CANCELLED)
        return len(cancelled)

    def _causes(self, steps: set[int]) -> dict[int, str]:
        """One sentence a step: how it ended, so that others cannot begin."""
        causes = dict.fromkeys(steps, "A step before it is gone.")
        if steps:
            query = {"workflow": self.taken.id, "steps": list(steps)}
            for step, task_path, status in self.db.execute(statements.CAUSES, query).fetchall():
                how = "failed" if status == "FAILED" else "was cancelled"
                causes[step] = f"Step {step + 1} ({task_path.rpartition('.')[2]}) {how}."
        return causes

    def _release(self, release: list[tuple[flow.Shape, list[int]]]) -> int:
        """Let the first of them begin, with what they ask for; answers how many runs that were."""
        steps: list[int] = []
        numbers: list[int | None] = []
        values: list[str] = []
        sizes: list[int] = []
        for part in self._parts(release[:PARTS_AT_ONCE]):
            if len(steps) >= self.left:
                break
            if part.is_asked:
                values.append(part.text)
                sizes.append(part.size)
            room = self.left - len(steps)
            if part.is_asked:  # at least one goes, however large
                room = min(room, max(self.bytes_left // max(len(part.text), 1), 0 if steps else 1))
                self.bytes_left -= len(part.text) * min(room, len(part.steps))
            steps += part.steps[:room]
            numbers += [len(values) if part.is_asked else None] * len(part.steps[:room])
        most = settings.MAX_JSON_BYTES
        said = f"With the results of the steps before it, its arguments are larger than the {most:,} bytes allowed."
        query = {"workflow": self.taken.id, "steps": steps, "numbers": numbers, "most": most, "said": said}
        rows = self.db.execute(statements.RELEASE, {**query, "values": values, "sizes": sizes}).fetchall()
        for step, status, _ in rows:
            self.states[step] = flow.READY if status == "READY" else flow.FAILED
        return len(rows)

    def _parts(self, release: list[tuple[flow.Shape, list[int]]]) -> list[_Part]:
        """With the results that they ask for, as JSON texts; null for what would be too large for any argument."""
        parts = [_Part(steps) for _, steps in release]
        for part, (before, steps) in zip(parts, release, strict=True):
            if flow.ASKING in {self.states[step] for step in steps}:
                part.is_asked = True
                part.value = flow.value_of(before, self.states)
        sizes = self._read(statements.SIZES, [step for part in parts for step in flow.steps_in(part.value)])
        # PostgreSQL writes JSON with spaces, so what seems too large is measured once more as it is sent.
        most, room = settings.MAX_JSON_BYTES, self.bytes_left
        for number, part in enumerate(parts):
            part.size = sum(sizes.get(step) or 4 for step in flow.steps_in(part.value))
            if part.size > 2 * most:
                continue
            room -= part.size
            if room < 0 and number:
                del parts[number:]
                break
        wanted = [step for part in parts if part.size <= 2 * most for step in flow.steps_in(part.value)]
        results = self._read(statements.RESULTS, wanted)
        for part in parts:
            if part.is_asked and part.size <= 2 * most:
                part.text = flow.filled(part.value, results)
                if len(part.text.encode()) > most:
                    part.text = ENCODER.encode(DECODER.decode(part.text))
                part.size = len(part.text.encode())
                if part.size > most:
                    part.text = "null"
        return parts

    def _read(self, statement: str, steps: list[int]) -> dict[int, Any]:
        """What the statement answers about each of these steps."""
        query = {"workflow": self.taken.id, "steps": steps}
        return dict(self.db.execute(statement, query).fetchall()) if steps else {}

    def _settle(self, decision: flow.Decision) -> None:
        taken = self.taken
        status, message = "RUNNING", self.message
        if decision.outcome:
            status = {flow.SUCCESSFUL: "SUCCESSFUL", flow.FAILED: "FAILED"}.get(decision.outcome, "CANCELLED")
            if status == "SUCCESSFUL":
                message = None
            elif message is None and decision.cause is not None:
                message = self._causes({decision.cause})[decision.cause]
            logger.info("workflow %s %s ended: %s", taken.id, one_line(taken.name, 100), status)
        if (status, message) != (taken.status, taken.message):
            self.db.execute(statements.MOVE, {"workflow": taken.id, "status": status, "message": message})


def _states(db: Connection, workflow: uuid.UUID) -> dict[int, str]:
    row = db.execute(statements.STATES, {"workflow": workflow}).fetchone()
    assert row is not None
    return dict(zip(row[0] or (), row[1] or "", strict=True))


def _give_up(db: Connection, taken: Taken, said: str) -> Turn:
    """End a workflow that cannot be read: what has not begun is cancelled, what is held ends by itself.

    Its news, which are still there, bring it back: then it is final, or another try is due.
    """
    about = {"workflow": taken.id}
    try:
        with db.transaction():
            if db.execute(statements.LOCK, about).fetchone() is None:
                return Turn.BLOCKED
            states = _states(db, taken.id)
            steps = [step for step, state in states.items() if state in {*flow.BEFORE, flow.READY}]
            query = {**about, "steps": steps, "said": [said] * len(steps)}
            if len(db.execute(statements.CANCEL, query).fetchall()) == len(steps):
                db.execute(statements.MOVE, {**about, "status": "FAILED", "message": said})
    except UNREACHABLE:
        raise
    except Exception:
        logger.exception("workflow %s cannot be ended", taken.id)
    return Turn.BLOCKED
