"""WATCH: a run as a command to be copied."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client, RequestFactory

import tasks_app.tasks
from tasks_app.copied import MOST, as_curl, as_python
from tasks_app.masking import MASK
from tasks_app.models import TaskRun
from tasks_app.workflows import chain
from tests import flows, outcomes, secretive
from tests.pages.conftest import RunFactory
from tests.pages.test_run_page import page_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own tasks are those of an installed app."""
    for module in (outcomes, secretive):
        monkeypatch.setattr(tasks_app.tasks, module.__name__.rpartition(".")[2], module, raising=False)


def sent(command: str) -> tuple[str, Any]:
    """Where a curl command leads, and what it sends there."""
    words = shlex.split(command)
    return words[3], json.loads(words[-1])


def curl(run: TaskRun) -> str:
    return as_curl(run, RequestFactory().get("/"))


# For the shell


def test_the_practice_task_keeps_its_short_form(run: RunFactory) -> None:
    assert sent(curl(run(kwargs={"type": 3}))) == ("http://testserver/tasks", {"type": 3})


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"priority": 5}, {"kwargs": {"type": 3}, "priority": 5}),
        ({"queue_name": "slow"}, {"kwargs": {"type": 3}, "queue": "slow"}),
        ({"kwargs": {"type": 9}}, {"kwargs": {"type": 9}}),
        ({"kwargs": {"type": True}}, {"kwargs": {"type": True}}),
        ({"kwargs": {}, "args": [1]}, {"args": [1]}),
    ],
)
def test_what_the_short_form_cannot_say_has_the_long_one(run: RunFactory, fields: Any, body: Any) -> None:
    address, told = sent(curl(run(**fields)))

    assert address == "http://testserver/tasks/run"
    assert told == {"task": "tasks_app.tasks.practice.create_task", **body}


def test_any_other_task_is_told_with_what_differs_from_its_own(run: RunFactory) -> None:
    told = sent(curl(run(task_path="tests.outcomes.succeeds", args=["it's", ""], kwargs={"a b": None})))

    body = {"task": "tests.outcomes.succeeds", "args": ["it's", ""], "kwargs": {"a b": None}}
    assert told == ("http://testserver/tasks/run", body)


def test_its_secrets_are_masked(run: RunFactory) -> None:
    args = ["u", "hunter2", {"token": "hunter2"}]

    command = curl(run(task_path="tests.secretive.signs_in", args=args, kwargs={}))

    assert "hunter2" not in command
    assert sent(command)[1]["args"] == ["u", MASK, {"token": MASK}]


def test_all_that_cannot_be_seen_is_escaped(run: RunFactory) -> None:
    text = "".join(map(chr, (*range(1, 32), *range(127, 160), 0xAD, 0x61C, 0x200B, 0x2028, 0x202E, 0xFEFF, 0xE0001)))

    command = curl(run(task_path="tests.outcomes.succeeds", args=[text, "Grüße"], kwargs={text: 1}))

    assert all(line.isprintable() for line in command.split("\n"))
    assert "Grüße" in command
    assert sent(command)[1]["args"][0] == text
    assert sent(command)[1]["kwargs"] == {text: 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"task_path": "shop.tasks.sell", "kwargs": {}},
        {"task_path": "tests.outcomes.plain", "args": [1], "kwargs": {}},  # a function, and no task
        {"task_path": "tasks_app.tasks.upkeep.prune_runs", "kwargs": {}},  # internal
        {"kwargs": {"colour": 1}},  # the task has changed since
        {"args": {}, "kwargs": []},
        {"task_path": "tests.outcomes.succeeds", "args": ["x" * MOST]},
    ],
)
def test_a_run_that_the_door_does_not_take_has_none(client: Client, run: RunFactory, fields: Any) -> None:
    shown = run(**fields)

    assert curl(shown) == ""
    assert "copy-curl" not in page_of(client, shown)


# For Python


@pytest.fixture
def crew() -> Group:
    return Group.objects.create(name="Night crew")


def test_what_it_is_about_is_found_again(run: RunFactory, crew: Group) -> None:
    told = as_python(run(about=f"auth.group:{crew.pk}", priority=5))
    told = told.replace("tasks_app.tasks.practice", "tasks_app.tasks")

    assert told.splitlines() == [
        "from tasks_app.tasks import create_task",
        "from django.contrib.auth.models import Group",
        "",
        f"create_task.using(priority=5, about=Group.objects.get(pk={crew.pk})).enqueue(type=3)",
    ]
    exec(told, {})
    assert [(run.about, run.priority) for run in TaskRun.objects.all()] == [(f"auth.group:{crew.pk}", 5)] * 2


def test_so_is_one_whose_key_is_no_number(run: RunFactory) -> None:
    about = f"tasks_app.workflow:{chain(flows.adds.step(1)).enqueue().pk}"
    told = as_python(run(about=about))

    assert f"about=Workflow.objects.get(pk={about.partition(':')[2]!r})" in told
    exec(told, {})
    assert TaskRun.objects.filter(about=about).count() == 2


@pytest.mark.parametrize(
    "about", [None, "", "x", "shop.order:7", "auth.group:seven", "auth.group:", "a.b.c:1", "'); evil(:1", "\x00:\u202e"]
)
def test_what_cannot_be_found_again_is_left_out(run: RunFactory, about: str | None) -> None:
    shown = run()
    shown.about = about  # PostgreSQL would not keep each of them

    assert as_python(shown).endswith("\n\ncreate_task.enqueue(type=3)")


def test_what_is_the_tasks_own_is_not_said_again(run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    own = outcomes.succeeds.using(priority=5, queue_name="slow")
    monkeypatch.setattr(outcomes, "succeeds", own)
    told = [
        as_python(run(task_path="tests.outcomes.succeeds", kwargs={}, **fields))
        for fields in ({"priority": 5, "queue_name": "slow"}, {"priority": 0, "queue_name": "default"})
    ]

    assert told[0].endswith("succeeds.enqueue()")
    assert told[1].endswith("succeeds.using(priority=0, queue_name='default').enqueue()")
