"""What a task logs and prints, kept with its run."""

from pathlib import Path

import pytest

from tasks_app.engine.capture import MOST_LINES
from tasks_app.models import RunLog
from tests import outcomes
from tests.engine.test_cluster import finished, running
from tests.plugins.processes import ClusterFactory
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_lines_are_there_while_the_task_runs_and_complete_at_its_end(qcluster: ClusterFactory, tmp_path: Path) -> None:
    qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    run = running(outcomes.talks.enqueue(str(gate)))

    wait_until(lambda: RunLog.objects.filter(run=run).count() == 5, what="the lines of a run that goes on")
    gate.touch()
    done = finished(outcomes.talks.get_result(str(run.pk)))

    lines = list(RunLog.objects.filter(run=run).order_by("id"))
    assert [line.text for line in lines[:4]] == ["line 0", "line 1", "careful\\x00 now\nthen", "printed in two goes"]
    assert [line.level for line in lines] == [20, 20, 30, 20, 40, 20]
    assert lines[4].text.startswith("it went wrong\nTraceback")
    assert lines[5].text == "no line end"
    assert done.started_at and done.finished_at
    assert done.started_at <= lines[0].at <= lines[4].at <= done.finished_at


def test_a_talkative_run_is_truncated_visibly_and_the_next_begins_anew(
    qcluster: ClusterFactory, tmp_path: Path
) -> None:
    qcluster(WORKERS=1)
    gate = tmp_path / "gate"
    gate.touch()

    run = finished(outcomes.talks.enqueue(str(gate), lines=MOST_LINES + 50))
    other = finished(outcomes.talks.enqueue(str(gate)))

    lines = RunLog.objects.filter(run=run).order_by("id")
    assert lines.count() == MOST_LINES + 1
    last = lines.last()
    assert last and last.text == "Truncated: only the first 5,000 lines of an attempt are kept."
    assert RunLog.objects.filter(run=other).count() == 6
