"""The faults by name: what each one is, and what the truth log says of a call that met it. Pure.

A call asks for one with ``sim: {"fault": NAME}``, a script with ``"steer": {"fault": NAME}``; the code (``F09``) is
accepted for the name. F01 and F02 happen before there is a request: see ``deadends``. The bytes of the wire faults are
made in ``misbehave``, those inside a stream in ``events``, those of the usage report here.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec


class Where(Enum):
    """Which part of an answer a fault spoils."""

    #: The bytes on the connection: head, framing, or no answer at all.
    WIRE = "wire"
    #: The events of a stream, or what comes nearest in a plain body.
    EVENTS = "events"
    #: Only the figures of the usage report.
    USAGE = "usage"


class Fault(NamedTuple):
    """One way to misbehave.

    ``served`` is whether the provider would bill the call; ``complete`` whether all of the answer is on the wire.
    """

    code: str
    where: Where
    meaning: str
    served: bool = True
    complete: bool = True


FAULTS: Mapping[str, Fault] = {
    "reset_after_head": Fault("F03", Where.WIRE, "reset once the head of the request is read", False, False),
    "reset_mid_upload": Fault("F04", Where.WIRE, "reset while the body of the request is sent", False, False),
    "never_answer": Fault("F05", Where.WIRE, "read everything, answer nothing", False, False),
    "status_line_only": Fault("F06", Where.WIRE, "a status line, then silence", False, False),
    "dribble_headers": Fault("F07", Where.WIRE, "one byte of the head per `delay_ms` (1000)", False, False),
    "empty_body": Fault("F08", Where.WIRE, "200 with no body", False, False),
    "short_length": Fault("F09", Where.WIRE, "Content-Length smaller than the body"),
    "long_length": Fault("F10", Where.WIRE, "Content-Length larger than the body, then close"),
    "cl_and_te": Fault("F11", Where.WIRE, "Content-Length and Transfer-Encoding together"),
    "bad_chunk": Fault("F12", Where.WIRE, "a chunk size that is no number", True, False),
    "missing_last_chunk": Fault("F13", Where.WIRE, "close before the last chunk"),
    "bytes_after_end": Fault("F14", Where.WIRE, "a second answer after the end of the first"),
    "continue_storm": Fault("F15", Where.WIRE, "`count` (10000) times `100 Continue`, then the answer"),
    "early_answer": Fault("F16", Where.WIRE, "200 before the body of the request is read"),
    "usage_negative": Fault("F17", Where.USAGE, "negative output tokens"),
    "usage_float": Fault("F18", Where.USAGE, "output tokens with a fraction"),
    "usage_nan": Fault("F18", Where.USAGE, "output tokens are NaN"),
    "usage_text": Fault("F18", Where.USAGE, "output tokens are a string"),
    "usage_huge": Fault("F18", Where.USAGE, "output tokens are 1e30"),
    "usage_missing": Fault("F19", Where.USAGE, "no usage although asked for"),
    "usage_twice": Fault("F20", Where.USAGE, "usage twice, the first one five tokens higher"),
    "usage_early": Fault("F21", Where.USAGE, "usage half-way, then more text and no second usage"),
    "usage_bad_total": Fault("F22", Where.USAGE, "a total that is not the sum"),
    "over_cap": Fault("F23", Where.USAGE, "twice the allowed output and ten tokens more, delivered and billed"),
    "no_done": Fault("F24", Where.EVENTS, "a stream without [DONE]"),
    "cut_utf8": Fault("F25", Where.EVENTS, "the body ends inside a character", True, False),
    "huge_line": Fault("F26", Where.EVENTS, "one line of 8 MiB"),
    "pings_only": Fault("F27", Where.EVENTS, "comments only, one per `delay_ms` (1000)", False, False),
    "not_json": Fault("F28", Where.EVENTS, "an event that is not JSON"),
    "error_event": Fault("F29", Where.EVENTS, "an error event half-way, then the end", True, False),
    "stall": Fault("F30", Where.EVENTS, "silence after the first token", True, False),
    "html": Fault("F31", Where.WIRE, "200 with a page of HTML", False, False),
    "gzip_bomb": Fault("F32", Where.WIRE, "32 MiB of JSON in 32 KiB of gzip", False, False),
    "rate_limited_odd": Fault("F33", Where.WIRE, "429; Retry-After is -1, 10^9, a date in turn", False, False),
    "rate_limited_negative": Fault("F33", Where.WIRE, "429 with Retry-After: -1", False, False),
    "rate_limited_huge": Fault("F33", Where.WIRE, "429 with Retry-After: 1000000000", False, False),
    "rate_limited_date": Fault("F33", Where.WIRE, "429 with an HTTP date as Retry-After", False, False),
    "redirect": Fault("F34", Where.WIRE, "307 to http://169.254.169.254/", False, False),
    "bad_header": Fault("F35", Where.WIRE, "a NUL inside a header"),
    "header_cr": Fault("F35", Where.WIRE, "a bare CR inside a header"),
    "header_lf": Fault("F35", Where.WIRE, "a bare LF inside a header, and what looks like another header"),
    "huge_header": Fault("F35", Where.WIRE, "a header of 1 MiB"),
    "tracking_headers": Fault("F36", Where.WIRE, "Set-Cookie, Server and organization headers"),
    "reset_mid_stream": Fault("F30", Where.EVENTS, "reset half-way through the answer", True, False),
}

#: Those that can act before the body of a request is read.
EARLY = frozenset({"reset_after_head", "reset_mid_upload", "early_answer"})

_BY_CODE: dict[str, str] = {}
for _name, _fault in FAULTS.items():
    _BY_CODE.setdefault(_fault.code, _name)


def named(text: str) -> str | None:
    """The fault's name for a name or a code, or ``None`` for neither; of several with one code, the first."""
    return text if text in FAULTS else _BY_CODE.get(text)


#: What the formats call output tokens that a caller was given, and the sum of all tokens.
OUTPUTS = ("completion_tokens", "output_tokens", "candidatesTokenCount")
TOTALS = ("total_tokens", "totalTokenCount")


def delivered(usage: Mapping[str, Any]) -> int:
    """Output tokens of a true usage, in whichever shape it is."""
    return sum(usage.get(name, 0) for name in (*OUTPUTS, "thoughtsTokenCount"))


def reported(fault: str, usage: Mapping[str, object]) -> bytes:
    """The usage report as JSON text, with the fault's figures in place of the true ones.

    A report without output tokens, or without a total, has nothing to spoil there.
    """
    output_name = next((name for name in OUTPUTS if name in usage), OUTPUTS[0])
    total_name = next((name for name in TOTALS if name in usage), "")
    output = usage.get(output_name, 0)
    total = usage.get(total_name, 0) if total_name else 0
    if not isinstance(output, int) or not isinstance(total, int):
        raise TypeError("usage counts whole tokens")
    prompt = total - output
    spoiled: dict[str, tuple[bytes, bytes]] = {
        "usage_negative": (b"-5", b"%d" % (prompt - 5)),
        "usage_float": (b"%d.5" % output, b"%d.5" % total),
        "usage_nan": (b"NaN", b"NaN"),
        "usage_text": (b'"%d"' % output, b'"%d"' % total),
        "usage_huge": (b"1e30", b"1e30"),
        "usage_bad_total": (b"%d" % output, b"%d" % (total + 7)),
        "usage_first": (b"%d" % (output + 5), b"%d" % (total + 5)),
    }
    if fault not in spoiled:
        return msgspec.json.encode(usage)
    figures = spoiled[fault]
    fields = {name: msgspec.json.encode(value) for name, value in usage.items()}
    fields[output_name] = figures[0]
    if total_name:
        fields[total_name] = figures[1]
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in fields.items()) + b"}"
