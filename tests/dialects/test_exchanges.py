"""Every operation has a request and an answer after its provider's page, and every stream a transcript."""

import pytest

from dialects import test_media_streams, test_native_streams, test_streams
from dialects.exchanges import EXCHANGES, Exchange
from faregate.core.amounts import posted_amounts
from faregate.core.call import Call
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS
from faregate.dialects.operations import BY_NAME
from faregate.proxy.bound import upper_bound

#: What is read beyond a body is bounded by the model's window.
CONTEXT_TOKENS = 200_000

#: Every unit at a price of its own.
CARD = RateCard(
    "p", "m", "p/m@test", (Tier(0, tuple(Rate(unit, 7_919 * n, 1) for n, unit in enumerate(PRICED_UNITS, 1))),)
)


def call_of(exchange: Exchange) -> Call:
    call = DIALECTS[exchange.operation].read(exchange.request, exchange.path_model)
    assert isinstance(call, Call), call
    return call


def streamed() -> set[str]:
    """Operations with a transcript of a stream; each is split at every byte by the tests beside it."""
    native = {"messages" if name.startswith("anthropic") else "gemini.stream" for name in test_native_streams.EXPECTED}
    media = {stream.operation for stream in test_media_streams.STREAMS.values()}
    return native | media | {expected.operation for expected in test_streams.EXPECTED.values()}


#: Their reader is that of all images, but no provider streams them.
NEVER_STREAMED = {"images.variations"}

#: A body that asks for a stream, as its format has it.
ASKS = (b'"stream":true,', b'"stream_format":"sse",')


def can_stream(exchange: Exchange) -> bool:
    """Whether the request is one for a stream when it asks for that."""
    read = DIALECTS[exchange.operation].read
    if exchange.request.startswith(b"--"):
        line, _, rest = exchange.request.partition(b"\r\n")
        asked = [line + b'\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n' + line + b"\r\n" + rest]
    else:
        at = exchange.request.index(b"{") + 1
        asked = [exchange.request[:at] + member + exchange.request[at:] for member in ASKS]
    calls = [read(body, exchange.path_model) for body in asked]
    return any(isinstance(call, Call) and call.stream for call in calls)


#: What costs nothing has no usage that could be told, and a session on a socket has no body (``test_realtime``).
BILLED = [name for name, dialect in DIALECTS.items() if not BY_NAME[name].free and dialect.media != "none"]


@pytest.mark.parametrize("operation", BILLED)
def test_every_operation_has_its_transcripts(operation: str) -> None:
    """An operation that somebody adds comes with a whole answer, and where it streams with a stream."""
    whole = [exchange for exchange in EXCHANGES.values() if exchange.operation == operation]
    if operation != "gemini.stream":
        assert whole, f"tests/dialects/exchanges.py has no exchange of {operation}"
    if operation not in NEVER_STREAMED and (not whole or any(can_stream(exchange) for exchange in whole)):
        assert operation in streamed(), f"no transcript of a stream of {operation}"


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_documented_answer_is_understood_whole(name: str) -> None:
    """Every leaf, model, id and tier is read, and nothing in it is unknown, so that no alarm is false."""
    exchange = EXCHANGES[name]
    assert exchange.page
    assert DIALECTS[exchange.operation].usage_of(exchange.answer) == exchange.report


@pytest.mark.parametrize("name", [name for name, exchange in EXCHANGES.items() if not exchange.report.pending])
def test_a_documented_answer_costs_no_more_than_was_held(name: str) -> None:
    """The request's bound is no less than what its answer is billed, whatever the prices of the units.

    What is only accepted is bounded by the lines of its file (``test_batches``).
    """
    exchange = EXCHANGES[name]
    call, tariff = call_of(exchange), Tariff(CARD)
    told = exchange.report.usage
    if told is None:
        counted = DIALECTS[exchange.operation].counted
        told = Usage(other=call.declared) if call.declared or counted is None else counted(exchange.answer, call)
    # A unit that is declared is billed once: by the answer where it says so.
    said = {measure.unit for measure in told.other}
    told = told._replace(other=tuple(sorted({*told.other, *(d for d in call.declared if d.unit not in said)})))
    read = CONTEXT_TOKENS * call.turns if call.whole_context else call.input_tokens_max
    held = upper_bound(call, tariff, read, call.output_cap or 4096)
    assert tariff.cost(told) <= held.usd
    assert all(used <= most for used, most in zip(posted_amounts(0, told), held, strict=True))


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_answer_cut_anywhere_is_never_more_than_it_says(name: str) -> None:
    """Any part of an answer is read without an error, and tells the whole usage or none."""
    exchange = EXCHANGES[name]
    usage_of, whole = DIALECTS[exchange.operation].usage_of, exchange.report.usage
    for end in range(min(len(exchange.answer), 2048)):
        told = usage_of(exchange.answer[:end]).usage
        assert told is None or told == whole, end


def test_the_exchanges_say_more_than_tokens() -> None:
    """Images, seconds, search units and cache writes of both lengths are among what is told and declared."""
    told = {measure.unit for each in EXCHANGES.values() if each.report.usage for measure in each.report.usage.other}
    assert told >= {"seconds", "search_units", "output_image_tokens", "input_image_tokens", "cache_write_1h_tokens"}
    declared = {measure for each in EXCHANGES.values() for measure in call_of(each).declared}
    assert declared >= {Measure("images", "1024x1024", 2), Measure("seconds", "", 9), Measure("characters", "", 18)}
