"""WATCH: the object that a run is about, as pages tell it.

What it calls itself and where it leads is the project's own code, which may raise or answer anything; no page of a run
ends because of it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from tasks_app import about, wording
from tasks_app.links import runs_url

logger = logging.getLogger("dumbwaiter.about")

TOLD = 120
"""So many characters are shown of what an object calls itself."""

LONGEST_ADDRESS = 2_000
ADDRESS = re.compile(r"(?:https?://|/(?!/))[^\s\\]*", re.IGNORECASE)
"""Where a link may lead: a page of this site or of another one, never a script."""


@dataclass(frozen=True)
class Subject:
    """What a run is about."""

    about: str
    """As the run has it."""
    told: str
    """What it calls itself; else what kind of thing it is, and its key."""
    is_there: bool
    url: str = ""
    """Its own page, or that of the admin; empty where there is none for who asks."""

    @property
    def runs_url(self) -> str:
        """All the runs about it."""
        return runs_url(about=self.about)


def subject_of(text: str | None, request: HttpRequest) -> Subject | None:
    """By one query; None, and none, for a run that is about nothing."""
    if not text:
        return None
    label, _, key = text.partition(":")
    try:
        found = apps.get_model(label)._base_manager.filter(pk=key).first()
    except Exception as error:  # its model is gone, or has other keys by now
        logger.info("%s cannot be looked up: %s", wording.visible(text), type(error).__name__)
        found = None
    if found is None:
        return Subject(text, wording.visible(f"{label} {key}"), is_there=False)
    return Subject(text, said_by(found) or about.told(text), is_there=True, url=address_of(found, request))


def said_by(instance: models.Model) -> str:
    """Its own text, on one line; empty where there is none."""
    try:
        said = str(instance)[: TOLD + 1]  # a part of a text that is marked as safe is not
    except Exception as error:
        logger.warning("%s cannot say what it is: %s", instance._meta.label, type(error).__name__)
        return ""
    whole = wording.clip(said.encode("utf-8", "replace").decode(), TOLD)
    return wording.visible(" ".join(whole.split()))


def address_of(instance: models.Model, request: HttpRequest) -> str:
    """Its own page; else, for who may see it there, its page of the admin."""
    for address in (own_address, admin_address):
        try:
            if found := address(instance, request):
                return found
        except Exception as error:
            logger.warning("%s cannot say where it is: %s", instance._meta.label, type(error).__name__)
    return ""


def own_address(instance: Any, request: HttpRequest) -> str:
    if not hasattr(instance, "get_absolute_url"):
        return ""
    address = str(instance.get_absolute_url())
    is_fine = len(address) <= LONGEST_ADDRESS and address.isprintable() and ADDRESS.fullmatch(address)
    return address if is_fine else ""


def admin_address(instance: models.Model, request: HttpRequest) -> str:
    site, model, meta = admin.site, type(instance), instance._meta
    if not (site.is_registered(model) and site.has_permission(request)):
        return ""
    if not site.get_model_admin(model).has_view_permission(request, instance):
        return ""
    return reverse(f"{site.name}:{meta.app_label}_{meta.model_name}_change", args=[quote(instance.pk)])
