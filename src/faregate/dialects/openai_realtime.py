"""OpenAI's Realtime events, in both generations: what each means for the money of a session, and the few edits.

A session is a series of turns. What begins a turn, and so may cost something, is a ``response.create``; or voice
activity detection with ``create_response``, which the gate therefore always turns off towards the provider and does
itself, so that no response begins that nothing was held for (docs/decisions/013). An event that is not listed in
``CLIENT_EVENTS`` never reaches the provider. Knows no limit, no socket and no clock.

Generations: what is in service today nests audio settings below ``session.audio``; the beta, which is also what Azure's
dated api-versions speak, has them at the top of ``session`` (OpenAI, "Realtime API: beta to GA migration").
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.core.strict_json import Twice, once
from faregate.dialects import media_usage
from faregate.dialects.errors_shape import render
from faregate.dialects.jsonbody import DECODING_ERRORS, members
from faregate.dialects.operations import AZURE
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.dialects.realtime_shapes import ErrorEvent, Heading, ResponseEvent, SessionEvent, Transcript
from faregate.dialects.realtime_usage import report_of, reported
from faregate.dialects.splice import put, span_of
from faregate.dialects.urls import is_public_https
from faregate.errors import Problem

OPERATION: Final = "realtime"
#: What a transcript of the caller's audio is booked as; another model makes it, at its own price.
TRANSCRIPTION: Final = "realtime.transcription"

#: Everything a client may say (OpenAI, "API reference: Realtime, client events").
CLIENT_EVENTS: Final = frozenset(
    """
    session.update input_audio_buffer.append input_audio_buffer.commit input_audio_buffer.clear
    conversation.item.create conversation.item.retrieve conversation.item.truncate conversation.item.delete
    response.create response.cancel output_audio_buffer.clear
    """.split()
)

#: A response has at most so many output tokens, whatever the model (OpenAI, ``max_output_tokens``: "between 1 and
#: 4096"); ``inf`` is the model's own maximum.
CAP_MAX: Final = 4_096

#: Framing of an item, of the answer to come and of what separates them; real ones are about ten.
ITEM_TOKENS: Final = 32

EVENT_ID_CHARACTERS_MAX: Final = 512

#: Commas and opening brackets of one event: what it takes to read and to edit it grows with them, and nobody else is
#: served meanwhile. A conversation that a model can read has fewer, also where it is a table.
MARKS_MAX: Final = 65_536

#: Where longer events are not valid JSON, nobody looks for the place: that may take long.
EXPLAINED_BYTES_MAX: Final = 2_048

#: Of what a transcriber is told beforehand; each byte may be a token (OpenAI, "transcription.prompt": a hint).
PROMPT_BYTES_MAX: Final = 1_024

#: Bytes of a second of sound by format: 24 kHz in 16 bits, and the two of telephony (OpenAI, "Realtime audio formats").
_PCM_BYTES: Final = 48_000
_TELEPHONY_BYTES: Final = 8_000

_GONE: Final = object()

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


# -- where a session is opened -----------------------------------------------------------------------------------------


def upstream_target(kind: str, prefix: str, model: str, beta: bool, api_version: str) -> str:
    """Path and query of a session at a provider; ``prefix`` is the path of its base URL.

    (Microsoft, "Use the GPT Realtime API via WebSockets": ``/openai/v1/realtime?model=``, and with dated versions
    ``/openai/realtime?api-version=…&deployment=…``.)
    """
    named = quote(model, safe="")
    if kind != AZURE:
        return f"{prefix}/realtime?model={named}"
    if beta:
        return f"{prefix}/openai/realtime?api-version={quote(api_version, safe='')}&deployment={named}"
    return f"{prefix}/openai/v1/realtime?model={named}"


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """The refusal of a plain request to what is a WebSocket."""
    del body, model, forbid_private_urls
    text = "Header Upgrade: a realtime session is a WebSocket; connect to this path with ws:// or wss://."
    return Problem("header_invalid", text, "Upgrade", status=426)


# -- what a client says ------------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """One event of a client, as far as it concerns the gate."""

    type: str
    #: As the client named it; ``None`` where it did not.
    event_id: str | None = None
    #: ``session.update``: what is to change.
    changes: "Changes | None" = None
    #: ``response.create``: its own cap, and the member that tells it; with a name and no cap it has none at all.
    cap: int | None = None
    cap_name: str = ""
    #: The member by which the answer is text alone, whatever the session is set to; empty without.
    text_name: str = ""
    #: ``response.create`` that neither reads nor writes the conversation's one active response.
    beside: bool = False
    #: Of a client's sound, its bytes as they will be heard.
    audio_bytes: int = 0
    #: What the model reads is not bounded by the bytes of this event: a picture.
    pictured: bool = False


class Changes(NamedTuple):
    """What a ``session.update`` changes."""

    #: Turn detection is set (``True``), removed (``False``), or not touched (``None``).
    detection: bool | None = None
    #: The client wants the server to answer by itself, where it sets turn detection.
    wants_answers: bool = True
    #: Path of the turn detection in the event.
    detection_path: tuple[str, ...] = ()
    #: Model that shall transcribe; empty to stop; ``None`` where it is not touched.
    transcriber: str | None = None
    transcriber_path: tuple[str, ...] = ()
    #: The session's own model, where it is named again.
    model: str = ""


def wish(message: bytes, forbid_private_urls: bool) -> Wish | Problem:
    """What an event of a client asks, or why it is not passed on."""
    if len(message) > MARKS_MAX:
        marks = message.count(b",") + message.count(b"{") + message.count(b"[")
        if marks > MARKS_MAX:
            return expected("field_range", "event", f"at most {MARKS_MAX} commas and opening brackets", f"{marks}")
    if len(message) > EXPLAINED_BYTES_MAX:
        try:
            _members(message)
        except DECODING_ERRORS:
            return Problem("json_invalid", "Event is not a JSON object; correct it.")
    found = members(message, "audio")
    if isinstance(found, Problem):
        return found
    raw = found.get("type")
    kind = _text(raw) if raw is not None else None
    if kind is None:
        return missing("type", "the name of an event")
    if kind not in CLIENT_EVENTS:
        return expected("field_enum", "type", "an event of a realtime conversation", echo(kind))
    event_id = _text(found["event_id"]) if "event_id" in found else None
    if event_id is not None and len(event_id) > EVENT_ID_CHARACTERS_MAX:
        rule = f"at most {EVENT_ID_CHARACTERS_MAX} characters"
        return expected("field_range", "event_id", rule, f"{len(event_id)}")
    if kind == "input_audio_buffer.append":
        audio = found.get("audio")
        # Base64 has four characters for three bytes; quotes are two more.
        return Wish(kind, event_id, audio_bytes=max(0, len(bytes(audio)) - 2) * 3 // 4 if audio is not None else 0)
    if kind == "session.update":
        return _update(found.get("session"), event_id)
    if kind == "response.create":
        return _create(found.get("response"), event_id, forbid_private_urls)
    if kind == "conversation.item.create":
        item = _strict(found.get("item"), "item")
        if isinstance(item, Problem):
            return item
        seen = _contents([item], "item", forbid_private_urls)
        return seen if isinstance(seen, Problem) else Wish(kind, event_id, pictured=seen[0], audio_bytes=seen[1])
    return Wish(kind, event_id)


def _text(value: msgspec.Raw) -> str | None:
    try:
        told = msgspec.json.decode(value)
    except DECODING_ERRORS:
        return None
    return told if isinstance(told, str) else None


_strictly: Final = json.JSONDecoder(object_pairs_hook=once).decode


def _strict(value: msgspec.Raw | None, path: str) -> dict[str, Any] | Problem:
    """An object in which nothing stands twice at any depth, so that every reader reads the same; ``{}`` for none."""
    if value is None:
        return {}
    try:
        told = _strictly(bytes(value).decode())
    except Twice:
        return Problem("json_dup_key", f"{path}: a member stands twice in one object; send it once.", path)
    except (ValueError, RecursionError):
        return Problem("json_invalid", f"{path}: not valid JSON; correct it.", path)
    if not isinstance(told, dict):
        return {} if told is None else expected("field_type", path, "an object", "something else")
    return told


def _within(found: dict[str, Any], *path: str) -> Any:
    """A nested member; ``_GONE`` where it is not there."""
    value: Any = found
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _GONE
        value = value[name]
    return value


#: Where the same setting stands in each generation, within ``session``.
_DETECTION: Final = (("audio", "input", "turn_detection"), ("turn_detection",))
_TRANSCRIPTION: Final = (("audio", "input", "transcription"), ("input_audio_transcription",))
_INPUT_FORMAT: Final = (("audio", "input", "format"), ("input_audio_format",))
_CAPS: Final = ("max_output_tokens", "max_response_output_tokens")
_MODALITIES: Final = ("output_modalities", "modalities")


def _update(value: msgspec.Raw | None, event_id: str | None) -> Wish | Problem:
    session = _strict(value, "session")
    if isinstance(session, Problem):
        return session
    if session.get("type", OPERATION) != OPERATION:
        text = "session.type: sessions that only transcribe or translate are not metered yet; use a realtime session."
        return Problem("operation_unmetered", text, "session.type")
    problem = _foreign(session, "session")
    if problem is not None:
        return problem
    changes = Changes(model=session["model"] if isinstance(session.get("model"), str) else "")
    for path in _DETECTION:
        told = _within(session, *path)
        if told is _GONE:
            continue
        if changes.detection is not None:
            return _both("turn_detection")
        named = ".".join(("session", *path))
        if told is not None and not isinstance(told, dict):
            return expected("field_type", named, "an object or null", "something else")
        if told and told.get("idle_timeout_ms") is not None:
            what = "responses that the provider begins by itself"
            return unbounded(f"{named}.idle_timeout_ms", what, "leave it out and send response.create")
        wants = told is not None and told.get("create_response", True) is not False
        changes = changes._replace(detection=told is not None, wants_answers=wants, detection_path=("session", *path))
    for path in _TRANSCRIPTION:
        told = _within(session, *path)
        if told is _GONE:
            continue
        if changes.transcriber is not None:
            return _both("transcription")
        named = ".".join(("session", *path, "model"))
        model = told.get("model") if isinstance(told, dict) else None
        if told is not None and (not isinstance(model, str) or not model):
            return missing(named, "the model that transcribes")
        prompt = told.get("prompt") if told else None
        if isinstance(prompt, str) and len(prompt.encode()) > PROMPT_BYTES_MAX:
            return expected(
                "field_range", ".".join(("session", *path, "prompt")), f"at most {PROMPT_BYTES_MAX} bytes", "more"
            )
        changes = changes._replace(transcriber=model or "", transcriber_path=("session", *path, "model"))
    return Wish("session.update", event_id, changes=changes)


def _both(name: str) -> Problem:
    text = f"session: {name} is given in the form of two generations of the interface; send one."
    return Problem("field_conflict", text, "session")


def _foreign(found: dict[str, Any], path: str) -> Problem | None:
    """The refusal of what runs at the provider without the gate: remote tools, and prompts that may bring some."""
    if found.get("prompt") is not None:
        return unbounded(f"{path}.prompt", "tools that a stored prompt may bring", "send its text as instructions")
    tools = found.get("tools")
    for at, tool in enumerate(tools if isinstance(tools, list) else ()):
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            return unbounded(f"{path}.tools[{at}]", "tools that run at the provider", "offer functions")
    choice = found.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") != "function":
        return unbounded(f"{path}.tool_choice", "tools that run at the provider", "name a function")
    return None


def _create(value: msgspec.Raw | None, event_id: str | None, forbid_private_urls: bool) -> Wish | Problem:
    response = _strict(value, "response")
    if isinstance(response, Problem):
        return response
    problem = _foreign(response, "response")
    if problem is not None:
        return problem
    caps = [name for name in _CAPS if name in response]
    if len(caps) > 1:
        return Problem("field_conflict", f"response: {caps[0]} and {caps[1]} are the same; send one.", caps[0])
    cap: int | None = None
    if caps and response[caps[0]] not in ("inf", None):
        cap = response[caps[0]]
        if type(cap) is not int or not 1 <= cap <= CAP_MAX:
            return expected("field_range", f"response.{caps[0]}", f"1 to {CAP_MAX}, or inf", echo(response[caps[0]]))
    seen = _contents(response.get("input"), "response.input", forbid_private_urls)
    if isinstance(seen, Problem):
        return seen
    spoken = [name for name in _MODALITIES if name in response]
    only_text = len(spoken) == 1 and _only_text(response[spoken[0]])
    return Wish(
        "response.create",
        event_id,
        cap=cap,
        cap_name=caps[0] if caps else "",
        text_name=spoken[0] if only_text else "",
        beside=response.get("conversation") == "none",
        pictured=seen[0],
        audio_bytes=seen[1],
    )


def _contents(items: Any, path: str, forbid_private_urls: bool) -> tuple[bool, int] | Problem:
    """Whether some items hold pictures, and how many bytes of sound."""
    pictured, audio_bytes = False, 0
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            return expected("field_type", path, "items that are objects", "something else")
        if str(item.get("type", "")).startswith("mcp"):
            return unbounded(f"{path}.type", "tools that run at the provider", "offer functions")
        parts = item.get("content")
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                return expected("field_type", f"{path}.content", "parts that are objects", "something else")
            if "image_url" in part or part.get("type") == "input_image":
                pictured = True
                url = part.get("image_url")
                private = isinstance(url, str) and not url.startswith("data:") and not is_public_https(url)
                if private and forbid_private_urls:
                    text = f"{path}.content.image_url: private addresses are refused; send the picture itself."
                    return Problem("url_forbidden", text, "image_url")
            if isinstance(part.get("audio"), str):
                audio_bytes += len(part["audio"]) * 3 // 4
    return pictured, audio_bytes


# -- edits -------------------------------------------------------------------------------------------------------------


def put_at(message: bytes, path: Sequence[str], value: bytes) -> bytes:
    """``message`` with the member at a path set to a JSON text; all other bytes stay.

    Objects on the way that are missing, or null, are made.
    """
    span = span_of(message, path[0])
    if len(path) == 1:
        return put(message, path[0], value, span is not None)
    inner = message[span[0] : span[1]] if span is not None else b"{}"
    if inner[:1] != b"{":
        inner = b"{}"
    inner = put_at(inner, path[1:], value)
    if span is None:
        return put(message, path[0], inner, False)
    return message[: span[0]] + inner + message[span[1] :]


def named(message: bytes, event_id: str) -> bytes:
    """``message`` under an ``event_id`` of ours, by which the provider's complaint about it is known."""
    return put_at(message, ("event_id",), msgspec.json.encode(event_id))


def _only_text(spoken: Any) -> bool:
    return isinstance(spoken, list) and bool(spoken) and all(one == "text" for one in spoken)


def cap_name(beta: bool) -> str:
    """What the cap of a response is called."""
    return _CAPS[1] if beta else _CAPS[0]


def text_name(beta: bool) -> str:
    """What says that a response is text alone."""
    return _MODALITIES[1] if beta else _MODALITIES[0]


def create_event(event_id: str) -> bytes:
    """The ``response.create`` that the gate sends where a client wants voice activity detection to begin responses."""
    return b'{"type":"response.create","event_id":%b}' % msgspec.json.encode(event_id)


def quiet_event(event_id: str, beta: bool, detection: dict[str, Any]) -> bytes:
    """The ``session.update`` that leaves turn detection as it is but for beginning responses."""
    quiet: dict[str, Any] = {**detection, "create_response": False}
    session = {"turn_detection": quiet} if beta else {"type": OPERATION, "audio": {"input": {"turn_detection": quiet}}}
    return msgspec.json.encode({"type": "session.update", "event_id": event_id, "session": session})


def cancel_event(response: str) -> bytes:
    """The ``response.cancel`` of a response whose client has left."""
    return b'{"type":"response.cancel","response_id":%b}' % msgspec.json.encode(response)


CLEAR_EVENT: Final = b'{"type":"input_audio_buffer.clear"}'


def error_event(problem: Problem, request_id: str, event_id: str | None) -> bytes:
    """A refusal as the provider tells its own: ``event_id`` names the event of the client that is refused."""
    error = msgspec.json.decode(render(problem, request_id, "openai"))["error"]
    told = {"type": "error", "event_id": f"event_{request_id}", "error": {**error, "event_id": event_id}}
    return msgspec.json.encode(told)


# -- what a provider says ----------------------------------------------------------------------------------------------


class Setup(NamedTuple):
    """What a session is set to, as its provider told last."""

    beta: bool = False
    #: Voice activity detection, as it is set; ``None`` without.
    detection: dict[str, Any] | None = None
    #: The provider begins responses by itself.
    answers_itself: bool = False
    transcriber: str = ""
    cap: int | None = None
    speaks: bool = True
    input_bytes_per_second: int = _TELEPHONY_BYTES
    output_bytes_per_second: int = _PCM_BYTES


class Told(NamedTuple):
    """One event of a provider, as far as it concerns the gate."""

    type: str = ""
    id: str = ""
    #: Characters of text, or bytes of sound, that were delivered.
    characters: int = 0
    audio_bytes: int = 0
    setup: Setup | None = None
    report: Report | None = None
    status: str = ""
    code: str = ""
    #: Where in all the sound of the session somebody began to speak, or ceased to.
    at_ms: int = 0


_heading = msgspec.json.Decoder(Heading).decode
_response = msgspec.json.Decoder(ResponseEvent).decode
_transcript = msgspec.json.Decoder(Transcript).decode
_error = msgspec.json.Decoder(ErrorEvent).decode
_session = msgspec.json.Decoder(SessionEvent).decode

_SPOKEN: Final = frozenset(("response.output_audio.delta", "response.audio.delta"))
_SETUPS: Final = frozenset(("session.created", "session.updated"))
_RESPONSES: Final = frozenset(("response.created", "response.done"))
_ITEMS: Final = frozenset(
    """
    input_audio_buffer.committed input_audio_buffer.speech_started input_audio_buffer.speech_stopped
    conversation.item.input_audio_transcription.failed
    """.split()
)
TRANSCRIBED: Final = "conversation.item.input_audio_transcription.completed"
NOT_TRANSCRIBED: Final = "conversation.item.input_audio_transcription.failed"


def told(message: bytes) -> Told:
    """What an event of a provider says. Never raises: what nobody here understands concerns nobody here."""
    try:
        head = _heading(message)
        kind = head.type
        if kind.endswith(".delta"):
            length = max(0, len(bytes(head.delta)) - 2)
            if kind in _SPOKEN:
                return Told(kind, head.response_id or "", audio_bytes=length * 3 // 4)
            return Told(kind, head.response_id or "", characters=length)
        if kind in _RESPONSES:
            response = _response(message).response
            report = report_of(response.usage, response.model, response.id) if kind == "response.done" else None
            return Told(kind, response.id or "", report=report, status=response.status or "")
        if kind in _SETUPS:
            return Told(kind, setup=_setup(_session(message).session))
        if kind in _ITEMS:
            at_ms = head.audio_end_ms if kind.endswith("stopped") else head.audio_start_ms
            return Told(kind, head.item_id or "", at_ms=at_ms if type(at_ms) is int else 0)
        if kind == TRANSCRIBED:
            heard = _transcript(message)
            used, unknown = media_usage.leaves(heard.usage, "text")
            report = reported(used, unknown, "", "")
            return Told(kind, heard.item_id or "", characters=len(heard.transcript), report=report)
        if kind == "error":
            error = _error(message).error
            return Told(kind, error.event_id or "", code=error.code or "")
    except DECODING_ERRORS:
        return Told()
    return Told(kind)


def _setup(session: dict[str, Any]) -> Setup:
    beta = "audio" not in session and ("modalities" in session or "turn_detection" in session)
    generation = 1 if beta else 0
    detection = _within(session, *_DETECTION[generation])
    detection = detection if isinstance(detection, dict) else None
    transcription = _within(session, *_TRANSCRIPTION[generation])
    transcriber = transcription.get("model") if isinstance(transcription, dict) else None
    cap = session.get(_CAPS[generation])
    return Setup(
        beta,
        detection,
        detection is not None and detection.get("create_response", True) is not False,
        transcriber if isinstance(transcriber, str) else "",
        cap if type(cap) is int and 0 < cap <= CAP_MAX else None,
        not _only_text(session.get(_MODALITIES[generation])),
        _bytes_per_second(_within(session, *_INPUT_FORMAT[generation]), _TELEPHONY_BYTES),
        _bytes_per_second(
            session.get("output_audio_format") if beta else _within(session, "audio", "output", "format"), _PCM_BYTES
        ),
    )


def _bytes_per_second(format: Any, unknown: int) -> int:
    """Bytes of a second of sound in a format; ``unknown`` where it is not told."""
    name = format.get("type") if isinstance(format, dict) else format
    if name in ("pcm16", "audio/pcm"):
        rate = format.get("rate") if isinstance(format, dict) else None
        return rate * 2 if type(rate) is int and 8_000 <= rate <= 48_000 else _PCM_BYTES
    return _TELEPHONY_BYTES if isinstance(name, str) else unknown


def restored(message: bytes, setup: Setup) -> bytes:
    """``session.updated`` as the client expects it, who wants the server to begin responses, as the gate now does."""
    path = _DETECTION[1 if setup.beta else 0]
    return put_at(message, ("session", *path, "create_response"), b"true")


def unnamed(message: bytes, event_id: str | None) -> bytes:
    """An ``error`` about an event that the client had named otherwise, or not at all."""
    return put_at(message, ("error", "event_id"), msgspec.json.encode(event_id))


# -- what a dialect has besides ----------------------------------------------------------------------------------------
#
# A session has neither a body nor an answer of one piece.


def answer_text(body: bytes) -> str:
    """Nothing: what a session delivers is counted event by event."""
    del body
    return ""


def prompt_text(body: bytes) -> list[str]:
    """Nothing: what a session reads is counted event by event."""
    del body
    return []


def prompt_tokens_overhead(body: bytes) -> int:
    """Nothing, as above."""
    del body
    return 0
