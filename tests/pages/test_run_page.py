"""WATCH: the page of one run."""

from __future__ import annotations

import html
import json
import math
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from tasks_app.circumstances import Circumstances, look
from tasks_app.clock import database_now
from tasks_app.life import Life, drawn, time_left
from tasks_app.models import AuditEntry, Cluster, Grain, Queue, RunStat, Status, TaskRun
from tasks_app.models.stat import BUCKETS, SHORTEST
from tasks_app.usual import usual
from tasks_app.why import why
from tests.pages.conftest import SITUATIONS, RunFactory, attempt, begun
from tests.pages.test_bulk import done, told

HTMX = {"HX-Request": "true"}
JPEG = {"name": "harbour-320.jpg", "width": 320, "height": 200, "bytes": 4, "content_type": "text/html"}


def page_of(client: Client, run: TaskRun) -> str:
    response = client.get(f"/runs/{run.pk}/")
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def poll_of(page: str) -> str:
    """What the page asks for news."""
    found = re.search(r'data-poll hx-get="([^"]+)"', page)
    assert found
    return html.unescape(found[1])


def around(run: TaskRun, **told: Any) -> Circumstances:
    """How things stand around it, as far as it matters."""
    found = look(run.pk)
    assert found
    told |= {"clusters": 1} if told.pop("is_served", False) else {}
    return replace(found, **told)


def ended_before(path: str, seconds: list[float], status: Status = Status.SUCCESSFUL) -> None:
    """What the statistics of today have of runs that took so long."""
    lengths = [0] * BUCKETS
    for each in seconds:
        lengths[math.ceil(2 * math.log2(each / SHORTEST))] += 1
    today = database_now().replace(hour=0, minute=0, second=0, microsecond=0)
    counted = {"count": len(seconds), "waits": lengths, "lengths": lengths, "waited": 0, "ran": sum(seconds)}
    RunStat.objects.create(grain=Grain.DAY, at=today, task_path=path, queue_name="default", status=status, **counted)


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
    said = "Its worker was stopped in the middle; it starts over"
    assert why(waits, around(waits, is_served=True)).text.startswith(said)


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

    assert '<details class="more" id="attempt-1-1">' in page
    assert 'id="attempt-2' not in page


def test_each_earlier_attempt_has_its_traceback_and_a_button_that_copies_it(client: Client, run: RunFactory) -> None:
    first = attempt(1, 1, 2, message="Timeout: no", traceback=MIXED)
    second = attempt(2, 3, 4, message="ValueError: <odd>", traceback="Traceback…\nValueError: <odd>")
    shown = run(**{**SITUATIONS["failed"], "attempt": 3, "attempts": [first, second, attempt(3, 5, 12)]})
    page = client.get(f"/runs/{shown.pk}/").content.decode()

    for number, head, traceback in ((1, "Timeout: no", MIXED), (2, "ValueError: <odd>", second["traceback"])):
        fold = re.search(rf'<details class="more" id="attempt-{number}-{number}">(.*)', page, re.DOTALL)
        assert fold
        summary = re.search(r"<summary>(.*?)</summary>", fold[1])
        assert summary
        assert html.unescape(summary[1]).startswith(f"Attempt {number}, ")
        assert html.unescape(summary[1]).endswith(f"ended after 1.0 s on web-1, worker 2: {head}")
        button = re.search(r'<button [^>]*id="copy-trace-(\d)"[^>]*data-copy="#([^"]+)">', fold[1])
        assert button
        assert int(button[1]) == number
        assert page.count(f'id="{button[2]}"') == 1
        copied = re.search(rf'<pre [^>]*id="{button[2]}"[^>]*>(.*?)</pre>', fold[1], re.DOTALL)
        assert copied
        assert html.unescape(re.sub(r"<[^>]+>", "", copied[1])).strip() == traceback.strip()
    assert page.count("<summary>All 2 frames</summary>") == 1


def test_an_earlier_attempt_without_a_traceback_says_so(client: Client, run: RunFactory) -> None:
    lost = attempt(1, 1, 2, reason="worker_lost", message="Its worker was lost.", exception="", traceback="")
    page = page_of(client, run(**{**SITUATIONS["failed"], "attempt": 2, "attempts": [lost, attempt(2, 3, 12)]}))

    assert "Its worker was lost.</summary>" in page
    assert "It left no traceback." in page
    assert 'id="copy-trace-1"' not in page


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

    for address in ("/", f"/runs/{shown.pk}/"):
        page = client.get(address).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;alert" in page


def test_a_huge_value_is_cut_and_says_so(client: Client, run: RunFactory) -> None:
    page = page_of(client, run(**{**SITUATIONS["successful"], "return_value": ["x" * 90] * 6000}))

    assert len(page) < 300_000
    assert "Shown in part; the rest is left out." in page
    assert f'<a href="/runs/{TaskRun.objects.get().pk}/result.json" download>Download all</a>' in page


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
        for address in (f"/runs/{pk}/", f"/runs/{pk}/log.txt", f"/runs/{pk}/result.json", f"/runs/{pk}/files/a.jpg"):
            response = client.get(address)
            assert response.status_code == 404
            assert b"There is nothing here" in response.content


def test_an_operator_sees_it(operators_client: Client, run: RunFactory) -> None:
    assert operators_client.get(f"/runs/{run().pk}/").status_code == 200


# Its live part


@pytest.mark.parametrize("state", [state for state, fields in SITUATIONS.items() if "finished_at" not in fields])
def test_the_page_contains_its_live_part_byte_for_byte(
    client: Client, run: RunFactory, cluster: Cluster, state: str, still: None
) -> None:
    shown = run(**SITUATIONS[state])

    page = client.get(f"/runs/{shown.pk}/")
    address = poll_of(page.content.decode())
    TaskRun.objects.update(max_attempts=3)  # written anew: news that changes nothing
    live = client.get(address, headers=HTMX)

    assert live.status_code == 200
    assert live.content.startswith(b'<article class="stack" id="run-live"')
    assert unsigned(live) in unsigned(page)


def unsigned(answer: Any) -> str:
    return re.sub(r'(?<=hx-get=")[^"]*', "", answer.content.decode()).strip()


@pytest.mark.parametrize("state", SITUATIONS)
def test_it_refreshes_until_the_run_is_final(client: Client, run: RunFactory, state: str) -> None:
    shown = run(**SITUATIONS[state])
    opening = re.search(r'<article [^>]*id="run-live"[^>]*>', page_of(client, shown))

    assert opening
    assert ("hx-trigger" in opening[0]) is not shown.is_finished


def test_nothing_new_is_an_empty_answer_for_one_query(
    client: Client, run: RunFactory, cluster: Cluster, still: None, django_assert_num_queries: Any
) -> None:
    shown = run(**SITUATIONS["running"])
    address = poll_of(page_of(client, shown))

    with django_assert_num_queries(1):
        assert client.get(address, headers=HTMX).status_code == 204

    TaskRun.objects.update(progress={"done": 24, "total": 30, "message": ""})
    assert b"80 %" in client.get(address, headers=HTMX).content


@pytest.mark.parametrize("state", SITUATIONS)
def test_a_page_takes_few_queries(
    operators_client: Client, run: RunFactory, cluster: Cluster, state: str, django_assert_max_num_queries: Any
) -> None:
    shown = run(**SITUATIONS[state])
    run(**SITUATIONS["retrying"], retry_of=shown)
    with django_assert_max_num_queries(10):
        page_of(operators_client, shown)


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


# What is usual

PATH = "tasks_app.tasks.practice.create_task"


def test_tells_what_is_usual_for_its_task(client: Client, run: RunFactory) -> None:
    ended_before(PATH, [30.0] * 18)
    ended_before(PATH, [5.0] * 2, Status.FAILED)

    page = page_of(client, run())

    assert re.search(r"<dt>Runs</dt><dd>2\d\.\d s, seldom over 3\d\.\d s</dd>", page)
    assert "<dt>Succeeds</dt><dd>18 of 20</dd>" in page


def test_too_few_runs_are_not_what_is_usual(client: Client, run: RunFactory) -> None:
    ended_before(PATH, [30.0] * 4)

    assert 'id="run-usual"' not in page_of(client, run())


@pytest.mark.parametrize(("spent", "slow"), [(25, ""), (110, "4 times longer than usual"), (46, "longer than usual")])
def test_one_that_takes_longer_than_nearly_all_before_it_says_so(
    client: Client, run: RunFactory, spent: float, slow: str
) -> None:
    ended_before(PATH, [30.0] * 40)

    page = page_of(client, run(seconds_ago=spent + 2, **SITUATIONS["running"]))

    assert ("Running " + slow in page) if slow else ("longer than usual" not in page)


def test_without_many_before_it_nothing_is_unusual(client: Client, run: RunFactory) -> None:
    ended_before(PATH, [3.0] * 19)

    assert "longer than usual" not in page_of(client, run(seconds_ago=500, **SITUATIONS["running"]))


def test_the_time_left_is_what_is_usual_where_no_progress_is_told(run: RunFactory) -> None:
    ended_before(PATH, [30.0] * 40)
    running = run(seconds_ago=12, **{**SITUATIONS["running"], "progress": None})
    now = running.enqueued_at + timedelta(seconds=12)

    left = time_left(running, now, usual([PATH], now)[PATH])

    assert left
    assert 12 < left.total_seconds() < 22  # 30 in all, 10 of them spent; told by buckets


def test_one_that_outlives_all_before_it_has_no_time_left_to_tell(run: RunFactory) -> None:
    ended_before(PATH, [30.0] * 40)
    running = run(seconds_ago=500, **{**SITUATIONS["running"], "progress": None})
    now = running.enqueued_at + timedelta(seconds=500)

    assert time_left(running, now, usual([PATH], now)[PATH]) is None


def test_an_estimate_counts_from_when_the_progress_was_told(run: RunFactory) -> None:
    """Told after 3 of 30 seconds, and looked at two seconds later, it is 25 seconds and not 45."""
    progress = {"done": 3, "total": 30, "message": "", "after": 3.0}
    running = run(seconds_ago=7, **{**SITUATIONS["running"], "progress": progress})

    left = time_left(running, running.enqueued_at + timedelta(seconds=7))

    assert left == timedelta(seconds=25)


def test_an_estimate_at_the_beginning_trusts_what_is_usual(run: RunFactory) -> None:
    """What it does first is slow: going by it alone, 100 of 100 would take 300 seconds."""
    ended_before(PATH, [30.0] * 40)
    progress = {"done": 1, "total": 100, "message": "", "after": 3.0}
    running = run(seconds_ago=5, **{**SITUATIONS["running"], "progress": progress})
    now = running.enqueued_at + timedelta(seconds=5)

    left = time_left(running, now, usual([PATH], now)[PATH])

    assert left
    assert 18 < left.total_seconds() < 45


# Why it is not running


def test_says_that_all_workers_are_busy_and_with_what(client: Client, run: RunFactory, cluster: Cluster) -> None:
    Cluster.objects.update(busy=4)
    at_work = run(**{**SITUATIONS["running"], "claimed_by": f"{cluster.pk.hex[:12]}:1:77:web-1"})
    elsewhere = run(**SITUATIONS["running"])

    page = page_of(client, run())

    assert "It is next in line.</b> All 4 workers are busy." in page
    assert f'<a id="why-{at_work.short_id}" href="/runs/{at_work.pk}/">create_task {at_work.short_id}</a>' in page
    assert elsewhere.short_id not in page


def test_tells_nobody_of_runs_that_are_not_theirs(
    client: Client, run: RunFactory, cluster: Cluster, tobias: User
) -> None:
    Cluster.objects.update(busy=4)
    at_work = {**SITUATIONS["running"], "claimed_by": f"{cluster.pk.hex[:12]}:1:77:web-1"}
    foreign = run(**at_work, owner=tobias)
    again = run(owner=tobias, retry_of=run(pk=uuid.uuid4()))

    page = page_of(client, run())

    assert "All 4 workers are busy." in page
    assert foreign.short_id not in page
    assert again.retry_of
    assert again.short_id not in page_of(client, again.retry_of)


def test_says_that_a_cluster_was_asked_to_be_quiet(client: Client, run: RunFactory, cluster: Cluster) -> None:
    Cluster.objects.update(desired_state="quiet")

    assert "Nobody takes from the queue default now.</b> Its workers were asked" in page_of(client, run())


def test_says_whose_pause_holds_it_up(
    operators_client: Client, run: RunFactory, cluster: Cluster, operator: User
) -> None:
    Queue.pause("default", by=operator, why="No paper")

    page = page_of(operators_client, run())

    assert "The queue default is paused.</b> Since" in page
    assert "by operator: No paper. It waits to be resumed." in page
    assert '<a id="why-place" href="/queues/">Queues</a>' in page


# Where it comes from


def test_tells_what_it_does_over_and_what_does_it_over(client: Client, run: RunFactory) -> None:
    first = run(**SITUATIONS["failed"])
    second = run(**SITUATIONS["failed"], retry_of=first)
    third = run(retry_of=second)

    page = page_of(client, second)

    assert re.search(rf'<dt>Retry of</dt>.*?href="/runs/{first.pk}/".*?<dt>Retried as</dt>.*?/runs/{third.pk}/', page)


def test_tells_of_a_run_that_is_gone(client: Client, run: RunFactory) -> None:
    gone = uuid.uuid4()

    assert '<dt>Retry of</dt><dd><span class="quiet">a run that is gone</span>' in page_of(
        client, run(retry_of_id=gone)
    )


def test_tells_who_did_what_to_it_and_why(operators_client: Client, run: RunFactory, operator: User) -> None:
    shown = run()
    shown.set_priority(7, "<b>urgent</b>", by=operator)
    run().set_priority(8, "somebody else's", by=operator)

    page = page_of(operators_client, shown)

    assert "Set priority 7<small>&lt;b&gt;urgent&lt;/b&gt;</small>" in page
    assert "operator, <time" in page
    assert "somebody else" not in page


# Values


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        ("plain\n\x1b[31mred", '<pre class="code" id="run-result" tabindex="0">plain\n␛[31mred</pre>'),
        (None, "It answered nothing."),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "<tr><td>2</td><td>b</td></tr>"),
        (
            {"rows": list(range(500)), "more": {"deep": [1]}},
            '<span class="k">rows</span> <span class="quiet">500 items',
        ),
        ({"rows": list(range(500))}, '<li class="quiet">400 more not shown</li>'),
        ({"a": "b\u202ecod.exe"}, "&quot;b\\u202ecod.exe&quot;"),
    ],
)
def test_a_result_is_shown_as_what_it_is(client: Client, run: RunFactory, value: Any, drawn: str) -> None:
    shown = run(**{**SITUATIONS["successful"], "return_value": value})

    assert drawn in client.get(f"/runs/{shown.pk}/").content.decode()


def test_a_whole_value_is_downloaded(client: Client, run: RunFactory) -> None:
    value = ["x" * 90] * 6000
    shown = run(**{**SITUATIONS["successful"], "return_value": value, "args": [1, None]})

    result = client.get(f"/runs/{shown.pk}/result.json")
    arguments = client.get(f"/runs/{shown.pk}/arguments.json")

    assert json.loads(b"".join(result)) == value
    assert result["Content-Disposition"] == f'attachment; filename="{shown.short_id}-result.json"'
    assert json.loads(b"".join(arguments)) == {"args": [1, None], "kwargs": {"type": 3}}


# Tracebacks

MIXED = (
    'Traceback (most recent call last):\n  File "/app/shop/tasks.py", line 41, in sell\n    fetch()\n'
    '  File "/app/.venv/lib/python3.11/site-packages/httpx/_client.py", line 9, in fetch\n    raise Timeout\n'
    "Timeout: no\n"
)


def test_our_frames_are_shown_apart_and_all_of_them_fold_out(client: Client, run: RunFactory) -> None:
    page = client.get(f"/runs/{run(**failed(traceback=MIXED)).pk}/").content.decode()

    ours = re.search(r'<pre [^>]*aria-label="Our frames">(.*?)</pre>', page, re.DOTALL)
    assert ours
    assert "shop/tasks.py" in ours[1]
    assert "httpx" not in ours[1]
    assert "… 1 frame of libraries" in ours[1]
    assert "<summary>All 2 frames</summary>" in page
    assert 'data-copy="#trace-1-last"' in page


# To be copied


def test_is_copied_as_python_and_as_curl(client: Client, run: RunFactory) -> None:
    page, urgent = (html.unescape(page_of(client, run(**fields))) for fields in ({}, {"priority": 5}))

    assert "from tasks_app.tasks.practice import create_task create_task.enqueue(type=3)" in page
    assert "curl -X POST http://testserver/tasks \\" in page
    assert "-d '{\"type\": 3}'" in page
    assert "create_task.using(priority=5).enqueue(type=3)" in urgent
    assert "curl -X POST http://testserver/tasks/run \\" in urgent
    assert '"kwargs": {"type": 3}, "priority": 5}\'' in urgent


def test_what_the_door_does_not_take_is_copied_as_python_alone(client: Client, run: RunFactory) -> None:
    odd = run(task_path="shop.tasks.sell", args=["it's"], kwargs={"class": None, "n": 1})
    page = html.unescape(page_of(client, odd))

    assert "sell.enqueue(\"it's\", n=1, **{'class': None})" in page
    assert "No curl: the JSON door does not take this call." in page


# What can be done


def test_a_failed_run_is_retried_and_the_browser_goes_there(client: Client, run: RunFactory, mara: User) -> None:
    shown = run(**SITUATIONS["failed"])
    assert 'id="retry-run" form="retry"' in page_of(client, shown)

    response = client.post(f"/runs/{shown.pk}/retry/")

    again = TaskRun.objects.get(retry_of=shown)
    assert (response.status_code, response["Location"]) == (302, f"/runs/{again.pk}/")
    assert again.owner == mara
    page = page_of(client, shown)
    assert "A retry of it goes on." in page
    assert client.post(f"/runs/{shown.pk}/retry/")["Location"] == f"/runs/{again.pk}/"
    assert TaskRun.objects.count() == 2


def test_one_that_waits_is_given_priority_queue_and_time(operators_client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["scheduled"])
    page = page_of(operators_client, shown)
    assert 'type="submit" form="change" id="run-now" name="do"' in page  # in so many words, for htmx
    address = f"/runs/{shown.pk}/change/"

    operators_client.post(address, {"priority": "9", "queue": "slow"})
    operators_client.post(address, {"priority": "9", "queue": "slow", "do": "run-now"})

    shown.refresh_from_db()
    assert (shown.priority, shown.queue_name) == (9, "slow")
    assert shown.run_after <= database_now()
    assert set(AuditEntry.objects.values_list("verb", flat=True)) == {"set priority", "move", "run at"}


def test_one_that_waits_is_given_a_time_by_the_viewers_clock(operators_client: Client, run: RunFactory) -> None:
    operators_client.cookies["time_zone"] = "Asia/Tokyo"
    shown = run()
    page = page_of(operators_client, shown)
    assert "Not before, in Asia/Tokyo" in page
    assert re.search(r'<input [^>]*form="run-at"[^>]*name="run_after"', page)
    assert re.search(r'<form id="run-at" method="post" action="/runs/[^"]*/change/".*?name="do" value="run-at">', page)

    operators_client.post(f"/runs/{shown.pk}/change/", {"do": "run-at", "run_after": "2040-03-12T14:30"})

    shown.refresh_from_db()
    assert shown.run_after == datetime(2040, 3, 12, 5, 30, tzinfo=UTC)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.runs, entry.details) == ("run at", [shown.pk], {"run_after": "2040-03-12T05:30:00+00:00"})
    assert "Its time has not come." in page_of(operators_client, shown)


def test_a_time_that_is_over_is_now_for_what_is_not_due_yet(operators_client: Client, run: RunFactory) -> None:
    shown = run(**SITUATIONS["scheduled"])

    operators_client.post(f"/runs/{shown.pk}/change/", {"do": "run-at", "run_after": "2001-03-12T14:30"})

    shown.refresh_from_db()
    assert database_now() - timedelta(minutes=1) < shown.run_after <= database_now()


@pytest.mark.parametrize("state", ["claimed", "running", "failed"])
def test_one_that_a_worker_has_is_given_no_time(operators_client: Client, run: RunFactory, state: str) -> None:
    shown = run(**SITUATIONS[state])
    assert 'id="run-at-time"' not in page_of(operators_client, shown)
    given = {"do": "run-at", "run_after": "2040-03-12T14:30"}

    page = operators_client.post(f"/runs/{shown.pk}/change/", given, follow=True).content.decode()

    assert "It was too late: a worker has it, or it has ended." in page
    assert TaskRun.objects.get(pk=shown.pk).run_after == shown.run_after


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"do": "run-at"}, "Choose a day and a time."),
        ({"do": "run-at", "run_after": "25:61"}, "That is no time: write 2026-03-12 14:30."),
        ({"do": "run-at", "run_after": "9999-12-31T23:59"}, "That moment is further away than any calendar reaches."),
        ({"do": "run-at", "run_after": "2001-01-01T00:00"}, "That time is over, and it is due already."),
        ({"priority": "101"}, "A priority is a whole number, -100 to 100."),
        ({"priority": "x"}, "A priority is a whole number, -100 to 100."),
        ({"queue": "q" * 101}, "A queue&#x27;s name has at most 100 characters."),
    ],
)
def test_a_bad_change_is_a_sentence(operators_client: Client, run: RunFactory, sent: Any, said: str) -> None:
    shown = run()
    address = f"/runs/{shown.pk}/change/"

    fragment = operators_client.post(address, sent, headers=HTMX)
    page = operators_client.post(address, sent, follow=True)

    assert (fragment.status_code, fragment.content.decode()) == (422, said)
    assert said in page.content.decode()


def test_an_owner_changes_no_priority_and_deletes_nothing(client: Client, run: RunFactory) -> None:
    shown, ended = run(), run(**SITUATIONS["failed"])

    client.post(f"/runs/{shown.pk}/change/", {"priority": "9"})
    client.post(f"/runs/{ended.pk}/delete/")

    shown.refresh_from_db()
    assert shown.priority == 0
    assert TaskRun.objects.filter(pk=ended.pk).exists()
    assert "That needs the permission to change runs." in page_of(client, shown)


def test_an_ended_run_is_deleted_once_that_is_confirmed(operators_client: Client, run: RunFactory) -> None:
    ended = run(**SITUATIONS["failed"])
    address = f"/runs/{ended.pk}/delete/"

    assert b"Delete 1 run?" in operators_client.get(address).content
    assert TaskRun.objects.get() == ended
    page = " ".join(operators_client.post(address, {"why": "A test."}, follow=True).content.decode().split())
    assert f'<h1 id="question">Delete: the run create_task {ended.short_id}</h1>' in page
    assert "Nothing has been changed yet." in page
    act = TaskRun.objects.exclude(pk=ended.pk).get()
    assert told(done(act)) == "1 run was deleted."

    assert not TaskRun.objects.filter(pk=ended.pk).exists()
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.runs, entry.reason, entry.act) == ("delete", [ended.pk], "A test.", act.pk)


def test_a_deletion_is_undone_before_it_begins(operators_client: Client, run: RunFactory) -> None:
    ended = run(**SITUATIONS["failed"])
    operators_client.post(f"/runs/{ended.pk}/delete/")
    act = TaskRun.objects.exclude(pk=ended.pk).get()

    page = operators_client.post(f"/runs/bulk/{act.pk}/undo/", follow=True).content.decode()

    assert "<b>Undone.</b> Nothing was changed." in page
    assert TaskRun.objects.get(pk=ended.pk) == ended
    act.refresh_from_db()
    assert act.status == Status.CANCELLED


@pytest.mark.parametrize("method", ["get", "post"])
def test_one_that_goes_on_is_not_deleted(operators_client: Client, run: RunFactory, method: str) -> None:
    shown = run()

    page = getattr(operators_client, method)(f"/runs/{shown.pk}/delete/", follow=True).content.decode()

    assert "Only what has ended can be deleted. Cancel it first." in page
    assert TaskRun.objects.get() == shown


def test_very_many_attempts_are_told_in_part(client: Client, run: RunFactory) -> None:
    tries = [attempt(number, number, number + 0.5, traceback="T" * 20_000) for number in range(1, 401)]
    page = page_of(client, run(**{**SITUATIONS["failed"], "attempt": 400, "attempts": tries, "max_attempts": 400}))

    assert "378 more attempts, not told here" in page
    assert len(page) < 1_500_000
