"""WATCH: the entries of the audit as its page tells them: to which runs something was done, and by which bulk act."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import F, QuerySet

from tasks_app import bulk, search
from tasks_app.models import AuditEntry, TaskRun

SHOWN = 20
"""So many runs of an entry are named; it may have a thousand."""


@dataclass(frozen=True)
class Named:
    """A run that something was done to."""

    pk: uuid.UUID
    name: str
    """That of its task; empty when the run is deleted by now."""

    @property
    def short_id(self) -> str:
        return str(self.pk)[:8]


@dataclass(frozen=True)
class Line:
    """An entry and its first runs."""

    entry: AuditEntry
    runs: list[Named]
    bulk: uuid.UUID | None
    """The bulk act that it is a part of, if that has a page yet."""

    @property
    def rest(self) -> int:
        """How many runs it has beyond those."""
        return self.entry.count - len(self.runs)


def with_first_runs(entries: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
    """Those entries, and of the runs of each only as many as are shown."""
    return entries.defer("runs").annotate(first_runs=F(f"runs__0_{SHOWN}"))


def lines_of(entries: Sequence[AuditEntry]) -> list[Line]:
    """What a page tells of them; by one query, however many runs they are about."""
    runs: dict[int, list[uuid.UUID]] = {entry.pk: entry.first_runs for entry in entries}  # type: ignore[attr-defined]
    asked = {pk for found in runs.values() for pk in found} | {entry.act for entry in entries if entry.count}
    paths: dict[uuid.UUID, str] = {}
    if asked:
        paths = dict(TaskRun.objects.filter(search.OneOf(sorted(asked))).values_list("pk", "task_path"))
    return [
        Line(
            entry,
            [Named(pk, paths.get(pk, "").rpartition(".")[2]) for pk in runs[entry.pk]],
            entry.act if paths.get(entry.act) == bulk.path() else None,
        )
        for entry in entries
    ]
