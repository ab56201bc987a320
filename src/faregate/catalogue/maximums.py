"""How long a model's context and answer can be, and how it wants to be asked.

No price list carries these facts, so they are kept here by model family, each with the page it was read from. A dated
or fine-tuned name follows its family. Numbers that are not known are 0: a bound is never guessed downwards.
"""

import re
from typing import Final, NamedTuple

CHAT: Final = "chat.completions"
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"


class ModelFacts(NamedTuple):
    """What a model family can do at most, and by which names."""

    context_tokens_max: int
    output_tokens_max: int
    #: Tokenizer encoding, empty where none is known.
    encoding: str
    #: Operations that the gate can meter for it.
    operations: tuple[str, ...]
    #: A reasoning model refuses ``max_tokens``.
    reasoning: bool = False


_O200K: Final = "o200k_base"
_CL100K: Final = "cl100k_base"
# _PAGES below stands for https://developers.openai.com/api/docs/models/


def _chat(context: int, output: int, encoding: str = _O200K, *, reasoning: bool = False) -> ModelFacts:
    return ModelFacts(context, output, encoding, (CHAT,), reasoning)


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
    # One input has at most 8,192 tokens, but a call has many inputs: as a bound of a call it would be too low.
    # https://developers.openai.com/api/docs/guides/embeddings
    "text-embedding-3-large": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
    "text-embedding-3-small": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
    "text-embedding-ada-002": ModelFacts(0, 0, _CL100K, (EMBEDDINGS,)),
}

#: Parts of a name that mean another endpoint than those metered here, or units that they do not report.
_OTHER_ENDPOINT: Final = re.compile(
    r"-(?:audio|codex|cyber|deep-research|image|live|pro|realtime|rosalind|search|transcribe|tts)(?:-|$)"
)

#: The chat tunings answer less and do not reason; _PAGES + gpt-5-chat-latest
_CHAT_TUNING: Final = re.compile(r"^gpt-5(?:\.\d)?-chat(?:-|$)")

_FINE_TUNED: Final = re.compile(r"^ft:([^:]+)")
#: Azure writes gpt-35-turbo, and several price lists write gpt-5-4 for gpt-5.4.
_DASHED_VERSION: Final = re.compile(r"^gpt-(?:(3)(5)(?=-turbo)|(\d)-(\d)(?=-|$))")


def facts_of(model: str) -> ModelFacts | None:
    """What is known of a model of OpenAI's by its name, ``None`` where its family is not known.

    A model that speaks only endpoints that are not metered has no ``operations``.
    """
    name = model.lower()
    tuned = _FINE_TUNED.match(name)
    if tuned:
        name = tuned[1]
    name = _DASHED_VERSION.sub(lambda match: "gpt-" + ".".join(part for part in match.groups() if part), name)
    if _CHAT_TUNING.match(name):
        return _chat(128_000, 16_384)
    family = name
    while family and family not in _FAMILIES:
        family = family.rpartition("-")[0]
    if not family:
        return None
    facts = _FAMILIES[family]
    if _OTHER_ENDPOINT.search(name):
        return facts._replace(operations=())
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
