"""The buttons of a run's page stand in one line on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.centre.conftest import Centre, OpenCentre, troubles

pytestmark = pytest.mark.browser

LINES = """
() => new Set([...document.querySelectorAll("#run-actions > *")].map((each) => {
  const { top, height } = each.getBoundingClientRect();
  return Math.round(top + height / 2);
})).size
"""


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("running", ["Cancel", "Run again…"]),
        ("failed", ["Retry", "Run again…"]),
        ("successful", ["Run again", "With changes…"]),
    ],
)
def test_they_fit_on_a_phone(visit: OpenCentre, centre: Centre, run: str, told: list[str]) -> None:
    watched = visit(centre.full.path(f"/runs/{{{run}}}/"), viewport={"width": 360, "height": 780})
    page = watched.page
    actions = page.locator("#run-actions")

    for name in told:
        expect(actions.locator(":is(a, button, summary):visible", has_text=name).first).to_be_visible()
    expect(actions.locator("#run-more summary")).to_be_visible()
    assert page.evaluate(LINES) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert troubles(watched) == []
