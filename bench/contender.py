"""A contender as the benchmark sees it: an agent process to ask, and worker processes to start and stop."""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bench import machine
from bench.install import VENV
from bench.machine import Machine

# Name in the table, whether it runs in the project's own environment, and the server it needs beside PostgreSQL.
KNOWN = {
    "dumbwaiter": ("dumbwaiter", True, ""),
    "celery": ("celery_redis", False, "redis"),
    "django_q2": ("django_q2", False, ""),
    "django_qraft": ("django_qraft", False, ""),
    "procrastinate": ("procrastinate_pg", False, ""),
    "huey": ("huey_redis", False, "redis"),
    "pgqueuer": ("pgqueuer_pg", False, ""),
    "sql_floor": ("sql_floor", True, ""),
}
ANSWER_SECONDS = 900


class Missing(Exception):
    """Says what a contender needs and this machine does not have."""


class AgentError(Exception):
    """What an agent said of its own trouble."""


class Agent:
    """One process with the contender's code in it."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        with (contender.machine.scratch / f"{contender.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [contender.python, "-m", "bench.agent", contender.module],
                cwd=machine.ROOT, env=contender.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True, preexec_fn=machine.end_with_parent, text=True, bufsize=1,
            )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> Any:
        """Do this, and say what came of it; raises `AgentError`, or `Missing` when its packages are not there."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended, and `answer` tells why
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")

    def answer(self) -> Any:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            said = self.contender.machine.log_tail(self.contender.name, 1)
            raise AgentError(f"{self.contender.name} gives no answer: {said}")
        told = json.loads(line)
        if "missing" in told:
            raise Missing(told["missing"])
        if "error" in told:
            raise AgentError(f"{self.contender.name}: {told['error']}")
        return told["value"]

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with suppress(OSError):
            self.process.stdin.close()
        machine.stop([self.process])
        self.process.stdout.close()


class Contender:
    """Raises `Missing` when something that it needs cannot be found here."""

    def __init__(self, name: str, made: Machine, beside: str = "") -> None:
        """`beside` names a second database of the same contender."""
        self.name, self.machine = name, made
        self.module, ours, server = KNOWN[name]
        if server == "redis" and made.redis is None:
            raise Missing("no redis-server on the PATH (Debian: apt install redis-server)")
        if not ours and not (VENV / "bin" / "python").exists():
            raise Missing("bench/.venv is not there: `make bench` makes it")
        self.python = sys.executable if ours else str(VENV / "bin" / "python")
        self.environment = made.environment(f"{name}_{beside}" if beside else name)
        self.agent = Agent(self)
        try:
            self.keeps = str(self.agent.ask("hello")["keeps"])
            self.agent.ask("prepare")
        except BaseException:
            self.agent.close()
            raise

    @contextmanager
    def working(
        self, workers: int = 2, clusters: int = 1, **environment: str
    ) -> Iterator[list[subprocess.Popen[bytes]]]:
        """So many worker processes at work, as many times over as there are clusters."""
        commands = [command for _ in range(clusters) for command in self.agent.ask("workers", count=workers)]
        started = []
        signum = signal.SIGTERM
        try:
            for arguments, extra in commands:
                signum = signal.Signals[f"SIG{extra.pop('BENCH_STOP', 'TERM')}"]
                merged = {**self.environment, **extra, **environment}
                started.append(self.machine.start([self.python, *arguments], merged, f"{self.name}-workers"))
            yield started
            ended = [process.returncode for process in started if process.poll() is not None]
            if ended:
                said = self.machine.log_tail(f"{self.name}-workers", 3)
                raise AgentError(f"a worker of {self.name} ended by itself ({ended[0]}): {said}")
        finally:
            machine.stop(started, signum)

    def drain(self, task: str, count: int, clusters: int = 1) -> float:
        """Tasks a second through two workers (a cluster), from an empty history and a full queue."""
        self.agent.ask("prepare")
        self.agent.ask("fill", task=task, count=count)
        with self.working(clusters=clusters):
            return float(self.agent.ask("drain", total=count))

    # From sending to the task's first line

    def latencies(self, samples: int) -> list[float]:
        """Milliseconds, one at a time, each sent when the one before has begun and everything is idle again."""
        self.agent.ask("prepare")
        found: list[float] = []
        with self.listening() as stamps, self.working():
            self.warm_up(stamps)
            for _ in range(samples):
                time.sleep(random.uniform(0.02, 0.08))
                self.agent.ask("stamp")
                found.append(float(stamps.recv(64)) * 1000)
        return found

    def latencies_of_many(self, producers: int, samples: int, pause: float = 0.04) -> list[float]:
        """The same with so many processes sending at a time, about 1 / `pause` tasks a second each."""
        self.agent.ask("prepare")
        agents = [Agent(self) for _ in range(producers)]
        found: list[float] = []
        try:
            with self.listening() as stamps, self.working():
                self.warm_up(stamps)
                for agent in agents:
                    agent.ask("stamp")  # connects
                for _ in agents:
                    stamps.recv(64)
                for agent in agents:
                    agent.tell("produce", count=samples // producers, pause=pause)
                found += [float(stamps.recv(64)) * 1000 for _ in range(samples // producers * producers)]
                for agent in agents:
                    agent.answer()
        finally:
            for agent in agents:
                agent.close()
        return found

    def warm_up(self, stamps: socket.socket, tasks: int = 20) -> None:
        for _ in range(tasks):
            self.agent.ask("stamp")
            stamps.recv(64)
        time.sleep(0.5)

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """The socket at which `bench.work.stamp` arrives."""
        self.machine.stamps.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stamps:
            stamps.bind(str(self.machine.stamps))
            stamps.settimeout(60)
            yield stamps
