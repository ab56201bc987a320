"""What is known of a model by its name."""

import pytest

from faregate.catalogue.corrections import known_models
from faregate.catalogue.maximums import cap_field_of, facts_of
from faregate.catalogue.model_facts import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    GENERATE,
    IMAGES,
    MESSAGES,
    RESPONSES,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VARIATIONS,
)

TALK = (CHAT, *RESPONSES)


@pytest.mark.parametrize(
    ("model", "context", "output", "encoding", "operations"),
    [
        ("gpt-4o", 128_000, 16_384, "o200k_base", TALK),
        ("gpt-4o-2024-08-06", 128_000, 16_384, "o200k_base", TALK),
        ("gpt-4o-2024-05-13", 128_000, 4_096, "o200k_base", TALK),
        ("gpt-4o-mini-2024-07-18", 128_000, 16_384, "o200k_base", TALK),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", 128_000, 16_384, "o200k_base", TALK),
        ("GPT-4.1-nano", 1_047_576, 32_768, "o200k_base", TALK),
        ("o3-mini-2025-01-31", 200_000, 100_000, "o200k_base", TALK),
        ("gpt-5-nano-2025-08-07", 400_000, 128_000, "o200k_base", TALK),
        ("gpt-5-chat-latest", 128_000, 16_384, "o200k_base", TALK),
        ("gpt-5-4-mini", 400_000, 128_000, "o200k_base", TALK),
        ("gpt-35-turbo-16k", 16_385, 4_096, "cl100k_base", TALK),
        ("gpt-3.5-turbo-instruct-0914", 4_096, 4_096, "cl100k_base", (COMPLETIONS,)),
        ("gpt-4-0613", 8_192, 8_192, "cl100k_base", TALK),
        ("gpt-4-turbo-2024-04-09", 128_000, 4_096, "cl100k_base", TALK),
        ("gpt-4-1106-preview", 128_000, 4_096, "cl100k_base", TALK),
        ("text-embedding-3-small", 0, 0, "cl100k_base", (EMBEDDINGS,)),
        ("gpt-5-pro", 400_000, 272_000, "o200k_base", RESPONSES),
        ("gpt-5-4-pro", 1_050_000, 128_000, "o200k_base", RESPONSES),
        ("gpt-5.1-codex-max", 400_000, 128_000, "o200k_base", RESPONSES),
        ("o3-deep-research-2025-06-26", 200_000, 100_000, "o200k_base", RESPONSES),
        ("gpt-4o-search-preview", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("gpt-audio-1.5", 128_000, 16_384, "o200k_base", (CHAT,)),
        ("gpt-4o-mini-transcribe-2025-12-15", 16_000, 2_000, "", (TRANSCRIPTIONS,)),
        ("whisper", 0, 0, "", (TRANSCRIPTIONS, TRANSLATIONS)),
        ("tts-hd", 0, 0, "", (SPEECH,)),
        ("gpt-image-1.5", 141_136, 6_540, "", IMAGES),
        ("dall-e-2", 0, 0, "", (*IMAGES, VARIATIONS)),
        ("gpt-5-image", 400_000, 128_000, "o200k_base", ()),
        ("gpt-4o-realtime-preview-2025-06-03", 128_000, 4_096, "o200k_base", ("realtime",)),
        ("gpt-realtime-2025-08-28", 32_000, 4_096, "o200k_base", ("realtime",)),
        ("gpt-realtime-whisper", 0, 0, "", ()),
    ],
)
def test_a_name_follows_its_family(
    model: str, context: int, output: int, encoding: str, operations: tuple[str, ...]
) -> None:
    """Dated, fine-tuned and differently spelled names have the facts of the family that they belong to."""
    facts = facts_of(model)
    assert facts is not None
    assert facts[:4] == (context, output, encoding, operations)


@pytest.mark.parametrize("model", ["", "gpt", "gpt-9", "house-model", "sim-1", "o", "gpt-4oo", "-", "ft:"])
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


@pytest.mark.parametrize(
    ("kind", "model", "tokens"),
    [
        ("anthropic", "claude-opus-5-5", (1_000_000, 128_000)),
        ("anthropic", "claude-sonnet-4-5-20250929", (1_000_000, 64_000)),
        ("anthropic", "claude-sonnet-4@20250514", (1_000_000, 64_000)),
        ("anthropic", "claude-3-5-haiku-latest", (200_000, 8_192)),
        ("gemini", "gemini-2.5-flash-preview-09-2025", (1_048_576, 65_536)),
        ("gemini", "models/gemini-2.0-flash-001", (1_048_576, 8_192)),
        ("gemini", "gemini-flash-latest", (1_048_576, 65_536)),
        ("gemini", "gemini-2.5-flash-image", (131_072, 65_536)),
    ],
)
def test_names_of_other_makers_follow_their_families(kind: str, model: str, tokens: tuple[int, int]) -> None:
    """Each has the bounds of its family, whatever date stands behind it."""
    facts = facts_of(model, kind)
    assert facts is not None
    assert facts[:2] == tokens
    assert facts.operations == {"anthropic": MESSAGES, "gemini": GENERATE}[kind]


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("anthropic", "claude-opus-4-9"),
        ("anthropic", "claude-opus"),
        ("anthropic", "gpt-4o"),
        ("gemini", "gemini-5-pro"),
        ("gemini", "claude-opus-5"),
        ("gemini", ""),
    ],
)
def test_a_newer_model_is_not_taken_for_an_older_one(kind: str, model: str) -> None:
    """Its answers may be longer than those of what only begins alike."""
    assert facts_of(model, kind) is None


#: Operations whose answers are tokens that are billed.
ANSWERING = {CHAT, RESPONSES[0], *MESSAGES[:1], *GENERATE[:2]}


@pytest.mark.parametrize(("kind", "least"), [("openai", 100), ("anthropic", 20), ("gemini", 30)])
def test_every_model_that_answers_has_a_maximum(kind: str, least: int) -> None:
    """No listed model can be asked for an answer whose length nobody knows."""
    facts = [found for model in known_models(kind) if (found := facts_of(model, kind)) and found.operations]
    talking = [found for found in facts if not ANSWERING.isdisjoint(found.operations)]
    assert len(talking) >= least
    assert all(0 < found.output_tokens_max <= found.context_tokens_max for found in talking)
    assert kind != "openai" or all(found.encoding for found in talking)
