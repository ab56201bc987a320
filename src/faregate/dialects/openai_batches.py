"""OpenAI batches: what a new one asks, and what a look at one says about its end and where its results are.

A batch is work that is accepted now and costs later. What it may cost, the facts of its input file say
(``batch_lines``); what it did cost, its results (``batch_results``), which are files of the same provider. A batch that
failed its validation has cost nothing; one that expired or was cancelled costs what was done until then. (OpenAI, "API
reference: Batch", the batch object; guide "Batch API".)
"""

from collections.abc import Callable
from typing import Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.core.usage import NO_USAGE, Usage
from faregate.dialects import answers, batch_lines, fields, kept, responses_answers
from faregate.dialects.batch_lines import FORMATS, BatchFile, format_of
from faregate.dialects.batch_results import ResultLines
from faregate.dialects.batch_shapes import Batch
from faregate.dialects.jsonbody import DECODING_ERRORS, members
from faregate.dialects.kept import Made, Outcome
from faregate.dialects.quoting import echo, expected
from faregate.errors import Problem

OPERATION: Final = "batches"

#: Every other status (validating, in_progress, finalizing, cancelling) is one of work that goes on.
ENDED: Final = ("completed", "failed", "expired", "cancelled")

#: More than any bound, so that a bound stands where the smaller of the two is taken.
UNCOUNTED: Final = 1 << 62

_batch = msgspec.json.Decoder(Batch).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a request for a new batch asks: a job, with a file that must be the caller's.

    Its bound is in the facts of that file, see ``bounded``; until then ``facts`` holds the path that was asked for.
    """
    del forbid_private_urls  # This format holds no addresses; the argument is every dialect's.
    found = members(body, "metadata")
    if isinstance(found, Problem):
        return found
    problem = fields.steering(found)
    if problem is not None:
        return problem
    input_file = fields.name(found.get("input_file_id"), "input_file_id")
    if isinstance(input_file, Problem):
        return input_file
    endpoint = fields.name(found.get("endpoint"), "endpoint")
    if isinstance(endpoint, Problem):
        return endpoint
    if format_of(endpoint) is None:
        paths = ", ".join(f"/v1{path}" for path in FORMATS)
        return expected("field_enum", "endpoint", f"one of {paths}", echo(endpoint), "nothing else has a bound")
    return Call(
        OPERATION,
        model,
        has_output=False,
        members=tuple(found),
        job=True,
        objects=(input_file,),
        sealed=True,
        facts=endpoint.encode(),
    )


def bounded(call: Call, facts: bytes) -> Call | Problem:
    """The call with the bounds of its file, whose ``facts`` are those of the upload: as if all lines were one call.

    Its operation is theirs, which its caller must be allowed to use.

    Lines with a cap and lines without one cannot be told apart in one cap, so ``extra_output_tokens`` is the output of
    the former where there are any of the latter. What the file lacks is read as often as the lines say, each time as
    much as the model's context holds; lines that need none of that count as if they did where there are both.
    """
    try:
        file = batch_lines.unpacked(facts)
    except msgspec.MsgspecError:
        wanted = "a file that was uploaded here with the purpose batch"
        return expected("field_range", "input_file_id", wanted, "another", "upload its lines again")
    endpoint = call.facts.decode()
    if endpoint != file.endpoint:
        wanted = f"{echo(file.endpoint)}, as in the lines of the file"
        return expected("field_conflict", "endpoint", wanted, echo(endpoint))
    turns = file.turns + file.lines - file.opened if file.opened else 1
    form = batch_lines.format_of(endpoint)
    assert form is not None, "only known paths were read"
    return call._replace(
        operation=form.operation,
        model=file.model,
        has_output=form.has_output,
        output_cap=None if file.uncapped else max(1, file.output_tokens),
        choices=file.uncapped or 1,
        extra_output_tokens=file.output_tokens if file.uncapped else 0,
        input_tokens_max=file.longest_input if file.opened else file.input_tokens,
        whole_context=bool(file.opened),
        turns=turns,
        media=file.media,
        at_most=file.at_most,
        calls=file.lines,
        longest_input=0 if file.opened else file.longest_input,
        facts=facts,
    )


def edit(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """The body as it is: models and caps are named in the lines of its file, which has gone before."""
    del call, model, cap, cap_field, ask_usage
    return body


def prompt_text(body: bytes) -> list[str]:
    """What the models read is not in the request but in its file."""
    del body
    return []


def prompt_tokens_overhead(body: bytes) -> int:
    """Nothing can be counted here, so no count shall take the place of the bound."""
    del body
    return UNCOUNTED


# -- answers -----------------------------------------------------------------------------------------------------------


def usage_of(body: bytes) -> Report:
    """What the answer to a new batch reports: that it was accepted, unless it has failed at once. Never raises.

    A provider that is asked by request id, because this answer was lost, tells what all lines used, as their own
    answers would.
    """
    batch = _batch_of(body)
    if batch is not None:
        id = answers.short(batch.id)
        return Report(NO_USAGE, id=id) if batch.status == "failed" else Report(id=id, pending=True)
    for told in (answers.report_of(body, outputs=False), responses_answers.report_of(body)):
        if told.usage is not None:
            return told
    return Report(None, "the answer is not a batch")


def answer_text(body: bytes) -> str:
    """What is said of a batch is no answer of a model's."""
    del body
    return ""


def made(body: bytes) -> tuple[Made, ...]:
    """The batch that an answer describes, and the files that it has made. Never raises."""
    batch = _batch_of(body)
    if batch is None:
        return ()
    files = (batch.output_file_id, batch.error_file_id)
    return (Made(batch.id, kept.BATCH), *(Made(id, kept.FILE) for id in files if id))


def outcome(body: bytes) -> Outcome:
    """What a look at a batch says of the work behind it. Never raises."""
    batch = _batch_of(body)
    if batch is None:
        return Outcome(report=Report(None, "the answer is not a batch"))
    id = answers.short(batch.id)
    if batch.status not in ENDED:
        # A status that nobody knows is not an end.
        return Outcome(report=Report(id=id, pending=True))
    complete = batch.status == "completed" and not (batch.request_counts and batch.request_counts.failed)
    if batch.output_file_id:
        # Errors are in a file of their own, in which nothing was used.
        return Outcome(True, complete, Report(id=id), (batch.output_file_id,))
    if batch.request_counts and batch.request_counts.completed:
        return Outcome(True, complete, Report(None, "lines were answered, but there is no file of results", id=id))
    return Outcome(True, complete, Report(NO_USAGE, id=id))


def lines(facts: bytes, told: Callable[[Usage], None]) -> ResultLines:
    """What adds up the results of a batch whose ``facts`` are those of its file; see ``ResultLines``.

    Without facts that can be read no line was asked, so that each counts as strange.
    """
    try:
        file = batch_lines.unpacked(facts)
    except msgspec.MsgspecError:
        file = BatchFile("", "", 0)
    return ResultLines(file, told)


def _batch_of(body: bytes) -> Batch | None:
    try:
        batch = _batch(body)
    except DECODING_ERRORS:
        return None
    return batch if batch.id and batch.object in ("batch", None) else None
