"""Faults inside the events of a stream and inside the usage report, seen as bytes."""

import json
from typing import Any

import pytest

from faregate.simulator.events import HUGE_LINE_BYTES
from faregate.simulator.faults import FAULTS, Where
from simulated import Heard, Provider, sse, unchunk

TOLD = {"stream_options": {"include_usage": True}}
SPOILED = sorted(name for name, fault in FAULTS.items() if fault.where is not Where.WIRE)


def stream(provider: Provider, fault: str, **options: Any) -> Heard:
    """A stream of ten tokens with usage asked for."""
    steering = {"fault": fault, "output_tokens": 10, **options.pop("steering", {})}
    return provider.steer(steering, stream=True, fields=TOLD, **options)


def events(heard: Heard) -> list[bytes]:
    """The events of a stream that ended well, as bytes."""
    return unchunk(heard.body).split(b"\n\n")


def words(heard: Heard) -> int:
    """How many events of a stream hold text."""
    return heard.body.count(b'"content":" ') + heard.body.count(b'"content":"the"')


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", SPOILED)
def test_truth_says_whether_a_spoiled_answer_is_billed(provider: Provider, name: str, streamed: bool) -> None:
    """The record of every such fault agrees with the table, and with what was delivered."""
    request_id = f"req_{name}_{streamed}"

    provider.steer({"fault": name, "delay_ms": 1}, stream=streamed, seconds=0.3, request_id=request_id)

    record = provider.record(request_id)
    assert (record["served"], record["fault"]) == (FAULTS[name].served, name)
    assert (record["usage"] is not None) == record["served"]
    if streamed and record["served"]:
        assert record["usage"]["completion_tokens"] == record["delivered_tokens"]


def test_no_done(provider: Provider) -> None:
    """F24 ends its chunks well, without [DONE]."""
    heard = stream(provider, "no_done")

    assert "[DONE]" not in sse(heard)
    assert sse(heard)[-1]["usage"]["completion_tokens"] == 10


def test_cut_utf8(provider: Provider) -> None:
    """F25 ends its chunks well, inside a character."""
    with pytest.raises(UnicodeDecodeError, match="unexpected end"):
        unchunk(stream(provider, "cut_utf8").body).decode()


def test_huge_line(provider: Provider) -> None:
    """F26 has one line of 8 MiB among good ones."""
    sizes = sorted(len(event) for event in events(stream(provider, "huge_line")))

    assert sizes[-1] > HUGE_LINE_BYTES > 1000 * sizes[-2]


def test_pings_only(provider: Provider) -> None:
    """F27 sends comments and never an event."""
    heard = stream(provider, "pings_only", steering={"delay_ms": 10}, seconds=0.3)

    assert heard.end == "silent"
    assert heard.body.startswith(b"8\r\n: ping\n\n\r\n8\r\n: ping\n\n\r\n")
    assert b"data" not in heard.body


def test_not_json(provider: Provider) -> None:
    """F28 has an event that is not JSON, and ends well."""
    heard = stream(provider, "not_json")

    assert b"data: {this is not JSON" in events(heard)
    assert b"data: [DONE]" in events(heard)


def test_error_event(provider: Provider) -> None:
    """F29 ends half-way with an error event."""
    heard = stream(provider, "error_event")

    assert sse(heard)[-1]["error"]["type"] == "server_error"
    assert words(heard) == 5


def test_stall(provider: Provider) -> None:
    """F30 sends the first token and stays silent; it is billed for that token."""
    heard = stream(provider, "stall", seconds=0.3, request_id="req_stalled")

    assert (words(heard), heard.end) == (1, "silent")
    assert provider.record("req_stalled")["usage"]["completion_tokens"] == 1


def test_reset_mid_stream(provider: Provider) -> None:
    """Half of the tokens arrive before the reset, and are billed."""
    heard = stream(provider, "reset_mid_stream", request_id="req_reset")

    assert (words(heard), heard.end) == (5, "reset")
    assert provider.record("req_reset")["usage"]["completion_tokens"] == 5


REPORTS = {
    "usage_negative": b'"completion_tokens":-5,"total_tokens":2,',
    "usage_float": b'"completion_tokens":10.5,"total_tokens":17.5,',
    "usage_nan": b'"completion_tokens":NaN,"total_tokens":NaN,',
    "usage_text": b'"completion_tokens":"10","total_tokens":"17",',
    "usage_huge": b'"completion_tokens":1e30,"total_tokens":1e30,',
    "usage_bad_total": b'"completion_tokens":10,"total_tokens":24,',
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_usage_that_cannot_be(provider: Provider, name: str, streamed: bool) -> None:
    """F17, F18 and F22 report nonsense while the truth stays sane."""
    request_id = f"req_report_{name}_{streamed}"
    steering = {"fault": name, "output_tokens": 10, "prompt_tokens": 7}

    fields = TOLD if streamed else {}
    heard = provider.steer(steering, stream=streamed, fields=fields, request_id=request_id)

    assert REPORTS[name] in heard.body
    truth = provider.record(request_id)["usage"]
    assert (truth["prompt_tokens"], truth["completion_tokens"], truth["total_tokens"]) == (7, 10, 17)


@pytest.mark.parametrize("steering", [{"fault": "usage_missing"}, {"usage": False}])
def test_usage_missing(provider: Provider, steering: dict[str, Any]) -> None:
    """F19 leaves the report out, streamed or not."""
    streamed = provider.steer(steering, stream=True, fields=TOLD)
    whole = provider.steer(steering)

    assert b"completion_tokens" not in streamed.body + whole.body
    assert sse(streamed)[-1] == "[DONE]"


def test_usage_twice(provider: Provider) -> None:
    """F20 reports two different figures; the second one is the truth."""
    told = [event["usage"] for event in sse(stream(provider, "usage_twice"))[:-1] if event["usage"]]

    assert [usage["completion_tokens"] for usage in told] == [15, 10]
    assert provider.steer({"fault": "usage_twice"}).body.count(b'"usage":') == 2


def test_usage_early(provider: Provider) -> None:
    """F21 reports half-way, then goes on with text and reports no more."""
    parts = sse(stream(provider, "usage_early"))[:-1]

    (place,) = [number for number, event in enumerate(parts) if event["usage"]]
    after = [event for event in parts[place:] if event["choices"] and event["choices"][0]["delta"].get("content")]
    assert len(after) == 5


def test_over_cap(provider: Provider) -> None:
    """F23 delivers and bills more than was allowed."""
    heard = provider.steer({"fault": "over_cap"}, fields={"max_tokens": 20}, request_id="req_over")
    answer = json.loads(heard.body)

    assert answer["usage"]["completion_tokens"] == 50
    assert len(answer["choices"][0]["message"]["content"].split()) == 50
    assert provider.record("req_over")["usage"] == answer["usage"]
