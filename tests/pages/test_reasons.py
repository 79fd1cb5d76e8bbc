"""STEER: a reason that cannot be kept as it stands is answered with why not, wherever reasons are taken."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tasks_app.audit import REASON_LENGTH
from tasks_app.models import AuditEntry, Cluster, TaskRun
from tests.pages.conftest import RunFactory
from tests.pages.test_failures import failed
from tests.pages.test_schedules_page import make

pytestmark = pytest.mark.django_db

REFUSED = "A reason has no NUL character in it. Leave it out."
CUT = "A NUL character in the reason was left out."
SENT: list[tuple[str, dict[str, str], str]] = [
    ("/queues/steer/", {"do": "pause", "queue": "a"}, REFUSED),
    ("/queues/steer/", {"do": "drain"}, REFUSED),
    ("/queues/limits/", {"do": "pause", "task": "tasks_app.tasks.practice.create_task"}, REFUSED),
    ("/schedules/{schedule}/steer/", {"do": "pause"}, REFUSED),
    ("/failures/{failure}/steer/", {"do": "dismiss"}, REFUSED),
    ("/runs/bulk/", {"verb": "cancel", "all": "1", "sure": "1"}, REFUSED),
    ("/admin/tasks_app/queue/add/", {"name": "a", "is_paused": "on"}, REFUSED),
    ("/runs/{run}/cancel/", {}, CUT),
    ("/workers/steer/", {"do": "quiet", "cluster": "{cluster}"}, CUT),
]


@pytest.mark.parametrize(("path", "given", "said"), SENT, ids=[f"{path} {given}" for path, given, _ in SENT])
def test_a_nul_is_told_to_be_one(
    operators_client: Client, run: RunFactory, cluster: Cluster, path: str, given: dict[str, str], said: str
) -> None:
    there: dict[str, Any] = {"run": run().pk, "cluster": cluster.pk}
    there |= {"schedule": make().pk, "failure": failed(cluster.heartbeat_at, 2).pk}
    filled = {name: value.format(**there) for name, value in given.items()}

    why = "Too <b>loud</b> \0"
    sent = {**filled, "why": why, "reason": why}
    response = operators_client.post(path.format(**there), sent, follow=True)

    text = html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))
    assert said in " ".join(text.split())
    assert f"{REASON_LENGTH}" not in re.findall(r"at most (\d+) characters", text)
    assert set(AuditEntry.objects.values_list("reason", flat=True)) <= {"", "Too <b>loud</b>"}


def test_a_key_that_is_none_is_no_reason_to_refuse(client: Client, mara: User) -> None:
    client.post("/launch/create_task/", {"type": "1", "once": "a\0b"})

    assert TaskRun.objects.count() == 1
