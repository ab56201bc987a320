"""The receipt of a stream: one comment before the event that ends it, whatever the wire format and the splits."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faregate.control import Load
from faregate.core.ledger.events import Settled
from faregate.core.money import dollars
from faregate.proxy.receipt import place
from gates import deployment, money, provider, running_gate, scenario, secret, steered

DONE = b"data: [DONE]\n\n"
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize(
    ("out", "mark", "whole", "at"),
    [
        (b"data: {}\n\n" + DONE, b"", False, 10),
        (b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n", b"", False, 12),
        (DONE, b"", False, 0),
        (b"\n\n" + DONE, b"", False, 2),
        (b"\n" + DONE, b"", False, -1),
        (b"E]\n\n", b"", False, -1),
        (b"data: {}\n\n", b"", False, -1),
        (b"data: {}\n\n", b"", True, 10),
        (b"data: {}", b"", True, -1),
        (b"", b"", True, 0),
        (b"data: {}\n\n" + STOP, b"message_stop", False, 10),
        (STOP, b"message_stop", False, 0),
        (b'data: {"type":"message_stop"}\n\n', b"message_stop", False, -1),
        (b'data: {"text":"data: [DONE]"}\n\n' + DONE, b"", False, 31),
    ],
)
def test_the_comment_stands_between_events(out: bytes, mark: bytes, whole: bool, at: int) -> None:
    """Before the last one, at the end where there is none, and nowhere where the last one has begun to pass."""
    assert place(out, mark, whole) == at


TURNS = [{"role": "user", "content": steered(prompt_tokens=10, output_tokens=5)}]
TEXT = steered(prompt_tokens=10, output_tokens=5)


@pytest.mark.parametrize(
    ("kind", "operation", "path", "body", "last"),
    [
        ("openai", "chat.completions", "/v1/chat/completions",
         {"model": "sim-1", "messages": TURNS, "stream": True}, "data: [DONE]"),
        ("openai", "completions", "/v1/completions",
         {"model": "sim-1", "prompt": TEXT, "max_tokens": 50, "stream": True}, "data: [DONE]"),
        ("openai", "responses", "/v1/responses",
         {"model": "sim-1", "input": TEXT, "max_output_tokens": 50, "stream": True}, "event: response.completed"),
        ("anthropic", "messages", "/v1/messages",
         {"model": "sim-1", "messages": TURNS, "max_tokens": 50, "stream": True}, "event: message_stop"),
        ("gemini", "gemini.stream", "/v1beta/models/sim-1:streamGenerateContent?alt=sse",
         {"contents": [{"parts": [{"text": TEXT}]}]}, ""),
    ],
)  # fmt: skip
@scenario
async def test_every_wire_format_has_its_receipt(
    tmp_path: Path, kind: str, operation: str, path: str, body: dict[str, Any], last: str
) -> None:
    """What the record says it cost, as a block of its own just before the end."""
    place = deployment(operations=(operation,), output_tokens_max=64)
    async with running_gate(tmp_path, limits=(money(10**9),), deployments=(place,), stream_receipt=True) as running:
        catalogue = running.gate.snapshot.catalogue
        credential = {"x-goog-api-key" if kind == "gemini" else "authorization": "Bearer sk-provider"}
        url = running.simulator.url + ("/v1beta" if kind == "gemini" else "/v1")
        changed = provider(url, kind=kind, credential=credential)
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(changed,))))
        answer = await running.client.post(path, json=body, headers={"authorization": f"Bearer {secret('caller')}"})
        (settled,) = running.of(Settled)
        blocks = [block for block in answer.text.replace("\r\n", "\n").split("\n\n") if block]
        at = next(n for n, block in enumerate(blocks) if block.startswith(": faregate "))
        told = json.loads(blocks[at].removeprefix(": faregate "))

        assert (settled.status, told["cost"]) == ("ok", dollars(settled.charge))
        assert (told["input_tokens"], told["output_tokens"]) == (10, 5)
        assert [block.split("\n")[0] for block in blocks[at + 1 :]] == ([last] if last else [])


@pytest.mark.parametrize("split", [1, 2, 3, 5, 7, 11, 13, 64, 1000])
@scenario
async def test_splits_never_break_a_stream_with_a_receipt(tmp_path: Path, split: int) -> None:
    """Without its comment the stream has the same events as ever; a comment never stands inside an event."""
    async with running_gate(tmp_path, limits=(money(10**9),), stream_receipt=True) as running:
        for wanted in (None, {"include_usage": True}):
            text = steered(prompt_tokens=10, output_tokens=5, split_bytes=split)
            answer = await running.chat(text, stream=True, stream_options=wanted)
            blocks = answer.text.split("\n\n")
            comments = [block for block in blocks if block.startswith(":")]
            events = [block for block in blocks if block and not block.startswith(":")]

            assert len(comments) <= 1
            assert all(json.loads(block.removeprefix(": faregate ")) for block in comments)
            assert all(json.loads(block.removeprefix("data: "))["choices"] is not None for block in events[:-1])
            assert events[-1] == "data: [DONE]"


@scenario
async def test_a_stream_that_breaks_off_has_no_receipt(tmp_path: Path) -> None:
    """What it cost may not be known; the error event is its end."""
    async with running_gate(tmp_path, limits=(money(10**9),), stream_receipt=True) as running:
        answer = await running.chat(steered(output_tokens=5, fault="reset_mid_stream"), stream=True)

        assert ": faregate" not in answer.text
        assert "upstream_truncated" in answer.text
