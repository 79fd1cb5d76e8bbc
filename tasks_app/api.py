"""The JSON door, word for word as the clients of the predecessor know it: `POST /tasks`, `GET /tasks/<id>`.

`POST /tasks/run` is ours: it takes any task.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import wraps
from http import HTTPStatus
from typing import Any, TypeGuard, cast

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django_tasks import task_backends
from django_tasks.exceptions import InvalidTaskError

from tasks_app.access import get_run, is_open_to, may, owner_of
from tasks_app.backend import PostgresBackend
from tasks_app.kinds import BadText
from tasks_app.models import Status, TaskRun
from tasks_app.models.run import TASK_PATH_LENGTH
from tasks_app.steering import LAUNCH
from tasks_app.takers import warning_for
from tasks_app.tasks import create_task
from tasks_app.wanted import REFUSALS, Wanted, told

View = Callable[..., HttpResponse]

STATUS_WORDS = {
    Status.READY: "PENDING",
    Status.RUNNING: "PENDING",  # their client stops at the first other word
    Status.SUCCESSFUL: "SUCCESS",
    Status.FAILED: "FAILURE",
    Status.CANCELLED: "REVOKED",
}


def error(status: HTTPStatus, sentence: str, **headers: str) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status, headers=headers)


def door(*methods: str) -> Callable[[View], View]:
    """A view of the JSON door: these methods, for whoever has a session, a bearer token, or open access.

    Clients have no CSRF token to send. What protects a session here: the cookie does not travel with requests from
    other sites (SameSite), and a browser says in `Origin` where a request comes from.
    """

    def wrap(view: View) -> View:
        @login_not_required
        @csrf_exempt
        @never_cache
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in methods:
                allowed = ", ".join(methods)
                return error(HTTPStatus.METHOD_NOT_ALLOWED, f"This address takes {allowed}.", Allow=allowed)
            # A token that is none opens nothing, not even what is open: who tries one out wants to know.
            if gives_token(request) and not has_token(request):
                return error(HTTPStatus.UNAUTHORIZED, "That token is not known here.", **{"WWW-Authenticate": "Bearer"})
            if not (has_token(request) or is_open_to(request) or request.user.is_authenticated):
                sentence = "Log in, or send a token as `Authorization: Bearer …`."
                return error(HTTPStatus.UNAUTHORIZED, sentence, **{"WWW-Authenticate": "Bearer"})
            origin = request.headers.get("Origin")
            if origin is not None and origin != f"{request.scheme}://{request.get_host()}":
                return error(HTTPStatus.FORBIDDEN, "A page of another site cannot send tasks here.")
            try:
                return view(request, *args, **kwargs)
            except Http404:
                return error(HTTPStatus.NOT_FOUND, "There is no such task.")

        return guarded

    return wrap


def gives_token(request: HttpRequest) -> bool:
    """True for a request with a bearer token, whether it is one of ours or not."""
    return request.headers.get("Authorization", "").partition(" ")[0].lower() == "bearer"


def has_token(request: HttpRequest) -> bool:
    """True for one of the tokens in API_TOKENS; a request with a token acts for no user, and sees what is nobody's."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        return False
    # A list, not a generator: all tokens are compared, so that the time tells nothing.
    return any([constant_time_compare(given.strip(), token) for token in settings.API_TOKENS])  # noqa: C419


@door("POST")
def tasks(request: HttpRequest) -> HttpResponse:
    """`{"type": 0 to 3}` enqueues `create_task`: 201 and `{"task_id": …}`; any other body: 422 and a sentence.

    The same again, with the same `Idempotency-Key` of the same person, gets the same answer and makes no other run.
    """
    backend = cast(PostgresBackend, task_backends[create_task.backend])
    owner, key = owner_of(request), request.headers.get("Idempotency-Key")
    try:
        kind = read_type(request)
    except ValueError as problem:
        return error(HTTPStatus.UNPROCESSABLE_ENTITY, str(problem))
    try:
        run = backend.enqueue_run(create_task, (), {"type": kind}, owner=owner, idempotency_key=key)
    except InvalidTaskError as problem:
        return error(HTTPStatus.UNPROCESSABLE_ENTITY, str(problem))
    return taken(run)


@door("POST")
def run(request: HttpRequest) -> HttpResponse:
    """`{"task": "shop.tasks.greet", …}`, as `Wanted` reads it, enqueues any task that a person may launch.

    Answered as `tasks` answers. A person may what the launch page lets them, a token what API_TOKENS_MAY_LAUNCH names.
    """
    may_all = may(request, LAUNCH)
    if not (may_all or has_token(request)):
        return error(HTTPStatus.FORBIDDEN, "That needs the permission to add runs.")
    try:
        wanted = Wanted.read(body_of(request))
        if not (may_all or is_for_tokens(wanted.path)):
            sentence = f"A token may not send {told(wanted.path)}: API_TOKENS_MAY_LAUNCH does not name it."
            return error(HTTPStatus.FORBIDDEN, sentence)
        sent = wanted.send(owner_of(request), request.headers.get("Idempotency-Key"))
    except REFUSALS as problem:
        return error(HTTPStatus.UNPROCESSABLE_ENTITY, str(problem))
    return taken(sent, warning_for(sent))


def taken(run: TaskRun, warning: str = "") -> JsonResponse:
    """The answer for a run, which may be one that was sent before."""
    replayed = {"Idempotent-Replayed": "true"} if run.was_standing else {}
    body = {"task_id": str(run.pk), **({"warning": warning} if warning else {})}
    return JsonResponse(body, status=HTTPStatus.CREATED, headers=replayed)


def is_for_tokens(path: str) -> bool:
    """Whether the setting API_TOKENS_MAY_LAUNCH names this task."""
    named: list[str] = settings.API_TOKENS_MAY_LAUNCH
    return len(path) <= TASK_PATH_LENGTH and any(fnmatchcase(path, pattern) for pattern in named)


def body_of(request: HttpRequest) -> bytes:
    """Raises `BadText` for one that is too large, or did not come whole."""
    try:
        return request.body
    except RequestDataTooBig:
        raise BadText("The body is too large.") from None
    except UnreadablePostError:
        raise BadText("The body did not come whole.") from None


@door("GET", "HEAD")
def task(request: HttpRequest, task_id: str) -> HttpResponse:
    """Exactly `{"task_id", "task_status", "task_result"}` of one run."""
    run = get_run(request, task_id)
    answer = {"task_id": str(run.pk), "task_status": STATUS_WORDS[Status(run.status)], "task_result": result_of(run)}
    return JsonResponse(answer)


def result_of(run: TaskRun) -> Any:
    if run.status == Status.SUCCESSFUL:
        return run.return_value
    return run.failure_message if run.is_finished else None


def read_type(request: HttpRequest) -> int:
    """The body's type, read as JSON whatever the content type says; raises `ValueError` with a sentence."""
    try:
        body = json.loads(request.body)
    except RequestDataTooBig:
        raise ValueError("The body is too large.") from None
    except (ValueError, RecursionError, UnreadablePostError):
        raise ValueError('The body is not JSON: send {"type": n} with n from 0 to 3.') from None
    if not isinstance(body, dict) or "type" not in body:
        raise ValueError('The body has no type: send {"type": n} with n from 0 to 3.')
    kind = body["type"]
    if not is_kind(kind):
        raise ValueError("The type is a whole number from 0 to 3.")
    return kind


def is_kind(value: object) -> TypeGuard[int]:
    """True for what the practice task takes here."""
    return type(value) is int and 0 <= value <= 3
