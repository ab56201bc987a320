"""What people type for a resource: its id, the beginning of it, or its name; and asking before something ends."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from faregate.cli.client import AdminClient, segment
from faregate.errors import Conflict, NotFound, Unsafe

#: So many ids are told where several could be meant.
TOLD_MAX = 10


def one_named(
    client: AdminClient,
    path: str,
    kind: str,
    wanted: str,
    preferred: Callable[[dict[str, Any]], bool] = lambda row: True,
) -> dict[str, Any]:
    """The resource of this id, or the only one whose id begins so, or whose name it is.

    Raises:
        NotFound: none.
        Conflict: several, also among those that are ``preferred``.
    """
    try:
        row: dict[str, Any] = client.call("GET", f"{path}/{segment(wanted)}")
    except NotFound:
        rows = [row for row in client.pages(path) if row["id"].startswith(wanted) or row["name"] == wanted]
        meant = [row for row in rows if preferred(row)] or rows
        if len(meant) == 1:
            return meant[0]
        if not meant:
            raise NotFound(f"there is no such {kind}") from None
        ids = ", ".join(row["id"] for row in meant[:TOLD_MAX])
        raise Conflict(f"{wanted[:64]!r} could be any of {ids}", hint="write the whole id") from None
    return row


def key_named(client: AdminClient, wanted: str) -> dict[str, Any]:
    """The key that is meant; of several, one that was not revoked."""
    return one_named(client, "/keys", "key", wanted, lambda row: bool(row["state"] != "revoked"))


def agreed(question: str, reason: str, yes: bool) -> None:
    """Go on only where somebody agrees: by ``--yes``, or on a terminal.

    Raises:
        Unsafe: nobody can be asked; the message is ``reason``.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Unsafe(reason, hint="add --yes")
    typer.confirm(question, abort=True, err=True)


def cell(value: object) -> object:
    """A value for a table: lists joined by commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value
