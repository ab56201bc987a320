"""Charge rules of a whole installation: what is held, told, booked and proved."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from installation import CONFIG, Installation, nanos
from system.calls import ask, body, cost_nanos, new_key, new_limit, record, truth_cost, truth_of

CHARGES = """\
  charges:
    - {select: {team: resold}, markup_percent: "12.5", fee: "0.001"}
    - {select: {team: guests, model: sim-fast}, free: true}
    - {select: {team: guests}, discount_percent: "50"}
"""
FEE = 1_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that charges its teams differently."""
    config = CONFIG.replace(
        "  unknown: refuse\n", "  unknown: refuse\n" + CHARGES.replace("{", "{{").replace("}", "}}")
    )
    with Installation(tmp_path_factory.mktemp("charges"), config=config) as installation:
        yield installation


def account(running: Installation, team: str) -> dict[str, Any]:
    """The sums of a team."""
    rows: list[dict[str, Any]] = running.admin("GET", f"/api/v1/usage?team={team}")["data"]
    (row,) = rows
    return row


def test_a_mark_up_and_a_fee_are_charged_held_and_posted(running: Installation) -> None:
    """The caller sees its charge, the limit counts it, the record holds both amounts and why they differ."""
    key = new_key(running, "reseller", team="resold")
    limit = new_limit(running, {"team": "resold"}, "usd", "1")
    answer = ask(running, key["secret"])
    row = record(running, answer.id)
    cost = truth_cost(truth_of(running, answer.id), "sim-1")
    due = round(Fraction(cost) * 9 / 8) + FEE
    assert nanos(answer.headers["x-faregate-cost"]) == due
    assert (nanos(row["cost"]), nanos(row["charge"]), row["overrun"]) == (cost, due, "0")
    assert row["charge_rule"] == "markup 12.5 % + fee 0.001"
    lines = row["derivation"]["charge_lines"]
    assert [line["name"] for line in lines] == ["markup", "fee"]
    assert round((Fraction(row["cost"]) + sum(Fraction(line["amount"]) for line in lines)) * 10**9) == due
    # What was held is the bound of the charge: that of the cost, its mark-up, and the fee.
    bounds = (cost_nanos(tokens, 20) for tokens in range(row["input_tokens"], 10_000))
    assert nanos(row["held"]) in {-(-bound * 9 // 8) + FEE for bound in bounds}
    assert nanos(row["held"]) >= due
    found = next(each for each in running.admin("GET", "/api/v1/limits")["data"] if each["id"] == limit["id"])
    assert (nanos(found["posted"]), nanos(found["held"])) == (due, 0)
    sums = account(running, "resold")
    assert (nanos(sums["cost"]), nanos(sums["charge"])) == (cost, due)


def test_a_limit_that_has_room_for_the_cost_but_not_for_the_charge_refuses(running: Installation) -> None:
    """Hard limits are hard in what the payer pays."""
    key = new_key(running, "tight", team="resold", project="tight")
    new_limit(running, {"project": "tight"}, "usd", "0.001")
    assert cost_nanos(100, 20) < FEE
    answer = ask(running, key["secret"])
    assert (answer.status, answer.code) == (429, "budget_exhausted")


def test_a_free_rule_charges_nothing_but_books_the_cost(running: Installation) -> None:
    """Also under a limit of nothing; the next rule charges half for the other models."""
    key = new_key(running, "guest", team="guests", project="free")
    new_limit(running, {"project": "free"}, "usd", "0")
    free = ask(running, key["secret"], body(model="sim-fast"))
    assert (free.status, free.headers["x-faregate-cost"]) == (200, "0")
    row = record(running, free.id)
    cost = truth_cost(truth_of(running, free.id), "sim-fast")
    assert cost > 0
    assert (nanos(row["cost"]), row["charge"], row["held"], row["charge_rule"]) == (cost, "0", "0", "free")
    assert [line["name"] for line in row["derivation"]["charge_lines"]] == ["free"]
    refused = ask(running, key["secret"], body(model="sim-1"))
    assert refused.status == 429
    other = new_key(running, "half", team="guests", project="half")
    half = record(running, ask(running, other["secret"]).id)
    assert nanos(half["charge"]) == round(Fraction(nanos(half["cost"]), 2))


def test_nothing_is_charged_for_an_error(running: Installation) -> None:
    """No fee where the provider answered with an error."""
    key = new_key(running, "failing", team="resold", project="failing")
    answer = ask(running, key["secret"], body(status=500))
    row = record(running, answer.id)
    assert (answer.status, row["cost"], row["charge"]) == (500, "0", "0")


def test_the_books_verify_and_outlive_a_restart(running: Installation) -> None:
    """Payers, providers and the margin add up to zero; limits go on from the charges after a restart."""
    before = {row["id"]: row["posted"] for row in running.admin("GET", "/api/v1/limits")["data"]}
    checked = running.settled()
    assert (checked["ok"], checked["sum"], checked["held"]) == (True, "0", "0")
    running.restart()
    after = {row["id"]: row["posted"] for row in running.admin("GET", "/api/v1/limits")["data"]}
    assert after == before
    assert running.settled()["ok"]
