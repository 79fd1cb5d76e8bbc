from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone

from tasks_app import live
from tasks_app.access import is_open_to
from tasks_app.clock import available_timezones
from tasks_app.paging import MOST_NAMES

UNREACHABLE = (OperationalError, InterfaceError)


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The policy on every answer: the library leaves it off the error pages of DEBUG, which show request data."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response = super().process_response(request, response)
        if HEADER not in response:
            response[HEADER] = build_policy()
        if request.method == "HEAD" and isinstance(response, HttpResponse):
            response.content = b""  # the headers stand for the body that a GET would have
        return response


class KnownHostMiddleware:
    """A sentence at the JSON door for a host name that is not ours, where Django has a page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_door(request):
            try:
                request.get_host()
            except DisallowedHost:
                said = "This site does not answer to that host name: ALLOWED_HOSTS does not have it."
                return JsonResponse({"error": said}, status=HTTPStatus.BAD_REQUEST)
        return self.get_response(request)


class ClosedByDefaultMiddleware(LoginRequiredMiddleware):
    """A login for every view that does not say otherwise, except for guests of open access outside the admin."""

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        if is_open_to(request):
            return None
        try:
            return super().process_view(request, view_func, view_args, view_kwargs)
        except UNREACHABLE:  # who asks is known to the database alone
            return database_does_not_answer(request)

    def handle_no_permission(  # type: ignore[override]  # the answer is not always a redirect
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseBase:
        """A fragment cannot show a login page: htmx is told to load the whole page, which leads there.

        Not for a poll, which nobody has asked for: its page says that one is logged out, and stays as it is.
        """
        response = super().handle_no_permission(request, view_func)
        if live.is_poll(request):
            return HttpResponse(status=HTTPStatus.UNAUTHORIZED)
        if request.headers.get("HX-Request") == "true":
            return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"HX-Refresh": "true"})
        return response


class NoNewsMiddleware:
    """204 to a poll of a page that looks as it did, before anything else is asked of the database."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        version = getattr(view_func, "version", None)
        if version is None or live.SEEN not in request.GET or request.headers.get("HX-Request") != "true":
            return None
        try:
            no_news = live.has_no_news(request, version, view_kwargs)
        except UNREACHABLE:
            return database_does_not_answer(request)
        return HttpResponse(status=HTTPStatus.NO_CONTENT) if no_news else None


class TimeZoneMiddleware:
    """Times by the clock that this browser has chosen, else by the site's own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        chosen = request.COOKIES.get("time_zone", "")
        if chosen not in available_timezones():
            return self.get_response(request)
        with timezone.override(ZoneInfo(chosen)):
            return self.get_response(request)


class ReadableErrorsMiddleware:
    """Our own page for what is not there or not meant, and for a database that does not answer, also under DEBUG.

    Django's pages would list every URL to the one, and show a traceback for the other.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if len(request.GET) > MOST_NAMES:
            said = "The address has more values than any page reads."
            return HttpResponse(render_to_string("400.html", {"text": said}), status=HTTPStatus.BAD_REQUEST)
        response = self.get_response(request)
        if response.status_code == HTTPStatus.NOT_FOUND and settings.DEBUG and request.resolver_match is None:
            return render(request, "404.html", status=HTTPStatus.NOT_FOUND)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, Http404):
            return render(request, "404.html", status=HTTPStatus.NOT_FOUND)
        if isinstance(exception, UNREACHABLE):
            return database_does_not_answer(request)
        return None


def is_door(request: HttpRequest) -> bool:
    """True for the JSON door, which answers with JSON whatever happens."""
    return request.path.startswith("/tasks")


def database_does_not_answer(request: HttpRequest) -> HttpResponse:
    """503 and one sentence; made without the database, so also without knowing who asks."""
    if is_door(request):
        return JsonResponse({"error": "The database does not answer."}, status=HTTPStatus.SERVICE_UNAVAILABLE)
    return HttpResponse(render_to_string("503.html"), status=HTTPStatus.SERVICE_UNAVAILABLE)
