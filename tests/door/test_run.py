"""SUBMIT: any registered task, sent through the JSON door."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as small
from hypothesis import strategies as st

import tasks_app.tasks
from config.local import BASE_DIR
from tasks_app import backend
from tasks_app.masking import MASK
from tasks_app.models import Cluster, Status, TaskRun
from tests import outcomes, secretive, wishful

pytestmark = pytest.mark.django_db

SUCCEEDS = "tests.outcomes.succeeds"
FAILS = "tests.outcomes.fails"
PRACTICE = "tasks_app.tasks.practice.create_task"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own tasks are those of an installed app."""
    for module in (outcomes, secretive, wishful):
        monkeypatch.setattr(tasks_app.tasks, module.__name__.rpartition(".")[2], module, raising=False)


@pytest.fixture(autouse=True)
def cluster(db: None) -> Cluster:
    """A live cluster that takes from the queues `default` and `slow`."""
    now = timezone.now()
    return Cluster.objects.create(
        name="default", queues=["default", "slow"], host="web-1", pid=1, workers=4, started_at=now, heartbeat_at=now
    )


@pytest.fixture
def mara() -> User:
    """Someone who may launch tasks."""
    mara = User.objects.create_user("mara")
    mara.user_permissions.add(Permission.objects.get(codename="add_taskrun"))
    return mara


@pytest.fixture
def client(mara: User) -> Client:
    client = Client()
    client.force_login(mara)
    return client


def send(client: Client, body: Any, **headers: str) -> Any:
    sent = body if isinstance(body, bytes) else json.dumps(body)
    return client.post("/tasks/run", sent, content_type="application/json", headers=headers or None)


def assert_refused(response: Any, said: str = "", status: int = 422, runs: int = 0) -> None:
    """With one sentence, and there are as many runs as before."""
    assert response.status_code == status, response.content
    assert list(response.json()) == ["error"]
    sentence = response.json()["error"]
    assert sentence.endswith(".") and len(sentence) < 400, sentence
    assert said in sentence
    assert TaskRun.objects.count() == runs


# What is taken


def test_a_task_is_sent_with_all_that_may_stand_beside_it(client: Client, mara: User) -> None:
    later = timezone.now().replace(microsecond=0) + timedelta(hours=3)
    body = {
        "task": SUCCEEDS,
        "args": [1, {"deep": [None, True, 1.5]}],
        "kwargs": {"name": "Grüße 👋", "call": 2**70},
        "queue": "slow",
        "priority": -7,
        "run_after": later.isoformat(),
    }

    response = send(client, body)

    assert response.status_code == 201
    run = TaskRun.objects.get()
    assert response.json() == {"task_id": str(run.pk)}
    assert (run.task_path, run.args, run.kwargs, run.owner) == (SUCCEEDS, body["args"], body["kwargs"], mara)
    assert (run.queue_name, run.priority, run.run_after, run.status) == ("slow", -7, later, Status.READY)
    assert client.get(f"/tasks/{run.pk}").json()["task_status"] == "PENDING"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_the_task_alone_is_enough(client: Client, content_type: str) -> None:
    assert client.post("/tasks/run", json.dumps({"task": SUCCEEDS}), content_type=content_type).status_code == 201

    run = TaskRun.objects.get()
    assert (run.args, run.kwargs, run.queue_name, run.priority) == ([], {}, "default", 0)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("2090-03-29T02:30:00Z", datetime(2090, 3, 29, 2, 30, tzinfo=UTC)),
        ("2090-03-29 02:30+02:00", datetime(2090, 3, 29, 0, 30, tzinfo=UTC)),
        ("2090-03-29T02:30-23:59", datetime(2090, 3, 30, 2, 29, tzinfo=UTC)),  # further than PostgreSQL reads by itself
    ],
)
def test_a_moment_is_told_with_its_zone(client: Client, told: str, meant: datetime) -> None:
    assert send(client, {"task": SUCCEEDS, "run_after": told}).status_code == 201

    assert TaskRun.objects.get().run_after == meant


def test_a_text_of_200_kilobytes_comes_whole(client: Client) -> None:
    text = "ü" * 100_000

    assert send(client, {"task": SUCCEEDS, "args": [text]}).status_code == 201
    assert TaskRun.objects.get().args == [text]


@pytest.mark.parametrize("name", ["call", "self", "args", "kwargs", "task", "func", "owner"])
def test_a_keyword_may_have_any_name(client: Client, name: str) -> None:
    """Also one that something on the way has for its own."""
    assert send(client, {"task": SUCCEEDS, "kwargs": {name: 1}}).status_code == 201
    assert f"unexpected keyword argument '{name}'" in send(client, {"task": FAILS, "kwargs": {name: 1}}).json()["error"]


def test_the_same_key_answers_the_same_run(client: Client) -> None:
    body = {"task": SUCCEEDS, "args": [1]}
    first, again = (send(client, body, **{"Idempotency-Key": "once"}) for _ in range(2))
    other = send(client, {**body, "args": [2]}, **{"Idempotency-Key": "once"})

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert ("Idempotent-Replayed" in first, again["Idempotent-Replayed"]) == (False, "true")
    assert (other.status_code, "Take a new one." in other.json()["error"]) == (422, True)
    assert TaskRun.objects.count() == 1


def test_a_unique_task_answers_the_run_that_stands(client: Client) -> None:
    body = {"task": "tests.wishful.reminds", "args": [7]}
    first, again = send(client, body), send(client, {**body, "kwargs": {"text": "other"}})

    assert (again.json(), again["Idempotent-Replayed"]) == (first.json(), "true")
    assert send(client, body, **{"Idempotency-Key": "once"}).status_code == 422
    assert TaskRun.objects.count() == 1


# Whether somebody takes it


@pytest.mark.parametrize(
    ("queue", "wish", "said"),
    [
        ("nope", {}, "No live worker takes from the queue nope. It waits until one does."),
        ("a\u202eb", {}, "No live worker takes from the queue a[202e]b. It waits until one does."),
        ("slow", {"stopped_at": timezone.now()}, "No live worker takes from the queue slow. It waits until one does."),
        (
            "slow",
            {"desired_state": "quiet"},
            "Nobody takes from the queue slow now. 1 cluster would, but was asked to take nothing more: it waits",
        ),
        (
            "slow",
            {"desired_workers": 0},
            "Nobody takes from the queue slow now. 1 cluster would, but keeps no worker: it waits",
        ),
    ],
)
def test_a_queue_that_nobody_takes_from_is_told_with_the_answer(
    client: Client, cluster: Cluster, queue: str, wish: dict[str, Any], said: str
) -> None:
    Cluster.objects.filter(pk=cluster.pk).update(**wish)

    response = send(client, {"task": SUCCEEDS, "queue": queue})

    assert response.status_code == 201
    until = " until that is changed." if wish.keys() & {"desired_state", "desired_workers"} else ""
    assert response.json() == {"task_id": str(TaskRun.objects.get().pk), "warning": said + until}


def test_what_has_ended_is_answered_without_a_warning(client: Client) -> None:
    body = {"task": SUCCEEDS, "queue": "nope"}
    assert "warning" in send(client, body, **{"Idempotency-Key": "once"}).json()
    TaskRun.objects.update(status=Status.SUCCESSFUL)

    assert list(send(client, body, **{"Idempotency-Key": "once"}).json()) == ["task_id"]


# Of which types the arguments are


@backend.task
def takes_all(
    names: list[str],
    times: int = 1,
    ratio: float = 1.0,
    loud: bool = False,
    price: Decimal | None = None,
    on: date | None = None,
    at: datetime | None = None,
    length: timedelta | None = None,
    key: UUID | None = None,
    how: Literal["kindly", "coldly"] = "kindly",
    more: dict[str, Any] | None = None,
    anything: Any = None,
    odd: int = "as the task has it",  # type: ignore[assignment]
    *rest: int,
    **named: int,
) -> None: ...


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tasks_app.tasks, "typed", SimpleNamespace(takes_all=takes_all), raising=False)
    return takes_all.module_path


@pytest.mark.parametrize(
    "kwargs",
    [
        {"names": []},
        {"names": ["Ada", 7], "times": 2**70, "ratio": 2, "loud": True, "how": "coldly", "more": {"a": [1]}},
        {"names": [], "ratio": -0.5, "price": "19.90", "on": "2026-03-29", "at": "2026-03-29T02:30:00+00:00"},
        {"names": [], "length": "P0DT01H30M00S", "key": "6f1c8b0e-52d7-4a39-9c0b-1d2f3a4b5c6d", "anything": [{}]},
        {"names": [], "price": None, "more": None, "anything": None, "odd": "as the task has it", "other": "text"},
    ],
)
def test_arguments_of_the_types_of_the_form_are_taken(client: Client, takes: str, kwargs: dict[str, Any]) -> None:
    assert send(client, {"task": takes, "kwargs": kwargs}).status_code == 201
    assert TaskRun.objects.get().kwargs == kwargs


def test_arguments_by_position_are_looked_at_and_further_ones_are_not(client: Client, takes: str) -> None:
    assert_refused(send(client, {"task": takes, "args": [["Ada"], "2"]}), "times does not fit. Give a whole number")
    args = [["Ada"], 2, 1.5, True, None, None, None, None, None, "kindly", None, None, 1, "rest", {}]
    assert send(client, {"task": takes, "args": args}).status_code == 201


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"names": "Ada"}, 'names does not fit. Give a list as JSON, such as [1, "two"].'),
        ({"names": None}, "names does not fit. Give a list"),
        ({"names": {}}, "names does not fit. Give a list"),
        ({"times": "2"}, "times does not fit. Give a whole number, such as 42."),
        ({"times": 2.0}, "times does not fit."),
        ({"times": True}, "times does not fit."),
        ({"times": None}, "times does not fit."),
        ({"ratio": "2"}, "ratio does not fit. Give a number, such as 2.5."),
        ({"loud": 1}, "loud does not fit. Give one of true, false."),
        ({"price": 19.9}, "price does not fit. Give a decimal number, such as 19.90. The task gets it as text."),
        ({"price": "cheap"}, "price does not fit."),
        ({"on": "29 March"}, "on does not fit. Give a date, such as 2026-03-29."),
        ({"at": 1_790_000_000}, "at does not fit. Give a date and a time"),
        ({"length": "long"}, "length does not fit. Give a length of time"),
        ({"key": "x" * 100_000}, "key does not fit. Give a UUID"),
        ({"how": "warmly"}, 'how does not fit. Give one of "kindly", "coldly".'),
        ({"how": ["kindly"]}, "how does not fit."),
        ({"more": []}, "more does not fit. Give a mapping as JSON"),
        ({"odd": "else"}, "odd does not fit. Give a whole number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_of_other_types_are_refused_with_a_sentence(
    client: Client, takes: str, kwargs: dict[str, Any], said: str
) -> None:
    assert_refused(send(client, {"task": takes, "kwargs": {"names": [], **kwargs}}), said)


# What is refused

TASK = b'{"task": "tests.outcomes.succeeds", '


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"task=x", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"task": "\xff"}', "not JSON"),
        (b"null", "not an object"),
        (b"[1]", "not an object"),
        (b'"tests.outcomes.succeeds"', "not an object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (TASK + b'"args": ' + b"[" * 400 + b"]" * 400 + b"}", "nested too deep"),
        (TASK + b'"kwargs": {"x": ' + b"[" * 200 + b"]" * 200 + b"}}", "nested too deep"),
        (TASK + b'"args": [NaN]}', "JSON has no NaN."),
        (TASK + b'"args": [-Infinity]}', "JSON has no -Infinity."),
        (TASK + b'"args": [1e999]}', "The number 1e999 is too large."),
        (TASK + b'"args": [' + b"9" * 5_000 + b"]}", "not JSON that can be read"),
        (TASK + b'"args": ["a\\u0000b"]}', "NUL"),
        (TASK + b'"kwargs": {"a\\u0000b": 1}}', "NUL"),
        (TASK + b'"args": ["\\ud800"]}', "half of a surrogate pair"),
        (TASK + b'"kwargs": {"\\ud800": 1}}', "half of a surrogate pair"),
        (TASK + b'"args": ["\xed\xa0\x80"]}', "half of a surrogate pair"),
        (TASK + b'"args": ["' + b"x" * 1_100_000 + b'"]}', "more than the 1,000,000 allowed"),
        (TASK + b'"args": ["' + b"x" * 3_000_000 + b'"]}', "The body is too large."),
        (TASK + b'"task": "tests.outcomes.fails"}', "The key task stands twice in one object"),
        (TASK + b'"kwargs": {"a": [{"b": 1, "c": 2, "b": 1}]}}', "The key b stands twice"),
        (TASK + b'"kwargs": {"\\u202e": 1, "\\u202e": 2}}', "The key [202e] stands twice"),
        (TASK + b'"arguments": [1]}', "There is no field arguments: a body has task, args,"),
        (TASK + b'"about": "auth.user:1"}', "There is no field about"),
        (TASK + b'"' + b"x" * 200_000 + b'": 1}', "There is no field xxx"),
        (TASK + b'"\\u202e\\ud800": 1}', "There is no field [202e]"),
    ],
    ids=lambda value: value[-30:].decode("latin1") if isinstance(value, bytes) else "",
)
def test_a_body_that_is_not_understood_is_a_sentence(client: Client, body: bytes, said: str) -> None:
    assert_refused(send(client, body), said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": None}, "task is the path of a task"),
        ({"task": 7}, "task is the path of a task"),
        ({"task": [SUCCEEDS]}, "task is the path of a task"),
        ({"task": ""}, "There is no task"),
        ({"task": "shop.tasks.greet"}, "There is no task shop.tasks.greet."),
        ({"task": "os.system"}, "There is no task os.system."),
        ({"task": "tests.outcomes.plain"}, "There is no task"),
        ({"task": f" {SUCCEEDS}"}, "There is no task"),
        ({"task": "x" * 200_000}, "There is no task xxx"),
        ({"task": "a\x00\u202eb"}, "There is no task a␀[202e]b."),
        ({"task": "tasks_app.tasks.upkeep.prune_runs"}, "an internal task"),
        ({"args": None}, "args is a list"),
        ({"args": {}}, "args is a list"),
        ({"args": "abc"}, "args is a list"),
        ({"kwargs": []}, "kwargs is an object"),
        ({"kwargs": "x=1"}, "kwargs is an object"),
        ({"priority": 1.0}, "priority must be a whole number."),
        ({"priority": 1.5}, "priority must be a whole number."),
        ({"priority": "1"}, "priority must be a whole number."),
        ({"priority": True}, "priority must be a whole number."),
        ({"priority": 101}, "between -100 and 100."),
        ({"priority": 10**400}, "between -100 and 100."),
        ({"queue": ""}, "A queue's name has 1 to 100 characters"),
        ({"queue": 7}, "A queue's name has 1 to 100 characters"),
        ({"queue": ["a"]}, "A queue's name has 1 to 100 characters"),
        ({"queue": "q" * 101}, "A queue's name has 1 to 100 characters"),
        ({"queue": "a\x00"}, "A queue's name has 1 to 100 characters"),
        ({"queue": "\ud800"}, "A queue's name has 1 to 100 characters"),
        ({"run_after": "tomorrow"}, "run_after is a date and a time with their zone"),
        ({"run_after": "2026-02-30T00:00:00Z"}, "run_after is a date and a time with their zone"),
        ({"run_after": "2026-03-29T02:30"}, "run_after is a date and a time with their zone"),
        ({"run_after": "2026-03-29"}, "run_after is a date and a time with their zone"),
        ({"run_after": 1_790_000_000}, "run_after is a date and a time with their zone"),
        ({"run_after": ""}, "run_after is a date and a time with their zone"),
        ({"run_after": "\ud800"}, "run_after is a date and a time with their zone"),
        ({"run_after": "2" * 200_000}, "run_after is a date and a time with their zone"),
        ({"run_after": "0001-01-01T00:00:00+23:59"}, "between the years 1900 and 9000"),
        ({"run_after": "9999-12-31T23:59:59-23:59"}, "between the years 1900 and 9000"),
        ({"task": FAILS, "args": [1, 2]}, "fails cannot be called with these arguments: too many positional"),
        ({"task": FAILS, "kwargs": {"colour": 1}}, "got an unexpected keyword argument 'colour'."),
        ({"task": FAILS, "kwargs": {"x" * 200_000: 1}}, "fails cannot be called with these arguments"),
        ({"task": FAILS, "args": ["a"], "kwargs": {"text": "b"}}, "multiple values for argument 'text'."),
        ({"task": "tests.outcomes.sleeps"}, "missing a required argument: 'seconds'."),
        ({"task": PRACTICE}, "missing a required argument: 'type'."),
        ({"task": PRACTICE, "kwargs": {"type": 1, "context": 1}}, "multiple values for argument 'context'."),
        ({"task": "tests.secretive.signs_in", "args": ["u", MASK]}, f"Write what belongs in place of {MASK}"),
        ({"task": "tests.secretive.signs_in", "args": ["u", "p", {"token": MASK}]}, "Write what belongs"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_what_no_run_can_be_made_of_is_a_sentence(client: Client, given: dict[str, Any], said: str) -> None:
    assert_refused(send(client, {"task": SUCCEEDS, **given}), said)


def test_a_task_must_be_named(client: Client) -> None:
    assert_refused(send(client, {"args": []}), "task is the path of a task")


def test_a_bad_key_is_a_sentence(client: Client) -> None:
    for key in ("", "k" * 256, "a\x7fb"):
        assert_refused(send(client, {"task": SUCCEEDS}, **{"Idempotency-Key": key}), "An idempotency key has 1 to 255")


def test_other_methods_are_told_what_the_address_takes(client: Client) -> None:
    for method in (client.get, client.put, client.delete):
        response = method("/tasks/run")
        assert (response.status_code, response["Allow"]) == (405, "POST")
    assert client.post("/tasks/run/", b"{}", content_type="text/plain").status_code == 405  # as of any id


# Whatever comes: a run that has all of it, or a sentence

TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(["args", "kwargs", "task", "\ud800", "\0", MASK])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {"task": st.sampled_from([SUCCEEDS] * 4 + [FAILS, PRACTICE]) | VALUES},
    optional={
        "args": st.lists(VALUES, max_size=3) | VALUES,
        "kwargs": st.dictionaries(TEXTS, VALUES, max_size=3) | VALUES,
        "queue": TEXTS | VALUES,
        "priority": st.integers(-120, 120) | VALUES,
        "run_after": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | VALUES,
    },
)


@small(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
def test_any_body_is_taken_whole_or_refused_with_a_sentence(client: Client, body: dict[str, Any]) -> None:
    before = TaskRun.objects.count()
    response = send(client, body)

    if response.status_code == 201:
        run = TaskRun.objects.get(pk=response.json()["task_id"])
        body = json.loads(json.dumps(body))  # two halves of a pair are one character
        assert (run.args, run.kwargs) == (body.get("args", []), body.get("kwargs", {}))
        assert run.queue_name == (body.get("queue") or "default")
        assert run.priority == (body.get("priority") or 0)
    else:
        assert_refused(response, runs=before)


# Who may


def test_a_person_may_what_the_launch_page_lets_them() -> None:
    client = Client()
    client.force_login(User.objects.create_user("tobias", is_staff=True))

    for task in (SUCCEEDS, PRACTICE, "no.such.task"):
        assert client.get(f"/launch/{task}/").status_code == 403
        assert_refused(send(client, {"task": task}), "That needs the permission to add runs.", 403)
    assert_refused(send(client, b"{"), "That needs the permission to add runs.", 403)
    assert client.post("/tasks", b'{"type": 1}', content_type="text/plain").status_code == 201


def test_a_guest_of_open_access_may_all(settings: Any) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True

    assert send(Client(), {"task": SUCCEEDS}).status_code == 201
    assert TaskRun.objects.get().owner is None


def test_without_credentials_it_is_401() -> None:
    response = send(Client(), {"task": SUCCEEDS})

    assert_refused(response, "Log in, or send a token", 401)
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_page_of_another_site_cannot_use_a_session(client: Client) -> None:
    for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
        assert_refused(send(client, {"task": SUCCEEDS}, Origin=origin), "another site", 403)
    assert send(client, {"task": SUCCEEDS}, Origin="http://testserver").status_code == 201


TOKEN = {"Authorization": "Bearer first-token"}


@pytest.mark.parametrize("named", [[], ["shop.tasks.*"], ["succeeds"], ["tests.outcomes"], ["tests.outcomes.Succeeds"]])
def test_a_token_may_send_nothing_that_is_not_named(settings: Any, named: list[str]) -> None:
    settings.API_TOKENS, settings.API_TOKENS_MAY_LAUNCH = ["first-token"], named
    client = Client(enforce_csrf_checks=True)

    for task in (SUCCEEDS, PRACTICE, "no.such.task", "x" * 200_000):
        said = "API_TOKENS_MAY_LAUNCH does not name it."
        assert_refused(send(client, {"task": task, "kwargs": {"type": 1}}, **TOKEN), said, 403)
    assert client.post("/tasks", b'{"type": 1}', content_type="text/plain", headers=TOKEN).status_code == 201


@pytest.mark.parametrize("named", [[SUCCEEDS], ["a.b", "tests.*"], ["*"], ["*.succeeds"]])
def test_a_token_may_send_what_is_named(settings: Any, named: list[str]) -> None:
    settings.API_TOKENS, settings.API_TOKENS_MAY_LAUNCH = ["first-token"], named
    client = Client(enforce_csrf_checks=True)

    response = send(client, {"task": SUCCEEDS, "args": [1]}, **TOKEN)

    run = TaskRun.objects.get()
    assert (response.status_code, response.json()) == (201, {"task_id": str(run.pk)})
    assert (run.owner, run.args) == (None, [1])
    assert client.get(f"/tasks/{run.pk}", headers=TOKEN).json()["task_status"] == "PENDING"
    assert send(client, {"task": SUCCEEDS}, Authorization="Bearer second-token").status_code == 401


def test_no_name_opens_what_is_internal_or_not_there(settings: Any) -> None:
    settings.API_TOKENS, settings.API_TOKENS_MAY_LAUNCH = ["first-token"], ["*"]

    assert_refused(send(Client(), {"task": "tasks_app.tasks.upkeep.prune_runs"}, **TOKEN), "an internal task")
    assert_refused(send(Client(), {"task": "os.system", "args": ["true"]}, **TOKEN), "There is no task os.system.")


# The README's example


def test_the_example_of_the_readme_does_what_it_says(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"```sh\n(curl -X POST .*?)```", (BASE_DIR / "README.md").read_text(), re.DOTALL)
    assert found
    words = shlex.split(found[1])
    monkeypatch.setattr("tasks_app.wanted.find_launchable", {"shop.tasks.greet": outcomes.succeeds}.__getitem__)

    assert words[3].endswith("/tasks/run")
    assert send(client, words[-1].encode()).status_code == 201
    assert TaskRun.objects.get().args == [["Ada", "Grace"]]
