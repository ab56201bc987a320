"""The wire faults: answers whose bytes on the connection are wrong on purpose.

Each is a small coroutine that gets the connection and the whole answer, and does one thing wrong. What the truth log
says of the call is already written when it starts.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from faregate.simulator.http1 import Connection

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
END = b"0\r\n\r\n"

CONTINUES = 10_000
BOMB_BYTES = 32 * 1024 * 1024
HUGE_HEADER_BYTES = 1024 * 1024
DRIBBLE_MS = 1000
PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"

#: In the order in which ``rate_limited_odd`` uses them.
RETRY_AFTER = (b"-1", b"1000000000", b"Wed, 21 Oct 2099 07:28:00 GMT")


class Answer(NamedTuple):
    """A whole answer: header lines that describe it (type and ids, no length), and its body."""

    headers: bytes
    body: bytes
    delay_ms: int | None = None
    times: int | None = None
    #: How many calls had this fault before, for the faults that take turns.
    turn: int = 0


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(answer: Answer, extra: bytes = b"") -> bytes:
    return OK + answer.headers + extra + b"content-length: %d\r\n\r\n" % len(answer.body) + answer.body


async def reset(connection: Connection, answer: Answer) -> None:
    """F03 and F04: TCP reset instead of an answer."""
    connection.reset()


async def never_answer(connection: Connection, answer: Answer) -> None:
    """F05."""
    await connection.wait_gone()


async def status_line_only(connection: Connection, answer: Answer) -> None:
    """F06."""
    connection.write(OK)
    await connection.wait_gone()


async def dribble_headers(connection: Connection, answer: Answer) -> None:
    """F07."""
    delay_ms = DRIBBLE_MS if answer.delay_ms is None else answer.delay_ms
    for byte in OK + answer.headers + b"content-length: 0\r\n\r\n":
        connection.write(bytes((byte,)))
        await asyncio.sleep(delay_ms / 1000)


async def empty_body(connection: Connection, answer: Answer) -> None:
    """F08."""
    connection.write(OK + answer.headers + b"content-length: 0\r\n\r\n")


async def short_length(connection: Connection, answer: Answer) -> None:
    """F09: half of the body is announced, all of it is sent."""
    connection.write(OK + answer.headers + b"content-length: %d\r\n\r\n" % (len(answer.body) // 2) + answer.body)
    connection.close()


async def long_length(connection: Connection, answer: Answer) -> None:
    """F10."""
    connection.write(OK + answer.headers + b"content-length: %d\r\n\r\n" % (len(answer.body) + 100) + answer.body)
    connection.close()


async def cl_and_te(connection: Connection, answer: Answer) -> None:
    """F11."""
    head = OK + answer.headers + b"content-length: %d\r\n" % len(answer.body) + CHUNKED
    connection.write(head + b"\r\n" + chunk(answer.body) + END)


async def bad_chunk(connection: Connection, answer: Answer) -> None:
    """F12: a good chunk with half of the body, then a size that is no number."""
    middle = len(answer.body) // 2
    head = OK + answer.headers + CHUNKED + b"\r\n"
    connection.write(head + chunk(answer.body[:middle]) + b"zz\r\n" + answer.body[middle:] + b"\r\n" + END)
    connection.close()


async def missing_last_chunk(connection: Connection, answer: Answer) -> None:
    """F13."""
    connection.write(OK + answer.headers + CHUNKED + b"\r\n" + chunk(answer.body))
    connection.close()


async def bytes_after_end(connection: Connection, answer: Answer) -> None:
    """F14: what looks like the answer to a request that was never made."""
    connection.write(_whole(answer) + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstray\n")


async def continue_storm(connection: Connection, answer: Answer) -> None:
    """F15."""
    for block in _blocks(b"HTTP/1.1 100 Continue\r\n\r\n", answer.times or CONTINUES):
        connection.write(block)
        await connection.drain()
    connection.write(_whole(answer))


def _blocks(data: bytes, times: int, together: int = 1000) -> Iterator[bytes]:
    for _ in range(times // together):
        yield data * together
    yield data * (times % together)


async def early_answer(connection: Connection, answer: Answer) -> None:
    """F16: a good answer, but too soon; see ``Connection`` for what makes it early."""
    connection.write(_whole(answer))


async def html(connection: Connection, answer: Answer) -> None:
    """F31."""
    head = OK + b"content-type: text/html; charset=utf-8\r\ncontent-length: %d\r\n\r\n" % len(PAGE)
    connection.write(head + PAGE)


@cache
def _bomb() -> bytes:
    return gzip.compress(b'{"choices":[' + b" " * BOMB_BYTES + b"]}", mtime=0)


async def gzip_bomb(connection: Connection, answer: Answer) -> None:
    """F32."""
    packed = _bomb()
    connection.write(OK + answer.headers + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed))
    connection.write(packed)


def _rate_limited(which: int | None) -> "Fault":
    async def rate_limited(connection: Connection, answer: Answer) -> None:
        """F33."""
        wait = RETRY_AFTER[(answer.turn if which is None else which) % len(RETRY_AFTER)]
        body = b'{"error":{"message":"Rate limit reached.","type":"rate_limit_error","param":null,"code":null}}'
        head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: " + wait
        connection.write(head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    return rate_limited


async def redirect(connection: Connection, answer: Answer) -> None:
    """F34."""
    head = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/latest/meta-data/\r\n"
    connection.write(head + b"content-length: 0\r\n\r\n")


def _with_header(line: bytes) -> "Fault":
    async def odd_header(connection: Connection, answer: Answer) -> None:
        """F35 and F36: a good answer with other header lines in it."""
        connection.write(_whole(answer, line))

    return odd_header


#: Canary values of F36; a gateway passes none of them on.
TRACKING = (
    b"set-cookie: __cf_bm=sim-canary-cookie; path=/; HttpOnly; Secure\r\n"
    b"server: sim-canary-server\r\n"
    b"openai-organization: org-sim-canary\r\n"
    b"openai-project: proj_sim_canary\r\n"
    b"cf-ray: sim-canary-ray\r\n"
    b"via: 1.1 sim-canary-via\r\n"
    b'alt-svc: h3=":443"; ma=86400\r\n'
    b"strict-transport-security: max-age=31536000\r\n"
    b"x-ms-deployment-name: sim-canary-deployment\r\n"
    b'proxy-authenticate: Basic realm="sim-canary"\r\n'
    b"x-faregate-cost: 0\r\n"
)

Fault = Callable[[Connection, Answer], Awaitable[None]]

WIRE: Mapping[str, Fault] = {
    "reset_after_head": reset,
    "reset_mid_upload": reset,
    "never_answer": never_answer,
    "status_line_only": status_line_only,
    "dribble_headers": dribble_headers,
    "empty_body": empty_body,
    "short_length": short_length,
    "long_length": long_length,
    "cl_and_te": cl_and_te,
    "bad_chunk": bad_chunk,
    "missing_last_chunk": missing_last_chunk,
    "bytes_after_end": bytes_after_end,
    "continue_storm": continue_storm,
    "early_answer": early_answer,
    "html": html,
    "gzip_bomb": gzip_bomb,
    "rate_limited_odd": _rate_limited(None),
    "rate_limited_negative": _rate_limited(0),
    "rate_limited_huge": _rate_limited(1),
    "rate_limited_date": _rate_limited(2),
    "redirect": redirect,
    "bad_header": _with_header(b"x-sim-odd: a\x00b\r\n"),
    "header_cr": _with_header(b"x-sim-odd: a\rb\r\n"),
    "header_lf": _with_header(b"x-sim-odd: a\nx-sim-split: b\r\n"),
    "huge_header": _with_header(b"x-sim-odd: " + b"h" * HUGE_HEADER_BYTES + b"\r\n"),
    "tracking_headers": _with_header(TRACKING),
}
