"""Which operation a path names, and which are refused by name because nothing could meter them.

A path that is not declared in ``operations`` never reaches a provider: the gate is closed by construction
(CAPABILITIES M9).
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from faregate.dialects.operations import ANTHROPIC, AZURE, DECLARED, GEMINI, OPENAI, Declared
from faregate.dialects.services import below
from faregate.errors import Problem


class Operation(NamedTuple):
    """What a path asks for. ``shape`` is the form of its errors: ``openai``, ``azure_openai``, ``anthropic``, …"""

    name: str
    shape: str = "openai"
    #: The model or deployment that the path names, else empty.
    deployment: str = ""
    #: Passes to a provider, so it is held and settled.
    metered: bool = True
    #: The object that the path names.
    object_id: str = ""
    #: What is asked of a service behind the gate, whose name the operation has: the path below it and the query;
    #: ``None`` for everything else.
    below: str | None = None


#: A plain segment that is neither ``.`` nor ``..``, which servers and clients resolve in their own ways.
_SEGMENT: Final = rb"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.~-]{1,256}"
_ID: Final = rb"[A-Za-z0-9_-]{1,128}"


def _prefixes(operation: Declared) -> tuple[bytes, ...]:
    """What stands before an operation's path at the gate."""
    if GEMINI in operation.kinds:
        return (b"/v1beta", b"/v1")
    if ANTHROPIC in operation.kinds:
        return (b"/v1", b"/anthropic/v1")
    if AZURE in operation.kinds and operation.azure == "account":
        return (b"/v1", b"/openai/v1", b"/openai")
    return (b"/v1", b"/openai/v1")


def gate_paths(operation: Declared) -> list[str]:
    """The paths of an operation at the gate, those below an Azure deployment left out."""
    return [prefix.decode() + operation.path for prefix in _prefixes(operation)]


def _shape(operation: Declared) -> str:
    kind = operation.kinds[0]
    return kind if kind in (ANTHROPIC, GEMINI) else OPENAI


_MODELS: Final = Operation("models", metered=False)

#: What another reverse proxy asks, at its own path and, with the path of the request that it asks about, below that.
VERIFY: Final = "auth.verify"
_VERIFY: Final = Operation(VERIFY, metered=False)

#: (method, path) → operation, for the paths that nearly every call has.
_EXACT: Final = {
    (declared.method.encode(), prefix + declared.path.encode()): Operation(declared.name, _shape(declared))
    for declared in DECLARED
    if "{" not in declared.path
    for prefix in _prefixes(declared)
} | {
    (b"GET", b"/v1/models"): _MODELS,
    (b"GET", b"/openai/v1/models"): _MODELS,
    (b"GET", b"/openai/models"): _MODELS,
    (b"GET", b"/api/tokenize"): Operation("tokenize", metered=False),
    (b"POST", b"/api/tokenize"): Operation("tokenize", metered=False),
    (b"GET", b"/api/encodings"): Operation("encodings", metered=False),
    (b"GET", b"/auth/verify"): _VERIFY,
    (b"POST", b"/auth/verify"): _VERIFY,
    (b"GET", b"/health/live"): Operation("health.live", metered=False),
    (b"GET", b"/health/ready"): Operation("health.ready", metered=False),
}


def _methods() -> dict[bytes, str]:
    methods: dict[bytes, list[str]] = {}
    for method, path in _EXACT:
        methods.setdefault(path, []).append(method.decode())
    return {path: ", ".join(sorted(found)) for path, found in methods.items()}


_METHODS: Final = _methods()


def _pattern(operation: Declared) -> re.Pattern[bytes]:
    path = re.escape(operation.path.encode())
    path = path.replace(rb"\{id\}", rb"(?P<id>%b)" % _ID).replace(rb"\{model\}", rb"(?P<model>%b)" % _SEGMENT)
    return re.compile(rb"(?:%b)%b" % (rb"|".join(map(re.escape, _prefixes(operation))), path))


#: Those with a name in their path.
_NAMED: Final = tuple((_pattern(declared), declared) for declared in DECLARED if "{" in declared.path)

_BELOW_DEPLOYMENT: Final = {
    declared.path[1:].encode(): declared.name
    for declared in DECLARED
    if AZURE in declared.kinds and declared.azure == "deployment"
}
_AZURE: Final = re.compile(
    rb"(?:/%b)*?/deployments/(%b)/(%b)" % (_SEGMENT, _SEGMENT, rb"|".join(map(re.escape, _BELOW_DEPLOYMENT)))
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
    path, _, query = target.partition(b"?")
    operation = _EXACT.get((method, path))
    if operation is not None:
        return operation
    if path.startswith(b"/services/"):
        return _service(path, target)
    if path == b"/auth/verify" or path.startswith(b"/auth/verify/"):
        # Some proxies ask with the method, and below it with the path, of the request that they ask about.
        return _VERIFY
    azure = _AZURE.fullmatch(path)
    if azure is not None:
        if method != b"POST":
            return _wrong_method("POST")
        return Operation(_BELOW_DEPLOYMENT[azure[2]], "azure_openai", azure[1].decode())
    if path in _METHODS:
        return _wrong_method(_METHODS[path])
    named = _named(method, path, query)
    if named is not None:
        return named
    model = _MODEL.fullmatch(path)
    if model is not None:
        name = unquote_to_bytes(model[1]).decode()
        if not _DOTS.intersection(name.split("/")):
            if method != b"GET":
                return _wrong_method("GET")
            return Operation("models", deployment=name, metered=False)
    return _refused(path)


def _named(method: bytes, path: bytes, query: bytes) -> Operation | Problem | None:
    """The operation of a path with an object's or a model's name in it."""
    allowed: list[str] = []
    for pattern, declared in _NAMED:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        if declared.method.encode() != method:
            allowed.append(declared.method)
            continue
        groups = {name: value.decode() for name, value in found.groupdict().items()}
        if declared.name == "gemini.stream" and b"alt=sse" not in query.split(b"&"):
            return Problem("field_range", "alt: expected sse, as all clients send it; add ?alt=sse.", "alt")
        return Operation(declared.name, _shape(declared), groups.get("model", ""), object_id=groups.get("id", ""))
    return _wrong_method(", ".join(sorted(allowed))) if allowed else None


def _service(path: bytes, target: bytes) -> Operation | Problem:
    """What is asked of a service behind the gate; which of them there are is not known here."""
    found = below(target)
    if isinstance(found, Problem):
        return found
    return Operation(found.service, below=found.target) if found is not None else _refused(path)


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
        return unmetered(azure[1].decode("ascii", "replace")[:64])
    segments = path.decode().strip("/").split("/")
    if segments[:2] == ["openai", "v1"]:
        segments = segments[1:]
    if len(segments) > 1 and (
        (segments[0] == "v1" and segments[1] in _UNMETERED)
        or segments[0] in ("v1beta", "openai")
        or path.startswith(b"/api/")
    ):
        return unmetered("/".join(segments[1:])[:64])
    return _not_found()


def _wrong_method(allow: str) -> Problem:
    return Problem("method_not_allowed", f"Use {allow}.", details={"allow": allow})


def unmetered(name: str) -> Problem:
    """The refusal of what could not be measured."""
    return Problem("operation_unmetered", f"{name} is not metered yet, so it is not passed on.")


def _not_found() -> Problem:
    return Problem("not_found", "No such route; see the list of paths in the documentation.")
