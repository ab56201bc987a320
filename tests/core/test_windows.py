"""Windows are functions of time that tile it, whatever the local clock does."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of
from soaking import examples

CALENDAR = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")

#: Zones whose clocks do odd things: half hours, quarter hours, changes at midnight, skipped and doubled days.
ODD_ZONES = (
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Monrovia",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Manila",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Kwajalein",
)

zones = st.one_of(
    st.none(),
    st.sampled_from(ODD_ZONES).map(ZoneInfo),
    st.sampled_from(sorted(available_timezones())).map(ZoneInfo),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
moments = st.integers(0, 4_000_000_000 * SECOND)


def nanos(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


def shown(at: int) -> str:
    """A moment in UTC, as text."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@settings(max_examples=examples(80, 2_000), deadline=None)
@given(kind=st.sampled_from(CALENDAR), zone=zones, at=moments)
def test_a_window_holds_its_moment_and_touches_its_neighbours(
    kind: str, zone: ZoneInfo | timezone | None, at: int
) -> None:
    """The moment lies in its window, every moment of it has that window, and the neighbours touch it."""
    start, end = window_of(kind, zone, at)
    assert start <= at < end
    assert window_of(kind, zone, start) == (start, end)
    assert window_of(kind, zone, end - 1) == (start, end)
    assert window_of(kind, zone, end)[0] == end
    assert window_of(kind, zone, start - 1)[1] == start


@settings(max_examples=examples(80, 2_000), deadline=None)
@given(
    kind=st.sampled_from(CALENDAR),
    zone=st.sampled_from(ODD_ZONES).map(ZoneInfo),
    transition=st.integers(0, 70),
    offset=st.integers(-3 * 86_400, 3 * 86_400),
)
def test_windows_tile_around_every_change_of_the_clock(kind: str, zone: ZoneInfo, transition: int, offset: int) -> None:
    """Near the half-yearly changes of many years the windows still have no gap and no overlap."""
    year, spring = 1975 + transition // 2, transition % 2
    at = nanos(f"{year}-{'03-28' if spring else '10-28'}T00:00:00+00:00") + offset * SECOND
    start, end = window_of(kind, zone, at)
    assert start <= at < end
    assert window_of(kind, zone, end)[0] == end
    assert window_of(kind, zone, start - 1)[1] == start


@settings(max_examples=examples(60, 2_000), deadline=None)
@given(kind=st.sampled_from(CALENDAR), zone=zones, first=moments, second=moments)
def test_windows_are_monotone(kind: str, zone: ZoneInfo | timezone | None, first: int, second: int) -> None:
    """A later moment never has an earlier window."""
    earlier, later = sorted((first, second))
    assert window_of(kind, zone, earlier) <= window_of(kind, zone, later)


@settings(max_examples=examples(80, 2_000), deadline=None)
@given(zone=zones, at=moments)
def test_an_hour_is_never_longer_than_an_hour(zone: ZoneInfo | timezone | None, at: int) -> None:
    """A rate per hour cannot be stretched by a change of the clocks."""
    start, end = window_of("hour", zone, at)
    assert 0 < end - start <= HOUR


@pytest.mark.parametrize(
    ("kind", "zone", "at", "start", "end"),
    [
        ("second", None, "2026-05-06T07:08:09+00:00", "2026-05-06T07:08:09", "2026-05-06T07:08:10"),
        ("minute", "Asia/Kathmandu", "2026-05-06T07:08:09+00:00", "2026-05-06T07:08:00", "2026-05-06T07:09:00"),
        ("hour", None, "2026-05-06T07:08:09+00:00", "2026-05-06T07:00:00", "2026-05-06T08:00:00"),
        ("hour", "Asia/Kolkata", "2026-05-06T07:08:09+00:00", "2026-05-06T06:30:00", "2026-05-06T07:30:00"),
        ("hour", "Asia/Kathmandu", "2026-05-06T07:08:09+00:00", "2026-05-06T06:15:00", "2026-05-06T07:15:00"),
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00+00:00", "2026-10-25T00:00:00", "2026-10-25T01:00:00"),
        ("hour", "Australia/Lord_Howe", "2026-04-04T14:45:00+00:00", "2026-04-04T14:00:00", "2026-04-04T15:00:00"),
        ("hour", "Australia/Lord_Howe", "2026-04-04T15:10:00+00:00", "2026-04-04T15:00:00", "2026-04-04T15:30:00"),
        ("day", None, "2026-05-06T07:08:09+00:00", "2026-05-06T00:00:00", "2026-05-07T00:00:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00:00+00:00", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00+00:00", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        # Midnight does not exist there that day: the clock went from 23:59:59 to 01:00.
        ("day", "Asia/Beirut", "2022-03-27T12:00:00+00:00", "2022-03-26T22:00:00", "2022-03-27T21:00:00"),
        # Midnight came twice: at 01:00 the clock went back to 00:00, and the first one counts.
        ("day", "America/Havana", "2026-11-01T12:00:00+00:00", "2026-11-01T04:00:00", "2026-11-02T05:00:00"),
        # The clock went back at one minute past midnight, into the day that had just ended.
        ("day", "America/St_Johns", "2010-11-07T03:00:00+00:00", "2010-11-07T02:30:00", "2010-11-08T03:30:00"),
        # A whole day was left out: what is admitted after 29 December is charged to the 31st.
        ("day", "Pacific/Apia", "2011-12-30T10:00:00+00:00", "2011-12-30T10:00:00", "2011-12-31T10:00:00"),
        ("week", None, "2026-05-06T07:08:09+00:00", "2026-05-04T00:00:00", "2026-05-11T00:00:00"),
        ("month", "Europe/Berlin", "2026-03-31T22:30:00+00:00", "2026-03-31T22:00:00", "2026-04-30T22:00:00"),
        ("month", None, "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("quarter", "America/New_York", "2026-04-01T03:59:59+00:00", "2026-01-01T05:00:00", "2026-04-01T04:00:00"),
        ("year", "Pacific/Auckland", "2026-12-31T11:00:00+00:00", "2026-12-31T11:00:00", "2027-12-31T11:00:00"),
    ],
)
def test_windows_of_the_calendar(kind: str, zone: str | None, at: str, start: str, end: str) -> None:
    """Named moments have the windows that a wall calendar shows."""
    found = window_of(kind, ZoneInfo(zone) if zone else None, nanos(at))
    assert [shown(edge) for edge in found] == [start, end]


@pytest.mark.parametrize("kind", ["lifetime", ""])
def test_what_has_no_window_never_ends(kind: str) -> None:
    """A lifetime and a concurrency limit begin and end nowhere."""
    assert window_of(kind, None, nanos("2026-05-06T07:08:09+00:00")) == (0, 0)


def test_the_last_nanosecond_belongs_to_the_old_window() -> None:
    """The end of a window is the first moment of the next."""
    noon = nanos("2026-05-06T12:00:00+00:00")
    assert window_of("minute", None, noon - 1) == (noon - MINUTE, noon)
    assert window_of("minute", None, noon) == (noon, noon + MINUTE)


def test_an_unknown_window_is_an_error() -> None:
    """A kind that does not exist is a programmer's mistake."""
    with pytest.raises(KeyError):
        window_of("fortnight", None, 0)
