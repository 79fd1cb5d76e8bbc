"""HISTORY: what people did, to be read by staff who may view it, and found by who, what or which run."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tasks_app.admin import KnownValueFilter, ReadOnlyAdmin, value
from tasks_app.audit import VERBS, entries_about
from tasks_app.models import AuditEntry

MOST_FOUND = 1_000

SHOWN = 100
"""Runs of an entry that its page links to."""


class VerbFilter(KnownValueFilter):
    title = parameter_name = field = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(verb, verb) for verb in VERBS]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("moment", "actor_name", "verb", "to", "why", "address")
    list_filter = (VerbFilter,)
    ordering = ("-at", "-id")
    search_fields = ("actor_name",)
    search_help_text = "A user's name, a verb, or the whole id of a run."
    fields = (
        "moment",
        "actor_name",
        "actor",
        "address",
        "verb",
        "subject",
        "count",
        "their_runs",
        "given",
        "reason",
        "act",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        """Without the ids, of which an entry may have a thousand; its own page reads them."""
        return super().get_queryset(request).defer("runs")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return self.ordering

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """One of three whole values, each with an index of its own: a part of one would have to read all."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk__in=entries_about(uuid.UUID(term))[:MOST_FOUND]), False
        except ValueError:
            pass
        if term.lower() in VERBS:
            return queryset.filter(verb=term.lower()), False
        return queryset.filter(actor_name=term.replace("\x00", "")), False

    @admin.display(description="when")
    def moment(self, entry: AuditEntry) -> str:
        return f"{timezone.localtime(entry.at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="to")
    def to(self, entry: AuditEntry) -> str:
        return entry.subject or ("1 run" if entry.count == 1 else f"{entry.count} runs")

    @admin.display(description="why")
    def why(self, entry: AuditEntry) -> str:
        return entry.reason

    @admin.display(description="given")
    def given(self, entry: AuditEntry) -> SafeString:
        return value(entry.details)

    @admin.display(description="runs")
    def their_runs(self, entry: AuditEntry) -> SafeString | str:
        """Links to them, also to those that are deleted by now: the page there says so."""
        links = format_html_join(
            " ", '<a href="../../../taskrun/{}/change/"><code>{}</code></a>',
            ((run, str(run)[:8]) for run in entry.runs[:SHOWN]),
        )  # fmt: skip
        rest = len(entry.runs) - SHOWN
        return format_html("{} and {} more", links, rest) if rest > 0 else links or "-"
