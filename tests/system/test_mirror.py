"""``docs/guides/spread-over-deployments.md``, "Compare": mirrored and canary traffic by its blocks, and the report."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median_low
from typing import Any

import httpx2
import pytest
import yaml

from installation import VISIBLE_SECONDS, Installation, nanos
from system.calls import Answer, ask, body, new_key, records, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "spread-over-deployments.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

CALL: dict[str, Any] = {"prompt_tokens": 10, "output_tokens": 20, "delay_ms": 2}
#: Ten tokens in at 1 $ and twenty out at 2 $ for a million.
COST = 50_000


def configuration() -> str:
    """That of the guide with what its section on comparing adds, for this installation's simulator."""
    text = GUIDE.read_text()
    (whole,) = [yaml.safe_load(block) for kind, block in FENCE.findall(text) if kind == "yaml"]
    (added,) = [
        yaml.safe_load(block) for kind, block in FENCE.findall(text.partition("\n## Compare\n")[2]) if kind == "text"
    ]
    for name, rows in added.items():
        whole[name] += rows
    config = yaml.safe_dump(whole, default_flow_style=False, sort_keys=False)
    return config.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:4010", "127.0.0.1:{simulator_port}")


def report(running: Installation, query: str = "") -> dict[str, Any]:
    told: dict[str, Any] = running.admin("GET", f"/api/v1/reports/deployments{query}")
    return told


def fetched(running: Installation, path: str, secret: str = "") -> httpx2.Response:
    """What the console answers from outside."""
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx2.get(running.console_url + path, headers=headers, trust_env=False)


def row_of(told: dict[str, Any], deployment: str, *, mirrored: bool) -> dict[str, Any]:
    (row,) = [row for row in told["data"] if (row["deployment"], row["mirrored"]) == (deployment, mirrored)]
    return dict(row)


@pytest.mark.timeout(300)
def test_deployments_are_compared_by_what_was_booked(tmp_path: Path) -> None:
    """Of 20 calls five are copied and of 20 others one goes to the canary; rows and pairs are what the records say."""
    with Installation(tmp_path, config=configuration()) as running:
        secret = new_key(running, "ann", team="research")["secret"]

        def call(model: str, number: int) -> Answer:
            return ask(running, secret, body(f"Number {number}.", model=model, stream=number % 3 == 0, **CALL))

        def copied(status: str, count: int) -> list[dict[str, Any]]:
            return until(
                lambda: [each for each in records(running, deployment="candidate", status=status) if each["notes"]],
                lambda rows: len(rows) >= count,
                VISIBLE_SECONDS,
            )

        answers = [call("compared", number) for number in range(20)]
        assert {answer.status for answer in answers} == {200}
        assert "candidate" not in {answer.headers["x-faregate-deployment"] for answer in answers}
        copies = copied("ok", 5)
        tried = [call("chat-canary", number) for number in range(20)]
        assert [answer.headers["x-faregate-deployment"] for answer in tried].count("candidate") == 1
        calls = until(
            lambda: {each["id"]: each for each in records(running) if each["organization"]},
            lambda found: len(found) == 40,
            VISIBLE_SECONDS,
        )

        told = report(running)
        assert (told["records"], told["truncated"]) == (45, False)
        copy = row_of(told, "candidate", mirrored=True)
        assert (copy["requests"], copy["ok"], copy["failed"], copy["ok_ratio"]) == (5, 5, 0, "1.0000")
        assert (nanos(copy["cost"]), copy["cost_per_request"]) == (5 * COST, "0.00005")
        assert (copy["input_tokens"], copy["output_tokens"]) == (50, 100)
        assert copy["latency_ms"]["p50"] == median_low(each["latency_ms"] for each in copies)
        assert copy["latency_ms"]["p99"] == max(each["latency_ms"] for each in copies)
        streams = [each["first_token_ms"] for each in copies if each["stream"]]
        assert copy["first_token_ms"]["p50"] == (median_low(streams) if streams else None)
        assert row_of(told, "candidate", mirrored=False)["requests"] == 1
        for place in ("east-1", "west-1"):
            of_place = [each for each in calls.values() if each["deployment"] == place]
            row = row_of(told, place, mirrored=False)
            assert (row["requests"], row["latency_ms"]["p50"]) == (
                len(of_place),
                median_low(each["latency_ms"] for each in of_place),
            )

        origins = [calls[each["notes"]["mirror_of"]] for each in copies]
        assert {origin["id"] for origin in origins} <= {answer.id for answer in answers}
        for pair in told["pairs"]:
            sides = [
                (origin, copy)
                for origin, copy in zip(origins, copies, strict=True)
                if origin["deployment"] == pair["deployment"]
            ]
            assert (pair["model"], pair["mirror"], pair["pairs"]) == ("sim-1", "candidate", len(sides))
            assert nanos(pair["cost"]) == nanos(pair["mirror_cost"]) == len(sides) * COST
            assert pair["latency_ms"] == median_low(origin["latency_ms"] for origin, _ in sides)
            assert pair["mirror_latency_ms"] == median_low(copy["latency_ms"] for _, copy in sides)
            assert (pair["output_tokens"], pair["mirror_output_tokens"]) == (20 * len(sides), 20 * len(sides))
        assert sum(pair["pairs"] for pair in told["pairs"]) == 5

        # The other deployment fails: callers do not notice, and the report does.
        running.simulator("POST", "script", [{"model": "sim-candidate", "steer": {"status": 500}}])
        assert {call("compared", number).status for number in range(4)} == {200}
        (failed,) = copied("failed", 1)

        def failures() -> int:
            # A copy that fails at once may be booked before the call that it copies.
            return sum(pair["mirror_failed"] for pair in report(running, "?deployment=candidate")["pairs"])

        assert until(failures, bool, VISIBLE_SECONDS) == 1
        told = report(running, "?deployment=candidate")
        assert row_of(told, "candidate", mirrored=True)["ok_ratio"] == "0.8333"
        assert sum(pair["failed"] for pair in told["pairs"]) == 0

        # A team sees its own calls, and no copy of them: what copies cost is on nobody's bill.
        reader = new_key(running, "reads", role="manager", team="research")["secret"]
        seen = fetched(running, "/api/v1/reports/deployments", reader).json()
        assert (seen["records"], seen["pairs"], {row["mirrored"] for row in seen["data"]}) == (44, [], {False})

        assert f"it is a copy of {failed['notes']['mirror_of']}" in running.cli_raw("explain", failed["id"]).stdout
        assert re.search(r"^sim-1 +candidate +yes +6 ", running.cli_raw("report", "deployments").stdout, re.MULTILINE)
        assert running.cli("report", "deployments")["pairs"] == report(running)["pairs"]
        assert 'faregate_mirrored_calls_total{outcome="copied"} 6.0' in fetched(running, "/metrics").text
