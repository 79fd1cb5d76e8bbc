"""WATCH: a run as a command to be copied: for the shell, through the JSON door, and for Python."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any

from django.apps import apps
from django.http import HttpRequest
from django.urls import reverse

from tasks_app import catalog
from tasks_app.again import options_of
from tasks_app.api import is_kind
from tasks_app.engine.q2_options import KNOWN
from tasks_app.masking import masked_call
from tasks_app.models import TaskRun
from tasks_app.parameters import misfit
from tasks_app.signature import find_launchable
from tasks_app.tasks import create_task

MOST = 4_000
"""Characters of a command that is worth copying from a page."""

DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def as_python(run: TaskRun) -> str:
    """`from shop.tasks import resize` and its enqueue; empty where that cannot be written, or is too long."""
    args, kwargs = masked_call(run.task_path, run.args, run.kwargs)
    if not (is_call(args, kwargs) and is_path(run.task_path)):
        return ""
    text = of_function(run, args, kwargs) if is_plain(run.task_path) else of_task(run, args, kwargs)
    return text if len(text) <= MOST else ""


def is_plain(path: str) -> bool:
    """Whether it is a function that is no task, as far as its module is imported here: it has no `enqueue`."""
    return catalog.function_at(path) is not None and catalog.loaded(path) is None


def of_function(run: TaskRun, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The call of Django-Q2's by which such a one is sent; empty where it would take an argument for an option."""
    if {"func", "q_options", *KNOWN} & set(kwargs):
        return ""
    options = {"q_options": {"cluster": run.queue_name}} if run.queue_name != "default" else {}
    call = called([run.task_path, *args], {**kwargs, **options})
    return f"from django_q.tasks import async_task\n\nasync_task({call})"


def of_task(run: TaskRun, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    module, _, name = run.task_path.rpartition(".")
    task = catalog.loaded(run.task_path)
    queue, priority = (task.queue_name, task.priority) if task else ("default", 0)
    using = [f"priority={run.priority}"] if run.priority != priority else []
    using += [f"queue_name={run.queue_name!r}"] if run.queue_name != queue else []
    imports = [f"from {module} import {name}"]
    if subject := found_again(run.about):
        imports.append(subject[0])
        using.append(f"about={subject[1]}")
    options = f".using({', '.join(using)})" if using else ""
    return "\n".join([*imports, "", f"{name}{options}.enqueue({called(args, kwargs)})"])


def called(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = [f"{name}={value!r}" for name, value in kwargs.items() if name.isidentifier() and not iskeyword(name)]
    odd = {name: value for name, value in kwargs.items() if not name.isidentifier() or iskeyword(name)}
    return ", ".join([*map(repr, args), *named, *([f"**{odd!r}"] if odd else [])])


def found_again(about: str | None) -> tuple[str, str] | None:
    """The import of a model and how Python gets the object that a run is about; None where there is no such model."""
    label, _, text = (about or "").partition(":")
    try:
        model = apps.get_model(label)
        key = model._meta.pk.to_python(text)
    except Exception:  # its model is gone, or has other keys by now
        return None
    module, name = model.__module__, model.__qualname__
    if "." in name or not is_path(f"{module}.{name}"):
        return None
    shown = repr(key if type(key) is int else text)
    return f"from {module} import {name}", f"{name}.{model._default_manager.name}.get(pk={shown})"


def as_curl(run: TaskRun, request: HttpRequest) -> str:
    """The request to the JSON door of this site; empty for a run that it does not take, and where it is too long."""
    args, kwargs = masked_call(run.task_path, run.args, run.kwargs)
    if not is_call(args, kwargs):
        return ""
    try:
        task = find_launchable(run.task_path)
    except catalog.UnknownTask:
        return ""
    if misfit(task, args, kwargs):
        return ""
    options = options_of(task, run)
    call = {name: value for name, value in {"args": args, "kwargs": kwargs}.items() if value}
    address, body = "api-run", {"task": run.task_path, **call, **options}
    if run.task_path == create_task.module_path and not args and not options and is_kind(kwargs.get("type")):
        address, body = "api-tasks", kwargs
    parts = [
        f"curl -X POST {shlex.quote(request.build_absolute_uri(reverse(address)))}",
        "-H 'Authorization: Bearer …'",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(plain_json(body))}",
    ]
    text = " \\\n  ".join(parts)
    return text if len(text) <= MOST else ""


def plain_json(value: Any) -> str:
    """JSON on one line with all that cannot be seen escaped: it is copied from a page, as the page shows it."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def is_call(args: Any, kwargs: Any) -> bool:
    """False where only the beginning was read, or somebody went past every door."""
    return isinstance(args, list) and isinstance(kwargs, dict)


def is_path(path: str) -> bool:
    return bool(DOTTED.fullmatch(path)) and not any(map(iskeyword, path.split(".")))
