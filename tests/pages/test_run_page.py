"""WATCH: the page of one run."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from tasks_app.clock import database_now
from tasks_app.life import Life, drawn, why
from tasks_app.models import Cluster, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory, attempt, begun

JPEG = {"name": "harbour-320.jpg", "width": 320, "height": 200, "bytes": 4, "content_type": "text/html"}


def page_of(client: Client, run: TaskRun) -> str:
    response = client.get(f"/runs/{run.pk}/")
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def with_files(run: RunFactory, *files: Any) -> TaskRun:
    """A successful run whose result lists these files, each of which exists."""
    made = run(**{**SITUATIONS["successful"], "return_value": {"files": list(files)}})
    for file in files:
        default_storage.save(f"runs/{made.pk}/{file['name']}", ContentFile(b"jpeg"))
    return made


@pytest.mark.parametrize("state", SITUATIONS)
def test_tells_state_id_facts_and_arguments(client: Client, run: RunFactory, cluster: Cluster, state: str) -> None:
    shown = run(**SITUATIONS[state])
    page = page_of(client, shown)

    assert f'<span class="status status--{state} status--pill">' in page
    assert f'<code id="run-id">{shown.pk}</code>' in page
    assert "<dt>Owner</dt><dd>mara</dd>" in page
    assert '<span class="k">&quot;type&quot;:</span> 3' in page


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("ready", "It is next in line.</b> It waits for a worker that is free."),
        ("claimed", "It begins in a moment.</b> web-1, worker 2 holds it."),
        ("scheduled", "Its time has not come.</b> It was sent to be done not before"),
        ("retrying", "It will be tried again.</b> Attempt 1 did not end well; the next begins after"),
        ("failed", "The task met an error.</b> ValueError: no. Nothing runs it again unless someone does."),
        ("cancelled", "It was ended before it was done.</b> Cancelled by tobias."),
    ],
)
def test_says_why_it_stands_there(client: Client, run: RunFactory, cluster: Cluster, state: str, why: str) -> None:
    assert why in page_of(client, run(**SITUATIONS[state]))


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("timed_out", "It took longer than it may."),
        ("worker_lost", "Its only attempt lost its worker."),
        ("rejected", "No worker could begin it."),
    ],
)
def test_says_why_it_ended_so(client: Client, run: RunFactory, failure: str, said: str) -> None:
    assert said in page_of(client, run(**{**SITUATIONS["failed"], "failure": failure}))


def test_says_that_nobody_takes_it(client: Client, run: RunFactory) -> None:
    assert "No live worker takes from the queue default." in page_of(client, run())


def test_tells_the_place_in_line(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(20)
    run(10)

    assert "It is in line.</b> 2 runs are ahead of it." in page_of(client, run(5))


def test_tells_progress_and_the_time_left_at_its_own_pace(client: Client, run: RunFactory) -> None:
    page = page_of(client, run(seconds_ago=20, **SITUATIONS["running"]))

    assert '<b class="big">60 %</b> 18 of 30' in page
    assert '<progress class="progress--tall" value="60" max="100"' in page
    assert re.search(r"about <time [^>]*data-tick=\"left\"[^>]*>1[12] s</time> left", page)
    assert "Expected end" in page


def test_progress_without_a_total_is_a_bar_without_an_end(client: Client, run: RunFactory) -> None:
    shown = run(**begun(status=Status.RUNNING, progress={"done": 412, "total": None, "message": "reading"}))
    page = page_of(client, shown)

    assert '<progress class="progress--tall" aria-labelledby="progress"></progress>' in page
    assert "reading" in page


# Its life


def test_a_life_tells_every_attempt(run: RunFactory) -> None:
    lived = run(
        **begun(
            status=Status.RUNNING,
            attempt=2,
            claimed_at=35,
            started_at=35,
            attempts=[attempt(1, 4, 30, reason="worker_lost")],
        )
    )
    life = Life(lived, lived.enqueued_at + timedelta(seconds=50))

    assert [(step.text, step.length and step.length.total_seconds()) for step in life.steps] == [
        ("Enqueued by mara", None),
        ("in line", 4),
        ("Attempt 1 on web-1, worker 2", None),
        ("ran, then its worker was lost", 26),
        ("Put back, to be tried again", None),
        ("waited to be tried again", 5),
        ("Attempt 2 on web-1, worker 2", None),
        ("running", None),
    ]
    assert [bar.kind for bar in life.bars] == ["wait", "bad", "wait", "ran"]
    assert life.waited == timedelta(seconds=9)
    assert life.ran == timedelta(seconds=41)
    assert life.drawing_says == "Waited 9.0 s, ran 26.0 s and failed, ran 15.0 s"


def test_a_life_tells_that_a_stopped_worker_does_not_count(run: RunFactory) -> None:
    given_back = {**attempt(1, 4, 30, reason="given_back"), "message": "Its worker was stopped before it ended."}
    lived = run(**begun(status=Status.SUCCESSFUL, attempt=1, claimed_at=35, started_at=35, finished_at=40,
                        attempts=[given_back]))  # fmt: skip

    assert [step.text for step in Life(lived, database_now()).steps] == [
        "Enqueued by mara",
        "in line",
        "Attempt 1 on web-1, worker 2",
        "ran, then was stopped",
        "Put back, not counted as an attempt",
        "in line",
        "Attempt 1 on web-1, worker 2",
        "ran",
        "Successful",
    ]
    waits = run(status=Status.READY, attempts=[given_back])
    assert waits.state == "ready"
    assert why(waits, database_now(), 0, True)[1].startswith("Its worker was stopped in the middle; it starts over")


@pytest.mark.parametrize("state", SITUATIONS)
def test_a_drawing_fills_its_width(run: RunFactory, state: str) -> None:
    bars = Life(run(**SITUATIONS[state]), database_now()).bars

    assert bars[0].x == 0
    assert bars[-1].x + bars[-1].width == pytest.approx(1000, abs=1)


def test_the_shortest_part_of_a_drawing_can_be_seen() -> None:
    bars = drawn([("wait", timedelta(milliseconds=1)), ("ran", timedelta(hours=3))])

    assert bars[0].width > 3


def test_a_cancelled_attempt_is_not_drawn_as_a_failure(run: RunFactory) -> None:
    stopped = run(**{**SITUATIONS["cancelled"], "attempts": [attempt(1, 2, 12, reason="cancelled")]})

    assert [bar.kind for bar in Life(stopped, database_now()).bars] == ["wait", "ran"]


# What came of it


def test_a_traceback_is_shown_with_other_peoples_frames_set_back(client: Client, run: RunFactory) -> None:
    traceback = (
        'Traceback (most recent call last):\n  File "/app/shop/tasks.py", line 41, in sell\n    fetch()\n'
        '  File "/app/.venv/lib/python3.11/site-packages/httpx/_client.py", line 9, in fetch\n    raise Timeout\n'
    )
    page = client.get(f"/runs/{run(**failed(traceback=traceback)).pk}/").content.decode()

    assert '<span class="k">  File &quot;/app/.venv/lib' in page
    assert '<span class="k">  File &quot;/app/shop' not in page


def failed(**told: Any) -> dict[str, Any]:
    return {**SITUATIONS["failed"], "attempts": [attempt(1, 2, 12, **told)]}


def test_earlier_attempts_are_folded(client: Client, run: RunFactory) -> None:
    shown = run(**{**SITUATIONS["failed"], "attempts": [attempt(1, 1, 2, message="first"), attempt(2, 3, 12)]})
    page = page_of(client, shown)

    assert '<details class="more" id="attempt-1" hx-preserve>' in page
    assert 'id="attempt-2"' not in page


def test_hostile_text_stays_text(client: Client, run: RunFactory) -> None:
    hostile = "<script>alert(1)</script></pre>\"'><img src=x onerror=alert(2)>"
    shown = run(
        **{
            **failed(message=hostile, traceback=hostile, exception=hostile),
            "kwargs": {hostile: hostile},
            "failure_message": hostile,
            "task_path": f"shop.{hostile}",
            "queue_name": hostile,
            "return_value": {"files": [{"name": hostile}]},
        }
    )

    for address in ("/", f"/runs/{shown.pk}/", "/runs/changes/"):
        page = client.get(address).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;alert" in page


def test_a_huge_value_is_cut_and_says_so(client: Client, run: RunFactory) -> None:
    page = page_of(client, run(**{**SITUATIONS["successful"], "return_value": ["x" * 90] * 6000}))

    assert len(page) < 100_000
    assert re.search(r"The end is left out: another \d+ kB\.", page)


@pytest.mark.parametrize("depth", [100, 600])
def test_a_value_nested_deep_does_no_harm(client: Client, run: RunFactory, depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    shown = run(**{**SITUATIONS["successful"], "return_value": nested})

    assert page_of(client, shown)
    assert client.get("/").status_code == 200


# Who may see it


def test_a_foreign_or_unknown_run_is_not_there(client: Client, run: RunFactory, tobias: User) -> None:
    foreign = run(owner=tobias)
    for pk in (foreign.pk, run(owner=None).pk, uuid.uuid4()):
        for address in (f"/runs/{pk}/", f"/runs/{pk}/live/", f"/runs/{pk}/files/a.jpg"):
            response = client.get(address)
            assert response.status_code == 404
            assert b"There is nothing here" in response.content


def test_an_operator_sees_it(operators_client: Client, run: RunFactory) -> None:
    assert operators_client.get(f"/runs/{run().pk}/").status_code == 200


# Its live part


@pytest.mark.parametrize("state", SITUATIONS)
def test_the_page_contains_its_live_part_byte_for_byte(
    client: Client, run: RunFactory, cluster: Cluster, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = database_now()
    monkeypatch.setattr("tasks_app.portrait.database_now", lambda: now)
    shown = run(**SITUATIONS[state])

    page, live = client.get(f"/runs/{shown.pk}/"), client.get(f"/runs/{shown.pk}/live/")

    assert live.content.startswith(b'<article class="stack" id="run-live"')
    assert live.content in page.content


@pytest.mark.parametrize("state", SITUATIONS)
def test_it_refreshes_until_the_run_is_final(client: Client, run: RunFactory, state: str) -> None:
    shown = run(**SITUATIONS[state])
    opening = re.search(r'<article [^>]*id="run-live"[^>]*>', page_of(client, shown))

    assert opening
    assert ("hx-trigger" in opening[0]) is not shown.is_finished


def test_nothing_new_is_an_empty_answer(
    client: Client, run: RunFactory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = database_now()
    monkeypatch.setattr("tasks_app.portrait.database_now", lambda: now)
    shown = run(**SITUATIONS["running"])
    address = re.search(r'hx-get="(/runs/[^"]*)"', page_of(client, shown))
    assert address

    assert client.get(address[1]).status_code == 204

    TaskRun.objects.update(progress={"done": 24, "total": 30, "message": ""})
    assert b"80 %" in client.get(address[1]).content


# Its files


def test_files_are_shown_and_offered(client: Client, run: RunFactory) -> None:
    shown = with_files(run, JPEG)
    page = page_of(client, shown)

    address = f"/runs/{shown.pk}/files/harbour-320.jpg"
    assert f'<img src="{address}" width="320" height="200"' in page
    assert f'<a class="btn" href="{address}" download="harbour-320.jpg">' in page


def test_a_file_comes_as_a_download_of_a_harmless_type(client: Client, run: RunFactory) -> None:
    response = client.get(f"/runs/{with_files(run, JPEG).pk}/files/harbour-320.jpg")

    assert (response.status_code, response.getvalue()) == (200, b"jpeg")
    assert response["Content-Type"] == "image/jpeg"
    assert response["Content-Disposition"] == 'attachment; filename="harbour-320.jpg"'
    assert response["X-Content-Type-Options"] == "nosniff"


def test_what_a_browser_would_run_is_served_as_bytes(client: Client, run: RunFactory) -> None:
    response = client.get(f"/runs/{with_files(run, {'name': 'page.html'}).pk}/files/page.html")

    assert (response["Content-Type"], response.getvalue()) == ("application/octet-stream", b"jpeg")


def test_only_listed_files_are_served(client: Client, run: RunFactory) -> None:
    shown = with_files(run, JPEG)
    default_storage.save(f"runs/{shown.pk}/secret.jpg", ContentFile(b"secret"))

    for name in ("secret.jpg", "..", ".", "%2e%2e%2fsecret.jpg", "..%2f..%2fuploads%2fx.jpg", "harbour-320.jpg%00"):
        assert client.get(f"/runs/{shown.pk}/files/{name}").status_code == 404


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b.jpg", "../../uploads/a.jpg", "", "a" * 300, 7, None])
def test_a_name_that_leads_elsewhere_is_no_file(client: Client, run: RunFactory, name: Any) -> None:
    shown = run(**{**SITUATIONS["successful"], "return_value": {"files": [{"name": name}]}})

    assert "/files/" not in page_of(client, shown)


def test_a_file_that_is_gone_is_a_404(client: Client, run: RunFactory) -> None:
    shown = with_files(run, JPEG)
    default_storage.delete(f"runs/{shown.pk}/harbour-320.jpg")

    assert client.get(f"/runs/{shown.pk}/files/harbour-320.jpg").status_code == 404
