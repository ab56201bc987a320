"""A real token server on loopback, in a thread: OAuth 2.0 client credentials and the identity of an App Service.

It believes only what a real one would: secrets in the form or as Basic authorization, assertions whose signature its
certificate verifies, federated tokens that it knows, and the header of the machine's identity.
"""

import base64
import json
import threading
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote_plus, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "client-1", "s3cret+with/odd=signs"
FEDERATED = "federated-token-of-the-workload"
IDENTITY_HEADER = "header-of-the-machine"


class Asked(NamedTuple):
    """One request for a token."""

    method: str
    path: str
    fields: dict[str, str]
    headers: dict[str, str]


class TokenServer(AbstractContextManager["TokenServer"]):
    """Start with ``with TokenServer() as server:``; its fields may be changed while it runs."""

    def __init__(self) -> None:
        #: Seconds that a token lives.
        self.life: int | str = 3600
        #: Answer this status with this body instead of a token.
        self.refusal: tuple[int, bytes] | None = None
        #: Members that replace those of an answer; ``None`` leaves one out.
        self.members: dict[str, Any] = {}
        #: Certificate of the client, in PEM.
        self.certificate = b""
        self.asked: list[Asked] = []
        #: Token → when it ends, in seconds since 1970.
        self.issued: dict[str, float] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer._answer(self, "GET", parts.path, parts.query)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
                outer._answer(self, "POST", self.path, body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, method: str, path: str, text: str) -> None:
        fields = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(Asked(method, path, fields, headers))
        status, body = self.refusal or self._decide(method, fields, headers)
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        if 300 <= status < 400:
            handler.send_header("location", self.url + "/elsewhere")
        handler.end_headers()
        handler.wfile.write(body)

    def _decide(self, method: str, fields: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        known = self._is_machine(headers) if method == "GET" else self._is_client(fields, headers)
        if not known:
            return 401, json.dumps({"error": "invalid_client", "error_description": f"sent: {fields}"}).encode()
        token = f"token-{len(self.issued) + 1:04d}-{base64.b32encode(str(id(self)).encode()).decode().rstrip('=')}"
        self.issued[token] = time.time() + int(self.life)
        told = {"access_token": token, "token_type": "Bearer", "expires_in": self.life} | self.members
        return 200, json.dumps({name: value for name, value in told.items() if value is not None}).encode()

    def _is_machine(self, headers: dict[str, str]) -> bool:
        return headers.get("x-identity-header") == IDENTITY_HEADER or headers.get("metadata") == "true"

    def _is_client(self, fields: dict[str, str], headers: dict[str, str]) -> bool:
        if fields.get("grant_type") != "client_credentials":
            return False
        if headers.get("authorization", "").startswith("Basic "):
            pair = base64.b64decode(headers["authorization"][6:]).decode()
            return tuple(map(unquote_plus, pair.split(":"))) == (CLIENT, SECRET)
        if "client_assertion" in fields:
            return fields["client_assertion"] == FEDERATED or self._is_signed(fields)
        return (fields.get("client_id"), fields.get("client_secret")) == (CLIENT, SECRET)

    def _is_signed(self, fields: dict[str, str]) -> bool:
        if not self.certificate:
            return False
        certificate = x509.load_pem_x509_certificate(self.certificate)
        text, _, signature = fields["client_assertion"].rpartition(".")
        head, claims = (json.loads(_decoded(part)) for part in text.split("."))
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(
            _decoded(signature),
            text.encode(),
            padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO),
            hashes.SHA256(),
        )
        of_key = _decoded(head["x5t#S256"]) == certificate.fingerprint(hashes.SHA256())
        named = claims["iss"] == claims["sub"] == fields["client_id"] == CLIENT
        return of_key and named and head["alg"] == "PS256" and claims["aud"].endswith("/oauth2/v2.0/token")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
