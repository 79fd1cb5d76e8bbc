"""`manage.py` alone: it finds or starts the embedded database, and the last to leave stops it."""

import re
import signal

import pytest

import manage
from tests.ops.conftest import Checkout
from tests.plugins.processes import READY, free_port, wait_until_answering
from tests.waiting import wait_until

ENQUEUE = "from tasks_app.tasks import create_task; print('enqueued', create_task.enqueue(type=0).id)"


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ([], False),
        (["help"], False),
        (["--version"], False),
        (["check"], False),
        (["check", "--deploy"], False),
        (["check", "--database", "default"], True),
        (["collectstatic", "--noinput"], False),
        (["migrate", "--help"], False),
        (["migrate"], True),
        (["makemigrations", "--check"], True),
        (["runserver"], True),
        (["qcluster"], True),
        (["shell"], True),
        (["test"], True),
    ],
)
def test_only_commands_that_need_a_database_start_one(arguments: list[str], needs: bool) -> None:
    assert manage.needs_database(arguments) is needs


def test_help_starts_nothing(checkout: Checkout) -> None:
    assert "qcluster" in checkout.run(".venv/bin/python", "manage.py", "help").stdout
    assert not (checkout.folder / "var").exists()


def test_qcluster_and_a_shell_beside_it_share_the_database(checkout: Checkout) -> None:
    assert checkout.manage("migrate", "--verbosity=0").wait() == 0
    assert not checkout.database_runs()

    cluster = checkout.manage("qcluster", WORKERS=1)
    cluster.wait_for_output(READY)
    shell = checkout.manage("shell", "-c", ENQUEUE)
    assert shell.wait() == 0
    run_id = re.findall(r"enqueued (\S+)", shell.output)[0]
    wait_until(lambda: len(re.findall(run_id, cluster.output)) >= 2, what="the start and the end of the run in the log")
    assert checkout.database_runs()

    assert cluster.stop(signal.SIGTERM) == 0
    checkout.wait_until_quiet(seconds=1)


def test_a_killed_qcluster_does_not_keep_the_next_from_starting(checkout: Checkout) -> None:
    killed = checkout.manage("qcluster", WORKERS=1)
    killed.wait_for_output(READY)
    killed.stop(signal.SIGKILL)
    following = checkout.manage("qcluster", WORKERS=1)
    following.wait_for_output(READY)
    assert following.stop(signal.SIGTERM) == 0
    checkout.wait_until_quiet()


@pytest.mark.parametrize(("options", "signum"), [([], signal.SIGTERM), (["--noreload"], signal.SIGINT)])
def test_runserver_alone(checkout: Checkout, options: list[str], signum: signal.Signals) -> None:
    port = free_port()
    server = checkout.manage("runserver", f"127.0.0.1:{port}", *options)
    wait_until_answering(f"http://127.0.0.1:{port}/healthz", server)
    server.stop(signum)
    checkout.wait_until_quiet()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_shell_that_is_ended_stops_the_database(checkout: Checkout, signum: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, here and by what is started here
    shell = checkout.manage("shell", "-c", "import time; print('asleep', flush=True); time.sleep(60)")
    shell.wait_for_output("asleep")
    assert shell.stop(signum) == 128 + signal.SIGTERM
    checkout.wait_until_quiet(seconds=1)


def test_with_a_database_url_nothing_embedded_starts(checkout: Checkout) -> None:
    shell = checkout.manage(
        "shell",
        "-c",
        "print('here', flush=True); import time; time.sleep(60)",
        DEBUG=1,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
        VAR_DIR=checkout.folder / "other",
    )
    shell.wait_for_output("here")
    assert not checkout.database_runs()
    assert not (checkout.folder / "other").exists()
    shell.stop(signal.SIGTERM)


def test_env_file_is_read_and_the_environment_wins(checkout: Checkout) -> None:
    env_file = checkout.folder / ".env"
    env_file.write_text("# a comment\nDEBUG=1\nexport TIME_ZONE='Europe/Oslo'\nLOG_LEVEL=ERROR\n")
    try:
        code = "from django.conf import settings; print(settings.TIME_ZONE, settings.LOG_LEVEL, settings.OPEN_ACCESS)"
        ended = checkout.run(
            ".venv/bin/python", "-c", f"from config import local; local.prepare_environment(); {code}", LOG_LEVEL="INFO"
        )
    finally:
        env_file.unlink()
    assert ended.stdout == "Europe/Oslo INFO False\n"


def test_a_database_that_cannot_start_is_one_sentence(checkout: Checkout) -> None:
    (checkout.folder / "file").write_text("")
    ended = checkout.run(".venv/bin/python", "manage.py", "migrate", VAR_DIR=checkout.folder / "file")
    assert ended.returncode == 1
    (line,) = ended.stdout.splitlines()
    assert line.startswith("The embedded PostgreSQL cannot use ")
