"""Everything the console works with, put together: for its own process with a gate to talk to, or for one command."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

import faregate
from faregate.assembly.alerting import Alerting
from faregate.assembly.compiler import CatalogueCompiler
from faregate.assembly.credentials import wanted_credentials
from faregate.assembly.declared_rows import declared_rows
from faregate.assembly.following import Following
from faregate.assembly.keeping import content_jobs, content_store
from faregate.assembly.projection import tell_nobody
from faregate.assembly.soundness import Soundness
from faregate.catalogue.tokens import ToktokCounter
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder
from faregate.config.gate import brake_rules
from faregate.config.schema import Alerts, Config
from faregate.config.secret_box import box_of
from faregate.config.secrets import Secrets as KeptSecrets
from faregate.config.service_rules import listeners_of
from faregate.console.accounts import keys_without_pepper
from faregate.console.audit import AuditTrail, settle
from faregate.console.brakes import KeyBrakes
from faregate.console.compile import card_of
from faregate.console.corrections import TrueUp
from faregate.console.link import GateLink, unknown_of
from faregate.console.sealing import seal_anew
from faregate.console.state import CacheFacts, Check, Console, Facts, Secrets
from faregate.console.texts import time_text
from faregate.control import Unknown
from faregate.core.limits.denials import BUILT_IN
from faregate.core.pricing.card import RateCard
from faregate.core.ulid import UlidSource
from faregate.dialects.pictures import size_of
from faregate.jobs.awaited_work import ProviderWork
from faregate.jobs.fetch_issuer_keys import IssuerKeyFetcher, fetch_keys
from faregate.jobs.keep_journal import keep_journal
from faregate.jobs.lookups import ProviderLookups
from faregate.jobs.provider_tokens import ProviderTokens, Wanted
from faregate.jobs.resolve_unknowns import Rules, UnknownResolver
from faregate.jobs.runner import Job, JobRunner
from faregate.jobs.try_provider import ProviderTrial
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.journal.verify import verify
from faregate.ports import NO_PLACES, Clock
from faregate.storage.sqlite.books import SqliteBooks

logger = logging.getLogger("faregate.console")

#: How often unknowns are looked at, segments of the journal, and prices that have arrived.
RESOLVE_INTERVAL_S, KEEP_JOURNAL_INTERVAL_S, TRUE_UP_INTERVAL_S = 1.0, 60.0, 60.0

#: A key that tripped the brake has its limit within two seconds.
BRAKES_INTERVAL_S = 1.0

#: A call waits for the key of its token, so the gate is asked often what it misses; that is one line each way.
ISSUER_KEYS_INTERVAL_S = 0.25

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
    return Secrets(
        tuple((pepper.id, pepper.key) for pepper in kept.peppers),
        bytes.fromhex(kept.session),
        kept.installation,
        tuple((each.id, each.key) for each in kept.encryption),
    )


def _cache_facts(config: Config) -> CacheFacts:
    cache = config.cache
    return CacheFacts(cache.enabled, cache.store, cache.default, cache.ttl // 1_000, cache.share)


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
        self._contents = content_store(folder)
        alerts = config.alerts if config is not None else Alerts()
        self._alerting = Alerting(alerts, compile_catalogue.folder, clock)
        lost = keys_without_pepper(self.books, secrets.pepper_keys, clock.wall_nanos())
        box = box_of(secrets.installation, secrets.encryption, os.urandom)
        if box is not None:
            seal_anew(books, box)
        if lost:
            logger.warning("keys_without_pepper", extra={"keys": lost, "advice": "add the old pepper to secrets.json"})

    def still(self) -> Console:
        """The console of an installation that does not run, for one command; everything journalled is booked first."""
        projector = Projector(FileJournalReader(self.folder.journal), self.books, tell_nobody)
        while projector.step():
            pass
        self._settle_trail()
        return self._console(Facts(faregate.__version__, str(self.folder.root)))

    def live(
        self,
        following: Following,
        gateway_url: str,
        *,
        tls: bool,
        randomly: Callable[[], float],
        serving: Console | None = None,
    ) -> tuple[Console, Sequence[Work]]:
        """The console of a running installation, and what has to run beside it and the link until it ends.

        With ``serving`` it is to be taken over by that one, which the rest works for.
        """
        if serving is None:
            # Only at the start: later a line whose change is not there yet is about one that is being made.
            self._settle_trail()
        link = following.link
        soundness = Soundness(self.books)
        tokens = self._tokens(link, randomly)
        behind_proxy = self._config is not None and self._config.console.behind_proxy
        facts = Facts(faregate.__version__, str(self.folder.root), gateway_url, tls=tls, behind_proxy=behind_proxy)
        console = self._console(facts, link, following.projection.projector, tokens, soundness)
        at_work = serving if serving is not None else console

        async def work_jobs() -> None:
            # They work on what the gate did, and what they are made of takes time that a start has no need of.
            await link.contact(JOBS_WAIT_S)
            if serving is None:
                soundness.look()
            await JobRunner(await asyncio.to_thread(self._jobs, link, at_work, tokens), randomly).run()

        return console, (work_jobs, tokens.run, lambda: self._alerting.deliver(at_work))

    def _tokens(self, link: GateLink, randomly: Callable[[], float]) -> ProviderTokens:
        """What keeps fetched credentials fresh; the gate is handed each new one."""
        wanted: tuple[Wanted, ...] = ()
        if self._config is not None:
            environment = process_environment()
            wanted = wanted_credentials(self._config, self._compile.folder, environment, self._clock.wall_nanos)
        return ProviderTokens(wanted, link.renew, self._clock.wall_nanos, randomly, link.credentials_tried)

    def _console(
        self,
        facts: Facts,
        link: GateLink | None = None,
        projector: Projector | None = None,
        tokens: ProviderTokens | None = None,
        soundness: Soundness | None = None,
    ) -> Console:
        if self._config is not None:
            limits, gateway = self._config.limits, self._config.gateway
            facts = replace(
                facts,
                default_output_tokens=limits.default_output_tokens,
                min_answer_tokens=limits.min_answer_tokens,
                forbid_private_urls=gateway.forbid_private_urls,
                denials=frozenset((*limits.denials, *BUILT_IN)),
                trusted_proxies=gateway.trusted_proxies,
                listeners=listeners_of(self._config),
                body_bytes_max=gateway.body_bytes_max,
                keeps_contents=self._config.content.retention is not None,
                cache=_cache_facts(self._config),
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
            declared=declared_rows(self._config) if self._config is not None else NO_PLACES,
            try_provider=ProviderTrial(lambda: link.providers, tokens.headers, trouble=tokens.trouble)
            if link and tokens
            else None,
            credentials=tokens.states if tokens is not None else tuple,
            tokenizer=ToktokCounter(size_of),
            contents=self._contents,
            damage=(lambda: soundness.damage) if soundness is not None else str,
        )

    def _settle_trail(self) -> None:
        """Say of changes that a crash kept from being made that they were not made."""
        now = time_text(self._clock.wall_nanos()) or ""
        trouble = settle(AuditTrail(self.folder.root), self.books, now)
        if trouble:
            logger.error("trail_and_books_differ", extra={"why": trouble, "advice": "run `faregate verify`"})

    def _check_journal(self) -> Sequence[Check]:
        return [Check(*each) for each in verify(FileJournalReader(self.folder.journal), self.books)]

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _jobs(self, link: GateLink, console: Console, tokens: ProviderTokens) -> list[Job]:
        assert self._config is not None
        lookups = ProviderLookups(lambda: link.providers, tokens.headers)
        unknowns, keep_nanos = self._config.unknowns, self._config.journal.keep * 1_000_000

        def rules(unknown: Unknown) -> Rules:
            provider = link.providers.get(unknown.who.provider)
            longest = provider.total_timeout_ms if provider is not None else MAX_REQUEST_MS_UNKNOWN
            return Rules(longest * 1_000_000, unknowns.ttl * 1_000_000, unknowns.policy)

        def rules_of_work(unknown: Unknown) -> Rules:
            del unknown
            return Rules(unknowns.pending_ttl * 1_000_000, unknowns.pending_ttl * 1_000_000, unknowns.policy)

        def open_ones(fits: Callable[[Unknown], bool]) -> list[Unknown]:
            return [each for each in map(unknown_of, self.books.open_reservations("unknown")) if fits(each)]

        look = ProviderWork(lambda: link.providers, tokens.headers).ask

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

        issuer_keys = IssuerKeyFetcher(
            lambda: link.issuers,
            link.tell_issuer_keys,
            fetch_keys,
            self._clock.wall_nanos,
            self._clock.monotonic_nanos,
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
            Job("issuer_keys", ISSUER_KEYS_INTERVAL_S, issuer_keys.run),
            Job("keep_journal", KEEP_JOURNAL_INTERVAL_S, keep),
            Job("true_up", TRUE_UP_INTERVAL_S, TrueUp(console).run),
            *content_jobs(self._config.content, self.folder, self._contents, self._clock),
            *self._alerting.jobs(console),
        ]

    def _card(self, version: str) -> RateCard | None:
        row = self.books.rate_card(version)
        return card_of(row) if row is not None else None
