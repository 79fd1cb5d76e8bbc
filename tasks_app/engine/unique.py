"""The key of a unique run: what its task says that no two runs share while one of them stands.

A key is a hash of the task's path and of the chosen arguments as the function would get them, defaults included, so it
does not matter how a call is written. They are compared as JSON: the order of a mapping's keys does not count, 1 and
1.0 are the same number, and 1, "1" and true are three values.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError
from django_tasks.utils import normalize_json

from tasks_app.engine.execution import signature_of

UniqueBy = Literal[True] | tuple[str, ...]
OnConflict = Literal["skip", "replace"]


@dataclass(frozen=True, slots=True)
class UniqueRule:
    """What `@task(unique_by=…)` says, read for the submission of runs."""

    task: Task[..., Any]
    by: UniqueBy
    seconds: float | None
    """How long the key is taken from the enqueue on, whatever became of the run; None: until it has ended."""
    replaces: bool

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The key of a call with these arguments, which are plain JSON; raises `InvalidTaskError` if it has none."""
        return key_of(self.task.module_path, self.chosen(args, kwargs))

    def chosen(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that count, by the names of the function's parameters."""
        signature = signature_of(self.task.func)
        assert signature is not None  # a function of Python, as `check_rule` saw
        first = [None] if self.task.takes_context else []
        try:
            bound = signature.bind(*first, *args, **kwargs)
        except TypeError as error:
            name = self.task.module_path.rpartition(".")[2]
            raise InvalidTaskError(f"{name} cannot be called with these arguments: {error}.") from None
        bound.apply_defaults()
        names = parameters_of(self.task) if self.by is True else self.by
        return {name: bound.arguments[name] for name in names}


def is_unique(task: object) -> bool:
    """True for a task of which two runs may exclude each other."""
    return getattr(task, "unique_by", None) is not None


def rule_of(task: Task[..., Any] | None) -> UniqueRule | None:
    """None for a task that is not unique."""
    if task is None or not is_unique(task):
        return None
    given: Any = task
    return UniqueRule(task, given.unique_by, given.unique_for, given.on_conflict == "replace")


def parameters_of(task: Task[..., Any]) -> tuple[str, ...]:
    """The names of a task's arguments, without its context."""
    signature = signature_of(task.func)
    names = tuple(signature.parameters) if signature else ()
    return names[1:] if task.takes_context else names


def key_of(path: str, chosen: Mapping[str, Any]) -> str:
    """Raises `InvalidTaskError` for what is not JSON, which only a default value can be."""
    try:
        text = canonical({"task": path, "arguments": chosen})
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTaskError(f"The arguments of {path} make no key: {error}.") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> str:
    """The same text for what is the same JSON."""
    return json.dumps(plain(normalize_json(value)), sort_keys=True, allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """As it is read back from JSON: texts as keys, and a whole number without a fraction."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def check_rule(task: Task[..., Any]) -> None:
    """See, when a task is defined, that its rule can be kept; raises `InvalidTaskError` with one sentence."""
    given: Any = task
    by, name = given.unique_by, task.func.__name__
    if given.on_conflict not in ("skip", "replace"):
        raise InvalidTaskError(f"on_conflict is skip or replace, not {given.on_conflict!r}.")
    if by is None:
        if given.unique_for is not None or given.on_conflict != "skip":
            raise InvalidTaskError(f"{name} has unique_for or on_conflict, which need unique_by.")
        return
    if by is not True and not (isinstance(by, tuple | list) and all(isinstance(one, str) for one in by)):
        raise InvalidTaskError(f"unique_by is True or a tuple of names of arguments, not {by!r}.")
    if given.unique_for is not None and not is_seconds(given.unique_for):
        raise InvalidTaskError("unique_for must be a number of seconds above 0.")
    known = parameters_of(task)
    if by is not True and (strange := [one for one in by if one not in known]):
        raise InvalidTaskError(f"unique_by names {', '.join(strange)}, which {name} does not take.")
    signature = signature_of(task.func)
    assert signature is not None
    for one in known if by is True else by:
        default = signature.parameters[one].default
        if default is not inspect.Parameter.empty:
            key_of(task.module_path, {one: default})


def is_seconds(value: object) -> bool:
    """True for a number of seconds that PostgreSQL can add to a moment."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100 * 365 * 86_400


# A schedule


def saved_rule(rule: UniqueRule | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a sentinel has to know for the keys of a schedule's runs, which imports no task: for `key_of_saved`."""
    if rule is None:
        return None
    signature = signature_of(rule.task.func)
    rest = [one.name for one in signature.parameters.values() if one.kind is one.VAR_KEYWORD] if signature else []
    chosen = normalize_json(rule.chosen(args, kwargs))
    return {"chosen": chosen, "rest": next(iter(rest), None), "seconds": rule.seconds}


def key_of_saved(path: str, saved: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """The key of a run whose arguments are as saved but for these, such as its intended time."""
    chosen = dict(saved["chosen"])
    for name, value in changed.items():
        if name in chosen:
            chosen[name] = value
        elif saved["rest"] in chosen:
            chosen[saved["rest"]] = {**chosen[saved["rest"]], name: value}
    return key_of(path, chosen)
