"""A quote, then the call itself through the gate: what it really cost lies inside."""

from __future__ import annotations

from typing import Any

import pytest

from installation import Installation, nanos
from system.calls import ask, assert_booked_as_served, body, new_key, new_limit, record


def quoted(running: Installation, request: dict[str, Any], key: str, **more: Any) -> dict[str, Any]:
    """A quote by the admin API."""
    told: dict[str, Any] = running.admin("POST", "/api/v1/quote", {"request": request, "key": key, **more})
    return told


def assert_inside(told: dict[str, Any], row: dict[str, Any]) -> None:
    """The record of a call lies in its quote: tokens, cost and charge."""
    for name in ("input_tokens", "output_tokens"):
        assert told[name]["min"] <= row[name] <= told[name]["max"], name
    for name in ("cost", "charge"):
        assert nanos(told[name]["min"]) <= nanos(row[name]) <= nanos(told[name]["max"]), name


@pytest.mark.parametrize(
    "request_body",
    [
        body("Say hello."),
        body("Say hello.", output_tokens=20),
        body("Say hello.", output_tokens=0),
        body("One word after the other. " * 200, max_tokens=300, output_tokens=137),
        body("Grüße aus Köln, 日本語", model="sim-fast", max_tokens=64),
        body("Say hello.", model="sim-slow", stream=True, output_tokens=11),
        {**body("Say hello.", max_tokens=9), "n": 3},
        {**body("Call it."), "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    ],
    ids=["plain", "whole cap", "no answer", "long prompt", "other scripts", "stream", "three choices", "a tool"],
)
def test_the_real_cost_lies_inside_the_quote(
    running: Installation, request_body: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Quoted, then called; the provider's truth, the record and the quote agree."""
    key = new_key(running, f"quoting {request.node.callspec.id}")
    told = quoted(running, request_body, key["id"])
    assert told["would_be_refused"] is None
    answer = ask(running, key["secret"], request_body)
    assert answer.status == 200, answer.text
    row = assert_booked_as_served(running, answer.id)
    assert_inside(told, row)
    assert row["price_version"] in {each["price_version"] for each in told["deployments"]}


def test_embeddings_and_azure_paths_are_quoted_by_their_path(running: Installation) -> None:
    """A model without output, and a deployment that the path names."""
    key = new_key(running, "quoting-paths")
    for path, request_body in (
        ("/v1/embeddings", {"model": "sim-embed", "input": ["one", "two three"]}),
        ("/openai/deployments/azure-sim/chat/completions?api-version=2024-10-21", body("Say hello.")),
    ):
        told = quoted(running, request_body, key["id"], endpoint=path)
        answer = ask(running, key["secret"], request_body, path=path)
        assert answer.status == 200, answer.text
        assert_inside(told, record(running, answer.id))


def test_what_the_quote_says_of_the_limits_is_what_the_gate_does(running: Installation) -> None:
    """A call that would be refused is, with that code; the largest cap that fits passes, and nothing larger does."""
    key = new_key(running, "quoting-limits")
    limit = new_limit(running, {"key": key["id"]}, "tokens", 1_000)
    first = ask(running, key["secret"], body("Say hello.", output_tokens=20))
    assert first.status == 200, first.text
    record(running, first.id)
    large = body("Say hello.", max_tokens=999)
    told = quoted(running, large, key["id"])
    refused = ask(running, key["secret"], large)
    assert told["would_be_refused"]["code"] == refused.code == "budget_exhausted"
    assert told["would_be_refused"]["limit"] == limit["id"]
    fitting = told["max_tokens_that_fits"]
    # Here the input is bounded by its bytes, and the quote's body had spaces that the call's has not.
    assert ask(running, key["secret"], body("Say hello.", max_tokens=fitting + 20)).status == 429
    assert ask(running, key["secret"], body("Say hello.", max_tokens=fitting)).status == 200


def test_a_quote_reaches_no_provider_and_holds_nothing(running: Installation) -> None:
    """The provider saw no call, the limit no hold, the books no record."""
    key = new_key(running, "quoting-only")
    limit = new_limit(running, {"key": key["id"]}, "requests", 1)
    seen = len(running.truth())
    for _ in range(5):
        assert quoted(running, body("Say hello."), key["id"])["would_be_refused"] is None
    assert len(running.truth()) == seen
    row = running.admin("GET", f"/api/v1/limits/{limit['id']}")
    assert (row["posted"], row["held"]) == (0, 0)
    assert running.admin("GET", f"/api/v1/requests?key={key['id']}")["data"] == []


def test_the_command_quotes_a_file(running: Installation) -> None:
    """As a person would ask."""
    file = running.folder / "call.json"
    file.write_text('{"model": "sim-1", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}')
    told = running.cli("quote", "-f", str(file), "--amount", "0.01")
    assert nanos(told["cost"]["min"]) <= nanos(told["cost"]["max"])
    assert told["max_tokens_that_fits"] > 20
    assert "at most" in running.cli_raw("quote", "-f", str(file)).stdout
