"""What OpenAI's Responses say they used: whole answers, stored ones, and the events of a stream.

The report of a response is its ``usage`` and what its hosted tools used, which the items of its output and
``tool_usage`` tell. One that is queued or in progress is not done: its cost is learnt when it is asked for again. A
stream says so in its last event, ``response.completed``, ``.incomplete`` or ``.failed``; all its text comes in events
whose type ends in ``.delta``. (OpenAI, "API reference: Responses", the response object and streaming events.)
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from faregate.core import usage as units
from faregate.core.metering.meter import Event, Report
from faregate.dialects import answers, hosted_tools
from faregate.dialects.jsonbody import DECODING_ERRORS
from faregate.dialects.kept import RESPONSE, Made, Outcome
from faregate.dialects.responses_shapes import (
    AddedItem,
    CacheWriteDetails,
    InputTokensDetails,
    KeptResponse,
    OutputTokensDetails,
    PlainDelta,
    Response,
    ResponseEvent,
    ResponseUsage,
)

#: Every event that tells how the response stands has this member, and no event with text does.
LAST_MARK: Final = b'"response"'

#: A response that begins repeats what was asked; one with long instructions is not kept for each stream.
_BEGUN_BYTES_MAX: Final = 16 * 1024

_PENDING: Final = ("queued", "in_progress")
_ENDED: Final = ("completed", "incomplete", "failed", "cancelled")
#: The id of a response that cannot be decoded, in so many of its first bytes.
_ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,120})"')
_ID_WITHIN: Final = 4096
_LAST: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
#: Deltas that are no text of the model's: sound, and what a command wrote.
_NO_TEXT: Final = frozenset(("response.audio.delta", "response.shell_call_output_content.delta"))

_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset(ResponseUsage.__struct_fields__),
    "input_tokens_details": frozenset(InputTokensDetails.__struct_fields__),
    "output_tokens_details": frozenset(OutputTokensDetails.__struct_fields__),
}
_KNOWN_WRITES: Final = frozenset(CacheWriteDetails.__struct_fields__)

_response = msgspec.json.Decoder(Response).decode
_kept = msgspec.json.Decoder(KeptResponse).decode
_event = msgspec.json.Decoder(ResponseEvent).decode
_plain_delta = msgspec.json.Decoder(PlainDelta).decode
_added = msgspec.json.Decoder(AddedItem).decode


def report_of(body: bytes) -> Report:
    """What a whole response reports, stored or just made. Never raises."""
    try:
        response = _response(body)
    except DECODING_ERRORS:
        return _loose_report(answers.loose(body))
    told = response.usage
    usage = None if told is None else _leaves(told)
    return _report(response, usage, 0 if told is None else _long_writes(told))


def made(body: bytes) -> tuple[Made, ...]:
    """The response itself, unless the provider says that it does not keep it. Never raises."""
    try:
        told = _kept(body)
    except DECODING_ERRORS:
        # Too large to be held whole, or of unexpected shape: its id is among its first members.
        found = _ID.search(body, 0, _ID_WITHIN)
        return (Made(found[1].decode(), RESPONSE),) if found is not None else ()
    return (Made(told.id, RESPONSE),) if told.id and told.store is not False else ()


def outcome(body: bytes) -> Outcome:
    """What a stored response says of the work behind it. Never raises.

    One that was cancelled or failed and tells no usage used nothing, where it has no output either.
    """
    report = report_of(body)
    if report.pending:
        return Outcome()
    value = answers.loose(body)
    status = value.get("status") if isinstance(value, dict) else None
    if status not in _ENDED:
        return Outcome()
    text = "" if report.usage is not None else answer_text(body)
    if report.usage is None and not report.invalid and not text and status in ("failed", "cancelled"):
        report = report._replace(usage=units.NO_USAGE)
    # What ended at its cap did all that it was asked.
    return Outcome(True, status in ("completed", "incomplete"), report, (), len(text))


def _leaves(told: ResponseUsage) -> units.Usage | units.Contradiction:
    if told.input_tokens is None or told.output_tokens is None:
        return units.Contradiction(answers.MISSING)
    parts_in, parts_out = told.input_tokens_details, told.output_tokens_details
    return units.split(
        told.input_tokens,
        told.output_tokens,
        total=told.total_tokens,
        cached=0 if parts_in is None else parts_in.cached_tokens or 0,
        cache_write=0 if parts_in is None else parts_in.cache_write_tokens or 0,
        reasoning=0 if parts_out is None else parts_out.reasoning_tokens or 0,
    )


def _long_writes(told: ResponseUsage) -> int:
    """1 where something was written to the cache for longer than the list price of a write says."""
    details = told.input_tokens_details
    writes = None if details is None else details.cache_write_tokens_details
    return int(writes is not None and bool(writes.ttl_12h_tokens))


def _report(response: Response, usage: units.Usage | units.Contradiction | None, unknown: int) -> Report:
    model, id, tier = answers.short(response.model), answers.short(response.id), answers.short(response.service_tier)
    if response.status in _PENDING:
        return Report(None, "", model, id, tier, unknown, True)
    used, strange = hosted_tools.used(response)
    unknown += strange
    if isinstance(usage, units.Contradiction):
        return Report(None, usage.rule, model, id, tier, unknown)
    if usage is None and response.status == "failed" and not response.output:
        # It failed before it made anything, which is not billed.
        usage = units.NO_USAGE
    if usage is not None and used:
        usage = usage._replace(other=used)
    return Report(usage, "", model, id, tier, unknown)


def _loose_report(value: Any) -> Report:
    """What a response of unexpected shape reports: its usage as it stands, its tools as far as they fit."""
    if not isinstance(value, dict):
        return Report(None, "the answer is not a JSON object")
    told = value.get("usage")
    usage = None if told is None else _loose_usage(told)
    unknown = answers.unknown_members(told, _KNOWN) + _unknown_writes(told)
    fitting = {
        name: value[name] for name in ("model", "id", "service_tier", "status") if isinstance(value.get(name), str)
    }
    for name in ("output", "tools"):
        if isinstance(value.get(name), list):
            fitting[name] = [part for part in value[name] if _fits({name: [part]})]
    if _fits({"tool_usage": value.get("tool_usage")}):
        fitting["tool_usage"] = value.get("tool_usage")
    return _report(msgspec.convert(fitting, Response), usage, unknown)


def _fits(value: dict[str, Any]) -> bool:
    try:
        msgspec.convert(value, Response)
    except msgspec.ValidationError:
        return False
    return True


def _loose_usage(told: Any) -> units.Usage | units.Contradiction:
    if not isinstance(told, dict):
        return units.Contradiction("the usage report is not an object")
    incoming, outgoing = told.get("input_tokens"), told.get("output_tokens")
    if incoming is None or outgoing is None:
        return units.Contradiction(answers.MISSING)
    parts_in, parts_out = told.get("input_tokens_details"), told.get("output_tokens_details")
    parts_in = parts_in if isinstance(parts_in, dict) else {}
    parts_out = parts_out if isinstance(parts_out, dict) else {}
    return units.split(
        incoming,
        outgoing,
        total=told.get("total_tokens"),
        cached=parts_in.get("cached_tokens"),
        cache_write=parts_in.get("cache_write_tokens"),
        reasoning=parts_out.get("reasoning_tokens"),
    )


def _unknown_writes(told: Any) -> int:
    """How many members that tell of writes to the cache nobody here knows, or knows no price of."""
    details = told.get("input_tokens_details") if isinstance(told, dict) else None
    writes = details.get("cache_write_tokens_details") if isinstance(details, dict) else None
    if not isinstance(writes, dict):
        return 0
    return sum(bool(value) for name, value in writes.items() if name not in _KNOWN_WRITES or name == "ttl_12h_tokens")


# -- text, for counting where no usage is reported ---------------------------------------------------------------------

#: Members of output items that the model wrote.
_WRITTEN: Final = (
    "content",
    "summary",
    "name",
    "arguments",
    "input",
    "code",
    "action",
    "operation",
    "query",
    "queries",
)


def answer_text(body: bytes) -> str:
    """The text of a whole response that is billed as output, all items one after the other."""
    value = answers.loose(body)
    output = value.get("output") if isinstance(value, dict) else None
    texts: list[str] = []
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict):
            for member in _WRITTEN:
                texts += _texts(item.get(member))
    return "".join(texts)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, dict):
        # Annotations point at sources, and probabilities repeat the text.
        skipped = ("type", "annotations", "logprobs", "sources")
        return [text for name, part in value.items() if name not in skipped for text in _texts(part)]
    return []


# -- streams -----------------------------------------------------------------------------------------------------------


class ResponseEvents:
    """Understands the events of one stream; see ``EventDecoder``. What an event says does not depend on others.

    It keeps the response as it stood when it began, for an end that the provider does not come to write.
    """

    __slots__ = ("begun",)

    def __init__(self) -> None:
        #: JSON; empty where none came, or one that is too large to be kept.
        self.begun = b""

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        try:
            deltas = [_plain_delta(payload) for payload in payloads]
        except DECODING_ERRORS:
            return None
        if all(_is_text(event.type) for event in deltas):
            return "".join([event.delta for event in deltas])
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        try:
            event = _event(payload)
        except DECODING_ERRORS:
            return _odd_event(payload)
        kind = event.type
        if event.delta is not None:
            return event.delta if _is_text(kind) else ""
        if len(event.response):
            response = bytes(event.response)
            if not self.begun and len(response) <= _BEGUN_BYTES_MAX:
                self.begun = response
            return _told(kind, report_of(response))
        if kind == "response.output_item.added" and len(event.item):
            return _name_of(event.item)
        # The error event is the last one; the others repeat what deltas said, or tell how a tool gets on.
        return Event(error=True, last=True) if kind == "error" else ""


def _is_text(kind: str) -> bool:
    return kind[-6:] == ".delta" and kind not in _NO_TEXT


def _name_of(item: msgspec.Raw) -> str:
    """The name of the function that the model chose: it is output, and in no delta."""
    try:
        added = _added(item)
    except DECODING_ERRORS:
        return ""
    return added.name or "" if added.type in ("function_call", "custom_tool_call") else ""


def _told(kind: str, report: Report) -> Event:
    """What an event says that holds the response."""
    if kind not in _LAST:
        return Event(model=report.model, id=report.id, service_tier=report.service_tier)
    failed = kind == "response.failed"
    usage: units.Usage | units.Contradiction | None = report.usage
    if report.invalid:
        usage = units.Contradiction(report.invalid)
    elif failed and usage == units.NO_USAGE:
        # What was delivered before it failed is counted.
        usage = None
    return Event("", 1, usage, False, failed, report.model, report.id, False, report.service_tier, report.unknown, True)


def _odd_event(payload: bytes) -> Event | str:
    """What an event says that does not fit the documented shape. Never raises."""
    value = answers.loose(payload)
    if not isinstance(value, dict):
        return Event(malformed=True)
    kind = value.get("type")
    response = value.get("response")
    if isinstance(kind, str) and isinstance(response, dict):
        return _told(kind, _loose_report(response))
    if isinstance(kind, str) and kind in _NO_TEXT:
        return ""
    return Event("".join(answers.texts_of(value.get("delta"))), error=value.get("error") is not None or kind == "error")
