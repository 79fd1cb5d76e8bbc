"""`python -m bench`, or `make bench`: measure, print one table, keep the figures in results.json."""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from bench import product, report
from bench.contender import KNOWN, AgentError, Contender, Missing
from bench.machine import Machine, commit_milliseconds, filesystem, machine

PARTS = ("drain", "busy", "enqueue", "many", "latency", "producers", "backlog", "clusters", "idle", "memory", "long",
         "policies")  # fmt: skip
DRAIN_SECONDS = 4.0
"""How long one drain is to take: the number of tasks is chosen for it, contender by contender."""

PRODUCERS = 8

TURNS = 5
"""In so many pieces a round's enqueueing is cut, all contenders in turns: the disk has its moods, minutes long."""

DRAINS = 2
"""So many drains a round has of each contender, in turns: one that meets a mood does not decide the median."""


STARTS = 4
"""In so many pieces a round's latencies are taken, all contenders in turns, each with workers of its own."""


class Bench:
    """The contenders that are here, and what was measured of them so far."""

    def __init__(self, made: Machine, options: argparse.Namespace) -> None:
        self.machine, self.options = made, options
        self.contenders: dict[str, Contender] = {}
        self.missing: dict[str, str] = {}
        self.rates: dict[tuple[str, str], list[float]] = {}
        self.latencies: dict[tuple[str, str], list[dict[str, float]]] = {}
        self.sizes: dict[tuple[str, str], int] = {}
        self.results: dict[str, Any] = {}

    def find_contenders(self) -> None:
        for name in self.options.only:
            try:
                self.contenders[name] = Contender(name, self.machine)
            except (Missing, AgentError) as error:
                self.missing[name] = str(error)
                say(f"{name} is left out: {error}")

    def close(self) -> None:
        for contender in self.contenders.values():
            contender.agent.close()

    def run(self) -> None:
        """Rounds, each with every contender in it, so that a noisy minute of the machine meets them all."""
        for number in range(1, self.options.rounds + 1):
            say(f"round {number} of {self.options.rounds}")
            self.measure()
            self.take_turns()
            self.gather()
        if ours := self.contenders.get("dumbwaiter"):
            self.measure_product(ours)

    def measure(self) -> None:
        """Everything that every contender is asked, one thing after the other, so that they are asked it soon after
        each other.
        """
        steps: list[tuple[str, Callable[[Contender], None]]] = [
            *[("drain", partial(self.drain, task="noop"))] * DRAINS,
            *[("busy", partial(self.drain, task="busy"))] * DRAINS,
            *[("latency", partial(self.latency, key="start_latency_ms"))] * STARTS,
            *[("producers", partial(self.latency, key="start_latency_8_producers_ms"))] * STARTS,
        ]
        for part, step in steps:
            for contender in self.contenders.values():
                if part in self.options.parts and (part == "drain" or contender.name != "sql_floor"):
                    self.carefully(f"{contender.name}, {part}", partial(step, contender))

    def take_turns(self) -> None:
        """The same for what is over in a moment: a piece of each contender, then the next piece of each."""
        for part, how, count in (("enqueue", "enqueue", 3_000), ("many", "enqueue_many", 20_000)):
            if part in self.options.parts:
                for contender in self.contenders.values():
                    self.carefully(f"{contender.name}, {part}", partial(contender.agent.ask, "prepare"))
                for _ in range(TURNS):
                    for contender in self.contenders.values():
                        piece = partial(self.enqueue, contender, how, (self.options.tasks or count) // TURNS)
                        self.carefully(f"{contender.name}, {part}", piece)

    def carefully(self, what: str, step: Callable[[], object]) -> None:
        """One contender in trouble does not end the benchmark for the others."""
        try:
            step()
        except (AgentError, OSError, RuntimeError, TimeoutError) as error:
            say(f"  {what}: {type(error).__name__}: {error}")
            say(self.machine.log_tail(f"{what.partition(',')[0]}-workers", 3))
            self.results.setdefault("trouble", []).append(f"{what}: {error}")

    def drain(self, contender: Contender, task: str) -> None:
        key = ("drain" if task == "noop" else "drain_busy", contender.name)
        rate = contender.drain(task, self.size(contender, key, task))
        self.rates.setdefault(key, []).append(rate)
        self.sizes[key] = self.options.tasks or tasks_for(rate)
        say(f"  {contender.name}: {key[0]} {rate:,.0f}/s")

    def size(self, contender: Contender, key: tuple[str, str], task: str) -> int:
        """How many tasks: as told, or as the last drain suggests; the first time short ones tell."""
        if key not in self.sizes:
            self.sizes[key] = self.options.tasks or tasks_for(self.guess(contender, task))
        return self.sizes[key]

    def guess(self, contender: Contender, task: str) -> float:
        """Tasks a second in the first drain of this contender that takes long enough to tell."""
        rate = 0.0
        for count in (500, 5_000, 50_000):
            with suppress(AgentError):  # over before it was timed
                rate = contender.drain(task, count)
            if rate and rate * DRAIN_SECONDS < 10 * count:
                break
        return rate

    def enqueue(self, contender: Contender, how: str, count: int) -> None:
        rate = contender.agent.ask(how, task="noop", count=count)
        if rate is not None:
            self.rates.setdefault((how, contender.name), []).append(rate)
            say(f"  {contender.name}: {how} {rate:,.0f}/s")

    def latency(self, contender: Contender, key: str) -> None:
        if key == "start_latency_ms":
            found = contender.latencies(max(self.options.samples // STARTS, 1))
        else:
            found = contender.latencies_of_many(PRODUCERS, max(self.options.samples * 2 // STARTS, PRODUCERS))
        told = {f"p{percent}": percentile(found, percent) for percent in (50, 95)}
        self.latencies.setdefault((key, contender.name), []).append(told)
        say(f"  {contender.name}: {key} p50 {told['p50']:.2f}, p95 {told['p95']:.2f}")

    def gather(self) -> None:
        """Medians over the rounds so far; of latencies over the pieces: one bad second is in one of them."""
        for measure in ("drain", "drain_busy", "enqueue", "enqueue_many"):
            rates = {name: self.rates.get((measure, name)) for name in self.contenders}
            self.results[measure] = {name: statistics.median(found) if found else None for name, found in rates.items()}
        for measure in ("start_latency_ms", "start_latency_8_producers_ms"):
            self.results[measure] = {
                name: {part: statistics.median(piece[part] for piece in pieces) for part in ("p50", "p95")}
                for name in self.contenders
                if (pieces := self.latencies.get((measure, name)))
            }

    def measure_product(self, ours: Contender) -> None:
        """What only this project is asked."""
        rows, rounds, tasks = self.options.rows, self.options.rounds, self.options.tasks
        results = self.results

        def backlog() -> None:
            say(f"a backlog of {rows:,} ready, {rows:,} scheduled and {rows:,} finished runs")
            beside = Contender(ours.name, self.machine, "beside")
            try:
                found = results["backlog"] = product.backlog(ours, beside, rows, 2 * rounds, self.options.slice)
            finally:
                beside.agent.close()
            results["backlog_ratio"] = found["ratio"]

        def clusters() -> None:
            say("1, 2 and 4 clusters")
            total = tasks or 2 * self.sizes.get(("drain", "dumbwaiter"), 40_000)
            results["clusters"] = product.clusters(ours, (1, 2, 4), rounds, total)

        def idle() -> None:
            say("an idle cluster")
            found = results["idle"] = product.idle(ours, self.machine)
            results["idle_statements_per_second"] = found["statements_per_second"]
            results["idle_cpu_share"] = found["cpu_share"]

        def memory() -> None:
            say("memory")
            results["memory_mb"] = product.memory_after(ours, self.options.memory_tasks)

        def long() -> None:
            say("a long task")
            results["long_task_executions"] = product.long_task(ours)

        def policies() -> None:
            say("policies of queues and tasks")
            total = tasks or max(20_000, self.sizes.get(("drain", "dumbwaiter"), 0) // 2)
            results["policies"] = product.policies(ours, rounds, total)

        for step in (backlog, clusters, idle, memory, long, policies):
            if step.__name__ in self.options.parts:
                self.carefully(f"dumbwaiter, {step.__name__}", step)


def tasks_for(rate: float) -> int:
    """For a drain of about DRAIN_SECONDS, rounded so that it reads well."""
    return max(200, min(round(rate * DRAIN_SECONDS / 100) * 100, 400_000))


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A reader for `a,b,c`, each one of the known names; nothing at all means all of them."""

    def read(text: str) -> list[str]:
        given = [word.strip() for word in text.split(",") if word.strip()]
        if unknown := [word for word in given if word not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. Known: {', '.join(known)}.")
        return [name for name in known if name in given] or list(known)

    return read


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("--only", type=names(list(KNOWN)), default=list(KNOWN), help="contenders: dumbwaiter,celery")
    parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; medians are kept")
    parser.add_argument("--tasks", type=int, default=0, help="tasks in a measure; else as many as the contender needs")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each kind in the backlog")
    parser.add_argument("--samples", type=int, default=100, help="latencies in a round")
    parser.add_argument("--slice", type=float, default=4.0, help="seconds of each slice of the backlog that is timed")
    parser.add_argument("--memory-tasks", type=int, default=200_000, help="runs between the two looks at the memory")
    parser.add_argument("--write", action="store_true", help="keep the table in bench/RESULTS.md")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    random.seed(1)
    began = time.monotonic()
    try:
        with machine() as made:
            facts = report.facts(made.postgres, made.redis)
            facts |= {"scratch": filesystem(made.scratch), "commit_ms": round(commit_milliseconds(made.scratch), 3)}
            bench = Bench(made, options)
            try:
                bench.find_contenders()
                bench.run()
            finally:
                bench.close()
            keeps = {name: contender.keeps for name, contender in bench.contenders.items()}
    except KeyboardInterrupt:
        sys.exit("Interrupted: everything that was started has been stopped.")
    facts["minutes"] = round((time.monotonic() - began) / 60, 1)
    results = {**bench.results, "missing": bench.missing, "machine": facts}
    report.RESULTS_JSON.write_text(json.dumps(results, indent=2) + "\n")
    page = report.page(results, keeps)
    print(page)
    if options.write:
        report.RESULTS_PAGE.write_text(page)


if __name__ == "__main__":
    main()
