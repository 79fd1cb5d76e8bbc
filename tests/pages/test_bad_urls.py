"""WATCH: whatever stands in an address, or is sent to one, is answered: put right with a sentence, or refused with one.

There is a row behind each address, so that each page gets as far as reading what it was asked for.
"""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import QueryDict
from django.test import Client
from django.urls import URLPattern, get_resolver, resolve
from django_q.tasks import schedule

from tasks_app import bulk
from tasks_app.asking import UNSEEN
from tasks_app.clock import database_now
from tasks_app.models import Cluster, RunLog, SavedView
from tasks_app.tasks import create_task
from tasks_app.workflows import chain
from tests.figures import failed, failing
from tests.pages.conftest import SITUATIONS, made

pytestmark = pytest.mark.django_db

TASK = "tasks_app.tasks.practice.create_task"
FORM = "application/x-www-form-urlencoded"
LONG = "x" * 200_000

QUERIES = {
    "page": "page=1000000000&p=1000000000&size=1000000000&since=9999-99-99&until=0000-00-00T99:99&at=25:61",
    "place": "older=99999999999999999999-zz&newer=0-0&before=99999999999999999999&q=%ff%fe&task=%ed%a0%80&state=%80",
    "early place": f"older=0-0&before=0&q={quote(chr(0xD800), errors='surrogatepass')}&queue=%c0%af",
    "late place": "newer=9999999999999999999-ffffffff-ffff-ffff-ffff-ffffffffffff&q='%3B--%20%25_",
    "last place": "older=9223372036854775807-9223372036854775808&q=%26%20%7C%20!%20(%3A*%20%3C-%3E&task=%25&owner=%5C",
    "negative": "page=-1&size=-1&older=-1&after=-1&count=-5&before=-1&top=-1&q=%E2%80%AE&task=%E2%81%A6",
    "words": "state=unknown&status=exploded&verb=juggle&level=LOUD&sort=sideways&window=9y&kind=x&task=a&owner=c",
    "long": f"q={LONG}&task={LONG}&queue={LONG}&owner={LONG}&cluster={LONG}",
    "long state": f"state={LONG}&level={LONG}&verb={LONG}&seen={LONG}&why={LONG}",
    "nul": "q=%00&task=%00&queue=a%00b&owner=%00&state=%00&verb=%00&level=%00&cluster=%00&since=%00&test=%00",
    "far dates": "since=0001-01-01T00:00:00-23:59&until=9999-12-31T23:59:59%2B23:59&from=yesterday&to=2026-02-30",
    "backwards": "since=2026-02-02&until=2020-01-01&q=%5C%22%60%3Cscript%3E&queue=_&before=999999999999999999",
    "twice": "state=failed&state=ready&page=1&page=x&q=a&q=b&size=25&size=50&verb=cancel&verb=retry&seen=a&seen=b",
    "nothing": "q=&state=&size=&older=&newer=&verb=&level=&since=&until=&task=&seen=",
    "many": "&".join(f"a{number}=1" for number in range(3_000)),
    "ids": "&".join(f"id={uuid.uuid4()}&test={uuid.uuid4()}" for _ in range(450)),
    "numbers": "group=99999999999999999999&schedule=1e9&workflow=0x10&id=1&q[]=1&q[$ne]=1&{}=%7B%7D&%3D=%3D",
}


# What is there


@dataclass
class Rows:
    """One of everything that an address can name, by the words of `NAMED`."""

    operator: User
    media: Path
    ids: dict[str, Any] = field(default_factory=dict)

    def paths(self) -> dict[str, str]:
        """Of every address outside the admin, by its name; each deed has a row of its own."""
        return {name: path.format(**self.ids) for name, path in templates()}


NAMED = {
    "activity": "/runs/activity/?about=auth.user:1",
    "bulk-run": "/runs/bulk/{bulk_run}/",
    "bulk-undo": "/runs/bulk/{bulk_undone}/undo/",
    "bulk-stop": "/runs/bulk/{bulk_stopped}/stop/",
    "launch-task": f"/launch/{TASK}/",
    "run": "/runs/{running}/",
    "run-again": "/runs/{successful}/again/",
    "run-cancel": "/runs/{ready}/cancel/",
    "run-change": "/runs/{scheduled}/change/",
    "run-delete": "/runs/{cancelled}/delete/",
    "run-retry": "/runs/{failed}/retry/",
    "run-log": "/runs/{running}/log.txt",
    "run-arguments": "/runs/{successful}/arguments.json",
    "run-result": "/runs/{successful}/result.json",
    "run-file": "/runs/{successful}/files/320.jpg",
    "failure": "/failures/{group}/",
    "failure-steer": "/failures/{group}/steer/",
    "schedule": "/schedules/{schedule}/",
    "schedule-steer": "/schedules/{schedule}/steer/",
    "workflow": "/workflows/{workflow}/",
    "workflow-steer": "/workflows/{workflow}/steer/",
    "api-task": "/tasks/{successful}",
}
"""The addresses that name a row: a new one is held to all this by its line here."""


def templates() -> Iterator[tuple[str, str]]:
    for pattern in get_resolver("tasks_app.urls").url_patterns:
        assert isinstance(pattern, URLPattern)
        path, name = f"/{pattern.pattern}", str(pattern.name)
        assert name in NAMED or "<" not in path, f"{name} needs its line in NAMED."
        yield name, NAMED.get(name, path)


def fill(rows: Rows) -> None:
    now, operator = database_now(), rows.operator
    Cluster.objects.create(
        name="default", queues=["default"], host="web-1", pid=1, workers=4, started_at=now, heartbeat_at=now
    )
    picture = {"name": "320.jpg", "width": 320, "height": 160, "bytes": 4}
    for state, fields in SITUATIONS.items():
        more = {"return_value": {"files": [picture]}} if state == "successful" else {}
        rows.ids[state] = made(operator, **{**fields, **more}, about="auth.user:1").pk
    folder = rows.media / "runs" / str(rows.ids["successful"])
    folder.mkdir(parents=True)
    (folder / "320.jpg").write_bytes(b"JPEG")
    RunLog.objects.create(run_id=rows.ids["running"], attempt=1, at=now, level=20, text="a line")
    group = failed(now, 2)
    failing(group, now)
    flow = chain(create_task.step(type=1), create_task.step(type=2)).enqueue(name="album", owner=operator)
    made_schedule = schedule(TASK, name="nightly", schedule_type="C", cron="30 2 * * *", type=1)
    rows.ids |= {"group": group.pk, "workflow": flow.pk, "schedule": made_schedule.pk}
    for name in ("bulk_run", "bulk_undone", "bulk_stopped"):
        rows.ids[name] = bulk.send(operator, "cancel", ids=[rows.ids["waiting"]]).pk
    rows.ids["view"] = SavedView.objects.keep(operator, "Mine", "state=failed").pk


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """For all tests of the module: what one of them changes is taken back at its end."""
    with django_db_blocker.unblock():
        try:
            found = Rows(User.objects.create_superuser("operator"), tmp_path_factory.mktemp("media"))
            fill(found)
            yield found
        finally:
            call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def operator(rows: Rows) -> User:
    return rows.operator


@pytest.fixture(autouse=True)
def media(rows: Rows, settings: Any) -> None:
    settings.MEDIA_ROOT = rows.media
    settings.LOG_FILE = rows.media / "qcluster.log"


def asked(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


def status_of(response: Any) -> int:
    """Once it has been read to its end: some answers are made while they are sent."""
    if response.streaming:
        b"".join(response)
    return int(response.status_code)


# Never an error of the server


def test_every_address_is_there(operators_client: Client, rows: Rows) -> None:
    told = {name: status_of(operators_client.get(path)) for name, path in rows.paths().items()}

    assert {name: status for name, status in told.items() if status not in {200, 302, 405}} == {}


@pytest.mark.parametrize("query", QUERIES)
def test_no_query_breaks_a_page(operators_client: Client, rows: Rows, query: str) -> None:
    operators_client.raise_request_exception = False
    told = {}
    for name, path in rows.paths().items():
        address = asked(path, QUERIES[query])
        told[name] = status_of(operators_client.get(address))
        if hasattr(resolve(path.partition("?")[0]).func, "version"):
            poll = operators_client.get(f"{address}&seen=forged", headers={"HX-Request": "true"})
            told[f"news of {name}"] = status_of(poll)

    assert {name: status for name, status in told.items() if status not in {200, 302, 400, 405}} == {}


@pytest.mark.parametrize("name", ["taskrun", "auditentry"])
def test_no_query_breaks_the_admin(operators_client: Client, rows: Rows, name: str) -> None:
    operators_client.raise_request_exception = False
    told = {query: operators_client.get(f"/admin/tasks_app/{name}/?{QUERIES[query]}").status_code for query in QUERIES}

    assert {query: status for query, status in told.items() if status not in {200, 302, 400}} == {}


@pytest.mark.parametrize("query", QUERIES)
def test_no_form_breaks_on_what_is_sent(operators_client: Client, rows: Rows, query: str) -> None:
    operators_client.raise_request_exception = False
    told = {}
    for name, path in rows.paths().items():
        if name != "logout":
            told[name] = status_of(operators_client.post(path, f"do=explode&{QUERIES[query]}", content_type=FORM))

    assert {name: status for name, status in told.items() if status >= 500 or status == 404} == {}


def test_a_thousand_ids_in_a_post_are_a_page_or_a_sentence(operators_client: Client, rows: Rows) -> None:
    operators_client.raise_request_exception = False
    ids = [str(uuid.uuid4()) for _ in range(1_000)]
    given = {"id": [*ids[:-2], "none", ids[0]], "_selected_action": ids, "action": "cancel_runs", "verb": "cancel"}
    sent = urlencode(given, doseq=True)
    told = {
        name: status_of(operators_client.post(path, sent, content_type=FORM))
        for name, path in {**rows.paths(), "admin": "/admin/tasks_app/taskrun/"}.items()
        if name != "logout"
    }

    assert {name: status for name, status in told.items() if status >= 500 or status == 404} == {}


# A sentence for each value that is put right

NO_PLACE = "That place in the list cannot be found; here is its beginning."
NO_SIZE = "A page has 25, 50, 100 or 200 rows."


def searched(most: int) -> list[tuple[str, str]]:
    return [(LONG, f"Only the first {most} characters are searched for."), ("a%00b", UNSEEN)]


def named(what: str) -> list[tuple[str, str]]:
    return [(LONG, f"No {what} has so long a name."), ("a%00b", UNSEEN)]


Values = dict[str, list[tuple[str, str]]]

FILTERS: Values = {
    "state": [
        ("unknown", "There is no state “unknown”; runs of all states are shown."),
        (LONG, "There is no state “xxx"),
        ("%00", UNSEEN),
    ],
    "task": [(LONG, "No task has such a name."), ("a%00b", UNSEEN)],
    "queue": [(LONG, "No queue has such a name."), ("%00", UNSEEN)],
    "cluster": [(LONG, "No cluster has such a name."), ("%25", "A cluster is named by its id.")],
    "owner": [(LONG, "No owner has such a name."), ("%E2%80%AE", UNSEEN)],
    "reason": [("because", "A run fails for one of these reasons: "), (LONG, "A run fails for one of these")],
    "group": [("9" * 20, "A failure is named by its number."), (LONG, "A failure is named by its number.")],
    "schedule": [("1e9", "A schedule is named by its number.")],
    "workflow": [("0x10", "A workflow is named by its id."), (LONG, "A workflow is named by its id.")],
    "about": [("order", "What runs are about is named by its model and its key"), (LONG, "What runs are about")],
    "since": [
        ("9999-99-99", "“9999-99-99” is no time: write 2026-03-12, 2026-03-12 14:30, or 24h."),
        ("0001-01-01T00:00:00-23:59", "is no time"),
        (LONG, "is no time"),
    ],
    "until": [("yesterday", "“yesterday” is no time"), ("2020-01-01&since=2026-02-02", "That time ends before it")],
    "q": [*searched(200), ("+".join("abcdefghijk"), "Only the first 10 words are searched for.")],
}

BAD: dict[str, Values] = {
    "home": {"runs": [("sideways", "Recent runs are everybody's, or mine")]},
    "queues": {"task": [("os.system", "There is no such task. Choose one of the list.")]},
    "runs": {
        **FILTERS,
        "size": [("1000000000", NO_SIZE)],
        "sort": [("sideways", "Runs are sorted by newest or by oldest.")],
        "older": [("99999999999999999999-zz", NO_PLACE), ("x&size=-1", f"{NO_SIZE} {NO_PLACE}")],
        "newer": [("0-0", NO_PLACE)],
        "top": [("-1", "Which runs are new cannot be told")],
    },
    "runs-export-csv": FILTERS,
    "runs-export-json": FILTERS,
    "runs-bulk": {"asked": [("nonsense", "What was asked there is forgotten by now.")]},
    "run": {
        "level": [("LOUD", "A level is debug, info, warning, error or critical; here are all of them.")],
        "q": searched(200),
        "before": [
            ("-1", "That place in the log cannot be found; here is its end."),
            ("0", "That place in the log cannot be found"),
            ("9" * 20, "That place in the log cannot be found"),
        ],
    },
    "launch": {"q": searched(200)},
    "failures": {
        "state": [("exploded", "Failures are open, dismissed or muted; here are the open ones.")],
        "window": [("9y", "There is no such window; here is all that was ever seen.")],
        "sort": [("sideways", "The list goes by the newest or by the most; here it goes by the newest.")],
        "task": named("task"),
        "queue": named("queue"),
        "q": searched(200),
        "size": [("-1", NO_SIZE), ("-1&state=x", f"here are the open ones. {NO_SIZE}")],
        "older": [("1-2-3", NO_PLACE), ("x&size=9", f"{NO_SIZE} {NO_PLACE}")],
        "newer": [("x", NO_PLACE)],
    },
    "schedules": {
        "state": [("pink", "A schedule is active, paused, broken or done; here are all of them.")],
        "q": searched(150),
        "older": [("10**9", NO_PLACE), ("x&state=pink", f"here are all of them. {NO_PLACE}")],
        "newer": [("x", NO_PLACE)],
    },
    "schedule-new": {"task": [("os.system", "os.system"), (LONG, "xxx")]},
    "stats": {
        "window": [("9y", "There is no such window; here are the last 24 h.")],
        "sort": [("sideways", "The tables cannot be sorted like that; here is first what took the most time.")],
        "task": named("task"),
        "queue": named("queue"),
        "all": [("9" * 5_000, "The table has 50 tasks at most, or with all=1 every one.")],
    },
    "workers": {
        "test": [
            ("nonsense", "Some of those smoke tests are not there."),
            (str(uuid.uuid4()), "Some of those smoke tests are not there."),
            ("&test=".join(str(uuid.uuid4()) for _ in range(1_000)), "No more than 20 smoke tests are told at once."),
        ],
    },
    "workflows": {
        "state": [("pink", "A workflow is ready, running, successful, failed or cancelled.")],
        "size": [("10", NO_SIZE)],
        "older": [("x", NO_PLACE), ("x&state=pink", f"or cancelled. {NO_PLACE}")],
        "newer": [("1-1", NO_PLACE)],
    },
    "logs": {
        "level": [("LOUD", "A level is DEBUG, INFO, WARNING, ERROR or CRITICAL; here are all of them.")],
        "q": searched(200),
        "size": [("10000000000", NO_SIZE), ("9&level=x", f"here are all of them. {NO_SIZE}")],
    },
    "audit": {
        "verb": [("juggle", "Nobody can do that; here is everything that was done.")],
        "q": searched(150),
        "size": [("-1", NO_SIZE)],
        "older": [("nonsense", NO_PLACE), ("x&verb=juggle", f"that was done. {NO_PLACE}")],
        "newer": [("9999999999999999999-1", NO_PLACE)],
    },
}
"""By the name of a page and of a value that it reads: what it cannot be, and what the page says then."""

PARTS = {"runs-counts", "runs-facets", "activity", "schedule-preview"}
"""Parts of pages: asked for what the page is asked for, which tells what is wrong with it."""

OF_POLLS = {"seen", "after"}
"""Written by a page for its polls."""


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        pytest.param(name, f"{value}={bad}", said, id=f"{name} {value} {number}")
        for name, values in BAD.items()
        for value, each in values.items()
        for number, (bad, said) in enumerate(each)
    ],
)
def test_what_is_put_right_is_told(operators_client: Client, rows: Rows, name: str, query: str, said: str) -> None:
    response = operators_client.get(asked(rows.paths()[name], query), follow=True)
    text = response.content.decode()

    if name.startswith("runs-export"):
        assert response.status_code == 400
        assert said in html.unescape(text)
    else:
        assert response.status_code == 200
        assert said in banners(text)


def banners(text: str) -> str:
    """All that a page says of itself, where a screen reader hears it."""
    found = re.findall(r'<(p|div) [^>]*role="status"[^>]*>(.*?)</\1>', text, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", inner)) for _, inner in found).replace("  ", " ")


def test_every_value_that_a_page_reads_is_held_to_this(
    operators_client: Client, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    class Noting(QueryDict):
        def get(self, key: str, *default: Any) -> Any:
            read.add(key)
            return super().get(key, *default)

        def getlist(self, key: str, *default: Any) -> Any:
            read.add(key)
            return super().getlist(key, *default)

    monkeypatch.setattr("django.core.handlers.wsgi.QueryDict", Noting)
    found = {}
    for name, path in rows.paths().items():
        read.clear()
        status_of(operators_client.get(path))
        if name not in PARTS | {"login"}:  # whose one value is Django's own affair
            found[name] = read - OF_POLLS

    assert {name: names for name, names in found.items() if names} == {
        name: set(values) for name, values in BAD.items()
    }


def test_an_address_without_end_is_neither_read_nor_repeated(operators_client: Client, rows: Rows) -> None:
    many = operators_client.get(f"/audit/?{QUERIES['many']}")
    assert many.status_code == 400
    assert "The address has more values than any page reads." in many.content.decode()

    for query in (f"q={LONG}", f"nothing={LONG}", "&".join(["q=mara"] * 4_000)):
        for path in ("/audit/", "/stats/", "/failures/", "/runs/", f"/runs/{rows.ids['running']}/"):
            assert len(operators_client.get(asked(path, query)).content) < 200_000


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("schedule=1e9", "There is no such schedule."),
        ("schedule=2147483647", "There is no such schedule."),
        ("schedule_type=C&cron=61+*+*+*+*&time_zone=UTC", "cannot be read"),
        ("schedule_type=C&cron=" + LONG, "Cron: At most 100 characters."),
        ("schedule_type=juggle", "How often: Choose one of the list."),
        ("schedule_type=D&time_zone=UTC&next_run=30+February", "Give a date and a time"),
    ],
)
def test_a_preview_of_what_cannot_be_says_so(operators_client: Client, rows: Rows, query: str, said: str) -> None:
    response = operators_client.get(f"/schedules/preview/?{query}")

    assert (response.status_code, response.content.decode().count('class="field__error"')) == (200, 1)
    assert said in html.unescape(response.content.decode())


@pytest.mark.parametrize(
    "path",
    [
        f"/runs/{uuid.uuid4()}/", "/runs/1/", "/runs/activity/?about=order", f"/runs/activity/?about={LONG}",
        f"/runs/bulk/{uuid.uuid4()}/", "/failures/99999999999999999999/", "/schedules/99999999999999999999/",
        f"/workflows/{uuid.uuid4()}/", f"/launch/{'x' * 5_000}/",
    ],
    ids=lambda path: path[:20],
)  # fmt: skip
def test_what_is_not_there_is_told_to_be_gone(operators_client: Client, rows: Rows, path: str) -> None:
    response = operators_client.get(path)

    assert response.status_code == 404
    assert "The address is wrong, or what stood here is gone" in response.content.decode()


# And for each that is sent

CHOSEN = {"verb": "cancel", "all": "1", "query": ""}
WHY = {"why": LONG}
CUT = "Only the first 500 characters of the reason were kept."
TOO_LONG = "A reason has at most 500 characters."

SENT: list[tuple[str, dict[str, Any], str]] = [
    ("runs-steer", {}, "A run in the list can be cancelled, retried, and run now."),
    ("runs-steer", {"cancel": "nonsense"}, "The address is wrong, or what stood here is gone"),
    ("runs-steer", {"back": LONG}, "The list had more filters than can be gone back to; here are all runs."),
    ("runs-views", {"do": "explode"}, "A view can be saved, renamed and deleted."),
    ("runs-views", {"do": "save", "name": "x", "query": "state=unknown"}, "The filter is not understood. There is no"),
    ("runs-views", {"do": "save", "name": "x", "query": f"q={LONG}"}, "The filter is not understood. Only the first"),
    ("runs-views", {"do": "save", "name": LONG}, "A view's name has at most 60 characters."),
    ("runs-views", {"do": "rename", "view": "9" * 40}, "The address is wrong, or what stood here is gone"),
    ("runs-views", {"do": "rename", "view": "{view}", "name": " "}, "A view needs a name."),
    ("runs-bulk", {"verb": "juggle", "all": "1"}, "There is no “juggle” for runs. Runs can be retried,"),
    ("runs-bulk", {"verb": LONG, "all": "1"}, "for runs. Runs can be retried, cancelled,"),
    ("runs-bulk", {"verb": "cancel"}, "Tick the runs that are meant first."),
    (
        "runs-bulk",
        {"verb": "cancel", "id": ["x"], "back": "state=unknown"},
        "1 that is no run. There is no state “unknown”",
    ),
    ("runs-bulk", {"verb": "cancel", "id": [str(uuid.uuid4())] * 1_001}, "At most 1 000 runs can be ticked."),
    ("runs-bulk", {**CHOSEN, "query": "since=9999-99-99"}, "The filter is not understood. “9999-99-99” is no time"),
    ("runs-bulk", {**CHOSEN, "before": "9999-01-01T00:00:00+00:00"}, "When the list was opened cannot be told"),
    ("runs-bulk", {**CHOSEN, "before": LONG}, "When the list was opened cannot be told"),
    ("runs-bulk", {**CHOSEN, "back": f"q={LONG}"}, "Only the first 200 characters are searched for."),
    ("runs-bulk", {**CHOSEN, "sure": "1", **WHY}, "at most 500 characters"),
    ("runs-bulk", {**CHOSEN, "verb": "priority", "sure": "1", "priority": LONG}, "A priority is a whole number from"),
    ("runs-bulk", {**CHOSEN, "verb": "run-at", "sure": "1", "run_after": "25:61"}, "That is no time"),
    ("runs-bulk", {**CHOSEN, "verb": "move", "sure": "1", "queue": LONG}, "A queue's name has at most 100 characters."),
    ("run-cancel", WHY, CUT),
    ("run-delete", WHY, CUT),
    ("run-change", {"do": "explode"}, "A run that waits is given a priority, a queue or a time, or is run now."),
    ("run-change", {"do": "run-at", "run_after": LONG}, "That is no time"),
    ("run-change", {"do": "run-at", "run_after": "0001-01-01T00:00"}, "further away than any calendar reaches"),
    ("run-change", {"priority": "1e9"}, "A priority is a whole number, -100 to 100."),
    ("run-change", {"queue": LONG}, "A queue's name has at most 100 characters."),
    ("run-again", {"arg-type": "many"}, "whole number"),
    ("launch-task", {"arg-type": LONG}, "whole number"),
    ("launch-task", {"arg-type": "1", "priority": "1e9"}, "Give a whole number from -100 to 100."),
    ("launch-task", {"arg-type": "1", "queue": LONG}, "A queue's name has at most 100 characters."),
    ("launch-create_task", {"type": "9"}, "There are three kinds to choose from: 1 is short, 2 is medium, 3 is long."),
    ("launch-make_thumbnails", {"image": "x"}, "Choose a picture first."),
    ("failure-steer", {"do": "explode"}, "A failure can be dismissed, muted and opened again."),
    ("failure-steer", {"do": "mute", "days": "1e9"}, "A failure is muted for 1, 7 or 30 days or for good"),
    ("failure-steer", {"do": "dismiss", **WHY}, TOO_LONG),
    ("failure-steer", {"do": "dismiss", "next": "//example.com"}, "Where that was sent from is no page of this site"),
    ("queue-steer", {"do": "explode"}, "A queue can be paused, resumed, limited and drained."),
    ("queue-steer", {"do": "pause", "queue": LONG}, "The name of a queue has 1 to 100 characters."),
    ("queue-steer", {"do": "pause", "queue": "a", "minutes": "7"}, "A pause lasts until it is resumed"),
    ("queue-steer", {"do": "pause", "queue": "a", "until": "9999-99-99"}, "or until a date and time."),
    ("queue-steer", {"do": "pause", "queue": "a", "until": "0001-01-01T00:00"}, "lies ahead of now."),
    ("queue-steer", {"do": "pause", "queue": "a", **WHY}, TOO_LONG),
    ("queue-steer", {"do": "drain", **WHY}, TOO_LONG),
    ("queue-steer", {"do": "limit", "queue": "a", "most": LONG}, "A limit is a whole number from 1 to 10 000"),
    ("limit-steer", {"do": "explode", "task": TASK}, "A task can be paused, resumed and limited."),
    ("limit-steer", {"do": "pause", "task": LONG}, "There is no such task."),
    ("limit-steer", {"do": "pause", "task": TASK, **WHY}, TOO_LONG),
    ("limit-steer", {"do": "limit", "task": TASK, "rate": LONG}, "rate must be a number of runs"),
    ("limit-steer", {"do": "limit", "task": TASK, "rate": "1/m", "burst": LONG}, "is a whole number, from 1 on."),
    ("schedule-steer", {"do": "explode"}, "A schedule can be run now, paused, resumed and deleted."),
    ("schedule-steer", {"do": "pause", "minutes": "7"}, "A pause lasts until it is resumed, an hour, a day, a week"),
    ("schedule-steer", {"do": "pause", "until": "0001-01-01T00:00"}, "lies ahead"),
    ("schedule-steer", {"do": "pause", **WHY}, TOO_LONG),
    ("schedule", {"do": "explode"}, "A schedule is saved, or only looked at before."),
    ("schedule", {"cron": "61 * * * *", "schedule_type": "C"}, "The cron expression '61 * * * *' cannot be read"),
    ("schedule-new", {"do": "explode", "task": TASK}, "A schedule is saved, or only looked at before."),
    ("schedule-new", {"task": LONG}, "Choose the task that it runs."),
    ("worker-steer", {"do": "explode", "cluster": "{cluster}"}, "A cluster can grow, shrink, be quiet, go on, restart"),
    ("worker-steer", {"do": "stop", "cluster": LONG}, "That cluster is not known any more."),
    ("worker-steer", {"do": "resize", "cluster": "{cluster}", "to": LONG}, "A cluster has 0 to 256 workers."),
    ("worker-steer", {"do": "quiet", "cluster": "{cluster}", **WHY}, CUT),
    ("workflow-steer", {"do": "explode"}, "A workflow can be cancelled, and its failed steps retried."),
    ("workflow-steer", {"do": "cancel", **WHY}, CUT),
    ("theme", {"theme": LONG}, "There are three themes: system, light and dark."),
    ("refresh", {"seconds": "3"}, "Pages refresh every so many seconds, 0 for never: 0, 1, 2, 5, 15, 30, 60."),
    ("time-zone", {"zone": "Mars/Olympus"}, "There is no such time zone."),
    ("api-tasks", {"type": "9"}, "The body is not JSON"),
]


@pytest.mark.parametrize(
    ("name", "given", "said"), SENT, ids=[f"{name} {number}" for number, (name, *_) in enumerate(SENT)]
)
def test_what_is_refused_or_cut_is_told(
    operators_client: Client, rows: Rows, name: str, given: dict[str, Any], said: str
) -> None:
    own = {"{cluster}": str(Cluster.objects.get().pk), "{view}": str(rows.ids["view"])}
    filled = {key: own.get(value, value) if isinstance(value, str) else value for key, value in given.items()}

    response = operators_client.post(rows.paths()[name], filled, follow=True)

    assert response.status_code in {200, 400, 404, 422}
    text = html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))
    assert said in " ".join(text.split()).replace("\xa0", " ")


def test_only_operators_share_their_views(operators_client: Client, rows: Rows) -> None:
    mara = User.objects.create_user("mara")
    client = Client()
    client.force_login(mara)

    response = client.post("/runs/views/", {"do": "save", "name": "Mine", "is_shared": "on"}, follow=True)

    assert "Kept as “Mine”. For you alone: only operators share their views." in response.content.decode()
    assert not SavedView.objects.get(owner=mara).is_shared
