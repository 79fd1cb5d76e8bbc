import time

from django.conf import settings

from tasks_app.backend import task
from tasks_app.engine.context import RunContext

STEPS = 100


@task(takes_context=True)
def create_task(context: RunContext, type: int) -> bool:  # noqa: A002  the name that clients know
    """Work for `type` x PRACTICE_UNIT_SECONDS seconds, telling the progress, and answer true."""
    total = type * settings.PRACTICE_UNIT_SECONDS
    began = time.monotonic()
    for step in range(1, STEPS + 1):
        time.sleep(max(0.0, began + total * step / STEPS - time.monotonic()))
        context.progress(round(total * step / STEPS, 2), total)
    return True
