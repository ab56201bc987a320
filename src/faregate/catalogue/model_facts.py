"""What there is to know of a model beside its price, and which operations there are to ask of one.

The names of operations are those of ``dialects.operations``; a test holds the two against each other.
"""

from typing import Final, NamedTuple

CHAT: Final = "chat.completions"
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"
#: A response, and the looks at it that cost nothing.
RESPONSES: Final = ("responses", "responses.get", "responses.items", "responses.cancel", "responses.delete")
IMAGES: Final = ("images.generations", "images.edits")
VARIATIONS: Final = "images.variations"
TRANSCRIPTIONS: Final = "audio.transcriptions"
TRANSLATIONS: Final = "audio.translations"
SPEECH: Final = "audio.speech"
MODERATIONS: Final = "moderations"
RERANK: Final = "rerank"
REALTIME: Final = "realtime"
#: What is stored and worked off at a provider without naming a model.
FILES: Final = ("files", "files.list", "files.get", "files.content", "files.delete")
BATCHES: Final = ("batches", "batches.list", "batches.get", "batches.cancel")
MESSAGES: Final = ("messages", "messages.count_tokens")
GENERATE: Final = ("gemini.generate", "gemini.stream", "gemini.count_tokens")
EMBED: Final = ("gemini.embed", "gemini.batch_embed", "gemini.count_tokens")

#: Operations of OpenAI's that Azure does not have.
_NOT_AT_AZURE: Final = frozenset((VARIATIONS, MODERATIONS, RERANK))

_OPENAI: Final = (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    *RESPONSES,
    *IMAGES,
    VARIATIONS,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    SPEECH,
    MODERATIONS,
    RERANK,
    REALTIME,
)

#: Kind → everything that can be asked of some model there.
OPERATIONS: Final[dict[str, tuple[str, ...]]] = {
    "openai": _OPENAI,
    "azure_openai": tuple(name for name in _OPENAI if name not in _NOT_AT_AZURE),
    "anthropic": MESSAGES,
    "gemini": (*GENERATE, *EMBED[:2]),
}

#: Kind → what is asked without naming a model.
WITHOUT_MODEL: Final[dict[str, tuple[str, ...]]] = {
    "openai": (*FILES, *BATCHES),
    "azure_openai": (*FILES, *BATCHES),
}

_TALK: Final = frozenset((frozenset(("requests",)), frozenset(("input_tokens", "output_tokens"))))
_READ: Final = frozenset((frozenset(("requests",)), frozenset(("input_tokens",))))


def _or(units: frozenset[frozenset[str]], *more: str) -> frozenset[frozenset[str]]:
    return units | {frozenset((unit,)) for unit in more}


#: Operation → the sets of units any of which prices all of it. What is free needs what comes before it.
_PRICED_BY: Final = {
    CHAT: _TALK,
    COMPLETIONS: _TALK,
    REALTIME: _TALK,
    **dict.fromkeys((*RESPONSES, *MESSAGES, *GENERATE[:2]), _TALK),
    EMBEDDINGS: _READ,
    **dict.fromkeys((*EMBED, GENERATE[2]), _READ),
    IMAGES[0]: _or(_TALK, "images"),
    IMAGES[1]: _or(_TALK, "images"),
    VARIATIONS: _or(_TALK, "images"),
    TRANSCRIPTIONS: _or(_TALK, "seconds"),
    TRANSLATIONS: _or(_TALK, "seconds"),
    SPEECH: _or(_TALK, "characters", "seconds"),
    MODERATIONS: _READ,
    RERANK: _or(_READ, "search_units"),
}


def priced_operations(operations: tuple[str, ...], units: frozenset[str]) -> tuple[str, ...]:
    """Those of ``operations`` of which nothing is free by accident where ``units`` have a price."""
    return tuple(name for name in operations if any(needed <= units for needed in _PRICED_BY[name]))


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
