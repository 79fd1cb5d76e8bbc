import argparse
import signal
import sys
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error

from tasks_app.checks import OURS
from tasks_app.models.run import QUEUE_NAME_LENGTH


class Command(BaseCommand):
    help = "Starts a cluster: a sentinel and workers that take runs from PostgreSQL. SIGTERM or Ctrl-C stops it."
    requires_system_checks = (OURS,)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--run-once", action="store_true", help="Do the work that is there, then stop.")
        parser.add_argument("-n", "--name", help="Another name than the one in Q_CLUSTER; its queue has the same name.")
        parser.add_argument("--queues", help="Queues to take from, in this order: default,images")

    def handle(self, *args: Any, **options: Any) -> None:
        from tasks_app.engine.cluster import STOP_SIGNALS, Cluster

        queues = queues_of(options["queues"], options["name"])
        self.check_database()
        cluster = Cluster(options["name"], queues, once=options["run_once"])
        cluster.start()
        code = cluster.wait()
        # There is nothing left to stop, and Python takes its handlers away before it ends: a signal that comes late, as
        # the second of two, would make a failure of a stop that went well.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if code:
            sys.exit(code)

    def check_database(self) -> None:
        """One sentence instead of a cluster that can do nothing: no database, or one that was not migrated."""
        connection = connections[DEFAULT_DB_ALIAS]
        try:
            executor = MigrationExecutor(connection)
            if executor.migration_plan(executor.loader.graph.leaf_nodes("tasks_app")):
                raise CommandError("The database is not migrated. Run `python manage.py migrate` first.")
        except (Error, psycopg.Error) as error:
            raise CommandError(f"The database cannot be reached: {str(error).strip().splitlines()[0]}") from None
        finally:
            connections.close_all()


def queues_of(given: str | None, name: str | None) -> list[str]:
    """The queues that were named, none for the cluster's own; raises `CommandError` for a list that says something odd.

    A slip would else be a cluster that takes from no queue that anybody sends to, and says nothing.
    """
    if name is not None and not 1 <= len(name.strip()) <= QUEUE_NAME_LENGTH:
        raise CommandError(f"The name of a cluster has 1 to {QUEUE_NAME_LENGTH} characters.")
    if given is None:
        return []
    queues = [queue.strip() for queue in given.split(",")]
    if not all(queues):
        raise CommandError("One of the queues has no name: write them with one comma between two, default,images.")
    for queue in queues:
        if len(queue) > QUEUE_NAME_LENGTH:
            raise CommandError(f"The name of a queue has 1 to {QUEUE_NAME_LENGTH} characters, not {len(queue)}.")
        if not queue.isprintable():
            raise CommandError(f"{queue!r} is no name of a queue: it has characters that cannot be seen.")
        if queues.count(queue) > 1:
            raise CommandError(f"The queue {queue} is named twice.")
    return queues
