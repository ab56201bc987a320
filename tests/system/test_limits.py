"""No limit is ever exceeded, seen from outside: a crowd of callers, and changes that act while they call."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from installation import Installation, nanos
from system.calls import (
    ACTS_SECONDS,
    Answer,
    ask,
    ask_all,
    body,
    cost_nanos,
    new_key,
    new_limit,
    record,
    record_count,
    truth_cost,
    truth_of,
    until,
    until_async,
)

CROWD = 200
WORTH = 10


def _dollars(amount: int) -> str:
    return f"{amount // 10**9}.{amount % 10**9:09d}"


@pytest.fixture(scope="module")
def free(running: Installation) -> str:
    """A key without limits."""
    return str(new_key(running, "free")["secret"])


def _worst_case(running: Installation, free: str, content: Any) -> int:
    """What one such call holds, in nano-dollars, as its own record tells."""
    answer = ask(running, free, content)
    assert answer.status == 200
    return nanos(record(running, answer.id)["held"])


def _limit(running: Installation, limit_id: str) -> dict[str, Any]:
    row: dict[str, Any] = running.admin("GET", f"/api/v1/limits/{limit_id}")
    return row


def _quiet(running: Installation, limit_id: str) -> dict[str, Any]:
    """The limit once nothing is held on it any more."""
    return until(lambda: _limit(running, limit_id), lambda row: nanos(row["held"]) == 0, ACTS_SECONDS)


def _same_minute(seconds: int = 15) -> None:
    """Wait, where needed, until this minute has so many seconds left."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streams"])
def test_a_limit_worth_ten_calls_lets_ten_of_two_hundred_through(
    running: Installation, free: str, stream: bool
) -> None:
    """While the provider holds its answers, exactly ten calls reach it; 190 are refused as documented."""
    bound = _worst_case(running, free, body(stream=stream, hold=False))
    key = new_key(running, f"crowd {stream}", project="crowd")
    # "hold": true is one byte shorter than false, so the limit is worth ten calls and less than eleven.
    limit = running.limit(
        select=f"key={key['id']}", unit="usd", amount=_dollars(WORTH * bound), window="lifetime", contact="the desk"
    )
    before = running.simulator("GET", "state")["dispatched"]

    async def crowd() -> tuple[list[Answer], list[Answer], dict[str, int], dict[str, Any]]:
        answered: list[Answer] = []
        calls = asyncio.create_task(ask_all(running, key["secret"], [body(stream=stream, hold=True)] * CROWD, answered))
        await until_async(lambda: len(answered), lambda count: count >= CROWD - WORTH, 60)
        early = list(answered)
        state = running.simulator("GET", "state")
        standing = await asyncio.to_thread(_limit, running, limit["id"])
        running.simulator("POST", "release")
        return early, await calls, state, standing

    early, answers, state, standing = asyncio.run(crowd())

    assert Counter(answer.status for answer in early) == {429: CROWD - WORTH}
    assert (state["held"], state["dispatched"] - before) == (WORTH, WORTH)
    assert Counter(answer.status for answer in answers) == {429: CROWD - WORTH, 200: WORTH}
    assert nanos(standing["held"]) + nanos(standing["posted"]) <= WORTH * bound
    assert nanos(standing["posted"]) == 0
    _assert_documented(early[0], limit["id"])

    ended = _quiet(running, limit["id"])
    cost = sum(truth_cost(truth_of(running, answer.id)) for answer in answers if answer.status == 200)
    assert nanos(ended["held"]) == 0
    assert nanos(ended["posted"]) == cost
    assert nanos(ended["remaining"]) == WORTH * bound - cost
    assert len(record_count(running, CROWD, key=key["id"])) == CROWD
    assert running.settled() | {"requests": 0, "postings": 0} == {
        "ok": True, "requests": 0, "postings": 0, "held": "0", "unknown": "0", "sum": "0",
    }  # fmt: skip


def _assert_documented(answer: Answer, limit_id: str) -> None:
    """The refusal is what the contract promises for a money limit without a window."""
    error = answer.json["error"]
    told = error["faregate"]
    assert (error["code"], error["type"]) == ("budget_exhausted", "insufficient_quota")
    assert error["request_id"] == answer.id
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert set(told) >= {"limit", "unit", "amount", "posted", "held", "bound", "window", "resets_at", "would_fit"}
    assert (told["limit"], told["unit"], told["window"]) == (limit_id, "usd", "lifetime")
    assert told["contact"] == "the desk"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streams"])
def test_without_holding_the_true_cost_stays_below_the_limit(running: Installation, free: str, stream: bool) -> None:
    """Two hundred calls at once on a small budget: what the provider bills never passes it, at any look."""
    content = body(stream=stream, delay_ms=2)
    bound = _worst_case(running, free, content)
    key = new_key(running, f"rush {stream}")
    limit = new_limit(running, {"key": key["id"]}, "usd", _dollars(20 * bound))

    async def rush() -> tuple[list[Answer], list[int]]:
        seen: list[int] = []
        calls = asyncio.create_task(ask_all(running, key["secret"], [content] * CROWD))
        while not calls.done():
            row = await asyncio.to_thread(_limit, running, limit["id"])
            seen.append(nanos(row["posted"]) + nanos(row["held"]))
        return await calls, seen

    answers, seen = asyncio.run(rush())

    statuses = Counter(answer.status for answer in answers)
    cost = sum(truth_cost(truth_of(running, answer.id)) for answer in answers if answer.status == 200)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 20
    assert cost <= 20 * bound
    assert max(seen) <= 20 * bound
    assert nanos(_quiet(running, limit["id"])["posted"]) == cost


def test_tokens_per_minute_are_counted_for_each_user_alone(running: Installation) -> None:
    """One user's spent minute stops that user, says until when, and nobody else."""
    ada, bob = (new_key(running, f"of {user}", project="minutes", user=user) for user in ("ada", "bob"))
    limit = running.cli("limit", "set", "--select", "project=minutes", "--each", "user", "--unit", "tokens",
                        "--amount", "150", "--window", "minute")  # fmt: skip
    _same_minute()

    answers = [ask(running, ada["secret"]) for _ in range(12)]
    other = ask(running, bob["secret"])

    statuses = [answer.status for answer in answers]
    refused = next(answer for answer in answers if answer.status == 429)
    spent = sum(answer.json["usage"]["total_tokens"] for answer in answers if answer.status == 200)
    assert statuses[0] == 200
    assert statuses == sorted(statuses)
    assert other.status == 200
    assert spent <= 150
    assert refused.code == "rate_limited"
    assert refused.json["error"]["faregate"]["limit"] == limit["id"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_the_narrowest_and_all_broader_limits_hold_together(running: Installation) -> None:
    """A key within ten a minute and two a lifetime is stopped by the two, and the refusal says which."""
    key = new_key(running, "both", project="both", team="both")
    new_limit(running, {"team": "both"}, "requests", 10, window="minute")
    narrow = new_limit(running, {"project": "both", "model": "sim-1"}, "requests", 2)

    answers = [ask(running, key["secret"]) for _ in range(3)]
    elsewhere = ask(running, key["secret"], body(model="sim-fast"))

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].json["error"]["faregate"]["limit"] == narrow["id"]
    assert elsewhere.status == 200


def test_a_revoked_key_is_refused_within_a_second(running: Installation) -> None:
    """``key revoke`` acts on the running gateway, which says so with 401."""
    key = new_key(running, "revoked")
    assert ask(running, key["secret"]).status == 200

    running.cli("key", "revoke", key["id"], "--yes")
    answer = until(lambda: ask(running, key["secret"]), lambda got: got.status != 200, ACTS_SECONDS)

    assert (answer.status, answer.code) == (401, "key_revoked")


def test_a_disabled_key_is_refused_and_works_again_once_enabled(running: Installation) -> None:
    """Disabling and enabling act within a second each."""
    key = new_key(running, "disabled")

    running.admin("PATCH", f"/api/v1/keys/{key['id']}", {"state": "disabled"})
    off = until(lambda: ask(running, key["secret"]), lambda got: got.status != 200, ACTS_SECONDS)
    running.admin("PATCH", f"/api/v1/keys/{key['id']}", {"state": "active"})
    on = until(lambda: ask(running, key["secret"]), lambda got: got.status == 200, ACTS_SECONDS)

    assert (off.status, off.code) == (403, "key_disabled")
    assert on.status == 200


def test_a_new_price_holds_for_new_calls_and_leaves_booked_ones(running: Installation) -> None:
    """A model without a price is refused; its first price and its next one act within a second, from then on."""
    key = new_key(running, "prices")
    content = body(model="unpriced")

    def priced(per_million: str) -> None:
        price = {"provider": "sim", "model": "unpriced", "per": 1_000_000, "price": per_million, "confirm": True}
        for unit in ("input_tokens", "output_tokens"):
            running.admin("PUT", "/api/v1/prices", {**price, "unit": unit})

    def cost(answer: Answer) -> int:
        return nanos(answer.headers["x-faregate-cost"])

    refused = ask(running, key["secret"], content)
    priced("1")
    first = until(lambda: ask(running, key["secret"], content), lambda got: got.status == 200, ACTS_SECONDS)
    priced("3")
    second = until(lambda: ask(running, key["secret"], content), lambda got: cost(got) != cost(first), ACTS_SECONDS)

    tokens = first.json["usage"]["total_tokens"]
    assert (refused.status, refused.code) == (400, "price_unknown")
    assert (cost(first), cost(second)) == (tokens * 1_000, tokens * 3_000)
    assert nanos(record(running, first.id)["cost"]) == tokens * 1_000


def test_raising_and_lowering_a_limit_act_within_a_second(running: Installation) -> None:
    """The same limit set higher admits, and set lower than what is spent refuses."""
    key = new_key(running, "moving")

    def at(amount: str, status: int) -> Answer:
        ids.add(new_limit(running, {"key": key["id"]}, "usd", amount)["id"])
        return until(lambda: ask(running, key["secret"]), lambda got: got.status == status, ACTS_SECONDS)

    ids: set[str] = set()
    seen = [at("0.000001", 429).status, at("1", 200).status, at("0.000001", 429).status]

    assert seen == [429, 200, 429]
    assert len(ids) == 1


def test_a_limit_made_in_mid_window_counts_what_was_spent_before(running: Installation) -> None:
    """Calls before a limit existed stand in its balance from the first look."""
    key = new_key(running, "earlier")
    spent = [ask(running, key["secret"]) for _ in range(3)]
    usage = spent[0].json["usage"]
    cost = 3 * cost_nanos(usage["prompt_tokens"], usage["completion_tokens"])

    limit = new_limit(running, {"key": key["id"]}, "usd", _dollars(cost + 1_000), window="month")
    answer = until(lambda: ask(running, key["secret"]), lambda got: got.status != 503, ACTS_SECONDS)

    assert nanos(limit["posted"]) == cost
    assert nanos(limit["remaining"]) == 1_000
    assert (answer.status, answer.code) == (429, "budget_exhausted")
    assert nanos(answer.json["error"]["faregate"]["posted"]) == cost
    assert limit["resets_at"].endswith("-01T00:00:00Z")
