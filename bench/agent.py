"""The benchmark's hand inside a contender's own Python: imports one module of `bench.contenders`, does as it is told.

One JSON object a line in (`{"do": …, …}`), one out. A contender's module has these names, and no class:

- `KEEPS`: what stands in its store about a finished task; `NEEDS`: `postgres` or `redis`
- `prepare()`: an empty queue and history;  `send(task, argument)`: one task, durably enqueued as its users do it
- `send_many(task, arguments)`: the same in bulk; absent where the contender has no such call
- `fill(task, count)`: the quickest way to a full queue, never timed; absent where `send` will do
- `finished()`: how many tasks its own records call done
- `workers(count)`: the commands, as `[arguments after python, environment]`, that start so many worker processes
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from importlib import import_module
from types import ModuleType
from typing import Any

STUCK_SECONDS = 90


class Agent:
    """Answers each `do` by the method of the same name."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def hello(self) -> dict[str, Any]:
        return {"keeps": self.module.KEEPS, "python": sys.version.split()[0], "sends_many": self._sends_many()}

    def _sends_many(self) -> bool:
        offered = getattr(self.module, "SENDS_MANY", True)
        return hasattr(self.module, "send_many") and bool(offered)

    def prepare(self) -> None:
        """Empty, and nothing of the measure before is left to be written to the disk while the next one is timed."""
        self.module.prepare()
        self.settle()

    def workers(self, count: int) -> Any:
        return self.module.workers(count)

    def fill(self, task: str, count: int) -> None:
        """A full queue with statistics, and nothing to be written back: every contender starts from the same."""
        if hasattr(self.module, "fill"):
            self.module.fill(task, count)
        elif self._sends_many():
            for start in range(0, count, 1000):
                self.module.send_many(task, list(range(start, min(start + 1000, count))))
        else:
            for number in range(count):
                self.module.send(task, number)
        self.settle()

    def settle(self) -> None:
        """What is there stays, and starts from the same as what was filled just now."""
        if self.module.NEEDS == "postgres":
            tidy()
        os.sync()

    def enqueue(self, task: str, count: int) -> float:
        """Tasks a second, one call and one commit each, from one process."""
        self.module.send(task, -1)  # connects, and imports what is imported late
        began = time.perf_counter()
        for number in range(count):
            self.module.send(task, number)
        return count / (time.perf_counter() - began)

    def enqueue_many(self, task: str, count: int) -> float | None:
        """Tasks a second in one call; None where there is no such call."""
        if not self._sends_many():
            return None
        self.module.send_many(task, [-1, -2])
        numbers = list(range(count))
        began = time.perf_counter()
        self.module.send_many(task, numbers)
        return count / (time.perf_counter() - began)

    def stamp(self) -> None:
        self.module.send("stamp", time.monotonic())

    def produce(self, count: int, pause: float) -> None:
        """Send stamps one after the other with a random pause between, whatever becomes of them."""
        for _ in range(count):
            time.sleep(random.uniform(0.5, 1.5) * pause)
            self.stamp()

    def nap(self, seconds: float) -> None:
        self.module.send("nap", seconds)

    def finished(self) -> int:
        return int(self.module.finished())

    def drain(self, total: int) -> float:
        """Tasks a second, from the first finished one that is seen to the last, by the contender's own records.

        Asks more often near both ends than in between, because asking costs the database too.
        """
        first = self._wait_for_first()
        began, seen, moved = time.perf_counter(), first, time.perf_counter()
        rate = 0.0
        while seen < total:
            left = (total - seen) / rate if rate else 0.1
            time.sleep(min(max(left * 0.6, 0.005), 1.0))
            before, seen, now = seen, self.finished(), time.perf_counter()
            rate = (seen - first) / (now - began)
            moved = now if seen > before else moved
            if now - moved > STUCK_SECONDS:
                raise TimeoutError(f"stuck at {seen} of {total}")
        if seen == first:
            raise RuntimeError(f"{total} tasks are too few to be timed")
        return (seen - first) / (time.perf_counter() - began)

    def __getattr__(self, do: str) -> Any:
        """What only one contender is asked, its module does itself."""
        return getattr(self.module, do)

    def _wait_for_first(self) -> int:
        deadline = time.perf_counter() + STUCK_SECONDS
        while time.perf_counter() < deadline:
            if seen := self.finished():
                return seen
            time.sleep(0.02)
        raise TimeoutError("no task was finished")


def tidy() -> None:
    """VACUUM, ANALYZE and CHECKPOINT in the contender's database, which the PG… variables of libpq name."""
    import psycopg

    with psycopg.connect(autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def main() -> None:
    # The answers have a descriptor of their own: what a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    try:
        agent = Agent(import_module(f"bench.contenders.{sys.argv[1]}"))
    except ImportError as error:
        answer(missing=str(error))
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer(value=getattr(agent, asked.pop("do"))(**asked))
        except Exception as error:
            traceback.print_exc()
            answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
