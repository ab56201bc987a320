"""The tokenizer service on the gateway's port: for whoever has a key, free, and beside the event loop."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faregate.catalogue.tokens import ToktokCounter
from faregate.control import Limit
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.errors import Problem
from faregate.ports import PromptCount
from faregate.proxy.tokenize import BODY_BYTES_MAX, WAITING_MAX, TokenizerDesk
from gates import RunningGate, allowances, running_gate, scenario, secret

AUTH = {"authorization": f"Bearer {secret('caller')}"}


async def tokenize(running: RunningGate, asked: Any, **more: Any) -> Any:
    return await running.client.post("/api/tokenize", json=asked, headers=AUTH, **more)


@scenario
async def test_a_caller_learns_the_tokens_of_a_text(tmp_path: Path) -> None:
    """By body and by query; a configured name stands for the model behind it."""
    async with running_gate(tmp_path) as running:
        answer = await tokenize(running, {"input": "hello world", "model": "sim-1"})
        told = answer.json()
        assert answer.status_code == 200, answer.text
        assert (told["count"], len(told["ids"]), told["strings"]) == (2, 2, ["hello", " world"])
        assert answer.headers["x-faregate-request-id"].startswith("req_")
        by_query = await running.client.get("/api/tokenize?input=hello%20world&model=sim-1", headers=AUTH)
        assert by_query.json() == told


@scenario
async def test_messages_are_counted_as_a_prompt(tmp_path: Path) -> None:
    """The rule that the provider's own count follows."""
    async with running_gate(tmp_path) as running:
        asked = {"input": [{"role": "user", "content": "Say hello."}], "model": "gpt-4o"}
        told = (await tokenize(running, asked)).json()
        assert (told["count"], told["exact"]) == (10, True)


@scenario
async def test_encodings_are_listed(tmp_path: Path) -> None:
    """With the models that have them."""
    async with running_gate(tmp_path) as running:
        told = (await running.client.get("/api/encodings", headers=AUTH)).json()
        assert told["models"]["gpt-4o"] == "o200k_base"


@scenario
async def test_it_wants_a_key(tmp_path: Path) -> None:
    """Of a caller, as every other path."""
    async with running_gate(tmp_path) as running:
        for path in ("/api/tokenize?input=x", "/api/encodings"):
            assert (await running.client.get(path)).status_code == 401
        assert (await running.client.post("/api/tokenize", json={"input": "x"})).status_code == 401


@scenario
async def test_it_is_free_and_counts_as_no_request(tmp_path: Path) -> None:
    """No limit concerns it, and the journal holds nothing of it."""
    limit = Limit("lim_one", {}, (), "requests", 1, "lifetime")
    async with running_gate(tmp_path, limits=(limit,)) as running:
        for _ in range(3):
            assert (await tokenize(running, {"input": "x"})).status_code == 200
        assert await allowances(running) == {"lim_one": (0, 0)}
        assert running.of(Intended) == running.of(Settled) == running.of(Refused) == []
        assert (await running.chat()).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{}", {}, 422, "field_missing"),
        (b'{"input": 5}', {}, 422, "field_type"),
        (b'{"input": "x", "colour": 1}', {}, 422, "field_unknown"),
        (b"", {}, 400, "body_empty"),
        (b"{", {}, 400, "json_invalid"),
        (b"[]", {}, 400, "field_type"),
        (b'{"input": "\xff"}', {}, 400, "json_utf8"),
        (b'{"input": "x"}', {"content-type": "text/plain"}, 415, "media_unsupported"),
        (b'{"input": "x"}', {"content-encoding": "gzip"}, 415, "encoding_unsupported"),
        (b'{"input": "' + b"x" * BODY_BYTES_MAX + b'"}', {}, 413, "body_too_large"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(
    tmp_path: Path, body: bytes, headers: Mapping[str, str], status: int, code: str
) -> None:
    """In the shape of OpenAI's errors; 422 where the question is wrong."""

    async def ask() -> None:
        async with running_gate(tmp_path) as running:
            sent = {"content-type": "application/json", **AUTH, **headers}
            answer = await running.client.post("/api/tokenize", content=body, headers=sent)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            assert (await tokenize(running, {"input": "x"})).status_code == 200

    asyncio.run(ask())


@scenario
async def test_a_query_is_read_strictly(tmp_path: Path) -> None:
    """Without input 422; a field that stands twice is refused; the credential may stand there."""
    async with running_gate(tmp_path) as running:
        for query, status in (
            ("model=gpt-4o", 422),
            ("", 422),
            ("input=x&input=y", 400),
            ("&".join(f"a{n}=1" for n in range(20)), 400),
            (f"input=x&subscription-key={secret('caller')}", 200),
        ):
            answer = await running.client.get(f"/api/tokenize?{query}", headers=AUTH)
            assert answer.status_code == status, (query, answer.text)


@scenario
async def test_a_large_text_does_not_stop_the_gate(tmp_path: Path) -> None:
    """A megabyte is counted while calls go on."""
    async with running_gate(tmp_path) as running:
        text = "word " * (BODY_BYTES_MAX // 5 - 100)
        counting = asyncio.ensure_future(tokenize(running, {"input": text, "model": "gpt-4o"}))
        assert (await running.chat()).status_code == 200
        told = (await counting).json()
        assert (told["count"] > 200_000, told["ids"]) == (True, None)


class SlowTokenizer(ToktokCounter):
    """Answers when it is let, or fails."""

    def __init__(self, let: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._let = let

    def answer(self, asked: Mapping[str, Any], model_of: Callable[[str], str]) -> dict[str, Any] | Problem:
        return self._let()

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any], model: str) -> PromptCount:
        raise AssertionError("not asked")


class Asker:
    """The part of an exchange that the desk speaks to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gate = SimpleNamespace(loop=loop)
        self.operation = SimpleNamespace(name="tokenize")
        self.snapshot = SimpleNamespace(routes={})
        self.request = SimpleNamespace(method=b"GET", target=b"/api/tokenize?input=x", headers={})
        self.body, self.id, self.keep_alive, self.ended = b"", "req_1", True, False
        self.written: list[bytes] = []
        self.mistakes: list[BaseException] = []

    def write_whole(self, answer: bytes) -> None:
        self.written.append(answer)
        self.ended = True

    def refuse(self, problem: Problem) -> None:
        raise AssertionError(problem)

    def mistaken(self, error: BaseException) -> None:
        self.mistakes.append(error)


async def all_answered(desk: TokenizerDesk) -> None:
    """Wait until no question waits."""
    async with asyncio.timeout(20):
        while desk.waiting:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.01, future.set_result, None)
            await future


def test_only_a_few_questions_wait() -> None:
    """One more is told to come back; all that were taken are answered."""

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        let = asyncio.Event()

        def wait() -> dict[str, Any]:
            asyncio.run_coroutine_threadsafe(let.wait(), loop).result(20)
            return {"count": 1}

        desk = TokenizerDesk(SlowTokenizer(wait))
        askers: list[Any] = [Asker(loop) for _ in range(WAITING_MAX)]
        assert [desk.answer(asker) for asker in askers] == [None] * WAITING_MAX
        late: Any = Asker(loop)
        problem = desk.answer(late)
        assert problem is not None
        assert (problem.code, problem.retry_after_s) == ("overloaded", 1)
        let.set()
        await all_answered(desk)
        assert all(json.loads(asker.written[0].partition(b"\r\n\r\n")[2]) == {"count": 1} for asker in askers)
        assert desk.answer(late) is None
        await all_answered(desk)
        desk.close()

    asyncio.run(ask())


def test_a_failure_ends_its_own_question_only() -> None:
    """The exchange is told of the mistake, and the next question is answered."""

    async def ask() -> None:
        answers: list[dict[str, Any]] = []

        def fail_once() -> dict[str, Any]:
            if not answers:
                answers.append({"count": 1})
                raise RuntimeError("a mistake of ours")
            return answers[0]

        desk = TokenizerDesk(SlowTokenizer(fail_once))
        first: Any = Asker(asyncio.get_running_loop())
        second: Any = Asker(asyncio.get_running_loop())
        desk.answer(first)
        desk.answer(second)
        await all_answered(desk)
        assert ([type(each) for each in first.mistakes], first.written) == ([RuntimeError], [])
        assert len(second.written) == 1
        desk.close()

    asyncio.run(ask())
