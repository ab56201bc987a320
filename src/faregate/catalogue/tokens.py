"""Counts tokens of text. The vocabularies take a third of a second and some 70 MB to load, so they load on first need.

Counting serves bounds and answers whose usage was not told; what a provider reports is always preferred to it.
"""

import importlib
from collections.abc import Callable

#: Encodings whose vocabulary is compiled into the tokenizer.
ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony")


class ToktokCounter:
    """The ``TokenCounter`` on toktok-rs. Safe to call from several threads; releases the GIL while it counts."""

    def __init__(self) -> None:
        self._batch_count: Callable[..., list[int]] | None = None

    def count(self, text: str, encoding: str) -> int:
        """Tokens of ``text``; an unknown ``encoding`` is counted as characters / 3.5, rounded up."""
        if encoding not in ENCODINGS:
            return characters_as_tokens(text)
        if self._batch_count is None:
            # Two threads may both import it; they find the same module.
            self._batch_count = importlib.import_module("toktok").batch_count
        try:
            return self._batch_count([text], encoding, threads=1)[0]
        except UnicodeEncodeError:
            # Half a surrogate pair has no UTF-8; a provider that accepts it sees the replacement character.
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return self._batch_count([whole], encoding, threads=1)[0]


def characters_as_tokens(text: str) -> int:
    """Characters / 3.5, rounded up: about right for prose where no vocabulary is known."""
    return (2 * len(text) + 6) // 7
