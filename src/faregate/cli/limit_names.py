"""Which limit a command is about: its id, or what it counts, as ``limit set`` was told."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, segment
from faregate.cli.named import key_named
from faregate.cli.words import listed, pairs
from faregate.errors import NotFound, UsageError

LimitId = Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the limit; or say what it counts.")]
Select = Annotated[str | None, typer.Option(help="Whom the limit covers: team=research.")]
Each = Annotated[str | None, typer.Option(help="What it counts each value of: user.")]
Unit = Annotated[str | None, typer.Option(help="What it counts: usd.")]
Window = Annotated[str | None, typer.Option(help="Its window: month.")]

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def refuse_vague(id: str | None, select: str | None, each: str | None, unit: str | None, window: str | None) -> None:
    """A limit is named by its id or by what it counts, and never by both, which could be two limits.

    Raises:
        UsageError: it was named by nothing, or by both.
    """
    described = any(given is not None for given in (select, each, unit, window))
    if (id is not None) == described or (described and unit is None):
        raise UsageError("name the limit by its id, or by --unit with --select, --each and --window")


def limit_row(
    client: AdminClient, id: str | None, select: str | None, each: str | None, unit: str | None, window: str | None
) -> dict[str, Any]:
    """The limit that was named.

    Raises:
        UsageError: it was named by nothing, or by both its id and what it counts.
        NotFound: there is none.
    """
    refuse_vague(id, select, each, unit, window)
    if id is not None:
        row: dict[str, Any] = client.call("GET", f"/limits/{segment(id)}")
        return row
    selected = pairs(select)
    if "key" in selected:
        # A key that is not there, or a caller without one, has a limit by what was typed or none.
        with suppress(NotFound):
            selected["key"] = key_named(client, selected["key"])["id"]
    wanted = (selected, sorted(listed(each) or []), window or None)
    for row in client.pages("/limits", {"unit": unit, "window": window}):
        if (row["select"], sorted(row["each"]), row["window"]) == wanted:
            return row
    raise NotFound("no limit counts just that; see faregate limit list")


def moment(text: str, option: str) -> str:
    """A time as the API takes it: as it was typed, or ``14d``, ``12h`` or ``30m`` from now on.

    Raises:
        UsageError: so long a time that the calendar ends before.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        return text
    try:
        return (datetime.now(UTC) + int(match[1]) * _UNITS[match[2]]).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError as error:
        raise UsageError(f"{option}: {text} is too long a time; such as 14d", code="value") from error
