"""What Anthropic's answers and the events of their streams say they used.

Owns the leaves of a usage report, how a stream puts its two halves together, and the text that counts where no usage
is told. Knows the fields of this one wire format (Anthropic, "Messages API", "Streaming messages", "Prompt caching").
"""

from typing import Any, Final

import msgspec

from faregate.core.metering.meter import Event, Report
from faregate.core.usage import COUNT_MAX, NO_USAGE, Contradiction, Measure, Usage
from faregate.dialects import answers
from faregate.dialects.anthropic_shapes import Answer, PlainEvent, StreamEvent
from faregate.dialects.jsonbody import DECODING_ERRORS

#: Every event that ends a stream has it, and so has nothing else that needs a look at once.
LAST_MARK: Final = b'"message_stop"'

_encode = msgspec.json.Encoder().encode

# -- usage ------------------------------------------------------------------------------------------------------------

#: What is known of a usage report; any other member that says something may be billed.
_KNOWN: Final = frozenset(
    """
    input_tokens output_tokens cache_creation_input_tokens cache_read_input_tokens cache_creation server_tool_use
    service_tier inference_geo speed output_tokens_details iterations
    """.split()
)
#: Those that hold nothing which could be unknown.
_PLAIN: Final = frozenset(
    """
    input_tokens output_tokens cache_creation_input_tokens cache_read_input_tokens cache_creation service_tier
    output_tokens_details
    """.split()
)
#: Fetching a page costs its tokens alone; code runs free of charge wherever it is let through.
_KNOWN_TOOLS: Final = frozenset(("web_search_requests", "web_fetch_requests", "tool_search_requests"))
#: Regions and speeds that have no price of their own.
_ORDINARY: Final = frozenset((None, "", "global", "not_available", "standard"))

_MISSING: Final = "input or output tokens are missing"
_HOUR_RULE: Final = "cache writes of 5 minutes and of 1 hour do not add up to all cache writes"


def leaves(told: dict[str, Any]) -> Usage | Contradiction:
    """The disjoint leaves of a usage report. Anthropic's counts do not overlap, but for thinking and cache writes.

    ``input_tokens`` are those after the last cache breakpoint, so that what was read from or written to the cache
    comes on top (Anthropic, "Prompt caching", tracking cache performance).
    """
    if told.get("input_tokens") is None or told.get("output_tokens") is None:
        return Contradiction(_MISSING)
    details = told.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
    tools = told.get("server_tool_use")
    searches = tools.get("web_search_requests") if isinstance(tools, dict) else None
    creation = told.get("cache_creation")
    parts = creation if isinstance(creation, dict) else {}
    counts: list[int] = []
    for value, what in (
        (told["input_tokens"], "input tokens"),
        (told.get("cache_read_input_tokens"), "cached tokens"),
        (told.get("cache_creation_input_tokens"), "cache write tokens"),
        (parts.get("ephemeral_5m_input_tokens"), "cache write tokens of 5 minutes"),
        (parts.get("ephemeral_1h_input_tokens"), "cache write tokens of 1 hour"),
        (told["output_tokens"], "output tokens"),
        (thinking, "thinking tokens"),
        (searches, "web searches"),
    ):
        count = 0 if value is None else value
        if type(count) is not int:
            return Contradiction(f"{what} are not a whole number")
        if not 0 <= count <= COUNT_MAX:
            return Contradiction(f"{what} are outside 0 to {COUNT_MAX}")
        counts.append(count)
    text, cached, write, minutes, hour, output, reasoning, searched = counts
    if not parts:
        minutes = write
    elif told.get("cache_creation_input_tokens") is not None and minutes + hour != write:
        return Contradiction(_HOUR_RULE)
    if reasoning > output:
        return Contradiction("thinking tokens exceed output tokens")
    if text + cached + minutes + hour > COUNT_MAX:
        return Contradiction(f"input tokens are outside 0 to {COUNT_MAX}")
    found = []
    if hour:
        found.append(Measure("cache_write_1h_tokens", "", hour))
    if searched:
        found.append(Measure("web_searches", "", searched))
    return Usage(text, cached, minutes, 0, output - reasoning, reasoning, 0, tuple(found))


def unknown(told: dict[str, Any]) -> int:
    """How many members of a usage report say something that nobody here knows how to bill."""
    if _PLAIN.issuperset(told):
        return 0
    strangers = sum(told[name] not in (None, 0) for name in told.keys() - _KNOWN)
    strangers += sum(told.get(name) not in _ORDINARY for name in ("inference_geo", "speed") if _is_text(told.get(name)))
    tools = told.get("server_tool_use")
    if isinstance(tools, dict):
        strangers += sum(tools[name] not in (None, 0) for name in tools.keys() - _KNOWN_TOOLS)
    iterations = told.get("iterations")
    if isinstance(iterations, list):
        # Some, such as a compaction, come on top of all that the report says itself.
        strangers += sum(not isinstance(each, dict) or each.get("type") != "message" for each in iterations)
    return strangers


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _tier(told: dict[str, Any]) -> str:
    tier = told.get("service_tier")
    return tier if isinstance(tier, str) and tier in ("priority", "batch") else ""


_answer = msgspec.json.Decoder(Answer).decode


def report_of(body: bytes) -> Report:
    """What a whole answer reports. Never raises."""
    try:
        answer = _answer(body)
        model, id, told = answer.model or "", answer.id or "", answer.usage
    except DECODING_ERRORS:
        value = answers.loose(body)
        if not isinstance(value, dict):
            return Report(None, "the answer is not a JSON object")
        model, id, told = answers.short(value.get("model")), answers.short(value.get("id")), value.get("usage")
        if told is not None and not isinstance(told, dict):
            return Report(None, "the usage report is not an object", model, id)
    model, id = model[: answers.NAME_CHARACTERS_MAX], id[: answers.NAME_CHARACTERS_MAX]
    if told is None:
        return Report(None, "", model, id)
    usage = leaves(told)
    if isinstance(usage, Contradiction):
        return Report(None, usage.rule, model, id, _tier(told), unknown(told))
    return Report(usage, "", model, id, _tier(told), unknown(told))


def report_of_count(body: bytes) -> Report:
    """A count of tokens used nothing, whatever it says. Never raises."""
    return Report(NO_USAGE)


def answer_text(body: bytes) -> str:
    """The text of a whole answer that is billed as output: text, thinking and calls of tools."""
    value = answers.loose(body)
    content = value.get("content") if isinstance(value, dict) else None
    texts: list[str] = []
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        texts += [block[name] for name in ("text", "thinking", "name") if isinstance(block.get(name), str)]
        if isinstance(block.get("input"), dict):
            texts.append(_encode(block["input"]).decode())
    return "".join(texts)


# -- streams ----------------------------------------------------------------------------------------------------------

_event = msgspec.json.Decoder(StreamEvent).decode
_plain_event = msgspec.json.Decoder(PlainEvent).decode


class MessageEvents:
    """Understands the events of one stream; see ``EventDecoder``.

    What was used is told in two parts, so it keeps what the first one said: ``message_start`` has the input, and
    ``message_delta`` replaces what it names by the totals at the end (Anthropic, "Streaming messages").
    """

    __slots__ = ("_told", "block")

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}
        #: The content block that has begun and not ended; -1 where there is none.
        self.block = -1

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        try:
            return "".join([event.delta.text for event in map(_plain_event, payloads)])
        except DECODING_ERRORS:
            return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        try:
            event = _event(payload)
        except DECODING_ERRORS:
            return self._odd(payload)
        kind = event.type
        if kind == "content_block_delta":
            delta = event.delta
            if delta is None:
                return ""
            return delta.text or delta.thinking or delta.partial_json or ""
        if kind == "content_block_start":
            block = event.content_block
            self.block = event.index
            return "" if block is None else f"{block.name or ''}{block.text or ''}{block.thinking or ''}"
        if kind == "message_start":
            message = event.message
            if message is None:
                return Event(bare=True)
            return self._used(message.usage, 0, answers.short(message.model), answers.short(message.id))
        if kind == "message_delta":
            ended = event.delta is not None and event.delta.stop_reason is not None
            return self._used(event.usage, int(ended))
        if kind == "message_stop":
            return Event(last=True)
        if kind == "content_block_stop":
            self.block = -1
        return Event(error=True) if kind == "error" else ""

    def _used(self, told: dict[str, Any] | None, finished: int, model: str = "", id: str = "") -> Event:
        if told is None:
            return Event(finished=finished, bare=True, model=model, id=id)
        kept = self._told
        grown = told.get("cache_creation_input_tokens")
        if "cache_creation" not in told and isinstance(grown, int):
            kept["cache_creation"] = _written_later(kept.get("cache_creation"), grown)
        kept.update({name: value for name, value in told.items() if value is not None})
        return Event("", finished, leaves(kept), True, False, model, id, False, _tier(kept), unknown(kept))

    def _odd(self, payload: bytes) -> Event:
        """What an event says that does not fit the documented shape."""
        value = answers.loose(payload)
        if not isinstance(value, dict):
            return Event(malformed=True)
        if value.get("type") == "error":
            return Event(error=True)
        message = value.get("message")
        told = message.get("usage") if isinstance(message, dict) else value.get("usage")
        if isinstance(told, dict):
            return self._used(told, int(value.get("type") == "message_delta"))
        texts = answers.texts_of(value.get("delta")) + answers.texts_of(value.get("content_block"))
        usage = None if told is None else Contradiction("the usage report is not an object")
        return Event("".join(texts), usage=usage)


def _written_later(creation: Any, total: int) -> Any:
    """The split of cache writes where only their total is told anew: what came on top lives as long as the rest.

    Both lengths at once leave that open; then it is the shorter one, which is what is written without asking.
    """
    if not isinstance(creation, dict):
        return creation
    minutes, hour = creation.get("ephemeral_5m_input_tokens") or 0, creation.get("ephemeral_1h_input_tokens") or 0
    if type(minutes) is not int or type(hour) is not int or total <= minutes + hour:
        return creation
    if hour and not minutes:
        return {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": total}
    return {"ephemeral_5m_input_tokens": total - hour, "ephemeral_1h_input_tokens": hour}
