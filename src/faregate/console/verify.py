"""``/api/v1/verify`` and ``/api/v1/backup``: proof that the books add up, and a copy of them while in use."""

import hashlib
import os
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console import corrections
from faregate.console.audit import all_marks
from faregate.console.catching_up import CATCH_UP_SECONDS_MAX, caught_up
from faregate.console.describing import answers, asks, text
from faregate.console.paging import single_values
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.state import Check, Console
from faregate.console.texts import Body, time_text
from faregate.console.writing import console_of, tell
from faregate.core import money
from faregate.core.access import LOCAL
from faregate.errors import Conflict, Unavailable, Unsafe
from faregate.ports import Proof

router = APIRouter(tags=["care"])

#: Of SHA-256.
HASH_CHARACTERS: Final = 64

_CHUNK_BYTES: Final = 1024 * 1024


class NewBackup(Body):
    """Where a backup goes: an absolute path on the console's machine."""

    file: str = Field(min_length=1, max_length=4_096, json_schema_extra={"pattern": "^/"})
    #: Replace a file that exists; with a key only one that is a backup.
    force: bool = False


async def _caught_up(console: Console) -> Check:
    """Wait until the books hold what the gate has journalled up to now."""
    if console.gate is None or not console.gate.connected:
        return Check("projection", True, "no gate is running; the books are compared with the journal's files")
    try:
        position = (await console.gate.figures()).position
    except Unavailable as problem:
        return Check("projection", False, problem.message)
    reached = await caught_up(console, position)
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


async def _chained(console: Console, anchor: str) -> tuple[list[Check], Proof]:
    """Whether everything in the books is as it was booked, and the trail of changes is the one that they know."""
    told = await in_thread(console.audit.last)
    proof = await in_thread(lambda: console.books.prove(console.verifying.step, anchor))
    fault = await in_thread(lambda: _trail_fault(console, told))
    covered = f"{proof.rows} rows in {proof.entries} entries are as they were booked"
    return [
        Check("chain", not proof.faults, "; ".join(proof.faults) or covered),
        Check("derived", not proof.derived, "; ".join(proof.derived) or "roll-ups and reservations equal the records"),
        Check("audit", not fault, fault or "the trail of changes is whole, and the one that the books know"),
    ], proof


def _trail_fault(console: Console, told: int) -> str:
    """What is wrong with the trail up to line ``told``; a change that is being made is waited for."""
    fault = console.audit.fault(all_marks(console.books), told)
    if fault and console.changing.acquire(timeout=CATCH_UP_SECONDS_MAX):
        # Whoever was changing something has ended by now; what is wrong once more is wrong.
        console.changing.release()
        fault = console.audit.fault(all_marks(console.books), told)
    return fault


def _hash_of(anchor: str) -> str:
    """The hash that an anchor names.

    Raises:
        ApiProblem: it is no hash.
    """
    text = anchor.strip().lower()
    if text and (len(text) != HASH_CHARACTERS or not set(text) <= set("0123456789abcdef")):
        rule = f"must be the {HASH_CHARACTERS} hexadecimal characters of `anchor.hash` as verify told them"
        raise ApiProblem("filter_invalid", rule, field="anchor")
    return text


@router.get("/verify")
@needs("installation.read")
@asks(text("anchor", "`anchor.hash` of an earlier answer, kept elsewhere.", most=HASH_CHARACTERS))
@answers(shapes.Verification, refusals=(409,))
async def verify(request: Request) -> dict[str, Any]:
    """Prove that nothing booked was changed, that postings balance, and that the books equal the journal.

    ``anchor`` in the answer is the head of the chain: kept elsewhere and sent back as the parameter ``anchor``, it
    proves that the books of then are a part of those of now.
    """
    anchor = _hash_of(single_values(request).get("anchor", ""))
    console = console_of(request)
    if not console.verifying.begin():
        raise Conflict("the books are being verified already", hint="wait for that, or look at its progress")
    try:
        checks = [await _caught_up(console)]
        totals = await in_thread(console.books.totals)
        checks += _sums(totals)
        checks.append(await in_thread(lambda: corrections.check(console)))
        found, proof = await _chained(console, anchor)
        checks += found
        if console.check_journal is not None:
            console.verifying.phase = "journal"
            checks += await in_thread(console.check_journal)
    finally:
        console.verifying.end()
    return {
        "ok": all(check.ok for check in checks),
        "requests": totals["requests"],
        "postings": totals["postings"],
        "held": money.dollars(totals["held"]),
        "unknown": money.dollars(totals["unknown"]),
        "sum": money.dollars(totals["sum"]),
        "anchor": {"number": proof.head.number, "hash": proof.head.hash, "at": time_text(proof.head.at)},
        "checks": [check._asdict() for check in checks],
    }


@router.get("/verify/progress")
@needs("installation.read")
@asks()
@answers(shapes.VerificationProgress)
async def verify_progress(request: Request) -> dict[str, Any]:
    """How far the verification that runs now has come: rows looked at, and of how many."""
    single_values(request)
    return console_of(request).verifying.shape()


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
    if os.path.lexists(target) and console.principal != LOCAL and not console.books.is_backup(str(target)):
        # Whoever holds a key that leaked may not destroy whatever else the service can write.
        raise Unsafe(
            "this file is no backup of Faregate, and only the machine itself may replace such a one",
            hint="name another file, or run `faregate backup --force` there",
        )
    return target


@router.post("/backup")
@needs("installation.write")
@answers(shapes.Backup)
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
        made = {"file": str(target), "bytes": os.path.getsize(target), "sha256": digest.hexdigest()}
        # Whoever takes a copy takes everything with it.
        tell(console, "backup", target.name, None, made)
        return made

    return await in_thread(copy)
