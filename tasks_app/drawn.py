"""WATCH: a live part is drawn once for all who see the same.

News come to all readers of a page within one pace of theirs, and drawing is what costs: a list of fifty runs as much as
thirty polls without news. So what was drawn is kept for a moment, under the version that it has; the reader who comes
next is shown that, with a poll and a token of his own in it. Who may do everything sees what all others see who may;
everybody else is drawn for alone, because what his page offers depends on what is his.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.utils.html import escape
from django.utils.timezone import get_current_timezone_name

if TYPE_CHECKING:
    from tasks_app.live import Poll

KEPT_SECONDS = 5.0
"""So old the times in it may be; the page's script keeps them true."""

MOST_KEPT = 100
TOKEN = re.compile(rb'(?<=name="csrfmiddlewaretoken" value=")[^"]+')


@dataclass
class Drawing:
    """What a part looks like, as soon as somebody has drawn it; who comes meanwhile waits for that."""

    lock: Lock = field(default_factory=Lock)
    until: float = 0.0
    content: bytes = b""
    content_type: str = ""
    poll: Poll | None = None
    poll_url: str = ""

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self.until

    def keep(self, response: HttpResponse, poll: Poll | None, request: HttpRequest) -> None:
        self.content, self.content_type = response.content, response["Content-Type"]
        self.poll, self.poll_url = poll, poll.url(request) if poll else ""
        self.until = time.monotonic() + KEPT_SECONDS

    def shown_to(self, request: HttpRequest) -> HttpResponse:
        """It with a poll and a token that are good for this reader's session."""
        content = self.content
        if self.poll:
            own, others = (escape(url).encode() for url in (self.poll.url(request), self.poll_url))
            content = content.replace(others, own)
        if TOKEN.search(content):
            content = TOKEN.sub(get_token(request).encode(), content)
        return HttpResponse(content, content_type=self.content_type)


drawings: OrderedDict[Hashable, Drawing] = OrderedDict()
lock = Lock()


def eyes(request: HttpRequest, is_personal: bool) -> tuple[Hashable, ...]:
    """By whom, from where and by which clock it is seen: those for whom these are equal see the same."""
    user = request.user
    everything = user.is_active and user.is_superuser and not is_personal
    return ("everything" if everything else user.pk, request.get_host(), request.scheme, get_current_timezone_name())


def once(
    key: tuple[Hashable, ...],
    request: HttpRequest,
    draw: Callable[[], HttpResponseBase],
    poll_of: Callable[[], Poll | None],
) -> HttpResponseBase:
    """What was drawn under this key a moment ago, else what `draw` makes of it now."""
    with lock:
        drawing = drawings.setdefault(key, Drawing())
        drawings.move_to_end(key)
        while len(drawings) > MOST_KEPT:
            drawings.popitem(last=False)
    with drawing.lock:
        if drawing.is_fresh:
            return drawing.shown_to(request)
        response = draw()
        if (
            isinstance(response, HttpResponse)
            and response.status_code == HTTPStatus.OK
            and set(response.headers) == {"Content-Type"}
        ):
            drawing.keep(response, poll_of(), request)
        return response
