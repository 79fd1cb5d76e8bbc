"""Where the soak happens: a PostgreSQL to break, one for the ledger, and clusters that are started again."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, TypeVar, cast

import psutil
import psycopg

from config import embedded
from soak import events, ledger
from soak.events import Hold
from soak.promises import CALM, QUEUES
from tasks_app.engine import process
from tests.plugins.processes import RunningProcess
from tests.server import Server

Answer = TypeVar("Answer")
Steps: TypeAlias = Generator[float, None, Answer]
"""Yields how many seconds may pass before the next step, so that several things can be in the middle of happening."""

WORKERS = 2
SETTINGS: dict[str, object] = {
    "WORKERS": WORKERS,
    "STOP_GRACE_SECONDS": 1,
    "CANCEL_GRACE_SECONDS": 1,
    "LOST_AFTER_SECONDS": 3,
    "UNKNOWN_TASK_SECONDS": 2,
    "LOG_FILE": os.devnull,  # each cluster's console is kept
}
"""Everything happens sooner than it usually does, so that a minute has room for many faults."""

SECONDS_TO_STOP = 20.0
"""Far more than the grace period: a busy machine is slow, and a hanging stop is for ever."""


class Place:
    """A host as the soak plays it: one cluster, and somebody who starts another when it has ended."""

    def __init__(self, scene: Scene, number: int, queues: tuple[str, ...], *, spared: bool = False) -> None:
        self.scene, self.number, self.queues = scene, number, queues
        self.spared = spared
        """Its processes are left alone, so that they grow old and their memory can be watched."""
        self.taken = False
        """A fault is busy with the whole of it."""
        self.running: RunningProcess | None = None
        self.sentinel_deaths: list[float] = []
        self.name = ""
        """Of the cluster now here; each one has a name of its own, which its row, its titles and its log tell."""
        self._is_ready = False

    @property
    def cluster(self) -> RunningProcess:
        assert self.running is not None
        return self.running

    @property
    def is_ready(self) -> bool:
        """Its cluster has said that it takes runs."""
        if not self._is_ready and self.running is not None:
            with self.cluster.output_file.open() as output:
                self._is_ready = self.ready in output.read(20_000)
        return self._is_ready and self.running is not None and self.cluster.process.poll() is None

    @property
    def ready(self) -> str:
        return f"cluster {self.name} is ready"

    def start(self) -> None:
        self.name = cluster_name(len(self.scene.server.clusters))
        self._is_ready, self.sentinel_deaths = False, []
        self.running = self.scene.server.qcluster("--name", self.name, "--queues", ",".join(self.queues), wait=False)

    def look_after(self) -> None:
        """Start what ended because the database could not be reached at its start; no other end is in order."""
        if self.taken or self.running is None or (code := self.cluster.process.poll()) is None:
            return
        said = self.cluster.output
        if "The database cannot be reached" not in said or self.ready in said:
            self.scene.complain(f"the cluster of place {self.number} ended by itself with {code}: {said[-300:]}")
        self.start()

    def titled(self, words: str) -> list[psutil.Process]:
        return self.cluster.titled(f"qcluster {self.name} {words}")

    def busy_workers(self) -> list[psutil.Process]:
        idle = {one.pid for one in self.titled("worker idle")}
        return [one for one in self.titled("worker") if one.pid not in idle]


class Scene:
    """Everything that faults act on, what they did and what they found wrong."""

    def __init__(self, folder: Path, server: Server, ledger_url: str) -> None:
        self.folder, self.server, self.ledger_url = folder, server, ledger_url
        self.places = [
            Place(self, 1, (CALM,), spared=True),
            Place(self, 2, ("default", "rough", CALM)),
            Place(self, 3, tuple(reversed(QUEUES))),
        ]
        self.began = time.monotonic()
        self.complaints: list[str] = []
        """What was wrong on the way, whatever the proof at the end says."""
        self.faults: Counter[str] = Counter()
        self.silenced: set[str] = set()
        """The names of clusters that were frozen or killed as a whole, and so are to be declared lost."""
        self.holds: list[Hold] = []
        """Pauses and limits, each from when it was to be heeded by everybody."""
        self.held: set[str] = set()
        """Queues and tasks that a fault is just pausing or limiting."""
        self.is_database_taken = False
        """A fault is busy breaking it."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        print(f"{self.seconds:7.1f} s  {text}", flush=True)

    def complain(self, text: str) -> None:
        self.complaints.append(text)
        self.say(f"VIOLATION: {text}")

    def pick(self, choice: Random) -> Place | None:
        """A place whose cluster may be harmed just now."""
        fit = [place for place in self.places if place.is_ready and not (place.taken or place.spared)]
        return choice.choice(fit) if fit else None

    # The database, which may be broken just now

    def ask(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Raises `psycopg.OperationalError` while the database is broken."""
        with self.server.connect() as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def insist(self, query: str, *parameters: Any, seconds: float = 60) -> Steps[list[dict[str, Any]]]:
        """The same in steps, until the database answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ask(query, *parameters)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            if not self.is_database_taken:
                embedded.ensure_running(self.server.data)
            yield 0.1

    def cluster_id(self, place: Place) -> Steps[Any]:
        """Under which id its sentinel is registered; a place whose cluster was lost before has had others."""
        query = "SELECT id FROM tasks_app_cluster WHERE name = %s AND lost_at IS NULL ORDER BY started_at DESC LIMIT 1"
        found = yield from self.insist(query, place.name)
        return found[0]["id"] if found else None

    def steer(self, place: Place, **wishes: object) -> Steps[None]:
        """As `Cluster.steer` does it, but for a database that may not answer at once, nor know the cluster yet."""
        columns = ", ".join(f"{name} = %s" for name in wishes)
        steer = f"""
            UPDATE tasks_app_cluster SET {columns}
            WHERE name = %s AND stopped_at IS NULL AND lost_at IS NULL RETURNING id"""
        deadline = time.monotonic() + 10
        while not (yield from self.insist(steer, *wishes.values(), place.name)) and time.monotonic() < deadline:
            yield 0.1
        yield from self.insist("SELECT pg_notify('dumbwaiter', 'steer')")

    # Clusters

    def await_end(self, place: Place, what: str, seconds: float = SECONDS_TO_STOP) -> Steps[None]:
        """Steps until no process of the place's session is left; what hangs is told and ended."""
        deadline = time.monotonic() + seconds
        place.cluster.process.poll()
        while left := place.cluster.members():
            if time.monotonic() > deadline:
                self.complain(f"{len(left)} processes left {seconds:g} s after {what}: {_titles(left)}")
                kill(left)
            yield 0.1
            place.cluster.process.poll()

    def drain(self, seconds: float) -> list[dict[str, Any]]:
        """Let the clusters do what is left, undisturbed; answers the runs that are not final in the end."""
        deadline = time.monotonic() + seconds
        # What makes runs comes before them, so that none is made unseen.
        schedules = "SELECT id FROM django_q_schedule WHERE next_run < now() + interval '1 hour'"
        flows = "SELECT id FROM tasks_app_workflow WHERE status IN ('READY', 'RUNNING')"
        query = "SELECT * FROM tasks_app_taskrun WHERE status IN ('READY', 'RUNNING')"
        while any([exhaust(self.insist(schedules)), exhaust(self.insist(flows)), left := exhaust(self.insist(query))]):
            if time.monotonic() > deadline:
                break
            for place in self.places:
                place.look_after()
            time.sleep(0.2)
        return left

    def stop_all(self) -> None:
        """SIGTERM for every cluster; each has to end with 0 and to leave nothing."""
        for place in self.places:
            place.cluster.process.send_signal(signal.SIGTERM)
        for place in self.places:
            exhaust(self.await_end(place, "the last SIGTERM"))
            if code := place.cluster.process.wait():
                self.complain(f"the cluster of place {place.number} ended with {code}")
            place.running = None

    def leftovers(self) -> None:
        """Nothing may be left: no process of any cluster there was, none that a task left behind, no session."""
        for cluster in self.server.clusters:
            if left := cluster.members():
                self.complain(f"processes left of cluster {cluster.pid}: {_titles(left)}")
        if strays := descendants():
            self.complain(f"processes left: {_titles(strays)}")
        if children := ledger.children(self.ledger_url):
            self.complain(f"children of tasks left: {children}")
        for _ in range(50):  # a session ends a moment after its client
            if not (sessions := self.server.backends("")):
                return
            time.sleep(0.1)
        self.complain(f"sessions left in the database: {sessions}")


def cluster_name(number: int) -> str:
    """Of the cluster that was started as this one, counted from 0."""
    return f"c{number}"


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Both servers up and migrated; at the end nothing is left of them, nor of any cluster."""
    with ExitStack() as stack:
        folder.chmod(0o711)  # the database server may run as another user
        data = folder / "product" / "postgres"
        stack.enter_context(embedded.hold(data))
        ledger_url = stack.enter_context(embedded.hold(folder / "ledger" / "postgres"))
        ledger.create(ledger_url)
        process.adopt_orphans()  # what escapes from its cluster is found at the end
        server = Server(data, folder, **SETTINGS, **{ledger.URL: ledger_url})
        server.migrate()
        events.create(server.connect)
        made = Scene(folder, server, ledger_url)
        stack.callback(kill_strays)
        yield made


def exhaust(steps: Steps[Answer]) -> Answer:
    """All the steps at once, for when nothing else is to happen meanwhile."""
    while True:
        try:
            time.sleep(next(steps))
        except StopIteration as end:
            return cast(Answer, end.value)


def until(condition: Callable[[], object], seconds: float = 5.0, every: float = 0.05) -> Steps[None]:
    """Steps until the condition holds, for so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        yield every


def kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(processes, timeout=10)


def kill_strays() -> None:
    """Again and again, because a main process that is not dead yet starts another sentinel."""
    deadline = time.monotonic() + 20
    while (left := descendants()) and time.monotonic() < deadline:
        kill(left)


def descendants() -> list[psutil.Process]:
    """What lives below this process, orphans of its clusters included, but for the database servers."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if _is_live(one) and _name(one) != "postgres"]


def _is_live(one: psutil.Process) -> bool:
    try:
        return one.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _name(one: psutil.Process) -> str:
    try:
        return one.name()
    except psutil.Error:
        return ""


def _titles(processes: list[psutil.Process]) -> str:
    found = []
    for one in processes:
        with suppress(psutil.Error):
            found.append(f"{one.pid} {' '.join(one.cmdline())[:80]!r}")
    return ", ".join(found)
