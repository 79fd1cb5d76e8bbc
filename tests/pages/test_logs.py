"""WATCH: the end of the log file."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import log_file

pytestmark = pytest.mark.django_db


@pytest.fixture
def log(settings: Any, tmp_path: Path) -> Path:
    settings.LOG_FILE = tmp_path / "qcluster.log"
    return tmp_path / "qcluster.log"


def record(number: int, level: str = "INFO", text: str = "run finished") -> str:
    return f"2026-03-12T14:31:{number % 60:02d}.118Z {level} 4711 {text} {number}\n"


def lines(client: Client, query: str = "") -> list[str]:
    response = client.get(f"/logs/{query}")
    assert response.status_code == 200
    found = re.findall(r'<li id="line-\d+">.*?<span>(.*?)</span></li>', response.content.decode(), re.DOTALL)
    return [html.unescape(line) for line in found]


def test_the_newest_lines_are_shown_first(operators_client: Client, log: Path) -> None:
    log.write_text("".join(record(number) for number in range(300)))

    assert lines(operators_client) == [f"run finished {number}" for number in range(299, 249, -1)]
    assert len(lines(operators_client, "?size=200")) == 200


@pytest.mark.parametrize("block", [7, 64, 1_000, 64 * 1024])
def test_a_file_is_read_backwards_in_blocks_of_any_size(log: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(log_file, "BLOCK", block)
    texts = [f"é{'x' * (number % 90)}" for number in range(200)]
    log.write_text("".join(record(number, text=text) for number, text in enumerate(texts)))

    found = log_file.tail(log, 1_000)

    assert found
    assert found.is_searched_whole
    assert [line.text for line in found.lines[::-1]] == [f"{text} {number}" for number, text in enumerate(texts)]
    raw = log.read_bytes()
    assert all(raw[line.offset :].startswith(b"2026-03-12T") for line in found.lines)
    assert len({line.offset for line in found.lines}) == 200


def test_a_traceback_belongs_to_its_line(operators_client: Client, log: Path) -> None:
    log.write_text(record(1) + record(2, "ERROR", "it broke") + "  | Traceback\n  | ValueError: no\n" + record(3))

    assert lines(operators_client)[1] == "it broke 2\n  | Traceback\n  | ValueError: no"
    assert lines(operators_client, "?q=valueerror") == ["it broke 2\n  | Traceback\n  | ValueError: no"]


def test_times_are_those_of_the_viewers_clock_and_a_day_is_told_once(operators_client: Client, log: Path) -> None:
    log.write_text(record(1) + "2026-03-12T23:30:00.000Z INFO 4711 late\n2026-13-45T99:99:99.000Z INFO 4711 odd\n")
    operators_client.cookies["time_zone"] = "Europe/Berlin"
    page = operators_client.get("/logs/").content.decode()

    assert re.findall(r'class="log__turn">([^<]*)<', page) == ["13 March 2026", "12 March 2026"]
    assert 'title="13 March 2026, 00:30:00 CET">00:30:00.000</time>' in page
    assert len(lines(operators_client)) == 3


def test_the_id_of_a_run_leads_to_its_page(operators_client: Client, log: Path) -> None:
    run = "0190f3c8-7b1e-7cc3-98c4-dc0c0c07398f"
    log.write_text(
        record(1, text=f"run {run} finished, not <b>{run}</b>\u202e") + record(2, text="run 0190f3c8 is short")
    )
    page = operators_client.get("/logs/").content.decode()

    assert page.count(f'<a href="/runs/{run}/">{run}</a> finished, not &lt;b&gt;{run}&lt;/b&gt;[202e]') == 1
    assert page.count('href="/runs/0190f3c8') == 1


def test_more_lines_are_a_link_that_keeps_the_filters(operators_client: Client, log: Path) -> None:
    log.write_text("".join(record(number) for number in range(300)))
    page = html.unescape(operators_client.get("/logs/?q=run&level=INFO").content.decode())

    assert 'href="?q=run&level=INFO&size=200"' in page
    assert "50 lines, the newest that match" in page


def test_a_line_that_is_still_being_written_is_not_shown(log: Path) -> None:
    log.write_text(record(1) + "2026-03-12T14:31:52.118Z INFO 4711 half of")

    found = log_file.tail(log, 10)
    assert found
    assert [line.text for line in found.lines] == ["run finished 1"]


def test_a_level_means_that_and_worse(operators_client: Client, log: Path) -> None:
    log.write_text(record(1) + record(2, "WARNING") + record(3, "ERROR") + record(4, "DEBUG"))

    assert lines(operators_client, "?level=WARNING") == ["run finished 3", "run finished 2"]
    assert len(lines(operators_client, "?level=nonsense")) == 4


def test_only_the_end_of_a_huge_file_is_searched(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MOST_READ", 10_000)
    log.write_text(record(7, text="needle") + "".join(record(number) for number in range(1_000)))

    found = log_file.tail(log, 10, "needle")
    assert found
    assert (found.lines, found.is_searched_whole) == ([], False)


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "<script>alert(1)</script>", "\x1b[31mred", "\u202egnp", "\x00", "\ud800"]
)
def test_a_hostile_line_is_text(operators_client: Client, log: Path, text: str) -> None:
    log.write_bytes((record(1) + record(2, text=text) + record(3)).encode("utf-8", "surrogatepass"))

    response = operators_client.get("/logs/")
    page = response.content.decode()

    assert len(lines(operators_client)) == 3
    assert len(page) < 50_000
    for never in ("<script>alert", "\x1b", "\u202e", "\x00"):
        assert never not in page


@pytest.mark.parametrize("query", ["?q=%00", "?q=" + "x" * 100_000, "?size=10000000000", "?level=%00"])
def test_a_bad_query_is_answered_with_a_page(operators_client: Client, log: Path, query: str) -> None:
    log.write_text(record(1))
    assert operators_client.get(f"/logs/{query}").status_code == 200


def test_without_a_file_it_says_so(operators_client: Client, log: Path) -> None:
    assert "No log on this host" in operators_client.get("/logs/").content.decode()
    log.write_text("")
    assert "Nothing is written yet" in operators_client.get("/logs/").content.decode()
    assert "No line of the file has that in it." in operators_client.get("/logs/?q=x").content.decode()


def test_a_poll_without_news_asks_the_database_nothing(
    operators_client: Client, log: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    log.write_text(record(1))
    found = re.search(r'data-poll hx-get="([^"]+)"', operators_client.get("/logs/").content.decode())
    assert found
    poll = html.unescape(found[1])

    with django_assert_num_queries(0):
        assert operators_client.get(poll, headers={"HX-Request": "true"}).status_code == 204
    log.write_text(record(1) + record(2))
    assert operators_client.get(poll, headers={"HX-Request": "true"}).status_code == 200


def test_who_is_no_operator_finds_nothing(client: Client, log: Path) -> None:
    assert client.get("/logs/").status_code == 404
