"""The page about money, against a running installation: its usage is served, and its figures are what comes of it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from installation import Installation
from system.calls import CALL_SECONDS, new_key, new_limit, record

PAGE = Path(__file__).parents[2] / "docs" / "money.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: The input that the page bounds.
INPUT_BYTES = 5120

CONFIG = """\
providers:
  - name: openai
    kind: openai
    base_url: http://127.0.0.1:{simulator_port}/v1
    api_key: {secret}
    lookup: {{path: "{lookup}"}}
models:
  - {{name: house-model, to: [openai/sim-1], max_output_tokens: 4096}}
pricing:
  unknown: refuse
  overrides:
    - {{provider: openai, model: sim-1, unit: input_tokens, per: 1000000, price: "0.15"}}
    - {{provider: openai, model: sim-1, unit: cached_input_tokens, per: 1000000, price: "0.0375"}}
    - {{provider: openai, model: sim-1, unit: output_tokens, per: 1000000, price: "0.6"}}
"""


def told() -> dict[str, Any]:
    """The usage that the page shows."""
    usage: dict[str, Any] = json.loads(next(body for kind, body in FENCE.findall(PAGE.read_text()) if kind == "json"))
    return usage


def rules() -> str:
    """The charge rules that the page shows, as part of a configuration."""
    shown: str = next(body for kind, body in FENCE.findall(PAGE.read_text()) if kind == "yaml")
    return shown.partition("pricing:\n")[2].replace("{", "{{").replace("}", "}}")


@pytest.fixture(scope="module", params=[False, True], ids=["at_cost", "with_rules"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with the page's prices, without and with its charge rules."""
    config = CONFIG + (rules() if request.param else "")
    with Installation(tmp_path_factory.mktemp("money"), config=config) as installation:
        yield installation


def call(running: Installation) -> dict[str, Any]:
    """The record of the page's call: a streamed answer of that usage, to a body of 5120 bytes with a cap of 256."""
    key = new_key(running, "page", team="research", project="search")
    new_limit(running, {"key": key["id"]}, "usd", "1")
    usage = told()
    steering = {
        "prompt_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
    }

    def body(padding: int) -> bytes:
        text = f"{'x' * padding}\nsim: {json.dumps(steering)}"
        asked = {"model": "house-model", "messages": [{"role": "user", "content": text}], "max_tokens": 256}
        return json.dumps({**asked, "stream": True}).encode()

    headers = {"authorization": f"Bearer {key['secret']}", "content-type": "application/json"}
    with httpx2.Client(trust_env=False, timeout=CALL_SECONDS) as http:
        url = running.gateway_url + "/v1/chat/completions"
        got = http.post(url, content=body(INPUT_BYTES - len(body(0))), headers=headers)
    assert got.status_code == 200, got.text
    return record(running, got.headers["x-faregate-request-id"])


def postings(running: Installation, request_id: str) -> list[tuple[str, int]]:
    """The accounts that the books debit and credit for a call, and how much, oldest first."""
    query = """
        SELECT payer.name, provider.name, amount FROM transfers
        JOIN accounts AS payer ON payer.id = debit JOIN accounts AS provider ON provider.id = credit
        WHERE request_id = ? ORDER BY sequence
    """
    with closing(sqlite3.connect(f"file:{running.data / 'books.sqlite3'}?mode=ro", uri=True)) as books:
        rows = books.execute(query, (request_id,)).fetchall()
    return [posting for payer, provider, amount in rows for posting in ((payer, amount), (provider, -amount))]


def test_the_page_says_what_the_product_does(running: Installation) -> None:
    """Leaves, lines, sum, cost, charge, hold and postings of the record stand on the page, in its words."""
    row = call(running)
    page = " ".join(PAGE.read_text().split())
    why = row["derivation"]
    leaves = row["input_tokens"] - row["cached_input_tokens"], row["cached_input_tokens"], row["output_tokens"]
    wanted = ["{} input tokens, {} cached input tokens, {} output".format(*leaves)]
    wanted += [
        f"| `{line['unit']}` | {line['price']} | {line['quantity']} | {line['amount']} |" for line in why["lines"]
    ]
    wanted += [f"The exact sum is {why['sum']} dollars", f"**{row['cost']}**"]
    wanted += [
        f"| `{line['name']}` | {line['term']} | {line['amount']} |"
        if "%" in line["term"]
        else f"| `{line['name']}` | each call | {line['amount']} |"
        for line in why["charge_lines"]
    ]
    if row["charge_rule"]:
        wanted += [f"| **charge** | `{row['charge_rule']}` | **{row['charge']}** |", f"{row['held']} dollars here"]
    else:
        wanted += [f"that is **{row['held']}** dollars"]
    found = postings(running, row["id"])
    assert sum(amount for _, amount in found) == 0
    assert len(found) == (4 if row["charge_rule"] else 2)
    wanted += [f"| `{account.replace(row['key'], 'key_01')}` | {dollars(amount)} |" for account, amount in found]
    assert [text for text in wanted if text not in page] == []


def dollars(nanos: int) -> str:
    """Nano-dollars as the page writes them."""
    return ("-" if nanos < 0 else "") + f"{abs(nanos) / 10**9:.9f}".rstrip("0").rstrip(".")
