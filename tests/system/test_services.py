"""Services behind the gate, from the outside: a whole installation, a service that is a process of its own."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import pytest

from commands import program
from installation import Installation, nanos
from loopback import NO_TLS
from system.calls import Answer, headers_of, new_key, new_limit, record, records, until

HERE = Path(__file__).parent
GUIDE = HERE.parent.parent / "docs" / "guides" / "put-a-service-behind-the-gate.md"
CANARY = "ck-service-CANARY-8125"

CONFIG = """\
services:
  - name: ocr
    base_url: http://127.0.0.1:{service_port}
    api_key: {canary}
    api_key_header: x-key
    max_duration: 5s
    max_answer_bytes: 1MiB
    price:
      per_call: "0.0001"
      per_million_bytes_out: "0.7"
      units: {{header: x-units, price: "0.01", per: 3, max: 20, name: pages}}
      compute: {{rate_per_hour: "12.34", memory_gb: "7.5", memory_gb_total: "24"}}
  - name: search
    base_url: http://127.0.0.1:{service_port}/search
    max_duration: 5s
    price: {{per_second: "0.5"}}
stages:
  dev: {{providers: [search]}}
unknowns: {{ttl: 2s, policy: charge_max}}
""".replace("{canary}", CANARY)


@contextlib.contextmanager
def service() -> Iterator[int]:
    """The little service as a process; its port."""
    command = [sys.executable, str(HERE.parent / "little_service.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with two services and no provider."""
    with service() as port:
        config = CONFIG.replace("{service_port}", str(port))
        with Installation(tmp_path_factory.mktemp("services"), config=config) as installation:
            yield installation


def ask(running: Installation, secret: str, path: str, method: str = "POST", **more: Any) -> Answer:
    """One call of a service."""
    with httpx2.Client(verify=NO_TLS, trust_env=False, timeout=20) as client:
        got = client.request(method, running.gateway_url + path, headers=headers_of(secret), **more)
    return Answer(got.status_code, dict(got.headers), got.text)


def units(row: dict[str, Any]) -> dict[tuple[str, str | None], int]:
    """What a record says was used."""
    return {(each["unit"], each["variant"]): each["quantity"] for each in row["units"]}


def test_a_reader_computes_the_charge_from_the_record(running: Installation) -> None:
    """Busy time × share of the memory × rate, bytes, units and the call: the same number as header, record and sum."""
    key = new_key(running, "scan", team="scanners", operations=["ocr"])
    answer = ask(running, key["secret"], "/services/ocr/read?units=7&wait=30&say=secret", content=b"abc")
    assert answer.status == 200
    assert CANARY not in answer.text + str(answer.headers)
    row = record(running, answer.id)
    used = units(row)
    busy = used["busy_milliseconds", None]
    assert 30 <= busy <= row["latency_ms"] + 1
    dollars = Fraction("0.0001") + Fraction(busy, 1000) / 3600 * Fraction("7.5") / 24 * Fraction("12.34")
    dollars += Fraction("0.7") * used["bytes", "out"] / 10**6 + Fraction("0.01") * 7 / 3
    due = round(dollars * 10**9)
    assert nanos(row["cost"]) == nanos(row["charge"]) == nanos(answer.headers["x-faregate-cost"]) == due
    assert (row["operation"], row["model"], row["deployment"], row["provider"]) == ("ocr",) * 4
    assert (row["status"], row["usage_source"], used["bytes", "in"], used["units", "pages"]) == ("ok", "provider", 3, 7)
    lines = row["derivation"]["lines"]
    assert round(sum(Fraction(line["amount"]) for line in lines) * 10**9) == due
    assert (nanos(row["held"]) >= due, row["overrun"]) == (True, "0")


@pytest.mark.parametrize("size", [0, 5000])
def test_a_quote_brackets_the_charge(running: Installation, size: int) -> None:
    """Asked for a body of some length: the real charge lies inside, and the upper end is what the call holds."""
    key = new_key(running, f"quoted-{size}", team="quoted")
    asked = {"endpoint": "/services/ocr/read", "request": {"bytes": size}, "key": key["id"]}
    told = running.admin("POST", "/api/v1/quote", asked)
    row = record(running, ask(running, key["secret"], "/services/ocr/read?units=3", content=b"b" * size).id)
    assert nanos(told["charge"]["min"]) <= nanos(row["charge"]) <= nanos(told["charge"]["max"]) == nanos(row["held"])
    assert (told["operation"], told["model"], told["would_be_refused"]) == ("ocr", "ocr", None)
    most = {(each["unit"], each["variant"]): each["max"] for each in told["units"]}
    assert all(quantity <= most[unit] for unit, quantity in units(row).items())
    with pytest.raises(AssertionError, match="no service is called"):
        running.admin("POST", "/api/v1/quote", asked | {"endpoint": "/services/none/read"})


def test_limits_select_services(running: Installation) -> None:
    """A limit on one service lets the other through; a key of some services is refused at others."""
    key = new_key(running, "both", team="limited")
    limit = new_limit(running, {"team": "limited", "service": "ocr"}, "requests", 1)
    answers = [
        ask(running, key["secret"], path) for path in ("/services/ocr/a", "/services/ocr/a", "/services/search/a")
    ]
    assert [answer.status for answer in answers] == [200, 429, 200]
    assert answers[1].code == "budget_exhausted"
    found = next(each for each in running.admin("GET", "/api/v1/limits")["data"] if each["id"] == limit["id"])
    assert found["posted"] in (1, "1")
    refused = record(running, answers[1].id)
    assert (refused["operation"], refused["limit"], refused["cost"]) == ("ocr", limit["id"], "0")
    only = new_key(running, "only", team="limited", operations=["search"])
    assert ask(running, only["secret"], "/services/ocr/a").code == "operation_forbidden"


def test_keys_are_made_for_services_that_exist(running: Installation) -> None:
    """A name that is neither an operation nor a service is told when the key is made."""
    with pytest.raises(AssertionError, match="no such operation or service"):
        new_key(running, "typo", operations=["ocrr"])


def test_stages_name_services(running: Installation) -> None:
    """A stage that lists one service has no other."""
    key = new_key(running, "dev", team="staged", stage="dev")
    assert ask(running, key["secret"], "/services/search/a").status == 200
    assert ask(running, key["secret"], "/services/ocr/a").code == "stage_forbidden"


def test_an_error_is_free_and_its_record_has_no_lines(running: Installation) -> None:
    """Status and body pass; nothing is charged, not even the call."""
    key = new_key(running, "unlucky", team="unlucky")
    answer = ask(running, key["secret"], "/services/ocr/a?status=500&say=sorry")
    row = record(running, answer.id)
    assert (answer.status, answer.text) == (500, "sorry")
    assert (row["status"], row["cost"], row["charge"], row["derivation"]["lines"]) == ("failed", "0", "0", [])


def test_a_price_of_the_books_holds_from_now_on(running: Installation) -> None:
    """Set by the admin API, without touching the file; older records keep theirs."""
    key = new_key(running, "prices", team="prices")
    before = record(running, ask(running, key["secret"], "/services/search/a").id)
    price = {"provider": "search", "model": "search", "unit": "requests", "per": 1, "price": "0.25"}
    running.admin("PUT", "/api/v1/prices", price)
    after = record(running, ask(running, key["secret"], "/services/search/a").id)
    for row, call in ((before, 0), (after, Fraction("0.25"))):
        busy = units(row)["busy_milliseconds", None]
        assert nanos(row["cost"]) == round((call + Fraction(busy, 1000) / 2) * 10**9)
    assert before["price_version"] != after["price_version"]


def test_a_crash_in_the_middle_of_a_call_leaves_it_to_the_policy(running: Installation) -> None:
    """Nobody learns how long it ran: its hold is charged, as the configuration says, and nothing stays held."""
    key = new_key(running, "crash", team="crash")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, running, key["secret"], "/services/ocr/a?wait=3000")
        open_calls = until(lambda: running.admin("GET", "/api/v1/health")["gate"]["open_exchanges"], bool, 10)
        assert open_calls == 1
        running.kill_gate()
        with pytest.raises(httpx2.TransportError):
            waiting.result()
    running.wait_ready()
    rows = until(lambda: records(running, team="crash", status="cut"), bool, 20)
    (row,) = rows
    assert (row["resolution"], row["operation"], row["charge"]) == ("charge_max", "ocr", row["held"])
    assert nanos(row["held"]) > 0


def made_service(running: Installation, name: str, **words: Any) -> dict[str, Any]:
    """One that the API makes, where the services of the file are."""
    place = running.admin("GET", "/api/v1/services/ocr")["base_url"]
    rule = {"max_duration": "5s", "api_key": CANARY, "api_key_header": "x-key", "allow_http": True}
    row: dict[str, Any] = running.admin("POST", "/api/v1/services", {"name": name, "base_url": place, **rule, **words})
    # The answer waits until the gate works from it, so that nobody has to wait here.
    assert row["applied"]
    return row


def test_a_service_of_the_api_is_called_priced_and_recorded_until_it_goes(running: Installation) -> None:
    """Made, it takes calls at once, with its credential; a new price holds from its answer on, then it is gone."""
    key = new_key(running, "made", team="made")
    assert ask(running, key["secret"], "/services/made/a").status == 404
    units_price = {"header": "x-units", "price": "0.01", "max": 9, "name": "pages"}
    row = made_service(running, "made", price={"per_call": "0.001", "units": units_price})
    only = new_key(running, "only-made", team="made", operations=["made"])
    first = ask(running, only["secret"], "/services/made/read?units=3&say=secret", content=b"abc")
    assert (first.status, CANARY in first.text + str(first.headers)) == (200, False)
    booked = record(running, first.id)
    assert (booked["operation"], booked["provider"], booked["charge"]) == ("made", "made", "0.031")
    assert units(booked)["units", "pages"] == 3
    assert ask(running, only["secret"], "/services/ocr/a").code == "operation_forbidden"

    changed = running.admin("PATCH", f"/api/v1/services/{row['id']}", {"price": {"per_call": "0.002"}})
    second = record(running, ask(running, key["secret"], "/services/made/a").id)
    assert (changed["applied"], second["charge"]) == (True, "0.002")
    assert record(running, first.id)["charge"] == "0.031"
    limit = new_limit(running, {"team": "made", "service": "made"}, "requests", 0)
    assert ask(running, key["secret"], "/services/made/a").code == "budget_exhausted"
    running.admin("DELETE", f"/api/v1/limits/{limit['id']}")

    running.admin("PATCH", f"/api/v1/services/{row['id']}", {"state": "disabled"})
    assert ask(running, key["secret"], "/services/made/a").code == "not_found"
    running.admin("PATCH", f"/api/v1/services/{row['id']}", {"state": "active", "methods": ["GET"]})
    assert ask(running, key["secret"], "/services/made/a").status == 405
    assert ask(running, key["secret"], "/services/made/a", "GET").status == 200
    running.admin("DELETE", f"/api/v1/services/{row['id']}")
    gone = ask(running, key["secret"], "/services/made/a", "GET")
    assert (gone.status, gone.code) == (404, "not_found")
    files = [path for path in running.data.rglob("*") if path.is_file()]
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []


def test_the_books_verify_and_outlive_a_restart(running: Installation) -> None:
    """Every posting has two sides, and services are there again, also those of the API with their secrets."""
    made_service(running, "kept", price={"per_call": "0.001"})
    checked = running.settled()
    assert (checked["ok"], checked["sum"], checked["held"]) == (True, "0", "0")
    running.restart()
    key = new_key(running, "again", team="again")
    assert ask(running, key["secret"], "/services/ocr/a").status == 200
    kept = ask(running, key["secret"], "/services/kept/a?say=secret")
    assert (kept.status, kept.text) == (200, "secret***")
    assert running.settled()["ok"]
    assert CANARY not in running.log()


# -- the guide ---------------------------------------------------------------------------------------------------------


def fences(language: str) -> list[str]:
    """Blocks of one language of the guide."""
    blocks: list[str] = []
    inside = False
    for line in GUIDE.read_text().splitlines():
        bare = line.strip()
        if bare == f"```{language}":
            inside = True
            blocks.append("")
        elif bare == "```":
            inside = False
        elif inside:
            blocks[-1] += line.removeprefix("   ") + "\n"
    return blocks


def test_the_guide_is_followed_as_it_is_written(tmp_path: Path) -> None:
    """Its file is written, its commands are typed in its order, and what it says comes true."""
    with service() as port:
        (written,) = fences("yaml")
        config = written.replace(":9000", f":{port}")
        (tmp_path / "faregate.yaml").write_text(config)
        running = Installation(tmp_path, config=config.replace("{", "{{").replace("}", "}}"), serve=False)
        environment = {"FAREGATE_DATA": str(running.data)}
        own = {"pages": Fraction("0.001")}
        said: dict[str, str] = {}
        secret = ""
        with running:
            for line in "".join(fences("console")).replace(":9000", f":{port}").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[0] == "export":
                    running.start()
                elif words[0] == "curl":
                    assert words[1:3] == ["-H", "Authorization: Bearer $KEY"]
                    path = words[3].removeprefix("http://127.0.0.1:4000")
                    answer = ask(running, secret, path, "GET")
                    row = record(running, answer.id)
                    busy = Fraction(units(row)["busy_milliseconds", None], 3_600_000)
                    cost = own.get(row["operation"]) or Fraction("0.001") + busy * 8 / 64 * Fraction("2.40")
                    assert (answer.status, nanos(row["charge"])) == (200, round(cost * 10**9))
                else:
                    told = program(tmp_path, environment, *words[1:])
                    assert (words[0], told.code) == ("faregate", 0), f"{line}: {told.err}"
                    said[" ".join(words[1:])] = told.out + told.err
                    if words[1:3] == ["key", "create"]:
                        secret = told.json["secret"]
        assert "1 service" in said["check"]
        assert [line.split()[1] for line in said["service list"].splitlines()] == ["name", "ocr", "pages"]
        assert "deleted svc_" in said["service delete pages --yes"]
        assert "busy_milliseconds" in said["price list --provider ocr"]
        assert "ocr" in said["usage --by team,model"]
        assert "\nanchor " in said["verify"]
        assert ": ok\n" in said["verify"]
