"""`make screenshots`: every page with everything in it, in both themes and as wide as a phone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from config.local import BASE_DIR
from tests.centre.conftest import Centre, OpenCentre
from tests.centre.pages import OURS, Page

pytestmark = pytest.mark.browser

FOLDER = BASE_DIR / "docs" / "screenshots"
MOST_BYTES = 150_000
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True, "has_touch": True},
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("page", OURS, ids=str)
def test_a_picture_of_each_page_is_taken(visit: OpenCentre, centre: Centre, page: Page, look: str) -> None:
    watched = visit(page, reduced_motion="reduce", **LOOKS[look])
    expect(watched.page.locator("h1").first).to_be_visible()
    watched.page.wait_for_load_state("networkidle")
    suffix = "" if look == "light" else f"-{look}"

    keep(watched.page.screenshot(), FOLDER / f"{page.name}{suffix}.png")


def keep(picture: bytes, path: Path) -> None:
    """In as few colours as it takes to be small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    pytest.fail(f"{path.name} has {path.stat().st_size} bytes.")
