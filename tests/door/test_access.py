"""Closed by default: who comes in, and what every answer carries."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import checks
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from config.local import BASE_DIR
from tasks_app.access import is_open_to
from tasks_app.checks import check_open_access
from tasks_app.models import Status, TaskRun

pytestmark = pytest.mark.django_db

OPEN_TO_ALL = {"login", "logout", "healthz"}
JSON_DOOR = {"api-tasks", "api-run", "api-task"}
EXAMPLES = {
    "<uuid:pk>": str(uuid.uuid4()),
    "<path:task_id>": str(uuid.uuid4()),
    "<str:name>": "320.jpg",
    "<str:path>": "tests.tasks.succeed",
    "<int:pk>": "1",
}


def addresses() -> Iterator[tuple[str, str]]:
    """Name and an example path of every address outside the admin."""
    for pattern in get_resolver("tasks_app.urls").url_patterns:
        assert isinstance(pattern, URLPattern | URLResolver)
        if isinstance(pattern, URLPattern) and pattern.name:
            path = str(pattern.pattern)
            for parameter, example in EXAMPLES.items():
                path = path.replace(parameter, example)
            yield pattern.name, "/" + path


@pytest.fixture
def open_access(settings: Any) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True


def run_of(owner: User | None) -> TaskRun:
    now = timezone.now()
    return TaskRun.objects.create(task_path="a.b", owner=owner, status=Status.READY, enqueued_at=now, run_after=now)


@pytest.mark.parametrize("name", [name for name, _ in addresses() if name not in OPEN_TO_ALL | JSON_DOOR])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger_is_sent_to_the_login(name: str, method: str) -> None:
    path = dict(addresses())[name]

    response = getattr(Client(), method)(path)

    assert (response.status_code, response["Location"].split("?")[0]) == (302, "/login/")


def test_a_fragment_tells_htmx_to_load_the_page_that_leads_to_the_login() -> None:
    response = Client().get("/", headers={"HX-Request": "true"})

    assert (response.status_code, response["HX-Refresh"], response.content) == (401, "true", b"")


def test_a_poll_leaves_its_page_to_say_that_one_is_logged_out() -> None:
    response = Client().get("/?seen=x", headers={"HX-Request": "true"})

    assert (response.status_code, response.has_header("HX-Refresh"), response.content) == (401, False, b"")


def test_the_admin_has_its_own_login() -> None:
    assert Client().get("/admin/").status_code == 302
    client = Client()
    client.force_login(User.objects.create_user("mara"))
    assert client.get("/admin/tasks_app/taskrun/").status_code == 302


def test_login_and_health_are_open() -> None:
    assert Client().get("/login/").status_code == 200
    assert Client().get("/healthz").content == b"ok\n"


@pytest.mark.parametrize(
    "path", ["/", "/login/", "/healthz", "/tasks", "/tasks/1", "/no/such/page", "/runs/1/", "/admin/", "/admin/login/"]
)
def test_every_answer_has_a_policy_without_inline_code(path: str) -> None:
    policy = Client().get(path)["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy


def test_what_is_not_there_has_our_own_page_also_under_debug(settings: Any) -> None:
    settings.DEBUG = True

    response = Client().get("/no/such/page")

    assert response.status_code == 404
    assert b"DEBUG" not in response.content
    assert "script-src 'self'" in response["Content-Security-Policy"]


def test_a_foreign_or_unknown_run_is_404_on_every_address() -> None:
    client = Client()
    client.force_login(User.objects.create_user("mara"))
    foreign = run_of(User.objects.create_user("otto"))

    for pk in (foreign.pk, run_of(None).pk, uuid.uuid4()):
        for path in (f"/runs/{pk}/", f"/runs/{pk}/log.txt", f"/runs/{pk}/files/320.jpg", f"/tasks/{pk}"):
            assert client.get(path).status_code == 404, path


def test_staff_sees_every_run() -> None:
    client = Client()
    client.force_login(User.objects.create_user("mara", is_staff=True))

    assert client.get(f"/runs/{run_of(User.objects.create_user('otto')).pk}/").status_code == 200


def test_open_access_lets_in_a_guest_from_this_machine(open_access: None) -> None:
    mine, foreign = run_of(None), run_of(User.objects.create_user("otto"))

    assert Client().get("/").status_code == 200
    assert Client().get(f"/runs/{mine.pk}/").status_code == 200
    assert Client().get(f"/runs/{foreign.pk}/").status_code == 200
    assert Client().post("/tasks", b'{"type": 1}', content_type="text/plain").status_code == 201
    assert Client().get("/admin/").status_code == 302


@pytest.mark.parametrize("given", ["Bearer wrong", "bearer wrong", "Bearer ", "Bearer"])
def test_a_wrong_token_opens_nothing_that_is_open(open_access: None, settings: Any, given: str) -> None:
    settings.API_TOKENS = ["first-token"]
    mine = run_of(None)

    def ask(token: str) -> list[int]:
        headers = {"Authorization": token}
        sent = {"data": b'{"type": 1}', "content_type": "text/plain", "headers": headers}
        answers = [Client().get(f"/tasks/{mine.pk}", headers=headers), Client().post("/tasks", **sent)]  # type: ignore[arg-type]
        return [answer.status_code for answer in answers]

    assert ask(given) == [401, 401]
    assert ask("Bearer first-token") == [200, 201]
    assert ask("Basic dXNlcjpwYXNz") == [200, 201], "what a proxy asks for is no token of ours"


@pytest.mark.parametrize("happens", ["logs out", "logs in"])
def test_a_form_is_not_sent_in_another_name_than_it_was_opened_in(open_access: None, happens: str) -> None:
    """Both tabs of one browser share its cookies."""
    mara = User.objects.create_user("mara", password="a practice word")
    browser = Client(enforce_csrf_checks=True)
    credentials = {"username": "mara", "password": "a practice word"}
    if happens == "logs out":
        browser.post("/login/", {**credentials, **token_in(browser, "/login/")})
    form = {"type": 1, **token_in(browser, "/")}

    if happens == "logs out":
        assert browser.post("/logout/", token_in(browser, "/")).status_code == 302
    else:
        assert browser.post("/login/", {**credentials, **token_in(browser, "/login/")}).status_code == 302
    response = browser.post("/launch/create_task/", form)

    assert response.status_code == 403
    assert "Somebody has logged in or out since it was opened" in response.content.decode()
    assert not TaskRun.objects.exists()
    assert browser.post("/launch/create_task/", {"type": 1, **token_in(browser, "/")}).status_code == 302
    assert TaskRun.objects.get().owner == (None if happens == "logs out" else mara)


def token_in(browser: Client, path: str) -> dict[str, str]:
    """What the forms of this page have against others than themselves."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get(path).content.decode())
    assert found
    return {"csrfmiddlewaretoken": found[1]}


@pytest.mark.parametrize(("path", "method"), [("/tasks", "post"), ("/tasks/run", "post"), ("/tasks/1", "get")])
@pytest.mark.parametrize("debug", [True, False])
def test_the_json_door_answers_another_host_with_a_sentence(settings: Any, path: str, method: str, debug: bool) -> None:
    settings.DEBUG, settings.ALLOWED_HOSTS = debug, ["tasks.example.com"]

    response = getattr(Client(), method)(path, headers={"Host": "evil.example"})

    assert response.status_code == 400
    assert response.json() == {"error": "This site does not answer to that host name: ALLOWED_HOSTS does not have it."}
    assert "default-src 'none'" in response["Content-Security-Policy"]


@pytest.mark.parametrize(
    "meta",
    [
        {"REMOTE_ADDR": "192.0.2.1"},
        {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=192.0.2.1"},
    ],
)
def test_open_access_lets_in_nobody_from_elsewhere(open_access: None, meta: dict[str, str]) -> None:
    assert not is_open_to(RequestFactory().get("/", **meta))  # type: ignore[arg-type]
    assert Client().get("/", **meta).status_code == 302  # type: ignore[arg-type]


def test_open_access_needs_debug(settings: Any) -> None:
    settings.OPEN_ACCESS, settings.DEBUG = True, False

    assert Client().get("/").status_code == 302
    assert [error.id for error in check_open_access()] == ["dumbwaiter.E001"]


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_open_access_is_refused_when_bound_to_more_than_this_machine(settings: Any, bind: str) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True
    settings.BIND = bind

    (error,) = check_open_access()
    assert (error.id, error.level) == ("dumbwaiter.E002", checks.ERROR)


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_open_access_is_fine_on_loopback(settings: Any, bind: str) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True
    settings.BIND = bind

    assert check_open_access() == []


def test_the_check_stops_the_command_line() -> None:
    environment = os.environ | {"OPEN_ACCESS": "1", "DEBUG": "1", "BIND": "0.0.0.0"}

    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "OPEN_ACCESS=1 lets everyone in" in done.stderr
