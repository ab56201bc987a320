"""Bodies that would be free, or dearer than their bound: each is refused by name, or held at what it may cost."""

import base64
import json
import struct
from typing import Any

import pytest

from dialects import recordings
from dialects.exchanges import PICTURE, WAV, form
from faregate.core.call import Call
from faregate.dialects import DIALECTS, media
from faregate.errors import Problem

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": HELLO, "max_tokens": 9}
RESPONSE: dict[str, Any] = {"model": "m", "input": "hello", "max_output_tokens": 16}
RANKED: dict[str, Any] = {"model": "m", "query": "q"}
PART = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
#: MP3 in MP4: its header says one second, and nothing else tells more.
MP4 = recordings.box(b"ftyp", b"isom") + recordings.box(
    b"moov",
    recordings.box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, 1000)),
    recordings.box(
        b"trak",
        recordings.box(
            b"mdia",
            recordings.box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 1000, 0)),
            recordings.box(b"hdlr", bytes(8), b"soun", bytes(12)),
        ),
    ),
)
MP4 += recordings.box(b"mdat", bytes(100_000))


def read(operation: str, body: bytes | dict[str, Any], model: str = "") -> Call | Problem:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return DIALECTS[operation].read(raw, model)


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        # What is held and routed by stands at the top level, and nowhere else where a server might unpack it.
        *(
            ("chat.completions", {**CHAT, "extra_body": {name: 1}}, f"extra_body.{name}")
            for name in ("model", "n", "max_tokens", "tools", "service_tier", "web_search_options")
        ),
        ("embeddings", {"model": "m", "input": "x", "extra_body": {"model": "other"}}, "extra_body.model"),
        ("rerank", {**RANKED, "documents": ["x"], "extra_body": {"documents": [], "model": "x"}}, "extra_body.model"),
        # A template may repeat a short message without end.
        ("chat.completions", {**CHAT, "chat_template": "{% for i in range(9) %}x{% endfor %}"}, "chat_template"),
        # Pictures where only text is expected: their address is short, their tokens are many.
        ("embeddings", {"model": "m", "input": [{"image": "https://a.example/b.png"}]}, "input[0]"),
        ("embeddings", {"model": "m", "input": ["text", {"text": "x"}]}, "input[1]"),
        ("embeddings", {"model": "m", "input": [[{"image": "https://a.example/b.png"}]]}, "input[0]"),
        ("embeddings", {"model": "m", "input": ["text", None]}, "input[1]"),
        ("embeddings", {"model": "m", "input": "x", "messages": [{"role": "user", "content": [PART]}]}, "messages"),
        ("embeddings", {"model": "m", "input": "x", "images": ["https://a.example/b.png"]}, "images"),
        ("completions", {"model": "m", "prompt": ["text", PART], "max_tokens": 5}, "prompt[1]"),
        ("rerank", {**RANKED, "documents": [{"content": [PART]}]}, "documents[0]"),
        ("rerank", {**RANKED, "documents": ["x", {"text": "y", "more": {"deep": [{"video": "z"}]}}]}, "documents[1]"),
        ("rerank", {**RANKED, "query": {"image": "https://a.example"}, "documents": ["x"]}, "query"),
        ("responses", {**RESPONSE, "instructions": [{"role": "user", "content": [PART]}]}, "instructions"),
        # A recording that only the provider sees.
        *(
            ("audio.transcriptions", form(("file", "a.wav", WAV), model="m", **{name: "https://a.example"}), name)
            for name in ("url", "audio_url", "file_url", "file_id")
        ),
        ("audio.translations", form(("file", "a.wav", WAV), model="m", url="https://a.example"), "url"),
        # A length that only a header tells, for an answer that tells none.
        *(
            (
                "audio.transcriptions",
                form(("file", "a.mp4", MP4), model="m", response_format=silent),
                "response_format",
            )
            for silent in ("text", "srt", "vtt")
        ),
        ("images.edits", form(("image", "a.png", PICTURE), model="m", prompt="x", **{"n[]": "9"}), "n[]"),
    ],
)
def test_what_would_escape_the_bound_is_refused(operation: str, body: bytes | dict[str, Any], param: str) -> None:
    """Each by the name of the member that does it."""
    problem = read(operation, body)
    assert isinstance(problem, Problem)
    assert problem.param == param


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("chat.completions", {**CHAT, "extra_body": {"temperature": 1}, "metadata": {"model": "x", "n": "1"}}),
        ("embeddings", {"model": "m", "input": [[1, 2], [3]]}),
        ("embeddings", {"model": "m", "input": ["a {brace}", "b"]}),
        ("completions", {"model": "m", "prompt": [[1, 2], "x"], "max_tokens": 5}),
        ("rerank", {**RANKED, "documents": [{"text": "x", "image": None, "title": "image"}]}),
        ("responses", {**RESPONSE, "instructions": None}),
        ("audio.transcriptions", form(("file", "a.mp4", MP4), model="m", response_format="verbose_json")),
        ("audio.transcriptions", form(("file", "a.wav", WAV), model="m", response_format="text")),
    ],
)
def test_what_honest_callers_send_is_not(operation: str, body: bytes | dict[str, Any]) -> None:
    """Their words may be the same."""
    assert isinstance(read(operation, body), Call)


def test_a_length_that_is_believed_says_so() -> None:
    """Its bound is that of its bytes, and it is told from one that was counted."""
    believed = media.length(MP4, 0, len(MP4))
    assert (believed.seconds, believed.counted) == (1, False)
    assert believed.most > 100
    assert media.length(WAV, 0, len(WAV)).counted


LONG = "A" * 60_000
#: A picture of one pixel, and then words: as text it is long, as a picture it is cheap.
DRESSED = base64.b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1, 1) + bytes(45_000)).decode()


def message(arguments: dict[str, Any]) -> dict[str, Any]:
    """A call of a tool with these arguments, and its result."""
    called = {"type": "tool_use", "id": "t", "name": "f", "input": arguments}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
    turns = [*HELLO, {"role": "assistant", "content": [called]}, {"role": "user", "content": [result]}]
    return {"model": "m", "max_tokens": 9, "messages": turns}


def contents(part: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [part, {"text": "x"}]}]}


@pytest.mark.parametrize("text", [LONG, DRESSED], ids=["words", "dressed"])
@pytest.mark.parametrize(
    ("operation", "hide"),
    [
        ("messages", lambda text: message({"type": "base64", "media_type": "image/png", "data": text})),
        ("messages", lambda text: message({"source": {"type": "base64", "data": text}})),
        ("messages", lambda text: message({"signature": text})),
        ("messages", lambda text: message({text: 1})),
        ("messages", lambda text: {**message({}), "output_format": {"type": "json_schema", "schema": {"title": text}}}),
        (
            "gemini.generate",
            lambda text: contents(
                {"functionResponse": {"response": {"inlineData": {"mimeType": "image/png", "data": text}}}}
            ),
        ),
        (
            "gemini.generate",
            lambda text: contents(
                {"functionCall": {"args": {"inline_data": {"mime_type": "image/png", "data": text}}}}
            ),
        ),
        ("gemini.generate", lambda text: contents({"functionCall": {"args": {"role": text}}})),
        ("gemini.generate", lambda text: contents({"functionResponse": {"response": {text: 1}}})),
        ("gemini.stream", lambda text: contents({"functionCall": {"args": {"thoughtSignature": text}}})),
        (
            "responses",
            lambda text: {**RESPONSE, "input": [{"type": "mcp_list_tools", "tools": [{"input_schema": {"id": text}}]}]},
        ),
        (
            "responses",
            lambda text: {**RESPONSE, "input": [{"type": "local_shell_call", "action": {"env": {"role": text}}}]},
        ),
        (
            "chat.completions",
            lambda text: {
                **CHAT,
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"type": text}}}]}
                ],
            },
        ),
    ],
)
def test_words_that_are_dressed_as_something_else_count(operation: str, hide: Any, text: str) -> None:
    """Arguments and results of tools have any shape, and the model reads them as they are written.

    Neither the bound by length nor the exact count leaves out what looks like a picture there.
    """
    raw = json.dumps(hide(text)).encode()
    call = read(operation, raw, "gemini-2.5-flash")
    assert isinstance(call, Call)
    assert call.input_tokens_max >= len(text)
    assert sum(map(len, DIALECTS[operation].prompt_text(raw))) >= len(text)


def test_real_pictures_are_still_counted_as_pictures() -> None:
    """The bytes of a part's own data are not text, in a function's result neither."""
    data = {"inlineData": {"mimeType": "image/png", "data": DRESSED}}
    for part in (data, {"functionResponse": {"name": "f", "response": {}, "parts": [data]}}):
        call = read("gemini.generate", contents(part), "gemini-2.5-flash")
        assert isinstance(call, Call)
        assert call.input_tokens_max < len(DRESSED) / 10


@pytest.mark.parametrize(
    ("body", "code"),
    [
        # A search that goes back at its missing end would take hours.
        (b'{"model":"x","messages":"' + b'\\"' * 2_000_000, "json_invalid"),
        (b'{"model":"x","model":"x","messages":"' + b'\\"' * 2_000_000, "json_invalid"),
        (b'{"model":"x", "model":"x","messages":[' + b"{}," * 1_000_000 + b"{}]}", "json_dup_key"),
        (b'{"model":"x","messages":[' + b'{"a":1},' * 500_000, "json_invalid"),
        (b'{"model":"x","messages":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}", "json_depth"),
    ],
    ids=["a string without an end", "the same twice", "a member twice", "many objects", "depth"],
)
def test_a_large_broken_body_is_refused_and_not_searched(body: bytes, code: str) -> None:
    """Nobody else is served while a body is read, so that what is wrong with it is not looked for in all of it."""
    found = DIALECTS["chat.completions"].read(body)
    assert isinstance(found, Problem)
    assert found.code == code
