"""What the gate does when its journal waits for the disk, is full, or falls behind."""

import asyncio
from pathlib import Path

from fakes import JournalAround
from faregate.control import AskFigures, Figures, Load, Projected
from faregate.core.ledger.events import Event, Intended, Refused, Settled
from faregate.errors import StorageFull
from faregate.journal.append import FileJournal
from gates import allowances, key, money, running_gate, scenario, secret, steered, truth


class Brimming(JournalAround):
    """A real journal on a disk that is full whenever the test says so."""

    refuses: tuple[type, ...] = ()

    def append(self, event: Event) -> int:
        """As the real one, unless the disk is said to be full."""
        if isinstance(event, self.refuses):
            raise StorageFull("the disk of the journal is full")
        return super().append(event)


@scenario
async def test_power_durability_waits_for_the_disk_and_answers(tmp_path: Path) -> None:
    """Plain calls and streams pass, each record on stable storage before its bytes."""
    async with running_gate(tmp_path, limits=(money(10**10),), durability="power") as running:
        journal = running.gate.journal
        assert isinstance(journal, FileJournal)
        answers = await asyncio.gather(*(running.chat(stream=n % 2 == 0) for n in range(12)))
        durable = journal.durable

        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.text.endswith(("[DONE]\n\n", "}")) for answer in answers)
        assert durable == journal.position
        assert (await allowances(running))["lim_money"][1] == 0


@scenario
async def test_a_full_disk_admits_nothing_and_heals(tmp_path: Path) -> None:
    """Without room for an intent nothing is sent; with room again calls pass, and nothing stays held."""
    async with running_gate(tmp_path, limits=(money(10**10),), journal_kind=Brimming) as running:
        journal = running.gate.journal
        assert isinstance(journal, Brimming)
        journal.refuses = (Intended,)
        full = await running.chat()
        journal.refuses = ()
        await running.until(lambda: running.gate.closed_for is None)
        healed = await running.chat()

        assert (full.status_code, full.json()["error"]["code"]) == (503, "storage_full")
        assert full.headers["retry-after"] == "5"
        assert healed.status_code == 200
        assert len(await truth(running)) == 1
        assert (await allowances(running))["lim_money"][1] == 0


@scenario
async def test_a_settlement_that_finds_no_room_is_written_later(tmp_path: Path) -> None:
    """The caller gets its answer, the money stays held until the record is written, and no call is admitted before."""
    async with running_gate(tmp_path, limits=(money(10**10),), journal_kind=Brimming) as running:
        journal = running.gate.journal
        assert isinstance(journal, Brimming)
        journal.refuses = (Settled, Refused)
        answer = await running.chat()
        held = (await allowances(running))["lim_money"][1]
        refused = await running.chat()
        journal.refuses = ()
        await running.until(lambda: len(running.of(Settled)) == 1)
        cost = running.of(Settled)[0].cost

        assert answer.status_code == 200
        assert held > 0
        assert refused.status_code == 503
        assert await allowances(running) == {"lim_money": (cost, 0)}


@scenario
async def test_a_backlog_of_the_books_stops_admission(tmp_path: Path) -> None:
    """While the books lag too far behind, calls are refused; when they catch up, calls pass."""
    async with running_gate(tmp_path, journal_backlog_max=1_000) as running:
        while running.gate.closed_for is None:
            await running.chat()
        refused = await running.chat()
        await running.ask(Projected(running.gate.journal.position))
        await running.until(lambda: running.gate.closed_for is None)
        after = await running.chat()

        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert after.status_code == 200


@scenario
async def test_without_the_books_only_so_many_dollars_are_spent(tmp_path: Path) -> None:
    """Failing open has a hard end of its own, is told, and ends when the books are back."""
    async with running_gate(tmp_path, journal_backlog_max=1_000, fail_open_nanos=300_000) as running:
        while not running.gate.failing_open:
            await running.chat()
            running.gate.judge()
        codes = []
        while 429 not in codes:
            answer = await running.chat()
            codes.append(answer.status_code)
        spent = [event.charge for event in running.of(Settled)][-codes.count(200) :]
        refused = answer.json()["error"]
        figures = await running.ask(AskFigures())
        await running.ask(Projected(running.gate.journal.position))
        await running.until(lambda: not running.gate.failing_open)
        after = await running.chat()

        assert 200 in codes
        assert sum(spent) <= 300_000
        assert (refused["code"], refused["faregate"]["limit"]) == ("budget_exhausted", "lim_fail_open")
        assert isinstance(figures, Figures)
        assert figures.failing_open
        assert after.status_code == 200


@scenario
async def test_a_console_that_comes_back_before_the_books_have_followed_lifts_no_bound(tmp_path: Path) -> None:
    """It sends everything it knows, and knows nothing of the dollars that may be spent meanwhile."""
    async with running_gate(tmp_path, journal_backlog_max=1_000, fail_open_nanos=300_000) as running:
        while not running.gate.failing_open:
            await running.chat()
            running.gate.judge()
        spent = running.gate.allowances.views(0, ["lim_fail_open"])
        before = [(view.posted, view.amount) for view in spent]
        snapshot = running.gate.snapshot
        keys = tuple(snapshot.keys.values())
        await running.ask(Load(snapshot.sequence + 1, full=True, keys=keys, catalogue=snapshot.catalogue))
        after = [(view.posted, view.amount) for view in running.gate.allowances.views(0, ["lim_fail_open"])]
        answer = await running.chat()
        for _ in range(50):
            if answer.status_code == 429:
                break
            answer = await running.chat()

        assert after == before
        assert answer.json()["error"]["faregate"]["limit"] == "lim_fail_open"


@scenario
async def test_an_idempotency_key_outlives_the_process(tmp_path: Path) -> None:
    """After a restart the kept answer is replayed, and a call that was cut off is never sent again."""
    headers = {"idempotency-key": "order-9"}
    cut = {"idempotency-key": "order-10"}
    async with running_gate(tmp_path) as running:
        first = await running.chat(headers=headers)
        slow = asyncio.create_task(running.chat(steered(first_delay_ms=5_000), headers=cut))
        await running.until(lambda: running.gate.open_answers == 1)
        # The store's files are what a crash leaves: the answer of the second call never came.
        copy = tmp_path / "crashed"
        copy.mkdir()
        for file in (tmp_path / "answers").iterdir():
            (copy / "answers").mkdir(exist_ok=True)
            (copy / "answers" / file.name).write_bytes(file.read_bytes())
        slow.cancel()
    async with running_gate(copy, keys=(key(),)) as running:
        again = await running.chat(headers=headers)
        never = await running.chat(steered(first_delay_ms=5_000), headers=cut)

        assert again.content == first.content
        assert (never.status_code, never.json()["error"]["code"]) == (409, "idem_completed")
        assert await truth(running) == []
        assert secret("caller") not in str(list(copy.rglob("*")))


class Broken(JournalAround):
    """A journal with a mistake in it."""

    mistaken = True

    def append(self, event: Event) -> int:
        """Fails as no journal should."""
        if self.mistaken and isinstance(event, Intended):
            raise ZeroDivisionError("secret text of a caller")
        return super().append(event)


@scenario
async def test_a_mistake_of_ours_ends_one_request_and_gives_back_its_hold(tmp_path: Path) -> None:
    """The caller learns that it was us and nothing else; the next request is served by the same process."""
    async with running_gate(tmp_path, limits=(money(10**10),), journal_kind=Broken) as running:
        first = await running.chat()
        journal = running.gate.journal
        assert isinstance(journal, Broken)
        journal.mistaken = False
        healthy = await running.chat()
        journal.mistaken = True
        again = await running.chat()

        assert [answer.status_code for answer in (first, healthy, again)] == [500, 200, 500]
        assert first.json()["error"]["code"] == "internal"
        assert "secret text" not in first.text
        assert (await allowances(running))["lim_money"] == (running.of(Settled)[0].cost, 0)


class Uncounted:
    """A tokenizer that fails."""

    def count(self, text: str, encoding: str) -> int:
        """Fails."""
        raise MemoryError(len(text), encoding)


@scenario
async def test_a_tokenizer_that_fails_leaves_no_call_open_or_free(tmp_path: Path) -> None:
    """A prompt's bound by length stands, and an answer is charged its input bound and a token for each character."""
    async with running_gate(tmp_path, limits=(money(10**10), money(10**5, id="lim_tight", selector={"run": "r"}))) as (
        running
    ):
        running.gate._counter = Uncounted()
        refused = await running.chat("word " * 200, headers={"x-faregate-run": "r"})
        answer = await running.chat(steered(fault="usage_missing", output_tokens=5))
        settled, held = running.of(Settled)[0], running.of(Intended)[0].held
        text = answer.json()["choices"][0]["message"]["content"]

        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exhausted")
        assert answer.status_code == 200
        assert settled.usage_source == "estimate"
        assert settled.usage.input_tokens == held.input_tokens
        assert settled.usage.output_tokens == min(len(text), held.output_tokens)
        assert (await allowances(running))["lim_money"] == (settled.cost, 0)
