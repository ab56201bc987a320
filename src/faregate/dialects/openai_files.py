"""OpenAI files: what an upload asks, what the answers of files name, and whose entries a list may show.

Storing costs nothing. A file of a batch is read line by line (``batch_lines``), so that a bad line is refused when it
is uploaded and not an hour later, and so that the batch made of it has a bound; what other files hold is of no interest
here. Training a model cannot be bounded, so a file for that is refused by name. (OpenAI, "API reference: Files".)
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, NO_USAGE
from faregate.dialects import answers, batch_lines, forms, kept
from faregate.dialects.batch_shapes import File, Listed
from faregate.dialects.forms import Form, Part
from faregate.dialects.jsonbody import DECODING_ERRORS
from faregate.dialects.kept import Made
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "files"

BATCH: Final = "batch"
PURPOSES: Final = ("assistants", BATCH, "evals", "user_data", "vision")
TRAINING: Final = ("fine-tune", "fine-tune-results")

#: Fields of which there can be only one reading.
_SINGLE: Final = frozenset(("file", "purpose"))

_file = msgspec.json.Decoder(File).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_listed = msgspec.json.Decoder(Listed).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What an upload asks, or why it is refused: nothing that costs.

    Of a batch's file, all lines are read, which takes its time: the call has their operation and model, which its
    caller must be allowed to use, what they name must be the caller's own, and ``facts`` say what they may cost.
    """
    form = forms.parse(body)
    if isinstance(form, Problem):
        return form
    problem = forms.steering(form, body, _SINGLE)
    if problem is not None:
        return problem
    purpose = _purpose(form, body)
    if isinstance(purpose, Problem):
        return purpose
    file = _file_in(form)
    if file is None:
        return missing("file", "a file")
    if file.filename is None:
        return expected("field_type", "file", "a file with a name", "a plain field")
    if not file.size:
        return expected("field_range", "file", "a file with something in it", "an empty one")
    call = Call(OPERATION, model, has_output=False, members=form.names, sealed=True)
    if purpose != BATCH:
        return call
    understood = batch_lines.read(body, file.start, file.end, forbid_private_urls=forbid_private_urls)
    if isinstance(understood, Problem):
        return understood
    facts = batch_lines.packed(understood.file)
    if len(facts) > kept.FACTS_BYTES_MAX:
        return unbounded("file", "so many different tools in one file", "send several batches")
    return call._replace(
        operation=understood.operation, model=understood.file.model, objects=understood.objects, facts=facts
    )


def _purpose(form: Form, body: bytes) -> str | Problem:
    purpose = forms.text(form, body, "purpose")
    if purpose is None:
        return missing("purpose", "what the file is for")
    if isinstance(purpose, Problem) or purpose in PURPOSES:
        return purpose
    if purpose in TRAINING:
        return unbounded("purpose", "training a model", "train it with the provider itself")
    return expected("field_enum", "purpose", f"one of {', '.join(PURPOSES)}", echo(purpose))


def _file_in(form: Form) -> Part | None:
    return next((part for part in form.parts if part.name == "file"), None)


def edit(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """The form with another model name in all lines of a batch's file, as ``batch_lines.renamed`` puts it there.

    The same object where nothing changes. Takes as long as reading the lines does.
    """
    del cap, cap_field, ask_usage
    if not call.facts:
        return body
    form = forms.parse(body)
    file = _file_in(form) if isinstance(form, Form) else None
    assert file is not None, "only a form that was read is edited"
    lines = batch_lines.renamed(body, model, file.start, file.end)
    whole = memoryview(body)
    if lines == whole[file.start : file.end]:
        return body
    return b"".join((whole[: file.start], lines, whole[file.end :]))


def prompt_text(body: bytes) -> list[str]:
    """An upload holds nothing that a model reads now."""
    del body
    return []


def prompt_tokens_overhead(body: bytes) -> int:
    """There is nothing to count, so no count shall take the place of a bound."""
    del body
    return COUNT_MAX


# -- answers -----------------------------------------------------------------------------------------------------------


def usage_of(body: bytes) -> Report:
    """Storing and looking use nothing; the id is told where the answer is a file. Never raises."""
    told = _file_of(body)
    return Report(NO_USAGE, id="" if told is None else answers.short(told.id))


def made(body: bytes) -> tuple[Made, ...]:
    """The file that an answer to an upload describes. Never raises."""
    told = _file_of(body)
    return () if told is None else (Made(told.id, kept.FILE),)


def answer_text(body: bytes) -> str:
    """What a file holds is no answer of a model's."""
    del body
    return ""


def _file_of(body: bytes) -> File | None:
    try:
        told = _file(body)
    except DECODING_ERRORS:
        return None
    return told if told.id and told.object in ("file", None) else None


def only_own(body: bytes, own: Callable[[str], bool]) -> bytes:
    """The answer of a list with only those entries whose id is ``own``; an answer of another shape shows nothing.

    For files and for batches. The entries stay as the provider wrote them; ``first_id`` and ``last_id`` name the first
    and the last that is left, where the provider told them.
    """
    try:
        members = _members(body)
        entries = _values(members["data"])
    except (*DECODING_ERRORS, KeyError):
        return b'{"object":"list","data":[],"has_more":false}'
    shown: list[tuple[str, msgspec.Raw]] = []
    for entry in entries:
        try:
            id = _listed(entry).id
        except DECODING_ERRORS:
            # What cannot be told to be the caller's is not shown to it.
            continue
        if own(id):
            shown.append((id, entry))
    written: dict[str, Any] = {"object": "list", "data": [entry for _, entry in shown]}
    for name, at in (("first_id", 0), ("last_id", -1)):
        if name in members:
            written[name] = shown[at][0] if shown else None
    written["has_more"] = bytes(members.get("has_more", b"false")) == b"true"
    return msgspec.json.encode(written)
