"""Tasks for a schedule: what keeps the tables from growing for ever."""

from __future__ import annotations

from tasks_app.backend import task
from tasks_app.engine.context import RunContext


@task(takes_context=True, internal=True)
def prune_runs(context: RunContext) -> dict[str, int]:
    """Delete what the setting RETENTION does not keep; answers how many of each rule went.

    It may be ended at any moment: the next one goes on where it was.
    """
    from tasks_app.retention import prune

    return prune(tell=lambda done, told: context.progress(done, message=told)).counts
