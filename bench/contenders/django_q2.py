"""Django-Q2's stock cluster with its own ORM broker on PostgreSQL, in settings of its own."""

import os
from typing import Any

SETTINGS = {"DJANGO_SETTINGS_MODULE": "bench.contenders.stock_settings", "BENCH_ENGINE": "django_q2"}
os.environ.update(SETTINGS)

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402
from django_q.models import OrmQ, Success  # noqa: E402
from django_q.tasks import async_task  # noqa: E402

KEEPS = "the task with arguments, times, result, as pickles"
NEEDS = "postgres"
PATH = "bench.contenders.stock_tasks."


def prepare() -> None:
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE django_q_ormq, django_q_task")


def send(name: str, argument: float) -> None:
    async_task(PATH + name, argument)


def fill(name: str, count: int) -> None:
    """Its own packages, many in one statement; it has no such call."""
    from django_q.humanhash import uuid
    from django_q.signing import SignedPackage

    rows = []
    for number in range(count):
        called, key = uuid()
        task = {"id": key, "name": called, "func": PATH + name, "args": (number,), "kwargs": {}}
        payload = SignedPackage.dumps({**task, "started": timezone.now()})
        rows.append(OrmQ(key="default", payload=payload, lock=timezone.now()))
    OrmQ.objects.bulk_create(rows, batch_size=1000)


def finished() -> int:
    return int(Success.objects.count())


def workers(count: int) -> list[Any]:
    return [[["-m", "django", "qcluster"], SETTINGS]]
