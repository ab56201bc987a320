"""Shared by the tests of console, jobs and CLI: a console over real SQLite books, without any process.

``Parts`` holds the collaborators, so that a test can look behind the API; time stands still unless a test moves it.
"""

import asyncio
import atexit
import hashlib
import os
import shutil
import tempfile
from base64 import b64decode
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import httpx2
from fastapi import FastAPI

from described import described
from faregate.assembly.alerting import Alerting
from faregate.assembly.compiler import CatalogueCompiler
from faregate.assembly.declared_rows import declared_rows
from faregate.catalogue.tokens import ToktokCounter
from faregate.config.schema import AzureBudget, Config
from faregate.config.secret_box import SecretBox
from faregate.config.service_rules import listeners_of
from faregate.console.app import create_app
from faregate.console.keys import NewKey, create
from faregate.console.state import Console, Facts, Gate, Secrets
from faregate.control import Catalogue, Deployment, Provider, Route
from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Event, Intended, Recalled, Refused, Settled, Started
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.ulid import UlidSource
from faregate.core.usage import Usage
from faregate.dialects.pictures import size_of
from faregate.ports import NO_PLACES, JournalRecord, MadePlaces, Row
from faregate.storage.contents import ContentStore
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

#: 2026-11-21T12:00:00Z.
NOON = 1_795_262_400 * 10**9
SECOND = 10**9
HOUR = 3_600 * SECOND
DAY = 24 * HOUR

Result = TypeVar("Result")


class SetClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def wall_nanos(self) -> int:
        return self.now

    def monotonic_nanos(self) -> int:
        return self.now


class ListJournal:
    """A journal in a list; a record is ten bytes."""

    def __init__(self) -> None:
        self.records: list[JournalRecord] = []

    def add(self, *events: Event) -> int:
        for event in events:
            number = len(self.records) + 1
            self.records.append(JournalRecord(number * 10, event, number))
        return len(self.records) * 10

    def read(self, position: int, bytes_max: int) -> Sequence[JournalRecord]:
        return [each for each in self.records if each.position > position][: max(1, bytes_max // 10)]

    def segments(self) -> list[tuple[int, int]]:
        return [(0, len(self.records) * 10)]

    def sync(self) -> None:
        """Nothing to sync."""


#: 32 bytes in base64, that secrets in the books are sealed with.
ENCRYPTION_KEY = "ERERERERERERERERERERERERERERERERERERERERERE="


class StillProjector:
    """A projector that never moves on its own."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.trouble = ""

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()


def catalogue_of(prices: Sequence[Row], projects: Sequence[str], made: MadePlaces = NO_PLACES, /) -> Catalogue:
    """One provider with one priced model; own prices replace rates, as the real compilation does."""
    rates = {
        "input_tokens": Rate("input_tokens", 2_500_000_000_000, 1_000_000),
        "output_tokens": Rate("output_tokens", 10**13, 10**6),
    }
    for row in prices:
        if row["model"] == "gpt-4o":
            rates[row["unit"]] = Rate(row["unit"], row["pico"], row["per"])
    tiers = (Tier(0, tuple(rates.values())),)
    version = "v-" + hashlib.sha256(repr(tiers).encode()).hexdigest()[:8]
    card = RateCard("openai", "gpt-4o", version, tiers, source="list")
    return Catalogue(
        providers=(
            Provider("openai", "openai", "https://api.openai.com/v1", {"authorization": "Bearer upstream-secret"}),
        ),
        deployments=(
            Deployment("openai/gpt-4o", "openai", "gpt-4o", "gpt-4o", (card,), operations=("chat.completions",)),
        ),
        routes=(Route("gpt-4o", ("openai/gpt-4o",)), Route("gpt-4o-mini", ("openai/gpt-4o",))),
        projects=tuple(projects),
    )


@lru_cache
def _empty_books() -> Path:
    """Books without a row: migrated once for all tests of a process, then copied."""
    path = Path(tempfile.mkdtemp(prefix="faregate-books-")) / "books.sqlite3"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    open_books(path, SetClock()).close()
    return path


class Parts:
    """A console and everything behind it."""

    def __init__(
        self,
        folder: Path,
        *,
        gate: Gate | None = None,
        tls: bool = False,
        config: Config | None = None,
        azure_budget: AzureBudget | None = None,
    ) -> None:
        self.folder = folder
        #: With a configuration the catalogue is the one that it really makes, and what it declares is shown.
        box = SecretBox("installation", [("e1", b64decode(ENCRYPTION_KEY))], os.urandom)
        compiler = CatalogueCompiler(config, folder, {}, box.open) if config is not None else None
        self.clock = SetClock()
        alerting = Alerting(config.alerts, folder, self.clock) if config is not None else None
        (folder / "data").mkdir(exist_ok=True)
        shutil.copy(_empty_books(), folder / "data" / "books.sqlite3")
        self.books: SqliteBooks = open_books(folder / "data" / "books.sqlite3", self.clock)
        self.journal = ListJournal()
        self.projector = StillProjector()
        self._seed = 0
        self._ids: dict[str, UlidSource] = {}
        self.console = Console(
            declared=declared_rows(config) if config is not None else NO_PLACES,
            books=self.books,
            journal=self.journal,
            clock=self.clock,
            new_id=self.new_id,
            random=self.random,
            secrets=Secrets((("p1", "11" * 32),), b"session-secret", "installation", (("e1", ENCRYPTION_KEY),)),
            compile_catalogue=compiler or catalogue_of,
            price_book=compiler.prices if compiler else None,
            capacities=compiler.prices.capacities() if compiler else (),
            channels=alerting.channels() if alerting else (),
            check_address=alerting.check_address if alerting else None,
            facts=Facts(
                "0.1.0",
                str(folder / "data"),
                "http://127.0.0.1:4000",
                tls=tls,
                listeners=listeners_of(config) if config is not None else (),
            ),
            gate=gate,
            projector=self.projector,
            tokenizer=ToktokCounter(size_of),
            azure_budget=azure_budget,
            contents=ContentStore(folder / "data" / "contents.sqlite3"),
        )
        self.app: FastAPI = create_app(self.console)

    def random(self, count: int) -> bytes:
        """Bytes that differ each time and are the same in each run."""
        self._seed += 1
        return hashlib.shake_256(str(self._seed).encode()).digest(count)

    def new_id(self, prefix: str) -> str:
        if prefix not in self._ids:
            self._ids[prefix] = UlidSource(prefix, self.clock.wall_nanos, self.random)
        return self._ids[prefix]()

    def admin_key(self, name: str = "root") -> str:
        """A new admin key's secret."""
        return create(self.console, NewKey(name=name, role="admin"))[1]

    def project(self) -> None:
        """Bring the whole journal into the books."""
        self.books.project(self.journal.read(self.books.projected(), 10**9))

    def close(self) -> None:
        self.books.close()


@contextmanager
def parts(
    folder: Path,
    *,
    gate: Gate | None = None,
    tls: bool = False,
    config: Config | None = None,
    azure_budget: AzureBudget | None = None,
) -> Iterator[Parts]:
    """A console over fresh books in ``folder``."""
    made = Parts(folder, gate=gate, tls=tls, config=config, azure_budget=azure_budget)
    try:
        yield made
    finally:
        made.close()


class Api:
    """Speaks to a console's app from a test that is not async."""

    def __init__(self, app: Any, secret: str = "", client: tuple[str, int] = ("192.0.2.1", 999)) -> None:
        self._app = app
        self._client = client
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {**self._headers, **more.pop("headers", {})}

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self._app, raise_app_exceptions=False, client=self._client)
            async with httpx2.AsyncClient(transport=transport, base_url="http://console.test") as client:
                return await client.request(method, path, headers=headers, **more)

        answer = run(ask())
        if isinstance(self._app, FastAPI):
            described(self._app).check(method, answer.url.path, answer.status_code, answer.headers, answer.content)
        return answer

    def get(self, path: str, status: int = 200, **more: Any) -> Any:
        """The JSON of a GET that answers ``status``."""
        return self._json(self.call("GET", path, **more), status)

    def pages(self, path: str) -> list[Any]:
        """Every row of a list, from its first page to its last; ``path`` has a query already."""
        page = self.get(path)
        rows = list(page["data"])
        while page["next_cursor"] is not None:
            page = self.get(f"{path}&cursor={page['next_cursor']}")
            rows += page["data"]
        return rows

    def post(self, path: str, body: object = None, status: int = 201) -> Any:
        """The JSON of a POST that answers ``status``."""
        return self._json(self.call("POST", path, **({} if body is None else {"json": body})), status)

    def send(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        """The JSON of any call that answers ``status``."""
        return self._json(self.call(method, path, **({} if body is None else {"json": body})), status)

    @staticmethod
    def _json(answer: httpx2.Response, status: int) -> Any:
        assert answer.status_code == status, answer.text
        return answer.json()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop of its own."""
    return asyncio.run(work)


WHO = Attribution(
    organization="default", team="research", project="search", key="key_1", stage="dev", model="gpt-4o",
    deployment="openai/gpt-4o", provider="openai", service="chat.completions", tags=(("env", "ci"),),
)  # fmt: skip


def settled_call(
    request_id: str,
    *,
    who: Attribution = WHO,
    at: int = NOON,
    cost: int = 1_750_000,
    version: str = "",
    held: int = 5_000_000,
) -> tuple[Event, Event]:
    """The two events of a call that used 300 input and 100 output tokens, at the prices of ``catalogue_of``."""
    usage = Usage(input_text=300, output_text=100)
    return (
        Intended(request_id, at, at, who, held_amounts(held, 400, 200), version, False, 400),
        Settled(
            request_id, at + SECOND, "ok", 200, "", usage, "provider", cost, cost, version, 1_000_000, 250_000,
            (Attempt(who.deployment, 200, "", 900_000),),
        ),
    )  # fmt: skip


def recalled_call(
    request_id: str, *, who: Attribution = WHO, at: int = NOON, saved: int = 1_750_000, charge: int = 0
) -> Recalled:
    """An answer that was given again from the cache."""
    nowhere = who._replace(deployment="", provider="")
    return Recalled(request_id, at, at, nowhere, False, saved, charge, 2_000, "gpt-4o-2024-08-06")


def opened(epoch: int = 1, at: int = NOON - DAY) -> Started:
    """A gate took the journal."""
    return Started(epoch, at)


def refused_call(request_id: str, who: Attribution = WHO, at: int = NOON) -> Refused:
    """A call that a limit refused."""
    return Refused(request_id, at, who, False, 429, "budget_exhausted", 100, "lim_1")
