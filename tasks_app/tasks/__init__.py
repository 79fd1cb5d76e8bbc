"""The example tasks: plain functions that know no queue and no request."""

from tasks_app.tasks.images import make_thumbnails
from tasks_app.tasks.practice import create_task

__all__ = ["create_task", "make_thumbnails"]
