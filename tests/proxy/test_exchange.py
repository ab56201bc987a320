"""Whole exchanges over real sockets: client → gate → simulator, and what the journal says of them."""

import asyncio
import hashlib
import json
from pathlib import Path

import httpx2
import msgspec
import pytest

from faregate.control import AskAllowances, Balance, Limit, Load, Loaded, Opening, Route
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.simulator import Refuser
from faregate.simulator import serve as simulate
from gates import (
    allowances,
    deployment,
    key,
    money,
    provider,
    running_gate,
    scenario,
    secret,
    steered,
    truth,
)

URL = "/v1/chat/completions"


# -- identity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {}"},
        {"authorization": "bearer {}"},
        {"authorization": "{}"},
        {"api-key": "{}"},
        {"x-api-key": "{}"},
        {"Ocp-Apim-Subscription-Key": "{}"},
        {"api-key": "{}", "authorization": "Bearer {}"},
    ],
)
@scenario
async def test_every_form_of_the_credential_opens_the_same_key(tmp_path: Path, headers: dict[str, str]) -> None:
    """Whatever header a client library uses for its key, it is understood."""
    async with running_gate(tmp_path) as running:
        sent = {name: value.format(secret("caller")) for name, value in headers.items()}
        answer = await running.client.post(
            URL, json={"model": "sim-1", "messages": [{"role": "user", "content": "hi"}]}, headers=sent
        )

        assert answer.status_code == 200, answer.text
        assert running.of(Intended)[0].who.key == "key_caller"


@scenario
async def test_the_key_may_stand_in_the_query(tmp_path: Path) -> None:
    """``subscription-key`` is a credential too."""
    async with running_gate(tmp_path) as running:
        answer = await running.client.post(
            f"{URL}?subscription-key={secret('caller')}",
            json={"model": "sim-1", "messages": [{"role": "user", "content": "hi"}]},
        )

        assert answer.status_code == 200


@scenario
async def test_a_query_of_very_many_fields_is_refused(tmp_path: Path) -> None:
    """The key is looked for in a bounded number of them."""
    async with running_gate(tmp_path) as running:
        query = f"subscription-key={secret('caller')}" + "&a=1" * 40
        answer = await running.client.post(f"{URL}?{query}", json={"model": "sim-1", "messages": []})

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "uri_invalid")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "auth_missing"),
        ({"authorization": "Bearer"}, 401, "auth_malformed"),
        ({"authorization": "Basic abc"}, 401, "auth_malformed"),
        ({"authorization": "Bearer ' OR 1=1--"}, 401, "auth_malformed"),
        ({"authorization": "Bearer " + secret("caller")[:-1] + "0"}, 401, "auth_malformed"),
        ({"authorization": "Bearer " + secret("stranger")}, 401, "auth_invalid"),
        ({"authorization": "Bearer " + secret("caller"), "api-key": secret("stranger")}, 400, "auth_conflict"),
        ({"authorization": "Bearer " + secret("revoked")}, 401, "key_revoked"),
        ({"authorization": "Bearer " + secret("expired")}, 401, "key_expired"),
        ({"authorization": "Bearer " + secret("disabled")}, 403, "key_disabled"),
        ({"authorization": "Bearer " + secret("admin")}, 403, "role_forbidden"),
    ],
)
@scenario
async def test_a_key_that_does_not_open_is_told_why(
    tmp_path: Path, headers: dict[str, str], status: int, code: str
) -> None:
    """Each reason has its own code, in OpenAI's shape, with a request id."""
    keys = (
        key(),
        key("revoked", state="revoked"),
        key("disabled", state="disabled"),
        key("expired", expires_at=1),
        key("admin", role="admin"),
    )
    async with running_gate(tmp_path, keys=keys) as running:
        answer = await running.client.post(URL, json={"model": "sim-1", "messages": []}, headers=headers)

        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["x-faregate-request-id"] == answer.json()["error"]["request_id"]
        assert await truth(running) == []


@scenario
async def test_the_provider_sees_its_own_credential_and_nothing_of_the_callers(tmp_path: Path) -> None:
    """The gateway key, and every header that is not on the list, stays here."""
    async with running_gate(tmp_path, keys=(key(may_set=("user", "tags", "run")),)) as running:
        await running.chat(
            headers={
                "x-faregate-user": "ada",
                "x-faregate-tags": "a=b",
                "cookie": "c",
                "openai-organization": "org-1",
                "x-forwarded-for": "10.0.0.1",
                "x-custom": "z",
            }
        )
        record = (await truth(running))[0]
        names = {name.lower() for name, _ in record["headers"]}

        assert record["credential"]["sha256"] == hashlib.sha256(b"sk-provider").hexdigest()
        assert names <= {
            "host",
            "authorization",
            "accept-encoding",
            "content-type",
            "accept",
            "user-agent",
            "x-client-request-id",
            "via",
            "content-length",
        }
        assert secret("caller") not in json.dumps(record)


@scenario
async def test_a_head_that_repeats_is_identified_anew_when_the_key_changes(tmp_path: Path) -> None:
    """What a connection's head said is forgotten with the snapshot it was said under."""
    async with running_gate(tmp_path) as running:
        first = await running.chat()
        again = await running.chat()
        await running.ask(Load(2, keys=(key(state="revoked"),)))
        after = await running.chat()

        assert [first.status_code, again.status_code, after.status_code] == [200, 200, 401]


@scenario
async def test_what_a_request_says_about_itself_is_recorded(tmp_path: Path) -> None:
    """End user, run and tags come from headers that the key may set."""
    async with running_gate(tmp_path) as running:
        headers = {"x-faregate-user": "ada", "x-faregate-run": "run-7", "x-faregate-tags": "b=2,a=1"}
        await running.chat(headers=headers)
        who = running.of(Intended)[0].who

        assert (who.end_user, who.run, who.tags, who.identity_source) == (
            "ada",
            "run-7",
            (("a", "1"), ("b", "2")),
            "header",
        )


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-faregate-project": "other"}, 403, "field_forbidden"),
        ({"openai-proxy-staging": "prod"}, 403, "field_forbidden"),
        ({"x-faregate-tags": "nonsense"}, 400, "header_invalid"),
        ({"x-faregate-user": "x" * 300}, 400, "header_invalid"),
        ({"x-faregate-timeout": "soon"}, 400, "header_invalid"),
        ({"via": "1.1 faregate"}, 400, "header_invalid"),
    ],
)
@scenario
async def test_what_a_request_may_not_say(tmp_path: Path, headers: dict[str, str], status: int, code: str) -> None:
    """A spoofed project or stage is refused, not ignored."""
    async with running_gate(tmp_path) as running:
        answer = await running.chat(headers=headers)

        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@scenario
async def test_a_stage_uses_its_own_provider(tmp_path: Path) -> None:
    """The key's stage decides the account; a stage without one for this model is refused."""
    async with running_gate(
        tmp_path,
        keys=(key("dev", stage="dev"), key("prod", stage="prod")),
        stages={"dev": ("sim",), "prod": ("elsewhere",)},
    ) as running:
        dev = await running.chat(name="dev")
        prod = await running.chat(name="prod")

        assert dev.status_code == 200
        assert (prod.status_code, prod.json()["error"]["code"]) == (403, "stage_forbidden")


# -- metering ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_recorded_usage_and_cost_are_the_providers(tmp_path: Path, stream: bool) -> None:
    """Tokens as the provider counted them, cost to the nano-dollar, the hold given back."""
    async with running_gate(tmp_path, limits=(money(10**9),)) as running:
        text = steered(prompt_tokens=100, output_tokens=20, cached_tokens=40, reasoning_tokens=5)
        answer = await running.chat(text, stream=stream)
        settled = running.of(Settled)[0]

        assert answer.status_code == 200
        assert (settled.usage.input_tokens, settled.usage.output_tokens) == (100, 20)
        assert (settled.usage.input_cached, settled.usage.output_reasoning) == (40, 5)
        assert settled.cost == 100 * 1_000 + 20 * 2_000
        assert settled.usage_source == "provider"
        assert await allowances(running) == {"lim_money": (settled.cost, 0)}
        if not stream:
            assert answer.headers["x-faregate-cost"] == "0.00014"


@scenario
async def test_the_usage_event_is_hidden_from_a_client_that_did_not_ask(tmp_path: Path) -> None:
    """The gate asks for usage; the client sees the stream it asked for."""
    async with running_gate(tmp_path) as running:
        hidden = await running.chat(stream=True)
        asked = await running.chat(stream=True, stream_options={"include_usage": True})

        assert '"prompt_tokens"' not in hidden.text
        assert '"prompt_tokens"' in asked.text
        assert hidden.text.endswith("data: [DONE]\n\n")
        assert [settled.usage_source for settled in running.of(Settled)] == ["provider", "provider"]


@scenario
async def test_a_stream_without_usage_is_counted_from_its_text(tmp_path: Path) -> None:
    """Tokens of the whole text, never the number of events."""
    async with running_gate(tmp_path) as running:
        text = steered(usage=False, output_tokens=30, chunk_tokens=7, empty_deltas=5)
        answer = await running.chat(text, stream=True)
        settled = running.of(Settled)[0]

        assert answer.text.endswith("data: [DONE]\n\n")
        assert settled.usage_source == "counted"
        assert 20 <= settled.usage.output_tokens <= 40
        assert settled.status == "ok"


@scenario
async def test_completions_and_embeddings(tmp_path: Path) -> None:
    """The other two operations are metered the same way."""
    async with running_gate(tmp_path) as running:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        completion = await running.client.post(
            "/v1/completions", json={"model": "sim-1", "prompt": "Once", "max_tokens": 5, "n": 2}, headers=headers
        )
        embedding = await running.client.post(
            "/v1/embeddings", json={"model": "sim-1", "input": ["one", "two"]}, headers=headers
        )
        used = [completion.json()["usage"]["total_tokens"], embedding.json()["usage"]["total_tokens"]]
        settled = running.of(Settled)

        assert [s.usage.input_tokens + s.usage.output_tokens for s in settled] == used
        assert [i.who.service for i in running.of(Intended)] == ["completions", "embeddings"]


@scenario
async def test_azure_paths_name_the_deployment(tmp_path: Path) -> None:
    """The segment after ``deployments`` decides, whatever stands before it; errors have Azure's shape."""
    async with running_gate(tmp_path) as running:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
        headers = {"api-key": secret("caller")}
        answers = [
            await running.client.post(
                f"{prefix}/deployments/sim-1/chat/completions?api-version=x", json=body, headers=headers
            )
            for prefix in ("/openai", "", "/some/prefix/openai")
        ]
        unknown = await running.client.post("/openai/deployments/none/chat/completions", json=body, headers=headers)

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@scenario
async def test_an_azure_provider_is_called_by_its_path(tmp_path: Path) -> None:
    """Deployment in the path, api-version of the configuration, our id in its header, and each of its own ids once."""
    async with running_gate(tmp_path, provider_fields={"kind": "azure_openai", "api_version": "2024-10-21"}) as running:
        # The simulator's base URL for Azure has no /v1.
        url = running.simulator.url
        catalogue = running.gate.snapshot.catalogue
        changed = provider(url, kind="azure_openai", api_version="2024-10-21", credential={"api-key": "azure-key"})
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(changed,))))
        answer = await running.chat(stream=True)
        record = (await truth(running))[0]

        assert answer.status_code == 200
        assert record["path"].startswith("/openai/deployments/sim-1/chat/completions")
        assert record["request_id"] == answer.headers["x-faregate-request-id"]
        assert answer.headers.get_list("x-provider-request-id") == [record["provider_request_id"]]
        assert answer.headers.get_list("apim-request-id") == [record["provider_request_id"]]


@scenario
async def test_a_provider_error_passes_unchanged_and_costs_nothing(tmp_path: Path) -> None:
    """Status and body are the provider's; a configured credential in it is masked."""
    async with running_gate(tmp_path, provider_fields={"masked": ("sk-provider",)}) as running:
        body = {"error": {"message": "Bad key sk-provider", "type": "x", "code": "y"}}
        answer = await running.chat(steered(status=418, body=body, headers={"retry-after": "7", "server": "them"}))
        settled = running.of(Settled)[0]

        assert answer.status_code == 418
        assert answer.json() == {"error": {"message": "Bad key ***", "type": "x", "code": "y"}}
        assert answer.headers["retry-after"] == "7"
        assert "server" not in answer.headers
        assert (settled.status, settled.cost, settled.http_status) == ("failed", 0, 418)


@scenario
async def test_the_stream_is_the_providers_bytes(tmp_path: Path) -> None:
    """With usage asked for, what arrives is what the simulator sent, whatever its chunks were cut like."""
    async with running_gate(tmp_path) as running, httpx2.AsyncClient(base_url=running.simulator.url) as direct:
        for split in (1, 7, 1000):
            text = steered(output_tokens=12, split_bytes=split, content="Grüße, 世界 🌍 and more text than before")
            body = {
                "model": "sim-1",
                "messages": [{"role": "user", "content": text}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": 50,
            }
            through = await running.chat(text, stream=True, stream_options={"include_usage": True}, max_tokens=50)
            request_id = through.headers["x-faregate-request-id"]
            plain = await direct.post(
                URL, json=body, headers={"authorization": "Bearer sk-provider", "x-client-request-id": request_id}
            )

            assert through.content == plain.content


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_two_hundred_calls_against_a_limit_for_ten(tmp_path: Path, stream: bool) -> None:
    """While the provider holds its answers exactly ten calls reach it; the other 190 are refused."""
    worst = 0
    async with running_gate(tmp_path / "probe", limits=(money(10**9),)) as probe:
        await probe.chat(steered(hold=False, output_tokens=10), stream=stream, max_tokens=100)
        worst = probe.of(Intended)[0].held.usd
    async with running_gate(tmp_path / "gate", limits=(money(worst * 10 + worst // 2),)) as running:
        await asyncio.to_thread(_hold_everything, running.simulator.url)
        calls = [
            asyncio.create_task(running.chat(steered(hold=False, output_tokens=10), stream=stream, max_tokens=100))
            for _ in range(200)
        ]
        await running.until(lambda: sum(call.done() for call in calls) == 190, 20)
        held = await allowances(running)
        await asyncio.to_thread(_release_everything, running.simulator.url)
        answers = await asyncio.gather(*calls)
        served = await truth(running)
        refused = [answer for answer in answers if answer.status_code == 429]
        cost = sum(settled.cost for settled in running.of(Settled))

        assert len(served) == 10
        assert {answer.json()["error"]["code"] for answer in refused} == {"budget_exhausted"}
        assert len(refused) == 190
        assert held == {"lim_money": (0, worst * 10)}
        assert await allowances(running) == {"lim_money": (cost, 0)}


def _hold_everything(url: str) -> None:
    httpx2.post(f"{url}/simulator/hold")


def _release_everything(url: str) -> None:
    httpx2.post(f"{url}/simulator/release")


@scenario
async def test_the_true_cost_never_passes_the_limit(tmp_path: Path) -> None:
    """Without holding answers back, many calls in a row fill the limit and never exceed it."""
    amount = 4_000_000
    async with running_gate(tmp_path, limits=(money(amount),)) as running:
        codes: set[int] = {200}
        while 200 in codes:
            text = steered(output_tokens=40, prompt_tokens=10)
            wave = await asyncio.gather(*(running.chat(text, max_tokens=50, stream=n % 2 == 0) for n in range(40)))
            codes = {answer.status_code for answer in wave}
        cost = sum(settled.cost for settled in running.of(Settled))
        # The last call that did not fit wanted less than this.
        assert amount - 300_000 < cost <= amount
        assert await allowances(running) == {"lim_money": (cost, 0)}


@scenario
async def test_a_refusal_tells_its_numbers(tmp_path: Path) -> None:
    """Which limit, how much of it is gone, what this call wanted, what would fit, and not to retry."""
    async with running_gate(tmp_path, limits=(money(2_000_000, contact="finance@example.org"),)) as running:
        answer = await running.chat(max_tokens=5000)
        error = answer.json()["error"]

        assert (answer.status_code, error["code"], error["type"]) == (429, "budget_exhausted", "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
        told = error["faregate"]
        assert [each["limit"] for each in told.pop("binding")] == ["lim_money"]
        assert told | {"bound": None, "would_fit": None} == {
            "limit": "lim_money",
            "subject": None,
            "also": [],
            "remaining": "0.002",
            "reason": None,
            "unit": "usd",
            "amount": "0.002",
            "posted": "0",
            "held": "0",
            "bound": None,
            "window": "lifetime",
            "resets_at": None,
            "would_fit": None,
            "contact": "finance@example.org",
        }
        fits = error["faregate"]["would_fit"]["max_tokens"]
        assert (await running.chat(max_tokens=fits + 1)).status_code == 429
        assert (await running.chat(max_tokens=fits)).status_code == 200
        assert running.of(Refused)[0].limit == "lim_money" if running.of(Refused) else True


@scenario
async def test_requests_a_minute(tmp_path: Path) -> None:
    """The sixth of five is refused with the true wait, and refused calls do not count."""
    limit = Limit("lim_rate", {"key": "key_caller"}, (), "requests", 5, "minute")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        answers = [await running.chat() for _ in range(7)]

        codes = [answer.status_code for answer in answers]
        # A minute may end in the middle of the seven calls; then all of them fit.
        assert codes in ([200] * 5 + [429] * 2, [200] * 6 + [429], [200] * 7) or codes.count(200) >= 5
        refused = [answer for answer in answers if answer.status_code == 429]
        for answer in refused:
            assert answer.json()["error"]["code"] == "rate_limited"
            assert 1 <= int(answer.headers["retry-after"]) <= 60


@scenario
async def test_a_limit_counts_each_end_user_apart(tmp_path: Path) -> None:
    """The first request of an unseen user is held too; another user is not concerned."""
    limit = Limit("lim_each", {"project": "search"}, ("end_user",), "requests", 1, "lifetime")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        answers = [await running.chat(headers={"x-faregate-user": user}) for user in ("ada", "ada", "bob", "bob")]
        error = answers[1].json()["error"]

        assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
        assert error["faregate"]["subject"] == {"end_user": "ada"}
        assert "end_user ada" in error["message"]


@scenario
async def test_calls_hold_their_counted_tokens_where_money_is_tight(tmp_path: Path) -> None:
    """Under a small money limit a call holds what its counted prompt may cost; else its length is the bound."""
    text = "word " * 50
    held = []
    for amount in (10**9, 10**15):
        async with running_gate(tmp_path / str(amount), limits=(money(amount),)) as running:
            await running.chat(text)
            (intended,) = running.of(Intended)
            held.append(intended.held.input_tokens)

    assert 50 < held[0] < 80
    assert held[1] > 250


@scenario
async def test_a_known_caller_on_an_unknown_path_is_on_record(tmp_path: Path) -> None:
    """A path that is not served is refused to everybody, and to a known key as a record of its own."""
    async with running_gate(tmp_path) as running:
        for headers in ({"authorization": f"Bearer {secret('caller')}"}, {"authorization": "Bearer nobody"}):
            answer = await running.client.post("/v1/assistants", json={}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "operation_unmetered")
        await running.until(lambda: len(running.of(Refused)) == 1)
        (refused,) = running.of(Refused)

        assert (refused.code, refused.who.key) == ("operation_unmetered", "key_caller")


@scenario
async def test_concurrency_is_given_back(tmp_path: Path) -> None:
    """Two at a time, and again two when they have ended."""
    limit = Limit("lim_two", {"team": "research"}, (), "concurrency", 2, "")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        first = await asyncio.gather(*(running.chat(steered(first_delay_ms=200)) for _ in range(5)))
        second = await running.chat()

        assert sorted(answer.status_code for answer in first) == [200, 200, 429, 429, 429]
        assert second.status_code == 200


@scenario
async def test_a_caller_without_a_cap_is_clamped_to_what_fits(tmp_path: Path) -> None:
    """The model's whole maximum would not fit, so the largest useful cap is injected, and said."""
    async with running_gate(tmp_path, limits=(money(3_000_000),)) as running:
        answer = await running.chat("hi", max_tokens=None)
        intended = running.of(Intended)[0]

        assert answer.status_code == 200
        assert int(answer.headers["x-faregate-clamped"]) == intended.clamped_to
        assert 256 <= intended.clamped_to < 1_500
        assert intended.held.usd <= 3_000_000


@scenario
async def test_a_caller_without_a_cap_is_left_alone_where_everything_fits(tmp_path: Path) -> None:
    """Nothing is changed in a call whose worst case fits every limit."""
    async with running_gate(tmp_path, limits=(money(10**12),)) as running:
        answer = await running.chat("hi", max_tokens=None)

        assert "x-faregate-clamped" not in answer.headers
        assert running.of(Intended)[0].held.output_tokens == 16_384


@scenario
async def test_a_new_limit_admits_nothing_until_its_balance_is_known(tmp_path: Path) -> None:
    """Between the change and its opening balance calls wait; then what was spent counts."""
    async with running_gate(tmp_path) as running:
        await running.chat()
        loaded = await running.ask(Load(2, limits=(money(1_000_000),)))
        assert isinstance(loaded, Loaded)
        pending = await running.chat()
        await running.ask(Opening(loaded.position, loaded.pending, (Balance("lim_money", (), 0, 999_999),)))
        full = await running.chat()

        assert loaded.pending == ("lim_money",)
        assert (pending.status_code, pending.json()["error"]["code"]) == (503, "limit_pending")
        assert (full.status_code, full.json()["error"]["code"]) == (429, "budget_exhausted")


@scenario
async def test_an_unpriced_model_is_refused(tmp_path: Path) -> None:
    """A route without a price is never free."""
    places = (deployment(cards=()),)
    async with running_gate(tmp_path, deployments=places) as running:
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "price_unknown")
        assert answer.headers["x-should-retry"] == "false"


# -- routes ------------------------------------------------------------------------------------------------------------


@scenario
async def test_the_next_deployment_is_tried_when_the_first_does_not_connect(tmp_path: Path) -> None:
    """Nothing was sent, so the second candidate gets the call, under a hold of its own."""
    with Refuser() as refuser:
        async with running_gate(tmp_path) as running:
            sim = running.gate.snapshot.catalogue.providers[0]
            dead = provider(f"http://127.0.0.1:{refuser.port}/v1", name="dead")
            places = (deployment("dead/sim-1", provider="dead"), deployment("sim/alias", upstream_model="sim-fast"))
            catalogue = msgspec.structs.replace(
                running.gate.snapshot.catalogue,
                providers=(sim, dead),
                deployments=places,
                routes=(Route("sim-1", ("dead/sim-1", "sim/alias")), Route("only-dead", ("dead/sim-1",))),
            )
            await running.ask(Load(2, catalogue=catalogue))
            answer = await running.chat()
            lost = await running.chat(model="only-dead")
            settled = running.of(Settled)[0]

            assert answer.status_code == 200
            assert [attempt.code for attempt in settled.attempts] == ["upstream_connect", ""]
            assert answer.headers["x-faregate-attempts"] == "2"
            assert (await truth(running))[0]["model"] == "sim-fast"
            assert (lost.status_code, lost.json()["error"]["code"]) == (502, "upstream_connect")
            assert (await running.ask(AskAllowances())) is not None


@scenario
async def test_the_next_deployment_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """What was clamped or counted for one that did not connect says nothing about the next."""
    simulator = await simulate()
    with Refuser() as refuser:
        dead = provider(f"http://127.0.0.1:{refuser.port}/v1", name="dead")
    alive = provider(simulator.url + "/v1")
    places = (deployment("dead/sim-1", provider="dead"), deployment(output_tokens_max=300))
    async with running_gate(
        tmp_path,
        limits=(money(5_000_000),),
        providers=(dead, alive),
        deployments=places,
        routes=(Route("sim-1", ("dead/sim-1", "sim/sim-1")),),
    ) as running:
        answer = await running.chat(max_tokens=None)
        intent = running.of(Intended)[0]

        assert (answer.status_code, answer.headers["x-faregate-attempts"]) == (200, "2")
        assert "x-faregate-clamped" not in answer.headers
        assert (intent.clamped_to, intent.held.output_tokens) == (0, 300)
    await simulator.close()


@scenario
async def test_unknown_paths_never_reach_a_provider(tmp_path: Path) -> None:
    """What has no meter is refused by name."""
    async with running_gate(tmp_path) as running:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        told = {}
        for path in ("/v1/assistants", "/v1/videos", "/v1/fine_tuning/jobs", "/nowhere", "/v1/chat/completions/x"):
            answer = await running.client.post(path, json={}, headers=headers)
            told[path] = answer.json()["error"]["code"]

        assert told == {
            "/v1/assistants": "operation_unmetered",
            "/v1/videos": "operation_unmetered",
            "/v1/fine_tuning/jobs": "operation_unmetered",
            "/nowhere": "not_found",
            "/v1/chat/completions/x": "operation_unmetered",
        }
        assert await truth(running) == []


@scenario
async def test_models_are_listed_here_and_filtered_by_the_key(tmp_path: Path) -> None:
    """The list needs a key and no provider."""
    keys = (key(), key("narrow", models=("other",)))
    places = (deployment(), deployment("sim/other", model="other"))
    async with running_gate(tmp_path, keys=keys, deployments=places) as running:
        listed = {}
        for name in ("caller", "narrow"):
            answer = await running.client.get("/v1/models", headers={"authorization": f"Bearer {secret(name)}"})
            listed[name] = [model["id"] for model in answer.json()["data"]]
        refused = await running.chat(name="narrow")

        assert listed == {"caller": ["other", "sim-1"], "narrow": ["other"]}
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_forbidden")


@scenario
async def test_health_needs_no_key_and_tells_nothing(tmp_path: Path) -> None:
    """Live at once, ready only when limits are known."""
    async with running_gate(tmp_path, opened=False) as running:
        live = await running.client.get("/health/live")
        ready = await running.client.get("/health/ready")
        refused = await running.chat()

        assert (live.status_code, ready.status_code) == (200, 503)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")


@scenario
async def test_a_gate_that_starts_calls_no_key_invalid(tmp_path: Path) -> None:
    """It knows none yet, neither when a head comes before its body nor when models are listed: clients try again."""
    async with running_gate(tmp_path, keys=(), opened=False) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}authorization: Bearer {secret('caller')}\r\ncontent-length: 100000\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        models = await running.client.get("/v1/models", headers={"authorization": f"Bearer {secret('caller')}"})

        assert line.split()[1] == b"503"
        assert (models.status_code, models.json()["error"]["code"]) == (503, "not_ready")


# -- idempotency -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_the_same_idempotency_key_is_answered_from_memory(tmp_path: Path, stream: bool) -> None:
    """One provider call, one charge, the same bytes again; another body is a conflict."""
    async with running_gate(tmp_path) as running:
        headers = {"idempotency-key": "order-1"}
        first = await running.chat(stream=stream, headers=headers)
        again = await running.chat(stream=stream, headers=headers)
        other = await running.chat("Something else.", stream=stream, headers=headers)

        assert first.content == again.content
        assert again.headers["x-faregate-request-id"] == first.headers["x-faregate-request-id"]
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idem_conflict")
        assert len(await truth(running)) == 1


@scenario
async def test_a_parallel_twin_is_told_to_wait(tmp_path: Path) -> None:
    """While the first is under way, the second is not sent."""
    async with running_gate(tmp_path) as running:
        headers = {"idempotency-key": "order-2"}
        first = asyncio.create_task(running.chat(steered(first_delay_ms=300), headers=headers))
        await running.until(lambda: running.gate.open_answers == 1)
        twin = await running.chat(steered(first_delay_ms=300), headers=headers)

        assert (twin.status_code, twin.json()["error"]["code"]) == (409, "idem_in_progress")
        assert (await first).status_code == 200


@scenario
async def test_a_refused_call_does_not_use_up_its_idempotency_key(tmp_path: Path) -> None:
    """Nothing was sent, so the same key may be sent again later."""
    limit = Limit("lim_one", {"team": "research"}, (), "concurrency", 0, "")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        headers = {"idempotency-key": "order-3"}
        refused = await running.chat(headers=headers)
        await running.ask(Load(2, limits_removed=("lim_one",)))
        sent = await running.chat(headers=headers)

        assert [refused.status_code, sent.status_code] == [429, 200]


@scenario
async def test_a_large_answer_is_not_kept_for_its_repeat(tmp_path: Path) -> None:
    """Beyond a mebibyte the repeat is told that the call was made, and it is not made again."""
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    choice = {"message": {"role": "assistant", "content": "x" * 1_100_000}, "finish_reason": "stop"}
    body = json.dumps({"id": "1", "model": "sim-1", "choices": [choice], "usage": usage}).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, running_gate(tmp_path, providers=(provider(url),)) as running:
        headers = {"idempotency-key": "large"}
        first = await running.chat(headers=headers)
        again = await running.chat(headers=headers)

        assert (first.status_code, len(first.content)) == (200, len(body))
        assert (again.status_code, again.json()["error"]["code"]) == (409, "idem_completed")
        assert len(running.of(Settled)) == 1
