"""STEER: one deed for many runs: asked back, sent as a run of its own, undone in time, done by its owner's rights."""

from __future__ import annotations

import html
import json
import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.http import QueryDict
from django.template.loader import render_to_string
from django.test import Client, RequestFactory

from tasks_app import bulk
from tasks_app.audit import Actor
from tasks_app.bulk import BadOrder
from tasks_app.clock import database_now
from tasks_app.engine.execution import ClaimedRun, Outcome, execute
from tasks_app.models import AuditEntry, Cluster, Status, TaskRun
from tests.pages.conftest import SITUATIONS, RunFactory
from tests.pages.test_runs_list import many

pytestmark = pytest.mark.django_db

FAILED = SITUATIONS["failed"]
PATH = "tasks_app.tasks.bulk.act_on_runs"


def text_of(response: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def post(client: Client, verb: str, runs: list[TaskRun] | None = None, **given: Any) -> Any:
    """The page that asks back, or what came instead of it."""
    ticked = {"id": [str(run.pk) for run in runs]} if runs is not None else {}
    return client.post("/runs/bulk/", {"verb": verb, **ticked, **given}, follow=True)


def sent(client: Client, verb: str, runs: list[TaskRun] | None = None, **given: Any) -> TaskRun:
    """The run that is to do it."""
    response = post(client, verb, runs, sure="1", **given)
    assert response.redirect_chain, text_of(response)
    return TaskRun.objects.get(pk=response.redirect_chain[-1][0].split("/")[3])


def done(run: TaskRun, attempt: int = 1) -> Outcome:
    """How it ends, done by a worker in this very process."""
    claimed = ClaimedRun(
        run.id, run.task_path, run.args, run.kwargs, run.queue_name, run.priority, attempt, run.max_attempts, None,
        run.enqueued_at, database_now(),
    )  # fmt: skip
    return execute(claimed, "c1:1:1:web-1", lambda progress: None, lambda: False)


def told(outcome: Outcome) -> str:
    assert outcome.return_value, outcome.message
    return str(json.loads(outcome.return_value)["told"])


def permit(user: User, *codenames: str, is_staff: bool = True) -> Client:
    """The browser of somebody who has these permissions."""
    User.objects.filter(pk=user.pk).update(is_staff=is_staff)
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


# Asked back


def test_the_page_asks_with_the_count_and_the_filter(operators_client: Client, run: RunFactory) -> None:
    for _ in range(3):
        run(**FAILED)
    run(**SITUATIONS["successful"])

    page = text_of(
        post(operators_client, "retry", all="1", query="state=failed&task=tasks_app.tasks.practice.create_task")
    )

    assert "Send 3 failed runs of create_task once more?" in page
    assert "Retry 3 runs" in page
    assert not TaskRun.objects.filter(task_path=PATH).exists()


def test_one_run_is_one(operators_client: Client, run: RunFactory) -> None:
    run(**FAILED)

    page = text_of(post(operators_client, "delete", all="1", query="state=failed"))

    assert "Delete 1 failed run for good?" in page
    assert "Delete 1 run" in page


def test_the_count_ends_somewhere(operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        run(**FAILED)
    monkeypatch.setattr("tasks_app.views.bulk.MOST_COUNTED", 2)

    assert "Cancel 2+ failed runs?" in text_of(post(operators_client, "cancel", all="1", query="state=failed"))


def test_of_a_common_word_so_many_are_told_as_are_soon_seen(
    operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks_app.search.MOST_HITS", 2)
    monkeypatch.setattr("tasks_app.listing.LOOKED_AT_FOR_WORDS", 20)
    for _ in range(4):
        run(**{**FAILED, "kwargs": {"kind": "parcel"}})
    many(30, status="'CANCELLED'", finished_at="now()", kwargs='\'{"kind": "letter"}\'')

    def asked(query: str) -> str:
        return text_of(post(operators_client, "delete", all="1", query=query))

    assert "Delete 4 failed runs with “parcel” for good?" in asked("state=failed&q=parcel")
    # More than the list looks at: how many they are is told if that is soon known.
    assert re.search(r"Delete (30|20\+) cancelled runs with “letter”", asked("state=cancelled&q=letter"))
    assert re.search("No run matches|Delete all cancelled runs with “parcel”", asked("state=cancelled&q=parcel"))
    monkeypatch.setattr("tasks_app.bulk.COMMON_COUNTED", 3)
    assert "Delete 3+ failed runs with “parcel” for good?" in asked("state=failed&q=parcel")


def test_what_was_sent_after_the_page_is_not_meant(operators_client: Client, run: RunFactory) -> None:
    old = run(60)
    before = database_now() - timedelta(seconds=30)
    new = run(1)

    act = sent(operators_client, "cancel", all="1", query="", before=before.isoformat())
    done(act)

    assert TaskRun.objects.get(pk=old.pk).status == Status.CANCELLED
    assert TaskRun.objects.get(pk=new.pk).status == Status.READY


@pytest.mark.parametrize("before", ["9999-01-01T00:00:00+00:00", "2026-13-45T00:00:00+00:00", "yesterday", "\x00", "1"])
def test_a_moment_that_somebody_made_up_is_now_at_the_latest(
    operators_client: Client, run: RunFactory, before: str
) -> None:
    run()

    act = sent(operators_client, "cancel", all="1", before=before)

    assert bulk.Order(**act.kwargs).until <= database_now()
    assert told(done(act)) == "1 run was cancelled."


def test_an_hour_is_the_one_that_was_meant(operators_client: Client, run: RunFactory) -> None:
    run(**FAILED)

    act = sent(operators_client, "retry", all="1", query="state=failed&since=1h")

    since = QueryDict(act.kwargs["query"])["since"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", since)


def test_a_filter_that_cannot_be_meant_is_refused(operators_client: Client, run: RunFactory) -> None:
    run(**FAILED)

    page = text_of(post(operators_client, "delete", all="1", query="state=faild", sure="1"))

    assert "The filter is not understood." in page
    assert not TaskRun.objects.filter(task_path=PATH).exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "Tick the runs that are meant first."),
        ({"id": ["nothing"]}, "There is nothing to do with what was ticked. Left out: 1 that is no run."),
        (
            {"id": [str(uuid.uuid4()), "\x00"]},
            "1 that is no run, 1 that cannot be found or is not yours to change.",
        ),
        ({"id": [str(uuid.uuid4()) for _ in range(1_001)]}, "At most 1 000 runs can be ticked."),
        ({"all": "1", "query": "task=nobody"}, "No run matches, so there is nothing to do."),
    ],
)
def test_nothing_to_do_is_said(operators_client: Client, run: RunFactory, given: Any, sentence: str) -> None:
    run()

    response = post(operators_client, "cancel", **given)

    assert response.redirect_chain[0][0].startswith("/runs/")
    assert sentence in text_of(response).replace("\xa0", " ")


def test_what_is_no_run_doubled_or_foreign_is_left_out(client: Client, run: RunFactory, tobias: User) -> None:
    mine, theirs = run(), run(owner=tobias)

    page = text_of(post(client, "cancel", id=[str(mine.pk), str(mine.pk), str(theirs.pk), "junk"]))

    assert "Cancel 1 ticked run?" in page
    assert "1 that is no run, 1 that was ticked twice, 1 that cannot be found or is not yours to change." in page


@pytest.mark.parametrize("verb", ["", "launch", "delete_everything", "__class__", "\x00" * 100, "x" * 10_000])
def test_an_unknown_verb_is_refused(operators_client: Client, run: RunFactory, verb: str) -> None:
    response = post(operators_client, verb, [run()])

    assert response.status_code == 200
    assert "Runs can be retried" in text_of(response)


def test_a_login_in_between_leads_to_the_list(client: Client) -> None:
    assert client.get("/runs/bulk/").headers["Location"] == "/runs/"


@pytest.mark.parametrize(
    ("verb", "given", "sentence"),
    [
        ("priority", {"priority": "101"}, "A priority is a whole number from -100 to 100."),
        ("priority", {}, "A priority is a whole number from -100 to 100."),
        ("move", {"queue": "x" * 101}, "A queue's name has at most 100 characters."),
        ("move", {}, "Name the queue."),
        ("run-at", {"run_after": "tomorrow"}, "That is no time"),
        ("run-at", {"run_after": "9999-12-31T23:59"}, "further away than any calendar reaches"),
        ("run-at", {}, "Choose a day and a time."),
        ("cancel", {"why": "x" * 501}, "at most 500 characters"),
    ],
)
def test_a_value_that_cannot_be_is_told_at_its_field(
    operators_client: Client, run: RunFactory, verb: str, given: dict[str, str], sentence: str
) -> None:
    response = post(operators_client, verb, [run()], sure="1", **given)

    assert response.redirect_chain[-1][0].startswith("/runs/bulk/?asked=")
    assert sentence in text_of(response)
    assert not TaskRun.objects.filter(task_path=PATH).exists()


def question(client: Client, verb: str, runs: list[TaskRun] | None = None, **given: Any) -> str:
    """The address at which it is asked."""
    response = post(client, verb, runs, **given)
    return str(response.redirect_chain[-1][0])


def test_the_question_has_an_address_to_come_back_to(operators_client: Client, client: Client, run: RunFactory) -> None:
    address = question(operators_client, "delete", [run(**FAILED)])
    sent(operators_client, "delete", [run(**FAILED)])

    for _ in range(2):
        response = operators_client.get(address)
        assert response.status_code == 200
        assert "Delete 1 ticked run for good?" in text_of(response)
    assert "is forgotten by now" in text_of(client.get(address, follow=True))
    assert len(TaskRun.objects.filter(task_path=PATH)) == 1


def test_what_was_wrong_with_an_answer_is_told_there_too(operators_client: Client, run: RunFactory) -> None:
    address = question(operators_client, "priority", [run()], sure="1", priority="101", why="for Mara")

    page = operators_client.get(address).content.decode()

    assert "A priority is a whole number from -100 to 100." in page
    assert 'value="101"' in page
    assert 'value="for Mara"' in page


@pytest.mark.parametrize("key", ["", "x", "\x00", "a" * 32, "x" * 4_000])
def test_a_question_that_is_forgotten_leads_to_the_list(operators_client: Client, key: str) -> None:
    response = operators_client.get("/runs/bulk/", {"asked": key}, follow=True)

    assert response.redirect_chain[-1][0] == "/runs/"
    assert "is forgotten by now" in text_of(response)


def test_a_question_is_kept_for_a_while(
    operators_client: Client, run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks_app.questions.KEPT_SECONDS", -1)

    assert "is forgotten by now" in text_of(post(operators_client, "delete", [run(**FAILED)]))


def test_a_filter_that_no_list_has_is_refused(operators_client: Client, run: RunFactory) -> None:
    run(**FAILED)

    page = text_of(post(operators_client, "delete", all="1", query=f"{'x' * 4_000}=1&state=cancelled"))

    assert "The filter is longer than that of any list." in page


def test_a_bulk_act_is_told_to_be_retried_on_its_own_page(operators_client: Client, run: RunFactory) -> None:
    act = sent(operators_client, "delete", [run(**FAILED)])
    operators_client.post(f"/runs/bulk/{act.pk}/undo/")

    alone = text_of(post(operators_client, "retry", [act]))
    among = text_of(post(operators_client, "retry", [act, run(**FAILED)]))
    all_of_them = text_of(post(operators_client, "retry", all="1", query="state=cancelled"))

    assert "Left out: 1 bulk act (only its own page retries it)." in alone
    assert "Send 1 ticked run once more?" in among
    assert "Left out: 1 bulk act (only its own page retries it)." in among
    assert "Bulk acts are retried on their own pages." in all_of_them


@pytest.mark.parametrize("address", ["/runs/", "/"])
def test_lists_tell_in_words_what_a_bulk_act_is_to_do(
    operators_client: Client, run: RunFactory, cluster: Cluster, address: str
) -> None:
    """However many ids it has: those are read last of all."""
    sent(operators_client, "delete", [run(**FAILED) for _ in range(60)], why="the disk is full")

    page = text_of(operators_client.get(address)).replace("\xa0", " ")

    assert "Delete: 60 ticked runs" in page
    assert "ids=" not in page
    assert "why=" not in page


# Done


def test_it_is_a_run_of_its_own_that_begins_in_ten_seconds(
    operators_client: Client, operator: User, run: RunFactory
) -> None:
    old = run(**FAILED)

    act = sent(operators_client, "retry", [old], why="the shop was closed")

    assert (act.task_path, act.owner, act.priority, act.state) == (PATH, operator, 100, "scheduled")
    assert act.run_after - act.enqueued_at == pytest.approx(timedelta(seconds=10), abs=timedelta(seconds=1))
    assert not TaskRun.objects.filter(retry_of=old.pk).exists()
    assert told(done(act)) == "1 run was sent once more."
    assert TaskRun.objects.get(retry_of=old.pk).owner == operator
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.actor, entry.verb, entry.reason) == (act.pk, operator, "retry", "the shop was closed")
    assert (entry.runs, entry.address) == ([old.pk], "127.0.0.1")


@pytest.mark.parametrize(
    ("verb", "given", "changed"),
    [
        ("cancel", {}, {"status": Status.CANCELLED}),
        ("priority", {"priority": "7"}, {"priority": 7}),
        ("move", {"queue": "mail"}, {"queue_name": "mail"}),
        ("run-at", {"run_after": "2030-05-01T12:00"}, {"run_after": "2030-05-01T12:00:00+00:00"}),
    ],
)
def test_each_verb_does_what_it_says(
    operators_client: Client, run: RunFactory, verb: str, given: dict[str, str], changed: dict[str, Any]
) -> None:
    waiting = run()

    outcome = done(sent(operators_client, verb, [waiting, run(**SITUATIONS["successful"])], **given))

    assert TaskRun.objects.filter(pk=waiting.pk, **changed).exists()
    assert json.loads(outcome.return_value or "")["reasons"] == {"have ended already": 1}


def test_what_is_for_later_runs_now(operators_client: Client, run: RunFactory) -> None:
    later = run(**SITUATIONS["scheduled"])

    done(sent(operators_client, "run-now", [later]))

    assert TaskRun.objects.get(pk=later.pk).run_after <= database_now()


def test_delete_takes_what_has_ended(operators_client: Client, run: RunFactory) -> None:
    waiting = run()
    ended = [run(**SITUATIONS[name]) for name in ("successful", "failed", "cancelled")]

    outcome = done(sent(operators_client, "delete", [waiting, *ended]))

    assert told(outcome) == "3 runs were deleted. 1 has not ended yet."
    assert TaskRun.objects.exclude(task_path=PATH).get() == waiting


def test_successful_ones_are_sent_again_if_that_was_asked_for(operators_client: Client, run: RunFactory) -> None:
    old = run(**SITUATIONS["successful"])

    assert told(done(sent(operators_client, "retry", [old]))) == "0 runs were sent once more. 1 was successful."
    assert told(done(sent(operators_client, "retry", [old], successful_too="on"))) == "1 run was sent once more."


def test_successful_ones_are_offered_where_there_are_some(operators_client: Client, run: RunFactory) -> None:
    failed, successful = run(**FAILED), run(**SITUATIONS["successful"])
    offer = "The successful ones among them, too"

    assert offer not in text_of(post(operators_client, "retry", [failed, run(**SITUATIONS["cancelled"])]))
    assert offer in text_of(post(operators_client, "retry", [failed, successful]))


def test_a_second_attempt_counts_what_the_first_one_did(operators_client: Client, run: RunFactory) -> None:
    """As after the death of a worker between the deed and its record."""
    for _ in range(3):
        run(**FAILED)
    act = sent(operators_client, "retry", all="1", query="state=failed")
    done(act)
    run(70, **FAILED)

    assert told(done(act, attempt=2)) == "4 runs were sent once more."
    assert TaskRun.objects.filter(retry_of__isnull=False).count() == 4


def test_a_bulk_act_is_not_done_again_with_the_others(operators_client: Client, run: RunFactory) -> None:
    """Undone deletes would be done after all when somebody retries what was cancelled."""
    undone = sent(operators_client, "delete", [run(**FAILED)])
    operators_client.post(f"/runs/bulk/{undone.pk}/undo/")

    outcome = done(sent(operators_client, "retry", all="1", query=""))

    assert told(outcome) == "1 run was sent once more."
    assert not TaskRun.objects.filter(retry_of=undone.pk).exists()


def test_a_double_click_is_one_wish(operators_client: Client, run: RunFactory) -> None:
    runs, once = [run(**FAILED)], uuid.uuid4().hex

    first = sent(operators_client, "retry", runs, once=once)
    second = sent(operators_client, "retry", runs, once=once)

    assert first == second


# Who may


def test_owners_cancel_and_retry_their_own(client: Client, run: RunFactory, tobias: User) -> None:
    mine, theirs = run(**FAILED), run(owner=tobias, **FAILED)

    outcome = done(sent(client, "retry", all="1", query="state=failed"))

    assert told(outcome) == "1 run was sent once more."
    assert TaskRun.objects.filter(retry_of=mine.pk).exists()
    assert not TaskRun.objects.filter(retry_of=theirs.pk).exists()


@pytest.mark.parametrize("verb", ["delete", "priority", "move", "run-now", "run-at"])
def test_for_the_rest_owners_need_a_permission(client: Client, run: RunFactory, verb: str) -> None:
    page = text_of(post(client, verb, [run()]))

    assert "That needs the permission to" in page
    assert not TaskRun.objects.filter(task_path=PATH).exists()


def test_staff_without_the_permission_reaches_the_own_runs(run: RunFactory, tobias: User) -> None:
    theirs, mine = run(**FAILED), run(owner=tobias, **FAILED)
    browser = permit(tobias, "cancel_taskrun")

    assert told(done(sent(browser, "retry", [mine]))) == "1 run was sent once more."
    assert "cannot be found or is not yours to change" in text_of(post(browser, "retry", [theirs]))
    assert "Cancel 1 ticked run?" in text_of(post(browser, "cancel", [theirs]))


def test_the_permission_counts_that_its_owner_has_when_it_begins(run: RunFactory, tobias: User) -> None:
    ended = run(**FAILED)
    act = sent(permit(tobias, "delete_taskrun"), "delete", [ended])
    tobias.user_permissions.clear()

    outcome = done(act)

    assert (outcome.status, outcome.message) == (
        Status.FAILED, "BadOrder: That needs the permission to delete runs.",
    )  # fmt: skip
    assert TaskRun.objects.filter(pk=ended.pk).exists()


def test_nothing_in_its_arguments_says_who_acts(operators_client: Client, run: RunFactory, mara: User) -> None:
    """The run of somebody else with the arguments of an operator's has no more rights than that one."""
    ended = run(**FAILED)
    act = sent(operators_client, "delete", [ended])
    TaskRun.objects.filter(pk=act.pk).update(owner=mara)

    assert done(act).status == Status.FAILED
    assert TaskRun.objects.filter(pk=ended.pk).exists()


def test_of_somebody_who_is_gone_nothing_is_done(run: RunFactory, tobias: User) -> None:
    ended = run(**FAILED)
    act = sent(permit(tobias, "delete_taskrun"), "delete", [ended])
    tobias.delete()

    assert done(act).message == "BadOrder: That needs the permission to delete runs."
    assert TaskRun.objects.filter(pk=ended.pk).exists()


def test_a_guest_of_open_access_may_do_all(run: RunFactory, settings: Any) -> None:
    settings.OPEN_ACCESS = settings.DEBUG = True
    theirs = run(**FAILED)

    outcome = done(sent(Client(), "delete", all="1", query="state=failed"))

    assert told(outcome) == "1 run was deleted."
    assert not TaskRun.objects.filter(pk=theirs.pk).exists()
    assert AuditEntry.objects.get().actor_name == "a guest"


def test_code_without_a_person_is_refused() -> None:
    with pytest.raises(BadOrder, match="needs the permission"):
        bulk.send(None, "cancel", finding_query="state=ready")


def test_code_sends_it_for_a_person(run: RunFactory, operator: User) -> None:
    run(**FAILED)

    act = bulk.send(Actor(operator, operator.username), verb="retry", finding_query="state=failed", why="by code")

    assert act.kwargs["what"] == "all failed runs"
    assert told(done(act)) == "1 run was sent once more."


# Undo, and its page


def page_of(client: Client, act: TaskRun) -> str:
    response = client.get(f"/runs/bulk/{act.pk}/")
    assert response.status_code == 200
    return text_of(response)


def test_undo_in_time_changes_nothing(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    act = sent(operators_client, "delete", [run(**FAILED)])
    assert "Nothing has been changed yet." in page_of(operators_client, act)

    page = text_of(operators_client.post(f"/runs/bulk/{act.pk}/undo/", follow=True))

    assert "Undone. Nothing was changed." in page
    act.refresh_from_db()
    assert (act.status, act.failure_message) == (
        Status.CANCELLED, "Cancelled by operator: Undone before it began.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("situation", "sentence"),
    [
        ("claimed", "Too late: it has begun."),
        ("running", "Too late: it has begun."),
        ("failed", "Too late: it has ended."),
    ],
)
def test_undo_says_when_it_is_too_late(
    operators_client: Client, run: RunFactory, situation: str, sentence: str
) -> None:
    act = sent(operators_client, "delete", [run(**FAILED)])
    fields = {name: value for name, value in SITUATIONS[situation].items() if not name.endswith("_at")}
    TaskRun.objects.filter(pk=act.pk).update(**{**fields, "attempts": []})

    page = text_of(operators_client.post(f"/runs/bulk/{act.pk}/undo/", follow=True))

    assert sentence in page
    assert TaskRun.objects.get(pk=act.pk).status != Status.CANCELLED


def test_nobody_else_undoes_it(operators_client: Client, client: Client, run: RunFactory, tobias: User) -> None:
    act = sent(operators_client, "delete", [run(**FAILED)])

    assert client.post(f"/runs/bulk/{act.pk}/undo/").status_code == 404
    page = text_of(permit(tobias).post(f"/runs/bulk/{act.pk}/undo/", follow=True))

    assert "That needs the permission to cancel runs." in page
    assert TaskRun.objects.get(pk=act.pk).status == Status.READY


def test_a_queue_that_nobody_takes_from_is_told(operators_client: Client, run: RunFactory) -> None:
    act = sent(operators_client, "delete", [run(**FAILED)])
    TaskRun.objects.filter(pk=act.pk).update(run_after=act.enqueued_at)

    assert "No live worker takes from the queue default." in page_of(operators_client, act)


def test_a_move_into_a_queue_of_nobody_is_told(operators_client: Client, run: RunFactory, cluster: Cluster) -> None:
    act = sent(operators_client, "move", [run()], queue="\u202enobody")

    assert "No live worker takes from the queue [202e]nobody." in page_of(operators_client, act)


def test_the_page_tells_how_far_it_came(operators_client: Client, run: RunFactory) -> None:
    act = sent(operators_client, "cancel", [run()])
    progress = {"done": 2_000, "total": 5_000, "message": "1 990 runs were cancelled"}
    now = database_now()
    begun = {"attempt": 1, "claimed_by": "c1:2:4711:web-1", "claimed_at": now, "started_at": now, "progress": progress}
    TaskRun.objects.filter(pk=act.pk).update(status=Status.RUNNING, **begun)
    assert "2 000 of 5 000 looked at. 1 990 runs were cancelled." in page_of(operators_client, act).replace("\xa0", " ")

    ended = {"finished_at": now, "failure_message": "Cancelled by mara."}
    TaskRun.objects.filter(pk=act.pk).update(status=Status.CANCELLED, **ended)

    page = page_of(operators_client, act).replace("\xa0", " ")
    assert "Runs / Cancel" in page
    assert "It was ended before it was done. Cancelled by mara." in page
    assert "Up to then 1 990 runs were cancelled, of 2 000 looked at; the rest is as it was." in page


def test_its_page_is_only_for_those_who_may_see_it(client: Client, operators_client: Client, run: RunFactory) -> None:
    act, other = sent(operators_client, "delete", [run(**FAILED)]), run()

    assert client.get(f"/runs/bulk/{act.pk}/").status_code == 404
    assert operators_client.get(f"/runs/bulk/{other.pk}/").status_code == 404


def test_a_poll_without_news_is_one_query(
    operators_client: Client, run: RunFactory, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks_app.views.bulk.time.time", lambda: 1.0)
    act = sent(operators_client, "delete", [run(**FAILED)])
    response = operators_client.get(f"/runs/bulk/{act.pk}/")
    poll = html.unescape(re.findall(r'hx-get="([^"]+)"', response.content.decode())[0])

    with django_assert_num_queries(1):
        assert operators_client.get(poll, headers={"HX-Request": "true"}).status_code == 204
    TaskRun.objects.filter(pk=act.pk).update(status=Status.CANCELLED, finished_at=database_now())
    response = operators_client.get(poll, headers={"HX-Request": "true"})

    assert (response.status_code, b"Undone." in response.content) == (200, True)
    assert b"hx-trigger" not in response.content


def test_hostile_words_do_nothing(operators_client: Client, run: RunFactory) -> None:
    nasty = '"><script>alert(1)</script>\u202e'
    act = sent(operators_client, "cancel", [run()], why=nasty)

    page = operators_client.get(f"/runs/bulk/{act.pk}/").content.decode()

    assert "<script>alert" not in page
    assert "\u202e" not in page


# The bar


def bar(user: User, query: str = "") -> str:
    request = RequestFactory().get("/runs/", QueryDict(query).dict())
    request.user = user
    return render_to_string("runs/_bulk_bar.html", {"request": request})


def test_what_one_may_not_do_is_shown_with_the_reason(mara: User, operator: User) -> None:
    shown = bar(mara)

    assert re.search(r'id="do-delete" type="button" aria-disabled="true"', shown)
    assert "That needs the permission to delete runs." in shown
    assert re.search(r'id="do-retry" name="verb" value="retry"', shown)
    assert "aria-disabled" not in bar(operator)


@pytest.mark.parametrize(
    ("state", "verb", "sentence"),
    [
        ("failed", "cancel", "They have ended already."),
        ("running", "delete", "They have not ended yet."),
        ("running", "priority", "Workers have them already."),
    ],
)
def test_what_cannot_be_done_in_this_state_is_shown_with_the_reason(
    operator: User, state: str, verb: str, sentence: str
) -> None:
    shown = bar(operator, f"state={state}")

    assert f'id="do-{verb}" type="button" aria-disabled="true"' in shown
    assert sentence in shown


def test_a_guest_without_open_access_reaches_nothing(settings: Any) -> None:
    settings.OPEN_ACCESS = False

    with pytest.raises(BadOrder):
        bulk.Order(verb="cancel", query="").check(AnonymousUser())
