"""What `doctor` finds open, out of step or forgotten: each with why it matters and what mends it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commands import command

SECRET = "sk-of-the-provider-4d0c5ae1"

CONFIG = """\
providers:
  - {name: house, kind: openai, base_url: "%s", api_key: "%s"}
"""


def looks(tmp_path: Path, *more: str) -> dict[str, list[dict[str, Any]]]:
    """What is seen, by name."""
    told = command("doctor", "--json", "--config", tmp_path / "faregate.yaml", "--data", tmp_path / "data", *more)
    seen: dict[str, list[dict[str, Any]]] = {}
    for look in json.loads(told.out)["looks"]:
        seen.setdefault(look["name"], []).append(look)
    return seen


def write(tmp_path: Path, text: str) -> None:
    file = tmp_path / "faregate.yaml"
    file.write_text(text)
    file.chmod(0o600)


@contextmanager
def provider(*, asks: bool = True, behind_s: int = 0) -> Iterator[str]:
    """A provider's list of models; with ``asks`` only for who has the credential."""
    import time

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("authorization") == f"Bearer {SECRET}"
            self.send_response_only(200 if known or not asks else 401)
            self.send_header("date", formatdate(time.time() - behind_s, usegmt=True))
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_secret_file_that_everybody_reads_is_wrong(tmp_path: Path) -> None:
    """The file that the configuration names, with the command that closes it."""
    (tmp_path / "house.key").write_text(SECRET)
    (tmp_path / "house.key").chmod(0o644)
    write(tmp_path, CONFIG % ("https://api.example.com/v1", "file:house.key"))

    (look,) = looks(tmp_path)["secret files"]

    assert (look["state"], look["mend"]) == ("failed", f"chmod 600 {tmp_path / 'house.key'}")


def test_a_credential_that_client_libraries_find_is_a_way_around_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: its name is told, its value is not."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    write(tmp_path, CONFIG % ("https://api.example.com/v1", "${OPENAI_API_KEY}"))

    (look,) = looks(tmp_path)["bypass"]

    assert (look["state"], "OPENAI_API_KEY" in look["detail"], SECRET in str(look)) == ("warning", True, False)


def test_a_variable_that_nothing_reads_is_told_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L83, also without a configuration."""
    monkeypatch.setenv("FAREGATE_GATEWAY_PROT", "4000")

    (look,) = looks(tmp_path)["environment"]

    assert "FAREGATE_GATEWAY_PROT" in look["detail"]
    assert look["mend"] == "did you mean FAREGATE_GATEWAY_PORT?"


def test_a_listener_that_others_reach_without_tls_is_told(tmp_path: Path) -> None:
    """Also where the configuration says that a proxy stands in front of it."""
    write(tmp_path, CONFIG % ("https://api.example.com/v1", SECRET) + "gateway: {host: 0.0.0.0, behind_proxy: true}\n")

    seen = looks(tmp_path)

    assert [seen[name][0]["state"] for name in ("gateway access", "console access")] == ["warning", "ok"]


def test_models_without_a_price_or_a_maximum_are_told(tmp_path: Path) -> None:
    """Each by its name."""
    write(
        tmp_path,
        CONFIG % ("https://api.example.com/v1", SECRET)
        + "models: [{name: dear, to: [house/no-such-model]}, {name: long, to: [house/mine]}]\n"
        + "pricing:\n  overrides:\n"
        + "".join(
            f'    - {{provider: house, model: mine, unit: {unit}, per: 1000000, price: "1"}}\n'
            for unit in ("input_tokens", "output_tokens")
        ),
    )

    seen = looks(tmp_path)

    assert ["dear" in look["detail"] for look in seen["prices"]] == [True]
    assert any("long" in look["detail"] for look in seen["models"])


def test_the_age_of_the_newest_backup_is_told(tmp_path: Path) -> None:
    """L67: none at first, then the one that was made."""
    command("key", "create", "--name", "ci", "--data", tmp_path / "data")
    before = looks(tmp_path)["backup"][0]
    command("backup", tmp_path / "copy.backup", "--data", tmp_path / "data")
    after = looks(tmp_path)["backup"][0]

    assert (before["state"], after["state"]) == ("warning", "ok")
    assert "faregate backup" in before["mend"]


class TestProviders:
    """What only asking tells; nobody is asked without --providers."""

    def test_a_provider_that_asks_for_its_credential_is_well(self, tmp_path: Path) -> None:
        """One question without it, one with it."""
        with provider() as url:
            write(tmp_path, CONFIG % (url, SECRET))
            seen = looks(tmp_path, "--providers")

        assert [look["state"] for look in seen["provider house"]] == ["ok"]
        assert "provider house" not in looks(tmp_path)

    def test_a_provider_that_serves_everybody_is_wrong(self, tmp_path: Path) -> None:
        """Whoever reaches it goes past the gate."""
        with provider(asks=False) as url:
            write(tmp_path, CONFIG % (url, SECRET))
            (look,) = looks(tmp_path, "--providers")["provider house"]

        assert (look["state"], "past the gate" in look["why"]) == ("failed", True)

    def test_a_clock_that_differs_from_a_providers_is_told(self, tmp_path: Path) -> None:
        """In which direction, and of which provider's."""
        with provider(behind_s=3_600) as url:
            write(tmp_path, CONFIG % (url, SECRET))
            seen = looks(tmp_path, "--providers")

        assert any("s ahead of that of house" in look["detail"] for look in seen["clock"])

    def test_a_provider_that_does_not_answer_is_told(self, tmp_path: Path) -> None:
        """And the rest is looked at nevertheless."""
        with provider() as url:
            write(tmp_path, CONFIG % (url, SECRET))
        seen = looks(tmp_path, "--providers")

        assert (seen["provider house"][0]["state"], "time zones" in seen) == ("warning", True)
        assert all(seen["provider house"][0][word] for word in ("why", "mend"))
