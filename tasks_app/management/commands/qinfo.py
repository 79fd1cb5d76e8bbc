import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Avg, Count, F, Q
from django.db.utils import Error
from django.utils import timezone
from django_q import VERSION
from django_q.conf import Conf

from tasks_app import wording
from tasks_app.checks import OURS
from tasks_app.health import Line, served_queues, waiting_queues
from tasks_app.models import Cluster, Status, TaskRun

DAY = timedelta(hours=24)


class Command(BaseCommand):
    """Django-Q2's command of the same name reads tables that stay empty here; this one reads the runs."""

    help = "Tells of the clusters, what waits for them, and what they did within the last 24 hours."
    requires_system_checks = (OURS,)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--config", action="store_true", help="The settings of Q_CLUSTER instead.")
        which.add_argument("--ids", action="store_true", help="Only the process id of each cluster.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["config"]:
                self.tell_config()
            elif options["ids"]:
                for cluster in Cluster.objects.alive().order_by("host", "pid"):
                    self.stdout.write(str(cluster.pid))
            else:
                self.tell_clusters()
                self.tell_queues()
                self.tell_last_day()
        except Error as error:
            raise CommandError(f"The database cannot be read: {str(error).strip().splitlines()[0]}") from None

    def tell_config(self) -> None:
        self.stdout.write(f"VERSION: {'.'.join(str(part) for part in VERSION)}")
        for name in sorted(Conf.conf):
            self.stdout.write(f"{name}: {Conf.conf[name]}")

    def tell_clusters(self) -> None:
        now = timezone.now()
        clusters = list(Cluster.objects.alive().order_by("host", "started_at"))
        workers, busy = sum(cluster.workers for cluster in clusters), sum(cluster.busy for cluster in clusters)
        if not clusters:
            self.stdout.write("No cluster is running. Start one with manage.py qcluster.")
            return
        told = f"{wording.plural(len(clusters), 'cluster')}, {wording.plural(workers, 'worker')}, {busy} busy"
        self.stdout.write(told)
        for cluster in clusters:
            self.stdout.write(
                f"  {cluster}, process {cluster.pid}: {wording.plural(cluster.workers, 'worker')}, "
                f"{cluster.busy} busy, takes from {', '.join(cluster.queues)}, "
                f"up {wording.elapsed(now - cluster.started_at)}"
            )

    def tell_queues(self) -> None:
        now = timezone.now()
        served = served_queues()
        for queue in sorted({*waiting_queues(), *served}):
            line = Line.of(TaskRun.objects.filter(queue_name=queue), now)
            oldest = f", the oldest for {wording.elapsed(now - line.oldest)}" if line.oldest else ""
            nobody = "" if queue in served else ", and no live cluster takes from it"
            self.stdout.write(f"Queue {queue}: {line.told} waiting{oldest}{nobody}")

    def tell_last_day(self) -> None:
        recent = TaskRun.objects.finished().filter(enqueued_at__gt=timezone.now() - DAY)
        each = {str(status.label).lower(): Count("id", filter=Q(status=status)) for status in Status}
        found = recent.aggregate(
            **each, ran=Avg(F("finished_at") - F("started_at"), filter=Q(status=Status.SUCCESSFUL))
        )
        self.stdout.write(
            f"Enqueued and ended within 24 hours: {wording.count(found['successful'])} successful, "
            f"{wording.count(found['failed'])} failed, {wording.count(found['cancelled'])} cancelled"
            + (f"; a success ran {wording.duration(found['ran'])} on average" if found["ran"] is not None else "")
        )
