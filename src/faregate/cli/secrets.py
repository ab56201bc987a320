"""``faregate secrets``: the peppers under which secrets of keys are digested; a new one in front, an old one out."""

from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.named import agreed
from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json, say, table
from faregate.config.folder import DataFolder, holder_of
from faregate.errors import NotFound

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
    running = holder_of(folder) is not None
    with connect(data, make=True) as client:
        made = client.call("POST", "/peppers")
    if json:
        emit_json({**made, "reload": running})
        return
    emit(f"pepper {made['id']} is in front now")
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
    agreed(f"Retire pepper {pepper}? It cannot be made again.", "retiring a pepper cannot be undone", yes)
    running = holder_of(folder) is not None
    with connect(data, make=True) as client:
        told = client.call("DELETE", f"/peppers/{segment(pepper)}")
    if json:
        emit_json({**told, "reload": running})
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
