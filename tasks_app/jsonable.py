"""What may be stored as JSON: strict JSON that PostgreSQL accepts, of bounded size."""

import json
import re
from typing import Any

from django.conf import settings

# A NUL that json.dumps wrote, as against the text backslash-u0000: an even number of backslashes stands before it.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


# Made once: json.dumps makes another for every call that has options.
ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))

DEEPEST = 200
"""Levels of nesting: with many more, reading it back would end in a RecursionError somewhere."""


class Cut(str):
    """The beginning of a JSON text that is too long to be read whole."""

    __slots__ = ()


class NotJSON(ValueError):
    """The value cannot be stored; the message is a sentence that says why."""


def to_json(value: Any, what: str) -> str:
    """The value as JSON text; `what` begins the sentence of `NotJSON` (such as "The result")."""
    try:
        text = ENCODER.encode(value)
        size = len(text.encode())
    except TypeError as error:
        raise NotJSON(f"{what} cannot be stored as JSON: {error}.") from None
    except UnicodeEncodeError:
        raise NotJSON(f"{what} cannot be stored as JSON: a text has half of a surrogate pair in it.") from None
    except RecursionError:
        raise NotJSON(f"{what} cannot be stored as JSON: nested too deep.") from None
    except ValueError as error:
        raise NotJSON(f"{what} cannot be stored as JSON: {str(error).lower()}.") from None
    # Brackets within texts count too: this only spares the common value the walk.
    if text.count("[") + text.count("{") > DEEPEST and is_deeper(value, DEEPEST):
        raise NotJSON(f"{what} cannot be stored as JSON: nested too deep.")
    if size > settings.MAX_JSON_BYTES:
        raise NotJSON(f"{what} cannot be stored: {size:,} bytes, more than the {settings.MAX_JSON_BYTES:,} allowed.")
    if "\\u0000" in text and NUL.search(text):
        raise NotJSON(f"{what} cannot be stored: PostgreSQL takes no NUL character.")
    return text


def is_deeper(value: Any, levels: int) -> bool:
    """True when lists and mappings are nested in more than so many levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(is_deeper(inner, levels - 1) for inner in value)


def storable(text: str, limit: int = 50_000) -> str:
    """Any text made fit for PostgreSQL: NUL and half surrogates escaped, the middle of a huge one left out."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    if len(text) <= limit:
        return text
    kept = limit // 2
    return f"{text[:kept]}\n… {len(text) - 2 * kept:,} characters left out …\n{text[-kept:]}"
