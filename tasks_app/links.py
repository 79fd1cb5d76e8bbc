"""WATCH: where pages of figures lead: the lists of runs that they count."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from django.urls import reverse


def runs_url(**filters: object) -> str:
    """The list of runs with these filters; empty ones are left out, moments are told in UTC."""
    told = {name: iso(value) if isinstance(value, datetime) else value for name, value in filters.items() if value}
    return f"{reverse('runs')}?{urlencode(told)}" if told else reverse("runs")


def iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
