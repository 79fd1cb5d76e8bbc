from typing import NoReturn

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest


@login_not_required
def not_found(request: HttpRequest, anything: str) -> NoReturn:
    """Every address that no other view has."""
    raise Http404
