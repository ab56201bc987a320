"""``faregate verify``: proof that nothing booked was changed, and that the books add up and equal the journal."""

import json as json_text
import string
from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json
from faregate.cli.progress import progress
from faregate.cli.words import numbered
from faregate.errors import Failed, UsageError

_FIGURES = ("ok", "requests", "postings", "held", "unknown", "sum", "anchor")

_HASH_CHARACTERS = 64

#: A file with an anchor is what ``verify --json`` printed, or the hash alone.
_ANCHOR_BYTES_MAX = 1024 * 1024

_POLL_S = 0.5


def command(
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|HASH",
            help="Prove that these books go on from an earlier anchor: what --json printed then, or its hash.",
        ),
    ] = None,
    data: Where = None,
    json: Json = False,
) -> int:
    """Prove that nothing booked was changed, and that the books add up and equal the journal: exit 1 where not.

    Keep the anchor that it prints on another machine: with it a later run proves that the books of today are a part of
    the books of then.
    """
    hash = _anchor_of(anchor) if anchor is not None else None
    with connect(data) as client, progress("rows", shown=not json) as tell:

        def look(shape: dict[str, Any]) -> None:
            tell(shape["rows"], shape["of"])

        found = client.watched("/verify", {"anchor": hash}, "/verify/progress", look, _POLL_S)
    wrong = [check for check in found["checks"] if not check["ok"]]
    if json:
        shown = {name: found[name] for name in _FIGURES}
        emit_json(shown if found["ok"] else {**shown, "checks": wrong})
    else:
        for check in found["checks"]:
            emit(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']:<16} {check['detail']}")
        word = "ok" if found["ok"] else "NOT OK"
        figures = f"{numbered(found['requests'], 'request')}, {numbered(found['postings'], 'posting')}"
        emit(f"{figures}, held {found['held']}: {word}")
        emit(f"anchor {found['anchor']['number']} {found['anchor']['hash']} {found['anchor']['at']}")
    return 0 if found["ok"] else Failed.exit_code


def _anchor_of(text: str) -> str:
    """The hash that is meant: the text itself, or what is in the file of that name.

    Raises:
        UsageError: it is neither.
    """
    if _is_hash(text):
        return text.strip().lower()
    try:
        with Path(text).open("rb") as file:
            content = file.read(_ANCHOR_BYTES_MAX).decode(errors="replace").strip()
    except OSError as problem:
        raise UsageError(f"--anchor is neither a hash nor a file that can be read: {problem.strerror}") from problem
    if _is_hash(content):
        return content.lower()
    try:
        told = json_text.loads(content)
        hash = (told.get("anchor") or told)["hash"]
    except (ValueError, AttributeError, KeyError, TypeError):
        hash = None
    if not isinstance(hash, str) or not _is_hash(hash):
        raise UsageError(f"{text} holds no anchor", hint="keep what `faregate verify --json` prints")
    return hash.lower()


def _is_hash(text: str) -> bool:
    return len(text.strip()) == _HASH_CHARACTERS and set(text.strip().lower()) <= set(string.hexdigits.lower())
