"""Reads ``multipart/form-data`` as a provider does, by the boundary of the header; its own reader, to check the gate's.

Takes what is well-formed and refuses the rest, as providers do. Pure.
"""

import re
from typing import NamedTuple

from faregate.simulator.asks import AskInvalid
from faregate.simulator.http1 import Request

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?')
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILENAME = re.compile(rb'[; ]filename="([^"]*)"')


class File(NamedTuple):
    """A part that is a file."""

    filename: str
    content: bytes


class Form(NamedTuple):
    """Fields and files by name, in order; ``image[]`` is found as ``image``."""

    fields: dict[str, list[str]]
    files: dict[str, list[File]]

    def field(self, name: str, default: str = "") -> str:
        """The last field of a name, as most servers have it."""
        return self.fields.get(name, [default])[-1]

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A field that is a whole number."""
        text = self.field(name)
        if not text:
            return None
        if not text.isdigit() or not least <= int(text) <= most:
            raise AskInvalid(f"Invalid '{name}': expected an integer from {least} to {most}.", name)
        return int(text)


def form_of(request: Request) -> Form:
    """The form that a request holds; ``AskInvalid`` where it is none."""
    found = _BOUNDARY.search(request.header("content-type"))
    if found is None or not request.header("content-type").lower().startswith("multipart/form-data"):
        raise AskInvalid("Could not parse multipart form: the content type names no boundary.")
    pieces = (b"\r\n" + request.body).split(b"\r\n--" + found[1].encode())
    if len(pieces) < 3 or pieces[0] or pieces[-1] not in (b"--", b"--\r\n"):
        raise AskInvalid("Could not parse multipart form: it is not closed by its boundary.")
    form = Form({}, {})
    for piece in pieces[1:-1]:
        head, blank, content = piece.partition(b"\r\n\r\n")
        name, filename = _NAME.search(head), _FILENAME.search(head)
        if not blank or name is None:
            raise AskInvalid("Could not parse multipart form: a part has no name.")
        key = name[1].decode("utf-8", "replace").removesuffix("[]")
        if filename is None:
            form.fields.setdefault(key, []).append(content.decode("utf-8", "replace"))
        else:
            form.files.setdefault(key, []).append(File(filename[1].decode("utf-8", "replace"), content))
    return form
