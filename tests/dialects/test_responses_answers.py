"""What whole and stored responses say they used, and what their text is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.core.metering.meter import Event, Report
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import COUNT_MAX, NO_USAGE, Measure, Usage
from faregate.dialects import DIALECTS
from faregate.dialects.hosted_tools import IMAGE_INPUT_TOKENS_MAX, IMAGE_PROMPT_TOKENS_MAX, IMAGE_TOKENS_MAX
from faregate.dialects.responses_answers import ResponseEvents, answer_text, report_of

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 140,
}
LEAVES = Usage(input_text=30, input_cached=60, input_cache_write=10, output_text=10, output_reasoning=30)
NAMED = ("gpt-5-2025", "resp_1", "default")
SEARCHED = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
RAN = {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "container_id": "cntr_1", "code": "1"}


def response(**changed: Any) -> bytes:
    value = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5-2025",
        "service_tier": "default",
        "output": [],
        "tools": [],
        "usage": USAGE,
    } | changed
    return json.dumps({name: part for name, part in value.items() if part is not ...}).encode()


def used(**changed: Any) -> tuple[Measure, ...]:
    usage = report_of(response(**changed)).usage
    assert usage is not None
    return usage.other


def test_reported() -> None:
    """Totals and parts become leaves; model, id and tier are told."""
    assert report_of(response()) == Report(LEAVES, "", *NAMED)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
def test_an_end_with_usage_is_billed(status: str) -> None:
    """However it ended, what it says it used is believed."""
    assert report_of(response(status=status)) == Report(LEAVES, "", *NAMED)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_not_done(status: str) -> None:
    """Work that goes on tells its cost later, whatever it says now."""
    assert report_of(response(status=status, usage=None)) == Report(None, "", *NAMED, 0, True)
    assert report_of(response(status=status)).pending


def test_failed_before_anything_was_made() -> None:
    """A failure with nothing to show and no usage costs nothing; with something to show, it is counted."""
    made = [{"type": "message", "content": [{"type": "output_text", "text": "Hal"}]}]
    assert report_of(response(status="failed", usage=None)).usage == NO_USAGE
    assert report_of(response(status="failed", usage=None, output=made)) == Report(None, "", *NAMED)
    assert report_of(response(usage=...)) == Report(None, "", *NAMED)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"output": [SEARCHED, SEARCHED]}, [Measure("web_searches", "", 2)]),
        (
            {"output": [SEARCHED], "tools": [{"type": "web_search_preview_2025_03_11"}]},
            [Measure("web_searches", "preview", 1)],
        ),
        ({"output": [SEARCHED | {"action": {"type": "open_page", "url": "x"}}]}, []),
        ({"output": [SEARCHED | {"action": {"type": "find_in_page"}}]}, []),
        ({"output": [SEARCHED | {"action": ...} | {"action": None}]}, [Measure("web_searches", "", 1)]),
        ({"output": [SEARCHED | {"status": "failed"}]}, []),
        (
            {"output": [SEARCHED, SEARCHED], "tool_usage": {"web_search": {"num_requests": 1}}},
            [Measure("web_searches", "", 1)],
        ),
        ({"output": [{"type": "file_search_call", "status": "completed"}]}, [Measure("file_searches", "", 1)]),
        ({"output": [RAN, RAN]}, [Measure("code_sessions", "", 1)]),
        ({"output": [RAN, RAN | {"container_id": "cntr_2"}]}, [Measure("code_sessions", "", 2)]),
        (
            {
                "output": [RAN],
                "tools": [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "16g"}}],
            },
            [Measure("code_sessions", "", 16)],
        ),
        (
            {"output": [{"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c"}}]},
            [Measure("code_sessions", "", 1)],
        ),
        ({"output": [{"type": "shell_call", "environment": {"type": "local"}}]}, []),
        (
            {
                "output": [{"type": "image_generation_call", "status": "completed", "result": "AAAA"}],
                "tools": [{"type": "image_generation", "model": "gpt-image-1-mini-2025"}],
                "tool_usage": {
                    "image_gen": {
                        "input_tokens": 50,
                        "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
                        "output_tokens": 4160,
                        "total_tokens": 4210,
                    },
                    "web_search": {"num_requests": 0},
                },
            },
            [
                Measure("input_image_tokens", "gpt-image-1-mini", 40),
                Measure("input_image_tokens", "gpt-image-1-mini text", 10),
                Measure("output_image_tokens", "gpt-image-1-mini", 4160),
            ],
        ),
    ],
)
def test_hosted_tools(changed: dict[str, Any], expected: list[Measure]) -> None:
    """What the provider's own tools used is counted from the items, or told by the provider itself."""
    changed["output"] = [{k: v for k, v in item.items() if v is not ...} for item in changed["output"]]
    assert list(used(**changed)) == expected


@pytest.mark.parametrize(
    ("changed", "unknown"),
    [
        ({"usage": USAGE | {"dream_tokens": 5}}, 1),
        ({"usage": USAGE | {"dream_tokens": 0, "other": None}}, 0),
        ({"usage": USAGE | {"input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10, "video": 1}}}, 1),
        (
            {
                "usage": USAGE
                | {
                    "input_tokens_details": {
                        "cached_tokens": 60,
                        "cache_write_tokens": 10,
                        "cache_write_tokens_details": {"ttl_30m_tokens": 0, "ttl_12h_tokens": 10},
                    }
                }
            },
            1,
        ),
        ({"output": [{"type": "hologram_call"}, {"type": "message"}]}, 1),
        ({"output": [{"type": "image_generation_call", "status": "completed"}]}, 1),
    ],
)
def test_unknown_members_are_counted(changed: dict[str, Any], unknown: int) -> None:
    """What nobody knows may be billed, so it is counted and the rest is believed."""
    assert report_of(response(**changed)) == Report(LEAVES, "", *NAMED, unknown)


@pytest.mark.parametrize(
    ("usage", "rule"),
    [
        ("many", "the usage report is not an object"),
        ({"input_tokens": 5}, "input or output tokens are missing"),
        ({"input_tokens": None, "output_tokens": 1}, "input or output tokens are missing"),
        ({"input_tokens": 5, "output_tokens": -1}, f"output tokens are outside 0 to {COUNT_MAX}"),
        ({"input_tokens": 5, "output_tokens": "1"}, "output tokens are not a whole number"),
        ({"input_tokens": 5, "output_tokens": float("nan")}, "output tokens are not a whole number"),
        (
            {"input_tokens": 5, "output_tokens": 1, "total_tokens": 9},
            "total tokens are not the sum of input and output tokens",
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 6}},
            "cached, cache-write and audio input tokens exceed input tokens",
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 2}},
            "reasoning and audio output tokens exceed output tokens",
        ),
    ],
)
def test_broken(usage: Any, rule: str) -> None:
    """A report that cannot be true is named by the rule it breaks, in an event, too."""
    assert report_of(response(usage=usage)) == Report(None, rule, *NAMED)
    event = ResponseEvents()(b'{"type":"response.completed","response":' + response(usage=usage) + b"}")
    assert isinstance(event, Event)
    assert getattr(event.usage, "rule", "") == rule
    assert event.last


def test_odd_items_do_not_hide_the_others() -> None:
    """Items of unexpected shape are passed over; tools that fit are counted all the same."""
    odd: list[Any] = [5, {"type": 5}, {"type": "message", "status": 7}, SEARCHED]
    told = report_of(response(output=odd, tools="none", tool_usage=3, model=5))
    assert told.usage == LEAVES._replace(other=(Measure("web_searches", "", 1),))
    assert told.model == ""


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"usage":', b"\xff", b"[" * 100_000])
def test_not_an_answer(body: bytes) -> None:
    """Bytes that are no JSON object report nothing that could be believed."""
    assert report_of(body).invalid == "the answer is not a JSON object"


def test_text() -> None:
    """Text, refusals, reasoning, calls and code are billed text; ids, sources and results are not."""
    output = [
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "b", "arguments": "{c}"},
        {"type": "code_interpreter_call", "code": "d", "outputs": [{"logs": "no"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "e", "annotations": [{"url": "no"}], "logprobs": []},
                {"type": "refusal", "refusal": "f"},
            ],
        },
    ]
    assert answer_text(response(output=output)) == "ab{c}def"
    assert answer_text(b"[]") == answer_text(b"") == ""


def test_names_without_end_are_cut() -> None:
    """Whatever a provider calls itself, a settlement fits into a record of the journal."""
    told = report_of(response(model="m" * 10_000, id="i" * 10_000, service_tier="t" * 10_000))
    assert (len(told.model), len(told.id), len(told.service_tier)) == (256, 256, 256)


def test_a_stored_response_reads_like_a_fresh_one() -> None:
    """The same bytes settle a background response when it is asked for again."""
    assert DIALECTS["responses"].usage_of(response(background=True)) == Report(LEAVES, "", *NAMED)


# -- the bound ---------------------------------------------------------------------------------------------------------

_COUNTED = ("web_searches", "file_searches", "code_sessions")


def _tariff(prices: list[int]) -> Tariff:
    own = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", *_COUNTED)
    rates = [Rate(unit, price, 1_000) for unit, price in zip(own, prices, strict=False)]
    rates.append(Rate("web_searches", prices[8], 1_000, "preview"))
    for unit, variant, price in (
        ("input_image_tokens", "gpt-image-1", prices[9]),
        ("input_image_tokens", "gpt-image-1 text", prices[10]),
        ("output_image_tokens", "gpt-image-1", prices[11]),
    ):
        rates.append(Rate(unit, price, 1_000, variant))
    return Tariff(RateCard("p", "m", "v", (Tier(0, tuple(rates)),)))


@given(
    st.lists(st.integers(0, 10**9), min_size=12, max_size=12),
    st.integers(1, 6),
    st.lists(st.sampled_from(["search", "open", "file", "code", "code2", "image"]), max_size=6),
    st.sampled_from(["web_search", "web_search_preview"]),
    st.sampled_from(["1g", "4g", "16g", "64g"]),
    st.tuples(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_000)),
    st.tuples(st.integers(0, 500), st.integers(0, 500)),
    st.tuples(
        st.integers(0, IMAGE_INPUT_TOKENS_MAX),
        st.integers(0, IMAGE_PROMPT_TOKENS_MAX),
        st.integers(0, IMAGE_TOKENS_MAX),
    ),
)
def test_no_answer_within_the_caps_costs_more_than_the_bound(
    prices: list[int],
    cap: int,
    calls: list[str],
    search: str,
    size: str,
    read: tuple[int, int, int],
    written: tuple[int, int],
    image: tuple[int, int, int],
) -> None:
    """Whatever the tools do within their cap, and whatever the tokens are, the answer costs at most the bound."""
    tools = [
        {"type": search},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": size}},
        {"type": "image_generation", "model": "gpt-image-1"},
    ]
    asked = {"model": "m", "input": "x", "tools": tools, "max_tool_calls": cap, "max_output_tokens": 1_000}
    call = DIALECTS["responses"].read(json.dumps(asked).encode())
    assert isinstance(call, Call)
    calls = calls[:cap]
    items = {
        "search": SEARCHED,
        "open": SEARCHED | {"action": {"type": "open_page"}},
        "file": {"type": "file_search_call"},
        "code": RAN,
        "code2": RAN | {"container_id": "cntr_2"},
        "image": {"type": "image_generation_call", "status": "completed"},
    }
    images = calls.count("image")
    usage = {
        "input_tokens": sum(read),
        "input_tokens_details": {"cached_tokens": read[0], "cache_write_tokens": read[1]},
        "output_tokens": sum(written),
        "output_tokens_details": {"reasoning_tokens": written[0]},
    }
    drawn = {
        "input_tokens": images * (image[0] + image[1]),
        "input_tokens_details": {"image_tokens": images * image[0], "text_tokens": images * image[1]},
        "output_tokens": images * image[2],
    }
    told = report_of(
        response(usage=usage, tools=tools, output=[items[name] for name in calls], tool_usage={"image_gen": drawn})
    )
    tariff = _tariff(prices)
    assert told.usage is not None
    assert tariff.unpriced(call.at_most) == ""
    assert tariff.cost(told.usage) <= tariff.bound(sum(read), 1_000, call.media, call.at_most)


def test_tokens_of_another_model_need_their_own_price() -> None:
    """What an image model's tokens cost is not what those of the model cost that calls it."""
    tariff = Tariff(RateCard("p", "m", "v", (Tier(0, (Rate("input_tokens", 1, 1), Rate("output_tokens", 1, 1))),)))
    assert tariff.unpriced([Measure("output_image_tokens", "", 5)]) == ""
    assert tariff.unpriced([Measure("output_image_tokens", "gpt-image-1", 5)]) == "output_image_tokens (gpt-image-1)"


# -- anything ----------------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from("usage output tools tool_usage status model id".split()), _json, max_size=5),
    st.sampled_from(["response.completed", "response.created", "response.failed", "x.delta", "error"]) | _json,
    _json,
    st.binary(max_size=40),
)
def test_total(changed: dict[str, Any], kind: Any, delta: Any, junk: bytes) -> None:
    """Any response and any event is read without an error."""
    body = response(**changed)
    assert isinstance(report_of(body), Report)
    assert isinstance(answer_text(body), str)
    event = json.dumps({"type": kind, "delta": delta, "item": delta, "response": changed}).encode()
    for payload in (event, body, junk, b'{"type":"response.completed","response":' + junk + b"}"):
        assert isinstance(ResponseEvents()(payload), Event | str)
        assert isinstance(ResponseEvents().plain_text([payload, payload]), str | None)
