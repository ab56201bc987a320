"""What passes to the provider and back: headers by allow-list in both directions, and the framing of answers.

Nothing that is not named here crosses the gate (RULINGS 18), so a header invented tomorrow cannot leak today.
"""

from collections.abc import Iterable
from typing import Final

from faregate.proxy.refuse import status_line

_REQUEST: Final = frozenset(
    (
        b"content-type",
        b"accept",
        b"user-agent",
        b"openai-beta",
        b"anthropic-version",
        b"anthropic-beta",
        b"traceparent",
    )
)

#: Provider header → the name a client sees it under.
_ANSWER: Final = {
    b"content-type": b"content-type",
    b"content-language": b"content-language",
    b"cache-control": b"cache-control",
    b"openai-processing-ms": b"openai-processing-ms",
    b"openai-version": b"openai-version",
    b"openai-model": b"openai-model",
    b"x-ms-region": b"x-ms-region",
    b"azureml-model-session": b"azureml-model-session",
    b"retry-after": b"retry-after",
    b"retry-after-ms": b"retry-after-ms",
    b"x-should-retry": b"x-should-retry",
    b"x-request-id": b"x-provider-request-id",
    # Azure sends both; each passes by itself, so that nobody has to look for the other.
    b"apim-request-id": b"apim-request-id",
}

_RATE_PREFIX: Final = b"x-ratelimit-"

#: Says that a request has passed a Faregate, so that a configuration that points at itself does not loop.
HOP_TOKEN: Final = b"faregate"
VIA: Final = b"via: 1.1 faregate\r\n"

#: The header under which a kind of provider keeps our request id, so that it can be asked for it.
ID_HEADERS: Final = {"azure_openai": b"x-ms-client-request-id: "}
ID_HEADER: Final = b"x-client-request-id: "

LAST_CHUNK: Final = b"0\r\n\r\n"


def forwarded_headers(headers: dict[bytes, bytes]) -> bytes:
    """The caller's headers that the provider may see, and our hop token."""
    parts: list[bytes] = []
    for name, value in headers.items():
        if name in _REQUEST or name.startswith(b"x-stainless-"):
            parts += (name, b": ", value, b"\r\n")
    return b"".join((*parts, VIA))


def request_head(constant: bytes, forwarded: bytes, id_header: bytes, request_id: str, length: int) -> bytes:
    """The head of the request to the provider; ``constant`` holds request line, host and credential."""
    tail = f"{request_id}\r\ncontent-length: {length}\r\n\r\n"
    return b"".join((constant, forwarded, id_header, tail.encode()))


#: Lines of answers that are remembered, and how long such a line may be: most of a provider's lines are the same in
#: every answer, and one that makes them up must not fill the memory.
_LINES_MAX: Final = 1_024
_LINE_BYTES_MAX: Final = 256


class _Lines(dict[bytes, bytes]):
    """Line of a provider's head → that line as a client sees it, empty for one it does not see; learnt as they come."""

    def __missing__(self, line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        name = name.lower()
        shown = _ANSWER.get(name, b"")
        if name.startswith(_RATE_PREFIX):
            shown = b"x-provider-ratelimit-" + name[len(_RATE_PREFIX) :]
        seen = b"%b: %b\r\n" % (shown, value.strip(b" \t")) if shown else b""
        if len(line) <= _LINE_BYTES_MAX:
            if len(self) >= _LINES_MAX:
                self.clear()
            self[line] = seen
        return seen


_seen: Final = _Lines().__getitem__


def passed_headers(head: bytes) -> bytes:
    """The lines of a provider's head that a client may see."""
    # The status line has the name of no header that passes.
    return b"".join(map(_seen, head.split(b"\r\n")))


def content_type(passed: bytes) -> bytes:
    """The content type among the lines of ``passed_headers``, empty where it is missing."""
    at = (b"\r\n" + passed).rfind(b"\r\ncontent-type: ")
    return passed[at + 14 : passed.index(b"\r\n", at)] if at >= 0 else b""


def answer_head(status: int, passed: bytes, request_id: str, ours: bytes, framing: bytes, keep_alive: bool) -> bytes:
    """The head of an answer to the client; ``framing`` is its length or chunked line."""
    id = request_id.encode()
    return b"".join(
        (
            status_line(status),
            passed,
            b"x-faregate-request-id: ",
            id,
            b"\r\nx-request-id: ",
            id,
            b"\r\n",
            ours,
            framing,
            b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
        )
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked answer; nothing for no data, because an empty chunk would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


#: The longest chunk that is known by its bytes alone.
_CHUNK_BYTES_MAX: Final = 4 * 1024


def _head_of(length: int) -> bytes:
    """How a chunk of so many bytes in all begins; empty where none has this length."""
    for digits in range(1, 5):
        size = length - digits - 4
        if size > 0 and len(b"%x" % size) == digits:
            return b"%x\r\n" % size
    return b""


#: By the length of the whole chunk, which leaves its head no choice.
_CHUNK_HEADS: Final = [_head_of(length) for length in range(_CHUNK_BYTES_MAX + 1)]


def chunk_data_at(data: bytes) -> int:
    """Where the data begin in what is exactly as ``chunk`` makes it; 0 where it is not, or too long to tell."""
    length = len(data)
    if length > _CHUNK_BYTES_MAX:
        return 0
    head = _CHUNK_HEADS[length]
    return len(head) if head and data.startswith(head) and data.endswith(b"\r\n") else 0


def mask(body: bytes, masked: Iterable[str]) -> bytes:
    """A provider's error text without our credential or organization ids."""
    for text in masked:
        if text:
            body = body.replace(text.encode(), b"***")
    return body
