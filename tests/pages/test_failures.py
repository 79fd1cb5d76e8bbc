"""WATCH and STEER: failures that look alike, the page of all and that of one."""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from tasks_app import failures
from tasks_app.clock import database_now
from tasks_app.models import AuditEntry, FailureGroup, TaskRun
from tests.figures import failed, failing
from tests.pages.test_bulk import done, told

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
MINUTES_OF_A_WEEK = 7 * 1440


@pytest.fixture
def now() -> datetime:
    return database_now()


def page(client: Client, address: str = "/failures/") -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def rows(text: str) -> list[int]:
    return [int(pk) for pk in re.findall(r'<tr id="failure-(\d+)"', text)]


def counts(text: str) -> list[str]:
    """The figures of 1 h, 24 h and 7 d of the first row."""
    return re.findall(r'<td class="n c-count">([^<]*)<', text)[:3]


def steer(client: Client, group: FailureGroup, do: str, **given: str) -> str:
    """The page that it leads to."""
    response = client.post(f"/failures/{group.pk}/steer/", {"do": do, **given}, follow=True)
    return html.unescape(response.content.decode())


def test_a_group_tells_how_often_when_and_what(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2, 50, 65, 300, 2 * 1440, 20 * 1440, exception="shop.errors.Refused", message="card # refused")
    run = failing(group, now - timedelta(minutes=2), failure_message="Refused: card 4711 refused")

    text = page(operators_client)
    assert "Refused: Refused" not in text

    assert rows(text) == [group.pk]
    assert counts(text) == ["2", "4", "5"]
    for said in ("greet", "Refused", "card 4711 refused", "6</td>", "2 min ago", "first <time"):
        assert said in text
    one = page(operators_client, group.get_absolute_url())
    for said in (
        str(run.pk)[:8],
        "Traceback…",
        "Refused: card 4711 refused",
        "5 failures in this time",
        "/runs/?group=",
    ):
        assert said in one


def test_the_drawing_has_an_hour_a_place(now: datetime) -> None:
    (line,) = failures.lines([failed(now, 5, 5, 5 + 60 * 3)], now)

    assert (sum(line.course), line.day) == (3, 3)
    assert [n for n, count in enumerate(reversed(line.course)) if count] in ([0, 3], [0, 4], [1, 4])
    assert line.spark.path.startswith("M0.0 19.0 ")


def test_who_is_no_operator_finds_nothing(client: Client, now: datetime) -> None:
    group = failed(now, 2)
    for address in ("/failures/", group.get_absolute_url()):
        assert client.get(address).status_code == 404
    assert client.post(f"/failures/{group.pk}/steer/", {"do": "dismiss"}).status_code == 404
    assert not FailureGroup.objects.get().dismissed_at


def test_a_dismissed_one_comes_back_with_the_next_failure(
    operators_client: Client, operator: User, now: datetime
) -> None:
    group = failed(now, 2)

    said = steer(operators_client, group, "dismiss", why="Mended in release 41.", next="/failures/?window=7d")

    assert "Ever</a><a href" in said and 'window=7d" aria-current="true"' in said
    assert "is dismissed. It comes back by itself when it fails like that again." in said
    assert rows(page(operators_client)) == []
    text = page(operators_client, "/failures/?state=dismissed")
    assert rows(text) == [group.pk]
    assert "Mended in release 41." in text
    entry = AuditEntry.objects.get(verb="dismiss")
    assert (entry.actor, entry.reason, entry.details) == (operator, "Mended in release 41.", {"group": group.pk})

    FailureGroup.objects.update(last_at=database_now())

    text = page(operators_client)
    assert rows(text) == [group.pk]
    for said in ("Came back", "It failed again after operator had dismissed it", "Mended in release 41."):
        assert said in text
    assert rows(page(operators_client, "/failures/?state=dismissed")) == []


def test_what_had_failed_before_brings_nothing_back(now: datetime) -> None:
    """A failure is counted some seconds after its end."""
    group = failed(now, 10)
    before = database_now()
    assert group.dismiss()
    FailureGroup.objects.update(last_at=before)
    assert list(FailureGroup.objects.dismissed()) == [group]


def test_a_muted_one_stays_out_of_sight_until_its_time(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)

    assert "is muted for a week, however often it fails" in steer(operators_client, group, "mute", days="7")

    FailureGroup.objects.update(last_at=database_now())
    assert rows(page(operators_client)) == []
    assert rows(page(operators_client, "/failures/?state=muted")) == [group.pk]
    FailureGroup.objects.update(muted_until=database_now())
    assert rows(page(operators_client)) == [group.pk]


def test_muted_for_good_is_taken_back_by_hand(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    assert "is muted until somebody opens it again" in steer(operators_client, group, "mute")
    assert "is open again" in steer(operators_client, group, "reopen")
    assert rows(page(operators_client)) == [group.pk]
    assert "is open already" in steer(operators_client, group, "reopen")
    assert list(AuditEntry.objects.order_by("id").values_list("verb", flat=True)) == ["mute", "reopen"]


@pytest.mark.parametrize(("do", "given"), [("dismiss", {}), ("mute", {"days": "7"})])
def test_the_answer_offers_to_undo_it(operators_client: Client, now: datetime, do: str, given: dict[str, str]) -> None:
    group = failed(now, 2)
    there = "/failures/?sort=most"

    text = steer(operators_client, group, do, next=there, **given)

    form = re.search(r'<form class="banner__do" method="post" action="([^"]+)">(.*?)</form>', text)
    assert form
    assert "Undo</button>" in form[2]
    assert "csrfmiddlewaretoken" in form[2]
    assert rows(page(operators_client)) == []
    answer = operators_client.post(html.unescape(form[1]), follow=True)
    assert answer.redirect_chain == [(there, 302)]
    assert "is open again" in answer.content.decode()
    assert "Undo</button>" not in answer.content.decode()
    assert rows(page(operators_client)) == [group.pk]


def test_only_what_was_open_is_opened_by_undo(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    assert "Undo</button>" not in steer(operators_client, group, "reopen")
    assert "Undo</button>" in steer(operators_client, group, "mute")
    assert "Undo</button>" not in steer(operators_client, group, "dismiss")
    assert "Undo</button>" not in steer(operators_client, group, "explode")


def test_an_address_alone_opens_nothing(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    steer(operators_client, group, "dismiss")

    assert operators_client.get(f"/failures/{group.pk}/steer/?do=reopen").status_code == 405

    assert FailureGroup.objects.get().dismissed_at


def test_dismissing_twice_is_one_act(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    steer(operators_client, group, "dismiss")
    assert "was dismissed already" in steer(operators_client, group, "dismiss")
    assert AuditEntry.objects.count() == 1


def test_steering_needs_the_permission(tobias: User, now: datetime) -> None:
    tobias.is_staff = True
    tobias.save()
    client = Client()
    client.force_login(tobias)
    group = failed(now, 2)
    failing(group, now)

    text = page(client)
    assert "That needs the permission to change groups of failures." in text
    assert "That needs the permission to retry runs." in text
    assert "You may not steer failures" in steer(client, group, "dismiss")
    assert not FailureGroup.objects.get().dismissed_at

    codes = ["change_failuregroup", "retry_taskrun"]
    tobias.user_permissions.add(*Permission.objects.filter(codename__in=codes))
    assert "aria-disabled" not in re.search(r"<tr id=.*?</tr>", page(client), re.DOTALL)[0]  # type: ignore[index]
    assert "is dismissed" in steer(client, group, "dismiss")


def test_a_whole_group_is_retried_by_way_of_the_confirmation(operators_client: Client, now: datetime) -> None:
    group, other = failed(now, 2), failed(now, 2, message="something else")
    assert 'title="All of its runs have been deleted."' in page(operators_client)
    wanted = {failing(group, now - timedelta(minutes=minutes)).pk for minutes in (1, 2)}
    failing(other, now)

    given = fields_of(page(operators_client, group.get_absolute_url()))
    assert (given["verb"], given["all"], given["query"]) == ("retry", "1", f"group={group.pk}&state=failed")
    asked = operators_client.post("/runs/bulk/", given, follow=True).content.decode()
    assert "Retry 2 runs" in asked
    assert not TaskRun.objects.filter(retry_of__isnull=False).exists()
    sent = operators_client.post("/runs/bulk/", fields_of(asked))
    act = TaskRun.objects.get(pk=sent["Location"].split("/")[3])

    assert told(done(act)) == "2 runs were sent once more."
    assert set(TaskRun.objects.filter(retry_of__isnull=False).values_list("retry_of", flat=True)) == wanted


def fields_of(text: str) -> dict[str, str]:
    """What the form of the page sends to the confirmation."""
    form = re.search(r'<form[^>]* action="/runs/bulk/">.*?</form>', text, re.DOTALL)
    assert form
    return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)"[^>]* value="([^"]*)"', form[0])}


@pytest.mark.parametrize(
    ("failure", "exception", "told"),
    [
        ("timed_out", "tasks_app.engine.execution.TimedOut", "Timed out"),
        ("timed_out", "", "Timed out"),
        ("error", "tasks_app.jsonable.NotJSON", "Result not kept"),
        ("error", "shop.errors.TimedOut", "TimedOut"),
    ],
)
def test_a_failure_is_named_for_what_it_is(
    operators_client: Client, now: datetime, failure: str, exception: str, told: str
) -> None:
    group = failed(now, 2)
    FailureGroup.objects.filter(pk=group.pk).update(failure=failure, exception=exception)

    assert f"{told}: " in page(operators_client)


def test_filters_narrow_the_list(operators_client: Client, now: datetime) -> None:
    mail = failed(now, 2, task="shop.tasks.send", queue="mail", message="no answer from <url> in # s")
    old = failed(now, 3 * 1440, exception="shop.errors.Refused", message="order # of <address>")

    def found(query: str) -> list[int]:
        return rows(page(operators_client, f"/failures/?{query}"))

    assert found("") == [mail.pk, old.pk]
    assert found("task=shop.tasks.send") == found("queue=mail") == found("window=24h") == [mail.pk]
    assert found("queue=default") == found("q=refused") == [old.pk]
    assert found("q=order+12345+of+ada%40example.com") == [old.pk]
    assert found("q=SEND") == [mail.pk]
    assert found("queue=mail&window=7d&q=answer") == [mail.pk]
    assert found("q=100%25_\\") == []
    assert "Nothing matches" in page(operators_client, "/failures/?task=none")


def test_figures_are_those_of_the_queue(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2, 3, queue="mail")
    other = failed(now, 2, 3, 4, message="something else")
    other.stats.filter(count__gt=0).update(group=group)
    FailureGroup.objects.exclude(pk=group.pk).delete()

    assert counts(page(operators_client)) == ["5", "5", "5"]
    assert counts(page(operators_client, "/failures/?queue=mail")) == ["2", "2", "2"]


@pytest.mark.parametrize("sort", ["", "sort=most&"])
def test_pages_lose_none_and_show_none_twice(operators_client: Client, now: datetime, sort: str) -> None:
    """All of them at the same moment, with one of three counts."""
    made = {failed(now, *[5.0] * (1 + n % 3), message=f"m{n:03}").pk for n in range(60)}
    FailureGroup.objects.update(last_at=now)

    seen: list[int] = []
    address: str | None = f"/failures/?{sort}size=25"
    while address:
        text = page(operators_client, address)
        seen += rows(text)
        older = re.search(r'href="([^"]+)" rel="next"', text)
        address = f"/failures/{html.unescape(older[1])}" if older else None

    assert len(seen) == 60
    assert set(seen) == made
    if sort:
        by_count = dict(FailureGroup.objects.values_list("pk", "count"))
        assert [by_count[pk] for pk in seen] == [3] * 20 + [2] * 20 + [1] * 20


def test_what_the_runs_share_is_told(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    for n in range(4):
        failing(
            group, now, kwargs={"region": "eu-1", "order": n, "shop": "x" if n else "y", "big": "z" * 3_000 * (n == 3)}
        )

    found = {each.name: each.told for each in failures.shared(failures.newest_runs(group, 50))}

    assert found == {"region": "in 3 of 4", "big": "in 3 of 4"}
    assert "eu-1" in page(operators_client, group.get_absolute_url())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=exploded", "Failures are open, dismissed or muted; here are the open ones."),
        ("window=9y", "There is no such window; here is all that was ever seen."),
        ("sort=%00", "The list goes by the newest or by the most"),
        ("older=1-2-3", "That place in the list cannot be found"),
        (f"older={10**19}-1", "That place in the list cannot be found"),
        ("size=10000000", "A page has 25, 50, 100 or 200 rows."),
    ],
)
def test_a_bad_url_is_put_right_with_a_sentence(operators_client: Client, now: datetime, query: str, said: str) -> None:
    failed(now, 2)
    assert said in page(operators_client, f"/failures/?{query}")


@pytest.mark.parametrize(
    "query",
    [
        *("q=%00", "q=" + "x" * 20_000, "task=%00&queue=%ff", "q=" + quote("\u202e<b>"), "sort=most&older=9e9-1"),
        *(f"sort=most&older={2**63}-{2**63}", f"older={9**18}-{10**30}", "window=1h&window=7d"),
    ],
)
def test_no_url_breaks_the_page(operators_client: Client, now: datetime, query: str) -> None:
    failed(now, 2)
    assert "<h1>Failures</h1>" in page(operators_client, f"/failures/?{query}")


def test_bad_input_gets_a_sentence(operators_client: Client, now: datetime) -> None:
    group = failed(now, 2)
    assert "can be dismissed, muted and opened again" in steer(operators_client, group, "explode")
    assert "muted for 1, 7 or 30 days or for good" in steer(operators_client, group, "mute", days="99999999999")
    assert "A reason has at most 500 characters." in steer(operators_client, group, "mute", why="x" * 501)
    assert not AuditEntry.objects.exists()
    for pk in (0, 2**63, 10**40):
        assert operators_client.get(f"/failures/{pk}/").status_code == 404
    for elsewhere in ("https://example.com/", "//example.com", "?q=1", "admin:index", "/\\example.com", "\0"):
        given = {"do": "dismiss", "next": elsewhere}
        assert operators_client.post(f"/failures/{group.pk}/steer/", given)["Location"] == "/failures/"


def test_hostile_words_are_shown_and_do_nothing(operators_client: Client, now: datetime) -> None:
    hostile = "<script>alert(1)</script>\u202e\x1b[31m\"'>"
    group = failed(now, 2, task=f"a.{hostile}", exception=f"b.{hostile}", message=hostile, queue=hostile, note=hostile)
    failing(group, now, failure_message=hostile, queue_name=hostile, kwargs={hostile: hostile})

    for address in ("/failures/", group.get_absolute_url()):
        text = page(operators_client, address)
        assert "<script>alert" not in text
        assert "\u202e" not in re.sub(r'value="[^"]*"', "", text)
        assert "[202e]" in text


def test_a_poll_without_news_costs_one_query(
    operators_client: Client, now: datetime, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    group = failed(now, 9 * 1440)  # so long ago that its figures do not change any more
    failing(group, now - timedelta(days=9))
    for address in ("/failures/", group.get_absolute_url()):
        found = re.search(r'data-poll hx-get="([^"]+)"', page(operators_client, address))
        assert found
        poll = html.unescape(found[1])

        with django_assert_num_queries(1):
            assert operators_client.get(poll, headers=HTMX).status_code == 204
        FailureGroup.objects.update(count=group.count + len(address))
        assert operators_client.get(poll, headers=HTMX).status_code == 200


def test_a_page_takes_few_queries(operators_client: Client, now: datetime) -> None:
    for n in range(30):
        failing(failed(now, 5, message=f"m{n}"), now)
    group = FailureGroup.objects.all()[0]
    for address in ("/failures/?q=m&queue=default&window=1h", group.get_absolute_url()):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page(operators_client, address)
        assert len(queries) <= 10


def test_each_state_says_why_it_is_empty(operators_client: Client) -> None:
    assert "Nothing has failed" in page(operators_client)
    assert "Nothing is dismissed" in page(operators_client, "/failures/?state=dismissed")
    assert "Nothing is muted" in page(operators_client, "/failures/?state=muted")


def test_of_many_runs_few_are_read(now: datetime) -> None:
    """One group with half of all failures, as a server plans it."""
    group, other = failed(now, 5), failed(now, 5, message="something else")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,"
            " enqueued_at, finished_at, failure_group_id, attempt, max_attempts, attempts)"
            " SELECT gen_random_uuid(), 'a.b', '[]', '{}', 'default', 0,"
            " CASE WHEN failure_group IS NULL THEN 'SUCCESSFUL' ELSE 'FAILED' END, now(), now(),"
            " now() - n * interval '1 s', failure_group, 1, 1, '[]' FROM (SELECT n,"
            " CASE WHEN mod(n, 50) = 0 THEN %s WHEN mod(n, 2) = 0 THEN %s END AS failure_group"
            " FROM generate_series(1, 30000) AS n) AS made",
            [other.pk, group.pk],
        )
        cursor.execute("ANALYZE tasks_app_taskrun")
        cursor.execute("ANALYZE tasks_app_failuregroup")
        given: dict[str, Any] = {"groups": [group.pk, other.pk], "now": now, "queue": ""}
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT TEXT) {failures.NEWEST}", given)
        newest = "\n".join(row[0] for row in cursor.fetchall())
        runs = group.runs.order_by("-finished_at", "-id").values("pk")[: failures.COMPARED]
        sql, params = runs.query.sql_with_params()
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT TEXT) {sql}", params)
        compared = "\n".join(row[0] for row in cursor.fetchall())

    for plan in (newest, compared):
        assert "run_failure_group" in plan
        assert "Seq Scan on tasks_app_taskrun" not in plan
        assert not re.search(r"rows=\d{4,}[.\d]* loops", plan)
