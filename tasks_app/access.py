"""Who may see what, decided in one place: the getter that finds a run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_out
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.csrf import rotate_token

from config.env import is_loopback
from tasks_app.models import TaskRun, TaskRunQuerySet


def get_run(request: HttpRequest, pk: uuid.UUID | str, runs: TaskRunQuerySet | None = None) -> TaskRun:
    """The run with this id, if this person may see it (owner or operator); raises `Http404` for any other.

    `runs` says how it is read, for who does not want all of it.
    """
    runs = TaskRun.objects.select_related("owner") if runs is None else runs
    try:
        return (runs if is_operator(request) else runs.visible_to(request.user)).get(pk=uuid.UUID(str(pk)))
    except (ValueError, TaskRun.DoesNotExist):
        raise Http404("There is no such run.") from None


def is_open_to(request: HttpRequest) -> bool:
    """True when open access lets this request in without a login: from this very machine, not through a proxy."""
    if not (settings.OPEN_ACCESS and settings.DEBUG):
        return False
    forwarded = {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"} & request.META.keys()
    return not forwarded and is_loopback(request.META.get("REMOTE_ADDR", ""))


def is_operator(request: HttpRequest) -> bool:
    """True for those who see and steer all of it: staff, and a guest of open access, whose machine it is."""
    return bool(request.user.is_staff) or (not request.user.is_authenticated and is_open_to(request))


def may(request: HttpRequest, permission: str) -> bool:
    """Whether this person has the permission, as Django keeps it; a guest of open access has all of them."""
    if request.user.is_authenticated:
        return bool(request.user.has_perm(permission))
    return is_open_to(request)


def operators_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """For anybody but operators the page is not there."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not is_operator(request):
            raise Http404("There is no such page.")
        return view(request, *args, **kwargs)

    return guarded


def forget_forms_at_logout() -> None:
    """What was opened as somebody is not sent as nobody: where a guest may send too, it would go out in no name."""
    user_logged_out.connect(_forget_forms, dispatch_uid="tasks_app.forget_forms")


def _forget_forms(request: HttpRequest | None, **told: Any) -> None:
    if request is not None:
        rotate_token(request)  # as a login does, too


def owner_of(request: HttpRequest) -> Any:
    """Whom a new run belongs to: the person who asks, or nobody for a guest of open access."""
    return request.user if request.user.is_authenticated else None
