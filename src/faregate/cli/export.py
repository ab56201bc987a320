"""``faregate export``: what lives in the books as a state file, without any secret."""

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, say
from faregate.cli.state_api import now_text, present
from faregate.cli.state_plan import refuse_existing, write_new
from faregate.config.state_things import LISTS, in_order, written

HEAD = "# State of a Faregate installation, for `faregate diff -f` and `faregate apply -f`. It holds no secret.\n"


def command(
    out: Annotated[Path | None, typer.Option(help="Write to this new file instead of the screen.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Write organizations, teams, keys by name, limits, own prices and channels as a state file."""
    refuse_existing(out, force=force)
    with connect(data) as client:
        found = present(client, list(LISTS), now_text())
    lists = {name: in_order(entries, LISTS[name]) for name, entries in found.entries.items()}
    if found.expired:
        say(f"left out: {found.expired} keys that have expired")
    if found.left_out:
        say(f"left out: {found.left_out} limits of revoked or expired keys, or set by the quota API, stops and brakes")
    if out is not None:
        # JSON is YAML, too: `apply` reads either.
        write_new(out, json_text.dumps(lists, ensure_ascii=False) if json else HEAD + written(lists), force=force)
        say(f"wrote {out}")
    elif json:
        emit_json(lists)
    else:
        emit(HEAD + written(lists).rstrip("\n"))
