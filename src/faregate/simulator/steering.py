"""What a call can ask of the simulator, and the three places where it is said. Pure.

From weakest to strongest: the model's profile (``sim-1`` at once, ``sim-fast`` and ``sim-slow`` with delays,
``sim-large`` a thousand tokens), the first matching rule of a script, and a line ``sim: {json}`` in the last user
message, prompt or input. Each field said later replaces the same field said earlier.

A script is a JSON list of rules; each names what it matches and how it steers, and the first match wins::

    [{"path": "*/chat/completions", "model": "gpt-4o", "nth": 3, "steer": {"fault": "stall"}},
     {"nth": [10, 12], "steer": {"status": 429, "headers": {"retry-after": "2"}}}]

``path`` and ``model`` may hold ``*``; ``nth`` counts the calls that match the rest of the rule, from 1. A rule without
a model whose fault is ``reset_after_head``, ``reset_mid_upload`` or ``early_answer`` acts on the head of the request.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from faregate.simulator.faults import EARLY, named

TOKENS_MAX = 10_000_000
RULES_MAX = 10_000
SCRIPT_BYTES_MAX = 4 * 1024 * 1024

Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Milliseconds = Annotated[int, Meta(ge=0, le=600_000)]


class ScriptInvalid(ValueError):
    """A script or a ``sim:`` line cannot be used; the text says what is wrong with it."""


class Steering(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one call is answered; every field has a default, so that no steering is a plain answer."""

    #: Per choice, reasoning and audio included; the caller's cap still holds.
    output_tokens: Tokens | None = None
    prompt_tokens: Tokens | None = None
    #: Parts of the prompt and of the output, reported as steered even if they exceed their total.
    cached_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    prompt_audio_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    audio_tokens: Tokens = 0
    accepted_prediction_tokens: Tokens = 0
    #: Billed on top of the output, beyond the cap.
    rejected_prediction_tokens: Tokens = 0
    #: Tokens per event of a stream.
    chunk_tokens: Annotated[int, Meta(ge=1, le=TOKENS_MAX)] = 1
    first_delay_ms: Milliseconds = 0
    delay_ms: Milliseconds = 0
    #: ``True`` sends usage unasked, ``False`` never; ``None`` does as the caller asks.
    usage: bool | None = None
    role_event: bool = True
    #: Events without text, one before each of the first so many events with text.
    empty_deltas: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: Comments, one before each of the first so many events with text.
    pings: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: Azure's event of the prompt filter; ``None`` sends it on Azure's paths only.
    filter_event: bool | None = None
    #: So many tool calls instead of text.
    tool_calls: Annotated[int, Meta(ge=0, le=64)] = 0
    #: Calls of tools that run at the provider, by the tool: ``{"web_search": 2}``.
    hosted_calls: dict[str, Annotated[int, Meta(ge=0, le=64)]] = {}
    #: The tier the answer says it was served in; ``None`` says the one that was asked for.
    service_tier: Annotated[str, Meta(max_length=64)] | None = None
    #: So many looks at a background response find it in progress.
    looks: Annotated[int, Meta(ge=0, le=10_000)] = 0
    content: Annotated[str, Meta(max_length=1_000_000)] | None = None
    finish_reason: Annotated[str, Meta(max_length=64)] | None = None
    #: Wait, before the head of the answer or after so many events with text, until ``POST /simulator/release``.
    hold: bool = False
    hold_after: Annotated[int, Meta(ge=1)] | None = None
    #: Another status, with ``body`` as JSON (a string is sent as it stands); without a body, an error of that status.
    #: Billed is what a ``usage`` inside the body says, else nothing.
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    body: Any = None
    headers: dict[str, str] = {}
    #: A stream is framed in chunks of so many bytes instead of one per event.
    split_bytes: Annotated[int, Meta(ge=1)] | None = None
    fault: str = ""
    #: The figure of a fault that has one, such as how many ``100 Continue``.
    count: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    #: Overrides whether the truth log calls a faulty or failed call billed.
    served: bool | None = None


PROFILES: dict[str, dict[str, Any]] = {
    "sim-1": {"output_tokens": 16},
    "sim-fast": {"output_tokens": 32, "first_delay_ms": 5, "delay_ms": 2},
    "sim-slow": {"output_tokens": 64, "first_delay_ms": 300, "delay_ms": 50},
    "sim-large": {"output_tokens": 1024, "chunk_tokens": 16},
    "sim-embed": {"output_tokens": 0},
}

_PLAIN = PROFILES["sim-1"]
_PLAIN_STEERING = msgspec.convert(_PLAIN, Steering)
_STEERING_OF_PROFILE = {name: msgspec.convert(fields, Steering) for name, fields in PROFILES.items()}
_LINE = re.compile(r"^[ \t]*sim:[ \t]*(\{.*\})[ \t]*$", re.MULTILINE)
_EARLY_LINE = re.compile(rb'sim:[^\n]{0,4096}?\\"fault\\": ?\\"(\w{1,32})\\"')
_decode_line = msgspec.json.Decoder(dict[str, Any]).decode
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\xa0-\xff]{0,65536}")


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a script."""

    steer: dict[str, Any]
    path: str = "*"
    model: str | None = None
    nth: int | tuple[int, int] | None = None

    def hits(self, count: int) -> bool:
        """Whether the ``count``-th call that matches path and model is meant."""
        if self.nth is None:
            return True
        if isinstance(self.nth, int):
            return count == self.nth
        return self.nth[0] <= count <= self.nth[1]


class Script:
    """Rules with their counters; one per running simulator."""

    def __init__(self, rules: list[Rule]) -> None:
        if len(rules) > RULES_MAX:
            raise ScriptInvalid(f"a script has at most {RULES_MAX} rules")
        for number, rule in enumerate(rules, 1):
            try:
                convert(rule.steer)
            except ScriptInvalid as error:
                raise ScriptInvalid(f"rule {number}: {error}") from None
        early = [rule.model is None and named(str(rule.steer.get("fault", ""))) in EARLY for rule in rules]
        self._head = [rule for rule, is_early in zip(rules, early, strict=True) if is_early]
        self._body = [rule for rule, is_early in zip(rules, early, strict=True) if not is_early]
        self._counts: dict[int, int] = {}

    def at_head(self, path: str) -> dict[str, Any] | None:
        """Steering that acts before the body of a request is read."""
        return self._first(self._head, path, None) if self._head else None

    def at_body(self, path: str, model: str) -> dict[str, Any] | None:
        """Steering of the first rule that matches a whole request."""
        return self._first(self._body, path, model) if self._body else None

    def restart(self) -> None:
        """Count from one again."""
        self._counts.clear()

    def _first(self, rules: list[Rule], path: str, model: str | None) -> dict[str, Any] | None:
        for rule in rules:
            if not fnmatchcase(path, rule.path):
                continue
            if rule.model is not None and not fnmatchcase(model or "", rule.model):
                continue
            count = self._counts.get(id(rule), 0) + 1
            self._counts[id(rule)] = count
            if rule.hits(count):
                return rule.steer
        return None


def parse_script(text: bytes) -> Script:
    """A script from its JSON; ``ScriptInvalid`` names the place that is wrong."""
    if len(text) > SCRIPT_BYTES_MAX:
        raise ScriptInvalid(f"a script has at most {SCRIPT_BYTES_MAX} bytes")
    try:
        return Script(msgspec.json.decode(text, type=list[Rule]))
    except msgspec.MsgspecError as error:
        raise ScriptInvalid(f"the script is not a list of rules: {error}") from None
    except RecursionError:
        raise ScriptInvalid("the script is nested too deeply") from None


def load_script(path: Path) -> Script:
    """A script from a file; ``ScriptInvalid`` also when it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_script(file.read(SCRIPT_BYTES_MAX + 1))
    except OSError as error:
        raise ScriptInvalid(f"{path} cannot be read: {error.strerror}") from None


def convert(fields: dict[str, Any]) -> Steering:
    """Steering from its fields, checked; ``ScriptInvalid`` names the field."""
    try:
        steering = msgspec.convert(fields, Steering)
    except msgspec.ValidationError as error:
        raise ScriptInvalid(str(error)) from None
    if steering.fault and named(steering.fault) != steering.fault:
        name = named(steering.fault)
        if name is None:
            raise ScriptInvalid(f"there is no fault {steering.fault!r}")
        steering = msgspec.structs.replace(steering, fault=name)
    for name, value in steering.headers.items():
        # A script may say odd things, but broken header bytes are the business of the faults of that name.
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", name) or not _HEADER_TEXT.fullmatch(value):
            raise ScriptInvalid(f"headers: {name!r} is no header")
    return steering


def named_in_upload(start_of_body: bytes) -> str:
    """The early fault that a ``sim:`` line at the start of an unfinished body asks for, or an empty text.

    The body is not whole, so it cannot be parsed; inside a JSON string the line's quotes stand escaped.
    """
    if b"sim:" not in start_of_body:
        return ""
    found = _EARLY_LINE.search(start_of_body)
    name = named(found[1].decode()) if found else None
    return name if name in EARLY and name is not None else ""


def line_of(text: str) -> dict[str, Any] | None:
    """The fields of the last ``sim: {json}`` line of a text, or ``None`` without one."""
    if "sim:" not in text:
        return None
    lines = _LINE.findall(text)
    if not lines:
        return None
    try:
        return _decode_line(lines[-1])
    except msgspec.MsgspecError as error:
        raise ScriptInvalid(f"the sim: line is no JSON object: {error}") from None
    except RecursionError:
        raise ScriptInvalid("the sim: line is nested too deeply") from None


def steer(model: str, text: str, rule: dict[str, Any] | None) -> Steering:
    """Profile, rule and line put together, the later over the earlier."""
    line = line_of(text)
    if line is None and rule is None:
        return _STEERING_OF_PROFILE.get(model, _PLAIN_STEERING)
    said = {**(rule or {}), **(line or {})}
    profile = dict(PROFILES.get(model, _PLAIN))
    if "content" in said:
        # Steered text is as long as its words, unless a length is steered too.
        profile.pop("output_tokens", None)
    return convert({**profile, **said})
