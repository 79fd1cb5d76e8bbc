"""How lines of the worker's log are shown."""

from __future__ import annotations

import re

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from tasks_app.templatetags.dumbwaiter import visible_lines

register = template.Library()

RUN = re.compile(r"\brun ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


@register.filter
def with_runs(text: str) -> SafeString:
    """The text of a record, made `visible_lines`, in which the id of a run leads to its page."""
    parts, end = list[str](), 0
    for match in RUN.finditer(text):
        link = format_html('<a href="{}">{}</a>', reverse("run", args=[match[1]]), match[1])
        parts += [visible_lines(text[end : match.start(1)]), link]
        end = match.end()
    return mark_safe("".join([*parts, visible_lines(text[end:])]))  # noqa: S308 - every part is escaped above
