"""Bodies of Anthropic messages → what is asked and how it is bounded, or why it is refused; whole answers → usage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import CACHE_WRITE_1H, Call
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, NO_USAGE, Contradiction, Measure, Usage
from faregate.dialects import DIALECTS, anthropic_answers, anthropic_messages
from faregate.dialects.anthropic_messages import (
    DEFINED_TOOL_TOKENS,
    HIDDEN_TOKENS,
    IMAGE_TOKENS_MAX,
    SERVER_TURNS,
    TOOLSET_TOKENS,
)
from faregate.errors import CODES, Problem

USER = {"role": "user", "content": "Hello"}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
FUNCTION = {"name": "weather", "input_schema": {"type": "object", "properties": {"source": {"type": "string"}}}}


def body(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [USER], **fields}
    return {name: value for name, value in made.items() if value is not ...}


def encoded(**fields: Any) -> bytes:
    return json.dumps(body(**fields), ensure_ascii=False, separators=(",", ":")).encode()


def read(**fields: Any) -> Call:
    told = anthropic_messages.read(encoded(**fields))
    assert isinstance(told, Call), told
    return told


def refused(**fields: Any) -> tuple[str, str | None]:
    told = anthropic_messages.read(encoded(**fields))
    assert isinstance(told, Problem), told
    assert told.code in CODES
    return told.code, told.param


def test_a_plain_message() -> None:
    """The few facts of a message; its bytes bound its input."""
    assert read(system="Be brief.", stream=True, metadata={"user_id": "u-1"}) == Call(
        "messages",
        "claude-sonnet-4-5",
        stream=True,
        usage_wanted=True,
        output_cap=100,
        cap_field="max_tokens",
        input_tokens_max=len(encoded(system="Be brief.", stream=True, metadata={"user_id": "u-1"})),
        end_user="u-1",
        members=("model", "max_tokens", "messages", "system", "stream", "metadata"),
    )


def test_a_message_that_only_fills_the_cache_has_no_output() -> None:
    """``max_tokens`` 0 is allowed and bounds the output at nothing."""
    call = read(max_tokens=0)
    assert (call.output_cap, call.has_output) == (0, False)


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no cap": ({"max_tokens": ...}, "field_missing", "max_tokens"),
    "null cap": ({"max_tokens": None}, "field_type", "max_tokens"),
    "negative cap": ({"max_tokens": -1}, "field_range", "max_tokens"),
    "text cap": ({"max_tokens": "9"}, "field_type", "max_tokens"),
    "huge cap": ({"max_tokens": 10**30}, "field_range", "max_tokens"),
    "no model": ({"model": ...}, "field_missing", "model"),
    "no messages": ({"messages": ...}, "field_missing", "messages"),
    "empty messages": ({"messages": []}, "field_range", "messages"),
    "messages no list": ({"messages": "hi"}, "field_type", "messages"),
    "stream": ({"stream": "yes"}, "field_type", "stream"),
    "remote tools": ({"mcp_servers": [{"url": "https://x"}]}, "feature_unbounded", "mcp_servers"),
    "container": ({"container": "container_1"}, "feature_unbounded", "container"),
    "fallbacks": ({"fallbacks": [{"model": "claude-opus"}]}, "field_forbidden", "fallbacks"),
    "thread": ({"thread": {"id": "t"}}, "feature_unbounded", "thread"),
    "fast": ({"speed": "fast"}, "feature_unbounded", "speed"),
    "region": ({"inference_geo": "us"}, "feature_unbounded", "inference_geo"),
    "compaction": (
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        "feature_unbounded",
        "context_management",
    ),
    "host": ({"api_base": "https://x"}, "field_forbidden", "api_base"),
    "user no text": ({"metadata": {"user_id": 5}}, "field_type", "metadata.user_id"),
    "user too long": ({"metadata": {"user_id": "u" * 257}}, "field_range", "metadata.user_id"),
    "metadata": ({"metadata": "u"}, "field_type", "metadata"),
    "tools": ({"tools": "all"}, "field_type", "tools"),
    "unbounded search": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "feature_unbounded",
        "tools[0].max_uses",
    ),
    "search without end": ({"tools": [{**SEARCH, "max_uses": 10**9}]}, "feature_unbounded", "tools[0].max_uses"),
    "true uses": ({"tools": [{**SEARCH, "max_uses": True}]}, "feature_unbounded", "tools[0].max_uses"),
    "unbounded fetch": (
        {"tools": [FUNCTION, {"type": "web_fetch_20250910", "name": "web_fetch"}]},
        "feature_unbounded",
        "tools[1].max_uses",
    ),
    "code": ({"tools": [{"type": "code_execution_20250825", "name": "x"}]}, "feature_unbounded", "tools[0]"),
    "code with an old search": (
        {"tools": [{"type": "code_execution_20250825", "name": "x"}, SEARCH]},
        "feature_unbounded",
        "tools[0]",
    ),
    "advisor": ({"tools": [{"type": "advisor_20260301", "name": "a"}]}, "feature_unbounded", "tools[0].type"),
    "toolset of a server": ({"tools": [{"type": "mcp_toolset"}]}, "feature_unbounded", "tools[0].type"),
    "private image": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}}]}
            ]
        },
        "url_forbidden",
        "messages[0].content[0].source.url",
    ),
    "private image in a tool's result": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [{"type": "image", "source": {"type": "url", "url": "https://[::1]/"}}],
                        }
                    ],
                }
            ]
        },
        "url_forbidden",
        "messages[0].content[0].content[0].source.url",
    ),
    "stored image": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
        "feature_unbounded",
        "messages[0].content[0].source",
    ),
    "uploaded file": (
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
        "feature_unbounded",
        "messages[0].content[0].file_id",
    ),
    "source of tomorrow": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "hologram"}}]}]},
        "feature_unbounded",
        "messages[0].content[0].source",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """Whatever has no bound, no sense or no place here is refused with its field and a code."""
    fields, code, param = REFUSED[name]
    assert refused(**fields) == (code, param)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model":"m","model":"n"}', b"\xff\xfe{}", b'{"messages":[' * 70])
def test_no_json(raw: bytes) -> None:
    """What is no JSON object is refused as that."""
    assert isinstance(anthropic_messages.read(raw), Problem)


def picture(data: str = "aGVsbG8=") -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def content(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *blocks]}]


def test_images_are_bounded_by_their_largest() -> None:
    """A picture costs at most so many tokens, whatever its bytes; those are not counted as text."""
    data = "aGVsbG8=" * 1000
    call = read(messages=content(picture(data), picture(data)))
    assert call.input_tokens_max == len(encoded(messages=content(picture(data), picture(data)))) + 2 * (
        IMAGE_TOKENS_MAX - len(data)
    )
    assert not call.whole_context
    fetched = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert read(messages=content(fetched)).input_tokens_max > IMAGE_TOKENS_MAX


def test_documents_are_bounded_by_the_context() -> None:
    """A PDF, here or on the web, may hold as much as the model can read; a text document is its text."""
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    fetched = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Long text."}}
    nested = {"type": "document", "source": {"type": "content", "content": [picture()]}}
    result = {"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": pdf}}
    assert [read(messages=content(each)).whole_context for each in (pdf, fetched, text, nested, result)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert read(messages=content(nested)).input_tokens_max > IMAGE_TOKENS_MAX


def test_search_results_are_text() -> None:
    """The ``source`` of a search result is an address for citations, and nobody fetches it."""
    found = [{"type": "text", "text": "x"}]
    result = {"type": "search_result", "source": "http://10.0.0.1/", "title": "t", "content": found}
    call = read(messages=content(result))
    assert (call.input_tokens_max, call.whole_context) == (len(encoded(messages=content(result))), False)


def test_a_disguised_image_is_found() -> None:
    """Escapes in names hide nothing."""
    plain = encoded(messages=content(picture()))
    disguised = plain.replace(b'"source"', b'"\\u0073ource"')
    one, other = anthropic_messages.read(plain), anthropic_messages.read(disguised)
    assert isinstance(one, Call)
    assert isinstance(other, Call)
    assert other.input_tokens_max == one.input_tokens_max + len(disguised) - len(plain)


@pytest.mark.parametrize("ttl", ['"1h"', '"\\u0031h"', '"1\\u0068"', '"\\u0031\\u0068"'])
def test_writes_to_the_cache_for_an_hour_are_dearer(ttl: str) -> None:
    """The dear bit is set wherever a ttl of an hour may be asked for, however it is spelt; else it is not."""
    system = '[{"type":"text","text":"x","cache_control":{"type":"ephemeral","ttl":' + ttl + "}}]"
    raw = encoded().replace(b'"messages"', b'"system":' + system.encode() + b',"messages"')
    told = anthropic_messages.read(raw)
    assert isinstance(told, Call)
    assert told.media == CACHE_WRITE_1H
    assert read(cache_control={"type": "ephemeral", "ttl": "5m"}).media == 0


def test_searches_are_held_at_their_most() -> None:
    """Searches, the turns they take and what the provider adds are in the bound; without tools there is none of it."""
    call = read(tools=[FUNCTION, SEARCH, {**SEARCH, "type": "web_search_20260209", "max_uses": 2}])
    assert call.at_most == (Measure("web_searches", "", 5),)
    assert (call.turns, call.whole_context) == (SERVER_TURNS, True)
    plain = read(tools=[FUNCTION])
    assert (plain.at_most, plain.turns, plain.whole_context) == ((), 1, False)
    assert plain.input_tokens_max == len(encoded(tools=[FUNCTION])) + HIDDEN_TOKENS


def test_tools_of_the_caller_cost_their_definition() -> None:
    """Tools that the provider defines and the caller runs bring a prompt of their own."""
    tools = [{"type": "bash_20250124", "name": "bash"}, {"type": "computer_toolset_20260801"}]
    assert read(tools=tools).input_tokens_max == (
        len(encoded(tools=tools)) + HIDDEN_TOKENS + DEFINED_TOOL_TOKENS + TOOLSET_TOKENS
    )
    assert read(tools=None).input_tokens_max == len(encoded(tools=None)) + HIDDEN_TOKENS


def test_code_runs_where_it_is_free() -> None:
    """Beside a web tool that makes it free of charge, code execution is let through."""
    tools = [{"type": "code_execution_20260120", "name": "c"}, {**SEARCH, "type": "web_search_20260209"}]
    assert read(tools=tools).at_most == (Measure("web_searches", "", 3),)
    assert read(tools=[{"type": "tool_search_tool_bm25", "name": "t"}]).turns == SERVER_TURNS


def test_ordinary_values_of_priced_members_pass() -> None:
    """Naming what is the default changes nothing."""
    call = read(speed="standard", inference_geo="global", service_tier="auto", mcp_servers=None)
    assert call.service_tier == ""
    assert read(context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}).input_tokens_max


def test_a_count_reads_the_model_only() -> None:
    """A count holds nothing; what it would make the provider fetch is looked at all the same."""
    told = anthropic_messages.read_count(encoded(max_tokens=...))
    assert isinstance(told, Call)
    assert (told.operation, told.has_output, told.input_tokens_max) == ("messages.count_tokens", False, 0)
    private = {"type": "image", "source": {"type": "url", "url": "https://localhost/"}}
    other = anthropic_messages.read_count(encoded(messages=content(private)))
    assert isinstance(other, Problem)
    assert other.code == "url_forbidden"
    assert anthropic_answers.report_of_count(b'{"input_tokens":2095}') == Report(NO_USAGE)


def test_the_cap_and_the_model_are_spliced() -> None:
    """A cap and another model name change their bytes and nothing else."""
    raw = encoded()
    call = anthropic_messages.read(raw)
    assert isinstance(call, Call)
    edit = DIALECTS["messages"].edit
    assert edit(raw, call, model=None, cap=None, cap_field="", ask_usage=False) is raw
    changed = edit(raw, call, model="claude-x", cap=7, cap_field="max_tokens", ask_usage=False)
    assert json.loads(changed) == body(model="claude-x", max_tokens=7)


def test_counting_the_prompt() -> None:
    """The texts to tokenize are those that the model reads; pictures and signatures are none."""
    raw = encoded(system="Be brief.", messages=content(picture()), tools=[FUNCTION])
    texts = anthropic_messages.prompt_text(raw)
    assert texts[:3] == ["Be brief.", "user", "What is this?"]
    assert "aGVsbG8=" not in "".join(texts)
    assert anthropic_messages.prompt_tokens_overhead(raw) > IMAGE_TOKENS_MAX + HIDDEN_TOKENS
    assert anthropic_messages.prompt_text(b"nonsense") == []
    assert anthropic_messages.prompt_tokens_overhead(b"[]") == 0


# -- whole answers ----------------------------------------------------------------------------------------------------


def report(**usage: Any) -> Report:
    answer = {"id": "msg_1", "type": "message", "model": "claude-x", "content": [], "usage": usage}
    return anthropic_answers.report_of(json.dumps(answer).encode())


def test_leaves_are_disjoint() -> None:
    """Input, cache reads and both cache writes add up; thinking is part of the output (Anthropic, Prompt caching)."""
    told = report(
        input_tokens=2_048,
        cache_read_input_tokens=1_800,
        cache_creation_input_tokens=248,
        output_tokens=503,
        cache_creation={"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        output_tokens_details={"thinking_tokens": 400},
        server_tool_use={"web_search_requests": 1, "web_fetch_requests": 4},
        service_tier="standard",
    )
    other = (Measure("cache_write_1h_tokens", "", 100), Measure("web_searches", "", 1))
    assert told == Report(Usage(2_048, 1_800, 148, 0, 103, 400, 0, other), "", "claude-x", "msg_1")
    assert told.usage is not None
    assert (told.usage.input_tokens, told.usage.output_tokens) == (2_048 + 1_800 + 248, 503)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"output_tokens": 1}, "missing"),
    ({"input_tokens": 1}, "missing"),
    ({"input_tokens": -1, "output_tokens": 1}, "outside"),
    ({"input_tokens": 1.5, "output_tokens": 1}, "whole number"),
    ({"input_tokens": True, "output_tokens": 1}, "whole number"),
    ({"input_tokens": 1, "output_tokens": "1"}, "whole number"),
    ({"input_tokens": 1, "output_tokens": COUNT_MAX + 1}, "outside"),
    ({"input_tokens": COUNT_MAX, "cache_read_input_tokens": 1, "output_tokens": 1}, "outside"),
    ({"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}}, "exceed"),
    (
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 5},
        },
        "add up",
    ),
]


@pytest.mark.parametrize(("usage", "rule"), BROKEN)
def test_a_contradiction_is_named(usage: dict[str, Any], rule: str) -> None:
    """A report that cannot be true bills nothing by itself, and says why."""
    told = report(**usage)
    assert told.usage is None
    assert rule in told.invalid


def test_what_nobody_knows_is_counted() -> None:
    """Members, tools, regions and speeds that may be billed apart are counted for the alarm; empty ones are not."""
    plain = {"input_tokens": 1, "output_tokens": 1}
    assert report(**plain, speed="standard", inference_geo="global", later=None, zero=0).unknown == 0
    assert report(**plain, speed="fast", inference_geo="us", moon_tokens=4).unknown == 3
    assert report(**plain, server_tool_use={"code_requests": 2}).unknown == 1
    assert report(**plain, iterations=[{"type": "message"}, {"type": "advisor_message"}, 5]).unknown == 2


def test_answers_of_no_use() -> None:
    """An answer without usage, with a broken one, or that is none at all, never raises."""
    assert anthropic_answers.report_of(b'{"id":"msg_1","model":"m"}') == Report(None, "", "m", "msg_1")
    assert anthropic_answers.report_of(b'{"usage":[]}').invalid == "the usage report is not an object"
    assert anthropic_answers.report_of(b"<html>").invalid == "the answer is not a JSON object"
    assert anthropic_answers.report_of(b'{"usage":{"input_tokens":NaN,"output_tokens":1}}').invalid != ""
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    assert anthropic_answers.report_of(error) == Report()


def test_the_text_of_an_answer() -> None:
    """Text, thinking and calls of tools are billed as output."""
    blocks = [
        {"type": "thinking", "thinking": "Hm. ", "signature": "x"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "name": "weather", "input": {"city": "Köln"}},
    ]
    answer = json.dumps({"content": blocks}).encode()
    assert anthropic_answers.answer_text(answer) == 'Hm. Hiweather{"city":"Köln"}'
    assert anthropic_answers.answer_text(b"{") == ""


COUNTS = st.none() | st.integers(-3, 2_000_000_000) | st.integers(0, 5_000) | st.floats() | st.text(max_size=2)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": COUNTS,
            "output_tokens": COUNTS,
            "cache_creation_input_tokens": COUNTS,
            "cache_read_input_tokens": COUNTS,
            "cache_creation": st.none()
            | st.fixed_dictionaries(
                {}, optional={"ephemeral_5m_input_tokens": COUNTS, "ephemeral_1h_input_tokens": COUNTS}
            ),
            "output_tokens_details": st.none() | st.fixed_dictionaries({"thinking_tokens": COUNTS}),
            "server_tool_use": st.none() | st.fixed_dictionaries({"web_search_requests": COUNTS}),
        },
    )
)
def test_leaves_add_up_or_are_named(told: dict[str, Any]) -> None:
    """Any report is split into leaves that add up to what it says, or is a contradiction; nothing is negative."""
    leaves = anthropic_answers.leaves(told)
    if isinstance(leaves, Contradiction):
        assert leaves.rule
        return
    written = told.get("cache_creation_input_tokens")
    parts = told.get("cache_creation") or {}
    written = sum(part or 0 for part in parts.values()) if written is None else written
    assert leaves.input_tokens == told["input_tokens"] + (told.get("cache_read_input_tokens") or 0) + written
    assert leaves.output_tokens == told["output_tokens"]
    assert min(leaves[:-1]) >= 0


@given(st.binary(max_size=300))
def test_reading_is_total(junk: bytes) -> None:
    """Any bytes are read as a call or refused with a code."""
    for raw in (junk, b'{"model":"m","max_tokens":1,"messages":' + junk + b"}"):
        told = anthropic_messages.read(raw)
        assert isinstance(told, Call) or told.code in CODES
        anthropic_answers.report_of(raw)
        anthropic_answers.answer_text(raw)
        anthropic_messages.prompt_text(raw)
        anthropic_messages.prompt_tokens_overhead(raw)
