"""``docs/guides/spread-over-deployments.md``, by its own configuration: who is asked, and what becomes of failures."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from installation import VISIBLE_SECONDS, Installation, Refused
from system.calls import Answer, ask, ask_all, body, new_key, record, records, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "spread-over-deployments.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]


class Spread(NamedTuple):
    """The installation of the guide, and secrets of an ordinary key and of one of the product that is led elsewhere."""

    running: Installation
    plain: str
    searching: str
    premium: str

    def ask(self, secret: str = "", **more: Any) -> Answer:
        return ask(self.running, secret or self.plain, body(model="chat"), **more)

    def script(self, *rules: dict[str, Any]) -> None:
        self.running.simulator("POST", "script", list(rules))

    def health(self) -> list[dict[str, Any]]:
        resting: list[dict[str, Any]] = self.running.admin("GET", "/api/v1/health")["gate"]["resting"]
        return resting


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    (config,) = blocks("yaml")
    config = config.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:4010", "127.0.0.1:{simulator_port}")
    with Installation(tmp_path_factory.mktemp("pools"), config=config) as running:
        running.admin("POST", "/api/v1/products", {"name": "premium"})
        plain = new_key(running, "plain", team="research")["secret"]
        searching = new_key(running, "searching", team="search")["secret"]
        premium = new_key(running, "premium", team="research", product="premium")["secret"]
        yield Spread(running, plain, searching, premium)


@pytest.fixture
def spread(installed: Spread) -> Spread:
    """All providers are well, and no deployment rests."""
    installed.script()

    def well() -> bool:
        if installed.health():
            for priority in ("", "", "", "50"):
                installed.ask(installed.searching, headers={"priority": priority} if priority else {})
        return not installed.health()

    assert until(well, bool, 20)
    return installed


def places(answers: list[Answer]) -> Counter[str]:
    return Counter(answer.headers["x-faregate-deployment"] for answer in answers)


@pytest.mark.timeout(300)
def test_calls_are_spread_by_weight(spread: Spread) -> None:
    """Of 300 calls two thirds go east and one third west, exactly; what is booked says the same."""
    answers = asyncio.run(ask_all(spread.running, spread.plain, [body(model="chat")] * 300))
    assert {answer.status for answer in answers} == {200}
    assert places(answers) == {"east-1": 200, "west-1": 100}
    kept = until(lambda: records(spread.running, deployment="west-1"), lambda rows: len(rows) >= 100, VISIBLE_SECONDS)
    assert len({row["id"] for row in kept} & {answer.id for answer in answers}) == 100


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("priority", "place"),
    [
        ("0", "reserved"),
        ("100", "reserved"),
        ("100 of another", "main"),
        ("101", "main"),
        ("1001", "main"),
        ("-1", "main"),
        ("high", "main"),
        ("", "main"),
    ],
)
def test_priority_leads_to_its_deployments(spread: Spread, priority: str, place: str) -> None:
    """What is in the range goes to what is reserved for it, for whom that is; anything else, or nothing, as all do."""
    number, of, _ = priority.partition(" of ")
    answer = spread.ask(spread.plain if of else spread.searching, headers={"priority": number} if number else {})
    found = answer.headers["x-faregate-deployment"]
    assert found == place if place == "reserved" else found in ("east-1", "west-1")


@pytest.mark.timeout(300)
def test_a_product_has_its_own_place(spread: Spread) -> None:
    """Its keys are led there, and to the pool where that fails."""
    assert places([spread.ask(spread.premium) for _ in range(3)]) == {"reserved": 3}
    spread.script({"model": "sim-reserved", "steer": {"status": 503}})
    answer = spread.ask(spread.premium)
    assert answer.headers["x-faregate-deployment"] in ("east-1", "west-1")
    assert answer.headers["x-faregate-attempts"] == "2"


@pytest.mark.timeout(300)
def test_a_failing_deployment_rests_and_comes_back(spread: Spread) -> None:
    """Callers see no failure; it gets no more calls than its breaker allows, is told of, and is tried again."""
    spread.script({"model": "sim-east", "steer": {"status": 503}})
    answers = [spread.ask() for _ in range(12)]
    assert {answer.status for answer in answers} == {200}
    assert places(answers) == {"west-1": 12}
    failures = sum(answer.headers.get("x-faregate-attempts") == "2" for answer in answers)
    assert failures == 3
    (rests,) = spread.health()
    assert (rests["deployment"], rests["state"]) == ("east-1", "open")
    assert 'faregate_deployment_state{deployment="east-1",state="open"} 1.0' in metrics(spread.running)
    looked = spread.running.cli_raw("doctor")
    assert "east-1 failed too often and" in looked.stdout
    tried = next(answer for answer in answers if answer.headers.get("x-faregate-attempts") == "2")
    found = record(spread.running, tried.id)
    assert [(each["deployment"], each["http_status"]) for each in found["attempts"]] == [
        ("east-1", 503),
        ("west-1", 200),
    ]

    spread.script()
    back = until(lambda: places([spread.ask() for _ in range(3)]), lambda seen: seen["east-1"] > 0, 20)
    assert back["east-1"] > 0
    assert until(spread.health, lambda resting: not resting, 20) == []
    logged = spread.running.log()
    assert logged.index("deployment_rests") < logged.index("deployment_is_back")


@pytest.mark.timeout(300)
def test_where_all_rest_nothing_is_sent(spread: Spread) -> None:
    """503 with the seconds until one of them is tried again; providers are left alone meanwhile."""
    spread.script({"model": "*", "steer": {"status": 500}})
    until(lambda: spread.ask(), lambda answer: answer.status == 503, 20)
    before = len(spread.running.truth())
    refused = spread.ask()
    assert (refused.status, refused.code) == (503, "upstream_resting")
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert len(spread.running.truth()) == before


@pytest.mark.timeout(300)
def test_a_budget_for_spill_sends_calls_on(spread: Spread) -> None:
    """The command of the guide, and a budget that is used up: calls go to the next deployment, and none is refused."""
    (command,) = (line for block in blocks("console") for line in block.splitlines() if "limit set" in line)
    made = spread.running.cli(*shlex.split(command.removeprefix("$ faregate ")))
    limit = spread.running.admin("GET", f"/api/v1/limits/{made['id']}")
    assert (limit["select"], limit["amount"]) == ({"deployment": "west-1"}, "50")
    spread.running.admin("PATCH", f"/api/v1/limits/{made['id']}", {"amount": "0"})
    answers = until(
        lambda: [spread.ask() for _ in range(6)], lambda answers: set(places(answers)) == {"east-1"}, VISIBLE_SECONDS
    )
    assert {answer.status for answer in answers} == {200}
    assert places(answers) == {"east-1": 6}
    spread.running.admin("DELETE", f"/api/v1/limits/{made['id']}")


def metrics(running: Installation) -> str:
    """What Prometheus would read."""
    return httpx2.get(f"{running.console_url}/metrics", trust_env=False).text


@pytest.mark.timeout(300)
def test_a_request_is_explained_try_by_try(spread: Spread) -> None:
    """What came of each try, where the name may lead, and what it cost, in sentences and as JSON."""
    spread.script({"model": "sim-reserved", "steer": {"status": 429}})
    answer = spread.ask(spread.premium)
    record(spread.running, answer.id)
    told = spread.running.cli_raw("explain", answer.id)
    assert told.returncode == 0
    assert "1. reserved: 429 (upstream_error) after" in told.stdout
    assert re.search(r"2\. (east|west)-1: 200 after", told.stdout)
    assert "may lead" in told.stdout
    assert "chat" in told.stdout
    assert f"charged {answer.headers['x-faregate-cost']}" in told.stdout
    as_json = spread.running.cli("explain", answer.id)
    assert [each["http_status"] for each in as_json["attempts"]] == [429, 200]


@pytest.mark.timeout(300)
def test_where_a_call_would_go_is_told(spread: Spread) -> None:
    """By pool, selection and priority of the very caller; unknown names and keys are no secret's business."""
    keys = {row["name"]: row["id"] for row in spread.running.admin("GET", "/api/v1/keys")["data"]}
    plain = spread.running.cli("explain", "--model", "chat", "--key", keys["plain"])
    assert [each["deployment"] for each in plain["order"]] == ["east-1", "west-1"]
    assert {each["why"] for each in plain["order"]} == {"weighted"}
    premium = spread.running.cli("explain", "--model", "chat", "--key", keys["premium"])
    assert premium["selected"] == {"product": "premium"}
    assert [each["deployment"] for each in premium["order"]] == ["reserved", "east-1", "west-1"]
    first = spread.running.cli("explain", "--model", "chat", "--key", keys["searching"], "--priority", "50")
    assert (first["priority"], first["order"][0]["why"]) == (50, "priority 0 to 100")
    other = spread.running.cli("explain", "--model", "chat", "--key", "plain", "--priority", "50")
    assert (other["priority"], other["order"][0]["deployment"]) == (None, "east-1")
    words = spread.running.cli_raw("explain", "--model", "chat", "--operation", "no.such")
    assert "east-1 is left out: it does not do no.such" in words.stdout
    assert spread.running.cli_raw("explain", "--model", "nothing").returncode == 1
    assert spread.running.cli_raw("explain", "--model", "chat", "--key", "key_absent").returncode == 1
    assert spread.running.cli_raw("explain").returncode == 2


@pytest.mark.timeout(300)
def test_a_name_of_the_api_may_lead_to_a_pool(spread: Spread) -> None:
    """It is spread as the pool says; nothing that is made may take the pool's name."""
    made = spread.running.admin("POST", "/api/v1/models", {"name": "house", "to": ["main"]})
    answers = until(
        lambda: [ask(spread.running, spread.plain, body(model="house")) for _ in range(6)],
        lambda answers: {answer.status for answer in answers} == {200},
        VISIBLE_SECONDS,
    )
    assert places(answers) == {"east-1": 4, "west-1": 2}
    for path, wanted in (
        ("models", {"name": "main", "to": ["east-1"]}),
        ("deployments", {"name": "main", "provider": "east", "model": "sim-1"}),
    ):
        with pytest.raises(Refused, match="409"):
            spread.running.admin("POST", f"/api/v1/{path}", wanted)
    spread.running.admin("DELETE", f"/api/v1/models/{made['id']}")


@pytest.mark.timeout(300)
def test_a_pool_of_the_api_acts_at_once_and_so_does_its_change(spread: Spread) -> None:
    """By the commands of the guide: calls are spread by weight, one product's key is led elsewhere, all by one word."""
    create, name, change = (
        shlex.split(line.removeprefix("$ faregate "))
        for block in blocks("console")
        for line in block.splitlines()
        if "overflow" in line
    )

    def found(count: int, secret: str = "") -> Counter[str]:
        wanted = [body(model="chat-overflow") for _ in range(count)]
        answers = [ask(spread.running, secret or spread.plain, each) for each in wanted]
        assert {answer.status for answer in answers} == {200}, [answer.text for answer in answers]
        return places(answers)

    made = spread.running.cli(*create)
    assert (made["source"], made["breaker"]["trip"]) == ("api", "5000ms")
    spread.running.cli(*name)
    # Each command waits until the gate works from what it changed, so that nobody has to wait here.
    assert found(8) == {"east-1": 6, "west-1": 2}
    assert found(3, spread.premium) == {"reserved": 3}
    told = spread.running.cli("explain", "--model", "chat-overflow")
    assert [(each["name"], each["strategy"]) for each in told["pools"]] == [("overflow", "weighted")]
    (place,) = (
        each for each in spread.running.admin("GET", "/api/v1/places")["models"] if each["name"] == "chat-overflow"
    )
    assert set(place["to"]) == {"east-1", "west-1", "reserved"}

    spread.running.cli(*change)
    assert found(4) == {"west-1": 4}
    spread.script({"model": "sim-west", "steer": {"status": 503}})
    assert found(4) == {"east-1": 4}
    assert "model chat-overflow leads" in spread.running.cli_raw("pool", "delete", "overflow", "--yes").stderr
    spread.running.cli("model", "delete", "chat-overflow")
    spread.running.cli("pool", "delete", "overflow", "--yes")
    rows = spread.running.admin("GET", "/api/v1/pools")["data"]
    assert [(row["name"], row["source"]) for row in rows] == [("main", "file")]
