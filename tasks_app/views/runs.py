import uuid
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app.access import get_run
from tasks_app.audit import Actor
from tasks_app.board import Board
from tasks_app.files import files_of
from tasks_app.portrait import Portrait


@never_cache
@require_safe
def changes(request: HttpRequest) -> HttpResponse:
    """What is news to a first page that shows these rows (`seen`) and this `health`; 204 when nothing is."""
    board = Board(request.user)
    news = board.changes(request.GET.getlist("seen"), request.GET.get("health", ""))
    if not news and board.polling:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return render(request, "runs/_changes.html", {"changes": news, "polling": board.polling, "now": board.now})


@never_cache
@require_safe
def run(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One run: its life, its arguments, its result."""
    return render(request, "run.html", context_of(Portrait(get_run(request, pk))))


@never_cache
@require_safe
def live(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The part of a run's page that changes; 204 when it still looks as the page says it does (`seen`)."""
    portrait = Portrait(get_run(request, pk))
    if request.GET.get("seen") == portrait.version:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return render(request, "runs/_live.html", context_of(portrait))


def context_of(portrait: Portrait) -> dict[str, Any]:
    return {"portrait": portrait, "run": portrait.run, "life": portrait.life, "now": portrait.now}


@require_POST
def cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The button Cancel; the run's page tells what came of it, also when it had ended before."""
    run = get_run(request, pk)
    run.cancel(by=Actor.of(request))
    return redirect(run)


@require_safe
def file(request: HttpRequest, pk: uuid.UUID, name: str) -> FileResponse:
    """A file that a run has made, for downloading."""
    run = get_run(request, pk)
    listed = next((file for file in files_of(run.return_value) if file.name == name), None)
    if listed is None:
        raise Http404("The run has no such file.")
    try:
        opened = default_storage.open(f"runs/{run.pk}/{listed.name}")
    except (FileNotFoundError, IsADirectoryError, SuspiciousFileOperation):
        raise Http404("The file is no longer there.") from None
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=60"}
    return FileResponse(
        opened, as_attachment=True, filename=listed.name, content_type=listed.content_type, headers=headers
    )
