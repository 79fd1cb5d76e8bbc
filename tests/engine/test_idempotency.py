"""SUBMIT: the same key of the same person is the same run."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django_tasks.exceptions import InvalidTaskError
from django_tasks.signals import task_enqueued
from PIL import Image

from tasks_app.backend import PostgresBackend
from tasks_app.engine.wishes import KeyReused
from tasks_app.models import TaskRun
from tests import outcomes, wishful
from tests.engine.test_unique import at_once

pytestmark = pytest.mark.django_db(transaction=True)

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


@pytest.fixture
def mara() -> User:
    return User.objects.create_user("mara")


@pytest.fixture
def client(mara: User) -> Client:
    client = Client()
    client.force_login(mara)
    return client


def post(client: Client, kind: int = 1, key: str | None = "k", token: str = "") -> Any:
    given = {"Authorization": f"Bearer {token}"} if token else {}
    given |= {} if key is None else {"Idempotency-Key": key}
    return client.post("/tasks", json.dumps({"type": kind}), content_type="application/json", headers=given)


def enqueue_run(*args: Any, owner: User | None = None, key: str | None = "k", task: Any = outcomes.succeeds) -> TaskRun:
    backend = task.get_backend()
    assert isinstance(backend, PostgresBackend)
    return backend.enqueue_run(task, args, {}, owner=owner, idempotency_key=key)


def test_the_same_key_gets_the_same_answer(client: Client) -> None:
    first, second = post(client), post(client)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json() == {"task_id": str(TaskRun.objects.get().pk)}
    assert ("Idempotent-Replayed" in first, second["Idempotent-Replayed"]) == (False, "true")


def test_also_after_the_run_has_ended(client: Client) -> None:
    first = post(client)
    TaskRun.objects.get().cancel()

    assert post(client).json() == first.json()


def test_without_a_key_or_with_another_it_is_another_run(client: Client) -> None:
    answers = [post(client, key=key).json()["task_id"] for key in (None, None, "a", "b", "A", '"a"', "a b")]

    assert len(set(answers)) == TaskRun.objects.count() == 7


def test_a_key_for_something_else_is_refused(client: Client) -> None:
    post(client, 1)

    response = post(client, 2)

    assert response.status_code == 422
    assert response.json()["error"].startswith("This idempotency key was used for another task or other arguments.")
    assert TaskRun.objects.count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x7f", "\x01", "a\x85b"])
def test_what_is_no_key_is_refused(client: Client, key: str) -> None:
    response = post(client, key=key)

    assert response.status_code == 422
    assert response.json() == {"error": "An idempotency key has 1 to 255 characters, and no control characters."}
    assert not TaskRun.objects.exists()


def test_a_key_may_have_any_other_character(client: Client) -> None:
    for key in ("x" * 255, "é", "'; DROP TABLE--", "%s %(id)s", "\\"):
        assert post(client, key=key).json() == post(client, key=key).json()

    assert TaskRun.objects.count() == 5


def test_keys_of_different_people_have_nothing_to_do_with_each_other(client: Client, settings: Any) -> None:
    settings.API_TOKENS = ["token"]
    tobias = Client()
    tobias.force_login(User.objects.create_user("tobias"))

    of_mara, of_tobias = post(client), post(tobias)
    of_nobody = [post(Client(), token="token") for _ in range(2)]

    assert of_nobody[0].json() == of_nobody[1].json()
    assert len({answer.content for answer in (of_mara, of_tobias, of_nobody[0])}) == 3
    assert {run.owner and run.owner.username for run in TaskRun.objects.all()} == {"mara", "tobias", None}


def test_a_key_is_forgotten_after_its_time(client: Client, settings: Any) -> None:
    first = post(client)
    run = TaskRun.objects.get()
    TaskRun.objects.update(enqueued_at=run.enqueued_at - timedelta(seconds=settings.IDEMPOTENCY_SECONDS - 60))
    assert post(client).json() == first.json()

    TaskRun.objects.update(enqueued_at=run.enqueued_at - timedelta(seconds=settings.IDEMPOTENCY_SECONDS + 1))

    second = post(client, 2)
    assert second.status_code == 201
    assert second.json() != first.json()
    assert post(client, 2).json() == second.json()


@pytest.mark.parametrize("owned", [True, False])
def test_a_double_submit_makes_one_run(mara: User, owned: bool) -> None:
    told: list[str] = []

    def hear(task_result: Any, **_: Any) -> None:
        told.append(task_result.id)

    task_enqueued.connect(hear)
    try:
        answers = at_once(
            8, lambda _: [enqueue_run(1, owner=mara if owned else None, key=f"k{n}").pk for n in range(20)]
        )
    finally:
        task_enqueued.disconnect(hear)

    assert answers == answers[:1] * 8
    assert TaskRun.objects.count() == len(told) == 20


def test_the_row_tells_whether_it_is_new() -> None:
    assert not enqueue_run(1).was_standing
    assert enqueue_run(1).was_standing


@pytest.mark.parametrize("args", [(2,), (1, 2), (), ("1",), (True,), ([1],)])
def test_other_arguments_or_another_task_are_refused(args: tuple[Any, ...]) -> None:
    first = enqueue_run(1)

    with pytest.raises(KeyReused) as refused:
        enqueue_run(*args)
    with pytest.raises(InvalidTaskError, match="was used for another task"):
        enqueue_run(1, task=outcomes.fails)

    assert refused.value.run.pk == first.pk
    assert enqueue_run(1.0).pk == first.pk


def test_people_with_the_same_keys_can_be_deleted(mara: User) -> None:
    tobias = User.objects.create_user("tobias")
    for owner in (mara, tobias, None):
        enqueue_run(1, owner=owner)

    mara.delete()
    User.objects.filter(pk=tobias.pk).delete()

    assert TaskRun.objects.filter(owner=None).count() == 3
    assert enqueue_run(1).was_standing


def test_a_unique_task_has_its_own_key() -> None:
    with pytest.raises(InvalidTaskError, match="A unique task takes no idempotency key"):
        enqueue_run("ada", task=wishful.reminds)


# The forms of the first page


def once(html: str, form: str) -> str:
    found = re.search(rf'id="{form}-once" name="once" value="([0-9a-f]{{32}})"', html)
    assert found, html
    return found[1]


def picture(colour: str) -> SimpleUploadedFile:
    written = BytesIO()
    Image.new("RGB", (8, 8), colour).save(written, "PNG")
    return SimpleUploadedFile("p.png", written.getvalue(), content_type="image/png")


def test_a_double_click_makes_one_run_and_another_button_another(client: Client) -> None:
    key = once(client.get("/").content.decode(), "practice")

    for kind in (1, 1, 2, 2):
        assert client.post("/launch/create_task/", {"type": kind, "once": key}).status_code == 302

    assert sorted(run.kwargs["type"] for run in TaskRun.objects.all()) == [1, 2]


def test_a_page_that_is_shown_again_makes_another_run(client: Client) -> None:
    for _ in range(2):
        key = once(client.get("/").content.decode(), "practice")
        client.post("/launch/create_task/", {"type": 1, "once": key})

    assert TaskRun.objects.count() == 2
    assert 'autocomplete="off"' in client.get("/").content.decode()  # a browser keeps no old key when it reloads


def test_with_htmx_each_answer_brings_the_next_key(client: Client) -> None:
    key = once(client.get("/").content.decode(), "practice")

    answer = client.post("/launch/create_task/", {"type": 1, "once": key}, headers=HTMX)
    again = client.post("/launch/create_task/", {"type": 1, "once": key}, headers=HTMX)
    next_key = once(answer.content.decode(), "practice")
    client.post("/launch/create_task/", {"type": 1, "once": next_key}, headers=HTMX)

    assert 'hx-swap-oob="true"' in answer.content.decode()
    assert once(again.content.decode(), "practice") != key
    assert next_key != key
    assert TaskRun.objects.count() == 2


@pytest.mark.parametrize("key", ["", "nonsense", "\x00", "9" * 1000, "<b>"])
def test_a_key_that_is_none_of_ours_is_no_key(client: Client, key: str) -> None:
    for _ in range(2):
        assert client.post("/launch/create_task/", {"type": 1, "once": key}).status_code in (302, 400)

    assert not TaskRun.objects.exclude(idempotency_key=None).exists()


def test_a_picture_that_is_sent_twice_is_stored_once(client: Client, media: Path) -> None:
    key = once(client.get("/").content.decode(), "thumbnails")

    for colour in ("red", "red", "blue"):
        client.post("/launch/make_thumbnails/", {"image": picture(colour), "once": key})

    assert TaskRun.objects.count() == 2
    stored = {path.relative_to(media).as_posix() for path in media.rglob("*.png")}
    assert stored == {run.kwargs["stored_as"] for run in TaskRun.objects.all()}
