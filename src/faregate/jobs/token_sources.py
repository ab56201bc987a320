"""Where the credentials of providers come from: token servers, the machine's own identity, and commands.

Each source is asked with a deadline and gives a bounded answer or says in a few words why it has none; neither a secret
nor what a server wrote beside its error's name is ever in these words. Redirects are not followed: a token server that
moves is configured anew.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote_plus, urlsplit

import httpx2
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from faregate.config.credentials import ENTRA_AUTHORITY, ENTRA_SCOPE, SOVEREIGN_SCOPES, ProviderCredential
from faregate.dialects.urls import may_reach

#: A token server or a command has this long.
DEADLINE_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 1024
#: No header is longer; real tokens stay below 4 KiB.
SECRET_CHARACTERS_MAX: Final = 16 * 1024

#: Where a virtual machine of Azure asks for its own tokens. Nothing else in the product connects there.
IMDS_URL: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_IMDS_VERSION: Final = "2018-02-01"
_APP_SERVICE_VERSION: Final = "2019-08-01"

#: A token that says nothing of its life is renewed after this long, and lives on until then.
LIFE_SECONDS_UNTOLD: Final = 300
_LIFE_SECONDS_MAX: Final = 366 * 86_400

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS: Final = 600

#: An answer that came compressed could be far larger than its bytes.
_PLAIN: Final = {"accept": "application/json", "accept-encoding": "identity"}

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_ERROR_NAME: Final = re.compile(r"[a-z_]{1,64}")
_NANOS: Final = 1_000_000_000


class Fetched(NamedTuple):
    """A credential: ``expires_at`` in nanoseconds since 1970 UTC, or 0 where it does not end by itself.

    It is to be renewed within ``renew_seconds``; 0 is never.
    """

    secret: str
    expires_at: int
    renew_seconds: float

    def __repr__(self) -> str:
        return f"Fetched(expires_at={self.expires_at}, renew_seconds={self.renew_seconds})"


class NotFetched(Exception):
    """There is none now; the text is the end of a sentence, without any secret."""


class Source(Protocol):
    """Something that gives a credential when it is asked."""

    async def fetch(self) -> Fetched:
        """Ask once, within ``DEADLINE_SECONDS``.

        Raises:
            NotFetched: it has none now.
        """
        ...


class Surroundings(NamedTuple):
    """What sources are made with beside their settings."""

    wall_nanos: Callable[[], int]
    random: Callable[[int], bytes]
    #: The process's environment: an App Service says there where its identity is asked for.
    environment: Mapping[str, str]
    #: Where relative file names start.
    folder: Path
    #: URL → the proxy to reach it through, empty for none.
    proxy_for: Callable[[str], str]


class _Told(msgspec.Struct):
    """The members of a token answer (RFC 6749 section 5.1, and what Azure's machines add) that are looked at."""

    access_token: str
    token_type: str = ""
    expires_in: int | str | None = None
    expires_on: int | str | None = None


_decode_token = msgspec.json.Decoder(_Told).decode


def source_of(wanted: ProviderCredential, around: Surroundings) -> Source:
    """The source of a credential as it is configured."""
    if wanted.kind == "command":
        return CommandSource(wanted, around)
    if wanted.managed_identity:
        return MachineSource(wanted, around)
    return TokenSource(wanted, around)


class CommandSource:
    """What a program prints. No shell reads its arguments, and what it writes to standard error is not looked at."""

    def __init__(self, wanted: ProviderCredential, around: Surroundings, deadline_s: float = DEADLINE_SECONDS) -> None:
        self._command = wanted.command
        self._every_s = (wanted.every or 0) / 1000
        self._folder = around.folder
        self._deadline_s = deadline_s

    async def fetch(self) -> Fetched:
        """Run it and take its output, without the line's end.

        Raises:
            NotFetched: it fails, takes too long, or prints what no header can carry.
        """
        program = self._command[0]
        try:
            running = await asyncio.create_subprocess_exec(
                str(self._folder / program) if "/" in program else program,
                *self._command[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=self._folder,
                # A group of its own, so that what it starts ends with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NotFetched(f"its command cannot be run ({type(error).__name__})") from None
        assert running.stdout is not None
        code: int | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                printed = await _read_to_end(running.stdout)
                if printed is None:
                    raise NotFetched(f"its command printed more than {ANSWER_BYTES_MAX >> 10} KiB")
                code = await running.wait()
        except TimeoutError:
            raise NotFetched(f"its command took longer than {self._deadline_s:g} s") from None
        finally:
            if code is None:
                _end_group(running.pid)
                await running.wait()
        if code != 0:
            raise NotFetched(f"its command ended with {code}; run it by hand to see why")
        return Fetched(_usable(printed.decode("latin-1").rstrip("\r\n"), "its command"), 0, self._every_s)


async def _read_to_end(stream: asyncio.StreamReader) -> bytes | None:
    """All of a stream; ``None`` where that is too much."""
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(16 * 1024):
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # It has just ended by itself.
        return


class TokenSource:
    """A token server: OAuth 2.0 client credentials (RFC 6749 section 4.4), as Entra ID and others speak them."""

    def __init__(self, wanted: ProviderCredential, around: Surroundings) -> None:
        self._wanted = wanted
        self._around = around
        self._url = _token_url(wanted)
        self._server = _Server(str(around.folder / wanted.ca_file) if wanted.ca_file else "", around)

    async def fetch(self) -> Fetched:
        """Ask for a token.

        Raises:
            NotFetched: none came.
        """
        form = await asyncio.to_thread(self._form)
        headers: dict[str, str] = {}
        wanted = self._wanted
        if wanted.client_secret is not None:
            secret = wanted.client_secret.get_secret_value()
            if wanted.kind == "oauth2" and wanted.auth == "basic":
                # Both are encoded before they are joined (RFC 6749 section 2.3.1).
                pair = f"{quote_plus(wanted.client_id or '')}:{quote_plus(secret)}"
                headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
                del form["client_id"]
            else:
                form["client_secret"] = secret
        return await self._server.token("POST", self._url, headers, wanted, form)

    def _form(self) -> dict[str, str]:
        wanted = self._wanted
        form = {"grant_type": "client_credentials", "client_id": wanted.client_id or ""}
        if wanted.kind == "entra":
            form["scope"] = _entra_scope(wanted)
        else:
            named = {"scope": wanted.scope, "resource": wanted.resource, "audience": wanted.audience}
            form |= {name: value for name, value in named.items() if value}
        if wanted.federated_token_file:
            form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": self._federated()}
        elif wanted.certificate_file:
            form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": self._signed()}
        return form

    def _federated(self) -> str:
        """The token of the workload, as it is in its file now."""
        try:
            with (self._around.folder / self._wanted.federated_token_file).open("rb") as file:
                content = file.read(ANSWER_BYTES_MAX + 1)
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            raise NotFetched(f"its federated_token_file cannot be read: {reason}") from None
        return _usable(content.decode("latin-1").strip(), "its federated_token_file")

    def _signed(self) -> str:
        """A JWT that proves that we have the certificate's key (RFC 7523 section 2.2)."""
        try:
            content = (self._around.folder / self._wanted.certificate_file).read_bytes()[: ANSWER_BYTES_MAX + 1]
            key = serialization.load_pem_private_key(content, None)
            certificate = x509.load_pem_x509_certificate(content)
        except OSError as error:
            raise NotFetched(f"its certificate_file cannot be read: {(error.strerror or '').lower()}") from None
        except (ValueError, TypeError):
            raise NotFetched("its certificate_file does not hold a certificate and its key, not encrypted") from None
        if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
            raise NotFetched("its certificate_file does not hold an RSA key that belongs to its certificate")
        thumbprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        now = self._around.wall_nanos() // _NANOS
        header = {"alg": "PS256", "typ": "JWT", "x5t#S256": _base64url(thumbprint)}
        claims = {
            "aud": self._url,
            "iss": self._wanted.client_id,
            "sub": self._wanted.client_id,
            "jti": self._around.random(16).hex(),
            "nbf": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        salt = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        return f"{text}.{_base64url(key.sign(text.encode(), salt, hashes.SHA256()))}"


class MachineSource:
    """The identity that a cloud gives the machine we run on: of an App Service where there is one, else of a VM."""

    def __init__(self, wanted: ProviderCredential, around: Surroundings, imds_url: str = IMDS_URL) -> None:
        self._wanted = wanted
        self._imds_url = imds_url
        environment = around.environment
        self._endpoint = environment.get("IDENTITY_ENDPOINT", "")
        self._header = environment.get("IDENTITY_HEADER", "")
        # A proxy must never see a request that only the machine itself may make.
        self._server = _Server("", around._replace(proxy_for=lambda url: ""))

    async def fetch(self) -> Fetched:
        """Ask for a token of the machine's identity.

        Raises:
            NotFetched: it has none, or there is no such identity here.
        """
        scope = _entra_scope(self._wanted)
        query = {"resource": scope.removesuffix("/.default")}
        if self._wanted.client_id:
            query["client_id"] = self._wanted.client_id
        if self._endpoint and self._header:
            host = urlsplit(self._endpoint).hostname or ""
            if not _is_of_the_machine(host):
                raise NotFetched("IDENTITY_ENDPOINT is not an address of this machine")
            query["api-version"], url = _APP_SERVICE_VERSION, self._endpoint
            headers = {"x-identity-header": self._header}
        else:
            query["api-version"], url = _IMDS_VERSION, self._imds_url
            headers = {"metadata": "true"}
        return await self._server.token("GET", url, headers, self._wanted, query)


def _is_of_the_machine(host: str) -> bool:
    """Loopback, or the link-local addresses where clouds answer a machine; ``localhost`` is the one name."""
    return host == "localhost" or host.startswith("169.254.") or may_reach(host, "loopback")


class _Server:
    """One token server."""

    def __init__(self, ca_file: str, around: Surroundings) -> None:
        self._ca_file = ca_file
        self._around = around

    async def token(
        self, method: str, url: str, headers: Mapping[str, str], wanted: ProviderCredential, fields: Mapping[str, str]
    ) -> Fetched:
        """Ask once: ``fields`` are the form of a POST, the query of a GET.

        Raises:
            NotFetched: no token came.
        """
        # Before it is asked, so that the way to it never lengthens a token's life.
        asked_at = self._around.wall_nanos()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                client = await asyncio.to_thread(self._client, url)
                async with client:
                    given: dict[str, Any] = {"data": fields} if method == "POST" else {"params": fields}
                    request = client.build_request(method, url, headers={**headers, **_PLAIN}, **given)
                    answer = await client.send(request, stream=True)
                    try:
                        body = await _body(answer)
                    finally:
                        await answer.aclose()
        except TimeoutError:
            raise NotFetched(f"its token server did not answer within {DEADLINE_SECONDS:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise NotFetched(f"its token server cannot be asked ({type(error).__name__})") from None
        if body is None:
            raise NotFetched(f"its token server answered with more than {ANSWER_BYTES_MAX >> 10} KiB")
        if answer.status_code != 200:
            raise NotFetched(f"its token server answered {answer.status_code}{_error_in(body)}")
        return read_token(body, asked_at, wanted.cache)

    def _client(self, url: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            verify=ssl.create_default_context(cafile=self._ca_file or None),
            proxy=self._around.proxy_for(url) or None,
            timeout=DEADLINE_SECONDS,
            follow_redirects=False,
            # Nothing of the environment decides where a secret goes, but for proxies, which were read above.
            trust_env=False,
        )


async def _body(answer: httpx2.Response) -> bytes | None:
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > ANSWER_BYTES_MAX:
            return None
    return bytes(body)


def read_token(body: bytes, asked_at: int, cache_ms: int | None) -> Fetched:
    """The token of a good answer to a question of the moment ``asked_at``, in nanoseconds since 1970 UTC.

    Raises:
        NotFetched: the answer holds none that can be used.
    """
    try:
        told = _decode_token(body)
    except msgspec.MsgspecError:
        raise NotFetched("its token server answered without an access_token") from None
    if told.token_type.lower() not in ("", "bearer"):
        raise NotFetched("its token server gave a token that is no bearer token")
    secret = _usable(told.access_token, "its token server")
    life = _seconds(told.expires_in)
    if life is None and (until := _seconds(told.expires_on)) is not None:
        life = until - asked_at // _NANOS
    if life is None:
        return Fetched(secret, 0, (cache_ms or LIFE_SECONDS_UNTOLD * 1000) / 1000)
    if life <= 0:
        raise NotFetched("its token server gave a token that has ended; is this machine's clock right?")
    life = min(life, _LIFE_SECONDS_MAX)
    return Fetched(secret, asked_at + life * _NANOS, min(life, (cache_ms or life * 1000) / 1000))


def _seconds(told: int | str | None) -> int | None:
    """Whole seconds, which some servers write as text."""
    if isinstance(told, str):
        return int(told) if told.isascii() and told.isdigit() and len(told) <= 12 else None
    return told


def _usable(secret: str, where: str) -> str:
    if not secret or len(secret) > SECRET_CHARACTERS_MAX or _VISIBLE.fullmatch(secret) is None:
        raise NotFetched(f"{where} gave what no header can carry: nothing, spaces, several lines, or far too much")
    return secret


def _error_in(body: bytes) -> str:
    """The name of an OAuth error, in brackets; its description may quote what was sent, and is left out."""
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    name = told.get("error") if isinstance(told, dict) else None
    return f" ({name})" if isinstance(name, str) and _ERROR_NAME.fullmatch(name) else ""


def _authority(wanted: ProviderCredential) -> str:
    return (wanted.authority or ENTRA_AUTHORITY).rstrip("/")


def _token_url(wanted: ProviderCredential) -> str:
    if wanted.kind == "entra":
        return f"{_authority(wanted)}/{wanted.tenant}/oauth2/v2.0/token"
    return wanted.token_url or ""


def _entra_scope(wanted: ProviderCredential) -> str:
    if wanted.scope:
        return wanted.scope
    if wanted.resource:
        return wanted.resource.rstrip("/") + "/.default"
    return SOVEREIGN_SCOPES.get(urlsplit(_authority(wanted)).hostname or "", ENTRA_SCOPE)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
