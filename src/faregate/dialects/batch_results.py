"""What the lines of a batch used: its file of results, added up as it comes.

Each line is billed as a call of its own, once: by what its answer reports, by the most that a line of the file may have
used where a good answer does not say (``batch_lines.worst``), and not at all where it failed. Lines that nobody asked
for are counted and not billed. Memory is bounded by one line and a few bytes for each line asked. Nothing a provider
sends makes this raise. (OpenAI, "API reference: Batch", the request output object.)
"""

from collections.abc import Callable
from typing import Final

import msgspec

from faregate.core.metering.meter import Report
from faregate.core.usage import NO_USAGE, Usage, added
from faregate.dialects import batch_lines
from faregate.dialects.batch_lines import BatchFile
from faregate.dialects.batch_shapes import ResultLine
from faregate.dialects.jsonbody import DECODING_ERRORS

#: A longer line is passed over, as one that cannot be read.
LINE_BYTES_MAX: Final = 64 * 1024 * 1024

#: The rule that a file of results without any line breaks: there is one only where something was answered.
EMPTY: Final = "the file of results is empty"

_line = msgspec.json.Decoder(ResultLine).decode


class ResultLines:
    """Adds up files of results, fed in pieces; see ``kept.Lines``.

    ``told`` hears the usage of each billed line, because each is priced as a call of its own.
    """

    def __init__(self, file: BatchFile, told: Callable[[Usage], None]) -> None:
        form = batch_lines.format_of(file.endpoint)
        self._usage_of = None if form is None else form.usage_of
        self._told = told
        self._file = file
        #: How many lines were asked, and what stands for their ids; no ids where they are not known.
        self._lines = file.lines
        self._ids = batch_lines.ids_of(file)
        self._seen: set[bytes] = set()
        self._usage = NO_USAGE
        self._answered: set[str] = set()
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        #: Lines that say that a call was answered, and that it failed.
        self.billed = 0
        self.failed = 0
        #: Lines that nobody asked for, or that were told before.
        self.strange = 0
        #: Lines that cannot be read, and answered lines without a usage report that can be true.
        self.unreadable = 0
        self.unreported = 0
        #: Members of usage reports that nobody knows.
        self.unknown = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of a file, cut anywhere."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data[start:end])
            self._take_rest()
            start = end + 1
        self._keep(data[start:])

    def close(self) -> None:
        """A file has ended; its last line may lack its line end."""
        self._take_rest()

    @property
    def report(self) -> Report:
        """What all lines so far add up to; lines that are strange or do not report count among what is unknown."""
        if not (self.billed or self.failed or self.strange):
            return Report(None, EMPTY)
        model = next(iter(self._answered)) if len(self._answered) == 1 else ""
        return Report(self._usage, "", model, unknown=self.unknown + self.strange + self.unreported)

    def _keep(self, part: bytes) -> None:
        self._rest_bytes += len(part)
        if self._rest_bytes <= LINE_BYTES_MAX:
            self._rest.append(part)
        else:
            self._rest.clear()

    def _take_rest(self) -> None:
        size, line = self._rest_bytes, b"".join(self._rest)
        self._rest.clear()
        self._rest_bytes = 0
        if size <= LINE_BYTES_MAX and not line.strip():
            return
        try:
            told = _line(line)
        except DECODING_ERRORS:
            # Whatever it was, some line was answered.
            self.unreadable += 1
            self._bill(None, size)
            return
        if not self._asked(batch_lines.digest_of(told.custom_id)):
            self.strange += 1
        elif told.response is None or told.response.status_code != 200:
            self.failed += 1
        else:
            body = bytes(told.response.body)
            self._bill(self._reported(body), len(body))

    def _asked(self, digest: bytes) -> bool:
        """Whether it is the first that is told of a line that was asked."""
        known = digest in self._ids if self._ids else len(self._seen) < self._lines
        if not known or digest in self._seen:
            return False
        self._seen.add(digest)
        return True

    def _reported(self, body: bytes) -> Usage | None:
        if self._usage_of is None:
            return None
        report = self._usage_of(body)
        self.unknown += report.unknown
        if report.model and len(self._answered) < 2:
            self._answered.add(report.model)
        return None if report.invalid else report.usage

    def _bill(self, usage: Usage | None, answer_bytes: int) -> None:
        if self.billed == self._lines:
            # There are no more than were asked, however many unreadable lines there are.
            return
        self.billed += 1
        if usage is None:
            self.unreported += 1
            usage = batch_lines.worst(self._file, answer_bytes)
        self._usage = added(self._usage, usage)
        self._told(usage)
