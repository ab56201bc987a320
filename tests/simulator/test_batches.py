"""OpenAI's files and batches at the simulator, through the stock client and by hand."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from simulated import KEY, Provider


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    """The synchronous client, without retries."""
    with OpenAI(base_url=provider.url + "/v1", api_key=KEY, max_retries=0) as made:
        yield made


def line(number: int, text: str = "one two", url: str = "/v1/chat/completions", **changed: Any) -> str:
    body = {"model": "sim-1", "messages": [{"role": "user", "content": text}]} | changed
    return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": url, "body": body})


def upload(client: OpenAI, lines: list[str]) -> str:
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    return file.id


def begin(client: OpenAI, lines: list[str], request_id: str = "", **steering: Any) -> Batch:
    return client.batches.create(
        input_file_id=upload(client, lines),
        endpoint=json.loads(lines[0])["url"],
        completion_window="24h",
        metadata={"sim": json.dumps(steering)} if steering else None,
        extra_headers={"x-client-request-id": request_id} if request_id else None,
    )


def ended(client: OpenAI, id: str) -> Batch:
    for _ in range(500):
        batch = client.batches.retrieve(id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.01)
    raise AssertionError("the batch did not end")


def results(client: OpenAI, id: str | None) -> list[dict[str, Any]]:
    assert id is not None
    return [json.loads(text) for text in client.files.content(id).text.splitlines()]


def truth(provider: Provider, request_id: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{provider.url}/simulator/truth", params={"request_id": request_id})
    records: list[dict[str, Any]] = answer.json()["data"]
    return records


def test_a_file_is_kept_until_it_is_deleted(client: OpenAI) -> None:
    """It is described, listed and read as it was uploaded, and gone when it is deleted."""
    file = client.files.create(file=("a.bin", b"\0\xff bytes"), purpose="user_data")

    assert (file.bytes, file.filename, file.purpose) == (8, "a.bin", "user_data")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == b"\0\xff bytes"
    assert file.id in [one.id for one in client.files.list(purpose="user_data")]
    assert file.id not in [one.id for one in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_have_pages(client: OpenAI) -> None:
    """A page ends where it was asked to, and the next one begins behind it."""
    made = [client.files.create(file=("a", b"x"), purpose="evals").id for _ in range(3)]

    page = client.files.list(purpose="evals", limit=2)

    assert page.has_more
    assert [one.id for one in page] == made[::-1]


def test_a_batch_answers_all_lines(client: OpenAI, provider: Provider) -> None:
    """Its results are what each line would be answered alone, and each has its record."""
    batch = begin(client, [line(0), line(1, "sim: " + json.dumps({"output_tokens": 3}))], "r-all")

    done = ended(client, batch.id)
    told = results(client, done.output_file_id)

    assert batch.status == "validating"
    assert done.status == "completed"
    assert done.error_file_id is None
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (2, 2, 0)
    assert [one["custom_id"] for one in told] == ["c0", "c1"]
    assert [one["response"]["body"]["usage"]["completion_tokens"] for one in told] == [16, 3]
    records = truth(provider, "r-all")
    assert [one["usage"] for one in records] == [one["response"]["body"]["usage"] for one in told]
    assert {one["path"] for one in records} == {"/v1/chat/completions"}


def test_lines_fail_by_themselves(client: OpenAI, provider: Provider) -> None:
    """A line with a wrong model, a wrong field or a steered status is in the file of errors and billed nothing."""
    lines = [
        line(0),
        line(1, nonsense=1),
        line(2, "sim: " + json.dumps({"status": 429})),
    ]
    done = ended(client, begin(client, lines, "r-some").id)

    failed = results(client, done.error_file_id)
    assert {one["custom_id"]: one["response"]["status_code"] for one in failed} == {"c1": 400, "c2": 429}
    assert [one["served"] for one in truth(provider, "r-some")] == [True, False, False]


@pytest.mark.parametrize(
    ("fault", "status", "good", "codes"),
    [
        ("fail", "failed", 0, []),
        ("fail_half", "completed", 2, [500, 500]),
        ("expire", "expired", 2, ["batch_expired"] * 2),
    ],
)
def test_a_batch_ends_in_part(
    client: OpenAI, provider: Provider, fault: str, status: str, good: int, codes: list[Any]
) -> None:
    """What was not done is told in the file of errors, and only what was done is billed."""
    batch = begin(client, [line(number) for number in range(4)], f"r-{fault}", fault=fault)

    done = ended(client, batch.id)

    assert done.status == status
    assert len(results(client, done.output_file_id) if done.output_file_id else []) == good
    told = results(client, done.error_file_id) if done.error_file_id else []
    assert [one["response"]["status_code"] if one["response"] else one["error"]["code"] for one in told] == codes
    assert sum(one["served"] for one in truth(provider, f"r-{fault}")) == good
    assert (done.errors is not None) == (status == "failed")


def test_a_batch_is_cancelled(client: OpenAI, provider: Provider) -> None:
    """A batch that is half done keeps that half, and is told to be on its way out before it is."""
    batch = begin(client, [line(number) for number in range(4)], "r-cancel", fault="cancel_partial")

    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch.id)

    assert done.status == "cancelled"
    assert len(results(client, done.output_file_id)) == 2
    assert [one["error"]["code"] for one in results(client, done.error_file_id)] == ["batch_cancelled"] * 2
    assert len(truth(provider, "r-cancel")) == 2
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_a_running_batch_is_still_being_answered(client: OpenAI, provider: Provider) -> None:
    """A lookup of the request that made a batch waits for its end, and tells the sum of its lines then."""
    batch = begin(client, [line(0), line(1)], "r-lookup", seconds=60)
    lookup = f"{provider.url}/simulator/truth/r-lookup"

    assert httpx2.get(lookup).status_code == 503
    client.batches.cancel(batch.id)
    ended(client, batch.id)
    assert httpx2.get(lookup).status_code == 404

    ended(client, begin(client, [line(0), line(1)], "r-lookup").id)
    assert httpx2.get(lookup).json()["usage"]["completion_tokens"] == 32


def test_strange_results(client: OpenAI, provider: Provider) -> None:
    """A line that nobody asked for and one that stands twice are in the results and not in the truth."""
    done = ended(client, begin(client, [line(0), line(1)], "r-strange", fault="strange").id)

    assert [one["custom_id"] for one in results(client, done.output_file_id)] == ["c0", "c1", "nobody-asked", "c0"]
    assert len(truth(provider, "r-strange")) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["{}"],
        ["not JSON"],
        [line(0), line(0)],
        [line(0), line(1, url="/v1/embeddings")],
        [line(0), line(1, model="sim-2")],
    ],
)
def test_a_bad_file_fails_its_batch(client: OpenAI, lines: list[str]) -> None:
    """A file whose lines are no requests, or not of one path and model, fails the validation of the batch."""
    created = client.batches.create(
        input_file_id=upload(client, lines), endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert ended(client, created.id).status == "failed"


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/responses", {"model": "sim-1", "input": "x"}),
        ("/v1/embeddings", {"model": "sim-embed", "input": "x"}),
        ("/v1/completions", {"model": "sim-1", "prompt": "x"}),
        ("/v1/moderations", {"model": "omni-moderation-latest", "input": "x"}),
    ],
)
def test_every_path_of_a_batch(client: OpenAI, url: str, body: dict[str, Any]) -> None:
    """Each path that a batch may have is answered by its own speaker."""
    request = json.dumps({"custom_id": "c", "method": "POST", "url": url, "body": body})

    done = ended(client, begin(client, [request]).id)

    assert results(client, done.output_file_id)[0]["response"]["status_code"] == 200


def test_azure_has_its_own_paths(provider: Provider) -> None:
    """Files and batches are below /openai/v1 with Azure's credential; its files may leave out /v1."""
    headers = {"api-key": "k"}
    with httpx2.Client(base_url=provider.url + "/openai/v1", headers=headers) as client:
        text = line(0, url="/chat/completions")
        uploaded = {"file": ("a.jsonl", text.encode())}
        file = client.post("/files", files=uploaded, data={"purpose": "batch"}).json()["id"]
        body = {"input_file_id": file, "endpoint": "/chat/completions", "completion_window": "24h"}
        batch = client.post("/batches", json=body).json()["id"]
        for _ in range(500):
            told = client.get(f"/batches/{batch}").json()
            if told["status"] == "completed":
                break
            time.sleep(0.01)
        answer = client.get(f"/files/{told['output_file_id']}/content")

    assert json.loads(answer.text)["response"]["status_code"] == 200
