"""A checkout on one's own machine: its `.env` file, and defaults that spare it any set-up."""

import os
from pathlib import Path

from config.env import text

BASE_DIR = Path(__file__).resolve().parent.parent


def prepare_environment() -> None:
    """Reads `.env`; where nothing says which kind of installation this is, makes it an open one of one's own."""
    read_env_file(BASE_DIR / ".env")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if not any(text(name) for name in ("DEBUG", "SECRET_KEY", "DATABASE_URL")):
        os.environ["DEBUG"] = "1"
        os.environ.setdefault("OPEN_ACCESS", "1")


def read_env_file(path: Path) -> None:
    """Takes over its KEY=VALUE lines; what the environment already says wins."""
    lines = path.read_text().splitlines() if path.is_file() else []
    for line in lines:
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            os.environ.setdefault(name.strip(), value)


def database_dir() -> Path:
    """Where the embedded PostgreSQL keeps its data, said without loading the settings."""
    return Path(text("VAR_DIR", str(BASE_DIR / "var"))) / "postgres"
