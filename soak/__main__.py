"""`python -m soak`, or `make soak`: run clusters, break everything, prove that every promise held."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import django

from config import embedded
from config.local import BASE_DIR

OWN = (
    "DEBUG", "IDEMPOTENCY_SECONDS", "LOG_LEVEL", "MAX_ATTEMPTS", "OPEN_ACCESS", "RECYCLE_AFTER", "RETENTION",
    "TIME_ZONE", "WORKER_MEMORY_MB",
)  # fmt: skip
"""Settings whose defaults the soak goes by, whatever somebody has exported."""


def prepare_environment(folder: Path) -> None:
    """The settings of a server that keeps everything in this folder."""
    for name in OWN:
        os.environ.pop(name, None)
    os.environ.update(
        DATABASE_URL=embedded.url(folder / "product" / "postgres"),
        MEDIA_ROOT=str(folder / "media"),  # a prune takes what it finds there for its own
        SECRET_KEY="only-for-the-soak-" * 4,
        ALLOWED_HOSTS="localhost",
        DJANGO_SETTINGS_MODULE="soak.settings",
    )
    django.setup()


def main() -> int:
    parser = argparse.ArgumentParser("soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of load and faults; the end takes a little longer")
    parser.add_argument("--seed", type=int, help="draws load and faults; without it by chance")
    parser.add_argument("--only", default="", help="some faults only, by their names in soak/faults.py: a,b")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    # Not under a home: the database server may run as another user, who could not get there.
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-soak-") as scratch:
        folder = Path(scratch)
        prepare_environment(folder)
        from soak.course import Course
        from soak.scene import scene

        print(f"soak of {options.minutes:g} minutes with seed {seed}", flush=True)
        with scene(folder) as made:
            course = Course(made, options.minutes * 60, seed, set(filter(None, options.only.split(","))))
            is_proved = course.run()
            report = list(course.report())
            print("\n".join(["", *report]))
            if is_proved:
                print(f"proved, with seed {seed}")
                return 0
            kept = BASE_DIR / "var" / f"soak-{seed}"
            course.keep(kept, report)
            print(f"NOT proved, with seed {seed}. The logs are in {kept}.")
            return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted: everything that was started has been stopped.")
