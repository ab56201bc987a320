"""What a provider keeps belongs to whoever made it; looks are free; accepted work stays held until its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from faregate.control import AskFigures, Figures, Resolve, Route
from faregate.core.ledger.events import Intended, Lost, Refused, Settled
from faregate.core.ledger.oracle import Oracle
from faregate.core.money import dollars
from faregate.core.usage import Usage
from faregate.ports import Owner
from gates import RunningGate, allowances, deployment, key, money, provider, running_gate, scenario, secret, steered

OPERATIONS = (
    "chat.completions",
    *(f"responses{end}" for end in ("", ".get", ".items", ".cancel", ".delete")),
)
KEYS = (
    key("caller"),
    key("colleague"),
    key("stranger", team="other"),
    key("elsewhere", project="other"),
    key("foreign", organization="acme"),
)


def place(name: str = "sim/sim-1", **fields: Any) -> Any:
    return deployment(name, operations=OPERATIONS, context_tokens_max=8_192, **fields)


async def call(
    running: RunningGate, method: str, path: str, body: Any = None, *, name: str = "caller", **headers: str
) -> httpx2.Response:
    """One call to the Responses API with the key of that name."""
    sent = {"authorization": f"Bearer {secret(name)}"} | headers
    return await running.client.request(method, f"/v1/responses{path}", json=body, headers=sent)


async def respond(running: RunningGate, text: str = "Say hello.", **fields: Any) -> httpx2.Response:
    name = fields.pop("name", "caller")
    body = {"model": "sim-1", "input": text, "max_output_tokens": 50} | fields
    return await call(running, "POST", "", body, name=name)


@scenario
async def test_a_look_is_free_and_its_owners_alone(tmp_path: Path) -> None:
    """Every key of the same payers may look at a response, any number of times, and is charged nothing for it."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),), limits=(money(10**9),)) as running:
        made = await respond(running)
        assert made.status_code == 200
        id, cost = made.json()["id"], made.headers["x-faregate-cost"]
        held = await allowances(running)
        for name in ("caller", "colleague", "caller"):
            looked = await call(running, "GET", f"/{id}", name=name)
            assert looked.status_code == 200
            assert looked.json()["usage"] == made.json()["usage"]
            assert looked.headers["x-faregate-cost"] == "0"
        items = await call(running, "GET", f"/{id}/input_items?limit=5&api-version=2024-10-21")
        assert items.json()["data"][0]["content"][0]["text"] == "Say hello."
        assert await allowances(running) == held
        first, *looks = running.of(Settled)
        assert dollars(first.cost) == cost
        assert [(event.status, event.cost, event.charge, event.usage, event.usage_source) for event in looks] == [
            ("ok", 0, 0, Usage(), "none")
        ] * 4
        assert [event.held.usd for event in running.of(Intended)[1:]] == [0] * 4


@pytest.mark.parametrize("name", ["stranger", "elsewhere", "foreign"])
@scenario
async def test_a_strangers_object_is_as_one_that_never_was(tmp_path: Path, name: str) -> None:
    """Looks, ends and calls that name it are refused in the words for an id that nobody made."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        id = (await respond(running)).json()["id"]
        never = "resp_" + "0" * (len(id) - 5)
        for method, end in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
            theirs = await call(running, method, f"/{id}{end}", name=name)
            nobodys = await call(running, method, f"/{never}{end}", name=name)
            assert theirs.status_code == nobodys.status_code == 404
            assert theirs.json()["error"]["code"] == "object_not_found"
            assert _words(theirs, id) == _words(nobodys, never)
        onward = await respond(running, previous_response_id=id, name=name)
        assert (onward.status_code, onward.json()["error"]["code"]) == (404, "object_not_found")
        assert (await respond(running, previous_response_id=id)).status_code == 200
        assert len(running.of(Intended)) == 2


def _words(answer: httpx2.Response, id: str) -> str:
    error = answer.json()["error"]
    del error["request_id"]
    return str(error).replace(id, "ID")


@scenario
async def test_ownership_outlives_the_process(tmp_path: Path) -> None:
    """What was made before a restart is still its owner's, and still nobody else's; what was deleted stays gone."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        kept = (await respond(running)).json()["id"]
        gone = (await respond(running)).json()["id"]
        assert (await call(running, "DELETE", f"/{gone}")).json()["deleted"] is True
        assert (await call(running, "GET", f"/{gone}")).status_code == 404
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        objects, owner = running.gate.objects, Owner("default", "research", "search")
        assert (objects.owns(owner, kept), objects.owns(owner, gone)) == (True, False)
        assert not objects.owns(owner._replace(team="other"), kept)
        # This simulator is another one: the id is the caller's own, and the provider says that it is gone.
        told = await call(running, "GET", f"/{kept}")
        assert (told.status_code, told.json()["error"].get("faregate")) == (404, None)
        assert running.of(Settled)[-1].status == "failed"


@scenario
async def test_a_streams_object_is_owned_before_its_first_byte(tmp_path: Path) -> None:
    """The id stands in the first event, and can be used at once."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        body = {"model": "sim-1", "input": steered(output_tokens=20), "stream": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    id = line.partition('"id":"')[2].partition('"')[0]
                    assert running.gate.objects.owns(Owner("default", "research", "search"), id)
                    break
        await running.until(lambda: running.of(Settled) or running.of(Lost))
        assert (await call(running, "GET", f"/{id}")).status_code == 200


@scenario
async def test_what_is_not_stored_is_nobodys(tmp_path: Path) -> None:
    """With ``store: false`` there is nothing to look at later."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        id = (await respond(running, store=False)).json()["id"]
        assert (await call(running, "GET", f"/{id}")).json()["error"]["code"] == "object_not_found"


@scenario
async def test_calls_go_to_the_provider_that_keeps_their_objects(tmp_path: Path) -> None:
    """A call that continues a response goes to where that is, whatever the order of the deployments is by then."""
    places = (place("one/sim-1", provider="one"), place("two/sim-1", provider="two"))

    def both(*order: str) -> Sequence[Route]:
        return (Route("sim-1", order), Route("first", ("one/sim-1",)), Route("second", ("two/sim-1",)))

    async with running_gate(tmp_path, keys=KEYS) as outer:
        providers = [provider(outer.simulator.url + "/v1", name=name) for name in ("one", "two")]
        async with running_gate(
            tmp_path / "in", keys=KEYS, deployments=places, providers=providers, routes=both("one/sim-1", "two/sim-1")
        ) as running:
            first = (await respond(running, model="first")).json()["id"]
            second = (await respond(running, model="second")).json()["id"]
            onward = await respond(running, previous_response_id=second)
            assert onward.headers["x-faregate-deployment"] == "two/sim-1"
            looked = await call(running, "GET", f"/{first}")
            assert looked.headers["x-faregate-deployment"] == "one/sim-1"
            parts = [{"type": "item_reference", "id": first}]
            apart = await respond(running, previous_response_id=second, input=parts)
            assert (apart.status_code, apart.json()["error"]["code"]) == (404, "object_not_found")
            other = await respond(running, previous_response_id=second, model="first")
            assert other.status_code == 404


@scenario
async def test_a_look_holds_the_limits_of_calls_and_none_of_money(tmp_path: Path) -> None:
    """An exhausted budget lets its owner read what it paid for; a limit of requests counts the look."""
    two = money(2, unit="requests", id="lim_calls")
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),), limits=(two,)) as running:
        id = (await respond(running)).json()["id"]
        assert (await call(running, "GET", f"/{id}")).status_code == 200
        refused = await call(running, "GET", f"/{id}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exhausted")
        await running.until(lambda: running.of(Refused))
    async with running_gate(tmp_path / "b", keys=KEYS, deployments=(place(),), limits=(money(10**7),)) as running:
        made = await respond(running, steered(prompt_tokens=9_900), max_output_tokens=1)
        assert made.status_code == 200
        assert (await respond(running, max_output_tokens=4_000)).status_code == 429
        assert (await call(running, "GET", f"/{made.json()['id']}")).status_code == 200


@scenario
async def test_a_key_for_responses_may_look_at_them(tmp_path: Path) -> None:
    """Whoever may make responses may look at them; whoever may not, may not. The model's name counts as well."""
    keys = [key("caller", operations=("responses",)), key("chats", operations=("chat.completions",))]
    keys.append(key("other", models=("sim-2",)))
    async with running_gate(tmp_path, keys=keys, deployments=(place(),)) as running:
        id = (await respond(running)).json()["id"]
        assert (await call(running, "GET", f"/{id}")).status_code == 200
        assert (await call(running, "GET", f"/{id}", name="chats")).json()["error"]["code"] == "operation_forbidden"
        assert (await call(running, "GET", f"/{id}", name="other")).json()["error"]["code"] == "model_forbidden"


@scenario
async def test_a_look_and_a_deletion_are_two_calls_under_one_idempotency_key(tmp_path: Path) -> None:
    """They have the same path and no body: the look's answer must not be played again for the deletion."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        id = (await respond(running)).json()["id"]
        looked = await call(running, "GET", f"/{id}", **{"idempotency-key": "one"})
        again = await call(running, "GET", f"/{id}", **{"idempotency-key": "one"})
        deleted = await call(running, "DELETE", f"/{id}", **{"idempotency-key": "one"})

        assert (looked.content, again.headers["idempotent-replayed"]) == (again.content, "true")
        assert (deleted.status_code, deleted.json()["error"]["code"]) == (409, "idem_conflict")


@scenario
async def test_a_stored_stream_can_be_read_again_for_nothing(tmp_path: Path) -> None:
    """``?stream=true`` passes on, and the usage in its last event is not charged a second time."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        id = (await respond(running)).json()["id"]
        again = await call(running, "GET", f"/{id}?stream=true&starting_after=0")
        assert again.status_code == 200
        assert again.headers["content-type"].startswith("text/event-stream")
        assert '"usage":{"input_tokens":' in again.text
        assert again.text.count("event: response.completed") == 1
        await running.until(lambda: len(running.of(Settled)) == 2)
        assert [(event.cost, event.usage) for event in running.of(Settled)][1] == (0, Usage())


@scenario
async def test_a_replay_that_breaks_costs_nothing(tmp_path: Path) -> None:
    """Neither is what was delivered of it counted, nor is anything left unknown."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        made = await respond(running, steered(output_tokens=16_000), max_output_tokens=16_000)
        headers = {"authorization": f"Bearer {secret('caller')}"}
        path = f"/v1/responses/{made.json()['id']}?stream=true"
        async with running.client.stream("GET", path, headers=headers) as answer:
            async for _ in answer.aiter_text():
                break
        await running.until(lambda: len(running.of(Settled)) == 2)
        event = running.of(Settled)[1]
        assert (event.status, event.cost, event.usage, event.usage_source) == ("aborted", 0, Usage(), "none")
        assert not running.of(Lost)


@scenario
async def test_azures_objects_lie_below_its_own_path(tmp_path: Path) -> None:
    """Responses of an Azure provider are looked at below ``/openai/v1``, by Azure's paths at the gate as well."""
    async with running_gate(tmp_path, keys=KEYS) as outer:
        azure = provider(
            outer.simulator.url, kind="azure_openai", credential={"api-key": "azure"}, api_version="2024-10-21"
        )
        async with running_gate(tmp_path / "in", keys=KEYS, providers=(azure,), deployments=(place(),)) as running:
            headers = {"api-key": secret("caller")}
            body = {"model": "sim-1", "input": "Hi."}
            made = await running.client.post("/openai/v1/responses", json=body, headers=headers)
            assert made.status_code == 200
            for path in ("/openai/v1/responses", "/openai/responses", "/v1/responses"):
                looked = await running.client.get(f"{path}/{made.json()['id']}?api-version=preview", headers=headers)
                assert (looked.status_code, looked.json()["id"]) == (200, made.json()["id"])


@scenario
async def test_accepted_work_stays_held_until_it_is_resolved(tmp_path: Path) -> None:
    """The answer is delivered, the hold stays, its slot is free, and the end that the console tells is booked once."""
    limits = (money(10**9), money(1, id="lim_slots", unit="concurrency", window=""))
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),), limits=limits) as running:
        made = await respond(running, steered(looks=2), background=True)
        assert (made.status_code, made.json()["status"]) == (200, "queued")
        assert "x-faregate-cost" not in made.headers
        request_id, id = made.headers["x-faregate-request-id"], made.json()["id"]
        (lost,) = running.of(Lost)
        assert (lost.id, lost.status, lost.awaited.object_id) == (request_id, "pending", id)
        (intent,) = running.of(Intended)
        assert (await allowances(running))["lim_money"] == (0, intent.held.usd)
        figures = await running.ask(AskFigures())
        assert isinstance(figures, Figures)
        assert (figures.pending_count, figures.pending_nanos) == (1, intent.held.usd)
        assert (figures.unknown_count, figures.unknown_nanos) == (0, 0)
        for status in ("in_progress", "in_progress", "completed"):
            assert (await call(running, "GET", f"/{id}")).json()["status"] == status
        # The looks took the slot one after the other, and changed nothing of what is held.
        assert (await allowances(running))["lim_money"] == (0, intent.held.usd)
        order = Resolve(request_id, "ok", "provider_said", Usage(10, output_text=5), "provider", 20_000, 20_000)
        assert (await running.ask(order)).changed is True  # type: ignore[union-attr]
        assert (await running.ask(order)).changed is False  # type: ignore[union-attr]
        assert (await allowances(running))["lim_money"] == (20_000, 0)


@scenario
async def test_an_object_whose_cost_is_not_known_yet_cannot_be_deleted(tmp_path: Path) -> None:
    """Deleting it would make its usage unknowable; cancelling it is allowed, and the deletion afterwards."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        made = await respond(running, steered(looks=5), background=True)
        id, request_id = made.json()["id"], made.headers["x-faregate-request-id"]
        refused = await call(running, "DELETE", f"/{id}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "object_in_use")
        assert (await call(running, "POST", f"/{id}/cancel")).json()["status"] == "cancelled"
        assert (await call(running, "DELETE", f"/{id}")).status_code == 409
        await running.ask(Resolve(request_id, "cut", "provider_said", Usage(), "provider", 0, 0))
        assert (await call(running, "DELETE", f"/{id}")).status_code == 200


@scenario
async def test_an_object_cannot_be_deleted_while_its_answer_comes(tmp_path: Path) -> None:
    """Whoever ends a background stream's response under it would leave nothing that tells its cost."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        body = {"model": "sim-1", "input": steered(output_tokens=9, hold_after=3), "stream": True, "background": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
            text = answer.aiter_text()
            await anext(text)
            id = running.of(Lost)[0].awaited.object_id
            refused = await call(running, "DELETE", f"/{id}")
            await running.client.post(f"{running.simulator.url}/simulator/release")
            async for _ in text:
                pass
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "object_in_use")
        assert running.of(Settled)[-1].usage_source == "provider"
        assert (await call(running, "DELETE", f"/{id}")).status_code == 200


@scenario
async def test_a_background_stream_is_marked_before_its_first_event_and_ends_once(tmp_path: Path) -> None:
    """Should the gate die in between, the mark says where to ask; a stream that comes to its end is its own proof."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),), limits=(money(10**9),)) as running:
        body = {"model": "sim-1", "input": steered(output_tokens=10), "stream": True, "background": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
            first = True
            async for line in answer.aiter_lines():
                if first and line.startswith("data: "):
                    assert running.of(Lost)[0].awaited.object_id in line
                    first = False
        assert not first
        await running.until(lambda: running.of(Settled))
        kinds = [type(event).__name__ for event in running.events()]
        assert kinds == ["Started", "Intended", "Lost", "Settled"]
        oracle = Oracle(running.events())
        (settled,) = running.of(Settled)
        assert settled.charge > 0
        assert (oracle.totals().requests, oracle.totals().held, oracle.totals().unknown) == (1, 0, 0)
        assert (await allowances(running))["lim_money"] == (settled.charge, 0)
        assert not running.gate.unknowns


@pytest.mark.parametrize("fault", ["reset_mid_stream", "cut_utf8", "error_event", "usage_missing"])
@scenario
async def test_a_background_stream_that_breaks_is_pending(tmp_path: Path, fault: str) -> None:
    """Its work goes on, so that neither an estimate nor nothing is charged: the object will say."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        body = {"model": "sim-1", "input": steered(output_tokens=40, fault=fault), "stream": True, "background": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
            text = "".join([part async for part in answer.aiter_text()])
        await running.until(lambda: running.gate.unknowns)
        mark, lost = running.of(Lost)
        assert mark.awaited == lost.awaited
        assert lost.awaited.object_id in text
        assert not running.of(Settled)


@scenario
async def test_a_client_that_leaves_a_background_stream_leaves_its_work(tmp_path: Path) -> None:
    """Who detaches from a background stream means to come back; its money stays held."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),)) as running:
        body = {"model": "sim-1", "input": steered(output_tokens=40, hold_after=3), "stream": True, "background": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
            async for _ in answer.aiter_text():
                break
        await running.until(lambda: running.gate.unknowns)
        assert running.of(Lost)[-1].code == "client_gone"
        assert running.of(Lost)[-1].awaited.object_id
        await running.until(lambda: not running.gate.answers_open)


@pytest.mark.parametrize("background", [False, True])
@scenario
async def test_the_disk_is_waited_for_where_power_may_fail(tmp_path: Path, background: bool) -> None:
    """With ``durability: power`` the answer goes out once its end, or that it is awaited, is on the disk."""
    async with running_gate(tmp_path, keys=KEYS, deployments=(place(),), durability="power") as running:
        made = await respond(running, background=background)
        assert made.status_code == 200
        ends = running.of(Lost if background else Settled)
        assert [event.id for event in ends] == [made.headers["x-faregate-request-id"]]
        assert (await call(running, "GET", f"/{made.json()['id']}")).status_code == 200
