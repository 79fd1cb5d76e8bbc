"""STEER: what the forms say of a value that cannot be: in the words of these pages, not in those of Django."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms

from tasks_app.audit import REASON_LENGTH

NO_NUL = "A NUL character cannot be kept. Leave it out."
SENTENCES = {
    "required": "This has to be filled in.",
    "invalid_choice": "Choose one of the list.",
    "max_length": "At most %(limit_value)d characters.",
    "null_characters_not_allowed": NO_NUL,
    "min_value": "Give %(limit_value)s or more.",
    "max_value": "Give %(limit_value)s or less.",
}
INVALID: tuple[tuple[type[forms.Field], str], ...] = (
    (forms.IntegerField, "Give a whole number."),
    (forms.JSONField, "This is no JSON."),
    (forms.SplitDateTimeField, "Give a date and a time."),
)
"""What `invalid` means is different from kind to kind."""


def say_plainly(fields: Iterable[forms.Field]) -> None:
    """Have these fields say it so, where they have no sentence of their own."""
    for field in fields:
        stock = stock_of(field)
        kinds = (said for kind, said in INVALID if isinstance(field, kind))
        sentences = SENTENCES | {"invalid": next(kinds, stock.get("invalid", ""))}
        for code, said in sentences.items():
            if field.error_messages.get(code) == stock.get(code):
                field.error_messages[code] = said


def stock_of(field: forms.Field) -> dict[str, Any]:
    """Django's own words for what is wrong with such a field."""
    found: dict[str, Any] = {}
    for kind in reversed(type(field).__mro__):
        found |= getattr(kind, "default_error_messages", {})
    return found


class PlainForm(forms.Form):
    """A form that speaks as the pages do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        say_plainly(self.fields.values())


class ReasonField(forms.CharField):
    """Why somebody does something, for the audit; nobody has to say it."""

    def __init__(self, **options: Any) -> None:
        sentences = {
            "max_length": f"A reason has at most {REASON_LENGTH} characters.",
            "null_characters_not_allowed": "A reason has no NUL character in it. Leave it out.",
        }
        super().__init__(max_length=REASON_LENGTH, required=False, error_messages=sentences, **options)
