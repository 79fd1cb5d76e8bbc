"""WATCH: the lines of a run on its page."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from tasks_app.clock import database_now
from tasks_app.models import RunLog, Status, TaskRun
from tasks_app.run_log import LONGEST, SHOWN
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_run_page import HTMX, poll_of

LINE = re.compile(r'<li id="line-(\d+)">.*?<span class="lvl ([a-z]+)">.*?</span><span>(.*?)</span></li>', re.DOTALL)


def write(run: TaskRun, *texts: str, level: int = RunLog.Level.INFO, attempt: int = 1) -> list[RunLog]:
    now = database_now()
    return RunLog.objects.bulk_create(
        RunLog(run=run, attempt=attempt, at=now + timedelta(milliseconds=number), level=level, text=text)
        for number, text in enumerate(texts)
    )


def get(client: Client, address: str, **options: Any) -> str:
    response = client.get(address, **options)
    assert response.status_code == 200
    return response.content.decode()


def texts(page: str) -> list[str]:
    return [text for _, _, text in LINE.findall(page)]


def page_of(client: Client, run: TaskRun, query: str = "") -> str:
    return get(client, f"/runs/{run.pk}/{query}")


def test_lines_stand_in_their_order_with_time_and_level(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "first", "second")
    write(shown, "careful", level=RunLog.Level.WARNING)

    page = page_of(client, shown)

    assert [(level, text) for _, level, text in LINE.findall(page)] == [
        ("info", "first"),
        ("info", "second"),
        ("warning", "careful"),
    ]
    assert "Following." in page


def test_only_new_lines_travel(client: Client, run: RunFactory, still: None) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "old")
    address = poll_of(page_of(client, shown))
    assert client.get(address, headers=HTMX).status_code == 204

    write(shown, "new")
    answer = get(client, address, headers=HTMX)

    assert texts(answer) == ["new"]
    assert '<ol hx-swap-oob="beforeend:#run-log-lines">' in answer
    address = poll_of(answer)
    assert client.get(address, headers=HTMX).status_code == 204


def test_the_last_lines_come_with_the_end(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown))

    write(shown, "last words")
    TaskRun.objects.update(status=Status.SUCCESSFUL, finished_at=database_now())
    answer = get(client, address, headers=HTMX)

    assert texts(answer) == ["last words"]
    assert "data-poll" not in answer


def test_very_many_new_lines_come_one_part_after_the_other(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown))
    write(shown, *(f"line {number}" for number in range(SHOWN + 200)))
    TaskRun.objects.update(status=Status.SUCCESSFUL, finished_at=database_now())

    one = get(client, address, headers=HTMX)
    other = get(client, poll_of(one), headers=HTMX)

    assert texts(one) + texts(other) == [f"line {number}" for number in range(SHOWN + 200)]
    assert "data-poll" not in other


def test_of_a_long_log_the_newest_come_and_the_earlier_can_be_had(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["failed"])
    write(shown, *(f"line {number}" for number in range(2 * SHOWN + 3)))

    page = page_of(client, shown)
    read = texts(page)
    while earlier := re.search(r'<a href="(\?[^"]*before=\d+)#run-log">Earlier lines', page):
        page = page_of(client, shown, earlier[1].replace("&amp;", "&"))
        assert len(texts(page)) <= SHOWN
        read = texts(page) + read

    assert read == [f"line {number}" for number in range(2 * SHOWN + 3)]
    assert "Back to the newest lines" in page


def test_levels_and_words_choose_lines(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "Reading page 1", "reading page 2")
    write(shown, "page 2 is empty", level=RunLog.Level.WARNING)

    assert texts(page_of(client, shown, "?level=warning")) == ["page 2 is empty"]
    assert texts(page_of(client, shown, "?q=READING")) == ["Reading page 1", "reading page 2"]
    assert texts(page_of(client, shown, "?q=page+2&level=info")) == ["reading page 2", "page 2 is empty"]


def test_what_does_not_match_does_not_come_later_either(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown, "?level=warning"))

    write(shown, "chatter")
    write(shown, "trouble", level=RunLog.Level.ERROR)

    assert texts(get(client, address, headers=HTMX)) == ["trouble"]


@pytest.mark.parametrize(
    "query", ["level=loud", "before=x", "before=-1", f"before={'9' * 400}", "q=%00", f"q={'a' * 200_000}", "after=1e9"]
)
def test_bad_input_does_no_harm(client: Client, run: RunFactory, query: str) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "a line")

    page_of(client, shown, f"?{query}")
    get(client, f"/runs/{shown.pk}/?{query}&seen=x", headers=HTMX)


def test_a_line_of_another_run_is_not_there(client: Client, run: RunFactory) -> None:
    write(run(), "theirs")

    assert texts(page_of(client, run())) == []


def test_attempts_are_told_apart(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "one")
    write(shown, "two", attempt=2)

    assert page_of(client, shown).count('<li class="log__turn">Attempt 2</li>') == 1


def test_what_cannot_be_seen_is_shown_and_a_huge_line_is_cut(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, "\x1b[2J\u202egnp.exe\x07<script>", "x" * 5000)

    page = page_of(client, shown)

    first, second = texts(page)
    assert first == "␛[2J[202e]gnp.exe␇&lt;script&gt;"
    assert second.startswith("x" * LONGEST + "<")
    assert "the rest of the line is in the download" in page


def test_all_of_it_is_downloaded_as_text_that_no_terminal_obeys(client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["running"])
    write(shown, *(f"line {number}" for number in range(2_100)))
    write(shown, "it went wrong\nTraceback\x1b[2J", level=RunLog.Level.ERROR, attempt=2)

    response = client.get(f"/runs/{shown.pk}/log.txt")
    lines = b"".join(response).decode().splitlines()

    assert response["Content-Disposition"] == f'attachment; filename="{shown.short_id}-log.txt"'
    assert len(lines) == 2_102
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO 1 line 0", lines[0])
    assert lines[-2].endswith("Z ERROR 2 it went wrong")
    assert lines[-1] == r"  | Traceback\x1b[2J"


def test_a_foreign_log_is_not_there(client: Client, run: RunFactory, tobias: Any) -> None:
    for pk in (run(owner=tobias).pk, uuid.uuid4()):
        assert client.get(f"/runs/{pk}/log.txt").status_code == 404
