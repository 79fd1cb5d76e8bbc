"""The files that a run has made, as its result lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks_app import wording

MADE_FILES, UPLOADS = "runs", "uploads"
"""Where in the storage the files stand that a run has made, and those that were sent with it: `<folder>/<run id>/`."""

# Also what keeps a listed name within the run's own folder.
NAME = re.compile(r"[\w-][\w.-]{0,199}", re.ASCII)

# Told by the name and never by whoever listed the file, so nothing that a browser would run is ever served.
CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class RunFile:
    """A file in `runs/<run id>/` of the storage."""

    name: str
    width: int
    height: int
    bytes: int

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES.get(self.name.rpartition(".")[2], "application/octet-stream")

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")

    @property
    def longest(self) -> int:
        return max(self.width, self.height)


def files_of(return_value: Any) -> list[RunFile]:
    """The files that a result lists as `{"files": [{"name", "width", "height", "bytes"}]}`; none for any other."""
    listed = return_value.get("files") if isinstance(return_value, dict) else None
    return [
        RunFile(entry["name"], *(number(entry.get(key)) for key in ("width", "height", "bytes")))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and NAME.fullmatch(entry["name"])
    ]


def told(files: Sequence[RunFile]) -> str:
    """`3 images`, `2 files`."""
    return wording.plural(len(files), "image" if all(file.is_image for file in files) else "file")


def number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
