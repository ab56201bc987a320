"""What a request for a response asks, how it is bounded, and the clear refusal of what cannot be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import AUDIO_IN, IMAGE_IN, Call
from faregate.core.usage import Measure
from faregate.dialects import DIALECTS, openai_responses
from faregate.dialects.attachments import IMAGE_TOKENS_MAX, LOW_DETAIL_IMAGE_TOKENS_MAX, OBJECTS_MAX
from faregate.dialects.hosted_tools import GIGABYTES, IMAGE_INPUT_TOKENS_MAX, IMAGE_PROMPT_TOKENS_MAX
from faregate.errors import CODES, Problem

PUBLIC = "https://example.com/a.png"
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"model": {}}}}
SEARCH = {"type": "web_search"}
AUTO = {"type": "auto"}


def body(**changed: Any) -> bytes:
    value = {"model": "gpt-4o", "input": "Hello"} | changed
    return json.dumps({name: part for name, part in value.items() if part is not ...}).encode()


def items(*told: Any) -> bytes:
    return body(input=list(told))


def parts(*content: Any) -> bytes:
    return items({"role": "user", "content": list(content)})


def call_of(raw: bytes, model: str = "") -> Call:
    call = openai_responses.read(raw, model)
    assert isinstance(call, Call), call
    return call


def problem_of(raw: bytes) -> Problem:
    problem = openai_responses.read(raw)
    assert isinstance(problem, Problem), problem
    return problem


def test_everything_that_is_read() -> None:
    """The few facts come out as they stand in the body."""
    raw = body(stream=True, max_output_tokens=50, safety_identifier="u1", instructions="Be brief.", store=False)
    assert call_of(raw) == Call(
        "responses",
        "gpt-4o",
        stream=True,
        output_cap=50,
        cap_field="max_output_tokens",
        input_tokens_max=len(raw),
        end_user="u1",
        members=("model", "input", "stream", "max_output_tokens", "safety_identifier", "instructions", "store"),
    )


@pytest.mark.parametrize(
    "told",
    [
        "Hello",
        [],
        [{"role": "user", "content": "x"}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x"}, {"type": "refusal"}],
            }
        ],
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
        [{"type": "function_call_output", "call_id": "c", "output": "x"}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]}],
        [{"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x", "stderr": "", "outcome": {}}]}],
        [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}],
        [{"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{"name": "x", "input_schema": {}}]}],
    ],
)
def test_text_is_bounded_by_its_bytes(told: Any) -> None:
    """A body that holds everything that is read needs no more than its length."""
    raw = body(input=told, tools=[FUNCTION, {"type": "custom", "name": "g"}], max_tool_calls=3)
    call = call_of(raw)
    assert call.input_tokens_max == len(raw)
    assert call[12:] == Call("", "")[12:]


@pytest.mark.parametrize(
    ("changed", "objects"),
    [
        ({"previous_response_id": "resp_1"}, ("resp_1",)),
        ({"conversation": "conv_1"}, ("conv_1",)),
        ({"conversation": {"id": "conv_1"}, "input": ...}, ("conv_1",)),
        ({"prompt": {"id": "pmpt_1", "version": "2"}, "tools": [], "input": ...}, ("pmpt_1",)),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, ("msg_1",)),
        ({"input": [{"id": "msg_1"}, {"id": "msg_1"}]}, ("msg_1",)),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, ()),
        ({"input": [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}]}, ()),
        ({"input": [{"type": "image_generation_call", "id": "ig_1", "result": None}]}, ()),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}, ("file-1",)),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": PUBLIC}]}]}, ()),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:x", "filename": "a"}]}]},
            (),
        ),
        ({"tools": [{"type": "apply_patch"}]}, ()),
        ({"tools": [{"type": "computer_use_preview", "display_width": 5}]}, ()),
        ({"tools": [{"type": "shell", "environment": {"type": "local"}}]}, ()),
        ({"tools": [{"type": "tool_search", "execution": "client"}]}, ()),
    ],
)
def test_what_is_not_in_the_body(changed: dict[str, Any], objects: tuple[str, ...]) -> None:
    """What the provider kept or adds is bounded by the context, once; what is named by id is told."""
    call = call_of(body(**changed))
    assert (call.whole_context, call.turns, call.objects, call.at_most) == (True, 1, objects, ())


def test_images() -> None:
    """An image adds what the dearest costs, by its detail; one that the provider keeps is told by its id."""
    raw = parts({"type": "input_image", "image_url": PUBLIC, "detail": "high"})
    low = parts({"type": "input_image", "image_url": PUBLIC, "detail": "low"})
    url = "data:image/png;base64," + "AAAA" * 1000
    embedded = items({"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": url}})
    kept = parts({"type": "input_image", "file_id": "file-1"})
    assert call_of(raw).input_tokens_max == len(raw) + IMAGE_TOKENS_MAX
    assert call_of(raw).media == IMAGE_IN
    assert call_of(low).input_tokens_max == len(low) + LOW_DETAIL_IMAGE_TOKENS_MAX
    assert call_of(embedded).input_tokens_max == len(embedded) - len(url) + IMAGE_TOKENS_MAX
    assert (call_of(kept).objects, call_of(kept).whole_context) == (("file-1",), False)


def test_sound() -> None:
    """A recording is bounded as in a chat."""
    call = call_of(parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}))
    assert (call.media, call.whole_context) == (AUDIO_IN, True)


@pytest.mark.parametrize(
    ("tools", "at_most"),
    [
        ([SEARCH], [Measure("web_searches", "", 5)]),
        ([{"type": "web_search_2025_08_26"}], [Measure("web_searches", "", 5)]),
        ([{"type": "web_search_preview_2025_03_11"}], [Measure("web_searches", "preview", 5)]),
        ([{"type": "file_search", "vector_store_ids": ["vs_1"]}], [Measure("file_searches", "", 5)]),
        ([{"type": "code_interpreter", "container": AUTO}], [Measure("code_sessions", "", 5)]),
        (
            [{"type": "code_interpreter", "container": AUTO | {"memory_limit": "4g"}}],
            [Measure("code_sessions", "", 20)],
        ),
        ([{"type": "shell", "environment": {"type": "container_auto"}}], [Measure("code_sessions", "", 5)]),
        ([{"type": "shell"}], [Measure("code_sessions", "", 5)]),
        ([SEARCH, SEARCH, FUNCTION], [Measure("web_searches", "", 5)]),
        (
            [{"type": "namespace", "name": "n", "tools": [FUNCTION, SEARCH]}, {"type": "file_search"}],
            [Measure("file_searches", "", 5), Measure("web_searches", "", 5)],
        ),
        (
            [{"type": "image_generation", "model": "gpt-image-1", "partial_images": 2}],
            [
                Measure("input_image_tokens", "gpt-image-1", 5 * IMAGE_INPUT_TOKENS_MAX),
                Measure("input_image_tokens", "gpt-image-1 text", 5 * IMAGE_PROMPT_TOKENS_MAX),
                Measure("output_image_tokens", "gpt-image-1", 5 * 6_440),
            ],
        ),
    ],
)
def test_hosted_tools_are_bounded_by_their_calls(tools: list[Any], at_most: list[Measure]) -> None:
    """Each call that is allowed may be the dearest of its kind, and reads everything once more."""
    call = call_of(body(tools=tools, max_tool_calls=5))
    assert (list(call.at_most), call.whole_context, call.turns) == (at_most, True, 6)
    assert call.tool_cap is None
    assert call.media == IMAGE_IN


@pytest.mark.parametrize("given", [..., None])
def test_a_cap_of_tool_calls_is_put_in(given: Any) -> None:
    """Where the caller leaves the number of tool calls open, it is said which member shall cap it."""
    call = call_of(body(tools=[SEARCH], max_tool_calls=given))
    assert (call.tool_cap, call.turns) == (("max_tool_calls", 16), 17)
    assert call.at_most == (Measure("web_searches", "", 16),)


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output"])
def test_tools_inside_the_input(kind: str) -> None:
    """Tools that an item of the input brings are tools like any other."""
    call = call_of(items({"type": kind, "role": "developer", "tools": [SEARCH]}, {"role": "user", "content": "x"}))
    assert call.at_most == (Measure("web_searches", "", 16),)
    refused = problem_of(items({"type": kind, "tools": [{"type": "mcp", "server_url": "https://x.io"}]}))
    assert (refused.code, refused.param) == ("feature_unbounded", "input[0].tools[0].type")


def test_objects_of_tools() -> None:
    """Stores and files that tools look into are named, each once."""
    files = {"type": "code_interpreter", "container": AUTO | {"file_ids": ["file-1", "file-2"]}}
    call = call_of(body(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}, files], previous_response_id="r"))
    assert call.objects == ("r", "vs_1", "file-1", "file-2")


def test_background() -> None:
    """A background response only accepts the work."""
    assert call_of(body(background=True)).job
    assert not call_of(body(background=False)).job
    assert not call_of(body(background=None)).job


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (b"", None, "body_empty"),
        (b"[]", "$", "field_type"),
        (b"{" + b'"model":"m","input":"a","input":"b"}', "input", "json_dup_key"),
        (body(model=...), "model", "field_missing"),
        (body(model=5), "model", "field_type"),
        (body(input=...), "input", "field_missing"),
        (body(input=None), "input", "field_missing"),
        (body(input=5), "input", "field_type"),
        (items("x"), "input[0]", "field_type"),
        (items({"role": "user", "content": {"a": 1}}), "input[0].content", "field_type"),
        (items({"content": "x"}), "input[0].type", "field_missing"),
        (items({"type": 5}), "input[0].type", "field_type"),
        (items({"type": "hologram"}), "input[0].type", "feature_unbounded"),
        (items({"type": "compaction_trigger"}), "input[0].type", "feature_unbounded"),
        (items({"type": "item_reference"}), "input[0].id", "field_type"),
        (parts({"type": "hologram"}), "input[0].content[0]", "feature_unbounded"),
        (parts({"type": ["input_text"]}), "input[0].content[0]", "feature_unbounded"),
        (parts({"text": "x"}), "input[0].content[0].type", "field_missing"),
        (parts({"type": "input_image"}), "input[0].content[0].image_url", "field_missing"),
        (parts({"type": "input_image", "image_url": 5}), "input[0].content[0].image_url", "field_type"),
        (
            parts({"type": "input_image", "image_url": "http://10.0.0.1/"}),
            "input[0].content[0].image_url",
            "url_forbidden",
        ),
        (
            parts({"type": "input_image", "image_url": "data:image/png;base64,!"}),
            "input[0].content[0].image_url",
            "field_range",
        ),
        (parts({"type": "input_file", "file_url": "https://localhost/"}), "input[0].content[0]", "url_forbidden"),
        (parts({"type": "input_file", "file_url": 5}), "input[0].content[0]", "field_type"),
        (parts({"type": "input_audio"}), "input[0].content[0].input_audio.data", "field_type"),
        (
            items({"type": "function_call_output", "output": [{"type": "input_image", "image_url": "https://[::1]/"}]}),
            "input[0].output[0].image_url",
            "url_forbidden",
        ),
        (body(max_output_tokens=0), "max_output_tokens", "field_range"),
        (body(max_output_tokens="5"), "max_output_tokens", "field_type"),
        (body(max_tool_calls=0, tools=[SEARCH]), "max_tool_calls", "field_range"),
        (body(max_tool_calls=2**70), "max_tool_calls", "field_range"),
        (body(stream="yes"), "stream", "field_type"),
        (body(background="yes"), "background", "field_type"),
        (body(user="a\nb"), "user", "field_range"),
        (body(service_tier="ultrafast"), "service_tier", "feature_unbounded"),
        (body(previous_response_id=5), "previous_response_id", "field_type"),
        (body(previous_response_id="a\nb"), "previous_response_id", "field_range"),
        (body(conversation=5), "conversation", "field_type"),
        (body(conversation={}), "conversation.id", "field_missing"),
        (body(prompt="x", tools=[]), "prompt", "field_type"),
        (body(prompt={"id": "pmpt_1"}), "prompt", "feature_unbounded"),
        (body(prompt={"id": "pmpt_1"}, tools=None), "prompt", "feature_unbounded"),
        (
            body(
                prompt={"id": "p", "variables": {"x": {"type": "input_image", "image_url": "http://10.0.0.1/"}}},
                tools=[],
            ),
            "prompt.variables.image_url",
            "url_forbidden",
        ),
        (body(context_management=[{"type": "compaction"}]), "context_management", "feature_unbounded"),
        (body(reasoning={"mode": "pro"}), "reasoning.mode", "feature_unbounded"),
        (body(reasoning="high"), "reasoning", "field_type"),
        (body(tools={}), "tools", "field_type"),
        (body(tools=[5]), "tools", "field_type"),
        (body(tools=[{"type": 5}]), "tools[0].type", "field_type"),
        (body(tools=[FUNCTION, {"type": "mcp"}]), "tools[1].type", "feature_unbounded"),
        (body(tools=[{"type": "programmatic_tool_calling"}]), "tools[0].type", "feature_unbounded"),
        (body(tools=[{"type": "tool_search"}]), "tools[0].type", "feature_unbounded"),
        (body(tools=[{"type": "hologram"}]), "tools[0].type", "feature_unbounded"),
        (body(tools=[{"type": "image_generation"}]), "tools[0].model", "feature_unbounded"),
        (body(tools=[{"type": "image_generation", "model": "gpt-image-2"}]), "tools[0].model", "feature_unbounded"),
        (
            body(tools=[{"type": "image_generation", "model": "gpt-image-1", "partial_images": 9}]),
            "tools[0].partial_images",
            "field_range",
        ),
        (body(tools=[{"type": "code_interpreter", "container": "cntr_1"}]), "tools[0].container", "feature_unbounded"),
        (
            body(tools=[{"type": "code_interpreter", "container": AUTO | {"memory_limit": "1t"}}]),
            "tools[0].container.memory_limit",
            "field_range",
        ),
        (body(tools=[{"type": "file_search", "vector_store_ids": "x"}]), "tools[0].vector_store_ids", "field_type"),
        (
            body(tools=[{"type": "namespace", "tools": [{"type": "namespace", "tools": []}]}]),
            "tools[0].tools[0].type",
            "feature_unbounded",
        ),
        (body(tools=[FUNCTION] * 1025), "tools", "field_range"),
        (body(api_base="https://evil"), "api_base", "field_forbidden"),
        (body(metadata={"base_url": "x"}), "metadata.base_url", "field_forbidden"),
        (b'{"model":"m","input":[{"role":"user","content":"\xc0\xaf"}]}', "input", "json_utf8"),
        (b'{"model":"m","input":' + b"[" * 70 + b"]" * 70 + b"}", None, "json_depth"),
    ],
)
def test_refused(raw: bytes, param: str | None, code: str) -> None:
    """Each refusal names its field and has the code of the catalogue."""
    problem = problem_of(raw)
    assert (problem.code, problem.param) == (code, param)


def test_too_many_objects() -> None:
    """Each id that a call names has to be looked up, so there is a bound to them."""
    named = [{"type": "item_reference", "id": f"msg_{number}"} for number in range(OBJECTS_MAX + 1)]
    assert problem_of(items(*named)).code == "field_range"


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": "hot"},
        {"something_new": [1, {"a": 2}]},
        {"text": {"format": {"type": "json_schema", "schema": {"base_url": 1}}}},
        {"tool_choice": {"type": "web_search_preview"}},
        {"include": ["reasoning.encrypted_content"]},
        {"prompt_cache_options": {"ttl": "12h"}},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"stream": None, "background": None, "tools": None, "previous_response_id": None, "conversation": None},
        {"stream_options": {"include_obfuscation": False}},
    ],
)
def test_left_to_the_provider(changed: dict[str, Any]) -> None:
    """Whatever metering does not need passes, whether the provider will like it or not."""
    assert call_of(body(**changed)).model == "gpt-4o"


def test_path_names_the_model() -> None:
    """A name in the path stands for the body's."""
    assert call_of(body(model=...), "my-gpt").model == "my-gpt"


def test_the_cap_is_put_where_it_belongs() -> None:
    """An output cap that the gate adds goes into this format's own member."""
    dialect = DIALECTS["responses"]
    raw = body()
    edited = dialect.edit(
        raw, call_of(raw), model="other", cap=300, cap_field=dialect.cap_field, ask_usage=dialect.asks_usage
    )
    assert json.loads(edited) == {"model": "other", "input": "Hello", "max_output_tokens": 300}


def test_prompt_text() -> None:
    """What the model reads as text is collected piece by piece, with the tokens around it."""
    raw = body(
        instructions="Be brief.",
        input=[
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": PUBLIC}],
            },
            {"type": "function_call_output", "call_id": "c", "output": "4"},
        ],
        tools=[FUNCTION],
    )
    texts = openai_responses.prompt_text(raw)
    assert [text for text in texts if text in ("Be brief.", "Hi", "4")] == ["Be brief.", "Hi", "4"]
    assert json.loads(texts[-1]) == [FUNCTION]
    assert PUBLIC not in texts
    assert openai_responses.prompt_tokens_overhead(raw) == 3 + 4 + 2 * 4 + IMAGE_TOKENS_MAX
    assert openai_responses.prompt_text(b"[") == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=6) | st.sampled_from([AUTO, SEARCH, PUBLIC]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_item = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call_output", "item_reference", "reasoning", "additional_tools"])
        | _json,
        "role": st.sampled_from(["user", "assistant"]) | _json,
        "id": st.text(max_size=4) | _json,
        "content": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["input_text", "input_image", "input_file", "input_audio"]) | _json},
                optional={"image_url": _json, "file_id": _json, "input_audio": _json, "detail": _json},
            ),
            max_size=3,
        )
        | _json,
        "output": _json,
        "tools": _json,
    },
)
_tool = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["function", "web_search", "file_search", "code_interpreter", "shell", "image_generation", "namespace"]
        )
        | _json
    },
    optional={"container": _json, "environment": _json, "vector_store_ids": _json, "model": _json, "tools": _json},
)


@given(
    st.dictionaries(
        st.sampled_from(
            """
            max_tool_calls max_output_tokens conversation prompt previous_response_id background reasoning stream user
            service_tier metadata include text
            """.split()
        ),
        _json,
        max_size=4,
    ),
    st.lists(_item, max_size=3) | _json,
    st.lists(_tool, max_size=3) | _json,
)
def test_any_request(fields: dict[str, Any], told: Any, tools: Any) -> None:
    """Any JSON gives a call that is bounded in every way, or a problem with a known code."""
    call = openai_responses.read(body(input=told, tools=tools, **fields))
    if isinstance(call, Problem):
        assert call.code in CODES
        return
    assert call.input_tokens_max > 0
    assert call.turns == 1 or call.whole_context
    assert bool(call.at_most) == (call.turns > 1)
    assert all(measure.quantity > 0 for measure in call.at_most)
    assert call.tool_cap is None or "max_tool_calls" not in call.members or fields["max_tool_calls"] is None


@given(st.binary(max_size=80))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes give a call or a problem, and are counted without an error."""
    for candidate in (
        raw,
        b'{"model":"m","input":[' + raw + b"]}",
        b'{"model":"m","input":"x","tools":[' + raw + b"]}",
    ):
        told = openai_responses.read(candidate)
        assert isinstance(told, Call) or told.code in CODES
        openai_responses.prompt_text(candidate)
        openai_responses.prompt_tokens_overhead(candidate)


def test_sizes_of_containers() -> None:
    """A session is counted in gigabytes, which is what its price goes by."""
    assert GIGABYTES == {"1g": 1, "4g": 4, "16g": 16, "64g": 64}
