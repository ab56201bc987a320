"""``faregate rehearse``: what a proposed policy of limits would have refused of the requests of a past period."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, Refused, Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.config.environment import process_environment
from faregate.config.findings import Finding, Invalid, did_you_mean, key_text
from faregate.config.findings import Path as KeyPath
from faregate.config.read import parse, read_bytes
from faregate.config.tree import Node, Tree
from faregate.core.limits.rehearsal import PAYERS
from faregate.errors import UsageError

_LIMITS: Final = "limits"

#: Fields that are dollars where the unit is ``usd``: YAML reads them as numbers, the API takes them as text.
_DOLLARS: Final = ("amount", "burst", "carry_over")

#: What the API says of a field → what is said of a key of a file.
_CODES: Final[Mapping[str, str]] = {
    "field_type": "CFG-TYPE",
    "field_missing": "CFG-MISSING",
    "field_unknown": "CFG-UNKNOWN",
    "field_forbidden": "CFG-UNKNOWN",
}

_LIMIT_COLUMNS: Final = ("limit", "mode", "requests", "refused", "refused_charge", "downgraded", "most", "first_at")
_PAYER_COLUMNS: Final = ("refused", "refused_charge", "first_at", "last_at")


def command(
    from_: Annotated[str, typer.Option("--from", help="Start of the period.")],
    to: Annotated[str | None, typer.Option("--to", help="End, not included (default: now).")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The policy: YAML with a list `limits`.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Without the limits that are in force.")] = False,
    holds: Annotated[
        bool, typer.Option("--holds", help="Ask with the dollars that were held, the worst case.")
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Show what limits in shadow mode would have refused.")
    ] = False,
    by: Annotated[str, typer.Option(help="Show refusals by team, project or key.")] = "team",
    data: Where = None,
    json: Json = False,
) -> None:
    """Replay past requests against proposed limits. Nothing is changed."""
    if by not in PAYERS:
        raise UsageError(f"--by: expected one of {', '.join(PAYERS)}", code="value")
    if file is None and not shadow:
        raise UsageError("name a policy with -f, or ask for --shadow")
    tree = _policy(file) if file is not None else None
    body: dict[str, Any] = {"from": from_, "limits": _limits(tree), "keep": not alone and tree is not None}
    body |= {"holds": True} if holds else {}
    body |= {"to": to} if to is not None else {}
    with connect(data) as client:
        try:
            told = _ended(client, client.call("POST", "/rehearse", body))
        except Refused as refused:
            raise _placed(refused, tree) from None
    if json:
        emit_json(told)
    elif shadow and tree is None:
        _show_shadow(told)
    else:
        _show(told, by, shadow=shadow)


def _ended(client: AdminClient, told: dict[str, Any]) -> dict[str, Any]:
    """The result, once there is one; a rehearsal that nobody waits for any more is stopped."""
    try:
        while told["state"] == "running":
            progress = told["progress"]
            if progress:
                say(f"{progress['requests']} requests, up to {progress['until']} …")
            told = client.call("GET", f"/rehearse/{segment(told['id'])}")
    except KeyboardInterrupt:
        client.call("DELETE", f"/rehearse/{segment(told['id'])}")
        raise
    return {name: value for name, value in told.items() if name not in ("id", "state")}


# -- the file ----------------------------------------------------------------------------------------------------------


def _policy(file: Path) -> Tree:
    """The policy file, read as strictly as the configuration.

    Raises:
        Invalid: all reasons why it cannot be used, each with its place.
    """
    content, _ = read_bytes(file)
    tree, findings = parse(content, str(file), process_environment(), file.absolute().parent)
    findings += _shape_findings(tree)
    if findings:
        raise Invalid(findings)
    return tree


def _shape_findings(tree: Tree) -> Iterator[Finding]:
    for key in tree.root:
        if key != _LIMITS:
            hint = did_you_mean(key, [_LIMITS]) or f"known here: {_LIMITS}"
            yield Finding("CFG-UNKNOWN", tree.key_place((key,)), key, "a policy has no such key", hint=hint)
    listed = tree.root.get(_LIMITS)
    if not isinstance(listed, list) or not listed:
        place = tree.place((_LIMITS,))
        yield Finding("CFG-MISSING", place, _LIMITS, "is no list of limits", "at least one limit")
        return
    for number, each in enumerate(listed):
        if not isinstance(each, dict):
            path: KeyPath = (_LIMITS, number)
            yield Finding("CFG-TYPE", tree.place(path), key_text(path), "this is no limit", "a mapping of keys")


def _limits(tree: Tree | None) -> list[dict[str, Any]]:
    listed = tree.root[_LIMITS] if tree is not None else []
    assert isinstance(listed, list)
    return [_limit(each) for each in listed if isinstance(each, dict)]


def _limit(written: dict[str, Node]) -> dict[str, Any]:
    """A limit as the API takes it: a file may write whole dollars without quotes."""
    body: dict[str, Any] = dict(written)
    if written.get("unit") != "usd":
        return body
    for name in _DOLLARS:
        body |= _as_text(body, name)
    raises = body.get("raises")
    if isinstance(raises, list):
        body["raises"] = [{**each, **_as_text(each, "amount")} if isinstance(each, dict) else each for each in raises]
    return body


def _as_text(fields: Mapping[str, Any], name: str) -> dict[str, str]:
    value = fields.get(name)
    return {name: str(value)} if isinstance(value, int) and not isinstance(value, bool) else {}


def _placed(refused: Refused, tree: Tree | None) -> UsageError | Invalid:
    """What the API said of limits, said of their places in the file; anything else stays as it is."""
    about = [each for each in refused.errors if each.get("field", "").split(".")[0] == _LIMITS]
    if tree is None or not about:
        return refused
    return Invalid([_finding(tree, each) for each in about])


def _finding(tree: Tree, mistake: Mapping[str, str]) -> Finding:
    path = _path(tree.root, mistake["field"].split("."))
    code = _CODES.get(mistake["code"], "CFG-RANGE")
    place = tree.key_place(path) if code == "CFG-UNKNOWN" else tree.place(path)
    return Finding(code, place, key_text(path), mistake["detail"])


def _path(node: Node, parts: Sequence[str]) -> KeyPath:
    """The path that a field of the API means; names of tags have dots of their own."""
    if not parts:
        return ()
    if isinstance(node, list) and parts[0].isdecimal() and int(parts[0]) < len(node):
        number = int(parts[0])
        return (number, *_path(node[number], parts[1:]))
    if isinstance(node, dict):
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if name in node:
                return (name, *_path(node[name], parts[count:]))
    return (".".join(parts),)


# -- what is shown -----------------------------------------------------------------------------------------------------


def _show(told: dict[str, Any], by: str, *, shadow: bool) -> None:
    table(_LIMIT_COLUMNS, [[_cell(name, row) for name in _LIMIT_COLUMNS] for row in told["limits"]])
    refused = told["by"][by]
    if refused:
        emit("")
        table([by, *_PAYER_COLUMNS], [[row[name] for name in (by, *_PAYER_COLUMNS)] for row in refused])
    emit("")
    share = f" ({_share(told['refused'], told['requests'])})" if told["requests"] else ""
    emit(f"{told['refused']} of {told['requests']} requests refused{share}, {told['saved']} of {told['charge']} saved")
    if told["downgraded"]:
        emit(f"{told['downgraded']} would have gone to a cheaper model")
    then = sum(told["refused_then"].values())
    if then:
        say(f"{then} were refused by limits then; what they would have used is not known.")
    if told["unknown"]:
        say(f"{told['unknown']} have no known end; they ask with what they hold.")
    if shadow:
        emit("")
        _show_shadow(told)


def _show_shadow(told: dict[str, Any]) -> None:
    table(("limit", "would_refuse"), [[row["limit"], row["requests"]] for row in told["shadow"]])


def _share(part: int, whole: int) -> str:
    """A share in percent, with one decimal, without a detour over binary fractions."""
    tenths = part * 1_000 // whole
    return f"{tenths // 10}.{tenths % 10} %"


def _cell(name: str, row: dict[str, Any]) -> Any:
    if name == "limit":
        return _described(row)
    if name == "most":
        of = ",".join(f"{key}={value or '-'}" for key, value in (row["most"]["subject"] or {}).items())
        return f"{row['most']['amount']}{f' {of}' if of else ''}"
    if name == "refused" and row["would_refuse"]:
        return f"{row['would_refuse']} (shadow)"
    return row[name]


def _described(row: dict[str, Any]) -> str:
    """A limit in a few words: whom it covers, of what how much in which time."""
    covers = ",".join(f"{name}={value}" for name, value in row["select"].items()) or "everything"
    each = f" each {','.join(row['each'])}" if row["each"] else ""
    amount = "unlimited" if row["amount"] is None else row["amount"]
    window = f" per {row['window']}" if row["window"] else ""
    return f"{covers}{each}: {amount} {row['unit']}{window}"
