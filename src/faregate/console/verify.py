"""``/api/v1/verify`` and ``/api/v1/backup``: proof that the books add up, and a copy of them while in use."""

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import anyio
from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console import corrections
from faregate.console.paging import single_values
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.state import Check, Console
from faregate.console.texts import Body
from faregate.console.writing import console_of
from faregate.core import money
from faregate.errors import Unavailable, Unsafe

router = APIRouter(tags=["care"])

#: How long the projector is waited for before the books are looked at.
CATCH_UP_SECONDS_MAX: Final = 10

_CHUNK_BYTES: Final = 1024 * 1024


class NewBackup(Body):
    """Where a backup goes: an absolute path on the console's machine."""

    file: str = Field(min_length=1, max_length=4_096)
    #: Replace a file that exists.
    force: bool = False


async def _caught_up(console: Console) -> Check:
    """Wait until the books hold what the gate has journalled up to now."""
    if console.gate is None or not console.gate.connected:
        return Check("projection", True, "no gate is running; the books are compared with the journal's files")
    try:
        position = (await console.gate.figures()).position
    except Unavailable as problem:
        return Check("projection", False, problem.message)
    with anyio.move_on_after(CATCH_UP_SECONDS_MAX):
        # The projector writes the books from a thread of its own and tells nobody.
        while await in_thread(console.books.projected) < position:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    reached = await in_thread(console.books.projected)
    return Check("projection", reached >= position, f"the books hold the journal up to {reached}; asked for {position}")


def _sums(totals: dict[str, Any]) -> list[Check]:
    dollars = money.dollars
    return [
        Check("double_entry", totals["sum"] == 0, f"all postings add up to {dollars(totals['sum'])}"),
        Check(
            "rollups",
            totals["rollup_cost"] == totals["request_cost"],
            f"roll-ups hold {dollars(totals['rollup_cost'])}, request records {dollars(totals['request_cost'])}",
        ),
        Check(
            "providers",
            totals["credited"] == totals["request_cost"] + totals["late"],
            f"providers were credited {dollars(totals['credited'])}, request records hold "
            f"{dollars(totals['request_cost'])}, late evidence {dollars(totals['late'])}",
        ),
        Check(
            "postings",
            totals["posted"] == totals["request_charge"],
            f"charges posted {dollars(totals['posted'])}, request records hold {dollars(totals['request_charge'])}",
        ),
    ]


@router.get("/verify")
async def verify(request: Request) -> dict[str, Any]:
    """Prove that postings balance, roll-ups equal records, and the books equal the journal."""
    single_values(request, ())
    console = console_of(request)
    checks = [await _caught_up(console)]
    totals = await in_thread(console.books.totals)
    checks += _sums(totals)
    checks.append(await in_thread(lambda: corrections.check(console)))
    fault = await in_thread(console.audit.fault)
    checks.append(Check("audit", not fault, fault or "the trail of changes is whole"))
    if console.check_journal is not None:
        checks += await in_thread(console.check_journal)
    return {
        "ok": all(check.ok for check in checks),
        "requests": totals["requests"],
        "postings": totals["postings"],
        "held": money.dollars(totals["held"]),
        "unknown": money.dollars(totals["unknown"]),
        "sum": money.dollars(totals["sum"]),
        "checks": [check._asdict() for check in checks],
    }


def _target(console: Console, wanted: NewBackup) -> Path:
    target = Path(wanted.file)
    if not target.is_absolute() or "\0" in wanted.file:
        raise ApiProblem("field_range", "must be an absolute path on the console's machine", field="file")
    data = Path(console.facts.data_dir).resolve()
    where = target.parent.resolve() / target.name
    if where.is_relative_to(data):
        raise Unsafe("a backup inside the data folder would be lost with it", hint="name a file outside of it")
    if target.is_dir():
        raise ApiProblem("field_range", "is a folder; name a file", field="file")
    if target.exists() and not wanted.force:
        raise Unsafe("this file exists", hint="name another one, or replace it with --force (in the API: force)")
    return target


@router.post("/backup")
async def backup(request: Request, wanted: NewBackup) -> dict[str, Any]:
    """Write a consistent copy of books and trail while they are in use; nothing half-written is left behind."""
    console = console_of(request)

    def copy() -> dict[str, Any]:
        target = _target(console, wanted)
        console.books.backup(str(target))
        digest = hashlib.sha256()
        with target.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return {"file": str(target), "bytes": os.path.getsize(target), "sha256": digest.hexdigest()}

    return await in_thread(copy)
