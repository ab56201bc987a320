"""``/api/v1/reports/deployments``: how deployments compare, with mirrored calls beside their copies."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import DAY, NOON, WHO, Api, Parts, opened, parts, recalled_call, refused_call, settled_call
from faregate.console import comparing
from faregate.console.doors import trusted
from faregate.console.keys import NewKey, create
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Event

OTHER = WHO._replace(team="ops", project="pager", deployment="azure/gpt-4o", provider="azure")
CANDIDATE = Attribution(model="mini", deployment="candidate", provider="azure", service="chat.completions")


def call(id: str, *, who: Attribution = WHO, of: str = "", stream: bool = True, **changed: Any) -> list[Event]:
    """A call, or the copy of one: 300 and 100 tokens, a second, of which a quarter was to the first token."""
    intent, end = settled_call(id, who=who, at=changed.pop("at", NOON))
    notes = json.dumps({"mirror_of": of}) if of else ""
    return [intent._replace(stream=stream, notes=notes), end._replace(**changed)]  # type: ignore[call-arg]


def fill(made: Parts) -> None:
    """Calls of two teams at two deployments, and copies of some at a third."""
    made.journal.add(
        opened(),
        *call("req_1"),
        *call("req_2", latency_us=2_000_000, stream=False),
        *call("req_3", status="failed", cost=0, charge=0, latency_us=9_000_000),
        *call("req_4", who=OTHER),
        *call("req_5", who=OTHER, status="aborted", cost=1_000_000, charge=1_000_000),
        *call("req_6", who=CANDIDATE, of="req_1", cost=875_000, latency_us=500_000),
        *call("req_7", who=CANDIDATE, of="req_2", cost=875_001, latency_us=700_000, stream=False),
        *call("req_8", who=CANDIDATE, of="req_3", cost=875_000),
        *call("req_9", who=CANDIDATE, of="req_4", status="failed", cost=0, charge=0),
        *call("req_a", who=CANDIDATE, of="req_lost", cost=875_000),
        *call("req_b", at=NOON - 40 * DAY),
        recalled_call("req_c"),
        refused_call("req_d"),
    )
    made.project()


ROWS = [
    {
        "model": "gpt-4o", "deployment": "azure/gpt-4o", "provider": "azure", "mirrored": False,
        "requests": 2, "ok": 1, "failed": 0, "ok_ratio": "1.0000", "cost": "0.00275", "cost_per_request": "0.001375",
        "input_tokens": 600, "output_tokens": 200, "latency_ms": {"p50": 1000, "p90": 1000, "p99": 1000},
        "first_token_ms": {"p50": 250, "p90": 250}, "output_tokens_per_second": 133.333,
    },
    {
        "model": "gpt-4o", "deployment": "openai/gpt-4o", "provider": "openai", "mirrored": False,
        "requests": 3, "ok": 2, "failed": 1, "ok_ratio": "0.6667", "cost": "0.0035", "cost_per_request": "0.00175",
        "input_tokens": 900, "output_tokens": 300, "latency_ms": {"p50": 1000, "p90": 2000, "p99": 2000},
        "first_token_ms": {"p50": 250, "p90": 250}, "output_tokens_per_second": 133.333,
    },
    {
        "model": "mini", "deployment": "candidate", "provider": "azure", "mirrored": True,
        "requests": 5, "ok": 4, "failed": 1, "ok_ratio": "0.8000",
        "cost": "0.003500001", "cost_per_request": "0.000875",
        "input_tokens": 1500, "output_tokens": 500, "latency_ms": {"p50": 700, "p90": 1000, "p99": 1000},
        "first_token_ms": {"p50": 250, "p90": 250}, "output_tokens_per_second": 133.333,
    },
]  # fmt: skip
PAIRS = [
    {
        "model": "gpt-4o", "deployment": "azure/gpt-4o", "mirror": "candidate", "pairs": 0, "cost": "0",
        "mirror_cost": "0", "latency_ms": None, "mirror_latency_ms": None, "output_tokens": 0,
        "mirror_output_tokens": 0, "failed": 0, "mirror_failed": 1,
    },
    {
        "model": "gpt-4o", "deployment": "openai/gpt-4o", "mirror": "candidate", "pairs": 2, "cost": "0.0035",
        "mirror_cost": "0.001750001", "latency_ms": 1000, "mirror_latency_ms": 500, "output_tokens": 200,
        "mirror_output_tokens": 200, "failed": 1, "mirror_failed": 0,
    },
]  # fmt: skip


def test_each_deployment_is_a_row_and_copies_are_apart(made: Parts, api: Api) -> None:
    """What calls cost, how they ended and how long they took; refusals and hits are in no row."""
    fill(made)
    told = api.get("/api/v1/reports/deployments")
    assert told == {
        "since": "2026-11-01T00:00:00Z", "until": "2026-11-21T12:00:00Z", "records": 10, "truncated": False,
        "data": ROWS, "pairs": PAIRS,
    }  # fmt: skip


def test_what_is_asked_for_narrows_it(made: Parts, api: Api) -> None:
    """By model, deployment, operation and whether it was a stream; pairs by either side."""
    fill(made)

    def told(query: str) -> tuple[list[str], list[str]]:
        found = api.get(f"/api/v1/reports/deployments?{query}")
        return [row["deployment"] for row in found["data"]], [row["deployment"] for row in found["pairs"]]

    both = ["azure/gpt-4o", "openai/gpt-4o"]
    assert told("model=mini") == (["candidate"], both)
    assert told("deployment=azure/gpt-4o") == (["azure/gpt-4o"], ["azure/gpt-4o"])
    assert told("operation=embeddings") == ([], [])
    assert told("stream=false") == (["openai/gpt-4o", "candidate"], ["openai/gpt-4o"])
    assert told("since=2026-10-01&until=2026-11-01") == (["openai/gpt-4o"], [])


def test_a_key_of_a_team_sees_its_own_calls_alone(made: Parts) -> None:
    """No copy of its calls and no pair, however it asks: what copies cost is on no bill of its own."""
    fill(made)
    _, secret = create(made.console, NewKey(name="reads", role="manager", team="ops"))
    api = Api(made.app, secret)
    for query in ("", "?deployment=azure/gpt-4o", "?model=gpt-4o"):
        told = api.get(f"/api/v1/reports/deployments{query}")
        assert (told["data"], told["pairs"], told["records"]) == ([ROWS[0]], [], 2)
    for query in ("?deployment=candidate", "?model=mini", "?deployment=openai/gpt-4o"):
        told = api.get(f"/api/v1/reports/deployments{query}")
        assert (told["data"], told["pairs"], told["records"]) == ([], [], 0)


@pytest.mark.parametrize("query", ["team=ops", "stream=yes", "since=yesterday", "since=2026-11-21&until=2026-11-20"])
def test_what_cannot_be_asked_is_refused(api: Api, query: str) -> None:
    """It is named."""
    assert api.get(f"/api/v1/reports/deployments?{query}", 400)["code"] == "filter_invalid"


def test_the_number_of_records_is_bounded(made: Parts) -> None:
    """The newest are compared, and it is said that there are more."""
    fill(made)
    told = comparing.shape(made.books.comparison(0, 0, 3))
    assert (told["records"], told["truncated"]) == (3, True)
    assert sum(row["requests"] for row in told["data"]) == 3
    assert comparing.RECORDS_MAX == 100_000


def test_a_record_says_of_which_call_it_is_a_copy(made: Parts, api: Api) -> None:
    """In its notes."""
    fill(made)
    assert api.get("/api/v1/requests/req_6")["notes"] == {"mirror_of": "req_1"}


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def report(made: Parts, *words: str) -> Any:
    return command("report", "deployments", *words, "--data", made.folder / "data")


def test_the_command_prints_tables_csv_or_json(running: Parts) -> None:
    """Rows, and below them the pairs; for a sheet one of the two."""
    fill(running)
    asked = ("--since", "2026-11-01", "--until", "2026-12-01")
    lines = report(running, *asked).out.splitlines()
    assert lines[0].split()[:4] == ["model", "deployment", "mirrored", "requests"]
    assert [line.split()[1] for line in lines[1:4]] == ["azure/gpt-4o", "openai/gpt-4o", "candidate"]
    assert lines[4] == ""
    assert lines[5].split()[:4] == ["model", "deployment", "mirror", "pairs"]
    rows = list(csv.DictReader(io.StringIO(report(running, *asked, "--format", "csv").out)))
    assert [row["latency_ms_p90"] for row in rows] == ["1000.0", "2000.0", "1000.0"]
    pairs = list(csv.DictReader(io.StringIO(report(running, *asked, "--pairs", "--format", "csv").out)))
    assert [(row["pairs"], row["latency_ms"]) for row in pairs] == [("0", ""), ("2", "1000.0")]
    told = json.loads(report(running, *asked, "--format", "json").out)
    assert (told["data"], told["pairs"]) == (ROWS, PAIRS)
    assert report(running, *asked, "--pairs", "--json").json == PAIRS
    chosen = report(running, *asked, "--select", "deployment=candidate,stream=true").out.splitlines()
    assert chosen[1].split()[:4] == ["mini", "candidate", "yes", "4"]
    assert report(running, "--format", "xml").code == 2


def test_a_copy_is_explained(running: Parts) -> None:
    """It names the request that it is a copy of."""
    fill(running)
    told = command("explain", "req_6", "--data", running.folder / "data").out
    assert "it is a copy of req_1, made to compare deployments" in told
    assert "copy" not in command("explain", "req_1", "--data", running.folder / "data").out
