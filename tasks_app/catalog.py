"""Which tasks there are: the `@task` functions of every installed app, found by their dotted path."""

import pydoc
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from django.apps import apps
from django.utils.module_loading import module_has_submodule
from django_tasks.base import Task


class UnknownTask(LookupError):
    """No task has this path; the message is a sentence."""


def discover() -> None:
    """Import `tasks.py`, or every module of the package `tasks/`, of each installed app."""
    for config in apps.get_app_configs():
        if config.module is None or not module_has_submodule(config.module, "tasks"):
            continue
        if config.name in {"django_tasks", "django_q"}:
            continue
        package = import_module(f"{config.name}.tasks")
        for module in iter_modules(getattr(package, "__path__", [])):
            import_module(f"{package.__name__}.{module.name}")


def registered() -> list[Task[..., Any]]:
    """The tasks that `discover` found; one that stands under two names comes twice."""
    found = []
    for config in apps.get_app_configs():
        module = getattr(config.module, "tasks", None)
        for owner in [module, *vars(module).values()] if module else []:
            found += [task for task in getattr(owner, "__dict__", {}).values() if isinstance(task, Task)]
    return found


@cache
def find(path: str) -> Task[..., Any] | Callable[..., Any]:
    """The task at a dotted path, or the plain function there: Django-Q2's `async_task` takes those too.

    Raises `UnknownTask`. A path comes from code that enqueued it, never from a request.
    """
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UnknownTask(f"The module of the task {path} cannot be imported: {error.value}.") from error
    if not isinstance(found, Task) and not callable(found):
        raise UnknownTask(f"There is no task {path}.")
    return found


def loaded(path: str) -> Task[..., Any] | None:
    """The task at a dotted path if its module is imported already: looking for it runs nobody's code."""
    found = _imported(path)
    return found if isinstance(found, Task) else None


def function_at(path: str) -> tuple[Callable[..., Any], bool] | None:
    """The function of such a task, or a plain one, and whether it is given a context before its arguments."""
    found = _imported(path)
    if isinstance(found, Task):
        return found.func, found.takes_context
    return (found, False) if callable(found) else None


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), "__dict__", {}).get(name)


def task_paths() -> list[str]:
    """The dotted paths of the tasks that there are: told by the code, because DISTINCT would read all the history."""
    return sorted({task.module_path for task in registered()})


def path_of(func: Task[..., Any] | Callable[..., Any] | str) -> str:
    """The dotted path under which a worker finds this task; raises `UnknownTask`."""
    if isinstance(func, str):
        found = find(func)
        return found.module_path if isinstance(found, Task) else func
    if isinstance(func, Task):
        return func.module_path
    if not callable(func) or "<" in getattr(func, "__qualname__", "<"):
        raise UnknownTask(f"{func!r} is not a function at the top of a module, so no worker could find it.")
    path = f"{getattr(func, '__module__', None)}.{getattr(func, '__qualname__', None)}"
    if find(path) != func:
        raise UnknownTask(f"{path} is not a function at the top of a module, so no worker could find it.")
    return path
