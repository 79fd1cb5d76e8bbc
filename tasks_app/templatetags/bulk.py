"""What the list of runs offers to do to the ticked ones."""

from __future__ import annotations

from dataclasses import dataclass

from django import template

from tasks_app import powers
from tasks_app.deeds import DEEDS, Deed
from tasks_app.finding import Finding
from tasks_app.live import Viewer

register = template.Library()

MAIN = ("retry", "cancel", "delete")
"""The others stand in a menu."""


@dataclass(frozen=True)
class Button:
    deed: Deed
    why_not: str


@dataclass(frozen=True)
class Bar:
    is_filtered: bool
    main: list[Button]
    more: list[Button]


@register.simple_tag(takes_context=True)
def bulk_bar(context: template.Context) -> Bar:
    """The buttons, each with the reason why it cannot be pressed, if there is one."""
    request, finding = context["request"], found(context)

    def button(deed: Deed) -> Button:
        may = powers.reach(request.user, deed.permission) is not powers.Reach.NOBODYS
        return Button(deed, deed.why_not(finding.state) if may else powers.NEEDED[deed.permission])

    buttons = [button(deed) for deed in DEEDS.values()]
    main = [each for each in buttons if each.deed.word in MAIN]
    return Bar(bool(finding.query), main, [each for each in buttons if each not in main])


@register.simple_tag(takes_context=True)
def export_query(context: template.Context) -> str:
    """The filters of the list, as the end of a URL."""
    return found(context).query


def found(context: template.Context) -> Finding:
    request = context["request"]
    return context.get("finding") or Finding.read(request.GET, Viewer.of(request))
