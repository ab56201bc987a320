"""Every operation that the gate passes on: its path at the gate, its path at each kind of provider, how it is metered.

A path that is not listed here never reaches a provider: the gate is closed by construction (CAPABILITIES M9). Paths are
written as people write them, with ``{model}`` for a deployment or model and ``{id}`` for an object that the provider
keeps. Which bytes a request has, and what they cost, is the dialect's to say.
"""

from typing import Final, NamedTuple

#: Kinds of providers (``Provider.kind``).
OPENAI: Final = "openai"
AZURE: Final = "azure_openai"
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"
HTTP: Final = "http"


class Declared(NamedTuple):
    """One operation, declared."""

    name: str
    method: str
    #: Below ``/v1`` and ``/openai/v1`` at the gate, and below the base URL of a provider that speaks the format.
    path: str
    #: Kinds of providers that know it.
    kinds: tuple[str, ...] = (OPENAI, AZURE)
    #: On Azure: ``deployment`` (below ``/openai/deployments/{model}``) or ``account`` (below ``/openai/v1``).
    azure: str = "deployment"
    #: How its use is measured, in words: what ``docs/reference`` and the route test show.
    meter: str = "tokens, as the answer reports them"
    #: A look at, or the end of, something that was charged when it was made: costs nothing, and its object must be the
    #: caller's own.
    free: bool = False


_FREE: Final = "nothing: what it names was charged when it was made"

DECLARED: Final[tuple[Declared, ...]] = (
    Declared("chat.completions", "POST", "/chat/completions"),
    Declared("completions", "POST", "/completions"),
    Declared("embeddings", "POST", "/embeddings"),
    Declared("responses", "POST", "/responses", azure="account"),
    Declared("responses.get", "GET", "/responses/{id}", azure="account", meter=_FREE, free=True),
    Declared("responses.items", "GET", "/responses/{id}/input_items", azure="account", meter=_FREE, free=True),
    Declared("responses.cancel", "POST", "/responses/{id}/cancel", azure="account", meter=_FREE, free=True),
    Declared("responses.delete", "DELETE", "/responses/{id}", azure="account", meter=_FREE, free=True),
    Declared("images.generations", "POST", "/images/generations", meter="images by size and quality, or tokens"),
    Declared("images.edits", "POST", "/images/edits", meter="images by size and quality, or tokens"),
    Declared("images.variations", "POST", "/images/variations", (OPENAI,), meter="images by size"),
    Declared("audio.transcriptions", "POST", "/audio/transcriptions", meter="seconds of audio, or tokens"),
    Declared("audio.translations", "POST", "/audio/translations", meter="seconds of audio"),
    Declared("audio.speech", "POST", "/audio/speech", meter="characters of input, or tokens"),
    Declared("moderations", "POST", "/moderations", (OPENAI,), meter="calls, at a price of their own or none"),
    Declared("rerank", "POST", "/rerank", (OPENAI,), meter="search units or tokens, as the answer reports them"),
    Declared(
        "realtime",
        "GET",
        "/realtime",
        azure="account",
        meter="tokens of each response, as its end reports them; seconds or tokens of each transcript",
    ),
    Declared("files", "POST", "/files", azure="account", meter="nothing: storing is not billed", free=True),
    Declared("files.list", "GET", "/files", azure="account", meter=_FREE, free=True),
    Declared("files.get", "GET", "/files/{id}", azure="account", meter=_FREE, free=True),
    Declared("files.content", "GET", "/files/{id}/content", azure="account", meter=_FREE, free=True),
    Declared("files.delete", "DELETE", "/files/{id}", azure="account", meter=_FREE, free=True),
    Declared("batches", "POST", "/batches", azure="account", meter="each line of its file, held until it is done"),
    Declared("batches.list", "GET", "/batches", azure="account", meter=_FREE, free=True),
    Declared("batches.get", "GET", "/batches/{id}", azure="account", meter=_FREE, free=True),
    Declared("batches.cancel", "POST", "/batches/{id}/cancel", azure="account", meter=_FREE, free=True),
    Declared("messages", "POST", "/messages", (ANTHROPIC,)),
    Declared(
        "messages.count_tokens",
        "POST",
        "/messages/count_tokens",
        (ANTHROPIC,),
        meter="nothing: counting is not billed",
        free=True,
    ),
    Declared("gemini.generate", "POST", "/models/{model}:generateContent", (GEMINI,)),
    Declared("gemini.stream", "POST", "/models/{model}:streamGenerateContent", (GEMINI,)),
    Declared("gemini.embed", "POST", "/models/{model}:embedContent", (GEMINI,)),
    Declared("gemini.batch_embed", "POST", "/models/{model}:batchEmbedContents", (GEMINI,)),
    Declared(
        "gemini.count_tokens",
        "POST",
        "/models/{model}:countTokens",
        (GEMINI,),
        meter="nothing: counting is not billed",
        free=True,
    ),
)

#: Any HTTP service that is configured: its operation has the name of the service, and its methods and paths are the
#: configuration's to say (``dialects.services``).
SERVICES: Final = Declared(
    "{service}",
    "*",
    "/services/{service}/…",
    (HTTP,),
    meter="calls, busy time, bytes both ways, and the units that its answer tells",
)

BY_NAME: Final = {operation.name: operation for operation in DECLARED}

#: What concerns objects that a provider keeps: it goes where the object lies, or to a provider rather than to a model.
ABOUT_OBJECTS: Final = frozenset(
    declared.name for declared in DECLARED if "{id}" in declared.path or declared.path in ("/files", "/batches")
)
#: Those of them that cost nothing: what they name was charged when it was made, or is not billed at all.
LOOKS: Final = frozenset(name for name in ABOUT_OBJECTS if BY_NAME[name].free)
#: Those that end an object.
ENDS: Final = frozenset(name for name in ABOUT_OBJECTS if BY_NAME[name].method == "DELETE")
#: What brings the calls of a batch, line by line.
FILES: Final = "files"
#: The service tier that prices what an operation makes, where the model has a price for it.
TIERS: Final = {"batches": "batch"}


def upstream_path(kind: str, name: str, model: str, api_version: str, object_id: str = "") -> str:
    """The path of an operation below a provider's base URL; ``model`` is what the provider calls the deployment."""
    operation = BY_NAME[name]
    path = operation.path.replace("{id}", object_id)
    if kind == AZURE:
        if operation.azure == "account":
            return f"/openai/v1{path}"
        return f"/openai/deployments/{model}{path}?api-version={api_version}"
    return path.replace("{model}", model) + ("?alt=sse" if name == "gemini.stream" else "")
