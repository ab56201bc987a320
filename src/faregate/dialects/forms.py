"""Bodies of ``multipart/form-data`` (RFC 7578, RFC 2046): where each part stands in them, read strictly.

Parts are offsets into the body, so that a file is never copied. Two readers of one form must not see two forms: what
some server might read in another way (a delimiter after a bare line feed, a name that stands twice, an escaped quote,
text before the first part) is refused here, by name and with the way out. Knows no field of any dialect.

Our own, after a look at the two libraries that are kept well: one hands out copies of every file, the other leaves the
strictness to its caller, and both parse what arrives in pieces, which a body that is here whole does not need.
"""

import re
from typing import Final, NamedTuple

import msgspec

from faregate.core.call import Call
from faregate.dialects import fields
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

#: More parts than any documented request has: 16 images, a mask, and every field several times.
PARTS_MAX: Final = 128
#: Of one part; a name, a file name and a content type fit many times over.
HEADER_BYTES_MAX: Final = 4096
HEADER_LINES_MAX: Final = 8
NAME_CHARACTERS_MAX: Final = 256
#: A field that is read is text of at most this size; prompts are at most 32,000 characters.
FIELD_BYTES_MAX: Final = 256 * 1024

_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_PARAMETER: Final = re.compile(
    rb';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"([^"]*)"|([!#$%&\'*+.^_`|~0-9A-Za-z-]+))[ \t]*'
)
_TRANSFER_ENCODINGS: Final = (b"7bit", b"8bit", b"binary")
_CHARSETS: Final = (b"utf-8", b"utf8", b"us-ascii")


class Part(NamedTuple):
    """One part; its content stands from ``start`` to ``end`` of the body."""

    name: str
    #: ``None`` for a field.
    filename: str | None
    content_type: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.end - self.start


class Form(NamedTuple):
    """A whole form."""

    boundary: bytes
    parts: tuple[Part, ...]

    def named(self, name: str) -> list[Part]:
        """The parts of a name, and of the name as one of a list: ``image``, ``image[]``, ``image[0]``."""
        return [part for part in self.parts if part.name == name or part.name.startswith(name + "[")]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parts, each once, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts))


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary that a ``Content-Type`` of ``multipart/form-data`` names, ``None`` without one."""
    essence, _, rest = content_type.partition(b";")
    if essence.strip().lower() != b"multipart/form-data":
        return None
    found = _parameters(b";" + rest) if rest else None
    boundary = found.get(b"boundary") if found else None
    return boundary if boundary and _BOUNDARY.fullmatch(boundary) else None


def announced(content_type: bytes, body: bytes) -> bool:
    """Whether the boundary that the header names is the one that the body uses.

    Readers of a form get the body alone and take the boundary from its first line, so this must be asked once, where
    the header is known: a provider goes by the header.
    """
    boundary = boundary_of(content_type)
    return boundary is not None and body.startswith(b"--" + boundary + b"\r\n")


def parse(body: bytes) -> Form | Problem:
    """All parts of a form, or why it cannot be read. Linear in the size of the body; never raises."""
    if not body:
        return Problem("body_empty", "Body is empty; send a form (multipart/form-data).")
    first = body.find(b"\r\n", 0, 2 + 70 + 2)
    boundary = body[2:first]
    if not body.startswith(b"--") or first < 0 or not _BOUNDARY.fullmatch(boundary):
        return _invalid("it does not begin with a delimiter line of 1 to 70 characters")
    delimiter = b"--" + boundary
    parts: list[Part] = []
    at = first + 2
    while True:
        if len(parts) == PARTS_MAX:
            return _invalid(f"it has more than {PARTS_MAX} parts")
        end = body.find(delimiter, at)
        if end < 0:
            return _invalid("it has no closing delimiter")
        # Whatever looks like a delimiter must be one: other readers are content with a bare line feed before it.
        if body[end - 2 : end] != b"\r\n" or end - 2 < at:
            return _invalid(f"its delimiter stands inside part {len(parts) + 1}; choose another boundary")
        part = _part(body, at, end - 2, len(parts) + 1)
        if isinstance(part, Problem):
            return part
        parts.append(part)
        at = end + len(delimiter) + 2
        mark = body[at - 2 : at]
        if mark == b"--":
            break
        if mark != b"\r\n":
            return _invalid(f"its delimiter stands inside part {len(parts)}; choose another boundary")
    if len(body) > at and (len(body) > at + 2 or body[at:] != b"\r\n"):
        return _invalid("something follows its closing delimiter")
    return Form(boundary, tuple(parts))


def _part(body: bytes, start: int, end: int, number: int) -> Part | Problem:
    """The part whose header and content stand from ``start`` to ``end``."""
    stop = body.find(b"\r\n\r\n", start, min(end, start + HEADER_BYTES_MAX))
    if stop < 0:
        return _invalid(f"part {number} has no header, or one of more than {HEADER_BYTES_MAX} bytes")
    lines = body[start:stop].split(b"\r\n")
    if len(lines) > HEADER_LINES_MAX:
        return _invalid(f"part {number} has more than {HEADER_LINES_MAX} header lines")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            return _invalid(f"part {number} has a header line that is none")
        if header[1].lower() in headers:
            return _invalid(f"part {number} has a header twice")
        headers[header[1].lower()] = header[2].strip()
    return _described(headers, stop + 4, end, number)


def _described(headers: dict[bytes, bytes], start: int, end: int, number: int) -> Part | Problem:
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _TRANSFER_ENCODINGS:
        return _invalid(f"part {number} has a Content-Transfer-Encoding; send its bytes as they are")
    content_type = headers.get(b"content-type", b"")
    if content_type[:10].lower() == b"multipart/":
        return _invalid(f"part {number} is a form of its own; send its parts one by one")
    kind, semicolon, rest = headers.get(b"content-disposition", b"").partition(b";")
    found = _parameters(semicolon + rest)
    if kind.strip().lower() != b"form-data" or found is None or b"name" not in found or b"name*" in found:
        return _invalid(f"part {number} has no Content-Disposition: form-data with one plain name")
    try:
        name = found[b"name"].decode()
        filename = found.get(b"filename", found.get(b"filename*"))
        told = None if filename is None else filename.decode("utf-8", "replace")
    except UnicodeDecodeError:
        return Problem("json_utf8", f"Form is not valid: the name of part {number} is not UTF-8; send UTF-8.")
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        return _invalid(f"the name of part {number} is not 1 to {NAME_CHARACTERS_MAX} printable characters")
    return Part(name, told, content_type.decode("latin-1"), start, end)


def _parameters(text: bytes) -> dict[bytes, bytes] | None:
    """``; a=b; c="d"`` as a mapping; ``None`` where it is not of that form, names one twice or escapes a quote."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            return None
        name, quoted, plain = match.groups()
        # A backslash before the closing quote escapes it for some readers and ends the value for others.
        escapes = quoted is not None and (quoted.endswith(b"\\") or (b"\\" in quoted and name.lower() == b"name"))
        if escapes or name.lower() in found:
            return None
        found[name.lower()] = plain if quoted is None else quoted
        at = match.end()
    return found


def _invalid(why: str) -> Problem:
    return Problem("form_invalid", f"Form is not valid: {why}.")


# -- fields ------------------------------------------------------------------------------------------------------------


def steering(form: Form, body: bytes, single: frozenset[str]) -> Problem | None:
    """The refusal of names that steer a call past the gate, and of those in ``single`` that stand twice or as lists."""
    members = dict.fromkeys(form.names, msgspec.Raw(b"null"))
    for part in form.parts:
        if part.name in ("extra_body", "metadata"):
            members[part.name] = msgspec.Raw(body[part.start : part.end].strip())
    problem = fields.steering(members)
    if problem is not None:
        return problem
    seen: set[str] = set()
    for part in form.parts:
        name, bracket, _ = part.name.partition("[")
        if name in single:
            if bracket:
                return expected("field_type", echo(part.name), f"the plain field {name}", "a list", "send it once")
            if name in seen:
                return expected("field_conflict", name, "one field of that name", "several", "send it once")
            seen.add(name)
        elif name == "_charset_":
            return _invalid("it names an encoding in _charset_; send UTF-8 without it")
    return None


def text(form: Form, body: bytes, name: str) -> str | Problem | None:
    """The text of a field that stands once; ``None`` where it is not there."""
    for part in form.parts:
        if part.name == name:
            if part.size > FIELD_BYTES_MAX:
                return expected("field_range", name, f"at most {FIELD_BYTES_MAX} bytes", str(part.size))
            charset = _charset(part.content_type.encode("latin-1"))
            try:
                if charset not in _CHARSETS:
                    raise UnicodeError
                return body[part.start : part.end].decode()
            except UnicodeError:
                return Problem("json_utf8", f"{name}: the text is not UTF-8; send UTF-8.", param=name)
    return None


def _charset(content_type: bytes) -> bytes:
    _, semicolon, rest = content_type.partition(b";")
    found = _parameters(semicolon + rest)
    return b"" if found is None else found.get(b"charset", b"utf-8").lower()


def name_of_model(form: Form, body: bytes, path_model: str) -> str | Problem:
    """The model that the path or the field ``model`` names: 1 to 256 printable characters."""
    if path_model:
        return path_model
    told = text(form, body, "model")
    if told is None:
        return missing("model", "the name of a model")
    if isinstance(told, Problem):
        return told
    if 0 < len(told) <= NAME_CHARACTERS_MAX and told.isprintable():
        return told
    return expected("field_range", "model", f"1 to {NAME_CHARACTERS_MAX} printable characters", "something else")


def opened(body: bytes, path_model: str, single: frozenset[str]) -> tuple[Form, str] | Problem:
    """A form that is about a model, and that model's name, or why it is refused (``steering``, ``standard_tier``)."""
    form = parse(body)
    if isinstance(form, Problem):
        return form
    problem = steering(form, body, single) or standard_tier(form, body)
    if problem is not None:
        return problem
    name = name_of_model(form, body, path_model)
    return name if isinstance(name, Problem) else (form, name)


def count(form: Form, body: bytes, name: str, least: int, most: int) -> int | Problem | None:
    """A whole number from ``least`` to ``most``, in ASCII digits; ``None`` where it is not there or empty."""
    told = text(form, body, name)
    if isinstance(told, Problem):
        return told
    if not told:
        return None
    wanted = f"a whole number from {least} to {most}"
    if len(told) > 12 or not told.isascii() or not told.isdigit():
        return expected("field_type", name, wanted, echo(told))
    number = int(told)
    return number if least <= number <= most else expected("field_range", name, wanted, echo(told))


def flag(form: Form, body: bytes, name: str) -> bool | Problem:
    """True or false, as form-minded clients spell it."""
    told = text(form, body, name)
    if isinstance(told, Problem):
        return told
    spelt = (told or "").strip().lower()
    if spelt in ("", "false", "0", "no", "off", "null"):
        return False
    if spelt in ("true", "1", "yes", "on"):
        return True
    return expected("field_type", name, "true or false", echo(spelt))


def standard_tier(form: Form, body: bytes) -> Problem | None:
    """The refusal of a service tier: no operation that takes forms has prices for one."""
    told = text(form, body, "service_tier")
    if isinstance(told, Problem) or told in (None, "", "auto", "default"):
        return told if isinstance(told, Problem) else None
    return unbounded("service_tier", f"the tier {echo(told)}", "leave it out")


def end_user(form: Form, body: bytes) -> str | Problem:
    """The caller's own name for its customer: ``user``, or ``safety_identifier`` which OpenAI renamed it to."""
    for path in ("user", "safety_identifier"):
        told = text(form, body, path)
        if isinstance(told, Problem):
            return told
        if told and (len(told) > NAME_CHARACTERS_MAX or not told.isprintable()):
            wanted = f"at most {NAME_CHARACTERS_MAX} printable characters"
            return expected("field_range", path, wanted, "something else")
        if told:
            return told
    return ""


# -- edits -------------------------------------------------------------------------------------------------------------


def edit(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """``body`` with another model name; the same object where that changes nothing.

    A form has no other field that forwarding needs: a cap or a request for usage is never put into one.
    """
    del call, cap, cap_field, ask_usage
    if model is None:
        return body
    form = parse(body)
    assert isinstance(form, Form), "only a body that a dialect has read is edited"
    value = model.encode()
    for part in form.parts:
        if part.name == "model":
            if body[part.start : part.end] == value:
                return body
            return b"".join((memoryview(body)[: part.start], value, memoryview(body)[part.end :]))
    field = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (form.boundary, value)
    return field + body
