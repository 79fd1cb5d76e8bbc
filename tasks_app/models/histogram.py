"""COUNT: histograms that the database adds up as fast as numbers, because each is one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Expression

BUCKETS = 64
"""How many lengths of time a histogram tells apart."""

DIGITS = 12
"""Each bucket has so many decimal digits of the number to itself: no count of runs needs more."""

PARTS = re.compile(rf"\d{{{DIGITS}}}")

if TYPE_CHECKING:
    Base = models.Field[Sequence[int], list[int]]
else:
    Base = models.Field


def packed(histogram: Sequence[int]) -> int:
    """The histogram as one number. The sum of two numbers is that of their histograms, bucket by bucket."""
    return int("".join(f"{number:0{DIGITS}d}" for number in reversed(histogram)) or "0")


def unpacked(number: int | Decimal) -> list[int]:
    """The histogram that a number stands for."""
    digits = f"{number:f}" if isinstance(number, Decimal) else str(number)
    return [int(part) for part in PARTS.findall(digits.zfill(BUCKETS * DIGITS))][::-1]


class HistogramField(Base):
    """A list of counts, one for each bucket; in the database a number without bounds, so that `sum` adds them up."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "numeric"

    def from_db_value(
        self, value: Decimal | None, expression: Expression, connection: BaseDatabaseWrapper
    ) -> list[int] | None:
        return None if value is None else unpacked(value)

    def get_prep_value(self, value: Any) -> Any:
        return packed(value) if isinstance(value, list | tuple) else value
