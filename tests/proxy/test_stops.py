"""Stops and throttles with an end are limits like any other: they hold until their moment, without anybody's doing."""

import asyncio
import time
from pathlib import Path

from faregate.control import Limit
from faregate.core.limits.terms import Terms
from gates import key, running_gate, scenario

REASON = "Azure budget bots has reached its threshold of 100 percent"
PRODUCT = {"organization": "default", "product": "bots"}
KEYS = (key("one", product="bots"), key("two", product="bots"), key("other", product="others"))


@scenario
async def test_a_stop_refuses_all_keys_of_a_product_until_its_end(tmp_path: Path) -> None:
    """With its reason, as a budget that is used up; keys of other products pass, and at its end all do."""
    until = time.time_ns() + 1_500_000_000
    stop = Limit("lim_stop", PRODUCT, (), "requests", 0, "lifetime", terms=Terms(until=until, reason=REASON))
    async with running_gate(tmp_path, limits=(stop,), keys=KEYS) as running:
        refused = [await running.chat(name=name) for name in ("one", "two")]
        assert [answer.json()["error"]["code"] for answer in refused] == ["budget_exhausted"] * 2
        assert REASON in refused[0].text
        assert (await running.chat(name="other")).status_code == 200

        await asyncio.sleep(max(0, until - time.time_ns()) / 1e9 + 0.1)
        assert [(await running.chat(name=name)).status_code for name in ("one", "two")] == [200, 200]


@scenario
async def test_a_throttle_lets_few_calls_of_a_product_through(tmp_path: Path) -> None:
    """All its keys share them."""
    left = 60 - time.time() % 60
    if left < 10:
        await asyncio.sleep(left + 0.1)
    throttle = Limit("lim_slow", PRODUCT, (), "requests", 3, "minute", terms=Terms(reason=REASON))
    async with running_gate(tmp_path, limits=(throttle,), keys=KEYS) as running:
        passed = [(await running.chat(name=name)).status_code for name in ("one", "two", "one", "two")]
        assert passed == [200, 200, 200, 429]
