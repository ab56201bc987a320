"""``faregate quote``: what a call will cost at least and at most, without making it."""

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import pairs, without_nothing
from faregate.errors import UsageError

#: What the admin API takes.
FILE_BYTES_MAX: Final = 1024 * 1024


def command(
    file: Annotated[Path, typer.Option("-f", "--file", help="The request's body as JSON; - reads standard input.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Path or name of the endpoint (default: /v1/chat/completions).")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Id of the key that would make the call.")] = None,
    amount: Annotated[str | None, typer.Option(help="Dollars that the call should fit, such as 0.05.")] = None,
    stage: Annotated[str | None, typer.Option(help="Stage, where it is not the key's.")] = None,
    project: Annotated[str | None, typer.Option(help="Project, where it is not the key's.")] = None,
    user: Annotated[str | None, typer.Option(help="End user, as x-faregate-user would say.")] = None,
    run: Annotated[str | None, typer.Option(help="Run, as x-faregate-run would say.")] = None,
    tags: Annotated[str | None, typer.Option(help="Tags, as x-faregate-tags would say: env=ci,step=2.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Tell what a call will cost at least and at most, what would fit, and whether it would be refused now."""
    body: dict[str, object] = {"request": _read(file)}
    body |= without_nothing({"endpoint": endpoint, "key": key, "amount": amount, "stage": stage})
    body |= without_nothing({"project": project, "user": user, "run": run, "tags": pairs(tags) or None})
    with connect(data) as client:
        told = client.call("POST", "/quote", body)
    if json:
        emit_json(told)
    else:
        _show(told, amount)


def _read(file: Path) -> dict[str, Any]:
    if str(file) == "-":
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    else:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise UsageError(f"{file} is larger than {FILE_BYTES_MAX} bytes", code="value")
    try:
        value = json_format.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}", code="value") from None
    if not isinstance(value, dict):
        raise UsageError(f"{file} holds no JSON object; it is the body of a request", code="value")
    return value


def _show(told: dict[str, Any], amount: str | None) -> None:
    rows: list[list[object]] = [
        ["input tokens", told["input_tokens"]["min"], told["input_tokens"]["max"]],
        ["output tokens", told["output_tokens"]["min"], told["output_tokens"]["max"]],
    ]
    for unit in told["units"]:
        name = f"{unit['unit']} ({unit['variant']})" if unit["variant"] else unit["unit"]
        rows.append([name, unit["min"], unit["max"]])
    rows += [[f"{name}, dollars", told[name]["min"], told[name]["max"]] for name in ("cost", "charge")]
    table(("", "at least", "at most"), rows)
    if told["deployments"]:
        emit("")
        places = [
            (each["name"], each["price_version"], each["cost"]["min"], each["cost"]["max"])
            for each in told["deployments"]
        ]
        table(("deployment", "price_version", "at least", "at most"), places)
    priced = [line for line in told["lines"]["max"] if line["priced_as"] is not None]
    if priced:
        emit("")
        columns = ("unit", "variant", "quantity", "price", "per", "cost")
        table(columns, [[line[name] for name in columns] for line in priced])
    emit("")
    for sentence in _sentences(told, amount):
        emit(sentence)
    if told["would_be_refused"] is not None:
        say(f"Would be refused now: {told['would_be_refused']['code']}: {told['would_be_refused']['detail']}.")


def _sentences(told: dict[str, Any], amount: str | None) -> list[str]:
    if not told["deployments"]:
        return ["It costs nothing."]
    sentences = [f"Input tokens are known by: {told['input_tokens']['method']}."]
    fitting, within = told["max_tokens_that_fits"], f"{amount} dollars" if amount is not None else "the key's limits"
    if told["output_tokens"]["max"] and (amount is not None or told["key"] is not None):
        if fitting is None:
            sentences.append(f"No answer fits {within}.")
        else:
            sentences.append(f"The largest max_tokens that fits {within}: {fitting}.")
    if told["clamped_to"] is not None:
        sentences.append(f"The gateway would cap the answer at {told['clamped_to']} tokens.")
    return sentences
