"""An installation with a provider of each native kind, and what its calls must have cost.

The price oracle is its own few lines of ``Fraction`` over the provider's truth, so that a slip in the product's pricing
cannot hide.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from installation import Installation, nanos
from system.calls import record, truth_of

_CONFIG = """\
providers:
  - name: claude
    kind: anthropic
    base_url: http://127.0.0.1:{simulator_port}/v1
    api_key: {secret}
    lookup: {{path: "{lookup}"}}
  - name: google
    kind: gemini
    base_url: http://127.0.0.1:{simulator_port}/v1beta
    api_key: {secret}
    lookup: {{path: "{lookup}"}}
models:
  - {{name: claude, to: [claude/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
  - {{name: gemini-2.5-flash, to: [google/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
  - {{name: embedder, to: [google/sim-embed], max_context_tokens: 8192}}
pricing:
  unknown: refuse
  overrides:
"""

#: Dollars per million tokens, or per thousand searches.
CLAUDE = {
    "input_tokens": "3",
    "cached_input_tokens": "0.3",
    "cache_write_tokens": "3.75",
    "cache_write_1h_tokens": "6",
    "output_tokens": "15",
    "web_searches": "10",
}
GOOGLE = {
    "input_tokens": "0.3",
    "cached_input_tokens": "0.075",
    "input_audio_tokens": "1",
    "output_tokens": "2.5",
    "output_audio_tokens": "12",
    "web_searches": "35",
}
EMBEDDER = {"input_tokens": "0.15"}


def _lines(provider: str, model: str, prices: Mapping[str, str]) -> str:
    per = {unit: 1000 if unit == "web_searches" else 1_000_000 for unit in prices}
    return "".join(
        f'    - {{{{provider: {provider}, model: {model}, unit: {unit}, per: {per[unit]}, price: "{price}"}}}}\n'
        for unit, price in prices.items()
    )


CONFIG = _CONFIG + _lines("claude", "sim-1", CLAUDE) + _lines("google", "sim-1", GOOGLE)
CONFIG += _lines("google", "sim-embed", EMBEDDER)


def price(prices: Mapping[str, str], **units: int) -> int:
    """The cost of so many units in nano-dollars, rounded half to even once."""
    per = {unit: 1000 if unit == "web_searches" else 1_000_000 for unit in units}
    return round(sum((Fraction(prices[unit]) * count / per[unit] for unit, count in units.items()), Fraction()) * 10**9)


def claude_units(usage: Mapping[str, Any]) -> dict[str, int]:
    """A true usage of Anthropic's by what it is billed by."""
    creation = usage["cache_creation"]
    return {
        "input_tokens": usage["input_tokens"],
        "cached_input_tokens": usage["cache_read_input_tokens"],
        "cache_write_tokens": creation["ephemeral_5m_input_tokens"],
        "cache_write_1h_tokens": creation["ephemeral_1h_input_tokens"],
        "output_tokens": usage["output_tokens"],
        "web_searches": usage.get("server_tool_use", {}).get("web_search_requests", 0),
    }


def claude_cost(usage: Mapping[str, Any]) -> int:
    """What a true usage of Anthropic's costs."""
    return price(CLAUDE, **claude_units(usage))


def google_cost(usage: Mapping[str, Any], searches: int = 0) -> int:
    """What a true usage of Gemini's costs."""

    def audio(name: str) -> int:
        return sum(int(each["tokenCount"]) for each in usage.get(name, ()) if each["modality"] == "AUDIO")

    heard, said = audio("promptTokensDetails"), audio("candidatesTokensDetails")
    cached = usage.get("cachedContentTokenCount", 0)
    return price(
        GOOGLE,
        input_tokens=usage["promptTokenCount"] - cached - heard,
        cached_input_tokens=cached,
        input_audio_tokens=heard,
        output_tokens=usage["candidatesTokenCount"] - said + usage.get("thoughtsTokenCount", 0),
        output_audio_tokens=said,
        web_searches=searches,
    )


def booked(native: Installation, request_id: str, cost: int, source: str = "provider") -> dict[str, Any]:
    """The record of a call, which must have cost just that."""
    row = record(native, request_id)
    assert (nanos(row["cost"]), nanos(row["charge"]), row["usage_source"]) == (cost, cost, source)
    return row


def booked_message(native: Installation, request_id: str) -> dict[str, Any]:
    """The record of a message: every leaf, and the cost to the nano-dollar, as the provider's truth has it."""
    usage = truth_of(native, request_id)["usage"]
    row = booked(native, request_id, claude_cost(usage))
    units = claude_units(usage)
    leaves = {name: row[name] for name in ("cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens")}
    assert leaves == {name: units[name] for name in leaves}
    assert row["input_tokens"] == units["input_tokens"] + sum(leaves.values())
    assert row["output_tokens"] == units["output_tokens"]
    assert row["reasoning_tokens"] == usage["output_tokens_details"]["thinking_tokens"]
    return row
