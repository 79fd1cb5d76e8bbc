from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app import run_log
from tasks_app.access import get_run, is_operator
from tasks_app.again import changes_of
from tasks_app.circumstances import Circumstances, look
from tasks_app.copied import as_curl, as_python
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.masking import masked_text, masked_texts
from tasks_app.models import TaskRun
from tasks_app.portrait import Portrait, readable
from tasks_app.run_log import Excerpt, Filters, excerpt
from tasks_app.steering import Steering
from tasks_app.subject import subject_of


def version(request: HttpRequest, viewer: Viewer, pk: uuid.UUID) -> str:
    around = look(pk)
    return version_of(around, around.newest_line or 0) if around else digest("gone")


def version_of(around: Circumstances, line: int) -> str:
    """Of the page that shows the log up to this line."""
    return digest(around.looks, line)


@never_cache
@require_safe
@live(version)
def run(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One run: its life, its arguments, its log, its result; a poll gets what changes of it, and the new lines."""
    around = look(pk)
    if around is None:
        raise Http404("There is no such run.")
    portrait = Portrait(get_run(request, pk, readable()), TaskRun.objects.visible_to(request.user), around)
    filters = Filters.read(request.GET)
    lines = lines_for(request, portrait, filters)
    is_over = portrait.run.is_finished and lines.cursor >= (around.newest_line or 0)
    seen = version_of(around, lines.cursor)
    context = {
        "portrait": portrait,
        "run": portrait.run,
        "life": portrait.life,
        "now": portrait.now,
        "may": Steering(request, portrait.run, portrait.kin),
        "changes": changes_of(portrait.run),
        "subject": subject_of(portrait.run.about, request),
        "curl": as_curl(portrait.run, request),
        "python": as_python(portrait.run),
        "log": lines,
        "filters": filters,
        "levels": run_log.links(request.GET),
        "every_line": run_log.linked(request.GET, level="", q=""),
        "earlier": run_log.linked(request.GET, before=str(lines.earlier)) if lines.earlier else "",
        "newest": run_log.linked(request.GET) if filters.before else "",
        "is_operator": is_operator(request),
        "is_poll": is_poll(request),
        "poll": "" if is_over else poll_url(request, seen, after=str(lines.cursor)),
    }
    return render(request, "runs/_news.html" if is_poll(request) else "run.html", context)


def lines_for(request: HttpRequest, portrait: Portrait, filters: Filters) -> Excerpt:
    """A page that is there gets the lines that it does not have; one that looks at earlier ones gets none."""
    newest = portrait.around.newest_line
    if not is_poll(request):
        return excerpt(portrait.run.pk, replace(filters, after=None), newest)
    if filters.before is not None:
        return Excerpt([], newest or 0, None)
    return excerpt(portrait.run.pk, replace(filters, after=filters.after or 0), newest)


@never_cache
@require_safe
def log(request: HttpRequest, pk: uuid.UUID) -> StreamingHttpResponse:
    """The whole log as text."""
    found = get_run(request, pk, TaskRun.objects.only("id", "task_path", "owner"))
    return download(run_log.as_text(found.pk), f"{found.short_id}-log.txt", "text/plain; charset=utf-8")


@never_cache
@require_safe
def value(request: HttpRequest, pk: uuid.UUID, what: str) -> StreamingHttpResponse:
    """The arguments or the result, whole but for secrets, as JSON."""
    named = {"result": ("return_value",), "arguments": ("args", "kwargs")}[what]
    texts = {f"{name}_text": Cast(name, TextField()) for name in named}
    found = get_run(request, pk, TaskRun.objects.only("id", "owner", "task_path").annotate(**texts))
    parts = [str(getattr(found, text) or "null") for text in texts]
    if what == "result":
        whole = [masked_text(parts[0])]
    else:
        args, kwargs = masked_texts(found.task_path, *parts)
        whole = ['{"args": ', args, ', "kwargs": ', kwargs, "}"]
    return download([*whole, "\n"], f"{found.short_id}-{what}.json", "application/json")


def download(parts: Any, name: str, content_type: str) -> StreamingHttpResponse:
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(parts, content_type=content_type, headers=headers)
