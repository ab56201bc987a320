"""``faregate key``: create, list, show, rotate and revoke keys."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import listed, without_nothing
from faregate.errors import Conflict, NotFound, Unsafe

app = typer.Typer(
    no_args_is_help=False, add_completion=False, rich_markup_mode=None, help="Keys of callers and admins."
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key (or its beginning, or its name).")]
Name = Annotated[str | None, typer.Option()]

#: Fields of a created key that are always printed, in this order; the others only where they were set.
_CREATED = ("id", "name", "secret", "organization", "team", "project", "stage")
_CREATED_IF_SET = ("user", "product", "models", "operations", "expires_at")


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    organization: Name = None,
    team: Name = None,
    project: Name = None,
    user: Name = None,
    product: Name = None,
    stage: Name = None,
    role: Annotated[str, typer.Option(help="caller or admin.")] = "caller",
    models: Annotated[str | None, typer.Option(help="Allowed models, joined by commas; all without it.")] = None,
    operations: Annotated[str | None, typer.Option(help="Allowed operations, joined by commas.")] = None,
    may_set: Annotated[str | None, typer.Option(help="What requests may say: user,tags,run,project,stage.")] = None,
    expires: Annotated[str | None, typer.Option(help="Last moment, such as 2027-01-01T00:00:00Z.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the secret to this new file instead of the screen.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Create a key; its secret is shown this once. Teams, projects, users and stages are made on first use."""
    _refuse_existing(out, force)
    body = without_nothing(
        {
            "name": name,
            "organization": organization,
            "team": team,
            "project": project,
            "user": user,
            "product": product,
            "stage": stage,
            "role": role,
            "models": listed(models),
            "operations": listed(operations),
            "may_set": listed(may_set),
            "expires_at": expires,
        }
    )
    with connect(data, make=True) as client:
        made = client.call("POST", "/keys", body)
    _show_secret(made, out, as_json=json)


def _refuse_existing(out: Path | None, force: bool) -> None:
    if out is not None and out.exists() and not force:
        raise Unsafe(f"{out} exists", hint="name another file, or add --force")


def _show_secret(made: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    """Print a key that was just made, its secret on the screen or in a file of its own."""
    secret = made["secret"]
    if out is not None:
        with os.fdopen(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secret + "\n")
    shown = {name: made[name] for name in _CREATED if not (name == "secret" and out is not None)}
    shown |= {name: made[name] for name in _CREATED_IF_SET if made[name] is not None}
    if made["role"] != "caller":
        shown["role"] = made["role"]
    if as_json:
        emit_json(shown)
        return
    table(("field", "value"), [(name, _text(value)) for name, value in shown.items()])
    if out is None:
        say("The secret is shown only now; keep it where secrets are kept.")
        if not sys.stdout.isatty():
            say("It went into a file or pipe: whoever reads that can use the key.")
    if made.get("applied") is False:
        say("The gateway has not taken it up yet; it will as soon as it answers.")


def _text(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


@app.command("list")
def list_keys(
    team: Name = None,
    project: Name = None,
    user: Name = None,
    stage: Name = None,
    role: Name = None,
    state: Name = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List keys; of their secrets only the first characters."""
    query = {"team": team, "project": project, "user": user, "stage": stage, "role": role, "state": state}
    with connect(data) as client:
        rows = list(client.pages("/keys", query))
    if json:
        emit_json(rows)
        return
    columns = ("id", "name", "key", "team", "project", "user", "stage", "role", "state", "expires_at", "revoked_reason")
    table(columns, [[row[name] for name in columns] for row in rows])


@app.command("show")
def show(
    key: KeyId,
    secret: Annotated[bool, typer.Option("--secret", help="Refused: only a digest is stored.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Show one key."""
    if secret:
        raise Unsafe("only a digest of the secret is stored", hint="rotate the key to get a new secret")
    with connect(data) as client:
        row = _find(client, key)
    if json:
        emit_json(row)
    else:
        table(("field", "value"), [(name, _text(value)) for name, value in row.items()])


def _find(client: AdminClient, wanted: str) -> dict[str, Any]:
    """The key of this id, or the only one whose id begins so, or whose name it is.

    Raises:
        NotFound: none.
        Conflict: several.
    """
    try:
        row: dict[str, Any] = client.call("GET", f"/keys/{segment(wanted)}")
    except NotFound:
        rows = [row for row in client.pages("/keys") if row["id"].startswith(wanted) or row["name"] == wanted]
        live = [row for row in rows if row["state"] != "revoked"] or rows
        if len(live) == 1:
            return live[0]
        if not live:
            raise NotFound("there is no such key") from None
        ids = ", ".join(row["id"] for row in live[:10])
        raise Conflict(f"{wanted[:64]!r} could be any of {ids}", hint="write the whole id") from None
    return row


@app.command("rotate")
def rotate(
    key: KeyId,
    grace: Annotated[int | None, typer.Option(metavar="SECONDS", help="How long the old secret still works.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the secret to this new file instead of the screen.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Give a key a new secret; limits and history stay."""
    _refuse_existing(out, force)
    with connect(data) as client:
        row = _find(client, key)
        body = without_nothing({"grace_seconds": grace})
        made = client.call("POST", f"/keys/{segment(row['id'])}/rotate", body)
    _show_secret(made, out, as_json=json)


@app.command("revoke")
def revoke(
    key: KeyId,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """End a key for good, at once."""
    with connect(data) as client:
        row = _find(client, key)
        if not yes:
            if not sys.stdin.isatty():
                raise Unsafe("revoking cannot be undone", hint="add --yes")
            typer.confirm(f"Revoke {row['id']} ({row['name']})? This cannot be undone.", abort=True, err=True)
        body = without_nothing({"reason": reason})
        row = client.call("POST", f"/keys/{segment(row['id'])}/revoke", body)
    if json:
        emit_json(row)
    else:
        emit(f"revoked {row['id']} ({row['name']})")
