"""What a batch holds: no less than all its lines would hold as calls of their own, in every unit."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.dialects import batch_lines, openai_batches, openai_chat
from faregate.proxy.bound import upper_bound

CHAT = "/v1/chat/completions"
MODEL_MAXIMUM = 4096

bodies = st.lists(
    st.builds(
        lambda text, cap, choices: {"messages": [{"role": "user", "content": text}]} | cap | choices,
        st.text(max_size=60),
        st.sampled_from([{}, {"max_tokens": 1}, {"max_tokens": 700}]),
        st.sampled_from([{}, {"n": 3}]),
    ),
    min_size=1,
    max_size=8,
)
prices = st.integers(0, 10**9)


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    """A card whose long calls have other prices of everything, fees included."""

    def rates() -> tuple[Rate, ...]:
        units = ("input_tokens", "output_tokens", "requests")
        return tuple(Rate(unit, draw(prices), draw(st.sampled_from([1, 3, 7]))) for unit in units)

    above = draw(st.integers(1, 400))
    return Tariff(RateCard("p", "m", "v", (Tier(0, rates()), Tier(above, rates()))))


@given(bodies, tariffs())
def test_a_batch_holds_what_its_lines_would(asked: list[dict[str, Any]], tariff: Tariff) -> None:
    """The sum of the holds of all lines, one by one, is never more than the hold of the batch."""
    raw = [json.dumps({"model": "m"} | body).encode() for body in asked]
    lines = [
        b'{"custom_id":"%d","method":"POST","url":"%s","body":%s}' % (at, CHAT.encode(), body)
        for at, body in enumerate(raw)
    ]
    understood = batch_lines.read(b"\n".join(lines))
    assert isinstance(understood, batch_lines.Understood)
    request = {"input_file_id": "f", "endpoint": CHAT, "completion_window": "24h"}
    created = openai_batches.read(json.dumps(request).encode())
    assert isinstance(created, Call)
    batch = openai_batches.bounded(created, batch_lines.packed(understood.file))
    assert isinstance(batch, Call)

    def held(call: Call) -> Any:
        cap = MODEL_MAXIMUM if call.output_cap is None else call.output_cap
        return upper_bound(call, tariff, call.input_tokens_max, cap)

    alone = [held(call) for call in map(openai_chat.read, raw) if isinstance(call, Call)]
    together = held(batch)

    assert together.usd >= sum(one.usd for one in alone)
    assert together.input_tokens == sum(one.input_tokens for one in alone)
    assert together.output_tokens == sum(one.output_tokens for one in alone)


def test_many_short_lines_are_not_one_long_call() -> None:
    """A batch is not held at the prices of long calls because its lines are many."""
    low, high = Rate("input_tokens", 1_000_000, 1), Rate("input_tokens", 2_000_000, 1)
    tariff = Tariff(RateCard("p", "m", "v", (Tier(0, (low,)), Tier(1_000, (high,)))))
    batch = Call("batches", "m", has_output=False, input_tokens_max=5_000, calls=50, longest_input=100)

    assert upper_bound(batch, tariff, 5_000, 0).usd < tariff.bound(5_000, 0)
