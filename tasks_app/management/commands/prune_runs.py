import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error

from tasks_app.checks import OURS
from tasks_app.retention import Pruned, prune
from tasks_app.wording import moment, plural


class Command(BaseCommand):
    help = (
        "Deletes the runs that the setting RETENTION does not keep, with their logs and files, and what is left over."
    )
    requires_system_checks = (OURS,)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only tell what would go; change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            pruned = prune(is_dry=options["dry_run"], why="manage.py prune_runs")
        except Error as error:
            raise CommandError(f"The database refused it: {str(error).strip().splitlines()[0]}") from None
        if not settings.RETENTION:
            self.stdout.write("RETENTION keeps all runs.")
        for rule in settings.RETENTION:
            self.stdout.write(self.sentence(pruned, rule))
        for name, number in pruned.others.items():
            if number:
                self.stdout.write(f"{name.capitalize()}: {number} {'would go' if pruned.is_dry else 'gone'}")

    def sentence(self, pruned: Pruned, rule: Any) -> str:
        number = pruned.runs[str(rule)]
        said = f"{rule}: keeping {rule.kept}, {plural(number, 'run')} {'would go' if pruned.is_dry else 'gone'}"
        if oldest := pruned.oldest.get(str(rule)):
            said += f", the oldest of {moment(oldest)}"
        return said
