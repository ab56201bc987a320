"""The hold of one call: every token that it may use, those of tools included, is held in every unit that counts it."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.amounts import held_amounts, posted_amounts
from faregate.core.attribution import Attribution
from faregate.core.call import Call
from faregate.core.limits.admit import Allowances, LimitIndex, Standing
from faregate.core.limits.index import CompiledLimit
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.routing.health import Health
from faregate.core.usage import Usage
from faregate.dialects import openai_responses
from faregate.proxy.answer_watch import AnswerWatch
from faregate.proxy.bound import Held, Wants, hold
from faregate.proxy.snapshot import Target
from faregate.proxy.stream_queue import StreamQueue
from faregate.proxy.upstream import Pool
from gates import deployment, provider

FREE = Tariff(RateCard("p", "m", "v", (Tier(0, (Rate("input_tokens", 0, 1), Rate("output_tokens", 0, 1))),)))
WHO = Attribution(organization="default", team="research")


def drawing(calls: int) -> Call:
    """A call whose model may have images drawn by another one."""
    tools = [{"type": "image_generation", "model": "gpt-image-1"}]
    asked: dict[str, Any] = {"model": "m", "input": "Draw.", "tools": tools, "max_tool_calls": calls}
    call = openai_responses.read(json.dumps(asked).encode())
    assert isinstance(call, Call)
    return call


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """A pool that dials nothing: a hold is decided before any connection."""
    loop = asyncio.new_event_loop()
    yield Pool(
        provider("http://127.0.0.1:1/v1"), loop, StreamQueue(loop, time.monotonic_ns), AnswerWatch(loop.call_soon)
    )
    loop.close()


@given(
    calls=st.integers(1, 4),
    unit=st.sampled_from(["tokens", "input_tokens", "output_tokens"]),
    amount=st.integers(0, 10**6),
    data=st.data(),
)
def test_tokens_of_tools_are_held_on_limits_of_tokens(
    pool: Pool, calls: int, unit: str, amount: int, data: st.DataObject
) -> None:
    """What was held is no less than what is posted when each tool call used its most, and never above the limit."""
    allowances = Allowances(10)
    limit = CompiledLimit(id="lim_1", selector={}, unit=unit, amount=amount, window="lifetime")
    for id in allowances.replace_limits(LimitIndex((limit,)), 0):
        allowances.open_balance(id, [], 0)
    call = drawing(calls)
    target = Target(deployment(output_tokens_max=4_096), pool.provider, pool, Health())
    standing = Standing(WHO, (limit,))
    taken = hold("req_1", Wants(standing, call, target, FREE, 1_000, 500, 1), allowances, 0)
    if not isinstance(taken, Held):
        # Not even an answer of one token fits.
        assert getattr(held_amounts(0, 1_000, 1, call.at_most), unit) > amount
        return
    held = taken.reservation.amounts
    output = data.draw(st.integers(0, taken.cap or 4_096))
    posted = posted_amounts(0, Usage(1_000, output_text=output, other=call.at_most))
    assert all(used <= most for used, most in zip(posted, held, strict=True))
    assert getattr(held, unit) <= amount
