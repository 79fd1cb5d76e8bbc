#!/usr/bin/env python
"""Django's command line. With DATABASE_URL unset, a command that needs a database brings the embedded one along."""

import os
import signal
import sys
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from config import embedded, local
from config.env import text

NEED_NO_DATABASE = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "startapp",
    "startproject",
    "version",
}


def main() -> None:
    local.prepare_environment()
    # The reloader of runserver starts this a second time, and kills it without waiting for its end.
    held_by_parent = os.environ.get("RUN_MAIN") == "true"
    if text("DATABASE_URL") or held_by_parent or not needs_database(sys.argv[1:]):
        run()
        return
    # Python's default is to die on the spot, and the database would be left behind.
    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup wants it ignored
        signal.signal(signal.SIGHUP, as_sigterm)
    try:
        with embedded.hold(local.database_dir()):
            run()
    except embedded.EmbeddedPostgresError as error:
        sys.exit(str(error))


def run() -> None:
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


def needs_database(arguments: list[str]) -> bool:
    command, *options = arguments or ["help"]
    if command.startswith("-") or {"-h", "--help", "--version"} & set(options):
        return False
    return command not in NEED_NO_DATABASE or (command == "check" and "--database" in " ".join(options))


def leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


def as_sigterm(signum: int, frame: FrameType | None) -> None:
    """The terminal was closed; commands with a SIGTERM handler of their own stop as they do for that."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
