"""A real OpenID provider in a process of its own, and what a browser would do to get a token from it."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

START_SECONDS = 30.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Leave it to the test."""


class OidcProvider:
    """Start with ``with OidcProvider(folder, port) as provider:``. Each start makes new keys, under new names."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def issuer(self) -> str:
        """Its ``iss``."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = (self._folder / "oidc.log").open("ab")
        command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=dict(os.environ))
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, (self._folder / "oidc.log").read_text()
            assert time.monotonic() < deadline, "the provider did not start in time"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def token(self, person: str, client: str) -> str:
        """An ID token of a person for an application, by the authorization code flow."""
        redirect = "http://127.0.0.1:1/back"
        query = {"client_id": client, "redirect_uri": redirect, "response_type": "code", "scope": "openid"}
        address = f"{self.issuer}/oauth2/authorize?{urlencode(query)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            opener.open(address, urlencode({"sub": person}).encode(), timeout=10)
            raise AssertionError("the provider did not lead back")
        except urllib.error.HTTPError as answer:
            (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        request = urllib.request.Request(f"{self.issuer}/oauth2/token", urlencode(form).encode())
        basic = base64.b64encode(f"{client}:any".encode()).decode()
        request.add_header("authorization", f"Basic {basic}")
        with opener.open(request, timeout=10) as told:
            token: str = json.loads(told.read())["id_token"]
        return token
