"""What is known of a model by its name."""

import pytest

from faregate.catalogue.bundled import listed
from faregate.catalogue.maximums import CHAT, COMPLETIONS, EMBEDDINGS, cap_field_of, facts_of


@pytest.mark.parametrize(
    ("model", "context", "output", "encoding", "operations"),
    [
        ("gpt-4o", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("gpt-4o-2024-08-06", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("gpt-4o-2024-05-13", 128_000, 4_096, "o200k_base", (CHAT,)),
        ("gpt-4o-mini-2024-07-18", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("GPT-4.1-nano", 1_047_576, 32_768, "o200k_base", (CHAT,)),
        ("o3-mini-2025-01-31", 200_000, 100_000, "o200k_base", (CHAT,)),
        ("gpt-5-nano-2025-08-07", 400_000, 128_000, "o200k_base", (CHAT,)),
        ("gpt-5-chat-latest", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("gpt-5-4-mini", 400_000, 128_000, "o200k_base", (CHAT,)),
        ("gpt-35-turbo-16k", 16_385, 4_096, "cl100k_base", (CHAT,)),
        ("gpt-3.5-turbo-instruct-0914", 4_096, 4_096, "cl100k_base", (COMPLETIONS,)),
        ("gpt-4-0613", 8_192, 8_192, "cl100k_base", (CHAT,)),
        ("gpt-4-turbo-2024-04-09", 128_000, 4_096, "cl100k_base", (CHAT,)),
        ("gpt-4-1106-preview", 128_000, 4_096, "cl100k_base", (CHAT,)),
        ("text-embedding-3-small", 0, 0, "cl100k_base", (EMBEDDINGS,)),
        ("gpt-5-pro", 400_000, 128_000, "o200k_base", ()),
        ("gpt-4o-realtime-preview-2025-06-03", 128_000, 16_384, "o200k_base", ()),
    ],
)
def test_a_name_follows_its_family(
    model: str, context: int, output: int, encoding: str, operations: tuple[str, ...]
) -> None:
    """Dated, fine-tuned and differently spelled names have the facts of the family that they belong to."""
    facts = facts_of(model)
    assert facts is not None
    assert facts[:4] == (context, output, encoding, operations)


@pytest.mark.parametrize("model", ["", "gpt", "gpt-9", "house-model", "sim-1", "o", "gpt-4oo", "dall-e-3", "-", "ft:"])
def test_an_unknown_family_is_not_guessed(model: str) -> None:
    """A name that only looks alike is not known."""
    assert facts_of(model) is None


@pytest.mark.parametrize(
    ("kind", "model", "expected"),
    [
        ("openai", "gpt-4o", "max_completion_tokens"),
        ("openai", "gpt-3.5-turbo", "max_completion_tokens"),
        ("openai", "o3", "max_completion_tokens"),
        ("openai", "gpt-3.5-turbo-instruct", "max_tokens"),
        ("openai", "sim-1", "max_tokens"),
        ("openai", "gpt-oss-20b", "max_tokens"),
        ("azure_openai", "gpt-4o", "max_tokens"),
        ("azure_openai", "o4-mini", "max_completion_tokens"),
        ("azure_openai", "gpt-5", "max_completion_tokens"),
    ],
)
def test_a_cap_is_named_as_model_and_provider_know_it(kind: str, model: str, expected: str) -> None:
    """Reasoning models refuse ``max_tokens``; older servers refuse ``max_completion_tokens``."""
    assert cap_field_of(kind, facts_of(model)) == expected


def test_every_model_that_the_gate_speaks_to_has_a_tokenizer_and_a_maximum() -> None:
    """No listed model can be asked for an answer whose length nobody knows."""
    facts = [found for model in listed("openai") if (found := facts_of(model)) and found.operations]
    assert len(facts) > 60
    assert all(found.encoding for found in facts)
    assert all(0 < found.output_tokens_max <= found.context_tokens_max for found in facts if CHAT in found.operations)
