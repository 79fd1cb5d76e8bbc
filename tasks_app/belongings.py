"""The files that belong to a run: what it made, in `runs/<run id>/`, and what was sent with it, in `uploads/<run id>/`.

Both are found by the run's id alone, so a folder whose run is gone is known for what it is without reading any row.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from tasks_app.files import MADE_FILES, UPLOADS

logger = logging.getLogger("dumbwaiter.files")

MADE = (MADE_FILES,)
ALL = (MADE_FILES, UPLOADS)

MARGIN = timedelta(days=1)
"""A folder without a run is left alone for so long: its run may be about to be committed, or a lost worker at it."""

AT_ONCE = 1_000

# What was sent with a run is of use as long as it or a retry of it is there.
NEEDED = """
SELECT id FROM tasks_app_taskrun WHERE id = ANY (%(ids)s::uuid[])
UNION SELECT retry_of_id FROM tasks_app_taskrun WHERE retry_of_id = ANY (%(originals)s::uuid[])
"""


def remove(runs: Mapping[uuid.UUID, Collection[str]]) -> None:
    """Remove the folders of these runs in these places; what cannot be removed is logged, and left for a prune."""
    for run, places in runs.items():
        for place in places:
            _remove(place, run)


def owners(place: str) -> set[uuid.UUID]:
    """The runs that have a folder there, going by its name; what is named otherwise is none of ours."""
    try:
        folders, _ = default_storage.listdir(place)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {found for name in folders if (found := _id_of(name))}


def orphans(place: str, runs: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Those of them that are gone, and whose folder there was not touched for `MARGIN`."""
    listed, found = sorted(runs), []
    for start in range(0, len(listed), AT_ONCE):
        batch = listed[start : start + AT_ONCE]
        with connection.cursor() as cursor:
            cursor.execute(NEEDED, {"ids": batch, "originals": batch if place == UPLOADS else []})
            needed = {row[0] for row in cursor.fetchall()}
        long_ago = timezone.now() - MARGIN  # by the clock that the files have their times from
        found += [run for run in batch if run not in needed and _is_older(f"{place}/{run}", long_ago)]
    return found


def sweep(place: str, runs: Collection[uuid.UUID]) -> int:
    """Remove those orphans; answers how many."""
    return sum(_remove(place, run) for run in orphans(place, runs))


def _id_of(name: str) -> uuid.UUID | None:
    try:
        found = uuid.UUID(name)
    except ValueError:
        return None
    return found if str(found) == name else None


def _is_older(folder: str, moment: datetime) -> bool:
    try:
        folders, files = default_storage.listdir(folder)
        inner = [f"{folder}/{name}" for name in (*folders, *files)]
        # A storage without real folders knows no time of them; there, one without files is not there.
        return all(default_storage.get_modified_time(path) < moment for path in inner or [folder])
    except Exception as error:  # a storage raises what it likes
        logger.warning("the age of %s cannot be told, so it stays: %s", folder, error)
        return False


def _remove(place: str, run: uuid.UUID) -> bool:
    try:
        return _remove_folder(f"{place}/{run}")
    except Exception as error:  # a storage raises what it likes
        logger.error("the files in %s/%s cannot be removed now; a prune tries again: %s", place, run, error)
        return False


def _remove_folder(folder: str) -> bool:
    try:
        folders, files = default_storage.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    for name in (*folders, *files):
        if name in folders and not _is_link(f"{folder}/{name}"):
            _remove_folder(f"{folder}/{name}")
        else:
            _remove_file(f"{folder}/{name}")
    default_storage.delete(folder)
    return True


def _remove_file(path: str) -> None:
    if _is_link(path):  # never what it points to
        os.unlink(default_storage.path(path))
    else:
        default_storage.delete(path)


def _is_link(path: str) -> bool:
    try:
        return os.path.islink(default_storage.path(path))
    except NotImplementedError:
        return False  # this storage is no file system
