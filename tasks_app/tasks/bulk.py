"""The task that does to many runs what somebody wished on their list."""

from __future__ import annotations

from typing import Any

from django.db import InterfaceError, OperationalError

from tasks_app.backend import task
from tasks_app.engine.context import RunContext


# It is somebody's wish about all that waits, so it goes before all of it.
@task(takes_context=True, internal=True, priority=100, max_attempts=5, retry_on=(OperationalError, InterfaceError))
def act_on_runs(context: RunContext, **order: Any) -> dict[str, Any]:
    """Retry, cancel, delete or change many runs; answers the tally.

    It may be ended at any moment: its next attempt goes on where it was, and does nothing twice.
    """
    from tasks_app.bulk import Order, perform

    return perform(context, Order(**order))
