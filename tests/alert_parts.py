"""The watch over limits and the delivery of alerts on the console of a test, put together as an installation does."""

from collections.abc import Sequence
from typing import Any

from console_parts import DAY, NOON, SECOND, WHO, Parts, opened, run, settled_call
from faregate.config.schema import Alerts
from faregate.console.alert_outbox import AlertOutbox
from faregate.console.alerts import raise_alert
from faregate.console.channels import NewChannel, create
from faregate.console.limit_watch import WatchedInstallation
from faregate.console.limits import NewLimit, put
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Refused
from faregate.core.limits.telling import LowBalance
from faregate.jobs.apprise_channels import AppriseSender
from faregate.jobs.deliver_alerts import AlertDelivery
from faregate.jobs.signed_webhook import WebhookSender
from faregate.jobs.watch_calls import CallWatch, UnknownsRule
from faregate.jobs.watch_limits import LimitWatch
from faregate.ports import Row

DOLLAR = 10**9

#: Of webhooks.
SECRET = "a-secret-of-thirty-two-characters"


class Watched:
    """A console whose limits are watched; ``made`` is what is behind it."""

    def __init__(self, made: Parts, config: Alerts | None = None) -> None:
        self.made = made
        self.config = config or Alerts()
        self._calls = 0
        made.journal.add(opened(at=made.clock.now - 400 * DAY))
        self.begin()

    def begin(self) -> None:
        """Watch anew, as after a restart: nothing is remembered but what the books hold."""
        self.installation = WatchedInstallation(self.made.console, self.config.thresholds)
        self.limits = LimitWatch(self.installation, LowBalance(self.config.low_balance, 0))
        self.calls = CallWatch(self.installation, UnknownsRule(10, 10 * DOLLAR))
        # The first look only finds out where to begin.
        self.installation.calls()

    def look(self) -> None:
        """One round."""

        async def once() -> None:
            refusals, unpriced = self.installation.calls()
            self.limits.note(refusals)
            await self.limits.run()
            await self.calls.run(unpriced)

        run(once())

    def limit(self, amount: Any, actions: Sequence[dict[str, Any]] = (), **more: Any) -> Row:
        """A limit in dollars per month on the team research, unless ``more`` says otherwise."""
        asked = {"select": {"team": "research"}, "unit": "usd", "amount": amount, "window": "month", **more}
        if actions:
            asked["actions"] = list(actions)
        return put(self.made.console, NewLimit.model_validate(asked))

    def spend(self, dollars: float, at: int = 0, who: Attribution = WHO) -> None:
        """A call that cost so many dollars, now or at a moment."""
        self._calls += 1
        cost = round(dollars * 1000) * DOLLAR // 1000
        moment = at or self.made.clock.now
        self.made.journal.add(*settled_call(f"req_{self._calls:06d}", who=who, at=moment, cost=cost, held=cost))
        self.made.project()

    def refuse(self, limit: Row | None = None, who: Attribution = WHO, code: str = "budget_exhausted") -> None:
        """A call that a limit refused."""
        self._calls += 1
        limit_id = limit["id"] if limit is not None else ""
        now = self.made.clock.now
        self.made.journal.add(Refused(f"req_{self._calls:06d}", now, who, False, 429, code, 100, limit_id))
        self.made.project()

    def alerts(self, **equal: Any) -> list[Row]:
        """The alerts that were raised, oldest first."""
        return self.made.books.listing("alert", **equal)

    def told(self) -> list[str]:
        """Percentage and basis of each threshold that was told of."""
        return [
            f"{row['details']['percent']} {row['details']['basis']}"
            for row in self.alerts()
            if "percent" in row["details"]
        ]


class Delivery:
    """What delivers the alerts of a console to webhooks and through apprise; a deadline is a fraction of a second."""

    def __init__(
        self, made: Parts, *, allow_private: bool = True, ca_file: str = "", deadline_seconds: float = 0.5
    ) -> None:
        self.made = made
        self.outbox = AlertOutbox(made.console)
        self.webhooks = WebhookSender(
            allow_private=allow_private,
            wall_nanos=made.clock.wall_nanos,
            ca_file=ca_file,
            deadline_seconds=deadline_seconds,
        )
        self.apprise = AppriseSender(allow_private=allow_private)
        self.job = AlertDelivery(self.outbox, {"webhook": self.webhooks.send, "apprise": self.apprise.send})

    async def once(self) -> None:
        """One round, waited for."""
        await self.job.once()

    def channel(self, url: str, name: str = "ops", **more: Any) -> Row:
        """A channel of the books, made by the rules of the API but for what its address may be."""
        asked = {"name": name, "url": url, "secret": SECRET if url.startswith("http") else None, **more}
        return create(self.made.console, NewChannel.model_validate(asked))[0]

    def alert(self, name: str = "limit_1;80", **more: Any) -> Row:
        """An alert that was raised just now."""
        told = {"kind": "threshold", "severity": "warning", "message": "80 percent are spent.", **more}
        assert raise_alert(self.made.console, name=name, **told)
        return self.state(name)

    def state(self, name: str = "limit_1;80") -> Row:
        """How an alert stands."""
        (row,) = self.made.books.listing("alert", name=name)
        return row


__all__ = ["DAY", "DOLLAR", "NOON", "SECOND", "SECRET", "Delivery", "Watched"]
