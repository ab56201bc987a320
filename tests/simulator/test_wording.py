"""The simulator's own text is as many tokens as it says, for a tokenizer too."""

import toktok
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.simulator import wording

counts = st.integers(0, 400)


@settings(deadline=None)  # the first call loads the tokenizer
@given(counts, st.integers(0, 200), st.sampled_from(["cl100k_base", "o200k_base"]))
def test_tokens_are_what_a_tokenizer_counts(tokens: int, choice: int, encoding: str) -> None:
    """A text of N tokens is N tokens for both of OpenAI's tokenizers, whichever choice it is."""
    text = wording.piece(0, tokens, choice)

    assert toktok.batch_count([text], encoding) == [tokens]


@given(counts, counts, st.integers(0, 200))
def test_pieces_join_to_the_whole(first: int, more: int, choice: int) -> None:
    """Cutting a text anywhere between its tokens changes nothing."""
    whole = wording.piece(0, first + more, choice)

    assert wording.piece(0, first, choice) + wording.piece(first, more, choice) == whole


@given(st.text())
def test_a_prompt_never_counts_more_tokens_than_bytes(text: str) -> None:
    """No text is more tokens than it has bytes, so that a gateway's bound in bytes holds."""
    assert wording.count(text) <= len(text.encode())
    assert wording.count(text) >= len(text.split())
