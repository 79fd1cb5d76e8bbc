"""SUBMIT: the business object that a run is about, any row of the project's own tables, by one short text.

A run outlives what it is about, so it has no more of it than this name; `tasks_app.subject` looks it up for a page.
"""

from __future__ import annotations

import re

from django.db import models
from django_tasks.exceptions import InvalidTaskError

from tasks_app import wording
from tasks_app.models.run import ABOUT_LENGTH

TEXT = re.compile(r"([^\W\d]\w*\.[^\W\d]\w*):(.+)")


def text_of(instance: object) -> str:
    """`shop.order:48213`; raises `InvalidTaskError` for what is no object of a model, or cannot be named."""
    if not isinstance(instance, models.Model):
        raise InvalidTaskError(f"about is an object of a model, not a {type(instance).__name__}.")
    # As Django's content types have it: a proxy is the same row as what it stands for.
    meta = (instance._meta.concrete_model or type(instance))._meta
    if instance.pk is None:
        raise InvalidTaskError(f"about is an object with a primary key: save this {meta.label} first.")
    if isinstance(instance.pk, tuple):
        raise InvalidTaskError(f"about is an object with a key of one column, which {meta.label} has not.")
    try:
        key = str(meta.pk.to_python(instance.pk))  # the same of 7 and "7"
    except Exception:
        raise InvalidTaskError(f"about is an object with a primary key: no {meta.label} can have this one.") from None
    text = f"{meta.label_lower}:{key}"
    if read_about(text) != text or not text.isprintable() or key != key.strip():
        raise InvalidTaskError(
            f"about is named by {meta.label_lower} and its primary key: at most {ABOUT_LENGTH} characters together, "
            "none of them hidden."
        )
    return text


def read_about(text: str) -> str | None:
    """The name that somebody has typed, as runs have it; None for what names nothing."""
    match = TEXT.fullmatch(text) if len(text) <= ABOUT_LENGTH else None
    return f"{match[1].lower()}:{match[2]}" if match else None


def told(text: str) -> str:
    """`order 48213`"""
    label, _, key = text.partition(":")
    return wording.visible(f"{label.rpartition('.')[2]} {key}")
