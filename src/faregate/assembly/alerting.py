"""Puts together what tells people: channels of the configuration, the watch over limits and calls, and the delivery."""

import asyncio
from pathlib import Path
from typing import Final

from faregate.config.schema import Alerts
from faregate.console.alert_outbox import AlertOutbox
from faregate.console.channels import kind_of
from faregate.console.limit_watch import WatchedInstallation
from faregate.console.state import Console
from faregate.core import money
from faregate.core.alerts import AddressFault
from faregate.core.limits.telling import LowBalance
from faregate.jobs.apprise_channels import AppriseSender
from faregate.jobs.deliver_alerts import AlertDelivery
from faregate.jobs.runner import Job
from faregate.jobs.signed_webhook import WebhookSender
from faregate.jobs.watch_calls import CallWatch, UnknownsRule
from faregate.jobs.watch_limits import LimitWatch
from faregate.ports import DECLARED, Clock, Row

#: How often limits and calls are looked at, and old alerts removed.
WATCH_INTERVAL_S: Final = 2.0
CLEAN_INTERVAL_S: Final = 600.0


class Alerting:
    """Everything about alerts that runs beside the console."""

    def __init__(self, config: Alerts, folder: Path, clock: Clock) -> None:
        """Relative file names in ``config`` start at ``folder``."""
        self._config = config
        self._webhooks = WebhookSender(
            allow_private=config.allow_private,
            wall_nanos=clock.wall_nanos,
            ca_file=str(folder / config.ca_file) if config.ca_file else "",
        )
        self._apprise = AppriseSender(allow_private=config.allow_private)

    def channels(self) -> tuple[Row, ...]:
        """The channels of the configuration, as rows of the books."""
        return tuple(
            {
                "id": f"{DECLARED}{each.name}",
                "name": each.name,
                "kind": kind_of(each.url.get_secret_value()),
                "url": each.url.get_secret_value(),
                "secret": each.secret.get_secret_value() if each.secret is not None else "",
                "alerts": None if each.alerts is None else list(each.alerts),
                "state": "active",
                "details": {},
                "created_at": 0,
                "updated_at": 0,
            }
            for each in self._config.channels
        )

    def check_address(self, kind: str, url: str) -> AddressFault | None:
        """What is wrong with the address of a channel; it may look names up."""
        return self._webhooks.fault(url) if kind == "webhook" else self._apprise.fault(url)

    def jobs(self, console: Console) -> list[Job]:
        """What is to be done again and again."""
        watch = _Watch(console, self._config)
        outbox, keep_nanos = AlertOutbox(console), self._config.keep * 1_000_000

        async def clean() -> None:
            await asyncio.to_thread(outbox.clean, keep_nanos)

        return [Job("watch_limits", WATCH_INTERVAL_S, watch.run), Job("clean_alerts", CLEAN_INTERVAL_S, clean)]

    async def deliver(self, console: Console) -> None:
        """Deliver alerts until cancelled."""
        senders = {"webhook": self._webhooks.send, "apprise": self._apprise.send}
        try:
            await AlertDelivery(AlertOutbox(console), senders).run()
        finally:
            await self._webhooks.close()


class _Watch:
    """One look at calls and limits: what calls tell is needed for what limits are told of."""

    def __init__(self, console: Console, config: Alerts) -> None:
        self._installation = WatchedInstallation(console, config.thresholds)
        low = LowBalance(config.low_balance, money.nanos(config.low_balance_amount))
        rule = UnknownsRule(config.unknowns.count, money.nanos(config.unknowns.amount))
        self._limits = LimitWatch(self._installation, low)
        self._calls = CallWatch(self._installation, rule)

    async def run(self) -> None:
        """Look once."""
        refusals, unpriced = await asyncio.to_thread(self._installation.calls)
        self._limits.note(refusals)
        await self._limits.run()
        await self._calls.run(unpriced)
