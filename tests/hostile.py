"""Texts that mean harm, or do it without meaning to, for every place where a task or a host can put a text."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db.models import F
from django_q.models import Schedule
from django_q.tasks import schedule

from tasks_app import audit, bulk
from tasks_app.clock import database_now
from tasks_app.jsonable import storable
from tasks_app.models import (
    Cluster,
    CountedTo,
    FailureGroup,
    Grain,
    Queue,
    RunLog,
    RunStat,
    ScheduleRules,
    Status,
    TaskLimit,
    TaskRun,
    Workflow,
)
from tasks_app.tasks import create_task
from tasks_app.workflows import chain
from tests.centre import full
from tests.pages.conftest import SITUATIONS, attempt, made

CANARY = "hurt"
"""The name in `window` that every script here would set."""

TEXTS = {
    "script": "<script>hurt=1</script>",
    "dialog": "<script>alert(hurt=2)</script>",
    "image": "<img src=x onerror=hurt=3>",
    "svg": "<svg/onload=hurt=4><animate onbegin=hurt=4 attributeName=x>",
    "double quote": '" autofocus onfocus=hurt=5 x="',
    "single quote": "' autofocus onfocus=hurt=6 x='",
    "leaves": "</textarea></title></style></script>--></td></table></main><script>hurt=7</script>\"'>",
    "address": "javascript:hurt=8",
    "template": "{{7*7}} {% debug %} ${7*7} #{7*7} <%= 7*7 %>",
    "comment": "<!-- <![CDATA[ <?php",
    "foreign": "<link rel=stylesheet href=//evil.example/a><img src=https://evil.example/b><iframe src=//evil.example>",
    "htmx": "<b hx-get=/logout/ hx-trigger=load hx-on::load=hurt=9></b><meta http-equiv=refresh content=0;url=/keys/>",
    "entities": "&lt;script&gt;hurt=10&lt;/script&gt; &#60;&amp;amp;",
    "attributes": "a onmouseover=hurt=11 b` `onclick=hurt=11 style=position:fixed",
    "control": "".join(map(chr, (*range(1, 32), *range(127, 160)))),
    "right to left": "\u202egpj.exe\u202c \u2066photo\u2069 \u200f\u061c\u05e9\u05dc\u05d5\u05dd",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x1b[2J \x9b31m",
    "zero width": "zero\u200bwidth\u200djoined\ufeffmark\u2060\u00ad\u180e",
    # Letters that look like others.
    "homographs": "".join(map(chr, (0x440, 0x430, 0x79, 0x440, 0x430, 0x6C, 0xFF1C, 0xFF53, 0xFF1E, 0x17F, 0x131))),
    "towers": "".join("t" + "\u0335\u0321\u0308\u0327" * 12 for _ in range(12)),
    "one word": "W" * 3_000,
    "lines": "line\n" * 400 + "\r\n\r\x0b\x0c\u2028\u2029\x85end",
    "spaces": " \t\u00a0\u3000" * 200,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 60,
    "beyond": "\U0001f4a9\U000e0001\ue000\uffff\ufffd",
    "formula": "=cmd|'/C calc'!A0 +1 -1 @SUM(1)",
    "paths": "../../../etc/passwd\\..\\..\\con.txt;rm -rf /|$(id)`id`",
}

LONG = "<b>L0ng</b> " + "x" * 1_000_000
DEEP: Any = "<script>hurt=13</script>"
for _ in range(400):
    DEEP = {"<i>deep</i>": [DEEP]}

VALUES = {
    "long": LONG,
    "long key": {LONG[:100_000]: 1},
    "deep": DEEP,
    "numbers": [10**400, -(10**30), 1e308, 5e-324, -0.0, 2**53 + 1],
    "wide": [[number] * 3 for number in range(5_000)],
    "files": {"files": [{"name": "<b>.jpg"}, {"name": "../../a.jpg"}, {"name": "a" * 190 + ".jpg", "width": 10**30}]},
    "rows": [{text: text for text in TEXTS.values() if len(text) < 400}],
}
"""Arguments and results; each of the texts is one, too."""


def clipped(text: str, model: Any, name: str) -> str:
    return text[: model._meta.get_field(name).max_length]


def fill(log_file: Path) -> full.Full:
    """A task centre with everything in it, and each of the texts in every field that can have it."""
    centre = full.fill(log_file)
    for number, text in enumerate(TEXTS.values()):
        fill_with(number, text, centre.operator)
    for number, value in enumerate(VALUES.values()):
        run_with(TEXTS["leaves"], "successful" if number % 2 else "failed", centre.operator, value)
    everything = "\n".join(text for text in TEXTS.values())
    centre.ids |= {
        state: run_with(everything, state, centre.operator, VALUES["rows"]).pk
        for state in ("ready", "running", "failed", "successful", "cancelled", "scheduled", "retrying", "claimed")
    }
    wish(everything, centre.ids)
    centre.ids["long"] = run_with(LONG, "failed", centre.operator, LONG).pk
    centre.ids["deep"] = run_with("deep", "successful", centre.operator, DEEP).pk
    with log_file.open("ab") as log:
        for text in (*TEXTS.values(), everything, LONG):
            log.write(log_line(text))
        log.write(b"\xff\xfe\xed\xa0\x80\x00\xc0\xaf not UTF-8 at all\n" + "\ud800\n".encode(errors="surrogatepass"))
    return centre


def fill_with(number: int, text: str, operator: User) -> None:
    """This text as whatever a task, a host or a person can name."""
    now = database_now()
    somebody = User.objects.create(username=clipped(f"{number}{text}", User, "username"))
    run_with(text, list(SITUATIONS)[number % len(SITUATIONS)], somebody, text)
    queue = clipped(f"{number}{text}", Queue, "name")
    path = clipped(f"{text}.{text}", TaskRun, "task_path")
    Cluster.objects.create(
        name=clipped(text, Cluster, "name"), host=clipped(text, Cluster, "host"), queues=[text, queue], pid=number,
        workers=1, started_at=now, heartbeat_at=now + timedelta(hours=1 if number % 2 else -1),
        lost_at=None if number % 2 else now, rescued=1,
    )  # fmt: skip
    Queue.pause(queue, by=somebody, why=text)
    TaskLimit.pause(clipped(f"{number}.{text}", TaskLimit, "key"), by=somebody, why=text)
    audit.record("cancel", subject=text, by=somebody, why=text, details={text[:200]: text})
    flow = chain(create_task.step(type=0), create_task.step(type=0)).enqueue(
        name=clipped(text, Workflow, "name"), owner=operator
    )
    Workflow.objects.filter(pk=flow.pk).update(message=text)
    TaskRun.objects.filter(workflow=flow.pk).update(run_after=now + timedelta(hours=1))
    made_schedule = schedule(full.TASK, name=clipped(f"{number}{text}", Schedule, "name"), schedule_type="D", type=1)
    ScheduleRules.objects.filter(pk=made_schedule.pk).update(error=text, noted_at=now)
    RunStat.objects.bulk_create(
        full.counted(grain, full.floor(now, grain) - timedelta(seconds=grain), path, queue, Status.FAILED, 3)
        for grain in Grain
    )
    FailureGroup.objects.create(
        fingerprint=uuid.uuid4().hex, task_path=path, failure="error", first_at=now, last_at=now, count=1,
        exception=clipped(text, FailureGroup, "exception"), message=clipped(text, FailureGroup, "message"),
        dismissed_by=clipped(text, FailureGroup, "dismissed_by"),
    )  # fmt: skip


def wish(text: str, ids: Mapping[str, Any]) -> None:
    """This text as whatever somebody can have wished with a bulk act, and a worker can have told of it."""
    said = storable(text, 500)
    wished = {"what": said, "why": said, "back": said, "options": {"queue": clipped(text, Queue, "name")}}
    progress = {"done": 1, "total": 3, "message": said}
    told: dict[str, dict[str, Any]] = {
        "bulk": {}, "bulk_running": {"progress": progress},
        "bulk_done": {"progress": progress, "return_value": {"told": said}},
    }  # fmt: skip
    for name, fields in told.items():
        run = TaskRun.objects.get(pk=ids[name])
        queue = clipped(text, TaskRun, "queue_name")
        TaskRun.objects.filter(pk=run.pk).update(kwargs={**run.kwargs, **wished}, queue_name=queue, **fields)


turns = itertools.count(1)


def stir(centre: full.Full, log_file: Path) -> None:
    """News for every page: each row has another of the texts than before, and of each kind there is one row more."""
    texts, turn, now = list(TEXTS.values()), next(turns), database_now()
    text = texts[turn % len(texts)]
    runs = TaskRun.objects.exclude(task_path=bulk.path()).values_list("pk", "failure_message", "progress")
    for number, (pk, message, progress) in enumerate(runs):
        other = texts[(number + turn) % len(texts)]
        TaskRun.objects.filter(pk=pk).update(
            task_path=clipped(f"{other}.{other}", TaskRun, "task_path"), attempt=F("attempt") + 1,
            queue_name=clipped(other, TaskRun, "queue_name"), failure_message=message and storable(other, 2_000),
            progress=progress and {"done": 2, "total": 3, "message": storable(other, 500)},
        )  # fmt: skip
    wish(text, centre.ids)
    TaskRun.objects.filter(pk=centre.ids["bulk"]).update(run_after=F("run_after") + timedelta(seconds=1))
    for state in ("ready", "running", "successful", "failed"):
        run_with(text, state, centre.operator, text)
    for number, pk in enumerate(Cluster.objects.values_list("pk", flat=True)):
        other, report = texts[(number + turn) % len(texts)], full.told(now, busy=turn % 4)
        named = {name: clipped(other, Cluster, name) for name in ("name", "host")}
        Cluster.objects.filter(pk=pk).update(queues=[other], report={**report, "python": other[:200]}, **named)
    for model in (Queue, TaskLimit):
        model.objects.filter(paused_at__isnull=False).update(pause_reason=text[:500])
    named = {name: clipped(text, FailureGroup, name) for name in ("exception", "message")}
    FailureGroup.objects.update(last_at=now, count=F("count") + 1, **named)
    Workflow.objects.update(name=clipped(text, Workflow, "name"), message=text, cancel_requested_at=now)
    ScheduleRules.objects.update(error=text, noted_at=now)
    CountedTo.objects.update(at=F("at") - timedelta(hours=2))
    audit.record("cancel", subject=text, by=centre.operator, why=text, details={text[:200]: text})
    with log_file.open("ab") as log:
        log.write(log_line(text))


def log_line(text: str) -> bytes:
    head = database_now().replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{head}Z ERROR 1 {text}\n".encode(errors="surrogatepass")


def run_with(text: str, state: str, owner: User, value: Any) -> TaskRun:
    """A run in that state, which has the text wherever a run can have one, and the value as argument and result."""
    fields = dict(SITUATIONS[state])
    said, raised = storable(text, 2_000), storable(text, 500)  # as much of it as the engine keeps
    trace = storable(f'Traceback\n  File "{text}", line 1\n{text}')
    tries = [attempt(1, 2, 12, message=said, exception=raised, traceback=trace) for _ in fields.get("attempts", [])]
    worker = clipped(f"c1:2:4711:{text}", TaskRun, "claimed_by")
    return keep_log(
        made(
            owner,
            30,
            **{
                **fields,
                "task_path": clipped(f"{text}.{text}", TaskRun, "task_path"),
                "queue_name": clipped(text, TaskRun, "queue_name"),
                "args": [value],
                "kwargs": {text[:2_000]: value},
                "attempts": tries,
                "schedule_name": clipped(text, TaskRun, "schedule_name"),
                "idempotency_key": clipped(f"{uuid.uuid4()}{text}", TaskRun, "idempotency_key"),
                **({"claimed_by": worker} if "claimed_by" in fields else {}),
                **({"failure_message": said} if fields.get("status") in ("FAILED", "CANCELLED") else {}),
                **({"return_value": value} if fields.get("status") == "SUCCESSFUL" else {}),
                **({"progress": {"done": 1, "total": 3, "message": storable(text, 500)}} if state == "running" else {}),
            },
        ),
        text,
    )


def keep_log(run: TaskRun, text: str) -> TaskRun:
    RunLog.objects.bulk_create(
        RunLog(run=run, attempt=1, at=database_now(), level=level, text=storable(text, 8_000)) for level in RunLog.Level
    )
    return run
