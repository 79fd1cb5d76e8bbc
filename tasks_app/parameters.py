"""SUBMIT: the parameters of a task, as a form asks for them and as a past call filled them."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from django_tasks.base import Task

from tasks_app import wording
from tasks_app.engine.execution import misfit_of, signature_of
from tasks_app.jsonable import NotJSON, to_json
from tasks_app.kinds import JSON, LIST, MAPPING, Kind, jsonlike, kind_of, readable


class Absent:
    """No value: the argument is left out of the call."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "left out"


ABSENT: Any = Absent()

BY_POSITION = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a task, as a form asks for it."""

    name: str
    place: Any
    """How Python takes it: one of the kinds of `inspect.Parameter`."""
    kind: Kind
    is_nullable: bool
    default: Any
    """As JSON; ABSENT if there is none, or none that JSON can tell."""
    is_required: bool

    @property
    def field_name(self) -> str:
        """A task may call its parameters as a form calls its own things: `data`, `errors`, `prefix`."""
        return f"arg-{self.name}"

    @property
    def label(self) -> str:
        return readable(self.name)


def placed(
    parameters: Sequence[Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """The values of a call by parameter; and the arguments and keywords that have no place."""
    values: dict[str, Any] = {}
    by_position = [one.name for one in parameters if one.place in BY_POSITION]
    by_name = {one.name for one in parameters if one.place in BY_NAME}
    values.update(zip(by_position, args, strict=False))
    extra_args = list(args[len(by_position) :])
    extra_kwargs = {}
    for name, value in kwargs.items():
        if name in by_name and name not in values:
            values[name] = value
        else:
            extra_kwargs[name] = value
    for one in parameters:
        if one.place is inspect.Parameter.VAR_POSITIONAL and extra_args:
            values[one.name], extra_args = extra_args, []
        elif one.place is inspect.Parameter.VAR_KEYWORD and extra_kwargs:
            # A name that is taken twice was refused by the call itself: it is no keyword of the rest.
            values[one.name] = {name: value for name, value in extra_kwargs.items() if name not in by_name}
            extra_kwargs = {name: value for name, value in extra_kwargs.items() if name in by_name}
            if not values[one.name]:
                del values[one.name]
    return values, extra_args, extra_kwargs


def context_name(func: Callable[..., Any], takes_context: bool) -> frozenset[str]:
    """The one that the engine fills by position, if it has a name: a keyword may not have it too."""
    first = list((signature_of(func) or inspect.signature(takes_anything)).parameters.values())[:1]
    return frozenset(one.name for one in first if takes_context and one.kind is one.POSITIONAL_OR_KEYWORD)


def takes_anything(*arguments: Any, **keywords: Any) -> None:
    """What is known of a function that does not tell."""


def parameters_of(func: Callable[..., Any], takes_context: bool) -> list[Parameter]:
    """What a form asks for; a function that does not tell takes anything."""
    signature = signature_of(func) or inspect.signature(takes_anything)
    found = list(signature.parameters.values())
    if takes_context and found and found[0].kind in BY_POSITION:
        del found[0]
    return [parameter_of(one, func) for one in found]


def parameter_of(one: inspect.Parameter, func: Callable[..., Any]) -> Parameter:
    if one.kind is one.VAR_POSITIONAL:
        return Parameter(one.name, one.kind, LIST, False, [], False)
    if one.kind is one.VAR_KEYWORD:
        return Parameter(one.name, one.kind, MAPPING, False, {}, False)
    kind, is_nullable = kind_of_parameter(one, func)
    has_default = one.default is not one.empty
    default = json_default(one.default) if has_default else ABSENT
    # `width: int = None` says that None will do, whatever the annotation says.
    return Parameter(one.name, one.kind, kind, is_nullable or one.default is None, default, not has_default)


def kind_of_parameter(one: inspect.Parameter, func: Callable[..., Any]) -> tuple[Kind, bool]:
    """Each annotation is read by itself: one that cannot be resolved spoils no other."""
    holder = SimpleNamespace(__annotations__={one.name: one.annotation})
    names = getattr(inspect.unwrap(func), "__globals__", {})
    if one.annotation is one.empty:
        return JSON, False
    try:
        return kind_of(typing.get_type_hints(holder, names, include_extras=True)[one.name])
    except Exception:  # it is somebody's code, which may raise anything
        return JSON, False


def json_default(default: Any) -> Any:
    try:
        value = jsonlike(default)
        to_json(value, "The default")
        return value
    except (NotJSON, RecursionError):
        return ABSENT


def misfit(task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why the task cannot be called with these, in one sentence; empty where it can."""
    context = [None] if task.takes_context else []
    error = misfit_of(task.func, *context, *args, **kwargs)
    name = task.module_path.rpartition(".")[2]
    why = wording.visible(wording.clip(str(error), 200))
    return f"{name} cannot be called with these arguments: {why}." if error else ""


def unfit(parameters: Sequence[Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Which argument of a call is of another kind than its parameter, in a sentence; empty where each fits.

    It looks at no more than a form does: of a list, that it is one. A default of the task's fits, whatever it is.
    """
    values, _, _ = placed(parameters, args, kwargs)
    for one in parameters:
        value = values.get(one.name, ABSENT)
        if value is ABSENT or (value is None and one.is_nullable) or one.kind.fits(value):
            continue
        if not is_same(value, one.default):
            offered = wording.clip(", ".join(key for key, _ in one.kind.choices), 200)
            wanted = f"Give one of {offered}." if offered else f"{one.kind.wanted} {one.kind.note}".strip()
            return f"{wording.visible(one.name)} does not fit. {wanted}"
    return ""


def is_same(one: Any, other: Any) -> bool:
    """As JSON is: true is not 1, and 1 is not 1.0."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
