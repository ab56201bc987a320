"""Wire formats: one file for each, bytes in and values out. ``DIALECTS`` lists what the gate can meter.

A dialect is a few functions, so a new one is a file, a line here, and its path in ``operations``. Nothing in this
package does I/O.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from faregate.core.call import Call
from faregate.core.metering.meter import EventDecoder, Report
from faregate.core.usage import Usage
from faregate.dialects import (
    answers,
    anthropic_answers,
    anthropic_messages,
    endings,
    forms,
    gemini,
    gemini_answers,
    looks,
    openai_audio,
    openai_batches,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_files,
    openai_images,
    openai_moderations,
    openai_realtime,
    openai_responses,
    realtime_usage,
    rerank,
    responses_answers,
    splice,
)
from faregate.dialects.kept import Lines, Made, Outcome
from faregate.errors import Problem


class Read(Protocol):
    """Reads a request body."""

    def __call__(self, body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
        """What the caller asks, or why it is refused; ``model`` is the name that the path gave, if it gave one."""
        ...


class Edit(Protocol):
    """Changes the few things that forwarding needs; all other bytes stay as the caller sent them (RULINGS 13)."""

    def __call__(
        self, body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool
    ) -> bytes:
        """``body`` with another model name, an output cap, or a request for the usage of a stream."""
        ...


class Dialect(NamedTuple):
    """One wire format of one operation."""

    read: Read
    #: Whole answer → what it reports.
    usage_of: Callable[[bytes], Report]
    #: Whole answer → its billed text, for counting where no usage is reported.
    answer_text: Callable[[bytes], str]
    #: A decoder for each stream: data of its events → what they say; for ``StreamMeter``.
    events: Callable[[], EventDecoder]
    #: Request body → the texts to tokenize for an exact count, and the tokens to add to them.
    prompt_text: Callable[[bytes], list[str]]
    prompt_tokens_overhead: Callable[[bytes], int]
    #: What a request's body is: ``json``, ``form`` (multipart/form-data), ``none`` or ``any``.
    media: str = "json"
    #: Whether a good answer that is not a stream is a JSON object; audio, text and files are not.
    answers_json: bool = True
    #: The usage of a stream is told only when it is asked for, in an event that a client who did not ask must not see.
    asks_usage: bool = False
    #: Bytes that every event has after which a client may stop reading (beside ``data: [DONE]``); empty for none.
    last_mark: bytes = b""
    edit: Edit = splice.edit
    #: The member that caps the output, where the format has just one; empty where that is the model's to say.
    cap_field: str = ""
    #: Our own count of a good answer that reports nothing, in tokens: for calls whose ``declared`` units have no price.
    #: The answer is empty where it was not kept; its most is meant then.
    counted: Callable[[bytes, Call], Usage] | None = None
    #: Objects that the provider keeps (see ``kept``): those that a good answer names, the bounds that follow from one,
    #: what a look at one says of the work behind it, and the sum of what files of lines say.
    made: Callable[[bytes], tuple[Made, ...]] | None = None
    bounded: Callable[[Call, bytes], Call | Problem] | None = None
    outcome: Callable[[bytes], Outcome] | None = None
    lines: Callable[[bytes, Callable[[Usage], None]], Lines] | None = None
    #: A good answer that is a list of objects → the same with only those whose id is the caller's own.
    shown: Callable[[bytes, Callable[[str], bool]], bytes] | None = None
    #: How a stream ends where no more can be held for it; ``None`` for a format whose streams are never ended by us.
    end: Callable[[endings.Cut], bytes] | None = None


def _no_state(decode: EventDecoder) -> Callable[[], EventDecoder]:
    """What an event says does not depend on those before it, so that all streams share one decoder."""
    return lambda: decode


def _images(read: Read, form: bool = False) -> Dialect:
    """An operation of images; each stream has a decoder of its own, as each image reports for itself."""
    return Dialect(
        read,
        openai_images.usage_of,
        openai_images.answer_text,
        openai_images.ImageEvents,
        openai_images.prompt_text,
        openai_images.prompt_tokens_overhead,
        media="form" if form else "json",
        edit=forms.edit if form else splice.edit,
        counted=openai_images.counted_images,
    )


def _transcripts(read: Read) -> Dialect:
    """An operation that turns a recording into text."""
    return Dialect(
        read,
        openai_audio.usage_of,
        openai_audio.answer_text,
        _no_state(openai_audio.decode_transcript),
        openai_audio.prompt_text,
        openai_audio.prompt_tokens_overhead,
        media="form",
        answers_json=False,
        last_mark=openai_audio.TRANSCRIPT_MARK,
        edit=forms.edit,
        counted=openai_audio.counted_transcript,
    )


def _gemini(
    read: Read,
    report_of: Callable[[bytes], Report],
    cap_field: str = "",
    end: Callable[[endings.Cut], bytes] | None = None,
) -> Dialect:
    """A verb on a model of Gemini's; what it answers with has no cap where there is no ``cap_field``."""
    return Dialect(
        read,
        report_of,
        gemini_answers.answer_text,
        gemini_answers.GenerateEvents,
        gemini.prompt_text,
        gemini.prompt_tokens_overhead,
        edit=gemini.edit,
        cap_field=cap_field,
        end=end,
    )


def _look(operation: str, *, answers_json: bool = True) -> Dialect:
    """A look at an object that a provider keeps, or its end."""
    return Dialect(
        looks.Look(operation),
        looks.nothing_used,
        looks.no_text,
        _no_state(looks.Unbilled(openai_embeddings.decode_event)),
        looks.no_prompt,
        looks.no_tokens,
        media="none",
        answers_json=answers_json,
        edit=looks.unedited,
    )


#: By the name of the operation; Azure's paths carry the same formats.
DIALECTS: Final[Mapping[str, Dialect]] = {
    openai_chat.OPERATION: Dialect(
        openai_chat.read,
        answers.report_of,
        openai_chat.answer_text,
        _no_state(openai_chat.decode_event),
        openai_chat.prompt_text,
        openai_chat.prompt_tokens_overhead,
        asks_usage=True,
        end=endings.chat,
    ),
    openai_completions.OPERATION: Dialect(
        openai_completions.read,
        answers.report_of,
        openai_completions.answer_text,
        _no_state(openai_completions.decode_event),
        openai_completions.prompt_text,
        openai_completions.prompt_tokens_overhead,
        asks_usage=True,
        cap_field="max_tokens",
        end=endings.completion,
    ),
    openai_embeddings.OPERATION: Dialect(
        openai_embeddings.read,
        partial(answers.report_of, outputs=False),
        openai_embeddings.answer_text,
        _no_state(openai_embeddings.decode_event),
        openai_embeddings.prompt_text,
        openai_embeddings.prompt_tokens_overhead,
    ),
    openai_responses.OPERATION: Dialect(
        openai_responses.read,
        responses_answers.report_of,
        responses_answers.answer_text,
        responses_answers.ResponseEvents,
        openai_responses.prompt_text,
        openai_responses.prompt_tokens_overhead,
        last_mark=responses_answers.LAST_MARK,
        cap_field=openai_responses.CAP_FIELD,
        made=responses_answers.made,
        outcome=responses_answers.outcome,
        end=endings.response,
    ),
    "responses.get": _look("responses.get")._replace(
        events=lambda: looks.Unbilled(responses_answers.ResponseEvents()), last_mark=responses_answers.LAST_MARK
    ),
    "responses.items": _look("responses.items"),
    "responses.cancel": _look("responses.cancel"),
    "responses.delete": _look("responses.delete"),
    # What a file holds is read when it is uploaded; a batch of it is bounded by what was read then.
    openai_files.OPERATION: Dialect(
        openai_files.read,
        openai_files.usage_of,
        openai_files.answer_text,
        _no_state(openai_embeddings.decode_event),
        openai_files.prompt_text,
        openai_files.prompt_tokens_overhead,
        media="form",
        edit=openai_files.edit,
        made=openai_files.made,
    ),
    "files.list": _look("files.list")._replace(shown=openai_files.only_own),
    "files.get": _look("files.get"),
    "files.content": _look("files.content", answers_json=False),
    "files.delete": _look("files.delete"),
    openai_batches.OPERATION: Dialect(
        openai_batches.read,
        openai_batches.usage_of,
        openai_batches.answer_text,
        _no_state(openai_embeddings.decode_event),
        openai_batches.prompt_text,
        openai_batches.prompt_tokens_overhead,
        edit=openai_batches.edit,
        made=openai_batches.made,
        bounded=openai_batches.bounded,
        outcome=openai_batches.outcome,
        lines=openai_batches.lines,
    ),
    # The files of a batch that is done belong to whoever made it, so a look makes them its own.
    "batches.list": _look("batches.list")._replace(shown=openai_files.only_own),
    "batches.get": _look("batches.get")._replace(made=openai_batches.made),
    "batches.cancel": _look("batches.cancel")._replace(made=openai_batches.made),
    anthropic_messages.OPERATION: Dialect(
        anthropic_messages.read,
        anthropic_answers.report_of,
        anthropic_answers.answer_text,
        anthropic_answers.MessageEvents,
        anthropic_messages.prompt_text,
        anthropic_messages.prompt_tokens_overhead,
        last_mark=anthropic_answers.LAST_MARK,
        cap_field=anthropic_messages.CAP_FIELD,
        end=endings.message,
    ),
    anthropic_messages.COUNT_OPERATION: Dialect(
        anthropic_messages.read_count,
        anthropic_answers.report_of_count,
        anthropic_answers.answer_text,
        anthropic_answers.MessageEvents,
        anthropic_messages.prompt_text,
        anthropic_messages.prompt_tokens_overhead,
    ),
    gemini.OPERATION: _gemini(gemini.read, gemini_answers.report_of, gemini.CAP_FIELD),
    gemini.STREAM_OPERATION: _gemini(gemini.read_stream, gemini_answers.report_of, gemini.CAP_FIELD, endings.generated),
    gemini.EMBED_OPERATION: _gemini(gemini.read_embed, gemini_answers.report_of_embedding),
    gemini.BATCH_EMBED_OPERATION: _gemini(gemini.read_batch_embed, gemini_answers.report_of_embedding),
    gemini.COUNT_OPERATION: _gemini(gemini.read_count, gemini_answers.report_of_count),
    openai_images.GENERATIONS: _images(openai_images.read),
    openai_images.EDITS: _images(openai_images.read_edit, form=True),
    openai_images.VARIATIONS: _images(openai_images.read_variation, form=True),
    openai_audio.TRANSCRIPTIONS: _transcripts(openai_audio.read),
    openai_audio.TRANSLATIONS: _transcripts(openai_audio.read_translation),
    openai_audio.SPEECH: Dialect(
        openai_audio.read_speech,
        openai_audio.speech_usage_of,
        openai_audio.speech_text,
        _no_state(openai_audio.decode_speech),
        openai_audio.speech_prompt_text,
        openai_audio.speech_prompt_overhead,
        answers_json=False,
        last_mark=openai_audio.SPEECH_MARK,
        counted=openai_audio.counted_speech,
    ),
    openai_moderations.OPERATION: Dialect(
        openai_moderations.read,
        openai_moderations.usage_of,
        openai_embeddings.answer_text,
        _no_state(openai_embeddings.decode_event),
        openai_moderations.prompt_text,
        openai_moderations.prompt_tokens_overhead,
    ),
    # A session is a WebSocket, which does not come here; its refusal as a plain request does, and what a lookup tells.
    openai_realtime.OPERATION: Dialect(
        openai_realtime.read,
        realtime_usage.usage_of,
        openai_realtime.answer_text,
        _no_state(openai_embeddings.decode_event),
        openai_realtime.prompt_text,
        openai_realtime.prompt_tokens_overhead,
        media="none",
    ),
    rerank.OPERATION: Dialect(
        rerank.read,
        rerank.usage_of,
        openai_embeddings.answer_text,
        _no_state(openai_embeddings.decode_event),
        rerank.prompt_text,
        rerank.prompt_tokens_overhead,
        counted=rerank.counted_rerank,
    ),
}
