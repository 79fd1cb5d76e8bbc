"""The embedded PostgreSQL: found, started, shared, stopped by the last, and back after any death."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dj_database_url
import psutil
import psycopg
import pytest

from config import embedded
from config.local import BASE_DIR
from tests.waiting import wait_until

HOLD = "import sys; from pathlib import Path; from config import embedded\nwith embedded.hold(Path(sys.argv[1])): "
HOLD_UNTIL_TOLD = f"{HOLD}print('held', flush=True); sys.stdin.readline()"


@pytest.fixture(scope="module")
def data_dir(open_folder: Path) -> Path:
    return open_folder / "postgres"


def holder(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_TOLD, data_dir],
        cwd=BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def server(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postmaster.pid").read_text().split()[0]))


def test_url_is_read_alike_by_django_and_by_the_driver(data_dir: Path) -> None:
    url = embedded.url(data_dir)
    host = str(data_dir.with_name("postgres.socket"))
    assert psycopg.conninfo.conninfo_to_dict(url)["host"] == host
    read = dj_database_url.parse(url)
    assert (read["HOST"], read["PORT"], read["USER"], read["NAME"]) == (host, 5432, "postgres", "dumbwaiter")
    assert not data_dir.exists()


def test_url_of_a_deep_folder_fits_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / "postgres"
    host = psycopg.conninfo.conninfo_to_dict(embedded.url(deep))["host"]
    assert len(f"{host}/.s.PGSQL.5432") < 108
    assert embedded.url(deep) != embedded.url(deep.with_name("other"))


def test_hold_makes_a_database_that_only_its_owner_reaches(data_dir: Path) -> None:
    with embedded.hold(data_dir) as url, psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT current_setting('fsync'), current_setting('listen_addresses'), current_setting('server_encoding')"
        ).fetchone()
        assert row == ("on", "", "UTF8")
        assert data_dir.with_name("postgres.socket").stat().st_mode & 0o777 == 0o700
        assert os.getsid(server(data_dir).pid) != os.getsid(0)
    assert not embedded.is_running(data_dir)


def test_last_to_leave_stops_it(data_dir: Path) -> None:
    first, second = holder(data_dir), holder(data_dir)
    wait_until_held(first)
    wait_until_held(second)
    pid = server(data_dir).pid
    let_go(first)
    assert server(data_dir).pid == pid
    let_go(second)
    assert not embedded.is_running(data_dir)


def test_many_at_once_start_one_server(data_dir: Path) -> None:
    holders = [holder(data_dir) for _ in range(4)]
    for process in holders:
        wait_until_held(process)
    assert len([pid for pid in psutil.pids() if embedded._works_in(data_dir, pid) and _leads(pid)]) == 1
    for process in holders:
        let_go(process)
    assert not embedded.is_running(data_dir)


def _leads(pid: int) -> bool:
    parent = psutil.Process(pid).parent()
    return parent is None or parent.name() != "postgres"


def test_killed_holder_does_not_count(data_dir: Path) -> None:
    killed, other = holder(data_dir), holder(data_dir)
    wait_until_held(killed)
    wait_until_held(other)
    killed.kill()
    killed.communicate()
    let_go(other)
    assert not embedded.is_running(data_dir)


def test_starts_again_after_everything_was_killed(data_dir: Path) -> None:
    killed = holder(data_dir)
    wait_until_held(killed)
    killed.kill()
    killed.communicate()
    server(data_dir).kill()
    wait_until(lambda: not embedded.is_running(data_dir), what="the end of the server")
    with embedded.hold(data_dir) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_slow_server_runs(data_dir: Path) -> None:
    with embedded.hold(data_dir):
        server(data_dir).suspend()
        try:
            assert embedded.is_running(data_dir)
        finally:
            server(data_dir).resume()


def test_pid_file_that_names_a_stranger_is_no_server(data_dir: Path) -> None:
    with embedded.hold(data_dir):
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    (data_dir / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]))
    with embedded.hold(data_dir) as url, psycopg.connect(url):
        pass


def test_forked_child_does_not_stop_it(data_dir: Path) -> None:
    with embedded.hold(data_dir) as url:
        script = f"{HOLD}\n  import os\n  child = os.fork()\n  if child: os.waitpid(child, 0); sys.stdin.readline()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, data_dir], cwd=BASE_DIR, stdin=subprocess.PIPE, text=True
        )
        let_go(process)
        with psycopg.connect(url):
            pass


def test_interrupted_start_leaves_nothing(open_folder: Path) -> None:
    data_dir = open_folder / "interrupted" / "postgres"
    process = holder(data_dir)
    wait_until(data_dir.with_name("postgres.new").exists, what="the start of initdb")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not embedded.is_running(data_dir)


def test_failure_is_one_sentence_with_the_reason(data_dir: Path) -> None:
    configuration = data_dir / "postgresql.conf"
    before = configuration.read_bytes()
    configuration.write_bytes(before + b"\nno_such_setting = 1\n")
    try:
        with pytest.raises(embedded.EmbeddedPostgresError, match=r"does not start: .*FATAL.*postgresql\.conf") as error:
            embedded.ensure_running(data_dir)
        assert "\n" not in str(error.value)
    finally:
        configuration.write_bytes(before)


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(embedded.EmbeddedPostgresError, match="cannot use"):
        embedded.ensure_running(tmp_path / "file" / "postgres")
