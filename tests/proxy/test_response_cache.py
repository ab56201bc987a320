"""The same call is answered from what was kept, where everybody who has a say allows it: limited, booked and shown."""

import asyncio
import contextlib
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from fakes import HeldAnswers
from faregate.config.settings import CacheSettings
from faregate.control import AskFigures, AskFlush, Figures, Flush, FlushCache, Key, Load, Route, RoutedPool
from faregate.core.ledger.events import Intended, Lost, Recalled, Refused, Settled
from faregate.core.pricing.charging import ChargeRule
from faregate.core.routing.choose import Member, PoolRule
from faregate.core.routing.health import BreakerRule
from faregate.simulator.faults import FAULTS
from gates import (
    RunningGate,
    allowances,
    books_agree,
    deployment,
    key,
    money,
    running_gate,
    scenario,
    script,
    secret,
    steered,
    truth,
)

NO_BREAKER = BreakerRule(enabled=False)

USED = CacheSettings(default="on")
ASKED = CacheSettings()

#: What ``steered(**CALL)`` costs: 10 input tokens at 1 $ and 20 output tokens at 2 $ for a million.
CALL: dict[str, Any] = {"prompt_tokens": 10, "output_tokens": 20}
COST = 50_000


def caching_gate(
    folder: Path, cache: CacheSettings | None = USED, store: HeldAnswers | None = None, **fields: Any
) -> AbstractAsyncContextManager[RunningGate]:
    """A gate with a response cache."""
    return running_gate(folder, responses=store or HeldAnswers(), cache=cache, **fields)


async def ask(running: RunningGate, text: str = "Say hello.", **fields: Any) -> httpx2.Response:
    """One call of known cost."""
    return await running.chat(steered(text, **CALL), **fields)


async def served(running: RunningGate) -> int:
    """How many calls reached the provider."""
    return len(await truth(running))


def told(answer: httpx2.Response) -> str | None:
    """What an answer says of the cache."""
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-faregate-cache")


async def outcomes(running: RunningGate) -> dict[str, int]:
    """Lookups by what came of them."""
    figures = await running.ask(AskFigures())
    assert isinstance(figures, Figures)
    name = "faregate_cache_lookups_total"
    return {dict(each.labels)["outcome"]: each.value for each in figures.samples if each.name == name}


# -- hits --------------------------------------------------------------------------------------------------------------


@scenario
async def test_the_same_call_is_answered_from_what_was_kept(tmp_path: Path) -> None:
    """The second call has the same body, costs nothing, never reaches the provider and says that it was a hit."""
    async with caching_gate(tmp_path, limits=(money(10**10),)) as running:
        first, second = await ask(running), await ask(running)
        posted = await allowances(running)

        assert (told(first), told(second)) == ("miss", "hit")
        assert second.content == first.content
        assert second.headers["content-type"] == first.headers["content-type"]
        assert second.headers["x-faregate-cost"] == "0"
        assert second.headers["x-faregate-model"] == "sim-1"
        assert second.headers["age"] == "0"
        assert second.headers["consumed-tokens"] == "0"
        assert first.headers["x-faregate-request-id"] != second.headers["x-faregate-request-id"]
        assert await served(running) == 1
        assert posted == {"lim_money": (COST, 0)}
        assert await outcomes(running) == {"hit": 1, "miss": 1, "refresh": 0, "late": 0}


@scenario
async def test_a_hit_is_one_record_that_says_what_it_saved(tmp_path: Path) -> None:
    """It names the request whose answer it was, has no place and no provider, and by default costs nothing."""
    async with caching_gate(tmp_path) as running:
        first, second = await ask(running), await ask(running, stream=None)
        settled, recalled = running.of(Settled)[0], running.of(Recalled)[0]

        assert (settled.cache, settled.saved_cost, settled.cost) == ("miss", 0, COST)
        assert recalled.id == second.headers["x-faregate-request-id"]
        assert (recalled.saved_cost, recalled.charge) == (COST, 0)
        assert (recalled.who.key, recalled.who.project, recalled.who.model) == ("key_caller", "search", "sim-1")
        assert (recalled.who.deployment, recalled.who.provider) == ("", "")
        assert json.loads(recalled.notes) == {"answer_of": first.headers["x-faregate-request-id"]}
        assert len(running.of(Intended)) == 1
        assert books_agree(running).totals().requests == 2


@pytest.mark.parametrize("wanted", [False, True])
@scenario
async def test_a_stream_is_replayed_as_it_came(tmp_path: Path, wanted: bool) -> None:
    """A stream's hit is the same events to the same end; one that asked for its usage is another call."""
    options = {"include_usage": True} if wanted else None
    async with caching_gate(tmp_path) as running:
        first, second = [await ask(running, stream=True, stream_options=options) for _ in range(2)]
        events = [line for line in second.text.split("\n") if line.startswith("data: ")]
        other = await ask(running, stream=True, stream_options=None if wanted else {"include_usage": True})

        assert (told(first), told(second), told(other)) == ("miss", "hit", "miss")
        assert second.content == first.content
        assert second.headers["content-type"].startswith("text/event-stream")
        assert events[-1] == "data: [DONE]"
        assert all(json.loads(each[6:])["object"] == "chat.completion.chunk" for each in events[:-1])
        assert any(json.loads(each[6:]).get("usage") for each in events[:-1]) is wanted


@scenario
async def test_a_stream_is_not_answered_with_a_whole_answer(tmp_path: Path) -> None:
    """The same question as a stream is another call."""
    async with caching_gate(tmp_path) as running:
        whole, stream = await ask(running), await ask(running, stream=True)
        assert (told(whole), told(stream)) == ("miss", "miss")
        assert await served(running) == 2


@scenario
async def test_a_receipt_tells_what_the_hit_cost(tmp_path: Path) -> None:
    """Where streams end with a receipt, that of a hit says that it cost nothing, and is kept in no answer."""
    store = HeldAnswers()
    async with caching_gate(tmp_path, store=store, stream_receipt=True) as running:
        first, second = await ask(running, stream=True), await ask(running, stream=True)
        receipts = [
            json.loads(line.removeprefix(": faregate "))
            for answer in (first, second)
            for line in answer.text.split("\n")
            if line.startswith(": faregate ")
        ]
        assert [each["cost"] for each in receipts] == ["0.00005", "0"]
        assert receipts[1]["request_id"] == second.headers["x-faregate-request-id"]
        assert [b": faregate" in each.body for each in store.kept.values()] == [False]


@scenario
async def test_notation_makes_no_difference(tmp_path: Path) -> None:
    """The same call written otherwise is the same call."""
    body = {"model": "sim-1", "messages": [{"role": "user", "content": steered("Grüße", **CALL)}], "max_tokens": 50}
    other = dict(reversed(body.items()))
    async with caching_gate(tmp_path) as running:
        answers = []
        for text in (json.dumps(body), json.dumps(other, ensure_ascii=False, indent=2)):
            headers = {"authorization": f"Bearer {secret('caller')}", "content-type": "application/json"}
            answers.append(await running.client.post("/v1/chat/completions", content=text.encode(), headers=headers))
        assert [told(each) for each in answers] == ["miss", "hit"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.5),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("max_tokens", 51),
        ("n", 2),
        ("seed", 7),
        ("user", "ann"),
        ("response_format", {"type": "json_object"}),
        ("messages", [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]),
    ],
)
@scenario
async def test_whatever_the_body_says_otherwise_is_another_call(tmp_path: Path, field: str, value: Any) -> None:
    """All of the body counts: sampling, tools, parts of content, caps."""
    async with caching_gate(tmp_path) as running:
        plain = await ask(running)
        other = await ask(running, **{field: value})
        assert (told(plain), told(other)) == ("miss", "miss")


@scenario
async def test_other_paths_and_versions_are_other_calls(tmp_path: Path) -> None:
    """The same body at another path, or under another query or version header, is not answered from there."""
    body = {"model": "sim-1", "messages": [{"role": "user", "content": steered(**CALL)}], "max_tokens": 50}
    headers = {"authorization": f"Bearer {secret('caller')}"}
    urls = (
        "/v1/chat/completions",
        "/v1/chat/completions?api-version=2024-06-01",
        "/openai/deployments/sim-1/chat/completions?api-version=2024-06-01",
    )
    async with caching_gate(tmp_path) as running:
        answers = [await running.client.post(url, json=body, headers=headers) for url in urls]
        answers.append(await running.client.post(urls[0], json=body, headers=headers | {"openai-beta": "x=1"}))
        again = [await running.client.post(url, json=body, headers=headers) for url in urls]
        credential = await running.client.post(f"{urls[1]}&subscription-key={secret('caller')}", json=body)
        assert [told(each) for each in answers] == ["miss"] * 4
        assert [told(each) for each in again] == ["hit"] * 3
        assert told(credential) == "hit"


@scenario
async def test_embeddings_are_kept_like_any_answer(tmp_path: Path) -> None:
    """Operations without output are answered from what was kept, too."""
    async with caching_gate(tmp_path) as running:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        body = {"model": "sim-1", "input": "one two three"}
        answers = [await running.client.post("/v1/embeddings", json=body, headers=headers) for _ in range(2)]
        assert [told(each) for each in answers] == ["miss", "hit"]
        assert answers[0].content == answers[1].content


@scenario
async def test_an_answer_has_its_time(tmp_path: Path) -> None:
    """After its time the provider is asked again."""
    async with caching_gate(tmp_path, CacheSettings(default="on", ttl_ms=300)) as running:
        first, second = await ask(running), await ask(running)
        await asyncio.sleep(0.35)
        third = await ask(running)
        assert [told(each) for each in (first, second, third)] == ["miss", "hit", "miss"]


# -- who says so -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "words", "headers", "expected"),
    [
        ("off", {}, {}, None),
        ("off", {}, {"cache-control": "no-cache"}, "off"),
        ("off", {}, {"x-faregate-cache": "on"}, "hit"),
        ("off", {}, {"openai-proxy-caching": "1"}, "hit"),
        ("off", {"key": "on"}, {}, "hit"),
        ("off", {"project": "on"}, {}, "hit"),
        ("off", {"stage": "on"}, {}, "hit"),
        ("on", {}, {}, "hit"),
        ("on", {}, {"x-faregate-cache": "off"}, "off"),
        ("on", {}, {"openai-proxy-caching": "0"}, "off"),
        ("on", {}, {"cache-control": "no-store"}, "off"),
        ("on", {}, {"x-faregate-cache": "on", "cache-control": "max-age=1, no-store"}, "off"),
        ("on", {}, {"cache-control": "no-cache"}, "miss"),
        ("on", {}, {"x-faregate-cache": "refresh"}, "miss"),
        ("on", {"key": "off"}, {"x-faregate-cache": "on"}, "off"),
        ("on", {"project": "off", "key": "on"}, {"x-faregate-cache": "on"}, "off"),
        ("on", {"stage": "off"}, {"x-faregate-cache": "refresh"}, "off"),
    ],
)
@scenario
async def test_who_turns_it_on_and_off(
    tmp_path: Path, default: str, words: dict[str, str], headers: dict[str, str], expected: str | None
) -> None:
    """Anybody may turn it on, an off of anybody holds, and the provider sees every call that is no hit."""
    caller = key(stage="prod", cache=words.pop("key", ""))
    names = {"project": "search", "stage": "prod"}
    caching = [(kind, "default", names[kind], word) for kind, word in words.items()]
    async with caching_gate(
        tmp_path, CacheSettings(default=default), keys=(caller,), caching=caching, stages={"prod": ("sim",)}
    ) as running:
        first, second = await ask(running, headers=headers), await ask(running, headers=headers)
        assert told(second) == expected
        assert told(first) == ("miss" if expected == "hit" else expected)
        assert await served(running) == (1 if expected == "hit" else 2)


@scenario
async def test_a_stage_of_the_file_speaks_for_everybody(tmp_path: Path) -> None:
    """A stage that the configuration file names is everybody's."""
    stages = {"prod": ("sim",)}
    async with caching_gate(
        tmp_path, ASKED, keys=(key(stage="prod"),), caching=[("stage", "", "prod", "on")], stages=stages
    ) as running:
        assert [told(await ask(running)) for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("caching", [None, ASKED])
@scenario
async def test_nothing_is_kept_that_nobody_asked_to_keep(tmp_path: Path, caching: CacheSettings | None) -> None:
    """By default the cache is off; where it is switched off for all, no header turns it on."""
    headers = {"x-faregate-cache": "on"} if caching is None else {}
    store = HeldAnswers()
    async with caching_gate(tmp_path, caching, store) as running:
        assert [told(await ask(running, headers=headers)) for _ in range(2)] == [None, None]
        assert (store.looked, store.kept) == (0, {})


@pytest.mark.parametrize(
    ("name", "value"), [("x-faregate-cache", "yes"), ("x-faregate-cache", ""), ("openai-proxy-caching", "true")]
)
@scenario
async def test_a_wish_that_is_none_is_refused(tmp_path: Path, name: str, value: str) -> None:
    """A header that cannot be meant is refused by its name, and nothing is sent."""
    async with caching_gate(tmp_path) as running:
        answer = await ask(running, headers={name: value})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "header_invalid")
        assert answer.json()["error"]["param"] == name
        assert await served(running) == 0


@scenario
async def test_a_new_answer_replaces_the_old_one(tmp_path: Path) -> None:
    """``refresh`` asks the provider, and what it says is what others get from then on."""
    async with caching_gate(tmp_path) as running:
        first = await ask(running)
        fresh = await ask(running, headers={"x-faregate-cache": "refresh"})
        third = await ask(running)
        assert [told(each) for each in (first, fresh, third)] == ["miss", "miss", "hit"]
        assert third.json()["id"] == fresh.json()["id"] != first.json()["id"]
        assert [each.cache for each in running.of(Settled)] == ["miss", "refresh"]


@scenario
async def test_no_header_of_the_cache_reaches_the_provider(tmp_path: Path) -> None:
    """What is said of our cache is nobody else's to hear."""
    async with caching_gate(tmp_path) as running:
        headers = {"x-faregate-cache": "refresh", "openai-proxy-caching": "1", "cache-control": "no-cache"}
        await ask(running, headers=headers)
        sent = dict((await truth(running))[0]["headers"])
        assert not {name.lower() for name in sent} & set(headers)


# -- who shares --------------------------------------------------------------------------------------------------------

ANN = key("ann", project="search")
SHARED: dict[str, Key] = {
    "same project": key("bob", project="search", team="other"),
    "other project": key("bob", project="other"),
    "no project": key("bob", project=""),
    "other organization": key("bob", organization="acme", project="search"),
    "other stage": key("bob", project="search", stage="prod"),
}
HITS = {
    "organization": {"same project", "other project", "no project"},
    "project": {"same project"},
    "key": set(),
    "end_user": set(),
}


@pytest.mark.parametrize("share", list(HITS))
@pytest.mark.parametrize("who", list(SHARED))
@scenario
async def test_who_shares_an_answer(tmp_path: Path, share: str, who: str) -> None:
    """An answer goes to those whom the configuration lets share it, and never beyond the organization and the stage."""
    cache = CacheSettings(default="on", share=share)
    async with caching_gate(
        tmp_path, cache, keys=(ANN, SHARED[who]), stages={"prod": ("sim",)}, breaker=NO_BREAKER
    ) as running:
        answers = [await ask(running, name=name) for name in ("ann", "bob", "ann", "bob")]
        shared = who in HITS[share]
        assert [told(each) for each in answers] == ["miss", "hit" if shared else "miss", "hit", "hit"]
        assert await served(running) == (1 if shared else 2)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"team": "a"}, {"team": "a"}, True),
        ({"team": "a"}, {"team": "b"}, False),
        ({"team": ""}, {"team": ""}, False),
        ({"team": "a"}, {"team": "a", "project": "search"}, False),
    ],
)
@scenario
async def test_callers_without_a_project(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], shared: bool
) -> None:
    """Without a project the team is what is shared, and without a team nothing is."""
    keys = (key("ann", **({"project": ""} | one)), key("bob", **({"project": ""} | other)))
    async with caching_gate(tmp_path, keys=keys) as running:
        await ask(running, name="ann")
        assert told(await ask(running, name="bob")) == ("hit" if shared else "miss")


@scenario
async def test_end_users_can_be_kept_apart(tmp_path: Path) -> None:
    """Shared by end user, an answer goes to the person it was made for, whichever key asks."""
    cache = CacheSettings(default="on", share="end_user")
    async with caching_gate(tmp_path, cache, keys=(key("ann"), key("bob"))) as running:
        asked = [("ann", "eve"), ("bob", "eve"), ("bob", "dan"), ("ann", "eve")]
        answers = [await ask(running, name=name, headers={"x-faregate-user": user}) for name, user in asked]
        assert [told(each) for each in answers] == ["miss", "hit", "miss", "hit"]


@scenario
async def test_a_project_that_a_request_names_is_what_counts(tmp_path: Path) -> None:
    """The project of a call, not of its key, decides whom its answer is shared with."""
    keys = (key("ann", project="search", may_set=("project",)), key("bob", project="other"))
    async with caching_gate(tmp_path, keys=keys) as running:
        await ask(running, name="ann", headers={"x-faregate-project": "other"})
        assert told(await ask(running, name="bob")) == "hit"
        assert told(await ask(running, name="ann")) == "miss"


@scenario
async def test_equal_prompts_of_two_tenants_share_nothing(tmp_path: Path) -> None:
    """Whatever order two organizations ask the same in, neither is ever given what the other was answered."""
    keys = (key("ann", organization="acme"), key("bob", organization="umbra"))
    store = HeldAnswers()
    async with caching_gate(tmp_path, store=store, keys=keys) as running:
        for turn in range(40):
            for name in ("ann", "bob"):
                answer = await ask(running, f"Question {turn % 20}.", name=name)
                assert told(answer) == ("miss" if turn < 20 else "hit")
        made = {each.id: each.who.organization for each in running.of(Intended)}
        hits = running.of(Recalled)
        assert len(hits) == 40
        assert all(made[json.loads(each.notes)["answer_of"]] == each.who.organization for each in hits)


# -- what is never kept ------------------------------------------------------------------------------------------------


#: What a provider may do that still leaves a whole, good answer.
HARMLESS = {name for name, fault in FAULTS.items() if fault.complete and name != "not_json"}


@pytest.mark.parametrize("fault", [*FAULTS, "status"])
@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_what_went_wrong_is_never_kept(tmp_path: Path, fault: str, stream: bool) -> None:
    """Errors, broken answers and errors within a stream are asked again, whatever the provider does."""
    store = HeldAnswers()
    steer: dict[str, Any] = {"status": 500} if fault == "status" else {"fault": fault}
    fields = {"first_byte_timeout_ms": 300, "idle_timeout_ms": 300, "total_timeout_ms": 2_000}
    async with caching_gate(tmp_path, store=store, breaker=NO_BREAKER, provider_fields=fields) as running:
        await script(running, {"model": "sim-1", "nth": [1, 2], "steer": steer})
        text = steered(**CALL)
        with contextlib.suppress(httpx2.HTTPError):
            await running.chat(text, stream=stream)
        await running.until(lambda: running.of(Settled) or running.of(Lost))
        ends = [each.status for each in running.of(Settled)]
        for kept in store.kept.values():
            assert ends == ["ok"]
            assert fault in HARMLESS
            if stream:
                events = [line[6:] for line in kept.body.decode().split("\n") if line.startswith("data: ")]
                assert all(json.loads(each) for each in events if each != "[DONE]")
            else:
                assert json.loads(kept.body)["choices"]


@scenario
async def test_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    """An answer beyond the bound passes as ever, and is asked again."""
    async with caching_gate(tmp_path, CacheSettings(default="on", answer_bytes_max=1_024)) as running:
        large = steered(prompt_tokens=10, output_tokens=2_000)
        assert [told(await running.chat(large, max_tokens=2_000)) for _ in range(2)] == ["miss", "miss"]
        assert [told(await ask(running)) for _ in range(2)] == ["miss", "hit"]


@scenario
async def test_generated_answers_can_be_left_out(tmp_path: Path) -> None:
    """Where it is so set, only what would be answered the same again is kept."""
    cache = CacheSettings(default="on", deterministic_only=True)
    async with caching_gate(tmp_path, cache) as running:
        assert [told(await ask(running)) for _ in range(2)] == ["off", "off"]
        assert [told(await ask(running, temperature=1)) for _ in range(2)] == ["off", "off"]
        assert [told(await ask(running, temperature=0)) for _ in range(2)] == ["miss", "hit"]


@scenario
async def test_an_answer_held_short_by_a_limit_is_nobody_elses(tmp_path: Path) -> None:
    """Where a caller's own limit caps an answer, the next one may get more."""
    limit = money(60_000, clamp=True)
    cache = CacheSettings(default="on", share="organization")
    keys = (key("ann"), key("bob", team="other"))
    async with caching_gate(tmp_path, cache, keys=keys, limits=(limit,), min_answer_tokens=1) as running:
        capped = await running.chat(steered(prompt_tokens=10, output_tokens=20), name="ann", max_tokens=None)
        other = await running.chat(steered(prompt_tokens=10, output_tokens=20), name="bob", max_tokens=None)
        assert "x-faregate-clamped" in capped.headers
        assert (told(capped), told(other)) == ("miss", "miss")


@scenario
async def test_a_client_that_leaves_keeps_half_an_answer_from_all(tmp_path: Path) -> None:
    """An answer that was not relayed to its end is not kept, and one that is read to its end is."""
    store = HeldAnswers()
    async with caching_gate(tmp_path, store=store, provider_fields={"client_gone": "estimate"}) as running:
        text = steered(prompt_tokens=10, output_tokens=40, delay_ms=20)
        body = {"model": "sim-1", "messages": [{"role": "user", "content": text}], "stream": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            async for _ in answer.aiter_bytes():
                break
        await running.until(lambda: running.of(Settled))
        assert running.of(Settled)[0].status == "aborted"
        assert store.kept == {}


# -- limits and money --------------------------------------------------------------------------------------------------


@scenario
async def test_a_revoked_key_gets_no_hit(tmp_path: Path) -> None:
    """What was kept is for callers that are let in."""
    async with caching_gate(tmp_path, keys=(key("ann"), key("bob"))) as running:
        await ask(running, name="ann")
        await running.ask(Load(2, keys=(key("bob", state="revoked"),)))
        refused = await ask(running, name="bob")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_revoked")


@scenario
async def test_hits_count_as_requests(tmp_path: Path) -> None:
    """A limit of requests holds hits like any call; a limit of tokens counts none of them."""
    limits = (
        money(3, window="hour", id="lim_requests", unit="requests"),
        money(10**6, window="hour", id="lim_tokens", unit="tokens"),
    )
    async with caching_gate(tmp_path, limits=limits) as running:
        answers = [await ask(running) for _ in range(4)]
        posted = await allowances(running)
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert posted == {"lim_requests": (3, 0), "lim_tokens": (30, 0)}
        await running.until(lambda: running.of(Refused))
        books_agree(running)


@pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 429)])
@scenario
async def test_hits_without_credit_are_a_choice(tmp_path: Path, allowed: bool, status: int) -> None:
    """An exhausted budget lets hits through where the configuration says so, and only hits."""
    limit = money(10**6)
    cache = CacheSettings(default="on", without_credit=allowed)
    async with caching_gate(tmp_path, cache, limits=(limit,)) as running:
        first = await running.chat(steered(**CALL), max_tokens=20)
        lowered = msgspec.structs.replace(limit, amount=COST - 1)
        await running.ask(Load(2, limits=(lowered,)))
        again = await running.chat(steered(**CALL), max_tokens=20)
        other = await running.chat(steered("Another.", **CALL), max_tokens=20)
        assert (told(first), again.status_code, other.status_code) == ("miss", status, 429)
        assert await served(running) == 1


@pytest.mark.parametrize(("percent", "due"), [(0, 0), (50, COST), (100, 2 * COST)])
@scenario
async def test_what_a_hit_is_charged(tmp_path: Path, percent: int, due: int) -> None:
    """The percentage of what the call would be charged, markup included: to the payer, for the operator's margin."""
    cache = CacheSettings(default="on", charge_percent=percent)
    twice = ChargeRule(markup_ppm=10**6)
    async with caching_gate(tmp_path, cache, limits=(money(10**10),), charges=(twice,)) as running:
        first, second = await ask(running), await ask(running)
        recalled = running.of(Recalled)[0]
        posted = await allowances(running)
        assert (told(first), told(second)) == ("miss", "hit")
        assert (recalled.charge, recalled.saved_cost) == (due, COST)
        assert posted == {"lim_money": (2 * COST + due, 0)}
        balances = books_agree(running).balances
        assert balances["margin"] == -(COST + due)


@scenario
async def test_a_charged_hit_is_held_to_the_budget(tmp_path: Path) -> None:
    """A hit that costs something is refused where that is more than is left."""
    cache = CacheSettings(default="on", charge_percent=100)
    async with caching_gate(tmp_path, cache, limits=(money(3 * COST - 1_000),)) as running:
        answers = [await running.chat(steered(**CALL), max_tokens=20) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert (await allowances(running)) == {"lim_money": (2 * COST, 0)}


@scenario
async def test_a_place_is_not_charged_for_what_it_did_not_answer(tmp_path: Path) -> None:
    """Limits of a deployment or a provider count no hits; those of the model do."""
    limits = (
        money(10, window="hour", id="lim_place", unit="requests", selector={"deployment": "sim/sim-1"}),
        money(10, window="hour", id="lim_model", unit="requests", selector={"model": "sim-1"}),
    )
    async with caching_gate(tmp_path, limits=limits) as running:
        for _ in range(3):
            await ask(running)
        assert await allowances(running) == {"lim_place": (1, 0), "lim_model": (3, 0)}


@pytest.mark.parametrize("durability", ["process", "power"])
@scenario
async def test_a_repeat_under_the_same_name_is_the_same_answer(tmp_path: Path, durability: str) -> None:
    """A hit that came with an idempotency key is what a repeat gets, also when the cache has forgotten it."""
    store = HeldAnswers()
    async with caching_gate(tmp_path, store=store, durability=durability) as running:
        await ask(running)
        hit = await ask(running, headers={"idempotency-key": "one"})
        store.kept.clear()
        repeat = await ask(running, headers={"idempotency-key": "one"})
        assert told(hit) == "hit"
        assert repeat.headers["idempotent-replayed"] == "true"
        assert repeat.content == hit.content
        assert await served(running) == 1
        assert running.of(Recalled)[0].idempotency_key == "one"


# -- stores that answer late -------------------------------------------------------------------------------------------


@scenario
async def test_a_store_may_answer_later(tmp_path: Path) -> None:
    """A call waits for the store and goes on with what it says."""
    store = HeldAnswers(late=True)
    async with caching_gate(tmp_path, store=store) as running:
        answers = []
        for _ in range(2):
            call = asyncio.create_task(ask(running))
            await running.until(lambda: store.asked)
            store.tell()
            answers.append(told(await call))
        assert answers == ["miss", "hit"]


@scenario
async def test_what_changes_meanwhile_decides(tmp_path: Path) -> None:
    """A key that is revoked while the store is asked gets no answer."""
    store = HeldAnswers(late=True)
    async with caching_gate(tmp_path, store=store) as running:
        for expected in (200, 401):
            call = asyncio.create_task(ask(running))
            await running.until(lambda: store.asked)
            if expected == 401:
                await running.ask(Load(2, keys=(key(state="revoked"),)))
            store.tell()
            assert (await call).status_code == expected


@scenario
async def test_a_client_that_left_is_not_looked_for(tmp_path: Path) -> None:
    """A call whose client goes away while the store is asked ends, and nothing is held or sent."""
    store = HeldAnswers(late=True)
    async with caching_gate(tmp_path, store=store, limits=(money(10**10),)) as running:
        call = asyncio.create_task(ask(running))
        await running.until(lambda: store.asked)
        call.cancel()
        await running.until(lambda: not running.gate.connections or True)
        await asyncio.sleep(0.05)
        store.tell()
        await asyncio.sleep(0.05)
        assert await served(running) == 0
        assert await allowances(running) == {"lim_money": (0, 0)}


# -- the same call many times at once ----------------------------------------------------------------------------------

FLIGHT = CacheSettings(default="on", single_flight=True)


async def together(running: RunningGate, count: int, text: str, **fields: Any) -> list[httpx2.Response]:
    """The same call many times at once."""
    return list(await asyncio.gather(*(running.chat(text, **fields) for _ in range(count))))


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_of_equal_calls_at_once_one_is_sent(tmp_path: Path, stream: bool) -> None:
    """The others wait for its answer, and are hits."""
    async with caching_gate(tmp_path, FLIGHT) as running:
        answers = await together(running, 10, steered(**CALL, delay_ms=20), stream=stream)
        assert sorted(told(each) or "" for each in answers) == ["hit"] * 9 + ["miss"]
        assert len({each.content for each in answers}) == 1
        assert await served(running) == 1
        books_agree(running)


@scenario
async def test_without_it_each_call_is_sent(tmp_path: Path) -> None:
    """Waiting for others is an option."""
    async with caching_gate(tmp_path) as running:
        answers = await together(running, 5, steered(**CALL, delay_ms=50))
        assert [told(each) for each in answers] == ["miss"] * 5


@scenario
async def test_where_the_first_one_fails_each_goes_alone(tmp_path: Path) -> None:
    """Nobody is given somebody else's error."""
    async with caching_gate(tmp_path, FLIGHT, breaker=NO_BREAKER) as running:
        await script(running, {"model": "sim-1", "nth": 1, "steer": {"status": 400, "first_delay_ms": 200}})
        answers = await together(running, 5, steered(**CALL))
        assert sorted(each.status_code for each in answers) == [200, 200, 200, 200, 400]


@scenario
async def test_where_the_first_one_is_refused_each_goes_alone(tmp_path: Path) -> None:
    """A refusal of the first caller is nobody else's: its followers are held to their own limits."""
    keys = (key("ann"), key("bob", team="other"))
    async with caching_gate(tmp_path, FLIGHT, keys=keys, limits=(money(0),)) as running:
        refused, answered = await asyncio.gather(ask(running, name="ann"), ask(running, name="bob"))
        assert (refused.status_code, answered.status_code) == (429, 200)


@scenario
async def test_a_follower_waits_no_longer_than_it_said(tmp_path: Path) -> None:
    """A caller's own deadline ends its waiting for others; then its own call is sent."""
    async with caching_gate(tmp_path, FLIGHT) as running:
        text = steered(**CALL, first_delay_ms=600)
        first = asyncio.create_task(running.chat(text))
        await asyncio.sleep(0.1)
        second = await running.chat(text, headers={"x-faregate-timeout": "100ms"})
        assert second.status_code == 504
        assert told(await first) == "miss"
        assert (await outcomes(running))["late"] == 1


# -- flushing ----------------------------------------------------------------------------------------------------------


@scenario
async def test_flushed_answers_are_asked_again(tmp_path: Path) -> None:
    """Answers with the labels that are named are gone, and the others stay."""
    keys = (key("ann", project="search"), key("bob", project="other"))
    async with caching_gate(tmp_path, keys=keys) as running:
        for name in ("ann", "bob"):
            await ask(running, name=name)
        flush = await running.ask(FlushCache(project="search"))
        assert isinstance(flush, Flush)
        assert await running.ask(AskFlush(flush.number)) == Flush(flush.number, True, 1)
        assert [told(await ask(running, name=name)) for name in ("ann", "bob")] == ["miss", "hit"]
        assert isinstance(await running.ask(FlushCache()), Flush)
        assert [told(await ask(running, name=name)) for name in ("ann", "bob")] == ["miss", "miss"]


@scenario
async def test_an_answer_that_began_before_a_flush_is_not_kept(tmp_path: Path) -> None:
    """What is on its way while answers are forgotten is forgotten, too."""
    store = HeldAnswers()
    async with caching_gate(tmp_path, store=store) as running:
        call = asyncio.create_task(running.chat(steered(**CALL, first_delay_ms=300)))
        await running.until(lambda: running.of(Intended))
        await running.ask(FlushCache())
        assert told(await call) == "miss"
        assert store.kept == {}


# -- routing -----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_name_that_leads_elsewhere_is_asked_anew(tmp_path: Path) -> None:
    """Where a name leads to another model, what the one before answered is not given any more."""
    places = (deployment("one", model="sim-1"), deployment("two", model="sim-2"))
    async with caching_gate(tmp_path, deployments=places, routes=(Route("sim-1", ("one",)),)) as running:
        assert [told(await ask(running)) for _ in range(2)] == ["miss", "hit"]
        catalogue = running.gate.snapshot.catalogue
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, routes=(Route("sim-1", ("two",)),))))
        assert [told(await ask(running)) for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize(("model", "kept"), [("sim-1", True), ("sim-2", False)])
@scenario
async def test_an_answer_of_a_stand_in_is_kept_where_it_is_the_same_model(
    tmp_path: Path, model: str, kept: bool
) -> None:
    """The same model at another place answers the same; another model was not what was looked for."""
    places = (deployment("one", upstream_model="sim-a"), deployment("two", upstream_model="sim-b", model=model))
    async with caching_gate(tmp_path, deployments=places, routes=(Route("sim-1", ("one", "two")),)) as running:
        await script(running, {"model": "sim-a", "nth": 1, "steer": {"status": 503}})
        first, second = await ask(running), await ask(running)
        assert first.headers["x-faregate-deployment"] == "two"
        assert (told(first), told(second)) == ("miss", "hit" if kept else "miss")


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_steps_of_a_route_have_answers_of_their_own(tmp_path: Path, stream: bool) -> None:
    """What a step puts into a call is part of what makes it the same: another parameter is another call (D9)."""

    def led(temperature: str) -> RoutedPool:
        return RoutedPool(PoolRule("main", (Member("sim/sim-1", params=(("temperature", temperature),)),)))

    route = Route("sim-1", ("sim/sim-1",), steps=("main",))
    async with caching_gate(tmp_path, pools=(led("0"),), routes=(route,)) as running:
        assert [told(await ask(running, stream=stream)) for _ in range(2)] == ["miss", "hit"]
        catalogue = running.gate.snapshot.catalogue
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, pools=(led("1"),))))
        assert [told(await ask(running, stream=stream)) for _ in range(2)] == ["miss", "hit"]
        await running.ask(Load(3, catalogue=catalogue))
        assert told(await ask(running, stream=stream)) == "hit"
        assert await served(running) == 2
