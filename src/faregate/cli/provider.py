"""``faregate provider``: accounts at model services that are made through the API, and those of the file."""

from typing import Annotated, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit, emit_deleted, emit_json, emit_row, table
from faregate.cli.secret_input import FromFile, FromStdin, given_secret
from faregate.cli.words import without_nothing
from faregate.errors import Failed, Unsafe, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Providers: accounts at model services.")

_COLUMNS: Final = ("id", "name", "kind", "base_url", "api_key", "state", "source")

Provider = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the provider.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Where its API starts.")]
Version = Annotated[str | None, typer.Option("--api-version", help="Azure's api-version.")]
AllowHttp = Annotated[bool | None, typer.Option("--allow-http/--no-allow-http", help="Plain http to this machine.")]
AllowPrivate = Annotated[
    bool | None, typer.Option("--allow-private/--no-allow-private", help="An address in a private network.")
]


@app.command("list")
def list_providers(
    kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List providers, those of the configuration file first; of keys only where they begin and end."""
    with connect(data) as client:
        rows = list(client.pages("/providers", {"kind": kind}))
    if json:
        emit_json(rows)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@app.command("create")
def create_provider(
    name: Annotated[str, typer.Option(help="How deployments, prices and reports call it.")],
    kind: Annotated[str, typer.Option(help="Its wire format: openai, azure_openai, anthropic or gemini.")],
    base_url: BaseUrl = None,
    secret_stdin: FromStdin = False,
    secret_file: FromFile = None,
    api_version: Version = None,
    allow_http: AllowHttp = None,
    allow_private: AllowPrivate = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a provider; its key is encrypted, and goes to this address alone."""
    body = without_nothing(
        {
            "name": name,
            "kind": kind,
            "base_url": base_url,
            "api_key": given_secret(secret_stdin, secret_file),
            "api_version": api_version,
            "allow_http": allow_http,
            "allow_private": allow_private,
        }
    )
    with connect(data, make=True) as client:
        row = client.call("POST", "/providers", body)
    emit_row(row, as_json=json)


@app.command("show")
def show_provider(provider: Provider, data: Where = None, json: Json = False) -> None:
    """Show one provider."""
    with connect(data) as client:
        row = client.call("GET", f"/providers/{segment(provider)}")
    emit_row(row, as_json=json)


@app.command("set")
def set_provider(
    provider: Provider,
    base_url: BaseUrl = None,
    secret_stdin: FromStdin = False,
    secret_file: FromFile = None,
    api_version: Version = None,
    state: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    allow_http: AllowHttp = None,
    allow_private: AllowPrivate = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change a provider; another --base-url wants its key again."""
    body = without_nothing(
        {
            "base_url": base_url,
            "api_key": given_secret(secret_stdin, secret_file),
            "api_version": api_version,
            "state": state,
            "allow_http": allow_http,
            "allow_private": allow_private,
        }
    )
    if not body:
        raise UsageError("nothing to change; name at least one option, try `faregate provider set --help`")
    with connect(data) as client:
        row = client.call("PATCH", f"/providers/{segment(provider)}", body)
    emit_row(row, as_json=json)


@app.command("delete")
def delete_provider(
    provider: Provider,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete it; its key is gone then.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Delete a provider that nothing leads to."""
    if not yes:
        raise Unsafe(f"this deletes {provider} and its key", hint="add --yes if that is meant")
    with connect(data) as client:
        row = client.call("DELETE", f"/providers/{segment(provider)}")
    emit_deleted(row, as_json=json)


@app.command("test")
def try_provider(provider: Provider, data: Where = None, json: Json = False) -> None:
    """Ask a provider for its models, which costs nothing; exit 1 where that does not work."""
    with connect(data) as client:
        told = client.call("POST", f"/providers/{segment(provider)}/test")
    if json:
        emit_json(told)
    elif told["ok"]:
        emit(f"{told['name']}: {told['detail']}, {told['milliseconds']} ms")
    if not told["ok"]:
        raise Failed(f"{told['name']}: {told['detail']}")
