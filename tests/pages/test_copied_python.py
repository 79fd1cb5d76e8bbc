"""WATCH: what a page offers to be copied as Python sends a run of the same, when somebody runs it."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.test import Client

from tasks_app.models import TaskRun
from tests import outcomes
from tests.flows import adds
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db

PRACTICE = "tasks_app.tasks.practice.create_task"
SUCCEEDS = outcomes.succeeds.module_path
PLAIN = "tests.outcomes.plain"

ODD: Any = {
    "quotes": 'it\'s "so" \\ and so',
    "lines": "one\ntwo\r\n\ttab",
    "unseen": "\u202egpj.exe\x1b[31m",
    "letters": "naïve 日本 🙂",
    "nothing": None,
    "truth": [True, False],
    "figures": [0, -1, 1.5, 2**60],
    "deep": {"a": {"b": [{"c": []}]}, "": {}},
    "class": 7,
    "not a name": "'; import os",
}


def offered(client: Client, run: TaskRun) -> str:
    """The text that the button copies; empty where there is none."""
    page = client.get(f"/runs/{run.pk}/").content.decode()
    found = re.search(r'<pre class="code" id="as-python" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    assert bool(found) == ('data-copy="#as-python"' in page)
    return html.unescape(found[1]) if found else ""


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PRACTICE, {"kwargs": {"type": 3}}),
        (PRACTICE, {"kwargs": {"type": 3}, "priority": -7, "queue_name": "slow 'lane'"}),
        (adds.module_path, {"args": [1, [2, 3], 4.5], "kwargs": {}}),
        (SUCCEEDS, {"args": [ODD, *ODD.values()], "kwargs": ODD}),
        (SUCCEEDS, {"args": [], "kwargs": {}}),
        (outcomes.progresses.module_path, {"args": ["/tmp/gate"], "kwargs": {}}),
        (PLAIN, {"args": [21], "kwargs": {}}),
        (PLAIN, {"args": [], "kwargs": {"number": 21}, "queue_name": "slow"}),
    ],
)
def test_the_python_of_a_page_sends_the_same(client: Client, run: RunFactory, path: str, fields: Any) -> None:
    shown = run(task_path=path, **{**SITUATIONS["failed"], **fields})
    shown.refresh_from_db()

    exec(offered(client, shown), {})  # as `manage.py shell` would

    sent = TaskRun.objects.exclude(pk=shown.pk).get()
    told = ("task_path", "args", "kwargs", "priority", "queue_name")
    assert [getattr(sent, name) for name in told] == [getattr(shown, name) for name in told]
    assert (sent.status, sent.attempt) == ("READY", 0)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("not a path", {}),
        ("shop.class.sell", {}),
        (PLAIN, {"kwargs": {"timeout": 3}}),  # which would be an option of the run
        (SUCCEEDS, {"args": ["x" * 5_000]}),
    ],
)
def test_what_cannot_be_written_is_not_offered(client: Client, run: RunFactory, path: str, fields: Any) -> None:
    assert offered(client, run(task_path=path, **fields)) == ""
