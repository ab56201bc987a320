"""The documented shapes of files, batches and their lines, as far as anybody here looks at them; decoded in C.

Data alone: what a field means is for ``batch_lines``, ``batch_results``, ``openai_files`` and ``openai_batches`` to
say. (OpenAI, "API reference: Files", "Batch", and there "The request output object".)
"""

from typing import Any

import msgspec


class LineResponse(msgspec.Struct, gc=False):
    """``response`` of a line of results: what the call behind it was answered."""

    status_code: Any = None
    #: Its bytes; empty where it is not there.
    body: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class ResultLine(msgspec.Struct, gc=False):
    """A line of a file of results or of errors."""

    custom_id: str
    response: LineResponse | None = None


class RequestCounts(msgspec.Struct, gc=False):
    """``request_counts`` of a batch."""

    total: Any = None
    completed: Any = None
    failed: Any = None


class Batch(msgspec.Struct, gc=False):
    """A batch, as far as its end and its results matter."""

    id: str
    status: str
    object: Any = None
    endpoint: Any = None
    input_file_id: Any = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: RequestCounts | None = None


class File(msgspec.Struct, gc=False):
    """A file that the provider keeps."""

    id: str
    object: Any = None
    purpose: Any = None


class Listed(msgspec.Struct, gc=False):
    """One entry of a list, as far as it matters whose it is."""

    id: str
