"""What a chat request asks, and the clear refusal of what cannot be metered, limited or passed on safely."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.dialects import openai_chat
from faregate.dialects.attachments import IMAGE_TOKENS_MAX, LOW_DETAIL_IMAGE_TOKENS_MAX
from faregate.errors import CODES, Problem

USER = [{"role": "user", "content": "Hello"}]


def body(**changed: Any) -> bytes:
    value = {"model": "gpt-4o", "messages": USER} | changed
    return json.dumps({name: part for name, part in value.items() if part is not ...}).encode()


def parts(*content: Any) -> bytes:
    return body(messages=[{"role": "user", "content": list(content)}])


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url} | more}


def call_of(raw: bytes, model: str = "") -> Call:
    call = openai_chat.read(raw, model)
    assert isinstance(call, Call), call
    return call


def problem_of(raw: bytes) -> Problem:
    problem = openai_chat.read(raw)
    assert isinstance(problem, Problem), problem
    return problem


def test_everything_that_is_read() -> None:
    """The few facts come out as they stand in the body."""
    raw = body(stream=True, stream_options={"include_usage": True}, n=3, max_completion_tokens=50, user="u1")
    assert call_of(raw) == Call(
        "chat.completions",
        "gpt-4o",
        stream=True,
        usage_wanted=True,
        choices=3,
        output_cap=50,
        cap_field="max_completion_tokens",
        input_tokens_max=len(raw),
        end_user="u1",
        members=("model", "messages", "stream", "stream_options", "n", "max_completion_tokens", "user"),
    )


def test_plain_call() -> None:
    """Without any wishes there is one choice, no cap and no stream."""
    raw = body()
    assert call_of(raw) == Call("chat.completions", "gpt-4o", input_tokens_max=len(raw), members=("model", "messages"))


def test_path_names_the_model() -> None:
    """Azure's deployment stands for the body's model, which may be missing."""
    assert call_of(body(model=...), "my-gpt").model == "my-gpt"
    assert call_of(body(), "my-gpt").model == "my-gpt"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 5}, (5, "max_completion_tokens")),
        ({"max_tokens": 5, "max_completion_tokens": None}, (5, "max_tokens")),
        ({"max_tokens": None}, (None, "max_tokens")),
        ({"max_tokens": 10_000_000}, (10_000_000, "max_tokens")),
        ({}, (None, "")),
    ],
)
def test_caps(changed: dict[str, Any], expected: tuple[int | None, str]) -> None:
    """The cap and the member that holds it, a null included."""
    call = call_of(body(**changed))
    assert (call.output_cap, call.cap_field) == expected


CHAT = b'"model":"m","messages":[{"role":"user","content":"x"}]'


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "body_empty"),
        (b"  \n", "json_invalid"),
        (b"{", "json_invalid"),
        (b"[]", "field_type"),
        (b"null", "field_type"),
        (b'"text"', "field_type"),
        (b"12", "field_type"),
        (b"{" + CHAT + b",}", "json_invalid"),
        (b"{" + CHAT + b"} // note", "json_invalid"),
        (b"{/* */" + CHAT + b"}", "json_invalid"),
        (b"{'model':'m'}", "json_invalid"),
        (b"{" + CHAT + b"}{}", "json_invalid"),
        (("{" + CHAT.decode() + "}").encode("utf-16"), "json_utf8"),
        (("{" + CHAT.decode() + "}").encode("utf-16-le"), "json_utf8"),
        (("{" + CHAT.decode() + "}").encode("utf-32"), "json_utf8"),
        (b'{"model":"\\ud800","messages":[{}]}', "json_utf8"),
        (b'{"model":"m","messages":[{"content":"\\ud800"}]}', "json_utf8"),
        (b'{"model":"\xc0\xaf","messages":[{}]}', "json_utf8"),
        (b'{"model":"m","messages":[{"content":[{"type":"text","text":"\xc0\xaf"}]}],', "json_utf8"),
        (b'{"model":"m\x00"}', "json_invalid"),
        (b"[" * 100_000, "json_depth"),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_depth"),
        (b'{"model":"m","messages":[{"content":' + b"[" * 70 + b"]" * 70 + b"}]}", "json_depth"),
        (b'{"model":"a",' + CHAT + b"}", "json_dup_key"),
        (b'{"mod\\u0065l":"a",' + CHAT + b"}", "json_dup_key"),
        (b"{" + CHAT + b',"max_tokens":1,"max_tokens":1000}', "json_dup_key"),
        (b"{ " + CHAT + b' , "max_tokens" : 1 , "max_tok\\u0065ns" : 1000 }', "json_dup_key"),
        (b"{" + CHAT + b',"messages":[]}', "json_dup_key"),
        (
            b'{"stream":true,"stream_options":{"include_usage":true,"include_usage":false},' + CHAT + b"}",
            "json_dup_key",
        ),
        (b"{" + CHAT + b',"x":NaN}', "json_invalid"),
        (b"{" + CHAT + b',"x":-Infinity}', "json_invalid"),
        (b"{" + CHAT + b',"max_tokens":1e400}', "json_number"),
        (b"{" + CHAT + b',"n":' + b"9" * 10_000 + b"}", "json_number"),
        (b"{" + CHAT + b',"max_tokens":1e9}', "field_range"),
    ],
)
def test_bad_json(raw: bytes, code: str) -> None:
    """What is not one plain JSON object in UTF-8 is refused with its reason (P01 to P21)."""
    assert problem_of(raw).code == code


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (body(model=...), "model", "field_missing"),
        (body(model=""), "model", "field_range"),
        (body(model=5), "model", "field_type"),
        (body(model=None), "model", "field_type"),
        (body(model="m" * 10_240), "model", "field_range"),
        (body(model="gpt-4o\r\nX: y"), "model", "field_range"),
        (body(messages=...), "messages", "field_missing"),
        (body(messages=[]), "messages", "field_range"),
        (body(messages="x"), "messages", "field_type"),
        (body(messages=[["x"]]), "messages[0]", "field_type"),
        (body(messages=[{"content": "[x]"}, {"content": {"a": [1]}}]), "messages[1].content", "field_type"),
        (body(max_tokens=-1), "max_tokens", "field_range"),
        (body(max_tokens=0), "max_tokens", "field_range"),
        (body(max_tokens=1.5), "max_tokens", "field_type"),
        (body(max_tokens="10"), "max_tokens", "field_type"),
        (body(max_tokens=True), "max_tokens", "field_type"),
        (body(max_tokens=[1]), "max_tokens", "field_type"),
        (body(max_tokens=10_000_001), "max_tokens", "field_range"),
        (body(max_completion_tokens=1e9), "max_completion_tokens", "field_range"),
        (body(max_tokens=5, max_completion_tokens=6), "max_tokens", "field_conflict"),
        (body(n=0), "n", "field_range"),
        (body(n=129), "n", "field_range"),
        (body(n="2"), "n", "field_type"),
        (body(stream="yes"), "stream", "field_type"),
        (body(stream=1), "stream", "field_type"),
        (body(stream_options={"include_usage": True}), "stream_options", "field_conflict"),
        (body(stream=True, stream_options=[]), "stream_options", "field_type"),
        (body(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage", "field_type"),
        (body(user=5), "user", "field_type"),
        (body(user="a\nb"), "user", "field_range"),
        (body(api_base="https://evil"), "api_base", "field_forbidden"),
        (body(base_url="x"), "base_url", "field_forbidden"),
        (body(extra_body={"api_base": "x"}), "extra_body.api_base", "field_forbidden"),
        (body(metadata={"base_url": "x"}), "metadata.base_url", "field_forbidden"),
        (body(**{"metadata[api_base]": "x"}), "metadata[api_base]", "field_forbidden"),
        (body(api_key="sk-secret"), "api_key", "field_forbidden"),
        (body(custom_llm_provider="x"), "custom_llm_provider", "field_forbidden"),
        (body(organization="x"), "organization", "field_forbidden"),
        (body(callbacks=["x"]), "callbacks", "field_forbidden"),
        (body(mock_response="x"), "mock_response", "field_forbidden"),
        (body(litellm_params={}), "litellm_params", "field_forbidden"),
        (body(custom_host="x"), "custom_host", "field_forbidden"),
        (body(modalities=["text", "video"]), "modalities", "feature_unbounded"),
        (body(modalities="text"), "modalities", "field_type"),
        (body(service_tier="ultrafast"), "service_tier", "feature_unbounded"),
        (body(service_tier=5), "service_tier", "field_type"),
        (body(background=True), "background", "feature_unbounded"),
        (body(prompt={"id": "pmpt_1"}), "prompt", "feature_unbounded"),
        (body(tools=[{"type": "function"}, {"type": "web_search"}]), "tools[1].type", "feature_unbounded"),
        (
            parts({"type": "input_audio", "input_audio": {}}),
            "messages[0].content[0].input_audio.data",
            "field_type",
        ),
        (parts({"type": "file", "file": "f"}), "messages[0].content[0].file", "field_missing"),
        (parts({"type": "file", "file": {"file_id": 5}}), "messages[0].content[0].file.file_id", "field_type"),
        (parts({"type": "file", "file": {"file_id": ""}}), "messages[0].content[0].file.file_id", "field_range"),
        (
            parts({"type": "video_url", "video_url": {"url": "https://x.io/"}}),
            "messages[0].content[0]",
            "feature_unbounded",
        ),
        (body(model="gpt-audio", messages=[{"role": "assistant", "audio": {}}]), "messages[0].audio.id", "field_type"),
        (parts({"type": "hologram"}), "messages[0].content[0]", "feature_unbounded"),
        (parts({"text": "x"}), "messages[0].content[0].type", "field_missing"),
        (
            parts({"type": "text", "text": "x"}, {"type": "image_url"}),
            "messages[0].content[1].image_url",
            "field_missing",
        ),
        (parts(image("http://169.254.169.254/")), "messages[0].content[0].image_url.url", "url_forbidden"),
        (parts(image("file:///etc/passwd")), "messages[0].content[0].image_url.url", "url_forbidden"),
        (parts(image("https://0x7f.1/")), "messages[0].content[0].image_url.url", "url_forbidden"),
        (
            parts({"type": "text", "text": ""}, image("data:image/png;base64,!!")),
            "messages[0].content[1].image_url.url",
            "field_range",
        ),
        (parts({"type": "image_url", "image_url": {"url": 5}}), "messages[0].content[0].image_url.url", "field_type"),
    ],
)
def test_refused_fields(raw: bytes, param: str, code: str) -> None:
    """Each refusal names its field and has the code of the catalogue (P31 to P60, P90 to P94)."""
    problem = problem_of(raw)
    assert (problem.code, problem.param) == (code, param)


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": "hot"},
        {"temperature": 99},
        {"logit_bias": {"abc": 1}},
        {"stop": ["x"] * 1000},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "root", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "api_base": "[y]"}]},
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {"api_key": {}, "model": {}}}}}]},
        {"response_format": {"json_schema": {"base_url": 1}}},
        {"metadata": {"project": "x", "organization": "y"}},
        {"service_tier": "auto"},
        {"service_tier": None},
        {"background": False},
        {"modalities": ["text"]},
        {"something_new": [1, {"a": 2}]},
        {"stream": None, "n": None, "user": None, "stream_options": None},
        {"stream": False},
        {"max_tokens": None},
    ],
)
def test_left_to_the_provider(changed: dict[str, Any]) -> None:
    """Whatever metering does not need passes, whether the provider will like it or not."""
    assert call_of(body(**changed)).model == "gpt-4o"


def test_message_says_where_and_what_to_do() -> None:
    """Broken JSON is told with line and column, and the remedy."""
    assert problem_of(b'{"model": "m",\n "messages": [}').message == (
        "Body is not valid JSON at line 2 column 15: Expecting value; correct it."
    )


def test_values_are_never_echoed_whole() -> None:
    """Secrets are not repeated, other values only as a few safe characters."""
    assert "sk-secret" not in problem_of(body(api_key="sk-secret")).message
    told = problem_of(body(service_tier="<script>" + "\x1b" * 5 + "x" * 500)).message
    assert len(told) < 220
    assert "<" not in told


def test_byte_order_mark_is_passed_over() -> None:
    """A byte order mark before the object is no reason to refuse it (P11)."""
    assert call_of(b"\xef\xbb\xbf" + body()).model == "gpt-4o"


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (image("https://example.com/a.png"), IMAGE_TOKENS_MAX),
        (image("https://example.com/a.png", detail="high"), IMAGE_TOKENS_MAX),
        (image("https://example.com/a.png", detail="low"), LOW_DETAIL_IMAGE_TOKENS_MAX),
        ({"type": "text", "text": "https://example.com"}, 0),
    ],
)
def test_images_are_bounded(part: dict[str, Any], tokens: int) -> None:
    """An image adds the most tokens that any documented model reads it as."""
    raw = parts(part)
    assert call_of(raw).input_tokens_max == len(raw) + tokens


def test_data_url_is_no_text() -> None:
    """The bytes of an embedded picture are not counted as text."""
    url = "data:image/png;base64," + "AAAA" * 1000
    raw = parts(image(url))
    assert call_of(raw).input_tokens_max == len(raw) - len(url) + IMAGE_TOKENS_MAX


def test_private_addresses_by_choice() -> None:
    """The check of addresses can be switched off."""
    raw = parts(image("http://10.0.0.1/x.png"))
    assert isinstance(openai_chat.read(raw, forbid_private_urls=False), Call)


def test_prediction_is_output() -> None:
    """A prediction may be billed as output, for every choice."""
    prediction = {"type": "content", "content": "abc"}
    raw = body(prediction=prediction, n=2)
    assert call_of(raw).extra_output_tokens == 2 * len(json.dumps(prediction))


@given(st.binary(max_size=80))
def test_total(raw: bytes) -> None:
    """Any bytes give a call or a problem with a known code."""
    for candidate in (raw, b"{" + CHAT + b',"stop":' + raw + b"}", b'{"messages":[' + raw + b'],"model":"m"}'):
        told = openai_chat.read(candidate)
        assert isinstance(told, Call) or told.code in CODES


_json = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b:", 'c"', "é", "tools", ""]), _json), max_size=5),
    st.sampled_from([(",", ":"), (", ", ": "), (",\n ", " : ")]),
    st.booleans(),
)
def test_duplicates_are_found(more: list[tuple[str, Any]], separators: tuple[str, str], escaped: bool) -> None:
    """A body is refused exactly when a name stands twice at its top level, however it is spaced or escaped."""
    comma, colon = separators
    names = [name for name, _ in more]
    texts = [
        json.dumps(name, ensure_ascii=escaped) + colon + json.dumps(value, ensure_ascii=escaped, separators=separators)
        for name, value in more
    ]
    raw = ("{" + comma.join([CHAT.decode(), *texts]) + "}").encode()
    told = openai_chat.read(raw)
    if len(set(names)) < len(names):
        assert isinstance(told, Problem)
        assert told.code == "json_dup_key"
    else:
        assert isinstance(told, Call) or told.code != "json_dup_key"


def test_prompt_text() -> None:
    """What the model reads as text is collected piece by piece, with the tokens around it."""
    raw = body(messages=[{"role": "user", "name": "ada", "content": "Hi"}, {"role": "assistant", "content": "[x]"}])
    assert openai_chat.prompt_text(raw) == ["user", "ada", "Hi", "assistant", "[x]"]
    assert openai_chat.prompt_tokens_overhead(raw) == 3 + 3 + 1 + 3


def test_prompt_text_with_parts_and_tools() -> None:
    """Parts give their text, images their worst case, tools their JSON."""
    raw = body(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, image("https://e.com/x", detail="low")]}
        ],
        tools=[{"type": "function"}],
    )
    assert openai_chat.prompt_text(raw) == ["user", "Hi", '[{"type":"function"}]']
    assert openai_chat.prompt_tokens_overhead(raw) == 3 + 3 + LOW_DETAIL_IMAGE_TOKENS_MAX


@given(st.binary(max_size=40))
def test_prompt_text_is_total(raw: bytes) -> None:
    """Anything that is no request has no text."""
    assert isinstance(openai_chat.prompt_text(raw), list)
    assert openai_chat.prompt_tokens_overhead(raw) >= 0
