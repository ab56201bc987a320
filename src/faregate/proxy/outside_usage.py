"""Calls that went past the gate and are told to it afterwards: booked like any other, counted on every limit.

Nothing is decided here: what was used and what it costs comes from the console. It owns that a report is booked once
for as long as the books may not hold it; later the books tell whoever asks again.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from faregate.control import Report, Reported
from faregate.core.amounts import posted_amounts
from faregate.core.ledger.events import Intended, Settled
from faregate.core.usage import Usage
from faregate.errors import FaregateError

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: The note by which records of such calls are told apart.
NOTES: Final = '{"reported": true}'

#: Reports that are remembered though the books hold them, so that nobody who looked just before need look again.
REMEMBERED: Final = 1_000
#: Reports that may wait for the books at once.
WAITING_MAX: Final = 20_000


class OutsideUsage:
    """Books reports of one gate."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        #: Id → what was booked, and the journal position after it, in the order of booking.
        self._booked: dict[str, tuple[int, Usage, int]] = {}
        #: The newest position, and that of the newest which is remembered no more.
        self._position = self._forgotten = 0

    def book(self, report: Report) -> Reported:
        """Journal a report and count it, unless it was booked before."""
        gate = self._gate
        for id in (report.id, *report.also):
            known = self._booked.get(id)
            if known is not None:
                return Reported(changed=False, same=known[:2] == (report.charge, report.usage))
        self._forget()
        refused = gate.closed_for.message if gate.closed_for is not None else ""
        if len(self._booked) >= WAITING_MAX:
            refused = "Not accepted: too many reports wait for the books."
        elif report.looked_to < self._forgotten:
            refused = "Not accepted: the books moved on meanwhile. Report it again."
        if refused:
            return Reported(changed=False, refused=refused)
        at = gate.wall_nanos()
        posted = posted_amounts(report.charge, report.usage)
        intent = Intended(
            report.id,
            at,
            at,
            report.who,
            posted,
            report.price_version,
            report.stream,
            report.usage.input_tokens,
            report.reference,
            0,
            report.charge_rule,
            NOTES,
        )
        try:
            gate.journal.append(intent)
        except FaregateError:
            return Reported(changed=False, refused=gate.disk_failed().message)
        # What has happened counts even where nothing is left: it is held without a check, then settled.
        reservation = gate.allowances.hold_unknown(report.id, report.who, posted, at, at)
        settled = Settled(
            report.id,
            at,
            "ok",
            200,
            "",
            report.usage,
            report.usage_source,
            report.cost,
            report.charge,
            report.price_version,
            0,
            0,
            (),
            report.answered_model,
            report.provider_request_id,
            0,
            "",
            report.charge_rule,
        )
        position = gate.settle(reservation, settled, report.charge, report.usage)
        # Where the disk took only the first half the second is kept in memory, and written before anything else.
        self._position = gate.journal.position if position is None else position
        self._booked[report.id] = (report.charge, report.usage, self._position)
        gate.metrics.reported(gate.metrics.row(report.who, "ok"), report.usage, report.cost)
        if report.unpriced:
            gate.metrics.unmeasured(report.unpriced, 1)
        return Reported()

    async def durable(self) -> None:
        """Wait until the newest report is on stable storage, where calls wait for that, too."""
        gate = self._gate
        if gate.waits_for_disk:
            done: asyncio.Future[None] = gate.loop.create_future()
            gate.journal.when_durable(self._position, lambda: None if done.done() else done.set_result(None))
            await done

    def _forget(self) -> None:
        """Drop the oldest that the books hold, where there are many."""
        while len(self._booked) > REMEMBERED:
            id, (_, _, position) = next(iter(self._booked.items()))
            if position > self._gate.projected:
                return
            del self._booked[id]
            self._forgotten = position
