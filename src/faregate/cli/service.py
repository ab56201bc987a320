"""``faregate service``: HTTP services behind the gate that are made through the API, and those of the file.

What has no option of its own is said with ``--rule``, as JSON in the form of the configuration.
"""

from json import dumps
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit_deleted, emit_json, say, table
from faregate.cli.secret_input import FromFile, FromStdin, given_secret
from faregate.cli.words import json_object, without_nothing
from faregate.errors import Unsafe, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Services: HTTP services behind the gate.")

_COLUMNS: Final = ("id", "name", "base_url", "api_key", "max_duration", "state", "source")
_RULE_EXAMPLE: Final = '{"methods": ["POST"], "paths": ["/v1/ocr"]}'
_PRICE_EXAMPLE: Final = '{"units": {"header": "x-pages", "price": "0.01", "max": 50}}'

Service = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the service.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Where it is.")]
MaxDuration = Annotated[
    str | None, typer.Option("--max-duration", metavar="TIME", help="When a call is ended, such as 30s.")
]
PerCall = Annotated[str | None, typer.Option("--per-call", metavar="DOLLARS", help="Dollars for each call that ran.")]
PerSecond = Annotated[
    str | None, typer.Option("--per-second", metavar="DOLLARS", help="Dollars for a second of busy time.")
]
Price = Annotated[
    str | None,
    typer.Option(metavar="JSON", help=f"What else a call costs, all of it added up, such as '{_PRICE_EXAMPLE}'."),
]
Rule = Annotated[
    str | None, typer.Option(metavar="JSON", help=f"What else the configuration could say, such as '{_RULE_EXAMPLE}'.")
]
AllowHttp = Annotated[bool | None, typer.Option("--allow-http/--no-allow-http", help="Plain http to this machine.")]
AllowPrivate = Annotated[
    bool | None, typer.Option("--allow-private/--no-allow-private", help="An address in a private network.")
]


@app.command("list")
def list_services(
    state: Annotated[str | None, typer.Option(help="Only those that are active or disabled.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List services, those of the configuration file first; of keys only where they begin and end."""
    with connect(data) as client:
        rows = list(client.pages("/services", {"state": state}))
    if json:
        emit_json(rows)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@app.command("show")
def show_service(service: Service, data: Where = None, json: Json = False) -> None:
    """Show one service."""
    with connect(data) as client:
        row = client.call("GET", f"/services/{segment(service)}")
    _show(row, as_json=json)


@app.command("create")
def create_service(
    name: Annotated[str, typer.Option(help="How paths, keys, limits and reports call it.")],
    base_url: Annotated[str, typer.Option("--base-url", help="Where it is.")],
    max_duration: MaxDuration = None,
    per_call: PerCall = None,
    per_second: PerSecond = None,
    price: Price = None,
    rule: Rule = None,
    secret_stdin: FromStdin = False,
    secret_file: FromFile = None,
    allow_http: AllowHttp = None,
    allow_private: AllowPrivate = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a service; its key is encrypted, and goes to this address alone. It takes calls at once."""
    said = _said(max_duration, _price(per_call, per_second, price), rule, allow_http, allow_private)
    for option, field in (("--max-duration 30s", "max_duration"), ("--per-call 0.001", "price")):
        if field not in said:
            raise UsageError(f"a service needs a {field.replace('_', ' ')}; say it with {option}", code="value")
    body = without_nothing({"name": name, "base_url": base_url, "api_key": given_secret(secret_stdin, secret_file)})
    with connect(data, make=True) as client:
        row = client.call("POST", "/services", {**body, **said})
    _show(row, as_json=json)


@app.command("set")
def set_service(
    service: Service,
    base_url: BaseUrl = None,
    max_duration: MaxDuration = None,
    per_call: PerCall = None,
    per_second: PerSecond = None,
    price: Price = None,
    rule: Rule = None,
    secret_stdin: FromStdin = False,
    secret_file: FromFile = None,
    allow_http: AllowHttp = None,
    allow_private: AllowPrivate = None,
    state: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change a service; what is named takes the place of all that was there, any price of all its price.

    Another --base-url wants its key again.
    """
    said = _said(max_duration, _price(per_call, per_second, price), rule, allow_http, allow_private)
    secret = given_secret(secret_stdin, secret_file)
    body = {**without_nothing({"base_url": base_url, "api_key": secret, "state": state}), **said}
    if not body:
        raise UsageError("nothing to change; name at least one option, try `faregate service set --help`")
    with connect(data) as client:
        row = client.call("PATCH", f"/services/{segment(service)}", body)
    _show(row, as_json=json)


@app.command("delete")
def delete_service(
    service: Service,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete it; its key is gone then.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Delete a service; limits and keys that name it stay."""
    if not yes:
        raise Unsafe(f"this deletes the service {service} and its key", hint="add --yes if that is meant")
    with connect(data) as client:
        row = client.call("DELETE", f"/services/{segment(service)}")
    emit_deleted(row, as_json=json)


def _price(per_call: str | None, per_second: str | None, price: str | None) -> dict[str, Any] | None:
    """All of a price that was said by any option, ``None`` where nothing was.

    Raises:
        UsageError: something is said twice.
    """
    said = without_nothing({"per_call": per_call, "per_second": per_second})
    more = json_object(price, "--price", _PRICE_EXAMPLE) if price is not None else {}
    _refuse_twice(said, more, "--price")
    return {**said, **more} if said or price is not None else None


def _said(
    max_duration: str | None,
    price: dict[str, Any] | None,
    rule: str | None,
    allow_http: bool | None,
    allow_private: bool | None,
) -> dict[str, Any]:
    """What was said of a service's rule by any option.

    Raises:
        UsageError: something is said twice.
    """
    said = without_nothing(
        {"max_duration": max_duration, "price": price, "allow_http": allow_http, "allow_private": allow_private}
    )
    more = json_object(rule, "--rule", _RULE_EXAMPLE) if rule is not None else {}
    _refuse_twice(said, more, "--rule")
    return {**said, **more}


def _refuse_twice(said: dict[str, object], more: dict[str, Any], option: str) -> None:
    twice = sorted(said.keys() & more.keys())
    if twice:
        raise UsageError(f"{option} says {twice[0]}, and so does --{twice[0].replace('_', '-')}", code="value")


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    """A service, without what is as usual where people read it."""
    applied = row.pop("applied", True)
    if as_json:
        emit_json(row)
    else:
        price = dumps({name: value for name, value in row["price"].items() if value is not None})
        told = {name: value for name, value in {**row, "price": price}.items() if value not in (None, [], False)}
        table(("field", "value"), list(told.items()))
    if not applied:
        say("The gate has not taken this up yet; `faregate doctor` says why.")
