"""What the tests of exact moments are played with: single runs, statements held up, a line that can be cut."""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.types.json import Jsonb

from tasks_app.engine import statements
from tests.server import Server
from tests.waiting import wait_until

FINAL = {"SUCCESSFUL", "FAILED", "CANCELLED"}


# Runs


def send(
    server: Server,
    task: str,
    *args: Any,
    timeout: float | None = None,
    attempts: int = 3,
    queue: str = "default",
) -> uuid.UUID:
    """One run of a task of `tests.outcomes`, or of the one at this path."""
    run_id = uuid.uuid4()
    path = task if "." in task else f"tests.outcomes.{task}"
    given = {"id": run_id, "task_path": path, "args": Jsonb(list(args)), "kwargs": Jsonb({})}
    options = {"queue_name": queue, "priority": 0, "owner": None, "run_after": None}
    with server.connect() as connection:
        connection.execute(statements.ENQUEUE, {**given, **options, "max_attempts": attempts, "timeout": timeout})
    return run_id


def read(server: Server, run_id: uuid.UUID) -> dict[str, Any]:
    with server.connect() as connection:
        return _read(connection, run_id)


def _read(connection: psycopg.Connection[dict[str, Any]], run_id: uuid.UUID) -> dict[str, Any]:
    row = connection.execute("SELECT * FROM tasks_app_taskrun WHERE id = %s", [run_id]).fetchone()
    assert row is not None
    return row


def wait_for(server: Server, run_id: uuid.UUID, *statuses: str, seconds: float = 20) -> dict[str, Any]:
    """The run, once it has one of these statuses, or is final if none is given."""
    wanted = set(statuses) or FINAL
    what = f"run {run_id} to be {' or '.join(sorted(wanted))}"

    with server.connect() as connection:

        def there() -> dict[str, Any] | None:
            row = _read(connection, run_id)
            return row if row["status"] in wanted else None

        found = wait_until(there, seconds=seconds, what=what)
    assert found is not None
    return found


# Statements that stand still

GATE = 4_711


class HeldUp:
    """The sessions that wait inside the statement just now, and the way to let them go on."""

    def __init__(self, server: Server, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self.server, self.connection = server, connection

    def sessions(self, title: str = "") -> list[int]:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
            " AND state = 'active' AND application_name LIKE %s"
        )
        return [row["pid"] for row in self.connection.execute(query, [f"qcluster%{title}%"]).fetchall()]

    def wait_for_session(self, title: str = "") -> int:
        return wait_until(lambda: self.sessions(title), what=f"a session of {title or 'qcluster'} in the statement")[0]

    def terminate(self, title: str = "") -> int:
        """End the session that stands inside the statement, and see that it is gone; gives its pid."""
        pid = self.wait_for_session(title)
        assert self.connection.execute("SELECT pg_terminate_backend(%s, 5000) AS gone", [pid]).fetchone() == {
            "gone": True
        }
        return pid

    def let_go(self) -> None:
        """From now on nothing is held up, and what was goes on."""
        self.connection.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def held_up(server: Server, table: str, when: str) -> Iterator[HeldUp]:
    """Every UPDATE of a row for which `when` is true (SQL, with `old` and `new`) stops halfway until `let_go`."""
    with server.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
        connection.execute(
            f"""
            CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN new; END $$;
            CREATE TRIGGER wait_at_gate BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN ({when}) EXECUTE FUNCTION wait_at_gate();
            """
        )
        held = HeldUp(server, connection)
        try:
            yield held
        finally:
            held.let_go()
            connection.execute("DROP FUNCTION wait_at_gate CASCADE")


# A line that can be cut


class Line:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.title = ""
        """Its application_name."""
        self.swallows = threading.Event()
        """When set, what the server answers gets lost."""

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Stands between a cluster and its PostgreSQL; every connection can be made to lose answers, and be cut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.target = f"{unquote(parts.hostname or '')}/.s.PGSQL.{parts.port}"
        self.lines: list[Line] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.url = f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def line(self, title: str) -> Line:
        """The newest live connection whose title, a regular expression, is this."""

        def found() -> list[Line]:
            return [line for line in self.lines if re.fullmatch(title, line.title)]

        return wait_until(found, what=f"a connection of {title}")[-1]

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.join()
        self.listener.close()
        for line in list(self.lines):
            line.cut()
        wait_until(lambda: not self.lines, what="the end of all connections")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.target)
            except OSError:
                client.close()
                server.close()
                continue
            line = Line(client, server)
            self.lines.append(line)
            threading.Thread(target=self._carry, args=[line], daemon=True).start()

    def _carry(self, line: Line) -> None:
        """Both ways until one of the ends is closed."""
        answers = threading.Thread(target=self._carry_answers, args=[line], daemon=True)
        answers.start()
        with suppress(OSError):
            while data := line.client.recv(65_536):
                if not line.title and b"application_name\0" in data:
                    line.title = data.partition(b"application_name\0")[2].partition(b"\0")[0].decode()
                line.server.sendall(data)
        line.cut()
        answers.join()
        line.client.close()
        line.server.close()
        self.lines.remove(line)

    def _carry_answers(self, line: Line) -> None:
        with suppress(OSError):
            while data := line.server.recv(65_536):
                if not line.swallows.is_set():
                    line.client.sendall(data)
        line.cut()
