"""How a stream that goes no further ends, in every wire format: well-formed, and understood by our own decoders."""

import json
from typing import Any

import pytest

from faregate.core.metering import sse
from faregate.core.metering.meter import EventDecoder, Report, StreamMeter
from faregate.core.usage import Usage
from faregate.dialects import DIALECTS, Dialect, endings
from faregate.dialects.anthropic_answers import MessageEvents
from faregate.dialects.endings import Cut
from faregate.dialects.openai_chat import decode_event
from faregate.dialects.responses_answers import ResponseEvents

USAGE = Usage(input_text=10, input_cached=4, output_text=7)
NOW = 1_790_000_000


def cut(
    sent: bytes = b"", decoder: EventDecoder = decode_event, choices: int = 1, usage_wanted: bool = False, id: str = ""
) -> Cut:
    """A stream that ends after ``sent``."""
    return Cut(sent, Report(id=id, model="m-1"), USAGE, decoder, choices, usage_wanted, NOW)


def data_of(stream: bytes) -> list[Any]:
    """What each event says, ``[DONE]`` as bytes; fails where one does not end."""
    assert stream.endswith(b"\n\n")
    payloads = [sse.payload(event) for event in sse.events(stream)]
    return [json.loads(each) if each and each.startswith(b"{") else each for each in payloads]


ENDED = {name: dialect for name, dialect in DIALECTS.items() if dialect.end is not None}


def test_every_format_of_streamed_text_has_an_end() -> None:
    """Formats whose answers are text that comes bit by bit can be ended by us."""
    assert set(ENDED) == {"chat.completions", "completions", "responses", "messages", "gemini.stream"}


@pytest.mark.parametrize("dialect", ENDED.values(), ids=ENDED)
def test_the_meter_takes_our_end_for_an_end(dialect: Dialect) -> None:
    """A stream that passes two gateways of ours is understood by the outer one as the inner one charged it."""
    assert dialect.end is not None
    meter = StreamMeter(dialect.events(), False, 1, dialect.last_mark)
    if dialect.events is MessageEvents:
        begun = {"type": "message_start", "message": {"usage": {"input_tokens": 14, "output_tokens": 1}}}
        meter.feed(b"data: " + json.dumps(begun).encode() + b"\n\n")
    meter.feed(dialect.end(cut(decoder=dialect.events(), usage_wanted=True)))
    assert meter.finish_seen
    assert not meter.error_event
    told = meter.finish("complete").told
    assert told is not None
    assert (told.input_tokens, told.output_tokens) == (14, 7)


def test_a_chat_ends_as_it_began() -> None:
    """What all chunks have in common is copied from the last one, noise after it notwithstanding."""
    chunk = {"id": "c-1", "created": 5, "model": "m-2", "system_fingerprint": "fp", "obfuscation": "x", "choices": [{}]}
    sent = b"data: " + json.dumps(chunk).encode() + b'\n\ndata: {"choices":[]}\n\n: ping\n\ndata: nonsense\n\n'
    first, second, done = data_of(endings.chat(cut(sent, choices=2)))
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "m-2", "system_fingerprint": "fp"}
    choice: dict[str, Any] = {"delta": {}, "logprobs": None, "finish_reason": "length"}
    assert first == head | {"choices": [{"index": 0, **choice}]}
    assert second == head | {"choices": [{"index": 1, **choice}]}
    assert done == b"[DONE]"


def test_a_chat_of_which_nothing_was_seen_has_an_end_too() -> None:
    """Without a last event its id and model are those that were told, and its time is now."""
    finish, usage, done = data_of(endings.chat(cut(id="c-9", usage_wanted=True)))
    assert (finish["id"], finish["model"], finish["created"], finish["usage"]) == ("c-9", "m-1", NOW, None)
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert usage["usage"]["total_tokens"] == 21
    assert done == b"[DONE]"


def test_a_response_ends_as_it_began() -> None:
    """Its last event has all members of the response that was created, and the next number."""
    decoder = ResponseEvents()
    response: dict[str, Any] = {
        "id": "resp_1",
        "status": "in_progress",
        "instructions": "be brief",
        "output": [],
        "usage": None,
    }
    decoder(json.dumps({"type": "response.created", "response": response}).encode())
    decoder(json.dumps({"type": "response.in_progress", "response": response | {"id": "other"}}).encode())
    sent = b'data: {"type":"response.output_text.delta","sequence_number":41,"delta":",\\"sequence_number\\":99"}\n\n'
    (event,) = data_of(endings.response(cut(sent, decoder)))
    assert (event["type"], event["sequence_number"]) == ("response.incomplete", 42)
    assert event["response"]["instructions"] == "be brief"
    assert (event["response"]["id"], event["response"]["status"]) == ("resp_1", "incomplete")
    assert event["response"]["usage"]["total_tokens"] == 21


def test_a_response_that_is_too_long_to_be_kept_ends_with_its_id() -> None:
    """Where its beginning was not kept the last event says who it is and no more."""
    decoder = ResponseEvents()
    response = {"id": "resp_1", "status": "in_progress", "instructions": "x" * 20_000}
    decoder(json.dumps({"type": "response.created", "response": response}).encode())
    assert decoder.begun == b""
    (event,) = data_of(endings.response(cut(b"", decoder, id="resp_1")))
    assert (event["response"]["id"], event["response"]["created_at"]) == ("resp_1", NOW)


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([], []),
        ([{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}], [0]),
        (
            [
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_stop", "index": 0},
            ],
            [],
        ),
        (
            [
                {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
                {"type": "content_block_stop", "index": 0},
                {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f"}},
                {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{"}},
            ],
            [1],
        ),
    ],
    ids=["none", "open", "ended", "second"],
)
def test_a_message_ends_the_block_that_is_open(events: list[dict[str, Any]], ended: list[int]) -> None:
    """Just that one, and none where none is."""
    decoder = MessageEvents()
    for event in events:
        decoder(json.dumps(event).encode())
    stream = endings.message(cut(decoder=decoder))
    *blocks, delta, stop = data_of(stream)
    assert [block["index"] for block in blocks] == ended
    assert delta["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert stop == {"type": "message_stop"}
    assert stream.startswith(b"event: ")


def test_a_generation_ends_every_candidate() -> None:
    """Each has its reason; thoughts are told apart from what candidates say."""
    ending = cut(choices=2, id="g-1")._replace(usage=USAGE._replace(output_reasoning=3))
    (event,) = data_of(endings.generated(ending))
    assert [candidate["finishReason"] for candidate in event["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert [candidate["index"] for candidate in event["candidates"]] == [0, 1]
    assert event["usageMetadata"]["thoughtsTokenCount"] == 3
    assert (event["responseId"], event["modelVersion"]) == ("g-1", "m-1")
