"""SUBMIT: the form of any registered task, made from the signature of its function; and what was typed, as a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, ClassVar, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog, wording
from tasks_app.backend import check_moment
from tasks_app.fields import PlainForm
from tasks_app.jsonable import NotJSON, storable, to_json
from tasks_app.kinds import JSON, MOMENT, TEXT, BadText
from tasks_app.masking import MASK, has_mask, is_secret, masked, restored
from tasks_app.models.run import QUEUE_NAME_LENGTH
from tasks_app.parameters import ABSENT, BY_NAME, Parameter, context_name, is_same, parameters_of, placed

STAYS_MASKED = f"Write what belongs in place of {MASK}: what it was cannot be told from where it stands."


def launchable() -> list[Task[..., Any]]:
    """The registered tasks that people may launch, by their paths: all but the internal ones."""
    tasks = {task.module_path: task for task in catalog.registered() if not getattr(task, "internal", False)}
    return [tasks[path] for path in sorted(tasks)]


def find_launchable(path: str) -> Task[..., Any]:
    """The one of them with this path, which may come from a request; raises `UnknownTask`."""
    for task in catalog.registered():
        if task.module_path == path:
            if getattr(task, "internal", False):
                raise catalog.UnknownTask(f"{path} is an internal task: nobody launches it by hand.")
            return task
    raise catalog.UnknownTask(f"There is no task {wording.visible(wording.clip(path, 255))}.")


class BoundArgument(forms.BoundField):
    """A field that says where its help and its error stand."""

    def build_widget_attrs(self, attrs: dict[str, Any], widget: forms.Widget | None = None) -> dict[str, Any]:
        attrs = super().build_widget_attrs(attrs, widget)
        attrs.pop("aria-describedby", None)
        described = [self.help_id] if self.help_text else []
        described += [self.error_id] if self.errors else []
        if described:
            attrs["aria-describedby"] = " ".join(described)
        if self.errors:
            attrs["aria-invalid"] = "true"
        return attrs

    @property
    def help_id(self) -> str:
        return f"{self.auto_id}-help"

    @property
    def error_id(self) -> str:
        return f"{self.auto_id}-error"


class ArgumentField(forms.Field):
    """The field of one parameter; its cleaned value is JSON, or ABSENT."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter, kind = parameter, parameter.kind
        widget = kind.widget()
        widget.attrs.setdefault("class", "input")
        if isinstance(widget, forms.Select):
            widget.choices = [*self._empty_choice(), *kind.choices]
        super().__init__(
            required=parameter.is_required and not parameter.is_nullable,
            label=parameter.label,
            help_text=kind.note,
            widget=widget,
            initial=self._default_text,  # when it is shown: a moment is told by the viewer's clock
        )

    is_hidden = False
    """It is a secret: neither its default nor what it was earlier is ever shown."""
    earlier: Any = ABSENT
    """What an earlier call had."""

    def follow(self, earlier: Any) -> None:
        """Know what an earlier call had, or ABSENT: the secrets in it stay what they were, and are not shown."""
        self.earlier = earlier
        if not is_secret(self.parameter.name):
            return
        self.is_hidden = True
        if not isinstance(self.widget, forms.Select):
            self.widget = forms.PasswordInput({"class": "input", "autocomplete": "new-password"})
        if earlier is not ABSENT:
            self.required = False
            self.help_text = f"As before unless filled in. {self.parameter.kind.note}".strip()
        self.widget.is_required = self.required

    def _empty_choice(self) -> list[tuple[str, str]]:
        if self.parameter.is_nullable:
            return [("", "None")]
        return [("", "Choose…")] if self.parameter.is_required else [("", "As the task has it")]

    def _default_text(self) -> str:
        default = self.parameter.default
        is_shown = not self.is_hidden and default is not ABSENT and default is not None and self.holds(default)
        return self.parameter.kind.show(masked(default)) if is_shown else ""

    def get_bound_field(self, form: forms.BaseForm, field_name: str) -> BoundArgument:
        return BoundArgument(form, self, field_name)

    def text_of(self, value: Any) -> str:
        """What would be typed for a JSON value: for a secret nothing."""
        if self.is_hidden:
            return ""
        if value is None and self.parameter.is_nullable and self.parameter.kind is not JSON:
            return ""
        return self.parameter.kind.show(masked(value))

    def holds(self, value: Any) -> bool:
        """True when the value would come out of this field as it went in."""
        if self.is_hidden:
            return True
        try:
            return is_same(self.clean(self.text_of(value)), value)
        except (ValidationError, ValueError, TypeError, ArithmeticError, RecursionError):
            return False

    def clean(self, value: Any) -> Any:
        kind = self.parameter.kind
        text = "" if value is None else str(value)
        if not (text if kind is TEXT else text.strip()):
            if self.is_hidden and (self.earlier is not ABSENT or not self.parameter.is_required):
                return self.earlier
            if self.required or (value is None and self.parameter.is_required):
                raise ValidationError(kind.wanted, code="required")
            return ABSENT if value is None else self._blank()
        try:
            found = restored(kind.value(text), self.parameter.default if self.earlier is ABSENT else self.earlier)
            to_json(found, "This")
        except (BadText, NotJSON) as error:
            raise ValidationError(str(error), code="invalid") from None
        if has_mask(found):
            raise ValidationError(STAYS_MASKED, code="invalid")
        return found

    def _blank(self) -> Any:
        """What an empty field stands for."""
        one = self.parameter
        empty = "" if one.kind is TEXT else ABSENT
        if one.is_required:
            return None if one.is_nullable else empty
        if one.default == "":
            return empty
        if one.default is not None and not self._default_text():
            return ABSENT  # its default cannot be shown, so nobody has emptied it
        return None if one.is_nullable else empty


class KeptField(forms.Field):
    """What a form only carries along; whatever was sent for it, it says nothing."""

    def __init__(self, widget: forms.Widget, **options: Any) -> None:
        super().__init__(required=False, widget=widget, **options)

    def clean(self, value: Any) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Change:
    """An argument that is not what it was."""

    name: str
    before: Any
    after: Any
    """ABSENT where there is none."""

    @property
    def said(self) -> str:
        """`width 320 → 640`."""
        before, after = ((each if each is ABSENT else self._told(each)) for each in (self.before, self.after))
        return f"{wording.visible(self.name)} {told(before)} → {told(after)}"

    def _told(self, value: Any) -> Any:
        return MASK if is_secret(self.name) else masked(value)


def told(value: Any) -> str:
    if value is ABSENT:
        return "left out"
    text = wording.visible(wording.one_line(value, 60))
    return text or '""'


class CallForm(forms.Form):
    """What a task is called with: one field a parameter, named `arg-<name>`.

    `form_of` makes the class for a task; `from_call` fills one in with the arguments of a past run.
    """

    title: ClassVar[str] = ""
    """The task's name."""
    about: ClassVar[str] = ""
    """The first line of its docstring."""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    taken: ClassVar[frozenset[str]] = frozenset()
    """Names that no further keyword may have."""

    given = KeptField(forms.HiddenInput({"autocomplete": "off"}))
    """The parameters that the past run was given, so that they stay in the call although they are at their default."""

    former = KeptField(
        forms.Textarea({"readonly": True, "rows": 4, "class": "input input--code", "spellcheck": "false"}),
        label="Not sent",
        help_text="These arguments of the earlier run do not fit the task, or its form, as it is now. They are kept"
        " here to copy from.",
    )

    def __init__(self, *args: Any, earlier: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in self.parameters:
            argument = self.fields[one.field_name]
            assert isinstance(argument, ArgumentField)
            argument.follow((earlier or {}).get(one.name, ABSENT))
        sent = self.data.get(self.add_prefix("given")) if self.is_bound else self.initial.get("given")
        names = set(str(sent or "").split(","))
        self.was_given = frozenset(one.name for one in self.parameters if one.name in names)
        for one in self.parameters:
            field = self.fields[one.field_name]
            if one.kind is TEXT and one.name in self.was_given:
                field.required = False  # an empty text may be what the earlier run had
            if one.kind is MOMENT:
                field.help_text = f"By the clock of {timezone.get_current_timezone_name()}. {one.kind.note}"

    @staticmethod
    def from_call(
        task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], data: Any = None, **options: Any
    ) -> CallForm:
        """The form of the task as it would have been filled in for this call; what does not fit is in `former`.

        With `data` the same form as it was sent: secrets that nobody filled in are those of the call.
        """
        made = form_of(task)
        values, extra_args, extra_kwargs = placed(made.parameters, args, kwargs)
        if data is not None:
            return made(data, earlier=values, **options)
        form = made(initial={"given": ",".join(values)}, earlier=values, **options)
        values = dict(values)
        initial = form.initial
        for one in form.parameters:
            field = form.fields[one.field_name]
            assert isinstance(field, ArgumentField)
            if one.name in values and field.holds(values[one.name]):
                initial[one.field_name] = field.text_of(values[one.name])
            elif one.name in values:
                extra_kwargs[one.name] = values.pop(one.name)
        initial["given"] = ",".join(values)
        former = {"arguments": extra_args, "keywords": extra_kwargs}
        if any(former.values()):
            initial["former"] = JSON.show(masked({key: value for key, value in former.items() if value}))
        return form

    @property
    def arguments(self) -> list[forms.BoundField]:
        """The fields to draw."""
        return [self[one.field_name] for one in self.parameters]

    @property
    def former_text(self) -> str:
        """What of the earlier run is not sent, as JSON that can be shown; empty for most."""
        return str(self["former"].value() or "")

    def clean(self) -> dict[str, Any]:
        """The fields together make a call that the task takes and PostgreSQL can keep."""
        if not self.errors:
            self._check_further_keywords()
        if not self.errors:
            self._check_positions()
        if not self.errors:
            try:
                args, kwargs = self._made
                to_json([args, kwargs], "This call")
            except NotJSON as error:
                self.add_error(None, str(error))
        return self.cleaned_data

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the call, ready for `enqueue`; of a form that is valid."""
        return self._made

    def changes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Change]:
        """The arguments that are not what they were in this past call; one left out counts as its default."""
        before, after = self._told_of(args, kwargs), self._told_of(*self._made)
        return [
            Change(name, before.get(name, ABSENT), after.get(name, ABSENT))
            for name in dict.fromkeys([*after, *before])
            if not is_same(before.get(name, ABSENT), after.get(name, ABSENT))
        ]

    def _told_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {one.name: one.default for one in self.parameters if one.default is not ABSENT}
        values, extra_args, extra_kwargs = placed(self.parameters, args, kwargs)
        found = {**defaults, **{one.name: values[one.name] for one in self.parameters if one.name in values}}
        for one in self.parameters:  # each further keyword is a change of its own, by its own name
            if one.place is inspect.Parameter.VAR_KEYWORD:
                extra_kwargs.update(found.pop(one.name, {}))
        found.update(
            {
                f"argument {number}": value
                for number, value in enumerate(extra_args, start=len(args) - len(extra_args) + 1)
            }
        )
        return {**found, **extra_kwargs}

    def _value(self, one: Parameter) -> Any:
        """What the call has for this parameter: nothing if it is at its default and nobody gave it."""
        value = self.cleaned_data[one.field_name]
        is_unchanged = one.default is not ABSENT and is_same(value, one.default)
        return ABSENT if is_unchanged and one.name not in self.was_given else value

    @cached_property
    def _made(self) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for number, one in enumerate(self.parameters):
            value = self._value(one)
            if number < self._by_position:
                args.append(one.default if value is ABSENT else value)
            elif value is ABSENT:
                pass
            elif one.place is inspect.Parameter.VAR_POSITIONAL:
                args += value
            elif one.place is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            else:
                kwargs[one.name] = value
        return args, kwargs

    @cached_property
    def _by_position(self) -> int:
        """How many of the first parameters are given by position: no more than must be."""
        needed = 0
        for number, one in enumerate(self.parameters):
            is_given = self._value(one) is not ABSENT
            if one.place is inspect.Parameter.POSITIONAL_ONLY and is_given:
                needed = number + 1
            elif one.place is inspect.Parameter.VAR_POSITIONAL and is_given and self._value(one):
                needed = number
        return needed

    def _check_positions(self) -> None:
        for one in self.parameters[: self._by_position]:
            if self._value(one) is ABSENT and one.default is ABSENT:
                self.add_error(one.field_name, "Give this too: what comes after it is given by position.")

    def _check_further_keywords(self) -> None:
        for one in self.parameters:
            if one.place is inspect.Parameter.VAR_KEYWORD:
                for name in sorted(self.taken & set(self._value(one) or {})):
                    self.add_error(one.field_name, f"Leave {name} out here: the task has a parameter of that name.")


def form_of(task: Task[..., Any]) -> type[CallForm]:
    """The class of the task's form, made once for its function."""
    return _form_of(task.func, task.takes_context)


@lru_cache(maxsize=1_000)
def _form_of(func: Callable[..., Any], takes_context: bool) -> type[CallForm]:
    parameters = tuple(parameters_of(func, takes_context))
    members: dict[str, Any] = {
        "title": getattr(func, "__name__", "task"),
        "about": ((inspect.getdoc(func) or "").strip().splitlines() or [""])[0],
        "parameters": parameters,
        "taken": frozenset(one.name for one in parameters if one.place in BY_NAME) | context_name(func, takes_context),
    }
    members.update({one.field_name: ArgumentField(one) for one in parameters})
    return cast("type[CallForm]", type("CallForm", (CallForm,), members))


class OptionsForm(PlainForm):
    """What every launch may say besides: which queue, how soon, how urgent; a schedule says these in its own words."""

    queue = forms.CharField(
        required=False,
        max_length=QUEUE_NAME_LENGTH,
        help_text="Empty for the task's own.",
        error_messages={"max_length": f"A queue's name has at most {QUEUE_NAME_LENGTH} characters."},
        widget=forms.TextInput({"class": "input", "autocomplete": "off", "spellcheck": "false"}),
    )
    priority = forms.IntegerField(
        required=False,
        min_value=-100,
        max_value=100,
        help_text="-100 to 100, the highest first. Empty for the task's own.",
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), "Give a whole number from -100 to 100."),
        widget=forms.NumberInput({"class": "input"}),
    )
    run_after = forms.CharField(required=False, label="Not before", widget=MOMENT.widget())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["run_after"]
        field.help_text = f"By the clock of {timezone.get_current_timezone_name()}. Empty for as soon as possible."
        field.widget.attrs["class"] = "input"

    def clean_queue(self) -> str:
        name: str = self.cleaned_data["queue"]
        if name != storable(name):
            raise ValidationError("A queue's name has no half characters and no NUL.")
        return name

    def clean_run_after(self) -> Any:
        text = self.cleaned_data["run_after"]
        if not text:
            return None
        try:
            at = datetime.fromisoformat(MOMENT.value(text))
            check_moment("This", at)
        except (BadText, InvalidTaskError) as error:
            raise ValidationError(str(error)) from None
        return at

    def options(self) -> dict[str, Any]:
        """What `task.using` takes; of a form that is valid."""
        told = {"queue_name": self.cleaned_data["queue"] or None}
        told |= {name: self.cleaned_data[name] for name in ("priority", "run_after")}
        return {name: value for name, value in told.items() if value is not None}
