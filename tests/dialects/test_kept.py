"""What answers say of objects that a provider keeps, what looks leave out, and what of a query passes on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.meter import Event, StreamMeter
from faregate.core.usage import NO_USAGE, Usage
from faregate.dialects import DIALECTS
from faregate.dialects.kept import LOOKS as LOOK_OF
from faregate.dialects.kept import RESPONSE, Made, Outcome
from faregate.dialects.operations import ABOUT_OBJECTS, BY_NAME, ENDS, LOOKS, TIERS
from faregate.dialects.queries import PASSED, passed_query

RESPONSES = DIALECTS["responses"]
TOLD = {"input_tokens": 30, "output_tokens": 10, "total_tokens": 40}


def response(**members: Any) -> bytes:
    return json.dumps({"id": "resp_1", "object": "response", "status": "completed", "output": [], **members}).encode()


def made(body: bytes) -> tuple[Made, ...]:
    assert RESPONSES.made is not None
    return RESPONSES.made(body)


def outcome(body: bytes) -> Outcome:
    assert RESPONSES.outcome is not None
    return RESPONSES.outcome(body)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (response(store=True), ["resp_1"]),
        (response(), ["resp_1"]),
        (response(store=None), ["resp_1"]),
        (response(store=False), []),
        (b'{"object":"response","id":"resp_2","output":[{"text":"', ["resp_2"]),
        (b'{"object":"response","id" : "resp_3","store":"yes"}', ["resp_3"]),
        (b'{"error":{"message":"no"}}', []),
        (b"[]", []),
        (b"", []),
    ],
)
def test_a_response_says_whether_it_is_kept(body: bytes, ids: list[str]) -> None:
    """What may be there later has an owner, also where its answer cannot be read to the end."""
    assert [(each.id, each.kind) for each in made(body)] == [(id, RESPONSE) for id in ids]


@pytest.mark.parametrize("status", ["queued", "in_progress", "whatever", None, 7])
def test_what_runs_has_no_outcome(status: Any) -> None:
    """Usage so far is not the end; a status that nobody knows is none, either."""
    assert not outcome(response(status=status, usage=TOLD)).ended


@pytest.mark.parametrize(
    ("body", "complete", "usage"),
    [
        (response(usage=TOLD), True, Usage(30, output_text=10)),
        (response(status="incomplete", usage=TOLD), True, Usage(30, output_text=10)),
        (response(status="failed", usage=TOLD), False, Usage(30, output_text=10)),
        (response(status="failed", usage=None), False, NO_USAGE),
        (response(status="cancelled", usage=None), False, NO_USAGE),
        (response(usage=None), True, None),
        (response(usage={**TOLD, "output_tokens": -1}), True, None),
        (response(status="cancelled", usage={**TOLD, "total_tokens": 7}), False, None),
    ],
)
def test_an_end_says_what_it_used(body: bytes, complete: bool, usage: Usage | None) -> None:
    """Nothing is nothing only where nothing was made and no figure contradicts it."""
    found = outcome(body)
    assert (found.ended, found.complete, found.report.usage, found.files) == (True, complete, usage, ())


def test_text_without_figures_is_never_nothing() -> None:
    """A cancelled response that wrote something and tells no usage has characters to be estimated by."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "twelve chars"}]}
    found = outcome(response(status="cancelled", output=[item]))
    assert (found.ended, found.report.usage, found.characters) == (True, None, 12)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_raise(body: bytes) -> None:
    """Whatever a provider sends."""
    for dialect in {id(each): each for each in DIALECTS.values()}.values():
        if dialect.made is not None:
            assert isinstance(dialect.made(body), tuple)
        if dialect.outcome is not None:
            assert not dialect.outcome(body).files
        if dialect.shown is not None:
            assert dialect.shown(body, lambda _: False)


@given(
    st.lists(
        st.sampled_from(["data: ", '{"id":"resp_x"', '"status":"completed"', ",", "}", '"usage":null']), max_size=9
    )
)
def test_no_pieces_of_a_response_raise(parts: list[str]) -> None:
    """Half a response is read as far as it can be."""
    body = "".join(parts).encode()
    made(body)
    outcome(body)


# -- looks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LOOKS & DIALECTS.keys()))
def test_every_look_uses_nothing(name: str) -> None:
    """Whatever its answer tells of usage was charged when the object was made."""
    report = DIALECTS[name].usage_of(response(usage=TOLD, service_tier="flex"))
    assert (report.usage, report.service_tier, report.pending) == (NO_USAGE, "", False)


def test_a_stream_that_is_played_again_tells_no_usage() -> None:
    """Its end is seen, its text is not counted, its tier prices nothing."""
    events = b"".join(
        b"event: x\ndata: " + json.dumps(each).encode() + b"\n\n"
        for each in (
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
            {"type": "response.output_text.delta", "delta": "Hello"},
            {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "usage": TOLD}},
        )
    )
    dialect = DIALECTS["responses.get"]
    meter = StreamMeter(dialect.events(), False, 1, dialect.last_mark)
    assert meter.feed(events) == events
    assert meter.finish_seen
    assert meter.finish("complete").report.usage is None
    event = DIALECTS["responses.get"].events()(b'{"type":"error"}')
    assert isinstance(event, Event)
    assert event.error


def test_objects_and_their_looks_are_declared() -> None:
    """Each kind of object has its look; what ends one is a look; only what makes something costs."""
    assert set(LOOK_OF.values()) <= ABOUT_OBJECTS
    assert ENDS <= LOOKS < ABOUT_OBJECTS
    assert ABOUT_OBJECTS - LOOKS == {"batches"} == TIERS.keys()
    assert all(BY_NAME[name].method == "DELETE" for name in ENDS)


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "target", "passed"),
    [
        ("responses.get", b"/v1/responses/r", ""),
        ("responses.get", b"/v1/responses/r?", ""),
        ("responses.get", b"/v1/responses/r?stream=true&starting_after=42", "?stream=true&starting_after=42"),
        (
            "responses.get",
            b"/v1/responses/r?include[]=a.b&include%5B%5D=c&include=d%2Ce",
            "?include%5B%5D=a.b&include%5B%5D=c&include=d,e",
        ),
        ("responses.get", b"/r?api-version=1&subscription-key=sk-fg-secret&stream=true", "?stream=true"),
        ("responses.get", b"/r?stream=true%20HTTP/1.1%0d%0ax:y&stream=a b&stream=%00", ""),
        ("responses.get", b"/r?stream", "?stream="),
        ("responses.items", b"/r?limit=5&order=asc&stream=true", "?limit=5&order=asc"),
        ("responses.delete", b"/r?limit=5", ""),
        ("files.list", b"/r?purpose=batch&after=file-1", "?purpose=batch&after=file-1"),
        ("chat.completions", b"/r?limit=5", ""),
    ],
)
def test_a_query_passes_by_its_names(operation: str, target: bytes, passed: str) -> None:
    """Nothing else of it, and no byte that could end a line, reaches the provider."""
    assert passed_query(operation, target) == passed


@given(st.sampled_from(sorted(PASSED)), st.binary(max_size=200))
def test_no_query_leaves_its_line(operation: str, query: bytes) -> None:
    """Whatever is asked, what passes is one plain word, with names that are listed."""
    passed = passed_query(operation, b"/v1/x?" + query)
    assert passed.isascii()
    assert not set(passed) & set(" \r\n\t\0#\"'<>")
    names = [part.partition("=")[0].replace("%5B%5D", "[]") for part in passed[1:].split("&") if part]
    assert set(names) <= set(PASSED[operation])
