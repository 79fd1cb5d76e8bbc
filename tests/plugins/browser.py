"""A real browser for the tests marked `browser`."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="Take the pictures of docs/screenshots anew.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives a real browser; skipped where none can be had.")


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """The system's Chromium, or Playwright's own."""
    from playwright.sync_api import Error, sync_playwright

    path = next(filter(None, map(shutil.which, SYSTEM_BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        except Error as error:
            reason = f"No browser can be had: {str(error).splitlines()[0]} Install Debian's chromium package."
            if os.environ.get("REQUIRE_BROWSER", "0") not in {"", "0"}:
                pytest.fail(reason)
            pytest.skip(reason)
        yield browser
        browser.close()
