"""The tasks of the two contenders on Django-Q2's own engine: plain functions, as it wants them."""

from bench.work import busy, nap, noop, stamp

__all__ = ["busy", "busy_with_progress", "nap", "noop", "stamp"]


def busy_with_progress(number: int) -> str:
    """For django-qraft, which can tell progress."""
    from qraft.context import report_progress  # type: ignore[import-not-found,unused-ignore]

    return busy(number, lambda: report_progress(1, 2, "half of it"))
