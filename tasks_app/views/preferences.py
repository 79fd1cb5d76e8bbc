"""What a browser remembers for whoever sits before it: light or dark, how often pages ask for news, by which clock."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from tasks_app.clock import available_timezones

THEMES = ("system", "light", "dark")
REFRESHES = (0, 1, 2, 5, 15, 30, 60)
"""Seconds between two polls of a page; 0 for none."""

USUAL_REFRESH = 2
A_YEAR = 365 * 24 * 60 * 60


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember light, dark, or whatever the system says, and go back to where the choice was made."""
    chosen = request.POST.get("theme", "")
    if chosen not in THEMES:
        return sorry("There are three themes: system, light and dark.")
    return remember(request, "theme", None if chosen == "system" else chosen)


@require_POST
def refresh(request: HttpRequest) -> HttpResponse:
    """Remember how often pages ask for news, and go back."""
    chosen = request.POST.get("seconds", "")
    if chosen not in {str(seconds) for seconds in REFRESHES}:
        told = ", ".join(str(seconds) for seconds in REFRESHES)
        return sorry(f"Pages refresh every so many seconds, 0 for never: {told}.")
    return remember(request, "refresh", None if int(chosen) == USUAL_REFRESH else chosen)


@require_http_methods(["GET", "HEAD", "POST"])
def time_zone(request: HttpRequest) -> HttpResponse:
    """By which clock this browser is told times; `middleware.TimeZoneMiddleware` goes by it."""
    if request.method != "POST":
        return render(request, "time_zone.html", {"zones": sorted(available_timezones()), "usual": settings.TIME_ZONE})
    chosen = request.POST.get("zone", "")
    if chosen and chosen not in available_timezones():
        return sorry("There is no such time zone. Choose one of the list, such as Europe/Berlin.")
    return remember(request, "time_zone", chosen or None)


@require_safe
def keys(request: HttpRequest) -> HttpResponse:
    """The keys that do something."""
    return render(request, "keys.html")


def sorry(text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=400, content_type="text/plain")


def remember(request: HttpRequest, name: str, value: str | None) -> HttpResponse:
    """In a cookie, or by having none."""
    back = request.headers.get("Referer", "")
    allowed = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    response = redirect(back if allowed else "home")
    if value is None:
        response.delete_cookie(name, samesite="Lax")
    else:
        secure = settings.SESSION_COOKIE_SECURE
        response.set_cookie(name, value, A_YEAR, secure=secure, httponly=True, samesite="Lax")
    return response


class Refresh:
    """How often the pages of this browser ask for news."""

    def __init__(self, request: HttpRequest) -> None:
        chosen = request.COOKIES.get("refresh", "")
        self.seconds = int(chosen) if chosen in {str(seconds) for seconds in REFRESHES} else USUAL_REFRESH

    @property
    def told(self) -> str:
        return told(self.seconds)

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [
            {"seconds": seconds, "told": told(seconds), "is_chosen": seconds == self.seconds} for seconds in REFRESHES
        ]


def told(seconds: int) -> str:
    if not seconds:
        return "Refresh off"
    return "Every minute" if seconds == 60 else f"Every {seconds} s"


def preferences(request: HttpRequest) -> dict[str, object]:
    """For every template."""
    return {"refresh": Refresh(request)}
