"""WATCH: secrets in arguments and results, told by their keys, are never shown, logged or exported.

The database has them as they are, because the task needs them; a mask stands for them wherever a call becomes text.
What the task itself says, in its log, its errors or a result without such a key, is the task's own affair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter
from typing import Any

from django.conf import settings

from tasks_app import catalog
from tasks_app.engine.execution import signature_of
from tasks_app.jsonable import Cut

MASK = "••••••"

SEPARATORS = "-_ ."
"""They count for nothing in a key: api_key, api-key and apiKey are one."""

MOST_KEPT, LONGEST_KEPT = 10_000, 100
"""So many keys are remembered, and none that is longer: a task may make them up."""


# Which keys


class Keys:
    """The keys that have one of these words in them."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = [found for word in words if (found := bare(word))]
        self.known: dict[str, bool] = {}

    def has(self, key: str) -> bool:
        """Also for what is no text, as keys in the literals of a schedule may be."""
        found = self.known.get(key)
        if found is None:
            found = self.may_be_in(str(key))
            if len(str(key)) <= LONGEST_KEPT:
                if len(self.known) >= MOST_KEPT:
                    self.known.clear()
                self.known[key] = found
        return found

    def may_be_in(self, text: str) -> bool:
        """Whether a text has one of the words in it, as a part of a key or of anything."""
        text = bare(text)
        return any(word in text for word in self.words)

    def end_of_first(self, text: str) -> int | None:
        """Up to where the first of them goes."""
        between = f"[{re.escape(SEPARATORS)}]*"
        words = "|".join(between.join(map(re.escape, word)) for word in self.words)
        found = re.search(words, text, re.IGNORECASE) if words else None
        return found.end() if found else None


def bare(text: str) -> str:
    text = text.lower()
    for separator in SEPARATORS:
        text = text.replace(separator, "")
    return text


_keys = lru_cache(maxsize=10)(Keys)


def secret_keys() -> Keys:
    return _keys(tuple(settings.MASKED_KEYS))


def is_secret(key: object) -> bool:
    """Whether what stands under this key, or in a parameter of this name, is masked."""
    return secret_keys().has(str(key))


@dataclass(frozen=True, slots=True)
class Places:
    """Where among the arguments of a task its secrets stand that have no key of their own in a call."""

    at: frozenset[int] = frozenset()
    beyond: int | None = None
    """From here on all of them."""
    but: frozenset[str] | None = None
    """Of the keywords all but these; None where each is told by its own name."""

    def __contains__(self, place: int) -> bool:
        return place in self.at or (self.beyond is not None and place >= self.beyond)

    def __bool__(self) -> bool:
        return bool(self.at) or self.beyond is not None

    def has(self, name: str) -> bool:
        """Whether the keyword of this name is a secret."""
        return is_secret(name) or (self.but is not None and name not in self.but)


NOWHERE = Places()


def places_of(path: str) -> Places:
    """Those of the task at a dotted path, by its signature; nowhere if it is not known in this process."""
    found = catalog.function_at(path)
    try:
        return _places(*found, secret_keys()) if found else NOWHERE
    except TypeError:  # no function, or one that cannot be kept
        return NOWHERE


@lru_cache(maxsize=1_000)
def _places(func: Callable[..., Any], takes_context: bool, keys: Keys) -> Places:
    signature = signature_of(func)
    at: set[int] = set()
    beyond: int | None = None
    but: frozenset[str] | None = None
    parameters = list(signature.parameters.values())[int(takes_context) :] if signature else []
    for place, one in enumerate(parameters):
        if not keys.has(one.name):
            continue
        if one.kind is Parameter.VAR_POSITIONAL:
            beyond = place
        elif one.kind is Parameter.VAR_KEYWORD:
            but = frozenset(other.name for other in parameters)
        elif one.kind is not Parameter.KEYWORD_ONLY:
            at.add(place)
    return Places(frozenset(at), beyond, but)


# Values, and texts of values


def masked(value: Any) -> Any:
    """A JSON value, or the beginning of one (`Cut`), with its secrets masked at any depth."""
    if isinstance(value, Cut):
        return Cut(masked_text(value))
    return _masked(value, secret_keys().has)


def _masked(value: Any, is_secret: Callable[[str], bool]) -> Any:
    """Without recursion: a value may be deeper than Python's stack."""
    result: list[Any] = [None]
    left: list[tuple[Any, Any, Any]] = [(value, result, 0)]
    while left:
        value, holder, place = left.pop()
        if isinstance(value, dict):
            holder[place] = found = dict.fromkeys(value, MASK)
            left += [(inner, found, key) for key, inner in value.items() if not is_secret(key)]
        elif isinstance(value, list | tuple):
            holder[place] = several = [None] * len(value)
            left += [(inner, several, number) for number, inner in enumerate(value)]
        else:
            holder[place] = value
    return result[0]


def masked_call(path: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The same of what a task is called with, of which each part may be a `Cut`."""
    places = places_of(path)
    if isinstance(args, Cut):
        args = Cut(masked_text(args, places))
    elif isinstance(args, list):
        args = [MASK if place in places else masked(value) for place, value in enumerate(args)]
    else:
        args = masked(args)
    if places.but is None:
        return args, masked(kwargs)
    if isinstance(kwargs, dict):
        return args, {name: MASK if places.has(name) else masked(value) for name, value in kwargs.items()}
    return args, Cut(MASK) if isinstance(kwargs, Cut) else masked(kwargs)


# A text, with the colon if it is a key, or one of the characters that give JSON its shape. A text may be cut off.
TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)(?:"(\s*:)?|\\?\Z)|[][{},]', re.DOTALL)


def masked_text(text: str, places: Places = NOWHERE) -> str:
    """JSON as PostgreSQL writes it, whole or only its beginning, with its secrets masked; the rest as it stands."""
    keys = secret_keys()
    if not places and not keys.may_be_in(text):
        return text
    parts: list[str] = []
    shown_to = depth = place = 0
    hides: int | None = None  # the depth of what is left out
    for token in TOKEN.finditer(text):
        sign = token[0]
        begins = False
        if sign in ("[", "{"):
            depth += 1
            begins = depth == 1 and sign == "[" and 0 in places and text[token.end() : token.end() + 1] != "]"
        elif sign in ("]", "}"):
            depth -= 1
            if hides is not None and depth < hides:
                hides, shown_to = None, token.start()
        elif sign == ",":
            if hides == depth:
                hides, shown_to = None, token.start()
            place += depth == 1
            begins = depth == 1 and place in places
        else:
            begins = bool(token[2]) and keys.has(token[1])
        if begins and hides is None:
            hides = depth
            parts += [text[shown_to : token.end()], "" if sign == "[" else " ", f'"{MASK}"']
    return "".join(parts if hides is not None else [*parts, text[shown_to:]])


def masked_texts(path: str, args: str, kwargs: str) -> tuple[str, str]:
    """A call as the two texts that the database has of it."""
    places = places_of(path)
    named = masked_text(kwargs)
    if places.but is not None:
        named = json.dumps(masked_call(path, [], json.loads(kwargs))[1], ensure_ascii=False)
    return masked_text(args, places), named


def masked_source(text: str) -> str:
    """What should be Python and cannot be read: all of it is left out from the first word on that tells of a secret."""
    end = secret_keys().end_of_first(text)
    return text if end is None else f"{text[:end]} {MASK}"


# Back from a form


def restored(sent: Any, earlier: Any) -> Any:
    """What was sent from a form that showed `earlier` masked, with the secrets that nobody has touched in it again.

    A mask whose place cannot be told stays one, for `has_mask`: no secret gets to where another one stood.
    """
    if isinstance(sent, dict):
        before = earlier if isinstance(earlier, dict) else {}
        return {
            name: before[name]
            if value == MASK and is_secret(name) and name in before
            else restored(value, before.get(name))
            for name, value in sent.items()
        }
    is_list = isinstance(sent, list) and isinstance(earlier, list | tuple)  # a schedule may have the other kind
    return _restored_list(sent, list(earlier)) if is_list else sent


def _restored_list(sent: list[Any], earlier: list[Any]) -> list[Any]:
    """By their places while all but one are as they were; else each by its looks, if no other looks the same."""
    told = [masked(value) for value in earlier]
    changed = sum(value != before for value, before in zip(sent, told, strict=False))
    if len(sent) == len(told) and changed <= 1:
        return [restored(value, before) for value, before in zip(sent, earlier, strict=True)]
    found = []
    for value in sent:
        alike = [before for before, shown in zip(earlier, told, strict=True) if shown == value]
        found.append(restored(value, alike[0]) if len(alike) == 1 else value)
    return found


def restored_call(
    path: str, args: list[Any], kwargs: dict[str, Any], earlier: tuple[Any, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The same of a call of which `masked_call` was shown, by parameter."""
    places = places_of(path)
    before = earlier[0] if isinstance(earlier[0], list) else []
    named = earlier[1] if isinstance(earlier[1], dict) else {}
    positional = restored(args, before)
    for place, value in enumerate(args):
        is_same_place = place in places.at or len(args) == len(before)
        if value == MASK and place in places and is_same_place and place < len(before):
            positional[place] = before[place]
    return positional, {
        name: named[name] if value == MASK and places.has(name) and name in named else restored(value, named.get(name))
        for name, value in kwargs.items()
    }


def has_mask(value: Any) -> bool:
    """Whether a mask stands where a secret should."""
    if isinstance(value, dict):
        return any((inner == MASK and is_secret(name)) or has_mask(inner) for name, inner in value.items())
    return isinstance(value, list) and any(map(has_mask, value))


def call_has_mask(path: str, args: list[Any], kwargs: dict[str, Any]) -> bool:
    places = places_of(path)
    return (
        has_mask([args, kwargs])
        or any(value == MASK and place in places for place, value in enumerate(args))
        or any(value == MASK and places.has(name) for name, value in kwargs.items())
    )
