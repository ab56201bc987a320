"""Credentials that are fetched: from a real token server, from real programs, and renewed while they are used."""

import asyncio
import datetime
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from faregate.config.credentials import ProviderCredential
from faregate.control import Credential
from faregate.jobs.provider_tokens import ProviderTokens, Wanted
from faregate.jobs.token_sources import (
    CommandSource,
    Fetched,
    MachineSource,
    NotFetched,
    Surroundings,
    read_token,
    source_of,
)
from token_server import CLIENT, FEDERATED, IDENTITY_HEADER, SECRET, TokenServer

NOW = 1_790_000_000 * 10**9
SECONDS = 10**9


def around(folder: Path = Path("/"), environment: dict[str, str] | None = None) -> Surroundings:
    """Sources as the console makes them, at a moment that stands still."""
    return Surroundings(lambda: NOW, os.urandom, environment or {}, folder, lambda url: "")


def credential(**fields: Any) -> ProviderCredential:
    return ProviderCredential.model_validate(fields)


def entra(server: TokenServer, **fields: Any) -> ProviderCredential:
    return credential(**{"kind": "entra", "tenant": "tenant-1", "client_id": CLIENT, "authority": server.url} | fields)


def fetched(wanted: ProviderCredential, surroundings: Surroundings | None = None) -> Fetched:
    return asyncio.run(source_of(wanted, surroundings or around()).fetch())


def refused(wanted: ProviderCredential, surroundings: Surroundings | None = None) -> str:
    with pytest.raises(NotFetched) as caught:
        fetched(wanted, surroundings)
    return str(caught.value)


# -- token servers -----------------------------------------------------------------------------------------------------


def test_entra_gives_a_token_for_a_client_secret() -> None:
    """The form of RFC 6749 section 4.4 as Entra ID's second version wants it, for Azure's models by default."""
    with TokenServer() as server:
        found = fetched(entra(server, client_secret=SECRET))

        asked = server.asked[0]
        assert (asked.method, asked.path) == ("POST", "/tenant-1/oauth2/v2.0/token")
        assert asked.fields["scope"] == "https://cognitiveservices.azure.com/.default"
        assert found == Fetched(next(iter(server.issued)), NOW + 3600 * SECONDS, 3600)


def test_entra_gives_a_token_for_a_certificate(tmp_path: Path) -> None:
    """The assertion is signed with the certificate's key, which the server verifies."""
    key, certificate = key_and_certificate()
    (tmp_path / "client.pem").write_bytes(key + certificate)
    with TokenServer() as server:
        server.certificate = certificate
        found = fetched(entra(server, certificate_file="client.pem"), around(tmp_path))

        assert found.secret in server.issued
        assert "client_secret" not in server.asked[0].fields


def test_a_workload_identity_reads_its_token_again_for_each_renewal(tmp_path: Path) -> None:
    """A cluster writes another one into the file every hour."""
    file = tmp_path / "token"
    file.write_text("stale")
    with TokenServer() as server:
        wanted = entra(server, federated_token_file="token")
        assert "(invalid_client)" in refused(wanted, around(tmp_path))

        file.write_text(FEDERATED + "\n")
        assert fetched(wanted, around(tmp_path)).secret in server.issued


@pytest.mark.parametrize("auth", ["basic", "post"])
def test_any_oauth_server_gives_a_token(auth: str) -> None:
    """Basic authorization encodes both parts first, as RFC 6749 section 2.3.1 says."""
    with TokenServer() as server:
        wanted = credential(
            kind="oauth2", token_url=f"{server.url}/token", client_id=CLIENT, client_secret=SECRET, auth=auth,
            scope="models", audience="https://models.example",
        )  # fmt: skip
        found = fetched(wanted)

        fields = server.asked[0].fields
        assert found.secret in server.issued
        assert (fields["scope"], fields["audience"]) == ("models", "https://models.example")
        assert ("client_secret" in fields) == (auth == "post")


def test_an_app_services_identity_is_asked_where_its_environment_says() -> None:
    """With its header, and with the resource in the older form."""
    with TokenServer() as server:
        environment = {"IDENTITY_ENDPOINT": f"{server.url}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER}
        wanted = credential(kind="entra", managed_identity=True, client_id="assigned-1")
        found = fetched(wanted, around(environment=environment))

        asked = server.asked[0]
        assert found.secret in server.issued
        assert (asked.method, asked.path) == ("GET", "/msi/token")
        assert asked.fields == {
            "resource": "https://cognitiveservices.azure.com", "client_id": "assigned-1", "api-version": "2019-08-01",
        }  # fmt: skip


def test_a_machines_identity_is_asked_at_its_metadata_service() -> None:
    """Nothing else in the product goes there; here the test stands in for it."""
    with TokenServer() as server:
        wanted = credential(kind="entra", managed_identity=True, resource="https://ai.azure.com")
        source = MachineSource(wanted, around(), f"{server.url}/metadata/identity/oauth2/token")
        found = asyncio.run(source.fetch())

        asked = server.asked[0]
        assert found.secret in server.issued
        assert (asked.headers["metadata"], asked.fields["resource"]) == ("true", "https://ai.azure.com")


def test_an_identity_endpoint_elsewhere_is_not_asked() -> None:
    """The header that only this machine knows stays on it."""
    environment = {"IDENTITY_ENDPOINT": "http://192.0.2.1/token", "IDENTITY_HEADER": IDENTITY_HEADER}

    assert "not an address of this machine" in refused(
        credential(kind="entra", managed_identity=True), around(environment=environment)
    )


@pytest.mark.parametrize(
    ("authority", "scope"),
    [
        ("https://login.microsoftonline.us", "https://cognitiveservices.azure.us/.default"),
        ("https://login.partner.microsoftonline.cn", "https://cognitiveservices.azure.cn/.default"),
        ("https://login.microsoftonline.com", "https://cognitiveservices.azure.com/.default"),
    ],
)
def test_a_sovereign_cloud_has_its_own_scope(authority: str, scope: str) -> None:
    """Told by where its tokens are given."""
    source = source_of(credential(kind="entra", tenant="t", client_id="c", authority=authority), around())

    assert source._form()["scope"] == scope  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b'{"error":"invalid_client","error_description":"secret s3cret"}', "answered 401 (invalid_client)"),
        (400, b'{"error":"NOT A NAME <b>"}', "answered 400"),
        (302, b"", "answered 302"),
        (500, b"<html>", "answered 500"),
        (200, b"[]", "without an access_token"),
        (200, b'{"access_token":"two words"}', "what no header can carry"),
        (200, b'{"access_token":""}', "what no header can carry"),
        (200, b'{"access_token":"a","token_type":"mac"}', "no bearer token"),
        (200, b'{"access_token":"a","expires_in":0}', "has ended"),
        (200, b'{"access_token":"a","expires_in":-5}', "has ended"),
        (200, b'{"access_token":"%s"}' % (b"x" * 20_000), "what no header can carry"),
        (200, b'{"access_token":"%s"}' % (b"x" * 70_000), "more than 64 KiB"),
    ],
)
def test_an_answer_that_is_no_token_is_told_without_what_it_says(status: int, body: bytes, told: str) -> None:
    """Only the name of an OAuth error is repeated: its description may quote what was sent."""
    with TokenServer() as server:
        server.refusal = status, body
        reason = refused(entra(server, client_secret=SECRET))

        assert told in reason
        assert "s3cret" not in reason
        assert len(server.asked) == 1, "a redirect was followed"


def test_a_token_server_that_is_not_there_is_told() -> None:
    """Without its address, which may be a secret of the network."""
    assert "cannot be asked" in refused(
        credential(kind="oauth2", token_url="http://127.0.0.1:9/token", client_id="c", client_secret="s" * 8)
    )


@pytest.mark.parametrize(
    ("members", "expires_at", "renew"),
    [
        (b'"expires_in":3599', NOW + 3599 * SECONDS, 3599),
        (b'"expires_in":"3599"', NOW + 3599 * SECONDS, 3599),
        (b'"expires_on":"1790000100"', NOW + 100 * SECONDS, 100),
        (b'"expires_in":null', 0, 300),
        (b'"ext":1', 0, 300),
    ],
)
def test_the_life_of_a_token_is_read_as_servers_write_it(members: bytes, expires_at: int, renew: float) -> None:
    """One that says nothing is renewed every five minutes and is never taken for ended."""
    assert read_token(b'{"access_token":"a",' + members + b"}", NOW, None) == Fetched("a", expires_at, renew)


def test_a_token_may_be_renewed_sooner_than_it_ends() -> None:
    """``cache`` is the most that it is used before another one is asked for; its own end stays."""
    assert read_token(b'{"access_token":"a","expires_in":3600}', NOW, 60_000) == Fetched("a", NOW + 3600 * SECONDS, 60)


# -- commands ----------------------------------------------------------------------------------------------------------


def printing(folder: Path, script: str) -> ProviderCredential:
    """A program of this content."""
    program = folder / "tell-secret"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return credential(kind="command", command=["./tell-secret", "$(touch injected)", "a b"])


def test_what_a_command_prints_is_the_credential(tmp_path: Path) -> None:
    """No shell reads its arguments; the end of the line is no part of the secret."""
    wanted = printing(tmp_path, 'test "$1" = \'$(touch injected)\' && test "$2" = "a b" && echo sk-from-command')

    assert fetched(wanted, around(tmp_path)) == Fetched("sk-from-command", 0, 0)
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo oops >&2; exit 3", "ended with 3"),
        ("exit 0", "what no header can carry"),
        ("echo one; echo two", "what no header can carry"),
        ("head -c 70000 /dev/zero | tr '\\0' x", "more than 64 KiB"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_command_that_fails_is_told_without_its_output(tmp_path: Path, script: str, told: str) -> None:
    """Its standard error may hold secrets, and is not looked at."""
    reason = refused(printing(tmp_path, script), around(tmp_path))

    assert told in reason
    assert "oops" not in reason


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Its whole group of processes is ended."""
    wanted = printing(tmp_path, "sleep 300 & echo $! > child; wait")
    source = CommandSource(wanted, around(tmp_path), deadline_s=0.5)

    with pytest.raises(NotFetched, match="took longer"):
        asyncio.run(source.fetch())

    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By the kind of the error alone."""
    assert "cannot be run (FileNotFoundError)" in refused(
        credential(kind="command", command=["./nobody"]), around(tmp_path)
    )


# -- renewal -----------------------------------------------------------------------------------------------------------


class ListedSource:
    """Gives what a test lists, then nothing."""

    def __init__(self, *given: Fetched | Exception) -> None:
        self.given = list(given)
        self.asked = 0

    async def fetch(self) -> Fetched:
        self.asked += 1
        if not self.given:
            raise NotFetched("nothing is left")
        each = self.given.pop(0)
        if isinstance(each, Exception):
            raise each
        return each


class Hands:
    """Who takes the credentials."""

    def __init__(self) -> None:
        self.taken: list[Credential] = []
        self.tried = 0

    def take(self, credentials: Sequence[Credential]) -> None:
        self.taken += credentials

    def try_over(self) -> None:
        self.tried += 1


def keeping(hands: Hands, *sources: Any, now: Callable[[], int] = lambda: NOW) -> ProviderTokens:
    wanted = [
        Wanted(f"p{at}", "https://p.example", source, "authorization", "Bearer ") for at, source in enumerate(sources)
    ]
    return ProviderTokens(wanted, hands.take, now, lambda: 0.5, hands.try_over, look_seconds=0.01)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def during(tokens: ProviderTokens, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work while credentials are kept fresh."""

    async def all_of_it() -> None:
        running = asyncio.create_task(tokens.run())
        try:
            await work()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(all_of_it())


def test_each_new_credential_is_handed_over_as_a_ready_header() -> None:
    """With the text that is masked in answers, and its end."""
    hands = Hands()
    tokens = keeping(hands, ListedSource(Fetched("token-one", NOW + SECONDS, 0.05), Fetched("token-two", 0, 0)))

    async def work() -> None:
        await until(lambda: len(hands.taken) == 2)

    during(tokens, work)

    assert hands.taken == [
        Credential("p0", "https://p.example", {"authorization": "Bearer token-one"}, ("token-one",), NOW + SECONDS),
        Credential("p0", "https://p.example", {"authorization": "Bearer token-two"}, ("token-two",), 0),
    ]
    assert tokens.headers("p0") == {"authorization": "Bearer token-two"}


def test_a_failed_renewal_keeps_the_credential_until_its_own_end(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again meanwhile, and states say that something is wrong."""
    hands, now = Hands(), [NOW]
    tokens = keeping(hands, ListedSource(Fetched("token-one", NOW + SECONDS, 0.01)), now=lambda: now[0])

    async def work() -> None:
        await until(lambda: tokens.states()[0].failures >= 2)
        assert tokens.headers("p0") == {"authorization": "Bearer token-one"}
        assert tokens.states()[0][:4] == ("p0", True, NOW + SECONDS, "nothing is left")
        now[0] += SECONDS

    with caplog.at_level(logging.DEBUG):
        during(tokens, work)

    assert tokens.headers("p0") is None
    assert tokens.states()[0].usable is False
    assert "token-one" not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)


def test_a_credential_is_renewed_at_once_where_its_time_went_by_while_the_machine_slept() -> None:
    """The clock that pauses are measured by stood still meanwhile; the wall clock did not."""
    hands, now = Hands(), [NOW]
    source = ListedSource(Fetched("token-one", NOW + 3_600 * SECONDS, 3_600), Fetched("token-two", 0, 0))
    tokens = keeping(hands, source, now=lambda: now[0])

    async def work() -> None:
        await until(lambda: hands.taken)
        now[0] += 7_200 * SECONDS
        await until(lambda: len(hands.taken) == 2)

    during(tokens, work)

    assert tokens.headers("p0") == {"authorization": "Bearer token-two"}


def test_one_source_that_fails_in_an_unforeseen_way_stops_no_other() -> None:
    """And is itself tried again."""
    hands = Hands()
    broken = ListedSource(ValueError("a mistake"), Fetched("token-late", 0, 0))
    tokens = keeping(hands, broken, ListedSource(Fetched("token-two", 0, 0)))

    async def work() -> None:
        await until(lambda: len(hands.taken) == 2)

    during(tokens, work)

    assert {each.provider for each in hands.taken} == {"p0", "p1"}


def test_it_is_told_once_that_every_source_was_asked() -> None:
    """A new gate waits for that, and not for sources that are away."""
    hands = Hands()
    tokens = keeping(hands, ListedSource(), ListedSource(Fetched("token-two", 0, 0)))

    async def work() -> None:
        await until(lambda: hands.tried)
        await until(lambda: tokens.states()[0].failures >= 2)

    during(tokens, work)

    assert hands.tried == 1


def test_nothing_to_fetch_is_told_at_once_and_runs_on() -> None:
    """An installation without such credentials waits for nothing, and none of its parts ends."""
    hands = Hands()

    async def work() -> None:
        await until(lambda: hands.tried)

    during(keeping(hands), work)

    assert hands.tried == 1


def test_tokens_of_two_seconds_are_renewed_before_they_end() -> None:
    """From a real server: at no moment is there no credential, or one that has ended."""
    hands = Hands()
    with TokenServer() as server:
        server.life = 2
        wanted = entra(server, client_secret=SECRET)
        real = Surroundings(time.time_ns, os.urandom, {}, Path("/"), lambda url: "")
        tokens = keeping(hands, source_of(wanted, real), now=time.time_ns)

        async def work() -> None:
            await until(lambda: hands.taken)
            while len(hands.taken) < 4:
                assert tokens.headers("p0") is not None
                await asyncio.sleep(0.01)

        during(tokens, work)

        assert len(set(server.issued)) >= 4


def key_and_certificate() -> tuple[bytes, bytes]:
    """An RSA key and a certificate of it, both in PEM."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CLIENT)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
