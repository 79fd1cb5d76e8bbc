"""WATCH: to which runs something was done, as the audit's page tells it."""

from __future__ import annotations

import re
import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tasks_app import audit, bulk
from tasks_app.entries import SHOWN
from tasks_app.models import AuditEntry, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory

pytestmark = pytest.mark.django_db
RUN = re.compile(r'<a href="/runs/([0-9a-f-]{36})/"><code>')


def row(client: Client, entry: AuditEntry) -> str:
    text = client.get("/audit/").content.decode()
    match = re.search(rf'<tr id="entry-{entry.pk}">(.*?)</tr>', text, re.DOTALL)
    assert match
    return match[1]


def test_several_runs_are_named(operators_client: Client, run: RunFactory) -> None:
    runs = [run(), run(task_path="shop.tasks.greet")]
    TaskRun.objects.all().set_priority(7)

    shown = row(operators_client, AuditEntry.objects.get())

    assert "<small>2 runs: to 7</small>" in shown
    assert re.search(r'<details class="next" id="entry-\d+-runs">', shown)
    assert sorted(RUN.findall(shown)) == sorted(str(each.pk) for each in runs)
    assert "create_task" in shown and "greet" in shown
    assert "bulk act" not in shown


def test_of_very_many_the_first_are_named(operators_client: Client, run: RunFactory) -> None:
    ids = sorted(run().pk for _ in range(SHOWN + 3))
    audit.record("cancel", runs=ids)

    shown = row(operators_client, AuditEntry.objects.get())

    assert RUN.findall(shown) == [str(pk) for pk in ids[:SHOWN]]
    assert "and 3 more" in shown


def test_one_that_is_gone_is_named_without_a_link(operators_client: Client, run: RunFactory) -> None:
    gone = run(**SITUATIONS["successful"])
    TaskRun.objects.all().delete_runs()

    shown = row(operators_client, AuditEntry.objects.get())

    assert not RUN.findall(shown)
    assert gone.short_id in shown and "deleted by now" in shown


def test_a_bulk_act_is_led_to(operators_client: Client, operator: User, run: RunFactory) -> None:
    runs = [run(), run()]
    act = bulk.send(operator, "cancel", ids=[str(each.pk) for each in runs])
    audit.record("cancel", by=operator, runs=[each.pk for each in runs], act=act.pk)
    entry = AuditEntry.objects.get(act=act.pk)

    assert f'by a <a href="/runs/bulk/{act.pk}/">bulk act</a>' in row(operators_client, entry)
    assert operators_client.get(f"/runs/bulk/{act.pk}/").status_code == 200

    act.cancel("Undone.")
    assert act.delete_run()
    assert "bulk act" not in row(operators_client, entry)


def test_a_thing_and_its_run_are_both_named(operators_client: Client, run: RunFactory) -> None:
    one = run()
    audit.record("run now", subject="schedule night <b>", runs=[one.pk])

    shown = row(operators_client, AuditEntry.objects.get())

    assert "schedule night &lt;b&gt;: " in shown
    assert RUN.findall(shown) == [str(one.pk)]


def test_all_of_them_are_found_by_one_query_and_a_thousand_ids_are_not_read(
    operators_client: Client, run: RunFactory, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(5):
        operators_client.get("/audit/")
    for _ in range(30):
        audit.record("cancel", runs=[run().pk, *(uuid.uuid4() for _ in range(999))])

    with django_assert_num_queries(6) as queries:
        text = operators_client.get("/audit/").content.decode()

    assert len(RUN.findall(text)) <= 30
    assert not any(re.search(r'"runs"(?!\)\[1:20\])', query["sql"]) for query in queries.captured_queries)


def test_a_hostile_name_of_a_task_is_text(operators_client: Client, run: RunFactory) -> None:
    run(task_path="<script>alert(1)</script>\u202egnp")
    TaskRun.objects.all().cancel(why="No.")

    shown = row(operators_client, AuditEntry.objects.get())

    assert "<script>" not in shown and "\u202e" not in shown
