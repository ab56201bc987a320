"""An answer is given to others only where it is whole: a JSON object without an error, or events that are JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.dialects.intact import is_intact

GOOD = json.dumps(
    {"id": "chatcmpl-1", "choices": [{"text": "Grüße, 世界", "finish_reason": "stop"}]}, ensure_ascii=False
).encode()
STREAM = b"".join(b"data: " + GOOD + b"\n\n" for _ in range(3)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "intact"),
    [
        (GOOD, True),
        (b" \n" + GOOD + b"\n", True),
        (b'{"error": null}', True),
        (b'{"error": {"message": "no"}}', False),
        (b'{"error": "no"}', False),
        (b"[]", False),
        (b"", False),
        (b'{"a": "\xff"}', False),
        (GOOD + GOOD, False),
        (b'{"choices": []}', False),
        (b'{"choices": [{"finish_reason": null}]}', False),
        (b'{"choices": [{"finish_reason": "error"}]}', False),
        (b'{"choices": [{"finish_reason": "stop", "error": {"code": 500}}]}', False),
        (b'{"status": "incomplete", "output": []}', False),
        (b'{"status": "completed", "output": []}', True),
        (b'{"data": [{"embedding": [0.1]}]}', True),
        (b"[" * 100_000, False),
    ],
)
def test_whole_answers(body: bytes, intact: bool) -> None:
    """One JSON object that tells no error."""
    assert is_intact(body, stream=False) is intact


@given(st.integers(1, len(GOOD) - 1))
def test_no_beginning_of_an_answer_is_one(size: int) -> None:
    """Wherever an answer breaks off, it is not whole."""
    assert not is_intact(GOOD[:size], stream=False)


@pytest.mark.parametrize(
    ("body", "intact"),
    [
        (STREAM, True),
        (STREAM.replace(b"\n", b"\r\n"), True),
        (b": ping\n\n" + STREAM, True),
        (b"event: message_start\n" + STREAM, True),
        (b'data: {"a":\ndata: 1}\n\n', True),
        (b"data: [1]\n\n", True),
        (b"", False),
        (b": ping\n\n", False),
        (b"data: " + b"[" * 100_000 + b"\n\n", False),
        (b'event: error\ndata: {"message": "boom"}\n\n', False),
        (STREAM + b"data: {}\n\n", False),
        (b'data: {"choices": [{"index": 1, "delta": {}}]}\n\n' + STREAM, False),
        (b'data: {"response": {"status": "failed"}}\n\n', False),
        (b'data: {"response": {"status": "completed"}}\n\n', True),
        (STREAM.removesuffix(b"\n\n"), True),
        (b"data: oops\n\n" + STREAM, False),
        (b'data: {"error": {"message": "no"}}\n\n', False),
        (STREAM + b'data: {"a"', False),
        (b"data: {\xff}\n\n", False),
    ],
)
def test_streams(body: bytes, intact: bool) -> None:
    """Every event is JSON, or the mark of the end, and none tells an error."""
    assert is_intact(body, stream=True) is intact
