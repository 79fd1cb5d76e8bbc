from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from tasks_app import wording


def moment(text: object) -> str:
    """A moment that was written as ISO 8601 has it."""
    try:
        return wording.moment(datetime.fromisoformat(str(text)))
    except ValueError:
        return str(text)


GIVEN: dict[str, Callable[[Any], str]] = {
    "max_running": lambda most: f"at most {most} at work" if most else "any number at work",
    "rate": lambda rate: str(rate) if rate else "any rate",
    "burst": lambda burst: f"{burst} at once" if burst != 1 else "",
    "until": lambda until: f"until {moment(until)}",
    "queues": lambda names: ", ".join(map(str, names)) if isinstance(names, list) else "",
    "desired_workers": lambda number: "1 worker" if number == 1 else f"{number} workers",
    "desired_state": lambda state: {"run": "take runs again", "quiet": "take nothing new"}.get(str(state), str(state)),
    "restart": lambda _: "restart the workers",
    "forgotten": lambda _: "forget that it was lost",
    "priority": lambda priority: f"to {priority}",
    "queue": lambda queue: f"to {queue}",
    "run_after": lambda at: "" if at == "now" else moment(at),
}
"""How what an act was given is said, by its name in `details`."""


class AuditEntry(models.Model):
    """What somebody did to runs, queues, schedules or clusters. One act on many runs is one entry a batch.

    `tasks_app.audit` writes it; a trigger refuses to change or delete it, save that a deleted user is let go of.
    """

    act = models.UUIDField(default=uuid.uuid4, help_text="The same for all the entries of one act.")
    at = models.DateTimeField()
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    actor_name = models.CharField(max_length=150, help_text="As it was then; empty for code without a person.")
    address = models.GenericIPAddressField(null=True, help_text="Where the request came from.")
    verb = models.CharField(max_length=30)
    subject = models.CharField(max_length=255, blank=True, help_text="What it was done to, if not to runs.")
    runs = ArrayField(models.UUIDField(), default=list, help_text="The runs that it changed.")
    count = models.IntegerField(default=0, help_text="How many they are.")
    details = models.JSONField(default=dict, help_text="What it was given: the new priority, queue or time.")
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["-at", "-id"], name="audit_newest"),
            models.Index(fields=["actor_name", "-at", "-id"], name="audit_actor_newest"),
            models.Index(fields=["verb", "-at", "-id"], name="audit_verb_newest"),
            GinIndex(fields=["runs"], name="audit_runs"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.subject or self.count}"

    @property
    def given(self) -> str:
        """What it was set to, in a few words: `at most 3 at work`, `4 workers`; empty where nothing was."""
        details = self.details if isinstance(self.details, dict) else {}
        return ", ".join(told for name, say in GIVEN.items() if name in details and (told := say(details[name])))[:200]
