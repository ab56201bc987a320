"""The lines of a batch's input file: what each asks, what all of them may cost at most, another model name in them.

A file is JSON lines; each holds ``custom_id``, ``method``, ``url`` and the ``body`` of a call, which is read by the
dialect of its path as if it came alone. All go to one path and to one model, as providers demand it. What they may use
is added up, and the most that one of them may use is kept, so that a line which is answered without a report can be
billed by that. Nothing here knows a price.

Time is linear in the file, memory a few bytes for each line beside the file itself. A line of 1 KiB takes some 30
microseconds, and as much again to give it another name, so that a large file belongs into a thread. (OpenAI, "API
reference: Batch", the request input object; guide "Batch API".)
"""

from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.core.usage import Measure, Usage, measures
from faregate.dialects import (
    answers,
    fields,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_moderations,
    openai_responses,
    responses_answers,
    splice,
)
from faregate.dialects.jsonbody import BOM, Members, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

#: As OpenAI has it.
LINES_MAX: Final = 50_000
#: A line is the body of a call and little more.
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
#: Objects kept by the provider that the lines name, all together; each has to be looked up.
OBJECTS_MAX: Final = 4_096

_MEMBERS: Final = frozenset(("custom_id", "method", "url", "body"))


class ReadBody(Protocol):
    """Reads the body of one call; see ``dialects.Read``."""

    def __call__(self, body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
        """What the call asks, or why it is refused."""
        ...


class LineFormat(NamedTuple):
    """How the calls to one path are read, and what their answers say."""

    operation: str
    read: ReadBody
    usage_of: Callable[[bytes], Report]
    #: Its answers have tokens that are billed.
    has_output: bool = True


#: By the path below ``/v1``: what can be in a batch and has a bound.
FORMATS: Final = {
    "/chat/completions": LineFormat(openai_chat.OPERATION, openai_chat.read, answers.report_of),
    "/completions": LineFormat(openai_completions.OPERATION, openai_completions.read, answers.report_of),
    "/embeddings": LineFormat(
        openai_embeddings.OPERATION, openai_embeddings.read, partial(answers.report_of, outputs=False), False
    ),
    "/responses": LineFormat(openai_responses.OPERATION, openai_responses.read, responses_answers.report_of),
    "/moderations": LineFormat(
        openai_moderations.OPERATION, openai_moderations.read, openai_moderations.usage_of, False
    ),
}


def format_of(path: str) -> LineFormat | None:
    """The format of a path such as ``/v1/responses``; Azure's older files leave out ``/v1``."""
    return FORMATS.get(path.removeprefix("/v1"))


class BatchFile(NamedTuple):
    """A file of calls, added up: all that must be known of it later."""

    #: The path of all lines, as they spell it.
    endpoint: str
    model: str
    lines: int
    #: Bound of the input that stands in the file, and the longest of a line.
    input_tokens: int = 0
    longest_input: int = 0
    #: Bound of the output of lines with a cap, and of what others may have beyond theirs; the longest of a line.
    output_tokens: int = 0
    longest_output: int = 0
    #: Answers without a cap, each as long as the model makes them: of all lines, and the most of one.
    uncapped: int = 0
    most_uncapped: int = 0
    #: Lines whose model reads more than stands in the file, how often its context window is read for all of them, and
    #: the most for one. Their input in the file is not among ``input_tokens``.
    opened: int = 0
    turns: int = 0
    most_turns: int = 0
    media: int = 0
    #: Other units, of all lines, and the most of each that one line may use.
    at_most: tuple[Measure, ...] = ()
    most_of_one: tuple[Measure, ...] = ()
    #: Eight bytes for each line's id, in order (``digest_of``); empty where the lines are more than ``IDS_MAX``.
    ids: bytes = b""


#: Facts are kept with every file and batch, so they stay small: of more lines the ids are not kept.
IDS_MAX: Final = 1_500
_DIGEST_BYTES: Final = 8

_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_unpack = msgspec.msgpack.Decoder(BatchFile).decode


def packed(file: BatchFile) -> bytes:
    """The file's facts as bytes (MessagePack), for whoever keeps them."""
    return msgspec.msgpack.encode(file)


def unpacked(facts: bytes) -> BatchFile:
    """The facts again.

    Raises:
        msgspec.MsgspecError: the bytes are not of ``packed``.
    """
    return _unpack(facts)


def digest_of(custom_id: str) -> bytes:
    """What stands for a line's id: eight bytes."""
    return blake2b(custom_id.encode("utf-8", "replace"), digest_size=_DIGEST_BYTES).digest()


def ids_of(file: BatchFile) -> set[bytes]:
    """What stands for the ids of all lines; empty where they were too many to be kept."""
    return {file.ids[at : at + _DIGEST_BYTES] for at in range(0, len(file.ids), _DIGEST_BYTES)}


def worst(file: BatchFile, answer_bytes: int) -> Usage:
    """The most that a line may have used, for one whose answer of so many bytes does not say.

    Without a cap, only the model's maximum would bound it, which is not known here: then a token is at least one byte
    of what was answered. What was read beside the file is taken to be as long as the longest line, for each turn.
    """
    output = max(file.longest_output, answer_bytes) if file.most_uncapped else file.longest_output
    return Usage(input_text=file.longest_input * max(1, file.most_turns), output_text=output, other=file.most_of_one)


# -- reading -----------------------------------------------------------------------------------------------------------


def spans(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number (from 1), beginning and end of each line that is not blank, without its line end."""
    number = 0
    while start < end:
        number += 1
        stop = content.find(b"\n", start, end)
        following = stop + 1 if stop >= 0 else end
        stop = stop if stop >= 0 else end
        if stop > start and content[stop - 1] == 0x0D:
            stop -= 1
        # A long line is not copied just to see that it is not blank.
        if stop - start > 256 or content[start:stop].strip(b" \t\r"):
            yield number, start, stop
        start = following


class Understood(NamedTuple):
    """A file that was read."""

    file: BatchFile
    operation: str
    #: Ids of what the provider keeps that lines name; they must be the caller's own.
    objects: tuple[str, ...]


def read(
    content: bytes, start: int = 0, end: int | None = None, *, forbid_private_urls: bool = True
) -> Understood | Problem:
    """The calls in a file, which stands from ``start`` to ``end`` of ``content``; the first bad line is named.

    ``forbid_private_urls`` is as for the calls alone.
    """
    reader = _Reader(forbid_private_urls)
    for number, begin, stop in spans(content, start, len(content) if end is None else end):
        problem = reader.take(number, content, begin, stop)
        if problem is not None:
            return problem
    return reader.result()


class _Reader:
    """Adds up the lines of one file."""

    def __init__(self, forbid_private_urls: bool) -> None:
        self._forbid_private_urls = forbid_private_urls
        self._endpoint = ""
        self._format: LineFormat | None = None
        self._seen: dict[bytes, None] = {}
        self._sum: _Sum | None = None
        self._objects: dict[str, None] = {}

    def take(self, number: int, content: bytes, begin: int, stop: int) -> Problem | None:
        """Take one line; its refusal names its number."""
        if len(self._seen) == LINES_MAX:
            return expected("field_range", "file", f"at most {LINES_MAX} lines", "more", "send several batches")
        if stop - begin > LINE_BYTES_MAX:
            got = f"{stop - begin} in line {number}"
            return expected("field_range", "file", f"at most {LINE_BYTES_MAX} bytes a line", got)
        line = content[begin:stop]
        problem = self._take(number, line)
        return None if problem is None else _in_line(number, problem)

    def _take(self, number: int, line: bytes) -> Problem | None:
        if not line.isascii():
            # What the formats do not look at passes untouched, but not as bytes that some reader replaces.
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return Problem("json_utf8", f"Body is not UTF-8 at byte {error.start + 1}: {error.reason}; send UTF-8.")
        found = members(line, "body")
        if isinstance(found, Problem):
            return found
        problem = self._identify(found)
        if problem is not None:
            return problem
        form = self._formatted(found)
        if isinstance(form, Problem):
            return form
        if "body" not in found:
            return missing("body", "the body of a call")
        call = form.read(bytes(found["body"]), "", self._forbid_private_urls)
        if isinstance(call, Problem):
            return _in_body(call)
        return _not_in_a_batch(call) or self._add(call)

    def _identify(self, found: Members) -> Problem | None:
        """Take the line's own id; two lines of one digest could not be told apart later."""
        if not _MEMBERS.issuperset(found):
            told = next(name for name in found if name not in _MEMBERS)
            return expected("field_unknown", echo(told), "custom_id, method, url and body", "another member")
        custom_id = fields.name(found.get("custom_id"), "custom_id")
        if isinstance(custom_id, Problem):
            return custom_id
        digest = digest_of(custom_id)
        if digest in self._seen:
            return expected("field_conflict", "custom_id", "one that no other line has", echo(custom_id))
        self._seen[digest] = None
        return None

    def _formatted(self, found: Members) -> LineFormat | Problem:
        """The format of the line's path, which is the path of all."""
        method = fields.name(found.get("method"), "method")
        if isinstance(method, Problem):
            return method
        if method != "POST":
            return expected("field_enum", "method", "POST", echo(method))
        url = fields.name(found.get("url"), "url")
        if isinstance(url, Problem):
            return url
        if self._format is not None and url == self._endpoint:
            return self._format
        form = format_of(url)
        if form is None:
            paths = ", ".join(f"/v1{path}" for path in FORMATS)
            return expected("field_enum", "url", f"one of {paths}", echo(url), "nothing else in a batch has a bound")
        if self._format is not None:
            wanted = f"{self._endpoint}, as in the lines before"
            return expected("field_conflict", "url", wanted, echo(url), "send one batch for each path")
        self._format, self._endpoint = form, url
        return form

    def _add(self, call: Call) -> Problem | None:
        total = self._sum
        if total is None:
            total = self._sum = _Sum(call.model)
        elif call.model != total.model:
            wanted = f"{echo(total.model)}, as in the lines before"
            return expected("field_conflict", "body.model", wanted, echo(call.model), "send one batch for each model")
        if call.objects:
            self._objects.update(dict.fromkeys(call.objects))
            if len(self._objects) > OBJECTS_MAX:
                return expected("field_range", "body", f"at most {OBJECTS_MAX} stored objects in a file", "more")
        total.add(call)
        return None

    def result(self) -> Understood | Problem:
        """What all lines add up to."""
        if self._format is None or self._sum is None:
            return expected("field_range", "file", "at least one line", "none")
        ids = b"".join(self._seen) if len(self._seen) <= IDS_MAX else b""
        return Understood(self._sum.file(self._endpoint, ids), self._format.operation, tuple(self._objects))


class _Sum:
    """A ``BatchFile`` while it is added up."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._lines = 0
        self._input_tokens = self._longest_input = 0
        self._output_tokens = self._longest_output = 0
        self._uncapped = self._most_uncapped = 0
        self._opened = self._turns = self._most_turns = 0
        self._media = 0
        self._at_most: dict[tuple[str, str], int] = {}
        self._most_of_one: dict[tuple[str, str], int] = {}

    def add(self, call: Call) -> None:
        """Add the call of one line."""
        self._lines += 1
        incoming = max(0, call.input_tokens_max)
        self._longest_input = max(self._longest_input, incoming)
        if call.whole_context or call.turns > 1:
            self._opened += 1
            self._turns += call.turns
            self._most_turns = max(self._most_turns, call.turns)
        else:
            self._input_tokens += incoming
        if call.has_output:
            outgoing = call.extra_output_tokens
            if call.output_cap is None:
                self._uncapped += call.choices
                self._most_uncapped = max(self._most_uncapped, call.choices)
            else:
                outgoing += call.output_cap * call.choices
            self._output_tokens += outgoing
            self._longest_output = max(self._longest_output, outgoing)
        self._media |= call.media
        for unit, variant, quantity in measures((*call.at_most, *call.declared)):
            key = unit, variant
            self._at_most[key] = self._at_most.get(key, 0) + quantity
            self._most_of_one[key] = max(self._most_of_one.get(key, 0), quantity)

    def file(self, endpoint: str, ids: bytes) -> BatchFile:
        """What was added up."""
        return BatchFile(
            endpoint,
            self.model,
            self._lines,
            self._input_tokens,
            self._longest_input,
            self._output_tokens,
            self._longest_output,
            self._uncapped,
            self._most_uncapped,
            self._opened,
            self._turns,
            self._most_turns,
            self._media,
            _as_measures(self._at_most),
            _as_measures(self._most_of_one),
            ids,
        )


def _as_measures(found: dict[tuple[str, str], int]) -> tuple[Measure, ...]:
    return measures(Measure(unit, variant, quantity) for (unit, variant), quantity in found.items())


def _not_in_a_batch(call: Call) -> Problem | None:
    """The refusal of what a batch cannot do, or does at a price of its own."""
    if call.stream:
        return expected("field_conflict", "body.stream", "false", "true", "a batch is not streamed")
    if call.job:
        return expected("field_conflict", "body.background", "false", "true", "a batch runs in the background anyway")
    if call.service_tier:
        tier = f"the tier {echo(call.service_tier)} in a batch"
        return unbounded("body.service_tier", tier, "leave it out; a batch has its own prices")
    return None


def _in_line(number: int, problem: Problem) -> Problem:
    """A refusal that says which line it is about."""
    told = problem.message
    told = f"Line {number}{told[4:]}" if told.startswith("Body is ") else f"Line {number}: {told}"
    param = f"line {number}" if problem.param is None else f"line {number}: {problem.param}"
    return problem._replace(message=told, param=param)


def _in_body(problem: Problem) -> Problem:
    """A refusal of a line's body, told from the line."""
    told = problem.message
    param = None if problem.param is None else f"body.{problem.param}".removesuffix(".$")
    if problem.param is not None and told.startswith(problem.param):
        told = f"body.{told}".replace("body.$", "body", 1)
    elif told.startswith("Body is "):
        told = f"body{told[4:]}"
    return problem._replace(message=told, param=param or "body")


# -- another name ------------------------------------------------------------------------------------------------------


def renamed(content: bytes, model: str | None, start: int = 0, end: int | None = None) -> bytes:
    """The lines with another model name in each; every other byte as it was.

    ``content`` is one that ``read`` took, from ``start`` to ``end``; ``None`` leaves the names. Where hosted tools have
    no cap on their calls, the one that the bound was made with goes in.
    """
    end = len(content) if end is None else end
    pieces: list[bytes] = []
    done = start
    for _, begin, stop in spans(content, start, end):
        line = content[begin:stop]
        changed = _renamed(line, model)
        if changed is not line:
            pieces += (content[done:begin], changed)
            done = stop
    pieces.append(content[done:end])
    return b"".join(pieces)


def _renamed(line: bytes, model: str | None) -> bytes:
    found = _raw_members(line.removeprefix(BOM))
    form = format_of(msgspec.json.decode(found["url"]))
    assert form is not None, "only known paths were read"
    body = bytes(found["body"])
    call = form.read(body, "", False)
    assert isinstance(call, Call), "a body is read the same way twice"
    changed = body
    if model is not None and model != call.model:
        changed = splice.put(changed, "model", msgspec.json.encode(model), "model" in call.members)
    if call.tool_cap is not None:
        member, most = call.tool_cap
        changed = splice.put(changed, member, b"%d" % most, member in call.members)
    if changed is body:
        return line
    # The other members are plain texts, in which no quote stands unescaped, so these bytes are found once.
    at = line.index(body)
    return line[:at] + changed + line[at + len(body) :]
