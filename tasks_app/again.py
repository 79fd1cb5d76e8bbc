"""SUBMIT: sending a task with arguments that somebody typed, anew or as a past run had them."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import Any, cast

from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast, Left
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import catalog
from tasks_app.backend import PostgresBackend, PostgresTask
from tasks_app.engine.unique import rule_of
from tasks_app.engine.wishes import KeyReused
from tasks_app.forms import OnceForm
from tasks_app.jsonable import Cut
from tasks_app.models import TaskRun
from tasks_app.parameters import ABSENT, is_same, placed
from tasks_app.signature import CallForm, Change, OptionsForm, find_launchable, form_of
from tasks_app.values import READ, loaded


class Launch:
    """A task's form, its options, and what came of sending it."""

    def __init__(self, task: Task[..., Any], data: Any = None, past: TaskRun | None = None) -> None:
        self.task, self.past = task, past
        self.once = OnceForm(data)
        self.options = OptionsForm(data, initial=options_of(task, past))
        if past is not None:
            self.form: CallForm = CallForm.from_call(task, past.args, past.kwargs, data)
        else:
            self.form = form_of(task)(data)

    @property
    def is_fine(self) -> bool:
        return all([form.is_valid() for form in (self.form, self.options, self.once)])  # noqa: C419  all tell

    def send(self, owner: Any) -> TaskRun | None:
        """The run, or None with the reason in the form."""
        try:
            run = self._send(owner)
        except KeyReused as reused:
            run = reused.run
        except InvalidTaskError as error:
            self.form.add_error(None, str(error))
            return None
        return run

    def _send(self, owner: Any) -> TaskRun:
        args, kwargs = self.form.call()
        options = self.options.options()
        task = self.task.using(**options) if options else self.task
        if self.past is not None and self.past.about and isinstance(task, PostgresTask):
            task = replace(task, about=self.past.about)
        # The same form sent twice makes one run; changed before it is sent again, it makes another. A unique task
        # takes no such key: it has one of its own.
        key = None if rule_of(task) else self.once.key_for(digest_of([task.module_path, args, kwargs, options]))
        backend = cast(PostgresBackend, task.get_backend())
        with transaction.atomic():
            run = backend.enqueue_run(task, args, kwargs, owner=owner, idempotency_key=key)
            if self.past is not None and not run.was_standing:
                TaskRun.objects.filter(pk=run.pk).update(again_of=self.past.pk)
        return run


def options_of(task: Task[..., Any], past: TaskRun | None) -> dict[str, Any]:
    """Where a past run differs from what its task says of itself, the form says it, too."""
    if past is None:
        return {}
    told = {
        "queue": past.queue_name if past.queue_name != task.queue_name else None,
        "priority": past.priority if past.priority != task.priority else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def digest_of(what: object) -> str:
    return blake2b(json.dumps(what, sort_keys=True, default=str).encode(errors="replace"), digest_size=16).hexdigest()


def changes_of(run: TaskRun) -> list[Change]:
    """What of its call is not as it was in the run from which it was made."""
    if run.again_of_id is None:
        return []
    read = {f"{name}_read": Left(Cast(name, TextField()), READ + 1) for name in ("args", "kwargs")}
    past = TaskRun.objects.filter(pk=run.again_of_id).values_list(*read.values()).first()
    if past is None:
        return []
    calls = [run.args, run.kwargs, *map(loaded, past)]
    if any(isinstance(part, Cut) for part in calls):
        return []
    after, before = by_name(run.task_path, *calls[:2]), by_name(run.task_path, *calls[2:])
    return [
        Change(name, before.get(name, ABSENT), after.get(name, ABSENT))
        for name in dict.fromkeys([*after, *before])
        if not is_same(before.get(name, ABSENT), after.get(name, ABSENT))
    ]


def by_name(path: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names that the task has for them, as far as it is known here."""
    try:
        parameters = form_of(find_launchable(path)).parameters
    except catalog.UnknownTask:
        parameters = ()
    values, further, named = placed(parameters, args, kwargs)
    return {**values, **{f"argument {place}": value for place, value in enumerate(further, start=1)}, **named}
