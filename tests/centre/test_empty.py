"""What pages say where nothing was ever sent: to nobody's exclusion either."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from tests.centre.conftest import Filler, Shown
from tests.centre.full import Full
from tests.centre.looks import barriers
from tests.centre.pages import LIVE

pytestmark = pytest.mark.browser

EMPTY = [page for page in LIVE if "{" not in page.address]


@pytest.fixture(scope="module")
def filler() -> Filler:
    """Somebody who has done nothing yet."""

    def fill(log_file: Path) -> Full:
        return Full(User.objects.create_superuser("mara"))

    return fill


@pytest.mark.parametrize("shown", EMPTY, indirect=True, scope="module", ids=str)
def test_a_page_without_anything_keeps_nobody_out(shown: Shown) -> None:
    expect(shown.tab.locator("h1").first).to_be_visible()
    assert shown.tab.locator("main tbody .task").count() == 0
    found = shown.troubles()

    assert found + barriers(shown) == []
