"""Realtime events of both generations: what each means, the edits, and usage that adds up.

Bodies are written here after OpenAI's "API reference: Realtime" (client events, server events) and "Realtime: managing
costs".
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.usage import Measure, Usage
from faregate.dialects import openai_realtime as realtime
from faregate.dialects.openai_realtime import Changes, Wish, put_at, told, wish
from faregate.dialects.realtime_usage import report_of
from faregate.errors import CODES, Problem, status_of

PCM = {"type": "audio/pcm", "rate": 24_000}

CREATED: dict[str, Any] = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_1",
        "model": "gpt-realtime",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "tools": [],
        "audio": {
            "input": {
                "format": PCM,
                "transcription": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": PCM, "voice": "marin", "speed": 1.0},
        },
    },
}
BETA: dict[str, Any] = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {
        "object": "realtime.session",
        "id": "sess_1",
        "model": "gpt-4o-realtime-preview",
        "modalities": ["audio", "text"],
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": None,
        "max_response_output_tokens": 200,
    },
}


def asked(event: dict[str, Any]) -> Wish:
    """What an event asks that is not refused."""
    found = wish(json.dumps(event).encode(), True)
    assert isinstance(found, Wish), found
    return found


# -- what a client says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "changes"),
    [
        ({}, Changes()),
        ({"type": "realtime", "model": "m"}, Changes(model="m")),
        (
            {"audio": {"input": {"turn_detection": None}}},
            Changes(False, False, ("session", "audio", "input", "turn_detection")),
        ),
        ({"turn_detection": {"type": "semantic_vad"}}, Changes(True, True, ("session", "turn_detection"))),
        (
            {"turn_detection": {"type": "server_vad", "create_response": False}},
            Changes(True, False, ("session", "turn_detection")),
        ),
        (
            {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
            Changes(transcriber="whisper-1", transcriber_path=("session", "audio", "input", "transcription", "model")),
        ),
        (
            {"input_audio_transcription": None},
            Changes(transcriber="", transcriber_path=("session", "input_audio_transcription", "model")),
        ),
    ],
)
def test_updates_are_understood_in_both_generations(session: dict[str, Any], changes: Changes) -> None:
    """Detection, transcription and model, wherever they stand."""
    assert asked({"type": "session.update", "event_id": "e", "session": session}).changes == changes


def test_a_response_says_its_cap_and_whether_it_speaks() -> None:
    """In the names of either generation."""
    text = asked({"type": "response.create", "response": {"max_output_tokens": 9, "output_modalities": ["text"]}})
    beta = asked({"type": "response.create", "response": {"max_response_output_tokens": 8, "modalities": ["text"]}})
    whole = asked({"type": "response.create", "response": {"max_output_tokens": "inf", "conversation": "none"}})

    assert (text.cap, text.cap_name, text.text_name) == (9, "max_output_tokens", "output_modalities")
    assert (beta.cap, beta.cap_name, beta.text_name) == (8, "max_response_output_tokens", "modalities")
    assert (whole.cap, whole.cap_name, whole.text_name) == (None, "max_output_tokens", "")
    assert (text.beside, whole.beside) == (False, True)


def test_sound_is_measured_and_pictures_are_seen() -> None:
    """The bound of what the model reads depends on them."""
    content = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]

    assert asked({"type": "input_audio_buffer.append", "audio": "A" * 4_000}).audio_bytes == 3_000
    assert asked({"type": "conversation.item.create", "item": {"content": content}}).pictured
    assert not asked({"type": "conversation.item.create", "item": {"content": [{"type": "input_text"}]}}).pictured


@given(st.binary(max_size=300) | st.sampled_from(sorted(realtime.CLIENT_EVENTS)).map(lambda kind: kind.encode()))
def test_whatever_a_client_sends_is_understood_or_refused(data: bytes) -> None:
    """Nothing raises, and a refusal has a code that exists."""
    found = wish(data, True)

    assert isinstance(found, Wish) or found.code in CODES


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)
_MEMBERS = st.dictionaries(
    st.sampled_from("type audio item session response turn_detection input tools tool_choice prompt content".split()),
    _JSON
    | st.dictionaries(
        st.sampled_from("type input turn_detection transcription tools content audio create_response model".split()),
        _JSON,
    ),
)


@given(st.sampled_from(sorted(realtime.CLIENT_EVENTS)), _MEMBERS)
def test_odd_members_never_raise(kind: str, members: dict[str, Any]) -> None:
    """Members of every type, in the places that are looked at."""
    found = wish(json.dumps({**members, "type": kind}).encode(), True)

    assert isinstance(found, Wish | Problem)


def test_the_prompt_of_a_transcriber_is_bounded() -> None:
    """It is read again for each item."""
    for session in (
        {"audio": {"input": {"transcription": {"model": "hear", "prompt": "a" * 1_025}}}},
        {"input_audio_transcription": {"model": "hear", "prompt": "é" * 513}},
    ):
        found = wish(json.dumps({"type": "session.update", "session": session}).encode(), True)
        assert isinstance(found, Problem)
        assert found.code == "field_range"


def test_a_long_event_that_is_not_json_is_refused_without_a_search() -> None:
    """A string of escapes that never ends would be looked at once for each of them."""
    found = wish(b'{"type":"' + b'\\"' * 1_000_000, True)

    assert isinstance(found, Problem)
    assert found.code == "json_invalid"


def test_where_speech_ends_is_told() -> None:
    """What passed behind it belongs to the next item."""
    event = {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2_500, "item_id": "item_1"}

    assert told(json.dumps(event).encode()) == realtime.Told(event["type"], "item_1", at_ms=2_500)  # type: ignore[arg-type]


# -- edits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a": {"b" : 1}, "c":2}', ("a", "b"), '{"a": {"b" : 9}, "c":2}'),
        ('{"a": {}}', ("a", "b"), '{"a": {"b":9}}'),
        ('{"c": "a"}', ("a", "b"), '{"a":{"b":9},"c": "a"}'),
        ('{"a":null, "b": {"a": 1}}', ("a", "b"), '{"a":{"b":9}, "b": {"a": 1}}'),
        (' {"x":{"a":{"a":{"a":1}}}} ', ("x", "a", "a"), ' {"x":{"a":{"a":9}}} '),
    ],
)
def test_an_edit_changes_one_member_and_no_other_byte(before: str, path: tuple[str, ...], after: str) -> None:
    """Whatever the nesting and the spacing."""
    assert put_at(before.encode(), path, b"9").decode() == after


@given(
    st.dictionaries(st.text(max_size=4), _JSON, max_size=4),
    st.lists(st.sampled_from(["a", "b", "session"]), min_size=1, max_size=3),
    st.booleans(),
)
def test_an_edit_is_that_of_the_object(event: dict[str, Any], path: list[str], spaced: bool) -> None:
    """Parsed again, exactly the member at the path has changed."""
    data = json.dumps(event, separators=None if spaced else (",", ":"), ensure_ascii=False).encode()
    expected: dict[str, Any] = json.loads(data)
    inner = expected
    for name in path[:-1]:
        if not isinstance(inner.get(name), dict):
            inner[name] = {}
        inner = inner[name]
    inner[path[-1]] = "new"

    assert json.loads(put_at(data, path, b'"new"')) == expected


def test_a_refusal_has_the_shape_of_the_providers_errors() -> None:
    """``error.event_id`` names the event of the client that is refused."""
    event = json.loads(realtime.error_event(Problem("budget_exhausted", "No."), "req_1", "mine"))

    assert event["type"] == "error"
    assert (event["error"]["code"], event["error"]["event_id"]) == ("budget_exhausted", "mine")
    assert event["error"]["type"] == "insufficient_quota"


@pytest.mark.parametrize(
    ("kind", "prefix", "beta", "path"),
    [
        ("openai", "/v1", False, "/v1/realtime?model=a%20b"),
        ("openai", "/v1", True, "/v1/realtime?model=a%20b"),
        ("azure_openai", "", False, "/openai/v1/realtime?model=a%20b"),
        ("azure_openai", "", True, "/openai/realtime?api-version=2025-04-01-preview&deployment=a%20b"),
    ],
)
def test_each_provider_has_its_path(kind: str, prefix: str, beta: bool, path: str) -> None:
    """Names are escaped."""
    assert realtime.upstream_target(kind, prefix, "a b", beta, "2025-04-01-preview") == path


def test_a_plain_request_is_told_that_it_is_a_websocket() -> None:
    """With the status that HTTP has for it."""
    problem = realtime.read(b"")

    assert isinstance(problem, Problem)
    assert status_of(problem) == 426


# -- what a provider says ----------------------------------------------------------------------------------------------


def test_the_setup_of_a_session_is_known_in_both_generations() -> None:
    """Who begins responses, what transcribes, the cap, and how many bytes a second of sound has."""
    today, beta = told(json.dumps(CREATED).encode()).setup, told(json.dumps(BETA).encode()).setup

    assert today is not None
    assert beta is not None
    assert (today.beta, today.answers_itself, today.cap, today.speaks) == (False, True, None, True)
    assert (today.input_bytes_per_second, today.output_bytes_per_second) == (48_000, 48_000)
    assert (beta.beta, beta.answers_itself, beta.cap, beta.transcriber) == (True, False, 200, "whisper-1")
    assert (beta.input_bytes_per_second, beta.output_bytes_per_second) == (8_000, 48_000)


@pytest.mark.parametrize("created", [CREATED, BETA])
def test_quiet_detection_looks_to_the_client_as_it_asked(created: dict[str, Any]) -> None:
    """The gate's update turns answers off and nothing else; what the client is shown has them on."""
    event: dict[str, Any] = json.loads(json.dumps(created))
    beta = created is BETA
    detection = {"type": "server_vad", "threshold": 0.5, "create_response": True}
    (event["session"] if beta else event["session"]["audio"]["input"])["turn_detection"] = detection
    setup = told(json.dumps(event).encode()).setup
    assert setup is not None
    update = json.loads(realtime.quiet_event("ours", beta, detection))
    heard = update["session"] if beta else update["session"]["audio"]["input"]
    quiet = json.dumps(event).replace('"create_response": true', '"create_response": false').encode()

    assert heard["turn_detection"] == {**detection, "create_response": False}
    assert json.loads(realtime.restored(quiet, setup)) == event
    assert not told(quiet).setup.answers_itself  # type: ignore[union-attr]


@given(st.binary(max_size=200) | _MEMBERS.map(lambda found: json.dumps({"type": "response.done", **found}).encode()))
def test_whatever_a_provider_sends_is_read(data: bytes) -> None:
    """Nothing raises: what is not understood passes."""
    told(data)


# -- usage -------------------------------------------------------------------------------------------------------------

#: From "Realtime: managing costs".
EXAMPLE: dict[str, Any] = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}


@pytest.mark.parametrize(
    ("changes", "usage"),
    [
        ({}, Usage(55, 64, 0, 13, 30, 0, 91)),
        (
            {
                "input_token_details": {
                    "text_tokens": 90,
                    "audio_tokens": 30,
                    "image_tokens": 12,
                    "cached_tokens": 40,
                    "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 15, "image_tokens": 5},
                }
            },
            Usage(
                70,
                20,
                0,
                15,
                30,
                0,
                91,
                (
                    Measure("cached_input_audio_tokens", "", 15),
                    Measure("cached_input_image_tokens", "", 5),
                    Measure("input_image_tokens", "", 7),
                ),
            ),
        ),
        (
            {"input_token_details": {"text_tokens": 32, "audio_tokens": 100, "cached_tokens": 40}},
            Usage(0, 32, 0, 92, 30, 0, 91, (Measure("cached_input_audio_tokens", "", 8),)),
        ),
        ({"input_token_details": None, "output_token_details": None}, Usage(132, 0, 0, 0, 121)),
        (
            {"output_token_details": {"text_tokens": 30, "audio_tokens": 61, "reasoning_tokens": 30}},
            Usage(55, 64, 0, 13, 30, 30, 61),
        ),
    ],
)
def test_usage_becomes_leaves_that_add_up(changes: dict[str, Any], usage: Usage) -> None:
    """Text, sound and pictures, each cached or not."""
    report = report_of({**EXAMPLE, **changes}, None, "resp_1")

    assert report.usage == usage
    assert (usage.input_tokens, usage.output_tokens) == (132, 121)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"total_tokens": 1}, "sum"),
        ({"input_tokens": -1}, "outside"),
        ({"output_tokens": "121"}, "whole number"),
        ({"input_token_details": {"audio_tokens": 1.5}}, "whole number"),
        ({"input_token_details": {"audio_tokens": 133}}, "exceed"),
        ({"input_token_details": {"image_tokens": 133}}, "exceed"),
        ({"input_token_details": {"cached_tokens": 5, "cached_tokens_details": {"audio_tokens": 6}}}, "exceed"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, Any], rule: str) -> None:
    """And never billed as if it were true."""
    report = report_of({**EXAMPLE, **changes}, None, None)

    assert report.usage is None
    assert rule in report.invalid


def test_members_that_nobody_knows_are_counted() -> None:
    """They may be billed."""
    details = {**EXAMPLE["output_token_details"], "video_tokens": 3}

    assert report_of({**EXAMPLE, "output_token_details": details}, None, None).unknown == 1


_COUNT = st.integers(0, 1_000)


@given(text=_COUNT, audio=_COUNT, image=_COUNT, out=_COUNT, spoken=_COUNT, data=st.data())
def test_leaves_add_up_to_the_totals(
    text: int, audio: int, image: int, out: int, spoken: int, data: st.DataObject
) -> None:
    """For every report that can be true, with and without the kinds of what was cached."""
    kinds = {"text_tokens": text, "audio_tokens": audio, "image_tokens": image}
    cached = {name: data.draw(st.integers(0, count)) for name, count in kinds.items()}
    details: dict[str, Any] = {**kinds, "cached_tokens": sum(cached.values())}
    if data.draw(st.booleans()):
        details["cached_tokens_details"] = cached
    incoming = text + audio + image
    usage = report_of(
        {
            "input_tokens": incoming,
            "output_tokens": out + spoken,
            "total_tokens": incoming + out + spoken,
            "input_token_details": details,
            "output_token_details": {"text_tokens": out, "audio_tokens": spoken},
        },
        None,
        None,
    ).usage

    assert usage is not None
    assert min(usage[:7]) >= 0
    assert (usage.input_tokens, usage.output_tokens) == (incoming, out + spoken)
