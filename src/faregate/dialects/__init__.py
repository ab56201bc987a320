"""Wire formats: one file for each, bytes in and values out. ``DIALECTS`` lists what the gate can meter.

A dialect is five functions, so a new one is a file and a line here. Nothing in this package does I/O.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from faregate.core.call import Call
from faregate.core.metering.meter import EventDecoder, Report
from faregate.dialects import answers, openai_chat, openai_completions, openai_embeddings
from faregate.errors import Problem


class Read(Protocol):
    """Reads a request body."""

    def __call__(self, body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
        """What the caller asks, or why it is refused; ``model`` is the name that the path gave, if it gave one."""
        ...


class Dialect(NamedTuple):
    """One wire format of one operation."""

    read: Read
    #: Whole answer → what it reports.
    usage_of: Callable[[bytes], Report]
    #: Whole answer → its billed text, for counting where no usage is reported.
    answer_text: Callable[[bytes], str]
    #: Data of streamed events → what they say; for ``StreamMeter``.
    decode_event: EventDecoder
    #: Request body → the texts to tokenize for an exact count, and the tokens to add to them.
    prompt_text: Callable[[bytes], list[str]]
    prompt_tokens_overhead: Callable[[bytes], int]


#: By the name of the operation; Azure's paths carry the same formats.
DIALECTS: Final[Mapping[str, Dialect]] = {
    openai_chat.OPERATION: Dialect(
        openai_chat.read,
        answers.report_of,
        openai_chat.answer_text,
        openai_chat.decode_event,
        openai_chat.prompt_text,
        openai_chat.prompt_tokens_overhead,
    ),
    openai_completions.OPERATION: Dialect(
        openai_completions.read,
        answers.report_of,
        openai_completions.answer_text,
        openai_completions.decode_event,
        openai_completions.prompt_text,
        openai_completions.prompt_tokens_overhead,
    ),
    openai_embeddings.OPERATION: Dialect(
        openai_embeddings.read,
        partial(answers.report_of, outputs=False),
        openai_embeddings.answer_text,
        openai_embeddings.decode_event,
        openai_embeddings.prompt_text,
        openai_embeddings.prompt_tokens_overhead,
    ),
}
