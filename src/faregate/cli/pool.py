"""``faregate pool``: deployments that stand in for each other, made through the API, and those of the file.

What has no option of its own is said with ``--rule``, as JSON in the form of the configuration.
"""

from typing import Annotated, Any, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit_deleted, emit_json, say, table
from faregate.cli.words import json_object, listed
from faregate.errors import Unsafe, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Pools: deployments that stand in for each other.")

_COLUMNS: Final = ("id", "name", "strategy", "use", "source")
_RULE_EXAMPLE: Final = '{"breaker": {"trip": "5s"}}'

Pool = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the pool.")]
Use = Annotated[
    str | None,
    typer.Option(help="Deployments or provider/model in order, joined by commas; with a weight as east-1=2,west-1."),
]
Strategy = Annotated[
    str | None, typer.Option(help="ordered, weighted, round_robin, least_busy, latency or cost (default: ordered).")
]
Sticky = Annotated[str | None, typer.Option(help="Keep a key, user or run at one deployment; an empty text lifts it.")]
Rule = Annotated[
    str | None, typer.Option(metavar="JSON", help=f"What else the configuration could say, such as '{_RULE_EXAMPLE}'.")
]


@app.command("list")
def list_pools(data: Where = None, json: Json = False) -> None:
    """List pools, those of the configuration file first."""
    with connect(data) as client:
        rows = list(client.pages("/pools"))
    if json:
        emit_json(rows)
    else:
        table(_COLUMNS, [[_used(row) if name == "use" else row[name] for name in _COLUMNS] for row in rows])


@app.command("show")
def show_pool(pool: Pool, data: Where = None, json: Json = False) -> None:
    """Show one pool."""
    with connect(data) as client:
        row = client.call("GET", f"/pools/{segment(pool)}")
    _show(row, as_json=json)


@app.command("create")
def create_pool(
    name: Annotated[str, typer.Option(help="How models call it.")],
    use: Use = None,
    strategy: Strategy = None,
    sticky: Sticky = None,
    rule: Rule = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a pool; names of models may lead to it at once."""
    body = {"name": name, **_rule(use, strategy, sticky, rule)}
    if "use" not in body:
        raise UsageError("a pool needs deployments; name them with --use east-1,west-1")
    with connect(data, make=True) as client:
        row = client.call("POST", "/pools", body)
    _show(row, as_json=json)


@app.command("set")
def set_pool(
    pool: Pool,
    use: Use = None,
    strategy: Strategy = None,
    sticky: Sticky = None,
    rule: Rule = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change a pool; what is named takes the place of all that was there under this name."""
    body = _rule(use, strategy, sticky, rule)
    if not body:
        raise UsageError("nothing to change; name at least one option, try `faregate pool set --help`")
    with connect(data) as client:
        row = client.call("PATCH", f"/pools/{segment(pool)}", body)
    _show(row, as_json=json)


@app.command("delete")
def delete_pool(
    pool: Pool,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete it.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Delete a pool that no name of a model leads to; its deployments stay."""
    if not yes:
        raise Unsafe(f"this deletes the pool {pool}", hint="add --yes if that is meant")
    with connect(data) as client:
        row = client.call("DELETE", f"/pools/{segment(pool)}")
    emit_deleted(row, as_json=json)


def _rule(use: str | None, strategy: str | None, sticky: str | None, rule: str | None) -> dict[str, Any]:
    """What was said of a pool by any option.

    Raises:
        UsageError: a weight is no number, or something is said twice.
    """
    said: dict[str, Any] = {}
    if use is not None:
        said["use"] = [_member(each) for each in listed(use) or ()]
    if strategy is not None:
        said["strategy"] = strategy
    if sticky is not None:
        said["sticky"] = sticky or None
    more = json_object(rule, "--rule", _RULE_EXAMPLE) if rule is not None else {}
    twice = sorted(said.keys() & more.keys())
    if twice:
        raise UsageError(f"--rule says {twice[0]}, and so does --{twice[0]}", code="value")
    return {**said, **more}


def _member(text: str) -> str | dict[str, Any]:
    deployment, equals, weight = text.rpartition("=")
    if not equals:
        return text
    if not (deployment and weight.isascii() and weight.isdigit() and len(weight) < 10):
        raise UsageError(f"--use: {text[:64]!r} is no deployment with its weight, such as east-1=2", code="value")
    return {"deployment": deployment, "weight": int(weight)}


def _used(row: dict[str, Any]) -> str:
    """Its deployments as ``--use`` takes them."""
    return ",".join(each["deployment"] + (f"={each['weight']}" if each["weight"] != 1 else "") for each in row["use"])


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    """A pool, without what is as usual where people read it."""
    applied = row.pop("applied", True)
    if as_json:
        emit_json(row)
    else:
        told = {name: value for name, value in {**row, "use": _used(row)}.items() if value not in (None, [])}
        table(("field", "value"), list(told.items()))
    if not applied:
        say("The gate has not taken this up yet; `faregate doctor` says why.")
