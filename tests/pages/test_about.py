"""WATCH: what a run is about, on its page, in lists, and on the page of the thing itself."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db import connection
from django.template import Context, RequestContext, Template
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe
from django_q.tasks import schedule

from tasks_app.models import TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_launch import once_of
from tests.pages.test_run_page import HTMX, page_of, poll_of


@pytest.fixture
def crew(db: None) -> Group:
    return Group.objects.create(name="Night crew")


def about(instance: Any) -> str:
    return f"{instance._meta.label_lower}:{instance.pk}"


def fact_of(client: Client, run: TaskRun) -> str:
    """What its page says that it is about."""
    found = re.search(r"<dt>About</dt><dd>(.*?)</dd>", page_of(client, run))
    assert found
    return html.unescape(found[1])


# The page of a run


def test_a_run_leads_to_the_page_of_its_object(
    client: Client, run: RunFactory, crew: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Group, "get_absolute_url", lambda self: f"/crews/{self.pk}/", raising=False)

    told = fact_of(client, run(about=about(crew)))

    assert f'<a id="fact-about" href="/crews/{crew.pk}/">Night crew</a>' in told
    assert f'<a id="about-runs" href="/runs/?about=auth.group%3A{crew.pk}">All runs about it</a>' in told


def test_to_its_page_in_the_admin_for_who_may_see_it_there(
    client: Client, operators_client: Client, run: RunFactory, crew: Group, mara: User
) -> None:
    shown = run(about=about(crew))
    address = f'href="/admin/auth/group/{crew.pk}/change/"'

    assert address in fact_of(operators_client, shown)
    assert fact_of(client, shown).startswith("Night crew<br>")
    User.objects.filter(pk=mara.pk).update(is_staff=True)
    assert address not in fact_of(client, shown)
    mara.user_permissions.add(Permission.objects.get(codename="view_group"))
    assert address in fact_of(client, shown)


@pytest.mark.parametrize("text", ["auth.group:987654", "auth.group:seven", f"auth.group:{10**30}", "shop.order:7", "x"])
def test_what_is_not_there_any_more_is_still_named(operators_client: Client, run: RunFactory, text: str) -> None:
    told = fact_of(operators_client, run(about=text))

    assert text.replace(":", " ") in told
    assert "not there any more" in told
    assert "fact-about" not in told


class Odd(Exception):
    pass


def raises(*args: Any) -> str:
    raise Odd


@pytest.mark.parametrize(
    "says", [raises, lambda self: None, lambda self: "", lambda self: " \n ", lambda self: self.nothing]
)
def test_an_object_that_cannot_say_what_it_is_is_named(
    operators_client: Client, run: RunFactory, crew: Group, monkeypatch: pytest.MonkeyPatch, says: Any
) -> None:
    monkeypatch.setattr(Group, "__str__", says)

    assert f">group {crew.pk}</a>" in fact_of(operators_client, run(about=about(crew)))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (mark_safe("<script>alert(1)</script>"), "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a\u202eb\x1b[1m\nc", "a[202e]b␛[1m c"),
        ("half \ud800", "half ?"),
        ("long " * 100_000, ("long " * 24)[:119] + "…"),
    ],
)
def test_what_it_says_of_itself_is_only_text(
    operators_client: Client,
    run: RunFactory,
    crew: Group,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    shown: str,
) -> None:
    monkeypatch.setattr(Group, "__str__", lambda self: said)

    page = page_of(operators_client, run(about=about(crew)))

    assert f">{shown}</a>" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    "leads",
    [
        raises,
        *(lambda self, to=to: to for to in ("javascript:alert(1)", "//evil.example", "/\\evil.example", "/a\tb", None)),
        lambda self: "/" + "x" * 3000,
        lambda self: "/\ud800",
    ],
)
def test_an_address_that_leads_nowhere_is_none(
    client: Client,
    operators_client: Client,
    run: RunFactory,
    crew: Group,
    monkeypatch: pytest.MonkeyPatch,
    leads: Any,
) -> None:
    monkeypatch.setattr(Group, "get_absolute_url", leads, raising=False)
    shown = run(about=about(crew))

    assert fact_of(client, shown).startswith("Night crew<br>")
    assert f'href="/admin/auth/group/{crew.pk}/change/"' in fact_of(operators_client, shown)


def test_who_may_not_see_the_run_is_told_nothing(client: Client, run: RunFactory, tobias: User, crew: Group) -> None:
    response = client.get(f"/runs/{run(owner=tobias, about=about(crew)).pk}/")

    assert response.status_code == 404
    assert "Night crew" not in response.content.decode()


def test_it_takes_one_query_and_without_it_none(operators_client: Client, run: RunFactory, crew: Group) -> None:
    asked = []
    for shown in (run(), run(about=about(crew))):
        page_of(operators_client, shown)
        with CaptureQueriesContext(connection) as queries:
            page_of(operators_client, shown)
        asked.append([query["sql"] for query in queries if "auth_group" in query["sql"]])

    assert list(map(len, asked)) == [0, 1]


def test_a_poll_without_news_still_takes_one(
    client: Client, run: RunFactory, cluster: Any, still: None, crew: Group, django_assert_num_queries: Any
) -> None:
    poll = poll_of(page_of(client, run(about=about(crew))))

    with django_assert_num_queries(1):
        assert client.get(poll, headers=HTMX).status_code == 204


def test_a_run_that_is_sent_again_is_about_the_same(operators_client: Client, run: RunFactory, crew: Group) -> None:
    past = run(**SITUATIONS["successful"], about=about(crew))
    page = operators_client.get(f"/runs/{past.pk}/again/").content.decode()

    operators_client.post(f"/runs/{past.pk}/again/", {"once": once_of(page), "arg-type": "2"})

    assert TaskRun.objects.get(again_of=past).about == about(crew)


# The page of a schedule


def test_a_schedule_tells_what_its_runs_are_about(operators_client: Client, crew: Group) -> None:
    made = schedule("tasks_app.tasks.practice.create_task", name="nightly", type=1, about=crew)
    address = f"/schedules/{made.pk}/"

    page = operators_client.get(address).content.decode()

    assert f'<dt>About</dt><dd><a id="fact-about" href="/admin/auth/group/{crew.pk}/change/">Night crew</a>' in page
    assert f'<a id="about-runs" href="/runs/?about=auth.group%3A{crew.pk}">All runs about it</a>' in page
    assert ">Night crew</a>" in operators_client.post(address, {"do": "preview"}).content.decode()
    made.rules.change(about=None)
    news = operators_client.get(poll_of(page), headers=HTMX).content.decode()
    assert 'id="schedule"' in news
    assert "<dt>About</dt>" not in news


# Lists and files


def test_a_list_has_the_runs_about_one_thing(client: Client, run: RunFactory, tobias: User, crew: Group) -> None:
    shown, theirs, other = run(about=about(crew)), run(about=about(crew), owner=tobias), run(about="auth.group:0")

    page = client.get("/runs/", {"about": about(crew)}).content.decode()

    assert str(shown.pk) in page
    assert str(theirs.pk) not in page and str(other.pk) not in page
    assert f'<span class="vh">Remove filter: </span>about group {crew.pk} ' in page
    assert str(shown.pk) in client.get("/runs/", {"about": about(crew).upper()}).content.decode()


def test_pages_of_it_have_each_run_once(operators_client: Client, run: RunFactory, crew: Group) -> None:
    wanted = {str(run(about=about(crew)).pk) for _ in range(30)}
    found: list[str] = []
    address = f"/runs/?about={about(crew)}&size=25"
    for _ in range(2):
        page = operators_client.get(address).content.decode()
        found += re.findall(r'name="id" value="([^"]+)"', page)
        older = re.search(r'href="([^"]*older=[^"]*)"', page)
        address = f"/runs/{html.unescape(older[1])}" if older else address

    assert len(found) == 30
    assert set(found) == wanted


def test_a_file_tells_it(operators_client: Client, run: RunFactory) -> None:
    run(about="shop.order:7")
    run()

    lines = operators_client.get("/runs/export.csv?about=shop.order:7").getvalue().decode().splitlines()
    assert len(lines) == 2
    assert "shop.order:7" in lines[1].split(",")
    assert operators_client.get("/runs/export.csv?about=7").status_code == 400


# The page of the thing itself


def drawn(instance: Any, user: Any, cookies: Any = None) -> str:
    """What `{% activity_of %}` makes of it on a page that this person asks for."""
    request = RequestFactory().get("/orders/7/?seen=x&page=2")
    request.user = user
    request.COOKIES = {name: morsel.value for name, morsel in (cookies or {}).items()}
    template = Template("{% load dumbwaiter %}{% activity_of thing %}")
    return " ".join(template.render(RequestContext(request, {"thing": instance})).split())


def test_a_page_of_the_thing_shows_its_newest_runs(
    run: RunFactory, mara: User, tobias: User, operator: User, crew: Group, django_assert_num_queries: Any
) -> None:
    for fields in SITUATIONS.values():
        run(**fields, about=about(crew))
    others, theirs = run(), run(about=about(crew), owner=tobias)

    with django_assert_num_queries(1):
        page = drawn(crew, mara)

    for state in SITUATIONS:
        assert f"status--{state}" in page
    assert str(others.pk) not in page and str(theirs.pk) not in page
    assert f'href="/runs/?about=auth.group%3A{crew.pk}"' in page
    assert str(theirs.pk) in drawn(crew, operator)


def test_it_is_bounded(run: RunFactory, mara: User, crew: Group) -> None:
    for _ in range(12):
        run(about=about(crew))

    assert drawn(crew, mara).count("<li") == 10


def test_it_says_when_there_is_none(mara: User, crew: Group) -> None:
    page = drawn(crew, mara)

    assert "Nothing was sent to the background for it yet." in page
    assert "data-poll" not in page


@pytest.mark.parametrize("thing", [None, 7, Group(), "auth.group:1"])
def test_what_no_run_can_be_about_has_none(mara: User, thing: Any) -> None:
    assert drawn(thing, mara).strip() == ""


def test_who_has_not_logged_in_sees_none_of_nobodys(run: RunFactory, crew: Group, settings: Any) -> None:
    shown = run(owner=None, about=about(crew))

    assert drawn(crew, AnonymousUser()) == ""
    settings.DEBUG = settings.OPEN_ACCESS = True
    assert str(shown.pk) in drawn(crew, AnonymousUser())
    alone = Template("{% load dumbwaiter %}{% activity_of thing %}").render(Context({"thing": crew}))
    assert alone.strip() == "", "without a request nobody asks"


def test_it_asks_for_news_while_a_run_goes_on(
    client: Client, run: RunFactory, mara: User, crew: Group, django_assert_num_queries: Any
) -> None:
    shown = run(about=about(crew))
    poll = poll_of(drawn(crew, mara, client.cookies))
    with django_assert_num_queries(1):
        assert client.get(poll, headers=HTMX).status_code == 204

    TaskRun.objects.filter(pk=shown.pk).update(status="CANCELLED", finished_at=shown.enqueued_at)
    news = client.get(poll, headers=HTMX)

    assert news.status_code == 200
    assert "status--cancelled" in news.content.decode()
    assert "data-poll" not in news.content.decode()
    assert drawn(crew, mara).partition("<ul")[2].split() == news.content.decode().partition("<ul")[2].split()


def test_only_ones_own_are_news(client: Client, run: RunFactory, tobias: User, crew: Group) -> None:
    theirs = run(about=about(crew), owner=tobias)

    page = client.get("/runs/activity/", {"about": about(crew)}).content.decode()

    assert str(theirs.pk) not in page
    assert client.get("/runs/activity/?about=7").status_code == 404
    assert client.get("/runs/activity/?about=a.b:%00").status_code == 404
