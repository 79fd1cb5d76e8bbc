from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app import export
from tasks_app.finding import Finding
from tasks_app.live import Viewer
from tasks_app.models import TaskRunQuerySet


@never_cache
@require_safe
def as_csv(request: HttpRequest) -> HttpResponseBase:
    """The list with its filters, for a spreadsheet."""
    return file(request, "csv", "text/csv; charset=utf-8", export.as_csv)


@never_cache
@require_safe
def as_json(request: HttpRequest) -> HttpResponseBase:
    """The same for a program."""
    return file(request, "json", "application/json", export.as_json)


def file(
    request: HttpRequest, suffix: str, content_type: str, write: Callable[[TaskRunQuerySet], Iterator[str]]
) -> HttpResponseBase:
    finding = Finding.read(request.GET, Viewer.of(request))
    if finding.troubles:  # a page can say that it was put right; a file would just have other runs in it
        return render(request, "not_understood.html", {"troubles": finding.troubles}, status=HTTPStatus.BAD_REQUEST)
    name = export.file_name(finding.state, finding.is_filtered, timezone.localtime(), suffix)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    if request.method == "HEAD":
        return HttpResponse(content_type=content_type, headers=headers)
    return StreamingHttpResponse(write(finding.runs()), content_type=content_type, headers=headers)
