"""One page of the figures: what was measured, beside what has to be reached."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bench.install import HERE, VENV

RESULTS_JSON = HERE / "results.json"
RESULTS_PAGE = HERE / "RESULTS.md"
OURS = ("django", "django-q2", "django-tasks", "psycopg")
THEIRS = ("celery", "redis", "hiredis", "huey", "procrastinate", "pgqueuer", "asyncpg", "uvloop", "django-q2",
          "django-qraft", "psycopg")  # fmt: skip

NOTES = """\
Every contender ran in the same rounds on the same machine, one after the other, two worker processes each; the figures
are medians over the rounds. What is over in a moment is measured in short pieces, each contender's in turns with the
others', and so are the two sides of the ratio of the backlog; a latency is the median of what the pieces told, because
one bad second of the machine would be the p95 of them all. Compare ratios, not figures.

- PostgreSQL as it comes: fsync on, every commit durable. Redis as it comes too: it saves a snapshot now and then, so a
  crash loses up to a minute or more of work that was acknowledged. That is how most of its users run it, it is the
  faster way, and so it favours Celery and huey.
- Full history: nobody deletes what is finished, as far as it keeps it at all (column "keeps").
- *drain*: no-op tasks from a full queue, counted by the contender's own records from the first finished one that is
  seen to the last. *busy*: each task logs one line, tells progress once (Celery, django-qraft and this project
  can) and returns 100 bytes. *enqueue*: one call and one commit each from one process. *many*: in bulk, where there is
  a call for it. *start*: milliseconds from before the enqueue to the first line of the task, idle workers.
  *8 senders*: the same while eight processes send about 25 tasks a second each.
- *sql_floor* claims and finishes rows of this project's table in SQL alone: two connections, batches of 100, no task.
  It enqueues with this project's own INSERT, sent by psycopg alone: what is left of the time is PostgreSQL's, a durable
  commit each above all. Celery's Redis acknowledges from memory, so the disk decides that ratio.
"""


def facts(postgres: str, redis: Path | None) -> dict[str, Any]:
    """The machine, and the version of everything that was measured."""
    with psycopg.connect(postgres) as db:
        server = db.info.parameter_status("server_version")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "os": os_name(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgresql": server,
        "redis": redis_version() if redis else None,
        "versions": {**{name: found for name in OURS if (found := own_version(name))}, **their_versions()},
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
    }


def os_name() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def redis_version() -> str:
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    return next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), said.strip())


def own_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def their_versions() -> dict[str, str]:
    python = VENV / "bin" / "python"
    if not python.exists():
        return {}
    said = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=False).stdout
    found = dict(line.strip().split("==", 1) for line in said.splitlines() if "==" in line)
    return {name: number for name, number in found.items() if name.lower() in THEIRS}


# The page


def page(results: Mapping[str, Any], keeps: Mapping[str, str]) -> str:
    parts = ["# What `make bench` measured", machine_lines(results["machine"]), contenders_table(results, keeps)]
    parts += [f"{name} is left out: {why}" for name, why in results["missing"].items()]
    parts += [f"Trouble: {said}" for said in results.get("trouble", [])]
    if targets := list(targets_reached(results)):
        parts.append(table(("measure", "found", "wanted", ""), targets))
    parts.append(NOTES)
    if backlog := results.get("backlog"):
        plans = "\n\n".join(f"-- {mode} plan\n{plan}" for mode, plan in backlog["plans"].items())
        parts.append(f"How PostgreSQL claims with {backlog['rows']:,} rows of each kind present:\n\n```\n{plans}\n```")
    parts.append(f"Done by `{results['machine']['command']}`; `make bench` does all of it.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def machine_lines(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(facts["versions"].items()))
    return (
        f"{facts['date']}, {facts['minutes']} minutes. {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB "
        f"memory, load {facts['load_before']} before it began. {facts['os']}; a durable write of 8 kB takes "
        f"{facts['commit_ms']} ms on its {facts['scratch']}. Python {facts['python']}, "
        f"PostgreSQL {facts['postgresql']}, Redis {facts['redis'] or 'not found'}; {versions}."
    )


def contenders_table(results: Mapping[str, Any], keeps: Mapping[str, str]) -> str:
    rates_head = [word for rate in ("drain/s", "busy/s", "enqueue/s", "many/s") for word in (rate, "x")]
    head = ["", *rates_head, "start p50", "p95", "8 senders p50", "p95", "keeps"]
    rows = []
    for name, kept in keeps.items():
        row = [name]
        for measure in ("drain", "drain_busy", "enqueue", "enqueue_many"):
            rates = results.get(measure, {})
            # Celery has no bulk call of its own that is quicker: its one-by-one stands for it.
            basis = rates.get("celery")
            row += [shown(rates.get(name), ",.0f"), shown(ratio(rates.get(name), basis), ".1f")]
        for measure in ("start_latency_ms", "start_latency_8_producers_ms"):
            found = results.get(measure, {}).get(name, {})
            row += [shown(found.get("p50"), ".1f"), shown(found.get("p95"), ".1f")]
        rows.append([*row, kept])
    return table(head, rows) + "\n\nThe columns x are ratios to Celery; latencies are milliseconds."


def targets_reached(results: Mapping[str, Any]) -> Iterable[list[str]]:
    """Each target beside what was found, for the measures that this run made."""

    def line(name: str, found: float | None, wanted: float, least: bool, unit: str = "") -> list[list[str]]:
        if found is None:
            return []
        reached = found >= wanted if least else found <= wanted
        bound = "at least" if least else "at most"
        return [[name, f"{found:,.2f}{unit}", f"{bound} {wanted:,.2f}{unit}", "reached" if reached else "**missed**"]]

    def against(measure: str, rival: str) -> float | None:
        rates = results.get(measure, {})
        return ratio(rates.get("dumbwaiter"), rates.get(rival))

    yield from line("drain, x Celery", against("drain", "celery"), 15, True)
    yield from line("drain, x pgqueuer", against("drain", "pgqueuer"), 1, True)
    yield from line("drain, part of what SQL alone does (an aim)", against("drain", "sql_floor"), 0.5, True)
    yield from line("busy drain, x Celery", against("drain_busy", "celery"), 8, True)
    yield from line("enqueue, x Celery", against("enqueue", "celery"), 2, True)
    if floor := against("enqueue", "sql_floor"):
        yield ["enqueue, x psycopg alone", f"{floor:.2f}", "", ""]
    yield from line("enqueue_many, x Celery", against("enqueue_many", "celery"), 20, True)
    alone = results.get("start_latency_ms", {})
    many = results.get("start_latency_8_producers_ms", {}).get("dumbwaiter", {})
    ours, celery = alone.get("dumbwaiter", {}), alone.get("celery", {})
    for part in ("p50", "p95"):
        yield from line(f"start {part}, x Celery's", ratio(ours.get(part), celery.get(part)), 1, False)
        yield from line(f"start {part} through 8 senders, x its own", ratio(many.get(part), ours.get(part)), 2, False)
    yield from line("drain with a backlog, part of that without", results.get("backlog_ratio"), 0.9, True)
    if backlog := results.get("backlog"):
        found = bool(backlog["claim_reads_run_ready"])
        yield ["claim reads run_ready, no Seq Scan of runs", str(found), "True", "reached" if found else "**missed**"]
    if clusters := results.get("clusters"):
        worst = min(clusters.values()) / clusters["1"]
        rates = ", ".join(f"{count}: {rate:,.0f}/s" for count, rate in clusters.items())
        yield from line(f"clusters ({rates}), slowest part of one", worst, 0.9, True)
    yield from line("idle: statements a second", results.get("idle_statements_per_second"), 2, False)
    share = results.get("idle_cpu_share")
    yield from line("idle: percent of a core", share and share * 100, 1, False)
    if memory := results.get("memory_mb"):
        before, after = memory["before_mb"], memory["after_mb"]
        yield from line(f"memory of the sentinel after {memory['runs']:,} runs", after["sentinel"], 60, False, " MB")
        workers = [role for role in after if role.startswith("worker")]
        largest = max(workers, key=lambda role: float(after[role]))
        yield from line(f"memory of a worker after {memory['runs']:,} runs", after[largest], 90, False, " MB")
        yield ["memory of all its processes together", f"{sum(after.values()):,.2f} MB", "", ""]
        grown = max(after[role] - before[role] for role in after if role in before)
        yield from line("growth of any process meanwhile", grown, 5, False, " MB")
    if policies := results.get("policies"):
        for name, share in policies["ratios"].items():
            if name != "plain":
                rate = policies["rates"][name]
                what = "as members of groups" if name == "group" else f"under a {name.replace('_', ' ')}"
                yield [f"drain {what} ({rate:,.0f}/s), x plain", shown(share, ".2f"), "", ""]
        for task, share in policies["enqueue_ratios"].items():
            if task != "noop":
                what = task.removeprefix("noop_")
                yield [f"enqueue {what} ({policies['enqueues'][task]:,.0f}/s), x plain", shown(share, ".2f"), "", ""]
    yield from line("executions of a long task", results.get("long_task_executions"), 1, False)


def ratio(value: float | None, basis: float | None) -> float | None:
    return value / basis if value is not None and basis else None


def shown(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown, with columns of equal width, so that it reads in a terminal too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    numeric = [
        all(line[column][:1].isdigit() or not line[column] for line in lines[2:]) for column in range(len(widths))
    ]
    return "\n".join(
        "| "
        + " | ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, numeric, strict=True)
        )
        + " |"
        for line in lines
    )
