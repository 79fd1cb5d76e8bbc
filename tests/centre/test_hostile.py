"""WATCH: texts that mean harm go through every field, and every page with them in it is as it should be."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests import hostile
from tests.centre.conftest import Centre, Filler, Show, Shown
from tests.centre.pages import NEWS, PAGES, Page

pytestmark = pytest.mark.browser

FORBIDDEN = {*map(chr, (*range(9), *range(11, 13), *range(14, 32), *range(127, 160)))} | {
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
}

EXTREME = (Page("run-long", "/runs/{long}/"), Page("run-deep", "/runs/{deep}/"))


@pytest.fixture(scope="module")
def filler() -> Filler:
    return hostile.fill


@pytest.mark.parametrize("page", [*PAGES, *EXTREME], ids=str)
def test_no_text_runs_asks_or_breaks_anything(show: Show, centre: Centre, page: Page) -> None:
    shown = show(page)
    assert "default-src 'none'" in shown.answer.headers["content-security-policy"]
    is_unharmed(shown)
    # Of a task that does not exist there is no form to run it again, only the page of the run, which says so.
    path = "/runs/bulk/?asked=" if page.by else page.path(centre.full).removesuffix("again/")
    assert re.sub(r"(?<=asked=).*", "", shown.tab.url) == f"{centre.address}{path}"

    if page in NEWS:
        hostile.stir(centre.full, centre.log_file)
        shown.take_news()
        is_unharmed(shown)


def is_unharmed(shown: Shown) -> None:
    """With all that folds out of it."""
    tab = shown.tab
    tab.evaluate("for (const each of document.querySelectorAll('details:not(.menu)')) each.open = true")
    expect(tab.locator("h1").first).to_be_visible()
    wide: list[str] = []
    for width in (1280, 375):
        tab.set_viewport_size({"width": width, "height": 900})
        wide += tab.evaluate("tooWide()") if shown.page.is_ours else []

    assert wide == []
    if shown.page.is_ours:  # what turns the direction of a text, or is not seen at all, is written out
        text = tab.evaluate("document.body.innerText")
        assert sorted({hex(ord(each)) for each in text if each in FORBIDDEN}) == []
    assert tab.evaluate(f"typeof window.{hostile.CANARY}") == "undefined"
    assert shown.troubles() == []
    assert len(tab.content()) < 2_000_000
