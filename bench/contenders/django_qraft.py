"""django-qraft: durable attempts and retries on Django-Q2's own engine; the nearest to this project's stack."""

import os
from typing import Any

SETTINGS = {"DJANGO_SETTINGS_MODULE": "bench.contenders.stock_settings", "BENCH_ENGINE": "qraft"}
os.environ.update(SETTINGS)

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from qraft.models import QraftTask  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
from qraft.tasks import async_task  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

KEEPS = "the task with arguments, attempts, times, result"
NEEDS = "postgres"
PATH = "bench.contenders.stock_tasks."


def prepare() -> None:
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE django_q_ormq, django_q_task, qraft_qrafttask CASCADE")


def send(name: str, argument: float) -> None:
    async_task(PATH + ("busy_with_progress" if name == "busy" else name), argument)


def finished() -> int:
    return int(QraftTask.objects.filter(status="succeeded").count())


def workers(count: int) -> list[Any]:
    return [[["-m", "django", "qraftcluster"], SETTINGS]]
