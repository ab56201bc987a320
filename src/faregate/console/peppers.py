"""``/api/v1/peppers``: how many keys hang on which pepper; a new one in front, and an old one out when none does.

A key's details note the fingerprint of the pepper that its digest was made with, which tells nothing of the pepper.
What changes is the file of secrets; whatever runs works by it from the next reload or start on.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.config.folder import DataFolder
from faregate.config.peppers import with_new_pepper, without_pepper, write_secrets
from faregate.config.secrets import Secrets as KeptSecrets
from faregate.config.secrets import read_secrets
from faregate.console.accounts import PEPPER_NOTE, usable_keys
from faregate.console.describing import answers
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import payers as shapes
from faregate.console.state import Console
from faregate.console.writing import console_of, locked, told_of
from faregate.core import keys
from faregate.errors import Unavailable, Unsafe
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


def rotate(console: Console) -> dict[str, Any]:
    """Put a new pepper in front of the others, with a line in the trail of changes.

    Raises:
        Conflict: there are as many as there may be.
        Unavailable: this installation has no file of secrets.
    """
    file, secrets = _secrets(console)
    changed = with_new_pepper(secrets, console.random)
    _write(console, file, changed.peppers[0].id, secrets, changed)
    return {"id": changed.peppers[0].id, "peppers": _ids(changed)}


def retire(console: Console, wanted: str) -> dict[str, Any]:
    """Take a pepper out on which no key hangs, with a line in the trail of changes.

    Raises:
        NotFound: there is no such pepper.
        Unsafe: it makes the digests of new keys, or keys need it.
        Unavailable: this installation has no file of secrets.
    """
    file, secrets = _secrets(console)
    changed = without_pepper(secrets, wanted)
    (gone,) = (pepper for pepper in secrets.peppers if pepper.id == wanted)
    counts = keys_by_pepper(console.all_books, console.clock.wall_nanos())
    if count := counts[keys.fingerprint(bytes.fromhex(gone.key))] + counts[""]:
        hang = f"{count} key{'s' * (count > 1)} that can be used hang{'s' * (count == 1)} on pepper {wanted}"
        raise Unsafe(hang, hint="rotate or revoke them first; a key that is rotated gets the newest pepper")
    _write(console, file, wanted, secrets, changed)
    return {"id": wanted, "retired": True}


def _secrets(console: Console) -> tuple[Path, KeptSecrets]:
    file = DataFolder(Path(console.facts.data_dir)).secrets
    try:
        return file, read_secrets(file)
    except FileNotFoundError:
        raise Unavailable(
            "the file of secrets is not there", hint="restore it from where you keep your backups"
        ) from None


def _write(console: Console, file: Path, pepper: str, before: KeptSecrets, after: KeptSecrets) -> None:
    with told_of(console, [("pepper", pepper, {"peppers": _ids(before)}, {"peppers": _ids(after)})]) as told:
        write_secrets(file, after)
        console.all_books.keep_trail(told)


def _ids(secrets: KeptSecrets) -> list[str]:
    return [pepper.id for pepper in secrets.peppers]


@router.get("")
@needs("installation.read")
@answers(shapes.Peppers)
async def list_peppers(request: Request) -> dict[str, Any]:
    """Peppers by which secrets of keys are known, and how many keys hang on each.

    A row without an id is a pepper that is not there any more, or, without a fingerprint, keys that do not tell.
    """
    console = console_of(request)
    return {"data": await in_thread(lambda: peppers(console)), "next_cursor": None}


@router.post("", status_code=201)
@needs("installation.write")
@answers(shapes.RotatedPepper)
async def rotate_pepper(request: Request) -> dict[str, Any]:
    """Put a new pepper in front, which digests new secrets from the next reload or start on; old ones go on opening."""
    console = console_of(request)
    return await locked(console, lambda: rotate(console))


@router.delete("/{pepper_id}")
@needs("installation.write")
@answers(shapes.RetiredPepper)
async def retire_pepper(request: Request, pepper_id: str) -> dict[str, Any]:
    """Take out a pepper on which no key hangs any more; it cannot be made again."""
    console = console_of(request)
    return await locked(console, lambda: retire(console, pepper_id))
