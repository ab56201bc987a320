"""The tokenizer service: what it answers, what prompts count, what it refuses."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faregate.catalogue import pictures
from faregate.catalogue.tokenize import CHARACTERS_MAX, TEXTS_MAX, TOKENS_SHOWN_MAX
from faregate.catalogue.tokens import ENCODINGS, FALLBACK, ToktokCounter
from faregate.dialects.pictures import size_of
from faregate.errors import Problem
from faregate.ports import Tokenizer

TOKENIZER: Tokenizer = ToktokCounter(size_of)
GOLDEN = json.loads(Path(__file__).with_name("token_counts.json").read_text())["counts"]
PROMPTS = json.loads(Path(__file__).with_name("prompt_counts.json").read_text())["prompts"]
REFERENCES = [
    (prompt["messages"], prompt["tools"], model, tokens)
    for prompt in PROMPTS
    for model, tokens in prompt["prompt_tokens"].items()
]


def same(model: str) -> str:
    return model


def answer(asked: dict[str, Any], model_of: Callable[[str], str] = same) -> dict[str, Any]:
    found = TOKENIZER.answer(asked, model_of)
    assert isinstance(found, dict), found
    return found


@pytest.mark.parametrize(("messages", "tools", "model", "tokens"), REFERENCES)
def test_reference_prompts_count_as_the_provider_reports_them(
    messages: list[Any], tools: list[Any], model: str, tokens: int
) -> None:
    """Messages, names and tools: the very ``usage.prompt_tokens`` that OpenAI shows for these prompts."""
    assert TOKENIZER.prompt(messages, tools, model)[:2] == (tokens, True)
    told = answer({"input": messages, "model": model, **({"tools": tools} if tools else {})})
    assert (told["count"], told["exact"]) == (tokens, True)
    assert sum(told["counts"]) + told["tools_and_priming"] == tokens


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_ids_and_strings_are_those_that_are_counted(encoding: str) -> None:
    """As many as the count says, and together they are the text."""
    counter = ToktokCounter()
    for row in GOLDEN:
        ids, strings = counter.encode(row["text"], encoding)
        assert len(ids) == len(strings) == row[encoding]
        if "\ufffd" not in "".join(strings):
            assert "".join(strings) == row["text"]


def test_ids_are_those_of_openai() -> None:
    """The sentence that OpenAI's own page takes apart."""
    told = answer({"input": "tiktoken is great!", "encoding": "cl100k_base"})
    assert told["ids"] == [83, 1609, 5963, 374, 2294, 0]
    assert told["strings"] == ["t", "ik", "token", " is", " great", "!"]
    assert (told["count"], told["encoding"], told["fallback"]) == (6, "cl100k_base", False)


def test_half_a_character_is_shown_as_such() -> None:
    """One character may be several tokens, and half a surrogate pair is no reason to fail."""
    assert answer({"input": "🧠", "model": "gpt-4o"})["strings"].count("\ufffd") >= 1
    assert answer({"input": "a\ud800b", "model": "gpt-4o"})["count"] >= 2


def test_without_a_model_the_default_is_told() -> None:
    """As in the service that this one stands in for."""
    assert answer({"input": "x"})["model"] == "gpt-3.5-turbo"


def test_a_model_that_is_not_known_is_counted_all_the_same_and_says_so() -> None:
    """The reply names the encoding that was taken instead."""
    told = answer({"input": "hello world", "model": "house-model"})
    assert (told["encoding"], told["fallback"], told["count"]) == (FALLBACK, True, 2)
    assert FALLBACK in told["note"]
    assert answer({"input": [{"role": "user", "content": "hi"}], "model": "house-model"})["exact"] is False


def test_a_configured_name_is_counted_as_the_model_behind_it() -> None:
    """An Azure deployment or an alias has the encoding of its model."""
    told = answer({"input": "hello", "model": "my-deployment"}, lambda name: "gpt-4")
    assert (told["model"], told["encoding"], told["fallback"]) == ("my-deployment", "cl100k_base", False)


def test_a_list_is_answered_text_by_text() -> None:
    """Counts, ids and strings of each."""
    told = answer({"input": ["hello", "hello world"], "model": "gpt-4o"})
    assert (told["count"], told["counts"]) == (3, [1, 2])
    assert [len(ids) for ids in told["ids"]] == [1, 2]
    assert told["strings"][1] == ["hello", " world"]


def test_a_long_text_is_only_counted() -> None:
    """An answer stays bounded where the text is large."""
    told = answer({"input": "x y " * TOKENS_SHOWN_MAX, "model": "gpt-4o"})
    assert told["count"] > TOKENS_SHOWN_MAX
    assert (told["ids"], told["strings"]) == (None, None)


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return "data:image/png;base64," + base64.b64encode(head).decode()


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o", (128, 64), "high", 255),
        ("gpt-4o-mini", (128, 64), "high", 8500),
        ("gpt-4o-mini", (128, 64), "low", 2833),
        ("gpt-4.1-mini", (128, 64), "high", 13),
        ("gpt-4.1-nano", (128, 64), "high", 20),
        ("o4-mini", (1024, 1024), "high", 1762),
        ("gpt-5", (1024, 1024), "auto", 630),
    ],
)
def test_pictures_count_by_their_size(model: str, size: tuple[int, int], detail: str, tokens: int) -> None:
    """The examples of OpenAI's guide "Images and vision", and others by its rules."""
    part = {"type": "image_url", "image_url": {"url": png(*size), "detail": detail}}
    with_it = TOKENIZER.prompt([{"role": "user", "content": [part]}], [], model)
    without = TOKENIZER.prompt([{"role": "user", "content": []}], [], model)
    assert with_it.tokens - without.tokens == tokens
    assert not with_it.exact


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/png;base64,AAAA", "data:,x", "", png(0, 5)])
def test_a_picture_of_unknown_size_counts_as_the_largest(url: str) -> None:
    """Eight tiles, which no picture has more of."""
    part = {"type": "image_url", "image_url": {"url": url}}
    told = TOKENIZER.prompt([{"role": "user", "content": [part]}], [], "gpt-4o")
    without = TOKENIZER.prompt([{"role": "user", "content": []}], [], "gpt-4o")
    assert told.tokens - without.tokens == 85 + 8 * 170


def test_every_family_of_pictures_is_a_rule() -> None:
    """A model belongs to the longest family that its name begins with."""
    assert pictures.rule_of("gpt-4o-2024-08-06") == pictures.LIKE_4O
    assert pictures.rule_of("gpt-4o-mini-2024-07-18") == pictures.RULES["gpt-4o-mini"]
    assert pictures.rule_of("claude-sonnet-4") is None


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}],
        [{"role": "user", "content": ["text", 5]}],
        [{"role": "user", "content": 7}],
    ],
)
def test_what_the_rule_does_not_speak_of_is_counted_but_not_exact(messages: list[Any]) -> None:
    """Calls of tools, odd parts and odd contents never make a count fail."""
    found = TOKENIZER.prompt(messages, [], "gpt-4o")
    assert (found.tokens > 6, found.exact) == (True, False)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "object"}}}}},
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {"a": 5}}}},
        {"type": "web_search"},
        {},
    ],
)
def test_an_odd_tool_is_counted_but_not_exact(tool: dict[str, Any]) -> None:
    """Nested schemas and tools of other kinds are estimated."""
    found = TOKENIZER.prompt([{"role": "user", "content": "hi"}], [tool], "gpt-4o")
    assert (found.tokens > 12, found.exact) == (True, False)


@pytest.mark.parametrize(
    ("asked", "code", "param"),
    [
        ({}, "field_missing", "input"),
        ({"input": None}, "field_missing", "input"),
        ({"input": 5}, "field_type", "input"),
        ({"input": []}, "field_type", "input"),
        ({"input": ["a", 5]}, "field_type", "input"),
        ({"input": [1, 2]}, "field_type", "input"),
        ({"input": [{"content": "no role"}]}, "field_missing", "input"),
        ({"input": ["x"] * (TEXTS_MAX + 1)}, "field_range", "input"),
        ({"input": "x" * (CHARACTERS_MAX + 1)}, "field_range", "input"),
        ({"input": ["x" * CHARACTERS_MAX, "y"]}, "field_range", "input"),
        ({"input": "x", "model": 5}, "field_type", "model"),
        ({"input": "x", "model": "m" * 257}, "field_type", "model"),
        ({"input": "x", "encoding": "p50k_base"}, "field_enum", "encoding"),
        ({"input": "x", "tools": [{}]}, "field_conflict", "tools"),
        ({"input": [{"role": "user"}], "tools": "x"}, "field_type", "tools"),
        ({"input": [{"role": "user"}], "encoding": "o200k_base"}, "field_conflict", "encoding"),
        ({"input": "x", "modell": "gpt-4o"}, "field_unknown", None),
    ],
)
def test_a_question_that_cannot_be_is_refused_with_422(asked: dict[str, Any], code: str, param: str | None) -> None:
    """Without input first of all."""
    found = TOKENIZER.answer(asked, same)
    assert isinstance(found, Problem)
    assert (found.code, found.param, found.status) == (code, param, 422)


def test_encodings_are_listed_with_their_models() -> None:
    """Each known family has one of the encodings that are compiled in."""
    told = TOKENIZER.encodings()
    assert [each["name"] for each in told["encodings"]] == list(ENCODINGS)
    assert told["models"]["gpt-4o"] == "o200k_base"
    assert set(told["models"].values()) == set(ENCODINGS)
    assert all(TOKENIZER.encoding_of(model) == name for model, name in told["models"].items())
