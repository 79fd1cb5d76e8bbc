from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from tasks_app import audit
from tasks_app.audit import By
from tasks_app.clock import database_now
from tasks_app.models.run import QUEUE_NAME_LENGTH, TASK_PATH_LENGTH
from tasks_app.pace import BadLimit, read_count, read_rate, told

if TYPE_CHECKING:
    from typing import Self


TOLD = 100
"""Names of queues in one entry of the audit."""


def check_until(until: datetime | None) -> None:
    """Raise `BadLimit` for what is no end of a pause."""
    if until is not None and timezone.is_naive(until):
        raise BadLimit("The end of a pause needs a time zone.")
    if until is not None and until <= timezone.now():
        raise BadLimit("The end of a pause lies ahead of now.")


def steer() -> None:
    """Have every cluster look at once."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('dumbwaiter', 'steer')")


class Policy(models.Model):
    """What holds for a queue or a task on all hosts.

    Its verbs make the row if there is none, have every cluster look at once, and are audited. They raise `BadLimit`,
    a `ValueError`, for what cannot be.
    """

    paused_at = models.DateTimeField(null=True, blank=True, help_text="Since when nothing of it is claimed.")
    paused_until = models.DateTimeField(null=True, blank=True, help_text="When it goes on by itself; empty: never.")
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    pause_reason = models.CharField(max_length=500, blank=True, default="")
    max_running = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many of its runs may be held at once, over all hosts; empty: any number."
    )

    what: ClassVar[str]
    """The word for what it is the policy of."""

    class Meta:
        abstract = True

    @classmethod
    def pause(cls, name: str, *, by: By = None, why: str = "", until: datetime | None = None) -> Self:
        """Have nothing of it claimed any more, until then or until somebody resumes it; runs at hand end as usual."""
        check_until(until)
        why = audit.clip(str(why).strip(), audit.REASON_LENGTH)
        columns = {"paused_at": Now(), "paused_by": audit.actor_of(by).user, "pause_reason": why}
        details = {"until": until.isoformat()} if until else {}
        return cls._set(name, {**columns, "paused_until": until}, "pause", by, why, details)

    @classmethod
    def resume(cls, name: str, *, by: By = None, why: str = "") -> Self:
        """End its pause."""
        columns = {"paused_at": None, "paused_until": None, "paused_by": None, "pause_reason": ""}
        return cls._set(name, columns, "resume", by, why, {})

    @classmethod
    def limit(cls, name: str, max_running: int | None, *, by: By = None, why: str = "") -> Self:
        """Have no more of its runs held at once than that, over all hosts; None for any number."""
        columns = {"max_running": None if max_running is None else read_count("max_running", max_running)}
        return cls._set(name, columns, "limit", by, why, columns)

    @classmethod
    def check_name(cls, name: str) -> None:
        longest = cls._meta.pk.max_length or 0
        if not isinstance(name, str) or not 1 <= len(name) <= longest or "\0" in name:
            raise BadLimit(f"The name of a {cls.what} has 1 to {longest} characters.")

    @classmethod
    def _set(
        cls, name: str, columns: dict[str, Any], verb: str, by: By, why: str, details: Mapping[str, object]
    ) -> Self:
        cls.check_name(name)
        with transaction.atomic():
            policy, _ = cls._default_manager.update_or_create(pk=name, defaults=columns)
            audit.record(verb, subject=f"{cls.what} {name}", by=by, why=why, details=details)
            steer()
        policy.refresh_from_db()
        return policy

    def is_paused(self, now: datetime) -> bool:
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > now)


class Queue(Policy):
    """The policy of one queue. A queue without a row has none."""

    name = models.CharField(max_length=QUEUE_NAME_LENGTH, primary_key=True)
    is_drained = models.BooleanField(
        default=False, db_default=False, help_text="It is paused with all the others, and goes on with them."
    )

    what = "queue"

    def __str__(self) -> str:
        return self.name

    @classmethod
    def drain(cls, names: Iterable[str], *, by: By = None, why: str = "", until: datetime | None = None) -> int:
        """Pause all of these that are not paused yet: what runs ends, nothing begins; answers how many.

        Those of them that somebody had paused for a reason of their own stay as they are, also when the drain is over.
        """
        check_until(until)
        why = audit.clip(str(why).strip(), audit.REASON_LENGTH)
        pause = {"paused_at": Now(), "paused_until": until, "paused_by": audit.actor_of(by).user, "pause_reason": why}
        names = sorted(set(names))
        for name in names:
            cls.check_name(name)
        with transaction.atomic():
            # Locked in the order of their names, as two who drain at once should.
            Queue.objects.bulk_create([Queue(name=name) for name in names], ignore_conflicts=True)
            rows = list(cls.objects.select_for_update().filter(name__in=names).order_by("name"))
            now = database_now()
            free = [str(queue.pk) for queue in rows if not queue.is_paused(now)]
            cls.objects.filter(name__in=free).update(**pause, is_drained=True)
            details = {"queues": free[:TOLD], **({"until": until.isoformat()} if until else {})}
            if free:
                audit.record("pause", subject="all queues", by=by, why=why, details=details)
            steer()
        return len(free)

    @classmethod
    def undrain(cls, *, by: By = None) -> int:
        """Have those go on that `drain` had paused; answers how many."""
        go_on = {"paused_at": None, "paused_until": None, "paused_by": None, "pause_reason": "", "is_drained": False}
        with transaction.atomic():
            found = list(cls.objects.select_for_update().filter(is_drained=True).order_by("name"))
            names = [queue.name for queue in found]
            cls.objects.filter(name__in=names).update(**go_on)
            if names:
                audit.record("resume", subject="all queues", by=by, details={"queues": names[:TOLD]})
            steer()
        return len(names)

    @classmethod
    def _set(
        cls, name: str, columns: dict[str, Any], verb: str, by: By, why: str, details: Mapping[str, object]
    ) -> Self:
        """A pause of its own, or the end of one, takes it out of the drain of all."""
        if verb in {"pause", "resume"}:
            columns = {**columns, "is_drained": False}
        return super()._set(name, columns, verb, by, why, details)


class TaskLimit(Policy):
    """The limits of one task, and how much of its rate is used up."""

    key = models.CharField(max_length=TASK_PATH_LENGTH, primary_key=True, help_text="The path of the task.")
    rate_count = models.PositiveIntegerField(null=True, help_text="How many runs may begin in `rate_seconds`.")
    rate_seconds = models.FloatField(null=True)
    burst = models.PositiveIntegerField(default=1, help_text="How many of them may begin at the same moment.")
    next_at = models.DateTimeField(
        null=True, help_text="When the next would begin if all came evenly: the TAT of the generic cell rate algorithm."
    )
    declared = models.JSONField(
        null=True, help_text="What the code of the task said last; somebody may have changed the fields since."
    )
    declared_at = models.DateTimeField(null=True, help_text="When it did, or when newer code said nothing any more.")

    what = "task"

    class Meta:
        verbose_name = "limit of a task"
        verbose_name_plural = "limits of tasks"

    def __str__(self) -> str:
        return self.key

    @classmethod
    def pace(cls, name: str, rate: str | None, burst: int = 1, *, by: By = None, why: str = "") -> Self:
        """Have no more of its runs begin than `10/s`, `10/m` or `10/h`, so many of them at once; None for any."""
        count, seconds = (None, None) if rate is None else read_rate(rate)
        if rate is None and burst != 1:
            raise BadLimit("burst needs a rate.")
        columns = {"rate_count": count, "rate_seconds": seconds, "burst": read_count("burst", burst), "next_at": None}
        return cls._set(name, columns, "pace", by, why, {"rate": rate, "burst": burst})

    @classmethod
    def change(cls, name: str, max_running: int | None, rate: str | None, burst: int = 1, *, by: By = None) -> None:
        """Both limits at once; one that stays as it was keeps how much of it is used up."""
        count, seconds = (None, None) if rate is None else read_rate(rate)
        with transaction.atomic():
            before = cls.objects.filter(pk=name).first()
            if (before.max_running if before else None) != max_running:
                cls.limit(name, max_running, by=by)
            paced = (before.rate_count, before.rate_seconds, before.burst) if before else (None, None, 1)
            if paced != (count, seconds, burst):
                cls.pace(name, rate, burst, by=by)

    @property
    def rate(self) -> str:
        """`10 a minute, 5 at once`; empty without one."""
        return told(self.rate_count, self.rate_seconds, self.burst) if self.rate_count and self.rate_seconds else ""
