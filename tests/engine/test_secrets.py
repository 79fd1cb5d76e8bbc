"""RUN: a secret among the arguments gets to the task, and into no log."""

from pathlib import Path

import pytest

from tasks_app.models import Failure, Status, TaskRun
from tests import secretive
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

CANARY = "hunter2canary"


def test_no_line_of_the_log_has_it(qcluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = qcluster(LOG_LEVEL="DEBUG", DEBUG=1)
    task = "tests.secretive.signs_in"
    takes_it = secretive.signs_in.enqueue("u", CANARY, options={"token": CANARY})
    refuses_it = secretive.signs_in.enqueue("u", password=CANARY, token=CANARY)  # type: ignore[call-arg]

    def ended() -> list[TaskRun]:
        found = list(TaskRun.objects.finished().filter(task_path=task))
        return found if len(found) == 2 else []

    runs = {str(run.pk): run for run in wait_until(ended, what="both runs to end")}
    assert runs[takes_it.id].return_value == {"session": CANARY, "url": "u"}
    assert (runs[refuses_it.id].status, runs[refuses_it.id].failure) == (Status.FAILED, Failure.REJECTED)
    assert CANARY not in (runs[refuses_it.id].failure_message or "")
    cluster.end()
    log = (tmp_path / "qcluster.log").read_text()
    for run in runs:
        assert run in log
    assert CANARY not in log
    assert CANARY not in cluster.output
