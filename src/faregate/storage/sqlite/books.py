"""``Books`` in one SQLite file.

Every method is a transaction of its own. Writers take turns at one connection, looking never waits for them. What the
rows mean is in ``storage/schema``, how records become rows in ``storage/fold``. It is one file because it is one
protocol, method by method.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    case,
    func,
    insert,
    literal,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.exc import DBAPIError

from faregate.core.comparison import Comparison
from faregate.errors import Unavailable
from faregate.ports import BalanceQuery, Balances, ChainHead, Clock, JournalRecord, Proof, Row, TrailMark
from faregate.storage import queries
from faregate.storage.balances import Group, answer, balances, groups
from faregate.storage.comparison import compared, count
from faregate.storage.fold import UNKNOWN, RepeatedId, Reservation, reservation_row
from faregate.storage.rows import postings_of, request_row, table_of, with_measures
from faregate.storage.schema import (
    accounts,
    meta,
    outbox,
    rate_cards,
    requests,
    reservations,
    rollups,
    segments,
    transfers,
)
from faregate.storage.schema import chain as chained
from faregate.storage.spending import spending
from faregate.storage.sqlite import adjust, backup, chain, connect, resources
from faregate.storage.sqlite.project import Projection, stored_reservations
from faregate.storage.sqlite.prove import prove

#: How long a writer waits for its turn.
_TURN_S: Final = 30.0

#: Queries of balances that are worth a second connection and a thread.
_MANY_QUERIES: Final = 1_000


#: Rows of a long answer that are read at a time.
_STREAMED: Final = 1_000


def _tag_of(name: str) -> ColumnElement[str]:
    """The value of one tag of a request record; the name is a parameter, never a part of a path."""
    pairs = func.json_each(func.coalesce(requests.c.tags, "{}")).table_valued("key", "value", name="tag_pairs")
    found = select(pairs.c.value).where(pairs.c.key == name).scalar_subquery()
    return func.coalesce(found, "")


class SqliteBooks:
    """Implements ``Books``. Open it with ``open_books``, which also brings the schema up to date."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._turn = threading.Lock()
        self._chain = chain.Chain()
        self._projection = Projection(self._chain)
        self._writer = connect.writer_engine(path)
        #: The connection of the writer, as the driver has it.
        self._driver: sqlite3.Connection | None = None
        #: Rows of tables without numbers that the transaction under way adds, as ``(table, key)``.
        self._named: list[tuple[str, str | int]] = []
        self._readers = connect.reader_engine(path)
        #: The whole file was looked through for damage since it was opened.
        self.looked_through = False

    # -- projection ---------------------------------------------------------------------------------------------------
    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        # Only this process writes, so what its last transaction left need not be read again.
        position = self._projection.position
        if position is not None:
            return position
        with self._reading() as connection:
            return int(connection.execute(select(meta.c.position)).scalar_one())

    def mark(self) -> Row:
        """``position``, ``sequence`` and ``epoch`` of the journal up to which everything is in the books."""
        with self._reading() as connection:
            row = connection.execute(select(meta.c.position, meta.c.sequence, meta.c.epoch)).mappings().one()
            return dict(row)

    def project(self, records: Sequence[JournalRecord]) -> None:
        """Apply records in one transaction with the new position; those already applied are skipped.

        Raises:
            Unavailable: the file stays locked, or its disk is full.
            JournalCorrupt: the records do not go on where the books end.
        """
        if not records:
            return
        with self._turn_taken():
            try:
                try:
                    self._apply(records, repeated=False)
                except RepeatedId:
                    # An id came twice, which the fast way does not expect: look up what has ended, then try again.
                    self._projection.forget()
                    self._apply(records, repeated=True)
            except BaseException:  # However a batch fails, what is remembered of it was never committed.
                self._projection.forget()
                raise

    def _apply(self, records: Sequence[JournalRecord], *, repeated: bool) -> None:
        with connect.told_plainly():
            if self._driver is None:
                with self._writer.connect() as connection:
                    self._driver = connection.connection.driver_connection
                assert self._driver is not None
            # What SQLAlchemy does for a transaction costs as much as ten calls.
            with connect.transaction(self._driver):
                batch = self._projection.apply(self._driver, records, self._clock.wall_nanos(), repeated=repeated)
        self._projection.committed(batch)

    # -- identity, limits, prices -------------------------------------------------------------------------------------
    # ``told`` are the lines of the trail of changes that tell of a change; they are chained in the same transaction.
    def put(self, kind: str, row: Row, *, told: TrailMark | None = None) -> int:
        """Insert or replace the row ``row['id']`` of a resource kind; returns the change sequence number.

        Raises:
            UsageError: an unknown kind or column.
            Conflict: another row has its name.
        """
        with self._writing(told) as connection:
            return resources.put(connection, kind, row, self._clock.wall_nanos())

    def put_all(self, kind: str, rows: Sequence[Row], *, told: TrailMark | None = None) -> None:
        """Insert or replace rows of a kind, all of them or none."""
        with self._writing(told) as connection:
            resources.put_all(connection, kind, rows, self._clock.wall_nanos())

    def put_together(
        self,
        rows: Sequence[tuple[str, Row]],
        removed: Sequence[tuple[str, str]] = (),
        *,
        told: TrailMark | None = None,
    ) -> None:
        """Put a few ``(kind, row)`` and remove a few ``(kind, id)`` that belong together, all of them or none."""
        with self._writing(told) as connection:
            now = self._clock.wall_nanos()
            for kind, id in removed:
                resources.remove(connection, kind, id, now)
            for kind, row in rows:
                resources.put(connection, kind, row, now)

    def get(self, kind: str, id: str) -> Row | None:
        """One row of a resource kind."""
        with self._reading() as connection:
            return resources.get(connection, kind, id)

    def get_all(self, kind: str, ids: Sequence[str]) -> dict[str, Row]:
        """Those rows of a kind that there are, by their ids."""
        with self._reading() as connection:
            return resources.get_all(connection, kind, ids)

    def remove(self, kind: str, id: str, *, told: TrailMark | None = None) -> bool:
        """Remove one row; false where there was none."""
        with self._writing(told) as connection:
            return resources.remove(connection, kind, id, self._clock.wall_nanos())

    def listing(self, kind: str, /, *, after: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the order of their ids, after a cursor id, filtered by equality."""
        return self._resources(kind, queries.listing(table_of(kind), after, limit, equal))

    def columns(self, kind: str, names: Sequence[str], /, *, after: str = "", limit: int = 1000) -> list[Sequence[Any]]:
        """What ``listing`` gives, by column: the values of each of ``names``, in the order of the rows' ids."""
        with self._reading() as connection:
            return resources.columns(connection, kind, names, after, limit)

    def newest(self, kind: str, /, *, before: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the reverse order of their ids, before a cursor id, filtered by equality."""
        return self._resources(kind, queries.listing(table_of(kind), before, limit, equal, newest_first=True))

    def tally(self, kind: str, by: Sequence[str]) -> list[tuple[Row, int]]:
        """How many rows of a kind have which values in the columns ``by``."""
        found = self._rows(queries.tally(table_of(kind), by))
        return [(row, count) for row in found if (count := row.pop(queries.COUNT))]

    def newest_change(self) -> int:
        """The sequence number of the newest change, 0 where there is none yet."""
        with self._reading() as connection:
            return resources.newest_change(connection)

    def changes(self, after: int, limit: int = 10_000) -> list[tuple[int, str, str]]:
        """``(sequence, kind, id)`` of changes after a sequence number, oldest first."""
        with self._reading() as connection:
            return resources.changes_after(connection, after, limit)

    # -- balances -----------------------------------------------------------------------------------------------------
    def balances(self, selector: dict[str, str], each: tuple[str, ...], unit: str, since: int) -> Balances:
        """``(subject, posted)`` of what settled requests admitted at or after ``since`` add up to."""
        return self.balances_of([BalanceQuery(selector, each, unit, since)])[0]

    def balances_of(self, asked: Sequence[BalanceQuery]) -> list[Balances]:
        """The balances of many limits as of one moment, in their order; far faster than one by one."""
        if len(asked) >= _MANY_QUERIES:
            found = self._balances_at_once(asked)
            if found is not None:
                return found
        with self._reading() as connection:
            return balances(asked, lambda statement: resources.values_of(connection.execute(statement)), _tag_of)

    def _balances_at_once(self, asked: Sequence[BalanceQuery]) -> list[Balances] | None:
        """The balances by two connections, for a start with very many limits waits for them; nearly all is SQLite's.

        ``None`` where something was booked between the moments that the two look at.
        """
        found: list[Balances] = [[] for _ in asked]
        waiting = SimpleQueue[Group]()
        for group in groups(asked):
            waiting.put(group)

        def work(connection: Connection) -> None:
            with suppress(Empty):
                while True:
                    group = waiting.get_nowait()
                    answer(group, asked, found, lambda each: resources.values_of(connection.execute(each)), _tag_of)

        with self._reading() as one, self._reading() as other, ThreadPoolExecutor(1) as beside:
            newest = select(func.max(chained.c.number))
            if one.execute(newest).scalar() != other.execute(newest).scalar():
                return None
            done = beside.submit(work, other)
            work(one)
            done.result()
        return found

    def open_reservations(self, state: str | None = None) -> list[Row]:
        """Reservations that have not ended: ``dispatched`` or ``unknown``, oldest first."""
        with self._reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            found: list[Reservation] = stored_reservations(driver.cursor())
        chosen = [reservation for reservation in found if state is None or reservation.state == state]
        chosen.sort(key=lambda reservation: (reservation.intent.admitted_at, reservation.intent.id))
        return [reservation_row(reservation) for reservation in chosen]

    # -- looking ------------------------------------------------------------------------------------------------------
    def requests(self, *, after: str = "", limit: int = 100, newest_first: bool = True, **filters: object) -> list[Row]:
        """Request records, newest first by default; filters by any column, ``since``, ``until``, ``tag.NAME``.

        With ``booked_after``, the id of a record or nothing: those booked later, in the order of booking. With
        ``sort``, a column, in its order, the largest first by default; ``within_ms`` is how long it may take.

        Raises:
            Failed: ``search_too_long``.
        """
        whereabouts = queries.whereabouts(filters)
        with self._reading() as connection, connect.within(connection, int(str(filters.get("within_ms", 0)))):
            where = queries.Whereabouts(*connection.execute(whereabouts).one()) if whereabouts is not None else None
            statement = queries.request_list(after, limit, newest_first, filters, _tag_of, where)
            return [request_row(dict(row)) for row in connection.execute(statement).mappings()]

    def request(self, id: str, /, **equal: object) -> Row | None:
        """One request record, if it also fits filters by equality of any column."""
        found = self._rows(queries.record(id, equal))
        return request_row(found[0]) if found else None

    def usage(self, by: Sequence[str], since: int, until: int, **filters: object) -> list[Row]:
        """Sums over settled requests grouped by dimensions: requests, tokens, rarer units, cost, charge."""
        statement, names = queries.usage(by, since, until, filters, _tag_of)
        with self._reading() as connection:
            found = connection.execute(statement).all()
        return [queries.totals_of(dict(zip(names, row, strict=True))) for row in found]

    def cache_use(
        self, by: Sequence[str], since: int, until: int, thresholds: Mapping[str, Sequence[int]], **filters: object
    ) -> list[Row]:
        """What caches did for settled calls that used one, this gateway's or their provider's."""
        statement, names = queries.cache_use(by, since, until, thresholds, filters, _tag_of)
        with self._reading() as connection:
            found = connection.execute(statement).all()
        return [with_measures(dict(zip(names, row, strict=True))) for row in found]

    def comparison(
        self, since: int, until: int, most: int, *, stream: bool | None = None, **filters: object
    ) -> Comparison:
        """How deployments compare by the ``most`` newest settled calls of a time that were sent to one."""
        statement = compared(since, until, most, stream, filters, _tag_of)
        with self._reading() as connection:
            # They are counted as they come: so many rows at once would take ten times the memory of their figures.
            return count(connection.execution_options(yield_per=_STREAMED).execute(statement), most)

    def spending(self, keys: Sequence[str], since: int, until: int) -> list[tuple[str, str, int, int]]:
        """``(key, service, start, spent)`` of these keys, by quarters of an hour: cost or charge, whichever is more."""
        with self._reading() as connection:
            found = connection.execute(spending(keys, since, until)).all()
        return [(key, service, int(start), int(spent)) for key, service, start, spent in found]

    def rate_card(self, version: str) -> Row | None:
        """The rate card a charge was made with."""
        found = self._rows(select(rate_cards).where(rate_cards.c.version == version))
        return found[0] if found else None

    def keep_rate_cards(self, rows: Iterable[Row]) -> None:
        """Remember rate cards by version; known versions are left as they are."""
        with self._writing() as connection:
            known = set(connection.execute(select(rate_cards.c.version)).scalars())
            fresh = {row["version"]: row for row in rows if row["version"] not in known}
            if fresh:
                connection.execute(insert(rate_cards), list(fresh.values()))
                self._named += [("rate_cards", version) for version in fresh]

    def rate_card_versions(self, containing: str) -> list[str]:
        """Versions of kept rate cards whose name contains a text."""
        with self._reading() as connection:
            return list(connection.execute(adjust.versions(containing)).scalars())

    # -- corrections --------------------------------------------------------------------------------------------------
    def adjust(
        self,
        run: Row,
        lines: Sequence[Row],
        moved: Sequence[tuple[str, str, int]],
        *,
        told: TrailMark | None = None,
    ) -> bool:
        """Book a correcting run in one transaction; false where one of its id is booked already.

        ``lines`` say by how much each record is corrected, ``moved`` are ``(debited, credited, amount)``.
        """
        try:
            with self._writing(told) as connection:
                if not adjust.book(connection, run, lines, moved):
                    raise _BookedBefore
                self._named.append(("adjustments", run["id"]))
        except _BookedBefore:
            return False
        return True

    def adjustment(self, id: str) -> Row | None:
        """One correcting run."""
        found = self._rows(adjust.run(id))
        return found[0] if found else None

    def adjustments(self, *, after: str = "", limit: int = 100) -> list[Row]:
        """Correcting runs, newest first by their ids."""
        return self._rows(adjust.runs(after, limit))

    def adjustment_lines(self, run: str, *, after: str = "", limit: int = 10_000) -> list[Row]:
        """By how much a run corrected each record, in the order of their ids."""
        return self._rows(adjust.lines_of(run, after, limit))

    def corrections(self, ids: Sequence[str]) -> list[Row]:
        """What runs corrected of some records, oldest first, each with the run's ``reason``, ``kind`` and ``at``."""
        return self._rows(adjust.lines_about(ids)) if ids else []

    def adjusted_accounts(self) -> dict[str, int]:
        """Account → the sum of its postings that correct; they are part of ``account_balances``."""
        with self._reading() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(adjust.moved_by_account())}

    def adjusted_runs(self) -> dict[str, tuple[int, int]]:
        """Run → what its transfers debited payers, and what they credited providers."""
        with self._reading() as connection:
            return {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(adjust.moved_by_run())}

    # -- proof and care -----------------------------------------------------------------------------------------------
    def totals(self) -> Row:
        """``requests postings held unknown sum open rollup_cost request_cost posted`` over everything.

        ``posted`` is what payers were debited, ``credited`` what providers were, ``late`` what of this was late.
        """
        counted = requests.c.status.not_in(queries.UNCOUNTED)
        held = func.coalesce(func.sum(reservations.c.held), 0)
        unknown = func.coalesce(func.sum(case((reservations.c.state == UNKNOWN, reservations.c.held), else_=0)), 0)
        # Corrections stand beside what the records hold.
        ordinary = transfers.c.kind != literal_column("'adjustment'")
        debited = case((transfers.c.debit.in_(_accounts_of("payer")) & ordinary, transfers.c.amount), else_=0)
        # What providers were credited is what was charged, whoever bears it.
        credited = case((transfers.c.credit.in_(_accounts_of("provider")) & ordinary, transfers.c.amount), else_=0)
        statements: dict[tuple[str, ...], Executable] = {
            ("records",): select(func.count()).select_from(requests),
            ("requests", "request_cost", "request_charge"): select(
                func.count(), _sum(requests.c.cost), _sum(requests.c.charge)
            ).where(counted),
            # Each transfer is two postings, which add up to nothing because they are one row.
            ("postings", "sum", "posted", "credited"): select(
                2 * func.count(), literal(0), _sum(debited), _sum(credited)
            ).select_from(transfers),
            ("adjusting",): select(2 * func.count()).select_from(transfers).where(adjust.IS_ADJUSTMENT),
            ("late",): select(_sum(transfers.c.amount)).where(transfers.c.kind == literal_column("'late'")),
            ("open", "held", "unknown"): select(func.count(), held, unknown).select_from(reservations),
            ("rollup_requests", "rollup_cost", "rollup_charge"): select(
                _sum(rollups.c.requests), _sum(rollups.c.cost), _sum(rollups.c.charge)
            ),
            ("outbox",): select(_sum(outbox.c.last - outbox.c.first + 1)).where(outbox.c.sent_at == 0),
            ("position", "sequence", "epoch"): select(meta.c.position, meta.c.sequence, meta.c.epoch),
        }
        row: Row = {}
        with self._reading() as connection:
            for names, statement in statements.items():
                row.update(zip(names, tuple(connection.execute(statement).one()), strict=True))
        return row

    def outbox_backlog(self) -> int:
        """How many facts wait to be copied outward: from the oldest one that waits to the newest.

        Two steps in an index, because a scrape must not count millions of rows. Facts are copied in their order and
        numbered without gaps, so that the difference is the count.
        """
        oldest = select(outbox.c.first).where(outbox.c.sent_at == 0).order_by(outbox.c.first).limit(1)
        last = select(outbox.c.last).order_by(outbox.c.first.desc()).limit(1)
        with self._reading() as connection:
            waiting = connection.execute(oldest).scalar()
            newest = connection.execute(last).scalar()
        return 0 if waiting is None or newest is None else int(newest) - int(waiting) + 1

    def account_balances(self) -> dict[str, int]:
        """Account → the sum of its postings, in nano-dollars."""
        moved = union_all(
            select(transfers.c.debit.label("account"), _sum(transfers.c.amount).label("amount")).group_by("account"),
            select(transfers.c.credit.label("account"), -_sum(transfers.c.amount)).group_by("account"),
        ).subquery()
        statement = select(accounts.c.name, _sum(moved.c.amount)).join(moved, moved.c.account == accounts.c.id)
        with self._reading() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(statement.group_by(accounts.c.name))}

    def postings(self, after: int = 0, limit: int = 10_000) -> Iterator[Row]:
        """Ledger postings in order: the debit and the credit of each transfer."""
        debited, credited = accounts.alias(), accounts.alias()
        statement = select(transfers, debited.c.name.label("debited"), credited.c.name.label("credited"))
        statement = statement.join(debited, debited.c.id == transfers.c.debit)
        statement = statement.join(credited, credited.c.id == transfers.c.credit)
        statement = statement.where(transfers.c.sequence > after // 2).order_by(transfers.c.sequence)
        found = [posting for row in self._rows(statement.limit(limit // 2 + 1)) for posting in postings_of(row)]
        return iter([posting for posting in found if posting["sequence"] > after][:limit])

    def checkpoint(self) -> None:
        """Bring all that is projected to stable storage, so that the journal behind it may go.

        Raises:
            Unavailable: a reader held the file back; try again later.
        """
        with self._turn_taken(), connect.told_plainly(), self._writer.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA synchronous=FULL")
            try:
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            finally:
                driver.execute("PRAGMA synchronous=NORMAL")
        if busy:
            raise Unavailable("the books cannot be checkpointed while somebody reads them")

    def keep_segment(self, row: Row) -> None:
        """Keep the digest of a journal segment that is about to be removed; known ones are left as they are."""
        with self._writing() as connection:
            if not connection.execute(select(segments.c.first).where(segments.c.first == row["first"])).first():
                connection.execute(insert(segments), [row])
                self._named.append(("segments", row["first"]))

    def removed_segments(self) -> list[Row]:
        """Digests of the journal segments that were removed, oldest first."""
        return self._rows(select(segments).order_by(segments.c.first))

    def check(self, within_ms: int = 0) -> list[str]:
        """What SQLite itself finds wrong with the file; empty when it is sound.

        Beyond ``within_ms``, 0 for any time, it is given up, and ``looked_through`` says that it was.
        """
        with self._reading() as connection, connect.within(connection, within_ms):
            try:
                found = connection.exec_driver_sql("PRAGMA quick_check(10)").scalars().all()
            except DBAPIError as problem:
                if not connect.was_too_long(problem):
                    raise
                return []
        self.looked_through = True
        return [str(line) for line in found if line != "ok"]

    def keep_trail(self, told: TrailMark) -> None:
        """Chain lines of the trail of changes that no change of the books goes with."""
        with self._writing(told):
            pass

    def trail_marks(self, after: int = 0, limit: int = 10_000) -> list[TrailMark]:
        """What the chain knows of the trail of changes, in the order of its lines, beyond line ``after``."""
        columns = chained.c.trail_first, chained.c.trail_last, chained.c.trail_hash
        statement = select(*columns).where(chained.c.trail_last > max(after, 0)).order_by(chained.c.trail_last)
        with self._reading() as connection:
            return [TrailMark(*row) for row in connection.execute(statement.limit(limit))]

    def trail_lines(self) -> int:
        """How many lines of the trail of changes the chain covers."""
        covered = func.sum(chained.c.trail_last - chained.c.trail_first + 1)
        with self._reading() as connection:
            return int(connection.execute(select(covered).where(chained.c.trail_last > 0)).scalar() or 0)

    def chain_head(self) -> ChainHead:
        """The newest entry of the chain."""
        with self._reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            return chain.Chain().head(driver.cursor())

    def prove(self, on_progress: Callable[[int, int], None], anchor: str = "") -> Proof:
        """Follow the chain from its first entry to its newest, beside whoever writes; takes its time.

        ``on_progress`` is told how many rows were looked at, and of how many. With an ``anchor``, the hash of an entry,
        it is a fault if no entry has it.

        Raises:
            Unavailable: the file cannot be reached.
        """
        with connect.told_plainly():
            return prove(self.path, on_progress, anchor)

    def backup(self, file: str) -> None:
        """Write a consistent copy while in use.

        Raises:
            Failed: it could not be written whole; no partial file is left.
            Unsafe: ``file`` is the books themselves.
        """
        backup.backup(self.path, Path(file), self._clock.wall_nanos())

    def is_backup(self, file: str) -> bool:
        """Whether a file is a backup of Faregate, of any version; neither a folder nor a device is opened for that."""
        return backup.is_one(Path(file))

    def close(self) -> None:
        """Give the database back."""
        self._readers.dispose()
        with self._turn:
            self._writer.dispose()

    # -- connections --------------------------------------------------------------------------------------------------
    def _rows(self, statement: Select[Any]) -> list[Row]:
        with self._reading() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _resources(self, kind: str, statement: Select[Any]) -> list[Row]:
        with self._reading() as connection:
            return resources.rows_of(kind, connection.execute(statement))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with connect.told_plainly(), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self, told: TrailMark | None = None) -> Iterator[Connection]:
        """A transaction whose changes are chained at its end, with the lines of the trail that tell of it."""
        with self._turn_taken(), connect.told_plainly(), self._durably(told is not None):
            self._named = []
            try:
                with self._writer.begin() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None
                    cursor = driver.cursor()
                    before = chain.ends(cursor)
                    yield connection
                    self._chain.change(cursor, before, self._clock.wall_nanos(), told, self._named)
            except BaseException:  # However it fails, what was chained was never committed.
                self._chain.forget()
                raise

    @contextmanager
    def _durably(self, wanted: bool) -> Iterator[None]:
        """Commit to stable storage: the line that tells of a change is there, and the journal does not have it."""
        if not wanted:
            yield
            return
        with self._writer.connect() as connection:
            driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA synchronous=FULL")
        try:
            yield
        finally:
            driver.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def _turn_taken(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=_TURN_S):
            raise Unavailable("the books are busy with another write")
        try:
            yield
        finally:
            self._turn.release()


class _BookedBefore(Exception):
    """Nothing is to be written, not even that it was told."""


def _sum(of: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(of), 0)


def _accounts_of(kind: str) -> Select[Any]:
    return select(accounts.c.id).where(accounts.c.name.startswith(f"{kind}:", autoescape=True))
