"""How commands speak: results on standard output (tables for people, JSON for scripts), everything else on standard
error, and how an error becomes a message and an exit code. No traceback ever reaches a user.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.errors import FaregateError

#: Options that every command has.
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", envvar="FAREGATE_DATA", help="Data folder of the installation.")
]

DATA_DEFAULT = Path("faregate-data")

#: The reader of a pipe went away, as a shell tells it: 128 + SIGPIPE.
EXIT_PIPE = 141


class ReaderLeft(Exception):
    """Whoever read our standard output has what they wanted; the command ends quietly."""


def emit_json(value: object) -> None:
    """One JSON value on standard output."""
    emit(json.dumps(value, ensure_ascii=False, default=str))


def emit(text: str) -> None:
    """One line, or several, on standard output.

    Raises:
        ReaderLeft: nobody reads any more.
    """
    try:
        sys.stdout.write(text + "\n")
    except BrokenPipeError:
        raise ReaderLeft from None


def say(text: str) -> None:
    """A message beside the result, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def flush() -> None:
    """Hand what was written to whoever reads it now, not when the command ends."""
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their column names, aligned; numbers to the right. Without rows only the names."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [_is_numeric([row[at] for row in cells]) for at in range(len(columns))]
    widths = [max([len(name), *(len(row[at]) for row in cells)]) for at, name in enumerate(columns)]
    for line in ([*columns], *cells):
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        emit("  ".join(parts).rstrip())


def emit_row(row: dict[str, Any], *, as_json: bool) -> None:
    """A resource as it was read, made or changed, and whether the gate works from that already."""
    applied = row.pop("applied", True)
    if as_json:
        emit_json(row)
    else:
        table(("field", "value"), [(field, value) for field, value in row.items() if value is not None])
    if not applied:
        say("The gate has not taken this up yet; `faregate doctor` says why.")


def emit_deleted(row: dict[str, Any], *, as_json: bool) -> None:
    """A resource that is gone."""
    if as_json:
        emit_json(row)
    else:
        named = f" ({row['name']})" if "name" in row else ""
        emit(f"deleted {row['id']}{named}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    # A cell stays in its line and moves no cursor, whatever a name holds.
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether a column holds numbers; one that holds nothing at all may be of text."""
    told = [text for text in column if text != "-"]
    return bool(told) and all(text.lstrip("-").replace(".", "", 1).isdecimal() for text in told)


def report(error: FaregateError, *, as_json: bool) -> int:
    """Tell an error on standard error; its exit code."""
    if as_json:
        told: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.hint:
            told["hint"] = error.hint
        findings = getattr(error, "findings", None)
        if findings is not None:
            told["problems"] = [finding_json(finding) for finding in findings]
        say(json.dumps({"error": told}, ensure_ascii=False))
    else:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        say(f"faregate: {error.message}{hint}" if "\n" not in error.message else f"{error.message}{hint}")
    return error.exit_code


def finding_json(finding: Any) -> dict[str, Any]:
    """A finding of the configuration as JSON."""
    return {
        "code": finding.code,
        "file": finding.place.source,
        "line": finding.place.line,
        "column": finding.place.column,
        "key": finding.key,
        "problem": finding.problem,
        "expected": finding.expected,
        "hint": finding.hint,
    }


def drop_unwritten() -> None:
    """Forget what standard output does not take, so that the interpreter does not fail over it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        close_quietly()


def close_quietly() -> None:
    """Give standard output a place to go after its reader left, so that nothing is said at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
