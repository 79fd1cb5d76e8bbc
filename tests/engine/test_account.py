"""What a cluster tells of itself and its workers with its heartbeat."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psutil
import pytest
from django.db import connection

from tasks_app.engine.account import memory_of
from tasks_app.engine.link import Link
from tasks_app.models import Cluster, Queue
from tests import outcomes
from tests.engine.test_cluster import finished, running, working_on
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def report() -> dict[str, Any]:
    return Cluster.objects.get().report or {}


def workers() -> list[dict[str, Any]]:
    return report().get("workers", [])


def wait_for_tally(ended: int, failed: int) -> None:
    wait_until(lambda: (report().get("ended"), report().get("failed")) == (ended, failed), what=f"{ended} to be told")


def test_each_worker_is_told_with_what_it_does(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=2, STOP_GRACE_SECONDS=0.2)
    before = datetime.now(UTC)
    run = running(outcomes.sleeps.enqueue(300))
    busy = working_on(process, run)

    wait_until(lambda: {line["does"] for line in workers()} == {"busy", "idle"}, what="one busy and one idle worker")
    told = {line["does"]: line for line in workers()}
    assert sorted(line["number"] for line in workers()) == [1, 2]
    assert (told["busy"]["pid"], told["busy"]["run"]) == (busy.pid, str(run.pk))
    assert abs(told["busy"]["since"] - before.timestamp()) < 10
    assert "run" not in told["idle"]


def test_the_whole_is_told_too(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)

    wait_until(lambda: report().get("memory"), what="the memory to be told")
    told = report()
    assert (told["state"], told["size"], told["renewed"]) == ("run", 1, None)
    assert told["memory"] > 10_000_000
    assert told["host"]["cores"] and told["host"]["memory"] > told["memory"]
    wait_until(lambda: [line for line in workers() if line["memory"]], what="the worker's memory")
    assert 1_000_000 < workers()[0]["memory"] < report()["memory"]


def test_what_has_ended_is_counted(qcluster: ClusterFactory) -> None:
    qcluster(WORKERS=1)
    for _ in range(3):
        finished(outcomes.succeeds.enqueue())
    finished(outcomes.fails.enqueue())
    finished(outcomes.keeps_failing.enqueue())  # its first attempt is not its end

    wait_for_tally(5, 2)
    assert (workers()[0]["ended"], workers()[0]["failed"]) == (5, 2)


def test_counts_outlive_workers_and_the_sentinel(qcluster: ClusterFactory) -> None:
    process = qcluster(WORKERS=1)
    finished(outcomes.succeeds.enqueue())
    wait_for_tally(1, 0)

    process.titled("worker idle")[0].kill()
    finished(outcomes.succeeds.enqueue())
    wait_for_tally(2, 0)
    assert workers()[0]["ended"] == 1
    process.titled("sentinel")[0].kill()
    finished(outcomes.succeeds.enqueue())
    wait_for_tally(3, 0)
    assert workers()[0]["ended"] == 1


def test_a_report_is_written_only_when_it_is_another() -> None:
    link = Link("default", "web-1", ["default"], 1)
    for sent, kept in (('{"size": 1}', {"size": 1}), ('{"size": 1}', "theirs"), ('{"size": 2}', {"size": 2})):
        link.beat(0, 1, sent)
        assert Cluster.objects.get().report == kept
        Cluster.objects.update(report="theirs")

    link.db.close()
    link.connect()
    link.beat(0, 1, '{"size": 2}')
    assert Cluster.objects.get().report == {"size": 2}
    link.db.close()


def test_an_older_release_writes_to_the_same_tables() -> None:
    """In a rolling deployment it goes on beside the new one, and names the columns that it knows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_cluster (id, name, queues, host, pid, workers, busy, desired_state, started_at,"
            " heartbeat_at, rescued) VALUES (gen_random_uuid(), 'default', '[]', 'web-1', 1, 2, 0, 'run', now(),"
            " now(), 0)"
        )
        cursor.execute("INSERT INTO tasks_app_queue (name, pause_reason) VALUES ('default', '')")

    assert Cluster.objects.get().report is None
    assert not Queue.objects.get().is_drained


def test_a_process_has_memory_of_its_own_and_a_share() -> None:
    own, share = memory_of(psutil.Process())

    assert 0 < own <= share
