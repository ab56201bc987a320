"""``POST /api/v1/quote``, and the tokenizer service on the console's port."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console_parts import HOUR, NOON, Api, Parts, parts
from fakes import AwayGate
from faregate.console.app import create_app
from faregate.console.keys import NewKey, create
from faregate.control import (
    Allowances,
    AllowanceView,
    Catalogue,
    Deployment,
    Figures,
    Provider,
    Report,
    Reported,
    Resolve,
    Route,
)
from faregate.core.money import PICOS_PER_DOLLAR
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import ChargeRule
from faregate.dialects import DIALECTS
from faregate.ports import NO_PLACES, MadePlaces, Row

MILLION = 1_000_000
CHAT = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]}
#: 3 around the message, 1 role, 3 words with their full stop, 3 before the answer.
CHAT_TOKENS = 10


def card(model: str, version: str, tier: str = "", **dollars: str) -> RateCard:
    """Prices in dollars for a million tokens, or for one of anything else; ``images__hd`` is a variant."""
    rates = []
    for name, price in dollars.items():
        unit, _, variant = name.partition("__")
        pico = int(float(price) * PICOS_PER_DOLLAR)
        rates.append(Rate(unit, pico, MILLION if unit.endswith("tokens") else 1, variant))
    return RateCard("openai", model, version, (Tier(0, tuple(rates)),), service_tier=tier)


GPT_4O = card("gpt-4o", "v-4o", input_tokens="2.5", cached_input_tokens="1.25", output_tokens="10")
FLEX = card("gpt-4o", "v-flex", "flex", input_tokens="1.25", output_tokens="5")
MINI = card("gpt-4o-mini", "v-mini", input_tokens="0.15", output_tokens="0.6")
WHISPER = card("whisper-1", "v-whisper", seconds="0.0001")
TTS = card("tts-1", "v-tts", characters="0.000015")
DALL_E = card("dall-e-2", "v-dalle", images="0.02")
GPT_IMAGE = card("gpt-image-1", "v-image", input_tokens="5", output_tokens="40")


def place(name: str, model: str, *cards: RateCard, provider: str = "openai", **more: Any) -> Deployment:
    fields: dict[str, Any] = {
        "output_tokens_max": 16_384,
        "encoding": "o200k_base",
        "operations": ("chat.completions",),
    }
    return Deployment(name, provider, model, model, cards, **(fields | more))


PLACES = (
    place("openai/gpt-4o", "gpt-4o", GPT_4O, FLEX),
    place("mine/gpt-4o", "gpt-4o", GPT_4O._replace(version="v-mine"), provider="mine"),
    place("openai/gpt-4o-mini", "gpt-4o-mini", MINI),
    place("openai/unpriced", "unpriced"),
    place("openai/endless", "endless", GPT_4O._replace(model="endless"), output_tokens_max=0, encoding=""),
    place("openai/gpt-resp", "gpt-resp", GPT_4O._replace(model="gpt-resp"), operations=("responses",),
          context_tokens_max=128_000),
    place("openai/claude", "claude", GPT_4O._replace(model="claude"), encoding="", operations=("messages",)),
    place("openai/gemini", "gemini", GPT_4O._replace(model="gemini"), encoding="",
          operations=("gemini.generate", "gemini.stream")),
    place("openai/whisper-1", "whisper-1", WHISPER, encoding="", output_tokens_max=0,
          operations=("audio.transcriptions",)),
    place("openai/tts-1", "tts-1", TTS, encoding="", output_tokens_max=0, operations=("audio.speech",)),
    place("openai/dall-e-2", "dall-e-2", DALL_E, encoding="", output_tokens_max=0,
          operations=("images.generations", "images.edits", "images.variations")),
    place("openai/gpt-image-1", "gpt-image-1", GPT_IMAGE, encoding="", operations=("images.generations",)),
)  # fmt: skip
ROUTES = (
    *(Route(each.model, (each.name,)) for each in PLACES if each.name.startswith("openai/")),
    Route("both", ("openai/gpt-4o-mini", "openai/gpt-4o")),
    Route("cheap-then-unpriced", ("openai/gpt-4o-mini", "openai/unpriced")),
    Route("house", ("mine/gpt-4o",)),
)


def catalogue_of(prices: Sequence[Row], projects: Sequence[str], made: MadePlaces = NO_PLACES, /) -> Catalogue:
    providers = (
        Provider("openai", "openai", "https://api.openai.com/v1", {}),
        Provider("mine", "openai", "https://models.example.com/v1", {}),
    )
    return Catalogue(
        providers, PLACES, ROUTES, {"dev": ("mine",)}, tuple(projects),
        charges=(ChargeRule((("team", "resold"),), markup_ppm=100_000, fee=1_000),),
    )  # fmt: skip


class StillGate(AwayGate):
    """A gate that is there, tells these allowances, and is never asked for anything that would hold."""

    def __init__(self, *views: AllowanceView) -> None:
        self.views = list(views)

    async def figures(self) -> Figures:
        raise AssertionError("a quote needs no figures")

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        return Allowances(tuple(view for view in self.views if view.limit in limits))

    async def resolve(self, order: Resolve) -> bool:
        raise AssertionError("a quote ends nothing")

    async def report(self, order: Report) -> Reported:
        raise AssertionError("a quote books nothing")

    async def drain(self) -> None:
        raise AssertionError("a quote stops nothing")


class Quotes:
    """A console with these models, spoken to by an admin."""

    def __init__(self, made: Parts, gate: StillGate) -> None:
        self.made = made
        self.gate = gate
        self.console = replace(made.console, compile_catalogue=catalogue_of)
        self.api = Api(create_app(self.console), made.admin_key())

    def key(self, **fields: Any) -> str:
        return str(create(self.console, NewKey(name="caller", **fields))[0]["id"])

    def limit(self, unit: str, amount: Any, window: str | None = "lifetime", **fields: Any) -> str:
        wanted = {"select": {}, "unit": unit, "amount": amount, "window": window, **fields}
        return str(self.api.post("/api/v1/limits", wanted)["id"])

    def __call__(self, request: Mapping[str, Any] = CHAT, status: int = 200, **more: Any) -> Any:
        return self.api.send("POST", "/api/v1/quote", {"request": dict(request), **more}, status)


@pytest.fixture
def quotes(tmp_path: Path) -> Iterator[Quotes]:
    gate = StillGate()
    with parts(tmp_path, gate=gate) as made:
        yield Quotes(made, gate)


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_a_chat_is_counted_exactly_where_it_is_known_how(quotes: Quotes) -> None:
    """At OpenAI itself both ends of the input meet; all cached and no answer below, the whole cap above."""
    told = quotes()
    assert (told["operation"], told["model"], told["key"]) == ("chat.completions", "gpt-4o", None)
    assert told["input_tokens"] == {"min": CHAT_TOKENS, "max": CHAT_TOKENS, "method": "exact"}
    assert told["output_tokens"] == {"min": 0, "max": 100}
    assert told["cost"] == told["charge"] == {"min": "0.0000125", "max": "0.001025"}
    assert [(each["name"], each["price_version"]) for each in told["deployments"]] == [("openai/gpt-4o", "v-4o")]
    assert [(line["unit"], line["quantity"], line["cost"]) for line in told["lines"]["max"]] == [
        ("input_tokens", CHAT_TOKENS, "0.000025"),
        ("output_tokens", 100, "0.001"),
    ]
    assert told["would_be_refused"] is None
    assert told["max_tokens_that_fits"] == 16_384


def test_nothing_is_promised_about_how_others_count(quotes: Quotes) -> None:
    """A compatible server may count in a way of its own, so that only the bound holds."""
    told = quotes({**CHAT, "model": "house"})
    assert told["input_tokens"] == {"min": 1, "max": CHAT_TOKENS, "method": "counted"}


def test_an_unknown_encoding_is_bounded_by_bytes(quotes: Quotes) -> None:
    """And a model of unknown maximum gets the cap that the gateway would give it."""
    request = {"model": "endless", "messages": CHAT["messages"]}
    told = quotes(request)
    assert told["input_tokens"]["method"] == "bytes"
    assert told["input_tokens"]["max"] >= 30
    assert told["output_tokens"]["max"] == 4_096


def test_without_a_cap_it_is_the_models_whole_answer(quotes: Quotes) -> None:
    """What the gateway holds where it fits; ``n`` answers are billed as many."""
    assert quotes({"model": "gpt-4o", "messages": CHAT["messages"]})["output_tokens"]["max"] == 16_384
    assert quotes({**CHAT, "n": 3})["output_tokens"]["max"] == 300


def test_several_places_make_one_bracket(quotes: Quotes) -> None:
    """From the cheapest to the dearest that may answer."""
    told = quotes({**CHAT, "model": "both"})
    cheap, dear = told["deployments"]
    assert (cheap["name"], dear["name"]) == ("openai/gpt-4o-mini", "openai/gpt-4o")
    assert told["cost"] == {"min": cheap["cost"]["min"], "max": dear["cost"]["max"]}


def test_a_place_that_would_refuse_the_call_is_not_quoted(quotes: Quotes) -> None:
    """The gateway would not bill anything there."""
    told = quotes({**CHAT, "model": "cheap-then-unpriced"})
    assert [each["name"] for each in told["deployments"]] == ["openai/gpt-4o-mini"]


def test_the_tier_asked_for_and_the_standard_one_may_both_answer(quotes: Quotes) -> None:
    """The bracket spans both; the versions of both are told."""
    told = quotes({**CHAT, "service_tier": "flex"})
    assert (told["deployments"][0]["price_version"], told["deployments"][0]["tier_price_version"]) == ("v-4o", "v-flex")
    assert told["cost"] == {"min": "0.0000125", "max": "0.001025"}
    assert quotes({**CHAT, "service_tier": "priority"}, status=400)["code"] == "price_unknown"


def test_charge_follows_the_payers_rule(quotes: Quotes) -> None:
    """A mark-up of 10 percent and a fee, for that team alone."""
    told = quotes(key=quotes.key(team="resold"))
    assert told["deployments"][0]["charge_rule"] == "markup 10 % + fee 0.000001"
    assert told["cost"] == {"min": "0.0000125", "max": "0.001025"}
    assert told["charge"] == {"min": "0.00001475", "max": "0.0011285"}


@pytest.mark.parametrize(
    ("endpoint", "request_body"),
    [
        ("/v1/responses", {"model": "gpt-resp", "input": "Say hello.", "max_output_tokens": 50}),
        ("/v1/responses", {"model": "gpt-resp", "input": "Say hello.", "max_output_tokens": 50, "background": True}),
        ("/v1/messages", {"model": "claude", "max_tokens": 50, "messages": CHAT["messages"]}),
        ("/v1beta/models/gemini:generateContent",
         {"contents": [{"parts": [{"text": "Say hello."}]}], "generationConfig": {"maxOutputTokens": 50}}),
        ("/v1beta/models/gemini:streamGenerateContent?alt=sse",
         {"contents": [{"parts": [{"text": "Say hello."}]}], "generationConfig": {"maxOutputTokens": 50}}),
    ],
)  # fmt: skip
def test_every_format_is_read_by_its_own_dialect(quotes: Quotes, endpoint: str, request_body: dict[str, Any]) -> None:
    """The cap where the format has it, the model in the body or in the path."""
    told = quotes(request_body, endpoint=endpoint)
    assert told["output_tokens"] == {"min": 0, "max": 50}
    assert 3 <= told["input_tokens"]["max"] <= 200
    assert (told["would_be_refused"], told["deployments"][0]["price_version"]) == (None, "v-4o")


def test_what_is_not_in_the_request_is_bounded_by_the_context_window(quotes: Quotes) -> None:
    """A stored file is read, too; a model of unknown window cannot be bounded."""
    part = {"type": "input_file", "file_id": "file-1"}
    request = {"model": "gpt-resp", "input": [{"role": "user", "content": [part]}], "max_output_tokens": 50}
    told = quotes(request, endpoint="/v1/responses")
    assert told["input_tokens"] == {"min": 0, "max": 128_000, "method": "context"}


def test_audio_is_quoted_by_its_seconds(quotes: Quotes) -> None:
    """A form's file is told by its length; an answer may report less."""
    told = quotes({"model": "whisper-1", "seconds": 90, "response_format": "json"}, endpoint="/v1/audio/transcriptions")
    assert told["units"] == [{"unit": "seconds", "variant": None, "min": 0, "max": 90}]
    assert told["cost"] == {"min": "0", "max": "0.009"}


def test_speech_is_quoted_by_its_characters(quotes: Quotes) -> None:
    """As a number, or as the text itself."""
    asked = {"model": "tts-1", "voice": "alloy"}
    by_number = quotes({**asked, "characters": 1_000}, endpoint="audio.speech")
    by_text = quotes({**asked, "input": "x" * 1_000}, endpoint="audio.speech")
    assert by_number["cost"] == by_text["cost"] == {"min": "0.015", "max": "0.015"}
    assert by_number["units"] == [{"unit": "characters", "variant": None, "min": 1_000, "max": 1_000}]


@pytest.mark.parametrize("operation", ["images.generations", "images.edits", "images.variations"])
def test_images_are_quoted_by_their_number(quotes: Quotes, operation: str) -> None:
    """Two images of one size, made from a text or from a picture."""
    request = {"model": "dall-e-2", "n": 2, "size": "256x256"}
    if operation != "images.variations":
        request["prompt"] = "a cat"
    told = quotes(request, endpoint=operation)
    assert (told["cost"], told["max_tokens_that_fits"]) == ({"min": "0.04", "max": "0.04"}, None)
    assert [(each["unit"], each["max"]) for each in told["units"]] == [("images", 2)]


def test_images_that_are_sold_by_their_tokens_are_quoted(quotes: Quotes) -> None:
    """As the gate would send such a call: an image itself needs no price where what it is made of has one."""
    told = quotes({"model": "gpt-image-1", "prompt": "a cat", "quality": "low"}, endpoint="images.generations")
    assert (told["cost"]["min"], told["deployments"][0]["price_version"]) == ("0", "v-image")
    assert told["output_tokens"]["max"] > 0


def test_no_token_is_promised_of_what_is_sold_otherwise(quotes: Quotes) -> None:
    """Records of images and of speech have none."""
    image = quotes({"model": "dall-e-2", "prompt": "a cat", "size": "256x256"}, endpoint="images.generations")
    speech = quotes({"model": "tts-1", "voice": "alloy", "input": "Hello."}, endpoint="audio.speech")
    assert (image["input_tokens"]["min"], speech["input_tokens"]["min"]) == (0, 0)


@pytest.mark.parametrize("endpoint", ["/v1/models", "/v1/files/file-1", "responses.get"])
def test_what_is_free_costs_nothing(quotes: Quotes, endpoint: str) -> None:
    """Lists, and looks at what was charged when it was made."""
    told = quotes({}, endpoint=endpoint)
    assert (told["cost"], told["deployments"]) == ({"min": "0", "max": "0"}, [])


@pytest.mark.parametrize("operation", sorted(DIALECTS))
def test_every_operation_is_understood_or_told_what_is_missing(quotes: Quotes, operation: str) -> None:
    """Whatever dialect is added: an empty request is never an internal error."""
    answer = quotes.api.call("POST", "/api/v1/quote", json={"endpoint": operation, "request": {}})
    assert answer.status_code in (200, 400, 404, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["code"] != "internal"


# -- what fits, and what would be refused ------------------------------------------------------------------------------


def test_the_largest_answer_within_an_amount(quotes: Quotes) -> None:
    """One more token would be too dear; where not even the input fits there is none."""
    told = quotes(amount="0.0005")
    assert told["max_tokens_that_fits"] == 47
    assert quotes(amount="0.00002")["max_tokens_that_fits"] is None


def test_the_gates_own_figures_decide(quotes: Quotes) -> None:
    """What is posted and held right now leaves less than the limit says; the tightest of all limits counts."""
    key = quotes.key(team="research")
    money = quotes.limit("usd", "0.01", select={"team": "research"})
    tokens = quotes.limit("tokens", 500, "day", select={"key": key})
    quotes.limit("usd", "0.000001", select={"team": "somebody else"})
    assert quotes(key=key)["max_tokens_that_fits"] == 490
    quotes.gate.views.append(AllowanceView(money, (), 8_000_000, 1_500_000, 0, 0))
    told = quotes(key=key)
    assert told["max_tokens_that_fits"] == 47
    assert {each["id"]: each["remaining"] for each in told["limits"]} == {money: "0.0005", tokens: 500}
    assert told["would_be_refused"]["code"] == "budget_exhausted"
    assert told["would_be_refused"]["limit"] == money
    assert "0.001025" in told["would_be_refused"]["detail"]
    assert quotes({**CHAT, "max_tokens": 47}, key=key)["would_be_refused"] is None


def test_each_limit_counts_for_its_own_subject(quotes: Quotes) -> None:
    """By the end user that the call would name; another one has the whole amount."""
    key = quotes.key()
    limit = quotes.limit("requests", 5, "lifetime", each=["end_user"])
    quotes.gate.views.append(AllowanceView(limit, ("ada",), 5, 0, 0, 0))
    assert quotes(key=key, user="ada")["would_be_refused"]["limit"] == limit
    assert quotes({**CHAT, "user": "ada"}, key=key)["would_be_refused"]["limit"] == limit
    assert quotes(key=key, user="bob")["would_be_refused"] is None


def test_a_rate_names_its_own_code(quotes: Quotes) -> None:
    """Requests a minute and calls at a time, as the gateway would say."""
    key = quotes.key()
    rate = quotes.limit("requests", 1, "minute")
    start = NOON // (60 * 10**9) * 60 * 10**9
    quotes.gate.views.append(AllowanceView(rate, (), 1, 0, start, start + 60 * 10**9))
    told = quotes(key=key)["would_be_refused"]
    assert (told["code"], told["resets_at"]) == ("rate_limited", "2026-11-21T12:01:00Z")
    quotes.gate.views.clear()
    slots = quotes.limit("concurrency", 1, None)
    quotes.gate.views.append(AllowanceView(slots, (), 0, 1, 0, 0))
    assert quotes(key=key)["would_be_refused"]["code"] == "concurrency_limited"


def test_a_cap_that_would_be_given_or_lowered_is_told(quotes: Quotes) -> None:
    """Without a cap of its own the call gets one that fits; with one only where the limit says clamp."""
    key = quotes.key()
    quotes.limit("tokens", 1_000, "day")
    told = quotes({"model": "gpt-4o", "messages": CHAT["messages"]}, key=key)
    assert (told["clamped_to"], told["would_be_refused"]) == (990, None)
    given = {**CHAT, "max_tokens": 2_000}
    assert quotes(given, key=key)["would_be_refused"]["code"] == "budget_exhausted"
    quotes.limit("tokens", 1_000, "day", clamp=True)
    told = quotes(given, key=key)
    assert (told["clamped_to"], told["would_be_refused"]) == (990, None)


def test_a_soft_limit_refuses_nobody(quotes: Quotes) -> None:
    """It is listed with what is left of it."""
    quotes.limit("usd", "0.0001", mode="soft")
    told = quotes(key=quotes.key())
    assert (told["would_be_refused"], told["limits"][0]["remaining"]) == (None, "0.0001")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"models": ["gpt-4o-mini"]}, "model_forbidden"),
        ({"operations": ["embeddings"]}, "operation_forbidden"),
        ({"role": "admin"}, "role_forbidden"),
    ],
)
def test_a_key_without_the_right_is_told_so(quotes: Quotes, fields: dict[str, Any], code: str) -> None:
    """The price is told all the same."""
    told = quotes(key=quotes.key(**fields))
    assert (told["would_be_refused"]["code"], told["cost"]["max"]) == (code, "0.001025")


def test_a_revoked_key_would_be_refused(quotes: Quotes) -> None:
    """As at the gate."""
    key = quotes.key()
    quotes.api.send("POST", f"/api/v1/keys/{key}/revoke", {})
    assert quotes(key=key)["would_be_refused"]["code"] == "key_revoked"


def test_a_key_that_has_expired_would_be_refused(quotes: Quotes) -> None:
    """By the clock of now."""
    key = quotes.key(expires_at="2026-11-21T12:30:00Z")
    assert quotes(key=key)["would_be_refused"] is None
    quotes.made.clock.now += HOUR
    assert quotes(key=key)["would_be_refused"]["code"] == "key_expired"


def test_the_stage_chooses_the_provider(quotes: Quotes) -> None:
    """Named, or the key's own."""
    assert quotes({**CHAT, "model": "house"}, stage="dev")["deployments"][0]["name"] == "mine/gpt-4o"
    problem = quotes(key=quotes.key(stage="dev"), status=403)
    assert (problem["code"], problem["errors"][0]["field"]) == ("stage_forbidden", "request.model")


def test_a_quote_leaves_nothing_behind(quotes: Quotes) -> None:
    """No record, no hold, no counter, however often it is asked."""
    key = quotes.key()
    quotes.limit("requests", 1, "day")
    for _ in range(3):
        assert quotes(key=key)["would_be_refused"] is None
    assert quotes.api.get("/api/v1/requests")["data"] == []
    assert quotes.made.journal.records == []


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 422, "field_missing", "request"),
        ({"request": []}, 422, "field_type", "request"),
        ({"request": CHAT, "colour": "red"}, 422, "field_unknown", "colour"),
        ({"request": CHAT, "endpoint": "/v1/nothing"}, 404, "not_found", "endpoint"),
        ({"request": CHAT, "endpoint": "chat"}, 422, "field_enum", "endpoint"),
        ({"request": CHAT, "endpoint": "/../v1"}, 400, "uri_invalid", "endpoint"),
        ({"request": CHAT, "endpoint": "/v1/fine_tuning/jobs"}, 404, "operation_unmetered", "endpoint"),
        ({"request": CHAT, "amount": "ten"}, 422, "field_range", "amount"),
        ({"request": CHAT, "amount": 10}, 422, "field_type", "amount"),
        ({"request": CHAT, "key": "key_nobody"}, 404, "not_found", None),
        ({"request": {**CHAT, "model": "nobody"}}, 404, "model_not_found", "request.model"),
        ({"request": {**CHAT, "model": "unpriced"}}, 400, "price_unknown", "request.model"),
        ({"request": {"model": "gpt-4o"}}, 422, "field_missing", "request.messages"),
        ({"request": {**CHAT, "max_tokens": -1}}, 422, "field_range", "request.max_tokens"),
        ({"request": {**CHAT, "api_base": "https://x"}}, 422, "field_forbidden", "request.api_base"),
        ({"request": {"model": "gpt-4o"}, "endpoint": "embeddings"}, 422, "field_missing", "request.input"),
        ({"request": {"model": "whisper-1"}, "endpoint": "audio.transcriptions"}, 422, "field_missing",
         "request.seconds"),
        ({"request": {"model": "whisper-1", "seconds": 1.5}, "endpoint": "audio.transcriptions"}, 422, "field_range",
         "request.seconds"),
        ({"request": {"model": "whisper-1", "seconds": 10**9}, "endpoint": "audio.transcriptions"}, 422, "field_range",
         "request.seconds"),
        ({"request": {"model": "tts-1", "characters": -5}, "endpoint": "audio.speech"}, 422, "field_range",
         "request.characters"),
        ({"request": {"model": "whisper-1", "seconds": 1, 'a"b': "x"}, "endpoint": "audio.transcriptions"}, 422,
         "field_unknown", "request"),
    ],
)  # fmt: skip
def test_bad_input_is_a_problem_that_names_the_field(
    quotes: Quotes, body: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    """RFC 9457, with the code that the gateway would use."""
    answer = quotes.api.call("POST", "/api/v1/quote", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert problem["errors"][0]["field"] == field
    assert "Say hello" not in answer.text


def test_a_body_beyond_the_bound_is_refused(quotes: Quotes) -> None:
    """A megabyte, as everywhere on this port."""
    answer = quotes.api.call("POST", "/api/v1/quote", json={"request": {**CHAT, "x": "y" * 2**20}})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_quote_wants_an_admin(quotes: Quotes) -> None:
    """As everything below ``/api``."""
    anonymous = Api(quotes.api._app)
    assert anonymous.call("POST", "/api/v1/quote", json={"request": CHAT}).status_code == 401
    assert anonymous.call("GET", "/api/encodings").status_code == 401


# -- the tokenizer service ---------------------------------------------------------------------------------------------


def test_a_text_is_tokenized_by_query_and_by_body(quotes: Quotes) -> None:
    """Encoding, count, ids and strings; a configured name stands for its model."""
    by_query = quotes.api.get("/api/tokenize?input=hello%20world&model=both")
    by_body = quotes.api.post("/api/tokenize", {"input": "hello world", "model": "both"}, 200)
    assert by_query == by_body
    assert (by_body["encoding"], by_body["count"], by_body["strings"]) == ("o200k_base", 2, ["hello", " world"])
    assert by_body["fallback"] is False


def test_messages_are_counted_as_a_prompt(quotes: Quotes) -> None:
    """The figure of the quote."""
    told = quotes.api.post("/api/tokenize", {"input": CHAT["messages"], "model": "gpt-4o"}, 200)
    assert (told["count"], told["exact"]) == (CHAT_TOKENS, True)


def test_a_question_without_input_is_422(quotes: Quotes) -> None:
    """By query and by body."""
    assert quotes.api.get("/api/tokenize?model=gpt-4o", 422)["code"] == "field_missing"
    problem = quotes.api.post("/api/tokenize", {"model": "gpt-4o"}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_missing", "input")


def test_encodings_are_listed(quotes: Quotes) -> None:
    """With the models that have them."""
    assert quotes.api.get("/api/encodings")["models"]["gpt-4o"] == "o200k_base"


def test_without_a_tokenizer_quotes_are_bounded_and_the_service_is_away(quotes: Quotes) -> None:
    """Nothing is made up."""
    api = Api(create_app(replace(quotes.console, tokenizer=None)), quotes.made.admin_key("other"))
    assert api.send("POST", "/api/v1/quote", {"request": CHAT})["input_tokens"]["method"] == "bytes"
    assert api.get("/api/encodings", 503)["code"] == "unavailable"
