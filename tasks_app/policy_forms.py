"""STEER: what the pages take for a pause and a limit, of a queue or a task."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from django import forms
from django.http import HttpRequest

from tasks_app.clock import database_now
from tasks_app.fields import ReasonField

PAUSES = (("", "until I resume it"), ("15", "for 15 minutes"), ("60", "for an hour"), ("1440", "for a day"))


class PauseForm(forms.Form):
    """For how long or until when, and why."""

    minutes = forms.TypedChoiceField(choices=PAUSES, required=False, coerce=int, empty_value=None)
    until = forms.DateTimeField(required=False)
    why = ReasonField()

    @classmethod
    def read(cls, request: HttpRequest) -> tuple[datetime | None, str]:
        """When the pause ends by itself, and its reason; raises `ValidationError` with one sentence."""
        form = cls(request.POST)
        if "why" in form.errors:
            raise forms.ValidationError(str(form.errors["why"][0]))
        if not form.is_valid():
            raise forms.ValidationError(
                "A pause lasts until it is resumed, or 15 minutes, an hour or a day, or until a date and time."
            )
        minutes, until = form.cleaned_data["minutes"], form.cleaned_data["until"]
        if minutes and not until:
            until = database_now() + timedelta(minutes=minutes)
        return until, form.cleaned_data["why"]


class LimitForm(forms.Form):
    """How many at once; empty for any number."""

    most = forms.IntegerField(
        min_value=1, max_value=10_000, required=False, error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value"), "A limit is a whole number from 1 to 10 000, or nothing for none."
        ),
    )  # fmt: skip

    @classmethod
    def read(cls, request: HttpRequest) -> int | None:
        form = cls(request.POST)
        if not form.is_valid():
            raise forms.ValidationError(str(form.errors["most"][0]))
        return cast("int | None", form.cleaned_data["most"])
