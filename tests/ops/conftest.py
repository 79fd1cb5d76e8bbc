"""Situations: a fresh checkout on a machine where nothing is set up."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from config.local import BASE_DIR
from tests.plugins.processes import RunningProcess
from tests.waiting import wait_until

PARTS = ("config", "static", "tasks_app", "templates")
FILES = ("Makefile", "constraints.txt", "manage.py", "requirements-dev.txt", "requirements.txt")
# What says which kind of installation this is, as opposed to PATH and HOME.
SETTINGS = (
    "DATABASE_URL",
    "DEBUG",
    "HTTPS",
    "LOG_FILE",
    "MEDIA_ROOT",
    "OPEN_ACCESS",
    "SECRET_KEY",
    "TEST_DATABASE_NAME",
    "VAR_DIR",
    "WORKERS",
)


class Checkout:
    """A copy of this checkout with its own data, in the environment of somebody who has set nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[RunningProcess] = []
        for part in PARTS:
            shutil.copytree(BASE_DIR / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in FILES:
            shutil.copy(BASE_DIR / file, folder)
        # The virtual environment of these tests, taken for one that `make` has just made.
        (folder / ".venv").mkdir()
        for entry in ("bin", "include", "lib", "pyvenv.cfg"):
            (folder / ".venv" / entry).symlink_to(Path(sys.prefix) / entry)
        (folder / ".venv" / ".run-installed").touch()

    def environment(self, **given: object) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return own | {name: str(value) for name, value in given.items()}

    def start(self, *command: str, **environment: object) -> RunningProcess:
        output = self.folder / f"output-{len(self.started)}.txt"
        self.started.append(RunningProcess(list(command), output, self.environment(**environment), self.folder))
        return self.started[-1]

    def manage(self, *arguments: str, **environment: object) -> RunningProcess:
        return self.start(".venv/bin/python", "manage.py", *arguments, **environment)

    def run(self, *command: str, **environment: object) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; both outputs together, as in a terminal."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Every live process that works in this folder, the database's among them."""
        return [process for process in psutil.process_iter() if _works_in(self.folder, process)]

    def database_runs(self) -> bool:
        return any(_is_postgres(process) for process in self.processes())

    def wait_until_quiet(self, seconds: float = 15) -> None:
        wait_until(lambda: not self.processes(), seconds=seconds, what=f"the end of every process in {self.folder}")


def _works_in(folder: Path, process: psutil.Process) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_postgres(process: psutil.Process) -> bool:
    try:
        return process.name() == "postgres"
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that a database can live in also for root.

    Not one of pytest's: every run of pytest closes those to other users, and root's database runs as one.
    """
    # Capitals, blanks, quotes and a dollar: all of them travel through a URL and a shell.
    with TemporaryDirectory(prefix="Some user's $HOME ") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shared_checkout(open_folder: Path) -> Checkout:
    return Checkout(open_folder)


@pytest.fixture
def checkout(shared_checkout: Checkout) -> Iterator[Checkout]:
    """The module's checkout, with its data; nothing may run in it when a test is over."""
    yield shared_checkout
    left = shared_checkout.processes()
    for process in left:
        process.kill()
    for started in shared_checkout.started:
        print(f"--- output of process {started.pid}, which ended with {started.process.wait()}\n{started.output}")
    shared_checkout.started.clear()
    assert not left
