"""OpenAI's Responses and the richer chats through the gate: the stock client, and books that agree with the truth.

Every call is booked to the nano-dollar as the provider's truth has it, what its hosted tools cost included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import openai
import pytest
from openai import OpenAI

from installation import OPENAI_AND_AZURE, Installation, nanos
from system.calls import ask, new_key, new_limit, record, truth_of, until

CONFIG = (
    OPENAI_AND_AZURE
    + """\
deployments:
  - {{name: azure-sim, provider: sim-azure, deployment: sim-1, model: sim-1}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
  - {{name: sim-plain, to: [sim/sim-plain], max_output_tokens: 4096}}
pricing:
  unknown: refuse
  overrides:
{prices}"""
)

#: Dollars per million tokens, per thousand searches, per session.
PRICES = {
    ("input_tokens", ""): ("2.50", 1_000_000),
    ("cached_input_tokens", ""): ("0.625", 1_000_000),
    ("cache_write_tokens", ""): ("3.125", 1_000_000),
    ("output_tokens", ""): ("10", 1_000_000),
    ("web_searches", ""): ("10", 1_000),
    ("file_searches", ""): ("2.5", 1_000),
    ("code_sessions", ""): ("0.03", 1),
}
FLEX = {("input_tokens", ""): ("1.25", 1_000_000), ("output_tokens", ""): ("5", 1_000_000)}
#: The gate asks the provider soon after the break.
RESOLVED_SECONDS = 30.0
#: What the truth calls the calls of tools, and the unit of each.
UNITS = {"web_search": "web_searches", "file_search": "file_searches", "code_interpreter": "code_sessions"}


def _lines() -> str:
    rows = [
        {"provider": provider, "model": model, "unit": unit, "per": per, "price": price, **tier}
        for provider, model in (("sim", "sim-1"), ("sim-azure", "sim-1"), ("sim", "sim-plain"))
        for prices, tier in ((PRICES, {}), (FLEX, {"service_tier": "flex"}))
        for (unit, _), (price, per) in prices.items()
        if model == "sim-1" or (not tier and unit.endswith("put_tokens"))
    ]
    return "".join(f"    - {json.dumps(row)}\n" for row in rows)


@pytest.fixture(scope="module")
def responding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose models have prices of tools and tiers."""
    config = CONFIG.replace("{prices}", _lines().replace("{", "{{").replace("}", "}}"))
    with Installation(tmp_path_factory.mktemp("responses"), config=config) as installation:
        yield installation


@pytest.fixture(scope="module")
def secret(responding: Installation) -> str:
    """A key without limits."""
    return str(new_key(responding, "responses")["secret"])


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(request: pytest.FixtureRequest, responding: Installation, secret: str) -> Iterator[OpenAI]:
    """The stock client on OpenAI's paths and on Azure's newer ones."""
    with OpenAI(base_url=responding.gateway_url + request.param, api_key=secret, max_retries=0) as made:
        yield made


def line(**steering: Any) -> str:
    return "Say hello.\nsim: " + json.dumps(steering)


def owed(usage: dict[str, Any], prices: dict[tuple[str, str], tuple[str, int]] = PRICES) -> int:
    """What the truth of a response costs in nano-dollars, rounded half to even once."""
    details = usage["input_tokens_details"]
    cached, written = details["cached_tokens"], details["cache_write_tokens"]
    used = {
        "input_tokens": usage["input_tokens"] - cached - written,
        "cached_input_tokens": cached,
        "cache_write_tokens": written,
        "output_tokens": usage["output_tokens"],
        **{UNITS[tool]: times for tool, times in usage.get("hosted_calls", {}).items()},
    }
    # All calls of the simulator's code interpreter run in one container.
    used["code_sessions"] = min(1, used.get("code_sessions", 0))
    total = Fraction(0)
    for unit, quantity in used.items():
        if quantity:
            price, per = prices[unit, ""]
            total += Fraction(price) * quantity / per
    return round(total * 10**9)


def assert_booked_as_served(running: Installation, request_id: str, **tier: Any) -> dict[str, Any]:
    """The record of a call equals the provider's truth."""
    row, truth = record(running, request_id), truth_of(running, request_id)
    usage = truth["usage"]
    assert row["status"] == "ok"
    assert row["usage_source"] == "provider"
    assert row["operation"] == "responses"
    assert (row["input_tokens"], row["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert nanos(row["cost"]) == owed(usage, **tier)
    return row


def test_a_response_is_booked_as_served(client: OpenAI, responding: Installation) -> None:
    """Text comes back as it is, and every kind of token is priced by its own price."""
    raw = client.responses.with_raw_response.create(
        model="sim-1",
        input=line(
            prompt_tokens=1_000, cached_tokens=400, cache_write_tokens=100, output_tokens=50, reasoning_tokens=20
        ),
    )

    answer = raw.parse()
    assert answer.output_text
    assert_booked_as_served(responding, raw.headers["x-faregate-request-id"])


def test_a_stream_is_booked_as_served(client: OpenAI, responding: Installation) -> None:
    """All events arrive, the last one with the usage that is booked."""
    with client.responses.with_streaming_response.create(
        model="sim-1", input=line(output_tokens=30), stream=True
    ) as raw:
        events = list(raw.parse())
        request_id = raw.headers["x-faregate-request-id"]

    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert_booked_as_served(responding, request_id)


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_capped_and_billed(responding: Installation, secret: str, stream: bool) -> None:
    """A call that offers hosted tools gets a cap on them, and pays for each search and each session."""
    body = {
        "model": "sim-1",
        "input": line(prompt_tokens=500, hosted_calls={"web_search": 20, "code_interpreter": 2, "file_search": 1}),
        "tools": [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}],
        "stream": stream,
    }
    answer = ask(responding, secret, body, path="/v1/responses")
    few = ask(responding, secret, {**body, "input": line(hosted_calls={"code_interpreter": 2})}, path="/v1/responses")

    assert answer.status == few.status == 200
    assert truth_of(responding, answer.id)["usage"]["hosted_calls"] == {"web_search": 16}
    assert_booked_as_served(responding, answer.id)
    assert_booked_as_served(responding, few.id)


def test_a_tier_has_its_own_price(responding: Installation, secret: str) -> None:
    """The tier that answered is the one that is paid, whichever was asked for."""
    served = ask(responding, secret, {"model": "sim-1", "input": "Hi.", "service_tier": "flex"}, path="/v1/responses")
    asked = {"model": "sim-1", "input": line(service_tier="default"), "service_tier": "flex"}
    other = ask(responding, secret, asked, path="/v1/responses")

    assert_booked_as_served(responding, served.id, prices={**PRICES, **FLEX})
    assert_booked_as_served(responding, other.id)


def test_a_tier_of_a_chat_has_its_own_price(responding: Installation, secret: str) -> None:
    """Chats pay by the tier that answered, too, in a stream as well."""
    for stream in (False, True):
        body = {"model": "sim-1", "messages": [{"role": "user", "content": "Hi."}], "service_tier": "flex"}
        answer = ask(responding, secret, {**body, "stream": stream})
        usage = truth_of(responding, answer.id)["usage"]
        due = Fraction("1.25") * usage["prompt_tokens"] + 5 * usage["completion_tokens"]
        assert nanos(record(responding, answer.id)["cost"]) == round(due * 1000)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]}, "feature_unbounded"),
        ({"tools": [{"type": "image_generation"}]}, "feature_unbounded"),
        ({"tools": [{"type": "image_generation", "model": "gpt-image-1"}]}, "price_unknown"),
        ({"tools": [{"type": "web_search_preview"}], "model": "sim-plain"}, "price_unknown"),
        ({"service_tier": "priority"}, "price_unknown"),
        ({"service_tier": "ultrafast"}, "feature_unbounded"),
        ({"max_output_tokens": -1}, "field_range"),
    ],
)
def test_what_cannot_be_bounded_is_refused(
    responding: Installation, secret: str, changed: dict[str, Any], code: str
) -> None:
    """What has no bound or no price never reaches the provider."""
    answer = ask(responding, secret, {"model": "sim-1", "input": "Hi.", **changed}, path="/v1/responses")

    assert (answer.status, answer.code) == (400, code)
    assert responding.simulator("GET", f"truth?request_id={answer.id}")["data"] == []


def test_a_limit_holds_what_tools_may_cost(responding: Installation) -> None:
    """A budget that has no room for the searches a call may make refuses it, and lets it through with fewer."""
    key = new_key(responding, "searching")
    new_limit(responding, {"key": key["id"]}, "usd", "0.25", mode="hard")
    body = {"model": "sim-1", "input": "Hi.", "tools": [{"type": "web_search"}], "max_output_tokens": 100}

    def few() -> Any:
        return ask(responding, key["secret"], {**body, "max_tool_calls": 1}, path="/v1/responses")

    # Sixteen searches and seventeen contexts do not fit; one search and two contexts do.
    assert until(few, lambda answer: answer.status == 200, 5).status == 200
    refused = ask(responding, key["secret"], body, path="/v1/responses")
    assert (refused.status, refused.code) == (429, "budget_exhausted")


def test_a_broken_stream_is_billed_for_what_came(responding: Installation, secret: str) -> None:
    """A stream that ends in the middle is charged for what the provider says it delivered."""
    body = {"model": "sim-1", "input": line(output_tokens=40, fault="cut_utf8"), "stream": True}
    answer = ask(responding, secret, body, path="/v1/responses")

    row = until(lambda: record(responding, answer.id), lambda row: row["status"] != "unknown", RESOLVED_SECONDS)
    truth = truth_of(responding, answer.id)
    assert truth["complete"] is False
    assert (row["input_tokens"], row["output_tokens"]) == (truth["usage"]["input_tokens"], truth["delivered_tokens"])
    assert nanos(row["charge"]) == owed(truth["usage"])


def test_unknown_objects_are_refused(client: OpenAI) -> None:
    """What the provider keeps of others, or of nobody, cannot be read on."""
    with pytest.raises(openai.APIStatusError) as refused:
        client.responses.create(model="sim-1", input="And?", previous_response_id="resp_of_somebody_else")

    assert refused.value.status_code in (400, 403, 404)
