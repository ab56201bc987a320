"""Bodies of Gemini's requests → what is asked and how it is bounded, or why it is refused; whole answers → usage."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT, Call
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, NO_USAGE, Contradiction, Measure, Usage
from faregate.dialects import DIALECTS, gemini, gemini_answers
from faregate.dialects.gemini import HIDDEN_TOKENS, PICTURE_TOKENS_MIN, TILE_TOKENS
from faregate.errors import CODES, Problem

MODEL = "gemini-2.5-flash"
CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]
ANY_OUT = AUDIO_OUT | IMAGE_OUT


def encoded(**fields: Any) -> bytes:
    made = {"contents": CONTENTS, **fields}
    made = {name: value for name, value in made.items() if value is not ...}
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()


def read(model: str = MODEL, **fields: Any) -> Call:
    told = gemini.read(encoded(**fields), model)
    assert isinstance(told, Call), told
    return told


def refused(named: str = MODEL, **fields: Any) -> tuple[str, str | None]:
    told = gemini.read(encoded(**fields), named)
    assert isinstance(told, Problem), told
    assert told.code in CODES
    return told.code, told.param


def test_plain_content() -> None:
    """The few facts of a call; the path names the model, and whether it streams."""
    raw = encoded(generationConfig={"maxOutputTokens": 100, "candidateCount": 2, "temperature": 0})
    call = Call(
        "gemini.generate",
        MODEL,
        usage_wanted=True,
        choices=2,
        output_cap=100,
        cap_field="maxOutputTokens",
        input_tokens_max=len(raw),
        members=("contents", "generationConfig"),
        media=ANY_OUT,
    )
    assert gemini.read(raw, MODEL) == call
    assert gemini.read_stream(raw, MODEL) == call._replace(operation="gemini.stream", stream=True)


def test_both_spellings_are_read() -> None:
    """Names in snake case count as the others do."""
    call = read(
        contents=CONTENTS,
        generation_config={"max_output_tokens": 7, "candidate_count": 3, "response_modalities": ["TEXT"]},
        system_instruction={"parts": [{"text": "x"}]},
        service_tier="FLEX",
    )
    assert (call.output_cap, call.choices, call.media, call.service_tier) == (7, 3, 0, "flex")
    assert read(tools=[{"google_search": {}}]).at_most == (Measure("web_searches", "", 1),)


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no contents": ({"contents": ...}, "field_missing", "contents"),
    "contents": ({"contents": "hi"}, "field_type", "contents"),
    "two spellings": ({"tools": [], "generationConfig": {}, "generation_config": {}}, "field_conflict", None),
    "two caps": (
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9999}},
        "field_conflict",
        "generationConfig.max_output_tokens",
    ),
    "no cap": ({"generationConfig": {"maxOutputTokens": 0}}, "field_range", "generationConfig.maxOutputTokens"),
    "text cap": ({"generationConfig": {"maxOutputTokens": "9"}}, "field_type", "generationConfig.maxOutputTokens"),
    "candidates": ({"generationConfig": {"candidateCount": 9}}, "field_range", "generationConfig.candidateCount"),
    "config": ({"generationConfig": [1]}, "field_type", "generationConfig"),
    "other model": ({"generationConfig": {"routingConfig": {"autoMode": {}}}}, "feature_unbounded", "routingConfig"),
    "video": (
        {"generationConfig": {"responseModalities": ["VIDEO"]}},
        "feature_unbounded",
        "generationConfig.responseModalities",
    ),
    "modalities": (
        {"generationConfig": {"responseModalities": "TEXT"}},
        "field_type",
        "generationConfig.responseModalities",
    ),
    "cached": ({"cachedContent": "cachedContents/1"}, "feature_unbounded", "cachedContent"),
    "cached in snake case": ({"cached_content": "cachedContents/1"}, "feature_unbounded", "cachedContent"),
    "another model": ({"model": "models/gemini-3-pro"}, "field_conflict", "model"),
    "tier": ({"serviceTier": "turbo"}, "feature_unbounded", "serviceTier"),
    "host": ({"base_url": "https://x"}, "field_forbidden", "base_url"),
    "code": ({"tools": [{"codeExecution": {}}]}, "feature_unbounded", "tools[0].codeExecution"),
    "maps": ({"tools": [{"google_maps": {}}]}, "feature_unbounded", "tools[0].google_maps"),
    "stores": ({"tools": [{}, {"fileSearch": {}}]}, "feature_unbounded", "tools[1].fileSearch"),
    "remote tools": ({"tools": [{"mcpServers": [{}]}]}, "feature_unbounded", "tools[0].mcpServers"),
    "tool of tomorrow": ({"tools": {"hologram": {}}}, "feature_unbounded", "tools[0].hologram"),
    "tools": ({"tools": "all"}, "field_type", "tools"),
    "stored file": (
        {
            "contents": [
                {"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}}]}
            ]
        },
        "feature_unbounded",
        "contents: fileData.fileUri",
    ),
    "bucket": (
        {"contents": [{"parts": [{"file_data": {"file_uri": "gs://bucket/a.mp4"}}]}]},
        "feature_unbounded",
        "contents: file_data.fileUri",
    ),
    "private file": (
        {"contents": [{"parts": [{"fileData": {"fileUri": "https://127.0.0.1/a"}}]}]},
        "url_forbidden",
        "contents: fileData",
    ),
    "file": ({"contents": [{"parts": [{"fileData": {}}]}]}, "field_type", "contents: fileData.fileUri"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """Whatever has no bound, no sense or no place here is refused with its field and a code."""
    fields, code, param = REFUSED[name]
    told = refused(**fields)
    assert told[0] == code
    assert param is None or told[1] == param


def test_searches_are_bounded_where_they_are_billed_by_the_prompt() -> None:
    """One search is held for a model that bills prompts; where each query is billed, there is no bound."""
    assert read(tools=[{"googleSearch": {}}]).at_most == (Measure("web_searches", "", 1),)
    assert refused("gemini-3-pro-preview", tools=[{"googleSearch": {}}]) == (
        "feature_unbounded",
        "tools[0].googleSearch",
    )
    assert refused("my-alias", tools=[{"googleSearch": {}}])[0] == "feature_unbounded"


def test_tools() -> None:
    """Functions cost their definition; pages that the provider fetches are bounded by the context."""
    tools = [{"functionDeclarations": [{"name": "f"}]}, {"computerUse": None}]
    call = read(tools=tools)
    assert (call.whole_context, call.input_tokens_max) == (False, len(encoded(tools=tools)) + HIDDEN_TOKENS)
    assert read(tools=[{"urlContext": {}}]).whole_context


def part(kind: str, data: bytes, **spelt: str) -> list[dict[str, Any]]:
    return [{"parts": [{"inlineData": {"mimeType": kind, "data": base64.b64encode(data).decode(), **spelt}}]}]


def png(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\x00\x00\x00" + b"x" * 900
    )


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(64, 64, PICTURE_TOKENS_MIN), (960, 540, PICTURE_TOKENS_MIN), (4000, 3000, 6 * 4 * TILE_TOKENS)],
)
def test_pictures_are_bounded_by_their_size(width: int, height: int, tokens: int) -> None:
    """A picture costs its tiles; its bytes are not counted as text."""
    contents = part("image/png", png(width, height))
    size = len(contents[0]["parts"][0]["inlineData"]["data"])
    call = read(contents=contents)
    assert (call.whole_context, call.media) == (False, IMAGE_IN | ANY_OUT)
    assert call.input_tokens_max == len(encoded(contents=contents)) - size + tokens


@pytest.mark.parametrize(
    ("kind", "media"),
    [
        ("image/heic", IMAGE_IN),
        ("audio/mp3", AUDIO_IN),
        ("video/mp4", AUDIO_IN | IMAGE_IN),
        ("application/pdf", AUDIO_IN | IMAGE_IN),
        ("", AUDIO_IN | IMAGE_IN),
    ],
)
def test_other_media_are_bounded_by_the_context(kind: str, media: int) -> None:
    """What is as long as it likes may fill the context, at the dearest of the kinds that it can be."""
    call = read(contents=part(kind, b"data"))
    assert (call.whole_context, call.media) == (True, media | ANY_OUT)
    in_a_result = [{"parts": [{"functionResponse": {"name": "f", "parts": part(kind, b"data")[0]["parts"]}}]}]
    assert read(contents=in_a_result).whole_context
    assert read(contents=part("text/plain", b"data")).media == ANY_OUT


def test_disguised_media_are_found() -> None:
    """Neither escapes nor the other spelling hide a recording."""
    raw = encoded(contents=part("audio/mp3", b"data"))
    for disguise in (b'"\\u0069nlineData"', b'"inline_data"', b'"inlineD\\u0061ta"'):
        told = gemini.read(raw.replace(b'"inlineData"', disguise), MODEL)
        assert isinstance(told, Call)
        assert (told.whole_context, told.media) == (True, AUDIO_IN | ANY_OUT)


def test_files_on_the_web_are_bounded_by_the_context() -> None:
    """A public file, or a film by its address, may be anything."""
    call = read(contents=[{"parts": [{"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}}]}])
    assert (call.whole_context, call.media) == (True, AUDIO_IN | IMAGE_IN | ANY_OUT)


def test_embeddings_and_counts() -> None:
    """An embedding has no output; a count holds nothing."""
    raw = json.dumps({"model": f"models/{MODEL}", "content": CONTENTS[0]}).encode()
    told = gemini.read_embed(raw, MODEL)
    assert isinstance(told, Call)
    assert (told.operation, told.has_output, told.input_tokens_max) == ("gemini.embed", False, len(raw))
    counted = gemini.read_count(encoded(), MODEL)
    assert isinstance(counted, Call)
    assert (counted.operation, counted.has_output, counted.input_tokens_max) == ("gemini.count_tokens", False, 0)
    private = encoded(contents=[{"parts": [{"fileData": {"fileUri": "https://127.0.0.1/a"}}]}])
    assert isinstance(gemini.read_count(private, MODEL), Problem)
    wrapped = json.dumps({"generateContentRequest": json.loads(private)}).encode()
    assert isinstance(gemini.read_count(wrapped, MODEL), Problem)
    assert gemini_answers.report_of_count(b'{"totalTokens":3}') == Report(NO_USAGE)


def batch(*models: str | None, **fields: Any) -> bytes:
    """A batch of embeddings as Google's client sends it."""
    named = [{"model": model} if model is not None else {} for model in models]
    return json.dumps({"requests": [{**each, "content": CONTENTS[0]} for each in named], **fields}).encode()


def test_a_batch_of_embeddings_is_bounded_as_a_whole() -> None:
    """Every request's bytes and pictures count, and each must name the model of the path, if it names one."""
    raw = batch(f"models/{MODEL}", None, MODEL)
    told = gemini.read_batch_embed(raw, MODEL)
    assert isinstance(told, Call)
    assert (told.operation, told.has_output, told.input_tokens_max) == ("gemini.batch_embed", False, len(raw))
    texts = gemini.prompt_text(raw)
    assert texts == ["Hello"] * 3
    heard = json.dumps({"requests": [{"content": part("audio/mp3", b"abc")[0]}]}).encode()
    told = gemini.read_batch_embed(heard, MODEL)
    assert isinstance(told, Call)
    assert (told.whole_context, told.media) == (True, AUDIO_IN)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (batch("models/other"), "requests[0].model"),
        (batch(None, "other"), "requests[1].model"),
        (batch(model="models/other"), "model"),
        (b'{"requests":[{"model":5}]}', "requests[0].model"),
        (b'{"requests":[]}', "requests"),
        (b'{"requests":{}}', "requests"),
        (b'{"requests":[5]}', "requests"),
        (b'{"content":{}}', "requests"),
        (b'{"requests":[{"content":{"parts":[{"fileData":{"fileUri":"files/abc"}}]}}]}', "requests: fileData.fileUri"),
    ],
)
def test_batches_that_are_refused(raw: bytes, param: str) -> None:
    """Another model than the path's would be another price; an empty or odd batch is no batch."""
    problem = gemini.read_batch_embed(raw, MODEL)
    assert isinstance(problem, Problem)
    assert problem.param == param


def test_another_model_is_put_in_wherever_a_body_names_it() -> None:
    """The provider wants the model of the path in a body, too; what does not name one stays as it is."""
    edit = DIALECTS["gemini.batch_embed"].edit
    raw = batch(f"models/{MODEL}", None)
    call = gemini.read_batch_embed(raw, MODEL)
    assert isinstance(call, Call)
    changed = json.loads(edit(raw, call, model="m2", cap=None, cap_field="", ask_usage=False))
    assert changed == json.loads(batch("models/m2", None))
    one = json.dumps(
        {"model": f"models/{MODEL}", "content": {"role": "model", "parts": [{"text": '"model":'}]}}
    ).encode()
    changed = json.loads(edit(one, call, model="m2", cap=None, cap_field="", ask_usage=False))
    assert changed == {**json.loads(one), "model": "models/m2"}
    turns = encoded(contents=[{"role": "model", "parts": [{"functionCall": {"args": {"model": "x"}}}]}])
    assert edit(turns, call, model="m2", cap=None, cap_field="", ask_usage=False) == turns


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"generationConfig": {}},
        {"generationConfig": None},
        {"generationConfig": {"maxOutputTokens": 99, "temperature": 1}},
        {"generation_config": {"max_output_tokens": 99}},
        {"generation_config": {"topP": 1}},
        {"tools": [{"functionDeclarations": [{"name": "generationConfig", "maxOutputTokens": 5}]}]},
    ],
)
def test_the_cap_is_spliced_where_it_stands(fields: dict[str, Any]) -> None:
    """A cap goes into the configuration in the spelling that is there; all else stays as it was."""
    raw = encoded(**fields)
    call = gemini.read(raw, MODEL)
    assert isinstance(call, Call)
    edit = DIALECTS["gemini.generate"].edit
    assert edit(raw, call, model="ignored", cap=None, cap_field="", ask_usage=False) is raw
    changed = edit(b"\xef\xbb\xbf" + raw, call, model=None, cap=7, cap_field="maxOutputTokens", ask_usage=False)
    again = gemini.read(changed, MODEL)
    assert isinstance(again, Call)
    assert again.output_cap == 7
    before, after = json.loads(raw), json.loads(changed)
    outer = "generation_config" if "generation_config" in fields else "generationConfig"
    inner = "max_output_tokens" if "max_output_tokens" in (fields.get(outer) or {}) else "maxOutputTokens"
    before[outer] = {**(before.get(outer) or {}), inner: 7}
    assert after == before


def test_counting_the_prompt() -> None:
    """The texts to tokenize are those that the model reads; pictures are counted by their size."""
    contents = [*CONTENTS, *part("image/png", png(64, 64))]
    raw = encoded(contents=contents, system_instruction={"parts": [{"text": "Be brief."}]}, tools=[{"x": 1}])
    assert gemini.prompt_text(raw)[:2] == ["Be brief.", "Hello"]
    assert gemini.prompt_tokens_overhead(raw) > PICTURE_TOKENS_MIN
    assert gemini.prompt_text(b"nonsense") == []
    assert gemini.prompt_tokens_overhead(b"[]") >= 0


# -- whole answers ----------------------------------------------------------------------------------------------------


def report(**usage: Any) -> Report:
    answer = {"candidates": [], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "r"}
    return gemini_answers.report_of(json.dumps(answer).encode())


def test_leaves() -> None:
    """Cached tokens are part of the prompt, thoughts and tools come on top; a cache without details is text first."""
    told = report(
        promptTokenCount=100,
        cachedContentTokenCount=30,
        candidatesTokenCount=5,
        thoughtsTokenCount=4,
        totalTokenCount=109,
    )
    assert told == Report(Usage(70, 30, 0, 0, 5, 4), "", MODEL, "r")
    sound = [{"modality": "AUDIO", "tokenCount": 90}]
    told = report(promptTokenCount=100, cachedContentTokenCount=30, totalTokenCount=100, promptTokensDetails=sound)
    other = (Measure("cached_input_audio_tokens", "", 20),)
    assert told.usage == Usage(input_cached=10, input_audio=70, other=other)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"totalTokenCount": 5}, "missing"),
    ({"promptTokenCount": 5, "totalTokenCount": 6}, "sum"),
    ({"promptTokenCount": 5, "totalTokenCount": "5"}, "sum"),
    ({"promptTokenCount": -5}, "outside"),
    ({"promptTokenCount": COUNT_MAX + 1}, "outside"),
    ({"promptTokenCount": 5.5}, "whole number"),
    ({"promptTokenCount": 5, "cachedContentTokenCount": 6}, "exceed"),
    ({"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}]}, "exceed"),
    ({"promptTokenCount": 5, "promptTokensDetails": [7]}, "not objects"),
    (
        {
            "promptTokenCount": 5,
            "cachedContentTokenCount": 5,
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
        },
        "of a kind exceed",
    ),
]


@pytest.mark.parametrize(("usage", "rule"), BROKEN)
def test_a_contradiction_is_named(usage: dict[str, Any], rule: str) -> None:
    """A report that cannot be true bills nothing by itself, and says why."""
    told = report(**usage)
    assert told.usage is None
    assert rule in told.invalid


def test_embeddings_report_their_input_or_nothing() -> None:
    """Newer models tell the tokens of an embedding; older ones tell nothing, so that they are counted."""
    newer = b'{"embedding":{"values":[0.5]},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}'
    assert gemini_answers.report_of_embedding(newer).usage == Usage(input_text=4)
    assert gemini_answers.report_of_embedding(b'{"embedding":{"values":[0.5]}}') == Report()
    assert gemini_answers.report_of_embedding(b'{"usageMetadata":{}}').invalid


def test_answers_of_no_use() -> None:
    """An answer without usage, with a broken one, or that is none at all, never raises."""
    assert gemini_answers.report_of(b'{"candidates":[]}') == Report()
    assert gemini_answers.report_of(b'{"usageMetadata":[]}').invalid == "the usage report is not an object"
    assert gemini_answers.report_of(b"<html>").invalid == "the answer is not a JSON object"
    assert gemini_answers.report_of(b'{"usageMetadata":{"promptTokenCount":NaN}}').invalid
    assert gemini_answers.report_of(b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}') == Report()


def test_the_text_of_an_answer() -> None:
    """Text, thoughts and calls of functions are billed as output, those of odd shapes too."""
    parts = [{"text": "Hm. ", "thought": True}, {"text": "Hi"}, {"functionCall": {"name": "f", "args": {}}}]
    answer = json.dumps({"candidates": [{"content": {"parts": parts}}]}).encode()
    assert gemini_answers.answer_text(answer) == 'Hm. Hi{"name":"f","args":{}}'
    assert gemini_answers.answer_text(b'{"candidates":[{"content":{"parts":"odd"},"finishReason":"STOP"}]}') == "odd"
    assert gemini_answers.answer_text(b"[") == ""


COUNTS = st.none() | st.integers(-3, 2_000_000_000) | st.integers(0, 500) | st.floats() | st.text(max_size=2)
DETAILS = st.none() | st.lists(
    st.fixed_dictionaries(
        {"modality": st.sampled_from(["TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT", "SMELL"])},
        optional={"tokenCount": st.integers(0, 300)},
    ),
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(gemini_answers._COUNTS, COUNTS),
            **dict.fromkeys(
                ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails", "toolUsePromptTokensDetails"),
                DETAILS,
            ),
        },
    ),
    st.integers(0, 3),
)
def test_leaves_add_up_or_are_named(told: dict[str, Any], searches: int) -> None:
    """Any report is split into leaves that add up to what it says, or is a contradiction; nothing is negative."""
    leaves = gemini_answers.leaves(told, searches)
    quick = gemini_answers._understood(told, searches)
    assert quick == (leaves, gemini_answers.unknown(told))
    if isinstance(leaves, Contradiction):
        assert leaves.rule
        return
    assert leaves.input_tokens == (told.get("promptTokenCount") or 0) + (told.get("toolUsePromptTokenCount") or 0)
    assert leaves.output_tokens == (told.get("candidatesTokenCount") or 0) + (told.get("thoughtsTokenCount") or 0)
    assert min(leaves[:-1]) >= 0
    assert all(measure.quantity > 0 for measure in leaves.other)
    assert leaves.quantity("web_searches") == searches


@given(st.binary(max_size=300))
def test_reading_is_total(junk: bytes) -> None:
    """Any bytes are read as a call or refused with a code."""
    for raw in (junk, b'{"contents":' + junk + b"}", b'{"contents":[],"tools":' + junk + b"}"):
        for reading in (gemini.read, gemini.read_stream, gemini.read_embed, gemini.read_count):
            told = reading(raw, MODEL)
            assert isinstance(told, Call) or told.code in CODES
        gemini_answers.report_of(raw)
        gemini_answers.answer_text(raw)
        gemini.prompt_text(raw)
        gemini.prompt_tokens_overhead(raw)


@given(st.integers(0, 2_000_000_000), st.integers(0, 500), st.integers(0, 500), st.booleans(), st.booleans())
def test_the_quick_way_for_plain_reports_is_the_careful_one(
    prompt: int, candidates: int, thoughts: int, detailed: bool, broken: bool
) -> None:
    """Reports of text and thoughts have the same leaves, whichever way they are read."""
    told: dict[str, Any] = {"promptTokenCount": prompt, "candidatesTokenCount": candidates}
    told |= {"thoughtsTokenCount": thoughts, "totalTokenCount": prompt + candidates + thoughts + broken}
    if detailed:
        told["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": prompt}]
    assert gemini_answers._understood(told, 0) == (gemini_answers.leaves(told), gemini_answers.unknown(told))
