import uuid

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest
from django.views.decorators.http import require_safe

from tasks_app.access import get_run
from tasks_app.files import files_of


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
