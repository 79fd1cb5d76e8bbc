"""A person makes a schedule, runs it and watches; and follows a workflow to its end, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from django_q.models import Schedule
from playwright.sync_api import Route, expect

from tasks_app.models import TaskRun
from tasks_app.workflows import PREVIOUS, chain, group
from tests.browser.conftest import OpenPage
from tests.flows import adds, passes_gate
from tests.plugins.processes import ClusterFactory, WebFactory
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHORT = {"OPEN_ACCESS": 1, "PRACTICE_UNIT_SECONDS": 1}


def test_a_schedule_is_made_run_paused_and_deleted(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage
) -> None:
    qcluster(**SHORT)
    watched = open_page(web(**SHORT))
    page = watched.page
    page.get_by_role("link", name="Schedules").first.click()
    page.get_by_role("link", name="Make the first one").click()
    page.get_by_role("link", name="create_task").click()

    page.get_by_label("Name").fill("nightly")
    page.get_by_label("How often").select_option("C")
    expect(page.get_by_label("Next run")).to_be_hidden()
    page.get_by_label("Cron").fill("61 * * * *")
    expect(page.locator("#preview")).to_contain_text("cannot be read")
    page.get_by_label("Cron").fill("30 2 * * *")
    expect(page.locator("#preview")).to_contain_text("At 02:30 every day")
    expect(page.locator("#preview li")).to_have_count(5)
    page.locator("[name='arg-type']").fill("1")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.locator("#title")).to_contain_text("nightly")
    assert Schedule.objects.get().cron == "30 2 * * *"

    page.get_by_role("button", name="Run now").click()
    expect(page.locator(".outcomes a")).to_have_count(1)
    expect(page.locator(".outcomes .status--successful")).to_have_count(1)
    assert TaskRun.objects.get().schedule_name == "nightly"

    page.locator("summary", has_text="Pause").click()
    page.get_by_label("For how long").select_option("60")
    page.get_by_label("Why").fill("Out of paper.")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#schedule .status--pill")).to_contain_text("Paused")
    page.get_by_role("link", name="Schedules").first.click()
    expect(page.locator("#schedules")).to_contain_text("Out of paper.")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#schedules")).to_contain_text("Active")

    page.get_by_label("More for nightly").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#bulk-why")).to_contain_text("Nothing has been changed yet.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#bulk-told")).to_have_text("Undone. Nothing was changed.")
    page.get_by_role("link", name="Back to the schedules").click()
    page.get_by_label("More for nightly").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#bulk-told")).to_have_text("The schedule nightly is deleted. Its runs stay.", timeout=30_000)
    page.get_by_role("link", name="Back to the schedules").click()
    expect(page.get_by_text("No schedule yet")).to_be_visible()
    assert watched.trouble == []


def test_the_preview_follows_whoever_types_faster_than_it_is_answered(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT))
    page = watched.page
    page.goto(f"{watched.address}/schedules/new/?task=tasks_app.tasks.practice.create_task")
    held: list[Route] = []
    page.route("**/schedules/preview/**", lambda route: held.append(route), times=1)
    with page.expect_request("**/schedules/preview/**"):
        page.get_by_label("How often").select_option("H")
    page.get_by_label("How often").select_option("W")
    page.get_by_label("How often").select_option("O")
    held[0].continue_()

    expect(page.locator("#preview")).to_contain_text("Once, on")
    page.get_by_label("Next run").fill("2020-01-01T00:00:00")
    expect(page.locator("#preview")).to_contain_text("it fires as soon as it is saved")
    page.locator("summary", has_text="Missed and overlapping").click()
    page.get_by_label("If missed").select_option("skip")
    expect(page.locator("#preview")).to_contain_text("it will never fire")
    assert watched.trouble == []


def test_the_form_works_without_a_script(web: WebFactory, open_page: OpenPage) -> None:
    watched = open_page(web(**SHORT), java_script_enabled=False)
    page = watched.page
    page.get_by_role("link", name="Schedules").first.click()
    page.get_by_role("link", name="New schedule").click()
    page.get_by_role("link", name="create_task").click()
    page.get_by_label("How often").select_option("H")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("Every hour")
    page.locator("[name='arg-type']").fill("2")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("Every hour")
    assert not Schedule.objects.exists()
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.get_by_text("is saved.")).to_be_visible()
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_text("has a run now.")).to_be_visible()
    assert watched.trouble == []


def test_a_workflow_is_followed_to_its_end(
    web: WebFactory, qcluster: ClusterFactory, open_page: OpenPage, tmp_path: Path
) -> None:
    qcluster()
    gate = tmp_path / "gate"
    flow = chain(adds.step(1), group(adds.step(PREVIOUS, n) for n in range(12)), passes_gate.step(str(gate), PREVIOUS))
    flow.enqueue(name="album")
    watched = open_page(web(OPEN_ACCESS=1))
    page = watched.page
    page.locator("summary", has_text="More").click()
    page.get_by_role("link", name="Workflows").click()
    page.get_by_role("link", name="album").click()

    expect(page.locator("#why")).to_contain_text("Step 14 (passes_gate) is running.")
    expect(page.locator("#workflow")).to_contain_text("13 of 14 steps ended")
    page.locator("#members-1-1-12 summary").click()
    expect(page.locator("#members-1-1-12 .status--successful >> visible=true")).to_have_count(13)
    gate.touch()

    expect(page.locator("#title .status--successful")).to_be_visible()
    expect(page.locator("#workflow")).to_contain_text("14 of 14 steps ended")
    expect(page.locator("#members-1-1-12")).to_have_attribute("open", "")
    expect(page.locator("#workflow-said")).to_contain_text("album ended: Successful")
    wait_until(lambda: TaskRun.objects.successful().count() == 14, what="its runs")
    assert watched.trouble == []
