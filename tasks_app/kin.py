"""WATCH: which other runs have to do with one: those before and after it, and those in its way."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import CharField, F, Q, Value
from django.urls import reverse

from tasks_app import wording
from tasks_app.models import Cluster, Status, TaskRun, TaskRunQuerySet

TOLD = 5
"""So many of a kind are told."""


@dataclass(frozen=True)
class Kin:
    """Another run, as much of it as a link needs."""

    kind: str
    """`retry_of`, `retry`, `again_of`, `again`, `before`, `after`, `twin` or `at_work`."""
    id: uuid.UUID
    task_path: str
    status: str
    step: int | None
    claimed_by: str | None
    has_more: bool = False
    """It is the last one that is told of its kind, and there are others."""

    @property
    def name(self) -> str:
        return wording.visible(self.task_path.rpartition(".")[2])

    @property
    def short_id(self) -> str:
        return str(self.id)[:8]

    @property
    def url(self) -> str:
        return reverse("run", args=[self.id])

    @property
    def state(self) -> str:
        return "claimed" if self.status == Status.READY and self.claimed_by else self.status.lower()

    @property
    def said(self) -> str:
        """Its status, as a word."""
        return str(Status(self.status).label)


def kin_of(run: TaskRun, visible: TaskRunQuerySet, at_work: str = "") -> dict[str, list[Kin]]:
    """By their kinds; by one query over those that somebody may see.

    `at_work` asks also for runs that are held: by the workers of its queue (`workers`), or under the limit of its
    `queue` or its `task`.
    """
    parts = [told("retry", visible.filter(retry_of=run.pk)), told("again", visible.filter(again_of=run.pk))]
    for kind, pk in (("retry_of", run.retry_of_id), ("again_of", run.again_of_id)):
        if pk:
            parts.append(told(kind, visible.filter(pk=pk)))
    if run.workflow_id and run.step is not None:
        others, previous = visible.filter(workflow=run.workflow_id), run.previous or {}
        if previous:
            earlier = others.filter(step__range=(previous.get("first", 0), previous.get("last", -1)))
            parts.append(told("before", earlier, "finished_at", "step"))
        parts.append(told("after", others.filter(previous__first__lte=run.step, previous__last__gte=run.step), "step"))
    if run.unique_key:
        parts.append(told("twin", visible.standing([run.unique_key]).exclude(pk=run.pk)))
    if at_work:
        parts.append(told("at_work", held(run, visible, at_work), "claimed_at", "id"))
    first, *rest = parts
    found: dict[str, list[Kin]] = {}
    for row in first.union(*rest, all=True) if rest else first:
        found.setdefault(row["kind"], []).append(Kin(**row))
    return {kind: shortened(others) for kind, others in found.items()}


def shortened(others: list[Kin]) -> list[Kin]:
    return others if len(others) <= TOLD else [*others[: TOLD - 1], replace(others[TOLD - 1], has_more=True)]


def told(kind: str, runs: TaskRunQuerySet, *order: str) -> Any:
    """The first few of them, the unfinished before the others, or the newest; and one to tell that there are more."""
    ordered = runs.order_by(*(F(name).asc(nulls_first=True) for name in order)) if order else runs.newest()
    named = ordered.annotate(kind=Value(kind, CharField()))
    return named.values("kind", "id", "task_path", "status", "step", "claimed_by")[: TOLD + 1]


def held(run: TaskRun, visible: TaskRunQuerySet, by: str) -> TaskRunQuerySet:
    runs = visible.unfinished().filter(claimed_by__isnull=False)
    if by == "queue":
        return runs.filter(queue_name=run.queue_name)
    if by == "task":
        return runs.filter(task_path=run.task_path)
    alive = Cluster.objects.alive().filter(queues__contains=[run.queue_name]).values_list("pk", flat=True)[:TOLD]
    of_them = [Q(claimed_by__startswith=f"{cluster.hex[:12]}:") for cluster in alive]
    return runs.filter(Q(*of_them, _connector=Q.OR), status=Status.RUNNING) if of_them else runs.none()
