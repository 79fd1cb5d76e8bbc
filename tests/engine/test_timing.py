"""When a schedule falls due next: pure functions, at every kind of edge that a calendar and a clock have."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tasks_app.engine.timing import BadTiming, Plan, Timing, moment_of

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def local(text: str, zone: str) -> datetime:
    return moment_of(datetime.fromisoformat(text), ZoneInfo(zone))


def times(timing: Timing, first: str, number: int) -> list[str]:
    """The times after the first one, each found from the one before, as the wall clock shows them."""
    due, plan, found = local(first, timing.zone), None, []
    for _ in range(number):
        following = timing.after(due, due, plan)
        assert following is not None and following > due
        plan = timing.plan(due, following, plan)
        due = following
        found.append(f"{due.astimezone(ZoneInfo(timing.zone)):%Y-%m-%d %H:%M%z}"[:-2])
    return found


@pytest.mark.parametrize(
    ("kind", "zone", "first", "expected"),
    [
        # A time that is left out: the first moment after the gap, and the next day its own time again.
        ("D", BERLIN, "2026-03-27 02:30", ["2026-03-28 02:30+01", "2026-03-29 03:00+02", "2026-03-30 02:30+02"]),
        ("D", NEW_YORK, "2026-03-06 02:30", ["2026-03-07 02:30-05", "2026-03-08 03:00-04", "2026-03-09 02:30-04"]),
        # A time that comes twice: the first of them, once.
        ("D", BERLIN, "2026-10-23 02:30", ["2026-10-24 02:30+02", "2026-10-25 02:30+02", "2026-10-26 02:30+01"]),
        ("D", NEW_YORK, "2026-10-30 01:30", ["2026-10-31 01:30-04", "2026-11-01 01:30-04", "2026-11-02 01:30-05"]),
        # Any other time keeps its hour over both.
        ("D", BERLIN, "2026-03-28 09:00", ["2026-03-29 09:00+02", "2026-03-30 09:00+02"]),
        ("W", BERLIN, "2026-03-22 02:30", ["2026-03-29 03:00+02", "2026-04-05 02:30+02"]),
        ("W", NEW_YORK, "2026-10-25 09:00", ["2026-11-01 09:00-05", "2026-11-08 09:00-05"]),
        ("BW", BERLIN, "2026-10-11 02:30", ["2026-10-25 02:30+02", "2026-11-08 02:30+01"]),
        ("M", BERLIN, "2026-02-28 12:00", ["2026-03-28 12:00+01", "2026-04-28 12:00+02"]),
        # A day that a month does not have: its last one, and the day again where there is one.
        ("M", BERLIN, "2026-01-31 08:00", ["2026-02-28 08:00+01", "2026-03-31 08:00+02", "2026-04-30 08:00+02"]),
        ("M", "UTC", "2028-01-30 08:00", ["2028-02-29 08:00+00", "2028-03-30 08:00+00"]),
        ("BM", "UTC", "2026-12-31 08:00", ["2027-02-28 08:00+00", "2027-04-30 08:00+00", "2027-06-30 08:00+00"]),
        ("Q", "UTC", "2026-11-30 08:00", ["2027-02-28 08:00+00", "2027-05-30 08:00+00"]),
        ("Y", "UTC", "2024-02-29 08:00",
         ["2025-02-28 08:00+00", "2026-02-28 08:00+00", "2027-02-28 08:00+00", "2028-02-29 08:00+00"]),
        # Elapsed time, whatever the clocks on the wall do.
        ("H", BERLIN, "2026-03-29 00:30", ["2026-03-29 01:30+01", "2026-03-29 03:30+02", "2026-03-29 04:30+02"]),
        ("H", BERLIN, "2026-10-25 01:30", ["2026-10-25 02:30+02", "2026-10-25 02:30+01", "2026-10-25 03:30+01"]),
    ],
)  # fmt: skip
def test_each_type_at_the_edges(kind: str, zone: str, first: str, expected: list[str]) -> None:
    assert times(Timing(kind, zone), first, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "first", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02", "2026-03-30 02:30+02"]),
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30+02", "2026-10-26 02:30+01"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["2026-03-08 03:00-04", "2026-03-09 02:30-04"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["2026-11-01 01:30-04", "2026-11-02 01:30-05"]),
        ("0 * * * *", BERLIN, "2026-03-29 00:59", ["2026-03-29 01:00+01", "2026-03-29 03:00+02"]),
        ("0 * * * *", BERLIN, "2026-10-25 01:00",
         ["2026-10-25 02:00+02", "2026-10-25 02:00+01", "2026-10-25 03:00+01"]),
        ("0 9 * * mon-fri", BERLIN, "2026-03-27 09:00", ["2026-03-30 09:00+02", "2026-03-31 09:00+02"]),
        ("@monthly", "UTC", "2026-12-05 00:00", ["2027-01-01 00:00+00", "2027-02-01 00:00+00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["2028-02-29 00:00+00"]),
    ],
)  # fmt: skip
def test_cron_at_the_edges(cron: str, zone: str, first: str, expected: list[str]) -> None:
    assert times(Timing("C", zone, cron=cron), first, len(expected)) == expected


@pytest.mark.parametrize(
    ("zone", "given", "at", "then"),
    [
        (BERLIN, "2027-03-28 02:30", "2027-03-28 03:00+02", "2027-03-29 02:30+02"),
        (NEW_YORK, "2027-03-14 02:00", "2027-03-14 03:00-04", "2027-03-15 02:00-04"),
        # Its clocks are switched at 23:00, and the first moment after it is on the next day.
        ("America/Nuuk", "2027-03-27 23:30", "2027-03-28 00:00-01", "2027-03-28 23:30-01"),
        ("Australia/Lord_Howe", "2027-10-03 02:10", "2027-10-03 02:30+11", "2027-10-04 02:10+11"),
        (BERLIN, "2027-10-31 02:30", "2027-10-31 02:30+02", "2027-11-01 02:30+01"),
    ],
)
def test_a_first_time_at_a_switch_keeps_its_wall_clock(zone: str, given: str, at: str, then: str) -> None:
    timing, wall = Timing("D", zone), datetime.fromisoformat(given)
    due, plan = timing.first(wall.replace(tzinfo=ZoneInfo(zone)))
    following = timing.after(due, due, plan)

    assert following
    shown = [f"{each.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M%z}"[:-2] for each in (due, following)]
    assert shown == [at, then]
    assert timing.meant(due, plan) == wall  # as a form shows it


def test_cron_in_the_second_of_two_equal_hours_looks_forward() -> None:
    """02:10 for the second time: the 02:30 of that night is over."""
    now = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)

    assert Timing("C", BERLIN, cron="30 2 * * *").after(now, now) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_minutes_keep_their_phase_over_missed_times() -> None:
    due = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)

    assert Timing("I", "UTC", minutes=7).after(due, due + timedelta(minutes=20)) == due + timedelta(minutes=21)
    assert Timing("I", "UTC").after(due, due) == due + timedelta(minutes=1)
    assert Timing("O", "UTC").after(due, due) is None


@pytest.mark.parametrize("kind", ["I", "H", "D", "W", "BW", "M", "BM", "Q", "Y"])
def test_the_next_time_is_the_first_one_ahead_however_long_nobody_looked(kind: str) -> None:
    due, timing = local("2001-01-31 02:30", BERLIN), Timing(kind, BERLIN)
    now = due
    for _ in range(200):
        now += timedelta(days=3, hours=5, minutes=7)
        found = timing.after(due, now)
        before = timing.after(due, found - timedelta(microseconds=1)) if found else None
        assert found and found > now and before == found


def test_another_time_set_by_somebody_is_the_one_to_count_from() -> None:
    timing = Timing("M", "UTC")
    january = datetime(2026, 1, 31, 8, tzinfo=UTC)
    plan: Plan = timing.plan(january, timing.after(january, january))
    february, other = datetime(2026, 2, 28, 8, tzinfo=UTC), datetime(2026, 2, 20, 8, tzinfo=UTC)

    assert timing.after(february, february, plan) == datetime(2026, 3, 31, 8, tzinfo=UTC)
    assert timing.after(other, other, plan) == datetime(2026, 3, 20, 8, tzinfo=UTC)
    weekly = Timing("W", "UTC")
    assert weekly.after(february, february, plan) == datetime(2026, 3, 7, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timing", "sentence"),
    [
        (Timing("D", "Mars/Olympus"), "no time zone"),
        (Timing("D", "../etc/passwd"), "no time zone"),
        (Timing("X", "UTC"), "no type of schedule"),
        (Timing("I", "UTC", minutes=0), "at least 1 minute"),
        (Timing("D", "UTC", minutes=5), "Only a schedule of the type Minutes"),
        (Timing("D", "UTC", cron="* * * * *"), "Only a schedule of the type Cron"),
        (Timing("C", "UTC"), "needs a cron expression"),
        (Timing("C", "UTC", cron="* * * * * *"), "has five fields"),
        (Timing("C", "UTC", cron="61 * * * *"), "cannot be read: '61' is no minute"),
        (Timing("C", "UTC", cron="0 0 31 2 *"), "cannot be read: there is no day '31' in the month '2'"),
        (Timing("C", "UTC", cron="0 0 */20 * 1L"), "never comes"),
    ],
)
def test_what_names_no_time_is_refused_with_a_sentence(timing: Timing, sentence: str) -> None:
    with pytest.raises(BadTiming, match=sentence):
        timing.check()


def test_there_is_an_end_of_time() -> None:
    last = datetime(9999, 12, 31, tzinfo=UTC)

    for kind in ("D", "M", "H"):
        with pytest.raises(BadTiming, match="year 9999"):
            Timing(kind, "UTC").after(last, last + timedelta(hours=23, minutes=30))
