"""``Books`` in dictionaries, over the oracle: slow, simple, and sharing no query with any database.

It is what the contract suite compares the engines with, and what tests of other parts put their figures in. Nothing
survives the process, so it has no backup. It is one file because it is one protocol, method by method.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from faregate.core.amounts import NOTHING
from faregate.core.attribution import TAG_PREFIX
from faregate.core.comparison import Comparison, EndedCall
from faregate.core.ledger.accounts import OPERATOR
from faregate.core.ledger.events import (
    MIRROR_OF,
    Attempt,
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
from faregate.core.ledger.oracle import Exchange, Oracle
from faregate.core.ledger.postings import payer_charge
from faregate.core.ledger.reservations import State
from faregate.core.usage import NO_USAGE, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS
from faregate.errors import Conflict, Failed, JournalCorrupt, UsageError
from faregate.ports import BalanceQuery, Balances, ChainHead, Clock, JournalRecord, Proof, Row, TrailMark
from faregate.storage.comparison import apart
from faregate.storage.fold import Reservation, reservation_row
from faregate.storage.queries import (
    BUCKETS,
    CACHE_USE,
    CACHE_USE_SUMS,
    LISTING_MAX,
    UNCOUNTED,
    UNIT_SUMS,
    record_column,
    totals_of,
)
from faregate.storage.rows import TOLD_WHEN_LOST, complete, table_of
from faregate.storage.schema import LEAVES, REQUEST_DIMENSIONS, RESOURCES, SET_DIMENSIONS, SUMS


class MemoryBooks:
    """Implements ``Books``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._oracle = Oracle()
        self._position = 0
        self._sequence = 0
        self._epochs: dict[str, int] = {}
        self._requests: dict[str, Row] = {}
        self._postings: list[Row] = []
        self._outbox: list[tuple[str, str]] = []
        self._rows: dict[str, dict[str, Row]] = {kind: {} for kind in RESOURCES}
        self._changes: list[tuple[int, str, str]] = []
        self._rate_cards: dict[str, Row] = {}
        self._segments: dict[int, Row] = {}
        self._adjustments: dict[str, Row] = {}
        self._lines: list[Row] = []
        self._marks: list[TrailMark] = []

    # -- projection ---------------------------------------------------------------------------------------------------
    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        return self._position

    def mark(self) -> Row:
        """``position``, ``sequence`` and ``epoch`` of the journal up to which everything is in the books."""
        return {"position": self._position, "sequence": self._sequence, "epoch": self._oracle.epoch}

    def project(self, records: Sequence[JournalRecord]) -> None:
        """Apply records; those already applied are skipped."""
        fresh = [record for record in records if record.position > self._position]
        if fresh and self._sequence and fresh[0].sequence and fresh[0].sequence != self._sequence + 1:
            raise JournalCorrupt(
                f"the books end with record {self._sequence} and the journal goes on with record {fresh[0].sequence}"
            )
        for record in fresh:
            self._apply(record.event)
            self._position, self._sequence = record.position, record.sequence

    def _apply(self, event: Event) -> None:
        before = {} if isinstance(event, Started) else {event.id: self._state(event.id)}
        if isinstance(event, Started):
            before = dict.fromkeys(sorted(self._oracle.open()), State.DISPATCHED)
        left = event.left if isinstance(event, Redirected) else None
        if left is not None:
            before[left.id] = self._state(left.id)
        for transaction in self._oracle.apply(event):
            id, _, purpose = transaction.id.rpartition(":")
            for account, amount in transaction.postings:
                row = {"request_id": id, "kind": purpose, "account": account, "amount": amount, "at": event.at}
                self._postings.append({"sequence": len(self._postings) + 1, **row})
        if isinstance(event, Intended):
            self._epochs.setdefault(event.id, self._oracle.epoch)
        elif left is not None and left.id in self._oracle.exchanges:
            self._epochs.setdefault(left.id, self._oracle.epoch)
        elif isinstance(event, Refused) and event.id not in self._requests:
            self._requests[event.id] = _refused(event)
            self._outbox.append(("refused", event.id))
        for id, state in before.items():
            now = self._state(id)
            if now is not state or now is State.UNKNOWN:
                self._record(id, state, now, event)

    def _state(self, id: str) -> State:
        exchange = self._oracle.exchanges.get(id)
        return exchange.state if exchange else State.ABSENT

    def _record(self, id: str, before: State, now: State, event: Event) -> None:
        exchange = self._oracle.exchanges[id]
        if now is State.UNKNOWN and id not in self._requests:
            told = event.lost if isinstance(event, Redirected) else event
            lost = told if isinstance(told, Lost) else Lost(id, event.at, 0, "", 0)
            self._requests[id] = _unknown(exchange, lost)
            self._outbox.append((lost.status, id))
        elif now is State.SETTLED and isinstance(event, Settled | Recalled):
            assert exchange.intended is not None
            row = _record_row(exchange.intended, recalled_as(event)[1] if isinstance(event, Recalled) else event)
            if before is State.UNKNOWN:
                row |= {name: self._requests[id][name] for name in TOLD_WHEN_LOST}
            self._requests[id] = row
            self._outbox.append(("resolved" if before is State.UNKNOWN else "settled", id))
        elif now is State.SETTLED_LATE:
            self._outbox.append(("late", id))

    # -- identity, limits, prices -------------------------------------------------------------------------------------
    def put(self, kind: str, row: Row, *, told: TrailMark | None = None) -> int:
        """Insert or replace the row ``row['id']`` of a resource kind; returns the change sequence number."""
        self._tell(told)
        table = table_of(kind)
        full = complete(kind, row, self._rows[kind].get(row.get("id", "")), self._clock.wall_nanos())
        for constraint in table.constraints:
            names = [column.name for column in constraint.columns] if hasattr(constraint, "columns") else []
            for other in self._rows[kind].values() if names and "id" not in names else ():
                if other["id"] != full["id"] and all(other[name] == full[name] for name in names):
                    raise Conflict("it exists already: " + ", ".join(f"{table.name}.{name}" for name in names))
        self._rows[kind][full["id"]] = full
        return self._changed(kind, full["id"])

    def put_all(self, kind: str, rows: Sequence[Row], *, told: TrailMark | None = None) -> None:
        """Insert or replace rows of a kind, all of them or none."""
        self._tell(told)
        table_of(kind)
        before, changed = dict(self._rows[kind]), len(self._changes)
        try:
            for row in rows:
                self.put(kind, row)
        except Exception:  # Whatever is wrong with one of them, the others are taken back.
            self._rows[kind] = before
            del self._changes[changed:]
            raise

    def put_together(
        self,
        rows: Sequence[tuple[str, Row]],
        removed: Sequence[tuple[str, str]] = (),
        *,
        told: TrailMark | None = None,
    ) -> None:
        """Put a few ``(kind, row)`` and remove a few ``(kind, id)`` that belong together, all of them or none."""
        self._tell(told)
        for kind, _ in (*rows, *removed):
            table_of(kind)
        before, changed = {kind: dict(self._rows[kind]) for kind, _ in (*rows, *removed)}, len(self._changes)
        try:
            for kind, id in removed:
                self.remove(kind, id)
            for kind, row in rows:
                self.put(kind, row)
        except Exception:  # Whatever is wrong with one of them, the others are taken back.
            self._rows.update(before)
            del self._changes[changed:]
            raise

    def get(self, kind: str, id: str) -> Row | None:
        """One row of a resource kind."""
        table_of(kind)
        row = self._rows[kind].get(id)
        return dict(row) if row else None

    def get_all(self, kind: str, ids: Sequence[str]) -> dict[str, Row]:
        """Those rows of a kind that there are, by their ids."""
        return {id: row for id in ids if (row := self.get(kind, id)) is not None}

    def remove(self, kind: str, id: str, *, told: TrailMark | None = None) -> bool:
        """Remove one row; false where there was none."""
        self._tell(told)
        table_of(kind)
        if self._rows[kind].pop(id, None) is None:
            return False
        self._changed(kind, id)
        return True

    def _changed(self, kind: str, id: str) -> int:
        self._changes.append((len(self._changes) + 1, kind, id))
        return len(self._changes)

    def listing(self, kind: str, /, *, after: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the order of their ids, after a cursor id, filtered by equality."""
        return self._listing(kind, lambda id: id > after, equal)[:limit]

    def columns(self, kind: str, names: Sequence[str], /, *, after: str = "", limit: int = 1000) -> list[Sequence[Any]]:
        """What ``listing`` gives, by column: the values of each of ``names``, in the order of the rows' ids."""
        strange = set(names) - set(table_of(kind).c.keys())
        if strange:
            raise UsageError(f"unknown filter {min(strange)!r}")
        rows = self.listing(kind, after=after, limit=limit)
        return [[row[name] for row in rows] for name in names]

    def newest(self, kind: str, /, *, before: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the reverse order of their ids, before a cursor id, filtered by equality."""
        return self._listing(kind, lambda id: not before or id < before, equal)[::-1][:limit]

    def _listing(self, kind: str, fits: Callable[[str], bool], equal: Mapping[str, object]) -> list[Row]:
        strange = {name.partition(".")[0] for name in equal} - set(table_of(kind).c.keys())
        if strange:
            raise UsageError(f"unknown filter {min(strange)!r}")
        rows = [self._rows[kind][id] for id in sorted(self._rows[kind]) if fits(id)]
        return [dict(row) for row in rows if all(_is(_of_resource(row, name), value) for name, value in equal.items())]

    def tally(self, kind: str, by: Sequence[str]) -> list[tuple[Row, int]]:
        """How many rows of a kind have which values in the columns ``by``."""
        strange = set(by) - set(table_of(kind).c.keys())
        if strange:
            raise UsageError(f"unknown filter {min(strange)!r}")
        found: list[tuple[Row, int]] = []
        for whole in self._rows[kind].values():
            values = {name: whole[name] for name in by}
            place = next((n for n, (row, _) in enumerate(found) if row == values), len(found))
            count = found[place][1] if place < len(found) else 0
            found[place : place + 1] = [(values, count + 1)]
        return found

    def newest_change(self) -> int:
        """The sequence number of the newest change, 0 where there is none yet."""
        return len(self._changes)

    def changes(self, after: int, limit: int = 10_000) -> list[tuple[int, str, str]]:
        """``(sequence, kind, id)`` of changes after a sequence number, oldest first."""
        return self._changes[after : after + limit]

    # -- balances -----------------------------------------------------------------------------------------------------
    def balances(self, selector: dict[str, str], each: tuple[str, ...], unit: str, since: int) -> Balances:
        """``(subject, posted)`` of what settled requests admitted at or after ``since`` add up to."""
        return self.balances_of([BalanceQuery(selector, each, unit, since)])[0]

    def balances_of(self, asked: Sequence[BalanceQuery]) -> list[Balances]:
        """The balances of many limits, in their order."""
        return [self._balances(one) for one in asked]

    def _balances(self, asked: BalanceQuery) -> Balances:
        sums: dict[tuple[str, ...], int] = defaultdict(int)
        for row in self._counted(asked.since, asked.until, asked.selector):
            subject = tuple(_value(row, name) for name in asked.each)
            sums[subject] += sum(row[name] for name in UNIT_SUMS.get(asked.unit, ()))
        return sorted(sums.items())

    def _counted(self, since: int, until: int, filters: Mapping[str, object]) -> Iterator[Row]:
        """Settled records of a span with ``requests`` 1 in each, so that everything can be summed."""
        for row in self._requests.values():
            if row["status"] in UNCOUNTED or row["created_at"] < since or (until and row["created_at"] >= until):
                continue
            if all(_is(_value(row, name), value) for name, value in filters.items()):
                hit, miss = (int(row["cache"] == word) for word in ("hit", "miss"))
                yield {**row, "requests": 1, "cache_hits": hit, "cache_misses": miss}

    def open_reservations(self, state: str | None = None) -> list[Row]:
        """Reservations that have not ended: ``dispatched`` or ``unknown``, oldest first."""
        rows = []
        for id, exchange in self._oracle.open().items():
            assert exchange.intended is not None
            now, seen = exchange.state.value, exchange.output_tokens_seen
            if state in (None, now):
                known = Reservation(exchange.intended, self._epochs[id], now, seen, exchange.awaited)
                rows.append(reservation_row(known))
        return sorted(rows, key=lambda row: (row["admitted_at"], row["id"]))

    # -- looking ------------------------------------------------------------------------------------------------------
    def requests(self, *, after: str = "", limit: int = 100, newest_first: bool = True, **filters: object) -> list[Row]:
        """Request records, newest first by default; filters by any column, ``since``, ``until``, ``tag.NAME``.

        With ``booked_after``, the id of a record or nothing: those booked later, in the order of booking.
        """
        special = ("booked_after", "sort", "within_ms")
        tests = [_request_test(name, value) for name, value in filters.items() if name not in special]
        ids, sort = self._ids(filters, newest_first), str(filters.get("sort", ""))
        if sort:
            ids.sort(key=lambda id: (self._requests[id][sort], id), reverse=newest_first)
            ids = ids[ids.index(after) + 1 :] if after in ids else ids
        found = []
        for id in ids:
            row = self._requests[id]
            past = not sort and after and (id >= after if newest_first else id <= after)
            if not past and all(test(row) for test in tests):
                found.append(dict(row))
        return found[: min(limit, LISTING_MAX)]

    def _ids(self, filters: Mapping[str, object], newest_first: bool) -> list[str]:
        """Ids in their order, or those of ``booked_after`` in the order of booking."""
        if "booked_after" not in filters:
            return sorted(self._requests, reverse=newest_first)
        ids, mark = list(self._requests), str(filters["booked_after"])
        if mark:
            ids = ids[ids.index(mark) + 1 :] if mark in self._requests else []
        return ids[::-1] if newest_first else ids

    def request(self, id: str, /, **equal: object) -> Row | None:
        """One request record, if it also fits filters by equality of any column."""
        row = self._requests.get(id)
        return dict(row) if row and all(_is(row[name], value) for name, value in equal.items()) else None

    def usage(self, by: Sequence[str], since: int, until: int, **filters: object) -> list[Row]:
        """Sums over settled requests grouped by dimensions: requests, tokens, rarer units, cost, charge."""
        for name in (*by, *filters):
            if name not in BUCKETS:
                _value({**dict.fromkeys(REQUEST_DIMENSIONS, ""), "tags": {}}, name)
        groups: dict[tuple[Any, ...], Row] = {}
        for row in self._counted(since, until, filters):
            at = row["created_at"]
            key = tuple(at - at % BUCKETS[name] if name in BUCKETS else _value(row, name) for name in by)
            sums = groups.setdefault(key, dict.fromkeys(SUMS, 0))
            for name in SUMS:
                sums[name] += row[name]
        return [totals_of({**dict(zip(by, key, strict=True)), **groups[key]}) for key in sorted(groups)]

    def cache_use(
        self, by: Sequence[str], since: int, until: int, thresholds: Mapping[str, Sequence[int]], **filters: object
    ) -> list[Row]:
        """What caches did for settled calls that used one, this gateway's or their provider's."""
        for name in (*by, *filters):
            _value({**dict.fromkeys(REQUEST_DIMENSIONS, ""), "tags": {}}, name)
        groups: dict[tuple[Any, ...], Row] = {}
        for row in self._counted(since, until, filters):
            rare = any("cache" in measure.unit for measure in row["other_units"])
            if not (row["cache"] or row["input_cached"] or row["input_cache_write"] or rare):
                continue
            length = sum(row[name] for name in ("input_text", "input_cached", "input_cache_write", "input_audio"))
            beyond = thresholds.get(row["price_version"], ())
            if not row["other_units"] or not beyond:
                length = max((each + 1 for each in beyond if length > each), default=0)
            told = {name: _value(row, name) for name in by} | {name: row[name] for name in CACHE_USE[:-1]}
            key = (*told.values(), length)
            sums = groups.setdefault(key, {**told, "input_length": length, **dict.fromkeys(CACHE_USE_SUMS, 0)})
            for name in CACHE_USE_SUMS:
                sums[name] += row[name]
        return list(groups.values())

    def comparison(
        self, since: int, until: int, most: int, *, stream: bool | None = None, **filters: object
    ) -> Comparison:
        """How deployments compare by the ``most`` newest settled calls of a time that were sent to one."""
        for name in filters:
            _value({**dict.fromkeys(REQUEST_DIMENSIONS, ""), "tags": {}}, name)
        either, strict = apart(filters)
        counted = {row["id"]: row for row in self._counted(since, until, {}) if row["cache"] != "hit"}
        found = Comparison()
        for row in reversed([row for row in self._counted(since, until, strict) if row["id"] in counted]):
            if not row["deployment"] or (stream is not None and bool(row["stream"]) is not stream):
                continue
            origin = json.loads(row["notes"] or "{}").get(MIRROR_OF)
            original = counted.get(origin)
            fits, original_fits = (
                each is not None and all(each[name] == value for name, value in either.items())
                for each in (row, original)
            )
            if not (fits or original_fits):
                continue
            if found.records == most:
                found.truncated = True
                break
            found.records += 1
            if fits:
                found.add(_ended_call(row), mirrored=origin is not None)
            if original is not None:
                found.add_pair(_ended_call(original), _ended_call(row))
        return found

    def spending(self, keys: Sequence[str], since: int, until: int) -> list[tuple[str, str, int, int]]:
        """``(key, service, start, spent)`` of these keys, by quarters of an hour: cost or charge, whichever is more."""
        sums: dict[tuple[str, str, int], int] = {}
        # As the roll-ups have it: by everything that they keep apart.
        for row in self.usage((*SET_DIMENSIONS, "quarter_hour"), since, until):
            if row["key"] in set(keys):
                of = row["key"], row["service"], row["quarter_hour"]
                sums[of] = sums.get(of, 0) + max(row["cost"], row["charge"])
        return [(*of, spent) for of, spent in sorted(sums.items())]

    def rate_card(self, version: str) -> Row | None:
        """The rate card a charge was made with."""
        return self._rate_cards.get(version)

    def keep_rate_cards(self, rows: Iterable[Row]) -> None:
        """Remember rate cards by version; known versions are left as they are."""
        for row in rows:
            self._rate_cards.setdefault(row["version"], {"service_tier": "", "region": "", **row})

    def rate_card_versions(self, containing: str) -> list[str]:
        """Versions of kept rate cards whose name contains a text."""
        return sorted(version for version in self._rate_cards if containing in version)

    # -- corrections --------------------------------------------------------------------------------------------------
    def adjust(
        self,
        run: Row,
        lines: Sequence[Row],
        moved: Sequence[tuple[str, str, int]],
        *,
        told: TrailMark | None = None,
    ) -> bool:
        """Book a correcting run; false where one of its id is booked already."""
        self._tell(told)
        if run["id"] in self._adjustments:
            return False
        self._adjustments[run["id"]] = dict(run)
        self._lines += [dict(line) for line in lines]
        for debited, credited, amount in moved:
            for account, part in ((debited, amount), (credited, -amount)):
                row = {"request_id": run["id"], "kind": "adjustment", "account": account, "amount": part}
                self._postings.append({"sequence": len(self._postings) + 1, **row, "at": run["at"]})
        return True

    def adjustment(self, id: str) -> Row | None:
        """One correcting run."""
        found = self._adjustments.get(id)
        return dict(found) if found else None

    def adjustments(self, *, after: str = "", limit: int = 100) -> list[Row]:
        """Correcting runs, newest first by their ids."""
        ids = [id for id in sorted(self._adjustments, reverse=True) if not after or id < after]
        return [dict(self._adjustments[id]) for id in ids[:limit]]

    def adjustment_lines(self, run: str, *, after: str = "", limit: int = 10_000) -> list[Row]:
        """By how much a run corrected each record, in the order of their ids."""
        lines = [dict(line) for line in self._lines if line["run"] == run and line["request_id"] > after]
        return sorted(lines, key=lambda line: str(line["request_id"]))[:limit]

    def corrections(self, ids: Sequence[str]) -> list[Row]:
        """What runs corrected of some records, oldest first, each with the run's ``reason``, ``kind`` and ``at``."""
        found = []
        for line in self._lines:
            if line["request_id"] in ids:
                run = self._adjustments[line["run"]]
                found.append({**line, **{name: run[name] for name in ("reason", "kind", "at")}})
        return sorted(found, key=lambda line: (line["at"], line["run"]))

    def adjusted_accounts(self) -> dict[str, int]:
        """Account → the sum of its postings that correct; they are part of ``account_balances``."""
        sums: dict[str, int] = defaultdict(int)
        for row in self._postings:
            if row["kind"] == "adjustment":
                sums[row["account"]] += row["amount"]
        return dict(sums)

    def adjusted_runs(self) -> dict[str, tuple[int, int]]:
        """Run → what its transfers debited payers, and what they credited providers."""
        sums: dict[str, tuple[int, int]] = {}
        for row in self._postings:
            if row["kind"] == "adjustment":
                debited, credited = sums.get(row["request_id"], (0, 0))
                debited += row["amount"] if row["account"].startswith("payer:") else 0
                credited -= row["amount"] if row["account"].startswith("provider:") else 0
                sums[row["request_id"]] = debited, credited
        return sums

    # -- proof and care -----------------------------------------------------------------------------------------------
    def totals(self) -> Row:
        """``requests postings held unknown sum open rollup_cost request_cost posted`` over everything."""
        truth = self._oracle.totals()
        counted = list(self._counted(0, 0, {}))
        return {
            "records": len(self._requests),
            "requests": len(counted),
            "request_cost": sum(row["cost"] for row in counted),
            "request_charge": sum(row["charge"] for row in counted),
            "postings": len(self._postings),
            "sum": sum(row["amount"] for row in self._postings),
            "posted": sum(
                row["amount"]
                for row in self._postings
                if row["account"].startswith("payer:") and row["kind"] != "adjustment"
            ),
            "adjusting": sum(row["kind"] == "adjustment" for row in self._postings),
            "credited": truth.credited,
            "late": sum(
                row["amount"] for row in self._postings if row["kind"] == "late" and row["account"] == OPERATOR
            ),
            "open": truth.open,
            "held": truth.held,
            "unknown": truth.unknown,
            "rollup_requests": sum(rollup.requests for rollup in self._oracle.rollups.values()),
            "rollup_cost": truth.rollup_cost,
            "rollup_charge": sum(rollup.charge for rollup in self._oracle.rollups.values()),
            "outbox": len(self._outbox),
            **self.mark(),
        }

    def outbox_backlog(self) -> int:
        """How many facts wait to be copied outward."""
        return len(self._outbox)

    def account_balances(self) -> dict[str, int]:
        """Account → the sum of its postings, in nano-dollars."""
        balances = dict(self._oracle.balances)
        for account, amount in self.adjusted_accounts().items():
            balances[account] = balances.get(account, 0) + amount
        return balances

    def postings(self, after: int = 0, limit: int = 10_000) -> Iterator[Row]:
        """Ledger postings in order."""
        return iter([dict(row) for row in self._postings[after : after + limit]])

    def checkpoint(self) -> None:
        """Nothing here reaches a disk, so no journal may be removed because of it.

        Raises:
            Failed: always.
        """
        raise Failed("books in memory are never durable")

    def keep_segment(self, row: Row) -> None:
        """Keep the digest of a journal segment that is about to be removed."""
        self._segments.setdefault(row["first"], dict(row))

    def removed_segments(self) -> list[Row]:
        """Digests of the journal segments that were removed, oldest first."""
        return [self._segments[first] for first in sorted(self._segments)]

    def _tell(self, told: TrailMark | None) -> None:
        if told is not None:
            self._marks.append(told)

    def keep_trail(self, told: TrailMark) -> None:
        """Remember lines of the trail of changes that no change of the books goes with."""
        self._tell(told)

    def trail_marks(self, after: int = 0, limit: int = 10_000) -> list[TrailMark]:
        """What is known of the trail of changes, in the order of its lines."""
        return sorted((mark for mark in self._marks if mark.last > after), key=lambda mark: mark.last)[:limit]

    def trail_lines(self) -> int:
        """How many lines of the trail of changes are known."""
        return sum(mark.last - mark.first + 1 for mark in self._marks)

    def chain_head(self) -> ChainHead:
        """Nothing is chained in memory: nobody else can reach it."""
        return ChainHead(0, "", 0)

    def prove(self, on_progress: Callable[[int, int], None], anchor: str = "") -> Proof:
        """There is nothing to prove, and an anchor is never that of books in memory."""
        on_progress(0, 0)
        return Proof(["books in memory have no anchor"] if anchor else [], 0, 0, self.chain_head())

    def check(self) -> list[str]:
        """What is wrong with the storage; memory is always sound."""
        return []

    def backup(self, file: str) -> None:
        """There is nothing to back up.

        Raises:
            Failed: always.
        """
        raise Failed(f"books in memory cannot be backed up to {file}")

    def is_backup(self, file: str) -> bool:
        """There are none."""
        return False

    def close(self) -> None:
        """Nothing to give back."""


def _is(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, list | tuple | set | frozenset) else value == wanted


def _of_resource(row: Row, name: str) -> Any:
    column, dot, member = name.partition(".")
    return (row[column] or {}).get(member) if dot else row[column]


def _value(row: Row, name: str) -> Any:
    if name.startswith(TAG_PREFIX):
        return row["tags"].get(name[len(TAG_PREFIX) :], "")
    if name not in REQUEST_DIMENSIONS:
        raise UsageError(f"unknown dimension {name!r}", hint=f"use {', '.join(REQUEST_DIMENSIONS)} or tag.NAME")
    return row[name]


def _request_test(name: str, wanted: Any) -> Callable[[Row], bool]:
    if name == "since":
        return lambda row: bool(row["created_at"] >= wanted)
    if name == "until":
        return lambda row: bool(row["created_at"] < wanted)
    if name.startswith(TAG_PREFIX):
        return lambda row: _is(_value(row, name), wanted)
    record_column(name)
    return lambda row: _is(row[name], wanted)


def _ended_call(row: Row) -> EndedCall:
    """What a request record tells for a comparison."""
    told = {name: row[name] for name in EndedCall._fields if name not in ("limit", "stream")}
    return EndedCall(**told, limit=row["limit_id"], stream=bool(row["stream"]))


def _record_row(intent: Intended, event: Settled, limit_id: str = "") -> Row:
    """A request record, column by column."""
    who = intent.who
    return {
        "id": event.id,
        **{name: getattr(who, name) for name in REQUEST_DIMENSIONS},
        "tags": dict(who.tags),
        "identity_source": who.identity_source,
        "created_at": intent.admitted_at,
        "ended_at": event.at,
        "status": event.status,
        "http_status": event.http_status,
        "code": event.code,
        "stream": int(intent.stream),
        **{name: getattr(event.usage, name) for name in LEAVES},
        "other_units": event.usage.other,
        "input_other": event.usage.quantity(*OTHER_INPUT_UNITS),
        "output_other": event.usage.quantity(*OTHER_OUTPUT_UNITS),
        **{unit: event.usage.quantity(unit) for unit in ("images", "seconds", "characters")},
        "input_tokens": event.usage.input_tokens,
        "output_tokens": event.usage.output_tokens,
        "usage_source": event.usage_source,
        "cost": event.cost,
        "charge": payer_charge(event),
        "charge_rule": event.charge_rule,
        "price_version": event.price_version,
        "answered_model": event.answered_model,
        "provider_request_id": event.provider_request_id,
        "attempts": [Attempt(*attempt)._asdict() for attempt in event.attempts],
        "latency_us": event.latency_us,
        "first_token_us": event.first_token_us,
        "clamped_to": intent.clamped_to,
        "notes": intent.notes,
        "overrun": event.overrun,
        "limit_id": limit_id or event.limit,
        "resolution": event.resolution,
        "idempotency_key": intent.idempotency_key,
        "held": intent.held.usd,
        "cache": event.cache,
        "saved_cost": event.saved_cost,
    }


def _unknown(exchange: Exchange, event: Lost) -> Row:
    intent = exchange.intended
    assert intent is not None
    end = _nothing_used(event.id, event.at, event.status, event.http_status, event.code, event.latency_us)
    end = end._replace(
        price_version=intent.price_version,
        first_token_us=event.first_token_us,
        attempts=event.attempts,
        provider_request_id=event.awaited.object_id,
    )
    return _record_row(intent, end)


def _refused(event: Refused) -> Row:
    intent = Intended(event.id, event.at, event.at, event.who, NOTHING, "", event.stream)
    end = _nothing_used(event.id, event.at, "refused", event.http_status, event.code, event.latency_us)
    return _record_row(intent, end, event.limit)


def _nothing_used(id: str, at: int, status: str, http_status: int, code: str, latency_us: int) -> Settled:
    return Settled(id, at, status, http_status, code, NO_USAGE, "none", 0, 0, "", latency_us, 0)
