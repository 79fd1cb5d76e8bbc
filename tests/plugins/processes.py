"""Real processes beside the test: a qcluster, and a web server, on the test's own database."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil
import pytest
from django.conf import settings
from django.db import connection

from config.local import BASE_DIR
from tests.waiting import wait_until

READY = "cluster default is ready"
SECONDS_TO_START = 30
SECONDS_TO_STOP = 30

ClusterFactory = Callable[..., "RunningProcess"]
WebFactory = Callable[..., str]


def pytest_configure() -> None:
    """What runs in the background of a script ignores Ctrl-C, and so would all that is started here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class RunningProcess:
    """A process in a session of its own, with everything it forks and all that it writes."""

    def __init__(self, command: list[str], output: Path, environment: Mapping[str, str], folder: Path = BASE_DIR):
        self.output_file = output
        with output.open("wb") as written:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def members(self) -> list[psutil.Process]:
        """The live processes of its session."""
        return [process for process in psutil.process_iter() if _is_live_member(process, self.pid)]

    def titled(self, words: str) -> list[psutil.Process]:
        """Those of them whose title has these words."""
        found = []
        for process in self.members():
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_for_output(self, text: str, seconds: float = SECONDS_TO_START) -> None:
        def said() -> bool:
            if text not in self.output and self.process.poll() is not None:
                pytest.fail(f"It ended with {self.process.returncode} without saying {text!r}:\n{self.output}")
            return text in self.output

        wait_until(said, seconds=seconds, what=f"{text!r} in the output of process {self.pid}")

    def wait(self, seconds: float = SECONDS_TO_STOP) -> int:
        """Waits for its end and gives its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"Process {self.pid} still runs after {seconds:g} seconds:\n{self.output}")

    def stop(self, signum: int = signal.SIGTERM, seconds: float = SECONDS_TO_STOP) -> int:
        """Asks it to stop, waits for its end and gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.wait(seconds)

    def end(self) -> None:
        """Stops it, and sees that nothing of it is left; pytest shows what is printed here if the test failed."""
        try:
            self.stop()
            wait_until(lambda: not self.members(), seconds=5, what=f"the end of all processes of {self.pid}")
        finally:
            for process in self.members():
                process.kill()
            self.process.wait(SECONDS_TO_STOP)
            print(f"--- output of process {self.pid}\n{self.output}")


def _is_live_member(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


@pytest.fixture
def qcluster(transactional_db: None, tmp_path: Path) -> Iterator[ClusterFactory]:
    """Starts real `manage.py qcluster` processes; keywords become environment variables."""
    clusters: list[RunningProcess] = []

    def start(*, wait: bool = True, first: str = "", **environment: object) -> RunningProcess:
        command = [sys.executable, "manage.py", "qcluster"]
        if first:  # Python that its process runs before the command
            command = [sys.executable, "-c", f"{first}\nimport manage; manage.main()", "qcluster"]
        output = tmp_path / f"qcluster-{len(clusters)}.txt"
        started = RunningProcess(command, output, _environment(tmp_path, environment))
        clusters.append(started)
        if wait:
            started.wait_for_output(READY)
        return started

    yield start
    _end_all(clusters)


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[WebFactory]:
    """Starts a real gunicorn on a free loopback port and gives its address; keywords become environment variables."""
    servers: list[RunningProcess] = []

    def start(**environment: object) -> str:
        started, address = serve(tmp_path / f"web-{len(servers)}.txt", environment)
        servers.append(started)
        wait_until_answering(f"{address}/healthz", started)
        return address

    yield start
    _end_all(servers)


def serve(output: Path, given: Mapping[str, object]) -> tuple[RunningProcess, str]:
    """A gunicorn on a free loopback port, which may not answer yet, and its address."""
    port = free_port()
    environment = {"BIND": "127.0.0.1", "PORT": port, "WEB_WORKERS": 1, **given}
    command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.py", "config.wsgi"]
    return RunningProcess(command, output, _environment(output.parent, environment)), f"http://127.0.0.1:{port}"


def _end_all(processes: list[RunningProcess]) -> None:
    """Ends each of them, also when one of them does not end well."""
    try:
        if processes:
            processes[-1].end()
    finally:
        if processes:
            _end_all(processes[:-1])


def _environment(folder: Path, given: Mapping[str, object]) -> dict[str, str]:
    own = {
        "DATABASE_URL": database_url(),
        "LOG_FILE": folder / "qcluster.log",
        "MEDIA_ROOT": settings.MEDIA_ROOT,
        "WORKERS": 2,
    }
    return os.environ | {name: str(value) for name, value in {**own, **given}.items()}


def database_url() -> str:
    """The URL of the test database, which only Django knows."""
    found = connection.settings_dict
    # Capitals in a host are lost in a URL unless encoded, and a socket's folder may have some.
    host = "".join(f"%{byte:02x}" for byte in os.fsencode(found["HOST"]))
    user = ":".join(quote(part, safe="") for part in (found["USER"], found["PASSWORD"]) if part)
    port = f":{found['PORT']}" if found["PORT"] else ""
    # Not the pool, nor what only Django understands: what is left is libpq's.
    options = {
        name: value
        for name, value in found["OPTIONS"].items()
        if isinstance(value, str | int) and name != "prepare_threshold"
    }
    query = f"?{urlencode(options)}" if options else ""
    return f"postgresql://{user}@{host}{port}/{quote(found['NAME'], safe='')}{query}"


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_until_answering(url: str, process: RunningProcess, seconds: float = SECONDS_TO_START) -> str:
    """Asks until the page comes with status 200, and gives its text."""

    def answer() -> str | None:
        if process.process.poll() is not None:
            pytest.fail(f"It ended with {process.process.returncode} instead of answering at {url}:\n{process.output}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read().decode() or " "
        except (urllib.error.URLError, OSError):
            return None

    return wait_until(answer, seconds=seconds, what=f"an answer of {url}") or ""
