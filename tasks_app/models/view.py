from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, models, transaction

from tasks_app.jsonable import storable

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

NAME_LENGTH = 60
QUERY_LENGTH = 2_000
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MOST_VIEWS = 50
"""So many may one person have."""


class BadView(ValueError):
    """It cannot be kept; the message is a sentence that says why."""


class SavedViewQuerySet(models.QuerySet["SavedView"]):
    def owned_by(self, user: User | AnonymousUser) -> SavedViewQuerySet:
        """Those of this person; a guest of open access has those of nobody."""
        return self.filter(owner=user.pk if user.is_authenticated else None)

    def visible_to(self, user: User | AnonymousUser, is_operator: bool) -> SavedViewQuerySet:
        """The own ones, and for operators those that others share."""
        own = models.Q(owner=user.pk if user.is_authenticated else None)
        return self.filter(own | models.Q(is_shared=True) if is_operator else own)

    def keep(self, user: User | AnonymousUser, name: str, query: str, is_shared: bool = False) -> SavedView:
        """Keep a query under a name, in place of what that person had under it; raises `BadView`."""
        name = checked(name)
        if len(query) > QUERY_LENGTH:
            raise BadView("A view with so many filters is too long to be kept.")
        own = self.owned_by(user)
        if not own.filter(name=name).exists() and own.count() >= MOST_VIEWS:
            raise BadView(f"One person has at most {MOST_VIEWS} views. Delete one first.")
        owner = user if user.is_authenticated else None
        values = {"query": query, "is_shared": is_shared}
        return self.update_or_create(owner=owner, name=name, defaults=values)[0]


class SavedView(models.Model):
    """A list of runs that somebody gave a name: the filters of its URL, its order and its size."""

    id = models.BigAutoField(primary_key=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    name = models.CharField(max_length=NAME_LENGTH)
    query = models.CharField(max_length=QUERY_LENGTH, blank=True)
    is_shared = models.BooleanField(default=False, help_text="All operators have it in their list.")

    objects = SavedViewQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="savedview_one_of_a_name", nulls_distinct=False)
        ]

    def __str__(self) -> str:
        return self.name

    def rename(self, name: str) -> None:
        """Raises `BadView` for a name that cannot be had."""
        self.name = checked(name)
        try:
            with transaction.atomic():
                self.save(update_fields=["name"])
        except IntegrityError:
            raise BadView(f"There is a view named {self.name} already.") from None


def checked(name: str) -> str:
    if UNSEEN.search(" ".join(name.split())):
        raise BadView("A view's name has no control characters. Leave them out.")
    name = " ".join(storable(name, 10_000).split())
    if not name:
        raise BadView("A view needs a name.")
    if len(name) > NAME_LENGTH:
        raise BadView(f"A view's name has at most {NAME_LENGTH} characters.")
    return name
