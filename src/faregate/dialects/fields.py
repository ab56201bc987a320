"""The fields of a request body that decide what a call may cost and where it goes, read strictly.

Each function takes a member's bytes and gives its value or the refusal. Everything that is not read here passes to the
provider untouched, whose own error then comes back. Names that would steer a call past the gate are refused by name.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from faregate.dialects.jsonbody import DECODING_ERRORS, Members, kind_of, members
from faregate.dialects.quoting import echo, expected, forbidden, missing, unbounded
from faregate.dialects.shapes import StreamOptions
from faregate.errors import Problem

NAME_CHARACTERS_MAX: Final = 256
#: No model answers with more; a larger cap is a mistake or an attack on the arithmetic behind it.
OUTPUT_CAP_MAX: Final = 10_000_000
CHOICES_MAX: Final = 128

#: Members by which other gateways and client libraries choose hosts, credentials, models or fake answers (P41-P50).
ROUTING_NAMES: Final = frozenset(
    """
    api_base api_key api_type api_version aws_access_key_id aws_region_name aws_secret_access_key azure_ad_token
    azure_endpoint base_url callbacks custom_host custom_llm_provider default_headers deployment_id extra_headers
    extra_query failure_callback fallbacks headers litellm_logging_obj litellm_metadata litellm_params mock_response
    mock_tool_calls model_list models organization organization_id project provider proxy router success_callback
    vertex_credentials vertex_location vertex_project virtual_key
    """.split()
)
#: Members that may carry others for a server that unpacks them.
_CARRIERS: Final = ("extra_body", "metadata")

_int_or_none = msgspec.json.Decoder(int | None).decode
_bool_or_none = msgspec.json.Decoder(bool | None).decode
_text = msgspec.json.Decoder(str).decode
_text_or_none = msgspec.json.Decoder(str | None).decode
_anything = msgspec.json.Decoder(Any).decode
_names_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def text(value: msgspec.Raw, path: str) -> str | Problem | None:
    """A string or null."""
    try:
        told: str | None = _text_or_none(value)
        return told
    except UnicodeDecodeError:
        return Problem("json_utf8", f"{path}: the text is not UTF-8; send UTF-8.", param=path)
    except DECODING_ERRORS:
        return expected("field_type", path, "a string", kind_of(value))


def name(value: msgspec.Raw | None, path: str) -> str | Problem:
    """A name that routes, limits or reports go by: 1 to 256 printable characters."""
    if value is None:
        return missing(path, "a string")
    try:
        told: str = _text(value)
    except DECODING_ERRORS:
        other = text(value, path)
        return other if isinstance(other, Problem) else expected("field_type", path, "a string", "null")
    if 0 < len(told) <= NAME_CHARACTERS_MAX and told.isprintable():
        return told
    if not told:
        got = "an empty one"
    elif len(told) > NAME_CHARACTERS_MAX:
        got = f"{len(told)} characters"
    else:
        got = f"control characters in {echo(told)}"
    return expected("field_range", path, f"1 to {NAME_CHARACTERS_MAX} printable characters", got)


def flag(value: msgspec.Raw, path: str) -> bool | Problem:
    """True or false; null is false."""
    try:
        return bool(_bool_or_none(value))
    except DECODING_ERRORS:
        return expected("field_type", path, "true or false", kind_of(value))


def count(value: msgspec.Raw, path: str, least: int, most: int) -> int | Problem | None:
    """A whole number from ``least`` to ``most``, or null."""
    try:
        number: int | None = _int_or_none(value)
    except DECODING_ERRORS:
        return _not_a_count(value, path, least, most)
    if number is None or least <= number <= most:
        return number
    return expected("field_range", path, f"a whole number from {least} to {most}", echo(number))


def _not_a_count(value: msgspec.Raw, path: str, least: int, most: int) -> Problem:
    wanted = f"a whole number from {least} to {most}"
    try:
        other: Any = _anything(value)
    except DECODING_ERRORS:
        # A string or structure that does not decode is of the wrong type whatever it holds; a number is out of reach.
        if kind_of(value) != "a number":
            return expected("field_type", path, wanted, kind_of(value))
        return Problem("json_number", f"{path}: the number is out of any range; send {wanted}.", param=path)
    # JSON says 1e9 with a fraction or exponent; as a number it is out of range before it is of a wrong type.
    if kind_of(value) == "a number" and not least <= other <= most:
        return expected("field_range", path, wanted, echo(other))
    return expected("field_type", path, wanted, kind_of(value))


#: The output cap of one choice and the member that says so; the member is named for a null, too.
Cap = tuple[int | None, str]

NO_CAP: Final[Cap] = (None, "")


def cap(found: Members, least: int = 1) -> Cap | Problem:
    """The output cap; ``max_tokens`` and ``max_completion_tokens`` may both be said, if they say the same."""
    old, new = found.get("max_tokens"), found.get("max_completion_tokens")
    if old is None or new is None:
        value, field = (new, "max_completion_tokens") if old is None else (old, "max_tokens")
        if value is None:
            return NO_CAP
        tokens = count(value, field, least, OUTPUT_CAP_MAX)
        return tokens if isinstance(tokens, Problem) else (tokens, field)
    tokens = count(new, "max_completion_tokens", least, OUTPUT_CAP_MAX)
    other = count(old, "max_tokens", least, OUTPUT_CAP_MAX)
    if isinstance(tokens, Problem):
        return tokens
    if isinstance(other, Problem):
        return other
    if tokens is None or other is None:
        return (other, "max_tokens") if tokens is None else (tokens, "max_completion_tokens")
    if tokens != other:
        wanted = f"the same as max_completion_tokens ({tokens})"
        return expected("field_conflict", "max_tokens", wanted, str(other), "send one of them")
    return tokens, "max_completion_tokens"


_stream_options = msgspec.json.Decoder(StreamOptions | None).decode


def stream(found: Members) -> tuple[bool, bool] | Problem:
    """Whether the answer is streamed, and whether the caller asked for its usage event."""
    value = found.get("stream")
    streamed = False if value is None else flag(value, "stream")
    if isinstance(streamed, Problem):
        return streamed
    value = found.get("stream_options")
    if value is None:
        return streamed, False
    try:
        options = _stream_options(value)
    except DECODING_ERRORS:
        return _bad_stream_options(value)
    if options is None:
        return streamed, False
    if not streamed:
        return Problem(
            "field_conflict",
            "stream_options: expected only with stream true, got it without; set stream or leave it out.",
            param="stream_options",
        )
    if bytes(value).count(b":") > 1:
        again = _duplicate_option(value)
        if again is not None:
            return again
    return streamed, bool(options.include_usage)


def _bad_stream_options(value: msgspec.Raw) -> Problem:
    if kind_of(value) != "an object":
        return expected("field_type", "stream_options", "an object", kind_of(value))
    return expected("field_type", "stream_options.include_usage", "true or false", "something else")


def _duplicate_option(value: msgspec.Raw) -> Problem | None:
    """The gate may rewrite ``include_usage``, so it must stand there once, and plainly."""
    found = members(bytes(value), "")
    if isinstance(found, Problem):
        return found._replace(param="stream_options")
    return None


def choices(found: Members) -> int | Problem:
    """How many answers to one prompt are billed."""
    most = 1
    for field in ("n", "best_of"):
        if field in found:
            told = count(found[field], field, 1, CHOICES_MAX)
            if isinstance(told, Problem):
                return told
            most = max(most, told or 1)
    return most


def end_user(found: Members) -> str | Problem:
    """The caller's own name for its customer: ``user``, or ``safety_identifier`` which OpenAI renamed it to."""
    for path in ("user", "safety_identifier"):
        value = found.get(path)
        if value is None:
            continue
        told = text(value, path)
        if isinstance(told, Problem):
            return told
        if told is None or not told:
            continue
        if len(told) > NAME_CHARACTERS_MAX or not told.isprintable():
            return expected(
                "field_range", path, f"at most {NAME_CHARACTERS_MAX} printable characters", "something else"
            )
        return told
    return ""


def steering(found: Members) -> Problem | None:
    """The refusal of any member that names a host, a credential or another model, by its plain or bracketed name.

    Looked for at the top level, in ``extra_body`` and in ``metadata``; never inside messages or schemas.
    """
    for told in found:
        if _steers(told):
            return forbidden(echo(told))
    for carrier in _CARRIERS:
        value = found.get(carrier)
        if value is None or bytes(value)[:1] != b"{":
            continue
        try:
            inner = _names_of(value)
        except DECODING_ERRORS:
            return expected("field_type", carrier, "an object of JSON values", "something else")
        for told in inner:
            if told in _METADATA_ALLOWED and carrier == "metadata":
                continue
            if told in _READ_NAMES and carrier == "extra_body":
                return forbidden(f"{carrier}.{echo(told)}")
            if _steers(told):
                return forbidden(f"{carrier}.{echo(told)}")
    return None


#: Harmless words in the caller's own labels: OpenAI's ``metadata`` is free text, and only hosts and secrets steer.
_METADATA_ALLOWED: Final = frozenset(
    "headers models organization organization_id project provider router deployment_id proxy".split()
)


#: Members whose value is held and routed by at the top level: a server that unpacks a carrier would put its own there.
_READ_NAMES: Final = frozenset(
    """
    best_of input max_completion_tokens max_output_tokens max_tokens max_tool_calls messages modalities model n prompt
    quality service_tier size stream stream_options tools web_search_options
    """.split()
)


def _steers(told: str) -> bool:
    if told in ROUTING_NAMES:
        return True
    if "[" not in told:
        return False
    # ``metadata[api_base]`` is how form-minded servers spell a nested member.
    return not ROUTING_NAMES.isdisjoint(told.replace("]", "").split("["))


#: What a provider is asked for → the tier whose prices apply, as ``SERVICE_TIERS`` calls it. ``auto`` is what the
#: operator's project is set to, which is the standard tier unless somebody has changed that at the provider; the answer
#: tells. (OpenAI, "API reference", ``service_tier``.)
_TIERS: Final = {
    "auto": "",
    "default": "",
    "standard": "",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
    "scale": "scale",
}


def service_tier(found: Members) -> str | Problem:
    """The service tier asked for, empty for the standard one; one without prices of its own is refused."""
    value = found.get("service_tier")
    if value is None:
        return ""
    told = text(value, "service_tier")
    if isinstance(told, Problem):
        return told
    tier = "" if told is None else _TIERS.get(told)
    if tier is None:
        return unbounded("service_tier", f"the tier {echo(told)}", "use default, flex or priority, or leave it out")
    return tier


def refuse_present(found: Members, features: Mapping[str, tuple[str, str]]) -> Problem | None:
    """Refuse members that switch on something without a bound: name → (what it is, remedy). Null and false do not."""
    for told in found.keys() & features.keys():
        if bytes(found[told]) not in (b"null", b"false"):
            what, remedy = features[told]
            return unbounded(told, what, remedy)
    return None
