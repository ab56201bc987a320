"""``docs/guides/keep-answers.md``, by its own configuration: what is given again, to whom, and what it saves."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from installation import VISIBLE_SECONDS, Installation
from system.calls import ACTS_SECONDS, Answer, ask, ask_all, body, events, new_key, record, records, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "keep-answers.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: Ten tokens in at 1 $ and twenty out at 2 $ for a million.
CALL: dict[str, Any] = {"prompt_tokens": 10, "output_tokens": 20}
COST = "0.00005"


class Kept(NamedTuple):
    """The installation of the guide, and secrets of keys by name."""

    running: Installation
    secrets: dict[str, str]

    def ask(self, text: str = "Say hello.", name: str = "ann", **more: Any) -> Answer:
        stream = more.pop("stream", False)
        return ask(self.running, self.secrets[name], body(text, model="chat", stream=stream, **CALL), **more)

    def served(self) -> int:
        return len(self.running.truth())


def told(*answers: Answer) -> list[str | None]:
    """What answers say of the cache."""
    assert {answer.status for answer in answers} == {200}, [answer.text for answer in answers]
    return [answer.headers.get("x-faregate-cache") for answer in answers]


def configuration() -> str:
    """That of the guide, for this installation's simulator."""
    (config,) = [str(text) for kind, text in FENCE.findall(GUIDE.read_text()) if kind == "yaml"]
    return config.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:4010", "127.0.0.1:{simulator_port}")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with Installation(tmp_path_factory.mktemp("cache"), config=configuration()) as running:
        secrets = {}
        for name, project in (("ann", "search"), ("bob", "search"), ("eve", "chat")):
            secrets[name] = new_key(running, name, team="research", project=project)["secret"]
        secrets["prod"] = new_key(running, "prod", team="research", project="search", stage="prod")["secret"]
        yield Kept(running, secrets)


@pytest.fixture
def kept(installed: Kept) -> Kept:
    """Nothing is kept."""
    installed.running.cli("cache", "flush")
    return installed


@pytest.mark.timeout(300)
def test_the_same_call_of_a_project_is_answered_once(kept: Kept) -> None:
    """Both keys of a project get one answer; the provider is asked once, and another project asks for itself."""
    before = kept.served()
    answers = [kept.ask(name=name) for name in ("ann", "bob", "eve", "eve", "prod", "prod")]
    assert told(*answers) == ["miss", "hit", "miss", "hit", "off", "off"]
    assert answers[1].text == answers[0].text
    assert kept.served() - before == 4


@pytest.mark.timeout(300)
def test_a_hit_is_a_record_that_says_what_it_saved(kept: Kept) -> None:
    """It costs nothing, is counted as a request, and the report tells hits, misses and money by project."""
    first, second = kept.ask("What is saved?"), kept.ask("What is saved?", name="bob")
    made, hit = record(kept.running, first.id), record(kept.running, second.id)
    assert (made["cache"], made["saved_cost"], made["cost"]) == ("miss", "0", COST)
    assert (hit["cache"], hit["saved_cost"], hit["cost"], hit["charge"]) == ("hit", COST, "0", "0")
    assert (hit["status"], hit["input_tokens"], hit["output_tokens"], hit["deployment"]) == ("ok", 0, 0, None)
    assert (hit["model"], hit["project"]) == ("sim-1", "search")

    report = kept.running.cli("report", "cache", "--by", "project")
    rows = {row["project"]: row for row in report["data"]}
    assert rows["search"]["cache_hits"] >= 1
    assert float(rows["search"]["saved_cost"]) >= float(COST)
    assert rows["search"]["hit_charge"] == "0"


@pytest.mark.timeout(300)
def test_a_stream_is_replayed_as_events(kept: Kept) -> None:
    """The same events to the same end, and no whole answer for a stream."""
    whole, first, second = kept.ask(), kept.ask(stream=True), kept.ask(stream=True)
    assert told(whole, first, second) == ["miss", "miss", "hit"]
    assert second.text == first.text
    assert second.text.rstrip().endswith("data: [DONE]")
    assert events(second.text) == events(first.text)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-faregate-cache": "off"}, "off"),
        ({"openai-proxy-caching": "0"}, "off"),
        ({"cache-control": "no-store"}, "off"),
        ({"cache-control": "no-cache"}, "miss"),
        ({"x-faregate-cache": "refresh"}, "miss"),
        ({"x-faregate-cache": "on"}, "hit"),
        ({"openai-proxy-caching": "1"}, "hit"),
    ],
)
def test_a_request_has_its_say(kept: Kept, headers: dict[str, str], expected: str) -> None:
    """What is no hit reaches the provider."""
    kept.ask()
    before = kept.served()
    assert told(kept.ask(headers=headers)) == [expected]
    assert kept.served() - before == (expected != "hit")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["key", "project", "stage"])
def test_a_key_a_project_and_a_stage_have_theirs(kept: Kept, kind: str) -> None:
    """Turned off by the API it is off within a second, whatever a request says; left open again it is on again."""
    name = {"key": "ann", "project": "search", "stage": "dev"}[kind]
    if kind == "stage":
        kept.secrets["dev"] = new_key(kept.running, "dev", team="research", project="search", stage="dev")["secret"]
    caller = "dev" if kind == "stage" else "ann"
    rows = kept.running.admin("GET", f"/api/v1/{kind}s?name={name}")["data"]
    path = f"/api/v1/{kind}s/{next(row['id'] for row in rows if row['name'] == name)}"

    def is_told(expected: str) -> bool:
        seen = until(lambda: told(kept.ask(name=caller)), lambda found: found == [expected], ACTS_SECONDS)
        return seen == [expected]

    kept.ask(name=caller)
    assert is_told("hit")
    kept.running.admin("PATCH", path, {"cache": "off"})
    assert is_told("off")
    assert told(kept.ask(name=caller, headers={"x-faregate-cache": "on"})) == ["off"]
    kept.running.admin("PATCH", path, {"cache": None})
    assert is_told("hit")


@pytest.mark.timeout(300)
def test_a_revoked_key_is_let_in_no_more(kept: Kept) -> None:
    """What is kept is for callers that are let in."""
    made = new_key(kept.running, "gone", team="research", project="search")
    secret = made["secret"]
    assert told(ask(kept.running, secret, body(model="chat")), ask(kept.running, secret, body(model="chat"))) == [
        "miss",
        "hit",
    ]
    kept.running.cli("key", "revoke", made["id"], "--yes")
    refused = until(lambda: ask(kept.running, secret, body(model="chat")), lambda got: got.status == 401, ACTS_SECONDS)
    assert (refused.status, refused.code) == (401, "key_revoked")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (("--project", "search"), {"ann"}),
        (("--project", "chat"), {"eve"}),
        (("--model", "chat"), {"ann", "eve"}),
        (("--model", "other"), set()),
        (("--key", "eve"), {"eve"}),
        (("--project", "search", "--key", "eve"), set()),
        ((), {"ann", "eve"}),
    ],
)
def test_flushed_answers_are_asked_again(kept: Kept, options: tuple[str, ...], gone: set[str]) -> None:
    """A flush takes what it names, says how much that was, and leaves the rest."""
    for name in ("ann", "eve"):
        kept.ask(name=name)
    assert kept.running.cli("cache", "flush", *options) == {"removed": len(gone)}
    assert {name for name in ("ann", "eve") if told(kept.ask(name=name)) == ["miss"]} == gone


@pytest.mark.timeout(300)
def test_answers_outlive_a_restart(kept: Kept) -> None:
    """After an orderly stop nothing is forgotten; after a crash calls go on, and the books hold."""
    kept.ask("Remember me.")
    kept.running.restart()
    until(lambda: kept.ask("Another.").status, lambda status: status == 200, 20)
    assert told(kept.ask("Remember me.")) == ["hit"]
    kept.running.kill_gate()

    def again() -> int:
        try:
            return kept.ask("Remember me.").status
        except OSError:
            return 0
        except Exception:
            return 0

    assert until(again, lambda status: status == 200, 20) == 200
    assert kept.running.cli("verify")["ok"] is True


@pytest.mark.timeout(300)
def test_every_call_is_one_record(kept: Kept) -> None:
    """Hits and misses, many at once: one record each, the books hold, and sums of tokens are what was served."""
    before = kept.running.cli("usage", "--by", "model")
    bodies = [body(f"Question {number % 20}.", model="chat", **CALL) for number in range(400)]
    answers = asyncio.run(ask_all(kept.running, kept.secrets["ann"], bodies[:20]))
    answers += asyncio.run(ask_all(kept.running, kept.secrets["ann"], bodies[20:]))
    counted = Counter(told(*answers))
    assert counted == {"hit": 380, "miss": 20}

    def sums() -> dict[str, int]:
        rows = kept.running.cli("usage", "--by", "model")
        names = ("requests", "cache_hits", "cache_misses", "output_tokens")
        return {name: sum(row[name] for row in rows) - sum(row.get(name, 0) for row in before) for name in names}

    found = until(sums, lambda found: found["requests"] >= 400, VISIBLE_SECONDS)
    assert found == {
        "requests": 400,
        "cache_hits": counted["hit"],
        "cache_misses": counted["miss"],
        "output_tokens": 20 * counted["miss"],
    }
    assert kept.running.cli("verify")["ok"] is True


@pytest.mark.timeout(300)
def test_what_is_kept_can_be_looked_at(kept: Kept) -> None:
    """How much is kept, and where, stands in the API, on the command line and among the metrics."""
    kept.ask()
    shown = kept.running.cli("cache", "show")
    assert (shown["enabled"], shown["store"], shown["default"], shown["ttl_seconds"]) == (True, "embedded", "on", 3600)
    assert shown["entries"] == 1
    assert shown["hits"] + shown["misses"] >= 1


@pytest.mark.timeout(1_200)
def test_two_tenants_never_share(kept: Kept) -> None:
    """Equal prompts of two organizations, mixed, many at once: no hit of one was ever made for the other (G19)."""
    prompts = 10_000 if os.environ.get("FAREGATE_SOAK") else 400
    secrets = [
        new_key(kept.running, f"{name}-{prompts}", organization=name, team="research", project="search")["secret"]
        for name in ("acme", "umbra")
    ]

    async def ask_both(first: int) -> list[list[Answer]]:
        bodies = [body(f"Question {number % 50}.", model="chat", **CALL) for number in range(first, first + 100)]
        return list(await asyncio.gather(*(ask_all(kept.running, secret, bodies) for secret in secrets)))

    made: list[dict[str, Any]] = []
    for first in range(0, prompts // 2, 100):
        for answers in asyncio.run(ask_both(first)):
            assert {answer.status for answer in answers} == {200}
    for name in ("acme", "umbra"):
        found = until(
            lambda name=name: records(kept.running, organization=name),  # type: ignore[misc]
            lambda rows: len(rows) >= prompts // 2,
            VISIBLE_SECONDS,
        )
        own = {row["id"] for row in found}
        hits = [row for row in found if row["cache"] == "hit"]
        assert len(found) == prompts // 2
        assert hits
        assert {row["notes"]["answer_of"] for row in hits} <= own
        made += found
    assert len({row["id"] for row in made}) == prompts


@pytest.mark.timeout(300)
def test_a_stage_of_the_api_is_a_stage(kept: Kept) -> None:
    """One that was made by the API can be named by a request, and what it says of the cache holds."""
    kept.running.admin("POST", "/api/v1/stages", {"name": "lab", "cache": "off"})
    secret = new_key(kept.running, "lab", team="research", project="search", may_set=["stage"])["secret"]
    headers = {"x-faregate-stage": "lab"}
    seen = until(
        lambda: ask(kept.running, secret, body(model="chat"), headers=headers),
        lambda got: got.status == 200,
        ACTS_SECONDS,
    )
    assert told(seen) == ["off"]
