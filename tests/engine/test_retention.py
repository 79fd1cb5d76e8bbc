"""What is kept how long, and that letting go of it holds up nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import Schedule

from config.local import BASE_DIR
from config.retention import Rule, rules
from tasks_app import retention
from tasks_app.clock import database_now
from tasks_app.models import AuditEntry, Cluster, RunLog, Status, TaskRun, Workflow, WorkflowNews
from tasks_app.retention import prune
from tasks_app.tasks import prune_runs
from tests.engine.test_cluster import finished
from tests.engine.test_verbs import Locker, one, stored
from tests.plugins.processes import ClusterFactory, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def keeping(settings: Any, text: str) -> None:
    settings.RETENTION = rules("RETENTION", text)


def ended(days_ago: float, status: str = Status.SUCCESSFUL, count: int = 1, **fields: Any) -> list[TaskRun]:
    at = database_now() - timedelta(days=days_ago)
    return stored(count, **{"status": status, "enqueued_at": at, "run_after": at, "finished_at": at, **fields})


def age(path: str, days: float) -> None:
    """Have a folder of the storage last touched so long ago."""
    then = time.time() - days * DAY.total_seconds()
    root = Path(default_storage.path(path))
    for found in (*root.rglob("*"), root):
        os.utime(found, (then, then))


# Rules


def test_rules_are_read() -> None:
    assert rules("R", " SUCCESSFUL = 30d,FAILED shop.tasks.sync=1000 , CANCELLED=12h,") == [
        Rule("SUCCESSFUL", age=30 * DAY),
        Rule("FAILED", "shop.tasks.sync", newest=1000),
        Rule("CANCELLED", age=DAY / 2),
    ]
    assert rules("R", "None") == []


@pytest.mark.parametrize(
    "text",
    ["30d", "SUCCESSFUL", "SUCCESSFUL=", "SUCCESSFUL=-1", "SUCCESSFUL=30x", "READY=1d", "RUNNING=1d", "FAILED=1.5d",
     "FAILED=99999999d", "FAILED a b=1d", "FAILED=\u0663d", "FAILED=1d FAILED=2d", "FAILED '; DROP=1"],
)  # fmt: skip
def test_a_bad_rule_is_told_in_one_sentence(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^R has {re.escape(repr(text))}: write rules such as .*\\.$"):
        rules("R", text)


def test_two_rules_for_the_same_runs_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="R has two rules for FAILED a: write one"):
        rules("R", "FAILED a=1d, FAILED=1, FAILED a=2")


def test_a_bad_value_stops_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import config.settings"],
        cwd=BASE_DIR, env=os.environ | {"RETENTION": "for ever"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "RETENTION has 'for ever'" in done.stderr.splitlines()[-1]


# What goes


def test_what_is_old_goes_by_its_status(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d, FAILED=90d")
    for status in ("SUCCESSFUL", "FAILED", "CANCELLED"):
        for days in (10, 40, 100):
            ended(days, status)
    ended(1000, Status.READY, finished_at=None)
    ended(1000, Status.RUNNING, finished_at=None)

    pruned = prune()

    assert pruned.runs == {"SUCCESSFUL": 2, "FAILED": 1}
    kept = [(run.status, (database_now() - run.enqueued_at).days) for run in TaskRun.objects.order_by("enqueued_at")]
    assert sorted(kept) == [
        ("CANCELLED", 10), ("CANCELLED", 40), ("CANCELLED", 100), ("FAILED", 10), ("FAILED", 40), ("READY", 1000),
        ("RUNNING", 1000), ("SUCCESSFUL", 10),
    ]  # fmt: skip


def test_age_is_told_from_the_end(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    waited = ended(100, finished_at=database_now())

    assert prune().runs == {"SUCCESSFUL": 0}
    assert TaskRun.objects.get() == waited[0]


def test_a_rule_with_a_task_goes_before_the_one_without(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d, SUCCESSFUL a.short=1d, SUCCESSFUL a.long=365d")
    for task in ("a.short", "a.long", "a.other"):
        for days in (0.5, 10, 100, 1000):
            ended(days, task_path=task)

    assert prune().runs == {"SUCCESSFUL": 2, "SUCCESSFUL a.short": 3, "SUCCESSFUL a.long": 1}
    assert sorted(TaskRun.objects.values_list("task_path", flat=True)) == [
        "a.long", "a.long", "a.long", "a.other", "a.other", "a.short",
    ]  # fmt: skip


def test_a_number_of_the_newest_is_kept(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    keeping(settings, "SUCCESSFUL=3, SUCCESSFUL a.sync=5, FAILED=0, CANCELLED=50")
    for days in range(10):
        for status in ("SUCCESSFUL", "FAILED", "CANCELLED"):
            ended(days, status, task_path="a.other")
        ended(days + 0.5, task_path="a.sync")

    assert prune().runs == {"SUCCESSFUL": 7, "SUCCESSFUL a.sync": 5, "FAILED": 10, "CANCELLED": 0}
    left = TaskRun.objects.successful().order_by("-enqueued_at")
    assert [(database_now() - run.enqueued_at).days for run in left.filter(task_path="a.other")] == [0, 1, 2]
    assert [(database_now() - run.enqueued_at).days for run in left.filter(task_path="a.sync")] == [0, 1, 2, 3, 4]


def test_of_runs_of_one_moment_just_so_many_are_kept(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `enqueue_many` makes them."""
    monkeypatch.setattr(retention, "BATCH", 7)
    keeping(settings, "SUCCESSFUL=10")
    ended(1, count=45)

    assert prune().runs == {"SUCCESSFUL": 35}
    assert TaskRun.objects.count() == 10


def test_without_rules_all_is_kept(settings: Any) -> None:
    keeping(settings, "none")
    ended(10_000)

    assert prune().counts == {"folders of files": 0, "folders of uploads": 0}
    assert TaskRun.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_logs_and_files_go_with_their_runs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    monkeypatch.setattr("tasks_app.engine.verbs.LINES", 3)
    old, new = ended(40)[0], ended(1)[0]
    for run in (old, new):
        lines = [RunLog(run=run, attempt=1, at=database_now(), level=20, text="line") for _ in range(10)]
        RunLog.objects.bulk_create(lines)
        for place in ("runs", "uploads"):
            default_storage.save(f"{place}/{run.pk}/a.txt", ContentFile(b"a"))

    prune()

    assert set(RunLog.objects.values_list("run_id", flat=True)) == {new.pk}
    assert RunLog.objects.count() == 10
    for place in ("runs", "uploads"):
        assert default_storage.listdir(place)[0] == [str(new.pk)]


def test_what_was_sent_with_a_run_stays_as_long_as_a_retry_of_it(settings: Any) -> None:
    keeping(settings, "FAILED=30d")
    old = ended(40, Status.FAILED)[0]
    default_storage.save(f"uploads/{old.pk}/a.txt", ContentFile(b"a"))
    age("uploads", 40)
    again = one(status=Status.SUCCESSFUL, retry_of=old)

    assert prune().runs == {"FAILED": 1}
    assert default_storage.exists(f"uploads/{old.pk}/a.txt")
    assert prune().counts["folders of uploads"] == 0

    assert again.delete_run()
    assert prune().counts["folders of uploads"] == 1
    assert default_storage.listdir("uploads") == ([], [])


def test_what_a_retry_still_goes_on_for_stays(settings: Any) -> None:
    keeping(settings, "FAILED=30d")
    old = ended(40, Status.FAILED)[0]
    one(retry_of=old)

    assert prune().runs == {"FAILED": 0}


def test_what_was_sent_with_a_key_stays_until_that_is_forgotten(settings: Any) -> None:
    """Else the same request, repeated in time, would be done twice."""
    keeping(settings, "SUCCESSFUL=0")
    settings.IDEMPOTENCY_SECONDS = 3 * 86_400
    ended(4, idempotency_key="forgotten")
    kept = ended(2, idempotency_key="kept")[0]

    assert prune(is_dry=True).runs == prune().runs == {"SUCCESSFUL": 1}
    assert TaskRun.objects.get() == kept


def test_orphaned_folders_are_swept_but_not_at_once(settings: Any) -> None:
    """As a delete leaves them that was killed before it came to the files, or an upload whose run never came."""
    kept = one()
    orphan, fresh = one().pk, one().pk
    TaskRun.objects.filter(pk__in=[orphan, fresh]).cancel()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM tasks_app_taskrun WHERE id <> %s", [kept.pk])
    for place in ("runs", "uploads"):
        for name in (kept.pk, orphan, fresh, "somebody's", str(orphan).upper()):
            default_storage.save(f"{place}/{name}/deep/a.txt", ContentFile(b"a"))
        for name in (kept.pk, orphan, "somebody's", str(orphan).upper()):
            age(f"{place}/{name}", 2)
    default_storage.save("uploads/of-old-times.jpg", ContentFile(b"a"))

    assert prune(is_dry=True).others == {"folders of files": 1, "folders of uploads": 1}
    assert prune().others == {"folders of files": 1, "folders of uploads": 1}

    for place in ("runs", "uploads"):
        assert set(default_storage.listdir(place)[0]) == {
            str(kept.pk), str(fresh), "somebody's", str(orphan).upper()
        }  # fmt: skip
    assert default_storage.exists("uploads/of-old-times.jpg")


def test_workflows_go_when_their_last_run_has_gone(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    long_ago = database_now() - 40 * DAY

    def flow(status: str) -> Workflow:
        return Workflow.objects.create(name="w", size=1, shape=[], enqueued_at=long_ago, status=status)

    gone, half, going = flow("SUCCESSFUL"), flow("FAILED"), flow("RUNNING")
    ended(40, workflow=gone, step=0)
    ended(40, workflow=half, step=0)
    ended(1, workflow=half, step=1)
    ended(40, workflow=going, step=0)
    WorkflowNews.objects.create(workflow_id=gone.pk)
    WorkflowNews.objects.create(workflow_id=going.pk)

    pruned = prune()

    assert (pruned.runs["SUCCESSFUL"], pruned.others["workflows"], pruned.others["news of workflows"]) == (2, 1, 1)
    assert set(Workflow.objects.all()) == {half, going}
    assert TaskRun.objects.filter(workflow=going).count() == 1
    assert WorkflowNews.objects.get().workflow_id == going.pk


def test_clusters_that_are_gone_for_long_are_forgotten() -> None:
    now = database_now()
    states: dict[str, dict[str, Any]] = {
        "alive": {}, "stopped": {"stopped_at": now - 31 * DAY}, "lost": {"lost_at": now - 31 * DAY},
        "just stopped": {"stopped_at": now - DAY}, "lost with a run": {"lost_at": now - 31 * DAY},
    }  # fmt: skip
    for name, state in states.items():
        cluster = Cluster.objects.create(
            name=name, queues=[], host="h", pid=1, workers=1, started_at=now - 60 * DAY,
            heartbeat_at=now - 31 * DAY, **state,
        )  # fmt: skip
    one(claimed_by=f"{cluster.pk.hex[:12]}:1:1:h", attempt=1)

    assert prune().others["clusters"] == 2
    assert set(Cluster.objects.values_list("name", flat=True)) == {"alive", "just stopped", "lost with a run"}


def test_the_audit_survives_and_has_the_prune(settings: Any) -> None:
    keeping(settings, "CANCELLED=0")
    run = one()
    run.cancel("Not needed.")

    prune()

    assert not TaskRun.objects.exists()
    cancel, pruned = AuditEntry.objects.order_by("at")
    assert (cancel.verb, cancel.runs) == ("cancel", [run.pk])
    assert (pruned.verb, pruned.details) == ("prune", {"CANCELLED": 1})


# The command and the task


def told(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("prune_runs", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_a_dry_run_tells_and_changes_nothing(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d, FAILED x.y=5")
    oldest = ended(100)[0]
    ended(50, count=2)
    default_storage.save(f"runs/{oldest.pk}/a.txt", ContentFile(b"a"))
    flow = Workflow.objects.create(
        name="w", size=1, shape=[], enqueued_at=oldest.enqueued_at, status="SUCCESSFUL", finished_at=oldest.finished_at
    )
    before = list(TaskRun.objects.values())

    with CaptureQueriesContext(connection) as queries:
        lines = told("--dry-run")

    when = f"{oldest.enqueued_at.day} {oldest.enqueued_at:%B %Y}"
    assert re.fullmatch(
        rf"SUCCESSFUL: keeping those of the last 30 d, 3 runs would go, the oldest of {when}, [\d:]+ UTC", lines[0]
    )
    assert lines[1:] == ["FAILED x.y: keeping the newest 5, 0 runs would go", "Workflows: 1 would go"]
    assert not [query["sql"] for query in queries if re.match(r"\s*(DELETE|INSERT|UPDATE)|.*FOR UPDATE", query["sql"])]
    assert list(TaskRun.objects.values()) == before
    assert Workflow.objects.get() == flow
    assert default_storage.exists(f"runs/{oldest.pk}/a.txt")


def test_what_a_dry_run_tells_is_what_goes(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d, SUCCESSFUL a.b=2, FAILED=1")
    for days in (1, 20, 40, 60):
        ended(days, task_path="a.b")
        ended(days, task_path="a.c")
        ended(days, Status.FAILED)

    expected = [line.replace("would go", "gone") for line in told("--dry-run")]

    assert told() == expected
    assert [line.split(", ")[1] for line in expected] == ["2 runs gone", "2 runs gone", "3 runs gone"]


def test_a_cluster_prunes_as_a_task(settings: Any, qcluster: ClusterFactory) -> None:
    ended(40, count=3)
    ended(40, Status.FAILED)
    qcluster(WORKERS=1, RETENTION="SUCCESSFUL=30d, FAILED=30d")

    run = finished(prune_runs.enqueue())

    assert (run.status, run.failure_message) == (Status.SUCCESSFUL, None)
    counts = run.return_value or {}
    assert (counts["SUCCESSFUL"], counts["FAILED"]) == (3, 1)
    assert (run.progress_done, run.progress_message[:8]) == (4, "FAILED: ")
    assert TaskRun.objects.get() == run


# Holding up nobody


def test_what_somebody_has_locked_is_passed_over(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    runs = ended(40, count=5)
    locker = Locker(runs[2])

    assert prune().runs == {"SUCCESSFUL": 4}
    locker.let_go()
    assert prune().runs == {"SUCCESSFUL": 1}


def test_two_at_once_do_no_harm(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.engine.test_verbs import in_thread

    keeping(settings, "SUCCESSFUL=30d")
    monkeypatch.setattr(retention, "BATCH", 20)
    ended(40, count=1_000)
    started = threading.Barrier(3)

    def ask() -> int:
        started.wait(10)
        return prune().runs.total()

    asking = [in_thread(ask) for _ in range(3)]
    for thread, _ in asking:
        thread.join(30)

    assert sum(answers[0] for _, answers in asking) == 1_000
    assert not TaskRun.objects.exists()


def test_one_that_is_killed_is_taken_up_by_the_next(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    monkeypatch.setattr(retention, "BATCH", 10)
    ended(40, count=100)

    class Killed(BaseException):
        pass

    def die(done: int, told: str) -> None:
        if done == 50:
            raise Killed

    with pytest.raises(Killed):
        prune(tell=die)

    assert TaskRun.objects.count() == 50
    assert prune().runs == {"SUCCESSFUL": 50}


def many(count: int, days_ago: float, status: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO tasks_app_taskrun (id, task_path, args, kwargs, queue_name, priority, status, run_after,
                 enqueued_at, finished_at, attempt, max_attempts, attempts)
               SELECT gen_random_uuid(), 'a.b', '[]', '{}', 'default', 0, %s, at, at, at, 1, 1, '[]'
               FROM (SELECT now() - make_interval(secs => 86400 * %s + i / 100.0) AS at
                 FROM generate_series(1, %s) AS i) AS times""",
            [status, days_ago, count],
        )


def test_no_statement_reads_the_whole_table(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d, FAILED=10")
    many(20_000, 1, "SUCCESSFUL")
    many(3_000, 40, "SUCCESSFUL")
    many(5_000, 40, "FAILED")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks_app_taskrun")
    plans: list[str] = []

    def explain(run: Any, sql: str, params: Any, *rest: Any) -> Any:
        if re.search(r"tasks_app_(taskrun|runlog)", sql):
            with psycopg.connect(database_url()) as other:
                other.execute(retention.BOUNDS, {"ms": "0"})
                rows = psycopg.ClientCursor(other).execute(f"EXPLAIN {sql}", params).fetchall()
                plans.append("\n".join(row[0] for row in rows))
        return run(sql, params, *rest)

    with connection.execute_wrapper(explain):
        pruned = prune()

    assert pruned.runs == {"SUCCESSFUL": 3_000, "FAILED": 4_990}
    assert len(plans) > 10
    for plan in plans:
        assert not re.search("Seq Scan on tasks_app_(taskrun|runlog)", plan), plan
    pages = [plan for plan in plans if re.match(r"Limit.*\n .*on tasks_app_taskrun", plan)]
    assert len(pages) > 10
    for plan in pages:
        assert re.search(r"Index Scan.* using run_(status_)?newest", plan) and "Sort" not in plan, plan


def test_kill_9_in_the_midst_of_it_leaves_each_run_whole_or_gone(settings: Any) -> None:
    keeping(settings, "SUCCESSFUL=30d")
    many(60_000, 40, "SUCCESSFUL")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tasks_app_runlog (run_id, attempt, at, level, text)"
            " SELECT id, 1, now(), 20, '' FROM tasks_app_taskrun"
        )
    command = [sys.executable, "manage.py", "prune_runs"]
    environment = {"DATABASE_URL": database_url(), "RETENTION": "SUCCESSFUL=30d", "MEDIA_ROOT": settings.MEDIA_ROOT}
    process = subprocess.Popen(
        command, cwd=BASE_DIR, env=os.environ | {name: str(text) for name, text in environment.items()},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: TaskRun.objects.count() < 60_000, what="the first batch to go")
    finally:
        process.kill()
        process.wait(20)

    left = TaskRun.objects.count()
    assert 0 < left < 60_000
    wait_until(lambda: prune().runs == {"SUCCESSFUL": 0}, seconds=60, what="the rest to go")
    assert not TaskRun.objects.exists()
    assert not RunLog.objects.exists()


def test_it_holds_up_no_claim(settings: Any, qcluster: ClusterFactory, tmp_path: Path) -> None:
    """100,000 runs go while a cluster works: each of its runs is executed once, whatever the order of locks."""
    keeping(settings, "SUCCESSFUL=30d")
    many(100_000, 40, "SUCCESSFUL")
    ledger = tmp_path / "ledger"
    qcluster(WORKERS=2)

    def drain(first: int, count: int) -> float:
        from tests import outcomes

        began = time.monotonic()
        outcomes.writes_ledger.enqueue_many([[str(ledger), number, 0] for number in range(first, first + count)])
        wait_until(lambda: not TaskRun.objects.unfinished().exists(), seconds=120, what="the end of all")
        return count / (time.monotonic() - began)

    alone = drain(0, 4_000)
    from tests.engine.test_verbs import in_thread

    began = time.monotonic()
    thread, answers = in_thread(prune)
    beside = drain(4_000, 4_000)
    was_beside = thread.is_alive()
    thread.join(120)
    took = time.monotonic() - began

    assert answers[0].runs == {"SUCCESSFUL": 100_000}
    assert sorted(map(int, ledger.read_text().split())) == list(range(8_000))
    assert TaskRun.objects.successful().filter(attempt=1).count() == TaskRun.objects.count() == 8_000
    print(
        f"drained {alone:.0f}/s alone, {beside:.0f}/s beside a prune ({beside / alone:.2f}, still pruning at its end:"
        f" {was_beside}); 100,000 pruned in {took:.1f} s"
    )


def test_the_schedule_of_the_readme_prunes_every_night() -> None:
    readme = (BASE_DIR / "README.md").read_text()
    lines = re.search(r"^schedule\(.*prune_runs.*\)$", readme, re.MULTILINE)
    assert lines

    exec(f"from django_q.tasks import schedule\n{lines[0]}", {})

    made = Schedule.objects.get()
    assert made.func == prune_runs.module_path
    at: datetime = made.next_run
    assert (at.hour, at.minute) == (3, 30)
