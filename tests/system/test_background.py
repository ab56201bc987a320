"""Background responses through a whole installation: settled once, by what the provider says, whatever dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from installation import Installation, nanos
from system.calls import ask, new_key, record, truth_of, until
from system.test_responses import CONFIG, FLEX, PRICES, _lines, line, owed

#: The console looks after one second, two, four …; a shared machine may take three times as long.
SETTLED_SECONDS = 45.0


@pytest.fixture(scope="module")
def responding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose model has prices of tiers, for tests that kill parts of it, too."""
    config = CONFIG.replace("{prices}", _lines().replace("{", "{{").replace("}", "}}"))
    with Installation(tmp_path_factory.mktemp("background"), config=config) as installation:
        yield installation


@pytest.fixture(scope="module")
def secret(responding: Installation) -> str:
    """A key without limits."""
    return str(new_key(responding, "background")["secret"])


@pytest.fixture
def client(responding: Installation, secret: str) -> Iterator[OpenAI]:
    """The stock client."""
    with OpenAI(base_url=responding.gateway_url + "/v1", api_key=secret, max_retries=0) as made:
        yield made


def start(client: OpenAI, text: str, **more: Any) -> tuple[str, Any]:
    """A background response: the gateway's request id, and the answer."""
    raw = client.responses.with_raw_response.create(model="sim-1", input=text, background=True, **more)
    return raw.headers["x-faregate-request-id"], raw.parse()


def booked(running: Installation, request_id: str) -> dict[str, Any]:
    """The record once it is no longer pending."""
    found = until(
        lambda: record(running, request_id), lambda row: row["status"] not in ("pending", "unknown"), SETTLED_SECONDS
    )
    assert found["status"] not in ("pending", "unknown")
    return found


def test_a_background_response_is_charged_once(client: OpenAI, responding: Installation) -> None:
    """It is pending while it runs, can be read to its end, and is booked as the provider served it, once."""
    request_id, made = start(client, line(prompt_tokens=1_000, cached_tokens=200, output_tokens=40, looks=3))
    assert made.status == "queued"
    first = until(lambda: record(responding, request_id), lambda row: row["status"] == "pending", 5)
    assert (first["status"], nanos(first["charge"])) == ("pending", 0)
    end = time.monotonic() + SETTLED_SECONDS
    while (got := client.responses.retrieve(made.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert got.status == "completed"
    assert got.output_text
    row, truth = booked(responding, request_id), truth_of(responding, request_id)
    assert (row["status"], row["resolution"], row["usage_source"]) == ("ok", "provider_said", "provider")
    assert nanos(row["charge"]) == nanos(row["cost"]) == owed(truth["usage"])
    looks = [
        each
        for each in responding.admin("GET", "/api/v1/requests?operation=responses.get&limit=100")["data"]
        if each["key"] == row["key"]
    ]
    assert looks
    assert {nanos(each["charge"]) for each in looks} == {0}
    assert responding.settled()["ok"]


def test_it_is_settled_even_if_nobody_asks(client: OpenAI, responding: Installation) -> None:
    """The console looks by itself; the tier that answered decides the price."""
    request_id, _ = start(client, line(output_tokens=30), service_tier="flex")
    row, truth = booked(responding, request_id), truth_of(responding, request_id)
    assert nanos(row["charge"]) == owed(truth["usage"], {**PRICES, **FLEX})
    assert row["price_version"]


def test_a_cancelled_response_costs_what_it_reports(client: OpenAI, responding: Installation) -> None:
    """Cancelling ends it; what the provider reports then is what is charged."""
    request_id, made = start(client, line(output_tokens=30, looks=10_000))
    assert client.responses.cancel(made.id).status == "cancelled"
    usage = client.responses.retrieve(made.id).usage
    assert usage is not None
    row = booked(responding, request_id)
    assert (row["status"], row["output_tokens"]) == ("cut", usage.output_tokens)


def test_objects_of_others_are_not_there(client: OpenAI, responding: Installation) -> None:
    """A key of another team sees a stranger's response as one that never was."""
    _, made = start(client, line())
    other = str(new_key(responding, "elsewhere", team="elsewhere")["secret"])
    with OpenAI(base_url=responding.gateway_url + "/v1", api_key=other, max_retries=0) as stranger:
        for call in (stranger.responses.retrieve, stranger.responses.cancel, stranger.responses.delete):
            with pytest.raises(openai.NotFoundError) as refused:
                call(made.id)
            assert refused.value.code == "object_not_found"
        with pytest.raises(openai.NotFoundError):
            stranger.responses.create(model="sim-1", input="And?", previous_response_id=made.id)


def test_a_conversation_continues(client: OpenAI, responding: Installation) -> None:
    """A stored response is read on by its owner, and is charged for what it read."""
    first = client.responses.create(model="sim-1", input=line(output_tokens=10))
    raw = client.responses.with_raw_response.create(model="sim-1", input=line(), previous_response_id=first.id)
    request_id = raw.headers["x-faregate-request-id"]
    row = until(lambda: record(responding, request_id), lambda row: row["status"] == "ok", 5)
    assert nanos(row["charge"]) == owed(truth_of(responding, request_id)["usage"])


@pytest.mark.parametrize("victim", ["gate", "console", "both"])
def test_a_kill_in_between_changes_nothing(client: OpenAI, responding: Installation, secret: str, victim: str) -> None:
    """Whatever dies while the work goes on, it stays held, stays its owner's, and is settled exactly once."""
    request_id, made = start(client, line(output_tokens=25, looks=3))
    if victim == "gate":
        responding.kill_gate()
    elif victim == "console":
        responding.kill_console()
    else:
        responding.kill_all()
        responding.start()
    responding.wait_ready()
    assert until(lambda: _look(responding, secret, made.id), lambda status: status == 200, 20) == 200
    assert until(lambda: _console_answers(responding), lambda there: there, 20)
    row, truth = booked(responding, request_id), truth_of(responding, request_id)
    assert (row["status"], row["resolution"]) == ("ok", "provider_said")
    assert nanos(row["charge"]) == owed(truth["usage"])
    found = responding.settled()
    assert found["ok"], found


def test_a_background_stream_outlives_the_gate(client: OpenAI, responding: Installation) -> None:
    """Killed while the stream runs, the gate's successor learns from the provider what it used."""
    text = line(prompt_tokens=500, output_tokens=60, delay_ms=100)
    with client.responses.with_streaming_response.create(
        model="sim-1", input=text, background=True, stream=True
    ) as raw:
        request_id = raw.headers["x-faregate-request-id"]
        events = iter(raw.parse())
        first = next(events)
        assert first.type == "response.created"
        made = first.response.id
        responding.kill_gate()
        with contextlib.suppress(openai.APIError, httpx2.HTTPError):
            list(events)
    responding.wait_ready()
    row = booked(responding, request_id)
    usage = client.responses.retrieve(made).usage
    assert usage is not None
    assert (row["resolution"], row["input_tokens"], row["output_tokens"]) == (
        "provider_said",
        usage.input_tokens,
        usage.output_tokens,
    )
    assert responding.settled()["ok"]


def _console_answers(running: Installation) -> bool:
    try:
        running.admin("GET", "/api/v1/health")
    except OSError:
        return False
    return True


def _look(running: Installation, secret: str, id: str) -> int:
    try:
        with OpenAI(base_url=running.gateway_url + "/v1", api_key=secret, max_retries=0) as client:
            return client.responses.with_raw_response.retrieve(id).http_response.status_code
    except openai.APIConnectionError:
        return 0
    except openai.APIStatusError as error:
        return error.status_code


def test_a_limit_holds_pending_work(responding: Installation) -> None:
    """Work that was accepted counts at its bound until it is settled, so that a budget cannot be overrun by it."""
    key = new_key(responding, "tight", team="tight")
    responding.limit(select="team=tight", unit="usd", amount="0.01", window="lifetime")
    content = {"model": "sim-1", "input": line(looks=10_000), "background": True, "max_output_tokens": 600}
    first = until(
        lambda: ask(responding, key["secret"], content, path="/v1/responses"), lambda got: got.status == 200, 5
    )
    second = ask(responding, key["secret"], content, path="/v1/responses")
    assert (first.status, second.status, second.code) == (200, 429, "budget_exhausted")
