"""`make run`: one command to a page, and nothing left when it ends."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from http.cookiejar import CookieJar

import psutil
import pytest

from tests.ops.conftest import Checkout
from tests.plugins.processes import RunningProcess, free_port, wait_until_answering
from tests.waiting import wait_until

PYTHON = ".venv/bin/python"


class Page:
    """What `make run` printed: where the page is, and who may log in."""

    def __init__(self, running: RunningProcess) -> None:
        self.running = running
        running.wait_for_output("Stop        Ctrl-C")
        self.address, self.admin, self.user, self.password = re.findall(
            r"Dumbwaiter\s+(http\S+)\n\s+Admin\s+(http\S+)\s+user (\S+), password (\S+)\n", running.output
        )[0]

    def wait(self) -> str:
        return wait_until_answering(self.address, self.running)

    def post_task(self, kind: int) -> str:
        request = urllib.request.Request(f"{self.address}tasks", data=json.dumps({"type": kind}).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["task_id"]

    def task(self, task_id: str) -> dict[str, object]:
        with urllib.request.urlopen(f"{self.address}tasks/{task_id}", timeout=10) as response:
            return json.load(response)

    def log_in(self) -> str:
        """The page after a login in the admin with what was printed."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with browser.open(f"{self.admin}login/", timeout=10) as response:
            token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', response.read().decode())[0]
        fields = {"username": self.user, "password": self.password, "next": "/admin/", "csrfmiddlewaretoken": token}
        with browser.open(f"{self.admin}login/", urllib.parse.urlencode(fields).encode(), timeout=10) as response:
            return response.read().decode()


def run(checkout: Checkout, **environment: object) -> Page:
    environment = {"PORT": free_port(), "WORKERS": 1, **environment}
    return Page(checkout.start(PYTHON, "-m", "config.dev", **environment))


def press_ctrl_c(process: RunningProcess) -> None:
    """A terminal sends the signal to everybody in its foreground, `make` and the launcher alike."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.skipif(not shutil.which("make"), reason="There is no make on this machine.")
def test_make_run_gives_a_page_that_works(checkout: Checkout) -> None:
    port = free_port()
    began = time.monotonic()
    page = Page(checkout.start("make", "run", f"PORT={port}", "WORKERS=1", PRACTICE_UNIT_SECONDS=0.01))
    assert page.address == f"http://127.0.0.1:{port}/"
    page.wait()
    print(f"first start to first page: {time.monotonic() - began:.1f} s")
    assert "Log out" in page.log_in()
    task_id = page.post_task(1)
    wait_until(lambda: page.task(task_id)["task_status"] != "PENDING", what="the end of the task")
    assert page.task(task_id) == {"task_id": task_id, "task_status": "SUCCESS", "task_result": True}
    assert re.search(r"^\S+ web +\| ", page.running.output, re.MULTILINE)
    assert re.search(r"^\S+ worker +\| ", page.running.output, re.MULTILINE)

    for name in ("secret-key", "admin-password"):
        assert (checkout.folder / "var" / name).stat().st_mode & 0o777 == 0o600
    assert refusal(checkout, PORT=free_port()).startswith("`make run` already runs in this folder, as process ")

    press_ctrl_c(page.running)
    page.running.wait()
    checkout.wait_until_quiet()
    assert "Traceback" not in page.running.output

    # Again: the same login, the same data, and soon.
    began = time.monotonic()
    again = Page(checkout.start("make", "run", f"PORT={port}", "WORKERS=1"))
    again.wait()
    print(f"warm start to first page: {time.monotonic() - began:.1f} s")
    assert again.password == page.password
    assert again.task(task_id)["task_status"] == "SUCCESS"
    assert again.running.stop(signal.SIGTERM) != 0
    checkout.wait_until_quiet()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_with_a_long_task_at_work(checkout: Checkout, signum: signal.Signals) -> None:
    page = run(checkout, PRACTICE_UNIT_SECONDS=60, STOP_GRACE_SECONDS=0.5)
    page.wait()
    page.post_task(1)
    page.running.wait_for_output(" started: task")
    began = time.monotonic()
    assert page.running.stop(signum) == 128 + signum
    print(f"stopped after {time.monotonic() - began:.1f} s")
    checkout.wait_until_quiet(seconds=1)
    assert "Traceback" not in page.running.output


def test_a_signal_in_the_middle_of_the_start_stops_everything(checkout: Checkout) -> None:
    starting = checkout.start(PYTHON, "-m", "config.dev", PORT=free_port(), WORKERS=1)
    wait_until(checkout.database_runs, what="the start of the database")
    assert starting.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    checkout.wait_until_quiet(seconds=1)
    assert "Traceback" not in starting.output


def test_a_worker_that_ends_by_itself_ends_the_rest(checkout: Checkout) -> None:
    page = run(checkout)
    worker = int(re.findall(r"worker started \(pid=(\d+)\)", page_output(page, "worker started"))[0])
    os.kill(worker, signal.SIGKILL)
    assert page.running.wait() == 1
    assert page.running.output.splitlines()[-1].startswith("The worker process (exit code -9) ended by itself")
    checkout.wait_until_quiet()


ENDED = "PostgreSQL ended by itself; starting it again."


def kill_database(checkout: Checkout) -> None:
    postmaster = psutil.Process(int((checkout.folder / "var/postgres/postmaster.pid").read_text().split()[0]))
    for process in (postmaster, *postmaster.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_a_killed_database_comes_back_under_a_run(checkout: Checkout) -> None:
    page = run(checkout, PRACTICE_UNIT_SECONDS=3)
    page.wait()
    task_id = page.post_task(1)
    page.running.wait_for_output(f"run {task_id} started: task")
    kill_database(checkout)
    page.running.wait_for_output(ENDED, seconds=3)
    page.wait()
    wait_until(lambda: page.task(task_id)["task_status"] != "PENDING", what="the end of the task")
    assert page.task(task_id)["task_status"] == "SUCCESS"
    assert page.running.output.count(f"run {task_id} started: task") == 1

    # Once more: the launcher goes on looking.
    kill_database(checkout)
    wait_until(lambda: page.running.output.count(ENDED) == 2, seconds=3, what="the second start")
    page.wait()
    assert page.task(task_id)["task_status"] == "SUCCESS"

    press_ctrl_c(page.running)
    assert page.running.wait() == 128 + signal.SIGINT
    checkout.wait_until_quiet(seconds=1)
    assert page.running.output.count(ENDED) == 2


def test_a_signal_while_the_database_comes_back_stops_everything(checkout: Checkout) -> None:
    page = run(checkout)
    page.running.wait_for_output("is ready")
    kill_database(checkout)
    page.running.wait_for_output(ENDED)
    assert page.running.stop(signal.SIGINT) == 128 + signal.SIGINT
    checkout.wait_until_quiet(seconds=1)


def test_a_database_that_does_not_come_back_ends_the_rest(checkout: Checkout) -> None:
    page = run(checkout)
    page.running.wait_for_output("is ready")
    configuration = checkout.folder / "var/postgres/postgresql.conf"
    before = configuration.read_bytes()
    configuration.write_bytes(before + b"\nno_such_setting = 1\n")
    try:
        kill_database(checkout)
        assert page.running.wait() == 1
    finally:
        configuration.write_bytes(before)
    last = page.running.output.splitlines()[-1]
    assert last.startswith("PostgreSQL could not be started again, so everything was stopped: ")
    assert "FATAL" in last
    checkout.wait_until_quiet(seconds=1)


def page_output(page: Page, text: str) -> str:
    page.running.wait_for_output(text)
    return page.running.output


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a process that its parent died.")
def test_a_killed_launcher_takes_everything_along(checkout: Checkout) -> None:
    page = run(checkout, STOP_GRACE_SECONDS=0.5)
    page.wait()
    page.running.wait_for_output("is ready")
    page.running.stop(signal.SIGKILL)
    checkout.wait_until_quiet()


def test_a_closed_pipe_is_no_reason_to_stop_or_to_leave_anything(checkout: Checkout) -> None:
    port = free_port()
    shell = checkout.start(
        "sh", "-c", f"exec {PYTHON} -m config.dev | head -n 3", PORT=port, WORKERS=1, STOP_GRACE_SECONDS=0.5
    )
    wait_until(lambda: "Dumbwaiter" in shell.output, what="the address")
    wait_until_answering(f"http://127.0.0.1:{port}/healthz", shell)
    os.killpg(shell.pid, signal.SIGTERM)
    shell.wait()
    checkout.wait_until_quiet()
    assert "Traceback" not in shell.output


# What it refuses: one sentence, exit code 1


def refusal(checkout: Checkout, **environment: object) -> str:
    """The only line that `make run` says before it ends."""
    ended = checkout.run(PYTHON, "-m", "config.dev", **environment)
    assert ended.returncode == 1, ended.stdout
    (line,) = ended.stdout.splitlines()
    return line


def test_a_taken_port_is_refused(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal(checkout, PORT=port).startswith(f"Cannot listen on 127.0.0.1:{port}: ")
    assert not checkout.database_runs()


@pytest.mark.parametrize("port", ["eighty", "0", "70000", "1.5"])
def test_a_port_that_is_none_is_refused(checkout: Checkout, port: str) -> None:
    assert refusal(checkout, PORT=port).startswith(f"PORT is {port!r}" if port != "70000" else "PORT is 70000")


def test_an_unreachable_database_is_refused_without_telling_its_password(checkout: Checkout) -> None:
    url = "postgresql://somebody:hush%20hush@127.0.0.1:1/nothing"
    said = refusal(checkout, PORT=free_port(), DATABASE_URL=url)
    assert said.startswith("The database of DATABASE_URL cannot be reached: ")
    assert "hush" not in said
    assert not checkout.database_runs()


@pytest.mark.parametrize("url", ["sqlite:///file.db", "postgresql://a:hush@b:port/c", "nonsense"])
def test_a_url_that_names_no_postgresql_is_refused(checkout: Checkout, url: str) -> None:
    said = refusal(checkout, PORT=free_port(), DATABASE_URL=url)
    assert "DATABASE_URL" in said
    assert "hush" not in said


def test_open_access_for_everyone_is_refused(checkout: Checkout) -> None:
    assert "OPEN_ACCESS" in refusal(checkout, PORT=free_port(), BIND="0.0.0.0", OPEN_ACCESS=1)


@pytest.mark.skipif(not shutil.which("make"), reason="There is no make on this machine.")
def test_an_old_python_is_refused(checkout: Checkout) -> None:
    old = checkout.folder / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ended = checkout.run("make", "venv", "VENV=none-yet", "PYTHON=./old-python")
    assert ended.returncode != 0
    assert ended.stdout.startswith("./old-python is not Python 3.11 or newer")
