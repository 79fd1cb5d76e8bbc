import uuid
from http import HTTPStatus

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.access import get_run
from tasks_app.board import Board
from tasks_app.files import files_of


@never_cache
@require_safe
def changes(request: HttpRequest) -> HttpResponse:
    """What is news to a first page that shows these rows (`seen`) and this `health`; 204 when nothing is."""
    board = Board(request.user)
    news = board.changes(request.GET.getlist("seen"), request.GET.get("health", ""))
    if not news and board.polling:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return render(request, "runs/_changes.html", {"changes": news, "polling": board.polling, "now": board.now})


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
