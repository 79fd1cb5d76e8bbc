"""A PostgreSQL to be broken at will, clusters on it, and a ledger on disk that it cannot lose."""

import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from config import embedded
from config.local import BASE_DIR
from tasks_app.engine import statements
from tests.plugins.processes import READY, RunningProcess
from tests.waiting import wait_until


class Server:
    """A PostgreSQL with the product's tables, which nobody else uses."""

    def __init__(self, data: Path, folder: Path, **given: object) -> None:
        self.data, self.folder, self.given = data, folder, given
        self.ledger = folder / "ledger"
        self.url = embedded.url(self.data)
        self.clusters: list[RunningProcess] = []

    def environment(self, **given: object) -> dict[str, str]:
        own = {"DATABASE_URL": self.url, "LOG_FILE": self.folder / "qcluster.log", "STOP_GRACE_SECONDS": 5}
        own |= {**self.given, **given}
        return os.environ | {name: str(value) for name, value in own.items()}

    def migrate(self) -> None:
        command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
        subprocess.run(command, cwd=BASE_DIR, env=self.environment(), check=True, timeout=120)

    def qcluster(self, *arguments: str, wait: bool = True, **environment: object) -> RunningProcess:
        command = [sys.executable, "manage.py", "qcluster", *arguments]
        output = self.folder / f"qcluster-{len(self.clusters)}.txt"
        cluster = RunningProcess(command, output, self.environment(**environment))
        self.clusters.append(cluster)
        if wait:
            cluster.wait_for_output(READY)
        return cluster

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self.url, autocommit=True, row_factory=dict_row)

    def enqueue(
        self, count: int, seconds: float = 0.0, task: str = "tests.outcomes.writes_ledger", queue: str = "default"
    ) -> None:
        """So many runs that each leave their number in the ledger."""
        calls = [f'["{self.ledger}", {number}, {seconds}]' for number in range(count)]
        with self.connect() as connection:
            options = {"task_path": task, "queue_name": queue, "priority": 0, "owner": None, "run_after": None}
            columns = {"id": [uuid.uuid4() for _ in calls], "args": calls, "kwargs": ["{}"] * count}
            connection.execute(statements.ENQUEUE_MANY, {**options, **columns, "max_attempts": 3, "timeout": None})

    def runs(self) -> list[dict[str, Any]]:
        with self.connect() as connection:
            return connection.execute("SELECT * FROM tasks_app_taskrun ORDER BY enqueued_at, id").fetchall()

    def unfinished(self) -> int:
        with self.connect() as connection:
            query = "SELECT count(*) AS n FROM tasks_app_taskrun WHERE status IN ('READY', 'RUNNING')"
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row["n"])

    def wait_until_all_final(self, seconds: float = 60) -> None:
        def left() -> bool:
            try:
                return self.unfinished() == 0
            except psycopg.OperationalError:
                return False  # it is just being broken

        wait_until(left, seconds=seconds, what="every run to be final")

    def executions(self) -> Counter[int]:
        """How often each number was executed, going by the ledger."""
        return Counter(int(line) for line in self.ledger.read_text().split()) if self.ledger.exists() else Counter()

    def backends(self, title: str) -> list[int]:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
        with self.connect() as connection:
            return [row["pid"] for row in connection.execute(query, [f"qcluster%{title}%"]).fetchall()]

    def restart(self, mode: str) -> None:
        """As `pg_ctl restart` does it; `immediate` is a crash, after which the server recovers from its log."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        # SIGINT is a fast stop, SIGQUIT an immediate one.
        os.kill(postmaster, {"fast": 2, "immediate": 3}[mode])
        psutil.wait_procs([psutil.Process(postmaster)] if psutil.pid_exists(postmaster) else [], timeout=30)
        embedded.ensure_running(self.data)
