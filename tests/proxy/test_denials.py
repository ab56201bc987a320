"""Refusals by limits in the words, with the status and for the wait that an administrator and the truth have chosen."""

from pathlib import Path
from typing import Any

import pytest

from builders import START, HeldClock
from faregate.control import Limit
from faregate.core.ledger.events import Refused
from faregate.core.limits.denials import Denial
from faregate.core.limits.terms import Terms
from gates import key, money, running_gate, scenario, steered

SECOND = 1_000_000_000
MILLIDOLLAR = 1_000_000

MONTHLY = {"statusCode": 429, "message": "You have reached your monthly spend amount"}
TOO_MANY = {"error": {"code": "TooManyTokens", "message": "Token limit exceeded. Please retry after some time."}}


def tokens(amount: int, window: str = "minute", **fields: Any) -> Limit:
    return Limit("lim_tokens", {"team": "research"}, (), "tokens", amount, window, **fields)


@scenario
async def test_the_bodies_of_older_gateways_are_built_in(tmp_path: Path) -> None:
    """Each limit names the one it wants; how long to wait is told as it is."""
    clock = HeldClock(START + 20 * SECOND)
    limits = (
        money(MILLIDOLLAR, "month", selector={"key": "key_a"}, terms=Terms(denial="rate_limiter")),
        tokens(300, terms=Terms(denial="token_limit")),
    )
    async with running_gate(tmp_path, limits=limits, keys=[key("a", team="x"), key("b")], clock=clock) as running:
        spent = await running.chat(name="a", max_tokens=600)
        served = await running.chat(steered(prompt_tokens=150, output_tokens=50), name="b", max_tokens=50)
        many = await running.chat(name="b", max_tokens=110)

        assert (spent.status_code, spent.json()) == (429, MONTHLY)
        assert (many.status_code, many.json()) == (429, TOO_MANY)
        assert served.status_code == 200
        assert (many.headers["x-should-retry"], many.headers["retry-after"]) == ("true", "40")


@scenario
async def test_statuses_are_chosen_by_code(tmp_path: Path) -> None:
    """403 for a quota, as another gateway had it; rates stay 429, and the record says what was sent."""
    limits = (money(MILLIDOLLAR, "month", selector={"key": "key_a"}), tokens(60))
    keys = [key("a", team="x"), key("b")]
    statuses = {"budget_exhausted": 403}
    async with running_gate(tmp_path, limits=limits, keys=keys, refusal_statuses=statuses) as running:
        budget = await running.chat(name="a", max_tokens=600)
        rate = await running.chat(name="b", max_tokens=100)
        await running.until(lambda: len(running.of(Refused)) == 2)

        assert (budget.status_code, budget.json()["error"]["code"]) == (403, "budget_exhausted")
        assert budget.headers["x-should-retry"] == "false"
        assert budget.headers["x-faregate-error-source"] == "gateway"
        assert (rate.status_code, rate.json()["error"]["code"]) == (429, "rate_limited")
        assert [refused.http_status for refused in running.of(Refused)] == [403, 429]


@scenario
async def test_a_denial_speaks_in_its_owners_words(tmp_path: Path) -> None:
    """Words in braces become their values, in texts and headers; other JSON stays as it was written."""
    body = {
        "ok": False,
        "count": 3,
        "why": ["{code}: {remaining} of {amount} left", {"limit": "{limit}", "id": "{request_id}"}],
        "again": "{retry_after}|{resets_at}",
        "text": "{message}",
    }
    denials = {"ours": Denial(402, body, (("x-budget", "{remaining}/{amount}"),))}
    limits = (money(MILLIDOLLAR, "month", terms=Terms(denial="ours")),)
    async with running_gate(tmp_path, limits=limits, clock=HeldClock(), denials=denials) as running:
        answer = await running.chat(max_tokens=600)
        told = answer.json()

        assert answer.status_code == 402
        assert answer.headers["x-budget"] == "0.001/0.001"
        assert answer.headers["content-type"] == "application/json"
        assert told == {
            "ok": False,
            "count": 3,
            "why": [
                "budget_exhausted: 0.001 of 0.001 left",
                {"limit": "lim_money", "id": answer.headers["x-faregate-request-id"]},
            ],
            "again": "|2026-12-01T00:00:00Z",
            "text": told["text"],
        }
        assert told["text"].startswith("The month limit of 0.001 usd for team research has 0.001 left")


@scenario
async def test_values_cannot_break_out_of_their_texts(tmp_path: Path) -> None:
    """Quotes, braces and line ends of a name stay inside the text, or leave the header."""
    denials = {"ours": Denial(0, {"text": "<{message}>"}, (("x-why", "{message}"),))}
    name = 'a"},{"b\u2028{code}\u00e9'
    limits = (money(0, selector={"team": name}, terms=Terms(denial="ours")),)
    async with running_gate(tmp_path, limits=limits, keys=[key(team=name)], denials=denials) as running:
        answer = await running.chat()

        assert answer.status_code == 429
        assert list(answer.json()) == ["text"]
        assert f"team {name}" in answer.json()["text"]
        assert 'team a"},{"b?{code}?' in answer.headers["x-why"]


@pytest.mark.parametrize(("chosen", "usual"), [("token_limit", False), ("gone", True)])
@scenario
async def test_a_code_may_have_a_denial_of_its_own(tmp_path: Path, chosen: str, usual: bool) -> None:
    """It is for limits that name none; a name that the configuration has no more leaves the usual answer."""
    limits = (money(0),)
    async with running_gate(tmp_path, limits=limits, refusal_denials={"budget_exhausted": chosen}) as running:
        answer = await running.chat()

        assert answer.status_code == 429
        assert (answer.json() == TOO_MANY) is not usual
        assert ("faregate" in answer.json()["error"]) is usual


@scenario
async def test_a_limit_that_waits_for_its_balance_is_told_as_usual(tmp_path: Path) -> None:
    """Whatever its owner's words are, they are about a limit that is used up."""
    limits = (money(0, terms=Terms(denial="rate_limiter")),)
    async with running_gate(tmp_path, limits=limits, opened=False) as running:
        running.gate.opened_first = True
        running.gate.judge()
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "limit_pending")
