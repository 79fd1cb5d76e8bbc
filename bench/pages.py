"""`make bench-pages`: what each page costs with a million runs, and how it is with 200 readers at once."""

from __future__ import annotations

import argparse
import asyncio
import html
import http.client
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import md5
from typing import Any

from bench import report
from bench.machine import ROOT, Machine, commit_milliseconds, filesystem, machine, stop

PAGES_PAGE = report.HERE / "PAGES.md"

ADDRESSES = {
    "home": "/",
    "runs": "/runs/",
    "runs, failed": "/runs/?state=failed",
    "runs, ready": "/runs/?state=ready",
    "runs, one task": "/runs/?task=bench.tasks.task_7",
    "runs, a word": "/runs/?q=museum",
    "runs, a task's name": "/runs/?q=create_task",
    "run, running": "/runs/{running}/",
    "run, ready": "/runs/{ready}/",
    "run, failed": "/runs/{failed}/",
    "run, successful": "/runs/{successful}/",
    "runs, counts of the tabs": "/runs/counts/",
    "runs, facets": "/runs/facets/",
    "runs, about something": "/runs/?about=shop.order:7",
    "failures": "/failures/",
    "failures, one kind": "/failures/{kind}/",
    "queues": "/queues/",
    "workers": "/workers/",
    "schedules": "/schedules/",
    "schedule": "/schedules/{schedule}/",
    "schedule, new": "/schedules/new/?task=tasks_app.tasks.practice.create_task",
    "workflows": "/workflows/",
    "workflow": "/workflows/{flow}/",
    "launch": "/launch/",
    "launch, a form": "/launch/tasks_app.tasks.practice.create_task/",
    "statistics, 1 h": "/stats/?window=1h",
    "statistics, 6 h": "/stats/?window=6h",
    "statistics, 24 h": "/stats/?window=24h",
    "statistics, 7 d": "/stats/?window=7d",
    "statistics, 30 d": "/stats/?window=30d",
    "logs": "/logs/",
    "audit": "/audit/",
    "audit, filtered": "/audit/?verb=pause&q=operator",
    "bulk, asked back": "/runs/bulk/",
    "bulk, its run": "/runs/bulk/{bulk}/",
    "run again": "/runs/{step}/again/",
    "run, delete": "/runs/{failed}/delete/",
    "time zone": "/time-zone/",
    "keys": "/keys/",
}
"""A page that is not there (404) is left out."""

RARE = md5(b"5").hexdigest()[:16]
"""With what the note of a single run begins."""

ODD = {
    "odd: 200 kB to search for": "/runs/?q=" + "x" * 200_000,
    "odd: as many words as are taken": "/runs/?q=" + "+".join(f"word{number}" for number in range(380)),
    "odd: a page far off": "/runs/?older=1-00000000-0000-0000-0000-000000000000",
    "odd: since the year 1": "/runs/?since=0001-01-01",
    "odd: until 1900": "/runs/?until=1900-01-01",
    "odd: a queue that is not there": "/runs/?queue=nothing",
    "odd: a word that nobody has": "/runs/?q=zzyzx",
    "odd: a rare word": f"/runs/?q={RARE}",
    "odd: a beginning of many rare words": "/runs/?q=123",
    "odd: a common word of a queue that is not there": "/runs/?q=museum&queue=nothing",
    "odd: asked back for a rare word": "/runs/bulk/",
    "odd: log lines that nobody wrote": "/runs/{running}/?q=zzyzx&level=error",
    "odd: the audit of nobody": "/audit/?q=nobody",
}
"""What nobody means, or seldom: each has to be answered as soon as the rest. Nobody stays there to read."""

SENT = {
    "bulk, asked back": "verb=retry&all=1&query=state%3Dfailed",
    "odd: asked back for a rare word": f"verb=retry&all=1&query=q%3D{RARE}",
}
"""Pages that are the answer to a form, with what is sent to them."""

REFUSED = {400, 414}
"""Not understood; too long for a web server."""

TOKEN = "t" * 32
"""Sent as a cookie and in a form it is the proof that both come from one browser."""

WARM, TIMES = 5, 30
PACE_SECONDS = 2.0
OPENING = 4
"""So many pages are opened at once, before their readers begin to ask."""
MOST_MS, MOST_QUERIES, MOST_POLL_QUERIES, MOST_P95_MS = 100, 10, 1, 150
POLL = re.compile(r'data-poll[^>]* hx-get="([^"]*seen=[^"]*)"|hx-get="([^"]*seen=[^"]*)"[^>]* data-poll')


class Site:
    """A gunicorn on the filled database, as it is in production, and sessions of operators."""

    def __init__(self, made: Machine, rows: int, ready: int) -> None:
        self.machine = made
        self.port = free_port()
        self.environment = {
            **made.environment("pages"),
            "STATIC_ROOT": str(made.scratch / "static"),
            "MEDIA_ROOT": str(made.scratch / "media"),
            "HTTPS": "0",
            "BIND": "127.0.0.1",
            "PORT": str(self.port),
            "WEB_WORKERS": "2",
            "ALLOWED_HOSTS": "127.0.0.1,testserver",
        }
        self.manage("migrate", "--verbosity=0")
        self.manage("collectstatic", "--noinput", "--verbosity=0")
        self.told = self.data("fill", str(rows), str(ready))
        command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.py", "config.wsgi"]
        self.server = made.start(command, self.environment, "gunicorn")

    def manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, check=True)

    def data(self, do: str, *given: str) -> Any:
        """What `bench.pages_data` tells, in a process of its own that has Django."""
        command = [sys.executable, "-m", "bench.pages_data", do]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, check=True, stdout=subprocess.PIPE, text=True,
            input=json.dumps(given),
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                if self.ask("/healthz")[0] == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"The web server does not answer:\n{self.machine.log_tail('gunicorn', 20)}")

    def headers(self, poll: bool = False, reader: int = 0) -> dict[str, str]:
        sessions = self.told["sessions"]
        cookies = f"sessionid={sessions[reader % len(sessions)]}; csrftoken={TOKEN}"
        return {"Cookie": cookies, **({"HX-Request": "true"} if poll else {})}

    def ask(self, path: str, poll: bool = False, form: str = "") -> tuple[int, str, float]:
        """Status, text and milliseconds of one answer, on a connection of its own, which is made before."""
        headers, body = self.headers(poll), None
        if form:
            body = f"{form}&csrfmiddlewaretoken={TOKEN}"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        began = time.perf_counter()
        connection.request("POST" if form else "GET", path, body, headers)
        answer = connection.getresponse()
        if form and answer.status == 302 and (where := answer.headers["Location"]).startswith(f"{path}?"):
            answer.read()  # it is asked at an address of its own
            connection.request("GET", where, headers=self.headers())
            answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        spent = 1000 * (time.perf_counter() - began)
        connection.close()
        return answer.status, text, spent

    def median(self, path: str, poll: bool = False, form: str = "") -> float:
        return statistics.median([self.ask(path, poll, form)[2] for _ in range(WARM + TIMES)][WARM:])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def poll_of(page: str) -> str:
    """Where an open page asks for news; empty for one that does not."""
    match = POLL.search(page)
    return html.unescape(match[1] or match[2]) if match else ""


def measure(site: Site) -> dict[str, dict[str, Any]]:
    """Each page alone: milliseconds as a browser on this machine sees them, and what it asks of the database."""
    found: dict[str, dict[str, Any]] = {}
    for name, address in {**ADDRESSES, **ODD}.items():
        path, form = address.format(**site.told), SENT.get(name, "")
        status, page, _ = site.ask(path, form=form)
        if status == 404:
            say(f"  {name} is not there")
            continue
        if status != 200 and not (name in ODD and status in REFUSED):
            raise RuntimeError(f"{path[:200]} is answered with {status}")
        milliseconds = site.median(path, form=form)
        # Of a page that was opened just now: some are drawn anew now and then.
        poll = poll_of(site.ask(path, form=form)[1])
        found[name] = {
            "status": status,
            "ms": milliseconds,
            "kB": len(page.encode()) / 1000,
            "poll_ms": site.median(poll, poll=True) if poll else None,
            "poll_status": site.ask(poll, poll=True)[0] if poll else None,
            **site.data("cost", path, form),
        }
        say(f"  {name}: {found[name]['ms']:.0f} ms, {found[name]['queries']} queries")
    return found


# Many readers


class Reader:
    """An open page that asks for news, on a connection that it keeps as browsers do."""

    def __init__(self, site: Site, path: str, number: int) -> None:
        self.site, self.path, self.number = site, path, number
        self.poll = ""
        self.spent: list[float] = []
        self.statuses: list[int] = []
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self, few: asyncio.Semaphore) -> None:
        async with few:
            _, page = await self.ask(self.path, poll=False)
        self.poll = poll_of(page)

    async def read(self, wait: float, counted_from: float, until: float) -> None:
        """Ask at the pace of a browser; the first round, of pages that were opened a while ago, does not count."""
        await asyncio.sleep(wait)
        while (began := time.perf_counter()) < until:
            status, text = await self.ask(self.poll, poll=True)
            ended = time.perf_counter()
            if began >= counted_from:
                self.spent.append(1000 * (ended - began))
                self.statuses.append(status)
            self.poll = poll_of(text) or self.poll
            await asyncio.sleep(max(0.0, PACE_SECONDS - (ended - began)))

    async def ask(self, path: str, poll: bool) -> tuple[int, str]:
        for _ in range(2):  # a kept connection may have been closed meanwhile
            if self.stream is None:
                self.stream = await asyncio.open_connection("127.0.0.1", self.site.port)
            try:
                return await self.answer(path, poll, *self.stream)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.stream[1].close()
                self.stream = None
        raise RuntimeError(f"{path} is not answered")

    async def answer(
        self, path: str, poll: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, str]:
        given = {"Host": "127.0.0.1", **self.site.headers(poll, self.number)}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            writer.close()
            self.stream = None
        return int(lines[0].split()[1]), body.decode(errors="replace")


async def together(site: Site, paths: list[str], readers: int, seconds: float) -> dict[str, Any]:
    """So many readers, spread over the pages and over the pace; what their polls took."""
    crowd = [Reader(site, paths[number % len(paths)], number // len(paths)) for number in range(readers)]
    few = asyncio.Semaphore(OPENING)
    await asyncio.gather(*(reader.open(few) for reader in crowd))
    counted_from = time.perf_counter() + 2 * PACE_SECONDS
    until = counted_from + seconds
    waits = [PACE_SECONDS * number / readers for number in range(readers)]
    await asyncio.gather(*(reader.read(wait, counted_from, until) for reader, wait in zip(crowd, waits, strict=True)))
    spent = sorted(each for reader in crowd for each in reader.spent)
    statuses = [each for reader in crowd for each in reader.statuses]
    if strange := set(statuses) - {200, 204}:
        raise RuntimeError(f"Polls were answered with {strange}.")
    return {
        "readers": readers,
        "polls": len(spent),
        "news": statuses.count(200),
        **{f"p{percent}": spent[min(len(spent) * percent // 100, len(spent) - 1)] for percent in (50, 95, 99)},
    }


def crowds(site: Site, pages: Mapping[str, Mapping[str, Any]], readers: int, seconds: float) -> dict[str, Any]:
    """Many readers while nothing happens, and while a run goes on, which is news to some of the pages."""
    polled = [name for name, found in pages.items() if found["poll_status"] is not None and name in ADDRESSES]
    paths = [ADDRESSES[name].format(**site.told) for name in polled]
    found = {"nothing happens": asyncio.run(together(site, paths, readers, seconds))}
    command = [sys.executable, "-m", "bench.pages_data", "live", str(seconds + 60)]
    living = site.machine.start(command, site.environment, "living")
    try:
        found["a run goes on"] = asyncio.run(together(site, paths, readers, seconds))
    finally:
        stop([living])
    return found


# The report


def page(results: Mapping[str, Any]) -> str:
    made, pages = results["machine"], results["pages"]
    rows = [
        [
            f"{name} (refused)" if found["status"] in REFUSED else name,
            f"{found['ms']:.0f}",
            f"{found['kB']:.0f}",
            str(found["queries"]),
            str(found["seq_scans"]),
            "" if found["poll_ms"] is None else f"{found['poll_ms']:.0f}",
            "" if found["poll_ms"] is None else str(found["poll_queries"]),
            ", ".join(missed(found)),
        ]
        for name, found in pages.items()
    ]
    head = ("page", "ms", "kB", "queries", "seq. scans of runs", "poll ms", "poll queries", "missed")
    crowd = [
        [name, *(f"{found[key]:,.0f}" for key in ("readers", "polls", "news", "p50", "p95", "p99")),
         "" if found["p95"] <= MOST_P95_MS else "**p95**"]
        for name, found in results["crowds"].items()
    ]  # fmt: skip
    alone = f"""\
{results["rows"]:,} finished and {results["ready"]:,} ready runs, statistics of 30 days, one gunicorn with 2 workers.
Milliseconds are medians of {TIMES} answers, as a browser on the same machine sees them. Wanted: at most {MOST_MS} ms
and {MOST_QUERIES} queries a page, no sequential scan of the runs, and of a poll without news
at most {MOST_POLL_QUERIES} query."""
    together = f"""\
Many open pages at once, of {results["operators"]} operators, each asking for news every {PACE_SECONDS:g} s;
milliseconds of a poll. Wanted: p95 of at most {MOST_P95_MS} ms. The readers take their share of the same cores."""
    parts = [
        "# What `make bench-pages` measured",
        report.machine_lines(made),
        alone,
        report.table(head, rows),
        together,
    ]
    parts.append(report.table(("while", "readers", "polls", "with news", "p50", "p95", "p99", "missed"), crowd))
    parts.append(f"Done by `{made['command']}`.")
    return "\n\n".join(parts) + "\n"


def missed(found: Mapping[str, Any]) -> Iterator[str]:
    """What a page is wanted to keep to and does not."""
    if found["ms"] > MOST_MS:
        yield "**ms**"
    if found["queries"] > MOST_QUERIES:
        yield "**queries**"
    if found["seq_scans"]:
        yield "**seq. scans**"
    if found["poll_status"] is not None and (found["poll_status"] != 204 or found["poll_queries"] > MOST_POLL_QUERIES):
        yield "**poll**"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="finished runs")
    parser.add_argument("--ready", type=int, default=100_000, help="ready runs")
    parser.add_argument("--readers", type=int, default=200, help="open pages")
    parser.add_argument("--seconds", type=float, default=30, help="how long they read")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {PAGES_PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    began = time.monotonic()
    try:
        with machine() as made:
            facts = report.facts(made.postgres, None)
            facts |= {"scratch": filesystem(made.scratch), "commit_ms": round(commit_milliseconds(made.scratch), 3)}
            say(f"{options.rows:,} finished and {options.ready:,} ready runs are made")
            site = Site(made, options.rows, options.ready)
            site.wait()
            pages = measure(site)
            say(f"{options.readers} readers")
            found = crowds(site, pages, options.readers, options.seconds)
            stop([site.server])
    except KeyboardInterrupt:
        sys.exit("Interrupted: everything that was started has been stopped.")
    facts |= {"minutes": round((time.monotonic() - began) / 60, 1)}
    facts["command"] = facts["command"].replace("-m bench ", "-m bench.pages ")
    results = {
        "machine": facts, "pages": pages, "crowds": found, "rows": options.rows, "ready": options.ready,
        "operators": len(site.told["sessions"]),
    }  # fmt: skip
    told = page(results)
    print(told)
    if options.write:
        PAGES_PAGE.write_text(told)


if __name__ == "__main__":
    main()
