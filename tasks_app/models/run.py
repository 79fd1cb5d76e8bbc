from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from tasks_app.clock import EPOCH
from tasks_app.ids import new_id

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.auth.models import User as AbstractUser

    from tasks_app.audit import By
    from tasks_app.engine.acts import Tally
    from tasks_app.engine.verbs import Verb
    from tasks_app.live import Viewer

QUEUE_NAME_LENGTH = 100
TASK_PATH_LENGTH = 255
ABOUT_LENGTH = 200


class Status(models.TextChoices):
    """Where a run stands; Django's own words (DEP 14) and one more."""

    READY = "READY", "Ready"
    """Waits for a worker, or is held by one that has not begun it yet (then `claimed_by` is set)."""

    RUNNING = "RUNNING", "Running"
    """A worker is at it."""

    SUCCESSFUL = "SUCCESSFUL", "Successful"
    """Ended with a return value."""

    FAILED = "FAILED", "Failed"
    """Ended without one, and nothing runs it again unless someone does; `failure` says why."""

    CANCELLED = "CANCELLED", "Cancelled"
    """Someone ended it."""


UNFINISHED = (Status.READY, Status.RUNNING)
FINISHED = (Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED)


class Failure(models.TextChoices):
    """Why a run failed, apart from the fact that it did."""

    ERROR = "error", "Error"
    """The task raised an exception, or returned what cannot be kept."""

    TIMED_OUT = "timed_out", "Timed out"
    """The task ran longer than its limit."""

    WORKER_LOST = "worker_lost", "Worker lost"
    """The process that ran it died, and no attempt was left."""

    REJECTED = "rejected", "Rejected"
    """There is no such task, or it cannot be called with these arguments."""


GIVEN_BACK = "given_back"
"""The reason in an entry of `attempts` for a run that had begun when its worker was stopped: it does not count."""


class TaskRunQuerySet(models.QuerySet["TaskRun"]):
    """Reads, one method a state; and the verbs, which take any filter and any number of runs.

    A verb changes what may be changed and answers how many that were, and why the others stay as they are. The audit
    has who (`by`: an `Actor`, a user, or None for code) and `why`.
    """

    def ready(self) -> TaskRunQuerySet:
        return self.filter(status=Status.READY)

    def waiting(self) -> TaskRunQuerySet:
        """Ready and held by nobody, under no limit and with nothing to wait for: what the index of claims has in it."""
        return self.filter(status=Status.READY, claimed_by=None, limit_key=None, is_waiting=None)

    def under_limits(self) -> TaskRunQuerySet:
        """The same of tasks that have limits: they stand in an index of their own."""
        return self.filter(status=Status.READY, claimed_by=None, limit_key__isnull=False, is_waiting=None)

    def running(self) -> TaskRunQuerySet:
        return self.filter(status=Status.RUNNING)

    def successful(self) -> TaskRunQuerySet:
        return self.filter(status=Status.SUCCESSFUL)

    def failed(self) -> TaskRunQuerySet:
        return self.filter(status=Status.FAILED)

    def cancelled(self) -> TaskRunQuerySet:
        return self.filter(status=Status.CANCELLED)

    def unfinished(self) -> TaskRunQuerySet:
        return self.filter(status__in=UNFINISHED)

    def finished(self) -> TaskRunQuerySet:
        return self.filter(status__in=FINISHED)

    def standing(self, unique_keys: Iterable[str]) -> TaskRunQuerySet:
        """The runs that have these keys now; by the time of the statement, and by the index of each half."""
        taken = Q(status__in=UNFINISHED) | Q(unique_until__gt=Now())
        return self.filter(taken, unique_key__in=list(unique_keys))

    def newest(self) -> TaskRunQuerySet:
        return self.order_by("-enqueued_at", "-id")

    def owned_by(self, user: AbstractUser | AnonymousUser | Viewer) -> TaskRunQuerySet:
        """The runs that this person sent; a guest of open access (anonymous) has those without an owner."""
        return self.filter(owner=user.pk if user.is_authenticated else None)

    def visible_to(self, user: AbstractUser | AnonymousUser | Viewer) -> TaskRunQuerySet:
        """The runs that this person may see: the own ones, and all of them for staff.

        Of a request it is asked with its `live.Viewer`, which knows that a guest of open access sees all of them, too.
        """
        return self.all() if user.is_staff else self.owned_by(user)

    def about(self, instance: models.Model) -> TaskRunQuerySet:
        """The runs that were sent about this object; raises `InvalidTaskError` for what no run can be about."""
        from tasks_app.about import text_of

        return self.filter(about=text_of(instance))

    # Verbs

    def cancel(self, *, by: By = None, why: str = "") -> Tally:
        """End what has not ended: at once if no worker holds it, else its worker is told to stop it."""
        from tasks_app.engine import acts, verbs

        return acts.perform(verbs.cancel(by, why), self, by, why)

    def retry(self, *, by: By = None, why: str = "", successful_too: bool = False) -> Tally:
        """Send what failed or was cancelled once more, as new runs of their own; what was sent so before stays."""
        from tasks_app.clock import database_now
        from tasks_app.engine import acts, verbs

        # Its own retries may have failed, too, before it is done with the others: those are not meant.
        return acts.perform(verbs.retry(by, successful_too, anew=False), self, by, why, before=database_now())

    def delete_runs(self, *, by: By = None, why: str = "") -> Tally:
        """Delete what has ended, with its log and its files; runs of a workflow that goes on are left."""
        from tasks_app.engine import acts, verbs

        return acts.perform(verbs.delete(), self, by, why)

    def set_priority(self, priority: int, *, by: By = None, why: str = "") -> Tally:
        """For what no worker has taken yet; raises `InvalidTaskError` outside of -100 to 100."""
        from tasks_app.engine import acts, verbs

        return acts.perform(verbs.set_priority(priority), self, by, why)

    def move_to(self, queue: str, *, by: By = None, why: str = "") -> Tally:
        """Into another queue, what no worker has taken yet; raises `InvalidTaskError` for a bad name."""
        from tasks_app.engine import acts, verbs

        return acts.perform(verbs.move_to(queue), self, by, why)

    def run_at(self, moment: datetime | None = None, *, by: By = None, why: str = "") -> Tally:
        """Not before this moment, or now, what no worker has taken yet; raises `InvalidTaskError` for a bad one."""
        from tasks_app.engine import acts, verbs

        return acts.perform(verbs.run_at(moment), self, by, why)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Refused: it would take runs from under their workers, and leave their logs, files and no trace."""
        raise TypeError("Runs are deleted with delete_runs(), which takes those that have ended.")

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Attempt:
    """One try of a run, as its page tells it."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    reason: str = ""
    exception: str = ""
    message: str = ""
    traceback: str = ""

    @property
    def duration(self) -> timedelta | None:
        return self.ended_at - self.started_at if self.ended_at else None


class TaskRun(models.Model):
    """One submission of a task, from enqueue to history: the queue and the record are the same row.

    The engine (`tasks_app.engine`) moves it through its states in single statements; nothing else writes it.
    """

    was_standing = was_replaced = False
    """True on what an enqueue answers when no run was made, because this one has the key; and when it was changed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    task_path = models.CharField("task", max_length=TASK_PATH_LENGTH)
    args = models.JSONField(default=list)
    kwargs = models.JSONField(default=dict)
    queue_name = models.CharField("queue", max_length=QUEUE_NAME_LENGTH, default="default")
    priority = models.SmallIntegerField(default=0, help_text="-100 to 100; a higher one goes first.")
    status = models.CharField(max_length=10, choices=Status, default=Status.READY)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, db_index=False, related_name="+"
    )

    # Both only where a schedule submitted it. Without a constraint in the database: the name tells of one that is gone.
    schedule = models.ForeignKey(
        "django_q.Schedule",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    schedule_name = models.CharField("scheduled by", max_length=100, null=True)

    # Why it may have to wait although its time has come; both NULL for most runs, and a plain claim sees no others.
    limit_key = models.CharField(
        max_length=TASK_PATH_LENGTH, null=True, help_text="The limit that it counts against: `TaskLimit.key`."
    )
    is_waiting = models.BooleanField(null=True, help_text="It waits for earlier runs of its workflow.")

    workflow = models.ForeignKey(
        "tasks_app.Workflow", null=True, blank=True, on_delete=models.CASCADE, db_index=False, related_name="runs"
    )
    step = models.IntegerField(null=True, help_text="Its place among the runs of its workflow, from 0.")
    previous = models.JSONField(null=True, help_text="Whose results it gets, and as which arguments.")

    unique_key = models.CharField(max_length=64, null=True, help_text="No other run has it while this one stands.")
    unique_until = models.DateTimeField(null=True, help_text="Until when the key is taken, whatever became of the run.")
    idempotency_key = models.CharField(max_length=255, null=True, help_text="Chosen by whoever submitted it.")
    retry_of = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="retries",
        help_text="The run that it does over.",
    )
    again_of = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="sent_again",
        help_text="The run whose call somebody took, and perhaps changed, to send this one.",
    )

    about = models.CharField(
        max_length=ABOUT_LENGTH, null=True, help_text="The object that it is about: `shop.order:48213`."
    )

    run_after = models.DateTimeField(help_text="Not before this moment.")
    expires_at = models.DateTimeField(null=True, help_text="If it has not begun by then, it does not begin any more.")
    enqueued_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True, help_text="When the newest attempt was taken by a worker.")
    started_at = models.DateTimeField(null=True, help_text="When the newest attempt began.")
    finished_at = models.DateTimeField(null=True)

    claimed_by = models.CharField(
        max_length=128, null=True, db_collation="C", help_text="The worker that holds it, or that ended it."
    )
    attempt = models.SmallIntegerField(default=0, help_text="How many times it was claimed.")
    max_attempts = models.SmallIntegerField(default=1)
    timeout = models.FloatField(null=True, help_text="Seconds that one attempt may take.")

    cancel_requested_at = models.DateTimeField(null=True, help_text="When somebody wished it ended.")
    unknown_since = models.DateTimeField(null=True, help_text="When a worker first looked for its task in vain.")

    progress = models.JSONField(null=True, help_text='{"done": number, "total": number or null, "message": text}')
    return_value = models.JSONField(null=True)
    failure = models.CharField(max_length=12, choices=Failure, null=True)
    failure_message = models.TextField(null=True, help_text="One sentence: why it failed or was cancelled.")
    failure_group = models.ForeignKey(
        "tasks_app.FailureGroup",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
        help_text="The failures that look alike; found a moment after it failed.",
    )
    attempts = models.JSONField(default=list, help_text="One entry for each attempt that did not succeed.")

    objects = TaskRunQuerySet.as_manager()

    class Meta:
        verbose_name = "run"
        permissions = [("retry_taskrun", "Can retry runs"), ("cancel_taskrun", "Can cancel runs")]
        constraints = [
            # Ten producers at once make one run: the second waits for the first to commit, and then finds it.
            models.UniqueConstraint(
                fields=["unique_key"],
                name="run_unique_unfinished",
                condition=Q(unique_key__isnull=False, status__in=UNFINISHED),
            ),
            models.UniqueConstraint(
                fields=["unique_key"], name="run_unique_for_a_time", condition=Q(unique_until__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"],
                name="run_idempotent",
                nulls_distinct=False,
                condition=Q(idempotency_key__isnull=False),
            ),
        ]
        indexes = [
            # What a claim reads: only work that a worker could take now or later, so history does not slow it.
            models.Index(
                "queue_name",
                F("priority").desc(),
                "run_after",
                "id",
                name="run_ready",
                condition=Q(status=Status.READY, claimed_by=None, limit_key=None, is_waiting=None),
            ),
            # The same for runs under a limit, each limit apart: many behind a closed one cost nobody else.
            models.Index(
                "queue_name",
                "limit_key",
                F("priority").desc(),
                "run_after",
                "id",
                name="run_ready_limited",
                condition=Q(status=Status.READY, claimed_by=None, limit_key__isnull=False, is_waiting=None),
            ),
            models.Index(
                fields=["expires_at"],
                name="run_expires",
                condition=Q(status=Status.READY, claimed_by=None, expires_at__isnull=False),
            ),
            models.Index(fields=["workflow", "step"], name="run_workflow", condition=Q(workflow__isnull=False)),
            models.Index(fields=["retry_of"], name="run_retry_of", condition=Q(retry_of__isnull=False)),
            models.Index(fields=["again_of"], name="run_again_of", condition=Q(again_of__isnull=False)),
            # When the next run falls due. Runs for now are not in it, so the common enqueue does not pay for it.
            models.Index(
                fields=["run_after", "id"],
                name="run_later",
                condition=Q(status=Status.READY, claimed_by=None, is_waiting=None, run_after__gt=F("enqueued_at")),
            ),
            # What a lost worker or cluster held.
            models.Index(
                fields=["claimed_by"],
                name="run_held",
                condition=Q(status__in=UNFINISHED, claimed_by__isnull=False),
            ),
            # What has ended since the statistics were counted.
            models.Index(fields=["finished_at"], name="run_ended", condition=Q(status__in=FINISHED)),
            models.Index(
                fields=["failure_group", "-finished_at", "-id"],
                name="run_failure_group",
                condition=Q(failure_group__isnull=False),
            ),
            # What failed lately.
            models.Index(fields=["-finished_at"], name="run_failed", condition=Q(status=Status.FAILED)),
            models.Index(fields=["-enqueued_at", "-id"], name="run_newest"),
            # These two leave out what they are not asked for, because each claim and finish writes every index anew.
            models.Index(
                fields=["status", "-enqueued_at", "-id"],
                name="run_status_newest",
                condition=Q(status__in=(Status.RUNNING, *FINISHED)),
            ),
            models.Index(
                fields=["owner", "-enqueued_at", "-id"], name="run_owner_newest", condition=Q(owner__isnull=False)
            ),
            # The runs about one object. One that is about nothing is not in it and costs it nothing.
            models.Index(fields=["about", "-enqueued_at", "-id"], name="run_about", condition=Q(about__isnull=False)),
            # What lists of runs read (`listing`; the words in them stand in `run_words`, of migration 0008). What grows
            # at its end alone is cheap to write.
            # The date says nothing, but no claim names it: an index that it could read instead of its own, it would
            # read some day, when a burst of runs has come that the planner does not know of yet.
            models.Index(
                fields=["enqueued_at", "id"],
                name="run_waiting_newest",
                condition=Q(status=Status.READY, claimed_by=None, enqueued_at__gte=EPOCH),
            ),
            models.Index(
                fields=["enqueued_at", "id"],
                name="run_retrying_newest",
                condition=Q(status=Status.READY, claimed_by=None, attempt__gt=0),
            ),
            models.Index(
                fields=["task_path", "enqueued_at", "id"],
                name="run_task_newest",
                condition=Q(status__in=FINISHED),
            ),
            models.Index(
                fields=["task_path", "finished_at", "id"],
                name="run_task_failed",
                condition=Q(status=Status.FAILED),
            ),
            # The history of a schedule. A run that somebody sent is not in it and costs it nothing.
            models.Index(
                fields=["schedule", "-enqueued_at", "-id"],
                name="run_schedule_newest",
                condition=Q(schedule__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.short_id}"

    def get_absolute_url(self) -> str:
        from django.urls import reverse

        return reverse("run", args=[self.pk])

    # Names

    @property
    def name(self) -> str:
        """The task's own name, without its module."""
        return self.task_path.rpartition(".")[2]

    @property
    def short_id(self) -> str:
        return str(self.id)[:8]

    # State

    @property
    def state(self) -> str:
        """The status, told finer where READY hides more than one situation: the word of icon, class and label."""
        if self.status != Status.READY:
            return str(self.status).lower()
        if self.claimed_by:
            return "claimed"
        if self.is_waiting:
            return "waiting"
        if self.charged:
            return "retrying"
        return "scheduled" if self.has_own_time else "ready"

    @property
    def has_own_time(self) -> bool:
        """Somebody wished that it begins not before `run_after`, if nothing has moved that since.

        What waited for earlier steps of its workflow is due from their end on, which is nobody's wish.
        """
        if self.previous is not None and "has_own_time" not in self.previous:
            return False
        return self.run_after > self.enqueued_at

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def worker(self) -> str:
        return worker_label(self.claimed_by)

    @property
    def loses_by_cancel(self) -> bool:
        """Whether to cancel it takes away what no retry brings back: work that a worker has, steps that wait for it."""
        if self.is_finished or self.cancel_requested_at:
            return False
        return bool(self.claimed_by or self.workflow_id)

    # Verbs

    def cancel(self, why: str = "", *, by: By = None) -> bool:
        """End the run: at once if no worker holds it, else its worker is told to stop it; the reason is kept.

        Doing it again changes nothing. Answers whether the run was still unfinished.
        """
        from tasks_app.engine import verbs

        tally = self._act(verbs.cancel(by, why), by, why)
        return bool(tally.changed or verbs.STOPPING in tally.reasons)

    def retry(self, why: str = "", *, by: By = None, successful_too: bool = False) -> TaskRun | None:
        """Send it once more if it failed or was cancelled and no retry of it goes on; answers its newest retry."""
        from tasks_app.engine import verbs

        self._act(verbs.retry(by, successful_too, anew=True), by, why)
        return TaskRun.objects.filter(retry_of=self.pk).newest().first()

    def delete_run(self, why: str = "", *, by: By = None) -> bool:
        """Delete it if it has ended, with its log and its files; answers whether it did."""
        from tasks_app.engine import verbs

        return bool(self._act(verbs.delete(), by, why).changed)

    def set_priority(self, priority: int, why: str = "", *, by: By = None) -> bool:
        """Answers whether it changed; raises `InvalidTaskError` outside of -100 to 100."""
        from tasks_app.engine import verbs

        return bool(self._act(verbs.set_priority(priority), by, why).changed)

    def move_to(self, queue: str, why: str = "", *, by: By = None) -> bool:
        """Into another queue; answers whether it moved. Raises `InvalidTaskError` for a bad name."""
        from tasks_app.engine import verbs

        return bool(self._act(verbs.move_to(queue), by, why).changed)

    def run_at(self, moment: datetime | None = None, why: str = "", *, by: By = None) -> bool:
        """Not before this moment, or now; answers whether that changed. Raises `InvalidTaskError` for a bad one."""
        from tasks_app.engine import verbs

        return bool(self._act(verbs.run_at(moment), by, why).changed)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Refused, as `TaskRunQuerySet.delete` is."""
        raise TypeError("A run is deleted with delete_run(), once it has ended.")

    def _act(self, verb: Verb, by: By, why: str) -> Tally:
        from tasks_app.engine import acts

        return acts.perform_on(self.pk, verb, by, why)

    # Progress

    @property
    def progress_done(self) -> float:
        return (self.progress or {}).get("done") or 0

    @property
    def progress_total(self) -> float | None:
        return (self.progress or {}).get("total")

    @property
    def progress_after(self) -> float | None:
        """Seconds after the start at which this progress was told; None where nobody has noted it."""
        return (self.progress or {}).get("after")

    @property
    def progress_message(self) -> str:
        return (self.progress or {}).get("message") or ""

    @property
    def percent(self) -> int | None:
        """0 to 100, or None while nobody knows the total."""
        total = self.progress_total
        if not total or total <= 0:
            return None
        return int(min(max(self.progress_done / total, 0), 1) * 100)

    # Times

    def wait_time(self, now: datetime) -> timedelta:
        """From enqueue to the first start, attempts in between left out; still growing until it begins."""
        began = self.tries[0].started_at if self.tries else (self.finished_at or now)
        return max(began - self.enqueued_at, timedelta())

    def run_time(self, now: datetime) -> timedelta | None:
        """How long the newest attempt has run; None before it begins."""
        if self.started_at is None:
            return None
        return max((self.finished_at or now) - self.started_at, timedelta())

    @property
    def charged(self) -> list[dict[str, Any]]:
        """The entries of attempts that count: not those of a worker that was stopped in the middle."""
        return [entry for entry in self.attempts if entry["reason"] != GIVEN_BACK]

    @property
    def tries(self) -> list[Attempt]:
        """Every attempt so far, oldest first, the running or successful one included."""
        tries = [
            Attempt(
                number=entry["attempt"],
                worker=worker_label(entry["worker"]),
                started_at=datetime.fromisoformat(entry["started_at"]),
                ended_at=datetime.fromisoformat(entry["ended_at"]),
                reason=entry["reason"],
                exception=entry.get("exception", ""),
                message=entry.get("message", ""),
                traceback=entry.get("traceback", ""),
            )
            for entry in self.attempts
        ]
        if self.started_at and len(self.charged) < self.attempt:
            tries.append(Attempt(self.attempt, self.worker, self.started_at, self.finished_at))
        return tries


def worker_label(claimed_by: str | None) -> str:
    """`web-1, worker 2` from a claim's `cluster:worker:pid:host`."""
    if not claimed_by:
        return ""
    _, number, _, host = claimed_by.split(":", 3)
    return f"{host}, worker {number}"
