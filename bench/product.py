"""What only this project is asked: a long backlog, many clusters, idleness, memory, a long task."""

from __future__ import annotations

import statistics
import time
from typing import Any

import psutil
import psycopg

from bench.contender import Contender
from bench.machine import Machine

IDLE_SECONDS = 20.0
WARM_SECONDS = 1.0
"""Of each measured stretch the beginning is left out: workers start, batches grow."""


def connect(contender: Contender) -> psycopg.Connection[Any]:
    return psycopg.connect(contender.environment["DATABASE_URL"], autocommit=True)


# A long backlog


def backlog(contender: Contender, beside: Contender, rows: int, turns: int, seconds: float) -> dict[str, Any]:
    """The drain rate beside so many ready, scheduled and finished runs, divided by the rate without them.

    Two databases, in turns; the ratio is the median of the turns' own. Both rates are of a slice, by the times that the
    runs themselves keep. The queries' plans are told too.
    """
    contender.agent.ask("prepare")
    contender.agent.ask("pile_up", ready=rows, scheduled=rows, finished=rows)
    plans = explain(contender)
    full, empty = [], []
    for _ in range(turns):
        contender.agent.ask("count_endings")
        contender.agent.ask("settle")
        full.append(slice_of(contender, seconds))
        empty.append(slice_rate(beside, rows, seconds))
    ratios = [one / other for one, other in zip(full, empty, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "with": statistics.median(full),
        "without": statistics.median(empty),
        "rows": rows,
        **plans,
    }


def slice_rate(contender: Contender, most: int, seconds: float) -> float:
    """From an empty table: as many runs as a slice needs, and not more than the backlog has."""
    contender.agent.ask("prepare")
    enough = min(int(40_000 * (seconds + WARM_SECONDS)), max(most, 20_000))
    contender.agent.ask("fill", task="noop", count=enough)
    return slice_of(contender, seconds)


def slice_of(contender: Contender, seconds: float) -> float:
    """Lets a cluster work for a while and counts in its own records, afterwards, so that counting disturbs nothing."""
    with connect(contender) as db:
        began = fetch(db, "SELECT clock_timestamp()")
        with contender.working():
            deadline = time.monotonic() + 60
            while not fetch(db, "SELECT count(*) FROM tasks_app_cluster WHERE started_at > %s", began):
                if time.monotonic() > deadline:
                    raise TimeoutError("the cluster does not start")
                time.sleep(0.05)
            time.sleep(seconds + 2 * WARM_SECONDS)
        first, last = db.execute(
            "SELECT min(finished_at), max(finished_at) FROM tasks_app_taskrun WHERE finished_at > %s", [began]
        ).fetchone() or (None, None)
        if first is None:
            raise RuntimeError("no run was finished")
        warm = min(WARM_SECONDS, (last - first).total_seconds() / 3)
        counted = fetch(
            db,
            "SELECT count(*) FROM tasks_app_taskrun WHERE finished_at >= %s + make_interval(secs => %s)",
            first,
            warm,
        )
        return float(counted) / ((last - first).total_seconds() - warm)


def fetch(db: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = db.execute(query, parameters).fetchone()
    return row[0] if row else None


def explain(contender: Contender) -> dict[str, Any]:
    """How PostgreSQL runs the claim beside the backlog, planned for these values and planned once for any."""
    plans = contender.agent.ask("explain_claim")
    good = all("run_ready" in plan and "Seq Scan on tasks_app_taskrun" not in plan for plan in plans.values())
    return {"claim_reads_run_ready": good, "plans": plans}


# Many clusters


def clusters(contender: Contender, counts: tuple[int, ...], rounds: int, total: int) -> dict[str, float]:
    """The drain rate of one machine with so many clusters of two workers."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            found[count].append(contender.drain("noop", total, clusters=count))
    return {str(count): statistics.median(rates) for count, rates in found.items()}


# Policies

POLICIES = {
    "plain": ("noop", ""),
    "queue_limit": ("noop", "default"),
    "task_limit": ("noop_limited", ""),
    "task_rate": ("noop_paced", ""),
}
"""The task that is drained, and the queue that has a limit."""

SENT = ("noop", "noop_limited", "noop_unique", "noop_expiring")
"""The tasks whose enqueues are compared, the plain one first."""


def policies(contender: Contender, rounds: int, total: int) -> dict[str, Any]:
    """What each promise costs that a plain run does not ask for.

    Drain rates of no-ops under limits so wide that none is ever reached, and as members of workflows; rates of
    enqueueing one by one with a limit, a unique key, an expiry.
    """
    found: dict[str, list[float]] = {name: [] for name in POLICIES}
    sent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (task, queue) in POLICIES.items():
            contender.agent.ask("prepare")
            if queue:
                contender.agent.ask("limit_queue", queue=queue)
            contender.agent.ask("fill", task=task, count=total)
            with contender.working():
                found[name].append(float(contender.agent.ask("drain", total=total)))
        contender.agent.ask("prepare")
        contender.agent.ask("fill_groups", count=total)
        with contender.working():
            found.setdefault("group", []).append(float(contender.agent.ask("drain", total=total)))
        for task in SENT:
            contender.agent.ask("prepare")
            sent.setdefault(task, []).append(float(contender.agent.ask("enqueue", task=task, count=1_000)))
    enqueues = {task: statistics.median(each) for task, each in sent.items()}
    rates = {name: statistics.median(each) for name, each in found.items()}
    return {
        "rates": rates,
        "ratios": {name: rate / rates["plain"] for name, rate in rates.items()},
        "enqueues": enqueues,
        "enqueue_ratios": {task: rate / enqueues[SENT[0]] for task, rate in enqueues.items()},
    }


# Idleness and memory


def idle(contender: Contender, made: Machine, seconds: float = IDLE_SECONDS) -> dict[str, Any]:
    """Statements a second, shares of a core and memory of a cluster with nothing to do.

    The statements are counted in the server's own log, which is told to write each of them meanwhile.
    """
    contender.agent.ask("prepare")
    log = made.scratch / "postgres" / "server.log"
    database = contender.environment["PGDATABASE"]
    with connect(contender) as db:
        db.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
        try:
            with contender.working() as (main,):
                time.sleep(4)
                family = processes(main.pid)
                backends = [row[0] for row in db.execute(BACKENDS, [database]).fetchall()]
                lines = statements_in(log.read_text(errors="replace"))
                cpu, server_cpu, began = cpu_seconds(list(family.values())), cpu_of(backends), time.monotonic()
                time.sleep(seconds)
                spent = time.monotonic() - began
                cpu, server_cpu = cpu_seconds(list(family.values())) - cpu, cpu_of(backends) - server_cpu
                lines = statements_in(log.read_text(errors="replace")) - lines
                memory = {role: uss(process) for role, process in family.items()}
        finally:
            db.execute(f"ALTER DATABASE {database} RESET log_statement")
    return {
        "statements_per_second": lines / spent,
        "cpu_share": cpu / spent,
        "server_cpu_share": server_cpu / spent,
        "memory_mb": memory,
    }


BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


def statements_in(log: str) -> int:
    return sum(" LOG:  statement: " in line or " LOG:  execute " in line for line in log.splitlines())


def memory_after(contender: Contender, total: int) -> dict[str, Any]:
    """The memory of an idle cluster before and after so many runs, each process by its role."""
    contender.agent.ask("prepare")
    with contender.working() as (main,):
        with contender.listening() as stamps:
            contender.warm_up(stamps, 50)
        before = {role: uss(process) for role, process in processes(main.pid).items()}
        contender.agent.ask("fill", task="noop", count=total)
        deadline = time.monotonic() + 900
        while contender.agent.ask("finished") < total:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{total} runs take more than 15 minutes")
            time.sleep(0.5)
        time.sleep(2)
        after = {role: uss(process) for role, process in processes(main.pid).items()}
    return {"runs": total, "before_mb": before, "after_mb": after}


def processes(main: int) -> dict[str, psutil.Process]:
    """A cluster's processes by what they are: `main`, `sentinel`, `worker 1`, `worker 2`."""
    top = psutil.Process(main)
    (sentinel,) = top.children()
    workers = sorted(sentinel.children(), key=lambda child: child.pid)
    return {"main": top, "sentinel": sentinel, **{f"worker {n}": child for n, child in enumerate(workers, 1)}}


def uss(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / 1_000_000


def cpu_seconds(family: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in family))


def cpu_of(pids: list[int]) -> float:
    return cpu_seconds([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


# A long task


def long_task(contender: Contender) -> int:
    """How often a task is executed that takes longer than any time after which something here counts as lost."""
    contender.agent.ask("prepare")
    lost_after = 2
    with contender.listening() as stamps, contender.working(clusters=2, LOST_AFTER_SECONDS=str(lost_after)):
        contender.warm_up(stamps)
        contender.agent.ask("nap", seconds=lost_after * 4.0)
        stamps.recv(64)
        executions = 1
        deadline = time.monotonic() + lost_after * 6.0
        while (left := deadline - time.monotonic()) > 0:
            stamps.settimeout(left)
            try:
                stamps.recv(64)
                executions += 1
            except TimeoutError:
                break
    return executions
