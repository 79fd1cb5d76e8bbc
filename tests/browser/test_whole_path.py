"""From the button to the history, with a real browser, web server, worker and database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now
from playwright.sync_api import expect

from tasks_app.models import Status, TaskRun
from tests.browser.conftest import OpenPage, Watched
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.tasks.pictures import encoded, noise, photo
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHORT = {"OPEN_ACCESS": 1, "PRACTICE_UNIT_SECONDS": 2}


def button(watched: Watched, name: str) -> Any:
    return watched.page.locator("#practice").get_by_role("button", name=name)


def progress(watched: Watched) -> int | None:
    """What the bar of the first row says; None when there is none."""
    return watched.page.evaluate("document.querySelector('#runs-rows progress')?.value ?? null")


def stays_quiet(watched: Watched, seconds: float = 3) -> bool:
    """Whether no poll is sent for so long."""
    before = watched.polls
    watched.page.wait_for_timeout(seconds * 1000)
    return watched.polls == before


def test_a_click_adds_one_row_that_lives_until_its_end(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=6)
    watched = open_page(web(OPEN_ACCESS=1, PRACTICE_UNIT_SECONDS=6))
    expect(watched.rows).to_have_count(0)
    expect(watched.page.get_by_text("Nothing sent down yet")).to_be_visible()

    button(watched, "Short").click()

    expect(watched.rows).to_have_count(1)
    expect(watched.page.get_by_text("Nothing sent down yet")).to_be_hidden()
    told: list[int] = []

    def moves() -> bool:
        watched.page.wait_for_timeout(50)
        if (now := progress(watched)) is not None:
            told.append(now)
        return len(set(told)) >= 2

    wait_until(moves, what="a bar that moves")
    assert told == sorted(told)
    expect(watched.rows.first).to_contain_text("Successful")
    expect(watched.rows.first).to_contain_text("true")
    expect(watched.page.locator("#said")).to_contain_text("finished: Successful")
    expect(watched.rows).to_have_count(1)
    watched.wait_until_no_news()
    assert TaskRun.objects.get().status == Status.SUCCESSFUL

    watched.page.reload()
    expect(watched.rows).to_have_count(1)
    assert watched.trouble == []


def test_a_double_click_is_one_order(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT))

    button(watched, "Medium").dblclick()
    expect(watched.rows).to_have_count(1)
    watched.page.wait_for_timeout(1500)

    expect(watched.rows).to_have_count(1)
    assert TaskRun.objects.count() == 1
    assert watched.trouble == []


def test_many_clicks_are_as_many_rows_and_the_oldest_fall_off(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT))

    for _ in range(23):
        button(watched, "Short").click()
        expect(watched.page.locator("form.htmx-request")).to_have_count(0)

    assert TaskRun.objects.count() == 23
    newest = [f"run-{run.short_id}" for run in TaskRun.objects.newest()[:20]]
    shown = "[...document.querySelectorAll('#runs-rows > tr')].map(row => row.id)"
    wait_until(lambda: watched.page.evaluate(shown) == newest, what="the 20 newest rows")
    assert watched.trouble == []


def test_an_answer_from_before_a_click_does_not_take_its_row_away(web: WebFactory, open_page: OpenPage) -> None:
    """As a poll brings it that was on its way for longer than the answer to the click."""
    watched = open_page(web(**SHORT))
    page = watched.page
    held: list[Any] = []
    page.route("**/?seen=*", lambda route: held.append((route, route.fetch())))
    TaskRun.objects.create(task_path="a.news", enqueued_at=Now(), run_after=Now())

    def is_on_its_way() -> bool:
        page.wait_for_timeout(50)
        return bool(held)

    wait_until(is_on_its_way, what="a poll")
    button(watched, "Short").click()
    expect(watched.rows).to_have_count(2)
    rows = page.locator("#runs-rows").inner_html()
    route, answer = held[0]
    with page.expect_response("**/?seen=*"):
        route.fulfill(response=answer)
    page.wait_for_timeout(200)

    assert answer.status == 200
    assert page.locator("#runs-rows").inner_html().count("<tr") == rows.count("<tr") == 2
    page.unroute("**/?seen=*")
    watched.wait_until_no_news()
    expect(watched.rows).to_have_count(2)
    assert watched.trouble == []


def test_a_run_of_another_tab_appears(web: WebFactory, open_page: OpenPage) -> None:
    address = web(**SHORT)
    one, other = open_page(address), open_page(address)
    button(one, "Short").click()
    expect(one.rows).to_have_count(1)

    button(other, "Long").click()

    expect(one.rows).to_have_count(2)
    assert one.trouble == other.trouble == []


def test_a_photo_becomes_three_that_can_be_downloaded(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    qcluster()
    watched = open_page(web(**SHORT))
    page = watched.page
    source = tmp_path / "Harbour at dusk.jpg"
    source.write_bytes(encoded(photo(), "JPEG"))

    page.set_input_files("#image", source)
    page.get_by_role("button", name="Make three sizes").click()
    expect(watched.rows).to_have_count(1)
    page.get_by_role("link", name="3 images").click()

    expect(page.locator(".gallery img")).to_have_count(3)
    widths = "[...document.querySelectorAll('.gallery img')].map(image => image.naturalWidth)"
    wait_until(lambda: page.evaluate(widths) == [320, 800, 1600], what="three pictures")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download harbour-at-dusk-800.jpg").click()
    assert download.value.suggested_filename == "harbour-at-dusk-800.jpg"
    assert Path(download.value.path()).read_bytes().startswith(b"\xff\xd8")
    assert stays_quiet(watched, 2)
    assert watched.trouble == []


def test_a_bad_photo_is_told_in_a_sentence_and_others_go_on(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=0.5)
    watched = open_page(web(**SHORT))
    cut, junk = tmp_path / "cut.jpg", tmp_path / "<img src=x onerror=alert(1)>.pdf"
    cut.write_bytes(encoded(noise(), "JPEG")[:40_000])
    junk.write_bytes(b"%PDF")
    send = watched.page.get_by_role("button", name="Make three sizes")

    watched.page.set_input_files("#image", junk)
    send.click()
    expect(watched.page.locator("#image-error")).to_contain_text("is not an image that can be read here.")
    expect(watched.page.locator("#image-error img")).to_have_count(0)
    watched.page.set_input_files("#image", cut)
    send.click()

    expect(watched.page.locator("#image-error")).to_be_hidden()
    expect(watched.rows.first).to_contain_text("The picture ends early: part of the file is missing.")
    button(watched, "Short").click()
    expect(watched.rows.first).to_contain_text("Successful")
    assert [text for text in watched.trouble if "422" not in text] == []


def test_a_file_that_is_too_large_is_not_even_sent(web: WebFactory, open_page: OpenPage, tmp_path: Path) -> None:
    watched = open_page(web(**SHORT))
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(21 * 1024 * 1024)

    watched.page.set_input_files("#image", large)

    expect(watched.page.locator("#image-error")).to_have_text("That file is larger than 20 MB. Choose a smaller one.")
    watched.page.get_by_role("button", name="Make three sizes").click()
    watched.page.wait_for_timeout(300)
    assert not [url for url in watched.requests if "make_thumbnails" in url]
    assert watched.trouble == []


def test_the_page_of_a_run_refreshes_until_its_end_and_keeps_what_is_open(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=3)
    watched = open_page(web(OPEN_ACCESS=1, PRACTICE_UNIT_SECONDS=3))
    page = watched.page
    button(watched, "Short").click()
    page.locator("#runs-rows").get_by_role("link", name="create_task").click()

    expect(page.locator("#run-progress .big")).to_be_visible()
    page.locator("#copy-args").focus()
    expect(page.locator("#run-title .status--successful")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "copy-args"
    expect(page.locator("#run-said")).to_contain_text("finished: Successful")
    assert stays_quiet(watched)
    assert watched.trouble == []


def test_a_focused_link_stays_focused_through_a_refresh(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=2)
    watched = open_page(web(**SHORT))
    button(watched, "Short").click()
    link = watched.rows.first.get_by_role("link", name="create_task")
    link.focus()

    expect(watched.rows.first).to_contain_text("Successful")

    focused = watched.page.evaluate("document.activeElement.id")
    assert re.fullmatch(r"link-[0-9a-f]{8}", focused)
    assert watched.trouble == []


def test_without_javascript_the_buttons_are_forms(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=0.1)
    watched = open_page(web(**SHORT), java_script_enabled=False)
    source = tmp_path / "a.png"
    source.write_bytes(encoded(photo(), "PNG"))

    button(watched, "Short").click()
    expect(watched.rows).to_have_count(1)
    watched.page.set_input_files("#image", source)
    watched.page.get_by_role("button", name="Make three sizes").click()
    expect(watched.rows).to_have_count(2)
    wait_until(lambda: TaskRun.objects.successful().count() == 2)
    watched.page.reload()

    expect(watched.rows.first).to_contain_text("3 images")
    expect(watched.rows.last).to_contain_text("true")
    watched.page.get_by_text("Guest").click()
    watched.page.get_by_role("button", name="Dark").click()
    expect(watched.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert watched.trouble == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, scheme: str
) -> None:
    qcluster(PRACTICE_UNIT_SECONDS=0.5)
    phone = {"width": 390, "height": 844}
    watched = open_page(web(**SHORT), viewport=phone, color_scheme=scheme, is_mobile=True, has_touch=True)
    page = watched.page
    button(watched, "Short").tap()
    expect(watched.rows.first).to_contain_text("Successful")

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("link", name="create_task").tap()
    expect(page.locator("#run-title")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert watched.trouble == []


def test_a_silent_server_is_told_and_its_return_noticed(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT))
    page = watched.page
    button(watched, "Long").click()
    expect(watched.rows).to_have_count(1)

    page.route("**/?seen=*", lambda route: route.fulfill(status=503, body="no database"))
    expect(page.get_by_text("The database does not answer.")).to_be_visible()
    expect(page.locator("#stale-retry")).to_contain_text("Trying again in")
    expect(page.locator("#runs")).to_have_class(re.compile("is-stale"))
    expect(watched.rows).to_have_count(1)

    page.unroute("**/?seen=*")
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_text("The database does not answer.")).to_be_hidden()
    expect(page.locator("#runs")).not_to_have_class(re.compile("is-stale"))


def test_the_admin_works_under_the_policy(web: WebFactory, open_page: OpenPage, django_user_model: Any) -> None:
    django_user_model.objects.create_superuser("operator", password="operator")
    address = web(**SHORT)
    watched = open_page(address)
    page = watched.page
    button(watched, "Short").click()
    expect(watched.rows).to_have_count(1)

    page.goto(f"{address}/admin/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("operator")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name=TaskRun.objects.get().short_id).click()

    expect(page.get_by_text("tasks_app.tasks.practice.create_task")).to_be_visible()
    assert watched.trouble == []


def test_the_copy_button_copies_over_plain_http(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT))
    page = watched.page
    button(watched, "Short").click()
    page.get_by_role("link", name="create_task").click()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")

    page.get_by_role("button", name="Copy the id").click()

    expect(page.locator("#copy-id")).to_have_class(re.compile("is-copied"))
    page.goto(watched.address)
    page.locator("#image").evaluate("e => e.insertAdjacentHTML('afterend', '<textarea id=paste></textarea>')")
    page.locator("#paste").press("Control+V")
    assert page.locator("#paste").input_value() == str(TaskRun.objects.get().pk)
