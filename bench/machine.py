"""The scratch folder, the two servers, every process that the benchmark starts, and the end of all of them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import psycopg

from config import embedded

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STOP_SECONDS = 20

Process: TypeAlias = subprocess.Popen[Any]


class Machine:
    """What a contender gets: databases of one PostgreSQL, one Redis, and processes that end with the benchmark."""

    def __init__(self, scratch: Path, postgres: str, redis: Path | None) -> None:
        self.scratch, self.postgres, self.redis = scratch, postgres, redis
        self.stamps = scratch / "stamps"

    @property
    def socket_dir(self) -> str:
        return str(psycopg.conninfo.conninfo_to_dict(self.postgres)["host"])

    def database(self, name: str) -> str:
        """The URL of a database of one contender's own, made when it is not there."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(f'CREATE DATABASE "{name}"')
        return self.postgres.rpartition("/")[0] + f"/{name}"

    def environment(self, contender: str) -> dict[str, str]:
        """For the agent and the workers of a contender: where its servers are, and nothing from a user's own shell."""
        name = f"bench_{contender}"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "",
            "PGHOST": self.socket_dir,
            "PGPORT": str(embedded.PORT),
            "PGUSER": "postgres",
            "PGDATABASE": name,
            "DATABASE_URL": self.database(name),
            "SECRET_KEY": "only-for-the-benchmark",
            "ALLOWED_HOSTS": "localhost",
            "VAR_DIR": str(self.scratch / "var"),
            "LOG_FILE": str(self.scratch / f"{contender}.qcluster.log"),
            "BENCH_REDIS": str(self.redis or ""),
            "BENCH_STAMPS": str(self.stamps),
        }

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: str) -> Process:
        """A process in a session of its own, so that Ctrl-C does not reach it; it ends with the benchmark."""
        with (self.scratch / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip

    def log_tail(self, log: str, lines: int = 5) -> str:
        path = self.scratch / f"{log}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


@contextmanager
def machine() -> Iterator[Machine]:
    """Servers up, all of them gone at the end: processes, sockets and data."""
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="dumbwaiter-bench-", dir=on_disk()))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.chmod(0o711)  # the database server may run as another user
        stack.callback(unlink_short_sockets, scratch)
        url = stack.enter_context(embedded.hold(scratch / "postgres"))
        stack.callback(end_descendants)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        made = Machine(scratch, url, None)
        made.redis = start_redis(made)
        stack.callback(ignore_signals)
        yield made


def on_disk() -> Path | None:
    """Where scratch data goes: the system's temporary folder, unless that is memory, where a commit costs nothing."""
    usual = Path(tempfile.gettempdir())
    if filesystem(usual) != "tmpfs":
        return None
    folder = ROOT / "var"
    folder.mkdir(exist_ok=True)
    return folder


def filesystem(path: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def start_redis(made: Machine) -> Path | None:
    """Redis on a socket, with the persistence it has when nobody configures it; None when there is no redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    folder = made.scratch / "redis"
    folder.mkdir()
    path = folder / "socket"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--daemonize", "no"]
    made.start([program, *options], os.environ, "redis")
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"redis-server does not start: {made.log_tail('redis')}")
        time.sleep(0.05)
    return path


def end_with_parent() -> None:
    """Between fork and exec: have the kernel end this process with the benchmark (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(processes: Sequence[Process], signum: int = signal.SIGTERM) -> None:
    """Ask them to end, wait, and end what is left of them and of whatever they started."""
    family: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.Error):
            family += psutil.Process(process.pid).children(recursive=True)
    for process in processes:
        if process.poll() is None:
            process.send_signal(signum)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.1))
        if process.poll() is None:
            process.kill()
            process.wait()
    for child in family:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(family, timeout=5)


def end_descendants() -> None:
    """Nothing is left behind, also of what a killed program had started: orphans come to this process."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        left = psutil.Process().children(recursive=True)
        for child in left:
            with suppress(psutil.Error):
                child.send_signal(signum)
        psutil.wait_procs(left, timeout=10)


def unlink_short_sockets(scratch: Path) -> None:
    """The folder that `config.embedded` takes instead when a socket's path under the scratch folder is too long."""
    folder = embedded._socket_dir((scratch / "postgres").resolve())
    if scratch.resolve() not in folder.parents:
        shutil.rmtree(folder, ignore_errors=True)


def ignore_signals() -> None:
    """A second Ctrl-C does not cut the cleaning up short."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)


def commit_milliseconds(folder: Path, times: int = 200) -> float:
    """How long this disk takes to keep 8 kB for good: what every durable commit waits for."""
    path = folder / "fsync"
    with path.open("wb") as file:
        began = time.perf_counter()
        for _ in range(times):
            file.write(b"x" * 8192)
            file.flush()
            os.fdatasync(file.fileno())
        spent = time.perf_counter() - began
    path.unlink()
    return spent / times * 1000
