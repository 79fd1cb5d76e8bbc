"""SUBMIT: the kinds of values that a form can ask for: how each is typed, how it is read into JSON, how it is shown."""

from __future__ import annotations

import collections.abc
import enum
import json
import math
import re
import types
import typing
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_iso_string
from django.utils.encoding import force_str
from typing_extensions import is_typeddict

from tasks_app import wording
from tasks_app.engine.timing import moment_of
from tasks_app.jsonable import is_deeper

LONGEST_SCALAR = 4_300
"""Characters of a number or a date; Python reads no longer number either."""

INDENTED = 2_000
"""Characters of JSON that are spread over lines; longer JSON stands on one."""


class BadText(ValueError):
    """What was typed is no such value; the message is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value."""

    wanted: str
    """The sentence for what is none."""

    read: Callable[[str], Any]
    """The JSON value of what was typed; raises `ValueError`, of which `BadText` has a better sentence than `wanted`."""

    show: Callable[[Any], str] = str
    """What would be typed for a JSON value; `read` tells whether that was possible."""

    widget: Callable[[], forms.Widget] = forms.TextInput

    note: str = ""
    """What somebody who types one should know."""

    choices: tuple[tuple[str, str], ...] = ()

    takes: tuple[type, ...] = ()
    """Of which types its JSON values are; empty for any."""

    def fits(self, value: Any) -> bool:
        """Whether this JSON value is one that could have been typed."""
        if self.takes and type(value) not in self.takes:
            return False
        if not self.choices and not (self.takes and isinstance(value, str)):
            return True
        try:
            self.read(self.show(value) if self.choices else value)
        except (ValueError, ArithmeticError, RecursionError):
            return False
        return True

    def value(self, text: str) -> Any:
        """Raises `BadText`."""
        try:
            return self.read(text)
        except BadText:
            raise
        except (ValueError, ArithmeticError, RecursionError):
            raise BadText(self.wanted) from None


class ISOInput(forms.TextInput):
    """The browser's own field for a date or time; a plain one for a value that the browser's own would drop."""

    def __init__(self, input_type: str, pattern: str) -> None:
        super().__init__({"step": "1"} if input_type != "date" else None)
        self.own_type, self.pattern = input_type, pattern

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        fits = re.fullmatch(self.pattern, value or "", re.ASCII) or not value
        context["widget"]["type"] = self.own_type if fits else "text"
        return context


class RoomyTextarea(forms.Textarea):
    """As many lines as its text has, up to twelve; a single line would lose the line breaks."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        forms.Widget.__init__(self, attrs)

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        context["widget"]["attrs"]["rows"] = min(12, (value or "").count("\n") + 1)
        return context


def plain(text: str) -> str:
    """The text without the space around it; raises `ValueError` for what no number or date looks like."""
    text = text.strip()
    if len(text) > LONGEST_SCALAR or not text.isascii() or "_" in text:
        raise ValueError
    return text


def read_text(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")  # browsers send each line break as two characters


def read_whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", plain(text)):
        raise ValueError
    return int(text)


def read_number(text: str) -> int | float:
    """A whole number stays one, so that 3 does not become 3.0."""
    try:
        return read_whole(text)
    except ValueError:
        number = float(plain(text))
    if not math.isfinite(number):
        raise BadText("JSON has no such number: give one that is finite and not too large.")
    return number


def read_decimal(text: str) -> str:
    if not Decimal(plain(text)).is_finite():
        raise BadText("Give a number that is finite.")
    return plain(text)


def read_date(text: str) -> str:
    date.fromisoformat(plain(text))
    return plain(text)


def read_time(text: str) -> str:
    time.fromisoformat(plain(text))
    return plain(text)


def read_moment(text: str) -> str:
    """A wall clock's time is one of the viewer's zone; one that names its zone stays as it is."""
    at = datetime.fromisoformat(plain(text))
    if timezone.is_aware(at):
        return plain(text)
    return moment_of(at, timezone.get_current_timezone()).isoformat()


def show_moment(value: Any) -> str:
    """By the viewer's clock if that says it all, else as it stands."""
    try:
        at = datetime.fromisoformat(value)
        wall = at.astimezone(timezone.get_current_timezone()).replace(tzinfo=None).isoformat()
        return wall if timezone.is_aware(at) and read_moment(wall) == value else value
    except (ValueError, TypeError, OverflowError):
        return str(value)


def read_length(text: str) -> str:
    length = parse_duration(plain(text))
    if length is None:
        raise ValueError
    # As it stands if it is ISO text already: the same length may be written in many ways.
    return plain(text) if re.match(r"-?P", plain(text)) else duration_iso_string(length)


def read_uuid(text: str) -> str:
    return str(uuid.UUID(plain(text)))


def refuse_constant(name: str) -> Any:
    raise BadText(f"JSON has no {name}.")


def read_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise BadText("This cannot be stored as JSON: nested too deep.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadText(f'This is not JSON ({place}). Text stands in double quotes, such as "hello".') from None


def read_list(text: str) -> list[Any]:
    value = read_json(text)
    if not isinstance(value, list):
        raise ValueError
    return value


def read_mapping(text: str) -> dict[str, Any]:
    value = read_json(text)
    if not isinstance(value, dict):
        raise ValueError
    return value


def show_json(value: Any) -> str:
    """The value as JSON, what cannot be seen in it escaped: the text may not turn the page around."""
    text = json.dumps(value, ensure_ascii=False)
    if "[" in text or "{" in text:
        # Indented, a megabyte that is nested deep would be hundreds of them.
        is_small = len(text) <= INDENTED and not is_deeper(value, 8)
        text = json.dumps(value, ensure_ascii=False, indent=2 if is_small and len(text) > 60 else None)
    return wording.UNSEEN.sub(lambda found: "\n" if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def show_choice(value: Any) -> str:
    return json.dumps(value)


def json_area() -> forms.Widget:
    return RoomyTextarea({"spellcheck": "false", "autocapitalize": "none", "class": "input input--code"})


TEXT = Kind(wanted="Give a text.", read=read_text, widget=RoomyTextarea, takes=(str,))
WHOLE = Kind(
    wanted="Give a whole number, such as 42.",
    read=read_whole,
    takes=(int,),
    # A browser's own field for numbers would round those beyond 2**53.
    widget=lambda: forms.TextInput({"inputmode": "numeric", "autocomplete": "off"}),
)
NUMBER = Kind(
    wanted="Give a number, such as 2.5.",
    read=read_number,
    takes=(int, float),
    widget=lambda: forms.TextInput({"inputmode": "decimal", "autocomplete": "off"}),
)
DECIMAL = Kind(
    wanted="Give a decimal number, such as 19.90.",
    read=read_decimal,
    takes=(str,),
    widget=lambda: forms.TextInput({"inputmode": "decimal", "autocomplete": "off"}),
    note="The task gets it as text.",
)
DATE = Kind(
    wanted="Give a date, such as 2026-03-29.",
    read=read_date,
    takes=(str,),
    widget=lambda: ISOInput("date", r"\d{4}-\d\d-\d\d"),
    note="The task gets it as text, such as 2026-03-29.",
)
MOMENT = Kind(
    wanted="Give a date and a time, such as 2026-03-29T02:30.",
    read=read_moment,
    takes=(str,),
    show=show_moment,
    widget=lambda: ISOInput("datetime-local", r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?"),
    note="The task gets it as text, such as 2026-03-29T02:30:00+00:00.",
)
TIME = Kind(
    wanted="Give a time of day, such as 14:30.",
    read=read_time,
    takes=(str,),
    widget=lambda: ISOInput("time", r"\d\d:\d\d(:\d\d)?"),
    note="The task gets it as text, such as 14:30.",
)
LENGTH = Kind(
    wanted="Give a length of time, such as 90 (seconds), 1:30:00 or 2 days 06:00:00.",
    read=read_length,
    takes=(str,),
    note="Seconds, or such as 1:30:00. The task gets it as text, such as P0DT01H30M00S.",
)
UUID = Kind(
    wanted="Give a UUID, such as 6f1c8b0e-52d7-4a39-9c0b-1d2f3a4b5c6d.",
    read=read_uuid,
    takes=(str,),
    note="The task gets it as text.",
)
JSON = Kind(
    wanted="Give a value as JSON.",
    read=read_json,
    show=show_json,
    widget=json_area,
    note='As JSON: text stands in double quotes, such as "hello".',
)
LIST = Kind(
    wanted='Give a list as JSON, such as [1, "two"].',
    read=read_list,
    takes=(list,),
    show=show_json,
    widget=json_area,
    note='A list as JSON, such as [1, "two"].',
)
MAPPING = Kind(
    wanted='Give a mapping as JSON, such as {"width": 320}.',
    read=read_mapping,
    takes=(dict,),
    show=show_json,
    widget=json_area,
    note='A mapping as JSON, such as {"width": 320}.',
)


def one_of(values: Sequence[tuple[Any, str]]) -> Kind:
    """One of these JSON values, each with its word."""
    by_key = {show_choice(value): value for value, _ in values}

    def read(key: str) -> Any:
        if key not in by_key:
            raise ValueError
        return by_key[key]

    return Kind(
        wanted="Choose one of those offered.",
        read=read,
        show=show_choice,
        widget=forms.Select,
        choices=tuple((show_choice(value), wording.visible(word)) for value, word in values),
    )


YES_OR_NO = one_of([(True, "Yes"), (False, "No")])

KINDS: dict[Any, Kind] = {
    bool: YES_OR_NO,
    str: TEXT,
    int: WHOLE,
    float: NUMBER,
    Decimal: DECIMAL,
    datetime: MOMENT,
    date: DATE,
    time: TIME,
    timedelta: LENGTH,
    uuid.UUID: UUID,
}
LISTS = {list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set}
MAPPINGS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}


def kind_of(annotation: Any) -> tuple[Kind, bool]:
    """The kind that an annotation asks for, JSON if it is none of the others; and whether None will do too."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated or isinstance(annotation, typing.NewType):
        inner = annotation.__origin__ if origin else annotation.__supertype__
        return kind_of(inner)
    if origin in {typing.Union, types.UnionType}:
        others = [one for one in typing.get_args(annotation) if one is not types.NoneType]
        is_nullable = len(others) < len(typing.get_args(annotation))
        if len(others) > 1:
            return JSON, is_nullable
        kind, is_nullable_itself = kind_of(others[0])
        return kind, is_nullable or is_nullable_itself
    if origin is typing.Literal:
        values = typing.get_args(annotation)
        return choice([(jsonlike(one), word_of(one)) for one in values if one is not None]), None in values
    if isinstance(annotation, enum.EnumMeta) and not issubclass(annotation, enum.Flag):
        members: Any = annotation
        return choice([(jsonlike(one), word_of(one)) for one in members]), False
    if is_typeddict(annotation) or (origin or annotation) in MAPPINGS:
        return MAPPING, False
    if (origin or annotation) in LISTS:
        return LIST, False
    return KINDS.get(annotation, JSON), False


def choice(values: list[tuple[Any, str]]) -> Kind:
    return one_of(values) if values and all(is_scalar(value) for value, _ in values) else JSON


def is_scalar(value: Any) -> bool:
    return value is None or type(value) in {str, int, float, bool}


def word_of(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return force_str(getattr(value, "label", readable(value.name)))
    return {True: "Yes", False: "No"}[value] if isinstance(value, bool) else str(value)


def readable(name: str) -> str:
    """`Send at` for `send_at`."""
    words = name.replace("_", " ").strip() or name
    return words[0].upper() + words[1:]


def jsonlike(value: Any) -> Any:
    """The JSON that stands for a value of Python's in a call, as a form would have it; others come back as they are."""
    if isinstance(value, enum.Enum):
        return jsonlike(value.value) if is_scalar(jsonlike(value.value)) else value.name
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return duration_iso_string(value)
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonlike(one) for one in value]
    if isinstance(value, dict):
        return {key: jsonlike(one) for key, one in value.items()}
    return value
