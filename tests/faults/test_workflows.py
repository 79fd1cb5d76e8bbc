"""Workflows while their clusters race, die and come back: each step once, and the callback with every result."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.db import connection

from tasks_app.models import TaskRun, Workflow, WorkflowNews
from tasks_app.workflows import PREVIOUS, chain, group
from tests import flows, outcomes
from tests.plugins.processes import ClusterFactory, RunningProcess, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

WORKFLOWS = 50
MEMBERS = 100


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """A table that tasks write to on a connection of their own, one row an execution."""
    monkeypatch.setenv("LEDGER_URL", database_url())
    with psycopg.connect(database_url(), autocommit=True) as db:
        db.execute("CREATE TABLE ledger (label text, run uuid, results int)")
        try:
            yield db
        finally:
            db.execute("DROP TABLE ledger")


def submit(seconds: float = 0.0) -> list[Workflow]:
    """Groups whose members square their numbers, each with a callback that leaves a row in the ledger."""
    return [
        group(
            [flows.squares.step(number, seconds) for number in range(MEMBERS)], then=flows.counts.step(PREVIOUS, label)
        ).enqueue(name=str(label))
        for label in range(WORKFLOWS)
    ]


def wait_for_all(seconds: float = 120) -> None:
    unfinished = Workflow.objects.filter(finished_at=None)
    wait_until(lambda: not unfinished.exists(), seconds=seconds, what="the end of every workflow")


def executions(ledger: psycopg.Connection[Any]) -> Counter[str]:
    return Counter(label for (label,) in ledger.execute("SELECT label FROM ledger").fetchall())


def assert_settled_once(workflows: list[Workflow], ledger: psycopg.Connection[Any]) -> None:
    """With every result in order; a callback is executed again only after a loss that is on record."""
    done = executions(ledger)
    assert {results for (results,) in ledger.execute("SELECT results FROM ledger").fetchall()} == {MEMBERS}
    for workflow in workflows:
        workflow.refresh_from_db()
        assert workflow.status == "SUCCESSFUL", workflow.message
        assert workflow.result == [number * number for number in range(MEMBERS)]
        callback = workflow.steps[MEMBERS]
        lost = [entry for entry in callback.attempts if entry["reason"] in {"worker_lost", "given_back"}]
        assert 1 <= done[workflow.name] <= 1 + len(lost), (callback.pk, callback.attempts)
    assert not WorkflowNews.objects.exists()
    assert not TaskRun.objects.unfinished().exists()


def test_fifty_groups_of_a_hundred_on_four_clusters(ledger: psycopg.Connection[Any], qcluster: ClusterFactory) -> None:
    for _ in range(4):
        qcluster(WORKERS=1)

    workflows = submit()
    wait_for_all()

    assert executions(ledger) == Counter({str(label): 1 for label in range(WORKFLOWS)})
    assert_settled_once(workflows, ledger)


def test_the_same_while_sentinels_and_workers_are_killed(
    ledger: psycopg.Connection[Any], qcluster: ClusterFactory
) -> None:
    clusters = [qcluster(WORKERS=1) for _ in range(4)]
    chance = random.Random(1)
    workflows = submit(seconds=0.002)

    killed = 0
    while Workflow.objects.filter(finished_at=None).exists() and killed < 25:
        words = "sentinel" if killed % 2 else "worker"
        if found := chance.choice(clusters).titled(words):
            try:
                chance.choice(found).kill()
            except psutil.NoSuchProcess:
                continue
            killed += 1
        ended = Workflow.objects.filter(finished_at__isnull=False).count()
        deadline = time.monotonic() + 0.4
        wait_until(
            lambda ended=ended, deadline=deadline: (  # type: ignore[misc]
                Workflow.objects.filter(finished_at__isnull=False).count() > ended + 1 or time.monotonic() > deadline
            ),
            what="some progress",
        )

    wait_for_all()
    assert killed >= 10
    assert_settled_once(workflows, ledger)


def test_workflows_cancelled_while_two_clusters_are_at_them(
    ledger: psycopg.Connection[Any], qcluster: ClusterFactory
) -> None:
    """Each at another moment, and each twice at once: none is stuck, and none begins anything after its end."""
    for _ in range(2):
        qcluster(WORKERS=2)
    workflows = submit(seconds=0.004)
    chance = random.Random(2)

    def cancel(workflow: Workflow) -> None:
        try:
            workflow.cancel("Enough.")
        finally:
            connection.close()

    for workflow in chance.sample(workflows, 25):
        clicks = [threading.Thread(target=cancel, args=[workflow]) for _ in range(2)]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join()

    wait_for_all()
    for workflow in workflows:
        workflow.refresh_from_db()
        ends = {run.status for run in workflow.steps}
        assert ends <= {"SUCCESSFUL", "CANCELLED"}
        assert workflow.status == ("CANCELLED" if "CANCELLED" in ends else "SUCCESSFUL")
    assert Workflow.objects.filter(status="CANCELLED").count() >= 10
    assert not TaskRun.objects.unfinished().exists()
    assert not WorkflowNews.objects.exists()


def test_clusters_restarted_in_the_middle_of_a_chain(qcluster: ClusterFactory, tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    steps = [outcomes.writes_ledger.step(path, 0, 0.02)]
    steps += [outcomes.writes_ledger.step(path, number, 0.02) for number in range(1, 60)]
    workflow = chain(steps).enqueue()

    def written() -> list[str]:
        return Path(path).read_text().split() if Path(path).exists() else []

    for count in (10, 25, 40):
        cluster = qcluster(WORKERS=2)
        wait_until(lambda count=count: len(written()) >= count, what=f"{count} steps")  # type: ignore[misc]
        cluster.stop()
    qcluster(WORKERS=2)

    wait_for_all()
    workflow.refresh_from_db()
    assert workflow.status == "SUCCESSFUL"
    assert written() == [str(number) for number in range(60)]
    assert not any(run.attempts for run in workflow.steps)


def kill_all(cluster: RunningProcess) -> None:
    members = cluster.members()
    for member in members:
        member.suspend()  # so that none of them sees another go
    for member in members:
        member.kill()


def test_everything_killed_between_the_last_finish_and_what_follows(qcluster: ClusterFactory, tmp_path: Path) -> None:
    """The callback was due and nobody had seen to it: whoever comes finds the news."""
    gate = tmp_path / "gate"
    cluster = qcluster(WORKERS=2, LOST_AFTER_SECONDS=2)
    workflow = group(
        [flows.passes_gate.step(str(gate), n) for n in range(2)], then=flows.tells.step(PREVIOUS)
    ).enqueue()
    members = workflow.steps.filter(step__lt=2)
    # The first claim tells the workflow that it runs, and whoever claims at the same moment waits for that.
    wait_until(lambda: members.filter(claimed_by__isnull=False).count() == 2, what="the claims of the members")

    with psycopg.connect(database_url()) as somebody:  # holds up whoever would advance it
        somebody.execute("SELECT FROM tasks_app_workflow WHERE id = %s FOR UPDATE", [workflow.pk])
        gate.touch()
        wait_until(lambda: members.filter(status="SUCCESSFUL").count() == 2, what="the ends of the members")
        kill_all(cluster)
    assert WorkflowNews.objects.count() == 2
    assert workflow.steps[2].is_waiting

    qcluster(WORKERS=1, LOST_AFTER_SECONDS=2)

    wait_for_all()
    assert workflow.steps[2].args == [[0, 1]]
    assert workflow.steps[2].attempts == []


def test_a_sentinel_killed_in_the_middle_of_advancing_leaves_it_whole(qcluster: ClusterFactory) -> None:
    """It stands still inside its transaction, with half of it written."""
    first = qcluster(WORKERS=1)
    with psycopg.connect(database_url(), autocommit=True) as somebody:
        somebody.execute("SELECT pg_advisory_lock(4712)")
        somebody.execute(
            """
            CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(4712); RETURN new; END $$;
            CREATE TRIGGER stand_still BEFORE UPDATE ON tasks_app_taskrun FOR EACH ROW
            WHEN (old.is_waiting AND new.is_waiting IS NULL AND new.step = 2) EXECUTE FUNCTION stand_still();
            """
        )
        try:
            parts = group(flows.tells.step(PREVIOUS) for _ in range(3))
            workflow = chain(flows.adds.step(1), parts, flows.tells.step(PREVIOUS)).enqueue()
            held = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
            )
            wait_until(lambda: somebody.execute(held).fetchone() == (1,), what="a sentinel in the midst of it")
            os.kill(first.titled("sentinel")[0].pid, signal.SIGKILL)
        finally:
            somebody.execute("SELECT pg_advisory_unlock_all()")
            somebody.execute("DROP FUNCTION stand_still CASCADE")

    wait_for_all()
    workflow.refresh_from_db()
    assert workflow.result == [[[1], [1], [1]]]
    assert {(run.attempt, len(run.attempts)) for run in workflow.steps} == {(1, 0)}
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tasks_app_workflownews")
        assert cursor.fetchone() == (0,)
