"""Every bad input of the gateway port against a real installation: refused clearly, free of charge, and survived."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from bad_input.rows import GOOD_BODY, PROMPT_CANARY, ROWS, UNKNOWN_KEY, VALUE_CANARY, Keys, Row
from installation import PRICES, UPSTREAM_SECRET, Installation, nanos
from wire import Answer, NoAnswer, Silence, exchange, request

#: Signs that an inside was turned out.
TRACES = ("Traceback", 'File "', "Error(", "Exception", "\\n  at ")

#: Mutated requests in one run; each is a seed of its own, so that a failure names it.
MUTANTS = 400
SEED = 20_261_121
#: A key cannot be made expired, so one is made that soon is.
EXPIRY_SECONDS = 5
SPICE = (
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b"0", b"chunked", b"\xff", b"HTTP/1.1", b"0\r\n\r\n",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"GET /v1/models HTTP/1.1\r\n\r\n",
)  # fmt: skip


class Site(NamedTuple):
    """The installation that all rows are sent to, and what it looked like before."""

    running: Installation
    keys: Keys
    gate_pid: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One installation with a key in every state."""
    with Installation(tmp_path_factory.mktemp("bad-input")) as running:
        yield Site(running, make_keys(running), running.gate_pid())


def make_keys(running: Installation) -> Keys:
    """The keys of the rows, in every state a key can be in."""
    soon = datetime.now(UTC) + timedelta(seconds=EXPIRY_SECONDS)
    kinds: dict[str, dict[str, Any]] = {"expired": {"expires_at": soon.isoformat(timespec="seconds")}}
    kinds |= {name: {"project": "bad-input"} for name in ("good", "revoked", "disabled", "poor")}
    kinds["picky"] = {"models": ["sim-fast"]}
    made = {name: running.admin("POST", "/api/v1/keys", {"name": name, **fields}) for name, fields in kinds.items()}
    running.admin("POST", f"/api/v1/keys/{made['revoked']['id']}/revoke")
    running.admin("PATCH", f"/api/v1/keys/{made['disabled']['id']}", {"state": "disabled"})
    running.limit(select=f"key={made['poor']['id']}", unit="usd", amount="0.000000001", window="lifetime")
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds() + 1))
    return Keys(**{name: made[name]["secret"] for name in Keys._fields})


def told_error(answer: Answer) -> dict[str, Any]:
    """The error object of an answer."""
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_bad_input_gets_its_clear_error(site: Site, row: Row) -> None:
    """Each input is answered in time with its status and code, in the documented shape, and shows no secret."""
    answer = exchange(site.running.gateway_port, row.build(site.keys), seconds=row.seconds)

    text = answer.body.decode("utf-8", "replace")
    assert answer.status == row.status or (row.status == 0 and answer.status < 500), text[:300]
    assert "x-faregate-request-id" in answer.headers
    assert row.has in text
    assert not row.hasnt or row.hasnt not in text
    assert not [trace for trace in TRACES if trace in text]
    for secret in (UPSTREAM_SECRET, *site.keys):
        assert secret not in text
    if row.codes:
        error = told_error(answer)
        assert error["code"] in row.codes, error
        assert error["request_id"] == answer.headers["x-faregate-request-id"]
        assert error["message"].endswith((".", "!", ")"))
        assert PROMPT_CANARY not in text
        assert {"message", "type", "param", "code", "request_id"} <= error.keys()
    if row.closes:
        assert answer.closed


def test_a_reused_idempotency_key_with_another_body_is_a_conflict(site: Site) -> None:
    """P95: the same key with another body would be another call, so it is refused."""
    headers = [("Idempotency-Key", "reused-with-another-body")]
    first = request(GOOD_BODY, secret=site.keys.good, headers=headers)
    other = request(GOOD_BODY.replace(b"16", b"17"), secret=site.keys.good, headers=headers)
    assert exchange(site.running.gateway_port, first).status == 200

    answer = exchange(site.running.gateway_port, other)

    assert answer.status == 409
    assert told_error(answer)["code"] == "idem_conflict"


def test_a_parallel_twin_is_told_that_the_first_is_in_progress(site: Site) -> None:
    """P95: while the first call runs, its twin neither waits nor calls again."""
    body = json.loads(GOOD_BODY)
    body["messages"] = [{"role": "user", "content": 'sim: {"first_delay_ms": 1500}'}]
    data = request(
        json.dumps(body).encode(), secret=site.keys.good, headers=[("Idempotency-Key", "sent-by-two-at-once")]
    )

    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(exchange, site.running.gateway_port, data, seconds=10.0) for _ in range(2)]
        answers = [one.result() for one in sent]

    assert sorted(answer.status for answer in answers) == [200, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert told_error(refused)["code"] == "idem_in_progress"


def test_mutated_requests_neither_smuggle_nor_kill(site: Site) -> None:
    """G16: whatever is done to the bytes of a request, the provider sees at most what was answered with success."""
    chaos = random.Random(SEED)
    plain = request(GOOD_BODY, secret=site.keys.good)
    pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_BODY), GOOD_BODY)
    chunked = request(pieces, secret=site.keys.good, length=None, headers=[("Transfer-Encoding", "chunked")])
    mutants = [mutate(plain if n % 2 else chunked, chaos) for n in range(MUTANTS)]
    before = served_calls(site)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda data: answer_to(site.running.gateway_port, data), mutants))

    answered = [(data, answer) for data, answer in zip(mutants, answers, strict=True) if answer is not None]
    assert [(data, answer.body) for data, answer in answered if answer.status >= 500] == []
    served = sum(answer.status == 200 for _, answer in answered)
    assert served > 0
    assert served_calls(site) - before == served


def served_calls(site: Site) -> int:
    """How many calls the provider has served so far."""
    return sum(record["served"] for record in site.running.truth())


def answer_to(port: int, data: bytes) -> Answer | None:
    """The answer to a mutant, ``None`` where the connection was closed without one; being left waiting is a failure."""
    try:
        return exchange(port, data, seconds=16.0, patience=1.0)
    except Silence:
        pytest.fail(f"left waiting: {data!r}")
    except NoAnswer:
        return None


def mutate(data: bytes, chaos: random.Random) -> bytes:
    """One to four random edits, with a liking for the bytes that framing hangs on."""
    for _ in range(chaos.randint(1, 4)):
        at = chaos.randrange(len(data))
        edit = chaos.randrange(4)
        if edit == 0:
            data = data[:at] + chaos.choice(SPICE) + data[at:]
        elif edit == 1:
            data = data[:at] + data[at + chaos.randint(1, 6) :]
        elif edit == 2:
            data = data[:at] + bytes([chaos.randrange(256)]) + data[at + 1 :]
        else:
            data = data[:at] + data[at : at + chaos.randint(1, 60)] + data[at:]
    return data


def test_nothing_refused_was_charged(site: Site) -> None:
    """The books hold exactly what the provider served: every bad input was free, and nothing stays held."""
    found = site.running.settled()

    assert found["ok"] is True, found
    assert nanos(found["held"]) == 0
    assert nanos(found["unknown"]) == 0
    served = [record for record in site.running.truth() if record["served"]]
    usage = site.running.cli("usage", "--by", "model")
    assert sum(row["requests"] for row in usage) >= len(served)
    assert sum(nanos(row["cost"]) for row in usage) == sum(map(cost_nanos, served))


def cost_nanos(record: dict[str, Any]) -> int:
    """What one served call costs, from the provider's own usage; halves go to even, as charges are rounded."""
    usage = record["usage"]
    incoming, outgoing = (nanos(price) for price in PRICES[record["model"]])
    return round_half_even(usage["prompt_tokens"] * incoming + usage.get("completion_tokens", 0) * outgoing, 1_000_000)


def round_half_even(amount: int, divisor: int) -> int:
    """An exact division rounded once."""
    whole, rest = divmod(amount, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


def test_no_secret_and_no_prompt_is_in_the_log(site: Site) -> None:
    """What callers sent, and what is sent upstream, stays out of the log."""
    log = site.running.log()

    found = [text for text in (UPSTREAM_SECRET, PROMPT_CANARY, VALUE_CANARY, UNKNOWN_KEY, *site.keys) if text in log]
    assert found == []
    assert "Traceback" not in log


def test_the_worker_is_the_one_it_was(site: Site) -> None:
    """After all of it the same process answers a good call."""
    answer = exchange(site.running.gateway_port, request(GOOD_BODY, secret=site.keys.good))

    assert answer.status == 200
    assert site.running.gate_pid() == site.gate_pid
