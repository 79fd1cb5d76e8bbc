"""WATCH: the runs of a list as a file for spreadsheets or programs, however many they are.

Neither memory nor a transaction grows with them: the list is walked by its index, a stretch of it at a time, and of
each stretch a few rows are read whole. A run is in it at most once, whatever becomes of it meanwhile.
"""

from __future__ import annotations

import csv
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Func, IntegerField, Q, TextField
from django.db.models.functions import Cast, Coalesce

from tasks_app import wording
from tasks_app.masking import masked_text, masked_texts
from tasks_app.models import TaskRun, TaskRunQuerySet
from tasks_app.paging import Place, beyond

COLUMNS = (
    *("id", "task_path", "args", "kwargs", "queue_name", "priority", "status", "owner", "schedule_name", "workflow"),
    *("step", "retry_of", "about", "run_after", "expires_at", "enqueued_at", "claimed_at", "started_at", "finished_at"),
    *("claimed_by", "attempt", "max_attempts", "timeout", "cancel_requested_at", "progress", "return_value"),
    *("failure", "failure_message", "attempts"),
)
"""Named as the model has them; `owner` is the person's name."""

JSON_COLUMNS = ("args", "kwargs", "progress", "return_value", "attempts")
"""Read and written as the text that the database has of them, but for secrets."""

STRETCH = 20_000
"""Runs of the whole list that are looked through at once: a statement is short, however few of them match."""

ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 1_000_000
"""Values may be a megabyte each."""

BOM = "\ufeff"
"""By which spreadsheets know UTF-8."""

FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
"""With what a spreadsheet lets a formula begin; in some countries also in their full width."""

UNSEEN = re.compile(r"[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What cannot be seen and stands in JSON as it is; the control characters below are escaped already."""


def rows(runs: TaskRunQuerySet) -> Iterator[list[Any]]:
    """The values of `COLUMNS` of each run, newest first; JSON as text."""
    for stretch in stretches():
        for ids in portions(runs.filter(stretch)):
            found = {row[0]: list(row) for row in read(ids)}
            yield from (found[pk] for pk in ids if pk in found)


def stretches() -> Iterator[Q]:
    """Conditions that part all the runs there are now into stretches of so many, from the newest on."""
    first = TaskRun.objects.newest().only("enqueued_at").first()
    if first is None:
        return
    above = Q(enqueued_at__lt=first.enqueued_at) | Q(enqueued_at=first.enqueued_at, pk__lte=first.pk)
    above &= Q(enqueued_at__lte=first.enqueued_at)
    while True:
        last = TaskRun.objects.filter(above).newest().only("enqueued_at")[STRETCH - 1 : STRETCH].first()
        if last is None:
            yield above
            return
        place = Place(last.enqueued_at, last.pk)
        yield above & (beyond("enqueued_at", place, "gt") | Q(pk=last.pk))
        above = beyond("enqueued_at", place, "lt")


def portions(runs: TaskRunQuerySet) -> Iterator[list[uuid.UUID]]:
    """Their ids, newest first, so many at a time that their values are no burden."""
    sizes = [Coalesce(Func(Cast(name, TextField()), function="octet_length"), 0) for name in JSON_COLUMNS]
    weight = sum(sizes[1:], start=sizes[0])
    weighed = runs.newest().annotate(weight=Cast(weight, IntegerField())).values_list("pk", "weight")
    portion: list[uuid.UUID] = []
    heavy = 0
    for pk, weight_of_it in weighed:
        if portion and (len(portion) >= ROWS_AT_ONCE or heavy + weight_of_it > BYTES_AT_ONCE):
            yield portion
            portion, heavy = [], 0
        portion.append(pk)
        heavy += weight_of_it
    if portion:
        yield portion


def read(ids: Sequence[uuid.UUID]) -> Iterator[tuple[Any, ...]]:
    texts = {f"{name}_text": Cast(name, TextField()) for name in JSON_COLUMNS}
    names = {"owner": "owner__username", **{name: f"{name}_text" for name in JSON_COLUMNS}}
    found = TaskRun.objects.filter(pk__in=ids).annotate(**texts)
    for row in found.values_list(*(names.get(name, name) for name in COLUMNS)):
        told = dict(zip(COLUMNS, row, strict=True))
        told["args"], told["kwargs"] = masked_texts(told["task_path"], told["args"], told["kwargs"])
        if told["return_value"] is not None:
            told["return_value"] = masked_text(told["return_value"])
        yield tuple(told.values())


# As a file


class Echo:
    """Gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def as_csv(runs: TaskRunQuerySet) -> Iterator[str]:
    """Lines for a spreadsheet: no cell is a formula, and none hides a character."""
    writer = csv.writer(Echo())
    yield BOM + writer.writerow(COLUMNS)
    for row in rows(runs):
        yield writer.writerow([cell(value) for value in row])


def cell(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    shown = wording.visible(text)
    return f"'{shown}" if FORMULA.match(text) or FORMULA.match(text.lstrip()) else shown


def as_json(runs: TaskRunQuerySet) -> Iterator[str]:
    """One array with an object a run, a line each."""
    yield "["
    between = "\n"
    for row in rows(runs):
        yield between + object_of(row)
        between = ",\n"
    yield "\n]\n"


def object_of(row: Sequence[Any]) -> str:
    parts = []
    for name, value in zip(COLUMNS, row, strict=True):
        if name in JSON_COLUMNS and value is not None:
            text = UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
        else:
            text = plain(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return f"{{{', '.join(parts)}}}"


def plain(value: object) -> str:
    if isinstance(value, datetime):
        value = value.isoformat()
    elif isinstance(value, uuid.UUID):
        value = str(value)
    return json.dumps(value)


def file_name(state: str, is_filtered: bool, day: datetime, suffix: str) -> str:
    """`runs-failed-filtered-2026-03-12.csv`"""
    parts = ["runs", state or "all", *(["filtered"] if is_filtered else []), f"{day:%Y-%m-%d}"]
    return f"{'-'.join(parts)}.{suffix}"
