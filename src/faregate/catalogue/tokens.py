"""Counts tokens, and takes texts apart into them. A vocabulary takes a third of a second and some 70 MB to load, so
each loads on first need.

Counting serves bounds, answers whose usage was not told, and the tokenizer service; what a provider reports is always
preferred to it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from faregate.catalogue import pictures, tokenize
from faregate.catalogue.maximums import encodings_of_families, facts_of
from faregate.catalogue.prompts import count_prompt
from faregate.errors import Problem
from faregate.ports import PromptCount

#: Encodings whose vocabulary is compiled into the tokenizer.
ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony")

#: What a model is counted by whose encoding nobody told: that of most models of today.
FALLBACK = "o200k_base"


class ToktokCounter:
    """The ``Tokenizer`` on toktok-rs. Safe to call from several threads; releases the GIL while it counts."""

    def __init__(self, size_of: pictures.SizeOf = lambda data: None) -> None:
        """``size_of`` reads the size of a picture; without it every picture counts as the largest one."""
        self._size_of = size_of
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
            return self._batch_count([_whole(text)], encoding, threads=1)[0]

    def encode(self, text: str, encoding: str) -> tuple[list[int], list[str]]:
        """Ids of the tokens of ``text``, and the text of each; half a character is shown as U+FFFD.

        Texts of special tokens count as ordinary text, as in ``count``.

        Raises:
            KeyError: ``encoding`` is none of ``ENCODINGS``.
        """
        # The package's own way to ids, which its documentation calls private but meant for this; a test guards it.
        vocabulary = importlib.import_module("toktok")._encoding(encoding)
        try:
            ids: list[int] = vocabulary.encode_ordinary(text)
        except UnicodeEncodeError:
            ids = vocabulary.encode_ordinary(_whole(text))
        piece = vocabulary.decode_single_token_bytes
        return ids, [bytes(piece(each)).decode("utf-8", "replace") for each in ids]

    def encoding_of(self, model: str) -> str:
        """The encoding of a model by its name, empty where none is known."""
        facts = facts_of(model)
        return facts.encoding if facts is not None else ""

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any], model: str) -> PromptCount:
        """Input tokens of a chat with ``model``; by another encoding, and never exact, where it is not known."""
        encoding = self.encoding_of(model) or FALLBACK
        rule = pictures.rule_of(model) or pictures.LIKE_4O

        def picture(url: str, low: bool) -> int:
            return pictures.picture_tokens(rule, pictures.picture_size(url, self._size_of), low)

        return count_prompt(messages, tools, model, encoding, lambda text: self.count(text, encoding), picture)

    def answer(self, asked: Mapping[str, Any], model_of: Callable[[str], str]) -> dict[str, Any] | Problem:
        """The answer to a question of ``/api/tokenize``; ``model_of`` says which model a configured name means."""
        return tokenize.answer(asked, model_of, self, ENCODINGS, FALLBACK)

    def encodings(self) -> dict[str, Any]:
        """The answer of ``/api/encodings``: every encoding, and the families of models that have it."""
        families = encodings_of_families()
        return {
            "encodings": [{"name": name, "models": list(families.get(name, ()))} for name in ENCODINGS],
            "models": {model: name for name in ENCODINGS for model in families.get(name, ())},
            "fallback": FALLBACK,
        }


def characters_as_tokens(text: str) -> int:
    """Characters / 3.5, rounded up: about right for prose where no vocabulary is known."""
    return (2 * len(text) + 6) // 7


def _whole(text: str) -> str:
    """Half a surrogate pair has no UTF-8; a provider that accepts it sees the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
