"""`make run`: from a fresh checkout to a page, with database, web and worker in one terminal."""

import ctypes
import errno
import fcntl
import functools
import hashlib
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import honcho.manager
from django.core.exceptions import ImproperlyConfigured
from honcho.manager import Manager
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

from config import embedded, local
from config.env import flag, is_loopback, number, text

ADMIN = "admin"
PR_SET_PDEATHSIG = 1
# Under nohup SIGHUP comes ignored, and stays so.
STOP_SIGNALS = tuple(
    signum
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN
)
# What a stopping worker does after its grace period: give back its runs, kill stragglers, say so.
SECONDS_AFTER_GRACE = 10
# How often to look whether the embedded database still runs.
LOOK_SECONDS = 1


class Refusal(Exception):
    """Says in one sentence why `make run` does not go on."""


def main() -> None:
    for signum in STOP_SIGNALS:
        signal.signal(signum, _leave)
    try:
        prepare_environment()
        code = run()
    except (Refusal, embedded.EmbeddedPostgresError, ImproperlyConfigured) as error:
        sys.exit(str(error))
    sys.exit(code)


def run() -> int:
    host, port = text("BIND"), number("PORT", 8000, least=1)
    with only_one_here():
        see_that_port_is_free(host, port)
        with database() as embedded_data:
            announce(host, port, prepare_database())
            return run_processes(embedded_data)


def prepare_environment() -> None:
    """What `make run` presumes of the machine it runs on; `.env` and the environment know better."""
    local.read_env_file(local.BASE_DIR / ".env")
    defaults = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DEBUG": "1",
        "BIND": "127.0.0.1",
        # Nobody at a terminal waits ten seconds for Ctrl-C; an unfinished run is given back, and loses nothing.
        "STOP_GRACE_SECONDS": "3",
        # Lines come when they are written, also where the terminal is a pipe.
        "PYTHONUNBUFFERED": "1",
    }
    for name, value in defaults.items():
        os.environ[name] = text(name, value)
    os.environ["OPEN_ACCESS"] = text("OPEN_ACCESS", "1" if flag("DEBUG") and is_loopback(text("BIND")) else "0")
    os.environ["SECRET_KEY"] = text("SECRET_KEY") or kept("secret-key", secrets.token_urlsafe(50))


def kept(name: str, fresh: str) -> str:
    """A secret made once and kept in the var folder, where only its owner can read it."""
    path = var_dir() / name
    if not path.exists():
        # Written whole or not at all: under another name first.
        unfinished = path.with_name(f".{name}.{os.getpid()}")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(fresh + "\n")
        unfinished.replace(path)
    return path.read_text().strip()


def var_dir() -> Path:
    folder = local.database_dir().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"The folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refusal(f"The folder {folder} cannot be written to.")
    return folder


@contextmanager
def only_one_here() -> Iterator[None]:
    """Refuses a second `make run` in the same folder; the kernel forgets a killed one."""
    with (var_dir() / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refusal(f"`make run` already runs in this folder, as process {lock.read().strip()}.") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def see_that_port_is_free(host: str, port: int) -> None:
    if not port < 65536:
        raise ImproperlyConfigured(f"PORT is {port}: write a whole number from 1 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = "somebody listens there already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise Refusal(f"Cannot listen on {host}:{port}: {reason}. Another port: make run PORT={port + 1}") from error


@contextmanager
def database() -> Iterator[Path | None]:
    """Gives the data folder of the embedded database; None where DATABASE_URL names another, which is not ours."""
    data_dir = None if text("DATABASE_URL") else local.database_dir()
    with embedded.hold(data_dir) if data_dir else nullcontext():
        yield data_dir


def prepare_database() -> str | None:
    """Brings the tables up to date and makes the admin user; gives its password if it is one of ours."""
    # Only while we look: a host that swallows packets would keep us for minutes.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
    import django
    from django.core.checks import Tags, run_checks
    from django.core.management import call_command
    from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
    from django.db.migrations.executor import MigrationExecutor

    django.setup()
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor != "postgresql":
        raise Refusal("DATABASE_URL does not name a PostgreSQL database: write postgresql://user:password@host/name.")
    # Those that decide whether to start at all; the others are for `make lint`, and load every page for it.
    for problem in run_checks(tags=[Tags.security, "dumbwaiter"]):
        if problem.is_serious():
            raise Refusal(" ".join(problem.msg.split()))
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        raise Refusal(f"The database of DATABASE_URL cannot be reached: {without_password(error)}") from None
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", verbosity=0, interactive=False)
        return make_admin()
    except DatabaseError as error:
        raise Refusal(f"The database cannot be brought up to date: {without_password(error)}") from None
    finally:
        # The processes to come are forked from this one.
        connections.close_all()
        os.environ.pop("PGCONNECT_TIMEOUT")


def make_admin() -> str | None:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    path = var_dir() / "admin-password"
    mark = path.with_name("admin-password-mark")
    admin = users.filter(username=ADMIN).first()
    if admin is None:
        path.unlink(missing_ok=True)
        password = kept(path.name, secrets.token_urlsafe(12))
        mark.write_text(fingerprint(users.create_superuser(ADMIN, password=password).password))
        return password
    password = path.read_text().strip() if path.exists() else ""
    # A password is slow to check, on purpose; whether it is still the one that was made is seen without.
    if password and mark.exists() and mark.read_text() == fingerprint(admin.password):
        return password
    return password if admin.check_password(password) else None


def fingerprint(encoded: str) -> str:
    return hashlib.sha256(encoded.encode()).hexdigest()


def without_password(error: Exception) -> str:
    from django.db import connection

    said = " ".join(str(error).split())
    password = connection.settings_dict["PASSWORD"]
    return said.replace(password, "…") if password else said


def announce(host: str, port: int, password: str | None) -> None:
    shown = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    login = f"password {password}" if password else f"with the password you gave it (manage.py changepassword {ADMIN})"
    say(f"""
  Dumbwaiter  http://{shown}:{port}/
  Admin       http://{shown}:{port}/admin/  user {ADMIN}, {login}
  Stop        Ctrl-C
""")


def say(lines: str) -> None:
    with output_may_be_gone():
        print(lines, flush=True)


@contextmanager
def output_may_be_gone() -> Iterator[None]:
    """A closed terminal, or a pipe's reader that left, is no reason to stop, nor to leave processes behind."""
    try:
        yield
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Two processes in one terminal


def run_processes(embedded_data: Path | None) -> int:
    # Honcho counts from the first process that ended, and the worker may take all of its grace.
    honcho.manager.KILL_WAIT = number("STOP_GRACE_SECONDS", 3.0) + SECONDS_AFTER_GRACE
    restarter = Restarter(embedded_data) if embedded_data else None
    terminal = Terminal(TerminalPrinter(sys.stdout), restarter)
    gunicorn = ["-m", "gunicorn", "-c", str(local.BASE_DIR / "config" / "gunicorn.py"), "config.wsgi"]
    terminal.add_process("web", command(*gunicorn), cwd=local.BASE_DIR)
    terminal.add_process("worker", command("manage.py", "qcluster"), cwd=local.BASE_DIR)
    try:
        terminal.loop()
    finally:
        if restarter:
            restarter.finish()
    if terminal.failure:
        say(terminal.failure)
        return 1
    return terminal.returncode or 0


def command(*arguments: str) -> str:
    # Honcho starts a shell, and a shell in between would take the signals.
    return "exec " + shlex.join([sys.executable, *arguments])


class Restarter:
    """Starts the embedded database again when its server is gone, in a thread: Ctrl-C is heard meanwhile."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        # Its thread comes with the first start, so the processes are forked before there is one.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._start: Future[None] | None = None
        self._next_look = 0.0

    def look(self) -> bool:
        """Whether the server was just found gone; it is then being started again."""
        if self._start is not None or time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_SECONDS
        if embedded.is_running(self._data_dir):
            return False
        self._start = self._thread.submit(self._start_again)
        return True

    def failure(self) -> BaseException | None:
        """Why the last start failed, if it did."""
        if self._start is None or not self._start.done():
            return None
        if error := self._start.exception():
            return error
        self._start = None
        return None

    def finish(self) -> None:
        """Waits for a start under way: a server that came up later would be nobody's."""
        self._thread.shutdown()

    def _start_again(self) -> None:
        if not (self._data_dir / "PG_VERSION").exists():  # never an empty database in its place
            raise embedded.EmbeddedPostgresError(f"The data folder {self._data_dir} is gone.")
        embedded.ensure_running(self._data_dir)


class Terminal(Manager):
    """Honcho's manager, stopped in its own loop and not in the middle of whatever a signal interrupts."""

    received: int | None = None
    failure = ""
    """One sentence: what ended by itself and made everything stop."""

    def __init__(self, printer: Printer, restarter: Restarter | None) -> None:
        super().__init__(printer)
        self._restarter = restarter
        self._process_ctor = TerminalProcess

    def _start(self) -> None:
        # In place of honcho's handlers, which print, and which know no pid of a process that has just been started.
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._remember)
        super()._start()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum

    def _all_started(self) -> bool:
        """Asked by honcho's loop at every turn, so the place to act on a signal, and to look after the database."""
        started: bool = super()._all_started()
        if started and not self._terminating:
            if self.received:
                self.returncode = 128 + self.received
                self.terminate()
            elif self._restarter and not self._any_stopped():
                self._look_after_database(self._restarter)
        return started

    def _look_after_database(self, restarter: Restarter) -> None:
        if error := restarter.failure():
            self.failure = f"PostgreSQL could not be started again, so everything was stopped: {error}"
            self.terminate()
        elif restarter.look():
            self._system_print("PostgreSQL ended by itself; starting it again.\n")

    def terminate(self) -> None:
        if not self.received and not self.failure and not self._terminating:
            ended = [name for name, process in self._processes.items() if "returncode" in process]
            codes = [self._processes[name]["returncode"] for name in ended]
            who = f"The {' and the '.join(ended)} process (exit code {', '.join(map(str, codes))})"
            self.failure = f"{who} ended by itself, so everything else was stopped."
        super().terminate()


class TerminalPrinter(Printer):
    def write(self, message: Message) -> None:
        with output_may_be_gone():
            super().write(message)


class TerminalProcess(Process):
    """A process that does not outlive the terminal's, even when that one is killed."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self._child_ctor = functools.partial(Popen, preexec_fn=functools.partial(end_with_parent, signal.SIGTERM))

    def run(self, events: object = None, ignore_signals: bool = False) -> None:
        # This one only passes lines on, and ignores SIGTERM.
        end_with_parent(signal.SIGKILL)
        super().run(events, ignore_signals)


def end_with_parent(signum: int) -> None:
    """Has the kernel send this process a signal when its parent dies, however that happens (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)


def _leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


if __name__ == "__main__":
    main()
