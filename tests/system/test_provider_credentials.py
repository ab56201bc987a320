"""Credentials of providers from the outside: a whole installation, a real token server, and secrets in its books."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from installation import Installation, Refused
from loopback import NO_TLS
from system.calls import headers_of
from token_server import CLIENT, SECRET, TokenServer

CANARY = "sk-made-by-api-CANARY-55aa77cc99"

CONFIG = """\
providers:
  - name: sim
    kind: openai
    base_url: http://127.0.0.1:{simulator_port}/v1
    credential: {{kind: oauth2, token_url: "TOKEN_URL/token", client_id: CLIENT, client_secret: "CLIENT_SECRET"}}
  - name: printed
    kind: openai
    base_url: http://127.0.0.1:{simulator_port}/v1
    credential: {{kind: command, command: [/bin/echo, sk-printed-CANARY-1234567890]}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096}}
  - {{name: by-command, to: [printed/sim-1], max_output_tokens: 4096}}
pricing:
  overrides:
    - {{provider: sim, model: sim-1, unit: input_tokens, per: 1000000, price: "2.5"}}
    - {{provider: sim, model: sim-1, unit: output_tokens, per: 1000000, price: "10"}}
    - {{provider: printed, model: sim-1, unit: input_tokens, per: 1000000, price: "2.5"}}
    - {{provider: printed, model: sim-1, unit: output_tokens, per: 1000000, price: "10"}}
"""


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenServer]:
    """Tokens that live four seconds."""
    with TokenServer() as server:
        server.life = 4
        yield server


@pytest.fixture(scope="module")
def running(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose provider wants such tokens."""
    config = CONFIG.replace("TOKEN_URL", tokens.url).replace("CLIENT_SECRET", SECRET).replace("CLIENT", CLIENT)
    with Installation(tmp_path_factory.mktemp("credentials"), config=config) as installation:
        yield installation


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens a moment later."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def chat(running: Installation, secret: str, model: str = "sim-1") -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
    url = f"{running.gateway_url}/v1/chat/completions"
    return httpx2.post(url, json=body, headers=headers_of(secret), timeout=20, verify=NO_TLS)


def test_tokens_are_renewed_while_calls_run_and_none_fails(running: Installation, tokens: TokenServer) -> None:
    """From the first call after the start on; each is made with a token that has not ended."""
    secret = running.key("loaded")["secret"]
    before = len(tokens.issued)
    statuses: list[int] = []
    ends = time.monotonic() + 30
    while len(tokens.issued) < before + 3 and time.monotonic() < ends:
        statuses.append(chat(running, secret).status_code)

    assert set(statuses) == {200}
    assert len(tokens.issued) >= before + 3
    by_digest = {hashlib.sha256(token.encode()).hexdigest() for token in tokens.issued}
    shown = [record["credential"]["sha256"] for record in running.truth() if record["credential"]["last4"] != "7890"]
    assert set(shown) <= by_digest
    assert len(set(shown)) >= 3


def test_what_a_command_prints_is_the_providers_key(running: Installation) -> None:
    """Run at the start, without a shell."""
    secret = running.key("by-command")["secret"]

    assert chat(running, secret, "by-command").status_code == 200
    assert any(record["credential"]["last4"] == "7890" for record in running.truth())


def test_a_new_gate_has_the_token_before_its_first_call(running: Installation) -> None:
    """The console hands it over before the gate is ready."""
    secret = running.key("after-kill")["secret"]
    killed = running.kill_gate()
    eventually(lambda: running.gate_pid() != killed)
    running.wait_ready()

    answer = chat(running, secret)
    assert answer.status_code == 200, answer.text


def test_without_a_renewal_the_token_is_used_to_its_end_and_then_calls_are_refused(
    running: Installation, tokens: TokenServer
) -> None:
    """Health, doctor and metrics say so; when the server is back, calls go on by themselves."""
    secret = running.key("away")["secret"]
    tokens.refusal = 503, b'{"error":"temporarily_unavailable"}'
    try:
        eventually(lambda: chat(running, secret).status_code == 503)
        answer = chat(running, secret)
        assert answer.json()["error"]["code"] == "credential_unavailable"
        assert int(answer.headers["retry-after"]) >= 1

        health = running.admin("GET", "/api/v1/health")
        assert (health["status"], health["credentials"]["ok"]) == ("degraded", False)
        assert "answered 503 (temporarily_unavailable)" in health["credentials"]["detail"]
        doctor = running.cli_raw("doctor")
        assert "credentials" in doctor.stdout
        assert doctor.returncode == 1
        assert (
            'faregate_provider_credential_usable{provider="sim"} 0.0'
            in httpx2.get(f"{running.console_url}/metrics").text
        )
    finally:
        tokens.refusal = None
    eventually(lambda: chat(running, secret).status_code == 200)


def test_no_token_and_no_secret_is_in_the_log_or_on_the_disk(running: Installation, tokens: TokenServer) -> None:
    """Neither what was fetched nor what it was fetched with."""
    canaries = [SECRET, "sk-printed-CANARY-1234567890", *tokens.issued]
    log = running.log()
    assert not [each for each in canaries if each in log]
    for file in running.data.rglob("*"):
        if file.is_file() and not file.is_socket():
            content = file.read_bytes()
            assert not [each for each in canaries if each.encode() in content], file


# -- made by the API ---------------------------------------------------------------------------------------------------


def test_a_provider_made_by_the_command_line_takes_calls_within_a_second(running: Installation, tmp_path: Path) -> None:
    """With its secret from a file, encrypted in the books, tried, used, and gone again; a restart keeps it."""
    secret = running.key("uses-made")["secret"]
    key = tmp_path / "key"
    key.write_text(CANARY + "\n")
    url = f"http://127.0.0.1:{running.simulator_port}/v1"
    made = running.cli(
        *("provider", "create", "--name", "mine", "--kind", "openai", "--base-url", url),
        *("--secret-file", str(key), "--allow-http"),
    )
    assert (made["api_key"], made["source"]) == ("sk-…cc99", "api")
    tried = running.cli("provider", "test", "mine")
    assert (tried["ok"], tried["status"]) == (True, 200)
    for unit, price in (("input_tokens", "2.5"), ("output_tokens", "10")):
        running.cli("price", "set", "--provider", "mine", "--model", "sim-1", "--unit", unit, "--price", price)
    running.cli("deployment", "create", "--name", "mine-1", "--provider", "mine", "--model", "sim-1")
    running.admin("POST", "/api/v1/models", {"name": "made", "to": ["mine-1"]})

    eventually(lambda: chat(running, secret, "made").status_code == 200)
    answer = chat(running, secret, "made")

    assert (answer.status_code, answer.headers.get("x-faregate-deployment")) == (200, "mine-1"), answer.text
    assert running.truth()[-1]["credential"]["sha256"] == hashlib.sha256(CANARY.encode()).hexdigest()
    running.restart()
    eventually(lambda: chat(running, secret, "made").status_code == 200)
    for file in running.data.rglob("*"):
        assert not file.is_file() or file.is_socket() or CANARY.encode() not in file.read_bytes(), file
    assert CANARY not in running.log()
    running.admin("DELETE", "/api/v1/models/made")
    running.cli("deployment", "delete", "mine-1", "--yes")
    running.cli("provider", "delete", "mine", "--yes")
    eventually(lambda: chat(running, secret, "made").status_code == 404)


def test_a_backup_holds_a_providers_secret_only_encrypted(running: Installation, tmp_path: Path) -> None:
    """What it takes to open it lies beside the pepper, which is in no backup."""
    url = f"http://127.0.0.1:{running.simulator_port}/v1"
    body = {"name": "kept", "kind": "openai", "base_url": url, "api_key": CANARY, "allow_http": True}
    running.admin("POST", "/api/v1/providers", body)
    file = tmp_path / "backup.tar"
    running.cli("backup", str(file))

    assert CANARY.encode() not in file.read_bytes()
    running.cli("provider", "delete", "kept", "--yes")


def test_a_command_tells_what_is_wrong(running: Installation) -> None:
    """As the API does, with the exit code of its kind."""
    refused = running.cli_raw(
        "provider", "create", "--name", "inside", "--kind", "openai", "--base-url", "https://169.254.169.254/v1",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "link-local" in refused.stderr
    with pytest.raises(Refused):
        running.cli("provider", "show", "nobody")
    unsure = running.cli_raw("provider", "delete", "sim")
    assert unsure.returncode == 4
