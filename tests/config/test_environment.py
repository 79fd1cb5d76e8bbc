"""A bad value in the environment gets one sentence, before anything else happens."""

import os
import subprocess
import sys

import pytest

from config.local import BASE_DIR


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WORKERS", "many", "WORKERS is 'many': write a whole number, from 1 to 1000."),
        ("WORKERS", "0", "WORKERS is '0'"),
        ("PORT", "70000", "PORT is '70000'"),
        ("STOP_GRACE_SECONDS", "nan", "STOP_GRACE_SECONDS is 'nan': write a number, at least 0."),
        ("STOP_GRACE_SECONDS", "inf", "STOP_GRACE_SECONDS is 'inf'"),
        ("DEBUG", "perhaps", "DEBUG is 'perhaps': write 1 or 0."),
        ("LOG_LEVEL", "LOUD", "LOG_LEVEL is 'LOUD': write DEBUG, ERROR, INFO, WARNING."),
        ("TIME_ZONE", "Mars/Olympus", "TIME_ZONE is 'Mars/Olympus'"),
        ("DATABASE_URL", "postgresql://me:hunter2@host:port/name", "DATABASE_URL cannot be read"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL cannot be read"),
        ("DATABASE_URL", "mysql://me@host/name", "DATABASE_URL cannot be read: write postgresql://"),
        ("DATABASE_URL", "sqlite:///file", "DATABASE_URL cannot be read: write postgresql://"),
    ],
)
def test_a_bad_value_is_told_in_one_sentence(name: str, value: str, sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import config.settings"],
        cwd=BASE_DIR, env=os.environ | {name: value}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr


def test_without_a_secret_key_nothing_starts_outside_debug() -> None:
    environment = os.environ | {"SECRET_KEY": "", "DEBUG": "0", "DATABASE_URL": "postgresql://x@localhost/x"}

    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 1
    assert "SECRET_KEY is not set." in done.stderr


@pytest.mark.parametrize(("query", "threshold"), [("", "0"), ("?prepare_threshold=none", "None")])
def test_statements_are_prepared_unless_the_database_url_says_no(query: str, threshold: str) -> None:
    environment = os.environ | {"DATABASE_URL": f"postgresql://x@localhost/x{query}"}
    told = subprocess.run(
        [sys.executable, "-c", "from config.settings import options; print(options['prepare_threshold'])"],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.stdout.strip() == threshold, told.stderr
