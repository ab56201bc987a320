"""``faregate report``: what was saved, and how deployments compare, ready for a sheet."""

import csv
import io
from collections.abc import Sequence
from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import listed, pairs
from faregate.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Reports.")

FORMATS = ("table", "csv", "json")

#: What a formula in a sheet begins with.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_FIGURES = (
    "cache_hits", "cache_misses", "hit_ratio", "saved_cost", "hit_charge",
    "provider_cached_tokens", "provider_written_tokens", "provider_saved_cost",
)  # fmt: skip


_COMPARED = (
    "model", "deployment", "provider", "mirrored", "requests", "ok", "failed", "ok_ratio", "cost", "cost_per_request",
    "input_tokens", "output_tokens",
)  # fmt: skip
_TIMES = (("latency_ms", ("p50", "p90", "p99")), ("first_token_ms", ("p50", "p90")))
_SPEED = "output_tokens_per_second"
#: Of these what a table is left without: a sheet has the room.
_ONLY_CSV = ("provider", "ok", "failed", "cost", "input_tokens", "output_tokens", "first_token_ms_p90")
_PAIRED = (
    "model", "deployment", "mirror", "pairs", "cost", "mirror_cost", "latency_ms", "mirror_latency_ms",
    "output_tokens", "mirror_output_tokens", "failed", "mirror_failed",
)  # fmt: skip


@app.callback()
def reports() -> None:
    """Reports."""


@app.command("cache")
def cache(
    by: Annotated[str | None, typer.Option(help="Dimensions, joined by commas: project,model.")] = None,
    since: Annotated[str | None, typer.Option(help="Start (default: this month).")] = None,
    until: Annotated[str | None, typer.Option(help="End, not included (default: now).")] = None,
    select: Annotated[str | None, typer.Option(help="Only these: team=research,stage=prod.")] = None,
    format: Annotated[str, typer.Option(help="table, csv or json.")] = "table",
    data: Where = None,
    json: Json = False,
) -> None:
    """Tell what the response cache saved and was charged for, and what providers' own caches of prompts saved."""
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}", code="value")
    query = {**pairs(select), "by": by, "since": since, "until": until}
    with connect(data) as client:
        report = client.call("GET", "/reports/cache", query=query)
    if json or format == "json":
        emit_json(report)
        return
    names = list(listed(by) or ())
    for name in ("key", "subscription"):
        if name in names:
            names.insert(names.index(name) + 1, f"{name}_name")
    columns = [*names, *_FIGURES]
    # Without dimensions the total is the only row.
    rows = [[row[name] for name in columns] for row in (report["data"] if by else [report["total"]])]
    if format == "csv":
        emit(_csv(columns, rows, len(columns) - len(_FIGURES)))
    else:
        table(columns, rows)


@app.command("deployments")
def deployments(
    since: Annotated[str | None, typer.Option(help="Start (default: this month).")] = None,
    until: Annotated[str | None, typer.Option(help="End, not included (default: now).")] = None,
    select: Annotated[
        str | None, typer.Option(help="Only these: model, deployment, operation, stream=true or false.")
    ] = None,
    pairs_only: Annotated[bool, typer.Option("--pairs", help="Only mirrored calls beside their copies.")] = False,
    format: Annotated[str, typer.Option(help="table, csv or json.")] = "table",
    data: Where = None,
    json: Json = False,
) -> None:
    """Compare deployments: what calls cost there, how they ended and how fast it was; mirrored calls with their copies.

    CSV has all figures of deployments, or with --pairs those of mirrored calls.
    """
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}", code="value")
    with connect(data) as client:
        report = client.call("GET", "/reports/deployments", query={**pairs(select), "since": since, "until": until})
    if json or format == "json":
        emit_json(report["pairs"] if pairs_only else report)
        return
    columns = [*_COMPARED, *(f"{name}_{each}" for name, percents in _TIMES for each in percents), _SPEED]
    rows = [
        [
            *(row[name] if name != "mirrored" else "yes" if row[name] else "no" for name in _COMPARED),
            *(row[name][each] for name, percents in _TIMES for each in percents),
            row[_SPEED],
        ]
        for row in report["data"]
    ]
    paired = [[row[name] for name in _PAIRED] for row in report["pairs"]]
    if format == "csv":
        emit(_csv(_PAIRED, paired, 3) if pairs_only else _csv(columns, rows, 3))
    elif pairs_only:
        table(_PAIRED, paired)
    else:
        shown = [at for at, name in enumerate(columns) if name not in _ONLY_CSV]
        table([columns[at] for at in shown], [[row[at] for at in shown] for row in rows])
        if paired:
            emit("")
            table(_PAIRED, paired)
    if report["truncated"]:
        say(f"of the newest {report['records']} records: ask for a shorter time")


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]], names: int) -> str:
    """Rows as CSV; the first ``names`` cells of each hold what people call things."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([*map(_plain, row[:names]), *("" if cell is None else cell for cell in row[names:])])
    return text.getvalue().removesuffix("\n")


def _plain(name: object) -> str:
    """A name as a cell; one that a sheet would take for a formula gets an apostrophe, for callers choose some names."""
    text = "" if name is None else str(name)
    return f"'{text}" if text.startswith(_FORMULA) else text
