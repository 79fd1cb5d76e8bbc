"""SUBMIT: the form that is made from a task's signature, and the call that is made from the form."""

from __future__ import annotations

import enum
import html
import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType
from zoneinfo import ZoneInfo

import pytest
from django import forms
from django.template.loader import render_to_string
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as small
from hypothesis import strategies as st

from tasks_app.backend import task
from tasks_app.catalog import UnknownTask
from tasks_app.engine.context import RunContext
from tasks_app.signature import CallForm, OptionsForm, find_launchable, form_of, launchable
from tasks_app.tasks import create_task, prune_runs

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

UUID = "6f1c8b0e-52d7-4a39-9c0b-1d2f3a4b5c6d"
Customer = NewType("Customer", int)


class Size(enum.Enum):
    SMALL = 320
    VERY_LARGE = 1600


class Shape(enum.Enum):
    ROUND = (1, 1)
    SQUARE = (1, 4)


@task
def takes_all(  # type: ignore[no-untyped-def]
    text: str,
    whole: int,
    number: float,
    yes: bool,
    price: Decimal,
    day: date,
    at: datetime,
    clock: time,
    length: timedelta,
    key: uuid.UUID,
    word: Literal["a", 2, None],
    size: Size,
    shape: Shape,
    listed: list[int],
    mapped: dict[str, Any],
    anything: Any,
    untold,
    annotated: Annotated[int | None, "a note"],
    customer: Customer,
    nothing: Nothing,
    several: int | str,
) -> None:
    """Take one of <each>.

    And say no more.
    """


@task
def takes_some(width: int = 320, name: str = "x", note: str | None = None, sharp: bool = True) -> None:
    pass


@task
def takes_one(value: Any) -> None:
    pass


@task
def takes_text(value: str) -> None:
    pass


@task
def has_odd_names(data: int, files: int, errors: int, prefix: int, given: int, former: int, self: int) -> None:
    pass


@task
def takes_moment(at: datetime) -> None:
    pass


@task
def takes_nothing() -> None:
    pass


@task
def takes_places(first: int, second: int = 2, /, third: int = 3, *rest: Any, last: int = 9, **more: Any) -> None:
    pass


@task
def has_odd_defaults(
    shape: Any = object, size: Size = Size.SMALL, pair: tuple[int, int] = (1, 2), name: str = "a\rb", part: float = 0.5
) -> None:
    pass


@task(takes_context=True)
def takes_context(context: RunContext, width: int) -> None:
    pass


def filled(form: CallForm) -> dict[str, Any]:
    """What a browser would send of a form that nobody touched."""
    return {form.add_prefix(name): form[name].value() or "" for name in form.fields}


def sent(task: Any, **values: Any) -> CallForm:
    return form_of(task)({f"arg-{name}": value for name, value in values.items()})


def again(task: Any, *args: Any, **kwargs: Any) -> CallForm:
    """The form of a past call, sent as it came."""
    return form_of(task)(filled(CallForm.from_call(task, args, kwargs)))


def call_of(form: CallForm) -> tuple[list[Any], dict[str, Any]]:
    assert form.is_valid(), form.errors
    return form.call()


def errors(form: forms.Form) -> dict[str, str]:
    return {name: " ".join(str(one) for one in said) for name, said in form.errors.items()}


GOOD = {
    "text": "  two\r\nlines",
    "whole": " 9007199254740993 ",
    "number": "2.50",
    "yes": "true",
    "price": "19.90",
    "day": "2026-03-29",
    "at": "2026-03-29T14:30",
    "clock": "14:30",
    "length": "1:30:00",
    "key": UUID.upper(),
    "word": "2",
    "size": "1600",
    "shape": '"SQUARE"',
    "listed": "[1, 2]",
    "mapped": '{"a": null}',
    "anything": '"hello"',
    "untold": "1e3",
    "annotated": "",
    "customer": "77",
    "nothing": "null",
    "several": '"7"',
}


def test_each_type_is_read_into_json() -> None:
    form = sent(takes_all, **GOOD)

    assert form.is_valid(), form.errors
    assert form.call() == (
        [],
        {
            "text": "  two\nlines",
            "whole": 9007199254740993,
            "number": 2.5,
            "yes": True,
            "price": "19.90",
            "day": "2026-03-29",
            "at": "2026-03-29T14:30:00+00:00",
            "clock": "14:30",
            "length": "P0DT01H30M00S",
            "key": UUID,
            "word": 2,
            "size": 1600,
            "shape": "SQUARE",
            "listed": [1, 2],
            "mapped": {"a": None},
            "anything": "hello",
            "untold": 1000.0,
            "annotated": None,
            "customer": 77,
            "nothing": None,
            "several": "7",
        },
    )
    assert call_of(again(takes_all, **form.call()[1])) == form.call()


def test_the_form_tells_of_its_task() -> None:
    form = form_of(takes_all)()

    assert (form.title, form.about) == ("takes_all", "Take one of <each>.")
    assert form.arguments[0].label == "Text"
    assert re.findall(r'<option value="(.*?)"', str(form["arg-size"])) == ["", "320", "1600"]
    assert form_of(takes_all) is form_of(replace(takes_all, priority=5))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("text", "", "Give a text."),
        ("text", "a\0b", "NUL"),
        ("text", "\ud800", "half of a surrogate pair"),
        ("text", "x" * 1_000_001, "more than the 1,000,000 allowed"),
        ("whole", "", "such as 42"),
        ("whole", "1.5", "such as 42"),
        ("whole", "1_000", "such as 42"),
        ("whole", "٣", "such as 42"),
        ("whole", "9" * 4_301, "such as 42"),
        ("number", "NaN", "finite"),
        ("number", "-inf", "finite"),
        ("number", "1e400", "finite"),
        ("number", "many", "such as 2.5"),
        ("yes", "", "Choose one"),
        ("yes", "maybe", "Choose one"),
        ("price", "sNaN", "finite"),
        ("price", "1e99999999999999999999", "such as 19.90"),
        ("day", "2026-02-30", "such as 2026-03-29"),
        ("at", "yesterday", "Give a date and a time"),
        ("clock", "25:00", "such as 14:30"),
        ("length", "99999999999999999999 days", "length of time"),
        ("length", "long", "length of time"),
        ("key", "6f1c", "UUID"),
        ("word", "b", "Choose one"),
        ("size", "[320]", "Choose one"),
        ("listed", "{}", "Give a list"),
        ("mapped", "[]", "Give a mapping"),
        ("anything", "hello", "line 1, column 1"),
        ("anything", "NaN", "JSON has no NaN"),
        ("anything", "1e400", "cannot be stored"),
        ("anything", "9" * 5_000, "Give a value as JSON"),
        ("anything", "[" * 10_000 + "]" * 10_000, "nested too deep"),
        ("anything", "[" * 201 + "]" * 201, "nested too deep"),
        ("anything", '"' + "x" * 1_000_000 + '"', "more than the 1,000,000 allowed"),
        ("anything", r'"\u0000"', "NUL"),
        ("anything", r'["\ud800"]', "half of a surrogate pair"),
    ],
)
def test_what_is_no_such_value_is_refused_in_a_sentence_at_its_field(name: str, text: str, said: str) -> None:
    form = sent(takes_all, **{**GOOD, name: text})

    assert list(errors(form)) == [f"arg-{name}"]
    assert said in errors(form)[f"arg-{name}"]


def test_a_moment_before_the_calendar_is_refused() -> None:
    with timezone.override(ZoneInfo("Asia/Tokyo")):
        said = errors(sent(takes_moment, at="0001-01-01T00:00"))

    assert said == {"arg-at": "Give a date and a time, such as 2026-03-29T02:30."}


def test_an_argument_that_was_not_sent_is_missed_only_where_the_task_needs_it() -> None:
    assert list(errors(sent(takes_all))) == [f"arg-{name}" for name in GOOD]
    form = sent(takes_some)
    assert form.is_valid()
    assert form.call() == ([], {})


def test_defaults_are_shown_and_left_out_of_the_call() -> None:
    form = form_of(takes_some)()
    untouched = form_of(takes_some)(filled(form))

    assert [field.value() for field in form.arguments] == ["320", "x", "", "true"]
    assert untouched.is_valid()
    assert untouched.call() == ([], {})


def test_what_the_earlier_run_was_given_stays_given() -> None:
    form = again(takes_some, width=320, note=None)

    assert form.is_valid()
    assert form.call() == ([], {"width": 320, "note": None})


def test_an_emptied_field_is_an_empty_text_or_the_default() -> None:
    form = sent(takes_some, width="", name="", note="", sharp="")

    assert form.is_valid()
    assert form.call() == ([], {"name": ""})


def test_defaults_that_no_field_can_show_are_left_alone() -> None:
    form = form_of(has_odd_defaults)()
    untouched = form_of(has_odd_defaults)(filled(form))

    assert [field.value() for field in form.arguments] == ["", "320", "[1, 2]", "", "0.5"]
    assert untouched.is_valid()
    assert untouched.call() == ([], {})


def test_parameters_may_be_called_as_a_form_calls_its_own() -> None:
    names = ("data", "files", "errors", "prefix", "given", "former", "self")
    form = sent(has_odd_names, **dict.fromkeys(names, "1"))

    assert form.is_valid()
    assert form.call() == ([], dict.fromkeys(names, 1))


def test_the_context_is_no_argument() -> None:
    assert list(form_of(takes_context).base_fields) == ["given", "former", "arg-width"]
    assert (
        CallForm.from_call(takes_context, [], {"width": 1, "context": 2}).former_text == '{"keywords": {"context": 2}}'
    )


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([1], {}),
        ([1, 2], {}),
        ([1], {"third": 4}),
        ([1, 2, 3, "four", [5]], {}),
        ([1, 2, 3, "four"], {"last": 7, "first": "another", "odd name": None}),
    ],
)
def test_places_are_kept(args: list[Any], kwargs: dict[str, Any]) -> None:
    form = again(takes_places, *args, **kwargs)

    assert form.is_valid(), form.errors
    assert form.call() == (args, kwargs)


def test_what_comes_before_a_place_is_filled_in() -> None:
    form = sent(takes_places, first="1", rest='["four"]')

    assert form.is_valid()
    assert form.call() == ([1, 2, 3, "four"], {})


def test_further_keywords_cannot_take_a_parameters_name() -> None:
    form = sent(takes_places, first="1", more='{"third": 1}')

    assert errors(form) == {"arg-more": "Leave third out here: the task has a parameter of that name."}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@small(max_examples=60, deadline=None)
@given(JSON)
def test_any_json_comes_out_as_it_went_in(value: Any) -> None:
    form = again(takes_one, value)

    assert form.is_valid(), form.errors
    assert repr(form.call()) == repr(([], {"value": value}))


@small(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_comes_out_as_it_went_in_or_is_kept_aside(text: str) -> None:
    form = CallForm.from_call(takes_text, [text], {})
    if "\r" in text:
        assert "value" in form.former_text
    else:
        assert call_of(form_of(takes_text)(filled(form))) == ([], {"value": text})


def test_what_does_not_fit_any_more_is_kept_aside_and_not_sent() -> None:
    past = {"width": "wide", "name": None, "colour": "\u202ered"}
    form = CallForm.from_call(takes_some, [], past)
    bound = form_of(takes_some)(filled(form))

    assert json.loads(form.former_text) == {"keywords": past}
    assert "\u202e" not in form.former_text
    assert bound.is_valid()
    assert bound.call() == ([], {})
    assert bound.former_text == form.former_text
    assert "extra" in CallForm.from_call(takes_some, [1, "b", None, False, "extra"], {}).former_text


def test_a_moment_is_told_by_the_viewers_clock_unless_that_would_change_it() -> None:
    with timezone.override(ZoneInfo("Europe/Berlin")):
        form = CallForm.from_call(takes_moment, [], {"at": "2026-03-29T00:30:00+00:00"})
        assert form["arg-at"].value() == "2026-03-29T01:30:00"
        assert "Europe/Berlin" in form["arg-at"].help_text
        assert 'type="datetime-local"' in str(form["arg-at"])
        gap = sent(takes_moment, at="2026-03-29T02:30")
        assert gap.is_valid()
        assert gap.call()[1] == {"at": "2026-03-29T01:00:00+00:00"}
        other = CallForm.from_call(takes_moment, [], {"at": "2026-03-29T00:30:00.123456+05:30"})
        assert 'type="text"' in str(other["arg-at"])
        assert call_of(form_of(takes_moment)(filled(other)))[1] == {"at": "2026-03-29T00:30:00.123456+05:30"}


def test_changes_are_told() -> None:
    form = sent(takes_some, width="640", name="x", note="", sharp="false")

    assert form.is_valid()
    assert [change.said for change in form.changes([], {"note": "\u202ea", "colour": 1})] == [
        "width 320 → 640",
        "note [202e]a → null",
        "sharp true → false",
        "colour 1 → left out",
    ]
    assert form.changes([640], {"sharp": False}) == []


def test_help_and_error_belong_to_their_field() -> None:
    drawn = render_to_string(
        "launch/_call_fields.html",
        {"form": sent(takes_all, **{**GOOD, "day": "<b>", "anything": "hello", "text": "</textarea><script>"})},
    )

    field = re.search(r'<input[^>]*name="arg-day"[^>]*>', drawn)
    assert field
    assert 'aria-describedby="id_arg-day-help id_arg-day-error"' in field[0]
    assert 'aria-invalid="true"' in field[0]
    assert 'id="id_arg-day-help"' in drawn
    assert 'id="id_arg-day-error"' in drawn
    assert "such as &quot;hello&quot;.</p>" in drawn
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "Take one of &lt;each&gt;." in drawn
    assert html.escape("</textarea><script>") in drawn
    assert not re.search(r'(style|onclick)="', drawn)


def test_a_form_without_fields_says_so() -> None:
    drawn = render_to_string("launch/_call_fields.html", {"form": form_of(takes_nothing)()})

    assert "This task takes no arguments." in drawn


def test_internal_tasks_are_not_offered_and_refused_by_name() -> None:
    assert create_task in launchable()
    assert prune_runs not in launchable()
    assert find_launchable(create_task.module_path) is create_task
    with pytest.raises(UnknownTask, match="internal"):
        find_launchable(prune_runs.module_path)
    with pytest.raises(UnknownTask, match=r"There is no task os\.system"):
        find_launchable("os.system")


def test_options_are_those_of_every_launch() -> None:
    with timezone.override(ZoneInfo("Europe/Berlin")):
        form = OptionsForm({"queue": " heavy ", "priority": "-7", "run_after": "2026-03-12T14:05"})
        assert form.is_valid(), form.errors
    at = datetime(2026, 3, 12, 13, 5, tzinfo=UTC)
    assert form.options() == {"queue_name": "heavy", "priority": -7, "run_after": at}
    create_task.using(**form.options())

    empty = OptionsForm({})
    assert empty.is_valid()
    assert empty.options() == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("queue", "x" * 101),
        ("queue", "a\0b"),
        ("queue", "\ud800"),
        ("priority", "101"),
        ("priority", "-101"),
        ("priority", "high"),
        ("priority", "9" * 10_000),
        ("run_after", "soon"),
        ("run_after", "9999-12-31T23:59"),
        ("run_after", "0001-01-01T00:00"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(name: str, text: str) -> None:
    form = OptionsForm({name: text})

    assert not form.is_valid()
    assert list(form.errors) == [name]
    assert errors(form)[name].endswith(".")
