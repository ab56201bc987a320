"""Streams that hold in steps, from the outside: what a kill leaves held, and what the record of a cut one says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from installation import CONFIG, Installation, nanos
from system.calls import CALL_SECONDS, headers_of, new_key, new_limit, record_count, records, until

#: A model whose tokenizer is known, at a provider that answers any name.
MODEL = "gpt-4o"
STEPS = (
    CONFIG.replace(
        "models:\n",
        f"models:\n  - {{{{name: {MODEL}, to: [sim/{MODEL}]}}}}\n",
    )
    + "limits: {{stream_hold: steps, default_output_tokens: 64, min_answer_tokens: 32}}\n"
)
OUTPUT_NANOS = 10_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose streams hold in steps, and which may be killed."""
    with Installation(tmp_path_factory.mktemp("steps"), config=STEPS) as installation:
        yield installation


def stream(running: Installation, secret: str, **steering: Any) -> str:
    """All that a stream brought, however it ended."""
    content = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": f"Go on.\nsim: {json.dumps(steering)}"}],
    }
    text = ""
    with (
        contextlib.suppress(httpx2.HTTPError),
        httpx2.Client(trust_env=False, timeout=CALL_SECONDS) as client,
        client.stream(
            "POST", running.gateway_url + "/v1/chat/completions", json=content, headers=headers_of(secret)
        ) as got,
    ):
        for part in got.iter_text():
            text += part
    return text


def test_a_kill_leaves_every_step_held_until_the_provider_has_said_what_it_cost(running: Installation) -> None:
    """What an unknown stream holds covers all that it delivered, though it began with less."""
    key = new_key(running, "killed in steps")
    limit = new_limit(running, {"key": key["id"]}, "usd", "1")
    calling = threading.Thread(
        target=stream, args=(running, key["secret"]), kwargs={"output_tokens": 2_000, "delay_ms": 2, "hold_after": 300}
    )
    calling.start()
    until(lambda: running.simulator("GET", "state")["held"], lambda held: held == 1, 20)

    with running.simulator_silent():
        running.kill_gate()
        calling.join(CALL_SECONDS)
        (unknown,) = record_count(running, 1, key=key["id"], status="unknown")
        held = nanos(running.admin("GET", f"/api/v1/limits/{limit['id']}")["held"])
        seen = running.verify()

    assert held == nanos(unknown["held"]) == nanos(seen["unknown"])
    assert held >= 300 * OUTPUT_NANOS
    assert seen["ok"]

    running.simulator("POST", "release")
    running.wait_ready()
    verified = running.settled()
    assert (verified["ok"], verified["held"], verified["sum"]) == (True, "0", "0")
    (row,) = records(running, key=key["id"])
    assert (row["resolution"], row["output_tokens"]) == ("provider_said", 300)


def test_the_record_of_a_cut_stream_names_its_limit(running: Installation) -> None:
    """It tells that a limit ended it, which, what it held at last, and what it is charged; the books agree."""
    key = new_key(running, "cut")
    limit = new_limit(running, {"key": key["id"]}, "usd", "0.004")

    text = stream(running, key["secret"], output_tokens=2_000, delay_ms=1)

    assert text.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"length"' in text
    (row,) = record_count(running, 1, key=key["id"])
    assert (row["status"], row["code"], row["limit"]) == ("cut", "budget_exhausted", limit["id"])
    assert 200 <= row["output_tokens"] <= 400
    assert nanos(row["charge"]) <= nanos(row["held"]) <= 4_000_000
    now = running.admin("GET", f"/api/v1/limits/{limit['id']}")
    assert (nanos(now["posted"]), nanos(now["held"])) == (nanos(row["charge"]), 0)
    assert running.settled()["ok"]
