from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models


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
