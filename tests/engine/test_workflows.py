"""Chains and groups: what is stored, what follows from each end, and who carries it out."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_tasks.exceptions import InvalidTaskError

from config.local import BASE_DIR
from tasks_app.audit import Actor
from tasks_app.engine.advance import Sweep, advance
from tasks_app.engine.connect import connect
from tasks_app.models import Status, TaskRun, Workflow, WorkflowNews
from tasks_app.portrait import Portrait
from tasks_app.workflows import DEEPEST, MOST_RUNS, PREVIOUS, Flow, chain, group, step
from tests import flows, outcomes, wishful
from tests.plugins.processes import ClusterFactory
from tests.plugins.processes import _environment as environment
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

Database = psycopg.Connection[Any]


@pytest.fixture
def sentinel() -> Iterator[Database]:
    """A connection as a sentinel has it, with nobody else at the workflows."""
    with connect("test") as db:
        db.execute("SET lock_timeout = '2s'")
        yield db


def sweep(db: Database) -> int:
    """Until nothing follows any more; answers in how many turns."""
    going, turns = Sweep(), 0
    while going.turn(db) is not None:
        turns += 1
    return turns


def ends(workflow: Workflow, *steps: int, status: str = "SUCCESSFUL", result: str | None = "1") -> None:
    """As a worker's statement would have it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tasks_app_taskrun SET status = %s, return_value = %s::jsonb, finished_at = clock_timestamp()"
            " WHERE workflow_id = %s AND step = ANY (%s) AND status IN ('READY', 'RUNNING')",
            [status, result if status == "SUCCESSFUL" else None, workflow.pk, list(steps)],
        )
        assert cursor.rowcount == len(steps)


def states(workflow: Workflow) -> str:
    """A letter a run: waiting, ready, held, or how it ended."""
    return "".join(
        "W" if run.status == "READY" and run.is_waiting else "H" if run.status == "READY" and run.claimed_by else
        run.status[0] for run in workflow.steps
    )  # fmt: skip


def holds(workflow: Workflow, *steps: int) -> None:
    workflow.steps.filter(step__in=steps).update(claimed_by="c1:2:4711:web-1", claimed_at=timezone.now(), attempt=1)


def settled(workflow: Workflow) -> tuple[str, str | None]:
    workflow.refresh_from_db()
    assert workflow.is_finished == bool(workflow.finished_at)
    return workflow.status, workflow.message


def wait_for(workflow: Workflow, seconds: float = 20) -> Workflow:
    def is_finished() -> bool:
        workflow.refresh_from_db()
        return workflow.is_finished

    wait_until(is_finished, seconds=seconds, what="the end of the workflow")
    return workflow


add, tell = flows.adds, flows.tells


# What is stored


def test_enqueue_stores_every_run_and_starts_the_first() -> None:
    user = User.objects.create(username="mara")
    flow = chain(add.step(1), group(add.using(priority=5).step(PREVIOUS, n) for n in range(2)), tell.step(x=PREVIOUS))

    workflow = flow.enqueue(name="album", owner=user, on_failure="continue")

    kept = Workflow.objects.get()
    assert (kept.name, kept.owner, kept.on_failure, kept.size, kept.status) == ("album", user, "continue", 4, "READY")
    assert kept.enqueued_at == workflow.enqueued_at
    assert kept.shape == {"chain": [0, {"group": [1, 2]}, 3]}
    runs = list(kept.steps)
    assert [(run.args, run.kwargs) for run in runs] == [([1], {}), ([None, 0], {}), ([None, 1], {}), ([], {"x": None})]
    assert [(run.state, run.priority, run.owner) for run in runs] == [
        ("ready", 0, user), ("waiting", 5, user), ("waiting", 5, user), ("waiting", 0, user),
    ]  # fmt: skip
    assert [run.previous for run in runs] == [
        None,
        {"first": 0, "last": 0, "args": [0], "kwargs": []},
        {"first": 0, "last": 0, "args": [0], "kwargs": []},
        {"first": 1, "last": 2, "args": [], "kwargs": ["x"]},
    ]
    assert [run.step for run in TaskRun.objects.waiting()] == [0]


def test_thousands_are_stored_in_few_statements() -> None:
    with CaptureQueriesContext(connection) as queries:
        workflow = group([add.step(n) for n in range(3_000)], then=add.step(PREVIOUS)).enqueue()

    inserts = [query["sql"] for query in queries if "INSERT" in query["sql"]]
    assert len(inserts) == 2
    assert workflow.name == "3001 x adds"
    assert states(workflow) == "R" * 3_000 + "W"


def test_a_rollback_leaves_nothing() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        chain(add.step(1), add.step(PREVIOUS)).enqueue()
        raise RuntimeError

    assert not Workflow.objects.exists()
    assert not TaskRun.objects.exists()


def test_a_task_a_function_and_a_path_can_be_steps() -> None:
    workflow = chain(
        step(outcomes.plain, 1), step("tests.outcomes.plain", PREVIOUS), step(add.using(queue_name="q"), PREVIOUS)
    ).enqueue()

    assert [(run.task_path, run.queue_name) for run in workflow.steps] == [
        ("tests.outcomes.plain", "default"), ("tests.outcomes.plain", "default"), ("tests.flows.adds", "q"),
    ]  # fmt: skip


def test_the_options_of_a_step_are_kept() -> None:
    later = timezone.now() + timedelta(hours=1)
    workflow = chain(add.step(1), flows.thirds.using(run_after=later).step("x", PREVIOUS)).enqueue()

    run = workflow.steps[1]
    assert (run.run_after, run.max_attempts) == (later, 3)


def loop() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


def deep(levels: int) -> Flow:
    part: Flow = add.step(1)
    for _ in range(levels):
        part = group(part)
    return part


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: chain().enqueue(), "needs a step"),
        (lambda: group([]).enqueue(), "needs a step"),
        (lambda: chain(add), r"write adds.step\(...\)"),  # type: ignore[arg-type]
        (lambda: group([1]), "made of steps"),  # type: ignore[list-item]
        (lambda: chain("text"), "made of steps"),  # type: ignore[arg-type]
        (lambda: group([add.step(1)], then=7), "made of steps"),  # type: ignore[arg-type]
        (lambda: add.step(PREVIOUS).enqueue(), "Nothing stands before"),
        (lambda: group(add.step(PREVIOUS)).enqueue(), "Nothing stands before"),
        (lambda: chain(add.step(1), add.step([PREVIOUS])), "not for a part"),
        (lambda: chain(add.step(1), add.step(x={"a": (PREVIOUS,)})), "not for a part"),
        (lambda: add.step({1}).enqueue(), "cannot be stored as JSON"),
        (lambda: add.step(loop()).enqueue(), "nested too deep"),
        (lambda: chain(add.step(1), add.step([loop(), PREVIOUS])), "not for a part"),
        (lambda: chain(add.step(1), add.step("a\x00")).enqueue(), "NUL"),
        (lambda: group(add.step(n) for n in range(MOST_RUNS + 1)), "at most 10,000 runs"),
        (lambda: chain(deep(2) for _ in iter(int, 1)), "at most 10,000 runs"),
        (lambda: group([add.step()] * 6_000, then=group([add.step()] * 6_000)), "at most 10,000 runs"),
        (lambda: group([group([group([])] * 9_000)] * 9_000), "30,000 parts"),
        (lambda: deep(DEEPEST + 1), "levels deep"),
        (lambda: add.step(1).enqueue(on_failure="maybe"), "on_failure is"),
        (lambda: add.step(1).enqueue(name="x" * 201), "at most 200 characters"),
        (lambda: wishful.reminds.step(7).enqueue(), "neither be unique nor expire, as reminds"),
        (lambda: chain(add.step(1), wishful.reminds.step(PREVIOUS)).enqueue(), "neither be unique nor expire"),
        (lambda: step("tests.flows.missing"), "no task"),
        (lambda: step(lambda: 1), "no worker could find it"),
    ],
)
def test_what_cannot_be_a_workflow_is_refused_with_a_sentence(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InvalidTaskError, match=sentence):
        make()

    assert not Workflow.objects.exists()
    assert not TaskRun.objects.exists()


def test_empty_groups_have_an_empty_result(sentinel: Database) -> None:
    workflow = chain(group([]), tell.step(PREVIOUS), group(group()), tell.step(PREVIOUS)).enqueue()
    assert [(run.args, run.is_waiting) for run in workflow.steps] == [([[]], None), ([None], True)]

    ends(workflow, 0)
    sweep(sentinel)

    assert workflow.steps[1].args == [[[]]]


# What follows


def test_a_chain_goes_on_with_the_result_of_each_step(sentinel: Database) -> None:
    workflow = chain(add.step(1), tell.step("x", PREVIOUS, y=PREVIOUS), tell.step()).enqueue()

    ends(workflow, 0, result='{"a": ["é", null]}')
    sweep(sentinel)

    run = workflow.steps[1]
    assert (run.args, run.kwargs) == (["x", {"a": ["é", None]}], {"y": {"a": ["é", None]}})
    assert (states(workflow), settled(workflow)) == ("SRW", ("RUNNING", None))
    assert (run.state, workflow.steps[2].state) == ("ready", "waiting")
    ends(workflow, 1)
    sweep(sentinel)
    ends(workflow, 2, result='"last"')
    sweep(sentinel)
    assert (settled(workflow), workflow.result) == (("SUCCESSFUL", None), "last")
    assert workflow.totals == {"SUCCESSFUL": 3}
    assert not WorkflowNews.objects.exists()


def test_a_failure_ends_a_chain_and_nothing_after_it_begins(sentinel: Database) -> None:
    """Django-Q2's chains went on after a failure."""
    workflow = chain(add.step(1), add.step(PREVIOUS), add.step(PREVIOUS)).enqueue(name="album")

    ends(workflow, 0, status="FAILED")
    sweep(sentinel)

    assert (states(workflow), settled(workflow)) == ("FCC", ("FAILED", "Step 1 (adds) failed."))
    assert {run.failure_message for run in workflow.steps[1:]} == {"Step 1 (adds) failed."}
    assert all(run.finished_at and run.attempt == 0 for run in workflow.steps[1:])


def test_stop_cancels_all_that_no_worker_holds(sentinel: Database) -> None:
    workflow = group([add.step(n) for n in range(5)], then=tell.step(PREVIOUS)).enqueue()
    holds(workflow, 1)

    ends(workflow, 3, status="FAILED")
    sweep(sentinel)

    assert (states(workflow), settled(workflow)[0]) == ("CHCFCC", "RUNNING")
    assert workflow.steps[1].cancel_requested_at is None  # what runs ends by itself
    ends(workflow, 1)
    sweep(sentinel)
    assert (states(workflow), settled(workflow)) == ("CSCFCC", ("FAILED", "Step 4 (adds) failed."))


def test_continue_gives_null_for_a_failed_member(sentinel: Database) -> None:
    members = [add.step(1), chain(add.step(2), add.step(PREVIOUS)), group(add.step(3), add.step(4))]
    workflow = group(members, then=tell.step(PREVIOUS)).enqueue(on_failure="continue")

    ends(workflow, 0, 4, result="7")
    ends(workflow, 1, 3, status="FAILED")
    sweep(sentinel)

    assert states(workflow) == "SFCFSR"
    assert workflow.steps[2].failure_message == "Step 2 (adds) failed."
    assert workflow.steps[5].args == [[7, None, [None, 7]]]
    ends(workflow, 5)
    sweep(sentinel)
    assert settled(workflow) == ("SUCCESSFUL", None)


def test_continue_fails_when_its_last_steps_could_not_run(sentinel: Database) -> None:
    workflow = chain(add.step(1), group(add.step(PREVIOUS), add.step(PREVIOUS)), tell.step(PREVIOUS)).enqueue(
        on_failure="continue"
    )

    ends(workflow, 0, status="FAILED")
    sweep(sentinel)

    assert (states(workflow), settled(workflow)) == ("FCCC", ("FAILED", "Step 1 (adds) failed."))


def test_continue_lets_the_other_members_go_on(sentinel: Database) -> None:
    workflow = group(chain(add.step(1), add.step(PREVIOUS)), chain(add.step(2), add.step(PREVIOUS))).enqueue(
        on_failure="continue"
    )

    ends(workflow, 0, status="FAILED")
    ends(workflow, 2)
    sweep(sentinel)

    assert states(workflow) == "FCSR"
    ends(workflow, 3, result="5")
    sweep(sentinel)
    assert (settled(workflow), workflow.result) == (("FAILED", "Step 1 (adds) failed."), [None, 5])


def test_a_waiting_run_that_somebody_cancels_is_as_one_that_failed(sentinel: Database) -> None:
    workflow = chain(add.step(1), add.step(2), add.step(3)).enqueue()

    assert workflow.steps[1].cancel("No.")
    sweep(sentinel)

    assert (states(workflow), settled(workflow)) == ("CCC", ("FAILED", "Step 2 (adds) was cancelled."))
    assert workflow.steps[1].failure_message == "No."


def test_a_retry_is_no_end(sentinel: Database) -> None:
    """Django-Q2 went on with a chain once for each attempt."""
    workflow = chain(add.step(1), add.step(PREVIOUS)).enqueue()
    workflow.steps.filter(step=0).update(status=Status.RUNNING, claimed_by="c1:2:4711:web-1")
    workflow.steps.filter(step=0).update(status=Status.READY, claimed_by=None)

    assert not WorkflowNews.objects.exists()
    assert sweep(sentinel) == 0
    assert states(workflow) == "RW"


def test_a_result_too_large_for_arguments_fails_the_run_that_would_get_it(sentinel: Database, settings: Any) -> None:
    settings.MAX_JSON_BYTES = 1_000
    large = f'"{"x" * 600}"'
    workflow = group(
        chain(add.step(1), tell.step(PREVIOUS)),
        chain(add.step(1), tell.step(PREVIOUS, PREVIOUS)),
        group([add.step(1), add.step(1), add.step(1), add.step(1)], then=tell.step(PREVIOUS)),
    ).enqueue(on_failure="continue")

    ends(workflow, 0, 2, 4, 5, 6, 7, result=large)
    sweep(sentinel)

    assert states(workflow) == "SRSFSSSSF"
    for number in (3, 8):
        run = workflow.steps[number]
        assert run.failure == "rejected"
        assert "larger than the 1,000 bytes allowed" in (run.failure_message or "")
        assert run.finished_at
    ends(workflow, 1)
    sweep(sentinel)
    assert settled(workflow) == ("FAILED", "Step 4 (tells) failed.")


def test_a_result_is_measured_without_the_spaces_of_the_database(sentinel: Database, settings: Any) -> None:
    settings.MAX_JSON_BYTES = 1_000
    workflow = chain(add.step(1), tell.step(PREVIOUS)).enqueue()

    ends(workflow, 0, result=f"[{','.join('1' * 450)}]")  # 901 bytes, and 1,350 with spaces
    sweep(sentinel)

    assert workflow.steps[1].args == [[1] * 450]


def test_many_are_released_in_turns(sentinel: Database) -> None:
    count = 2_500
    workflow = chain(add.step(1), group(add.step(PREVIOUS) for _ in range(count)), tell.step(PREVIOUS)).enqueue()

    ends(workflow, 0, result='"x"')
    found = advance(sentinel)

    assert found is not None
    assert 0 < states(workflow).count("R") <= 1_000
    sweep(sentinel)
    assert states(workflow) == "S" + "R" * count + "W"
    assert set(workflow.steps.filter(step=count).values_list("args", flat=True)[0]) == {"x"}
    ends(workflow, *range(1, count + 1), result="2")
    sweep(sentinel)
    assert workflow.steps[count + 1].args == [[2] * count]


def test_many_chains_at_once_each_get_their_own(sentinel: Database) -> None:
    count = 230
    workflow = group(chain(add.step(n), tell.step(PREVIOUS)) for n in range(count)).enqueue()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE tasks_app_taskrun SET status = 'SUCCESSFUL', return_value = to_jsonb(step) "
                       "WHERE is_waiting IS NULL")  # fmt: skip

    sweep(sentinel)

    assert [run.args for run in workflow.steps if run.step % 2] == [[2 * n] for n in range(count)]  # type: ignore[operator]


# Who carries it out


def test_two_sentinels_at_once_do_everything_once(sentinel: Database) -> None:
    workflows = [group([add.step(n) for n in range(20)], then=tell.step(PREVIOUS)).enqueue() for _ in range(15)]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE TABLE released (id uuid);
            CREATE FUNCTION note_release() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO released VALUES (new.id); RETURN new; END $$;
            CREATE TRIGGER note_release AFTER UPDATE ON tasks_app_taskrun FOR EACH ROW
            WHEN (old.is_waiting AND new.is_waiting IS NULL) EXECUTE FUNCTION note_release();
            """
        )
    try:
        stop = threading.Event()
        errors: list[BaseException] = []

        def guard() -> None:
            try:
                with connect("another") as db:
                    while not stop.is_set():
                        sweep(db)
            except BaseException as error:
                errors.append(error)

        others = [threading.Thread(target=guard) for _ in range(3)]
        for other in others:
            other.start()
        for number in range(20):
            for workflow in workflows:
                ends(workflow, number, result=str(number))
        stop.set()
        for other in others:
            other.join()
        sweep(sentinel)

        assert not errors
        assert {states(workflow) for workflow in workflows} == {"S" * 20 + "R"}
        assert all(workflow.steps[20].args == [list(range(20))] for workflow in workflows)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT id) FROM released")
            assert cursor.fetchone() == (15, 15)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION note_release CASCADE; DROP TABLE released")


def test_nobody_waits_for_a_workflow_or_a_run_that_is_locked(sentinel: Database) -> None:
    first, second = (chain(add.step(1), add.step(PREVIOUS)).enqueue() for _ in range(2))
    ends(first, 0)
    ends(second, 0)
    waiting = second.steps[1].pk

    with connect("somebody") as somebody, somebody.transaction():
        somebody.execute("SELECT FROM tasks_app_workflow WHERE id = %s FOR UPDATE", [first.pk])
        somebody.execute("SELECT FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [waiting])
        sweep(sentinel)

    assert (states(first), states(second)) == ("SW", "SW")
    assert set(WorkflowNews.objects.values_list("workflow_id", flat=True)) == {first.pk, second.pk}
    sweep(sentinel)
    assert (states(first), states(second)) == ("SR", "SR")


def test_news_of_a_workflow_that_is_gone_are_forgotten(sentinel: Database) -> None:
    WorkflowNews.objects.create(workflow_id=uuid.uuid4())
    workflow = add.step(1).enqueue()
    ends(workflow, 0)

    sweep(sentinel)

    assert settled(workflow)[0] == "SUCCESSFUL"
    assert not WorkflowNews.objects.exists()


@pytest.mark.parametrize("shape", [{"chain": [0, "x"]}, {"group": 7}, "text", [[0]], {"chain": [0, {"chain": [[]]}]}])
def test_a_workflow_that_cannot_be_read_ends_and_harms_no_other(sentinel: Database, shape: Any) -> None:
    broken, sound = (chain(add.step(1), add.step(PREVIOUS)).enqueue() for _ in range(2))
    Workflow.objects.filter(pk=broken.pk).update(shape=shape)
    ends(broken, 0)
    ends(sound, 0)

    sweep(sentinel)
    sweep(sentinel)

    status, message = settled(broken)
    assert (states(broken), status) == ("SC", "FAILED")
    assert (message or "").startswith("It cannot be carried on: ")
    assert states(sound) == "SR"
    assert not WorkflowNews.objects.exists()


# Cancel


def test_cancel_ends_what_nobody_holds_and_tells_the_rest(sentinel: Database) -> None:
    workflow = chain(group(add.step(n) for n in range(3)), add.step(PREVIOUS)).enqueue()
    holds(workflow, 0)

    assert workflow.cancel(by=Actor(name="mara"))
    assert workflow.cancel("Again.")
    sweep(sentinel)

    assert (states(workflow), settled(workflow)) == ("HCCC", ("RUNNING", "Cancelled by mara."))
    assert workflow.steps[0].cancel_requested_at
    assert {run.failure_message for run in workflow.steps} == {"Cancelled by mara."}
    ends(workflow, 0, status="CANCELLED")
    sweep(sentinel)
    assert settled(workflow) == ("CANCELLED", "Cancelled by mara.")
    assert not workflow.cancel()


def test_cancel_passes_over_a_locked_run_and_the_sentinel_comes_back_to_it(sentinel: Database) -> None:
    workflow = chain(add.step(1), add.step(PREVIOUS)).enqueue()

    with connect("somebody") as somebody, somebody.transaction():
        somebody.execute("SELECT FROM tasks_app_taskrun WHERE id = %s FOR UPDATE", [workflow.steps[1].pk])
        assert workflow.cancel("Enough.")
        sweep(sentinel)
        assert states(workflow) == "CW"
    sweep(sentinel)

    assert (states(workflow), settled(workflow)) == ("CC", ("CANCELLED", "Enough."))


# With a cluster


def test_a_cluster_runs_a_nested_workflow(qcluster: ClusterFactory) -> None:
    qcluster()
    flow = chain(
        add.step(1, 2),
        group(chain(flows.squares.step(n), add.step(PREVIOUS, 1)) for n in range(5)),
        group(tell.step(PREVIOUS), add.step(PREVIOUS), group([flows.squares.step(2)], then=tell.step(all=PREVIOUS))),
    )

    workflow = wait_for(flow.enqueue())

    results = [1, 2, 5, 10, 17]
    assert (workflow.status, workflow.result) == ("SUCCESSFUL", [[results], 35, [[], {"all": [4]}]])


def test_a_cluster_for_once_stops_after_the_last_step(tmp_path: Path) -> None:
    workflow = chain(add.step(0), *(add.step(PREVIOUS, 1) for _ in range(9))).enqueue()
    command = [sys.executable, "manage.py", "qcluster", "--run-once"]

    done = subprocess.run(command, cwd=BASE_DIR, env=environment(tmp_path, {}), capture_output=True, timeout=60)

    assert done.returncode == 0
    assert (settled(workflow), workflow.result) == (("SUCCESSFUL", None), 9)


def test_a_step_that_is_tried_again_is_followed_once(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    tries, after = tmp_path / "tries", tmp_path / "after"
    flow = chain(flows.thirds.step(str(tries), 7), outcomes.writes_ledger.step(str(after), PREVIOUS))

    workflow = wait_for(flow.enqueue())

    assert workflow.status == "SUCCESSFUL"
    assert tries.read_text().split() == ["7"] * 3
    assert after.read_text().split() == ["7"]


def test_a_failed_step_ends_the_chain_once_its_last_attempt_failed(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster()
    after = tmp_path / "after"
    workflow = chain(flows.breaks.step("no"), outcomes.writes_ledger.step(str(after), 1)).enqueue()

    wait_for(workflow)

    assert (workflow.status, workflow.message, workflow.result) == ("FAILED", "Step 1 (breaks) failed.", None)
    assert not after.exists()


def test_cancel_stops_a_workflow_at_work(qcluster: ClusterFactory) -> None:
    qcluster()
    workflow = chain(group(outcomes.sleeps.step(60) for _ in range(4)), add.step(PREVIOUS)).enqueue()
    wait_until(lambda: workflow.steps.filter(status="RUNNING").count() == 2, what="two runs at work")

    workflow.cancel("Enough.")

    assert wait_for(workflow).status == "CANCELLED"
    assert workflow.totals == {"CANCELLED": 5}


def test_news_without_a_notification_are_found(qcluster: ClusterFactory) -> None:
    qcluster()
    workflow = chain(add.step(1), add.step(PREVIOUS)).enqueue()
    wait_for(workflow)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tasks_app_taskrun DISABLE TRIGGER tasks_app_workflow_news")
    try:
        quiet = chain(outcomes.sleeps.step(0), add.step(1)).enqueue()
        wait_until(lambda: quiet.steps[0].is_finished, what="the end of the first step")
        WorkflowNews.objects.create(workflow_id=quiet.pk)
        wait_until(lambda: quiet.steps[1].is_finished, what="the end of the second step")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE tasks_app_taskrun ENABLE TRIGGER tasks_app_workflow_news")


# What is told


def test_a_waiting_run_says_what_it_waits_for(client: Client) -> None:
    operator = User.objects.create_superuser("operator")
    client.force_login(operator)
    workflow = chain(add.step(1), group(add.step(n) for n in range(3)), add.step(PREVIOUS)).enqueue(name="album")
    ends(workflow, 1)

    def why(number: int) -> str:
        return Portrait(workflow.steps[number]).why.text

    assert why(2) == "It waits for step 1 (adds) of the workflow album."
    assert why(4) == "It waits for 2 of 3 earlier steps of the workflow album."
    page = client.get(f"/runs/{workflow.steps[4].pk}/").content.decode()
    assert "It waits for 2 of 3 earlier steps of the workflow album." in page
    assert "status--waiting" in page
    assert "Waits for earlier steps" in client.get("/").content.decode()


def test_the_admin_lists_workflows(client: Client) -> None:
    client.force_login(User.objects.create_superuser("operator"))
    workflow = chain(add.step(1), add.step(PREVIOUS)).enqueue(name="album <b>")

    listed = client.get("/admin/tasks_app/workflow/").content.decode()
    page = client.get(f"/admin/tasks_app/workflow/{workflow.pk}/change/").content.decode()

    assert "album &lt;b&gt;" in listed
    assert "2 Ready" in page
    assert f"/runs/{workflow.steps[0].pk}/" in page
    assert client.post(f"/admin/tasks_app/workflow/{workflow.pk}/change/", {"name": "x"}).status_code == 403
    assert client.get("/admin/tasks_app/workflow/add/").status_code == 403


def test_the_example_of_the_readme_does_what_it_says(qcluster: ClusterFactory) -> None:
    """Its very lines, with three tasks of the tests for those of the shop."""
    readme = (BASE_DIR / "README.md").read_text()
    lines = readme.partition("```python\nfrom tasks_app.workflows import")[2].partition("```")[0]
    assert lines
    names: dict[str, Any] = {"fetch": flows.tells, "resize": flows.tells, "publish": flows.tells}
    given = SimpleNamespace(url="https://example.com/a.jpg", user=User.objects.create(username="mara"))
    qcluster()

    exec(f"from tasks_app.workflows import{lines}", names | {"url": given.url, "user": given.user, "SIZES": (320, 800)})

    workflow = wait_for(Workflow.objects.get())
    assert (workflow.name, workflow.owner, workflow.on_failure) == ("album", given.user, "continue")
    assert workflow.result == [[[[given.url], 320], [[given.url], 800]]]
