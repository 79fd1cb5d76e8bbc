"""WATCH: finding runs by words in their arguments and in what went wrong.

Runs that have ended stand in an index of words (`run_words`), of the beginnings of both: a value may be a megabyte, and
a finish that could not be indexed would be no finish. Words are letters and figures; all else parts them.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import connection
from django.db.models import BooleanField, Func, UUIDField, Value
from django.db.models.sql.compiler import SQLCompiler

ARGUMENTS_LENGTH, MESSAGE_LENGTH = 2_000, 1_000
"""So many characters of each are searched."""

PARTING = "./:-_@=&?#+<>~\\"
"""What PostgreSQL would take for a part of a word, an address or a number."""

WORD = re.compile(r"[^\W_]+")
MOST_WORDS = 10
SHORTEST_BEGINNING = 3
"""A word is found by its beginning if that has so many characters, else as it is."""

MOST_HITS = 10_000
COMMON = 100_000
"""A word that so many runs are expected to have is not asked of the index: reading them there takes long by itself."""

# Migration 0008 has the same text: the index serves a search only while both are one expression. None of it can raise:
# the text is short before it is parsed, JSON in the database has no NUL and no half of a surrogate pair.
TEXT = (
    f"left({{args}}::text, {ARGUMENTS_LENGTH}) || ' ' || left({{kwargs}}::text, {ARGUMENTS_LENGTH}) || ' ' || "
    f"left(coalesce({{failure_message}}, ''), {MESSAGE_LENGTH})"
)
WORDS = f"to_tsvector('simple'::regconfig, translate({TEXT}, '{PARTING}', '{' ' * len(PARTING)}'))"
ENDED = "status IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')"

# How many runs have the rarest of the words: of each word that many runs have, PostgreSQL keeps how often that is.
EXPECTED = """
SELECT coalesce(min(share), 0) * (SELECT reltuples FROM pg_class WHERE oid = 'tasks_app_taskrun'::regclass)
FROM unnest(%(patterns)s::text[]) AS asked(pattern), LATERAL (
  SELECT coalesce(sum(often), 0) AS share
  FROM pg_stats, unnest(most_common_elems::text::text[], most_common_elem_freqs) AS known(word, often)
  WHERE schemaname = current_schema() AND tablename = 'run_words' AND word LIKE pattern) AS found
"""

# Bitmaps of the index and nothing else: a planner that expects many hits would rather read the whole table. With room
# for the hits of a word that a million runs have: a bitmap that forgets which rows of a page it means has each of them
# taken apart into words again. Sent together the statements are one transaction, where there is none around them, and
# one round trip.
STRICTLY = "SELECT set_config('enable_seqscan', '{on}', true), set_config('enable_indexscan', '{on}', true)"
HITS = f"""
{STRICTLY.format(on="off")}, set_config('work_mem', '64MB', true),
  set_config('dumbwaiter.is_common', (({EXPECTED}) > %(common)s)::text, true)::boolean;
SELECT id FROM tasks_app_taskrun
WHERE NOT current_setting('dumbwaiter.is_common')::boolean
  AND {ENDED} AND {WORDS.format(args="args", kwargs="kwargs", failure_message="failure_message")}
    @@ to_tsquery('simple'::regconfig, %(words)s)
LIMIT %(limit)s;
{STRICTLY.format(on="on")};
SET LOCAL work_mem TO DEFAULT
"""  # noqa: S608  its parts are ours


def words_of(text: str) -> str:
    """What somebody searches for, as PostgreSQL asks for words; empty when there is none in it."""
    words = WORD.findall(text.lower())[:MOST_WORDS]
    return " & ".join(f"'{word}':*" if len(word) >= SHORTEST_BEGINNING else f"'{word}'" for word in words)


def has_more(text: str) -> bool:
    """Whether there are more words in it than are searched for."""
    return len(WORD.findall(text)) > MOST_WORDS


def hits(words: str) -> list[uuid.UUID] | None:
    """The ended runs that have all of these words; None when they are too many to be looked at one by one."""
    patterns = [f"{word}%" if len(word) >= SHORTEST_BEGINNING else word for word in WORD.findall(words)]
    with connection.cursor() as cursor:
        cursor.execute(HITS, {"words": words, "patterns": patterns, "common": COMMON, "limit": MOST_HITS + 1})
        is_common = cursor.fetchone()[-1]
        cursor.nextset()
        found = [row[0] for row in cursor.fetchall()]
    return found if len(found) <= MOST_HITS and not is_common else None


class Matches(Func):
    """Whether a run has all of these words, ended or not; a condition for `filter`.

    Taking a text apart into words takes long: only one in which the longest of them stands at all.
    """

    output_field = BooleanField()

    def __init__(self, words: str) -> None:
        longest = max(WORD.findall(words), key=len)
        super().__init__("args", "kwargs", "failure_message", Value(words), Value(longest))

    def as_sql(self, compiler: SQLCompiler, connection: Any, **context: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        parts = [compiler.compile(part) for part in self.source_expressions]
        (args, _), (kwargs, _), (message, _), (words, given), (longest, sought) = parts
        columns = {"args": args, "kwargs": kwargs, "failure_message": message}
        has_longest = f"strpos(lower({TEXT.format(**columns)}), {longest}) > 0"
        has_all = f"{WORDS.format(**columns)} @@ to_tsquery('simple'::regconfig, {words})"
        return f"({has_longest} AND {has_all})", [*sought, *given]

    def __repr__(self) -> str:
        return f"Matches({self.source_expressions[3]})"


class OneOf(Func):
    """Whether a run is one of these; in one value, because ten thousand take long to be written one by one."""

    output_field = BooleanField()
    template = "(%(expressions)s)"
    arg_joiner = " = ANY "

    def __init__(self, ids: list[uuid.UUID]) -> None:
        super().__init__("id", Value(ids, output_field=ArrayField(UUIDField())))

    def as_sql(self, compiler: SQLCompiler, connection: Any, **context: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        (column, _), (ids, given) = [compiler.compile(part) for part in self.source_expressions]
        return f"({column} = ANY({ids}::uuid[]))", list(given)
