"""How pages draw JSON values and tracebacks that are too long to be read at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tasks_app import wording

register = template.Library()

DEEPEST = 12
"""Levels of a tree that can be opened."""

MOST = 600
"""Lines of a tree in all."""

EACH = 100
"""Items of one list or mapping."""

TEXT = 500


@register.filter
def tree(value: Any) -> SafeString:
    """A value as lists that open, as far as they are worth drawing; what is left out says so."""
    budget = [MOST]
    return format_html('<ul class="tree">{}</ul>', joined(items(value, budget, 0)))


def items(value: Any, budget: list[int], depth: int) -> Iterator[SafeString]:
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    shown = 0
    for name, inner in pairs[:EACH]:
        if budget[0] <= 0:
            break
        budget[0] -= 1
        shown += 1
        yield item(name, inner, budget, depth)
    if left := len(pairs) - shown:
        yield format_html('<li class="quiet">{} more not shown</li>', wording.count(left))


def item(name: Any, value: Any, budget: list[int], depth: int) -> SafeString:
    key = format_html('<span class="k">{}</span> ', wording.visible(wording.clip(str(name), TEXT)))
    if not isinstance(value, list | dict) or not value:
        return format_html("<li>{}{}</li>", key, leaf(value))
    size = wording.plural(len(value), "key" if isinstance(value, dict) else "item")
    if depth >= DEEPEST:
        return format_html('<li>{}<span class="quiet">{}, nested too deep to be shown</span></li>', key, size)
    opened = " open" if depth < 2 and len(value) <= 10 else ""
    inner = joined(items(value, budget, depth + 1))
    opening = SafeString(opened)
    return format_html("<li><details{}><summary>{}<span class=\"quiet\">{}</span></summary><ul>{}</ul></details></li>",
                       opening, key, size, inner)  # fmt: skip


def leaf(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return wording.visible(wording.clip(text, TEXT))


def joined(parts: Iterator[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))
