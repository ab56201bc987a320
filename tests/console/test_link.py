"""The link to the gate, over a real Unix socket to a gate that remembers what it was told."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from console_parts import NOON, SECOND, WHO, Parts, catalogue_of, opened, parts, run, settled_call
from fakes import FakeGate
from faregate.console.keys import NewKey, create, revoke
from faregate.console.limits import NewLimit
from faregate.console.limits import put as put_limit
from faregate.console.link import GateLink
from faregate.console.prices import NewPrice
from faregate.console.prices import put as put_price
from faregate.control import Balance, Figures, Opening, Projected, Resolve
from faregate.core.amounts import held_amounts
from faregate.core.ledger.events import Intended, Started
from faregate.core.usage import NO_USAGE
from faregate.errors import Unavailable

LIFETIME = NewLimit(unit="usd", amount="1", window="lifetime")
OF_RESEARCH = LIFETIME.model_copy(update={"select": {"team": "research"}})


class Linked:
    """A console, a fake gate and the link between them."""

    def __init__(self, made: Parts) -> None:
        self.parts = made
        self.gate = FakeGate(made.folder / "gate.sock", lambda: len(made.journal.records) * 10)
        self.link = GateLink(
            str(self.gate.path), made.books, made.journal, made.projector, catalogue_of, made.clock, keys_part=2
        )

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that is promised within a second."""
        async with asyncio.timeout(3):
            while not true():  # noqa: ASYNC110 - the other side of a socket has no event to wait for
                await asyncio.sleep(0.005)


@asynccontextmanager
async def linked(folder: Path, before: Callable[[Parts], None] = lambda made: None) -> AsyncIterator[Linked]:
    """A link that has loaded everything, after ``before`` filled the books."""
    with parts(folder) as made:
        before(made)
        both = Linked(made)
        await both.gate.listen()
        running = asyncio.create_task(both.link.run())
        try:
            await both.until(lambda: both.link.connected)
            yield both
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await both.gate.hang_up()


def with_link(
    folder: Path, work: Callable[[Linked], Awaitable[Any]], before: Callable[[Parts], None] = lambda made: None
) -> None:
    async def all_of_it() -> None:
        async with linked(folder, before) as both:
            await work(both)

    run(all_of_it())


def test_a_connection_begins_with_everything_and_opens_balances_at_the_gates_position(tmp_path: Path) -> None:
    """Keys, limits and catalogue go in one full load; the balance is read exactly where the gate's journal stood."""

    def before(made: Parts) -> None:
        create(made.console, NewKey(name="ci", team="research"))
        put_limit(made.console, OF_RESEARCH)
        made.journal.add(opened(), *settled_call("req_1", cost=1_000), *settled_call("req_2", cost=20))

    async def work(both: Linked) -> None:
        (limits, keys, rest), opening = both.gate.loads(), both.gate.openings()[0]
        assert [load.full for load in both.gate.loads()] == [True, False, False]
        assert [key.name for key in keys.keys] == ["ci"]
        assert rest.catalogue is not None
        limit = limits.limits[0].id
        assert opening == Opening(50, (limit,), (Balance(limit, (), 0, 1_020),), first=True)

    with_link(tmp_path, work, before)


def test_many_keys_go_in_parts_and_all_of_them_before_the_catalogue(tmp_path: Path) -> None:
    """A gate takes some keys in while the next ones are read; it is opened when it has all of them."""

    def before(made: Parts) -> None:
        for number in range(5):
            create(made.console, NewKey(name=f"ci-{number}"))

    async def work(both: Linked) -> None:
        limits, *parts, rest = both.gate.loads()
        assert limits.full
        assert not any(load.full for load in (*parts, rest))
        assert [len(load.keys) for load in parts] == [2, 2, 1]
        assert sorted(key.name for load in parts for key in load.keys) == [f"ci-{number}" for number in range(5)]
        assert rest.catalogue is not None
        assert rest.halted is not None
        assert not rest.keys
        assert len(both.gate.openings()) == 1

    with_link(tmp_path, work, before)


def test_books_that_are_behind_are_projected_exactly_to_the_gates_position(tmp_path: Path) -> None:
    """What is journalled after the load is the gate's to count, not the books'."""

    def before(made: Parts) -> None:
        put_limit(made.console, LIFETIME)
        made.journal.add(opened(), *settled_call("req_1", cost=1_000), *settled_call("req_2", cost=20))

    async def all_of_it() -> None:
        with parts(tmp_path) as made:
            before(made)
            both = Linked(made)
            both.gate.position = lambda: 30
            await both.gate.listen()
            running = asyncio.create_task(both.link.run())
            await both.until(lambda: bool(both.gate.openings()))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await both.gate.hang_up()
            assert both.gate.openings()[0].balances[0].posted == 1_000
            assert made.books.projected() == 30

    run(all_of_it())


def test_unknowns_of_older_epochs_are_told_with_the_first_opening(tmp_path: Path) -> None:
    """A call that a crash left open is held by the next gate."""

    def before(made: Parts) -> None:
        held = held_amounts(5_000, 400, 200)
        made.journal.add(
            opened(), Intended("req_1", NOON, NOON, WHO, held, "v1", False, 400), Started(2, NOON + SECOND)
        )

    async def work(both: Linked) -> None:
        opening = both.gate.openings()[0]
        assert opening.first
        (unknown,) = opening.unknowns
        assert (unknown.id, unknown.held.usd, unknown.dispatched_at, unknown.input_tokens_bound) == (
            "req_1",
            5_000,
            NOON,
            400,
        )

    with_link(tmp_path, work, before)


def test_a_change_reaches_the_gate_within_a_second_and_the_caller_knows(tmp_path: Path) -> None:
    """A new key, its revocation and a price are each loaded before ``applied`` is true."""

    async def work(both: Linked) -> None:
        console = both.parts.console
        row, _ = await asyncio.to_thread(create, console, NewKey(name="ci"))
        assert await both.link.applied(1.0)
        assert both.gate.loads()[-1].keys[0].id == row["id"]
        await asyncio.to_thread(revoke, console, row["id"], "")
        assert await both.link.applied(1.0)
        assert both.gate.loads()[-1].keys[0].state == "revoked"
        price = NewPrice(provider="openai", model="gpt-4o", unit="input_tokens", per=1_000_000, price="3")
        await asyncio.to_thread(put_price, console, price)
        assert await both.link.applied(1.0)
        catalogue = both.gate.loads()[-1].catalogue
        assert catalogue is not None
        card = catalogue.deployments[0].cards[0]
        assert card.tiers[0].rates[0].pico == 3 * 10**12
        assert both.parts.books.rate_card(card.version) is not None

    with_link(tmp_path, work)


def test_a_new_limit_is_opened_before_the_caller_hears_of_it(tmp_path: Path) -> None:
    """``applied`` waits for the balance, so that the limit admits when it is said to be there."""

    async def work(both: Linked) -> None:
        limit = NewLimit(select={"project": "search"}, each=["user"], unit="tokens", amount=100, window="minute")
        row = await asyncio.to_thread(put_limit, both.parts.console, limit)
        assert await both.link.applied(5.0)
        assert row["id"] in both.gate.opened
        assert both.gate.openings()[-1].first is False
        await asyncio.to_thread(both.parts.books.remove, "limit", row["id"])
        assert await both.link.applied(5.0)
        assert both.gate.loads()[-1].limits_removed == (row["id"],)

    with_link(tmp_path, work)


def test_the_gate_is_told_how_far_the_books_are(tmp_path: Path) -> None:
    """The gate measures its backlog by it."""

    async def work(both: Linked) -> None:
        both.parts.journal.add(opened(), *settled_call("req_1"))
        await asyncio.to_thread(both.parts.project)
        await both.until(lambda: Projected(30) in both.gate.heard)

    with_link(tmp_path, work)


def test_a_gate_that_comes_back_gets_everything_again(tmp_path: Path) -> None:
    """Whatever happened while it was away is in the next full load; a waiting caller is served by it."""

    async def work(both: Linked) -> None:
        await both.gate.hang_up()
        await both.until(lambda: not both.link.connected)
        with pytest.raises(Unavailable):
            await both.link.figures()
        await asyncio.to_thread(create, both.parts.console, NewKey(name="meanwhile"))
        assert await both.link.applied(0.05) is False
        both.gate.opened.clear()
        await both.gate.listen()
        assert await both.link.applied(3.0)
        limits, keys, _ = both.gate.loads()[-3:]
        assert limits.full
        assert [key.name for key in keys.keys] == ["meanwhile"]

    with_link(tmp_path, work)


def test_a_load_that_the_gate_refuses_is_tried_again_in_full(tmp_path: Path) -> None:
    """One trouble does not end the link."""

    async def work(both: Linked) -> None:
        both.gate.refusal = "not loaded: prices overlap"
        await asyncio.to_thread(create, both.parts.console, NewKey(name="ci"))
        assert await both.link.applied(3.0)
        assert both.gate.connections == 2

    with_link(tmp_path, work)


def test_orders_and_questions_reach_the_gate(tmp_path: Path) -> None:
    """Figures, allowances, resolve and drain each get their answer; a second resolve says that it was done."""

    async def work(both: Linked) -> None:
        both.gate.unknown.add("req_9")
        order = Resolve("req_9", "ok", "provider_said", NO_USAGE, "provider", 5, 5)
        assert await both.link.resolve(order) is True
        assert await both.link.resolve(order) is False
        assert (await both.link.figures()).ready
        assert (await both.link.allowances()).allowances == ()
        await both.link.drain()

    with_link(tmp_path, work)


def test_projection_rests_while_balances_are_read_and_goes_on_after(tmp_path: Path) -> None:
    """The lock is free again whenever the link is idle, also after a cancellation."""

    async def work(both: Linked) -> None:
        await asyncio.to_thread(put_limit, both.parts.console, LIFETIME)
        assert await both.link.applied(1.0)
        assert not both.parts.projector.lock.locked()

    with_link(tmp_path, work)


def test_a_socket_path_longer_than_an_address_is_reached(tmp_path: Path) -> None:
    """Deep data folders work: an address holds about a hundred bytes, a path more."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    with parts(folder) as made:

        async def work() -> None:
            short = FakeGate(Path("/proc/self/fd") / str(handle) / "gate.sock")
            await short.listen()
            link = GateLink(
                str(folder / "gate.sock"), made.books, made.journal, made.projector, catalogue_of, made.clock
            )
            running = asyncio.create_task(link.run())
            async with asyncio.timeout(3):
                while not short.loads():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await short.hang_up()

        handle = os.open(folder, os.O_RDONLY)
        try:
            run(work())
        finally:
            os.close(handle)


class Counted:
    """Books that count how often they are asked."""

    def __init__(self, books: Any) -> None:
        self._books = books
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._books, name)


@pytest.mark.parametrize("each", [1, 120])
def test_the_books_are_asked_as_often_for_many_limits_as_for_few(tmp_path: Path, each: int) -> None:
    """One question for all balances, and none for single limits: fifty thousand are open within a start."""

    async def all_of_it() -> None:
        with parts(tmp_path) as made:
            for n in range(each):
                put_limit(made.console, OF_RESEARCH.model_copy(update={"select": {"project": f"project-{n}"}}))
                put_limit(
                    made.console, OF_RESEARCH.model_copy(update={"select": {"team": f"team-{n}"}, "each": ["user"]})
                )
            made.journal.add(
                opened(), *settled_call("req_1", who=WHO._replace(project="project-0", team="team-0", user="ann"))
            )
            made.project()
            both, books = Linked(made), Counted(made.books)
            both.link = GateLink(
                str(both.gate.path),
                books,
                made.journal,
                made.projector,
                catalogue_of,
                made.clock,
            )
            await both.gate.listen()
            running = asyncio.create_task(both.link.run())
            await both.until(lambda: bool(both.gate.openings()))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await both.gate.hang_up()
            opening = both.gate.openings()[0]
            assert len(opening.limits) == 2 * each
            assert sorted(balance.subject for balance in opening.balances) == [(), ("ann",)]
            # Balances are summed while the rest is read, so that the order of the two says nothing.
            asked = Counter(books.asked)
            assert (asked["balances_of"], asked["open_reservations"], asked["balances"], asked["get"]) == (1, 1, 0, 0)
            # Each list is read to its end: a page, and one that says that there are no more. And each kind of payer is
            # asked for those that are stopped or restrict their keys, of which there are none.
            assert asked["listing"] + asked["columns"] <= 20

    run(all_of_it())


def test_balances_that_were_summed_too_early_are_summed_again(tmp_path: Path) -> None:
    """A gate's journal that moves while it is loaded: it is opened as of where it was after the load."""

    async def all_of_it() -> None:
        with parts(tmp_path) as made:
            put_limit(made.console, LIFETIME)
            made.journal.add(opened(), *settled_call("req_1", cost=1_000), *settled_call("req_2", cost=20))
            both = Linked(made)
            both.gate.position = lambda: 50 if both.gate.loads() else 30
            await both.gate.listen()
            running = asyncio.create_task(both.link.run())
            await both.until(lambda: bool(both.gate.openings()))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await both.gate.hang_up()
            (opening,) = both.gate.openings()
            assert (opening.position, [balance.posted for balance in opening.balances]) == (50, [1_020])

    run(all_of_it())


def test_a_gate_that_works_already_is_opened_only_what_it_lacks(tmp_path: Path) -> None:
    """A console that comes back sends everything, and no balances of limits that the gate has counted on."""

    def before(made: Parts) -> None:
        put_limit(made.console, LIFETIME)

    async def work(both: Linked) -> None:
        both.gate.figures = Figures(True, False, 1, 0, 0, 7, 0, 0, 0, 0, 0)
        running, made = both.gate.connections, both.parts
        again = GateLink(str(both.gate.path), made.books, made.journal, made.projector, catalogue_of, made.clock)
        task = asyncio.create_task(again.run())
        await both.until(lambda: again.connected)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert both.gate.connections == running + 1
        assert [load.full for load in both.gate.loads()] == [True, False, True]
        assert both.gate.openings()[1] == Opening(0, (), (), first=True)

    with_link(tmp_path, work, before)
