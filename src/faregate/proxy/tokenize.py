"""The tokenizer service on the gateway's port: ``/api/tokenize`` and ``/api/encodings``, for whoever has a key.

It is free: nothing is held, journalled or counted as a request, so that no limit concerns it. What keeps it from being
a burden is that texts are bounded, that they are counted beside the event loop, on a thread that no call waits for, and
that only a few questions may wait there at a time. What is asked and answered is decided behind the port.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from faregate.dialects.jsonbody import DECODING_ERRORS, explain
from faregate.errors import Problem
from faregate.ports import Tokenizer
from faregate.proxy.guard import guarded
from faregate.proxy.refuse import plain_answer

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

TOKENIZE: Final = "tokenize"
ENCODINGS: Final = "encodings"
TOKENIZER_OPERATIONS: Final = frozenset((TOKENIZE, ENCODINGS))

BODY_BYTES_MAX: Final = 1024 * 1024
QUERY_FIELDS_MAX: Final = 8
#: Questions that wait for the thread, of all keys together; a whole body takes it some 50 ms.
WAITING_MAX: Final = 16

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode

_OVERLOADED: Final = Problem("overloaded", "Too many texts wait to be tokenized; retry.", retry_after_s=1)


class TokenizerDesk:
    """Takes questions of identified callers; one for each gate."""

    __slots__ = ("_thread", "_tokenizer", "waiting")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Started with the first question; one of a megabyte must not make a call wait for the count of its prompt.
        self._thread = ThreadPoolExecutor(1, "tokenize")
        #: Questions that were taken and are not answered yet.
        self.waiting = 0

    def close(self) -> None:
        """Answer no more questions; those that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def answer(self, exchange: "Exchange") -> Problem | None:
        """Answer a request for ``/api/tokenize`` or ``/api/encodings`` whose key is known.

        A problem is for the caller to refuse with; ``None`` where it is answered, or will be from the thread.
        """
        operation = exchange.operation
        assert operation is not None
        if operation.name == ENCODINGS:
            self._write(exchange, self._tokenizer.encodings())
            return None
        asked = _asked(exchange)
        if isinstance(asked, Problem):
            return asked
        if self.waiting >= WAITING_MAX:
            return _OVERLOADED
        routes = exchange.snapshot.routes

        def model_of(name: str) -> str:
            """The model that a configured name goes to first."""
            targets = routes.get(name)
            return targets[0].model if targets else name

        self.waiting += 1
        future = exchange.gate.loop.run_in_executor(self._thread, self._tokenizer.answer, asked, model_of)
        future.add_done_callback(guarded(lambda done: self._done(exchange, done), exchange.mistaken))
        return None

    def _done(self, exchange: "Exchange", done: "asyncio.Future[dict[str, Any] | Problem]") -> None:
        self.waiting -= 1
        if exchange.ended or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            exchange.mistaken(error)
            return
        found = done.result()
        if isinstance(found, Problem):
            exchange.refuse(found)
        else:
            self._write(exchange, found)

    def _write(self, exchange: "Exchange", answer: Mapping[str, Any]) -> None:
        exchange.write_whole(plain_answer(200, _encode(answer), exchange.id, keep_alive=exchange.keep_alive))


def _asked(exchange: "Exchange") -> dict[str, Any] | Problem:
    """The question: members of the body, or fields of the query."""
    request, body = exchange.request, exchange.body
    if request.method != b"POST":
        query = request.target.partition(b"?")[2].decode("latin-1")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="replace")
        except ValueError:
            return Problem("field_range", f"The query has more than {QUERY_FIELDS_MAX} fields.")
        # The credential may stand there, too.
        fields = [pair for pair in pairs if pair[0] != "subscription-key"]
        if len(dict(fields)) < len(fields):
            return Problem("field_conflict", "A field of the query stands there twice; send it once.")
        return dict(fields)
    headers = request.headers
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        return Problem("media_unsupported", "Send Content-Type application/json.", "Content-Type")
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        return Problem("encoding_unsupported", "Compressed request bodies are not accepted.", "Content-Encoding")
    if len(body) > BODY_BYTES_MAX:
        return Problem("body_too_large", f"A text to tokenize has at most {BODY_BYTES_MAX} bytes.")
    try:
        return _decode(body)
    except DECODING_ERRORS:
        return explain(body)
