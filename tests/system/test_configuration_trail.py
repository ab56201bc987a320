"""Every configuration that comes to act leaves one line in the trail of changes, however it came."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from installation import UPSTREAM_SECRET, Installation, Refused

#: Promised is one second; a shared machine may take longer.
SECONDS = 20.0

PRICE = "pricing.overrides[sim/sim-1/input_tokens].price"

OTHER_SECRET = "sk-upstream-CANARY-of-another-day-33aa"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of this module's own, whose file its tests change."""
    with Installation(tmp_path_factory.mktemp("trail")) as running:
        yield running


def lines(site: Installation) -> list[dict[str, Any]]:
    """The lines that tell of configurations, newest first."""
    told: list[dict[str, Any]] = site.admin("GET", "/api/v1/audit?kind=configuration")["data"]
    return told


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def price_in(text: str) -> str:
    """The price that a file says, whatever tests before have made of it."""
    found = re.search(r'price: "([0-9.]+)"', text)
    assert found is not None
    return found[1]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_first_start_tells_what_it_acts_by(site: Installation) -> None:
    """Nobody knows what acted before it."""
    line = lines(site)[-1]

    assert (line["actor"], line["before"], line["after"][PRICE]) == ("start", None, "2.50")


def test_a_hangup_signal_leaves_a_line(site: Installation) -> None:
    """With the settings that changed, as they were and as they are; of a secret only that it is another one."""
    count, file = len(lines(site)), site.folder / "faregate.yaml"
    change(file, 'price: "2.50"', 'price: "3.75"')
    change(file, UPSTREAM_SECRET, OTHER_SECRET)
    file.write_text(file.read_text() + "content: {default: full, retention: 7d}\n")

    site.process().send_signal(signal.SIGHUP)
    until(lambda: len(lines(site)) > count)

    line, key = lines(site)[0], "providers[sim].api_key"
    assert (line["actor"], line["request_id"], len(lines(site))) == ("signal", "", count + 1)
    assert (line["before"][PRICE], line["after"][PRICE]) == ("2.50", "3.75")
    assert (line["before"]["content.default"], line["after"]["content.default"]) == ("off", "full")
    assert (line["before"][key], line["after"][key]) == ("sk-…4b60", "sk-…33aa")
    kept = (site.data / "acting.json").read_text() + (site.data / "audit.jsonl").read_text()
    assert not [secret for secret in (UPSTREAM_SECRET, OTHER_SECRET) if secret in kept]


def test_a_reload_is_told_with_who_asked_for_it_and_one_without_a_change_is_not(site: Installation) -> None:
    """`faregate reload` on the socket is `local`; its request leads to the log."""
    count = len(lines(site))
    site.cli("reload")
    assert len(lines(site)) == count
    file = site.folder / "faregate.yaml"
    old = price_in(file.read_text())
    change(file, f'price: "{old}"', 'price: "5.25"')

    site.cli("reload")

    line = lines(site)[0]
    assert (line["actor"], line["request_id"][:4], len(lines(site))) == ("local", "req_", count + 1)
    assert (line["before"], line["after"]) == ({PRICE: old}, {PRICE: "5.25"})


def test_a_new_pepper_is_told_while_everything_runs(site: Installation) -> None:
    """By whoever put it in front, at once; the reload that takes it up changes no setting."""
    count = len(lines(site))

    site.cli("secrets", "rotate-pepper")
    site.cli("reload")

    (line,) = site.admin("GET", "/api/v1/audit?kind=pepper")["data"]
    assert (line["actor"], line["before"], line["after"]) == ("local", {"peppers": ["p1"]}, {"peppers": ["p2", "p1"]})
    assert len(lines(site)) == count


def test_what_the_gate_refuses_is_told_as_not_made(site: Installation) -> None:
    """The line is there before anything changes, so the one after it takes it back; the next tells the whole change."""
    file = site.folder / "faregate.yaml"
    text = file.read_text()
    (site.folder / "junk.pem").write_text("no certificate")
    change(
        file,
        "providers:\n",
        "providers:\n  - {name: x, kind: openai, base_url: 'https://127.0.0.1:1/v1', ca_file: junk.pem}\n",
    )

    with pytest.raises(Refused):
        site.cli("reload")
    file.write_text(text)
    site.cli("reload")

    line, newest = lines(site)[0], site.admin("GET", "/api/v1/audit?limit=1")["data"][0]
    assert line["after"]["providers[x].ca_file"] == "junk.pem"
    assert (newest["kind"], newest["after"]) == ("not_made", {"first": line["n"], "last": line["n"]})


def test_a_restart_with_another_file_is_told_and_one_with_the_same_is_not(site: Installation) -> None:
    """It compares with what acted last, which is kept without secrets."""
    file = site.folder / "faregate.yaml"
    text, count = file.read_text(), len(lines(site))
    site._config = text.replace("{", "{{").replace("}", "}}")
    site.restart()
    assert len(lines(site)) == count

    old = price_in(text)
    site._config = site._config.replace(f'price: "{old}"', 'price: "4"', 1) + "durability: power\n"
    site.restart()

    line = lines(site)[0]
    assert (line["actor"], len(lines(site))) == ("start", count + 1)
    assert line["before"] == {"durability": "process", PRICE: old}
    assert line["after"] == {"durability": "power", PRICE: "4"}
    assert site.verify()["ok"] is True
