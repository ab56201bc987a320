"""Everything the console works with, put together: for its own process with a gate to talk to, or for one command."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

import faregate
from faregate.assembly.alerting import Alerting
from faregate.assembly.compiler import CatalogueCompiler
from faregate.assembly.following import Following
from faregate.assembly.projection import tell_nobody
from faregate.catalogue.tokens import ToktokCounter
from faregate.config.folder import DataFolder
from faregate.config.gate import brake_rules
from faregate.config.schema import Alerts, Config
from faregate.config.secrets import Secrets as KeptSecrets
from faregate.console.accounts import keys_without_pepper
from faregate.console.brakes import KeyBrakes
from faregate.console.compile import card_of
from faregate.console.corrections import TrueUp
from faregate.console.link import GateLink, unknown_of
from faregate.console.state import Check, Console, Facts, Secrets
from faregate.control import Unknown
from faregate.core.limits.denials import BUILT_IN
from faregate.core.pricing.card import RateCard
from faregate.core.ulid import UlidSource
from faregate.dialects.pictures import size_of
from faregate.jobs.awaited_work import ProviderWork
from faregate.jobs.keep_journal import keep_journal
from faregate.jobs.lookups import ProviderLookups
from faregate.jobs.resolve_unknowns import Rules, UnknownResolver
from faregate.jobs.runner import Job, JobRunner
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.journal.verify import verify
from faregate.ports import Clock
from faregate.storage.sqlite.books import SqliteBooks

logger = logging.getLogger("faregate.console")

#: How often unknowns are looked at, segments of the journal, and prices that have arrived.
RESOLVE_INTERVAL_S, KEEP_JOURNAL_INTERVAL_S, TRUE_UP_INTERVAL_S = 1.0, 60.0, 60.0

#: A key that tripped the brake has its limit within two seconds.
BRAKES_INTERVAL_S = 1.0

#: Accepted work is looked at soon, then ever more rarely; so many at once.
WORK_INTERVAL_S, WORK_AGAIN_S, WORK_AT_ONCE = 2.0, (1.0, 60.0), 16
BATCHES_INTERVAL_S, BATCHES_AT_ONCE, BATCHES_WITHIN_S = 5.0, 2, 900.0

#: A provider that is not declared any more cannot be asked; its calls are over after the longest default.
MAX_REQUEST_MS_UNKNOWN = 600_000

#: Jobs begin without the gate when it is away for so long.
JOBS_WAIT_S = 10.0

#: One of the things that run as long as the console does.
Work = Callable[[], Coroutine[None, None, None]]


def _is_batch(unknown: Unknown) -> bool:
    return unknown.who.service == "batches"


def console_secrets(kept: KeptSecrets) -> Secrets:
    """The installation's secrets as the console takes them."""
    return Secrets(tuple((pepper.id, pepper.key) for pepper in kept.peppers), bytes.fromhex(kept.session))


class Workshop:
    """The books and what is built around them.

    Raises:
        ConfigError: CFG-SECRET: the secrets are not those of the books.
        Unavailable: these cannot be reached.
    """

    def __init__(
        self,
        config: Config | None,
        folder: DataFolder,
        compile_catalogue: CatalogueCompiler,
        secrets: Secrets,
        clock: Clock,
        books: SqliteBooks,
    ) -> None:
        self.folder = folder
        self._config = config
        self._compile = compile_catalogue
        self._secrets = secrets
        self._clock = clock
        self.books = books
        alerts = config.alerts if config is not None else Alerts()
        self._alerting = Alerting(alerts, compile_catalogue.folder, clock)
        lost = keys_without_pepper(self.books, secrets.pepper_keys, clock.wall_nanos())
        if lost:
            logger.warning("keys_without_pepper", extra={"keys": lost, "advice": "add the old pepper to secrets.json"})

    def still(self) -> Console:
        """The console of an installation that does not run, for one command; everything journalled is booked first."""
        projector = Projector(FileJournalReader(self.folder.journal), self.books, tell_nobody)
        while projector.step():
            pass
        return self._console(Facts(faregate.__version__, str(self.folder.root)))

    def live(
        self, following: Following, gateway_url: str, *, tls: bool, randomly: Callable[[], float]
    ) -> tuple[Console, Sequence[Work]]:
        """The console of a running installation, and what has to run beside it and the link until it ends."""
        link = following.link
        behind_proxy = self._config is not None and self._config.console.behind_proxy
        facts = Facts(faregate.__version__, str(self.folder.root), gateway_url, tls=tls, behind_proxy=behind_proxy)
        console = self._console(facts, link, following.projection.projector)

        async def work_jobs() -> None:
            # They work on what the gate did, and what they are made of takes time that a start has no need of.
            await link.contact(JOBS_WAIT_S)
            await JobRunner(await asyncio.to_thread(self._jobs, link, console), randomly).run()

        return console, (work_jobs, lambda: self._alerting.deliver(console))

    def _console(self, facts: Facts, link: GateLink | None = None, projector: Projector | None = None) -> Console:
        if self._config is not None:
            limits, gateway = self._config.limits, self._config.gateway
            facts = replace(
                facts,
                default_output_tokens=limits.default_output_tokens,
                min_answer_tokens=limits.min_answer_tokens,
                forbid_private_urls=gateway.forbid_private_urls,
                denials=frozenset((*limits.denials, *BUILT_IN)),
            )
        return Console(
            books=self.books,
            journal=FileJournalReader(self.folder.journal),
            clock=self._clock,
            new_id=lambda prefix: UlidSource(prefix, self._clock.wall_nanos, os.urandom)(),
            random=os.urandom,
            secrets=self._secrets,
            compile_catalogue=self._compile,
            facts=facts,
            gate=link,
            projector=projector,
            check_journal=self._check_journal,
            price_book=self._compile.prices,
            capacities=self._compile.prices.capacities(),
            channels=self._alerting.channels(),
            check_address=self._alerting.check_address,
            azure_budget=self._config.alerts.azure_budget if self._config is not None else None,
            tokenizer=ToktokCounter(size_of),
        )

    def _check_journal(self) -> Sequence[Check]:
        return [Check(*each) for each in verify(FileJournalReader(self.folder.journal), self.books)]

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _jobs(self, link: GateLink, console: Console) -> list[Job]:
        assert self._config is not None
        catalogue = self._compile((), ())
        timeouts = {provider.name: provider.total_timeout_ms for provider in catalogue.providers}
        lookups = ProviderLookups({provider.name: provider for provider in catalogue.providers})
        unknowns, keep_nanos = self._config.unknowns, self._config.journal.keep * 1_000_000

        def rules(unknown: Unknown) -> Rules:
            longest = timeouts.get(unknown.who.provider, MAX_REQUEST_MS_UNKNOWN)
            return Rules(longest * 1_000_000, unknowns.ttl * 1_000_000, unknowns.policy)

        def rules_of_work(unknown: Unknown) -> Rules:
            del unknown
            return Rules(unknowns.pending_ttl * 1_000_000, unknowns.pending_ttl * 1_000_000, unknowns.policy)

        def open_ones(fits: Callable[[Unknown], bool]) -> list[Unknown]:
            return [each for each in map(unknown_of, self.books.open_reservations("unknown")) if fits(each)]

        look = ProviderWork({provider.name: provider for provider in catalogue.providers}).ask

        def work(fits: Callable[[Unknown], bool], at_once: int) -> UnknownResolver:
            return UnknownResolver(
                unknowns=lambda: open_ones(lambda each: bool(each.awaited.object_id) and fits(each)),
                card=self._card,
                lookup=look,
                resolve=link.resolve,
                rules=rules_of_work,
                wall_nanos=self._clock.wall_nanos,
                again_seconds=WORK_AGAIN_S,
                at_once=at_once,
            )

        resolver = UnknownResolver(
            unknowns=lambda: open_ones(lambda each: not each.awaited.object_id),
            card=self._card,
            lookup=lookups.ask,
            resolve=link.resolve,
            rules=rules,
            wall_nanos=self._clock.wall_nanos,
        )

        async def keep() -> None:
            files = FileJournalReader(self.folder.journal)
            await asyncio.to_thread(keep_journal, self.books, files, self._clock.wall_nanos(), keep_nanos)

        brake = brake_rules(self._config.limits.brake)
        return [
            *([Job("brakes", BRAKES_INTERVAL_S, KeyBrakes(console, link, brake).run)] if brake is not None else ()),
            Job("resolve_unknowns", RESOLVE_INTERVAL_S, resolver.run),
            # Batches may bring large files, which nothing else waits for.
            Job("settle_work", WORK_INTERVAL_S, work(lambda each: not _is_batch(each), WORK_AT_ONCE).run),
            Job("settle_batches", BATCHES_INTERVAL_S, work(_is_batch, BATCHES_AT_ONCE).run, BATCHES_WITHIN_S),
            Job("keep_journal", KEEP_JOURNAL_INTERVAL_S, keep),
            Job("true_up", TRUE_UP_INTERVAL_S, TrueUp(console).run),
            *self._alerting.jobs(console),
        ]

    def _card(self, version: str) -> RateCard | None:
        row = self.books.rate_card(version)
        return card_of(row) if row is not None else None
