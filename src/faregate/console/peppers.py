"""``/api/v1/peppers``: how many keys hang on which pepper, so that an old one can be retired without harm.

A key's details note the fingerprint of the pepper that its digest was made with, which tells nothing of the pepper.
"""

from collections import Counter
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.accounts import PEPPER_NOTE, usable_keys
from faregate.console.describing import answers
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import payers as shapes
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.core import keys
from faregate.ports import Books

router = APIRouter(prefix="/peppers", tags=["peppers"])

#: In a key's details: the fingerprint of the pepper of the secret before, and until when that one opens.
PEPPER_BEFORE: Final = "pepper_before"


def keys_by_pepper(books: Books, now: int) -> Counter[str]:
    """Fingerprint of a pepper → how many keys that can be used at ``now`` have a secret that needs it.

    Keys that are older than the note count under the empty text.
    """
    found: Counter[str] = Counter()
    for details, count in usable_keys(books, now):
        needed = {details.get(PEPPER_NOTE, "")}
        before, until = details.get(PEPPER_BEFORE, ("", 0))
        if until > now:
            needed.add(before)
        found.update(dict.fromkeys(needed, count))
    return found


def peppers(console: Console) -> list[dict[str, Any]]:
    """Every pepper that is tried, the one for new digests first; then what keys need and is not there."""
    counts = keys_by_pepper(console.all_books, console.clock.wall_nanos())
    rows: list[dict[str, Any]] = []
    for at, (name, key) in enumerate(console.secrets.peppers):
        fingerprint = keys.fingerprint(bytes.fromhex(key))
        rows.append({"id": name, "fingerprint": fingerprint, "newest": at == 0, "keys": counts.pop(fingerprint, 0)})
    for fingerprint, count in sorted(counts.items()):
        rows.append({"id": None, "fingerprint": fingerprint or None, "newest": False, "keys": count})
    return rows


@router.get("")
@needs("installation.read")
@answers(shapes.Peppers)
async def list_peppers(request: Request) -> dict[str, Any]:
    """Peppers by which secrets of keys are known, and how many keys hang on each.

    A row without an id is a pepper that is not there any more, or, without a fingerprint, keys that do not tell.
    """
    console = console_of(request)
    return {"data": await in_thread(lambda: peppers(console)), "next_cursor": None}
