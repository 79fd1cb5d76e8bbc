"""WATCH: a run as a command to be copied: for the shell, through the JSON door, and for Python."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any

from tasks_app.jsonable import Cut
from tasks_app.masking import masked, masked_call
from tasks_app.models import TaskRun
from tasks_app.tasks import create_task

MOST = 4_000
"""Characters of a command that is worth copying from a page."""

DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def as_python(run: TaskRun) -> str:
    """`from shop.tasks import resize` and its enqueue; empty where that cannot be written, or is too long."""
    args, kwargs = masked_call(run.task_path, run.args, run.kwargs)
    if isinstance(args, Cut) or isinstance(kwargs, Cut) or not is_path(run.task_path):
        return ""
    module, _, name = run.task_path.rpartition(".")
    using = {"priority": run.priority or None, "queue_name": run.queue_name if run.queue_name != "default" else None}
    options = ", ".join(f"{option}={value!r}" for option, value in using.items() if value is not None)
    call = f"{name}{f'.using({options})' if options else ''}.enqueue({called(args, kwargs)})"
    text = f"from {module} import {name}\n\n{call}"
    return text if len(text) <= MOST else ""


def called(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = [f"{name}={value!r}" for name, value in kwargs.items() if name.isidentifier() and not iskeyword(name)]
    odd = {name: value for name, value in kwargs.items() if not name.isidentifier() or iskeyword(name)}
    return ", ".join([*map(repr, args), *named, *([f"**{odd!r}"] if odd else [])])


def as_curl(run: TaskRun, address: str) -> str:
    """The request to the JSON door at `address`; empty for a task that it does not take."""
    if run.task_path != create_task.module_path or run.args or set(run.kwargs) != {"type"}:
        return ""
    parts = [
        f"curl -X POST {shlex.quote(address)}",
        "-H 'Authorization: Bearer …'",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(json.dumps(masked(run.kwargs)))}",
    ]
    return " \\\n  ".join(parts)


def is_path(path: str) -> bool:
    return bool(DOTTED.fullmatch(path)) and not any(map(iskeyword, path.split(".")))
