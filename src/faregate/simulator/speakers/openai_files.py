"""OpenAI's files: uploaded, listed, looked at, read and deleted. Pure.

A file is in ``Request.kept`` under its id; of all files together the newest ``FILES_BYTES_MAX`` are kept. Files of a
batch's results are put there by ``openai_batches``. (OpenAI, "API reference: Files".)
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from faregate.simulator.asks import Ask, AskInvalid
from faregate.simulator.forms import form_of
from faregate.simulator.http1 import Request
from faregate.simulator.plan import CREATED, Plan

_encode = msgspec.json.Encoder().encode

PURPOSES: Final = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
FILES_BYTES_MAX: Final = 256 * 1024 * 1024
LIST_MAX: Final = 10_000


class StoredFile:
    """A file that can be read again."""

    def __init__(self, id: str, filename: str, purpose: str, content: bytes) -> None:
        self.id = id
        self.filename = filename
        self.purpose = purpose
        self.content = content

    def described(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": CREATED,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": None,
            "status_details": None,
        }


def keep(kept: dict[str, Any], file: StoredFile) -> None:
    """Keep a file, and forget the oldest ones where all together are too large."""
    kept[file.id] = file
    files = [one for one in kept.values() if isinstance(one, StoredFile)]
    size = sum(len(one.content) for one in files)
    for one in files:
        if size <= FILES_BYTES_MAX:
            break
        size -= len(one.content)
        del kept[one.id]


def stored(request: Request, id: str, param: str = "id", status: int = 404) -> StoredFile:
    """The file of an id; ``AskInvalid`` where there is none."""
    file = request.kept.get(id)
    if not isinstance(file, StoredFile):
        raise AskInvalid(f"No such File object: {id[:64]}", param, status)
    return file


class _New:
    """An upload that gets its id with its answer."""

    def __init__(self, filename: str, purpose: str, content: bytes, kept: dict[str, Any]) -> None:
        self.filename = filename
        self.purpose = purpose
        self.content = content
        self.kept = kept


def read(request: Request, name: str) -> Ask:
    """What an upload asks."""
    del name
    form = form_of(request)
    purpose = form.field("purpose")
    if purpose not in PURPOSES:
        raise AskInvalid(f"'{purpose[:64]}' is not one of {list(PURPOSES)} - 'purpose'", "purpose")
    files = form.files.get("file", [])
    if len(files) != 1:
        raise AskInvalid("Expected exactly one file in 'file'.", "file")
    new = _New(files[0].filename, purpose, files[0].content, request.kept)
    return Ask("file", "", "", 0, facts=new)


def answer(plan: Plan) -> bytes:
    """The file as it is kept from now on."""
    new = plan.ask.facts
    if not isinstance(new, _New):
        return _encode({})
    file = StoredFile("file-" + plan.id, new.filename, new.purpose, new.content)
    keep(new.kept, file)
    return _encode(file.described())


def read_look(request: Request, name: str) -> Ask:
    """Look at a file, or read it."""
    return Ask("file.get", "", "", 0, facts=stored(request, name))


def answer_look(plan: Plan) -> bytes:
    """What is known of a file."""
    file: StoredFile = plan.ask.facts
    return _encode(file.described())


def answer_content(plan: Plan) -> bytes:
    """The bytes of a file."""
    file: StoredFile = plan.ask.facts
    return file.content


def content_type(plan: Plan) -> str:
    """Nobody knows what is in a file."""
    del plan
    return "application/octet-stream"


def read_delete(request: Request, name: str) -> Ask:
    """Forget a file."""
    file = stored(request, name)
    del request.kept[name]
    return Ask("file.delete", "", "", 0, facts=file)


def answer_delete(plan: Plan) -> bytes:
    """It is gone."""
    file: StoredFile = plan.ask.facts
    return _encode({"id": file.id, "object": "file", "deleted": True})


def read_list(request: Request, name: str) -> Ask:
    """List files, the newest first."""
    del name
    query = parse_qs(request.query)
    purpose = query.get("purpose", [""])[0]
    files = [one for one in request.kept.values() if isinstance(one, StoredFile) and purpose in ("", one.purpose)]
    if query.get("order", ["desc"])[0] != "asc":
        files.reverse()
    return Ask("file.list", "", "", 0, facts=page([one.described() for one in files], query, LIST_MAX, LIST_MAX))


def page(entries: list[dict[str, Any]], query: Mapping[str, list[str]], default: int, most: int) -> dict[str, Any]:
    """A page of a list, as the query says."""
    told = query.get("limit", [str(default)])[0]
    if not told.isdigit() or not 1 <= int(told) <= most:
        raise AskInvalid(f"Invalid 'limit': expected an integer from 1 to {most}.", "limit")
    after = query.get("after", [""])[0]
    if after:
        places = [place for place, entry in enumerate(entries) if entry["id"] == after]
        entries = entries[places[0] + 1 :] if places else []
    shown = entries[: int(told)]
    ends = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    more = len(shown) < len(entries)
    return {"object": "list", "data": shown, "first_id": ends[0], "last_id": ends[1], "has_more": more}


def answer_list(plan: Plan) -> bytes:
    """A page of files, or of batches."""
    return _encode(plan.ask.facts)


def no_usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """Storing and looking cost nothing."""
    del plan, delivered
    return {}
