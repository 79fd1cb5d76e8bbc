"""Django-Q2's schedules as people make them: checked when they are saved, changed, or run at once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections, transaction
from django.db.models import Model, Q
from django.db.models.functions import Now
from django.db.models.signals import post_save, pre_delete, pre_save
from django.dispatch import receiver
from django.utils import timezone
from django_q import tasks as q2_tasks
from django_q.models import Schedule, validate_cron
from django_tasks.base import Task
from django_tasks.exceptions import InvalidTaskError

from tasks_app import audit, catalog
from tasks_app.about import text_of
from tasks_app.clock import database_now
from tasks_app.engine import limits, statements
from tasks_app.engine.context import RunContext
from tasks_app.engine.execution import signature_of
from tasks_app.engine.firing import SUBMIT, columns
from tasks_app.engine.schedule_call import BadSchedule, Call, default_zone, options_of, read_call, submission_of
from tasks_app.engine.timing import CRON, BadTiming, Timing
from tasks_app.engine.wishes import TRIES, release, standing
from tasks_app.jsonable import storable
from tasks_app.models import Missed, Overlap, ScheduleRules

EDITED = {"func", "hook", "args", "kwargs", "schedule_type", "minutes", "cron", "cluster", "intended_date_kwarg"}
"""The columns of a schedule that can be wrong."""

NAME_LENGTH = 100

LONGEST_PAUSE = timedelta(days=3_660)
"""Nobody looks forward to anything further away."""

LAST_RUN = """
WITH schedule AS (UPDATE django_q_schedule SET task = %(task)s WHERE id = %(id)s)
UPDATE tasks_app_schedulerules SET last_run = %(run)s WHERE schedule_id = %(id)s
"""


def check(schedule: Schedule, zone: str | None = None) -> tuple[Call, Task[..., Any] | None]:
    """See that a schedule can be fired, before it is saved, and name its task as a worker finds it.

    Raises `InvalidTaskError` with one sentence. Answers the call, and the task unless it is a plain function.
    """
    check_plain(schedule)
    try:
        schedule.func = catalog.path_of(schedule.func)
        found = catalog.find(schedule.func)
        call = read_call(schedule.func, schedule.hook, schedule.args, schedule.kwargs, schedule.cluster)
        _timing(schedule, zone or default_zone()).check()
    except (BadSchedule, BadTiming, catalog.UnknownTask) as error:
        raise InvalidTaskError(str(error)) from error
    task = found if isinstance(found, Task) else None
    first = [RunContext] if task and task.takes_context else []
    intended = {schedule.intended_date_kwarg: ""} if schedule.intended_date_kwarg else {}
    if signature := signature_of(task.func if task else found):
        try:
            signature.bind(*first, *call.args, **{**call.kwargs, **intended})
        except TypeError as error:
            name = schedule.func.rpartition(".")[2]
            raise InvalidTaskError(f"{name} cannot be called with these arguments: {error}.") from None
    return call, task


def check_plain(schedule: Schedule) -> None:
    """What the database itself would refuse, or take for something else; raises `InvalidTaskError`."""
    for name, field in {"name": "name", "cluster": "queue", "cron": "cron expression"}.items():
        text = getattr(schedule, name)
        if isinstance(text, str) and storable(text) != text:
            raise InvalidTaskError(f"The {field} of a schedule has only characters that the database can keep.")
    if isinstance(schedule.name, str) and len(schedule.name) > NAME_LENGTH:
        raise InvalidTaskError(f"The name of a schedule has at most {NAME_LENGTH} characters.")
    if isinstance(schedule.next_run, datetime) and timezone.is_naive(schedule.next_run):
        raise InvalidTaskError(
            f"The next run of a schedule needs a time zone, which {schedule.next_run:%Y-%m-%d %H:%M} has not."
        )


class NameTaken(InvalidTaskError, IntegrityError):
    """Two schedules cannot have one name; also the error that Django-Q2 raises for it."""


def _with_sentences(schedule: Any) -> Any:
    """Django-Q2's `schedule()`, which looks for the name before any signal: what is wrong is said in one sentence.

    It also takes the object that its runs are `about`.
    """

    @wraps(schedule)
    def checked(func: Any, *args: Any, **kwargs: Any) -> Schedule:
        name = kwargs.get("name")
        check_plain(Schedule(name=name, next_run=kwargs.get("next_run"), cluster=kwargs.get("cluster")))
        if name and Schedule.objects.filter(name=name).exists():
            raise NameTaken(f"There is a schedule {name} already. Choose another name, or change that one.")
        if not isinstance(kwargs.get("about"), Model):  # a plain value may be an argument of this name
            return schedule(func, *args, **kwargs)
        with transaction.atomic():
            about, made = kwargs.pop("about"), schedule(func, *args, **kwargs)
            made.rules.change(about=about)
        return made

    return checked


q2_tasks.schedule = _with_sentences(q2_tasks.schedule)


def _timing(schedule: Schedule, zone: str) -> Timing:
    return Timing(schedule.schedule_type, zone, schedule.minutes, schedule.cron or None)


def calculate_next_run(schedule: Schedule, next_run: datetime | None = None) -> datetime | None:
    """The time after the next one, or of cron the next one from now; raises `InvalidTaskError`."""
    rules = ScheduleRules.objects.filter(pk=schedule.pk).first() if schedule.pk else None
    timing = _timing(schedule, rules.time_zone if rules else default_zone())
    due = datetime.now(UTC) if timing.kind == CRON else next_run or schedule.next_run
    try:
        return timing.after(due, due, rules.plan if rules else None)
    except BadTiming as error:
        raise InvalidTaskError(str(error)) from error


# In place of Django-Q2's own, which it calls before any signal, and which answers otherwise where clocks are switched.
Schedule.calculate_next_run = calculate_next_run


def check_cron(expression: str) -> None:
    """Raises `ValidationError` for what the engine cannot read, in its own sentence."""
    try:
        Timing(CRON, default_zone(), cron=expression).check()
    except BadTiming as error:
        raise ValidationError(str(error)) from None


# In place of croniter, which Django-Q2 checks with: it takes and refuses other lines than those that are fired here.
_checks = Schedule._meta.get_field("cron").validators
_checks[:] = [check_cron if each is validate_cron else each for each in _checks]


def _as_one(save_base: Any) -> Any:
    """A schedule and its rules are there together: a cluster that found it alone would fire it without its options."""

    @wraps(save_base)
    def saved(self: Schedule, *args: Any, using: str | None = None, **kwargs: Any) -> None:
        with transaction.atomic(using):
            save_base(self, *args, using=using, **kwargs)

    return saved


Schedule.save_base = _as_one(Schedule.save_base)


@receiver(pre_save, sender=Schedule, dispatch_uid="dumbwaiter")
def before_save(sender: object, instance: Schedule, raw: bool, update_fields: Any, **kwargs: Any) -> None:
    """Refuse what cannot be fired; raises `InvalidTaskError`. A fixture is loaded as it is, and judged when due."""
    is_timed, is_edited = (update_fields is None or names & set(update_fields) for names in ({"next_run"}, EDITED))
    if raw or not (is_timed or is_edited):
        return
    rules = ScheduleRules.objects.filter(pk=instance.pk).first() if instance.pk else None
    instance._noted = first_time(instance, rules) if is_timed else {}
    if not is_edited:
        return
    if not instance._state.adding:
        # Also waits for a cluster that is just firing it, or holds the next one off until the caller commits.
        locked = Schedule.objects.filter(pk=instance.pk)
        if transaction.get_connection().in_atomic_block:
            locked = locked.select_for_update()
        if not locked.values_list("pk").first():
            raise InvalidTaskError("This schedule is gone: it is done, or somebody deleted it. Make a new one.")
    zone = rules.time_zone if rules else default_zone()
    call, task = check(instance, zone)
    intended_date(instance, call)
    instance._noted["options"] = options_of(task, call)
    if instance.schedule_type == CRON:
        timing, now = _timing(instance, zone), datetime.now(UTC)
        if not timing.is_of(rules.plan if rules else None):
            # Django-Q2 reckons a new one only.
            instance.next_run = timing.after(now, now)
            instance._noted["plan"] = timing.plan(instance.next_run, instance.next_run)


def first_time(schedule: Schedule, rules: ScheduleRules | None) -> dict[str, Any]:
    """Its next time as a moment that there is; answers what its rules are to remember of the time that was given."""
    given = schedule.next_run
    if not isinstance(given, datetime) or timezone.is_naive(given):
        return {}
    timing = _timing(schedule, rules.time_zone if rules else default_zone())
    schedule.next_run, plan = timing.first(given, rules.plan if rules else None)
    return {"plan": plan} if plan else {}


@receiver(post_save, sender=Schedule, dispatch_uid="dumbwaiter")
def after_save(sender: object, instance: Schedule, raw: bool, **kwargs: Any) -> None:
    """Remember what firing needs, take an old error back, and have the clusters look at once."""
    if raw:
        return
    noted = {"error": None, "broken_version": None, "skipped": None, "noted_at": None}
    noted |= vars(instance).pop("_noted", {})
    with transaction.atomic():
        # The locks in the order of a firing, as a cluster may be at it already: else it could end in a deadlock.
        if not Schedule.objects.select_for_update().filter(pk=instance.pk).values_list("pk").first():
            return  # it was for once, and is done
        rules, _ = ScheduleRules.objects.update_or_create(
            schedule_id=instance.pk, defaults=noted, create_defaults={**noted, "time_zone": default_zone()}
        )
    rules.schedule = instance  # so that `schedule.rules` is this very row
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [statements.CHANNEL, statements.STEER_HINT])


@receiver(pre_delete, sender=Schedule, dispatch_uid="dumbwaiter")
def before_delete(sender: object, instance: Schedule, **kwargs: Any) -> None:
    """Take the locks in the order of a firing, schedule before rules: a deadlock would fail one of the two."""
    Schedule.objects.select_for_update().filter(pk=instance.pk).values_list("pk").first()


def change_rules(rules: ScheduleRules, changes: Mapping[str, Any]) -> None:
    """Set rules of a schedule and have it go by them from now on; raises `InvalidTaskError`."""
    kinds = {"missed": Missed, "overlap": Overlap}
    for name, value in changes.items():
        if name not in {"time_zone", "about", *kinds}:
            raise InvalidTaskError(f"A schedule has no rule {name}; it has time_zone, missed, overlap and about.")
        if name in kinds and value not in kinds[name].values:
            raise InvalidTaskError(f"{name} is one of {', '.join(kinds[name].values)}, not {value!r}.")
        setattr(rules, name, text_of(value) if name == "about" and value is not None else value)
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        check(schedule, rules.time_zone)
        rules.save(update_fields=list(changes))
        schedule.save()


def title_of(schedule: Any) -> str:
    """Its name, or what tells it from others."""
    return schedule.name or f"{schedule.func.rpartition('.')[2]} ({schedule.pk})"


def pause(rules: ScheduleRules, by: audit.By, why: str, until: datetime | None) -> None:
    """Fire it no more; raises `InvalidTaskError`."""
    now = database_now()
    if until is not None and timezone.is_naive(until):
        raise InvalidTaskError("The end of a pause needs a time zone.")
    if until is not None and not now < until <= now + LONGEST_PAUSE:
        raise InvalidTaskError("The end of a pause lies ahead of now, and within ten years.")
    why = audit.clip(str(why).strip(), audit.REASON_LENGTH)
    columns: dict[str, Any] = {"paused_at": Now(), "paused_until": until, "pause_reason": why}
    columns["paused_by"] = audit.actor_of(by).user
    with transaction.atomic():
        # Waits for a cluster that is just firing it; the next one finds it paused.
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        ScheduleRules.objects.filter(pk=rules.pk).update(**columns)
        details = {"until": until.isoformat()} if until else {}
        audit.record("pause", subject=f"schedule {title_of(schedule)}", by=by, why=why, details=details)
    rules.refresh_from_db()


def resume(rules: ScheduleRules, by: audit.By, why: str) -> bool:
    """Let it fire from now on; when the pause was stays known, to tell of the times that it has cost."""
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        paused = ScheduleRules.objects.filter(pk=rules.pk, paused_at__isnull=False)
        was_paused = paused.filter(Q(paused_until=None) | Q(paused_until__gt=Now())).update(paused_until=Now())
        if was_paused:
            audit.record("resume", subject=f"schedule {title_of(schedule)}", by=by, why=why)
            with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [statements.CHANNEL, statements.STEER_HINT])
    rules.refresh_from_db()
    return bool(was_paused)


def run_now(rules: ScheduleRules, owner: Any = None, by: audit.By = None, why: str = "") -> uuid.UUID:
    """Submit a run of the schedule for somebody, whatever its time, or answer the one that has its unique key.

    Raises `InvalidTaskError`.
    """
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update().get(pk=rules.pk)
        call, task = check(schedule, rules.time_zone)
        intended_date(schedule, call)
        run = submission_of(schedule, call, options_of(task, call), rules.about)
        if run["limits"]:
            limits.declare(run["task_path"], run["limits"])
        run["id"] = _submitted(run, owner)
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(LAST_RUN, {"id": schedule.pk, "run": run["id"], "task": run["id"].hex})
        audit.record("run now", subject=f"schedule {title_of(schedule)}", by=by, why=why, runs=[run["id"]])
    return run["id"]


def intended_date(schedule: Schedule, call: Call) -> None:
    """The present moment in place of the time for which a schedule is fired."""
    if schedule.intended_date_kwarg:
        call.kwargs[schedule.intended_date_kwarg] = datetime.now(UTC).isoformat()


def _submitted(run: Mapping[str, Any], owner: Any) -> uuid.UUID:
    """The id of the run, or of the one that has its key."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        for _ in range(TRIES):
            cursor.execute(SUBMIT, {"owner": owner.pk if owner else None, **columns([run])})
            if cursor.fetchone():
                return run["id"]
            if found := standing(run["unique_key"]):
                return found[run["unique_key"]].pk
            release([run["unique_key"]])
    raise InvalidTaskError("Its key was taken and free again all the time. Try it once more.")
