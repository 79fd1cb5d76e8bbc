from __future__ import annotations

import uuid
from http import HTTPStatus

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.html import escape
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRefresh, trigger_client_event
from django_tasks.exceptions import InvalidTaskError

from tasks_app import bulk
from tasks_app.access import get_run
from tasks_app.asking import reason_of
from tasks_app.audit import Actor
from tasks_app.bulk_forms import RunAtForm
from tasks_app.fields import PlainForm
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import QUEUE_NAME_LENGTH
from tasks_app.powers import ASKS_FIRST, CANCEL, CHANGE, DELETE, RETRY, may_steer
from tasks_app.views.htmx import HtmxRequest

RUN_NOW, RUN_AT = "run-now", "run-at"
WRONG_PRIORITY = "A priority is a whole number, -100 to 100."
UNFINISHED = "Only what has ended can be deleted. Cancel it first."
FORBIDDEN = "You may not {} this run: that takes an operator with the permission to {} runs."


class ChangeForm(PlainForm):
    """Where and how soon a run that waits is taken; what is left empty stays."""

    priority = forms.IntegerField(
        required=False, min_value=-100, max_value=100,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), WRONG_PRIORITY),
    )  # fmt: skip
    queue = forms.CharField(
        required=False, max_length=QUEUE_NAME_LENGTH,
        error_messages={"max_length": f"A queue's name has at most {QUEUE_NAME_LENGTH} characters."},
    )  # fmt: skip


@require_POST
def cancel(request: HtmxRequest, pk: uuid.UUID) -> HttpResponse:
    """The button Cancel, with a reason or without; the page tells what came of it, also when it had ended before."""
    run = get_run(request, pk)
    if not may_steer(request.user, run, CANCEL):
        return refused(request, run, "cancel")
    if run.loses_by_cancel and not request.POST.get("sure"):
        messages.error(request, ASKS_FIRST)
        return HttpResponseClientRefresh() if request.htmx else redirect(run)
    run.cancel(reason_of(request), by=Actor.of(request))
    return done(request, run)


@require_POST
def retry(request: HtmxRequest, pk: uuid.UUID) -> HttpResponse:
    """The button Retry: a new run of the same, to which the browser goes; to the standing retry, if one goes on."""
    run = get_run(request, pk)
    if not may_steer(request.user, run, RETRY):
        return refused(request, run, "retry")
    again = run.retry(by=Actor.of(request), successful_too=True)
    if again is None:
        messages.error(request, "It cannot be sent once more: only what has ended can, and what got all it waited for.")
    elif run.status == Status.SUCCESSFUL or again.owner_id != run.owner_id:
        messages.success(request, "It was sent once more; this is the new run.")
    return redirect(again or run)


@require_POST
def change(request: HtmxRequest, pk: uuid.UUID) -> HttpResponse:
    """Another priority or queue, or its time, for a run that no worker has taken."""
    run = get_run(request, pk)
    if not may_steer(request.user, run, CHANGE):
        return refused(request, run, "change")
    do = request.POST.get("do", "")
    if do not in {"", RUN_NOW, RUN_AT}:
        return wrong(request, run, "A run that waits is given a priority, a queue or a time, or is run now.")
    form = RunAtForm(request.POST) if do == RUN_AT else ChangeForm(request.POST)
    if not form.is_valid():
        return wrong(request, run, " ".join(str(each[0]) for each in form.errors.values()))
    try:
        changed = changes(request, run, form)
    except InvalidTaskError as error:
        return wrong(request, run, str(error))
    run.refresh_from_db(fields=["status", "claimed_by"])
    if not changed and (run.status != Status.READY or run.claimed_by):
        return wrong(request, run, "It was too late: a worker has it, or it has ended.")
    if not changed and do == RUN_AT and form.cleaned_data["run_after"] != run.run_after:
        return wrong(request, run, "That time is over, and it is due already.")
    return done(request, run)


def changes(request: HtmxRequest, run: TaskRun, form: forms.Form) -> bool:
    by, cleaned = Actor.of(request), form.cleaned_data
    if request.POST.get("do") == RUN_NOW:
        return run.run_at(by=by)
    if request.POST.get("do") == RUN_AT:
        return run.run_at(cleaned["run_after"], by=by)
    changed = False
    if cleaned["priority"] is not None and cleaned["priority"] != run.priority:
        changed |= run.set_priority(cleaned["priority"], by=by)
    if cleaned["queue"] and cleaned["queue"] != run.queue_name:
        changed |= run.move_to(cleaned["queue"], by=by)
    return changed


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HtmxRequest, pk: uuid.UUID) -> HttpResponse:
    """Asked back at first; the button of that page comes here again, and then it is done, as a bulk act of one run."""
    run = get_run(request, pk, TaskRun.objects.defer("args", "kwargs", "return_value", "attempts"))
    if not may_steer(request.user, run, DELETE):
        return refused(request, run, "delete")
    if not run.is_finished:
        messages.error(request, UNFINISHED)
        return redirect(run)
    if request.method != "POST":
        return render(request, "run_delete.html", {"run": run, "undo_seconds": bulk.UNDO_SECONDS})
    sent = bulk.send(Actor.of(request), "delete", ids=[str(run.pk)], why=reason_of(request), what=f"the run {run}")
    return redirect("bulk-run", sent.pk)


def done(request: HtmxRequest, run: TaskRun) -> HttpResponse:
    """A page that is there asks for news at once, and has no further entry in the browser's history."""
    if request.htmx:
        return trigger_client_event(HttpResponse(status=HTTPStatus.NO_CONTENT), "changed")
    return redirect(run)


def wrong(request: HtmxRequest, run: TaskRun, said: str) -> HttpResponse:
    if request.htmx:
        return HttpResponse(escape(said), status=HTTPStatus.UNPROCESSABLE_ENTITY)
    messages.error(request, said)
    return redirect(run)


def refused(request: HtmxRequest, run: TaskRun, act: str) -> HttpResponse:
    messages.error(request, FORBIDDEN.format(act, act))
    return HttpResponseClientRefresh() if request.htmx else redirect(run)
