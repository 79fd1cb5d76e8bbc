"""STEER and HISTORY: the verbs of the admin's list of runs, and the audit that tells who did it."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, connection, transaction
from django.test import Client, RequestFactory
from django.utils.html import escape
from django_q.models import Schedule

from tasks_app import audit
from tasks_app.audit import Actor
from tasks_app.models import AuditEntry, Cluster, Status, TaskRun
from tasks_app.models.cluster import DesiredState
from tests.pages.conftest import SITUATIONS, RunFactory

RUNS = "/admin/tasks_app/taskrun/"
AUDIT = "/admin/tasks_app/auditentry/"

pytestmark = pytest.mark.django_db


def clerk_with(*permissions: str) -> Client:
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=[*permissions, "view_taskrun"]))
    client = Client()
    client.force_login(clerk)
    return client


def post(client: Client, action: str, *ids: object, **more: Any) -> Any:
    return client.post(RUNS, {"action": action, "_selected_action": [str(one) for one in ids], **more})


def fields_of(page: str) -> dict[str, Any]:
    found: dict[str, Any] = {"_selected_action": []}
    for name, text in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page):
        if name == "_selected_action":
            found[name].append(text)
        else:
            found[name] = text
    return found


# Verbs of the list


@pytest.mark.parametrize(
    ("action", "state", "told"),
    [
        ("retry_runs", "failed", "1 run was sent once more."),
        ("cancel_runs", "ready", "1 run was cancelled."),
        ("delete_runs", "successful", "1 run was deleted."),
    ],
)
def test_it_asks_with_the_count_and_then_does_it(
    operators_client: Client, operator: User, run: RunFactory, action: str, state: str, told: str
) -> None:
    chosen = run(**SITUATIONS[state])
    run(**SITUATIONS[state])

    asked = post(operators_client, action, chosen.pk)
    assert asked.status_code == 200
    assert "1 run" in asked.content.decode()
    assert not AuditEntry.objects.exists()

    fields = fields_of(asked.content.decode())
    done = operators_client.post(RUNS, {**fields, "why": "<b>Wrong list.</b>"}, follow=True, REMOTE_ADDR="192.0.2.7")

    assert told in done.content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.runs, entry.actor, entry.actor_name) == ([chosen.pk], operator, "operator")
    assert (entry.address, entry.reason) == ("192.0.2.7", "<b>Wrong list.</b>")


def test_a_double_post_changes_nothing_more(operators_client: Client, run: RunFactory) -> None:
    failed = run(**SITUATIONS["failed"])
    fields = fields_of(post(operators_client, "retry_runs", failed.pk).content.decode())

    operators_client.post(RUNS, fields)
    again = operators_client.post(RUNS, fields, follow=True)

    assert "0 runs were sent once more. 1 has a retry that has not ended." in again.content.decode()
    assert TaskRun.objects.filter(retry_of=failed).count() == 1
    assert AuditEntry.objects.count() == 1


def test_all_that_match_can_be_taken(operators_client: Client, run: RunFactory) -> None:
    for _ in range(60):
        run(**SITUATIONS["failed"])
    other = run(**SITUATIONS["ready"])
    address = f"{RUNS}?status__exact=FAILED"
    chosen = {"action": "retry_runs", "_selected_action": [str(TaskRun.objects.failed()[0].pk)], "select_across": "1"}

    asked = operators_client.post(address, chosen).content.decode()
    assert "Send 60 runs once more?" in asked
    operators_client.post(address, fields_of(asked))

    assert TaskRun.objects.ready().filter(retry_of__isnull=False).count() == 60
    other.refresh_from_db()
    assert other.status == Status.READY


def test_a_thousand_ids_and_foreign_ones_are_harmless(operators_client: Client, run: RunFactory) -> None:
    chosen = run()
    for ids in ([uuid.uuid4() for _ in range(990)], ["1' OR '1'='1", "\x00", "x" * 999, ""]):
        done = post(operators_client, "cancel_runs", chosen.pk, *ids, confirmed="yes")
        assert done.status_code == 302
    assert (
        post(operators_client, "cancel_runs", *(uuid.uuid4() for _ in range(6_000)), confirmed="yes").status_code == 400
    )

    assert sum(entry.count for entry in AuditEntry.objects.all()) == 1
    chosen.refresh_from_db()
    assert chosen.status == Status.CANCELLED


@pytest.mark.parametrize(
    ("action", "permission"),
    [("retry_runs", "retry_taskrun"), ("cancel_runs", "cancel_taskrun"), ("delete_runs", "delete_taskrun")],
)
def test_each_verb_has_a_permission_of_its_own(run: RunFactory, action: str, permission: str) -> None:
    runs = [run(**SITUATIONS[state]).pk for state in ("ready", "failed", "successful")]
    client = clerk_with(permission)

    for other in ("retry_runs", "cancel_runs", "delete_runs"):
        post(client, other, *runs, confirmed="yes")

    names = {"retry_runs": "retry", "cancel_runs": "cancel", "delete_runs": "delete"}
    assert [entry.verb for entry in AuditEntry.objects.all()] == [names[action]]
    assert f'value="{action}"' in client.get(RUNS).content.decode()


def test_who_may_only_view_is_offered_nothing(run: RunFactory) -> None:
    runs = [run(**SITUATIONS[state]).pk for state in SITUATIONS]
    client = clerk_with()

    for action in ("retry_runs", "cancel_runs", "delete_runs", "delete_selected"):
        post(client, action, *runs, confirmed="yes", post="yes")

    assert not AuditEntry.objects.exists()
    assert TaskRun.objects.count() == len(runs)
    assert 'name="action"' not in client.get(RUNS).content.decode()


def test_a_look_at_the_address_does_nothing(operators_client: Client, run: RunFactory) -> None:
    chosen = run()

    operators_client.get(RUNS, {"action": "cancel_runs", "_selected_action": str(chosen.pk), "confirmed": "yes"})

    chosen.refresh_from_db()
    assert chosen.status == Status.READY


def test_the_page_of_a_run_stays_read_only(operators_client: Client, run: RunFactory) -> None:
    chosen = run(**SITUATIONS["failed"])

    page = operators_client.get(f"{RUNS}{chosen.pk}/change/").content.decode()

    assert 'class="deletelink"' not in page
    assert operators_client.post(f"{RUNS}{chosen.pk}/delete/", {"post": "yes"}).status_code == 403


# What is written down


def test_the_button_of_a_page_is_audited(client: Client, mara: User, run: RunFactory) -> None:
    unwanted = run()

    client.post(f"/runs/{unwanted.pk}/cancel/", REMOTE_ADDR="2001:db8::7")
    client.post(f"/runs/{unwanted.pk}/cancel/")

    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.runs, entry.actor) == ("cancel", [unwanted.pk], mara)
    assert (entry.actor_name, entry.address) == ("mara", "2001:db8::7")


def test_a_guest_of_open_access_is_called_so(run: RunFactory, settings: Any) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True

    Client().post(f"/runs/{run(owner=None).pk}/cancel/")

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.actor_name, entry.address) == (None, "a guest", "127.0.0.1")


@pytest.mark.parametrize(
    ("behind_proxy", "remote", "forwarded", "told"),
    [
        (False, "192.0.2.7", "198.51.100.1", "192.0.2.7"),
        (True, "192.0.2.7", "198.51.100.1", "198.51.100.1"),
        (True, "192.0.2.7", "203.0.113.66, 198.51.100.1", "198.51.100.1"),
        (True, "192.0.2.7", "198.51.100.1, rubbish'; --", "192.0.2.7"),
        (True, "192.0.2.7", None, "192.0.2.7"),
        (False, "fe80::1%eth0", None, "fe80::1"),
        (False, "", None, None),  # a web server that listens on a socket of the file system
    ],
)
def test_an_address_is_the_proxy_s_word_only_behind_one(
    settings: Any, mara: User, behind_proxy: bool, remote: str, forwarded: str | None, told: str | None
) -> None:
    settings.BEHIND_PROXY = behind_proxy
    request = RequestFactory().post("/", REMOTE_ADDR=remote)
    if forwarded is not None:
        request = RequestFactory().post("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)
    request.user = mara

    audit.record("steer", by=Actor.of(request))

    assert AuditEntry.objects.get().address == told


def test_steering_a_cluster_is_audited(cluster: Cluster, operator: User) -> None:
    cluster.steer(workers=3, state=DesiredState.QUIET, by=operator, why="Backup.")

    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.subject, entry.actor) == ("steer", "cluster default on web-1", operator)
    assert (entry.details, entry.reason) == ({"desired_workers": 3, "desired_state": "quiet"}, "Backup.")
    Cluster.objects.update(stopped_at=cluster.started_at)
    assert not cluster.steer(workers=1)
    assert AuditEntry.objects.count() == 1


def test_running_a_schedule_now_is_audited(operators_client: Client, operator: User) -> None:
    made = Schedule.objects.create(
        name="nightly", func="tasks_app.tasks.practice.create_task", kwargs="{'type': 0}", schedule_type="D"
    )

    operators_client.post(
        "/admin/django_q/schedule/", {"action": "run_now", "_selected_action": [str(made.pk)], "index": "0"}
    )

    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.subject, entry.actor) == ("run now", "schedule nightly", operator)
    assert entry.runs == [TaskRun.objects.get().pk]


def test_an_entry_is_never_changed_or_deleted(mara: User) -> None:
    audit.record("steer", by=mara)

    for change in (
        lambda: AuditEntry.objects.update(verb="pause"),
        lambda: AuditEntry.objects.update(actor=None, reason="nobody"),
        lambda: AuditEntry.objects.all().delete(),
        lambda: AuditEntry.objects.get().delete(),
    ):
        with pytest.raises(DatabaseError, match="never changed or deleted"), transaction.atomic():
            change()

    mara.delete()
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.actor, entry.actor_name) == ("steer", None, "mara")


# Looking at it


def entries_shown(client: Client, query: str = "") -> list[str]:
    response = client.get(f"{AUDIT}?{query}")
    assert response.status_code == 200
    return [entry.verb for entry in response.context["cl"].result_list]


def test_the_audit_is_found_by_who_what_and_which_run(operators_client: Client, mara: User, tobias: User) -> None:
    chosen = uuid.uuid4()
    audit.record("cancel", by=mara, runs=[uuid.uuid4(), chosen])
    audit.record("retry", by=tobias)
    audit.record("prune")

    assert entries_shown(operators_client) == ["prune", "retry", "cancel"]
    assert entries_shown(operators_client, "q=mara") == ["cancel"]
    assert entries_shown(operators_client, "q=Retry") == ["retry"]
    assert entries_shown(operators_client, f"q={chosen}") == ["cancel"]
    assert entries_shown(operators_client, f"q={chosen.hex}") == ["cancel"]
    assert entries_shown(operators_client, "verb=prune") == ["prune"]
    for nothing in ("mar", "%25", "x" * 500, str(uuid.uuid4())):
        assert entries_shown(operators_client, f"q={nothing}") == []


def test_no_search_reads_the_whole_audit(operators_client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO tasks_app_auditentry (act, at, actor_name, verb, subject, runs, count, details, reason)
               SELECT gen_random_uuid(), now() - make_interval(secs => i), 'user ' || i % 500, 'cancel', '',
                 ARRAY[gen_random_uuid(), gen_random_uuid()], 2, '{}', '' FROM generate_series(1, 20000) AS i"""
        )
        cursor.execute("ANALYZE tasks_app_auditentry")
    plans: list[str] = []

    def explain(run: Any, sql: str, params: Any, *rest: Any) -> Any:
        if re.search("SELECT.* FROM .?tasks_app_auditentry", sql):
            with connection.connection.cursor() as cursor:
                plans.append("\n".join(row[0] for row in cursor.execute(f"EXPLAIN {sql}", params).fetchall()))
        return run(sql, params, *rest)

    for query in ("", "q=user+77", "q=retry", f"q={uuid.uuid4()}", "verb=steer"):
        with connection.execute_wrapper(explain):
            assert operators_client.get(f"{AUDIT}?{query}").status_code == 200

    assert len(plans) >= 9
    for plan in plans:
        assert "Seq Scan" not in plan or "Filter" not in plan, plan  # without a filter, it ends at its limit
    assert any("audit_runs" in plan for plan in plans)


def test_the_page_of_an_entry_tells_all_and_changes_nothing(operators_client: Client, operator: User) -> None:
    runs = [uuid.uuid4() for _ in range(150)]
    audit.record("cancel", by=Actor(operator, "operator", "192.0.2.7"), why="<b>no</b>", runs=runs, details={"a": 1})
    entry = AuditEntry.objects.get()

    page = operators_client.get(f"{AUDIT}{entry.pk}/change/").content.decode()

    for text in ("operator", "192.0.2.7", escape("<b>no</b>"), str(runs[0])[:8], "and 50 more"):
        assert text in page
    assert "<b>no</b>" not in page
    assert operators_client.get(f"{AUDIT}add/").status_code == 403
    assert operators_client.post(f"{AUDIT}{entry.pk}/change/", {"verb": "x"}).status_code == 403
    assert operators_client.post(f"{AUDIT}{entry.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_audit_is_for_those_who_may_view_it() -> None:
    assert clerk_with().get(AUDIT).status_code == 403
