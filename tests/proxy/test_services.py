"""Any HTTP service behind the gate: what reaches it, what comes back, what it costs, and how every call ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.load import load_text
from faregate.control import Limit, Load, Route
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.usage import NO_USAGE, Usage
from gates import RunningGate, allowances, key, money, running_gate, scenario, secret
from little_service import LittleService, little_service

CANARY = "ck-service-CANARY-55"

#: A service with every kind of price; ``{port}`` and ``{more}`` are filled in.
EVERYTHING = """\
services:
  - name: ocr
    base_url: http://127.0.0.1:{port}/base
    api_key: {canary}
    api_key_header: x-key
    methods: [GET, POST, PUT, DELETE]
    max_duration: 2s
    max_answer_bytes: 1000000
    headers: [x-page]
    price:
      per_call: "0.00123"
      per_second: "0.0007"
      per_million_bytes_in: "0.11"
      per_million_bytes_out: "0.13"
      units: {{header: x-units, price: "0.017", per: 3, max: 50, name: pages}}
      compute: {{rate_per_hour: "3.7", memory_gb: "7.5", memory_gb_total: "64"}}
      flops: {{header: x-flops, price_per_teraflop: "0.0019", max: 9000000000000}}
{more}"""


def configured(text: str, service: LittleService, more: str = "") -> dict[str, Any]:
    """What a gate is started with for the services of a configuration."""
    content = text.format(port=service.port, canary=CANARY, more=more).encode()
    config = load_text(content, "faregate.yaml", {}, Path()).config
    compiled = compile_catalogue(declared(config, Path(), {}))
    assert compiled.problems == ()
    catalogue = compiled.catalogue
    return {
        "providers": catalogue.providers,
        "deployments": catalogue.deployments,
        "routes": (Route("none", ()),),
        "stages": catalogue.stages,
    }


class Rig:
    """A gate and the service behind it."""

    def __init__(self, running: RunningGate, service: LittleService) -> None:
        self.running = running
        self.service = service

    async def ask(self, path: str = "/services/ocr/do", method: str = "POST", **more: Any) -> httpx2.Response:
        """One call with the caller's key."""
        headers = {"authorization": f"Bearer {secret('caller')}"} | more.pop("headers", {})
        return await self.running.client.request(method, path, headers=headers, **more)

    async def settled(self, count: int = 1) -> list[Settled]:
        """The settlements, once there are so many."""
        await self.running.until(lambda: len(self.running.of(Settled)) >= count)
        found: list[Settled] = self.running.of(Settled)
        assert len(found) == count
        return found


@contextlib.asynccontextmanager
async def rig(folder: Path, text: str = EVERYTHING, more: str = "", **fields: Any) -> AsyncIterator[Rig]:
    """Run both for the block."""
    async with little_service() as service, running_gate(folder, **(configured(text, service, more) | fields)) as gate:
        yield Rig(gate, service)


def measured(usage: Usage, unit: str, variant: str = "") -> int:
    """How much of one unit a call used."""
    return sum(each.quantity for each in usage.other if (each.unit, each.variant) == (unit, variant))


def oracle(usage: Usage) -> int:
    """What a call of ``EVERYTHING`` costs in nano-dollars, from what its record says, as a person would compute it."""
    busy = Fraction(measured(usage, "busy_milliseconds"), 1000)
    dollars = Fraction("0.00123")
    dollars += busy * Fraction("0.0007")
    dollars += Fraction("0.11") * measured(usage, "bytes", "in") / 10**6
    dollars += Fraction("0.13") * measured(usage, "bytes", "out") / 10**6
    dollars += Fraction("0.017") * measured(usage, "units", "pages") / 3
    dollars += busy / 3600 * Fraction("3.7") * Fraction("7.5") / 64
    dollars += Fraction("0.0019") * measured(usage, "gigaflops") / 1000
    return round(dollars * 10**9)


# -- prices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, 40])
@scenario
async def test_every_kind_of_price_is_exact(tmp_path: Path, wait: int) -> None:
    """Calls, time, bytes, units, compute and operations: charge and header are the oracle's to the nano-dollar."""
    async with rig(tmp_path, limits=(money(10**10),)) as here:
        answer = await here.ask(f"/services/ocr/do?units=7&flops=1234567890123&size=321&wait={wait}", content=b"b" * 77)
        (end,) = await here.settled()
        usage = end.usage
        assert (answer.status_code, answer.content) == (200, b"x" * 321)
        assert (measured(usage, "bytes", "in"), measured(usage, "bytes", "out")) == (77, 321)
        assert (measured(usage, "units", "pages"), measured(usage, "gigaflops")) == (7, 1235)
        busy = measured(usage, "busy_milliseconds")
        assert wait <= busy <= 2000
        assert busy * 1000 <= end.attempts[0].duration_us + 1000
        assert measured(usage, "seconds") == -(-busy // 1000)
        assert (end.status, end.usage_source, end.cost, end.charge) == ("ok", "provider", oracle(usage), oracle(usage))
        assert Fraction(answer.headers["x-faregate-cost"]) * 10**9 == end.charge
        assert await allowances(here.running) == {"lim_money": (end.charge, 0)}


@scenario
async def test_the_hold_is_the_most_that_the_call_may_cost(tmp_path: Path) -> None:
    """The bound of a call is the price of all its maximums, and who it is charged to has the service's name."""
    async with rig(tmp_path) as here:
        await here.ask(content=b"b" * 10)
        await here.settled()
        (intent,) = here.running.of(Intended)
        dollars = Fraction("0.00123") + 2 * Fraction("0.0007") + Fraction("0.11") * 10 / 10**6 + Fraction("0.13")
        dollars += Fraction("0.017") * 50 / 3 + Fraction("3.7") * Fraction("7.5") / 64 * 2 / 3600
        dollars += 9 * Fraction("0.0019")
        assert intent.held.usd == -(-dollars * 10**9 // 1)
        assert (intent.held.requests, intent.held.concurrency, intent.held.seconds) == (1, 1, 2)
        who = intent.who
        assert (who.service, who.model, who.deployment, who.provider) == ("ocr",) * 4


@pytest.mark.parametrize("told", ["", "units=51&flops=1", "units=-1&flops=1", "units=1.5&flops=1", "units=9e9&flops=1"])
@scenario
async def test_units_that_nobody_can_believe_are_the_maximum(tmp_path: Path, told: str) -> None:
    """A header that is missing or absurd is billed at the configured maximum, within the hold, and flagged."""
    async with rig(tmp_path) as here:
        await here.ask(f"/services/ocr/do?{told}")
        (end,), (intent,) = await here.settled(), here.running.of(Intended)
        assert measured(end.usage, "units", "pages") == 50
        assert (end.usage_source, end.cost, end.overrun) == ("provider_invalid", oracle(end.usage), 0)
        assert end.charge <= intent.held.usd


@scenario
async def test_a_service_without_units_is_counted_by_the_gate(tmp_path: Path) -> None:
    """A price per call alone: nothing has to be told, and time and bytes are in the record at no price."""
    text = EVERYTHING[: EVERYTHING.index("      per_second")]
    async with rig(tmp_path, text) as here:
        answer = await here.ask("/services/ocr/do?size=9", "GET")
        (end,) = await here.settled()
        assert (end.usage_source, end.cost, answer.headers["x-faregate-cost"]) == ("counted", 1_230_000, "0.00123")
        assert measured(end.usage, "bytes", "out") == 9


# -- limits ------------------------------------------------------------------------------------------------------------


@scenario
async def test_hard_limits_hold_for_services(tmp_path: Path) -> None:
    """Money, calls and slots: a call that may pass one of them is refused before the service hears of it."""
    limits = (
        money(10**10, selector={"service": "ocr"}),
        Limit("lim_n", {"model": "ocr"}, (), "requests", 2, "lifetime"),
    )
    async with rig(tmp_path, limits=limits) as here:
        answers = [await here.ask() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert len(here.service.seen) == 2
        await here.running.until(lambda: here.running.of(Refused))
        (refused,) = here.running.of(Refused)
        assert (refused.limit, refused.who.service) == ("lim_n", "ocr")


@scenario
async def test_a_limit_without_room_for_the_most_refuses(tmp_path: Path) -> None:
    """One nano-dollar less than the bound is too little, whatever the call would really have cost."""
    async with rig(tmp_path) as here:
        await here.ask()
        await here.settled()
        bound = here.running.of(Intended)[0].held.usd
    for amount, status in ((bound, 200), (bound - 1, 429)):
        async with rig(tmp_path / str(status), limits=(money(amount),)) as here:
            assert (await here.ask()).status_code == status


@scenario
async def test_calls_at_once_are_bounded(tmp_path: Path) -> None:
    """A slot is taken while the service works and comes back when it is done."""
    limits = (Limit("lim_c", {"service": "ocr"}, (), "concurrency", 1, ""),)
    async with rig(tmp_path, limits=limits) as here:
        first = asyncio.create_task(here.ask("/services/ocr/do?wait=300"))
        await here.running.until(lambda: here.service.begun)
        second = await here.ask()
        assert (second.status_code, second.json()["error"]["code"]) == (429, "concurrency_limited")
        assert (await first).status_code == 200
        assert (await here.ask()).status_code == 200


@scenario
async def test_seconds_are_a_unit_of_limits(tmp_path: Path) -> None:
    """The longest duration is held and started seconds are posted."""
    limits = (Limit("lim_s", {"service": "ocr"}, (), "seconds", 3, "lifetime"),)
    async with rig(tmp_path, limits=limits) as here:
        answers = [await here.ask() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert await allowances(here.running) == {"lim_s": (2, 0)}


# -- bytes -------------------------------------------------------------------------------------------------------------


@scenario
async def test_methods_paths_queries_and_bodies_pass_as_they_came(tmp_path: Path) -> None:
    """Any bytes, any media type, the query untouched but for the caller's credential."""
    body = bytes(range(256)) * 1000
    async with rig(tmp_path) as here:
        put = await here.ask("/services/ocr/a%20b/c~d;v=1?q=%2F..%2F&q=2&x", "PUT", content=body)
        got = await here.running.client.get(
            f"/services/ocr/z?a=1&subscription-key={secret('caller')}&b=%26", headers={"content-type": "image/png"}
        )
        bare = await here.ask("/services/ocr", "DELETE")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield body

        streamed = await here.ask("/services/ocr/up", content=pieces())
        assert streamed.content == body * 3
        assert (put.content, got.status_code, bare.status_code) == (body, 200, 200)
        targets = [(seen.method, seen.target) for seen in here.service.seen]
        assert targets == [
            ("PUT", "/base/a%20b/c~d;v=1?q=%2F..%2F&q=2&x"),
            ("GET", "/base/z?a=1&b=%26"),
            ("DELETE", "/base"),
            ("POST", "/base/up"),
        ]
        assert here.service.seen[0].body == body
        assert here.service.seen[1].values("content-length") == []


@scenario
async def test_only_named_headers_pass(tmp_path: Path) -> None:
    """Neither credentials, cookies, addresses nor what is about one connection reaches the service or the caller."""
    sent = {
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "x-faregate-tags": "a=b",
        "x-page": "7",
        "x-other": "no",
        "if-none-match": '"e"',
        "connection": "keep-alive, accept-language",
        "accept-language": "de",
        "te": "trailers",
        "content-type": "text/x-own",
        "accept-encoding": "gzip",
    }
    async with rig(tmp_path) as here:
        answer = await here.ask("/services/ocr/do?set=set-cookie&type=text/y", headers=sent, content=b"1")
        (seen,) = here.service.seen
        told = dict(seen.headers)
        assert (told["x-page"], told["content-type"], told["if-none-match"]) == ("7", "text/x-own", '"e"')
        assert (told["x-key"], told["accept-encoding"], told["via"]) == (CANARY, "identity", "1.1 faregate")
        assert told["host"] == f"127.0.0.1:{here.service.port}"
        assert told["x-client-request-id"] == answer.headers["x-faregate-request-id"]
        kept = {"cookie", "x-forwarded-for", "x-faregate-tags", "x-other", "accept-language", "te", "authorization"}
        assert kept.isdisjoint(told)
        assert secret("caller") not in str(here.service.seen)
        assert (answer.headers["content-type"], answer.headers["etag"]) == ("text/y", '"e"')
        assert {"set-cookie", "server"}.isdisjoint(answer.headers)
        assert answer.headers["x-faregate-model"] == answer.headers["x-faregate-deployment"] == "ocr"


@pytest.mark.parametrize("pieces", [0, 1, 7, 40])
@scenario
async def test_the_credential_is_masked_in_answers(tmp_path: Path, pieces: int) -> None:
    """A service that repeats what it was sent cannot give its credential away, however it cuts its answer."""
    async with rig(tmp_path) as here:
        answer = await here.ask(f"/services/ocr/do?say=secret&size=10&pieces={pieces}&type={CANARY}&gap=2")
        assert answer.content == b"x" * 10 + b"secret***"
        assert answer.headers["content-type"] == "***"
        (end,) = await here.settled()
        assert measured(end.usage, "bytes", "out") == 16 + len(CANARY)


@scenario
async def test_a_stream_passes_as_it_comes(tmp_path: Path) -> None:
    """Pieces reach the caller while the service still works, and the whole costs what it took."""
    async with rig(tmp_path) as here:
        path = "/services/ocr/do?size=40&pieces=4&gap=120&units=2&flops=5"
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with here.running.client.stream("GET", path, headers=headers) as answer:
            came = [(piece, len(here.running.of(Settled))) async for piece in answer.aiter_raw()]
        assert b"".join(piece for piece, _ in came) == b"x" * 40
        assert [ended for _, ended in came[:-1]] == [0] * (len(came) - 1)
        assert len(came) == 4
        assert "x-faregate-cost" not in answer.headers
        (end,) = await here.settled()
        assert (end.status, end.cost, measured(end.usage, "units", "pages")) == ("ok", oracle(end.usage), 2)
        assert measured(end.usage, "busy_milliseconds") >= 480


@scenario
async def test_an_answer_that_is_too_large_to_be_held_passes(tmp_path: Path) -> None:
    """Beyond what is held whole it goes on in chunks, to the byte, and is settled at its end."""
    async with rig(tmp_path, held_body_bytes_max=1000) as here:
        answer = await here.ask("/services/ocr/do?size=900000")
        assert answer.content == b"x" * 900_000
        assert answer.headers["transfer-encoding"] == "chunked"
        (end,) = await here.settled()
        assert (end.cost, here.running.gate.held_bytes) == (oracle(end.usage), 0)


@pytest.mark.parametrize("status", [201, 204, 299, 304])
@scenario
async def test_good_answers_of_any_status_pass(tmp_path: Path, status: int) -> None:
    """Created, without content, not modified: each is told as it is, and costs."""
    async with rig(tmp_path) as here:
        answers = [await here.ask(f"/services/ocr/do?status={status}&units=1&flops=1") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [status] * 2
        assert all(end.status == "ok" and end.cost == oracle(end.usage) for end in await here.settled(2))


@scenario
async def test_the_same_idempotency_key_is_one_call(tmp_path: Path) -> None:
    """A repeated call is answered from what was kept; another method under the same key is a conflict."""
    async with rig(tmp_path) as here:
        name = {"idempotency-key": "once"}
        first = await here.ask("/services/ocr/do?size=5", headers=name)
        again = await here.ask("/services/ocr/do?size=5", headers=name)
        other = await here.ask("/services/ocr/do?size=5", "PUT", headers=name)
        assert (first.content, again.content, again.headers["idempotent-replayed"]) == (b"x" * 5, b"x" * 5, "true")
        assert (other.status_code, len(here.service.seen)) == (409, 1)


# -- ends that are not good --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bill", [False, True])
@pytest.mark.parametrize("status", [400, 503])
@scenario
async def test_an_error_passes_and_costs_what_the_configuration_says(tmp_path: Path, status: int, bill: bool) -> None:
    """Status and body are the service's; it costs nothing, or with bill_errors what ran, and units as far as told."""
    async with rig(tmp_path, more="    bill_errors: true\n" if bill else "", limits=(money(10**10),)) as here:
        answer = await here.ask(f"/services/ocr/do?status={status}&say=secret&wait=5")
        (end,) = await here.settled()
        assert (answer.status_code, answer.content) == (status, b"secret***")
        assert (end.status, end.http_status, end.code) == ("failed", status, "upstream_error")
        assert measured(end.usage, "units", "pages") == 0
        assert end.cost == (oracle(end.usage) if bill else 0)
        assert (end.usage == NO_USAGE) is not bill
        assert await allowances(here.running) == {"lim_money": (end.cost, 0)}


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/", "//evil.example/", "/base/other"])
@scenario
async def test_a_redirect_is_never_followed(tmp_path: Path, location: str) -> None:
    """It is an error of the service; where it points is nobody's business."""
    async with rig(tmp_path) as here:
        answer = await here.ask(f"/services/ocr/do?status=302&location={location}")
        (end,) = await here.settled()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
        assert "location" not in answer.headers
        assert (end.cost, len(here.service.seen)) == (0, 1)


@scenario
async def test_a_call_is_ended_at_its_maximum(tmp_path: Path) -> None:
    """A service that never answers is left in time, and costs its longest duration: what ran, and no units."""
    async with rig(tmp_path, EVERYTHING.replace("2s", "300ms"), limits=(money(10**10),)) as here:
        answer = await here.ask("/services/ocr/do?end=never", content=b"12")
        (end,) = await here.settled()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        assert "Charged: what ran." in answer.json()["error"]["message"]
        usage = end.usage
        assert (measured(usage, "busy_milliseconds"), measured(usage, "units", "pages")) == (300, 0)
        assert (end.status, end.usage_source, end.cost, end.overrun) == ("failed", "counted", oracle(usage), 0)
        assert await allowances(here.running) == {"lim_money": (end.cost, 0)}


@scenario
async def test_a_stream_is_cut_at_its_maximum(tmp_path: Path) -> None:
    """What trickles for ever ends in time; what had come has passed and is billed with the whole duration."""
    async with rig(tmp_path, EVERYTHING.replace("2s", "400ms")) as here:
        with pytest.raises(httpx2.RemoteProtocolError):
            await here.ask("/services/ocr/do?size=100&pieces=100&gap=50&units=2&flops=1")
        (end,) = await here.settled()
        usage = end.usage
        assert (end.status, end.code, measured(usage, "busy_milliseconds")) == ("cut", "upstream_timeout", 400)
        assert (measured(usage, "units", "pages"), end.cost) == (2, oracle(usage))
        assert 1 <= measured(usage, "bytes", "out") < 20


@scenario
async def test_a_caller_may_ask_for_less_time(tmp_path: Path) -> None:
    """Its own bound ends the call sooner."""
    async with rig(tmp_path) as here:
        answer = await here.ask("/services/ocr/do?end=never", headers={"x-faregate-timeout": "200ms"})
        (end,) = await here.settled()
        assert answer.status_code == 504
        assert 200 <= measured(end.usage, "busy_milliseconds") < 2000
        # Else a short bound would be the way to free units.
        assert (measured(end.usage, "units", "pages"), end.usage_source, end.cost) == (
            50,
            "estimate",
            oracle(end.usage),
        )


@scenario
async def test_a_caller_that_left_pays_the_units_of_what_never_answered(tmp_path: Path) -> None:
    """The call is waited for until its maximum, and units that nobody knows count at theirs."""
    async with rig(tmp_path, EVERYTHING.replace("2s", "400ms")) as here:
        with pytest.raises(httpx2.ReadTimeout):
            await here.ask("/services/ocr/do?end=never", timeout=0.1)
        (end,) = await here.settled()
        assert (measured(end.usage, "units", "pages"), measured(end.usage, "busy_milliseconds")) == (50, 400)
        assert (end.code, end.usage_source, end.cost) == ("upstream_timeout", "estimate", oracle(end.usage))


@pytest.mark.parametrize("end", ["silent", "half_head", "reset"])
@scenario
async def test_no_answer_costs_nothing(tmp_path: Path, end: str) -> None:
    """A service that closes without an answer is told as such, and is not asked twice what must not be done twice."""
    async with rig(tmp_path) as here:
        assert (await here.ask("/services/ocr/do?units=1&flops=1")).status_code == 200
        answer = await here.ask(f"/services/ocr/do?end={end}")
        _, settled = await here.settled(2)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_truncated")
        assert (settled.cost, settled.usage, len(here.service.seen)) == (0, NO_USAGE, 2)


@pytest.mark.parametrize("pieces", [0, 4])
@scenario
async def test_an_answer_that_breaks_off_costs_what_ran(tmp_path: Path, pieces: int) -> None:
    """What had come is billed, time and units included, and the caller cannot take half for the whole."""
    async with rig(tmp_path) as here:
        path = f"/services/ocr/do?end=half_body&size=400&pieces={pieces}&units=4&flops=7&gap=20"
        if pieces:
            with pytest.raises(httpx2.RemoteProtocolError):
                await here.ask(path)
        else:
            assert (await here.ask(path)).json()["error"]["code"] == "upstream_truncated"
        (end,) = await here.settled()
        assert end.status == ("cut" if pieces else "failed")
        assert measured(end.usage, "bytes", "out") == 200
        assert (measured(end.usage, "units", "pages"), end.cost) == (4, oracle(end.usage))


@pytest.mark.parametrize("pieces", [0, 3])
@scenario
async def test_a_too_long_answer_is_cut(tmp_path: Path, pieces: int) -> None:
    """No more bytes are billed than the maximum, and the service's connection is closed."""
    async with rig(tmp_path, EVERYTHING.replace("1000000\n", "1000\n")) as here:
        path = f"/services/ocr/do?size=3000&pieces={pieces}&units=1&flops=1&gap=5"
        if pieces:
            # The piece that fits has passed; what follows is missed.
            with pytest.raises(httpx2.RemoteProtocolError):
                await here.ask(path)
        else:
            answer = await here.ask(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
        (end,) = await here.settled()
        assert (measured(end.usage, "bytes", "out"), end.cost) == (1000, oracle(end.usage))


@scenario
async def test_a_caller_that_leaves_a_stream_pays_what_ran(tmp_path: Path) -> None:
    """The service is stopped, and time and units so far are billed."""
    async with rig(tmp_path) as here:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        path = "/services/ocr/do?size=40&pieces=40&gap=50&units=3&flops=1"
        async with here.running.client.stream("GET", path, headers=headers) as answer:
            async for _ in answer.aiter_raw():
                break
        (end,) = await here.settled()
        assert (end.status, end.code, end.usage_source) == ("aborted", "client_gone", "provider")
        assert (measured(end.usage, "units", "pages"), end.cost) == (3, oracle(end.usage))
        assert measured(end.usage, "bytes", "out") < 40


@scenario
async def test_a_caller_that_leaves_before_the_answer_does_not_get_it_free(tmp_path: Path) -> None:
    """The answer is read to its end, and costs all of it."""
    async with rig(tmp_path) as here:
        with pytest.raises(httpx2.ReadTimeout):
            await here.ask("/services/ocr/do?wait=400&units=3&flops=1&size=8", timeout=0.1)
        (end,) = await here.settled()
        assert (end.status, measured(end.usage, "bytes", "out"), end.cost) == ("ok", 8, oracle(end.usage))


@scenario
async def test_what_is_not_drained_costs_the_most_that_was_not_told(tmp_path: Path) -> None:
    """Where no more answers may be read to their end, units that nobody knows count at their maximum."""
    async with rig(tmp_path, drains_max=1) as here:
        for _ in range(2):
            with pytest.raises(httpx2.ReadTimeout):
                await here.ask("/services/ocr/do?wait=600&units=3&flops=1", timeout=0.1)
        first, second = await here.settled(2)
        assert (first.status, first.usage_source, measured(first.usage, "units", "pages")) == (
            "aborted",
            "estimate",
            50,
        )
        assert (second.status, measured(second.usage, "units", "pages")) == ("ok", 3)
        assert (first.cost, second.cost) == (oracle(first.usage), oracle(second.usage))


@scenario
async def test_a_stop_of_the_gate_settles_what_ran(tmp_path: Path) -> None:
    """A call that is cut by the end of the gateway is on record with its time."""
    async with rig(tmp_path) as here:
        waiting = asyncio.create_task(here.ask("/services/ocr/do?end=never"))
        await here.running.until(lambda: here.service.begun)
        here.running.gate.drain()
        here.running.gate.drain()
        assert (await waiting).json()["error"]["code"] == "draining"
        (end,) = await here.settled()
        assert (end.usage_source, end.cost) == ("counted", oracle(end.usage))


@scenario
async def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    """Nothing was sent, nothing is held or charged."""
    async with rig(tmp_path, limits=(money(10**10),)) as here:
        await here.service.close()
        answer = await here.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")
        assert await allowances(here.running) == {"lim_money": (0, 0)}


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"credential": {}, "renewed": True}, 503, "credential_unavailable"),
        ({"reach": "public"}, 502, "upstream_connect"),
    ],
)
@scenario
async def test_a_service_that_must_not_be_called_is_not(
    tmp_path: Path, changed: dict[str, Any], status: int, code: str
) -> None:
    """Its credential is not there, or its address leads where it may not be: nothing is sent or charged."""
    async with little_service() as service:
        made = configured(EVERYTHING, service)
        made["providers"] = tuple(msgspec.structs.replace(each, **changed) for each in made["providers"])
        async with running_gate(tmp_path, **made) as gate:
            answer = await Rig(gate, service).ask()
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert gate.of(Intended) == []
        assert service.seen == []


# -- refusals ----------------------------------------------------------------------------------------------------------

HOSTILE = [
    "/services/ocr/../x",
    "/services/ocr/./x",
    "/services/ocr/a/..",
    "/services/ocr/..;/x",
    "/services/ocr/.;a=b/x",
    "/services/ocr/%2e%2e/x",
    "/services/ocr/%2E./x",
    "/services/ocr/a%2fb",
    "/services/ocr/a%5Cb",
    "/services/ocr/a%00b",
    "/services/ocr/a%0d%0ab",
    "/services/ocr/a%252e",
    "/services/ocr/a%3b/x",
    "/services/ocr/a%7f",
    "/services/ocr/%c0%ae%C0%AE/x",
    "/services/ocr/a%c0%afb",
    "/services/ocr/%e0%80%ae./x",
    "/services/ocr/%f0%80%80%ae/x",
    "/services/ocr/..%20/x",
    "/services/ocr/%zz",
    "/services/ocr/%",
    "/services/ocr//evil.example/x",
    "/services/ocr/a//b",
    "/services/ocr/a\\b",
    "/services/ocr/a|b",
    '/services/ocr/a"b',
    "/services/ocr/x?a#b",
]


@pytest.mark.parametrize("target", HOSTILE)
@scenario
async def test_paths_that_readers_disagree_about_are_refused(tmp_path: Path, target: str) -> None:
    """No dot segment, no escape of one, no second meaning of a path reaches a service."""
    async with rig(tmp_path) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.running.url.rpartition(":")[2]))
        head = f"GET {target} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {secret('caller')}\r\n\r\n"
        writer.write(head.encode())
        line = await reader.readline()
        writer.close()
        assert line.startswith(b"HTTP/1.1 400 "), line
        assert here.service.begun == 0


@scenario
async def test_what_is_not_offered_is_refused_by_name(tmp_path: Path) -> None:
    """Other services, methods and paths, and bodies that are too large, before the service hears of them."""
    more = "    paths: [/v1/ocr, /health/]\n    max_request_bytes: 100\n"
    refused = [
        ("GET", "/services/other/x", 404, "not_found"),
        ("PATCH", "/services/ocr/v1/ocr", 405, "method_not_allowed"),
        ("OPTIONS", "/services/ocr/v1/ocr", 405, "method_not_allowed"),
        ("GET", "/services/ocr/v1/ocrx", 404, "not_found"),
        ("GET", "/services/ocr/v1", 404, "not_found"),
        ("GET", "/services/ocr", 404, "not_found"),
        ("GET", "/services/ocr/V1/ocr", 404, "not_found"),
        ("GET", "/services/ocr/v1/%6fcr", 404, "not_found"),
    ]
    async with rig(tmp_path, more=more) as here:
        for method, path, status, code in refused:
            answer = await here.ask(path, method)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        large = await here.ask("/services/ocr/v1/ocr", content=b"b" * 101)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"b" * 50

        chunked = await here.ask("/services/ocr/v1/ocr", content=pieces())
        assert chunked.status_code == 413
        assert here.service.begun == 0
        assert here.running.of(Intended) == []
        for path in ("/services/ocr/v1/ocr", "/services/ocr/v1/ocr/deep", "/services/ocr/health/"):
            assert (await here.ask(path, content=b"b" * 100)).status_code == 200


@scenario
async def test_a_websocket_is_refused_by_name(tmp_path: Path) -> None:
    """Nothing could meter what passes after the upgrade."""
    async with rig(tmp_path) as here:
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-key": "x",
            "sec-websocket-version": "13",
        }
        answer = await here.ask("/services/ocr/do", "GET", headers=upgrade)
        assert answer.status_code in (400, 404)
        assert here.service.begun == 0


@scenario
async def test_without_a_key_nobody_learns_anything(tmp_path: Path) -> None:
    """A service that exists and one that does not answer strangers alike."""
    async with rig(tmp_path) as here:
        answers = [await here.running.client.get(f"/services/{name}/x") for name in ("ocr", "other")]
        assert [answer.json()["error"]["code"] for answer in answers] == ["auth_missing"] * 2
        assert here.service.begun == 0


@scenario
async def test_a_key_may_be_for_some_services_only(tmp_path: Path) -> None:
    """Operations and models of a key name services, too."""
    keys = (
        key(),
        key("chats", operations=("chat.completions",)),
        key("models", models=("gpt-4o",)),
        key("ocr", operations=("ocr",)),
    )
    async with rig(tmp_path, keys=keys) as here:
        codes = {}
        for name in ("chats", "models", "ocr"):
            answer = await here.ask(headers={"authorization": f"Bearer {secret(name)}"})
            codes[name] = answer.json()["error"]["code"] if answer.status_code != 200 else ""
        assert codes == {"chats": "operation_forbidden", "models": "model_forbidden", "ocr": ""}


@scenario
async def test_no_model_name_leads_to_a_service(tmp_path: Path) -> None:
    """A chat cannot be sent there, and the list of models does not show it."""
    async with rig(tmp_path) as here:
        chat = await here.running.chat(model="ocr")
        models = await here.ask("/v1/models", "GET")
        assert (chat.status_code, models.json()["data"], here.service.begun) == (404, [], 0)


@scenario
async def test_new_terms_hold_at_once(tmp_path: Path) -> None:
    """A changed configuration decides about the next call on the same connection."""
    async with rig(tmp_path) as here:
        assert (await here.ask()).status_code == 200
        fields = configured(EVERYTHING, here.service, "    paths: [/only]\n")
        old = here.running.gate.snapshot.catalogue
        catalogue = type(old)(fields["providers"], fields["deployments"], (), {}, ("search",))
        await here.running.ask(Load(2, catalogue=catalogue))
        assert (await here.ask()).status_code == 404
        assert (await here.ask("/services/ocr/only/x")).status_code == 200
