"""Calls to a whole installation, and what the provider's truth says they must have cost.

The price oracle here is its own few lines of ``Fraction``, so that a slip in the product's pricing cannot hide.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import httpx2

from installation import PRICES, VISIBLE_SECONDS, Installation, Refused, nanos
from loopback import NO_TLS

#: Promised is one second; a shared machine may take three times as long.
ACTS_SECONDS = 3.0
CALL_SECONDS = 60.0
PAGE = 1000

_T = TypeVar("_T")


class Answer(NamedTuple):
    """An answer as a caller sees it, read to its end."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def id(self) -> str:
        """The request id that the gateway gave."""
        return self.headers["x-faregate-request-id"]

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


def body(
    text: str = "Say hello.", *, model: str = "sim-1", max_tokens: int = 20, stream: bool = False, **steer: Any
) -> dict[str, Any]:
    """A chat body; ``steer`` are fields of the simulator's ``sim:`` line."""
    line = f"{text}\nsim: {json.dumps(steer)}" if steer else text
    made = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": line}]}
    return {**made, "stream": True} if stream else made


def headers_of(secret: str) -> dict[str, str]:
    """The credential as most callers send it."""
    return {"authorization": f"Bearer {secret}"}


def ask(
    running: Installation, secret: str, content: object = None, *, path: str = "/v1/chat/completions", **more: Any
) -> Answer:
    """One call, on a connection of its own."""
    with httpx2.Client(verify=NO_TLS, trust_env=False, timeout=CALL_SECONDS) as client:
        sent = {"json": body() if content is None else content, **more}
        sent["headers"] = {**headers_of(secret), **more.get("headers", {})}
        got = client.post(running.gateway_url + path, **sent)
    return Answer(got.status_code, dict(got.headers), got.text)


async def ask_all(
    running: Installation, secret: str, bodies: Sequence[Any], answered: list[Answer] | None = None, **more: Any
) -> list[Answer]:
    """All calls at once, each on a connection of its own; ``answered`` grows as they end."""
    done: list[Answer] = [] if answered is None else answered
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx2.AsyncClient(verify=NO_TLS, trust_env=False, timeout=CALL_SECONDS, limits=limits) as client:

        async def one(content: Any) -> None:
            url = running.gateway_url + "/v1/chat/completions"
            got = await client.post(url, json=content, headers={**headers_of(secret), **more.get("headers", {})})
            done.append(Answer(got.status_code, dict(got.headers), got.text))

        async with asyncio.TaskGroup() as group:
            for content in bodies:
                group.create_task(one(content))
    return done


async def leave(
    running: Installation,
    secret: str,
    content: Any,
    after: Callable[[str], bool] = lambda text: text.count("data:") > 3,
) -> str:
    """Begin a stream and hang up once ``after`` is content with what came (the role and some text); the request id."""
    async with (
        httpx2.AsyncClient(verify=NO_TLS, trust_env=False, timeout=CALL_SECONDS) as client,
        client.stream(
            "POST", running.gateway_url + "/v1/chat/completions", json=content, headers=headers_of(secret)
        ) as got,
    ):
        text = ""
        async for part in got.aiter_text():
            text += part
            if after(text):
                break
        return str(got.headers["x-faregate-request-id"])


def events(text: str) -> list[Any]:
    """The JSON events of a stream, without ``[DONE]``."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def until(look: Callable[[], _T], content: Callable[[_T], bool], seconds: float) -> _T:
    """Look again and again until the look is ``content``, or as it stands after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if content(seen) or time.monotonic() > end:
            return seen
        time.sleep(0.05)


async def until_async(look: Callable[[], _T], content: Callable[[_T], bool], seconds: float) -> _T:
    """As ``until``, for a look that does not wait itself."""
    end = time.monotonic() + seconds
    while True:
        seen = await asyncio.to_thread(look)
        if content(seen) or time.monotonic() > end:
            return seen
        await asyncio.sleep(0.05)


# -- orders ------------------------------------------------------------------------------------------------------------


def new_key(running: Installation, name: str, **words: Any) -> dict[str, Any]:
    """A key by the admin API, which is what ``key create`` speaks, without the start of a process.

    Where there is one of this name, made by the same fixture before the tests of another module came in between, it
    has another one.
    """
    try:
        made: dict[str, Any] = running.admin("POST", "/api/v1/keys", {"name": name, **words})
    except Refused as problem:
        if problem.status != HTTPStatus.CONFLICT:
            raise
        made = running.admin("POST", "/api/v1/keys", {"name": f"{name}-{secrets.token_hex(4)}", **words})
    return made


def new_limit(running: Installation, select: Mapping[str, str], unit: str, amount: Any, **words: Any) -> dict[str, Any]:
    """A limit by the admin API: of one lifetime, unless ``window`` says otherwise."""
    wanted = {"select": select, "unit": unit, "amount": amount, "window": "lifetime", **words}
    made: dict[str, Any] = running.admin("POST", "/api/v1/limits", wanted)
    return made


# -- what the books say ------------------------------------------------------------------------------------------------


def records(running: Installation, **filters: str) -> list[dict[str, Any]]:
    """All request records that match, newest first, over as many pages as there are."""
    rows: list[dict[str, Any]] = []
    query = "".join(f"&{name}={value}" for name, value in filters.items())
    cursor = ""
    while True:
        page = running.admin("GET", f"/api/v1/requests?limit={PAGE}{query}{cursor}")
        rows += page["data"]
        if not page["next_cursor"]:
            return rows
        cursor = f"&cursor={page['next_cursor']}"


def record_count(running: Installation, count: int, **filters: str) -> list[dict[str, Any]]:
    """The records that match once there are ``count``, or as they stand after the time promised for them."""
    return until(lambda: records(running, **filters), lambda rows: len(rows) >= count, VISIBLE_SECONDS)


def record(running: Installation, request_id: str) -> dict[str, Any]:
    """One record with its derivation, once it is in the books."""

    def look() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = running.admin("GET", f"/api/v1/requests/{request_id}")
        except Refused as refused:
            if refused.status != 404:
                raise
            return None
        return found

    found = until(look, lambda row: row is not None, VISIBLE_SECONDS)
    assert found is not None, f"{request_id} is not in the books"
    return found


# -- what must have been paid ------------------------------------------------------------------------------------------


def cost_nanos(input_tokens: int, output_tokens: int, model: str = "sim-1") -> int:
    """What so many tokens cost, by the prices of the configuration, rounded half to even once."""
    per_input, per_output = (Fraction(price) for price in PRICES[model])
    return round((per_input * input_tokens + per_output * output_tokens) * 1000)


def truth_cost(truth: Mapping[str, Any], model: str = "") -> int:
    """What the provider would bill for one call of its truth log; ``model`` where a deployment has another name."""
    usage = truth["usage"] or {}
    if not truth["served"]:
        return 0
    return cost_nanos(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), model or truth["model"])


def truth_of(running: Installation, request_id: str) -> dict[str, Any]:
    """The one call that the provider saw under a request id."""
    rows: list[dict[str, Any]] = running.simulator("GET", f"truth?request_id={request_id}")["data"]
    assert len(rows) == 1, f"the provider saw {len(rows)} calls of {request_id}"
    return rows[0]


def assert_booked_as_served(running: Installation, request_id: str) -> dict[str, Any]:
    """The record of a call equals the provider's truth: tokens, cost and charge, to the nano-dollar."""
    row, truth = record(running, request_id), truth_of(running, request_id)
    usage = truth["usage"]
    assert row["status"] == "ok"
    assert row["usage_source"] == "provider"
    assert (row["input_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage.get("completion_tokens", 0))
    assert nanos(row["cost"]) == truth_cost(truth, row["model"])
    assert nanos(row["charge"]) == truth_cost(truth, row["model"])
    return row
