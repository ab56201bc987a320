"""Windows and rates from the outside, with short ones in real time: C4, C5, C6, and raises that end."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from installation import Installation
from system.calls import ACTS_SECONDS, Answer, ask, ask_all, body, new_key, new_limit, record_count, until

#: Between an answer and the next call of who asks again and again.
PAUSE_SECONDS = 0.02

#: Records tell moments to the microsecond or to the millisecond; ours are compared no finer.
GRAIN = 0.001


def told(answer: Answer) -> dict[str, Any]:
    """What a refusal says of its limit."""
    found: dict[str, Any] = answer.json["error"]["faregate"]
    return found


def named(answer: Answer) -> set[str]:
    """The limits that a refusal names."""
    return {told(answer)["limit"], *told(answer)["also"]}


def moment(text: str) -> float:
    """Seconds since 1970 of a moment as the API writes it."""
    return datetime.fromisoformat(text).timestamp()


def admitted(running: Installation, key: dict[str, Any], count: int) -> list[float]:
    """When the calls of a key that passed were admitted, by their records."""
    rows = record_count(running, count, key=key["id"])
    return sorted(moment(row["created_at"]) for row in rows if row["status"] != "refused")


def hammered(running: Installation, key: dict[str, Any], seconds: float, callers: int = 6) -> list[Answer]:
    """What several callers get who ask again and again, refused or not, for so long."""
    end = time.monotonic() + seconds

    async def one() -> list[Answer]:
        got: list[Answer] = []
        while time.monotonic() < end:
            got += await ask_all(running, key["secret"], [body(output_tokens=1)])
            # Some hundred calls a second are as good as thousands, which every other test would have to wait for.
            await asyncio.sleep(PAUSE_SECONDS)
        return got

    async def all_of_them() -> list[list[Answer]]:
        return await asyncio.gather(*(one() for _ in range(callers)))

    return [answer for got in asyncio.run(all_of_them()) for answer in got]


# -- C4 ----------------------------------------------------------------------------------------------------------------


def test_whichever_window_is_full_first_stops_and_says_so(running: Installation) -> None:
    """Three windows at once: the short one first, then the longer, then the money; each tells its own true reset."""
    key = new_key(running, "windows")
    select = {"key": key["id"]}
    short = new_limit(running, select, "requests", 2, window="rolling 3s")
    longer = new_limit(running, select, "requests", 4, window="rolling 90s")
    money = new_limit(running, select, "usd", "1", window="month", timezone="Europe/Berlin")

    first = [ask(running, key["secret"]) for _ in range(3)]
    time.sleep(int(first[2].headers["retry-after"]))
    second = [ask(running, key["secret"]) for _ in range(3)]
    time.sleep(3)
    third = ask(running, key["secret"])
    new_limit(running, select, "requests", 100, window="rolling 90s")
    new_limit(running, select, "usd", "0.000001", window="month", timezone="Europe/Berlin")
    last = ask(running, key["secret"])

    assert [answer.status for answer in first] == [200, 200, 429]
    assert (named(first[2]), first[2].code) == ({short["id"]}, "rate_limited")
    assert [answer.status for answer in second] == [200, 200, 429]
    assert named(second[2]) == {short["id"], longer["id"]}
    assert told(second[2])["limit"] == longer["id"]
    assert (third.status, named(third)) == (429, {longer["id"]})
    assert 60 < int(third.headers["retry-after"]) <= 90
    assert (last.code, named(last)) == ("budget_exhausted", {money["id"]})
    month = running.admin("GET", f"/api/v1/limits/{money['id']}")
    assert told(last)["resets_at"] == month["resets_at"]
    # Midnight of Berlin, which is the evening before in UTC.
    assert datetime.fromisoformat(month["resets_at"]).astimezone(UTC).hour in (22, 23)


def test_after_the_boundary_of_a_calendar_window_calls_pass(running: Installation) -> None:
    """Who waits until the reset that was told passes, and no second of the clock ever has more than its amount."""
    key = new_key(running, "seconds")
    new_limit(running, {"key": key["id"]}, "requests", 3, window="second")

    answers = hammered(running, key, 2.5)

    passed = [answer for answer in answers if answer.status == 200]
    seconds = [int(at) for at in admitted(running, key, len(answers))]
    assert len(passed) == len(seconds)
    assert max(seconds.count(second) for second in seconds) == 3
    assert len(set(seconds)) >= 2
    assert {answer.headers["retry-after"] for answer in answers if answer.status == 429} == {"1"}


# -- C5 ----------------------------------------------------------------------------------------------------------------


def test_a_strict_rate_is_never_passed_and_refused_calls_do_not_extend_it(running: Installation) -> None:
    """Callers who never stop asking pass five times in any three seconds, not more and not fewer."""
    key = new_key(running, "strict")
    new_limit(running, {"key": key["id"]}, "requests", 5, window="rolling 3s")

    answers = hammered(running, key, 6.5)

    refused = [answer for answer in answers if answer.status == 429]
    times = admitted(running, key, len(answers))
    assert {answer.code for answer in refused} == {"rate_limited"}
    assert all(1 <= int(answer.headers["retry-after"]) <= 3 for answer in refused)
    assert all(answer.headers["x-should-retry"] == "true" for answer in refused)
    assert all(later - earlier >= 3 - GRAIN for earlier, later in zip(times, times[5:], strict=False))
    assert len(times) >= 10


def test_the_sixth_waits_as_long_as_it_is_told(running: Installation) -> None:
    """Five pass, the sixth is refused; after its ``Retry-After`` it passes, though it asked in between."""
    key = new_key(running, "sixth")
    new_limit(running, {"key": key["id"]}, "requests", 5, window="rolling 4s")

    five = [ask(running, key["secret"]) for _ in range(5)]
    asked = time.monotonic()
    sixth = ask(running, key["secret"])
    ready = time.monotonic() + int(sixth.headers["retry-after"])
    # It is told in whole seconds, so that the call may pass a second earlier, and not before that.
    closed_until = asked + int(sixth.headers["retry-after"]) - 1
    between: list[int] = []
    while True:
        status = ask(running, key["secret"]).status
        if time.monotonic() > closed_until:
            break
        between.append(status)
    time.sleep(max(0.0, ready - time.monotonic()))

    assert [answer.status for answer in five] == [200] * 5
    assert sixth.status == 429
    assert set(between) <= {429}
    assert 200 in (status, ask(running, key["secret"]).status)


def test_users_have_numbers_of_their_own_beside_one_for_each(running: Installation) -> None:
    """One user may call once, everybody else three times; nobody counts for another."""
    keys = {user: new_key(running, user, team="numbers", user=user) for user in ("ann", "slow", "bob")}
    new_limit(running, {"team": "numbers"}, "requests", 3, window="rolling 60s", each=["user"])
    new_limit(running, {"team": "numbers", "user": "slow"}, "requests", 1, window="rolling 60s")

    def passes(user: str) -> int:
        return [ask(running, keys[user]["secret"]).status for _ in range(5)].count(200)

    assert {user: passes(user) for user in keys} == {"ann": 3, "slow": 1, "bob": 3}


def test_a_smooth_rate_lets_a_burst_through_and_then_an_even_pace(running: Installation) -> None:
    """Two at once, then two a second: in no stretch more than the burst and the pace."""
    key = new_key(running, "smooth")
    new_limit(running, {"key": key["id"]}, "requests", 2, window="second", algorithm="smooth", burst=2)

    answers = hammered(running, key, 3)

    times = admitted(running, key, len(answers))
    for first, start in enumerate(times):
        for count, at in enumerate(times[first:], 1):
            assert count <= 2 + 2 * (at - start + GRAIN)
    assert len(times) >= 3


# -- C6 ----------------------------------------------------------------------------------------------------------------


def test_tokens_count_prompt_and_answer_and_give_back_the_rest(running: Installation) -> None:
    """A call holds its bound, and counts what the provider reports at its end; the headers say what is left."""
    key = new_key(running, "tokens")
    limit = new_limit(running, {"key": key["id"]}, "tokens", 10_000, window="rolling 60s")

    answer = ask(running, key["secret"], body(max_tokens=500, output_tokens=7))

    def standing() -> dict[str, Any]:
        row: dict[str, Any] = running.admin("GET", f"/api/v1/limits/{limit['id']}")
        return row

    used = answer.json["usage"]["total_tokens"]
    row = until(standing, lambda row: int(row["held"]) == 0, ACTS_SECONDS)
    assert used == answer.json["usage"]["prompt_tokens"] + 7
    assert (int(row["posted"]), int(row["remaining"])) == (used, 10_000 - used)


@pytest.mark.parametrize("estimate", [True, False], ids=["estimated", "not estimated"])
def test_an_oversized_prompt(running: Installation, estimate: bool) -> None:
    """With the estimate it never reaches the provider; without, it passes, and later calls are stopped by it."""
    key = new_key(running, f"oversized {estimate}")
    new_limit(running, {"key": key["id"]}, "tokens", 150, window="rolling 60s", estimate=estimate)
    before = running.simulator("GET", "state")["dispatched"]

    large = ask(running, key["secret"], body("word " * 400))
    reached = running.simulator("GET", "state")["dispatched"] - before
    small = ask(running, key["secret"], body("Hi.", max_tokens=20, output_tokens=1))

    assert (large.status, reached, small.status) == ((429, 0, 200) if estimate else (200, 1, 429))
    refused = large if estimate else small
    assert refused.code == "rate_limited"
    # What is larger than the whole amount never fits; the rest waits for the window.
    assert ("retry-after" in refused.headers) is not estimate


# -- raises ------------------------------------------------------------------------------------------------------------


def test_a_raise_acts_at_once_and_ends_by_itself(running: Installation) -> None:
    """More passes while it lasts; then nothing does, though nobody did anything."""
    key = new_key(running, "raised")
    limit = new_limit(running, {"key": key["id"]}, "requests", 1)
    before = [ask(running, key["secret"]).status for _ in range(2)]

    ends = time.time() + 4
    until_text = datetime.fromtimestamp(ends, UTC).isoformat()
    running.admin("POST", f"/api/v1/limits/{limit['id']}/raises", {"amount": 10, "until": until_text})
    during = until(lambda: ask(running, key["secret"]).status, lambda status: status == 200, ACTS_SECONDS)
    row = running.admin("GET", f"/api/v1/limits/{limit['id']}")
    time.sleep(max(0.0, ends - time.time()) + GRAIN)
    after = ask(running, key["secret"])

    assert (before, during, after.status) == ([200, 429], 200, 429)
    assert (row["amount"], row["amount_now"]) == (1, 10)
    assert int(told(after)["amount"]) == 1
