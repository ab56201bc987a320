"""Bodies the provider would refuse are refused, in its words' shape; the others count as documented."""

import json
from typing import Any

import pytest

from faregate.simulator.asks import AskInvalid, read

MESSAGES = [{"role": "user", "content": "one two three"}]

REFUSED: list[tuple[str, Any, str | None]] = [
    ("chat", b"", None),
    ("chat", b"{", None),
    ("chat", b"[]", None),
    ("chat", b'{"model": "m", "tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ("chat", b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ("chat", {"messages": MESSAGES}, "model"),
    ("chat", {"model": "m"}, None),
    ("chat", {"model": "m", "messages": []}, "messages"),
    ("chat", {"model": "m", "messages": [{"content": "x"}]}, "messages[0]"),
    ("chat", {"model": "m", "messages": MESSAGES, "max_token": 3}, "max_token"),
    ("chat", {"model": "m", "messages": MESSAGES, "n": 0}, "n"),
    ("chat", {"model": "m", "messages": MESSAGES, "n": 129}, "n"),
    ("chat", {"model": "m", "messages": MESSAGES, "n": "2"}, "n"),
    ("chat", {"model": "m", "messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
    ("chat", {"model": "m", "messages": MESSAGES, "max_tokens": -1}, "max_tokens"),
    ("chat", {"model": "m", "messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
    ("chat", {"model": "m", "messages": MESSAGES, "max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
    ("chat", {"model": "m", "messages": MESSAGES, "stream_options": {"include_usage": True}}, "stream_options"),
    ("completion", {"model": "m", "prompt": []}, "prompt"),
    ("completion", {"model": "m", "prompt": "x", "n": 3, "best_of": 2}, "best_of"),
    ("completion", {"model": "m", "prompt": "x", "best_of": 2, "stream": True}, "best_of"),
    ("completion", {"model": "m", "prompt": ["x"] * 2000, "n": 100}, "n"),
    ("embedding", {"model": "m"}, None),
    ("embedding", {"model": "m", "input": ""}, "input"),
    ("embedding", {"model": "m", "input": []}, "input"),
    ("embedding", {"model": "m", "input": [[]]}, "input"),
    ("embedding", {"model": "m", "input": [1, "x"]}, "input"),
    ("embedding", {"model": "m", "input": "x", "dimensions": 0}, "dimensions"),
    ("embedding", {"model": "m", "input": "x", "encoding_format": "hex"}, "encoding_format"),
]


@pytest.mark.parametrize(("kind", "body", "param"), REFUSED)
def test_refused(kind: str, body: Any, param: str | None) -> None:
    """The complaint names the field where one is at fault."""
    with pytest.raises(AskInvalid) as refusal:
        read(kind, body if isinstance(body, bytes) else json.dumps(body).encode(), "")

    assert refusal.value.param == param


def ask(kind: str, **fields: Any) -> Any:
    """A request that is read."""
    return read(kind, json.dumps({"model": "m", **fields}).encode(), "")


def test_chat_counts_words_and_messages() -> None:
    """Four tokens per message, three for the reply, one per word."""
    assert ask("chat", messages=MESSAGES * 2).prompt_tokens == 3 + 2 * (4 + 3)


def test_parts_of_a_message_count_together() -> None:
    """Text parts count their words, an image counts a fixed number."""
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {"url": "https://x.test"}}]

    assert ask("chat", messages=[{"role": "user", "content": parts}]).prompt_tokens == 3 + 4 + 2 + 85


def test_token_numbers_count_as_they_are() -> None:
    """A list of numbers is one input of so many tokens, a list of lists several."""
    assert ask("embedding", input=[5, 6, 7])[3] == 3
    assert ask("embedding", input=[[5, 6], [7]])[3] == 3
    assert len(ask("embedding", input=[[5, 6], [7]]).inputs) == 2


def test_either_cap_is_taken() -> None:
    """Both names of the cap mean the same; completions have one even when nothing is said."""
    assert ask("chat", messages=MESSAGES, max_tokens=5).cap == 5
    assert ask("chat", messages=MESSAGES, max_completion_tokens=5).cap == 5
    assert ask("chat", messages=MESSAGES).cap is None
    assert ask("completion", prompt="x").cap == 16


def test_deployment_stands_in_for_the_model() -> None:
    """On Azure's paths a body need not name a model."""
    assert read("chat", json.dumps({"messages": MESSAGES}).encode(), "my-gpt").model == "my-gpt"
