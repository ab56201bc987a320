"""Health: bare answers at the root for probes, and the detail for people at ``/api/v1/health``."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from faregate.console.alerts import delivery_state
from faregate.console.describing import answers, asks
from faregate.console.paging import single_values
from faregate.console.reading import in_thread
from faregate.console.rights import needs, open_to_all
from faregate.console.sealing import unreadable
from faregate.console.shapes import care as shapes
from faregate.console.state import Console
from faregate.console.texts import or_none, second_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.errors import FaregateError, Unavailable
from faregate.ports import CredentialState

router = APIRouter(tags=["health"])
probes = APIRouter(prefix="/health", include_in_schema=False)


async def detail(console: Console) -> dict[str, Any]:
    """What works and what does not, by part."""
    parts = {"books": await _books(console), "projector": _projector(console), "gate": await _gate(console)}
    parts["alerts"] = await _alerts(console)
    states, shut = console.credentials(), await _unreadable(console)
    if states or shut:
        parts["credentials"] = _credentials(states, shut)
    ok = all(part["ok"] for part in parts.values())
    return {
        "status": "ok" if ok else "degraded",
        "version": console.facts.version,
        "time": second_text(console.clock.wall_nanos()),
        **parts,
    }


async def _books(console: Console) -> dict[str, Any]:
    damage = console.damage()
    if damage:
        return {"ok": False, "detail": f"the books are damaged: {damage}; restore a backup"}
    try:
        return {"ok": True, "projected": await in_thread(console.books.projected, console.at_once.submit)}
    except FaregateError as problem:
        return {"ok": False, "detail": problem.message}


def _projector(console: Console) -> dict[str, Any]:
    if console.projector is None:
        return {"ok": True, "detail": "not running"}
    trouble = console.projector.trouble
    return {"ok": not trouble, **({"detail": trouble} if trouble else {})}


async def _alerts(console: Console) -> dict[str, Any]:
    try:
        return await in_thread(lambda: delivery_state(console), console.at_once.submit)
    except FaregateError as problem:
        return {"ok": False, "detail": problem.message}


async def _unreadable(console: Console) -> list[str]:
    try:
        return await in_thread(lambda: unreadable(console.all_books, console.box), console.at_once.submit)
    except FaregateError:
        # The part of the books says so.
        return []


def _credentials(states: Sequence[CredentialState], shut: Sequence[str]) -> dict[str, Any]:
    """The credentials of providers that are fetched, and what stored secrets do not open: whether all can be used."""
    ailing = [each for each in states if not each.usable or each.trouble]
    told = [f"{each.provider}: {each.trouble or 'is not there yet'}" for each in ailing]
    told += [f"{name}: its stored secret does not open with the keys in secrets.json; send it again" for name in shut]
    return {
        "ok": not told,
        "unreadable": list(shut),
        **({"detail": "; ".join(told)} if told else {}),
        "providers": [
            {
                "name": each.provider,
                "usable": each.usable,
                "expires_at": second_text(each.expires_at),
                "trouble": or_none(each.trouble),
                "renewals": each.renewals,
                "failures": each.failures,
            }
            for each in states
        ],
    }


async def _gate(console: Console) -> dict[str, Any]:
    if console.gate is None:
        return {"ok": True, "detail": "not running"}
    try:
        figures = await console.gate.figures()
    except Unavailable as problem:
        return {"ok": False, "detail": problem.message}
    return {
        "ok": figures.ready and not figures.failing_open,
        **({"detail": "failing open: calls are taken without the books"} if figures.failing_open else {}),
        "draining": figures.draining,
        "epoch": figures.epoch,
        "position": figures.position,
        "backlog_bytes": figures.position - figures.projected,
        "sequence": figures.sequence,
        "open_exchanges": figures.open_exchanges,
        "connections": figures.connections,
        "held": money.dollars(figures.held_nanos),
        "unknown": money.dollars(figures.unknown_nanos),
        "unknown_count": figures.unknown_count,
        "pending": money.dollars(figures.pending_nanos),
        "pending_count": figures.pending_count,
        "braked_keys": figures.braked_keys,
        "resting": [
            {"deployment": each.name, "state": each.state, "wait_ms": each.wait_ms} for each in figures.resting
        ],
    }


@router.get("/health")
@needs("installation.read")
@asks()
@answers(shapes.Health)
async def health(request: Request) -> dict[str, Any]:
    """What works and what does not."""
    single_values(request)
    return await detail(console_of(request))


@probes.get("/live")
@open_to_all("it says that the process answers")
async def live() -> Response:
    """Whether the console answers."""
    return JSONResponse({"status": "ok"})


@probes.get("/ready")
@open_to_all("it says yes or no")
async def ready(request: Request) -> Response:
    """Whether the console can do its work: books and gate answer. No detail: the detail wants a credential."""
    console = console_of(request)
    found = await detail(console)
    ok = found["books"]["ok"] and found["projector"]["ok"] and found["gate"]["ok"]
    return JSONResponse({"status": "ok" if ok else "unavailable"}, 200 if ok else 503)
