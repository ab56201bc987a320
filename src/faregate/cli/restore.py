"""``faregate restore``: a backup becomes an installation's books again."""

from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json, say
from faregate.config.folder import holder_of, prepare, take_lock
from faregate.errors import NotFound, Unsafe

File = Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `faregate backup` wrote.")]


def command(file: File, data: Data = DATA_DEFAULT, json: Json = False) -> int:
    """Restore a backup into a data folder that has no books yet; never over an installation that runs."""
    if not file.is_file():
        raise NotFound(f"{file} is not a file")
    folder = prepare(data)
    holder = holder_of(folder)
    if holder is not None:
        hint = "stop it first, then restore into an empty data folder"
        raise Unsafe(f"{folder.root} is in use by process {holder}", hint=hint)
    from faregate.assembly.offline import restore

    lock = take_lock(folder)
    try:
        manifest = restore(folder, file)
    finally:
        lock.release()
    if json:
        emit_json({"file": str(file), "data": str(folder.root), **manifest})
    else:
        emit(f"restored {file} into {folder.root}")
        if manifest["trail_fault"]:
            # It was so when the backup was made: books and trail are as they were, and `verify` tells it too.
            say(f"warning: {manifest['trail_fault']}")
        if not folder.secrets.exists():
            emit(f"put the {folder.secrets.name} that belongs to it into {folder.root}: keys need its pepper")
    return 0
