"""Another configuration for an installation that runs: both planes work by it, or by the old one; no call is lost."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from installation import Installation, Refused
from loopback import NO_TLS
from system.calls import ask, body, headers_of

#: Promised is one second; a shared machine may take longer.
SECONDS = 20.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of this module's own, whose file its tests change."""
    with Installation(tmp_path_factory.mktemp("reload")) as running:
        yield running


def change(running: Installation, old: str, new: str) -> None:
    file = running.folder / "faregate.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def reload(running: Installation) -> dict[str, Any]:
    """As `faregate reload` does, without the start of a program."""
    told: dict[str, Any] = running.admin("POST", "/api/v1/reload")
    return told


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def metric(running: Installation, result: str) -> str:
    # A scraper on this machine needs no key.
    with httpx2.Client(verify=NO_TLS, trust_env=False) as client:
        text = client.get(f"{running.console_url}/metrics").text
    return next(line for line in text.splitlines() if f'config_reloads_total{{result="{result}"}}' in line)


def test_models_prices_and_refusals_act_without_a_restart(site: Installation) -> None:
    """A model that was unknown is answered at the price of the new file; the processes are the same."""
    secret = site.key("one")["secret"]
    before, pids = ask(site, secret, body(model="sim-new")), (site.gate_pid(), site.console_pid())
    change(
        site,
        "  - {name: unpriced,",
        "  - {name: sim-new, to: [sim/sim-1], max_output_tokens: 64}\n  - {name: unpriced,",
    )

    told = site.cli("reload")
    after = ask(site, secret, body(model="sim-new"))

    assert told == {"reloaded": True, "restart": [], "warnings": []}
    assert (before.status, before.code) == (404, "model_not_found")
    assert (after.status, after.headers["x-faregate-model"]) == (200, "sim-1")
    assert (site.gate_pid(), site.console_pid()) == pids


def test_a_stream_that_runs_goes_on(site: Installation) -> None:
    """Its provider's settings change under it, and its connection stays."""
    secret = site.key("stream")["secret"]
    call = body(model="sim-1", max_tokens=60, stream=True, output_tokens=60, chunk_tokens=2, delay_ms=60)
    with httpx2.Client(verify=NO_TLS, trust_env=False, timeout=60) as client:
        path = f"{site.gateway_url}/v1/chat/completions"
        with client.stream("POST", path, json=call, headers=headers_of(secret)) as answer:
            lines = answer.iter_lines()
            next(lines)
            change(site, "    kind: openai\n", "    kind: openai\n    timeouts: {connect: 4s}\n")
            reload(site)
            rest = list(lines)
        again = client.post(path, json=body(), headers=headers_of(secret))

    assert answer.status_code == 200
    assert [line for line in rest if line][-1] == "data: [DONE]"
    assert again.status_code == 200


def test_a_broken_file_changes_nothing_and_is_told_with_its_places(site: Installation) -> None:
    """C90: exit 2 with every problem, one line in the log, a metric, and calls go on as before."""
    secret = site.key("broken")["secret"]
    good = (site.folder / "faregate.yaml").read_text()
    change(site, "unknown: refuse", "unknown: reufse\n  ovverides: []")
    logged = site.log().count("config_reload_failed")

    with pytest.raises(Refused) as refused:
        site.cli("reload")
    (site.folder / "faregate.yaml").write_text(good)

    told = json.loads(str(refused.value).partition(": ")[2])["error"]
    assert told["code"] == "config_invalid"
    assert told["message"].startswith("2 problems; the first: ")
    assert [(each["code"], each["key"], each["line"] > 0) for each in told["problems"]] == [
        ("CFG-RANGE", "pricing.unknown", True), ("CFG-UNKNOWN", "pricing.ovverides", True),
    ]  # fmt: skip
    assert set(told["problems"][0]) == {"code", "file", "line", "column", "key", "problem", "expected", "hint"}
    assert (told["problems"][0]["file"], told["problems"][0]["column"] > 0) == (
        str(site.folder / "faregate.yaml"), True,
    )  # fmt: skip
    assert "exited 2" in str(refused.value)
    assert "did you mean refuse?" in str(refused.value)
    assert "did you mean overrides?" in str(refused.value)
    assert site.log().count("config_reload_failed") == logged + 1
    assert metric(site, "failed").endswith(" 1.0")
    assert ask(site, secret, body(model="sim-1")).status == 200


def test_a_hangup_signal_reads_the_file_again(site: Installation) -> None:
    """As service managers do it: `systemctl reload` sends SIGHUP."""
    secret = site.key("signal")["secret"]
    change(site, "  - {name: unpriced,", "  - {name: by-signal, to: [sim/sim-1]}\n  - {name: unpriced,")

    site.process().send_signal(signal.SIGHUP)
    until(lambda: ask(site, secret, body(model="by-signal")).status == 200)

    # It acts before it is told.
    until(lambda: "config_reloaded" in site.log())


def test_what_needs_a_restart_is_named_and_left(site: Installation) -> None:
    """The rest of the same file acts."""
    secret = site.key("restart")["secret"]
    change(site, "  - {name: unpriced,", "  - {name: beside-port, to: [sim/sim-1]}\n  - {name: unpriced,")
    file = site.folder / "faregate.yaml"
    text = file.read_text()
    file.write_text(text + "durability: power\njournal: {sync_interval: 30ms}\n")

    told = reload(site)
    file.write_text(text)
    reload(site)

    assert told["restart"] == ["durability", "journal.sync_interval"]
    assert ask(site, secret, body(model="beside-port")).status == 200


def test_settings_of_the_gate_act_too(site: Installation) -> None:
    """A body bound and the names of headers are the gate's own settings."""
    secret = site.key("gate")["secret"]
    file = site.folder / "faregate.yaml"
    text = file.read_text()
    file.write_text(text + "gateway: {body_bytes_max: 2000B, headers: {consumed_tokens: x-used}}\n")
    reload(site)
    small, large = ask(site, secret), ask(site, secret, body("x" * 4_000))
    file.write_text(text)
    reload(site)

    assert (small.status, "x-used" in small.headers) == (200, True)
    assert (large.status, large.code) == (413, "body_too_large")
    assert ask(site, secret, body("x" * 4_000)).status == 200


def test_what_the_gate_cannot_use_neither_plane_uses(site: Installation) -> None:
    """The console can read it, the gate cannot build it: both go on by the old one, and say so."""
    secret = site.key("both")["secret"]
    file = site.folder / "faregate.yaml"
    text = file.read_text()
    (site.folder / "junk.pem").write_text("no certificate")
    broken = "providers:\n  - {name: broken, kind: openai, base_url: 'https://127.0.0.1:1/v1', ca_file: junk.pem}\n"
    file.write_text(
        text.replace("providers:\n", broken, 1).replace(
            "  - {name: unpriced,", "  - {name: half, to: [sim/sim-1]}\n  - {name: unpriced,"
        )
    )

    with pytest.raises(Refused) as refused:
        reload(site)
    models, prices = _models(site, secret), site.admin("GET", "/api/v1/prices?provider=broken")["data"]
    file.write_text(text)

    assert "the gate refused" in str(refused.value)
    assert ("half" in models, prices) == (False, [])
    assert ask(site, secret).status == 200
    assert reload(site)["reloaded"] is True


def test_peppers_are_read_again(site: Installation) -> None:
    """Keys of before and after a rotation open, without a restart."""
    before = site.key("old-pepper")["secret"]
    site.cli("secrets", "rotate-pepper")
    reload(site)
    after = site.key("new-pepper")["secret"]

    assert [ask(site, secret).status for secret in (before, after)] == [200, 200]


def test_a_gate_and_a_console_that_are_restarted_work_by_the_new_file(site: Installation) -> None:
    """Whoever dies afterwards comes back with what is in force, not with what was read first."""
    secret = site.key("survives")["secret"]
    change(site, "  - {name: unpriced,", "  - {name: survivor, to: [sim/sim-1]}\n  - {name: unpriced,")
    reload(site)

    gone = site.kill_gate()
    until(lambda: "survivor" in _models(site, secret) and site.gate_pid() != gone)
    site.kill_console()
    until(lambda: _answers(site))

    assert ask(site, secret, body(model="survivor")).status == 200


def _models(running: Installation, secret: str) -> list[str]:
    try:
        with httpx2.Client(verify=NO_TLS, trust_env=False, timeout=5) as client:
            told = client.get(f"{running.gateway_url}/v1/models", headers=headers_of(secret))
    except httpx2.HTTPError:
        return []
    return [each["id"] for each in told.json()["data"]] if told.status_code == 200 else []


def _answers(running: Installation) -> bool:
    try:
        return running.admin("GET", "/api/v1/health")["gate"]["ok"] is True
    except (Refused, OSError):
        return False
