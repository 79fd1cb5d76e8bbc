"""STEER: a question that is asked back, kept a while, so that its page has an address of its own.

As the answer to a form it would be gone for whoever comes back to it: a browser asks whether to send the form again, or
shows a page of its own that nothing can be read on.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import QueryDict

KEPT_SECONDS = 3_600
NAME = "question"
KEY = re.compile(r"[0-9a-z]{32}")


def keep(person: User | AnonymousUser, given: QueryDict) -> str:
    """Keep what a form has sent; answers the key to it."""
    # A row of its own: what is in the session of the person is read with every poll.
    store = new_store()
    store[NAME] = {"whose": person.pk, "given": given.urlencode()}
    store.set_expiry(KEPT_SECONDS)
    store.clear_expired()
    store.create()
    return str(store.session_key)


def kept(person: User | AnonymousUser, key: str) -> QueryDict | None:
    """What this person's form has sent; None when that is forgotten, or somebody else's."""
    found = new_store(key).get(NAME) if KEY.fullmatch(key) else None
    return QueryDict(found["given"]) if found and found["whose"] == person.pk else None


def new_store(key: str | None = None) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)
