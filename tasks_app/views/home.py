from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.board import Board
from tasks_app.forms import PracticeForm, ThumbnailsForm


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The first page: is it healthy, send work down, what became of it."""
    return page(request)


def page(request: HttpRequest, status: int = HTTPStatus.OK, **forms: Any) -> HttpResponse:
    """The first page with these forms (`practice`, `thumbnails`) as somebody filled them in."""
    context = {"board": Board(request.user), "practice": PracticeForm(), "thumbnails": ThumbnailsForm(), **forms}
    context |= {"now": context["board"].now}
    return render(request, "home.html", context, status=status)
