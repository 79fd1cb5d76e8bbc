"""Promises about every page and template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from config.local import BASE_DIR
from tasks_app import wording
from tests.pages.conftest import SITUATIONS, RunFactory

TEMPLATES = sorted((BASE_DIR / "templates").rglob("*.html"))
STYLES = [BASE_DIR / "static" / name for name in ("tokens.css", "app.css", "admin.css")]
ICONS = set(re.findall(r'<symbol id="([\w-]+)"', (BASE_DIR / "static" / "icons.svg").read_text()))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(BASE_DIR / "templates")))
@pytest.mark.parametrize(
    "forbidden",
    [
        r"<style",
        r"\sstyle\s*=",
        r"<script(?![^>]*\ssrc=)",
        r"\son[a-z]+\s*=",
        r"hx-on",
        r"javascript:",
        r"hx-vals\s*=\s*['\"]js:",
        r"hx-trigger\s*=\s*\"[^\"]*\[",
        r"https?://",
        r"\|\s*safe\b",
        r"autoescape off",
    ],
)
def test_no_template_needs_what_the_policy_forbids(template: Path, forbidden: str) -> None:
    assert not re.search(forbidden, template.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(BASE_DIR / "templates")))
def test_a_template_is_short(template: Path) -> None:
    assert len(template.read_text().splitlines()) <= 60


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(BASE_DIR / "templates")))
def test_every_icon_is_drawn(template: Path) -> None:
    assert set(re.findall(r'{% icon "([\w-]+)"', template.read_text())) <= ICONS


def test_every_state_has_its_icon_and_its_cell() -> None:
    assert set(SITUATIONS) <= ICONS
    assert {path.stem.strip("_") for path in (BASE_DIR / "templates/runs/out").iterdir()} == set(SITUATIONS)


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_styles_and_script_fetch_nothing(path: Path) -> None:
    assert not re.search(r"url\(|@import|https?://", path.read_text())


def test_the_script_writes_no_markup() -> None:
    assert not re.search(r"innerHTML|insertAdjacentHTML|eval\(|https?://", (BASE_DIR / "static/app.js").read_text())


HTMX = {"HX-Request": "true"}
ASKED: tuple[tuple[dict[str, str], dict[str, str]], ...] = (({}, {}), (HTMX, {"seen": ""}))


def every_page(client: Client, run: RunFactory) -> list[str]:
    runs = [run(**fields) for fields in SITUATIONS.values()]
    addresses = ["/", "/nothing/here/", "/?seen=", *(found.get_absolute_url() for found in runs)]
    return [client.get(address, headers=HTMX if "seen" in address else {}).content.decode() for address in addresses]


def test_pages_reference_no_other_host(client: Client, run: RunFactory) -> None:
    for page in [*every_page(client, run), Client().get("/login/").content.decode()]:
        assert not re.search(r"""(?:src|href|action|hx-get|hx-post)\s*=\s*["'](?:[a-z]+:|//)""", page)


def test_ids_are_unique(client: Client, run: RunFactory) -> None:
    for page in every_page(client, run):
        ids = re.findall(r'\sid="([^"]*)"', page)
        assert len(ids) == len(set(ids))


def test_every_answer_carries_the_policy(client: Client, run: RunFactory) -> None:
    for address in ("/", "/nothing/here/", run().get_absolute_url(), "/login/", "/?seen="):
        policy = client.get(address)["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("part", ["runs", "health", "lately"])
def test_the_part_of_the_answer_is_that_of_the_page(client: Client, run: RunFactory, part: str) -> None:
    """Byte for byte, apart from the attribute that says where it goes, what is asked next, and the ticking of times."""
    for state in SITUATIONS.keys() - {"running"}:  # whose expected end is another at each look
        run(**SITUATIONS[state])

    def drawn(page: str) -> str:
        begin = page.index(f'id="{part}"')
        text = page[begin : page.index("\n</div>", begin)]
        text = re.sub(r' hx-swap-oob="morph"| hx-get="[^"]*"| data-now="[^"]*"', "", text)
        return re.sub(r"(?<=>)\d+ (?:s|min)(?: \d+ s)?(?: ago)?(?=<)", "", text)

    page, answer = (client.get("/", headers=headers, data=data).content.decode() for headers, data in ASKED)
    assert drawn(page) == drawn(answer)


# The theme


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_theme_is_remembered(client: Client, theme: str) -> None:
    response = client.post("/theme/", {"theme": theme}, headers={"Referer": "http://testserver/runs/"})

    assert (response.status_code, response["Location"]) == (302, "http://testserver/runs/")
    page = client.get("/").content.decode()
    assert f'<html lang="en" data-theme="{theme}">' in page
    assert f'value="{theme}" aria-pressed="true"' in page


def test_the_systems_theme_comes_back(client: Client) -> None:
    client.post("/theme/", {"theme": "dark"})
    client.post("/theme/", {"theme": "system"})

    assert '<html lang="en">' in client.get("/").content.decode()


def test_another_theme_is_refused_and_a_forged_one_ignored(client: Client) -> None:
    assert client.post("/theme/", {"theme": '"><script>'}).status_code == 400
    client.cookies["theme"] = "pink"
    assert '<html lang="en">' in client.get("/").content.decode()


def test_a_theme_leads_to_no_other_site(client: Client) -> None:
    response = client.post("/theme/", {"theme": "dark"}, headers={"Referer": "https://elsewhere.example/"})

    assert response["Location"] == "/"


# Who is here


def test_the_page_of_the_keys_lists_each_that_there_is(client: Client, operators_client: Client) -> None:
    script = (BASE_DIR / "static" / "app.js").read_text().partition("const keys = {")[2].partition("};")[0]
    alone = set(re.findall(r'^    "?(.)"?: \(\) =>', script, re.MULTILINE))
    assert {"/", "?", "j"} <= alone

    for browser, letters in ((client, "hro"), (operators_client, "hrfqwctnola")):
        text = browser.get("/keys/").content.decode()
        listed = dict(re.findall(r"<dt><kbd>g</kbd> <kbd>(\w)</kbd></dt><dd>([^<]+)</dd>", text))
        links = dict(re.findall(r'data-key="(\w)">([^<]+)</a>', text))

        assert set(links) == set(letters)
        assert listed == links
        assert text.count("data-key=") == len(links) + 1  # the one that leads here
        assert alone <= set(re.findall(r"<kbd>([^<])</kbd>", text.partition("<dl")[2]))


def test_the_navigation_shows_what_there_is_for_whom(client: Client, operators_client: Client) -> None:
    assert "/admin/" not in client.get("/").content.decode()
    assert 'href="/admin/"' in operators_client.get("/").content.decode()


def test_the_login_page_says_what_was_wrong(db: None) -> None:
    page = Client().post("/login/", {"username": "<b>mara", "password": "wrong"}).content.decode()

    assert 'id="login-error"' in page
    assert 'value="&lt;b&gt;mara"' in page


def test_one_logs_out_with_a_button(client: Client) -> None:
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/").status_code == 302


@pytest.mark.parametrize("name", ["400.html", "403_csrf.html", "404.html", "500.html", "503.html"])
def test_error_pages_need_neither_request_nor_database(name: str) -> None:
    from django.template.loader import render_to_string

    assert "<h1>" in render_to_string(name)


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.038, "38 ms"),
        (0.9, "0.9 s"),
        (10, "10.0 s"),
        (59.96, "1 min 0 s"),
        (151, "2 min 31 s"),
        (3900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
        (-5, "0 ms"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (wording.ago(0.4), "just now"),
        (wording.ago(260), "4 min ago"),
        (wording.limit(900), "15 min"),
        (wording.limit(90), "90 s"),
        (wording.limit(0.5), "0.5 s"),
        (wording.count(1284), "1\u00a0284"),
        (wording.count(10_001, 10_000), "10\u00a0000+"),
        (wording.size(412_000), "412 kB"),
        (wording.size(3_400_000), "3.4 MB"),
        (wording.size(999_900), "1.0 MB"),
        (wording.size(7), "7 bytes"),
        (wording.ordinal(1), "1st"),
        (wording.ordinal(12), "12th"),
        (wording.ordinal(23), "23rd"),
        (wording.sentence("It failed"), "It failed."),
        (wording.sentence("It failed!"), "It failed!"),
        (wording.arguments_line([77, "a  b"], {"type": 3, "deep": {"x": None}}), '77 a b type=3 deep={"x": null}'),
    ],
)
def test_figures_and_values(said: str, words: str) -> None:
    assert said == words


def test_a_long_line_of_arguments_is_clipped() -> None:
    line: Any = wording.arguments_line([], {"text": "x" * 1000})

    assert (len(line), line[-1]) == (160, "…")
