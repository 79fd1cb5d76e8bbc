"""WATCH: the list of all runs: what a URL finds in it, page by page, and what its buttons do."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from tasks_app import listing, search
from tasks_app.catalog import task_paths
from tasks_app.clock import database_now
from tasks_app.finding import FILTERS, TABS, Finding
from tasks_app.models import AuditEntry, Cluster, FailureGroup, SavedView, Status, TaskRun, Workflow
from tasks_app.tasks import create_task
from tests.pages.conftest import SITUATIONS, WORKER, RunFactory, begun

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
ROW = re.compile(r'<tr id="run-([0-9a-f-]{36})"')


def page(client: Client, query: str = "", address: str = "/runs/") -> str:
    response = client.get(f"{address}?{query.removeprefix('?')}")
    assert response.status_code == 200
    return response.content.decode()


def ids(text: str) -> list[str]:
    return ROW.findall(text)


def found(client: Client, query: str = "") -> set[str]:
    return set(ids(page(client, query)))


def link(text: str, rel: str) -> str:
    match = re.search(rf'href="([^"]+)" rel="{rel}"', text)
    return html.unescape(match[1]) if match else ""


def poll_of(text: str) -> str:
    match = re.search(r'data-poll hx-get="([^"]+)"', text)
    assert match
    return html.unescape(match[1])


def finding(query: str, viewer: Any) -> Finding:
    return Finding.read(QueryDict(query), viewer)


def many(count: int, **fields: Any) -> None:
    """So many runs in one statement; each field is an expression of SQL over their number `n`."""
    values = {
        "id": "gen_random_uuid()",
        "task_path": "'shop.tasks.greet'",
        "args": "'[]'",
        "kwargs": "'{}'",
        "queue_name": "'default'",
        "priority": "0",
        "status": "'READY'",
        "attempt": "0",
        "max_attempts": "1",
        "attempts": "'[]'",
        "enqueued_at": "now() - n * interval '1 s'",
        **fields,
    }
    values.setdefault("run_after", values["enqueued_at"])
    columns, expressions = ", ".join(values), ", ".join(map(str, values.values()))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO tasks_app_taskrun ({columns}) SELECT {expressions} FROM generate_series(1, {count}) AS n"
        )


# States


@pytest.mark.parametrize(
    ("situation", "tab"),
    [
        *(("ready", "ready"), ("claimed", "running"), ("scheduled", "scheduled"), ("waiting", "ready")),
        *(("retrying", "retrying"), ("running", "running"), ("successful", "successful"), ("failed", "failed")),
        ("cancelled", "cancelled"),
    ],
)
def test_a_run_stands_under_one_tab(client: Client, run: RunFactory, situation: str, tab: str) -> None:
    shown = str(run(**SITUATIONS[situation]).pk)

    assert [word for word in TABS if found(client, f"state={word}")] == [tab]
    assert found(client) == found(client, f"state={situation}") == {shown}


def test_what_had_to_wait_and_is_due_is_ready(client: Client, run: RunFactory) -> None:
    due = run(60, run_after=30)

    assert found(client, "state=ready") == {str(due.pk)}
    assert not found(client, "state=scheduled")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_state_has_its_columns_and_its_button(client: Client, run: RunFactory, situation: str) -> None:
    run(**SITUATIONS[situation])
    text = page(client, f"state={situation}")

    button = {"scheduled": "Run now", "successful": "Run again…", "failed": "Retry", "cancelled": "Retry"}
    assert re.search(rf'id="do-[0-9a-f-]+"[^>]*>{button.get(situation, "Cancel")}<', text)
    head = {"scheduled": "Not before", "successful": "Result", "failed": "What happened", "ready": "Place in line"}
    assert f'<th scope="col">{head.get(situation, "")}' in text


def test_ready_runs_tell_their_place_in_line(client: Client, run: RunFactory, cluster: Cluster) -> None:
    first, second, mail = run(60), run(30), run(90, queue_name="mail")
    text = page(client, "state=ready")

    places = {pk: re.search(rf'id="run-{pk}".*?<small>(.*?)</small>', text, re.DOTALL) for pk in ids(text)}
    told = {pk: match[1] for pk, match in places.items() if match}
    assert told == {str(first.pk): "next in line", str(second.pk): "2nd in line", str(mail.pk): "next in line"}
    assert "No live worker takes from this queue" in text


# Filters


def test_each_filter_narrows(operators_client: Client, run: RunFactory, tobias: User, mara: User) -> None:
    now = database_now()
    group = FailureGroup.objects.create(
        fingerprint="f",
        task_path="a.b",
        failure="error",
        exception="ValueError",
        message="no",
        first_at=now,
        last_at=now,
    )
    workflow = Workflow.objects.create(name="w", size=1, shape=[0], enqueued_at=now)
    others = [run(**SITUATIONS[each]) for each in SITUATIONS]
    mine: dict[str, TaskRun] = {
        "task=shop.tasks.greet": run(task_path="shop.tasks.greet"),
        "queue=mail": run(queue_name="mail"),
        "cluster=c9": run(**begun(status=Status.SUCCESSFUL, finished_at=5, claimed_by="c9:1:1:web-9")),
        "owner=tobias": run(owner=tobias),
        "owner=(nobody)": run(owner=None),
        "reason=timed_out": run(**begun(status=Status.FAILED, finished_at=5, failure="timed_out")),
        f"group={group.pk}": run(**begun(status=Status.FAILED, finished_at=5, failure="error", failure_group=group)),
        "schedule=7": run(schedule_id=7),
        "about=shop.order:48213": run(about="shop.order:48213"),
        f"workflow={workflow.pk}": run(workflow=workflow, step=0),
        "until=7d": run(9 * 86_400),
    }

    for query, one in mine.items():
        assert found(operators_client, query) == {str(one.pk)}, query
        text = page(operators_client, query)
        assert "Remove filter" in text and "Clear filters" in text
        assert finding(query, User(is_staff=True)).runs().count() == 1, query
        assert found(operators_client, f"{query}&state=cancelled") == set(), query
    assert len(found(operators_client, "since=1h")) == len(others) + len(mine) - 1


def test_filters_are_told_in_a_sentence(operator: User, run: RunFactory) -> None:
    said = finding("state=failed&task=shop.tasks.resize&queue=mail&since=24h&q=timeout", operator).sentence
    assert said == "failed runs of resize in the queue mail of the last 24 hours with “timeout”"
    assert finding("", operator).sentence == "runs"
    assert finding("since=2026-03-12&until=2026-03-13 14:30", operator).sentence == (
        "runs since 12 March 2026 until 13 March 2026 14:30"
    )


def test_a_query_comes_out_as_it_went_in(operator: User) -> None:
    given = "state=failed&task=a.b&queue=q&cluster=c1&owner=mara&reason=error&group=3&schedule=4"
    given += "&workflow=0d1ab5a0-7a3c-4a39-8bbf-5a3c5b6a0d11&about=shop.order%3A7&since=7d&until=1h&q=a+%26+b"
    first = finding(given + "&older=1-2&size=25&sort=oldest", operator)
    assert first.query == given
    assert list(first.given) == list(FILTERS)
    assert finding(first.query, operator).query == given
    assert first.troubles == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=nonsense", "There is no state “nonsense”"),
        ("state=%00%1b", ""),
        ("since=yesterday", "“yesterday” is no time"),
        ("since=2026-02-30", "is no time"),
        ("since=99999-01-01", "is no time"),
        ("since=0001-01-01", "is no time"),
        ("since=99999d", ""),
        ("since=2026-03-13&until=2026-03-12", "That time ends before it begins"),
        ("group=x", "A failure is named by its number"),
        ("group=99999999999999999999", "A failure is named by its number"),
        ("group=9223372036854775808", "A failure is named by its number"),
        ("schedule=-1", "A schedule is named by its number"),
        ("workflow=1", "A workflow is named by its id"),
        ("about=48213", "What runs are about is named by its model and its key"),
        ("about=shop.order:" + "7" * 300, "What runs are about is named by its model and its key"),
        ("cluster=%25", "A cluster is named by its id"),
        ("reason=because", "A run fails for one of these reasons"),
        ("task=" + "x" * 300, "No task has such a name"),
        ("q=" + "x" * 200_000, "Only the first 200 characters"),
        ("q=%00", ""),
        ("q=%ed%a0%80", ""),
        ("q='%5C:*%26|!()<->", ""),
        ("q=" + "a+" * 90, ""),
        ("size=1000000000", "A page has 25, 50, 100 or 200 rows."),
        ("sort=longest", "Runs are sorted by newest or by oldest."),
        ("older=nonsense", "That place in the list cannot be found"),
        ("older=99999999999999999999-1", "That place in the list cannot be found"),
        ("newer=1000-5", "That place in the list cannot be found"),
        ("older=1000-0d1ab5a07a3c4a398bbf5a3c5b6a0d11", ""),
        ("newer=1000-0d1ab5a07a3c4a398bbf5a3c5b6a0d11&top=x", ""),
        ("newer=253402300799000000-0d1ab5a07a3c4a398bbf5a3c5b6a0d11", ""),
        ("page=1000000000", ""),
        ("state=failed&state=ready&q=a&q=b", ""),
    ],
)
@pytest.mark.parametrize("address", ["/runs/", "/runs/counts/", "/runs/facets/"])
def test_a_bad_query_is_answered(
    operators_client: Client, run: RunFactory, query: str, said: str, address: str
) -> None:
    run(**SITUATIONS["failed"])
    text = page(operators_client, query, address)

    assert said in html.unescape(text) or address != "/runs/"


def test_one_sees_the_own_runs_and_operators_all(
    client: Client, operators_client: Client, run: RunFactory, tobias: User
) -> None:
    mine, theirs, nobodys = run(), run(owner=tobias), run(owner=None)

    assert found(client) == {str(mine.pk)}
    assert found(client, "owner=tobias") == {str(mine.pk)}
    assert "Only operators choose whose runs they see" in page(client, "owner=tobias")
    assert found(client, f"q={theirs.pk}") == set()
    assert "tobias" not in page(client, address="/runs/facets/")
    assert found(operators_client) == {str(each.pk) for each in (mine, theirs, nobodys)}


def test_a_guest_of_open_access_sees_all(run: RunFactory, settings: Any) -> None:
    settings.DEBUG = settings.OPEN_ACCESS = True
    theirs = run()

    assert found(Client()) == {str(theirs.pk)}
    assert Client().get(theirs.get_absolute_url()).status_code == 200
    assert not finding("", AnonymousUser()).runs().exists()


# Search


@pytest.fixture
def parcels(run: RunFactory, tobias: User) -> dict[str, TaskRun]:
    failed = {**SITUATIONS["failed"], "failure_message": "ConnectTimeout: no answer of shop.example.net"}
    return {
        "ended": run(**{**SITUATIONS["successful"], "kwargs": {"order": 48102, "to": "Zoë_Müller"}}),
        "failed": run(**{**failed, "task_path": "shop.tasks.crawl"}),
        "ready": run(kwargs={"url": "https://museum.example.org/a/b"}),
        "running": run(**{**SITUATIONS["running"], "args": ["import-2026.csv"], "kwargs": {}}),
    }


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("48102", {"ended"}),
        ("481", {"ended"}),
        ("8102", set()),
        ("Müller", {"ended"}),
        ("order 48102", {"ended"}),
        ("order timeout", set()),
        ("connecttimeout", {"failed"}),
        ("example.net", {"failed"}),
        ("museum.example", {"ready"}),
        ("https://museum.example.org/a/b", {"ready"}),
        ("import-2026.csv", {"running"}),
        ("example", {"failed", "ready"}),
        ("shop.tasks.crawl", {"failed"}),
        ("create_task", {"ended", "ready", "running"}),
        ("'; DROP TABLE x --", set()),
        ("!!!", set()),
    ],
)
def test_runs_are_found_by_words(
    operators_client: Client, operator: User, parcels: dict[str, TaskRun], q: str, names: set[str]
) -> None:
    wanted = {str(parcels[name].pk) for name in names}

    assert set(ids(operators_client.get("/runs/", {"q": q}).content.decode())) == wanted
    assert {str(each.pk) for each in Finding.read(as_query(q=q), operator).runs()} == wanted


def as_query(**values: str) -> QueryDict:
    query = QueryDict(mutable=True)
    query.update(values)
    return query


def test_a_run_is_found_by_its_id_and_by_its_beginning(operators_client: Client, run: RunFactory) -> None:
    run(), run()
    one = run(id=uuid.UUID("abcdef01-2345-4678-89ab-cdef01234567"))

    for text in (str(one.pk), one.short_id, one.short_id.upper(), one.pk.hex, "abcdef01-23"):
        assert found(operators_client, f"q={text}") == {str(one.pk)}


def test_a_search_keeps_to_the_other_filters(operators_client: Client, run: RunFactory) -> None:
    run(kwargs={"order": 5}), run(**{**SITUATIONS["failed"], "kwargs": {"order": 5}})
    one = run(**{**SITUATIONS["successful"], "kwargs": {"order": 5}})

    assert found(operators_client, "q=order&state=successful") == {str(one.pk)}
    assert len(found(operators_client, "q=order")) == 3


@pytest.mark.parametrize(
    "value",
    [
        "x" * 900_000,
        "word " * 180_000,
        "a-b-" * 200_000,
        "<a b='" * 1_000,
        "http://a.b/" * 1_000,
        "1.5e5.-+" * 1_000,
        "\ud7ff\uffff\U0010ffff\u202e\x01\x7f",
        "\U0001d518" * 3_000,
    ],
    ids=lambda value: value[:5],
)
def test_no_value_keeps_a_run_from_ending(run: RunFactory, value: str) -> None:
    """What the index of words is made of is computed by the statement that ends a run."""
    one = run(kwargs={"text": value})

    changed = TaskRun.objects.filter(pk=one.pk).update(
        status=Status.FAILED, finished_at=database_now(), failure="error", failure_message=value
    )

    assert changed == 1


def test_a_common_word_is_looked_for_from_the_newest_on(operators_client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks_app.search.MOST_HITS", 10)
    many(60, status="'SUCCESSFUL'", finished_at="now()", args="'[\"parcel\"]'")
    many(5, status="'SUCCESSFUL'", finished_at="now()", args="'[\"letter\"]'")

    assert len(found(operators_client, "q=parcel")) == 50
    assert len(found(operators_client, "q=letter")) == 5


def test_a_word_that_very_many_runs_are_expected_to_have_is_not_counted(
    operators_client: Client, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tasks_app.search.COMMON", 30)
    many(60, status="'SUCCESSFUL'", finished_at="now()", args="'[\"parcel\"]'")
    many(5, status="'SUCCESSFUL'", finished_at="now()", args="'[\"letter\"]'")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks_app_taskrun")

    assert [search.hits(search.words_of(word)) is None for word in ("parcel", "letter")] == [True, False]
    assert len(found(operators_client, "q=parcel")) == 50
    assert len(found(operators_client, "q=letter")) == 5


def test_a_task_is_found_by_its_name_behind_however_many_runs_of_others(operators_client: Client) -> None:
    many(3_000, status="'SUCCESSFUL'", finished_at="now()")
    name = f"'{create_task.module_path}'"
    many(1, status="'SUCCESSFUL'", finished_at="now()", task_path=name, enqueued_at="now() - interval '1 day'")
    many(1, task_path=name, enqueued_at="now() - interval '2 days'")

    assert len(found(operators_client, "q=create_task")) == 2
    assert len(found(operators_client, "q=practice&state=successful")) == 1


# Pages


def all_pages(client: Client, query: str) -> Iterator[list[str]]:
    while query:
        text = page(client, query)
        yield ids(text)
        query = link(text, "next")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("sort=oldest", {}),
        ("state=failed", {"status": "'FAILED'", "finished_at": "now() - mod(n, 3) * interval '1 s'"}),
        ("state=failed&sort=oldest", {"status": "'FAILED'", "finished_at": "now() - mod(n, 3) * interval '1 s'"}),
        ("state=scheduled", {"run_after": "now() + (1 + mod(n, 3)) * interval '1 h'"}),
        ("state=scheduled&sort=newest", {"run_after": "now() + (1 + mod(n, 3)) * interval '1 h'"}),
        ("state=running", {"status": "'RUNNING'", "claimed_by": f"'{WORKER}'", "started_at": "now()"}),
        ("task=shop.tasks.greet", {"status": "CASE mod(n, 2) WHEN 0 THEN 'READY' ELSE 'SUCCESSFUL' END"}),
        ("queue=default", {}),
        ("q=shop.tasks.greet", {}),
    ],
)
def test_pages_lose_no_row_of_the_same_moment(operators_client: Client, query: str, fields: dict[str, str]) -> None:
    many(80, **{"enqueued_at": "now() - interval '1 min' - mod(n, 3) * interval '1 s'", **fields})
    every = {str(pk) for pk in TaskRun.objects.values_list("pk", flat=True)}

    pages = list(all_pages(operators_client, f"{query}&size=25"))

    assert [len(each) for each in pages] == [25, 25, 25, 5]
    forth = [pk for each in pages for pk in each]
    assert set(forth) == every
    back: list[str] = []
    text = page(operators_client, link_to_last(operators_client, f"{query}&size=25"))
    while True:
        back = ids(text) + back
        if not (newer := link(text, "prev")):
            break
        text = page(operators_client, newer)
    assert back == forth


def link_to_last(client: Client, query: str) -> str:
    while further := link(page(client, query), "next"):
        query = further
    return query


def test_a_rare_run_is_looked_for_further_back(operators_client: Client, monkeypatch: Any, run: RunFactory) -> None:
    rare = run(10_000, queue_name="rare")
    many(250)
    monkeypatch.setattr(listing, "LOOKED_AT", 100)

    text = page(operators_client, "queue=rare")
    looks = 1
    while not ids(text):
        assert "None so far" in text and "Looked back to" in text and "Look further" in text
        text = page(operators_client, link(text, "next"))
        looks += 1
    assert (ids(text), looks) == ([str(rare.pk)], 3)
    assert "Looked back to" not in text


def test_pages_of_a_rare_kind_lose_none(operators_client: Client, monkeypatch: Any) -> None:
    """Two ways at once, of which one ends early: what the other has beyond that comes later."""
    ended = {"status": "'SUCCESSFUL'", "finished_at": "now()"}
    many(500, queue_name="CASE mod(n, 50) WHEN 0 THEN 'rare' ELSE 'default' END", **ended)
    many(500, queue_name="CASE mod(n, 7) WHEN 0 THEN 'rare' ELSE 'default' END")
    monkeypatch.setattr(listing, "LOOKED_AT", 60)
    wanted = list(TaskRun.objects.filter(queue_name="rare").newest().values_list("pk", flat=True))

    shown = [pk for each in all_pages(operators_client, "queue=rare&task=shop.tasks.greet&size=25") for pk in each]

    assert shown == [str(pk) for pk in wanted]


def test_filters_and_size_stay_while_pages_are_turned(operators_client: Client) -> None:
    many(60)
    further = link(page(operators_client, "size=25&queue=default"), "next")
    assert further.startswith("?size=25&queue=default&older=")


# Tabs and facets


def test_tabs_are_counted_by_a_second_request(operators_client: Client, run: RunFactory) -> None:
    for situation in SITUATIONS.values():
        run(**situation)
    run(queue_name="mail", **SITUATIONS["failed"])
    text = page(operators_client, "queue=default")
    assert 'hx-get="/runs/counts/?queue=default"' in text

    counted = page(operators_client, "queue=default", "/runs/counts/")

    told = dict(re.findall(r'id="tab-(\w+)".*?<span class="num">(\S+)</span>', counted))
    once = dict.fromkeys(("scheduled", "retrying", "successful", "failed", "cancelled"), "1")
    assert told == {"all": "9", "ready": "2", "running": "2", **once}
    assert "9 runs" in " ".join(counted.split())


def test_tabs_are_counted_for_a_search(operators_client: Client, run: RunFactory) -> None:
    for situation in SITUATIONS.values():
        run(**{**situation, "kwargs": {"order": 48102}})
        run(**situation)

    counted = page(operators_client, "q=48102&state=failed", "/runs/counts/")

    told = dict(re.findall(r'id="tab-(\w+)".*?<span class="num">(\S+)</span>', counted))
    assert (told["all"], told["failed"], told["running"], told["ready"]) == ("9", "1", "2", "2")
    assert "1 failed run<" in counted


def test_counts_end_somewhere(operators_client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks_app.facets.COUNTED", 20)
    many(30)
    assert "20+" in page(operators_client, "", "/runs/counts/")


def test_facets_are_links_that_toggle(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(queue_name="mail"), run(), run(**{**SITUATIONS["running"], "claimed_by": f"{cluster.claims_as}:1:1:web-1"})

    text = page(operators_client, "queue=mail", "/runs/facets/")
    assert '<a href="?" aria-current="true"><span>mail</span> <span class="num">1</span></a>' in text
    whole = page(operators_client, "", "/runs/facets/")
    assert '<a href="?queue=mail"><span>mail</span> <span class="num">1</span></a>' in whole
    assert f'<a href="?cluster={cluster.claims_as}"><span>default on web-1</span>' in whole
    assert '<a href="?owner=mara"><span>mara</span> <span class="num">3</span></a>' in whole
    assert len(found(operators_client, f"cluster={cluster.pk}")) == 1
    assert "of the cluster default on web-1" in page(operators_client, f"cluster={cluster.pk}")
    assert "Owner" in page(operators_client, "facets=1")


def test_values_beyond_the_first_can_be_chosen(
    operators_client: Client, run: RunFactory, mara: User, cluster: Cluster, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        for _ in range(1 if number == 11 else 2):
            run(task_path=f"shop.tasks.t{number}", queue_name=f"q{number}", owner=mara)
    TaskRun.objects.filter(task_path="shop.tasks.t0").update(owner=None)
    paths = task_paths()

    with django_assert_max_num_queries(10):
        page(operators_client, "size=25&facets=1")
    with django_assert_max_num_queries(4):
        text = page(operators_client, "state=ready&size=25", "/runs/facets/")

    assert ">t11</span>" not in text and ">q11</span>" not in text
    assert options(text, "queue") >= {"", "default", "q11"}
    assert options(text, "task") >= {"", *paths}
    assert options(text, "cluster") == set()  # of a list that shows them all there is nothing more to choose
    form = form_of(text, "queue")
    assert 'action="/runs/"' in form and "<button" in form
    assert re.findall(r'type="hidden" name="(\w+)" value="(\w+)"', form) == [("state", "ready"), ("size", "25")]
    assert len(found(operators_client, "state=ready&size=25&queue=q11")) == 1
    assert 'name="owner"' in form_of(text, "owner")
    assert len(found(operators_client, "owner=mara&task=shop.tasks.t1")) == 2


def test_what_is_chosen_stays_chosen_and_another_can_be(operators_client: Client, run: RunFactory) -> None:
    run(), run(queue_name="mail")
    text = page(operators_client, "queue=mail&task=tasks_app.tasks.practice.create_task", "/runs/facets/")

    assert '<option value="mail" selected>mail</option>' in form_of(text, "queue")
    assert '<option value="default">default</option>' in form_of(text, "queue")
    assert 'name="task" value="tasks_app.tasks.practice.create_task"' in form_of(text, "queue")
    assert 'name="queue" value="mail"' in form_of(text, "task")


def test_only_operators_choose_clusters_and_owners(client: Client, run: RunFactory, cluster: Cluster) -> None:
    run(), run(queue_name="mail")
    text = page(client, "", "/runs/facets/")

    assert "default on web-1" not in text
    assert not re.search(r'name="(owner|cluster)"', text)


@pytest.mark.parametrize("query", ["", "state=ready", "queue=default"])
def test_counts_of_a_part_of_the_runs_say_so(operators_client: Client, monkeypatch: Any, query: str) -> None:
    for module in ("facets", "listing"):
        monkeypatch.setattr(f"tasks_app.{module}.LOOKED_AT", 20)
    many(19)
    assert "Counted among" not in page(operators_client, query, "/runs/facets/")
    many(2)
    text = page(operators_client, query, "/runs/facets/")
    assert text.count("Counted among the newest") == 1
    assert "alone; there are more." in text


def form_of(text: str, name: str) -> str:
    matched = re.search(rf'<details class="dates" id="others-{name}">.*?</details>', text, re.DOTALL)
    return matched[0] if matched else ""


def options(text: str, name: str) -> set[str]:
    return set(re.findall(r'<option value="([^"]*)"', form_of(text, name)))


def test_what_is_filtered_by_can_be_let_go_of_though_nothing_matches(operators_client: Client) -> None:
    text = page(operators_client, "queue=none", "/runs/facets/")
    assert '<a href="?" aria-current="true"><span>none' in text
    assert "Nothing matches" in page(operators_client, "queue=none")
    assert "Nothing sent down yet" in page(operators_client)


# Polls


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, run: RunFactory, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for situation in SITUATIONS.values():
        run(**situation)
    many(60)
    first = page(operators_client, "size=25")
    for text in (first, page(operators_client, link(first, "next")), page(operators_client, "owner=mara&state=failed")):
        with django_assert_num_queries(1):
            response = operators_client.get(poll_of(text), headers=HTMX)
        assert (response.status_code, response.content) == (204, b"")


def test_a_new_run_comes_in_on_the_first_page(operators_client: Client, run: RunFactory) -> None:
    run()
    poll = poll_of(page(operators_client))
    new = run(0)

    text = operators_client.get(poll, headers=HTMX).content.decode()

    assert text.startswith('<section id="runs-found"')
    assert ids(text)[0] == str(new.pk)
    assert re.findall(r'<tr id="run-([0-9a-f-]+)" class="is-new"', text) == [str(new.pk)]
    assert operators_client.get(poll_of(text), headers=HTMX).status_code == 204


def test_new_runs_are_announced_on_the_other_pages(operators_client: Client, run: RunFactory) -> None:
    many(60)
    shown = page(operators_client, link(page(operators_client, "size=25"), "next"))
    run(0), run(0)

    text = operators_client.get(poll_of(shown), headers=HTMX).content.decode()

    assert ids(text) == ids(shown)
    assert re.search(r'<a href="\?size=25">2 new runs</a>', text)
    again = operators_client.get(poll_of(text), headers=HTMX)
    assert again.status_code == 204


def test_a_run_that_moves_on_is_news(operators_client: Client, run: RunFactory) -> None:
    one = run(**SITUATIONS["running"])
    poll = poll_of(page(operators_client, "state=running"))
    TaskRun.objects.filter(pk=one.pk).update(progress={"done": 29, "total": 30, "message": "soon"})

    text = operators_client.get(poll, headers=HTMX).content.decode()
    assert "96 %, soon" in text

    TaskRun.objects.filter(pk=one.pk).update(status=Status.SUCCESSFUL, finished_at=database_now())
    assert "No running runs" in operators_client.get(poll_of(text), headers=HTMX).content.decode()


def test_places_in_line_are_news_when_another_run_ends(operators_client: Client, run: RunFactory) -> None:
    first = run(60)
    run(30)
    poll = poll_of(page(operators_client, "state=ready&size=25"))
    assert operators_client.get(poll, headers=HTMX).status_code == 204
    first.cancel("No.")

    assert operators_client.get(poll, headers=HTMX).status_code == 200


# Cost


@pytest.mark.parametrize(
    "query",
    ["", "state=ready", "state=failed&owner=mara", "queue=mail&size=25", "q=order", "state=running", "older=1-0"],
)
def test_a_page_costs_few_queries(operators_client: Client, run: RunFactory, cluster: Cluster, query: str) -> None:
    for number in range(12):
        run(queue_name=f"q{number}")
    for situation in SITUATIONS.values():
        run(**situation)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page(operators_client, query)
    assert len(queries) <= 10 + 2 * query.startswith("q=")  # a search opens a transaction


# Buttons


def steer(client: Client, **given: str) -> str:
    response = client.post("/runs/steer/", {"back": "state=failed&size=25", **given}, follow=True)
    assert response.redirect_chain == [("/runs/?state=failed&size=25", 302)]
    return html.unescape(response.content.decode())


def test_a_run_is_cancelled_retried_and_run_now(client: Client, operators_client: Client, run: RunFactory) -> None:
    ready, failed, later = run(), run(**SITUATIONS["failed"]), run(**SITUATIONS["scheduled"])

    assert "is cancelled" in steer(client, cancel=str(ready.pk))
    assert "was sent once more" in steer(client, retry=str(failed.pk))
    assert "begins as soon as" in steer(operators_client, now=str(later.pk))

    ready.refresh_from_db()
    later.refresh_from_db()
    assert ready.status == Status.CANCELLED
    assert later.run_after <= database_now()
    assert failed.retries.count() == 1
    assert set(AuditEntry.objects.values_list("verb", flat=True)) == {"cancel", "retry", "run at"}
    assert "has changed meanwhile" in steer(client, cancel=str(ready.pk))
    assert "can be cancelled, retried, and run now" in steer(client, burn=str(ready.pk))


@pytest.mark.parametrize("situation", ["claimed", "running", "waiting"])
def test_a_row_asks_before_anything_is_lost(client: Client, run: RunFactory, situation: str) -> None:
    one, ready = run(**SITUATIONS[situation]), run()
    if situation == "waiting":
        flow = Workflow.objects.create(name="w", size=2, shape=[0], enqueued_at=database_now())
        TaskRun.objects.filter(pk=one.pk).update(workflow=flow)

    text = " ".join(page(client).split())

    assert f'name="cancel" value="{ready.pk}"' in text
    assert f'name="cancel" value="{one.pk}"' not in text
    assert re.search(rf'<summary [^>]*id="do-{one.pk}">Cancel<', text)
    question = "before it begins?" if situation == "waiting" else "in the middle?"
    assert f"{one} {question}" in text
    assert f'form="one" name="stop" value="{one.pk}">Cancel it<' in text
    assert "is cancelled, or will be in a moment." in steer(client, stop=str(one.pk))
    one.refresh_from_db()
    assert one.cancel_requested_at


def test_what_a_worker_took_meanwhile_is_not_cancelled_unasked(client: Client, run: RunFactory) -> None:
    taken = run(**SITUATIONS["running"])

    response = client.post("/runs/steer/", {"cancel": str(taken.pk)}, follow=True)

    assert response.redirect_chain == [(f"/runs/{taken.pk}/", 302)]
    assert "It is not cancelled yet" in response.content.decode()
    taken.refresh_from_db()
    assert taken.cancel_requested_at is None


def test_a_verb_on_the_run_of_another_needs_its_permission(
    client: Client, mara: User, tobias: User, run: RunFactory
) -> None:
    theirs, mine = run(owner=tobias), run(**SITUATIONS["scheduled"])
    assert client.post("/runs/steer/", {"cancel": str(theirs.pk)}).status_code == 404
    assert client.post("/runs/steer/", {"cancel": "nonsense"}).status_code == 404
    assert "needs the permission to change runs" in steer(client, now=str(mine.pk))

    User.objects.filter(pk=mara.pk).update(is_staff=True)
    assert "That needs the permission to cancel runs." in page(client)
    assert "needs the permission" in steer(client, cancel=str(theirs.pk))
    mara.user_permissions.add(Permission.objects.get(codename="cancel_taskrun"))
    assert "is cancelled" in steer(client, cancel=str(theirs.pk))


def test_the_boxes_stand_ready_for_bulk_acts(operators_client: Client, run: RunFactory) -> None:
    one = run()
    text = page(operators_client, "queue=default")

    assert re.search(rf'<input type="checkbox" class="pick" name="id" value="{one.pk}"', text)
    bulk = re.search(r'<form class="card list" id="bulk".*?</form>', text, re.DOTALL)
    assert bulk and "<form" not in bulk[0][5:]
    assert 'name="query" value="queue=default"' in bulk[0]


# Saved views


def keep(client: Client, **given: str) -> str:
    response = client.post("/runs/views/", {"back": "", **given}, follow=True)
    return html.unescape(response.content.decode())


def test_a_view_is_kept_renamed_and_deleted(client: Client, mara: User) -> None:
    assert "Kept as “Night <imports>”" in keep(
        client, do="save", name=" Night  <imports>", query="state=failed&size=25&nonsense=1&q=a+b"
    )
    view = SavedView.objects.get()
    assert (view.owner, view.name, view.is_shared) == (mara, "Night <imports>", False)
    assert view.query == "state=failed&q=a+b&size=25"
    assert 'href="/runs/?state=failed&amp;q=a+b&amp;size=25">Night &lt;imports&gt;</a>' in page(client)

    keep(client, do="save", name="Night <imports>", query="state=ready")
    assert SavedView.objects.get().query == "state=ready"
    assert "named “Days” now" in keep(client, do="rename", view=str(view.pk), name="Days")
    keep(client, do="save", name="Other", query="")
    assert "There is a view named Other already." in keep(client, do="rename", view=str(view.pk), name="Other")
    assert "is deleted" in keep(client, do="delete", view=str(view.pk))
    assert list(SavedView.objects.values_list("name", flat=True)) == ["Other"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"do": "save", "name": " "}, "A view needs a name."),
        ({"do": "save", "name": "x" * 61}, "at most 60 characters"),
        ({"do": "save", "name": "a\x00b"}, "A view's name has no control characters. Leave them out."),
        ({"do": "save", "name": "a\x1bb"}, "A view's name has no control characters. Leave them out."),
        ({"do": "save", "name": "a\u202eb"}, "A view's name has no control characters. Leave them out."),
        ({"do": "save", "name": "👩\u200d👧 a\tb"}, "Kept as"),
        ({"do": "burn"}, "A view can be saved, renamed and deleted."),
    ],
)
def test_a_bad_view_is_answered_with_a_sentence(client: Client, given: dict[str, str], said: str) -> None:
    assert said in keep(client, **given)


def test_one_person_has_a_bounded_number_of_views(client: Client, mara: User, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks_app.models.view.MOST_VIEWS", 2)
    for name in ("a", "b"):
        keep(client, do="save", name=name)
    assert "at most 2 views" in keep(client, do="save", name="c")
    assert "Kept as" in keep(client, do="save", name="b")


def test_views_of_others_are_theirs_unless_shared(client: Client, operators_client: Client, mara: User) -> None:
    other = User.objects.create_superuser("other")
    theirs = SavedView.objects.keep(other, "Theirs", "state=ready")
    SavedView.objects.keep(other, "Shared", "state=failed", is_shared=True)

    assert "Shared" not in page(client)
    assert ("Shared" in page(operators_client), "Theirs" in page(operators_client)) == (True, False)
    assert operators_client.post("/runs/views/", {"do": "delete", "view": theirs.pk}).status_code == 404
    keep(client, do="save", name="Mine", is_shared="on")
    assert not SavedView.objects.get(name="Mine").is_shared


# What tasks write


def test_hostile_texts_are_text(operators_client: Client, run: RunFactory) -> None:
    bad = "<script>alert(1)</script>\u202egnp.exe\x1b[31m"
    for situation in SITUATIONS.values():
        run(**{**situation, "task_path": bad, "queue_name": bad, "kwargs": {bad: bad}, "failure_message": bad,
               "claimed_by": f"c:1:1:{bad}", "return_value": bad})  # fmt: skip

    for text in (page(operators_client, "size=25"), page(operators_client, "", "/runs/facets/")):
        assert "<script>alert" not in text
        assert "\u202e" not in text
        assert "\x1b" not in text
    assert "<script>alert" not in page(operators_client, as_query(q=bad, task=bad, queue=bad).urlencode())


def test_a_huge_value_is_never_read_whole(operators_client: Client, run: RunFactory) -> None:
    run(**{**SITUATIONS["successful"], "kwargs": {"text": "x" * 500_000}, "return_value": "y" * 500_000})
    assert len(page(operators_client)) < 40_000


def test_the_list_is_a_page_for_all(client: Client, run: RunFactory) -> None:
    run()
    text = page(client)
    assert 'href="/runs/" aria-current="page" data-key="r"' in text
    assert Client().get("/runs/")["Location"] == "/login/?next=/runs/"
