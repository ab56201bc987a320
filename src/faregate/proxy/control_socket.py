"""The gate's ear for the console: a Unix socket in the data folder, one JSON message a line (``faregate.control``).

Whoever can open the socket is the console: the file's mode is the credential. Messages are answered in order, each
before the next is read.
"""

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

import msgspec

from faregate.config.settings import decode_settings
from faregate.control import (
    LINE_BYTES_MAX,
    Allowances,
    AllowanceView,
    Answer,
    Ask,
    AskAllowances,
    AskBrakes,
    AskFigures,
    AskFlush,
    Brakes,
    Credentials,
    Done,
    Drain,
    Figures,
    FlushCache,
    Habits,
    Load,
    Loaded,
    Opening,
    Projected,
    Reconfigure,
    Reply,
    Report,
    Reported,
    Resolve,
    Sample,
    TellIssuerKeys,
    Trouble,
    WantedIssuerKeys,
    decode_ask,
    encode,
)
from faregate.core.ledger.events import Attempt, Settled
from faregate.proxy.reconfigured import reconfigure

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: ``sun_path`` holds 108 bytes; longer paths are reached through the folder's descriptor.
SOCKET_PATH_BYTES_MAX = 100


class ControlSocket:
    """Listens for the console and carries out what it asks."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self._server: asyncio.Server | None = None
        self._path = ""
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, path: str) -> None:
        """Open the socket, in place of one that a dead process left behind."""
        self._path = path
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            _bind(listener, path)
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._accepted, sock=listener, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while True:
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                answer = self._answer(line)
                if type(answer.body) is Reported and answer.body.changed:
                    # Nobody is told of what a failing power supply could still lose.
                    await self._gate.outside.durable()
                writer.write(encode(answer) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError):
            # The console went away, or sent a line over the bound: it connects again and starts from a full load.
            return
        finally:
            self._serving.discard(task)
            writer.close()

    def _answer(self, line: bytes) -> Answer:
        try:
            ask: Ask = decode_ask(line)
        except msgspec.MsgspecError as error:
            return Answer(0, Trouble(f"message not understood: {error}"))
        return Answer(ask.n, self._carry_out(ask.body))

    def _carry_out(self, body: object) -> Reply:
        gate = self._gate
        match body:
            case Projected():
                gate.projected = max(gate.projected, body.position)
                return Done()
            case AskFigures():
                return self._figures()
            case AskAllowances():
                return self._allowances(body)
            case Load():
                return self._load(body)
            case Opening():
                return self._open(body)
            case Credentials():
                gate.renew(body.credentials)
                return Done()
            case TellIssuerKeys():
                return self._take_issuer_keys(body)
            case Reconfigure():
                return self._reconfigure(body)
            case Resolve():
                return Done(self._resolve(body))
            case Report():
                return gate.outside.book(body)
            case AskBrakes():
                return gate.brakes.report(gate.wall_nanos()) if gate.brakes is not None else Brakes()
            case Habits():
                if gate.brakes is not None:
                    gate.brakes.told(body, gate.wall_nanos())
                return Done()
            case Drain():
                gate.drain()
                return Done()
            case FlushCache() | AskFlush():
                return self._flush(body)
        return Trouble("message not understood")

    def _flush(self, body: FlushCache | AskFlush) -> Reply:
        cache = self._gate.cache
        if cache is None:
            return Trouble("the response cache is switched off")
        return cache.flush(body) if isinstance(body, FlushCache) else cache.flushed(body.number)

    def _load(self, load: Load) -> Reply:
        gate = self._gate
        if not load.full and load.sequence < gate.snapshot.sequence:
            return Trouble(f"change {load.sequence} is older than {gate.snapshot.sequence}; send a full load")
        try:
            pending = gate.apply(load)
        except (ValueError, KeyError, OSError) as error:
            return Trouble(f"not loaded: {error}")
        return Loaded(gate.snapshot.sequence, gate.journal.position, gate.journal.epoch, pending)

    def _reconfigure(self, order: Reconfigure) -> Reply:
        try:
            reconfigure(self._gate, decode_settings(order.settings), order.catalogue)
        except (ValueError, KeyError, OSError) as error:
            return Trouble(f"not reconfigured: {error}")
        return Done()

    def _open(self, opening: Opening) -> Reply:
        gate = self._gate
        now = gate.wall_nanos()
        if opening.first:
            for unknown in opening.unknowns:
                gate.hold_unknown(unknown)
        balances: dict[str, list[tuple[tuple[str, ...], int, int]]] = {id: [] for id in opening.limits}
        for balance in opening.balances:
            if balance.limit in balances:
                balances[balance.limit].append((balance.subject, balance.window_start, balance.posted))
        for id, rows in balances.items():
            gate.allowances.open_balance(id, rows, now)
        gate.projected = max(gate.projected, opening.position)
        gate.opened_first = gate.opened_first or opening.first
        gate.judge()
        return Done()

    def _take_issuer_keys(self, told: TellIssuerKeys) -> WantedIssuerKeys:
        issuers = self._gate.issuers
        if issuers is None:
            return WantedIssuerKeys()
        for waited in issuers.take(told.sets, told.answered):
            self._gate.loop.call_soon(waited)
        return WantedIssuerKeys(*issuers.wanted())

    def _resolve(self, order: Resolve) -> bool:
        gate = self._gate
        known = gate.unknowns.get(order.id)
        if known is None:
            return False
        unknown, _ = known
        now = gate.wall_nanos()
        event = Settled(
            order.id,
            now,
            order.status,
            200 if order.status == "ok" else 0,
            "",
            order.usage,
            order.usage_source,
            order.cost,
            order.charge,
            order.price_version or unknown.price_version,
            max(0, now - unknown.dispatched_at) // 1000,
            0,
            (Attempt(unknown.deployment),) if unknown.deployment else (),
            order.answered_model,
            order.provider_request_id or unknown.awaited.object_id,
            max(0, order.charge - unknown.held.usd),
            order.resolution,
            unknown.charge_rule,
        )
        return gate.resolve(event)

    def _allowances(self, ask: AskAllowances) -> Allowances:
        allowances = self._gate.allowances
        now = self._gate.wall_nanos()
        views = allowances.views(now, ask.limits or None)
        return Allowances(
            tuple(
                AllowanceView(
                    v.limit,
                    v.subject,
                    v.posted,
                    v.held,
                    v.window_start,
                    v.resets_at,
                    -1 if v.amount is None else v.amount,
                )
                for v in views
            ),
            allowances.pending(ask.limits or None),
        )

    def _figures(self) -> Figures:
        gate = self._gate
        allowances = gate.allowances
        shadowed = [
            Sample("faregate_shadow_refusals_total", (("limit", limit),), count)
            for limit, count in allowances.shadow_refusals.items()
        ]
        kept = gate.cache.samples() if gate.cache is not None else ()
        mirrored = [
            Sample("faregate_mirrored_calls_total", (("outcome", outcome),), count)
            for outcome, count in gate.mirrors.outcomes.items()
        ]
        pending = [unknown.held.usd for unknown, _ in gate.unknowns.values() if unknown.awaited.object_id]
        return Figures(
            ready=gate.closed_for is None,
            draining=gate.draining,
            epoch=gate.journal.epoch,
            position=gate.journal.position,
            projected=gate.projected,
            sequence=gate.snapshot.sequence,
            open_exchanges=gate.open_answers,
            held_nanos=allowances.held_total_usd,
            unknown_count=allowances.unknown_count - len(pending),
            unknown_nanos=allowances.unknown_total_usd - sum(pending),
            connections=gate.connections,
            samples=(*gate.metrics.samples(), *shadowed, *gate.deployments.samples(), *kept, *mirrored),
            resting=gate.deployments.told(gate.monotonic_nanos()),
            histograms=gate.metrics.histograms(),
            pending_count=len(pending),
            pending_nanos=sum(pending),
            failing_open=gate.failing_open,
            braked_keys=gate.brakes.in_force(gate.wall_nanos()) if gate.brakes is not None else 0,
        )


def _bind(listener: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        listener.bind(path)
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
