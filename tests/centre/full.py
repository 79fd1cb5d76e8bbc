"""A task centre in which something of everything is there, as pages, tests and pictures want it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db.models import F
from django_q.models import Schedule
from django_q.tasks import schedule

from tasks_app import bulk
from tasks_app.clock import database_now
from tasks_app.models import (
    Cluster,
    CountedTo,
    FailureGroup,
    FailureStat,
    Grain,
    Queue,
    QueueStat,
    RunLog,
    RunStat,
    Status,
    TaskLimit,
    TaskRun,
    Workflow,
)
from tasks_app.models.stat import BUCKETS
from tasks_app.tasks import create_task
from tasks_app.workflows import chain, group
from tests.pages.conftest import attempt, begun, made
from tests.tasks.pictures import encoded, photo

TASK = "tasks_app.tasks.practice.create_task"
THUMBNAILS = "tasks_app.tasks.images.make_thumbnails"

TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/.venv/lib/python3.12/site-packages/httpx/_transports/default.py", line 101, in map_exceptions
    yield
  File "/srv/shop/crawl/tasks.py", line 48, in crawl_site
    page = client.get(url)
httpx.ConnectTimeout: no answer from shop.example.net in 10 s
"""


@dataclass
class Full:
    """What there is, by the names that the addresses of pages use."""

    operator: User
    ids: dict[str, Any] = field(default_factory=dict)

    def path(self, template: str) -> str:
        return template.format(**self.ids)


def fill(log_file: Path) -> Full:
    """Rows of every kind, as the engine and people would have left them; nothing that runs changes them."""
    mara = User.objects.create_superuser("mara", password="mara")
    full = Full(mara)
    clusters()
    policies(mara)
    full.ids |= runs(mara)
    full.ids |= bulk_acts(mara, full.ids)
    full.ids["workflow"] = workflow(mara)
    full.ids["schedule"] = schedules(mara)
    statistics()
    write_log(log_file)
    return full


def clusters() -> None:
    now = database_now()
    ahead = now + timedelta(hours=1)  # nobody is there to tell that it lives
    common: dict[str, Any] = {"pid": 4711, "started_at": now - timedelta(hours=5), "heartbeat_at": ahead}
    for host, queues, busy in (("web-1", ["default", "mail"], 3), ("web-2", ["images", "crawl"], 2)):
        report = told(now, busy)
        Cluster.objects.create(name="default", host=host, queues=queues, workers=4, busy=busy, report=report, **common)
    past = {"heartbeat_at": now - timedelta(minutes=9)}
    Cluster.objects.create(
        name="default", host="web-3", queues=["default"], workers=4, rescued=2, lost_at=now - timedelta(minutes=8),
        **{**common, **past},
    )  # fmt: skip
    Cluster.objects.create(
        name="default", host="web-4", queues=["default"], workers=2, stopped_at=now - timedelta(minutes=30),
        **{**common, **past},
    )  # fmt: skip


def told(now: datetime, busy: int) -> dict[str, Any]:
    """What a cluster of four workers says of itself."""
    workers = [
        {
            "number": number, "pid": 4710 + number, "does": "busy" if number <= busy else "idle", "memory": 71_000_000,
            "since": (now - timedelta(seconds=18 * number)).timestamp(), "ended": 1200 * number, "failed": 3,
        }
        for number in range(1, 5)
    ]  # fmt: skip
    host = {"cores": 4, "memory": 16_000_000_000, "free": 9_000_000_000, "load": 1.4}
    figures = {"ended": 48_213, "failed": 61, "memory": 412_000_000, "host": host, "python": "3.12.4"}
    return {"state": "run", "size": 4, "renewed": None, **figures, "workers": workers}


def policies(by: User) -> None:
    Queue.pause("images", by=by, why="The disk is nearly full.")
    Queue.limit("crawl", 2, by=by, why="Be kind to them.")
    TaskLimit.pace("shop.tasks.send_mail", "10/m", burst=5, by=by)


def runs(mara: User) -> dict[str, Any]:
    """Some of every state, the newest last."""
    tobias = User.objects.create_user("tobias")
    mail = {"task_path": "shop.tasks.send_mail", "queue_name": "mail"}
    crawl = {"task_path": "shop.tasks.crawl_site", "queue_name": "crawl"}
    thumbnails = {"task_path": THUMBNAILS, "queue_name": "images"}
    timeout = "ConnectTimeout: no answer from shop.example.net in 10 s"
    failing = attempt(1, 2, 12, message=timeout, exception="httpx.ConnectTimeout", traceback=TRACEBACK)
    again = {**failing, "attempt": 2, "started_at": 30, "ended_at": 41}

    made(tobias, 9000, **begun(status=Status.CANCELLED, finished_at=8, failure_message="Cancelled by tobias.",
         progress={"done": 8, "total": 20, "message": ""}), kwargs={"type": 2})  # fmt: skip
    cancelled = made(mara, 1300, **begun(status=Status.CANCELLED, finished_at=10, failure_message="Cancelled by mara."))
    timed_out = made(
        mara, 1200, **crawl, kwargs={"url": "https://museum.example.org", "depth": 4}, timeout=300,
        **begun(status=Status.FAILED, finished_at=302, failure="timed_out", attempt=3,
                failure_message="Stopped after 5 min, its limit, with 212 of 640 pages read"),
    )  # fmt: skip
    made(
        tobias, 800, task_path="shop.tasks.import_orders", kwargs={"file": "orders-2026-11.csv"},
        **begun(status=Status.FAILED, finished_at=62, failure="worker_lost",
                failure_message="Its worker was killed by the system: out of memory."),
    )  # fmt: skip
    failed = [
        made(
            mara, seconds, **crawl, kwargs={"url": "https://shop.example.net", "depth": 2}, attempts=[failing, again],
            **begun(status=Status.FAILED, finished_at=41, started_at=30, attempt=2, max_attempts=2, failure="error",
                    failure_message=timeout),
        )
        for seconds in (700, 240)
    ]  # fmt: skip
    rejected = {"failure": "rejected", "failure_message": "No worker has the task shop.tasks.gone."}
    made(mara, 560, task_path="shop.tasks.gone", status=Status.FAILED, finished_at=3, attempt=1, **rejected)
    with_files = made(
        mara, 540, **thumbnails, kwargs={"image": "harbour-at-dusk.jpg"}, return_value=pictures(),
        **begun(status=Status.SUCCESSFUL, finished_at=5),
    )  # fmt: skip
    listed = made(
        mara, 300, task_path="shop.tasks.import_orders", kwargs={"file": "orders-2026-10.csv"},
        return_value=[{"order": 48213 + number, "total": 19.5 * number, "paid": True} for number in range(6)],
        **begun(status=Status.SUCCESSFUL, finished_at=31),
    )  # fmt: skip
    successful = made(mara, 190, kwargs={"type": 1}, return_value=True, **begun(status=Status.SUCCESSFUL,
                      finished_at=12))  # fmt: skip
    stranded = made(mara, 180, task_path="shop.tasks.monthly_report", queue_name="reports", kwargs={"month": "2026-10"})
    scheduled = made(mara, 160, task_path="shop.tasks.send_digest", queue_name="mail", run_after=4000,
                     kwargs={"list": "members"})  # fmt: skip
    retrying = made(mara, 100, **crawl, kwargs={"url": "https://news.example.org", "depth": 2}, attempt=1,
                    run_after=4000, attempts=[failing])  # fmt: skip
    paused = made(mara, 90, **thumbnails, kwargs={"image": "team-offsite.webp"})
    made(mara, 60, task_path="shop.tasks.import_orders", kwargs={"file": "orders-2026-09.csv"}, **worked_on("web-1", 1))
    made(tobias, 45, **thumbnails, kwargs={"image": "roof.jpg"}, **worked_on("web-2", 1),
         progress={"done": 2, "total": 3, "message": "writing 1600 px"})  # fmt: skip
    running = made(mara, 20, kwargs={"type": 3}, **worked_on("web-1", 2),
                   progress={"done": 18, "total": 30, "message": "counting"})  # fmt: skip
    claimed = made(mara, 6, claimed_by="c1:3:4713:web-1", claimed_at=2, attempt=1)
    for number in (3, 2, 1):
        ready = made(mara, number, **mail, kwargs={"order": 48210 + number})
    tell(running)
    alike(failed)
    retry = failed[1].retry(by=mara)
    assert retry
    TaskRun.objects.filter(pk=retry.pk).update(run_after=database_now() + timedelta(hours=1))
    return {
        "cancelled": cancelled.pk, "timed_out": timed_out.pk, "failed": failed[1].pk, "with_files": with_files.pk,
        "listed": listed.pk, "successful": successful.pk, "stranded": stranded.pk, "scheduled": scheduled.pk,
        "retrying": retrying.pk, "paused": paused.pk, "running": running.pk, "claimed": claimed.pk, "ready": ready.pk,
        "retry": retry.pk, "group": failed[1].failure_group_id,
    }  # fmt: skip


def bulk_acts(by: User, ids: Mapping[str, Any]) -> dict[str, Any]:
    """One that can be undone, one at work, and one that is done."""
    waits = bulk.send(by, "move", ids=[ids["ready"]], options={"queue": "night"}, why="They are in the way.")
    running = bulk.send(by, "retry", finding_query="state=failed", why="The shop was closed.")
    done = bulk.send(by, "cancel", finding_query="state=ready")
    now = database_now()
    begins = {"claimed_by": "c1:3:4713:web-1", "claimed_at": now, "started_at": now, "attempt": 1}
    progress = {"done": 1000, "total": 2412, "message": "988 runs were sent once more"}
    told = {"told": "204 runs were cancelled.", "changed": 204, "left": 0, "reasons": {}, "troubles": 0}
    changes: tuple[tuple[TaskRun, dict[str, Any]], ...] = (
        (waits, {"run_after": now + timedelta(hours=1)}),
        (running, {"status": Status.RUNNING, "progress": progress, **begins}),
        (done, {"status": Status.SUCCESSFUL, "finished_at": now, "return_value": told, **begins}),
    )
    for run, fields in changes:
        TaskRun.objects.filter(pk=run.pk).update(**fields)
    return {"bulk": waits.pk, "bulk_running": running.pk, "bulk_done": done.pk}


def worked_on(host: str, worker: int) -> dict[str, Any]:
    return begun(status=Status.RUNNING, claimed_by=f"c1:{worker}:{4710 + worker}:{host}")


def tell(run: TaskRun) -> None:
    """Some lines of log."""
    assert run.started_at
    levels = (RunLog.Level.INFO, RunLog.Level.INFO, RunLog.Level.WARNING, RunLog.Level.ERROR, RunLog.Level.DEBUG)
    RunLog.objects.bulk_create(
        RunLog(
            run=run, attempt=1, at=run.started_at + timedelta(seconds=number / 4), level=levels[number % len(levels)],
            text=f"counted to {number} of 30",
        )
        for number in range(40)
    )  # fmt: skip


def alike(failed: list[TaskRun]) -> None:
    """Runs that failed alike, as the statistics find them."""
    kind = FailureGroup.objects.create(
        fingerprint="0" * 32, task_path=failed[0].task_path, failure="error", exception="httpx.ConnectTimeout",
        message="ConnectTimeout: no answer from … in … s", count=len(failed),
        first_at=failed[0].enqueued_at, last_at=failed[-1].enqueued_at,
    )  # fmt: skip
    for run in failed:
        TaskRun.objects.filter(pk=run.pk).update(failure_group=kind)
        run.failure_group = kind
        assert run.finished_at
        for grain in (Grain.MINUTE, Grain.HOUR, Grain.DAY):
            at = floor(run.finished_at, grain)
            told = {"group": kind, "grain": grain, "at": at, "queue_name": run.queue_name}
            stat, _ = FailureStat.objects.get_or_create(**told, defaults={"count": 0})
            FailureStat.objects.filter(pk=stat.pk).update(count=F("count") + 1)


def pictures() -> dict[str, Any]:
    """A result that lists three images; the files are there once `draw` has made them."""
    return {
        "files": [
            {"name": f"harbour-at-dusk-{width}.jpg", "width": width, "height": width // 2, "bytes": 137 * width}
            for width in (320, 800, 1600)
        ]
    }


def draw(full: Full, media: Path) -> None:
    """The files of the run `with_files`, if there is one."""
    if "with_files" not in full.ids:
        return
    folder = media / "runs" / str(full.ids["with_files"])
    folder.mkdir(parents=True)
    for width in (320, 800, 1600):
        (folder / f"harbour-at-dusk-{width}.jpg").write_bytes(encoded(photo(width, width // 2), "JPEG"))


def workflow(mara: User) -> uuid.UUID:
    """A chain with a group in it, of which the first steps are done."""
    steps = [create_task.step(type=number) for number in range(1, 4)]
    flow = chain(steps[0], group(steps), steps[1]).enqueue(name="Album of the offsite", owner=mara)
    begins = database_now()
    TaskRun.objects.filter(workflow=flow.pk, step=0).update(
        status=Status.SUCCESSFUL, claimed_by="c1:2:4712:web-1", claimed_at=begins, started_at=begins,
        finished_at=begins, attempt=1, return_value=True,
    )  # fmt: skip
    later = database_now() + timedelta(hours=1)
    TaskRun.objects.filter(workflow=flow.pk).exclude(step=0).update(run_after=later)
    Workflow.objects.filter(pk=flow.pk).update(status=Status.RUNNING)
    return flow.pk


def schedules(mara: User) -> int:
    """Two by the clock, one of them with a history and one that cannot be fired."""
    nightly = schedule(TASK, name="nightly", schedule_type="C", cron="30 2 * * mon-fri", type=1)
    outcomes: list[Mapping[str, Any]] = [
        begun(status=Status.SUCCESSFUL, finished_at=12, return_value=True),
        begun(status=Status.FAILED, finished_at=12, failure="error", failure_message="ValueError: no"),
    ]
    for day in range(1, 12):
        made(mara, day * 86_400, schedule=nightly, schedule_name="nightly", **outcomes[day % 5 == 0])
    broken = schedule(TASK, name="broken", schedule_type="D", type=1)
    Schedule.objects.filter(pk=broken.pk).update(func="shop.tasks.gone")
    broken.rules.__class__.objects.filter(pk=broken.pk).update(
        error="There is no task shop.tasks.gone.", noted_at=database_now()
    )
    return nightly.pk


def statistics() -> None:
    """Thirty days of them, with a rhythm."""
    now = database_now()
    CountedTo.objects.update_or_create(pk=1, defaults={"at": now})
    rows = []
    for grain, back in ((Grain.MINUTE, 90), (Grain.HOUR, 24 * 8), (Grain.DAY, 31)):
        end = floor(now, grain)
        for number in range(back):
            for path, queue, share in (("shop.tasks.send_mail", "mail", 1.0), ("shop.tasks.crawl_site", "crawl", 0.2)):
                wave = 1 + math.sin(number / 7)
                for status, part in ((Status.SUCCESSFUL, 1.0), (Status.FAILED, 0.04)):
                    count = int(40 * wave * share * part * grain / Grain.MINUTE) + 1
                    rows.append(counted(grain, end - timedelta(seconds=grain * number), path, queue, status, count))
    RunStat.objects.bulk_create(rows)
    # Each queue has one task here, so its figures are the same.
    fields = [field.name for field in QueueStat._meta.concrete_fields if field.name != "id"]
    QueueStat.objects.bulk_create(QueueStat(**{name: getattr(row, name) for name in fields}) for row in rows)


def floor(at: datetime, grain: int) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // grain * grain, tz=at.tzinfo)


def counted(grain: Grain, at: datetime, path: str, queue: str, status: Status, count: int) -> RunStat:
    def spread(middle: int) -> list[int]:
        buckets = [0] * BUCKETS
        for away, share in ((0, 0.5), (1, 0.3), (3, 0.15), (9, 0.05)):
            buckets[middle + away] = int(count * share) or int(away == 0)
        return buckets

    return RunStat(
        grain=grain, at=at, task_path=path, queue_name=queue, status=status, count=count, waits=spread(8),
        lengths=spread(20), waited=0.02 * count, ran=1.2 * count,
    )  # fmt: skip


LOG = (
    "INFO 4711 cluster default is ready: 4 workers take from default, mail",
    "INFO 4712 create_task 0d7e55a9 begins, attempt 1",
    "INFO 4712 create_task 0d7e55a9 ended: SUCCESSFUL after 10.0 s",
    "WARNING 4711 worker 3 was lost: killed by signal 9",
    "ERROR 4713 crawl_site a81b3d60 failed: ConnectTimeout: no answer from shop.example.net in 10 s",
)


def write_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    moment = database_now().replace(tzinfo=None)
    lines = [
        f"{(moment - timedelta(seconds=60 - number)).isoformat(timespec='milliseconds')}Z {LOG[number % len(LOG)]}\n"
        for number in range(60)
    ]
    path.write_text("".join(lines))
