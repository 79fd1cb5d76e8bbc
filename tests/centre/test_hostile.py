"""WATCH: texts that mean harm go through every field, and every page with them in it is as it should be."""

from __future__ import annotations

import pytest
from playwright.sync_api import Dialog, expect

from tests import hostile
from tests.browser.conftest import Watched
from tests.centre.conftest import Centre, Filler, OpenCentre, troubles
from tests.centre.pages import PAGES, Page
from tests.centre.test_every_page import LOOKS, is_expected

pytestmark = pytest.mark.browser

FORBIDDEN = {*map(chr, (*range(9), *range(11, 13), *range(14, 32), *range(127, 160)))} | {
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
}

EXTREME = (Page("run-long", "/runs/{long}/"), Page("run-deep", "/runs/{deep}/"))


@pytest.fixture(scope="module")
def filler() -> Filler:
    return hostile.fill


def listen(watched: Watched) -> list[str]:
    """What it asks its reader from now on; nothing is answered."""
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    watched.page.on("dialog", note)
    return dialogs


@pytest.mark.parametrize("page", [*PAGES, *EXTREME], ids=str)
def test_no_text_runs_asks_or_breaks_anything(visit: OpenCentre, centre: Centre, page: Page) -> None:
    watched = visit("/login/" if page.is_open else "/keys/", is_open=page.is_open)
    dialogs = listen(watched)
    response = watched.page.goto(f"{centre.address}{page.path(centre.full)}")
    assert response
    assert "default-src 'none'" in response.headers["content-security-policy"]
    watched.page.evaluate("for (const each of document.querySelectorAll('details:not(.menu)')) each.open = true")
    expect(watched.page.locator("h1").first).to_be_visible()

    watched.page.evaluate(LOOKS)
    wide: list[str] = []
    for width in (1280, 375):
        watched.page.set_viewport_size({"width": width, "height": 900})
        wide += watched.page.evaluate("tooWide()") if page.is_ours else []

    assert wide == []
    if page.is_ours:  # what turns the direction of a text, or is not seen at all, is written out
        text = watched.page.evaluate("document.body.innerText")
        assert sorted({hex(ord(each)) for each in text if each in FORBIDDEN}) == []
    assert watched.page.evaluate(f"typeof window.{hostile.CANARY}") == "undefined"
    # Of a task that does not exist there is no form to run it again, only the page of the run, which says so.
    assert watched.page.url == f"{centre.address}{page.path(centre.full).removesuffix('again/')}"
    assert dialogs == []
    assert [each for each in troubles(watched) if not is_expected(page, each)] == []
    assert len(watched.page.content()) < 2_000_000
