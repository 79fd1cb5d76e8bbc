"""Every variable that is read stands in `.env.example` and in the README, and none stands there for nothing."""

import re
from itertools import pairwise

import pytest

from config.local import BASE_DIR

READERS = re.compile(r"""\b(?:text|flag|number|words)\(\s*"([A-Z][A-Z_]+)\"""")
ENVIRON = re.compile(r"""os\.environ(?:\.get\(|\[)\s*"([A-Z][A-Z_]+)\"""")
COMPOSE = re.compile(r"\$\{([A-Z][A-Z_]+)")
MAKE = re.compile(r"^([A-Z]+) \?=", re.MULTILINE)
# Of others, and described by them.
FOREIGN = {"DJANGO_SETTINGS_MODULE", "PGCONNECT_TIMEOUT"}


def variables_read() -> set[str]:
    found: set[str] = set()
    for path in (BASE_DIR / "config").glob("*.py"):
        found |= {*READERS.findall(path.read_text()), *ENVIRON.findall(path.read_text())}
    found |= set(ENVIRON.findall((BASE_DIR / "tests" / "plugins" / "browser.py").read_text()))
    found |= set(COMPOSE.findall((BASE_DIR / "compose.yaml").read_text()))
    found |= set(MAKE.findall((BASE_DIR / "Makefile").read_text()))
    return found - FOREIGN


def test_variables_are_found() -> None:
    assert {"SECRET_KEY", "DATABASE_URL", "PORT", "WEB_WORKERS", "PYTHON", "POSTGRES_PASSWORD"} <= variables_read()


@pytest.mark.parametrize(
    ("file", "mention"),
    [(".env.example", r"^#?([A-Z][A-Z_]+)="), ("README.md", r"^\| *`([A-Z][A-Z_]+)`")],
)
def test_every_variable_is_described(file: str, mention: str) -> None:
    described = re.findall(mention, (BASE_DIR / file).read_text(), re.MULTILINE)
    assert sorted(described) == sorted(set(described)), "one of them is described twice"
    assert set(described) == variables_read()


def test_env_example_explains_each() -> None:
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#?[A-Z_]+=", line):
            assert above.startswith("#"), f"{line} has no explanation above it"
