"""One record per call, complete, and sums that add up in every direction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from installation import Installation, nanos
from system.calls import ask_all, body, leave, new_key, new_limit, record_count, truth_cost, truth_of

#: The fields that the contract names, and the finer leaves of usage.
FIELDS = frozenset(
    """
    id run created_at organization team project product key user end_user identity_source stage model deployment
    provider operation stream status code input_tokens output_tokens usage_source cost charge price_version cache
    saved_cost attempts latency_ms first_token_ms tags cached_input_tokens reasoning_tokens
    """.split()
)

#: So many calls of each kind, 300 in all.
OK, STREAMS, FAILED, REFUSED, ABORTED = 120, 80, 30, 40, 30
ALL = OK + STREAMS + FAILED + REFUSED + ABORTED
SUMS = ("requests", "input_tokens", "output_tokens", "cost", "charge")

TEAMS = {"red": ("apple", "rose"), "blue": ("sky", "sea")}


class Traffic(NamedTuple):
    """An installation after its 300 calls."""

    running: Installation
    rows: list[dict[str, Any]]
    #: Ids of the calls that were answered, refused and left, as their callers saw them.
    seen: list[str]
    verified: dict[str, Any]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    """300 calls of four projects in two teams, on an installation that has seen nothing else."""
    folder: Path = tmp_path_factory.mktemp("records")
    with Installation(folder) as running:
        seen = asyncio.run(_calls(running))
        # A connection that the provider reset leaves an unknown, until the provider was asked.
        verified = running.settled()
        yield Traffic(running, record_count(running, ALL), seen, verified)


async def _calls(running: Installation) -> list[str]:
    projects = [(team, project) for team, both in TEAMS.items() for project in both]
    secrets = [new_key(running, name, team=team, project=name, user=f"of-{name}")["secret"] for team, name in projects]
    poor = new_key(running, "poor", team="red", project="apple", user="of-apple")
    new_limit(running, {"key": poor["id"]}, "usd", "0.000001")
    seen: list[str] = []
    share = len(secrets)
    for turn, secret in enumerate(secrets):
        bodies = [body(model=("sim-1", "sim-fast")[n % 2], output_tokens=n) for n in range(OK // share)]
        bodies += [body(stream=True, output_tokens=3 + n, reasoning_tokens=n % 3) for n in range(STREAMS // share)]
        faults = ({"status": 500}, {"fault": "reset_after_head"}, {"fault": "empty_body"})
        failing = FAILED // share + (turn < FAILED % share)
        bodies += [body(**faults[n % 3]) for n in range(failing)]
        seen += [answer.id for answer in await ask_all(running, secret, bodies)]
        slow = body(stream=True, delay_ms=100, output_tokens=18)
        leaving = ABORTED // share + (turn < ABORTED % share)
        seen += await asyncio.gather(*(leave(running, secret, slow) for _ in range(leaving)))
    seen += [answer.id for answer in await ask_all(running, poor["secret"], [body()] * REFUSED)]
    return seen


def test_every_call_has_exactly_one_record(traffic: Traffic) -> None:
    """300 calls make 300 records, under the ids that the callers saw."""
    assert len(traffic.seen) == ALL
    assert sorted(row["id"] for row in traffic.rows) == sorted(traffic.seen)


def test_every_record_has_every_field(traffic: Traffic) -> None:
    """Each record holds all that the contract names, and what is always known is never empty."""
    known = ("id", "created_at", "organization", "team", "project", "key", "user", "model", "operation", "status")
    for row in traffic.rows:
        assert set(row) >= FIELDS
        assert [name for name in known if row[name] in (None, "")] == []


def test_every_record_tells_how_its_call_ended(traffic: Traffic) -> None:
    """Answers, refusals, departures and failures are told apart."""
    assert Counter(row["status"] for row in traffic.rows) == {
        "ok": OK + STREAMS,
        "failed": FAILED,
        "refused": REFUSED,
        "aborted": ABORTED,
    }


def test_a_failure_tells_what_its_caller_was_told(traffic: Traffic) -> None:
    """A failed call keeps status, tries and latency, whether it was settled at once or by asking the provider."""
    rows = [row for row in traffic.rows if row["status"] == "failed"]
    assert {row["http_status"] for row in rows} == {500, 502}
    assert any(row["resolution"] for row in rows)
    assert [row["id"] for row in rows if not row["latency_ms"] or not row["attempts"]] == []
    assert [row["id"] for row in rows if row["http_status"] == 502 and not row["code"]] == []


def test_an_answered_call_costs_what_the_provider_served(traffic: Traffic) -> None:
    """The cost of every whole answer equals the provider's truth to the nano-dollar."""
    wrong = [
        (row["id"], row["cost"])
        for row in traffic.rows
        if row["status"] == "ok" and nanos(row["cost"]) != truth_cost(truth_of(traffic.running, row["id"]))
    ]
    assert wrong == []


def test_a_call_that_was_left_is_charged_for_what_was_delivered(traffic: Traffic) -> None:
    """A departed caller's record holds the tokens that left the provider until then, by an estimate."""
    for row in (row for row in traffic.rows if row["status"] == "aborted"):
        truth = truth_of(traffic.running, row["id"])
        assert 0 < row["output_tokens"] <= 18
        assert abs(row["output_tokens"] - truth["delivered_tokens"]) <= 2
        assert nanos(row["charge"]) > 0


def test_failures_and_refusals_cost_nothing(traffic: Traffic) -> None:
    """Nothing is charged where the provider billed nothing."""
    rows = [row for row in traffic.rows if row["status"] in ("failed", "refused")]
    assert {row["charge"] for row in rows if row["status"] == "refused" or row["http_status"] == 500} == {"0"}


def test_usage_by_any_dimension_adds_up_to_the_whole(traffic: Traffic) -> None:
    """Sums by team, project, user, key and model equal the total, and children equal their parent, exactly."""

    def usage(query: str = "") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = traffic.running.admin("GET", f"/api/v1/usage?{query}")["data"]
        return rows

    def added(rows: list[dict[str, Any]]) -> tuple[int, ...]:
        return tuple(sum(nanos(str(row[name])) for row in rows) for name in SUMS)

    (total,) = usage()
    counted = [row for row in traffic.rows if row["status"] != "refused"]
    assert total["requests"] == len(counted)
    assert nanos(total["charge"]) == sum(nanos(row["charge"]) for row in traffic.rows)
    for by in ("team", "project", "user", "key", "model", "stage", "operation", "team,project,key,model"):
        assert added(usage(f"by={by}")) == added([total]), by
    for parent in usage("by=team"):
        children = [row for row in usage("by=team,project") if row["team"] == parent["team"]]
        assert {row["project"] for row in children} == set(TEAMS[parent["team"]])
        assert added(children) == added([parent])


def test_the_derivation_of_every_charge_adds_up(traffic: Traffic) -> None:
    """Quantity times price, line by line, is the exact sum that was rounded once into the cost."""
    for row in traffic.rows[::5]:
        told = traffic.running.admin("GET", f"/api/v1/requests/{row['id']}")["derivation"]
        if row["status"] == "refused":
            assert told is None
            continue
        amounts = [Fraction(line["quantity"]) * Fraction(line["price"]) / line["per"] for line in told["lines"]]
        assert amounts == [Fraction(line["amount"]) for line in told["lines"]]
        assert sum(amounts) == Fraction(told["sum"])
        assert round(sum(amounts) * 10**9) == nanos(told["cost"]) == nanos(row["cost"])
        assert told["price_version"] == row["price_version"]


def test_the_books_verify(traffic: Traffic) -> None:
    """Two postings per charged call and four per unknown resolved, nothing held, and the books equal the journal."""
    charged = sum(nanos(row["charge"]) > 0 for row in traffic.rows)
    resolved = sum(row["resolution"] is not None for row in traffic.rows)
    postings = 2 * charged + 4 * resolved
    assert traffic.verified == {
        "ok": True, "requests": ALL - REFUSED, "postings": postings, "held": "0", "unknown": "0", "sum": "0",
    }  # fmt: skip
