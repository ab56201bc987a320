"""``faregate key``: create, list, show, rename, rotate, disable, enable and revoke keys."""

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.many import items_of
from faregate.cli.named import agreed, cell, key_named
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import FILE_BYTES_MAX, file_text, listed, refuse_special, without_nothing
from faregate.core import keys
from faregate.core.access import CALLER, ROLES
from faregate.errors import Failed, Unsafe, UsageError

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Keys that call the gateway, and keys that open the console.",
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key (or its beginning, or its name).")]
Name = Annotated[str | None, typer.Option()]

#: No secret is longer, whatever was found where one might be.
FOUND_CHARACTERS_MAX = 512
#: Different texts in the form of a key that are looked up; a file with more of them is no find.
FOUND_MAX = 100

#: Fields of a file of keys that hold several values.
_LISTS = ("models", "operations", "paths", "networks", "priorities", "may_set")

#: Fields of a created key that are always printed, in this order; the others only where they were set.
_CREATED = ("id", "name", "secret", "organization", "team", "project")
_CREATED_IF_SET = (
    *("user", "product", "subscription", "stage", "models", "operations", "paths", "networks", "priorities"),
    *("content", "cache", "expires_at"),
)

Models = Annotated[str | None, typer.Option(help="Allowed models, joined by commas; all without it.")]
Operations = Annotated[str | None, typer.Option(help="Allowed operations and services, joined by commas.")]
Paths = Annotated[str | None, typer.Option(help="Beginnings of allowed paths, such as /v1/chat; all without it.")]
Networks = Annotated[str | None, typer.Option(help="Networks that it may be used from, such as 10.0.0.0/8.")]
Priorities = Annotated[
    str | None, typer.Option(help="Ranges of the Priority header that it may use, such as 101-1000; all without it.")
]
MaySet = Annotated[str | None, typer.Option(help="What requests may say: user,tags,run,project,stage.")]
Content = Annotated[str | None, typer.Option(help="What is kept of its calls' contents: off, metadata or full.")]
Cache = Annotated[str | None, typer.Option(help="Whether its calls use the response cache: on or off.")]
Expires = Annotated[str | None, typer.Option(help="Last moment, such as 2027-01-01T00:00:00Z.")]


@app.command("create")
def create(
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    organization: Name = None,
    team: Name = None,
    project: Name = None,
    user: Name = None,
    product: Name = None,
    stage: Name = None,
    subscription: Annotated[
        str | None, typer.Option(help="Its subscription, whose product, team or user it has.")
    ] = None,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "caller",
    models: Models = None,
    operations: Operations = None,
    paths: Paths = None,
    networks: Networks = None,
    priorities: Priorities = None,
    may_set: MaySet = None,
    content: Content = None,
    cache: Cache = None,
    expires: Expires = None,
    from_file: Annotated[
        Path | None, typer.Option(help="Create all keys of this .csv or .json file, or none; up to a thousand.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the secret to this new file instead of the screen.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Create a key, or those of a file; a secret is shown this once. Teams, projects, users come with them."""
    body = without_nothing(
        {
            "name": name,
            "organization": organization,
            "team": team,
            "project": project,
            "user": user,
            "product": product,
            "stage": stage,
            "subscription": subscription,
            "role": role,
            "models": listed(models),
            "operations": listed(operations),
            "paths": listed(paths),
            "networks": listed(networks),
            "priorities": listed(priorities),
            "may_set": listed(may_set),
            "content": content,
            "cache": cache,
            "expires_at": expires,
        }
    )
    if from_file is not None:
        given = [name for name in body if name != "role" or role != CALLER]
        if given:
            option = "--expires" if given[0] == "expires_at" else f"--{given[0].replace('_', '-')}"
            raise UsageError(f"--from-file and {option} exclude each other: the file says all of the keys")
        _create_many(from_file, out, force, data, as_json=json)
        return
    if name is None:
        raise UsageError("name the key with --name, or many of them with --from-file")
    with connect(data, make=True) as client, _secret_file(out, force) as file:
        made = client.call("POST", "/keys", body)
        _keep_secret(made, file)
    _show_secret(made, out, as_json=json)


def _create_many(source: Path, out: Path | None, force: bool, data: Path | None, *, as_json: bool) -> None:
    """Create the keys of a file; their secrets go to the screen, or to ``out`` as CSV."""
    items = items_of(source, _LISTS)
    with connect(data, make=True) as client, _secret_file(out, force) as file:
        made = client.call("POST", "/keys/bulk", {"items": items})
        if file is not None:
            lines = ["id,name,secret", *(_quoted(each, "id", "name", "secret") for each in made["data"])]
            with open(file, "wb", closefd=False) as opened:
                opened.write("".join(f"{line}\n" for line in lines).encode())
            os.fsync(file)
    columns = ("id", "name", "team", "project") if out is not None else ("id", "name", "team", "project", "secret")
    if as_json:
        emit_json([{name: each[name] for name in columns} for each in made["data"]])
    else:
        table(columns, [[each[name] for name in columns] for each in made["data"]])
        if out is None:
            say("The secrets are shown only now; keep them where secrets are kept.")
    if made.get("applied") is False:
        say("The gateway has not taken them up yet; it will as soon as it answers.")


def _quoted(row: dict[str, Any], *names: str) -> str:
    """Values as a line of CSV."""
    line = StringIO()
    csv.writer(line, lineterminator="").writerow([row[name] for name in names])
    return line.getvalue()


@contextmanager
def _secret_file(out: Path | None, force: bool) -> Iterator[int | None]:
    """A file for a secret, open before the secret is made, so that none is made which cannot be kept.

    Raises:
        Unsafe: it exists, and nobody said that it may be replaced, or it is no regular file.
    """
    if out is None:
        yield None
        return
    refuse_special(out)
    draft = out.with_name(f".{out.name}.{os.getpid()}") if force else out
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Unsafe(f"{draft} exists", hint="name another file, or add --force") from None
    try:
        os.fchmod(descriptor, 0o600)
        yield descriptor
        if draft != out:
            draft.replace(out)
    except BaseException:  # Also when interrupted: no file with half a secret stays.
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _keep_secret(made: dict[str, Any], file: int | None) -> None:
    if file is not None:
        os.write(file, f"{made['secret']}\n".encode())
        os.fsync(file)


def _show_secret(made: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    """Print a key that was just made, its secret where no file has it."""
    shown = {name: made[name] for name in _CREATED if not (name == "secret" and out is not None)}
    shown |= {name: made[name] for name in _CREATED_IF_SET if made[name] is not None}
    if made["role"] != "caller":
        shown["role"] = made["role"]
    if as_json:
        emit_json(shown)
        return
    table(("field", "value"), [(name, cell(value)) for name, value in shown.items()])
    if out is None:
        say("The secret is shown only now; keep it where secrets are kept.")
        if not sys.stdout.isatty():
            say("It went into a file or pipe: whoever reads that can use the key.")
    if made.get("applied") is False:
        say("The gateway has not taken it up yet; it will as soon as it answers.")


@app.command("list")
def list_keys(
    organization: Name = None,
    team: Name = None,
    project: Name = None,
    user: Name = None,
    product: Name = None,
    stage: Name = None,
    subscription: Annotated[str | None, typer.Option(help="Only those of this subscription, by its id.")] = None,
    role: Name = None,
    state: Name = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List keys; of their secrets only the first characters."""
    query = {"organization": organization, "team": team, "project": project, "user": user, "product": product}
    query |= {"stage": stage, "subscription": subscription, "role": role, "state": state}
    with connect(data) as client:
        rows = list(client.pages("/keys", query))
    if json:
        emit_json(rows)
        return
    payers = ("organization", "team", "project", "user", "stage")
    # What only some keys have takes room only where one has it.
    some = [name for name in ("product", "stopped_by") if any(row[name] for row in rows)]
    columns = ("id", "name", "key", *payers, *some, "role", "state", "expires_at", "revoked_reason")
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
        row = key_named(client, key)
    if json:
        emit_json(row)
    else:
        table(("field", "value"), [(name, cell(value)) for name, value in row.items()])


def _change(data: Path | None, key: str, body: dict[str, object], done: str, *, as_json: bool) -> None:
    with connect(data) as client:
        row = client.call("PATCH", f"/keys/{segment(key_named(client, key)['id'])}", body)
    if as_json:
        emit_json(row)
    else:
        emit(f"{done} {row['id']} ({row['name']})")


@app.command("rename")
def rename(
    key: KeyId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it shall be called.")],
    data: Where = None,
    json: Json = False,
) -> None:
    """Give a key another name; its id, limits and history stay."""
    _change(data, key, {"name": name}, "renamed", as_json=json)


@app.command("set")
def set_key(
    key: KeyId,
    models: Annotated[str | None, typer.Option(help="Allowed models; an empty text lifts it.")] = None,
    operations: Annotated[str | None, typer.Option(help="Allowed operations; an empty text lifts it.")] = None,
    paths: Annotated[str | None, typer.Option(help="Beginnings of allowed paths; an empty text lifts it.")] = None,
    networks: Annotated[str | None, typer.Option(help="Networks; an empty text lifts it.")] = None,
    priorities: Annotated[str | None, typer.Option(help="Ranges of Priority; an empty text lifts it.")] = None,
    may_set: MaySet = None,
    content: Annotated[str | None, typer.Option(help="off, metadata or full; an empty text lifts it.")] = None,
    cache: Annotated[str | None, typer.Option(help="on or off; an empty text lifts it.")] = None,
    expires: Annotated[str | None, typer.Option(help="Last moment; an empty text lifts it.")] = None,
    role: Annotated[str | None, typer.Option(help=f"One of {', '.join(ROLES)}.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change what a key is restricted to, or its role; what is not given stays."""
    lists = {"models": models, "operations": operations, "paths": paths, "networks": networks, "priorities": priorities}
    body: dict[str, object] = {name: listed(text) or None for name, text in lists.items() if text is not None}
    if may_set is not None:
        body["may_set"] = listed(may_set)
    if content is not None:
        body["content"] = content or None
    if cache is not None:
        body["cache"] = cache or None
    if expires is not None:
        body["expires_at"] = expires or None
    if role is not None:
        body["role"] = role
    if not body:
        raise UsageError("nothing was given to change; try `faregate key set --help`")
    _change(data, key, body, "changed", as_json=json)


@app.command("disable")
def disable(key: KeyId, data: Where = None, json: Json = False) -> None:
    """Stop a key until it is enabled again; whatever runs may end."""
    _change(data, key, {"state": "disabled"}, "disabled", as_json=json)


@app.command("enable")
def enable(key: KeyId, data: Where = None, json: Json = False) -> None:
    """Let a disabled key be used again, or one that a limit revoked."""
    _change(data, key, {"state": "active"}, "enabled", as_json=json)


@app.command("check")
def check(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File that holds what was found; - reads standard input.")
    ] = "-",
    data: Where = None,
    json: Json = False,
) -> int:
    """Tell which keys of this installation stand in what was found: exit 0 where one does, 1 where none."""
    found = _found(file)
    with connect(data) as client:
        told = [{"line": line, **client.call("POST", "/keys/check", {"secret": secret})} for secret, line in found]
    known = [each for each in told if each["found"]]
    if json:
        emit_json({"found": bool(known), "secrets": told})
    else:
        for each in known:
            table(("field", "value"), [(name, cell(value)) for name, value in each.items()])
        if not known:
            well_formed = any(each["well_formed"] for each in told)
            emit("no key of this installation" + ("" if well_formed else ", and not in the form of one"))
    if len(found) == FOUND_MAX:
        say(f"Only the first {FOUND_MAX} texts in the form of a key were looked up; check the rest by itself.")
    return 0 if known else Failed.exit_code


def _found(file: str) -> list[tuple[str, int]]:
    """What looks like a key in a file or on standard input, with its line; where nothing does, the whole first line.

    A secret must not stand on a command line.

    Raises:
        UsageError: it holds nothing.
    """
    if file != "-" and not Path(file).exists():
        # It may be what was found, so it is not repeated.
        hint = "a secret does not belong on a command line, where others see it: use standard input"
        raise UsageError("there is no such file to read what was found from", code="value", hint=hint)
    if file != "-":
        text = file_text(Path(file))
    else:
        # Whoever types it ends it by a line.
        text = sys.stdin.readline(FOUND_CHARACTERS_MAX) if sys.stdin.isatty() else sys.stdin.read(FILE_BYTES_MAX)
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        for secret in keys.found_in(line):
            if len(found) < FOUND_MAX:
                found.setdefault(secret, number)
    if found:
        return list(found.items())
    line = text[:FOUND_CHARACTERS_MAX].strip().split("\n")[0].strip()
    if not line:
        raise UsageError("there is nothing to check; put what was found into a file or on standard input", code="value")
    return [(line, 1)]


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
    with connect(data) as client, _secret_file(out, force) as file:
        row = key_named(client, key)
        body = without_nothing({"grace_seconds": grace})
        made = client.call("POST", f"/keys/{segment(row['id'])}/rotate", body)
        _keep_secret(made, file)
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
        row = key_named(client, key)
        question = f"Revoke {row['id']} ({row['name']})? This cannot be undone."
        agreed(question, "revoking cannot be undone", yes)
        body = without_nothing({"reason": reason})
        row = client.call("POST", f"/keys/{segment(row['id'])}/revoke", body)
    if json:
        emit_json(row)
    else:
        emit(f"revoked {row['id']} ({row['name']})")
