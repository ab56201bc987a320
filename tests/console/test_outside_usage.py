"""What an answer says that went past the gate, in every format that is known, whole and as the text of a stream."""

import json
from typing import Any

import pytest

from console_parts import NOON, catalogue_of
from faregate.catalogue.tokens import ToktokCounter
from faregate.console.outside_usage import Heard, attributed, charged, hear, place_of, used
from faregate.console.problems import ApiProblem
from faregate.control import Catalogue, Deployment, Route
from faregate.core.metering.sse import LINE_BYTES_MAX
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import ChargeRule


def stream(*payloads: Any, named: bool = False) -> str:
    """The text of a stream; ``named`` writes the type of each event before it, as Anthropic and Responses do."""
    lines = [f"event: {each['type']}\n" if named else "" for each in payloads]
    return "".join(f"{line}data: {json.dumps(each)}\n\n" for line, each in zip(lines, payloads, strict=True))


CHAT = {"object": "chat.completion", "model": "m", "choices": [{"message": {"content": "data: [DONE]"}}]}
CHUNK = {"object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"content": "one two"}}]}
ENDED: dict[str, Any] = {
    "type": "response.completed",
    "response": {"model": "m", "usage": {"input_tokens": 7, "output_tokens": 3}},
}
MESSAGE = {"type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "x"}]}
STARTED = {
    "type": "message_start",
    "message": {**MESSAGE, "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}},
}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "modelVersion": "m",
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
}  # fmt: skip
TOLD = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

ANSWERS: dict[str, tuple[str, str]] = {
    "chat": ("chat.completions", json.dumps({**CHAT, "usage": TOLD})),
    "chat without an object": ("chat.completions", json.dumps({"model": "m", "choices": [], "usage": TOLD})),
    "chat stream": (
        "chat.completions",
        stream(CHUNK, {"choices": [], "usage": TOLD, "model": "m"}) + "data: [DONE]\n\n",
    ),
    "completions": (
        "completions",
        json.dumps({"object": "text_completion", "model": "m", "choices": [], "usage": TOLD}),
    ),
    "responses": ("responses", json.dumps({"object": "response", **ENDED["response"], "output": []})),
    "responses stream": (
        "responses",
        stream({"type": "response.created", "response": {"model": "m"}}, ENDED, named=True),
    ),
    "messages": ("messages", json.dumps({**MESSAGE, "usage": {"input_tokens": 7, "output_tokens": 3}})),
    "messages stream": ("messages", stream(STARTED, DELTA, {"type": "message_stop"}, named=True)),
    "gemini": ("gemini.generate", json.dumps(GEMINI)),
    "gemini stream": ("gemini.generate", stream(GEMINI)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_format_is_heard(name: str) -> None:
    """By what the answer calls itself: its operation, its model and the usage that it reports."""
    operation, text = ANSWERS[name]
    heard = hear(text)
    usage = heard.metered.told
    assert (heard.operation, heard.model, heard.stream) == (operation, "m", "stream" in name)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (7, 3)
    assert hear(f"\n {text}\r\n").metered.told == usage


def test_embeddings_have_no_output() -> None:
    """A list of vectors tells its input only."""
    heard = hear(
        json.dumps({"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}})
    )
    assert heard.metered.told is not None
    assert (heard.operation, heard.metered.told.input_tokens, heard.metered.told.output_tokens) == ("embeddings", 7, 0)


def test_windows_line_ends_and_comments_change_nothing() -> None:
    """A stream is read as a browser would."""
    text = ": hello\r\n\r\n" + stream(CHUNK, {"choices": [], "usage": TOLD}).replace("\n", "\r\n")
    told = hear(text).metered.told
    assert told is not None
    assert told.output_tokens == 3


def test_a_plain_answer_that_speaks_of_data_is_no_stream() -> None:
    """Nor is one with half a surrogate pair a mistake."""
    assert not hear(json.dumps({**CHAT, "usage": TOLD})).stream
    assert hear('{"object": "chat.completion", "choices": [{"message": {"content": "\ud800 data: "}}]}').model == ""


def test_errors_used_nothing() -> None:
    """In any of the shapes; but an error behind some text did."""
    for error in ({"error": {"code": 429}}, {"type": "error", "error": {"type": "overloaded_error"}}):
        assert hear(json.dumps(error)).failed, error
    assert hear(stream({"error": {"message": "no"}})).failed
    assert not hear(stream(CHUNK, {"error": {"message": "no"}})).failed


@pytest.mark.parametrize(
    "text", ["", "x", "{", "[]", "data: \n\n", "data: 5\n\n", '{"hello": 1}', "{" * 2_000, "data: {\n\n"]
)
def test_what_is_no_answer_is_refused(text: str) -> None:
    """With the field at fault."""
    with pytest.raises(ApiProblem) as told:
        hear(text)
    assert (told.value.code, told.value.field) == ("field_type", "responseBody")


def test_an_event_beyond_all_bounds_is_survived() -> None:
    """What it says is counted by its length, and never makes a cost negative."""
    huge = {**CHUNK, "choices": [{"index": 0, "delta": {"content": "x" * (LINE_BYTES_MAX + 1)}}]}
    heard = hear(stream(CHUNK, huge))
    assert heard.metered.characters > LINE_BYTES_MAX
    usage, source = used(heard, "", CATALOGUE.deployments[0], ToktokCounter())
    assert source == "estimate"
    assert usage.output_tokens > 0


# -- where and what it costs -------------------------------------------------------------------------------------------


def _place(name: str, model: str, upstream: str = "", *, priced: bool = True) -> Deployment:
    rates = (Rate("input_tokens", 10**12, 10**6), Rate("output_tokens", 2 * 10**12, 10**6))
    card = RateCard("p", model, f"v-{name}", (Tier(0, rates),))
    return Deployment(name, "p", upstream or model, model, (card,) if priced else ())


CATALOGUE = Catalogue(
    deployments=(
        _place("p/gpt-4o", "gpt-4o"),
        _place("p/gpt-3.5-turbo", "gpt-3.5-turbo"),
        _place("azure", "gpt-4", "my-gpt4"),
        _place("bare", "unpriced-1", priced=False),
        _place("second", "unpriced-1"),
    ),
    routes=(Route("house", ("gone", "azure")), Route("gpt-4o", ("p/gpt-4o",))),
)


BARE = CATALOGUE.deployments[3]
KEY = ("organization", "team", "project", "user", "id", "product", "stage")


@pytest.mark.parametrize(
    ("model", "deployment", "place"),
    [
        ("gpt-4o", "", "p/gpt-4o"),
        ("gpt-4o-2024-08-06", "", "p/gpt-4o"),
        ("gpt-4-0613", "", "azure"),
        ("my-gpt4", "", "azure"),
        ("house", "", "azure"),
        ("gpt-35-turbo", "", "p/gpt-3.5-turbo"),
        ("gpt-35-turbo-0125", "", "p/gpt-3.5-turbo"),
        ("unpriced-1", "", "second"),
        ("whatever", "azure", "azure"),
        ("", "azure", "azure"),
    ],
)
def test_the_place_of_a_model_is_found(model: str, deployment: str, place: str) -> None:
    """By its name, its dated name, what a provider calls it, a name of our own, or the deployment that is told."""
    assert place_of(CATALOGUE, model, deployment).name == place


def test_no_model_has_a_default_price() -> None:
    """A strange one, one without a price, and one that is not named are refused."""
    who = attributed(dict.fromkeys(KEY, ""), BARE)
    for model, code in (("dreamt", "price_unknown"), ("", "field_missing"), ("gpt", "price_unknown")):
        with pytest.raises(ApiProblem) as told:
            place_of(CATALOGUE, model)
        assert told.value.code == code
    heard = hear(ANSWERS["chat"][1])
    assert heard.metered.told is not None
    with pytest.raises(ApiProblem) as told:
        charged(CATALOGUE, BARE, who, heard, heard.metered.told, "provider", NOON)
    assert told.value.code == "price_unknown"


def test_charge_rules_hold_for_reported_calls() -> None:
    """By the operation ``reported``, as for any other call."""
    rule = ChargeRule((("service", "reported"),), markup_ppm=100_000)
    catalogue = Catalogue(deployments=CATALOGUE.deployments, charges=(rule,))
    place = catalogue.deployments[0]
    key = {name: name for name in KEY}
    heard: Heard = hear(ANSWERS["chat"][1])
    assert heard.metered.told is not None
    found = charged(catalogue, place, attributed(key, place), heard, heard.metered.told, "provider", NOON)
    assert (found.cost, found.charge) == (13_000, 14_300)
    assert found.charge_rule


def test_the_tests_of_the_console_have_the_same_prices() -> None:
    """What the other tests of reported calls count on."""
    assert place_of(catalogue_of((), ()), "gpt-4o-2024-08-06").name == "openai/gpt-4o"
