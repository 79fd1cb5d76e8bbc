"""WATCH: why a run stands where it stands, as the database tells it: a few words, a sentence, and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Count, Q

from tasks_app import wording
from tasks_app.circumstances import COUNTED, Circumstances
from tasks_app.kin import Kin
from tasks_app.models import Failure, Status, TaskRun
from tasks_app.models.run import GIVEN_BACK, UNFINISHED

Kins = Mapping[str, Sequence[Kin]]


@dataclass(frozen=True)
class Why:
    """The answer."""

    head: str
    text: str = ""
    links: Sequence[Kin] = ()
    """The runs that it is about."""
    place: str = ""
    """The page that it is about: `queues`, `workers` or `workflow`."""
    is_grave: bool = False
    """Somebody has to do something, or it stays so."""


def why(run: TaskRun, around: Circumstances, held: tuple[str, str] | None = None, kin: Kins | None = None) -> Why:
    """Why the run stands where it stands; `held` is what a policy says against its beginning."""
    if run.cancel_requested_at and not run.is_finished:
        return Why("It is being cancelled.", f"{run.worker} was told to stop it.")
    if run.status == Status.READY:
        return why_not_yet(run, around, held, kin or {})
    if run.status == Status.RUNNING:
        limit = f" It is stopped after {wording.limit(run.timeout)}, its limit." if run.timeout else ""
        return Why("Work is going on.", f"{run.worker} is at it.{limit}")
    message = wording.sentence(run.failure_message or "")
    if run.status == Status.CANCELLED:
        return Why("It was ended before it was done.", message)
    if run.status == Status.SUCCESSFUL:
        return Why("It is done.")
    return Why(why_failed(run), f"{message} Nothing runs it again unless someone does.")


def why_failed(run: TaskRun) -> str:
    match run.failure:
        case Failure.TIMED_OUT:
            return "It took longer than it may."
        case Failure.WORKER_LOST:
            return f"{'Each of its attempts' if run.attempt > 1 else 'Its only attempt'} lost its worker."
        case Failure.REJECTED:
            return "No worker could begin it."
    messages = {entry.get("message") for entry in run.charged}
    if len(run.charged) > 1 and len(messages) == 1:
        return f"{'Both' if len(run.charged) == 2 else f'All {len(run.charged)}'} attempts met the same error."
    return "The task met an error."


def why_not_yet(run: TaskRun, around: Circumstances, held: tuple[str, str] | None, kin: Kins) -> Why:
    if run.claimed_by:
        return Why("It begins in a moment.", f"{run.worker} holds it.")
    if run.is_waiting:
        links = [other for other in kin.get("before", ()) if other.status in UNFINISHED]
        return Why("It waits for earlier steps.", waits_for(run), links, "workflow")
    if run.run_after > around.now:
        return why_later(run)
    if not around.is_served:
        return why_nobody(run, around)
    again = f"Attempt {run.attempt} did not end well; it will be tried again. " if run.charged else ""
    if run.attempts and run.attempts[-1]["reason"] == GIVEN_BACK:
        again = "Its worker was stopped in the middle; it starts over, and that does not count as an attempt. "
    at_work = kin.get("at_work", ())
    if held:
        return Why(held[0], f"{again}{held[1]}", at_work, "queues")
    if run.limit_key:
        return Why("It is in line.", f"{again}It waits for its turn and for a worker that is free.", at_work)
    head = "It is in line." if around.ahead else "It is next in line."
    return Why(head, f"{again}{told_ahead(around)}{told_busy(around)}", at_work if around.all_busy else ())


def told_ahead(around: Circumstances) -> str:
    if not around.ahead:
        return "" if around.all_busy else "It waits for a worker that is free."
    if around.ahead == 1:
        return "One run is ahead of it."
    return f"{wording.count(around.ahead, COUNTED)} runs are ahead of it."


def told_busy(around: Circumstances) -> str:
    if not around.all_busy:
        return ""
    said = "Its only worker is" if around.workers == 1 else f"All {wording.count(around.workers)} workers are"
    return f"{' ' if around.ahead else ''}{said} busy."


def why_later(run: TaskRun) -> Why:
    when = wording.moment(run.run_after)
    if run.unknown_since:
        message = wording.sentence(run.failure_message or "")
        return Why("No worker that looked has this task.", f"{message} Workers look again after {when}.", is_grave=True)
    if run.charged:
        return Why("It will be tried again.", f"Attempt {run.attempt} did not end well; the next begins after {when}.")
    return Why("Its time has not come.", f"It was sent to be done not before {when}.")


def why_nobody(run: TaskRun, around: Circumstances) -> Why:
    queue = wording.visible(run.queue_name)
    if around.quiet:
        said = "Its workers were asked to take nothing more. It waits until they may again, or others begin."
        return Why(f"Nobody takes from the queue {queue} now.", said, place="workers", is_grave=True)
    if around.empty:
        said = "Whoever would keeps no worker. It waits until that has one again, or another begins."
        return Why(f"Nobody takes from the queue {queue} now.", said, place="workers", is_grave=True)
    said = "It waits, and nothing is lost. Start a worker with manage.py qcluster."
    return Why(f"No live worker takes from the queue {queue}.", said, place="workers", is_grave=True)


def waits_for(run: TaskRun) -> str:
    """Of which workflow it waits for how many steps."""
    workflow, previous = run.workflow, run.previous or {}
    if workflow is None:
        return "The workflow that it belongs to is gone."
    earlier = workflow.steps.filter(step__range=(previous.get("first", 0), previous.get("last", -1)))
    counts = earlier.aggregate(whole=Count("id"), left=Count("id", filter=Q(status__in=UNFINISHED)))
    left, whole = counts["left"], counts["whole"]
    name = wording.visible(str(workflow))
    if not left:
        return f"Those of the workflow {name} have ended, and what follows is being looked at."
    if whole == 1:
        return f"It waits for step {previous['first'] + 1} ({earlier[0].name}) of the workflow {name}."
    steps = f"{wording.count(left)} of {wording.count(whole)} earlier steps"
    return f"It waits for {steps} of the workflow {name}."
