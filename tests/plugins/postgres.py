"""The tests' environment and database; loaded with `-p`, before pytest-django reads the settings."""

import os
import signal
from contextlib import ExitStack
from types import FrameType

import psutil
import psycopg
import pytest
from psycopg import sql

from config import embedded, local

# A data folder of its own, so that the tests run beside `make run`.
VAR_DIR = local.database_dir().parent / "test"
TEST_DATABASE = "test_dumbwaiter"

given_url = os.environ.get("DATABASE_URL", "").strip()
entered = ExitStack()


def prepare_environment() -> None:
    """The same settings on every machine, whatever its owner has exported."""
    names = "ALLOWED_HOSTS API_TOKENS API_TOKENS_MAY_LAUNCH BEHIND_PROXY BIND CSRF_TRUSTED_ORIGINS MASKED_KEYS PORT"
    for name in [*names.split(), "RETENTION", "TIME_ZONE"]:
        os.environ.pop(name, None)
    os.environ.update(
        DEBUG="1",
        HTTPS="0",
        OPEN_ACCESS="0",
        SECRET_KEY="only-for-tests-" * 4,
        WORKERS="2",
        VAR_DIR=str(VAR_DIR),
        MEDIA_ROOT=str(VAR_DIR / "media"),
        LOG_FILE=str(VAR_DIR / "qcluster.log"),
        DATABASE_URL=given_url or embedded.url(VAR_DIR / "postgres"),
        # Playwright's event loop runs in the tests' thread, where Django would refuse the database.
        DJANGO_ALLOW_ASYNC_UNSAFE="1",
    )
    if not given_url:
        # Two runs at once in one checkout, each with its own.
        os.environ.setdefault("TEST_DATABASE_NAME", f"{TEST_DATABASE}_{os.getpid()}")


prepare_environment()


def pytest_sessionstart(session: pytest.Session) -> None:
    signal.signal(signal.SIGTERM, _end)
    if given_url or session.config.option.collectonly:
        return
    try:
        url = entered.enter_context(embedded.hold(VAR_DIR / "postgres"))
    except embedded.EmbeddedPostgresError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    _drop_left_behind(url)


def pytest_unconfigure(config: pytest.Config) -> None:
    entered.close()


def _drop_left_behind(url: str) -> None:
    """Drops the databases of test runs that were killed."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{TEST_DATABASE}_%"])
        for (name,) in names.fetchall():
            pid = name.removeprefix(f"{TEST_DATABASE}_")
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _end(signum: int, frame: FrameType | None) -> None:
    pytest.exit("Ended by SIGTERM.", returncode=128 + signum)
