"""The settings of the soak: the product's own, and rules of retention that let go of runs within seconds."""

from datetime import timedelta

from config.retention import Rule
from config.settings import *  # noqa: F403

RETENTION = [
    Rule("SUCCESSFUL", "soak.tasks.quick", age=timedelta(seconds=3)),
    Rule("SUCCESSFUL", "soak.tasks.gathers", age=timedelta(seconds=1)),
    Rule("SUCCESSFUL", "soak.tasks.talks", age=timedelta(0)),
    Rule("SUCCESSFUL", "soak.tasks.seldom", age=timedelta(0)),
    Rule("SUCCESSFUL", "soak.tasks.naps", newest=40),
    Rule("FAILED", age=timedelta(seconds=2)),
    Rule("FAILED", "soak.tasks.exits", newest=0),
    Rule("CANCELLED", newest=20),
]
"""Of the other tasks all successful runs stay."""
