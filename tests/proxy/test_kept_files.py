"""Files and batches at the gate: uploads are read line by line, and a batch of them holds the sum of its lines."""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from faregate.catalogue.model_facts import BATCHES, FILES
from faregate.control import Load, Route
from faregate.core.ledger.events import Intended, Lost, Refused, Settled
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.proxy.exchange import Exchange
from gates import (
    CARD,
    RunningGate,
    allowances,
    deployment,
    key,
    money,
    provider,
    running_gate,
    scenario,
    secret,
    steered,
)

FREE = RateCard("sim", "", "free@1", (Tier(0, ()),))
#: Half the standard prices.
HALF = (Rate("input_tokens", 500_000_000_000, 10**6), Rate("output_tokens", 1_000_000_000_000, 10**6))
BATCH = CARD._replace(service_tier="batch", version="sim/sim-1/batch@test", tiers=(Tier(0, HALF),))
KEYS = (key("caller"), key("stranger", team="other"))
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def gate(folder: Path, **more: Any) -> AsyncIterator[RunningGate]:
    """A gate with one model, called ``ours`` here and ``sim-1`` there, and a place for files."""
    cards = more.pop("cards", (CARD, BATCH))
    places = [
        deployment(cards=cards, operations=("chat.completions", "responses")),
        deployment("sim", model="", upstream_model="", cards=(FREE,), operations=(*FILES, *BATCHES)),
    ]
    routes = (Route("ours", ("sim/sim-1",)), Route("", ("sim",)))
    async with running_gate(folder, **{"keys": KEYS, "deployments": places, "routes": routes, **more}) as running:
        yield running


def lines(count: int = 3, *, model: str = "ours", **body: Any) -> bytes:
    content = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": steered(output_tokens=7)}]}
    return b"".join(
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": {**content, **body}}).encode()
        + b"\n"
        for n in range(count)
    )


async def upload(running: RunningGate, content: bytes, purpose: str = "batch", name: str = "caller") -> httpx2.Response:
    return await running.client.post(
        "/v1/files",
        data={"purpose": purpose},
        files={"file": ("calls.jsonl", content)},
        headers={"authorization": f"Bearer {secret(name)}"},
    )


async def call(running: RunningGate, method: str, path: str, body: Any = None, name: str = "caller") -> httpx2.Response:
    headers = {"authorization": f"Bearer {secret(name)}"}
    return await running.client.request(method, path, json=body, headers=headers)


async def batch(running: RunningGate, file: str, name: str = "caller") -> httpx2.Response:
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    return await call(running, "POST", "/v1/batches", body, name)


@scenario
async def test_a_batch_holds_the_sum_of_its_lines_at_the_batch_tier(tmp_path: Path) -> None:
    """Each line at its bound, half price, and nothing for the upload; the provider reads its own name of the model."""
    async with gate(tmp_path, limits=(money(10**9),)) as running:
        made = await upload(running, lines(3))
        assert (made.status_code, made.headers["x-faregate-cost"]) == (200, "0")
        content = await call(running, "GET", f"/v1/files/{made.json()['id']}/content")
        assert [json.loads(line)["body"]["model"] for line in content.text.splitlines()] == ["sim-1"] * 3
        accepted = await batch(running, made.json()["id"])
        assert accepted.status_code == 200
        intent, (lost,) = running.of(Intended)[-1], running.of(Lost)
        assert (intent.price_version, lost.awaited.object_id) == (BATCH.version, accepted.json()["id"])
        assert intent.held.output_tokens == 3 * 50
        # Each line is rounded up for itself.
        assert intent.held.usd == intent.held.input_tokens * 500 + 150 * 1_000 + 2
        assert (await allowances(running))["lim_money"] == (0, intent.held.usd)
        assert {event.cost for event in running.of(Settled)} == {0}


@scenario
async def test_without_a_batch_price_the_standard_one_holds(tmp_path: Path) -> None:
    """No price of its own makes it no cheaper."""
    async with gate(tmp_path, cards=(CARD,)) as running:
        made = await upload(running, lines(1))
        assert (await batch(running, made.json()["id"])).status_code == 200
        intent = running.of(Intended)[-1]
        assert (intent.price_version, intent.held.usd) == (CARD.version, intent.held.input_tokens * 1_000 + 50 * 2_000)


@scenario
async def test_a_price_for_each_call_is_held_for_each_line(tmp_path: Path) -> None:
    """What a call costs by itself, a batch of many costs as often."""
    per_call = BATCH._replace(tiers=(Tier(0, (*HALF, Rate("requests", 1_000_000_000, 1))),))
    async with gate(tmp_path, cards=(CARD, per_call)) as running:
        made = await upload(running, lines(5))
        assert (await batch(running, made.json()["id"])).status_code == 200
        held = running.of(Intended)[-1].held
        assert held.usd == held.input_tokens * 500 + 250 * 1_000 + 5 * 1_000_000 + 4


@scenario
async def test_a_batch_over_a_limit_is_not_sent(tmp_path: Path) -> None:
    """Its worst case decides before the provider hears of it."""
    async with gate(tmp_path, limits=(money(300_000),)) as running:
        made = await upload(running, lines(9))
        refused = await batch(running, made.json()["id"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exhausted")
        assert len(running.of(Intended)) == 1
        few = await upload(running, lines(1))
        assert (await batch(running, few.json()["id"])).status_code == 200


@pytest.mark.parametrize("path", ["/v1/files/{file}", "/v1/files/{file}/content", "/v1/batches/{batch}"])
@scenario
async def test_files_and_batches_are_their_owners_alone(tmp_path: Path, path: str) -> None:
    """A stranger cannot look at them, cannot make a batch of them, and does not see them in a list."""
    async with gate(tmp_path) as running:
        file = (await upload(running, lines())).json()["id"]
        made = (await batch(running, file)).json()["id"]
        theirs = (await upload(running, lines(), name="stranger")).json()["id"]
        where = path.format(file=file, batch=made)
        assert (await call(running, "GET", where)).status_code == 200
        refused = await call(running, "GET", where, name="stranger")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "object_not_found")
        assert (await batch(running, file, "stranger")).status_code == 404
        mine = await call(running, "GET", "/v1/files?limit=50&purpose=batch")
        assert file in mine.text
        assert theirs not in mine.text
        listed = await call(running, "GET", "/v1/files", name="stranger")
        assert [each["id"] for each in listed.json()["data"]] == [theirs]
        assert (await call(running, "GET", "/v1/batches", name="stranger")).json()["data"] == []


@scenario
async def test_the_results_of_a_batch_belong_to_its_owner(tmp_path: Path) -> None:
    """They are named by a look at it, and cannot be deleted before the batch is settled."""
    async with gate(tmp_path) as running:
        made = (await batch(running, (await upload(running, lines())).json()["id"])).json()["id"]
        deadline = asyncio.get_running_loop().time() + 10
        while not (told := (await call(running, "GET", f"/v1/batches/{made}")).json()).get("output_file_id"):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        results = told["output_file_id"]
        answered = await call(running, "GET", f"/v1/files/{results}/content")
        assert len(answered.text.splitlines()) == 3
        assert (await call(running, "GET", f"/v1/files/{results}", name="stranger")).status_code == 404
        kept = await call(running, "DELETE", f"/v1/files/{results}")
        assert (kept.status_code, kept.json()["error"]["code"]) == (409, "object_in_use")


@scenario
async def test_a_large_file_is_read_off_the_loop(tmp_path: Path) -> None:
    """Thousands of lines are read and renamed while other calls are answered; a bad one among them is named."""
    async with gate(tmp_path) as running:
        content = lines(4_000)
        assert len(content) > 64 * 1024
        sent = asyncio.create_task(upload(running, content))
        chats = [await running.chat(model="ours") for _ in range(5)]
        assert {chat.status_code for chat in chats} == {200}
        made = await sent
        assert made.status_code == 200
        assert (await batch(running, made.json()["id"])).status_code == 200
        assert running.of(Intended)[-1].held.output_tokens == 4_000 * 50
        spoilt = content.replace(b'"custom_id": "line-3900"', b'"custom_id": "line-3899"')
        refused = await upload(running, spoilt)
        assert refused.status_code == 400
        assert "3901" in refused.json()["error"]["message"]


@scenario
async def test_a_client_that_leaves_while_its_file_is_read_leaves_nothing_held(tmp_path: Path) -> None:
    """Nothing is sent for nobody, and its hold is given back."""
    slots = money(5, id="lim_slots", unit="concurrency", window="")
    async with gate(tmp_path, limits=(slots,)) as running:
        sent = asyncio.create_task(upload(running, lines(4_000)))
        await running.until(lambda: running.gate.connections)
        await asyncio.sleep(0.02)
        sent.cancel()
        await asyncio.gather(sent, return_exceptions=True)
        assert (await upload(running, lines(1))).status_code == 200
        deadline = asyncio.get_running_loop().time() + 5
        while (await allowances(running))["lim_slots"] != (0, 0):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


@scenario
async def test_a_file_that_waits_to_be_read_is_let_go_with_its_client(tmp_path: Path) -> None:
    """The line before the reader may be long: no bytes stay in it for nobody, and such a call leaves no record."""

    def waiting() -> list[Exchange]:
        found = [each for each in gc.get_objects() if type(each) is Exchange]
        return [each for each in found if each.gate is running.gate and not each.ended]

    # What all tests before left in memory need not be looked through, again and again, while the gate waits.
    gc.freeze()
    async with gate(tmp_path) as running:
        go_on = threading.Event()
        running.gate.aside(go_on.wait, lambda _: None, lambda _: None)
        try:
            sent = asyncio.create_task(upload(running, lines(1_000)))
            await running.until(lambda: any(each.body for each in waiting()))
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)
            await running.until(lambda: not any(each.body for each in waiting()))
        finally:
            go_on.set()
        await running.until(lambda: not waiting())
        gc.unfreeze()
        assert not running.of(Intended)
        assert not running.of(Refused)


@pytest.mark.parametrize(("size", "status"), [(900_000, 200), (1_100_000, 413)])
@scenario
async def test_uploads_have_a_bound_of_their_own(tmp_path: Path, size: int, status: int) -> None:
    """A file may be larger than any other body, up to its own bound, whether it says its length or comes in chunks."""
    async with gate(tmp_path, body_bytes_max=100_000, upload_bytes_max=1_000_000) as running:
        content = b"x" * size
        assert (await upload(running, content, "user_data")).status_code == status
        form = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b\r\n'
        form += b'content-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + content + b"\r\n--b--\r\n"

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(form), 50_000):
                yield form[at : at + 50_000]

        headers = {"authorization": f"Bearer {secret('caller')}", "content-type": "multipart/form-data; boundary=b"}
        chunked = await running.client.post("/v1/files", content=pieces(), headers=headers)
        assert chunked.status_code == status
        other = await call(running, "POST", CHAT, {"model": "ours", "messages": [], "x": "y" * 200_000})
        assert other.status_code == 413


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"operations": ("files", "batches")}, "operation_forbidden"),
        ({"models": ("another",)}, "model_forbidden"),
    ],
)
@scenario
async def test_a_batch_is_no_way_around_a_keys_rights(tmp_path: Path, keys: dict[str, Any], code: str) -> None:
    """Who may not call a model, or an operation, may not do so line by line."""
    async with gate(tmp_path, keys=(*KEYS, key("small", **keys))) as running:
        file = (await upload(running, lines())).json()["id"]
        refused = await batch(running, file, "small")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, code)


@scenario
async def test_a_file_goes_to_the_provider_of_its_model(tmp_path: Path) -> None:
    """The lines decide; a file without lines goes to the first provider that keeps files."""
    async with gate(tmp_path) as outer:

        def place(name: str) -> Sequence[Any]:
            chat = deployment(f"{name}/sim-1", provider=name, operations=("chat.completions",), cards=(CARD, BATCH))
            kept = deployment(
                name, provider=name, model="", upstream_model="", cards=(FREE,), operations=(*FILES, *BATCHES)
            )
            return chat, kept

        providers = [provider(outer.simulator.url + "/v1", name=name) for name in ("one", "two")]
        routes = (Route("first", ("one/sim-1",)), Route("second", ("two/sim-1",)), Route("", ("one", "two")))
        places = (*place("one"), *place("two"))
        async with gate(tmp_path / "in", providers=providers, deployments=places, routes=routes) as running:
            second = await upload(running, lines(model="second"))
            assert second.headers["x-faregate-deployment"] == "two/sim-1"
            assert (await batch(running, second.json()["id"])).headers["x-faregate-deployment"] == "two/sim-1"
            assert (await upload(running, b"a book", "user_data")).headers["x-faregate-deployment"] == "one"
            assert (await upload(running, lines(model="third"))).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("count", [1, 4_000])
@scenario
async def test_a_form_is_read_as_its_header_says(tmp_path: Path, count: int) -> None:
    """By another boundary the provider would read other lines than were bounded here, in small files and large ones."""
    async with gate(tmp_path) as running:
        form = b'--a\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--a\r\n'
        form += b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + lines(count)
        headers = {"authorization": f"Bearer {secret('caller')}", "content-type": "multipart/form-data; boundary=b"}
        refused = await running.client.post("/v1/files", content=form + b"\r\n--a--\r\n", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "form_invalid")
        assert not running.of(Intended)


@scenario
async def test_a_batch_is_priced_as_the_deployment_that_its_file_was_uploaded_for(tmp_path: Path) -> None:
    """Its lines name that one's model: what its name leads to by now is another, or none."""
    async with gate(tmp_path) as running:
        file = (await upload(running, lines())).json()["id"]
        catalogue = running.gate.snapshot.catalogue
        free = CARD._replace(version="sim/cheap@test", tiers=(Tier(0, (Rate("requests", 0, 1),)),))
        cheap = deployment("sim/cheap", cards=(free,), operations=("chat.completions",))
        for routes in ((Route("ours", ("sim/cheap", "sim/sim-1")),), (Route("ours", ("sim/cheap",)),)):
            changed = msgspec.structs.replace(
                catalogue,
                deployments=(cheap, *(each for each in catalogue.deployments if each.name != "sim/cheap")),
                routes=(*routes, Route("", ("sim",))),
            )
            await running.ask(Load(running.gate.snapshot.sequence + 1, catalogue=changed))
            answer = await batch(running, file)
            if len(routes[0].to) == 2:
                assert answer.status_code == 200, answer.text
                assert running.of(Intended)[-1].who.deployment == "sim/sim-1"
                assert running.of(Intended)[-1].held.usd > 0
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "object_not_found")
