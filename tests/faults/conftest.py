"""Situations: a PostgreSQL of the test's own, to be broken at will, and a ledger on disk that it cannot lose."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from config import embedded
from tests.server import Server


@pytest.fixture(scope="session")
def server_data() -> Iterator[Path]:
    # Not a folder of pytest's: those are closed to other users, and root's database runs as one.
    with TemporaryDirectory(prefix="dumbwaiter-faults-") as folder:
        data = Path(folder) / "postgres"
        with embedded.hold(data):
            Server(data, Path(folder)).migrate()
            yield data


@pytest.fixture
def server(server_data: Path, tmp_path: Path) -> Iterator[Server]:
    prepared = Server(server_data, tmp_path)
    yield prepared
    embedded.ensure_running(server_data)
    with ExitStack() as last:  # the next test finds it clean, whatever ends badly here
        last.callback(clean, prepared)
        for cluster in prepared.clusters:
            last.callback(cluster.end)


def clean(server: Server) -> None:
    with server.connect() as connection:
        connection.execute(
            "TRUNCATE tasks_app_taskrun, tasks_app_cluster, tasks_app_runlog, tasks_app_queue, tasks_app_tasklimit"
        )
        connection.execute("DROP FUNCTION IF EXISTS full_disk, no_threes, slow_claim, wait_at_gate CASCADE")


@pytest.fixture
def assert_exactly_once(server: Server) -> Callable[[int], None]:
    """Every run SUCCESSFUL at its first attempt, and every number in the ledger once."""

    def check(count: int) -> None:
        runs = server.runs()
        assert len(runs) == count
        assert {(run["status"], run["attempt"]) for run in runs} == {("SUCCESSFUL", 1)}
        assert server.executions() == Counter(range(count))

    return check
