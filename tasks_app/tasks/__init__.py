"""The example tasks, plain functions that know no queue and no request; and the upkeep of the tables."""

from tasks_app.tasks.images import make_thumbnails
from tasks_app.tasks.practice import create_task
from tasks_app.tasks.upkeep import prune_runs

__all__ = ["create_task", "make_thumbnails", "prune_runs"]
