from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models.functions import Now

from tasks_app import audit
from tasks_app.ids import ids_beginning_with

if TYPE_CHECKING:
    from tasks_app.audit import By

HEARTBEAT_SECONDS = 1.0


MOST_WORKERS = 256
"""How far a cluster can grow while it runs."""


def claim_id(cluster_id: uuid.UUID) -> str:
    """A cluster as claims name it."""
    return cluster_id.hex[:12]


class DesiredState(models.TextChoices):
    """What an operator wants of a cluster; it obeys at its next heartbeat."""

    RUN = "run", "Run"
    QUIET = "quiet", "Quiet"
    """Ends the runs at hand and takes no others."""
    STOP = "stop", "Stop"


class ClusterQuerySet(models.QuerySet["Cluster"]):
    def started(self) -> ClusterQuerySet:
        """Those that neither stopped by themselves nor were declared lost."""
        return self.filter(stopped_at=None, lost_at=None)

    def alive(self) -> ClusterQuerySet:
        """Those heard from lately, by the database's clock."""
        silence = timedelta(seconds=settings.LOST_AFTER_SECONDS)
        return self.started().filter(heartbeat_at__gt=Now() - silence)

    def taking(self) -> ClusterQuerySet:
        """Of those, who take runs: neither quiet nor stopping, nor to keep no worker."""
        has_workers = models.Q(desired_workers=None) | models.Q(desired_workers__gt=0)
        return self.alive().filter(has_workers, desired_state=DesiredState.RUN)

    def of_claims(self, short_ids: Iterable[str]) -> dict[str, Cluster]:
        """The clusters by the ids that claims name them by, which are the beginnings of theirs."""
        asked = [(short, found) for short in short_ids if (found := ids_beginning_with(short))]
        if not asked:
            return {}
        named = reduce(or_, (models.Q(id__range=found) for _, found in asked))
        return {cluster.claims_as: cluster for cluster in self.filter(named)}


class Cluster(models.Model):
    """One `manage.py qcluster` on some host: a sentinel and its workers."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    queues = models.JSONField(help_text="The queues it takes from, in order.")
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    workers = models.SmallIntegerField(help_text="How many worker processes it keeps.")
    busy = models.SmallIntegerField(default=0, help_text="How many of them are at work.")
    desired_workers = models.SmallIntegerField(
        null=True, blank=True, help_text="How many it should keep; empty: as set."
    )
    desired_state = models.CharField(max_length=5, choices=DesiredState, default=DesiredState.RUN)
    restart_at = models.DateTimeField(
        null=True, blank=True, help_text="When somebody wished last that its workers are replaced by fresh ones."
    )
    report = models.JSONField(
        null=True,
        blank=True,
        help_text="What it tells of itself and its workers, see `engine/account.py`; empty of an older release.",
    )
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField(help_text="When it was last heard from.")
    stopped_at = models.DateTimeField(null=True, blank=True, help_text="When it stopped as asked.")
    lost_at = models.DateTimeField(null=True, blank=True, help_text="When another cluster found it silent.")
    rescued = models.IntegerField(default=0, help_text="How many runs were taken back from it when it was lost.")
    rescue = models.JSONField(null=True, blank=True, help_text="By which cluster, and the first of those runs.")
    forgotten_at = models.DateTimeField(
        null=True, blank=True, help_text="When somebody had seen that it was lost, and wished to see it no more."
    )

    objects = ClusterQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["heartbeat_at"], name="cluster_started", condition=models.Q(stopped_at=None, lost_at=None)
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"

    @property
    def claims_as(self) -> str:
        """What `claimed_by` of its runs begins with."""
        return claim_id(self.id)

    def steer(
        self,
        *,
        workers: int | None = None,
        state: DesiredState | None = None,
        restart: bool = False,
        by: By = None,
        why: str = "",
    ) -> bool:
        """Have the cluster keep so many workers, or run, be quiet or stop; answers whether it is still there.

        `restart` has it replace its workers, each after the run at hand; its own process stays. Raises `ValueError`
        for a number of workers that no cluster can have.
        """
        wishes: dict[str, object] = {}
        if workers is not None:
            if not isinstance(workers, int) or isinstance(workers, bool) or not 0 <= workers <= MOST_WORKERS:
                raise ValueError(f"A cluster has 0 to {MOST_WORKERS} workers.")
            wishes["desired_workers"] = workers
        if state is not None and state not in DesiredState.values:
            raise ValueError(f"A cluster is to be one of {', '.join(DesiredState.values)}, not {state!r}.")
        if state is not None:
            wishes["desired_state"] = state
        told = {**wishes, "restart": True} if restart else wishes
        if restart:
            wishes = {**wishes, "restart_at": Now()}
        with transaction.atomic():
            moved = type(self).objects.started().filter(pk=self.pk).update(**wishes)
            if moved:
                audit.record("steer", subject=f"cluster {self}", by=by, why=why, details=told)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify('dumbwaiter', 'steer')")
        return bool(moved)

    def forget(self, *, by: By = None) -> bool:
        """Show it no more among those that are lost; answers whether it was there to be forgotten."""
        with transaction.atomic():
            lost = type(self).objects.filter(pk=self.pk, lost_at__isnull=False, forgotten_at=None)
            moved = lost.update(forgotten_at=Now())
            if moved:
                audit.record("steer", subject=f"cluster {self}", by=by, details={"forgotten": True})
        return bool(moved)
