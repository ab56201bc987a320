"""Callers without keys: tokens of configured issuers at a real gate, hostile ones, and keys that change (G23)."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.exceptions import InvalidStatus

from builders import HeldClock
from faregate.control import IssuerKeys, Load, TellIssuerKeys, WantedIssuerKeys
from faregate.core.ledger.events import Intended, Refused
from faregate.core.tokens import Identity
from faregate.errors import Problem
from faregate.proxy import tokens
from faregate.proxy.tokens import CallerTokens, TokenKey
from gates import RunningGate, money, running_gate, scenario, truth
from issuers import AUDIENCE, ISSUER, NOW, Signer, b64, hostile, rules
from realtimes import TEXT, raw, realtime_gate

SECOND = 1_000_000_000
MILLIDOLLAR = 1_000_000


@cache
def signer(kid: str = "k1", algorithm: str = "RS256") -> Signer:
    """The same key for the same name."""
    return Signer.make(kid, algorithm)


def told(*signers: Signer, at: int = NOW, issuer: str = "entra", **members: Any) -> IssuerKeys:
    return IssuerKeys(issuer, tuple(one.jwk(**members) for one in signers), at)


def known(*signers: Signer, **fields: Any) -> CallerTokens:
    """Issuers that have published these keys."""
    desk = CallerTokens(Identity((rules(**fields),)))
    desk.take([told(*(signers or (signer(),)))])
    return desk


def named(desk: CallerTokens, token: str, now: int = NOW) -> str:
    """Whom a token opens the gate to, or the word that it is refused with."""
    found = desk.identify(token.encode(), now)
    if isinstance(found, TokenKey):
        return found.id
    return str((found.details or {}).get("reason", found.code))


# -- verification ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
)
def test_good_tokens_open_the_gate(algorithm: str) -> None:
    """One of each kind of key."""
    one = signer("k1", algorithm)

    assert named(known(one, algorithms=(algorithm,)), one.token()) == "tok_entra:app-1"


def test_no_hostile_token_is_accepted() -> None:
    """Over 300 of them, with a gate that has keys of three kinds: no false accept, and each told by the right word."""
    mine = (signer(), signer("k2", "ES256"), signer("k3", "ES384"), signer("k4"))
    desk = known(*mine)
    bad = list(hostile(mine[0], mine[1], signer("k9"), mine[2]))
    wrong = [each.name for each in bad if named(desk, each.token) not in each.reasons]

    assert len(bad) >= 300
    assert wrong == []
    assert {named(desk, one.token()) for one in mine} == {"tok_entra:app-1"}


def test_keys_that_overlap_lose_nobody() -> None:
    """Three keys come and go as issuers change them: every token is good for as long as its key is published."""
    keys = [signer(f"r{number}") for number in range(6)]
    desk = known(*keys[:3])
    false_rejects = []
    for step in range(4):
        published = keys[step : step + 3]
        desk.take([told(*published, at=NOW + step)])
        for round in range(50):
            token = published[round % 3].token(None, {"jti": f"{step}-{round}"})
            false_rejects += [(step, round) for _ in range(2) if named(desk, token) != "tok_entra:app-1"]

    assert false_rejects == []


def test_what_a_key_has_proved_goes_with_it() -> None:
    """A token that was verified is refused once its key is published no more."""
    old, new = signer("k1"), signer("k2")
    desk, token = known(old), old.token()
    before = named(desk, token)
    desk.take([told(new, at=NOW + 1)])

    assert (before, named(desk, token)) == ("tok_entra:app-1", "kid")


def test_another_key_under_an_old_name_is_another_key() -> None:
    """What the one before it proved is not proved by it."""
    old, new = signer("k1"), Signer("k1", "RS256", signer("k2").private)
    desk, token = known(old), old.token()
    named(desk, token)
    desk.take([told(new, at=NOW + 1)])

    assert (named(desk, token), named(desk, new.token())) == ("sig", "tok_entra:app-1")


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ({"kty": "oct", "k": "x", "kid": "k1"},),
        ({"kid": "k1"},),
        ({"kty": "RSA", "kid": "k1", "n": "AQ", "e": "AQAB"},),
    ],
)
def test_a_broken_key_set_changes_nothing(keys: tuple[dict[str, Any], ...]) -> None:
    """An issuer that publishes nothing usable for a moment locks nobody out."""
    desk = known()
    desk.take([IssuerKeys("entra", keys, NOW + 1)], ("entra",))

    assert named(desk, signer().token()) == "tok_entra:app-1"


def test_small_and_private_keys_are_not_used() -> None:
    """An RSA key that can be broken proves nothing, and neither does one whose private half is published."""
    small = Signer.make("k1", "RS256", 1024)
    desk = CallerTokens(Identity((rules(),)))
    desk.take([told(small, at=1), told(signer(), at=2, d="x")])

    assert named(desk, small.token()) == "issuer_unavailable"


def test_keys_are_trusted_for_a_day() -> None:
    """An issuer that cannot be reached keeps its callers until then; after it they are told to come back."""
    desk, day = known(), 24 * 3600
    token = signer().token(None, {"exp": NOW // SECOND + 2 * day})
    other = signer().token(None, {"exp": NOW // SECOND + 2 * day, "jti": "2"})

    assert named(desk, token, NOW + (day - 1) * SECOND) == "tok_entra:app-1"
    assert named(desk, other, NOW + day * SECOND) == "issuer_unavailable"


def test_a_verified_token_ends_when_it_expires() -> None:
    """What is remembered of it ends at the same moment, to the second."""
    desk, token = known(), signer().token(None, {"exp": NOW // SECOND + 10})

    assert [named(desk, token, NOW + seconds * SECOND) for seconds in (0, 69, 70)] == ["tok_entra:app-1"] * 2 + ["exp"]


def test_as_many_tokens_are_remembered_as_there_is_room_for() -> None:
    """The one that was used longest ago is forgotten first, and is verified again when it comes back."""
    desk = known(signer("k2", "ES256"))
    desk._verified.update(
        (hashlib.sha256(b"%d" % number).digest(), tokens._Remembered(TokenKey("tok_x", "", {}, "x"), b""))
        for number in range(tokens.REMEMBERED_MAX)
    )
    named(desk, signer("k2", "ES256").token())

    assert len(desk._verified) == tokens.REMEMBERED_MAX


def test_denied_tokens_are_refused_by_their_id() -> None:
    """Whoever signed them, and before they expire."""
    desk = CallerTokens(Identity((rules(),), ("stolen", "1")))
    desk.take([told(signer())])
    tokens = [signer().token(None, {"jti": jti}) for jti in ("stolen", "other", 1, ["stolen"])]

    assert [named(desk, token) for token in tokens] == [
        "key_revoked",
        "tok_entra:app-1",
        "key_revoked",
        "tok_entra:app-1",
    ]


def test_one_issuer_may_stand_for_several_kinds_of_callers() -> None:
    """By audience, and by claims that are required: the first entry whose rules a token meets says what it is."""
    entries = (
        rules(name="admins", require=(("roles", ("admin",)),), team="platform"),
        rules(name="staff", require=(("roles", ("staff",)),), team="office"),
        rules(name="robots", audiences=("api://robots",), team="robots"),
    )
    desk = CallerTokens(Identity(entries))
    desk.take([told(signer(), issuer=one.name) for one in entries])
    claims: list[dict[str, Any]] = [
        {"roles": ["staff"]},
        {"roles": ["admin", "staff"]},
        {"aud": "api://robots"},
        {},
        {"aud": "x"},
    ]
    found = [named(desk, signer().token(None, each)) for each in claims]

    assert found == ["tok_staff:app-1", "tok_admins:app-1", "tok_robots:app-1", "role_forbidden", "aud"]


def test_a_token_without_a_key_name_needs_a_single_key() -> None:
    """Where only one published key fits its algorithm it must be that one."""
    token = signer().token({"kid": None})

    assert named(known(signer(), signer("k2", "ES256")), token) == "tok_entra:app-1"
    assert named(known(signer(), signer("k4")), token) == "kid"


def test_a_token_without_a_key_name_may_be_of_the_next_key() -> None:
    """Where the only key does not fit it is looked whether there is another one now."""
    desk, token = known(), signer("k2").token({"kid": None})

    assert (named(desk, token), desk.wanted()[0]) == ("kid", ("entra",))
    desk.take([told(signer("k2"), at=NOW + 1)], ("entra",))
    assert named(desk, token) == "tok_entra:app-1"


@pytest.mark.parametrize(
    ("header", "pad", "word"),
    [({"alg": "none"}, 0, "alg"), ({"crit": ["x"]}, 0, "crit"), ({}, 0, "iss"), ({}, 9_000, "size")],
)
def test_without_an_issuer_a_token_is_told_what_is_wrong_with_it(header: dict[str, Any], pad: int, word: str) -> None:
    """Its own fault first; one that is well-formed is of nobody."""
    token = signer().token(header, {"pad": "x" * pad})

    assert tokens.of_nobody(token.encode()).message == f"Token refused: {word}."


# -- names of keys that nobody knows -----------------------------------------------------------------------------------


def test_a_flood_of_unknown_keys_makes_one_look_in_ten_seconds() -> None:
    """100,000 tokens that each name another key within 100 seconds: at most ten looks, and good ones are untouched."""
    desk = known()
    few = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW // SECOND + 3600}
    body, signature = b64(few), b64(b"x" * 256)
    good, looks, hurt = signer().token(), 0, 0
    for number in range(100_000):
        now = NOW + number * SECOND // 1_000
        head = b64(f'{{"alg":"RS256","kid":"random-{number}"}}')
        assert named(desk, f"{head}.{body}.{signature}", now) == "kid"
        if desk.wanted()[0]:
            looks += 1
            desk.take([], ("entra",))
        if number % 1_000 == 0:
            hurt += named(desk, good, now) != "tok_entra:app-1"

    assert (looks, hurt) == (10, 0)


def test_the_look_after_a_start_takes_nothing_from_a_key_that_is_new() -> None:
    """The first token of a new gate has keys fetched; when they change a second later, they are looked at again."""
    desk = CallerTokens(Identity((rules(),)))
    assert named(desk, signer().token()) == "issuer_unavailable"
    assert named(desk, signer().token(), NOW + SECOND) == "issuer_unavailable"
    first = desk.wanted()[0]
    desk.take([told(signer())], ("entra",))
    assert named(desk, signer("k2").token(), NOW + SECOND) == "kid"

    assert (first, desk.wanted()) == (("entra",), (("entra",), ()))


def test_tokens_that_are_bad_anyway_make_no_look() -> None:
    """Only one that is ours, in force and well-formed may make the console ask its issuer."""
    desk = known()
    stranger = signer("k9")
    for claims in ({"aud": "api://other"}, {"exp": 1}, {"iss": "https://evil.example"}, {"nbf": NOW}):
        named(desk, stranger.token(None, claims))
    for header in ({"alg": "HS256"}, {"crit": ["x"]}, {"typ": "x"}):
        named(desk, stranger.token(header))

    assert desk.wanted() == ((), ())


@asynccontextmanager
async def gate_of(folder: Path, *signers: Signer, **fields: Any) -> AsyncIterator[RunningGate]:
    """A running gate that knows an issuer, and its keys where some are given."""
    entry = fields.pop("entry", rules())
    clock = HeldClock(NOW)
    async with running_gate(folder, identity=Identity((entry,)), clock=clock, **fields) as running:
        if signers:
            await running.ask(TellIssuerKeys((told(*signers),)))
        yield running


async def call(running: RunningGate, token: str, **fields: Any) -> Any:
    return await running.chat(headers={"authorization": f"Bearer {token}"} | fields.pop("headers", {}), **fields)


@scenario
async def test_a_call_waits_for_the_key_of_its_token(tmp_path: Path) -> None:
    """An issuer that changed its key without a word loses nobody: the call is answered when the key has come."""
    async with gate_of(tmp_path, signer()) as running:
        waiting = asyncio.create_task(call(running, signer("k2").token()))
        large = asyncio.create_task(call(running, signer("k2").token(), text="x" * 200_000))
        wanted: list[WantedIssuerKeys] = []

        async def asked() -> None:
            while not wanted or not wanted[-1].unknown or running.gate.issuers._waiting < 2:  # type: ignore[union-attr]
                reply = await running.ask(TellIssuerKeys())
                assert isinstance(reply, WantedIssuerKeys)
                wanted.append(reply)
                await asyncio.sleep(0.01)

        await asyncio.wait_for(asked(), 5)
        await running.ask(TellIssuerKeys((told(signer(), signer("k2"), at=NOW + 1),), ("entra",)))
        answers = await asyncio.gather(waiting, large)

        assert wanted[-1].unknown == ("entra",)
        assert [answer.status_code for answer in answers] == [200, 200]


@scenario
async def test_a_call_whose_key_does_not_come_is_refused(tmp_path: Path) -> None:
    """As soon as the console has looked and found nothing; the next one for ten seconds does not even wait."""
    async with gate_of(tmp_path, signer()) as running:
        waiting = asyncio.create_task(call(running, signer("k2").token()))
        await running.until(lambda: running.gate.issuers._waiting)  # type: ignore[union-attr]
        await running.ask(TellIssuerKeys((), ("entra",)))
        first, second = await waiting, await call(running, signer("k3").token())
        error = first.json()["error"]

        assert (first.status_code, error["code"], error["message"]) == (401, "jwt_invalid", "Token refused: kid.")
        assert (second.status_code, running.gate.issuers._waiting) == (401, 0)  # type: ignore[union-attr]


@scenario
async def test_a_call_whose_client_leaves_waits_for_nobody(tmp_path: Path) -> None:
    """Nothing is sent for it when the key comes."""
    async with gate_of(tmp_path, signer()) as running:
        gone = asyncio.create_task(call(running, signer("k2").token()))
        await running.until(lambda: running.gate.issuers._waiting)  # type: ignore[union-attr]
        gone.cancel()
        await running.until(lambda: not running.gate.connections)
        await running.ask(TellIssuerKeys((told(signer("k2"), at=NOW + 1),), ("entra",)))

        assert (await call(running, signer("k2").token())).status_code == 200
        assert len(await truth(running)) == 1


class Timers:
    """The part of an event loop that is asked to call back later."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Any, tuple[Any, ...]]] = []

    def call_later(self, seconds: float, callback: Any, *arguments: Any) -> Any:
        """Remember it."""
        self.set.append((seconds, callback, arguments))
        return self

    def cancel(self) -> None:
        """As its handle."""


def test_a_call_waits_a_bounded_time_among_a_bounded_number() -> None:
    """Whoever is one too many is refused at once; who waited in vain is judged by what is known then, once."""
    desk, timers, judged = known(), Timers(), []
    problem = desk.identify(signer("k2").token().encode(), NOW)
    assert isinstance(problem, Problem)
    waits = [
        desk.wait(problem, lambda: judged.append(1), timers)  # type: ignore[arg-type]
        for _ in range(tokens.WAITING_MAX + 1)
    ]
    for seconds, callback, arguments in timers.set:
        assert seconds == tokens.WAIT_SECONDS
        callback(*arguments)

    large = [desk.wait(problem, print, timers, tokens.WAITING_BYTES_MAX - more) for more in (-1, 0, 0)]  # type: ignore[arg-type]

    assert waits == [True] * tokens.WAITING_MAX + [False]
    assert large == [False, True, False]
    assert (len(judged), desk.take([], ("entra",))) == (tokens.WAITING_MAX, [print])
    assert (desk._waiting, desk._waiting_bytes) == (0, 0)


@scenario
async def test_before_the_first_keys_tokens_are_asked_to_come_back(tmp_path: Path) -> None:
    """A cold start with an issuer that is down: 503 for its tokens, and keys work as ever."""
    async with gate_of(tmp_path) as running:
        waiting = asyncio.create_task(call(running, signer().token()))
        await running.until(lambda: running.gate.issuers._waiting)  # type: ignore[union-attr]
        await running.ask(TellIssuerKeys((), ("entra",)))
        answer, with_key = await waiting, await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "issuer_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert with_key.status_code == 200


# -- what a token's caller is ------------------------------------------------------------------------------------------


@scenario
async def test_a_tokens_caller_is_charged_and_limited_like_a_key(tmp_path: Path) -> None:
    """Its client is the key, its person the end user, tenant and application are tags; limits hold by any of them."""
    limits = (
        money(1, selector={"key": "tok_entra:app-2"}, id="lim_client"),
        money(1, selector={"tag.tenant": "tenant-9"}, id="lim_tenant"),
        money(1, selector={"end_user": "person-9"}, id="lim_person"),
    )
    async with gate_of(tmp_path, signer(), limits=limits) as running:
        good = await call(running, signer().token())
        claims = ({"azp": "app-2"}, {"tid": "tenant-9"}, {"oid": "person-9"})
        refused = [await call(running, signer().token(None, each)) for each in claims]
        who = running.of(Intended)[0].who

        assert good.status_code == 200
        assert [answer.json()["error"]["code"] for answer in refused] == ["budget_exhausted"] * 3
        assert (who.organization, who.team, who.project, who.key) == (
            "default",
            "research",
            "search",
            "tok_entra:app-1",
        )
        assert (who.end_user, who.identity_source) == ("person-1", "jwt")
        assert who.tags == (("application", "app-1"), ("tenant", "tenant-1"))


@scenario
async def test_two_people_of_one_application_are_told_apart(tmp_path: Path) -> None:
    """On one connection, with one head but for the token."""
    async with gate_of(tmp_path, signer()) as running:
        for person in ("ada", "bob", "ada"):
            await call(running, signer().token(None, {"oid": person}))

        assert [intent.who.end_user for intent in running.of(Intended)] == ["ada", "bob", "ada"]


@scenario
async def test_what_one_person_was_answered_is_not_told_to_another(tmp_path: Path) -> None:
    """Under one name and with one body: for another person of the same application it is a conflict, and no replay."""
    async with gate_of(tmp_path, signer()) as running:
        name = {"idempotency-key": "once"}
        answers = [
            await call(running, signer().token(None, {"oid": person, "jti": jti}), headers=name)
            for person, jti in (("ada", "1"), ("ada", "2"), ("bob", "3"))
        ]

        assert [answer.status_code for answer in answers] == [200, 200, 409]
        assert answers[1].headers["idempotent-replayed"] == "true"
        assert len(await truth(running)) == 1


@scenario
async def test_claims_choose_payers_where_the_configuration_says_so(tmp_path: Path) -> None:
    """Team and user from claims, the issuer's own where a token has none."""
    entry = rules(
        claims=(("client", ("client_id",)), ("end_user", ("sub",)), ("team", ("department",)), ("user", ("upn",)))
    )
    async with gate_of(tmp_path, signer(), entry=entry) as running:
        await call(
            running, signer().token(None, {"client_id": "robot", "department": "sales", "upn": "ada@example.org"})
        )
        await call(running, signer().token(None, {"azp": None}))
        first, second = (intent.who for intent in running.of(Intended))

        assert (first.key, first.team, first.user, first.end_user) == (
            "tok_entra:robot",
            "sales",
            "ada@example.org",
            "pairwise-1",
        )
        assert (second.key, second.team, second.user) == ("tok_entra:unknown", "research", "")


@scenario
async def test_a_tokens_caller_may_do_what_its_issuer_says(tmp_path: Path) -> None:
    """Models, operations and what requests say of themselves are the issuer's to allow; its tags are the token's."""
    entry = rules(models=("sim-9",), operations=("chat.completions",))
    async with gate_of(tmp_path, signer(), entry=entry) as running:
        token = signer().token()
        bearer = {"authorization": f"Bearer {token}"}
        model = await call(running, token)
        other = await running.client.post("/v1/embeddings", json={"model": "sim-1", "input": "x"}, headers=bearer)
        user = await call(running, token, headers={"x-faregate-user": "eve"})
        tag = await call(running, token, headers={"x-faregate-tags": "tenant=other"})
        codes = [answer.json()["error"]["code"] for answer in (model, other, user, tag)]

        assert codes == ["model_forbidden", "operation_forbidden", "field_forbidden", "field_forbidden"]
        assert [event.code for event in running.of(Refused)] == []


@scenario
async def test_a_token_opens_a_realtime_session(tmp_path: Path) -> None:
    """Also one whose key is fetched meanwhile; a bad one gets an ordinary answer, and turns are its person's."""
    async with realtime_gate(tmp_path, identity=Identity((rules(),)), clock=HeldClock(NOW)) as running:
        await running.ask(TellIssuerKeys((told(signer()),)))
        bearer = {"authorization": f"Bearer {signer('k2').token()}"}
        opening = asyncio.create_task(raw(running, headers=bearer).__aenter__())
        await running.until(lambda: running.gate.issuers._waiting)  # type: ignore[union-attr]
        await running.ask(TellIssuerKeys((told(signer("k2"), at=NOW + 1),), ("entra",)))
        session = await opening
        await session.recv()
        await session.send(json.dumps({"type": "session.update", "session": TEXT}))
        await session.send(json.dumps({"type": "response.create"}))
        await running.until(lambda: running.of(Intended))
        await session.close()
        with pytest.raises(InvalidStatus) as refused:
            async with raw(running, headers={"authorization": f"Bearer {signer('k2').token(None, {'exp': 1})}"}):
                pass
        who = running.of(Intended)[0].who

        assert (who.key, who.end_user, who.identity_source) == ("tok_entra:app-1", "person-1", "jwt")
        assert who.tags == (("application", "app-1"), ("tenant", "tenant-1"))
        assert refused.value.response.status_code == 401


@scenario
async def test_tokens_are_bearers_and_nothing_else(tmp_path: Path) -> None:
    """Not in the headers and queries that carry keys: those end up in logs."""
    async with gate_of(tmp_path, signer()) as running:
        token, body = signer().token(), {"model": "sim-1", "messages": [{"role": "user", "content": "x"}]}
        refused = [
            await running.client.post("/v1/chat/completions", json=body, headers={name: value})
            for name, value in (
                ("api-key", token),
                ("x-api-key", token),
                ("authorization", token),
                ("authorization", f"Basic {token}"),
            )
        ]
        refused.append(await running.client.post(f"/v1/chat/completions?subscription-key={token}", json=body))

        assert [answer.json()["error"]["code"] for answer in refused] == ["auth_malformed"] * 5


@scenario
async def test_bad_tokens_are_told_by_one_word(tmp_path: Path) -> None:
    """Over the wire: 401, the word, and a request that costs nothing (P88)."""
    mine, stranger = signer(), Signer("k1", "RS256", signer("k9").private)
    head, body, _ = mine.token().split(".")
    none = f"{b64(mine.header(alg='none'))}.{body}."
    bad = {
        "alg": none,
        "crit": mine.token({"crit": ["x"]}),
        "aud": mine.token(None, {"aud": "api://other"}),
        "exp": mine.token(None, {"exp": 1}),
        "nbf": mine.token(None, {"nbf": NOW // SECOND + 3600}),
        "iss": mine.token(None, {"iss": "https://evil.example"}),
        "sig": stranger.token({"jku": "https://evil.example/keys"}),
        "size": mine.token(None, {"pad": "x" * 9 * 1024}),
        "format": f"{head}.{body}.==",
    }
    async with gate_of(tmp_path, mine) as running:
        answers = {word: await call(running, token) for word, token in bad.items()}
        told = {word: answer.json()["error"] for word, answer in answers.items()}

        assert {answer.status_code for answer in answers.values()} == {401}
        assert {word: error["message"] for word, error in told.items()} == {w: f"Token refused: {w}." for w in bad}
        assert {error["code"] for error in told.values()} == {"jwt_invalid"}
        assert (running.of(Intended), await truth(running)) == ([], [])


@scenario
async def test_a_token_never_leaves_the_gate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the provider, nor a log, nor an answer, nor the journal shows any part of one."""
    async with gate_of(tmp_path, signer()) as running:
        good, bad = signer().token(), signer("k1").token(None, {"exp": 1, "secret": "canary"})
        answers = [await call(running, good), await call(running, bad)]
        seen = (
            caplog.text
            + repr(await truth(running))
            + "".join(answer.text for answer in answers)
            + repr(running.events())
        )

        assert [answer.status_code for answer in answers] == [200, 401]
        assert not any(part in seen for token in (good, bad) for part in token.split("."))


@scenario
async def test_other_issuers_take_over_without_a_restart(tmp_path: Path) -> None:
    """A new catalogue brings new rules; keys of an issuer that stays are kept, what was verified is judged anew."""
    async with gate_of(tmp_path, signer()) as running:
        token = signer().token()
        before = await call(running, token)
        catalogue = running.gate.snapshot.catalogue
        stricter = replace(catalogue, identity=Identity((rules(require=(("roles", ("x",)),)),)))
        await running.ask(Load(2, catalogue=stricter))
        after = await call(running, token)
        await running.ask(Load(3, catalogue=replace(catalogue, identity=None)))
        gone = await call(running, token)

        assert [answer.status_code for answer in (before, after, gone)] == [200, 403, 401]
        assert gone.json()["error"]["message"] == "Token refused: iss."
