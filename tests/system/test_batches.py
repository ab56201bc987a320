"""Files and batches through the gate: the stock client, and books that agree with the truth of every line.

A batch is held at the most that all its lines may cost, and settled once, with what each of them did cost, at the
prices of batches; whatever becomes of it, and whoever dies in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from installation import OPENAI_AND_AZURE, Installation, nanos
from system.calls import ask, new_key, new_limit, record, records, until

CONFIG = (
    OPENAI_AND_AZURE
    + """\
deployments:
  - {{name: azure-sim, provider: sim-azure, deployment: my-sim, model: sim-1}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
  - {{name: quick, to: [sim/sim-fast], max_output_tokens: 512}}
  - {{name: sim-embed, to: [sim/sim-embed]}}
  - {{name: from-azure, to: [azure-sim], max_output_tokens: 4096}}
pricing:
  unknown: refuse
  overrides:
{prices}"""
)

#: Dollars per million input and output tokens, by the model's name at the provider: in a batch, and else.
BATCH_PRICES = {"sim-1": ("1.2345", "4.9376"), "sim-embed": ("0.0107", "0")}
PRICES = {"sim-1": ("2.50", "10"), "sim-fast": ("0.15", "0.6"), "sim-embed": ("0.02", "0")}
SEARCH_PRICE = Fraction("0.01")

CHAT: Final = "/v1/chat/completions"
#: Looks at a batch become rarer, so that one that took a second may be booked some seconds later.
SETTLED_SECONDS = 60.0
#: The words for a call whose cost is not known, or not yet.
OPEN = ("unknown", "pending")


def _lines() -> str:
    rows: list[dict[str, Any]] = []
    for prices, tier in ((PRICES, {}), (BATCH_PRICES, {"service_tier": "batch"})):
        for model, both in prices.items():
            for unit, price in zip(("input_tokens", "output_tokens"), both, strict=True):
                row = {"model": model, "unit": unit, "per": 1_000_000, "price": price} | tier
                rows += [{"provider": name} | row for name in ("sim", "sim-azure")]
        rows.append({"provider": "sim", "model": "sim-1", "unit": "web_searches", "per": 1_000, "price": "10"} | tier)
    return "".join(f"    - {json.dumps(row)}\n" for row in rows)


def config() -> str:
    return CONFIG.replace("{prices}", _lines().replace("{", "{{").replace("}", "}}"))


@pytest.fixture(scope="module")
def batching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose models have prices of batches."""
    with Installation(tmp_path_factory.mktemp("batches"), config=config()) as installation:
        yield installation


@pytest.fixture(scope="module")
def secret(batching: Installation) -> str:
    """A key without limits."""
    return str(new_key(batching, "batches")["secret"])


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(request: pytest.FixtureRequest, batching: Installation, secret: str) -> Iterator[OpenAI]:
    """The stock client on OpenAI's paths and on Azure's newer ones."""
    with client_of(batching, secret, request.param) as made:
        yield made


@pytest.fixture
def plain(batching: Installation, secret: str) -> Iterator[OpenAI]:
    """The stock client."""
    with client_of(batching, secret) as made:
        yield made


def client_of(running: Installation, secret: str, prefix: str = "/v1") -> OpenAI:
    return OpenAI(base_url=running.gateway_url + prefix, api_key=secret, max_retries=0)


def chat(text: str = "Say hello.", model: str = "sim-1", cap: int | None = 50, **steering: Any) -> dict[str, Any]:
    told = f"{text}\nsim: {json.dumps(steering)}" if steering else text
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": told}]}
    return body if cap is None else body | {"max_tokens": cap}


def lines(bodies: Sequence[dict[str, Any]], url: str = CHAT) -> bytes:
    told = [{"custom_id": f"c{at}", "method": "POST", "url": url, "body": body} for at, body in enumerate(bodies)]
    return "\n".join(map(json.dumps, told)).encode()


def upload(client: OpenAI, bodies: Sequence[dict[str, Any]], url: str = CHAT) -> str:
    return client.files.create(file=("lines.jsonl", lines(bodies, url)), purpose="batch").id


class Begun:
    """A batch and the request that made it."""

    def __init__(self, client: OpenAI, bodies: Sequence[dict[str, Any]], url: str = CHAT, **steering: Any) -> None:
        raw = client.batches.with_raw_response.create(
            input_file_id=upload(client, bodies, url),
            endpoint=url,  # type: ignore[arg-type]
            completion_window="24h",
            metadata={"sim": json.dumps(steering)},
        )
        self.client = client
        self.batch: Batch = raw.parse()
        self.request_id = str(raw.headers["x-faregate-request-id"])
        self.headers = raw.headers

    def ended(self) -> Batch:
        """The batch once its provider says that it has ended."""
        over = ("completed", "failed", "expired", "cancelled")
        got = until(lambda: self.client.batches.retrieve(self.batch.id), lambda one: one.status in over, 30)
        assert got.status in over
        return got

    def results(self) -> dict[str, dict[str, Any]]:
        """The results by custom id."""
        output = self.ended().output_file_id
        assert output is not None
        told = map(json.loads, self.client.files.content(output).text.splitlines())
        return {one["custom_id"]: one for one in told}


def truth_of_lines(running: Installation, request_id: str) -> list[dict[str, Any]]:
    """What the provider served of a batch, line by line."""
    rows: list[dict[str, Any]] = running.simulator("GET", f"truth?request_id={request_id}&limit=10000")["data"]
    return rows


def owed(rows: Sequence[dict[str, Any]]) -> int:
    """Nano-dollars that the provider would bill for lines, rounded half to even once."""
    total = Fraction(0)
    for row in rows:
        if not row["served"]:
            continue
        usage, prices = row["usage"], {**PRICES, **BATCH_PRICES}[row["model"]]
        incoming = usage.get("prompt_tokens", usage.get("input_tokens", 0))
        outgoing = usage.get("completion_tokens", usage.get("output_tokens", 0))
        total += (Fraction(prices[0]) * incoming + Fraction(prices[1]) * outgoing) / 10**6
        total += SEARCH_PRICE * usage.get("hosted_calls", {}).get("web_search", 0)
    return round(total * 10**9)


def booked(running: Installation, request_id: str) -> dict[str, Any]:
    """The record of a batch once it is settled, by patience or by a lookup."""
    return until(lambda: record(running, request_id), lambda row: row["status"] not in OPEN, SETTLED_SECONDS)


def assert_booked_as_served(running: Installation, request_id: str) -> dict[str, Any]:
    """The record of a batch is the sum of its lines in the provider's truth."""
    row, rows = booked(running, request_id), truth_of_lines(running, request_id)
    assert row["operation"] == "batches"
    assert nanos(row["cost"]) == nanos(row["charge"]) == owed(rows)
    assert [one["id"] for one in records(running)].count(request_id) == 1
    return row


# -- a whole batch -----------------------------------------------------------------------------------------------------


def test_a_batch_from_upload_to_download(client: OpenAI, batching: Installation) -> None:
    """It is accepted, runs, is read; and costs what its lines did cost at the prices of batches."""
    begun = Begun(client, [chat(), chat(output_tokens=7), chat(cap=None, output_tokens=100)], seconds=0.3)

    assert begun.batch.status == "validating"
    assert "x-faregate-cost" not in begun.headers
    assert {one["response"]["status_code"] for one in begun.results().values()} == {200}
    row = assert_booked_as_served(batching, begun.request_id)
    assert nanos(row["cost"]) > 0
    assert row["status"] == "ok"
    assert row["usage_source"] == "provider"
    assert row["model"] == "sim-1"


def test_names_of_models_are_the_gateway_s(plain: OpenAI, batching: Installation) -> None:
    """Lines name models as calls do; the provider sees its own names, and a model without prices of batches pays its
    ordinary ones."""
    begun = Begun(plain, [chat(model="quick"), chat(model="quick")])

    assert begun.results()["c0"]["response"]["body"]["model"] == "sim-fast"
    assert {row["model"] for row in truth_of_lines(batching, begun.request_id)} == {"sim-fast"}
    assert assert_booked_as_served(batching, begun.request_id)["model"] == "sim-fast"


def test_a_batch_on_azure(batching: Installation, secret: str) -> None:
    """Lines name the deployment there; the paths are those of the newer API, with Azure's credential."""
    with client_of(batching, secret, "/openai/v1") as client:
        begun = Begun(client, [chat(model="from-azure"), chat(model="from-azure")])
        results = begun.results()

    rows = truth_of_lines(batching, begun.request_id)
    assert results["c0"]["response"]["body"]["model"] == "my-sim"
    assert {row["path"] for row in rows} == {"/openai/v1/chat/completions"}
    assert nanos(booked(batching, begun.request_id)["cost"]) == owed([row | {"model": "sim-1"} for row in rows]) > 0


def test_every_path_is_booked_as_served(plain: OpenAI, batching: Installation) -> None:
    """The lines of every path are priced by their own meter, tools of responses included."""
    short = {"model": "sim-1", "input": "Hello.", "max_output_tokens": 5}
    search = 'x\nsim: {"hosted_calls": {"web_search": 3}}'
    tools = {"model": "sim-1", "input": search, "tools": [{"type": "web_search"}], "max_output_tokens": 50}
    asked: list[tuple[str, list[dict[str, Any]]]] = [
        ("/v1/embeddings", [{"model": "sim-embed", "input": "one two three"}] * 2),
        ("/v1/completions", [{"model": "sim-1", "prompt": ["a", "b"], "n": 2, "max_tokens": 5}]),
        ("/v1/responses", [short]),
        ("/v1/responses", [tools, short]),
    ]
    for begun in [Begun(plain, bodies, url) for url, bodies in asked]:
        assert begun.ended().status == "completed"
        assert nanos(assert_booked_as_served(batching, begun.request_id)["cost"]) > 0


# -- part of a batch ---------------------------------------------------------------------------------------------------


def test_batches_that_end_otherwise(plain: OpenAI, batching: Installation) -> None:
    """What failed, expired, or was never asked for costs nothing; what was served costs what it did."""
    ends = {"fail": "failed", "fail_half": "completed", "expire": "expired", "strange": "completed"}
    for fault, begun in {fault: Begun(plain, [chat()] * 4, fault=fault) for fault in ends}.items():
        assert begun.ended().status == ends[fault]
        row = assert_booked_as_served(batching, begun.request_id)
        assert (nanos(row["cost"]) == 0) == (fault == "fail"), fault


def test_a_cancelled_batch(plain: OpenAI, batching: Installation) -> None:
    """A batch that is cancelled half-way costs that half, however often it is cancelled and looked at."""
    begun = Begun(plain, [chat(), chat(), chat(), chat()], fault="cancel_partial")

    assert plain.batches.cancel(begun.batch.id).status == "cancelling"
    assert begun.ended().status == "cancelled"
    begun.ended()
    with pytest.raises(openai.ConflictError):
        plain.batches.cancel(begun.batch.id)
    assert len(begun.results()) == 2
    assert nanos(assert_booked_as_served(batching, begun.request_id)["cost"]) > 0


def test_lines_that_fail_and_lines_that_do_not_say(plain: OpenAI, batching: Installation) -> None:
    """A line that fails costs nothing; one that tells no usage costs the most that a line may have used."""
    bodies = [chat(), chat(status=500), chat(usage=False)]
    begun = Begun(plain, bodies)

    begun.ended()
    row, rows = booked(batching, begun.request_id), truth_of_lines(batching, begun.request_id)
    longest = max(len(json.dumps(body)) for body in bodies)
    bound = {"served": True, "model": "sim-1", "usage": {"prompt_tokens": longest, "completion_tokens": 50}}
    assert nanos(row["cost"]) == owed([rows[0], bound])


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_running_batch_holds_its_most(batching: Installation) -> None:
    """While it runs, a limit has no room for the most its lines may cost; once it has ended, for what they did cost."""
    key = new_key(batching, "holding", team="holding")
    new_limit(batching, {"team": "holding"}, "usd", "0.10")
    with client_of(batching, key["secret"]) as client:
        # 6,000 tokens at some 5 dollars a million are 3 cents for each line.
        begun = Begun(client, [chat(cap=6_000)] * 3, seconds=3)
        with pytest.raises(openai.RateLimitError) as refused:
            Begun(client, [chat(cap=6_000)])
        begun.ended()
        booked(batching, begun.request_id)
        assert Begun(client, [chat(cap=6_000)]).ended().status == "completed"

    assert refused.value.code == "budget_exhausted"
    assert_booked_as_served(batching, begun.request_id)


def test_a_batch_that_may_cost_too_much_is_never_sent(batching: Installation) -> None:
    """Its worst case decides, also for lines without a cap, which may be as long as the model makes them."""
    key = new_key(batching, "small", team="small")
    new_limit(batching, {"team": "small"}, "usd", "0.05")
    with client_of(batching, key["secret"]) as client:
        file = upload(client, [chat(cap=None)] * 3)
        before = batching.simulator("GET", "state")["dispatched"]
        with pytest.raises(openai.RateLimitError):
            client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
        assert batching.simulator("GET", "state")["dispatched"] == before
        assert Begun(client, [chat(cap=None)] * 2).ended().status == "completed"


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_others_never_see_it(plain: OpenAI, batching: Installation) -> None:
    """For a key of another team, files and batches are as if they never were, in lists as well."""
    begun = Begun(plain, [chat()])
    output = begun.ended().output_file_id
    assert output is not None
    stranger = new_key(batching, "stranger", team="strangers")["secret"]
    with client_of(batching, stranger) as client:
        for look in (
            lambda: client.batches.retrieve(begun.batch.id),
            lambda: client.batches.cancel(begun.batch.id),
            lambda: client.files.retrieve(begun.batch.input_file_id),
            lambda: client.files.content(output),
            lambda: client.files.delete(output),
            lambda: client.batches.create(
                input_file_id=begun.batch.input_file_id, endpoint=CHAT, completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                look()
            assert refused.value.code == "object_not_found"
        assert begun.batch.id not in [one.id for one in client.batches.list(limit=100)]
        assert output not in [one.id for one in client.files.list()]
        own = client.files.create(file=("a.txt", b"mine"), purpose="user_data").id
        assert [one.id for one in client.files.list()] == [own]
    assert begun.batch.id in [one.id for one in plain.batches.list(limit=100)]
    assert {begun.batch.input_file_id, output} <= {one.id for one in plain.files.list()}


def test_files_of_any_bytes(client: OpenAI, batching: Installation) -> None:
    """A file comes back as it went, costs nothing, and is gone when it is deleted."""
    raw = client.files.with_raw_response.create(file=("a.bin", bytes(range(256)) * 40), purpose="user_data")
    file = raw.parse()

    assert client.files.content(file.id).content == bytes(range(256)) * 40
    assert client.files.retrieve(file.id).bytes == 256 * 40
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert nanos(record(batching, raw.headers["x-faregate-request-id"])["cost"]) == 0


def test_what_a_key_may_not_do_it_may_not_do_in_a_batch(batching: Installation) -> None:
    """Neither models nor operations that a key is not allowed are reached through a file."""
    everything = new_key(batching, "no-chats", operations=["files", "batches", "embeddings"])["secret"]
    other = new_key(batching, "no-models", models=["quick"])["secret"]
    for key, code in ((everything, "operation_forbidden"), (other, "model_forbidden")):
        with client_of(batching, key) as client, pytest.raises(openai.PermissionDeniedError) as refused:
            upload(client, [chat()])
        assert refused.value.code == code


def test_a_file_larger_than_any_other_body(plain: OpenAI, batching: Installation) -> None:
    """Uploads have a bound of their own; what is larger is refused, and what is not comes back whole."""
    content = bytes(range(256)) * (20 * 4096)
    file = plain.files.create(file=("large.bin", content), purpose="user_data")

    assert plain.files.content(file.id).content == content
    plain.files.delete(file.id)
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)) as refused:
        plain.files.create(file=("huge.bin", bytes(65 * 1024 * 1024)), purpose="user_data")
    assert not isinstance(refused.value, openai.APIStatusError) or refused.value.status_code == 413


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bodies", "code", "told"),
    [
        ([chat(), chat() | {"stream": True}], "field_conflict", "Line 2: body.stream"),
        ([chat(), chat(model="quick")], "field_conflict", "Line 2: body.model"),
        ([chat() | {"api_base": "http://x"}], "field_forbidden", "Line 1: body.api_base"),
        ([chat() | {"max_tokens": 0}], "field_range", "Line 1: body.max_tokens"),
        ([chat(model="nobody")], "model_not_found", "Model"),
    ],
)
def test_a_bad_line_never_leaves(
    batching: Installation, plain: OpenAI, bodies: list[dict[str, Any]], code: str, told: str
) -> None:
    """A file with a line that has no bound, or steers, is refused when it is uploaded, by the number of the line."""
    before = batching.simulator("GET", "state")["dispatched"]

    with pytest.raises(openai.APIStatusError) as refused:
        upload(plain, bodies)

    assert refused.value.code == code
    assert told in str(refused.value)
    assert batching.simulator("GET", "state")["dispatched"] == before


def test_files_to_train_with_are_refused(plain: OpenAI) -> None:
    """Training has no bound, so its files are refused by name."""
    with pytest.raises(openai.BadRequestError) as refused:
        plain.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")

    assert refused.value.code == "feature_unbounded"


def test_a_file_that_is_no_batch(batching: Installation, plain: OpenAI, secret: str) -> None:
    """Only a file whose lines were read can become a batch, and only for the path of its lines."""
    other = plain.files.create(file=("a.jsonl", lines([chat()])), purpose="user_data").id
    good = upload(plain, [chat()])
    for file, endpoint, param in ((other, CHAT, "input_file_id"), (good, "/v1/responses", "endpoint")):
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
        answer = ask(batching, secret, body, path="/v1/batches")
        assert answer.status == 400
        assert answer.json["error"]["param"] == param


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["gate", "console", "all"])
def test_a_batch_outlives_a_crash(plain: OpenAI, batching: Installation, victim: str) -> None:
    """Killed while a batch runs, and again when it has just ended, the installation still books it once."""
    begun = Begun(plain, [chat(), chat()], seconds=1)
    for _ in range(2):
        if victim == "all":
            batching.kill_all()
            batching.start()
        elif victim == "gate":
            batching.kill_gate()
            batching.wait_ready()
        else:
            batching.kill_console()
            until(lambda: _console_answers(batching), bool, 30)
        until(lambda: len(truth_of_lines(batching, begun.request_id)) == 2, bool, 10)

    assert len(begun.results()) == 2
    assert nanos(assert_booked_as_served(batching, begun.request_id)["cost"]) > 0


def test_batches_whose_answer_is_lost(plain: OpenAI, batching: Installation) -> None:
    """A batch that was made, but whose id never came, is found by its request id, and booked as it was served."""
    file = upload(plain, [chat(), chat()])
    lost = []
    for fault in ("empty_body", "html", "missing_last_chunk"):
        batching.simulator("POST", "script", [{"path": "*/batches", "steer": {"fault": fault}}])
        try:
            with pytest.raises(openai.InternalServerError) as failed:
                plain.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
        finally:
            batching.simulator("POST", "script", [])
        lost.append(failed.value.response.headers["x-faregate-request-id"])

    for request_id in lost:
        assert nanos(assert_booked_as_served(batching, request_id)["cost"]) > 0


def test_results_that_break_off_are_read_again(plain: OpenAI, batching: Installation) -> None:
    """A file of results whose first reading breaks off is booked by a whole one."""
    rule = {"path": "*/files/*/content", "nth": 1, "steer": {"fault": "missing_last_chunk"}}
    batching.simulator("POST", "script", [rule])
    try:
        begun = Begun(plain, [chat(), chat()])
        assert nanos(assert_booked_as_served(batching, begun.request_id)["cost"]) > 0
    finally:
        batching.simulator("POST", "script", [])


def _console_answers(running: Installation) -> bool:
    try:
        running.admin("GET", "/api/v1/keys")
    except (AssertionError, OSError):
        return False
    return True


def test_the_books_agree_in_the_end(batching: Installation) -> None:
    """After all of this nothing is held any more, and the books are sound."""
    for row in until(lambda: records(batching, status="unknown"), lambda rows: not rows, SETTLED_SECONDS):
        raise AssertionError(f"{row['id']} is not settled")
    found = batching.settled()

    assert nanos(found["held"]) == nanos(found["unknown"]) == 0
    assert found["ok"] is True
