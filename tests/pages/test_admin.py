"""HISTORY: the runs in the admin, read-only and bounded in cost."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from config.local import BASE_DIR
from tasks_app.admin import CappedPaginator, TaskRunAdmin, ids_beginning_with
from tasks_app.models import Cluster, TaskRun
from tasks_app.schedule_admin import ScheduleAdmin
from tests.pages.conftest import SITUATIONS, RunFactory, attempt

LIST = "/admin/tasks_app/taskrun/"


def found(client: Client, query: str = "") -> list[str]:
    """The short ids that the list shows."""
    response = client.get(f"{LIST}?{query}")
    assert response.status_code == 200, response
    return [run.short_id for run in response.context["cl"].result_list]


@pytest.mark.parametrize("model", ["Success", "Failure", "OrmQ", "Task"])
def test_the_stock_pages_are_gone(model: str) -> None:
    assert not admin.site.is_registered(apps.get_model("django_q", model))


def test_schedules_have_a_page_of_our_own() -> None:
    assert type(admin.site.get_model_admin(apps.get_model("django_q", "Schedule"))) is ScheduleAdmin


def test_the_stock_pages_are_gone_whichever_app_comes_first() -> None:
    """The order is the one of INSTALLED_APPS, and each order has to end the same."""
    script = (
        "import django; from django.conf import settings; import config.settings as s\n"
        "apps = [a for a in s.INSTALLED_APPS if a not in ('tasks_app', 'django_q')]\n"
        "settings.configure(**{n: getattr(s, n) for n in dir(s) if n.isupper() and n != 'INSTALLED_APPS'},\n"
        "  INSTALLED_APPS=[{}, *apps]); django.setup()\n"
        "from django.contrib import admin; from django.apps import apps as a\n"
        "ours = [admin.site._registry.get(m) for m in a.get_app_config('django_q').get_models()]\n"
        "print([type(found).__module__ for found in ours if found])\n"
        "print(admin.site.is_registered(a.get_model('tasks_app', 'TaskRun')))\n"
    )
    for order in ("'tasks_app', 'django_q'", "'django_q', 'tasks_app'"):
        command = [sys.executable, "-c", script.replace("{}", order)]
        told = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, check=False)
        assert told.stdout.split("\n")[:2] == ["['tasks_app.schedule_admin']", "True"], told.stderr


def test_it_is_for_staff(client: Client) -> None:
    assert client.get(LIST).status_code == 302


def test_staff_without_the_permission_see_nothing(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))

    assert client.get(LIST).status_code == 403


def test_the_permission_to_view_is_enough(run: RunFactory) -> None:
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_taskrun"))
    client = Client()
    client.force_login(clerk)

    assert client.get(LIST).status_code == 200
    assert client.get(f"{LIST}{run().pk}/change/").status_code == 200


def test_nobody_changes_history(operators_client: Client, run: RunFactory) -> None:
    kept = run()

    assert operators_client.get(f"{LIST}add/").status_code == 403
    assert operators_client.post(f"{LIST}{kept.pk}/change/", {"status": "FAILED"}).status_code == 403
    assert operators_client.post(f"{LIST}{kept.pk}/delete/", {"post": "yes"}).status_code == 403
    operators_client.post(LIST, {"action": "delete_selected", "_selected_action": str(kept.pk), "post": "yes"})
    assert TaskRun.objects.get().status == "READY"


def test_newest_first_whatever_the_address_says(operators_client: Client, run: RunFactory) -> None:
    runs = [run(seconds_ago) for seconds_ago in (30, 10, 20)]

    assert found(operators_client) == [runs[1].short_id, runs[2].short_id, runs[0].short_id]
    assert found(operators_client, "o=2.3") == [runs[1].short_id, runs[2].short_id, runs[0].short_id]


@pytest.mark.parametrize("state", SITUATIONS)
def test_every_state_is_shown(operators_client: Client, run: RunFactory, state: str) -> None:
    shown = run(**SITUATIONS[state])

    assert found(operators_client) == [shown.short_id]
    assert operators_client.get(f"{LIST}{shown.pk}/change/").status_code == 200


def test_filters(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    task = "tasks_app.tasks.images.make_thumbnails"
    failed = run(seconds_ago=60, **SITUATIONS["failed"])
    other = run(seconds_ago=7200, task_path=task, queue_name="images")
    old = run(seconds_ago=timedelta(days=60).total_seconds(), **SITUATIONS["successful"])

    assert found(operators_client, "status__exact=FAILED") == [failed.short_id]
    assert found(operators_client, f"task={task}") == [other.short_id]
    assert found(operators_client, "queue=images") == [other.short_id]
    assert found(operators_client, "enqueued=hour") == [failed.short_id]
    assert found(operators_client, "enqueued=day") == [failed.short_id, other.short_id]
    assert found(operators_client, "enqueued=older") == [old.short_id]
    page = operators_client.get(LIST).content.decode()
    assert f"?task={task}" in page
    assert "?queue=images" in page


@pytest.mark.parametrize("length", [4, 8, 13, 36])
def test_search_by_an_id_or_its_beginning(operators_client: Client, run: RunFactory, length: int) -> None:
    # Of one second, as ids begin that were made together.
    runs = [run(id=uuid.UUID(f"76d{digit}4923-5ab0-4c1e-9d3f-2b7a6c5d4e3f")) for digit in "02468"]

    assert found(operators_client, f"q={str(runs[2].pk)[:length]}") == [runs[2].short_id]
    assert found(operators_client, f"q={runs[2].pk.hex.upper()}") == [runs[2].short_id]


def test_search_by_a_task(operators_client: Client, run: RunFactory) -> None:
    known = run()
    removed = run(task_path="shop.tasks.removed")

    assert found(operators_client, "q=create_t") == [known.short_id]
    assert found(operators_client, "q=shop.tasks.removed") == [removed.short_id]
    for nothing in ("zzz", "abc", "%27%20OR%201=1", "x" * 500):
        assert found(operators_client, f"q={nothing}") == []


def test_an_id_range_takes_hexadecimal_only() -> None:
    assert ids_beginning_with("abc") is None
    assert ids_beginning_with("zzzz") is None
    assert ids_beginning_with("a" * 33) is None
    first, last = ids_beginning_with("abcd") or (None, None)
    assert (str(first)[:8], str(last)[:8]) == ("abcd0000", "abcdffff")


def test_a_traceback_is_readable_and_its_markup_text(operators_client: Client, run: RunFactory) -> None:
    told = attempt(1, 2, 12, traceback="Traceback\n  <b>line</b>", message="<i>no</i>")
    shown = run(**{**SITUATIONS["failed"], "attempts": [told]})
    page = operators_client.get(f"{LIST}{shown.pk}/change/").content.decode()

    assert '<pre class="code">Traceback\n  &lt;b&gt;line&lt;/b&gt;</pre>' in page
    assert "&lt;i&gt;no&lt;/i&gt;" in page


def test_a_large_table_is_not_counted_to_its_end(
    operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CappedPaginator, "MOST", 5)
    monkeypatch.setattr(TaskRunAdmin, "list_per_page", 2)
    for _ in range(8):
        run()
    with CaptureQueriesContext(connection) as queries:
        response = operators_client.get(LIST)

    assert "5+" in response.content.decode()
    about_runs = [query["sql"] for query in queries if "tasks_app_taskrun" in query["sql"]]
    assert all("LIMIT" in sql for sql in about_runs)
    assert not any("DISTINCT" in sql for sql in about_runs)


def test_clusters_can_be_looked_at(operators_client: Client, cluster: Cluster) -> None:
    page = operators_client.get("/admin/tasks_app/cluster/").content.decode()

    assert "web-1" in page
    assert operators_client.get(f"/admin/tasks_app/cluster/{cluster.pk}/change/").status_code == 200
