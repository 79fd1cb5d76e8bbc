"""The README leads to each of its parts, by the words that they have."""

import re

from config.local import BASE_DIR


def test_the_contents_name_each_part() -> None:
    text = (BASE_DIR / "README.md").read_text()
    head, *parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[::2]]

    assert re.findall(r"\]\(#([^)]+)\)", head) == anchors
