"""What a refused caller learns: every limit that stood in the way, what would fit instead, and whom to ask (M1, M3)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from builders import START, HeldClock
from faregate.control import Deployment, Limit
from faregate.core.ledger.events import Intended, Refused
from faregate.core.limits.terms import Action, Raise, Terms
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import ChargeRule
from gates import deployment, key, money, running_gate, scenario, secret, steered

SECOND = 1_000_000_000
DOLLAR = 1_000_000_000
MILLIDOLLAR = 1_000_000


def priced(name: str, share: int, **fields: Any) -> Deployment:
    """A model at so many per cent of the usual price."""
    rates = (Rate("input_tokens", share * 10**10, 1_000_000), Rate("output_tokens", share * 2 * 10**10, 1_000_000))
    card = RateCard("sim", name, f"sim/{name}@test", (Tier(0, rates),))
    return deployment(f"sim/{name}", model=name, upstream_model=name, cards=(card,), **fields)


#: Cheaper and dearer ones than the usual model.
MODELS = (deployment(), priced("sim-small", 10), priced("sim-mini", 2), priced("sim-large", 500))


def requests(amount: int, window: str = "minute", **fields: Any) -> Limit:
    defaults: dict[str, Any] = {"id": "lim_requests", "selector": {"team": "research"}, "each": (), "unit": "requests"}
    return Limit(**(defaults | fields), amount=amount, window=window)


@scenario
async def test_every_limit_that_binds_is_named(tmp_path: Path) -> None:
    """The first with its numbers beside the error, all of them with theirs in a list.

    The one that frees last comes first; of those that never do it is the one with the least room.
    """
    limits = (
        money(10 * MILLIDOLLAR, "month", contact="finance@example.org"),
        requests(1, selector={"key": "key_caller"}),
        requests(1, "lifetime", id="lim_run", each=("run",), selector={}, terms=Terms(reason="one call a run")),
        Limit("lim_fits", {}, (), "tokens", 10**6, "minute"),
    )
    async with running_gate(tmp_path, limits=limits, clock=HeldClock(START + 15 * SECOND)) as running:
        run = {"x-faregate-run": "run-7"}
        await running.chat(steered(prompt_tokens=10, output_tokens=20), headers=run)
        answer = await running.chat(max_tokens=9_000, headers=run)
        error = answer.json()["error"]
        told = error["faregate"]
        bound = told["binding"][1]["bound"]

        assert (answer.status_code, told["limit"], told["also"]) == (429, "lim_run", ["lim_money", "lim_requests"])
        assert [each["limit"] for each in told["binding"]] == ["lim_run", "lim_money", "lim_requests"]
        assert told["binding"][1] == {
            "limit": "lim_money",
            "subject": None,
            "unit": "usd",
            "amount": "0.01",
            "posted": "0.00005",
            "held": "0",
            "remaining": "0.00995",
            "bound": bound,
            "window": "month",
            "resets_at": "2026-12-01T00:00:00Z",
            "contact": "finance@example.org",
            "reason": None,
        }
        assert told["binding"][0] == {
            "limit": "lim_run",
            "subject": {"run": "run-7"},
            "unit": "requests",
            "amount": "1",
            "posted": "1",
            "held": "0",
            "remaining": "0",
            "bound": "1",
            "window": "lifetime",
            "resets_at": None,
            "contact": None,
            "reason": "one call a run",
        }
        assert told["binding"][2]["resets_at"] == "2026-11-01T00:01:00Z"
        assert {name: told[name] for name in told["binding"][0]} == told["binding"][0]
        assert "one call a run" in error["message"]


@pytest.mark.parametrize(
    ("fields", "limits", "asked", "suggested"),
    [
        ({}, (money(MILLIDOLLAR),), {"max_tokens": 2_000}, "sim-mini"),
        ({"models": ("sim-1", "sim-small", "sim-large")}, (money(MILLIDOLLAR),), {"max_tokens": 2_000}, "sim-small"),
        ({"models": ("sim-1", "sim-large")}, (money(MILLIDOLLAR),), {"max_tokens": 2_000}, None),
        ({}, (money(MILLIDOLLAR),), {"max_tokens": 16_000}, "sim-mini"),
        ({}, (money(MILLIDOLLAR), requests(0)), {"max_tokens": 2_000}, None),
        ({}, (money(MILLIDOLLAR // 100),), {"max_tokens": 2_000}, None),
        ({}, (requests(0, selector={"model": "sim-1"}),), {}, "sim-mini"),
        ({}, (requests(0, selector={"model": "sim-1"}), requests(0, id="lim_2", selector={"model": "sim-mini"})),
         {}, "sim-small"),
        ({}, (requests(0),), {}, None),
        ({}, (money(MILLIDOLLAR),), {"max_tokens": 2_000, "service_tier": "flex"}, None),
    ],
)  # fmt: skip
@scenario
async def test_the_cheapest_model_that_fits_is_suggested(
    tmp_path: Path, fields: dict[str, Any], limits: tuple[Limit, ...], asked: dict[str, Any], suggested: str | None
) -> None:
    """One that this key may use, for this very call, on all limits; where there is none, none is made up."""
    async with running_gate(tmp_path, limits=limits, keys=[key(**fields)], deployments=MODELS) as running:
        answer = await running.chat(**asked)
        fits = (answer.json()["error"].get("faregate") or {}).get("would_fit") or {}

        assert answer.status_code in (400, 429)
        assert fits.get("model") == suggested
        if suggested is not None:
            assert (await running.chat(**(asked | {"model": suggested}))).status_code == 200


#: Much of it is spent by one call; from the next one on, half a minute goes by between two.
SLOWED = money(MILLIDOLLAR, terms=Terms(actions=(Action("throttle", 5, requests_per_minute=2),)))


@pytest.mark.parametrize(
    ("limits", "asked", "cap"),
    [
        # More than the smallest answer that is injected, and less.
        ((money(2 * MILLIDOLLAR),), {"max_tokens": 4_000}, True),
        ((money(MILLIDOLLAR // 5),), {"max_tokens": 4_000}, True),
        ((money(MILLIDOLLAR // 5),), {"max_tokens": None}, True),
        ((money(MILLIDOLLAR // 5), requests(6, "day")), {"max_tokens": 4_000}, True),
        # What the model can, though there is room for more.
        ((money(50 * MILLIDOLLAR),), {"max_tokens": 100_000}, True),
        # Less than the prompt alone takes, and what no cap helps against.
        ((money(5_000),), {"max_tokens": 4_000}, False),
        ((money(MILLIDOLLAR // 5), requests(1, "day")), {"max_tokens": 4_000}, False),
        ((requests(1),), {"max_tokens": 25}, False),
        ((SLOWED,), {"max_tokens": 25}, False),
        ((requests(9, "day", selector={}, each=("end_user",)),), {"max_tokens": 25, "user": "another"}, False),
    ],
)
@scenario
async def test_a_cap_that_would_fit_passes_and_a_larger_one_does_not(
    tmp_path: Path, limits: tuple[Limit, ...], asked: dict[str, Any], cap: bool
) -> None:
    """Never more than was asked for or the model can; where no cap helps none is named."""
    async with running_gate(tmp_path, limits=limits, clock=HeldClock(), limits_each_max=1) as running:
        for _ in range(2):
            first = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=20, user="one")
            assert first.status_code == 200 or not cap
        answer = await running.chat(**asked)
        fits = answer.json()["error"]["faregate"]["would_fit"]

        assert answer.status_code == 429
        assert (fits is not None) is cap
        if cap:
            most = fits["max_tokens"]
            assert most <= 16_384
            if most < 16_384:
                assert (await running.chat(max_tokens=most + 50)).status_code == 429
            assert (await running.chat(max_tokens=most)).status_code == 200


@pytest.mark.parametrize("amount", [100, 200])
@scenario
async def test_the_largest_cap_is_told_though_the_body_is_longer_than_its_tokens(tmp_path: Path, amount: int) -> None:
    """A short prompt is counted before its call is refused: what is told is to the token what passes."""
    prompt = "Summarise the following report in a few clear sentences, please, and keep all of its figures."
    limit = money(amount, "lifetime", unit="tokens")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        answer = await running.chat(prompt, max_tokens=500)
        assert answer.status_code == 429
        fits = answer.json()["error"]["faregate"]["would_fit"]["max_tokens"]
        assert amount - 40 < fits < amount
        assert (await running.chat(prompt, max_tokens=fits + 1)).status_code == 429
        assert (await running.chat(prompt, max_tokens=fits)).status_code == 200


@scenario
async def test_the_tightest_of_limits_that_never_free_is_named_first(tmp_path: Path) -> None:
    """Whatever their windows, and whichever was made first: it is the one that the caller has to fit."""
    limits = (
        money(5 * MILLIDOLLAR, "month", id="lim_a"),
        money(3 * MILLIDOLLAR, "lifetime", id="lim_b"),
        money(MILLIDOLLAR, "day", id="lim_c"),
    )
    async with running_gate(tmp_path, limits=limits) as running:
        error = (await running.chat(max_tokens=4_000)).json()["error"]

        assert [each["limit"] for each in error["faregate"]["binding"]] == ["lim_c", "lim_b", "lim_a"]
        assert error["message"].startswith("The day limit of 0.001 usd")


@pytest.mark.parametrize(
    ("limit", "asked", "told"),
    [
        # More than the whole of it, or nothing at all.
        (Limit("lim_tokens", {}, (), "tokens", 60, "minute"), {"max_tokens": 70}, (None, "false")),
        (requests(0), {}, (None, "false")),
        (requests(0, "", unit="concurrency"), {}, (None, "false")),
        (money(MILLIDOLLAR, "month"), {"max_tokens": 4_000}, (None, "false")),
        # The end of a minute, and of a month, for which no client library should wait.
        (money(200_000, "minute"), {}, ("60", "true")),
        (money(200_000, "month"), {}, ("2592000", "false")),
        (requests(1), {}, ("60", "true")),
        (requests(1, "hour"), {}, ("3600", "true")),
        (requests(1, "day"), {}, ("86400", "false")),
    ],
)
@scenario
async def test_when_to_retry_and_whether_agree(
    tmp_path: Path, limit: Limit, asked: dict[str, Any], told: tuple[str | None, str]
) -> None:
    """Nobody is told to try again where no wait helps, nor to give up where a short one does."""
    async with running_gate(tmp_path, limits=(limit,), clock=HeldClock()) as running:
        await running.chat(steered(prompt_tokens=20, output_tokens=50), max_tokens=50)
        answer = await running.chat(**asked)

        assert answer.status_code == 429
        assert (answer.headers.get("retry-after"), answer.headers["x-should-retry"]) == told


@scenario
async def test_calls_under_way_are_worth_a_second_try(tmp_path: Path) -> None:
    """A budget that only they stand in the way of is said to be free in a moment, and a client may come back."""
    async with running_gate(tmp_path, limits=(money(200_000, "day"),), clock=HeldClock()) as running:
        running.simulator.hold_all()
        under_way = asyncio.create_task(running.chat(steered(prompt_tokens=20, output_tokens=20)))
        await running.until(lambda: running.of(Intended))
        answer = await running.chat()
        running.simulator.release()

        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
        assert (await under_way).status_code == 200
        assert (await running.chat()).status_code == 200


@scenario
async def test_a_burst_is_told_apart_from_its_limit(tmp_path: Path) -> None:
    """What passes at once, and what passes in a minute."""
    smooth = Limit("lim_1", {}, (), "tokens", 6_000, "minute", terms=Terms("smooth", burst=1_000))
    async with running_gate(tmp_path, limits=(smooth,)) as running:
        error = (await running.chat(max_tokens=2_000)).json()["error"]

        assert (error["faregate"]["amount"], error["faregate"]["remaining"]) == ("6000", "1000")
        assert (
            "more than the 1000 tokens that the limit of 6000 tokens/minute for everyone lets through at once"
            in (error["message"])
        )


@scenario
async def test_a_suggestion_counts_what_the_payer_is_charged(tmp_path: Path) -> None:
    """With a mark-up that makes the cheap model dear, another one fits, or none."""
    charges = (ChargeRule((("model", "sim-mini"),), markup_ppm=10**9),)
    async with running_gate(tmp_path, limits=(money(MILLIDOLLAR),), deployments=MODELS, charges=charges) as running:
        told = (await running.chat(max_tokens=2_000)).json()["error"]

        assert told["faregate"]["would_fit"]["model"] == "sim-small"
        assert "use model sim-small" in told["message"]


@scenario
async def test_with_many_models_only_the_cheapest_are_looked_at(tmp_path: Path) -> None:
    """A refusal stays cheap, however many models there are."""
    many = [priced(f"sim-m{n}", 100 + n) for n in range(60)]
    deployments = (deployment(), *many, priced("sim-cheap", 1))
    limits = (money(MILLIDOLLAR), requests(0, id="lim_2", selector={"model": "sim-cheap"}))
    async with running_gate(tmp_path, limits=limits, deployments=deployments) as running:
        told = (await running.chat(max_tokens=2_000)).json()["error"]["faregate"]

        assert "model" not in told["would_fit"]


@scenario
async def test_nothing_admitted_says_until_when_and_why(tmp_path: Path) -> None:
    """A stop is told by its reason and its end, which is the wait; the words are for a person."""
    terms = Terms(until=START + 3_600 * SECOND, reason="the budget alert of the product fired")
    stop = requests(0, "lifetime", selector={"team": "research"}, terms=terms, contact="the platform team")
    async with running_gate(tmp_path, limits=(stop,), clock=HeldClock()) as running:
        answer = await running.chat()
        error = answer.json()["error"]

        assert (answer.status_code, error["code"]) == (429, "budget_exhausted")
        assert answer.headers["retry-after"] == "3600"
        assert error["faregate"]["resets_at"] == "2026-11-01T01:00:00Z"
        assert error["message"] == (
            "No calls of team research are admitted until 2026-11-01T01:00:00Z: limit lim_requests is 0 requests. "
            "Ask for a higher limit: the platform team. Reason: the budget alert of the product fired."
        )


@scenario
async def test_a_throttle_and_a_stop_are_told_as_such(tmp_path: Path) -> None:
    """Which limit slows calls down, and how long to wait; or that it stops them before it is used up."""
    slow = money(MILLIDOLLAR, "month", terms=Terms(actions=(Action("throttle", 5, requests_per_minute=2),)))
    hard = money(MILLIDOLLAR, "month", id="lim_hard", selector={"team": "x"}, terms=Terms(actions=(Action("stop", 5),)))
    keys = [key(), key("other", team="x")]
    async with running_gate(tmp_path, limits=(slow, hard), keys=keys, clock=HeldClock()) as running:
        spend = steered(prompt_tokens=10, output_tokens=20)
        assert [(await running.chat(spend, max_tokens=20)).status_code for _ in range(2)] == [200, 200]
        slowed = await running.chat(spend, max_tokens=20)
        stopped = await running.chat(spend, max_tokens=200, name="other")

        assert (slowed.status_code, slowed.json()["error"]["code"]) == (429, "rate_limited")
        assert (slowed.headers["retry-after"], slowed.headers["x-should-retry"]) == ("30", "true")
        assert "slowed down to 2 a minute" in slowed.json()["error"]["message"]
        told = slowed.json()["error"]["faregate"]
        assert (told["action"], told["posted"], told["remaining"]) == ("throttle", "1", "0")
        assert stopped.json()["error"]["faregate"]["action"] == "stop"
        assert "are stopped" in stopped.json()["error"]["message"]


@scenario
async def test_a_raise_that_comes_is_told(tmp_path: Path) -> None:
    """Where the window never ends, the moment at which the limit is raised is what to wait for."""
    raised = Terms(raises=(Raise(DOLLAR, START + 60 * SECOND, START + 3_600 * SECOND),))
    clock = HeldClock()
    async with running_gate(tmp_path, limits=(money(MILLIDOLLAR, terms=raised),), clock=clock) as running:
        answer = await running.chat(max_tokens=2_000)
        clock.now += int(answer.headers["retry-after"]) * SECOND
        later = await running.chat(max_tokens=2_000)

        assert answer.headers["retry-after"] == "60"
        assert "It ends or is raised at 2026-11-01T00:01:00Z." in answer.json()["error"]["message"]
        assert later.status_code == 200


@scenario
async def test_rolling_windows_are_named_in_words(tmp_path: Path) -> None:
    """Nobody has to guess what a rolling window is, and the wait is true to the second."""
    async with running_gate(tmp_path, limits=(requests(1, "rolling 30s"),), clock=HeldClock()) as running:
        await running.chat()
        answer = await running.chat()

        assert answer.headers["retry-after"] == "30"
        assert answer.json()["error"]["message"] == (
            "Limit 1 requests in any 30s of team research reached; retry in 30 s."
        )


@pytest.mark.parametrize(
    ("limits", "cap", "status", "clamped"),
    [
        ((money(MILLIDOLLAR, clamp=True),), 900, 200, True),
        ((money(MILLIDOLLAR),), 900, 429, False),
        ((money(MILLIDOLLAR, clamp=True), money(DOLLAR, id="lim_2")), 900, 200, True),
        ((money(MILLIDOLLAR, clamp=True), money(MILLIDOLLAR, id="lim_2")), 900, 429, False),
        ((money(MILLIDOLLAR, clamp=True), money(MILLIDOLLAR // 2 * 3, id="lim_2")), 2_000, 429, False),
        ((money(MILLIDOLLAR, clamp=True), money(MILLIDOLLAR // 2, id="lim_2", clamp=True)), 900, 429, False),
        ((money(MILLIDOLLAR // 3, clamp=True),), 900, 429, False),
        ((money(MILLIDOLLAR // 3, clamp=True),), 100, 200, False),
    ],
)
@scenario
async def test_an_answer_is_clamped_where_all_that_bind_say_so(
    tmp_path: Path, limits: tuple[Limit, ...], cap: int, status: int, clamped: bool
) -> None:
    """Told in a header and in the record; refused only when not even the smallest answer fits, or one wants that."""
    async with running_gate(tmp_path, limits=limits) as running:
        answer = await running.chat(steered(output_tokens=10), max_tokens=cap)

        assert answer.status_code == status
        assert ("x-faregate-clamped" in answer.headers) is clamped
        if status == 200:
            (intent,) = running.of(Intended)
            assert answer.headers.get("x-faregate-clamped", "0") == str(intent.clamped_to)
            assert intent.clamped_to == 0 or 256 <= intent.clamped_to < cap
            assert intent.held.usd <= MILLIDOLLAR


@scenario
async def test_a_service_that_there_is_not_is_recorded_without_its_name(tmp_path: Path) -> None:
    """What a caller makes up in a path, a secret perhaps, is no operation and no model of any record."""
    keys = (key(), key("narrow", models=("sim-1",)), key("narrower", operations=("chat.completions",)))
    async with running_gate(tmp_path, keys=keys) as running:
        for name in ("caller", "narrow", "narrower"):
            sent = {"authorization": f"Bearer {secret(name)}"}
            answer = await running.client.get("/services/made-up/x", headers=sent)
            assert "made-up" in answer.json()["error"]["message"]

        await running.until(lambda: len(running.of(Refused)) == len(keys))
        told = [(event.code, event.who.model, event.who.service) for event in running.of(Refused)]
        codes = ("not_found", "model_forbidden", "operation_forbidden")
        assert told == [(code, "", "") for code in codes]
