"""`manage.py qinfo`, and what Django-Q2's own interface says of clusters."""

from io import StringIO

import pytest
from django.core.management import call_command
from django_q.status import Stat

from tasks_app.models import Cluster, TaskRun
from tests import outcomes
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until


def qinfo(*options: str) -> str:
    output = StringIO()
    call_command("qinfo", *options, stdout=output)
    return output.getvalue().replace("\u00a0", " ")


@pytest.mark.django_db
def test_says_that_nothing_runs_and_what_nobody_takes() -> None:
    outcomes.succeeds.using(queue_name="images").enqueue()

    told = qinfo()

    assert "No cluster is running. Start one with manage.py qcluster." in told
    assert "Queue images: 1 waiting, the oldest for 0 s, and no live cluster takes from it" in told
    assert "within 24 hours: 0 successful, 0 failed, 0 cancelled\n" in told
    assert Stat.get_all() == []


def test_tells_of_clusters_and_of_what_they_did(qcluster: ClusterFactory) -> None:
    cluster = qcluster(WORKERS=2)
    outcomes.succeeds.enqueue()
    outcomes.fails.enqueue()
    wait_until(lambda: TaskRun.objects.finished().count() == 2, what="both ends")
    wait_until(lambda: Cluster.objects.filter(workers=2), what="two workers")
    row = Cluster.objects.get()

    told = qinfo()

    assert told.startswith("1 cluster, 2 workers, ")
    assert f"  default on {row.host}, process {cluster.pid}: 2 workers, " in told
    assert "takes from default, up " in told
    assert "Queue default: 0 waiting\n" in told
    assert "1 successful, 1 failed, 0 cancelled; a success ran " in told
    assert qinfo("--ids") == f"{cluster.pid}\n"
    assert "workers: 2" in qinfo("--config")

    (stat,) = Stat.get_all()
    assert (stat.pid, stat.host, len(stat.workers), stat.status) == (cluster.pid, row.host, 2, "Idle")
    assert stat.uptime() > 0
    one = Stat.get(cluster.pid, str(row.pk))
    assert one is not None
    assert one.host == row.host
