"""Which operation a path names, and which are refused by name because nothing could meter them.

A path that is not listed here never reaches a provider: the gate is closed by construction (CAPABILITIES M9).
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from faregate.errors import Problem


class Operation(NamedTuple):
    """What a path asks for. ``shape`` is the form of its errors: ``openai`` or ``azure_openai``."""

    name: str
    shape: str = "openai"
    #: The segment after ``deployments`` of an Azure path, the model of ``/v1/models/{model}``, else empty.
    deployment: str = ""
    #: Passes to a provider, so it is held and settled.
    metered: bool = True


_CHAT: Final = Operation("chat.completions")
_COMPLETIONS: Final = Operation("completions")
_EMBEDDINGS: Final = Operation("embeddings")
_MODELS: Final = Operation("models", metered=False)

#: (method, path) → operation, for the paths that nearly every call has.
_EXACT: Final = {
    (b"POST", prefix + path): operation
    for prefix in (b"/v1", b"/openai/v1")
    for path, operation in (
        (b"/chat/completions", _CHAT),
        (b"/completions", _COMPLETIONS),
        (b"/embeddings", _EMBEDDINGS),
    )
} | {
    (b"GET", b"/v1/models"): _MODELS,
    (b"GET", b"/openai/v1/models"): _MODELS,
    (b"GET", b"/openai/models"): _MODELS,
    (b"GET", b"/health/live"): Operation("health.live", metered=False),
    (b"GET", b"/health/ready"): Operation("health.ready", metered=False),
}

_METHODS: Final = {path: method.decode() for method, path in _EXACT}

#: A plain segment that is neither ``.`` nor ``..``, which servers and clients resolve in their own ways.
_SEGMENT: Final = rb"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.~-]{1,256}"
_AZURE: Final = re.compile(
    rb"(?:/%b)*?/deployments/(%b)/(chat/completions|completions|embeddings)" % (_SEGMENT, _SEGMENT)
)
_AZURE_ANY: Final = re.compile(rb"(?:/%b)*?/deployments/[^/]+/(.+)" % _SEGMENT)
#: Clients escape the slashes and colons of model names; nothing is resolved from this path, so they may.
_MODEL: Final = re.compile(rb"(?:/openai)?/v1/models/((?:[A-Za-z0-9_.:@/-]|%2[Ff]|%3[Aa]|%40){1,256})")

#: First segments of what model services offer besides; each is refused by its name until it can be metered.
_UNMETERED: Final = frozenset(
    """
    responses images audio moderations files uploads batches fine_tuning fine-tunes assistants threads vector_stores
    realtime rerank messages evals containers conversations videos organization engines edits answers search
    classifications completions chat embeddings chatkit graders extensions
    """.split()
)

PATH_BYTES_MAX: Final = 8192

_NEVER_IN_PATHS: Final = frozenset("%\\# ")
_DOTS: Final = frozenset((".", ".."))
_CANONICAL: Final = re.compile(rb"(?:/[A-Za-z0-9_.:@~!$&'()*+,;=-]+)+")


def route(method: bytes, target: bytes) -> Operation | Problem:
    """The operation of a request, or why there is none."""
    path = target.partition(b"?")[0]
    operation = _EXACT.get((method, path))
    if operation is not None:
        return operation
    azure = _AZURE.fullmatch(path)
    if azure is not None:
        if method != b"POST":
            return _wrong_method("POST")
        return Operation(azure[2].decode().replace("/", "."), "azure_openai", azure[1].decode())
    if path in _METHODS:
        return _wrong_method(_METHODS[path])
    model = _MODEL.fullmatch(path)
    if model is not None:
        name = unquote_to_bytes(model[1]).decode()
        if not _DOTS.intersection(name.split("/")):
            if method != b"GET":
                return _wrong_method("GET")
            return Operation("models", deployment=name, metered=False)
    return _refused(path)


def _refused(path: bytes) -> Problem:
    text = path.decode("latin-1")
    if len(path) > PATH_BYTES_MAX:
        return Problem("uri_too_long", f"Path exceeds {PATH_BYTES_MAX} bytes; shorten it.")
    if (
        not path.startswith(b"/")
        or not (text.isascii() and text.isprintable())
        or not _NEVER_IN_PATHS.isdisjoint(text)
        or _DOTS.intersection(text.split("/"))
    ):
        return Problem("uri_invalid", "Path is not valid: it must be plain, without escapes or dot segments.")
    if _CANONICAL.fullmatch(path) is None:
        return _not_found()
    azure = _AZURE_ANY.fullmatch(path)
    if azure is not None:
        return _unmetered(azure[1].decode("ascii", "replace")[:64])
    segments = path.decode().strip("/").split("/")
    if segments[:2] == ["openai", "v1"]:
        segments = segments[1:]
    if len(segments) > 1 and (
        (segments[0] == "v1" and segments[1] in _UNMETERED)
        or segments[0] in ("v1beta", "openai", "services")
        or path.startswith(b"/api/")
    ):
        return _unmetered("/".join(segments[1:])[:64])
    return _not_found()


def _wrong_method(allow: str) -> Problem:
    return Problem("method_not_allowed", f"Use {allow}.", details={"allow": allow})


def _unmetered(name: str) -> Problem:
    return Problem("operation_unmetered", f"{name} is not metered yet, so it is not passed on.")


def _not_found() -> Problem:
    return Problem("not_found", "No such route; see the list of paths in the documentation.")
