"""COUNT: which failures look alike, so that a thousand of one cause are one line."""

from __future__ import annotations

import re
from hashlib import blake2b

from tasks_app import wording

LONGEST = 300
READ = 2_000
"""So much of a message is looked at: what tells one cause from another stands at its beginning."""

# In this order: what is found first is no part of what comes later.
DIFFERENCES = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", "<url>"),
        (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "<address>"),
        (r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "<id>"),
        (r"\b0x[0-9a-fA-F]+\b", "<id>"),
        (r"\b(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b", "<id>"),
        (r"(?<![\w<])(?:/[\w.@+-]+){2,}/?", "<path>"),
        (r"\d+(?:[.,:_-]\d+)*", "#"),
    )
]


def without_differences(message: str) -> str:
    """The first line of a message with addresses, ids, paths and figures left out, which differ from run to run."""
    line = next((line for line in message[:READ].splitlines() if line.strip()), "")
    text = " ".join(line.split())
    for pattern, said in DIFFERENCES:
        text = pattern.sub(said, text)
    return wording.clip(text, LONGEST)


def fingerprint(task_path: str, failure: str, exception: str, message: str) -> str:
    """The same for failures that look alike; `message` is one of `without_differences`."""
    told = "\0".join((task_path, failure, exception, message))
    return blake2b(told.encode(errors="replace"), digest_size=16).hexdigest()
