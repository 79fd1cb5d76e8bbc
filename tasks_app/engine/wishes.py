"""What a submission may ask for besides being run: to be the only one of its key, to be one, to expire, to be about
something.

A run that asks for none of it never comes here. Several keys in one transaction are like several rows: two transactions
that take the same ones in opposite orders block each other, which PostgreSQL ends with an `OperationalError` for one of
them, to be done again. The same comes, at once, of a key that is taken behind the back of a caller's REPEATABLE READ.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django_tasks.exceptions import InvalidTaskError

from tasks_app.engine import statements
from tasks_app.engine.connect import execute_prepared
from tasks_app.engine.unique import UniqueRule, canonical, rule_of
from tasks_app.ids import new_id
from tasks_app.models import Status, TaskRun

Row = tuple[list[Any], dict[str, Any], str, str]
"""The arguments of a call, plain and as JSON texts."""

TRIES = 100
"""So often may a key be taken by one run after the other, each gone again before it could be read."""

KEY_LENGTH = 255


class KeyReused(InvalidTaskError):
    """The idempotency key was used for other arguments, or another task; the message is a sentence."""

    def __init__(self, run: TaskRun):
        super().__init__("This idempotency key was used for another task or other arguments. Take a new one.")
        self.run = run
        run.was_standing = True


@dataclass(slots=True)
class Placed:
    """What became of a submission: a new run, or one that stood already."""

    enqueued_at: datetime
    expires_at: datetime | None = None
    standing: TaskRun | None = None
    was_replaced: bool = False


@dataclass(slots=True, kw_only=True)
class Wishes:
    """Raises `InvalidTaskError`, in `place`, for those that do not go together."""

    unique: UniqueRule | None = None
    expires_at: datetime | None = None
    expires_after: float | None = None
    idempotency_key: str | None = None
    about: str | None = None

    @property
    def is_unsteady(self) -> bool:
        """Whether a run of it may not come to be, or end before it has begun."""
        return bool(self.unique or self.expires_at or self.expires_after or self.idempotency_key)

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "unique_key": None,
            "unique_for": self.unique.seconds if self.unique else None,
            "idempotency_key": self.idempotency_key,
            "expires_at": self.expires_at,
            "expires_after": self.expires_after,
            "about": self.about,
        }

    def place(self, given: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Placed:
        """Insert the run, or find the one that has its key; `given` is what `statements.ENQUEUE` takes."""
        if self.unique and self.idempotency_key is not None:
            raise InvalidTaskError("A unique task takes no idempotency key: its own key is one.")
        given = {**self.columns, **given}
        if self.unique:
            given["unique_key"] = self.unique.key(args, kwargs)
        for _ in range(TRIES):
            if row := execute_prepared(statements.ENQUEUE_WITH_WISHES, given):
                return Placed(datetime.fromtimestamp(row[0], UTC), row[1])
            found = self._replaced_or_standing(given) if self.unique else self._repeated(given, args, kwargs)
            if found:
                return found
        raise InvalidTaskError("Its key was taken and free again all the time. Try it once more.")

    def place_many(self, given: Mapping[str, Any], rows: Sequence[Row]) -> list[uuid.UUID]:
        """The same for many calls of one task; answers the ids in order, of new runs and of standing ones."""
        ids = [new_id() for _ in rows]
        keys = [self.unique.key(row[0], row[1]) if self.unique else "" for row in rows]
        order = sorted(range(len(rows)), key=keys.__getitem__)
        given = {**self.columns, **given}
        columns: dict[str, Any] = {
            "id": [ids[at] for at in order],
            "args": [rows[at][2] for at in order],
            "kwargs": [rows[at][3] for at in order],
            "unique_key": [keys[at] or None for at in order],
        }
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(statements.ENQUEUE_MANY_WITH_WISHES, {**given, **columns})
            made = {run_id for (run_id,) in cursor.fetchall()}
        left = [at for at in order if ids[at] not in made]
        skipped = self.unique is not None and not self.unique.replaces
        found = standing(*{keys[at] for at in left}) if left and skipped else {}
        for at in left:
            run = found.get(keys[at])
            if run is None:
                args, kwargs, args_json, kwargs_json = rows[at]
                run = self.place(
                    {**given, "id": ids[at], "args": args_json, "kwargs": kwargs_json}, args, kwargs
                ).standing
            if run is not None:
                ids[at] = run.pk
        return ids

    def _replaced_or_standing(self, given: Mapping[str, Any]) -> Placed | None:
        """None when nothing has the key any more."""
        assert self.unique
        replaced = self.unique.replaces and execute_prepared(statements.REPLACE, given)
        run = standing(given["unique_key"]).get(given["unique_key"])
        if run and self.unique.replaces and not replaced and is_free(run):
            return None  # given back by its worker just now, so it can be replaced after all
        if run:
            return Placed(run.enqueued_at, run.expires_at, run, was_replaced=bool(replaced))
        release([given["unique_key"]])
        return None

    def _repeated(self, given: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Placed | None:
        """The run that was sent with this key before; None when that is too long ago, and forgotten."""
        sent = TaskRun.objects.filter(owner=given["owner"], idempotency_key=self.idempotency_key)
        fresh = Now() - timedelta(seconds=settings.IDEMPOTENCY_SECONDS)
        run = sent.filter(enqueued_at__gt=fresh).select_related("owner").first()
        if run is None:
            sent.filter(enqueued_at__lte=fresh).update(idempotency_key=None)
            return None
        if (run.task_path, canonical([run.args, run.kwargs])) != (given["task_path"], canonical([args, kwargs])):
            raise KeyReused(run)
        return Placed(run.enqueued_at, run.expires_at, run)


def wishes_of(task: Any) -> Wishes | None:
    """What the task says its runs ask for; None, as for most, when that is nothing."""
    expires_at, expires_after = getattr(task, "expires_at", None), getattr(task, "expires_after", None)
    rule, about = rule_of(task), getattr(task, "about", None)
    if rule is None and expires_at is None and expires_after is None and about is None:
        return None
    return Wishes(unique=rule, expires_at=expires_at, expires_after=expires_after, about=about)


def is_free(run: TaskRun) -> bool:
    return run.status == Status.READY and run.claimed_by is None


def standing(*unique_keys: str) -> dict[str, TaskRun]:
    """The runs that have these keys, by their keys; of two for one, as of a changed task, the unfinished one."""
    runs = TaskRun.objects.standing(unique_keys).select_related("owner")
    return {str(run.unique_key): run for run in sorted(runs, key=lambda run: not run.is_finished)}


def release(unique_keys: Sequence[str]) -> None:
    """Forget those of them whose time is over."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(statements.RELEASE_KEY, {"unique_keys": list(unique_keys)})


def check_idempotency_key(key: str) -> str:
    """Raises `InvalidTaskError` with a sentence."""
    if not (0 < len(key) <= KEY_LENGTH and key.isprintable()):
        raise InvalidTaskError(f"An idempotency key has 1 to {KEY_LENGTH} characters, and no control characters.")
    return key


@receiver(pre_delete, sender=settings.AUTH_USER_MODEL, dispatch_uid="dumbwaiter-keys")
def forget_keys(sender: object, instance: Any, **kwargs: Any) -> None:
    """The runs of somebody who goes belong to nobody then, of whom each key can be but once."""
    TaskRun.objects.filter(owner=instance.pk).exclude(idempotency_key=None).update(idempotency_key=None)
