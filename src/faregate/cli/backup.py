"""``faregate backup``: a consistent copy of the books, while they are in use too."""

from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json
from faregate.cli.progress import waiting


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, on the console's machine.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Write a backup of the books and the trail of changes."""
    body = {"file": str(file.absolute()), "force": force}
    with connect(data) as client, waiting("writing the backup", shown=not json):
        row = client.call("POST", "/backup", body)
    if json:
        emit_json(row)
    else:
        emit(f"wrote {row['file']}: {row['bytes']} bytes, sha256 {row['sha256']}")
