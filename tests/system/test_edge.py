"""Limits at the edge, from the outside: figures in headers, refusals in other words, stages that require a limit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from installation import CONFIG, Installation, Refused, nanos
from system.calls import ACTS_SECONDS, Answer, ask, body, cost_nanos, new_key, new_limit, record, until

EDGE = (
    CONFIG
    + """
stages:
  prod: {{require_limit: true}}
  dev: {{}}
gateway: {{stream_receipt: comment}}
limits:
  statuses: {{budget_exhausted: 403}}
  denials:
    house: {{status: 402, body: {{why: "{{code}}", left: "{{remaining}}"}}, headers: {{x-left: "{{remaining}}"}}}}
"""
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with stages, statuses and denials."""
    with Installation(tmp_path_factory.mktemp("edge"), config=EDGE) as installation:
        yield installation


def _until_status(running: Installation, secret: str, status: int) -> Answer:
    """The first answer with a status, or the last one in the time that changes take to act."""
    return until(lambda: ask(running, secret), lambda answer: answer.status == status, ACTS_SECONDS)


def _refused(running: Installation, secret: str) -> Answer:
    """The first refusal in the time that changes take to act."""
    return until(lambda: ask(running, secret), lambda answer: answer.status != 200, ACTS_SECONDS)


def test_a_stage_that_requires_a_limit_refuses_those_without_one(running: Installation) -> None:
    """No amount is no limit, nothing is one that admits nothing, and other stages ask for none."""
    prod, dev = new_key(running, "p", stage="prod"), new_key(running, "d", stage="dev")
    select = {"key": prod["id"]}
    without = ask(running, prod["secret"])
    unlimited = new_limit(running, select, "usd", None)
    still = ask(running, prod["secret"])
    running.admin("PATCH", f"/api/v1/limits/{unlimited['id']}", {"amount": "0"})
    nothing = _until_status(running, prod["secret"], 403)
    running.admin("PATCH", f"/api/v1/limits/{unlimited['id']}", {"amount": "1"})
    served = _until_status(running, prod["secret"], 200)

    assert ask(running, dev["secret"]).status == 200
    assert [(answer.status, answer.code) for answer in (without, still)] == [(403, "limit_required")] * 2
    assert "stage prod requires one" in without.json["error"]["message"]
    assert nothing.status == 403
    assert served.status == 200


def test_the_figures_of_headers_are_those_of_the_books(running: Installation) -> None:
    """What a caller is told is what the administrator sees, call after call, and what the receipt of a stream says."""
    key = new_key(running, "figures")
    dollars = new_limit(running, {"key": key["id"]}, "usd", "1")
    tokens = new_limit(running, {"key": key["id"]}, "tokens", 100_000)
    for _ in range(3):
        answer = ask(running, key["secret"], body(prompt_tokens=100, output_tokens=10))
        rows = [running.admin("GET", f"/api/v1/limits/{limit['id']}") for limit in (dollars, tokens)]

        assert answer.headers["x-faregate-limit-remaining"] == rows[0]["remaining"]
        assert int(answer.headers["remaining-tokens"]) == rows[1]["remaining"]
        assert answer.headers["consumed-tokens"] == "110"
        assert nanos(answer.headers["x-faregate-cost"]) == cost_nanos(100, 10)
    stream = ask(running, key["secret"], body(stream=True, prompt_tokens=100, output_tokens=10))
    (receipt,) = [line for line in stream.text.splitlines() if line.startswith(": faregate ")]
    rows = [running.admin("GET", f"/api/v1/limits/{limit['id']}") for limit in (dollars, tokens)]

    assert f'"limit_remaining":"{rows[0]["remaining"]}"' in receipt
    assert f'"remaining_tokens":{rows[1]["remaining"]}' in receipt


def test_limits_choose_how_their_refusals_are_told(running: Installation) -> None:
    """By name, with the built-in answers of older gateways among them; all others by the status of their code."""
    told = {}
    for name in ("house", "rate_limiter", "token_limit", ""):
        key = new_key(running, f"denied {name}".strip())
        words = {"denial": name} if name else {}
        new_limit(running, {"key": key["id"]}, "usd", "0", window="month", **words)
        told[name] = _refused(running, key["secret"])

    assert (told["house"].status, told["house"].json) == (402, {"why": "budget_exhausted", "left": "0"})
    assert told["house"].headers["x-left"] == "0"
    assert told["rate_limiter"].json == {"statusCode": 429, "message": "You have reached your monthly spend amount"}
    assert told["token_limit"].json["error"]["code"] == "TooManyTokens"
    assert (told[""].status, told[""].code) == (403, "budget_exhausted")
    assert {answer.headers["x-faregate-error-source"] for answer in told.values()} == {"gateway"}


def test_a_denial_that_nobody_wrote_is_refused_at_once(running: Installation) -> None:
    """Whoever mistypes its name learns it now, not with the first refusal."""
    with pytest.raises(Refused, match="no denial is called 'huose'; one of: house, rate_limiter, token_limit"):
        new_limit(running, {"team": "x"}, "usd", "1", denial="huose")


def test_from_a_share_on_calls_go_to_a_cheaper_model(running: Installation) -> None:
    """The header names the model that was asked for, and so does the record, which is priced as what answered."""
    key = new_key(running, "downgraded")
    options = ("--unit", "usd", "--amount", "0.01", "--window", "month", "--action", "downgrade@4=sim-fast")
    running.cli("limit", "set", "--select", f"key={key['id']}", *options)
    spend = body(prompt_tokens=100, output_tokens=20)
    first = ask(running, key["secret"], spend)
    second = ask(running, key["secret"], spend)
    row = record(running, second.id)

    assert (first.status, "x-faregate-downgraded" in first.headers) == (200, False)
    assert (second.headers["x-faregate-downgraded"], second.headers["x-faregate-model"]) == ("sim-1", "sim-fast")
    assert row["model"] == "sim-fast"
    assert row["notes"]["downgraded_from"] == "sim-1"
    assert nanos(row["charge"]) == cost_nanos(100, 20, "sim-fast")
