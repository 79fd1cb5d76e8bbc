"""WATCH: the lengths of time on the page of the statistics, told of histograms whose quantiles are known.

A bucket of a histogram ends at a power of the root of two in milliseconds. Of a hundred runs here 50, 45, 4 and 1 have
each a length just below a whole power of two. So half of them, 95 and 99 of a hundred fill their buckets to the end,
and the quantiles are these ends themselves, whatever is done between them.
"""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta

import pytest
from django.test import Client

from tasks_app import wording
from tasks_app.clock import database_now
from tasks_app.stats import WINDOWS
from tests.figures import all_counted, counted

pytestmark = pytest.mark.django_db

WINDOW = WINDOWS["24h"]

# How many runs waited and ran for how many seconds
GREET = ((50, 0.25, 1.0), (45, 0.5, 4.0), (4, 2.0, 16.0), (1, 8.0, 60.0))
SEND = ((50, 0.25, 0.125), (45, 0.5, 2.0), (4, 4.0, 8.0), (1, 16.0, 30.0))

# p50, p95 and p99: 2^8, 2^9 and 2^11 ms; 2^10, 2^12 and 2^14 ms; and so on
GREET_WAITS, GREET_RUNS = ["0.3 s", "0.5 s", "2.0 s"], ["1.0 s", "4.1 s", "16.4 s"]
SEND_WAITS, SEND_RUNS = ["0.3 s", "0.5 s", "4.1 s"], ["0.1 s", "2.0 s", "8.2 s"]
# Of both together: the 100th, the 190th and the 198th of 200
WAITS, RUNS = ["0.3 s", "0.5 s", "4.1 s"], ["1.0 s", "4.1 s", "16.4 s"]


@pytest.fixture
def at() -> datetime:
    """When the bar begins in which `greet` ended; `send` did in the next one but one."""
    now = database_now()
    all_counted(now)
    begin = WINDOW.begin(now) + 4 * WINDOW.length
    for runs, waited, ran in GREET:
        counted(begin, runs, waited=waited, ran=ran)
    for runs, waited, ran in SEND:
        counted(begin + 2 * WINDOW.length, runs, task="shop.tasks.send", queue="mail", waited=waited, ran=ran)
    return begin


def page(client: Client, query: str = "") -> str:
    response = client.get(f"/stats/?window={WINDOW.name}&{query}")
    assert response.status_code == 200
    return html.unescape(response.content.decode()).replace(wording.NBSP, " ")


def part(text: str, name: str) -> str:
    found = re.search(rf'<section class="card[^"]*" id="{name}".*?</section>', text, re.DOTALL)
    assert found
    return found[0]


def table(text: str) -> dict[str, dict[str, str]]:
    """By what stands before each row, its cells by their heads."""
    heads = [plain(head) for head in re.findall(r"<th [^>]*scope=\"col\"[^>]*>(.*?)</th>", text, re.DOTALL)][1:]
    found = {}
    for name, cells in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text, re.DOTALL):
        values = [plain(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, re.DOTALL)]
        found[plain(name)] = dict(zip(heads, values, strict=True))
    return found


def plain(fragment: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", fragment).split())


def three(row: dict[str, str], what: str = "") -> list[str]:
    return [row[f"{what}{name}"] for name in ("p50", "p95", "p99")]


def label(at: datetime) -> str:
    return wording.bar_label(at, WINDOW.span)


def test_the_tiles_tell_them_of_all_together(operators_client: Client, at: datetime) -> None:
    tiles = dict(re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", page(operators_client), re.DOTALL))

    assert plain(tiles["Waits, p95"]) == f"{WAITS[1]} p50 {WAITS[0]}, p99 {WAITS[2]}"
    assert plain(tiles["Runs, p95"]) == f"{RUNS[1]} p50 {RUNS[0]}, p99 {RUNS[2]}"


def test_the_tiles_compare_with_the_window_before(operators_client: Client, at: datetime) -> None:
    counted(at - WINDOW.span, 100, waited=1.0, ran=8.0)

    tiles = dict(re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", page(operators_client), re.DOTALL))

    # 95 of a hundred in one bucket, from 2^9.5 to 2^10 ms and from 2^12.5 to 2^13 ms: 2^9.975 and 2^12.975 ms.
    assert plain(tiles["Waits, p95"]).endswith("p95 1.0 s before")
    assert plain(tiles["Runs, p95"]).endswith("p95 8.1 s before")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tasks", {"greet": (GREET_WAITS, GREET_RUNS), "send": (SEND_WAITS, SEND_RUNS)}),
        ("queues", {"default": (GREET_WAITS, GREET_RUNS), "mail": (SEND_WAITS, SEND_RUNS)}),
    ],
)
def test_the_tables_tell_them_of_each(
    operators_client: Client, at: datetime, name: str, rows: dict[str, tuple[list[str], list[str]]]
) -> None:
    found = table(part(page(operators_client), name))

    assert {each: (three(row, "Waits "), three(row, "Runs ")) for each, row in found.items()} == rows


@pytest.mark.parametrize(
    ("name", "greet", "send"),
    [("run-time", GREET_RUNS, SEND_RUNS), ("wait-time", GREET_WAITS, SEND_WAITS)],
)
def test_each_drawing_has_its_table(
    operators_client: Client, at: datetime, name: str, greet: list[str], send: list[str]
) -> None:
    found = table(part(page(operators_client), name))

    assert {each: three(row) for each, row in found.items()} == {
        label(at): greet,
        label(at + 2 * WINDOW.length): send,
    }


def test_all_three_are_drawn_to_scale(operators_client: Client, at: datetime) -> None:
    chart = part(page(operators_client), "run-time")

    # 16.384 s fit below 18, three steps of 6. Of 24 bars 23 steps wide 720 units, and 100 high: dots, as nothing ended
    # in the bars beside them.
    assert re.findall(r"<span>([^<]*)</span>", chart)[:4] == ["18 s", "12 s", "6 s", "0"]
    first, second = f"{4 * 720 / 23:.1f}", f"{6 * 720 / 23:.1f}"
    drawn = dict(re.findall(r'<path class="(l-p\d\d)" d="(M[\d. ]+h1M[\d. ]+h1)"/>', chart))
    assert drawn == {
        "l-p50": f"M{first} 94.3h1M{second} 99.3h1",  # 1.024 and 0.128 of 18
        "l-p95": f"M{first} 77.2h1M{second} 88.6h1",  # 4.096 and 2.048
        "l-p99": f"M{first} 9.0h1M{second} 54.5h1",  # 16.384 and 8.192
    }
    legend = re.search(r'<ul class="legend">(.*?)</ul>', chart, re.DOTALL)
    assert legend
    assert re.findall(r'class="(l-p\d\d)"[^>]*/></svg>(p\d\d)</li>', legend[1]) == [
        ("l-p50", "p50"), ("l-p95", "p95"), ("l-p99", "p99"),
    ]  # fmt: skip
    assert f"the slowest twentieth took longest at {label(at)}, 4.1 s and more." in chart


def test_a_chosen_task_is_told_alone(operators_client: Client, at: datetime) -> None:
    text = page(operators_client, "task=shop.tasks.send")

    assert {each: three(row) for each, row in table(part(text, "run-time")).items()} == {
        label(at + 2 * timedelta(hours=1)): SEND_RUNS
    }
    assert f"p99 {SEND_RUNS[2]}" in text
