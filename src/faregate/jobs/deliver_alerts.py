"""Carries alerts from the books to their channels: at least once, each channel by itself and one alert at a time.

What is due, what was taken and when it is tried again is the outbox's to know; so a restart goes on where this stopped,
and an alert that was sent just before a crash is sent again under the same id.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from faregate.core.alerts import Parcel

log = logging.getLogger(__name__)

#: How often the outbox is looked at, and the share of the time that looking may take: one part in twenty.
POLL_SECONDS: Final = 1.0
LOOKING_PART: Final = 20

#: Channels that are sent to at the same time.
CHANNELS_AT_ONCE: Final = 16

#: After so many alerts in a row that a channel did not take, it is left alone until the next look.
MISSES_IN_A_ROW_MAX: Final = 3


class Outbox(Protocol):
    """What waits to be sent, and what became of it; its methods take their time."""

    def due(self) -> Sequence[Parcel]:
        """What is to be sent now."""
        ...

    def taken(self, parcel: Parcel) -> None:
        """A channel has taken an alert."""
        ...

    def missed(self, parcel: Parcel, trouble: str) -> None:
        """It has not, for this reason."""
        ...


#: Sends once; why it was not taken, in a few words without any secret, or nothing where it was.
Send = Callable[[Parcel], Awaitable[str]]


class AlertDelivery:
    """Delivers what the outbox holds. ``senders`` are by the kind of the channel."""

    def __init__(self, outbox: Outbox, senders: Mapping[str, Send]) -> None:
        self._outbox = outbox
        self._senders = senders
        self._at_once = asyncio.Semaphore(CHANNELS_AT_ONCE)
        #: Channels that are sent to now: a slow one keeps only its own alerts waiting.
        self._busy: set[str] = set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                began = loop.time()
                for id, parcels in (await self._due()).items():
                    group.create_task(self._deliver(id, parcels), name=f"alerts-{id}")
                await asyncio.sleep(max(POLL_SECONDS, LOOKING_PART * (loop.time() - began)))

    async def once(self) -> None:
        """Deliver what is due now, and wait for all of it."""
        async with asyncio.TaskGroup() as group:
            for id, parcels in (await self._due()).items():
                group.create_task(self._deliver(id, parcels))

    async def _due(self) -> dict[str, list[Parcel]]:
        """What is due by the id of its channel, those left out that are sent to now."""
        found: dict[str, list[Parcel]] = {}
        try:
            parcels = await asyncio.to_thread(self._outbox.due)
        # Whatever is wrong now, the console goes on, and so does this with the next look.
        except Exception as error:
            log.warning("alerts_not_looked_at", extra={"reason": f"{type(error).__name__}: {error}"})
            return found
        for parcel in parcels:
            if parcel.channel.id not in self._busy:
                found.setdefault(parcel.channel.id, []).append(parcel)
        self._busy.update(found)
        return found

    async def _deliver(self, id: str, parcels: Sequence[Parcel]) -> None:
        try:
            async with self._at_once:
                missed = 0
                for parcel in parcels:
                    missed = 0 if await self._deliver_one(parcel) else missed + 1
                    if missed == MISSES_IN_A_ROW_MAX:
                        break
        finally:
            self._busy.discard(id)

    async def _deliver_one(self, parcel: Parcel) -> bool:
        trouble = await self._sent(parcel)
        try:
            if trouble:
                await asyncio.to_thread(self._outbox.missed, parcel, trouble)
            else:
                await asyncio.to_thread(self._outbox.taken, parcel)
        # It is sent again when the books answer, under the same id; nothing of it may end the console.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("alert_not_noted", extra={"alert": parcel.alert, "reason": reason})
            return False
        return not trouble

    async def _sent(self, parcel: Parcel) -> str:
        send = self._senders.get(parcel.channel.kind)
        if send is None:
            return "nothing here can send to it"
        try:
            return await send(parcel)
        # Whatever sending to one channel fails of, it is that channel's trouble and no other's.
        except Exception as error:
            log.error("alert_failed", extra={"alert": parcel.alert, "reason": type(error).__name__})
            return f"it could not be sent ({type(error).__name__})"
