"""The faults, each a small generator: it does harm, yields how many seconds may pass, and does the next step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from random import Random

import psutil
import psycopg
from django.db import Error, connection, connections
from django.utils import timezone

from soak.events import Hold
from soak.promises import QUEUES
from soak.scene import WORKERS, Place, Scene, Steps, exhaust, until
from tasks_app.models import Queue, TaskLimit
from tasks_app.models.cluster import DesiredState
from tasks_app.pace import BadLimit

Fault = Callable[[Scene, Random], Steps[None]]

FAULTS: list[Fault] = []
AT_ONCE = 2
"""So many faults may be in the middle of what they do."""

SENTINEL_DEATHS = (3, 70.0)
"""So many within so many seconds a cluster is to survive; it gives up by design at two more."""

HEEDED_WITHIN = timedelta(seconds=1)
"""After a pause or a limit was set, a claim that had begun before it may still come true for so long."""


class NobodyThere(Exception):
    """The fault found nothing to harm."""


def fault(steps: Fault) -> Fault:
    FAULTS.append(steps)
    return steps


class Trouble:
    """Draws fault after fault from a shuffled deck, each with a chance of its own, so that one seed is one course."""

    def __init__(self, scene: Scene, seed: str, faults: list[Fault]) -> None:
        self.scene, self.seed, self.faults = scene, seed, faults
        self.choice = Random(seed)
        self.deck: list[Fault] = []
        self.drawn = 0
        self.at_work: list[tuple[float, Fault, Steps[None]]] = []
        """When its next step is due, which fault, its steps."""
        self.next_draw = 0.0

    def go_on(self, *, more: bool = True) -> bool:
        """One look at the clock; answers whether any fault is still at work."""
        now = time.monotonic()
        if more and now >= self.next_draw and len(self.at_work) < AT_ONCE:
            self._draw(now)
        waiting, self.at_work = self.at_work, []
        for due, made, steps in waiting:
            if now < due:
                self.at_work.append((due, made, steps))
                continue
            try:
                self.at_work.append((now + next(steps), made, steps))
            except StopIteration:
                self.scene.faults[made.__name__] += 1
            except NobodyThere:
                self.deck.insert(0, made)  # its turn comes again, after all the others
            except (psycopg.OperationalError, psutil.NoSuchProcess) as error:  # another fault was faster
                self.scene.say(f"{made.__name__} is cut short by {type(error).__name__}")
                self.scene.faults[made.__name__] += 1
        return bool(self.at_work)

    def _draw(self, now: float) -> None:
        if not self.deck:
            self.deck = list(self.faults)
            self.choice.shuffle(self.deck)
        made = self.deck.pop()
        self.drawn += 1
        self.at_work.append((now, made, made(self.scene, Random(f"{self.seed}/{self.drawn}"))))
        self.next_draw = now + self.choice.uniform(0.3, 1.6)


@contextmanager
def a_place(scene: Scene, choice: Random) -> Iterator[Place]:
    """A place for one fault alone. Raises `NobodyThere`."""
    place = scene.pick(choice)
    if place is None:
        raise NobodyThere
    place.taken = True
    try:
        yield place
    finally:
        place.taken = False


@contextmanager
def the_database(scene: Scene) -> Iterator[None]:
    """Only one fault at a time breaks the database. Raises `NobodyThere`."""
    if scene.is_database_taken:
        raise NobodyThere
    scene.is_database_taken = True
    try:
        yield
    finally:
        scene.is_database_taken = False


# Single processes


@fault
def kill_idle_workers(scene: Scene, choice: Random) -> Steps[None]:
    yield from _kill_workers(scene, choice, "idle")


@fault
def kill_busy_workers(scene: Scene, choice: Random) -> Steps[None]:
    yield from _kill_workers(scene, choice, "busy")


@fault
def kill_pruning_workers(scene: Scene, choice: Random) -> Steps[None]:
    """Between two of its batches, or in one."""
    yield from _kill_workers(scene, choice, "pruning")


TITLES = {"idle": "worker idle", "pruning": "worker prunes"}


def _kill_workers(scene: Scene, choice: Random, which: str) -> Steps[None]:
    with a_place(scene, choice) as place:
        for _ in range(choice.randint(1, 4)):
            found: list[psutil.Process] = []

            def look(found: list[psutil.Process] = found) -> list[psutil.Process]:
                found[:] = place.busy_workers() if which == "busy" else place.titled(TITLES[which])
                return found

            yield from until(look)
            if not found:
                raise NobodyThere
            victim = choice.choice(found)
            victim.kill()
            scene.say(f"SIGKILL for {which} worker {victim.pid} of place {place.number}")
            yield choice.uniform(0.0, 0.6)


@fault
def kill_the_sentinel(scene: Scene, choice: Random) -> Steps[None]:
    with a_place(scene, choice) as place:
        # A cluster whose sentinel dies again and again gives up, as it should: not more often than that.
        deaths = [at for at in place.sentinel_deaths if time.monotonic() - at < SENTINEL_DEATHS[1]]
        sentinels = place.titled("sentinel")
        if len(deaths) >= SENTINEL_DEATHS[0] or not sentinels:
            raise NobodyThere
        place.sentinel_deaths = [*deaths, time.monotonic()]
        sentinels[0].kill()
        scene.say(f"SIGKILL for the sentinel of place {place.number}")
        yield choice.uniform(0.5, 1.5)  # a wish to stop that meets a sentinel just killed would end with 1


@fault
def freeze_a_worker(scene: Scene, choice: Random) -> Steps[None]:
    """Far past its claim; its sentinel sees that it lives, so nobody takes its run."""
    with a_place(scene, choice) as place:
        yield from until(place.busy_workers)
        if not (found := place.busy_workers()):
            raise NobodyThere
        victim = choice.choice(found)
        seconds = choice.uniform(1.0, 5.0)
        victim.suspend()
        scene.say(f"SIGSTOP for busy worker {victim.pid} of place {place.number} for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            with suppress(psutil.NoSuchProcess):  # a time limit may have ended it
                victim.resume()


# Whole clusters


@fault
def kill_the_main_process(scene: Scene, choice: Random) -> Steps[None]:
    """Nobody could stop the others any more, so they stop by themselves."""
    with a_place(scene, choice) as place:
        place.cluster.process.kill()
        scene.say(f"SIGKILL for the main process of place {place.number}")
        yield from scene.await_end(place, "the end of their main process")
        place.start()


@fault
def kill_a_cluster(scene: Scene, choice: Random) -> Steps[None]:
    """As when a host loses its power: nobody is left to give anything back."""
    with a_place(scene, choice) as place:
        yield from until(place.busy_workers)
        scene.silenced.add(place.name)
        members = place.cluster.members()
        for act in (psutil.Process.suspend, psutil.Process.kill):  # so that none of them sees another go
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    act(member)
        scene.say(f"SIGKILL for all {len(members)} processes of place {place.number}")
        yield from scene.await_end(place, "SIGKILL for all of them")
        yield choice.uniform(0.0, 4.0)
        place.start()


@fault
def stop_a_cluster(scene: Scene, choice: Random) -> Steps[None]:
    """By a signal to the main process or to its whole group, twice if there is a hurry, or by steering it."""
    with a_place(scene, choice) as place:
        how = choice.choice(["SIGTERM", "SIGTERM", "SIGINT", "SIGTERM twice", "SIGTERM to its group", "steering"])
        scene.say(f"place {place.number} is stopped by {how}")
        if how == "steering":
            yield from scene.steer(place, desired_state=DesiredState.STOP)
        elif how == "SIGTERM to its group":
            os.killpg(place.cluster.pid, signal.SIGTERM)
        else:
            place.cluster.process.send_signal(signal.Signals[how.split()[0]])
        yield choice.uniform(0.1, 1.0)
        if how == "SIGTERM twice" and place.cluster.process.poll() is None:
            place.cluster.process.send_signal(signal.SIGTERM)
        yield from scene.await_end(place, f"{how} was to stop place {place.number}")
        if code := place.cluster.process.wait():
            scene.complain(f"the cluster of place {place.number} ended with {code} after {how}")
        place.start()


@fault
def freeze_a_cluster(scene: Scene, choice: Random) -> Steps[None]:
    """Others declare it lost and take its runs; then it wakes up and would like to finish them."""
    with a_place(scene, choice) as place:
        hush = [other for other in scene.places if other is not place] if choice.random() < 0.5 else []
        yield from until(place.busy_workers)
        cluster = yield from scene.cluster_id(place)
        if cluster is None:  # it was declared lost a moment ago, and does not know it yet
            raise NobodyThere
        members, workers = place.cluster.members(), {one.pid for one in place.titled("worker")}
        scene.silenced.add(place.name)
        try:
            for member in members:
                member.suspend()
            quietly = ", the others being quiet" if hush else ""
            scene.say(f"SIGSTOP for all {len(members)} processes of place {place.number}{quietly}")
            # Quiet ones do not claim what they take back, so that the late finish meets a run that nobody holds.
            for other in hush:
                yield from scene.steer(other, desired_state=DesiredState.QUIET)
            query = "SELECT id FROM tasks_app_cluster WHERE id = %s AND lost_at IS NOT NULL"
            deadline = time.monotonic() + 40
            while not (yield from scene.insist(query, cluster)):
                if time.monotonic() > deadline:
                    scene.complain(f"place {place.number} was silent for 40 s and nobody declared it lost")
                    break
                yield 0.1
            scene.say(f"SIGCONT for place {place.number}, which is lost by now")
            first = choice.choice(["workers", "sentinel", "all"])
            if first != "all":
                _resume([one for one in members if (one.pid in workers) == (first == "workers")])
                yield choice.uniform(0.0, 0.8)
        finally:
            _resume(members)
            for other in hush:
                yield from scene.steer(other, desired_state=DesiredState.RUN)
        yield 1.0


def _resume(members: list[psutil.Process]) -> None:
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.resume()


# The database


@fault
def restart_the_database_fast(scene: Scene, choice: Random) -> Steps[None]:
    yield from _restart(scene, "fast")


@fault
def restart_the_database_immediately(scene: Scene, choice: Random) -> Steps[None]:
    yield from _restart(scene, "immediate")


def _restart(scene: Scene, mode: str) -> Steps[None]:
    with the_database(scene):
        scene.say(f"restart of PostgreSQL, {mode}")
        scene.server.restart(mode)
        yield 0.5


@fault
def end_every_session(scene: Scene, choice: Random) -> Steps[None]:
    """Wherever they are just then: in a claim, a finish, a heartbeat, waiting, the producer's commit."""
    query = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
    with the_database(scene):
        times = choice.randint(1, 6)
        scene.say(f"the end of every session, {times} times")
        for _ in range(times):
            scene.ask(query)
            yield choice.uniform(0.05, 0.6)


@fault
def refuse_finishes(scene: Scene, choice: Random) -> Steps[None]:
    """A full disk, as a trigger can play it."""
    made = """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW
        WHEN (new.status IN ('SUCCESSFUL', 'FAILED')) EXECUTE FUNCTION full_disk()"""
    with the_database(scene):
        try:
            scene.ask(made)
            seconds = choice.uniform(0.5, 3.0)
            scene.say(f"no finish is taken for {seconds:.1f} s")
            yield seconds
        finally:
            yield from scene.insist("DROP FUNCTION IF EXISTS full_disk CASCADE")


@fault
def take_every_connection(scene: Scene, choice: Random) -> Steps[None]:
    """As soon as a session of a cluster ends, one of ours takes its place."""
    with the_database(scene), ExitStack() as taken:
        first = taken.enter_context(scene.server.connect())
        for _ in range(3):
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'qcluster%'"
            )
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(scene.server.connect())
        seconds = choice.uniform(0.5, 3.0)
        scene.say(f"every connection is taken for {seconds:.1f} s")
        yield seconds


@fault
def lock_the_table(scene: Scene, choice: Random) -> Steps[None]:
    """As a slow migration does; workers and sentinels that die meanwhile leave statements behind that go on."""
    with the_database(scene), a_place(scene, choice) as place, scene.server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("SET LOCAL lock_timeout = '5s'")
        connection.execute("LOCK TABLE tasks_app_taskrun IN SHARE ROW EXCLUSIVE MODE")
        scene.say("nobody can write runs")
        yield choice.uniform(0.1, 0.8)
        workers = place.titled("worker")
        for victim in choice.sample(workers, min(len(workers), choice.randint(0, 2))):
            victim.kill()
            scene.say(f"SIGKILL for worker {victim.pid} of place {place.number}, which waits for the database")
        yield choice.uniform(0.1, 1.0)
        connection.execute("ROLLBACK")


# Steering


@fault
def grow_and_shrink(scene: Scene, choice: Random) -> Steps[None]:
    with a_place(scene, choice) as place:
        for workers in (choice.randint(3, 5), choice.randint(0, 1), WORKERS):
            yield from scene.steer(place, desired_workers=workers)
            scene.say(f"place {place.number} is to have {workers} workers")
            yield choice.uniform(0.2, 2.5)


@fault
def be_quiet_for_a_while(scene: Scene, choice: Random) -> Steps[None]:
    with a_place(scene, choice) as place:
        seconds = choice.uniform(0.5, 3.0)
        yield from scene.steer(place, desired_state=DesiredState.QUIET)
        scene.say(f"place {place.number} is to be quiet for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            yield from scene.steer(place, desired_state=DesiredState.RUN)


# Policies


@fault
def pause_a_queue(scene: Scene, choice: Random) -> Steps[None]:
    yield from _pause(scene, choice, Queue, choice.choice(QUEUES))


@fault
def pause_a_task(scene: Scene, choice: Random) -> Steps[None]:
    yield from _pause(scene, choice, TaskLimit, f"soak.tasks.{choice.choice(['quick', 'naps', 'crowded', 'paced'])}")


def _pause(scene: Scene, choice: Random, policy: type[Queue | TaskLimit], name: str) -> Steps[None]:
    """Until a moment, or until somebody resumes it."""
    seconds, is_resumed = choice.uniform(1.5, 4.0), choice.random() < 0.5
    with a_policy(scene, name):
        until = None if is_resumed else timezone.now() + timedelta(seconds=seconds)
        try:
            yield from _dutifully(scene, lambda: policy.pause(name, why="The soak wished it.", until=until))
        except BadLimit:  # the database was away for so long
            raise NobodyThere from None
        scene.say(f"the {policy.what} {name} is paused for {seconds:.1f} s")
        since = timezone.now()
        try:
            yield seconds
        finally:
            scene.holds.append(Hold(policy.what, name, 0, since + HEEDED_WITHIN, until or timezone.now()))
            if is_resumed:
                yield from _dutifully(scene, lambda: policy.resume(name))


@fault
def limit_a_queue(scene: Scene, choice: Random) -> Steps[None]:
    name, most, seconds = choice.choice(QUEUES), choice.randint(1, 3), choice.uniform(1.5, 4.0)
    with a_policy(scene, name):
        yield from _dutifully(scene, lambda: Queue.limit(name, most))
        scene.say(f"of the queue {name} at most {most} are held for {seconds:.1f} s")
        since = timezone.now()
        try:
            yield seconds
        finally:
            scene.holds.append(Hold("queue", name, most, since + HEEDED_WITHIN, timezone.now()))
            yield from _dutifully(scene, lambda: Queue.limit(name, None))


@contextmanager
def a_policy(scene: Scene, name: str) -> Iterator[None]:
    """One fault at a time changes it. Raises `NobodyThere`."""
    if name in scene.held:
        raise NobodyThere
    scene.held.add(name)
    try:
        yield
    finally:
        scene.held.discard(name)


def _dutifully(scene: Scene, act: Callable[[], object]) -> Steps[None]:
    """As code of the project does it, again and again until the database takes it.

    Never long at once: another fault may have locked what it waits for, and cannot go on meanwhile.
    """
    while True:
        yield from scene.insist("SELECT 1")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '200ms'")
            act()
            return
        except Error:
            yield 0.1
        finally:
            connections.close_all()


def undo_everything(scene: Scene) -> None:
    """Whatever a fault that was cut short has left: everybody may work again."""
    for statement in (
        "DROP FUNCTION IF EXISTS full_disk CASCADE",
        "UPDATE tasks_app_cluster SET desired_state = 'run' WHERE desired_state = 'quiet'",
        "UPDATE tasks_app_queue SET paused_at = NULL, max_running = NULL",
        "UPDATE tasks_app_tasklimit SET paused_at = NULL",
        "SELECT pg_notify('dumbwaiter', 'steer')",
    ):
        exhaust(scene.insist(statement))
