"""The task that deletes a schedule, once nobody has thought better of it."""

from __future__ import annotations

from typing import Any

from django.db import InterfaceError, OperationalError

from tasks_app.backend import task
from tasks_app.engine.context import RunContext


# It is somebody's wish about what runs, so it goes before all of that; and two wishes for the same are one.
@task(
    takes_context=True, internal=True, priority=100, unique_by=("schedule",),
    max_attempts=5, retry_on=(OperationalError, InterfaceError),
)  # fmt: skip
def delete_schedule(context: RunContext, schedule: int, title: str, address: str | None = None) -> dict[str, Any]:
    """Delete a schedule; its runs stay. Done twice it is done once."""
    from tasks_app.unschedule import Removal, perform

    return perform(context, Removal(schedule=schedule, title=title, address=address))
