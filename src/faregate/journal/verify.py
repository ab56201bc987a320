"""Proof that the books are the fold of the journal: the retained records through the oracle, compared row by row.

It reads both and changes neither. Where segments were removed, the exchanges that began in them are compared by what
the rest of the journal says of them, and the removed segments by the digests that the books keep. The books may go on
meanwhile: everything is compared as of the position at which their totals were taken.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

from faregate.core.ledger.events import (
    Event,
    Intended,
    Lost,
    Recalled,
    Redirected,
    Refused,
    Settled,
    Started,
    recalled_as,
)
from faregate.core.ledger.oracle import Oracle
from faregate.core.ledger.postings import payer_charge
from faregate.core.ledger.reservations import State
from faregate.errors import JournalCorrupt
from faregate.ports import JournalReader, Row

#: What is read from the journal at a time.
_READ_BYTES: Final = 1024 * 1024

#: Request records fetched with one question.
_IDS: Final = 500

#: Differences named; the rest are only counted.
_NAMED_MAX: Final = 5


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str = ""


class VerifiedBooks(Protocol):
    """The books, as far as they are verified."""

    def totals(self) -> Row:
        """Sums over everything, as of one position."""
        ...

    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        ...

    def requests(self, *, after: str = "", limit: int = 100, newest_first: bool = True, **filters: object) -> list[Row]:
        """Request records."""
        ...

    def account_balances(self) -> dict[str, int]:
        """Account → the sum of its postings."""
        ...

    def adjusted_accounts(self) -> dict[str, int]:
        """Account → the sum of its postings that correct, which the journal knows nothing of."""
        ...

    def removed_segments(self) -> list[Row]:
        """Digests of the journal segments that were removed, oldest first."""
        ...

    def open_reservations(self, state: str | None = None) -> list[Row]:
        """Reservations that have not ended."""
        ...


def verify(reader: JournalReader, books: VerifiedBooks) -> tuple[Check, ...]:
    """Compare the books with the journal; the checks in the order they were made.

    Raises:
        Unavailable: the books do not answer.
    """
    totals = books.totals()
    position = int(totals["position"])
    kept = list(reader.segments())
    first = kept[0][0] if kept else position
    checks = [_sums(totals), _removed(books.removed_segments(), first)]
    walk = _Walk(books, whole=first == 0)
    try:
        for event in _events(reader, first, position):
            walk.take(event)
        walk.flush()
    except JournalCorrupt as problem:
        return (*checks, Check("journal", False, problem.message))
    checks.append(Check("journal", True, f"whole from position {first} to {position}, records: {walk.records}"))
    checks.append(walk.records_check())
    if first == 0:
        checks.append(_totals_check(walk.oracle, totals))
    reservations = books.open_reservations()
    if books.projected() == position:
        checks.append(walk.reservations_check(reservations, int(totals["held"])))
        balances, corrected = books.account_balances(), books.adjusted_accounts()
        journalled = {account: amount - corrected.get(account, 0) for account, amount in balances.items()}
        checks += _balances(journalled, totals, walk.oracle if first == 0 else None)
    return tuple(checks)


def _events(reader: JournalReader, first: int, position: int) -> Iterator[Event]:
    """Everything journalled between two positions.

    Raises:
        JournalCorrupt: it is damaged, or ends before the books do.
    """
    while first < position:
        found = reader.read(first, _READ_BYTES)
        if not found:
            raise JournalCorrupt(f"the books hold the journal up to {position}, but it ends at {first}")
        for record in found:
            if record.position > position:
                return
            yield record.event
        first = found[-1].position


class _Walk:
    """Takes events in and compares each ended exchange with its record in the books."""

    def __init__(self, books: VerifiedBooks, *, whole: bool) -> None:
        self._books = books
        #: The journal begins at its beginning, so that nothing may end that has not begun.
        self._whole = whole
        self.oracle = Oracle(forget_ended=True)
        self.records = 0
        self._compared = 0
        self._wrong: list[str] = []
        self._wanted: dict[str, dict[str, Any]] = {}
        #: Id of what has not ended → the epoch in which it began.
        self._epochs: dict[str, int] = {}
        #: Id of a lost exchange → what its caller was told, which its resolution leaves as it stands.
        self._told: dict[str, dict[str, Any]] = {}

    def take(self, event: Event) -> None:
        self.records += 1
        if isinstance(event, Settled):
            self._settled(event)
        elif isinstance(event, Recalled):
            known = event.id in self.oracle.exchanges
            self.oracle.apply(event)
            if not known:
                self._want(event.id, _record(recalled_as(event)[1]))
        elif isinstance(event, Refused):
            self.oracle.apply(event)
            self._want(event.id, {"status": "refused", "code": event.code, "charge": 0})
        elif isinstance(event, Lost) and event.id in self.oracle.exchanges:
            self._told.setdefault(event.id, {"code": event.code, "http_status": event.http_status})
            self.oracle.apply(event)
        elif self._whole or isinstance(event, Started | Intended) or event.id in self.oracle.exchanges:
            self.oracle.apply(event)
            if isinstance(event, Intended):
                self._epochs.setdefault(event.id, self.oracle.epoch)
            elif isinstance(event, Redirected) and event.left is not None and event.lost is not None:
                self._epochs.setdefault(event.left.id, self.oracle.epoch)
                told = {"code": event.lost.code, "http_status": event.lost.http_status}
                self._told.setdefault(event.left.id, told)
        if len(self._wanted) >= _IDS:
            self.flush()

    def _settled(self, event: Settled) -> None:
        self._epochs.pop(event.id, None)
        exchange = self.oracle.exchanges.get(event.id)
        if exchange is None and not self._whole:
            # It began in a segment that is gone; ordinary ends can still be compared.
            if not event.resolution:
                self._want(event.id, {"id": event.id, "cost": event.cost})
            return
        before = exchange.state if exchange else State.ABSENT
        self.oracle.apply(event)
        if exchange is not None and before is not exchange.state and exchange.state is State.SETTLED:
            told = self._told.pop(event.id, {"code": "", "http_status": 0})
            self._want(event.id, _record(event) | (told if before is State.UNKNOWN else {}))

    def _want(self, id: str, facts: dict[str, Any]) -> None:
        self._wanted.setdefault(id, facts)

    def flush(self) -> None:
        """Compare what was gathered."""
        wanted, self._wanted = self._wanted, {}
        if not wanted:
            return
        stored = {row["id"]: row for row in self._books.requests(limit=len(wanted), id=list(wanted))}
        for id, facts in wanted.items():
            self._compared += 1
            row = stored.get(id)
            if row is None:
                self._wrong.append(f"{id} is missing")
                continue
            different = [name for name, value in facts.items() if row[name] != value]
            if different:
                self._wrong.append(f"{id} differs in {', '.join(different)}")

    def reservations_check(self, stored: Sequence[Row], held: int) -> Check:
        """Whether what has not ended is reserved as it was journalled, and nothing else is."""
        open_now = self.oracle.open()
        wrong, known = [], set()
        for row in stored:
            id = row["id"]
            known.add(id)
            exchange = open_now.get(id)
            if exchange is None:
                if self._whole:
                    wrong.append(f"{id} has ended, or never began")
                continue
            journalled = {
                "intent": exchange.intended,
                "state": exchange.state.value,
                "output_tokens_seen": exchange.output_tokens_seen,
                "awaited": exchange.awaited,
                # Of what began before the first epoch that is kept nobody can tell.
                "epoch": self._epochs.get(id) or row["epoch"],
            }
            different = [name for name, value in journalled.items() if row[name] != value]
            if different:
                wrong.append(f"{id} differs in {', '.join(different)}")
        wrong += [f"{id} is missing" for id in open_now if id not in known]
        if sum(row["held"] for row in stored) != held:
            wrong.append(f"{held} nano-dollars are said to be held, which is not what the reservations hold")
        detail = "; ".join(wrong[:_NAMED_MAX]) or f"equal the journal: {len(stored)}"
        return Check("reservations", not wrong, detail)

    def records_check(self) -> Check:
        """Whether every exchange that ended in the journal has its record, with the same numbers."""
        if self._wrong:
            named = "; ".join(self._wrong[:_NAMED_MAX])
            return Check("records", False, f"{len(self._wrong)} of {self._compared} records are wrong: {named}")
        return Check("records", True, f"equal the journal: {self._compared}")


def _record(event: Settled) -> dict[str, Any]:
    """What the record of an ended exchange must say."""
    return {
        "status": event.status,
        "code": event.code,
        "http_status": event.http_status,
        **{name: value for name, value in event.usage._asdict().items() if name != "other"},
        "other_units": event.usage.other,
        "usage_source": event.usage_source,
        "cost": event.cost,
        "charge": payer_charge(event),
        "charge_rule": event.charge_rule,
        "price_version": event.price_version,
        "resolution": event.resolution,
        "overrun": event.overrun,
        "limit_id": event.limit,
        "cache": event.cache,
        "saved_cost": event.saved_cost,
    }


def _sums(totals: Row) -> Check:
    """Whether postings, records and roll-ups agree among themselves."""
    found = {
        "postings do not add up to 0": totals["sum"] != 0,
        "payers were debited another sum than their records hold": totals["posted"] != totals["request_charge"],
        "providers were credited another sum than records and late evidence hold": totals["credited"]
        != totals["request_cost"] + totals["late"],
        "roll-ups hold another charge than the records": totals["rollup_charge"] != totals["request_charge"],
        "roll-ups hold another cost than the records": totals["rollup_cost"] != totals["request_cost"],
        "roll-ups count other requests than the records": totals["rollup_requests"] != totals["requests"],
    }
    wrong = [name for name, is_so in found.items() if is_so]
    return Check("sums", not wrong, "; ".join(wrong) or "postings, records and roll-ups agree")


def _removed(digests: Sequence[Row], first: int) -> Check:
    """Whether the digests of removed segments join up with each other and with what is kept."""
    if not digests:
        return Check("removed_segments", True, "no segment was removed")
    for before, after in pairwise(digests):
        if before["end"] != after["first"] or before["sequence"] + before["records"] != after["sequence"]:
            return Check("removed_segments", False, f"a digest is missing or changed at position {before['end']}")
    # A crash between keeping a digest and removing its file leaves both, so the files may begin before the digests end.
    if digests[-1]["end"] < first:
        return Check("removed_segments", False, f"nothing is known of positions {digests[-1]['end']} to {first}")
    return Check("removed_segments", True, f"{len(digests)} digests join up")


def _totals_check(oracle: Oracle, totals: Row) -> Check:
    """Whether the books' totals are those of the oracle."""
    truth = oracle.totals()
    pairs = {
        "requests": truth.requests,
        # Corrections are no fold of the journal; the trail of changes proves them.
        "postings": truth.postings + totals["adjusting"],
        "held": truth.held,
        "unknown": truth.unknown,
        "open": truth.open,
        "request_cost": truth.request_cost,
        "rollup_cost": truth.rollup_cost,
        "credited": truth.credited,
        "sum": truth.sum,
    }
    wrong = [
        f"{name} is {totals[name]}, the journal says {value}" for name, value in pairs.items() if totals[name] != value
    ]
    return Check("totals", not wrong, "; ".join(wrong) or "totals equal the journal")


def _balances(balances: dict[str, int], totals: Row, oracle: Oracle | None) -> list[Check]:
    """Whether every account holds what it must, and suspense exactly the unknowns."""
    suspense = sum(amount for account, amount in balances.items() if account.startswith("suspense:"))
    checks = [
        Check(
            "suspense",
            suspense == totals["unknown"],
            f"suspense holds {suspense}, unknown exchanges {totals['unknown']} nano-dollars",
        )
    ]
    if oracle is not None:
        accounts = sorted(set(balances) | set(oracle.balances))
        wrong = [account for account in accounts if balances.get(account, 0) != oracle.balances[account]]
        detail = f"wrong: {', '.join(wrong[:_NAMED_MAX])}" if wrong else f"{len(accounts)} accounts equal the journal"
        checks.append(Check("accounts", not wrong, detail))
    return checks
