"""Work of no length, sent through a queue to see that somebody takes it."""

from __future__ import annotations

from tasks_app.backend import task

GIVEN_UP_AFTER = 60.0
"""Seconds after which a run that nobody took is cancelled: what it was to tell is known by then."""


@task(max_attempts=1, timeout=5, expires_after=GIVEN_UP_AFTER, internal=True)
def smoke_test() -> str:
    """Do nothing, and say so."""
    return "ok"
