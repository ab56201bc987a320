"""How long a model's context and answer can be, how it wants to be asked, and what can be asked of it.

No price list carries these facts, so they are kept here by model family, each with the page it was read from; those of
Anthropic and Google are in ``maximums_elsewhere``. A dated or fine-tuned name follows its family. Numbers that are not
known are 0: a bound is never guessed downwards.
"""

import re
from typing import Final

from faregate.catalogue.aliases import spellings, usual
from faregate.catalogue.maximums_elsewhere import ANTHROPIC, GEMINI
from faregate.catalogue.model_facts import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MODERATIONS,
    REALTIME,
    RERANK,
    RESPONSES,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VARIATIONS,
    ModelFacts,
)

_O200K: Final = "o200k_base"
_CL100K: Final = "cl100k_base"
# _PAGES below stands for https://developers.openai.com/api/docs/models/


def _chat(context: int, output: int, encoding: str = _O200K, *, reasoning: bool = False) -> ModelFacts:
    return ModelFacts(context, output, encoding, (CHAT, *RESPONSES), reasoning)


def _asked(context: int, output: int, *operations: str, encoding: str = "") -> ModelFacts:
    return ModelFacts(context, output, encoding, operations)


#: The largest image of these is documented, 6,240 tokens and 100 for each of three partial ones, and what they read: a
#: prompt of 32,000 characters and 16 images at high fidelity. https://developers.openai.com/api/docs/guides/images
_IMAGE_CONTEXT: Final = 32_000 + 16 * (6_240 + 65 + 4 * 129)
_IMAGE_OUTPUT: Final = 6_540
#: Newer ones make images of any size; 1024 × 1024 in high quality is 7,024 tokens, so that 4K would be 56,000.
_LARGE_IMAGE_OUTPUT: Final = 65_536


#: Family → facts. A model belongs to the longest family that is its name or is followed by ``-`` in its name.
_FAMILIES: Final[dict[str, ModelFacts]] = {
    "gpt-6.1": _chat(1_050_000, 128_000, reasoning=True),  # _PAGES + gpt-6.1-sol
    "gpt-6": _chat(1_050_000, 128_000, reasoning=True),  # _PAGES + gpt-6-luna
    "gpt-5.6": _chat(1_050_000, 128_000, reasoning=True),  # _PAGES + gpt-5.6-sol
    "gpt-5.5": _chat(1_050_000, 128_000, reasoning=True),  # _PAGES + gpt-5.5
    "gpt-5.4": _chat(1_050_000, 128_000, reasoning=True),  # _PAGES + gpt-5.4
    "gpt-5.4-mini": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5.4-mini
    "gpt-5.4-nano": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5.4-nano
    "gpt-5.3": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5.3-codex
    "gpt-5.2": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5.2
    "gpt-5.1": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5.1
    "gpt-5": _chat(400_000, 128_000, reasoning=True),  # _PAGES + gpt-5
    "gpt-5-pro": _chat(400_000, 272_000, reasoning=True),  # _PAGES + gpt-5-pro
    "o4-mini": _chat(200_000, 100_000, reasoning=True),  # _PAGES + o4-mini
    "o3": _chat(200_000, 100_000, reasoning=True),  # _PAGES + o3
    "o3-mini": _chat(200_000, 100_000, reasoning=True),  # _PAGES + o3-mini
    "o1": _chat(200_000, 100_000, reasoning=True),  # _PAGES + o1
    "o1-preview": _chat(128_000, 32_768, reasoning=True),  # _PAGES + o1-preview
    "o1-mini": _chat(128_000, 65_536, reasoning=True),  # _PAGES + o1-mini
    "gpt-4.1": _chat(1_047_576, 32_768),  # _PAGES + gpt-4.1; mini and nano alike
    "gpt-4.5-preview": _chat(128_000, 16_384),  # _PAGES + gpt-4.5-preview
    "gpt-4o": _chat(128_000, 16_384),  # _PAGES + gpt-4o
    "gpt-4o-2024-05-13": _chat(128_000, 4_096),  # _PAGES + gpt-4o, "Snapshots"
    "gpt-4o-mini": _chat(128_000, 16_384),  # _PAGES + gpt-4o-mini
    "chatgpt-4o-latest": _chat(128_000, 16_384),  # _PAGES + chatgpt-4o-latest
    "gpt-4-turbo": _chat(128_000, 4_096, _CL100K),  # _PAGES + gpt-4-turbo
    "gpt-4-0125-preview": _chat(128_000, 4_096, _CL100K),  # _PAGES + gpt-4-turbo-preview
    "gpt-4-1106-preview": _chat(128_000, 4_096, _CL100K),  # _PAGES + gpt-4-turbo-preview
    "gpt-4-1106-vision-preview": _chat(128_000, 4_096, _CL100K),  # _PAGES + gpt-4-turbo-preview
    "gpt-4-vision-preview": _chat(128_000, 4_096, _CL100K),  # _PAGES + gpt-4-turbo-preview
    "gpt-4": _chat(8_192, 8_192, _CL100K),  # _PAGES + gpt-4
    "gpt-4-32k": _chat(32_768, 32_768, _CL100K),  # _PAGES + gpt-4
    "gpt-3.5-turbo": _chat(16_385, 4_096, _CL100K),  # _PAGES + gpt-3.5-turbo
    "gpt-3.5-turbo-instruct": ModelFacts(4_096, 4_096, _CL100K, (COMPLETIONS,)),  # _PAGES + gpt-3.5-turbo-instruct
    "babbage-002": ModelFacts(16_384, 16_384, _CL100K, (COMPLETIONS,)),  # _PAGES + babbage-002
    "davinci-002": ModelFacts(16_384, 16_384, _CL100K, (COMPLETIONS,)),  # _PAGES + davinci-002
    # Open weights, served by others in OpenAI's wire format. _PAGES + gpt-oss-120b
    "gpt-oss-120b": _chat(131_072, 131_072, "o200k_harmony"),
    "gpt-oss-20b": _chat(131_072, 131_072, "o200k_harmony"),
    "codex-mini": _chat(200_000, 100_000, reasoning=True),  # _PAGES + codex-mini-latest
    "computer-use": _asked(8_192, 1_024, *RESPONSES, encoding=_O200K),  # _PAGES + computer-use-preview
    "gpt-audio": _chat(128_000, 16_384),  # _PAGES + gpt-audio
    "gpt-audio-mini": _chat(128_000, 16_384),  # _PAGES + gpt-audio-mini
    # Conversations, heard and spoken. The snapshots of the preview have 128,000 tokens at Azure and 32,000 elsewhere;
    # the second generation has 256,000 there, and how much it answers is not told, so that the gate caps it.
    # https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio
    "gpt-4o-realtime-preview": _asked(128_000, 4_096, REALTIME, encoding=_O200K),  # _PAGES + gpt-4o-realtime-preview
    "gpt-4o-mini-realtime-preview": _asked(128_000, 4_096, REALTIME, encoding=_O200K),  # _PAGES + its name
    "gpt-realtime": _asked(32_000, 4_096, REALTIME, encoding=_O200K),  # _PAGES + gpt-realtime
    "gpt-realtime-mini": _asked(32_000, 4_096, REALTIME, encoding=_O200K),  # _PAGES + gpt-realtime-mini
    "gpt-realtime-1.5": _asked(32_000, 4_096, REALTIME, encoding=_O200K),  # _PAGES + gpt-realtime-1.5
    "gpt-realtime-2": _asked(256_000, 0, REALTIME, encoding=_O200K),  # _PAGES + gpt-realtime-2
    "gpt-realtime-2.1": _asked(256_000, 0, REALTIME, encoding=_O200K),  # _PAGES + gpt-realtime-2.1
    # Sessions that only transcribe or translate.
    "gpt-realtime-whisper": _asked(0, 0),  # _PAGES + gpt-realtime-whisper
    "gpt-realtime-translate": _asked(0, 0),  # _PAGES + gpt-realtime-translate
    "gpt-4o-transcribe": _asked(16_000, 2_000, TRANSCRIPTIONS),  # _PAGES + gpt-4o-transcribe
    "gpt-4o-mini-transcribe": _asked(16_000, 2_000, TRANSCRIPTIONS),  # _PAGES + gpt-4o-mini-transcribe
    "gpt-transcribe": _asked(0, 0, TRANSCRIPTIONS),  # _PAGES + gpt-transcribe
    "whisper-1": _asked(0, 0, TRANSCRIPTIONS, TRANSLATIONS),  # _PAGES + whisper-1
    "tts-1": _asked(0, 0, SPEECH),  # _PAGES + tts-1
    "tts-1-hd": _asked(0, 0, SPEECH),  # _PAGES + tts-1-hd
    # 2,000 tokens of text are some ten minutes or 12,500 tokens of speech, several times that when it is slow.
    "gpt-4o-mini-tts": _asked(2_000, 65_536, SPEECH),  # _PAGES + gpt-4o-mini-tts
    "gpt-image-1": _asked(_IMAGE_CONTEXT, _IMAGE_OUTPUT, *IMAGES),  # _PAGES + gpt-image-1
    "gpt-image-1-mini": _asked(_IMAGE_CONTEXT, _IMAGE_OUTPUT, *IMAGES),  # _PAGES + gpt-image-1-mini
    "gpt-image-1.5": _asked(_IMAGE_CONTEXT, _IMAGE_OUTPUT, *IMAGES),  # _PAGES + gpt-image-1.5
    "chatgpt-image": _asked(_IMAGE_CONTEXT, _IMAGE_OUTPUT, *IMAGES),  # _PAGES + chatgpt-image-latest
    "gpt-image-2": _asked(_IMAGE_CONTEXT, _LARGE_IMAGE_OUTPUT, *IMAGES),  # _PAGES + gpt-image-2
    "gpt-image-2.5": _asked(_IMAGE_CONTEXT, _LARGE_IMAGE_OUTPUT, *IMAGES),  # _PAGES + gpt-image-2.5-flare
    "dall-e-2": _asked(0, 0, *IMAGES, VARIATIONS),  # _PAGES + dall-e-2
    "dall-e-3": _asked(0, 0, IMAGES[0]),  # _PAGES + dall-e-3
    "omni-moderation": _asked(0, 0, MODERATIONS),  # _PAGES + omni-moderation-latest
    "text-moderation": _asked(0, 0, MODERATIONS),  # _PAGES + text-moderation-latest
    # Served by others in OpenAI's wire format. https://docs.cohere.com/docs/rerank
    "rerank": _asked(0, 0, RERANK),
    # One input has at most 8,192 tokens, but a call has many inputs: as a bound of a call it would be too low.
    # https://developers.openai.com/api/docs/guides/embeddings
    "text-embedding-3-large": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
    "text-embedding-3-small": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
    "text-embedding-ada-002": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
}

#: Parts of a name that say what can be asked of the model, the first that is found; the others of a family speak as it
#: says. Nothing can be asked of those that work over WebSockets or by endpoints of their own.
_SPEAKS: Final[tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = tuple(
    (re.compile(rf"-(?:{parts})(?:-|$)"), operations)
    for parts, operations in (
        ("cyber|live|realtime|rosalind", ()),
        ("image", ()),
        ("codex|deep-research|pro", RESPONSES),
        ("audio|search", (CHAT,)),
    )
)

#: The chat tunings answer less and do not reason; _PAGES + gpt-5-chat-latest
_CHAT_TUNING: Final = re.compile(r"^gpt-5(?:\.\d)?-chat(?:-|$)")

#: Families whose names hold such a part and say themselves what they speak.
_OF_THEIR_OWN: Final = ("image", "realtime", "transcribe", "tts")


def facts_of(model: str, kind: str = "openai") -> ModelFacts | None:
    """What is known of a model by its name at a kind of provider, ``None`` where its family is not known.

    A model that speaks only endpoints that are not metered has no ``operations``.
    """
    if kind == "anthropic":
        return next((ANTHROPIC[name] for name in spellings(model) if name in ANTHROPIC), None)
    if kind == "gemini":
        names = spellings(model)
        return next((facts for pattern, facts in GEMINI for name in names if pattern.search(name)), None)
    return _openai_facts(usual(model).removeprefix("ft:"))


def _openai_facts(name: str) -> ModelFacts | None:
    if _CHAT_TUNING.match(name):
        return _chat(128_000, 16_384)
    family = name
    while family and family not in _FAMILIES:
        family = family.rpartition("-")[0]
    if not family:
        return None
    facts = _FAMILIES[family]
    if family.startswith("chatgpt-image") or any(part in family.split("-") for part in _OF_THEIR_OWN):
        return facts
    for pattern, operations in _SPEAKS:
        if pattern.search(name):
            return facts._replace(operations=operations)
    return facts


def cap_field_of(kind: str, facts: ModelFacts | None) -> str:
    """The body's field for an output cap in a chat: ``max_completion_tokens`` where model and provider know it.

    OpenAI knows it for every chat model. Azure knows it for reasoning models in every version of its API that offers
    them, and for the others only in recent versions, while all versions know ``max_tokens`` for those.
    """
    if facts is None or CHAT not in facts.operations:
        return "max_tokens"
    if facts.reasoning or (kind == "openai" and facts.encoding != "o200k_harmony"):
        return "max_completion_tokens"
    return "max_tokens"


def encodings_of_families() -> dict[str, tuple[str, ...]]:
    """Encoding → the families of models that have it, in order."""
    found: dict[str, list[str]] = {}
    for family, facts in _FAMILIES.items():
        if facts.encoding:
            found.setdefault(facts.encoding, []).append(family)
    return {encoding: tuple(sorted(families)) for encoding, families in found.items()}
