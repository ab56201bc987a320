"""Headers that tell what a call used and what its limits have left, with figures that are the ledger's."""

import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest

from builders import MINUTE, START, HeldClock
from faregate.control import Limit, Load
from faregate.core.ledger.events import Intended, Settled
from faregate.core.limits.terms import Action, Terms
from faregate.core.money import dollars
from faregate.proxy.limit_headers import duration
from gates import RunningGate, allowances, key, money, running_gate, scenario, secret, steered

DOLLAR = 1_000_000_000
SECOND = 1_000_000_000

#: All that limits tell beside the cost.
TOLD = ("x-faregate-limit-", "consumed-", "remaining-", "x-ratelimit-")


def told(answer: httpx2.Response) -> dict[str, str]:
    """The headers of an answer that speak of limits."""
    return {name: value for name, value in answer.headers.items() if name.startswith(TOLD)}


def tokens(amount: int | None, window: str = "minute", **fields: Any) -> Limit:
    return _limit("lim_tokens", "tokens", amount, window, fields)


def requests(amount: int | None, window: str = "minute", **fields: Any) -> Limit:
    return _limit("lim_requests", "requests", amount, window, fields)


def _limit(id: str, unit: str, amount: int | None, window: str, fields: dict[str, Any]) -> Limit:
    defaults: dict[str, Any] = {"id": id, "selector": {"team": "research"}, "each": (), "unit": unit}
    return Limit(**(defaults | fields), amount=amount, window=window)


@scenario
async def test_a_held_answer_tells_what_is_left_after_it(tmp_path: Path) -> None:
    """Money, tokens and requests as the counters have them once this call is settled; resets by the clock."""
    clock = HeldClock(START + 15 * SECOND)
    limits = (money(DOLLAR), tokens(10_000), requests(60))
    async with running_gate(tmp_path, limits=limits, clock=clock) as running:
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20))
        (settled,) = running.of(Settled)

        assert settled.charge == 10 * 1_000 + 20 * 2_000
        assert await allowances(running) == {
            "lim_money": (settled.charge, 0),
            "lim_tokens": (30, 0),
            "lim_requests": (1, 0),
        }
        assert told(answer) == {
            "x-faregate-limit-remaining": dollars(DOLLAR - settled.charge),
            "consumed-tokens": "30",
            "remaining-tokens": "9970",
            "x-ratelimit-limit-tokens": "10000",
            "x-ratelimit-remaining-tokens": "9970",
            "x-ratelimit-reset-tokens": "45s",
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "45s",
        }


@scenario
async def test_the_tightest_of_several_limits_is_told(tmp_path: Path) -> None:
    """The one with the fewest left, whichever window it has; a lifetime has no reset."""
    limits = (
        requests(60, id="lim_1"),
        requests(5, "lifetime", id="lim_2"),
        money(DOLLAR, id="lim_3"),
        money(DOLLAR // 2, "month", id="lim_4", selector={"key": "key_caller"}),
        tokens(10_000, id="lim_5"),
        tokens(900, "month", id="lim_6"),
    )
    async with running_gate(
        tmp_path, limits=limits, clock=HeldClock(), remaining_quota_tokens_header="remaining-quota-tokens"
    ) as running:
        headers = (await running.chat(steered(prompt_tokens=10, output_tokens=20))).headers

        assert headers["x-faregate-limit-remaining"] == dollars(DOLLAR // 2 - 50_000)
        assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("5", "4")
        assert "x-ratelimit-reset-requests" not in headers
        assert (headers["remaining-tokens"], headers["remaining-quota-tokens"]) == ("870", "870")
        assert headers["x-ratelimit-reset-tokens"] == "720h0m0s"


@pytest.mark.parametrize(
    "limits",
    [
        (),
        (money(DOLLAR, mode="soft"), tokens(10_000, mode="shadow"), requests(None)),
        (money(DOLLAR, selector={"team": "another"}),),
        (Limit("lim_c", {}, (), "concurrency", 5, ""),),
    ],
)
@scenario
async def test_who_has_no_limit_that_stops_calls_is_told_only_what_was_used(
    tmp_path: Path, limits: tuple[Limit, ...]
) -> None:
    """What a soft limit, or one without an amount, has left says nothing about the next call."""
    async with running_gate(tmp_path, limits=limits) as running:
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20))

        assert told(answer) == {"consumed-tokens": "30"}


@scenario
async def test_names_are_the_configurations(tmp_path: Path) -> None:
    """As clients of another gateway know them."""
    names: dict[str, Any] = {"consumed_tokens_header": "tokens-used", "remaining_tokens_header": "tokens-left"}
    async with running_gate(tmp_path, limits=(tokens(10_000),), **names) as running:
        headers = (await running.chat(steered(prompt_tokens=10, output_tokens=20))).headers

        assert (headers["tokens-used"], headers["tokens-left"]) == ("30", "9970")
        assert not {"consumed-tokens", "remaining-tokens"} & set(headers)


@scenario
async def test_the_head_of_a_stream_counts_its_hold(tmp_path: Path) -> None:
    """What may still be spent while it runs; the receipt tells the rest before the stream ends."""
    limits = (money(DOLLAR), tokens(10_000))
    async with running_gate(tmp_path, limits=limits, clock=HeldClock(), stream_receipt=True) as running:
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), stream=True, max_tokens=100)
        (settled,) = running.of(Settled)
        (intent,) = running.of(Intended)
        *_, comment, done, rest = answer.text.split("\n\n")

        assert answer.headers["x-faregate-limit-remaining"] == dollars(DOLLAR - intent.held.usd)
        assert answer.headers["remaining-tokens"] == str(10_000 - intent.held.tokens)
        assert "consumed-tokens" not in answer.headers
        assert (done, rest) == ("data: [DONE]", "")
        assert comment.startswith(": faregate {")
        assert json.loads(comment.removeprefix(": faregate ")) == {
            "request_id": settled.id,
            "cost": dollars(settled.charge),
            "input_tokens": 10,
            "output_tokens": 20,
            "consumed_tokens": 30,
            "model": "sim-1",
            "deployment": "sim/sim-1",
            "limit_remaining": dollars(DOLLAR - settled.charge),
            "remaining_tokens": 10_000 - 30,
        }


@scenario
async def test_a_stream_without_the_option_is_the_providers_own(tmp_path: Path) -> None:
    """No comment unless it is asked for."""
    async with running_gate(tmp_path, limits=(money(DOLLAR),)) as running:
        answer = await running.chat(stream=True)

        assert ": faregate" not in answer.text


@scenario
async def test_the_stock_client_passes_the_receipt_over(tmp_path: Path) -> None:
    """It reads the stream to its end as ever, and finds its own figures in the raw answer."""
    async with running_gate(tmp_path, limits=(money(DOLLAR), requests(60)), stream_receipt=True) as running:
        client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=secret("caller"), max_retries=0)
        stream = await client.chat.completions.create(
            model="sim-1", messages=[{"role": "user", "content": "Hello."}], max_tokens=50, stream=True
        )
        chunks = [chunk async for chunk in stream]
        raw = await client.chat.completions.with_raw_response.create(
            model="sim-1", messages=[{"role": "user", "content": "Hello."}], max_tokens=50
        )
        usage = raw.parse().usage
        await client.close()

        assert chunks[-1].choices[0].finish_reason == "stop"
        assert usage is not None
        assert raw.headers["consumed-tokens"] == str(usage.total_tokens)
        assert raw.headers["x-ratelimit-remaining-requests"] == "58"


@scenario
async def test_a_refusal_tells_what_is_left_too(tmp_path: Path) -> None:
    """A client that is refused need not ask again to learn how it stands."""
    clock = HeldClock(START + 15 * SECOND)
    limits = (money(DOLLAR), requests(1))
    async with running_gate(tmp_path, limits=limits, clock=clock) as running:
        await running.chat(steered(prompt_tokens=10, output_tokens=20))
        answer = await running.chat()

        assert (answer.status_code, answer.headers["retry-after"]) == (429, "45")
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["x-ratelimit-reset-requests"] == "45s"
        assert answer.headers["x-faregate-limit-remaining"] == dollars(DOLLAR - 50_000)


@scenario
async def test_a_providers_429_is_told_apart_from_ours(tmp_path: Path) -> None:
    """Same status, another source; the provider's own figures keep names of their own beside ours."""
    clock = HeldClock()
    async with running_gate(tmp_path, limits=(requests(1),), clock=clock) as running:
        headers = {"retry-after": "7", "x-ratelimit-remaining-requests": "3"}
        theirs = await running.chat(steered(status=429, headers=headers))
        ours = await running.chat()

        assert (theirs.status_code, theirs.headers["x-faregate-error-source"]) == (429, "provider")
        assert theirs.headers["retry-after"] == "7"
        assert theirs.headers["x-provider-ratelimit-remaining-requests"] == "3"
        assert theirs.headers["x-ratelimit-remaining-requests"] == "0"
        assert "faregate" not in theirs.json()["error"]
        assert (ours.status_code, ours.headers["x-faregate-error-source"]) == (429, "gateway")
        assert ours.json()["error"]["faregate"]["limit"] == "lim_requests"


@scenario
async def test_a_new_window_is_told_from_its_first_call_on(tmp_path: Path) -> None:
    """Also where every value has a counter of its own, and where the window ended while a call ran."""
    clock = HeldClock(START + 59 * SECOND)
    async with running_gate(tmp_path, limits=(requests(5, each=("user",)),), clock=clock) as running:
        first = await running.chat()
        clock.now += MINUTE
        second = await running.chat()

        for answer in (first, second):
            assert answer.headers["x-ratelimit-remaining-requests"] == "4"
            assert answer.headers["x-ratelimit-reset-requests"] == "1s"


@scenario
async def test_what_a_stop_leaves_is_what_is_left(tmp_path: Path) -> None:
    """Of an amount that an action stops at its half, only the half can still be spent."""
    terms = Terms(actions=(Action("stop", 50),))
    async with running_gate(tmp_path, limits=(money(DOLLAR, terms=terms),)) as running:
        headers = (await running.chat(steered(prompt_tokens=10, output_tokens=20))).headers

        assert headers["x-faregate-limit-remaining"] == dollars(DOLLAR // 2 - 50_000)


async def _spend_as(running: RunningGate, name: str) -> httpx2.Response:
    return await running.chat(steered(prompt_tokens=10, output_tokens=20), name=name)


@pytest.mark.parametrize(
    ("selector", "each", "shown"),
    [
        ({}, (), False),
        ({"model": "sim-1"}, (), False),
        ({"team": "shared"}, (), False),
        ({}, ("model",), False),
        ({"organization": "one"}, (), True),
        ({"team": "alone"}, (), True),
        ({}, ("organization",), True),
        ({"key": "key_a"}, (), True),
        ({}, ("project",), True),
    ],
)
@scenario
async def test_what_others_use_is_not_told(
    tmp_path: Path, selector: dict[str, str], each: tuple[str, ...], shown: bool
) -> None:
    """A limit that counts other organizations' calls too tells its figures to none of them."""
    team = "alone" if selector.get("team") == "alone" else "shared"
    keys = [
        key("a", organization="one", team=team, project="a"),
        key("b", organization="two", team="shared", project="b"),
    ]
    limit = money(1_000_000, selector=selector, each=each)
    async with running_gate(tmp_path, limits=(limit,), keys=keys) as running:
        await _spend_as(running, "b")
        first = await _spend_as(running, "a")
        refused = await running.chat(name="a", max_tokens=5_000)
        told = refused.json()["error"]["faregate"]
        figures = [told[name] for name in ("amount", "posted", "held", "remaining")]

        assert ("x-faregate-limit-remaining" in first.headers) is shown
        assert (refused.status_code, told["limit"], told["bound"]) == (429, "lim_money", told["bound"])
        assert (None not in figures) is shown
        assert told.get("shared", False) is not shown
        assert ("0.001" in refused.json()["error"]["message"]) is shown


@pytest.mark.parametrize(
    ("selector", "each"),
    [({}, ()), ({"model": "sim-1"}, ()), ({"stage": "prod"}, ()), ({"service": "chat.completions"}, ()),
     ({}, ("end_user",)), ({}, ("run",))],
)  # fmt: skip
@scenario
async def test_one_organization_sees_all_of_its_limits(
    tmp_path: Path, selector: dict[str, str], each: tuple[str, ...]
) -> None:
    """Where nobody else makes calls, nothing is hidden, also not for the keys of administrators, who are of none."""
    keys = [key("a", team="x", stage="prod"), key("b", team="y", stage="prod")]
    keys += [key(role, organization="", team="", role=role) for role in ("admin", "viewer")]
    limit = money(DOLLAR, selector=selector, each=each)
    async with running_gate(tmp_path, limits=(limit,), keys=keys) as running:
        await _spend_as(running, "b")
        answer = await _spend_as(running, "a")

        assert answer.headers["x-faregate-limit-remaining"] == dollars(DOLLAR - 100_000)


@scenario
async def test_a_second_organization_hides_what_both_are_counted_by(tmp_path: Path) -> None:
    """From its first key on, without a restart."""
    limits = (money(DOLLAR, selector={}), tokens(10_000))
    async with running_gate(tmp_path, limits=limits, keys=[key("a")]) as running:
        before = await _spend_as(running, "a")
        await running.ask(Load(2, keys=(key("b", organization="two", team="elsewhere"),)))
        after = await _spend_as(running, "a")
        await running.ask(Load(3, keys=(key("b", organization="two"),)))
        last = await _spend_as(running, "a")

        assert {"x-faregate-limit-remaining", "remaining-tokens"} <= set(told(before))
        assert "x-faregate-limit-remaining" not in told(after)
        # Its team is its own until the other organization has one of the same name.
        assert after.headers["remaining-tokens"] == "9940"
        assert set(told(last)) == {"consumed-tokens"}


@scenario
async def test_a_limit_that_is_raised_is_told_at_once(tmp_path: Path) -> None:
    """The figures follow the limits of now."""
    limit = money(DOLLAR)
    async with running_gate(tmp_path, limits=(limit,)) as running:
        before = await _spend_as(running, "caller")
        await running.ask(Load(2, limits=(msgspec.structs.replace(limit, amount=3 * DOLLAR),)))
        after = await _spend_as(running, "caller")

        assert before.headers["x-faregate-limit-remaining"] == dollars(DOLLAR - 50_000)
        assert after.headers["x-faregate-limit-remaining"] == dollars(3 * DOLLAR - 100_000)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (1, "1ms"),
        (120_000_000, "120ms"),
        (999_000_001, "1s"),
        (SECOND, "1s"),
        (SECOND + 1, "2s"),
        (60 * SECOND, "1m0s"),
        (6 * MINUTE, "6m0s"),
        (3_661 * SECOND, "1h1m1s"),
        (30 * 3_600 * SECOND, "30h0m0s"),
    ],
)
def test_spans_are_written_as_openai_writes_them(nanos: int, text: str) -> None:
    """Rounded up, so that nobody comes back too early."""
    assert duration(nanos) == text
