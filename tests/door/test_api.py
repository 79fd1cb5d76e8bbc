"""The JSON door, as the predecessor's clients know it."""

import json
import time
import urllib.request
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tasks_app.models import Failure, Status, TaskRun
from tests.plugins.processes import ClusterFactory, WebFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def mara() -> User:
    return User.objects.create_user("mara")


@pytest.fixture
def client(mara: User) -> Client:
    client = Client()
    client.force_login(mara)
    return client


def run_of(owner: User | None, status: Status, **fields: Any) -> TaskRun:
    now = timezone.now()
    return TaskRun.objects.create(
        task_path="tasks_app.tasks.practice.create_task",
        owner=owner,
        status=status,
        enqueued_at=now,
        run_after=now,
        **fields,
    )


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_post_enqueues_the_type(client: Client, mara: User, kind: int, content_type: str) -> None:
    response = client.post("/tasks", json.dumps({"type": kind}), content_type=content_type)

    assert response.status_code == 201
    run = TaskRun.objects.get()
    assert response.json() == {"task_id": str(run.pk)}
    assert (run.task_path, run.kwargs, run.owner) == ("tasks_app.tasks.practice.create_task", {"type": kind}, mara)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"[1]", b'"1"', b"{}", b'{"kind": 1}', b'{"type": null}', b'{"type": -1}',
        b'{"type": 4}', b'{"type": 1.0}',
        b'{"type": 1.5}', b'{"type": "1"}', b'{"type": true}', b'{"type": false}', b'{"type": [1]}',
        b'{"type": 1e999}', b'{"type": NaN}', b'{"type": ' + b"9" * 5000 + b"}", b"\xff\xfe\x00", b"[" * 100_000,
        b'{"type": 1, "x": "' + b"x" * 3_000_000 + b'"}', b"type=1",
    ],
    ids=lambda body: body[:20].decode("latin1"),
)  # fmt: skip
def test_post_refuses_any_other_body_with_a_sentence(client: Client, body: bytes) -> None:
    response = client.post("/tasks", body, content_type="application/json")

    assert response.status_code == 422
    assert list(response.json()) == ["error"]
    assert response.json()["error"].endswith(".")
    assert not TaskRun.objects.exists()


@pytest.mark.parametrize(
    ("status", "fields", "word", "result"),
    [
        (Status.READY, {}, "PENDING", None),
        (Status.RUNNING, {}, "PENDING", None),
        (Status.SUCCESSFUL, {"return_value": True}, "SUCCESS", True),
        (Status.FAILED, {"failure": Failure.ERROR, "failure_message": "ValueError: no"}, "FAILURE", "ValueError: no"),
        (Status.CANCELLED, {}, "REVOKED", None),
    ],
)
def test_get_answers_three_keys_in_the_old_words(
    client: Client, mara: User, status: Status, fields: dict[str, Any], word: str, result: Any
) -> None:
    run = run_of(mara, status, **fields)

    response = client.get(f"/tasks/{run.pk}")

    assert response.status_code == 200
    assert response.json() == {"task_id": str(run.pk), "task_status": word, "task_result": result}
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("task_id", [str(uuid.uuid4()), "1", "nonsense", "%00", "x" * 5000, "..%2fadmin"])
def test_get_of_an_unknown_id_is_404_with_a_sentence(client: Client, task_id: str) -> None:
    response = client.get(f"/tasks/{task_id}")

    assert response.status_code == 404
    assert response.json() == {"error": "There is no such task."}


def test_get_of_a_foreign_run_is_404_except_for_staff(client: Client, mara: User) -> None:
    foreign = run_of(User.objects.create_user("otto"), Status.SUCCESSFUL)
    nobodys = run_of(None, Status.SUCCESSFUL)

    assert client.get(f"/tasks/{foreign.pk}").status_code == 404
    assert client.get(f"/tasks/{nobodys.pk}").status_code == 404
    mara.is_staff = True
    mara.save()
    assert client.get(f"/tasks/{foreign.pk}").status_code == 200


def test_without_credentials_it_is_401() -> None:
    for response in (Client().post("/tasks", b'{"type": 1}', content_type="text/plain"), Client().get("/tasks/1")):
        assert response.status_code == 401
        assert list(response.json()) == ["error"]
        assert response["WWW-Authenticate"] == "Bearer"


def test_a_token_opens_it_and_a_wrong_one_does_not(settings: Any) -> None:
    settings.API_TOKENS = ["first-token", "second-token"]
    good = {"Authorization": "Bearer second-token"}

    response = Client(enforce_csrf_checks=True).post("/tasks", b'{"type": 1}', content_type="text/plain", headers=good)
    assert response.status_code == 201
    assert TaskRun.objects.get().owner is None
    assert Client().get(f"/tasks/{response.json()['task_id']}", headers=good).json()["task_status"] == "PENDING"
    for wrong in ("Bearer third-token", "Bearer ", "Bearer first-token-and-more", "Basic second-token", "Bearer ü"):
        assert Client().get("/tasks/1", headers={"Authorization": wrong}).status_code == 401


def test_a_page_of_another_site_cannot_use_a_session(client: Client) -> None:
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://testserver", 201)):
        response = client.post("/tasks", b'{"type": 1}', content_type="text/plain", headers={"Origin": origin})
        assert response.status_code == status
    assert TaskRun.objects.count() == 1


def test_other_methods_are_told_what_the_address_takes(client: Client) -> None:
    assert client.get("/tasks").status_code == 405
    assert client.get("/tasks")["Allow"] == "POST"
    assert client.delete("/tasks/1").status_code == 405


@pytest.mark.django_db(transaction=True)
def test_the_predecessors_own_test_passes_against_a_live_server(web: WebFactory, qcluster: ClusterFactory) -> None:
    """Post type 1, poll while PENDING, then SUCCESS and true; without credentials, as on a machine of one's own."""
    address = web(OPEN_ACCESS=1)
    qcluster(PRACTICE_UNIT_SECONDS=0.5)

    def ask(path: str, body: bytes | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(urllib.request.Request(address + path, body), timeout=10) as response:
            return json.load(response)

    task_id = ask("/tasks", json.dumps({"type": 1}).encode())["task_id"]
    content = ask(f"/tasks/{task_id}")
    assert content == {"task_id": task_id, "task_status": "PENDING", "task_result": None}
    deadline = time.monotonic() + 20
    while content["task_status"] == "PENDING" and time.monotonic() < deadline:
        content = ask(f"/tasks/{task_id}")
    assert content == {"task_id": task_id, "task_status": "SUCCESS", "task_result": True}
