"""The demo's sample organization: teams, projects, limits, and a little history made through real requests."""

import asyncio
import logging
from typing import Any, NamedTuple

import httpx2

from faregate.cli.first_run import AdminApi, FirstKeys, keep_first_keys
from faregate.config.folder import DataFolder

logger = logging.getLogger("faregate.demo")

#: Gentle: the demo must not look like a load test to whoever watches it start.
CALLS_AT_ONCE = 4
CALL_SECONDS_MAX = 30.0


class _Caller(NamedTuple):
    """A key to make, and what it asks."""

    name: str
    team: str
    project: str
    stage: str
    model: str
    #: Output tokens of each of its calls.
    outputs: tuple[int, ...]
    stream: bool = False


_CALLERS = (
    _Caller("search-api", "research", "search", "prod", "gpt-4o", (180, 320, 95, 410, 260), stream=True),
    _Caller("notebook", "research", "evaluation", "dev", "gpt-4o-mini", (60, 75, 40, 120, 88, 51)),
    _Caller(
        "helpdesk-bot", "support", "helpdesk", "prod", "gpt-4o-mini", (140, 155, 210, 90, 175, 130, 160), stream=True
    ),
    _Caller("mail-drafts", "support", "mail", "prod", "gpt-4o", (420, 380)),
    _Caller("ci", "platform", "ci", "dev", "sim-fast", (20, 20, 20, 20)),
)

_LIMITS: tuple[dict[str, Any], ...] = (
    {"select": {"team": "research"}, "unit": "usd", "amount": "250", "window": "month", "timezone": "Europe/Berlin"},
    {"select": {"team": "support"}, "unit": "usd", "amount": "100", "window": "month"},
    {"select": {"project": "ci"}, "unit": "requests", "amount": 4, "window": "day"},
    {"select": {"project": "search"}, "each": ["end_user"], "unit": "tokens", "amount": 20_000, "window": "minute"},
)

_QUESTIONS = (
    "Which of our papers mention calibration?",
    "Draft a short answer to a customer whose parcel is late.",
    "Summarise yesterday's incidents in three sentences.",
)


async def make_sample(folder: DataFolder, api: AdminApi, gateway_url: str, keys: FirstKeys) -> None:
    """Make the sample organization once; nothing here is needed for the gateway to work."""
    secrets = {}
    for caller in _CALLERS:
        wanted = {"name": caller.name, "team": caller.team, "project": caller.project, "stage": caller.stage}
        secrets[caller.name] = (await api.call("POST", "/keys", wanted))["secret"]
    for limit in _LIMITS:
        await api.call("POST", "/limits", limit)
    gate = asyncio.Semaphore(CALLS_AT_ONCE)
    async with httpx2.AsyncClient(base_url=gateway_url, timeout=CALL_SECONDS_MAX, trust_env=False) as client:
        calls = [
            _ask(client, gate, secrets[caller.name], caller, turn, tokens)
            for caller in _CALLERS
            for turn, tokens in enumerate(caller.outputs)
        ]
        # One call more than the limit of the ci project allows, so that a refusal is among the records.
        calls.append(_ask(client, gate, secrets["ci"], _CALLERS[-1], len(_CALLERS[-1].outputs), 20))
        statuses = await asyncio.gather(*calls, return_exceptions=True)
    answered = sum(status == 200 for status in statuses)
    keys.demo = True
    keep_first_keys(folder, keys)
    logger.info("sample_made", extra={"calls": len(calls), "answered": answered})


async def _ask(
    client: httpx2.AsyncClient, gate: asyncio.Semaphore, secret: str, caller: _Caller, turn: int, tokens: int
) -> int:
    question = _QUESTIONS[turn % len(_QUESTIONS)]
    body = {
        "model": caller.model,
        "stream": caller.stream,
        "max_tokens": max(tokens, 256),
        "messages": [{"role": "user", "content": f'{question}\nsim: {{"output_tokens": {tokens}}}'}],
    }
    headers = {"authorization": f"Bearer {secret}", "x-faregate-user": f"user-{turn % 3 + 1}"}
    async with gate:
        answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    return answer.status_code
