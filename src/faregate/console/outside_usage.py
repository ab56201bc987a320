"""What a call used and cost that went past the gate: from its answer as it came, by the meters and prices of the gate.

It knows neither keys nor limits. The format of an answer is known by what the answer itself says; the provider's own
report of its usage stands, and where there is none the text is counted. Events of a stream are never taken for tokens,
and a model without a price is refused, whatever it was called.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from faregate.console.problems import ApiProblem
from faregate.control import Catalogue, Deployment
from faregate.core.attribution import Attribution
from faregate.core.metering import sse
from faregate.core.metering.fallback import estimate
from faregate.core.metering.meter import Metered, StreamMeter, metered_answer
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.charging import charge, rule_for, text_of
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import COUNT_MAX, NO_USAGE, Usage
from faregate.dialects import DIALECTS, Dialect
from faregate.dialects.answers import short
from faregate.ports import Tokenizer

#: What records call the operation of such a call; limits and charge rules select on it as ``service``.
SERVICE: Final = "reported"

#: What an answer calls itself → its operation.
_OBJECTS: Final = {
    "chat.completion": "chat.completions",
    "chat.completion.chunk": "chat.completions",
    "text_completion": "completions",
    "list": "embeddings",
    "response": "responses",
}
#: Beginnings of the types of events, in formats that name them.
_EVENTS: Final = {"response.": "responses", "message": "messages", "content_block": "messages"}

#: Providers answer with the dated name of a model that is asked for by its plain one.
_DATED: Final = re.compile(r"(.+?)[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{3})")

_FIELD: Final = "responseBody"


class Heard(NamedTuple):
    """An answer as its dialect understood it."""

    operation: str
    #: Which model answered, empty where it does not say.
    model: str
    metered: Metered
    stream: bool

    @property
    def failed(self) -> bool:
        """It is an error of the provider's, which used nothing."""
        return self.metered.error and self.metered.report.usage is None and not self.metered.characters


class Charged(NamedTuple):
    """What a call is booked with; amounts are nano-dollars."""

    place: Deployment
    usage: Usage
    source: str
    cost: int
    charge: int
    price_version: str
    charge_rule: str
    #: A unit that was used and has no price, empty where there is none.
    unpriced: str


def hear(answer: str) -> Heard:
    """Understand an answer: a JSON object, or the text of a stream.

    Raises:
        ApiProblem: it is neither, or in no format that is metered here.
    """
    body = answer.encode("utf-8", "replace").strip()
    if body[:1] == b"{":
        value = _object(body)
        if value is None:
            raise ApiProblem("field_type", "begins like JSON and is none", field=_FIELD)
        return _whole(value, body)
    for event in sse.events(body + b"\n\n"):
        value = _object(sse.payload(event) or b"")
        if value is not None:
            return _stream(value, body + b"\n\n")
    raise ApiProblem("field_type", "is neither a JSON object nor a stream of events that hold JSON", field=_FIELD)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _operation(value: dict[str, Any]) -> str:
    """The operation that an answer, or an event of one, belongs to; empty where none is known."""
    for told in (value.get("object"), value.get("type")):
        if isinstance(told, str):
            known = _OBJECTS.get(told) or next((name for start, name in _EVENTS.items() if told.startswith(start)), "")
            if known:
                return known
    if "candidates" in value or "usageMetadata" in value:
        return "gemini.generate"
    # Many servers leave out what the object is; an error says nothing of its format.
    return "chat.completions" if {"choices", "usage", "error"} & set(value) else ""


def _dialect(value: dict[str, Any]) -> tuple[str, Dialect]:
    operation = _operation(value)
    dialect = DIALECTS.get(operation)
    if dialect is None:
        formats = "chat, completions, embeddings, responses, Anthropic's messages and Gemini's generateContent"
        raise ApiProblem("field_type", f"is no answer of a format that is known: {formats}", field=_FIELD)
    return operation, dialect


def _whole(value: dict[str, Any], body: bytes) -> Heard:
    operation, dialect = _dialect(value)
    report = dialect.usage_of(body)
    metered = metered_answer(report, dialect.answer_text(body))
    error = value.get("error") is not None
    return Heard(operation, report.model, metered._replace(error=error), stream=False)


def _stream(first: dict[str, Any], body: bytes) -> Heard:
    operation, dialect = _dialect(first)
    meter = StreamMeter(dialect.events(), False, 1, dialect.last_mark)
    meter.feed(body)
    meter.tail()
    metered = meter.finish("complete" if meter.done or meter.finish_seen else "cut")
    # Events that hold nothing but text are not looked through for more.
    return Heard(operation, metered.report.model or short(first.get("model")), metered, stream=True)


def place_of(catalogue: Catalogue, model: str, deployment: str = "") -> Deployment:
    """Where a call of ``model`` is priced: at ``deployment``, else at the first place of the model, dated or not.

    Raises:
        ApiProblem: ``price_unknown``: no place has this model; ``field_range``: no deployment is called so.
    """
    if deployment:
        named = next((each for each in catalogue.deployments if each.name == deployment), None)
        if named is None:
            raise ApiProblem("field_range", "there is no deployment of this name", field="deployment")
        return named
    if not model:
        raise ApiProblem("field_missing", "names no model; say which deployment answered", field="deployment")
    places = {each.name: each for each in catalogue.deployments}
    for name in _names(model):
        routed = (place for route in catalogue.routes if route.model == name for place in route.to)
        found = [places[place] for place in routed if place in places]
        found += [each for each in catalogue.deployments if name in (each.model, each.upstream_model)]
        if found:
            return next((each for each in found if each.cards), found[0])
    raise _unpriced()


def _names(model: str) -> Iterable[str]:
    """The model as it was told, then without its date, then as others than Azure write it."""
    yield model
    dated = _DATED.fullmatch(model)
    plain = dated[1] if dated is not None else model
    if plain != model:
        yield plain
    if "gpt-35-" in plain:
        yield plain.replace("gpt-35-", "gpt-3.5-")


def _unpriced() -> ApiProblem:
    rule = "the model that answered has no price here; an administrator must set one, then report the call again"
    return ApiProblem("price_unknown", rule, field=_FIELD)


def used(heard: Heard, prompt: str | None, place: Deployment, tokenizer: Tokenizer | None) -> tuple[Usage, str]:
    """What a call used, and how that is known.

    Raises:
        ApiProblem: the provider told nothing, and there is no prompt or no tokenizer to count with.
    """
    told = heard.metered.told
    if told is not None:
        return told, "provider"
    if tokenizer is None:
        raise ApiProblem("unavailable", "the answer tells no usage, and nobody counts tokens here", field=_FIELD)
    if prompt is None:
        rule = "the answer tells no usage, so that the prompt is needed to count its tokens"
        raise ApiProblem("field_missing", rule, field="prompt")
    encoding = place.encoding or tokenizer.encoding_of(place.model)
    counted = estimate(
        heard.metered,
        tokenizer,
        encoding,
        input_tokens=min(_prompt_tokens(heard.operation, prompt, place, tokenizer, encoding), COUNT_MAX),
        output_tokens_max=COUNT_MAX,
    )
    return counted.usage, counted.source


def _prompt_tokens(operation: str, prompt: str, place: Deployment, tokenizer: Tokenizer, encoding: str) -> int:
    """Input tokens of a prompt: the body of a request, a list of messages, or the text of one message."""
    value: Any = None
    if prompt.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(prompt)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        value = {"messages": value}
    if isinstance(value, dict) and operation != "chat.completions":
        dialect, body = DIALECTS[operation], json.dumps(value).encode()
        texts = dialect.prompt_text(body)
        return sum(tokenizer.count(text, encoding) for text in texts) + dialect.prompt_tokens_overhead(body)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        tools = value.get("tools")
        return tokenizer.prompt(value["messages"], tools if isinstance(tools, list) else [], place.model).tokens
    if operation == "chat.completions":
        return tokenizer.prompt([{"role": "user", "content": prompt}], [], place.model).tokens
    return tokenizer.count(prompt, encoding)


def charged(
    catalogue: Catalogue, place: Deployment, who: Attribution, heard: Heard, usage: Usage, source: str, now: int
) -> Charged:
    """What ``who`` is charged for ``usage`` at a place, by the prices in force ``now``, in nanoseconds since 1970.

    Raises:
        ApiProblem: ``price_unknown``: no price is in force for it.
    """
    tariff = _tariff(place, heard.metered.report.service_tier, now)
    if tariff is None:
        raise _unpriced()
    cost = tariff.cost(usage)
    rule = rule_for(catalogue.charges, who)
    text = text_of(rule) if rule is not None else ""
    due = charge(rule, cost, used=usage != NO_USAGE) if rule is not None and text else cost
    unpriced = tariff.uncovered(usage.other).partition(" ")[0] if usage.other else ""
    return Charged(place, usage, source, cost, due, tariff.version, text, unpriced)


def _tariff(place: Deployment, tier: str, now: int) -> Tariff | None:
    """The tariff of the service tier that answered, else the standard one."""
    for wanted in dict.fromkeys((tier, "")):
        tariff = PriceTimeline(card for card in place.cards if card.service_tier == wanted).at(now)
        if tariff is not None:
            return tariff
    return None


def attributed(key: dict[str, Any], place: Deployment) -> Attribution:
    """Who is charged for a reported call of a key's row at a place."""
    return Attribution(
        organization=key["organization"],
        team=key["team"],
        project=key["project"],
        user=key["user"],
        key=key["id"],
        product=key["product"],
        stage=key["stage"],
        model=place.model,
        deployment=place.name,
        provider=place.provider,
        service=SERVICE,
    )
