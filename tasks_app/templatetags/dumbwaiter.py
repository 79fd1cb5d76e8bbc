"""How pages draw icons and tell times, sizes and values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from django import template
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from tasks_app import wording
from tasks_app.activity import Activity, activity_for
from tasks_app.live import poll_url

register = template.Library()

register.filter("duration", wording.duration)
register.filter("limit", wording.limit)
register.filter("count", wording.count)
register.filter("size", wording.size)
register.filter("moment", wording.moment)
register.filter("clock_time", wording.clock_time)
register.filter("clock_seconds", wording.clock_seconds)
register.filter("elapsed", wording.elapsed)
register.filter("day_or_time", wording.day_or_time)

SHOWN = 50_000
"""More characters of a value than this are not shown."""

ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""All that `splitlines` takes for the end of a line."""

KEY = re.compile(r'^(\s*)("(?:[^"\\]|\\.)*":)', re.MULTILINE)


@register.filter
def visible(text: object) -> str:
    """A text of somebody's making on one line, with what cannot be seen shown: it may not turn the page around."""
    return wording.visible(str(text))


@register.filter
def visible_lines(text: str) -> SafeString:
    """The same of a text on several lines."""
    return format_html_join("\n", "{}", ((wording.visible(line),) for line in text.split("\n")))


CODE = re.compile(r"(?<!`)(`{1,2})([^`]+)\1(?!`)")


@register.filter
def with_code(text: object) -> SafeString:
    """One line of a docstring: what stands between backticks as code, all of it `visible` and escaped."""
    plain, parts = wording.visible(str(text)), list[str]()
    end = 0
    for match in CODE.finditer(plain):
        parts += [escape(plain[end : match.start()]), format_html("<code>{}</code>", match[2])]
        end = match.end()
    return mark_safe("".join([*parts, escape(plain[end:])]))  # noqa: S308 - every part is escaped above


@register.filter
def capfirst_only(word: str) -> str:
    """`Warning` for `WARNING`."""
    return word.capitalize()


@register.simple_tag
def icon(name: str, css_class: str = "icon") -> SafeString:
    """One drawing of `static/icons.svg`, in the colour of the text around it."""
    drawing = f"{static('icons.svg')}#{name}"
    return format_html('<svg class="{}" aria-hidden="true"><use href="{}"/></svg>', css_class, drawing)


@register.simple_tag
def logo() -> SafeString:
    return icon("dumbwaiter", "")


@register.simple_tag(takes_context=True)
def ticking(context: template.Context, at: datetime, kind: str) -> SafeString:
    """A time that the page's script keeps true between two answers: `elapsed` and `ago` since a moment, `left` to it.

    Without a script it stays as it was at the context's `now`. The absolute time stands in the tooltip.
    """
    now: datetime = context["now"]
    length = at - now if kind == "left" else now - at
    text = wording.ago(length) if kind == "ago" else wording.elapsed(length)
    return format_html(
        '<time datetime="{}" data-tick="{}" title="{}">{}</time>', at.isoformat(), kind, wording.moment(at), text
    )


@register.simple_tag
def at_time(at: datetime) -> SafeString:
    """The time of day, with the whole date in the tooltip."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', at.isoformat(), wording.moment(at), wording.clock_time(at)
    )


@register.inclusion_tag("runs/_activity.html", takes_context=True)
def activity_of(context: template.Context, instance: object) -> dict[str, Any]:
    """The newest runs about an object, for a page of its own; nothing for who has not logged in."""
    request: Any = context.get("request")
    activity = activity_for(instance, request) if request else None
    return drawn_activity(request, activity) if activity else {}


def drawn_activity(request: HttpRequest, activity: Activity) -> dict[str, Any]:
    """What its template takes; it asks for news while a run of it goes on."""
    poll = poll_url(request, activity.version, activity.url, about=activity.about) if activity.is_going else ""
    return {"activity": activity, "now": activity.now, "poll": poll}


@register.filter
def json_lines(text: str) -> SafeString:
    """JSON that is written on several lines, with its keys set back."""
    parts: list[SafeString] = []
    end = 0
    for match in KEY.finditer(text):
        parts += [escape(text[end : match.start(2)]), format_html('<span class="k">{}</span>', match[2])]
        end = match.end()
    return mark_safe("".join([*parts, escape(text[end:])]))  # noqa: S308 - every part is escaped above


@register.filter
def left_out(value: Any) -> str:
    """How much of a value is beyond what is shown, as a size; empty when all is."""
    length = len(wording.pretty(value))
    return wording.size(length - SHOWN) if length > SHOWN else ""


@register.filter
def traceback_lines(text: str) -> SafeString:
    """A traceback in which the frames of installed libraries stand back behind those of one's own code."""
    return format_html_join("", "{}", ((part,) for part in marked(text)))


def marked(text: str) -> Iterator[str]:
    own = True

    def is_own(line: str) -> bool:
        nonlocal own
        if line.startswith('  File "'):
            own = not re.search(r"/(?:site|dist)-packages/|/lib/python3|<frozen ", line)
        elif not line.startswith("    "):
            own = True
        return own

    for theirs, lines in groupby(text.splitlines(keepends=True), key=lambda line: not is_own(line)):
        joined = "".join(map(visible_line, lines))
        yield format_html('<span class="k">{}</span>', joined) if theirs else joined


def visible_line(line: str) -> str:
    """One of `splitlines`, whose end stays what it is."""
    text = line.rstrip(ENDS)
    return wording.visible(text) + ("" if text == line else "\n")
