"""Counting tokens of text."""

import json
from pathlib import Path

import pytest

from faregate.catalogue.maximums import facts_of
from faregate.catalogue.tokens import ENCODINGS, ToktokCounter, characters_as_tokens
from faregate.ports import TokenCounter

GOLDEN = json.loads(Path(__file__).with_name("token_counts.json").read_text())["counts"]


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_counts_agree_with_two_other_tokenizers(encoding: str) -> None:
    """Prose, code, scripts, emoji, white space and the text of special tokens count as the golden file says."""
    counter: TokenCounter = ToktokCounter()
    differing = [row for row in GOLDEN if counter.count(row["text"], encoding) != row[encoding]]
    assert differing == []
    assert len(GOLDEN) > 30


@pytest.mark.parametrize(("characters", "expected"), [(0, 0), (1, 1), (3, 1), (4, 2), (7, 2), (8, 3), (35, 10)])
def test_an_unknown_encoding_is_counted_by_characters(characters: int, expected: int) -> None:
    """Characters / 3.5, rounded up, without a float."""
    assert characters_as_tokens("ä" * characters) == expected
    assert ToktokCounter().count("ä" * characters, "no_such_encoding") == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_half_a_surrogate_pair_is_counted(encoding: str) -> None:
    """Text that has no UTF-8 is counted, not raised about."""
    assert 2 <= ToktokCounter().count("a\ud800b", encoding) <= 5


def test_long_repetition_does_not_stall() -> None:
    """A megabyte of one character is counted; other tokenizers panic or go quadratic on it."""
    assert 0 < ToktokCounter().count(" " * 1_000_000 + "x", "o200k_base") < 1_000_000


def test_known_models_name_an_encoding_that_exists() -> None:
    """The table of models and the tokenizer agree on names."""
    named = [facts.encoding for model in ("gpt-4", "gpt-4o", "gpt-oss-20b") if (facts := facts_of(model))]
    assert tuple(named) == ENCODINGS
