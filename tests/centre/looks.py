"""What pages are asked by `looks.js`, and what must not be found on any."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.centre.conftest import Shown

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
LOOKS = Path(__file__).with_name("looks.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

DARK_OR_NARROW = ["color-contrast", "link-in-text-block", "target-size"]
"""Of what folds out of a page, by night and on a phone; all else of it was seen by day."""

# What is drawn otherwise by day or by night is a colour, what is so on a narrow screen a place: each seen once.
THEMES: tuple[tuple[Literal["light", "dark"], tuple[int, ...]], ...] = (("light", (720, 1280)), ("dark", (320, 360)))


def barriers(shown: Shown) -> list[str]:
    """What keeps people out, in either theme, and what stands beyond the edge or is broken, at any width."""
    tab = shown.tab
    tab.evaluate(AXE)
    found: list[str] = []
    for scheme, widths in THEMES:
        tab.emulate_media(color_scheme=scheme)
        for width in widths:
            tab.set_viewport_size({"width": width, "height": 900})
            if shown.page.is_ours:
                found += tab.evaluate("[...tooWide(), ...brokenWords(), ...brokenMenus()]")
        rules = [RULES, RULES if scheme == "light" else DARK_OR_NARROW]
        found += [f"{scheme}: {each}" for each in tab.evaluate("(rules) => barriers(...rules)", rules)]
    return found


def wrong_on_paper(shown: Shown) -> list[str]:
    """What nobody can press there, or misses."""
    shown.tab.emulate_media(media="print", color_scheme="null")
    found: list[str] = shown.tab.evaluate("wrongOnPaper()")
    return found
