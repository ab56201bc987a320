"""How work ends that a provider accepted: what a look at its object says, over real sockets, and what that costs."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_parts import NOON, SECOND, WHO
from faregate.control import Provider, Unknown
from faregate.core.amounts import held_amounts
from faregate.core.ledger.events import Awaited
from faregate.core.metering.meter import Report
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import NO_USAGE, Usage
from faregate.dialects.kept import Outcome
from faregate.jobs.awaited_work import OBJECT_BYTES_MAX, ProviderWork, word_of
from faregate.jobs.resolve_unknowns import NoWord, Rules, Served, Untold, Word, decide, version_of

RATES = (Rate("input_tokens", 2_500_000_000_000, 10**6), Rate("output_tokens", 10**13, 10**6))
CARD = RateCard("openai", "gpt-4o", "v1", (Tier(0, RATES),))
LONG = RateCard("openai", "gpt-4o", "v1", (Tier(0, RATES), Tier(1_000, (Rate("input_tokens", 10**13, 10**6),))))
RULES = Rules(691_200 * SECOND, 691_200 * SECOND, "charge_estimate")
USAGE = Usage(input_text=300, output_text=100)


def unknown(service: str = "responses", **fields: Any) -> Unknown:
    """Work that was accepted at noon with a hold of five million nano-dollars."""
    awaited = fields.pop("awaited", Awaited("resp_1", (("flex", "v2"), ("priority", "v3"))))
    who = WHO._replace(service=service, provider="sim")
    held = held_amounts(5_000_000, 400, 200)
    return Unknown("req_1", who, held, NOON, NOON, "v1", "openai/gpt-4o", 0, 400, "", awaited)


# -- pure --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome(), NoWord()),
        (Outcome(report=Report(USAGE)), NoWord()),
        (Outcome(True, True, Report(USAGE, model="m", service_tier="flex")), Served(USAGE, True, True, "flex", "m")),
        (Outcome(True, False, Report(NO_USAGE)), Served(NO_USAGE, False)),
        (Outcome(True, True, Report(None, "negative"), characters=70), Untold(70)),
    ],
)
def test_only_an_end_is_a_word(outcome: Outcome, word: Word) -> None:
    """Work that runs says nothing of its cost; an end says it, or that it will never be known."""
    assert word_of(outcome, outcome.report) == word


@pytest.mark.parametrize(("tier", "version"), [("", "v1"), ("default", "v1"), ("flex", "v2"), ("priority", "v3")])
def test_the_tier_that_answered_has_its_price_of_admission(tier: str, version: str) -> None:
    """A tier without a price of its own has that of the hold."""
    assert version_of(unknown(), Served(USAGE, service_tier=tier)) == version


def test_another_tiers_card_is_told_to_the_gate() -> None:
    """The record names the card that it was priced with."""
    order = decide(unknown(), Served(USAGE), CARD._replace(version="v2"), RULES, NOON + SECOND)
    assert order is not None
    assert (order.price_version, order.status, order.cost) == ("v2", "ok", Tariff(CARD).cost(USAGE))


def test_an_end_without_figures_is_estimated_at_once() -> None:
    """Waiting would not make it known: the input's bound and what text came are charged, never above the hold."""
    order = decide(unknown(), Untold(35), CARD, RULES, NOON + SECOND)
    assert order is not None
    assert (order.usage.output_text, order.usage_source, order.resolution) == (10, "estimate", "charge_estimate")
    most = decide(unknown(), Untold(10**9), CARD, RULES, NOON + SECOND)
    assert most is not None
    assert most.charge == 5_000_000


def test_a_cost_that_no_books_can_hold_is_not_believed() -> None:
    """Fifty thousand lines, each of which reports as much as one call may, end by policy and stop no projector."""
    dear = CARD._replace(tiers=(Tier(0, (Rate("output_tokens", 600 * 10**12, 10**6),)),))
    absurd = Served(Usage(output_text=50_000 * 10**9))
    order = decide(unknown("batches"), absurd, dear, RULES, NOON + SECOND)
    assert order is not None
    assert (order.resolution, order.usage_source) == ("charge_estimate", "estimate")
    assert order.charge <= 5_000_000


@given(st.integers(0, 10**7))
def test_work_that_runs_is_held_until_its_time_is_over(seconds: int) -> None:
    """Nothing is charged while it may go on, and nothing is held for ever."""
    order = decide(unknown(), NoWord(), CARD, RULES, NOON + seconds * SECOND)
    assert (order is None) == (seconds <= 691_200)
    assert order is None or order.resolution == "charge_estimate"


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 500)), min_size=1, max_size=30))
def test_lines_are_priced_one_by_one_where_length_decides(lines: list[tuple[int, int]]) -> None:
    """A batch costs what its lines would, so that many short ones are no long one; with one price it is their sum."""
    usages = [Usage(input_text=asked, output_text=answered) for asked, answered in lines]
    total = Usage(sum(asked for asked, _ in lines), output_text=sum(answered for _, answered in lines))
    word = Served(total, lines=tuple((usage, 1) for usage in usages))
    order = decide(unknown("batches"), word, LONG, RULES, NOON + SECOND)
    assert order is not None
    assert order.cost == sum(Tariff(LONG).cost(usage) for usage in usages)
    plain = decide(unknown("batches"), word, CARD, RULES, NOON + SECOND)
    assert plain is not None
    assert plain.cost == Tariff(CARD).cost(total)


# -- over real sockets -------------------------------------------------------------------------------------------------


def response(status: str, usage: Any = None, **members: Any) -> bytes:
    told = {"id": "resp_1", "object": "response", "status": status, "usage": usage, "output": [], **members}
    return json.dumps(told).encode()


TOLD = {"input_tokens": 300, "output_tokens": 100, "total_tokens": 400}


def batch(status: str, **members: Any) -> bytes:
    return json.dumps({"id": "batch_1", "object": "batch", "status": status, **members}).encode()


async def word_at(
    answers: dict[str, tuple[int, bytes]], wanted: Unknown, kind: str = "openai"
) -> tuple[Word, list[str]]:
    """The word of a provider that answers these paths so, and what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                asked.append(head)
                status, body = answers.get(head.split(" ")[1], (404, b"{}"))
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{port}" + ("/v1" if kind == "openai" else "")
    work = ProviderWork(lambda: {"sim": Provider("sim", kind, base, {"authorization": "Bearer sk-provider"})})
    try:
        return await work.ask(wanted), asked
    finally:
        await work.close()
        server.close()


def ask(answers: dict[str, tuple[int, bytes]], wanted: Unknown, kind: str = "openai") -> tuple[Word, list[str]]:
    return asyncio.run(word_at(answers, wanted, kind))


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (200, response("completed", TOLD, service_tier="flex"), Served(USAGE, True, True, "flex")),
        (200, response("incomplete", TOLD), Served(USAGE)),
        (200, response("failed", TOLD), Served(USAGE, False)),
        (200, response("failed"), Served(NO_USAGE, False)),
        (200, response("cancelled"), Served(NO_USAGE, False)),
        (200, response("cancelled", TOLD), Served(USAGE, False)),
        (200, response("completed"), Untold(0)),
        (200, response("completed", {**TOLD, "total_tokens": 9}), Untold(0)),
        (200, response("queued"), NoWord()),
        (200, response("in_progress", TOLD), NoWord()),
        (200, response("resting", TOLD), NoWord()),
        (200, b"<html>", NoWord()),
        (200, b"", NoWord()),
        (404, response("completed", TOLD), NoWord()),
        (500, response("completed", TOLD), NoWord()),
        (302, b"", NoWord()),
        (200, b'{"status":"completed","x":"' + b" " * OBJECT_BYTES_MAX + b'"}', NoWord()),
    ],
    ids=range(17),
)
def test_a_response_is_looked_at(status: int, body: bytes, word: Word) -> None:
    """Only an end that can be believed is one; everything else is asked again later."""
    found, asked = ask({"/v1/responses/resp_1": (status, body)}, unknown())
    assert found == word
    assert len(asked) == 1
    assert "authorization: bearer sk-provider" in asked[0].lower()


def test_azure_is_asked_below_its_own_path() -> None:
    """Its objects lie below ``/openai/v1``."""
    found, _ = ask({"/openai/v1/responses/resp_1": (200, response("completed", TOLD))}, unknown(), "azure_openai")
    assert found == Served(USAGE)


def test_an_odd_id_stays_one_segment() -> None:
    """Whatever a provider calls its object, it cannot point anywhere else."""
    odd = unknown(awaited=Awaited("../files?x=/#"))
    _, asked = ask({}, odd)
    assert asked[0].startswith("GET /v1/responses/..%2Ffiles%3Fx%3D%2F%23 HTTP/1.1")


def line(custom_id: str, usage: Any, status: int = 200) -> bytes:
    answer = {"status_code": status, "request_id": "r", "body": {"id": "c", "model": "gpt-4o", "usage": usage}}
    return json.dumps({"id": custom_id, "custom_id": custom_id, "response": answer, "error": None}).encode() + b"\n"


def facts_of(ids: Sequence[str]) -> bytes:
    """The facts of a batch's file, as the gate keeps them."""
    from faregate.dialects import batch_lines

    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi."}]}
    url = "/v1/chat/completions"
    lines = b"\n".join(
        json.dumps({"custom_id": each, "method": "POST", "url": url, "body": body}).encode() for each in ids
    )
    read = batch_lines.read(lines, 0, len(lines), forbid_private_urls=True)
    assert isinstance(read, batch_lines.Understood)
    return batch_lines.packed(read.file)


def test_a_batch_is_added_up_from_its_files() -> None:
    """What its lines report is what it used; lines that failed used nothing."""
    told = {"prompt_tokens": 300, "completion_tokens": 50, "total_tokens": 350}
    output = line("a", told) + line("b", told) + line("c", None, 500)
    paths = {
        "/v1/batches/batch_1": (200, batch("completed", output_file_id="file-out")),
        "/v1/files/file-out/content": (200, output),
    }
    wanted = unknown("batches", awaited=Awaited("batch_1", (), facts_of("abc")))
    found, asked = ask(paths, wanted)
    assert isinstance(found, Served)
    assert found.usage == Usage(600, output_text=100)
    assert found.lines == ((Usage(300, output_text=50), 2),)
    assert len(asked) == 2


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_that_runs_is_no_word(status: str) -> None:
    """Its files are not fetched before it has ended."""
    paths = {"/v1/batches/batch_1": (200, batch(status, output_file_id="file-out"))}
    found, asked = ask(paths, unknown("batches", awaited=Awaited("batch_1", (), facts_of("a"))))
    assert (found, len(asked)) == (NoWord(), 1)


def test_a_batch_whose_file_cannot_be_had_is_asked_again() -> None:
    """The end is known and its cost is not: that is not nothing."""
    paths = {"/v1/batches/batch_1": (200, batch("completed", output_file_id="file-out"))}
    found, _ = ask(paths, unknown("batches", awaited=Awaited("batch_1", (), facts_of("a"))))
    assert found == NoWord()


def test_nobody_there_is_no_word() -> None:
    """A provider that is away, not declared, or of no such work keeps the money held."""

    async def run() -> list[Word]:
        gone = Provider("sim", "openai", "http://127.0.0.1:9", {})
        work = ProviderWork(lambda: {"sim": gone})
        try:
            return [
                await work.ask(unknown()),
                await work.ask(unknown("embeddings")),
                await ProviderWork(dict).ask(unknown()),
            ]
        finally:
            await work.close()

    assert asyncio.run(run()) == [NoWord()] * 3
