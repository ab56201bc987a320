"""Files and batches: what an upload and a new batch ask, what answers say, how batches are bounded and added up."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import NO_USAGE, Measure, Usage, added
from faregate.dialects import batch_lines, kept, openai_batches, openai_files
from faregate.dialects.batch_lines import IDS_MAX, BatchFile
from faregate.dialects.batch_results import EMPTY
from faregate.dialects.kept import Made
from faregate.errors import CODES, Problem

CHAT = "/v1/chat/completions"


def body(**changed: Any) -> dict[str, Any]:
    told = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10} | changed
    return {name: value for name, value in told.items() if value is not ...}


def line(number: int = 0, asked: Any = None, **changed: Any) -> bytes:
    told = {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body() if asked is None else asked}
    return json.dumps({name: value for name, value in (told | changed).items() if value is not ...}).encode()


def file_of(*lines: bytes) -> BatchFile:
    understood = batch_lines.read(b"\n".join(lines))
    assert isinstance(understood, batch_lines.Understood), understood
    return understood.file


def problem_of(content: bytes) -> Problem:
    problem = batch_lines.read(content)
    assert isinstance(problem, Problem), problem
    assert problem.code in CODES
    return problem


# -- input files -------------------------------------------------------------------------------------------------------


def test_lines_add_up() -> None:
    """Caps times choices, lines without a cap, and the bytes of all bodies are added up; the longest are kept."""
    bodies = [body(), body(n=3), body(max_tokens=..., n=2), body(max_tokens=7)]
    file = file_of(*(line(number, asked) for number, asked in enumerate(bodies)))

    sizes = [len(json.dumps(asked)) for asked in bodies]
    assert (file.endpoint, file.model, file.lines) == (CHAT, "gpt-4o", 4)
    assert (file.input_tokens, file.longest_input) == (sum(sizes), max(sizes))
    assert (file.output_tokens, file.longest_output) == (10 + 30 + 7, 30)
    assert (file.uncapped, file.most_uncapped) == (2, 2)
    assert file.ids == b"".join(batch_lines.digest_of(f"c{number}") for number in range(4))


def test_what_is_not_in_the_file_is_the_context() -> None:
    """Lines of responses that read more than the file holds count the context window, once for each turn."""
    tools = {"model": "gpt-4o", "input": "x", "tools": [{"type": "web_search"}], "max_tool_calls": 3}
    plain = {"model": "gpt-4o", "input": "x", "max_output_tokens": 5}
    lines = [line(0, tools, url="/v1/responses"), line(1, plain, url="/v1/responses")]
    file = file_of(*lines)

    assert (file.opened, file.turns, file.most_turns) == (1, 4, 4)
    assert file.input_tokens == len(json.dumps(plain))
    assert [measure.unit for measure in file.at_most] == ["web_searches"]
    assert file.at_most[0].quantity == 3


def test_objects_of_all_lines_are_named_once() -> None:
    """What lines name of the provider's must be the caller's own, so the file says it."""
    asked = {"model": "m", "input": "x", "previous_response_id": "resp_1", "max_output_tokens": 5}
    understood = batch_lines.read(b"\n".join(line(number, asked, url="/v1/responses") for number in range(2)))

    assert isinstance(understood, batch_lines.Understood)
    assert understood.objects == ("resp_1",)


@pytest.mark.parametrize(
    "ending", [b"\n", b"\r\n", b"\n\n", b"\n \t\r\n", b"\r\n\r\n"], ids=["lf", "crlf", "blank", "space", "crlf blank"]
)
def test_line_ends(ending: bytes) -> None:
    """Line ends of all kinds, blank lines, and a last line without an end make the same file."""
    lines = [line(number) for number in range(3)]
    plain = file_of(*lines)

    for content in (ending.join(lines), ending.join(lines) + ending, b"\xef\xbb\xbf" + ending.join(lines)):
        understood = batch_lines.read(content)
        assert isinstance(understood, batch_lines.Understood)
        assert understood.file == plain


@pytest.mark.parametrize(
    ("bad", "code", "told"),
    [
        (b"not JSON", "json_invalid", "Line 2 is not valid JSON"),
        (b"[]", "field_type", "Line 2: $"),
        (b'{"custom_id":"a","custom_id":"b"}', "json_dup_key", "Line 2 is not valid: the member custom_id"),
        (b'{"custom_id":"\xff"}', "json_utf8", "Line 2 is not UTF-8"),
        (line(1, custom_id=...), "field_missing", "Line 2: custom_id"),
        (line(1, custom_id=7), "field_type", "Line 2: custom_id"),
        (line(1, custom_id=""), "field_range", "Line 2: custom_id"),
        (line(0), "field_conflict", "Line 2: custom_id"),
        (line(1, method="GET"), "field_enum", "Line 2: method"),
        (line(1, method=...), "field_missing", "Line 2: method"),
        (line(1, url="/v1/images/generations"), "field_enum", "Line 2: url"),
        (line(1, url="https://example.com"), "field_enum", "Line 2: url"),
        (line(1, url="/v1/embeddings"), "field_conflict", "Line 2: url"),
        (line(1, extra=1), "field_unknown", "Line 2: extra"),
        (line(1, body=...), "field_missing", "Line 2: body"),
        (line(1, body=[]), "field_type", "Line 2: body: expected an object"),
        (line(1, body(model=...)), "field_missing", "Line 2: body.model"),
        (line(1, body(model="other")), "field_conflict", "Line 2: body.model"),
        (line(1, body(stream=True)), "field_conflict", "Line 2: body.stream"),
        (line(1, body(service_tier="flex")), "feature_unbounded", "Line 2: body.service_tier"),
        (line(1, body(max_tokens=-1)), "field_range", "Line 2: body.max_tokens"),
        (line(1, body(api_base="http://x")), "field_forbidden", "Line 2: body.api_base"),
        (line(1).replace(b'"max_tokens"', b'"model"'), "json_dup_key", "Line 2: body is not valid"),
    ],
)
def test_a_bad_line_is_named(bad: bytes, code: str, told: str) -> None:
    """A line that is refused alone refuses the file, with its number and what is wrong with it."""
    problem = problem_of(line(0) + b"\n" + bad + b"\n" + line(2))

    assert (problem.code, problem.message[: len(told)]) == (code, told)
    assert problem.param is not None
    assert problem.param.startswith("line 2")


def test_background_lines_are_refused() -> None:
    """A response in the background would be work behind work."""
    asked = {"model": "m", "input": "x", "background": True}

    assert problem_of(line(0, asked, url="/v1/responses")).message.startswith("Line 1: body.background")


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\n"])
def test_a_file_without_lines(content: bytes) -> None:
    """There must be something to do."""
    assert problem_of(content).code == "field_range"


def test_too_many_lines() -> None:
    """One line more than a batch may have is refused."""
    short = b'{"custom_id":"%d","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"x"}}'
    content = b"\n".join(short % number for number in range(batch_lines.LINES_MAX + 1))

    assert "50000" in problem_of(content).message
    allowed = batch_lines.read(content[: content.rfind(b"\n")])
    assert isinstance(allowed, batch_lines.Understood)
    assert allowed.file.lines == batch_lines.LINES_MAX
    assert allowed.file.ids == b""


lines_of_chats = st.lists(
    st.builds(
        body,
        max_tokens=st.one_of(st.just(...), st.integers(1, 5000)),
        n=st.one_of(st.just(...), st.integers(1, 4)),
        messages=st.text(max_size=40).map(lambda text: [{"role": "user", "content": text}]),
    ),
    min_size=1,
    max_size=12,
)

NAMES = st.text(min_size=1, max_size=20).filter(str.isprintable)

CARDS = st.builds(
    lambda low, high, call, above: Tariff(
        RateCard(
            "p",
            "m",
            "v",
            (
                Tier(0, (Rate("input_tokens", low, 7), Rate("output_tokens", high, 3), Rate("requests", call, 1))),
                Tier(above, (Rate("input_tokens", 2 * low, 7), Rate("output_tokens", high, 2))),
            ),
        )
    ),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(1, 300),
)
MODEL_MAXIMUM = 4096


def single_bound(call: Call, tariff: Tariff) -> int:
    cap = MODEL_MAXIMUM if call.output_cap is None else call.output_cap
    return tariff.bound(call.input_tokens_max, cap * call.choices + call.extra_output_tokens, call.media)


@given(lines_of_chats, CARDS)
def test_all_lines_are_bounded_together(bodies: list[dict[str, Any]], tariff: Tariff) -> None:
    """The bound of a batch is no less than those of its lines, and as a file of one line it is that line's."""
    file = file_of(*(line(number, asked) for number, asked in enumerate(bodies)))
    calls = [batch_lines.FORMATS["/chat/completions"].read(json.dumps(asked).encode()) for asked in bodies]
    alone = [single_bound(call, tariff) for call in calls if isinstance(call, Call)]
    output = file.output_tokens + MODEL_MAXIMUM * file.uncapped

    together = tariff.bound_of_calls(file.lines, file.longest_input, file.input_tokens, output, file.media)

    assert len(alone) == file.lines
    assert together >= sum(alone)
    if file.lines == 1:
        assert together == alone[0]


@given(lines_of_chats)
def test_a_batch_is_read_as_one_call(bodies: list[dict[str, Any]]) -> None:
    """The call of a batch has the sums of its file, whatever mixture of caps there is."""
    file = file_of(*(line(number, asked) for number, asked in enumerate(bodies)))
    call = new_batch(batch_lines.packed(file))

    cap = MODEL_MAXIMUM if call.output_cap is None else call.output_cap
    output = cap * call.choices + call.extra_output_tokens
    assert output == file.output_tokens + MODEL_MAXIMUM * file.uncapped
    assert (call.operation, call.model, call.calls) == ("chat.completions", "gpt-4o", file.lines)
    assert (call.input_tokens_max, call.longest_input) == (file.input_tokens, file.longest_input)
    assert call.sealed
    assert call.job


@given(st.integers(0, 5), st.binary(min_size=1, max_size=20), st.sampled_from([b"\n", b"\r\n"]))
def test_garbage_is_refused_wherever_it_stands(place: int, garbage: bytes, ending: bytes) -> None:
    """Bytes that are no request are refused by the number of their line, and never read as one."""
    lines = [line(number) for number in range(5)]
    lines.insert(place, b"{" + garbage.replace(b"\n", b" ").replace(b"\r", b" "))
    understood = batch_lines.read(ending.join(lines))

    assert isinstance(understood, Problem)
    assert understood.message.startswith(f"Line {place + 1}")


def test_facts_survive() -> None:
    """What is kept of a file is what was read."""
    file = file_of(line(0), line(1, body(max_tokens=...)))

    assert batch_lines.unpacked(batch_lines.packed(file)) == file


def test_facts_stay_small() -> None:
    """However many lines there are, the facts fit where they are kept."""
    many = file_of(*(line(number) for number in range(IDS_MAX)))

    assert batch_lines.ids_of(many) == {batch_lines.digest_of(f"c{number}") for number in range(IDS_MAX)}
    assert len(batch_lines.packed(many)) <= kept.FACTS_BYTES_MAX


# -- other names -------------------------------------------------------------------------------------------------------


@given(lines_of_chats, st.sampled_from([b"\n", b"\r\n", b"\n\n"]), NAMES)
def test_only_the_name_of_the_model_changes(bodies: list[dict[str, Any]], ending: bytes, name: str) -> None:
    """Every line has the other name and is the same in everything else; line ends stay."""
    content = ending.join(line(number, asked) for number, asked in enumerate(bodies))

    changed = batch_lines.renamed(content, name)

    before = [json.loads(text) for text in content.split(b"\n") if text.strip()]
    after = [json.loads(text) for text in changed.split(b"\n") if text.strip()]
    assert [told["body"].pop("model") for told in after] == [name] * len(bodies)
    assert [told["body"].pop("model") for told in before] == ["gpt-4o"] * len(bodies)
    assert after == before
    assert changed.count(b"\r") == content.count(b"\r")
    assert batch_lines.renamed(changed, "gpt-4o") == content


def test_bytes_beside_the_name_stay() -> None:
    """Spacing, escapes and the order of members are the caller's; nested members of that name are no model."""
    raw = (
        b'\xef\xbb\xbf { "body" : {"messages":[{"role":"user","content":"\\u0062ody"}],"max_tokens":1, '
        b'"model" : "m\\u0031" ,"tools":[{"type":"function","function":{"name":"f","parameters":{"model":"m1"}}}]},'
        b'"url":"\\/v1\\/chat\\/completions","method":"POST","custom_id":"body"}\r\n\r\n'
    )
    understood = batch_lines.read(raw)

    assert isinstance(understood, batch_lines.Understood), understood
    assert understood.file.model == "m1"
    assert batch_lines.renamed(raw, "m1") == raw
    assert batch_lines.renamed(raw, "other") == raw.replace(b'"m\\u0031"', b'"other"')


def test_calls_of_hosted_tools_get_their_cap() -> None:
    """The cap that the bound was made with is sent, as for a call alone."""
    asked = {"model": "m", "input": "x", "tools": [{"type": "web_search"}], "max_output_tokens": 5}

    changed = json.loads(batch_lines.renamed(line(0, asked, url="/v1/responses"), None))

    assert changed["body"] == {"max_tool_calls": 16} | asked


# -- uploads -----------------------------------------------------------------------------------------------------------


def form(
    purpose: str | None = "batch", content: bytes = b"", extra: str = "", filename: str = '; filename="a"'
) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="file"{filename}\r\n\r\n'.encode() + content]
    if purpose is not None:
        parts.append(f'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}'.encode())
    if extra:
        parts.append(extra.encode())
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def upload_of(raw: bytes) -> Call:
    call = openai_files.read(raw)
    assert isinstance(call, Call), call
    return call


def test_an_upload_of_a_batch() -> None:
    """Its lines are read; the call has their model and the facts, and costs nothing itself."""
    call = upload_of(form(content=line(0) + b"\n" + line(1)))

    assert (call.operation, call.model) == ("chat.completions", "gpt-4o")
    assert (call.has_output, call.sealed) == (False, True)
    assert call.input_tokens_max == 0
    assert batch_lines.unpacked(call.facts).lines == 2


@pytest.mark.parametrize("purpose", ["assistants", "evals", "user_data", "vision"])
def test_other_uploads_are_any_bytes(purpose: str) -> None:
    """A file that is no batch is not read."""
    call = upload_of(form(purpose, b"\0\xff"))

    assert (call.operation, call.model, call.facts, call.objects) == ("files", "", b"", ())


@pytest.mark.parametrize(
    ("raw", "code", "told"),
    [
        (form("fine-tune", b"x"), "feature_unbounded", "purpose: the cost of training a model"),
        (form("fine-tune-results", b"x"), "feature_unbounded", "purpose"),
        (form("else", b"x"), "field_enum", "purpose"),
        (form(None, b"x"), "field_missing", "purpose"),
        (form(content=b""), "field_range", "file"),
        (form(content=b"x", filename=""), "field_type", "file"),
        (form(content=line(0) + b"\nbad"), "json_invalid", "Line 2 is not valid JSON"),
        (form(content=line(), extra='--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch'),
         "field_conflict", "purpose"),
        (form(content=line(), extra='--b\r\nContent-Disposition: form-data; name="api_base"\r\n\r\nx'),
         "field_forbidden", "api_base"),
        (b"", "body_empty", "Body"),
        (b"{}", "form_invalid", "Form"),
        (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n', "field_missing", "file"),
    ],
)  # fmt: skip
def test_a_bad_upload_is_refused(raw: bytes, code: str, told: str) -> None:
    """What is missing, twice, steering or without a bound is named."""
    problem = openai_files.read(raw)

    assert isinstance(problem, Problem)
    assert problem.code == code
    assert problem.message.startswith(told)


def test_when_a_file_expires_is_passed_on() -> None:
    """The bracketed fields of the documented form are no steering."""
    extra = '--b\r\nContent-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n3600'

    assert upload_of(form(content=line(), extra=extra)).members[-1] == "expires_after[seconds]"


def edited(raw: bytes, model: str | None) -> bytes:
    return openai_files.edit(raw, upload_of(raw), model=model, cap=None, cap_field="", ask_usage=False)


def test_an_upload_gets_another_name() -> None:
    """The lines inside the form change, the form around them stays; nothing changes where nothing has to."""
    raw = form(content=line(0) + b"\n" + line(1))
    other = form("user_data", line(0))

    assert edited(raw, "up-1") == raw.replace(b'"gpt-4o"', b'"up-1"')
    assert edited(raw, None) is raw
    assert edited(raw, "gpt-4o") is raw
    assert edited(other, "up-1") is other


# -- answers about files -----------------------------------------------------------------------------------------------


def test_an_answer_names_its_file() -> None:
    """What an upload made belongs to whoever uploaded it; it used nothing."""
    answer = b'{"id":"file-1","object":"file","bytes":1,"purpose":"batch"}'

    assert openai_files.made(answer) == (Made("file-1", "file"),)
    assert openai_files.usage_of(answer).usage == NO_USAGE
    assert openai_files.usage_of(answer).id == "file-1"


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"error":{}}', b'{"id":7}', b'{"id":"b","object":"batch"}', b"\xff"])
def test_other_answers_name_no_file(answer: bytes) -> None:
    """An error or an answer of another shape makes nothing, and never raises."""
    assert openai_files.made(answer) == ()
    assert openai_files.usage_of(answer).id == ""


def listed(*ids: str, **more: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": id, "n": 1.50} for id in ids], **more}).encode()


def test_a_list_shows_only_what_is_own() -> None:
    """Entries of others go, and with them every mention of their ids."""
    answer = listed("a", "b", "c", first_id="a", last_id="c", has_more=True)

    told = json.loads(openai_files.only_own(answer, {"b"}.__contains__))

    assert told == {
        "object": "list",
        "data": [{"id": "b", "n": 1.5}],
        "first_id": "b",
        "last_id": "b",
        "has_more": True,
    }
    assert json.loads(openai_files.only_own(answer, lambda _: False))["first_id"] is None


@given(st.binary(max_size=60))
def test_an_odd_list_shows_nothing(answer: bytes) -> None:
    """Whatever a provider answers, nothing is shown that cannot be told to be the caller's."""
    assert json.loads(openai_files.only_own(answer, lambda _: False))["data"] == []


def test_entries_without_an_id_are_not_shown() -> None:
    """An entry of another shape belongs to nobody."""
    answer = b'{"data":[{"id":"a"},{"id":7},7,{"name":"b"}]}'

    assert json.loads(openai_files.only_own(answer, lambda _: True))["data"] == [{"id": "a"}]


# -- batches -----------------------------------------------------------------------------------------------------------


def create(**changed: Any) -> bytes:
    told = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"} | changed
    return json.dumps({name: value for name, value in told.items() if value is not ...}).encode()


def new_batch(facts: bytes, **changed: Any) -> Call:
    call = openai_batches.read(create(**changed))
    assert isinstance(call, Call), call
    bounded = openai_batches.bounded(call, facts)
    assert isinstance(bounded, Call), bounded
    return bounded


def test_a_new_batch() -> None:
    """It is a job with a file that must be the caller's; it cannot be counted, and passes as it is."""
    raw = create(metadata={"a": "b"}, output_expires_after={"anchor": "created_at", "seconds": 3600})
    call = openai_batches.read(raw)

    assert isinstance(call, Call)
    assert (call.operation, call.model, call.job, call.sealed) == ("batches", "", True, True)
    assert call.objects == ("file-1",)
    assert openai_batches.prompt_text(raw) == []
    assert openai_batches.prompt_tokens_overhead(raw) > 10**15
    assert openai_batches.edit(raw, call, model="other", cap=1, cap_field="x", ask_usage=True) is raw


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (create(input_file_id=...), "field_missing", "input_file_id"),
        (create(input_file_id=1), "field_type", "input_file_id"),
        (create(endpoint=...), "field_missing", "endpoint"),
        (create(endpoint="/v1/videos"), "field_enum", "endpoint"),
        (create(extra_body={"api_base": "x"}), "field_forbidden", "extra_body.api_base"),
        (create(metadata={"api_base": "x"}), "field_forbidden", "metadata.api_base"),
        (create()[:-1] + b',"endpoint":"/v1/responses"}', "json_dup_key", "endpoint"),
        (b"[]", "field_type", "$"),
    ],
)
def test_a_bad_batch_is_refused(raw: bytes, code: str, param: str) -> None:
    """What is missing, twice, steering or without a bound is named."""
    problem = openai_batches.read(raw)

    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)


def test_a_batch_goes_where_its_lines_go() -> None:
    """A path that is not that of the lines is refused, as is a file that is no batch's."""
    call = openai_batches.read(create(endpoint="/v1/responses"))
    assert isinstance(call, Call)

    other = openai_batches.bounded(call, batch_lines.packed(file_of(line(0))))
    assert isinstance(other, Problem)
    assert other.param == "endpoint"
    for facts in (b"", b"\x00", b"junk"):
        none = openai_batches.bounded(call, facts)
        assert isinstance(none, Problem)
        assert none.param == "input_file_id"


def test_a_batch_of_lines_with_tools() -> None:
    """Units of tools are added up; where one line reads its context, each counts as if it did."""
    tools = {"model": "m", "input": "x", "tools": [{"type": "web_search"}], "max_tool_calls": 2}
    plain = {"model": "m", "input": "a longer one", "max_output_tokens": 5}
    file = file_of(*(line(number, asked, url="/v1/responses") for number, asked in enumerate([tools, tools, plain])))

    call = new_batch(batch_lines.packed(file), endpoint="/v1/responses")

    assert (call.whole_context, call.turns) == (True, 3 + 3 + 1)
    assert call.input_tokens_max == file.longest_input
    assert [(measure.unit, measure.quantity) for measure in call.at_most] == [("web_searches", 4)]
    assert (call.output_cap, call.choices, call.extra_output_tokens) == (None, 2, 5)


def test_a_batch_of_embeddings_has_no_output() -> None:
    """What makes no tokens holds none."""
    file = file_of(line(0, {"model": "m", "input": "x"}, url="/v1/embeddings"))

    assert not new_batch(batch_lines.packed(file), endpoint="/v1/embeddings").has_output


def batch(status: str, **changed: Any) -> bytes:
    return json.dumps({"id": "batch_1", "object": "batch", "status": status} | changed).encode()


def test_an_accepted_batch_is_pending() -> None:
    """Its cost is learnt later, unless it has failed at once; nobody else's answer is one."""
    report = openai_batches.usage_of(batch("validating"))

    assert (report.pending, report.id, report.usage) == (True, "batch_1", None)
    assert openai_batches.usage_of(batch("failed")).usage == NO_USAGE
    assert openai_batches.usage_of(b"{}").invalid


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
    ],
)
def test_a_lookup_tells_the_sum_of_all_lines(usage: dict[str, int]) -> None:
    """Asked by request id, a provider tells what the lines used in their own words."""
    told = json.dumps({"served": True, "ended": True, "complete": True, "usage": usage}).encode()

    assert openai_batches.usage_of(told).usage == Usage(input_text=5, output_text=2)


def test_a_batch_that_is_done_names_its_files() -> None:
    """They belong to whoever made the batch."""
    answer = batch("completed", output_file_id="file-2", error_file_id="file-3")

    assert openai_batches.made(answer) == (Made("batch_1", "batch"), Made("file-2", "file"), Made("file-3", "file"))
    assert openai_batches.made(batch("validating", output_file_id=None)) == (Made("batch_1", "batch"),)
    assert openai_batches.made(b"{}") == ()


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling", "something new"])
def test_a_running_batch(status: str) -> None:
    """Whatever is no end known to us is none."""
    outcome = openai_batches.outcome(batch(status, output_file_id="file-2"))

    assert not outcome.ended
    assert outcome.report.pending


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_an_ended_batch(status: str) -> None:
    """It is told by its file of results; without any it used nothing, unless lines were answered."""
    counts = {"total": 2, "completed": 0, "failed": 2}
    told = openai_batches.outcome(batch(status, output_file_id="file-2", error_file_id="file-3"))
    none = openai_batches.outcome(batch(status, error_file_id="file-3", request_counts=counts))
    lost = openai_batches.outcome(batch(status, request_counts=counts | {"completed": 1}))

    assert (told.ended, told.files) == (True, ("file-2",))
    assert told.complete == (status == "completed")
    assert (none.ended, none.complete, none.files, none.report.usage) == (True, False, (), NO_USAGE)
    assert lost.ended
    assert lost.report.usage is None
    assert lost.report.invalid


def test_an_answer_that_is_no_batch_is_no_end() -> None:
    """An error says nothing about the work behind it."""
    assert not openai_batches.outcome(b'{"error":{}}').ended


# -- results -----------------------------------------------------------------------------------------------------------


def result(number: int, status: int = 200, told: Any = None, custom_id: str = "") -> bytes:
    usage = {"prompt_tokens": 10 + number, "completion_tokens": number, "total_tokens": 10 + 2 * number}
    answer = {"id": "x", "model": "gpt-4o-2024", "usage": usage} if told is None else told
    response = {"status_code": status, "request_id": "r", "body": answer}
    return json.dumps({"id": "b", "custom_id": custom_id or f"c{number}", "response": response}).encode()


def expired(number: int) -> bytes:
    error = {"code": "batch_expired", "message": "late"}
    return json.dumps({"id": "b", "custom_id": f"c{number}", "response": None, "error": error}).encode()


FACTS = batch_lines.packed(file_of(*(line(number) for number in range(5))))


def added_up(content: bytes, facts: bytes = FACTS, *, piece: int = 1 << 20) -> tuple[Any, list[Usage]]:
    told: list[Usage] = []
    results = openai_batches.lines(facts, told.append)
    for at in range(0, len(content), piece):
        results.feed(content[at : at + piece])
    results.close()
    return results, told


def test_each_good_line_is_billed_once() -> None:
    """Good answers are billed by their usage, others by nothing."""
    results, told = added_up(b"\n".join([result(0), result(1, 429), expired(2), result(3)]))

    assert told == [Usage(input_text=10), Usage(input_text=13, output_text=3)]
    assert results.report.usage == Usage(input_text=23, output_text=3)
    assert results.report.model == "gpt-4o-2024"
    assert (results.billed, results.failed, results.strange, results.report.unknown) == (2, 2, 0, 0)


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
def test_results_may_be_cut_anywhere(piece: int) -> None:
    """Pieces of any size, CRLF, blank lines and a missing last line end add up to the same."""
    content = b"\r\n\n".join([result(0), result(1), result(2)])

    assert added_up(content, piece=piece)[1] == added_up(content)[1]
    assert len(added_up(content, piece=piece)[1]) == 3


def test_lines_that_nobody_asked_for() -> None:
    """They are counted as something unknown and not billed, as is a line that is told twice."""
    results, told = added_up(b"\n".join([result(0), result(0), result(1, custom_id="else"), result(1)]))

    assert len(told) == 2
    assert results.strange == 2
    assert results.report.unknown == 2


def test_ids_of_many_lines_are_not_known() -> None:
    """Then there are as many answers as lines were asked, each id once."""
    many = batch_lines.packed(file_of(*(line(number) for number in range(IDS_MAX + 1))))
    content = b"\n".join(result(0, custom_id=f"any {number}") for number in range(IDS_MAX + 3))

    results, told = added_up(content + b"\n" + result(0, custom_id="any 0"), many)

    assert len(told) == IDS_MAX + 1
    assert results.strange == 3


@pytest.mark.parametrize(
    "bad",
    [
        result(0, told={"model": "m"}),
        result(0, told={"usage": {"prompt_tokens": -1, "completion_tokens": 1}}),
        result(0, told=[]),
        b'{"custom_id":"c0","response":{"status_code":200}}',
        b"this is not JSON",
        b'{"custom_id":7}',
        b"\xff\xfe",
    ],
)
def test_an_answer_without_usage_is_billed_at_its_most(bad: bytes) -> None:
    """What a good line does not say, or what cannot be read, is the most that a line may have used; never free."""
    results, told = added_up(bad + b"\n" + result(1))
    file = batch_lines.unpacked(FACTS)

    assert told == [Usage(input_text=file.longest_input, output_text=10), Usage(input_text=11, output_text=1)]
    assert results.unreported == 1
    assert results.report.usage == added(*told)
    assert results.report.unknown >= 1


def test_an_answer_without_usage_and_without_a_cap() -> None:
    """Where only the model's maximum bounds a line, a token is at least a byte of its answer."""
    asked = body(max_tokens=...)
    facts = batch_lines.packed(file_of(line(0, asked), line(1, asked)))
    answer = {"model": "m", "choices": "x" * 100}

    results, told = added_up(result(0, told=answer) + b"\n" + result(1), facts)

    longest = Usage(input_text=len(json.dumps(asked)), output_text=len(json.dumps(answer)))
    assert told == [longest, Usage(input_text=11, output_text=1)]
    assert results.report.unknown == 1


@pytest.mark.parametrize("content", [b"", b"\n\r\n"])
def test_an_empty_file_of_results_says_nothing(content: bytes) -> None:
    """There is such a file only where lines were answered, so an empty one is no proof that nothing was used."""
    results, told = added_up(content)

    assert told == []
    assert results.report.usage is None
    assert results.report.invalid == EMPTY


def test_unreadable_lines_are_no_more_than_were_asked() -> None:
    """A file of nonsense costs no more than the batch may."""
    results, told = added_up(b"nonsense\n" * 100)

    assert len(told) == 5
    assert results.unreadable == 100


def test_units_of_tools_are_kept_apart() -> None:
    """Responses tell their tools; unknown members of usage are counted."""
    asked = {"model": "m", "input": "x", "tools": [{"type": "web_search"}], "max_output_tokens": 5}
    facts = batch_lines.packed(file_of(line(0, asked, url="/v1/responses")))
    usage = {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "gold_tokens": 2}
    answer = {
        "status": "completed",
        "usage": usage,
        "output": [{"type": "web_search_call", "action": {"type": "search"}}],
    }

    results, told = added_up(result(0, told=answer), facts)

    assert told == [Usage(input_text=5, output_text=1, other=(Measure("web_searches", "", 1),))]
    assert results.report.unknown == 1


@given(st.lists(st.one_of(st.binary(max_size=30), st.builds(result, st.integers(0, 6), st.sampled_from([200, 500])))))
def test_results_never_raise_or_exceed(lines: list[bytes]) -> None:
    """Whatever a provider sends, at most every line asked is billed, and the sum is what was told."""
    results, told = added_up(b"\n".join(lines))

    assert len(told) <= 5
    total = NO_USAGE
    for usage in told:
        total = added(total, usage)
    assert results.report.usage == (None if results.report.invalid else total)


def test_without_facts_nothing_was_asked() -> None:
    """Results of a batch that nobody knows are strange, all of them."""
    results, told = added_up(result(0), b"")

    assert told == []
    assert results.strange == 1


def signatures() -> list[Callable[[bytes], Any]]:
    files, batches = openai_files, openai_batches
    return [files.usage_of, files.made, batches.usage_of, batches.made, batches.outcome]


@given(
    st.one_of(
        st.binary(max_size=80),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
            lambda told: json.dumps({"id": told, "status": told, "object": "batch", "request_counts": told}).encode()
        ),
    )
)
def test_no_answer_raises(answer: bytes) -> None:
    """What a provider says about a file or a batch may be anything."""
    for reads in signatures():
        reads(answer)
