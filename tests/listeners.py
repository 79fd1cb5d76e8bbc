"""Signal receivers of every kind, connected in a cluster's process by `connect`; each leaves a line in a file."""

import time
from pathlib import Path
from typing import Any

import django


def connect(path: str, behaviour: str) -> None:
    """Listen to all signals of a worker, and have one more receiver of each that behaves badly."""
    django.setup()
    from django_q import signals as django_q
    from django_tasks import signals as django_tasks

    from tasks_app.backend import PostgresBackend

    behave = {
        "well": ignores,
        "raises": raises,
        "exits": exits,
        "hangs": hangs,
        "hangs and swallows": hangs_after_the_end,
    }
    log = Path(path)

    def listen(name: str) -> Any:
        def receive(sender: Any, **named: Any) -> None:
            with log.open("a") as file:
                file.write(f"{name} {told(named)}\n")

        return receive

    every = {
        "task_started": django_tasks.task_started,
        "task_finished": django_tasks.task_finished,
        "post_spawn": django_q.post_spawn,
        "pre_execute": django_q.pre_execute,
        "post_execute_in_worker": django_q.post_execute_in_worker,
        "post_execute": django_q.post_execute,
    }
    for name, signal in every.items():
        sender = PostgresBackend if name.startswith("task_") else None
        signal.connect(listen(name), sender=sender, weak=False)
        signal.connect(behave[behaviour], weak=False)


def told(named: dict[str, Any]) -> str:
    if result := named.get("task_result"):
        return f"{result.status} {len(result.errors)}"
    if task := named.get("task"):
        return f"{task['func']} {task.get('success')} {task.get('result')}"
    return "worker" if "worker" in named["proc_name"] else ""


def ignores(**_: Any) -> None:
    pass


def raises(**_: Any) -> None:
    raise RuntimeError("a receiver raised")


def exits(**_: Any) -> None:
    raise SystemExit(3)


def hangs(**_: Any) -> None:
    time.sleep(300)


def hangs_after_the_end(*, signal: Any, **_: Any) -> None:
    """Heeds nothing that is raised in it, so that only the end of its worker ends it."""
    from django_tasks.signals import task_finished

    while signal is task_finished:
        try:
            time.sleep(300)
        except BaseException:
            pass
