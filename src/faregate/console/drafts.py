"""The call that a quote is asked for: which operation is meant, and its body as it would be sent.

JSON bodies are the caller's own bytes. A form cannot stand in JSON, so it is drafted from figures: seconds of audio
become a file of that length, images become files of one picture each. A draft is read by the same dialect that reads
the real call, so that nothing about it is decided here.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from faregate.console.problems import ApiProblem, as_problem
from faregate.control import Catalogue
from faregate.core.call import Call
from faregate.core.usage import COUNT_MAX
from faregate.dialects import DIALECTS, Dialect, openai_audio
from faregate.dialects.operations import BY_NAME
from faregate.dialects.paths import Operation, route
from faregate.dialects.services import Place
from faregate.errors import Problem

#: One day of audio, and as many characters as the longest text that is spoken.
SECONDS_MAX: Final = 86_400
CHARACTERS_MAX: Final = 100_000
IMAGES_MAX: Final = 16

_BOUNDARY: Final = b"faregate-draft"
#: A picture that is drafted has this many pixels on a side, unless ``size`` says otherwise.
_SIDE: Final = 1_024

#: The member of our own body that holds the request.
REQUEST: Final = "request"

#: Four bytes of UTF-8: no text of so many characters is longer.
_WIDEST: Final = "\U0001f600"


class Draft(NamedTuple):
    """A call as its dialect read it, with the body that it would have."""

    operation: Operation
    #: ``None`` for a service behind the gate, whose bodies are bytes to everybody.
    dialect: Dialect | None
    call: Call
    body: bytes
    #: Made from figures: its text is not what will be sent, so that counting it would say nothing.
    figures: bool


def operation_of(endpoint: str) -> Operation:
    """The operation that a path of the gateway's, or its name, means.

    Raises:
        ApiProblem: there is none, or nothing could meter it.
    """
    if endpoint in BY_NAME:
        return Operation(endpoint)
    if not endpoint.startswith("/"):
        problem = f"expected a path such as /v1/chat/completions, or one of {', '.join(sorted(DIALECTS))}"
        raise ApiProblem("field_enum", problem, field="endpoint")
    found = route(b"POST", endpoint.encode("utf-8", "replace"))
    if isinstance(found, Problem) and found.code == "method_not_allowed":
        # What is only looked at has a path of its own; the first method that it takes will do.
        method = str((found.details or {})["allow"]).partition(",")[0]
        found = route(method.encode(), endpoint.encode("utf-8", "replace"))
    if isinstance(found, Problem):
        raise ApiProblem(found.code, found.message.rstrip("."), field="endpoint")
    return found


def draft(operation: Operation, raw: bytes, asked: Mapping[str, Any], *, forbid_private_urls: bool) -> Draft:
    """The call of ``operation`` with ``asked`` as its request; ``raw`` is the same as it stood in our body.

    Raises:
        ApiProblem: the gateway would refuse it, whoever sent it.
    """
    dialect = DIALECTS.get(operation.name)
    if dialect is None:
        raise ApiProblem("operation_unmetered", f"{operation.name} is not metered yet", field="endpoint")
    figures = True
    if dialect.media == "form":
        body = _form(operation.name, asked)
    elif operation.name == openai_audio.SPEECH and "characters" in asked:
        characters = _whole(asked, "characters", CHARACTERS_MAX)
        rest = {name: value for name, value in asked.items() if name != "characters"}
        body = msgspec.json.encode({**rest, "input": _WIDEST * characters})
    else:
        body, figures = raw, False
    call = dialect.read(body, operation.deployment, forbid_private_urls)
    if isinstance(call, Problem):
        raise as_problem(call, REQUEST)
    if call.job and call.objects and not call.whole_context:
        rule = "a job costs what its stored file holds; quote the calls in it"
        raise ApiProblem("feature_unbounded", rule, field=REQUEST)
    return Draft(operation, dialect, call, body, figures)


def service_draft(operation: Operation, catalogue: Catalogue, raw: bytes, asked: Mapping[str, Any]) -> Draft:
    """A call of a service behind the gate; ``{"bytes": n}`` stands for any body of that length.

    Raises:
        ApiProblem: there is no such service, or it would be refused whatever its method.
    """
    deployment = next((each for each in catalogue.deployments if each.name == operation.name), None)
    if deployment is None or deployment.service is None:
        raise ApiProblem("not_found", f"no service is called {operation.name}", field="endpoint")
    place = Place(deployment.name, deployment.service, "", {}, ())
    length = len(raw)
    if set(asked) == {"bytes"}:
        length = _whole(asked, "bytes", COUNT_MAX) if asked["bytes"] != 0 else 0
    problem = place.refusal(deployment.service.methods[0].encode(), {}, operation.below or "", length)
    if problem is not None:
        raise ApiProblem(problem.code, problem.message.rstrip("."), field="endpoint")
    return Draft(operation, None, place.call(length), b"", figures=True)


def _form(operation: str, asked: Mapping[str, Any]) -> bytes:
    """A form with the request's members as its fields, and files of the size that it tells."""
    fields = {name: value for name, value in asked.items() if name not in ("seconds", "images")}
    parts = [_field(name, value) for name, value in fields.items()]
    if operation.startswith("images."):
        count = _whole(asked, "images", IMAGES_MAX) if "images" in asked else 1
        name = "image" if count == 1 else "image[]"
        parts += [_file(name, "image.png", _picture(_SIDE, _SIDE)) for _ in range(count)]
    else:
        if "seconds" not in asked:
            raise ApiProblem("field_missing", "say how long the audio plays", field=f"{REQUEST}.seconds")
        parts.append(_file("file", "audio.wav", _audio(_whole(asked, "seconds", SECONDS_MAX))))
    return b"".join((*parts, b"--", _BOUNDARY, b"--\r\n"))


def _whole(asked: Mapping[str, Any], name: str, most: int) -> int:
    value = asked[name]
    if type(value) is not int or not 1 <= value <= most:
        raise ApiProblem("field_range", f"expected a whole number from 1 to {most}", field=f"{REQUEST}.{name}")
    return value


def _field(name: str, value: Any) -> bytes:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not name.isprintable() or '"' in name or "\\" in name or len(name) > 64 or _BOUNDARY.decode() in text:
        raise ApiProblem("field_unknown", "a form has no such field", field=REQUEST)
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (_BOUNDARY, name.encode())
    return head + text.encode("utf-8", "replace") + b"\r\n"


def _file(name: str, filename: str, content: bytes) -> bytes:
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n'
    return head % (_BOUNDARY, name.encode(), filename.encode()) + content + b"\r\n"


def _audio(seconds: int) -> bytes:
    """A WAV of so many seconds at one sample of one byte a second."""
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 1, 1, 1, 8) + struct.pack("<4sI", b"data", seconds)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunk) + seconds, b"WAVE") + chunk + bytes(seconds)


def _picture(width: int, height: int) -> bytes:
    """What tells the size of a PNG."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
