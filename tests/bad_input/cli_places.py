"""Where the rows of the command line are run: one installation that answers on its socket, and copies of it."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from commands import command, served
from console_parts import Parts, opened, parts, settled_call
from faregate.assembly.clock import SystemClock
from faregate.config.load import load_text
from faregate.console.doors import trusted
from faregate.ports import JournalRecord
from faregate.storage.schema import SCHEMA_VERSION
from faregate.storage.sqlite.opening import open_books

#: Stands for every secret: no command may show it.
CANARY = "sk-canary-5d1f0c7b9e24a86311aa"

_CONFIG = f"""\
providers:
  - {{name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: {CANARY}}}
"""


@dataclass(frozen=True)
class World:
    """An installation that runs, and one that does not, to be copied."""

    data: Path
    #: The folder of an installation with keys and no calls, and that of one with a call in its books.
    empty: Path
    booked: Path
    backup: Path
    #: What rows call by a name in braces.
    names: dict[str, str]


class Place(NamedTuple):
    """What one run of a row finds: a folder of its own, in which it stands, and the installations."""

    folder: Path
    world: World

    @property
    def books(self) -> Path:
        """The books of the copy that is in the folder, where there is one."""
        return self.folder / "data" / "books.sqlite3"


def booked(place: Place) -> None:
    """Put a copy of an installation with a call here."""
    shutil.copytree(place.world.booked, place.folder / "data")


def empty(place: Place) -> None:
    """Put a copy of an installation without a call here."""
    shutil.copytree(place.world.empty, place.folder / "data")


def altered(statement: str) -> Callable[[Place], None]:
    """A copy of an installation with a call, changed behind its back as no command would."""

    def build(place: Place) -> None:
        booked(place)
        with closing(sqlite3.connect(place.books)) as file:
            file.execute(statement)
            file.commit()

    return build


def unreachable(place: Place) -> None:
    """A copy whose books cannot be opened, whoever tries."""
    booked(place)
    for file in place.books.parent.glob("books.sqlite3*"):
        file.unlink()
    place.books.mkdir()


def half_backup(place: Place) -> None:
    """A backup that was cut off on its way."""
    content = place.world.backup.read_bytes()
    (place.folder / "half.tar").write_bytes(content[: len(content) // 2])


def flipped_backup(place: Place) -> None:
    """A backup of which one bit is another."""
    content = bytearray(place.world.backup.read_bytes())
    content[len(content) // 2] ^= 1
    (place.folder / "flipped.tar").write_bytes(content)


def newer_backup(place: Place) -> None:
    """A backup that a later version wrote."""
    with tarfile.open(place.world.backup) as old, tarfile.open(place.folder / "newer.tar", "w") as new:
        for member in old.getmembers():
            opened_file = old.extractfile(member)
            assert opened_file is not None
            content = opened_file.read()
            if member.name == "manifest.json":
                content = json.dumps({**json.loads(content), "schema": "9999"}).encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))


def all_rows(file: Path) -> list[str]:
    """Everything in the books, to be compared; nothing where they are none."""
    if not file.is_file():
        return []
    with closing(sqlite3.connect(file)) as books:
        try:
            return list(books.iterdump())
        except sqlite3.DatabaseError:
            return []


def _made(*words: object) -> Any:
    return command(*words, "--json").json


def _stopped(folder: Path) -> tuple[Path, Path, Path]:
    """An installation without a call, one with one, and a backup of that one."""
    without, late, file, books = folder / "empty", folder / "booked", folder / "copy.tar", folder / "late"
    _made("key", "create", "--name", "ci", "--data", without)
    shutil.copytree(without, books)
    opened_books = open_books(books / "books.sqlite3", SystemClock())
    events = (opened(), *settled_call("req_1"))
    opened_books.project([JournalRecord(10 * number, event, number) for number, event in enumerate(events, start=1)])
    # A command would want the journal that these records came from, which was never there.
    opened_books.backup(str(file))
    opened_books.close()
    _made("restore", file, "--data", late)
    shutil.copy(without / "secrets.json", late)
    return without, late, file


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """The installations, made once for all rows."""
    config = load_text(_CONFIG.encode(), "faregate.yaml", {}, folder).config
    without, late, backup = _stopped(folder)
    with parts(folder, config=config) as made, served(trusted(made.app), socket_in=folder / "data"):
        yield World(folder / "data", without, late, backup, _filled(made, backup))


def _filled(made: Parts, backup: Path) -> dict[str, str]:
    """Keys, limits and a call for rows to be about; their ids by what rows call them."""
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    data = made.folder / "data"
    key = _made("key", "create", "--name", "ci", "--team", "research", "--data", data)
    turning = _made("key", "create", "--name", "turning", "--data", data)
    _made("key", "create", "--name=-dash", "--data", data)
    _made("key", "rotate", "turning", "--grace", "3600", "--data", data)
    money = ("limit", "set", "--unit", "usd", "--amount", "10", "--data", data)
    limit = _made(*money, "--window", "lifetime")
    gone = _made(*money, "--window", "year")
    _made("limit", "clear", gone["id"], "--data", data)
    _made("limit", "deposit", limit["id"], "--amount", "5", "--reference", "inv-1", "--data", data)
    return {
        "data": str(data),
        "backup": str(backup),
        "schema": SCHEMA_VERSION,
        "key": key["id"],
        "secret": key["secret"],
        "turning": turning["id"],
        "limit": limit["id"],
        "gone": gone["id"],
    }
