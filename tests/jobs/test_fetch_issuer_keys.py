"""Keys of issuers come to the gate: fetched in a rhythm and on demand, never more often, kept while nobody answers."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faregate.control import IssuerKeys, TellIssuerKeys, WantedIssuerKeys
from faregate.core.tokens import Issuer
from faregate.errors import Failed, Unavailable
from faregate.jobs.fetch_issuer_keys import AGAIN_NANOS, ANSWER_BYTES_MAX, REFRESH_NANOS, IssuerKeyFetcher, fetch_keys
from gates import scenario
from issuers import rules

SECOND = 1_000_000_000
DISCOVERY = "/.well-known/openid-configuration"
KEY = {"kty": "RSA", "kid": "k1", "n": "x", "e": "AQAB", "x5c": ["MIIB"], "issuer": "x"}
#: A discovery document that leads to the keys.
FOUND = {"issuer": "{url}", "jwks_uri": "{url}/keys"}


class Rig:
    """A fetcher with a clock of its own, an issuer that answers what it is told to, and a gate that listens."""

    def __init__(self, *issuers: Issuer) -> None:
        self.issuers = list(issuers or (rules(),))
        self.now = 1_000 * SECOND
        self.fetched: list[tuple[str, int]] = []
        self.answer: Callable[[], Any] = lambda: (KEY,)
        #: Cleared, an issuer does not answer until it is set.
        self.answers = asyncio.Event()
        self.answers.set()
        self.reply: WantedIssuerKeys | Exception = WantedIssuerKeys()
        self.told: list[TellIssuerKeys] = []
        self.fetcher = IssuerKeyFetcher(
            lambda: self.issuers, self._tell, self._fetch, lambda: self.now + 7, lambda: self.now
        )

    async def _fetch(self, issuer: Issuer) -> Any:
        self.fetched.append((issuer.name, self.now))
        await self.answers.wait()
        await asyncio.sleep(0)
        return self.answer()

    async def _tell(self, order: TellIssuerKeys) -> WantedIssuerKeys:
        if isinstance(self.reply, Exception):
            raise self.reply
        self.told.append(order)
        return self.reply

    async def round(self, seconds: float = 0.25) -> TellIssuerKeys | None:
        """One round later; returns what the gate was told in it."""
        self.now += int(seconds * SECOND)
        before = len(self.told)
        await self.fetcher.run()
        await asyncio.sleep(0.001)
        return self.told[before] if len(self.told) > before else None


def unreachable() -> Any:
    raise Failed("it does not answer")


@scenario
async def test_keys_are_fetched_at_the_start_and_every_few_minutes() -> None:
    """Each set goes to the gate once, with the moment at which it was true."""
    rig = Rig()
    told = [await rig.round() for _ in range(4)]
    first = told[1]
    for _ in range(3):
        await rig.round(REFRESH_NANOS / SECOND)

    assert first is not None
    assert first == TellIssuerKeys((IssuerKeys("entra", (KEY,), 1_000 * SECOND + SECOND // 2 + 7),), ("entra",))
    assert [each.sets for each in told if each is not None][2:] == [(), ()]
    assert len(rig.fetched) == 4


@scenario
async def test_unknown_keys_make_one_look_in_ten_seconds() -> None:
    """However often the gate says that it misses one; it is told of each look that ended."""
    rig = Rig()
    await rig.round()
    await rig.round()
    rig.reply = WantedIssuerKeys(unknown=("entra",))
    answered = [order.answered for _ in range(400) if (order := await rig.round()) is not None]
    moments = [at for _, at in rig.fetched[1:]]
    gaps = [after - before for before, after in itertools.pairwise(moments)]

    assert len(moments) in (10, 11)
    assert min(gaps) >= AGAIN_NANOS
    assert answered.count(("entra",)) in (len(moments) - 1, len(moments))


@scenario
async def test_an_unknown_key_is_looked_for_at_once_after_a_look_in_the_rhythm() -> None:
    """That look takes nothing from what tokens may ask: a key that changed a second later is found."""
    rig = Rig()
    await rig.round()
    await rig.round(1)
    rig.reply = WantedIssuerKeys(unknown=("entra",))
    await rig.round(1)
    rig.reply = WantedIssuerKeys()
    await rig.round(1)

    assert len(rig.fetched) == 2


@scenario
async def test_a_look_for_want_of_any_keys_is_none_for_a_key_that_is_new() -> None:
    """A token came before the first keys were there; a second later the issuer has others, and they are fetched."""
    rig = Rig()
    rig.reply = WantedIssuerKeys(unknown=("entra",), missing=("entra",))
    for _ in range(3):
        await rig.round()

    assert len(rig.fetched) == 2


@scenario
async def test_a_token_that_came_while_the_first_keys_were_fetched_makes_no_other_look() -> None:
    """They are what it waited for; the first token with a key that is new later still has its own look, at once."""
    rig = Rig()
    rig.answers.clear()
    rig.reply = WantedIssuerKeys(unknown=("entra",), missing=("entra",))
    for _ in range(3):
        await rig.round()
    rig.reply = WantedIssuerKeys()
    rig.answers.set()
    await asyncio.sleep(0.001)
    for _ in range(3):
        await rig.round()
    before = len(rig.fetched)
    rig.reply = WantedIssuerKeys(unknown=("entra",))
    await rig.round()

    assert (before, len(rig.fetched)) == (1, 2)


@scenario
async def test_an_issuer_that_is_down_is_asked_again_and_nothing_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """Once in ten seconds, told in the log once; what was fetched before stays the gate's."""
    rig = Rig()
    await rig.round()
    await rig.round()
    rig.answer = unreachable
    await rig.round(REFRESH_NANOS / SECOND)
    orders = [await rig.round() for _ in range(200)]
    warned = [record for record in caplog.records if record.message == "issuer_keys_not_fetched"]
    rig.answer = lambda: ({**KEY, "kid": "k2"},)
    later = [await rig.round(5) for _ in range(4)]

    assert 5 <= len([1 for _, at in rig.fetched if at > 1_300 * SECOND]) <= 9
    assert not any(order.sets for order in orders if order is not None)
    assert len(warned) == 1
    assert [order.sets[0].keys[0]["kid"] for order in later if order is not None and order.sets] == ["k2"]


@scenario
async def test_a_new_gate_is_told_everything_again() -> None:
    """One that knows no keys gets those that are known, without another look."""
    rig = Rig(rules(), rules(name="other", issuer="https://other.example"))
    for _ in range(3):
        await rig.round()
    rig.reply = WantedIssuerKeys(missing=("entra", "other", "unheard-of"))
    await rig.round()
    rig.reply = WantedIssuerKeys()
    again = await rig.round()

    assert again is not None
    assert [each.issuer for each in again.sets] == ["entra", "other"]
    assert len(rig.fetched) == 2


@scenario
async def test_while_the_gate_is_away_nothing_is_lost() -> None:
    """Keys and looks that ended are told when it is back."""
    rig = Rig()
    rig.reply = Unavailable("the gate is not running")
    for _ in range(3):
        await rig.round()
    rig.reply = WantedIssuerKeys()
    order = await rig.round()

    assert order is not None
    assert (len(order.sets), order.answered) == (1, ("entra",))


@scenario
async def test_issuers_come_and_go_with_the_configuration() -> None:
    """One whose rules changed is looked at anew; without any the gate is not bothered."""
    rig = Rig()
    for _ in range(2):
        await rig.round()
    rig.issuers = [rules(audiences=("api://new",))]
    for _ in range(2):
        await rig.round()
    rig.issuers = []
    quiet = await rig.round()

    assert (len(rig.fetched), quiet) == (2, None)
    await rig.fetcher.close()


# -- what an issuer answers --------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answers: dict[str, Any]) -> AsyncIterator[str]:
    """An HTTP server that answers each path with a body, JSON of one, or raw bytes of a whole answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        body = answers.get(path, (404, b"{}"))
        if isinstance(body, tuple):
            status, data = body
        else:
            status, data = 200, json.dumps(body).encode()
        lines = (
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n"
        )
        writer.write(lines.encode() + data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@scenario
async def test_the_discovery_document_leads_to_the_keys() -> None:
    """Only what a signature needs of each key is taken; a key that shows its private half is left out."""
    answers: dict[str, Any] = {}
    async with answering(answers) as url:
        answers |= {
            "/tenant" + DISCOVERY: {"issuer": f"{url}/tenant/", "jwks_uri": f"{url}/keys"},
            "/keys": {"keys": [KEY, {**KEY, "d": "x"}, "no key"]},
        }
        found = await fetch_keys(rules(issuer=f"{url}/tenant/"))
        direct = await fetch_keys(rules(jwks_uri=f"{url}/keys"))

        assert found == direct == ({"kty": "RSA", "kid": "k1", "n": "x", "e": "AQAB"},)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "answered 404"),
        ({DISCOVERY: (302, b"")}, "answered 302"),
        ({DISCOVERY: (200, b"<html>")}, "no JSON"),
        ({DISCOVERY: (200, b"[]")}, "no JSON object"),
        ({DISCOVERY: (200, b"[" * 100_000)}, "no JSON"),
        ({DISCOVERY: (200, b" " * (ANSWER_BYTES_MAX + 1))}, "more than"),
        ({DISCOVERY: {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"}}, "another issuer"),
        ({DISCOVERY: {"issuer": "{url}"}}, "no jwks_uri"),
        ({DISCOVERY: {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}}, "no jwks_uri"),
        ({DISCOVERY: {"issuer": "{url}", "jwks_uri": "http://169.254.169.254/keys"}}, "without TLS"),
        ({DISCOVERY: {"issuer": "{url}", "jwks_uri": "{url}/keys"}, "/keys": {"keys": []}}, "no keys"),
        ({DISCOVERY: {"issuer": "{url}", "jwks_uri": "{url}/keys"}, "/keys": {"keys": {}}}, "no keys"),
        ({DISCOVERY: {"issuer": "{url}", "jwks_uri": "{url}/keys"}, "/keys": (500, b"{}")}, "answered 500"),
        ({DISCOVERY: FOUND, "/keys": {"keys": [{**KEY, "d": "x"}, "no key"]}}, "no public key"),
        ({DISCOVERY: FOUND, "/keys": {"keys": [{**KEY, "use": "enc"}, {**KEY, "alg": "RS1"}]}}, "no public key"),
        ({DISCOVERY: FOUND, "/keys": {"keys": [{"kty": "oct", "k": "x"}]}}, "no public key"),
    ],
)
def test_an_answer_that_cannot_be_right_brings_no_keys(answers: dict[str, Any], reason: str) -> None:
    """The reason is told without a word of what was answered."""

    @scenario
    async def run() -> None:
        filled: dict[str, Any] = {}
        async with answering(filled) as url:
            for path, body in answers.items():
                filled[path] = json.loads(json.dumps(body).replace("{url}", url)) if isinstance(body, dict) else body
            with pytest.raises(Failed, match=reason) as raised:
                await fetch_keys(rules(issuer=url))

            assert "evil" not in raised.value.message

    run()


@scenario
async def test_an_issuer_that_is_not_there_brings_no_keys() -> None:
    """Nobody listens, or a file of authorities is gone."""
    for issuer in (rules(issuer="http://127.0.0.1:9"), rules(issuer="http://127.0.0.1:9", ca_file="/nowhere.pem")):
        with pytest.raises(Failed):
            await fetch_keys(issuer)
