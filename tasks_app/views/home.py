from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app.board import Board
from tasks_app.forms import PracticeForm, ThumbnailsForm

THEMES = ("system", "light", "dark")
A_YEAR = 365 * 24 * 60 * 60


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


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember light, dark, or whatever the system says, and go back to where the choice was made."""
    chosen = request.POST.get("theme", "")
    if chosen not in THEMES:
        return HttpResponse("There are three themes: system, light and dark.\n", status=400, content_type="text/plain")
    back = request.headers.get("Referer", "")
    allowed = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    response = redirect(back if allowed else "home")
    if chosen == "system":
        response.delete_cookie("theme", samesite="Lax")
    else:
        secure = settings.SESSION_COOKIE_SECURE
        response.set_cookie("theme", chosen, A_YEAR, secure=secure, httponly=True, samesite="Lax")
    return response
