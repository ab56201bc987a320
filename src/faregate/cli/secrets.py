"""``faregate secrets``: the peppers under which secrets of keys are digested; a new one in front, an old one out."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect
from faregate.cli.named import agreed
from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json, say, table
from faregate.config.folder import DataFolder, holder_of
from faregate.config.peppers import add_pepper, pepper_key, retire_pepper
from faregate.config.secrets import read_secrets
from faregate.core import keys
from faregate.errors import NotFound, Unsafe

app = typer.Typer(
    no_args_is_help=False, add_completion=False, rich_markup_mode=None, help="Peppers of the digests of keys."
)


@app.command("list")
def list_peppers(data: Where = None, json: Json = False) -> None:
    """List the peppers that are tried, and how many keys hang on each."""
    with connect(data) as client:
        rows = client.call("GET", "/peppers")["data"]
    if json:
        emit_json(rows)
        return
    columns = ("id", "fingerprint", "newest", "keys")
    table(columns, [[row[name] for name in columns] for row in rows])
    if any(row["id"] is None and row["fingerprint"] for row in rows):
        say("The row without an id: its pepper is gone, and these keys open nothing until they are rotated.")


@app.command("rotate-pepper")
def rotate_pepper(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Put a new pepper in front: from the next start or reload on it digests new secrets; old ones go on opening."""
    folder = _folder(data)
    made = add_pepper(folder.secrets, os.urandom)
    running = holder_of(folder) is not None
    if json:
        emit_json(
            {"id": made, "peppers": [each.id for each in read_secrets(folder.secrets).peppers], "reload": running}
        )
        return
    emit(f"pepper {made} is in front now")
    if running:
        say("Now say `faregate reload`: what runs knows the peppers that it has read.")
    say(
        f"Back up {folder.secrets}. Rotate the keys that hang on an older pepper, then retire it: faregate secrets list"
    )


@app.command("retire-pepper")
def retire(
    pepper: Annotated[str, typer.Argument(metavar="ID", help="Id of the pepper, such as p1.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Take out a pepper on which no key hangs any more."""
    folder = _folder(data)
    fingerprint = keys.fingerprint(pepper_key(folder.secrets, pepper))
    with connect(data) as client:
        rows: list[dict[str, Any]] = client.call("GET", "/peppers")["data"]
    count = sum(row["keys"] for row in rows if row["fingerprint"] in (fingerprint, None))
    if count:
        hang = f"{count} key{'s' * (count > 1)} that can be used hang{'s' * (count == 1)} on pepper {pepper}"
        raise Unsafe(hang, hint="rotate or revoke them first; a key that is rotated gets the newest pepper")
    agreed(f"Retire pepper {pepper}? It cannot be made again.", "retiring a pepper cannot be undone", yes)
    retire_pepper(folder.secrets, pepper)
    if json:
        emit_json({"id": pepper, "retired": True, "reload": holder_of(folder) is not None})
    else:
        emit(f"pepper {pepper} is retired")


def _folder(data: Path) -> DataFolder:
    """The data folder of an installation that has secrets.

    Raises:
        NotFound: there are none.
    """
    folder = DataFolder(data.absolute())
    if not folder.secrets.exists():
        raise NotFound(f"there is no installation at {data}", hint="name its data folder with --data")
    return folder
