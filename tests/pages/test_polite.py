"""What is read out to those who listen to a page waits for its turn; only what they did themselves may interrupt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.local import BASE_DIR

TEMPLATES = sorted((BASE_DIR / "templates").rglob("*.html"))
CODE = [BASE_DIR / "static" / "app.js", *sorted((BASE_DIR / "tasks_app").rglob("*.py"))]
each_template = pytest.mark.parametrize(
    "template", TEMPLATES, ids=lambda path: str(path.relative_to(BASE_DIR / "templates"))
)


@each_template
def test_nothing_is_read_out_at_once(template: Path) -> None:
    assert set(re.findall(r'aria-live\s*=\s*"?([^"\s>]*)', template.read_text())) <= {"polite", "off"}


@each_template
def test_an_alert_tells_what_is_wrong_with_a_form_or_what_failed(template: Path) -> None:
    """These lines are in a form, and empty until it was sent."""
    for tag in re.findall(r"<[^<>]*\balert\b[^<>]*>", template.read_text()):
        assert re.match(r'<p class="field__error"[^>]* role="alert">', tag), tag


@each_template
def test_a_part_that_is_made_anew_is_not_read_out_as_a_whole(template: Path) -> None:
    for tag in re.findall(r"<[^<>]*\bdata-poll\b[^<>]*>", template.read_text()):
        assert not re.search(r"aria-live|role=", tag), tag


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_no_code_interrupts_either(path: Path) -> None:
    assert not re.search(r"assertive|role=.alert|ariaLive|alertdialog", re.sub(r"\[role=alert\]", "", path.read_text()))
