"""The wire formats that the simulator answers besides chats, completions and embeddings: a file for each. Pure.

``SPEAKERS`` lists them. A speaker reads a request into an ``Ask`` like every other, gets a ``Plan`` made of it, and
writes the answer; delays, holds, faults and the truth log are the simulator's own and work for all of them alike.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from faregate.simulator.asks import Ask
from faregate.simulator.events import Event
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan
from faregate.simulator.speakers import (
    anthropic,
    gemini,
    openai_audio,
    openai_batches,
    openai_files,
    openai_images,
    openai_moderations,
    rerank,
)
from faregate.simulator.speakers import openai_responses as responses


class Speaker(NamedTuple):
    """One operation of one wire format."""

    #: ``Ask.kind`` of what it reads; unique.
    kind: str
    method: str
    #: The whole path; a group ``model`` or ``id`` names the deployment, model or object in it.
    path: re.Pattern[str]
    #: What a request asks, given the name in its path; raises ``AskInvalid`` with the provider's complaint.
    read: Callable[[Request, str], Ask]
    #: The whole body of an answer that is not streamed, with the faults of its usage report in it.
    answer: Callable[[Plan], bytes]
    #: The true usage, in the provider's own shape; of so many delivered output tokens for an answer cut short.
    usage: Callable[[Plan, int | None], dict[str, Any]]
    #: All events of a stream, where there are streams; ``events.told`` makes them of a ``Writer``, with all faults. An
    #: event of ``Kind.DONE`` is the last one, with its bytes: the truth is on disk before it is sent.
    events: Callable[[Plan], Iterator[Event]] | None = None
    #: A stream is ``text/event-stream`` unless this says something else than JSON.
    content_type: Callable[[Plan], str] = lambda _: "application/json"
    #: An error body in the format's own shape: status and message; ``None`` writes OpenAI's.
    error: Callable[[int, str], bytes] | None = None
    #: Azure's path for it, which takes Azure's credential.
    azure: bool = False
    #: A call that is served and billed; a look at something that was made before leaves no truth record.
    recorded: bool = True
    #: Headers that may hold the credential, in lower case; empty for a bearer token, on Azure's paths ``api-key``, too.
    credentials: tuple[str, ...] = ()
    #: The header that carries the provider's id of a call; OpenAI's comes with OpenAI's other headers.
    id_header: str = "x-request-id"


def _responses(prefix: str, azure: bool) -> tuple[Speaker, ...]:
    """OpenAI's Responses below a prefix."""
    kind, one = "azure.response" if azure else "response", re.escape(prefix) + r"/responses/(?P<id>[^/]+)"

    def look(
        name: str, method: str, end: str, read: Callable[[Request, str], Ask], answer: Callable[[Plan], bytes]
    ) -> Speaker:
        path = re.compile(one + end)
        return Speaker(f"{kind}.{name}", method, path, read, answer, responses.no_usage, azure=azure, recorded=False)

    create = re.compile(re.escape(prefix) + "/responses")
    return (
        Speaker(kind, "POST", create, responses.read, responses.answer, responses.usage, responses.events, azure=azure),
        look("get", "GET", "", responses.read_look, responses.answer_look)._replace(events=responses.events_of_look),
        look("items", "GET", "/input_items", responses.read_items, responses.answer_items),
        look("cancel", "POST", "/cancel", responses.read_cancel, responses.answer_look),
        look("delete", "DELETE", "", responses.read_delete, responses.answer_delete),
    )


def _anthropic() -> tuple[Speaker, ...]:
    """Anthropic's messages and counts."""
    messages = re.compile(r"(?:/anthropic)?/v1/messages")
    counts = re.compile(r"(?:/anthropic)?/v1/messages/count_tokens")
    keys = ("x-api-key", "authorization")
    speak = Speaker("message", "POST", messages, anthropic.read, anthropic.answer, anthropic.usage, anthropic.events)
    count = Speaker("message_count", "POST", counts, anthropic.read_count, anthropic.answer_count, anthropic.usage)
    return tuple(
        each._replace(error=anthropic.error, credentials=keys, id_header="request-id")
        for each in (speak, count._replace(recorded=False))
    )


def _gemini() -> tuple[Speaker, ...]:
    """Gemini's verbs on a model."""

    def verb(kind: str, name: str, read: Callable[[Request, str], Ask], answer: Callable[[Plan], bytes]) -> Speaker:
        path = re.compile(rf"/v1(?:beta)?/models/(?P<model>[^/:]+):{name}")
        return Speaker(
            kind,
            "POST",
            path,
            read,
            answer,
            gemini.usage,
            error=gemini.error,
            credentials=("x-goog-api-key",),
            id_header="x-gemini-request-id",
        )

    return (
        verb("generate", "generateContent", gemini.read, gemini.answer),
        verb("generate_stream", "streamGenerateContent", gemini.read_stream, gemini.answer)._replace(
            events=gemini.events
        ),
        verb("embed_content", "embedContent", gemini.read_embed, gemini.answer_embed),
        verb("batch_embed_contents", "batchEmbedContents", gemini.read_batch_embed, gemini.answer_batch_embed),
        verb("gemini_count", "countTokens", gemini.read_count, gemini.answer_count)._replace(recorded=False),
    )


def _kept(prefix: str, azure: str = "") -> tuple[Speaker, ...]:
    """Files and batches below a prefix. Nothing is billed for them but the lines of a batch, each by itself."""

    def at(
        kind: str, method: str, path: str, read: Callable[[Request, str], Ask], answer: Callable[[Plan], bytes]
    ) -> Speaker:
        whole = re.compile(re.escape(prefix) + path)
        no_usage = openai_files.no_usage
        return Speaker(azure + kind, method, whole, read, answer, no_usage, azure=bool(azure), recorded=False)

    file, batch = openai_files, openai_batches
    one_file, one_batch = "/files/(?P<id>[^/]+)", "/batches/(?P<id>[^/]+)"
    content = at("file.content", "GET", one_file + "/content", file.read_look, file.answer_content)
    return (
        at("file", "POST", "/files", file.read, file.answer),
        at("file.list", "GET", "/files", file.read_list, file.answer_list),
        at("file.get", "GET", one_file, file.read_look, file.answer_look),
        at("file.delete", "DELETE", one_file, file.read_delete, file.answer_delete),
        content._replace(content_type=file.content_type),
        at("batch", "POST", "/batches", batch.read, batch.answer),
        at("batch.list", "GET", "/batches", batch.read_list, file.answer_list),
        at("batch.get", "GET", one_batch, batch.read_look, batch.answer),
        at("batch.cancel", "POST", one_batch + "/cancel", batch.read_cancel, batch.answer),
    )


def _media(prefix: str, azure: str = "") -> tuple[Speaker, ...]:
    """Images, audio, moderations and rerank below a prefix; on Azure, whose name it is, those that it has."""

    def at(path: str, read: Callable[[Request, str], Ask], answer: Callable[[Plan], bytes], **more: Any) -> Speaker:
        kind = azure + path.strip("/").replace("/", ".")
        return Speaker(kind, "POST", re.compile(prefix + path), read, answer, azure=bool(azure), **more)

    images = {"usage": openai_images.usage, "events": openai_images.events}
    heard = {"usage": openai_audio.usage, "content_type": openai_audio.content_type}
    spoken = {"usage": openai_audio.usage_of_speech, "content_type": openai_audio.content_type_of_speech}
    both = (
        at("/images/generations", openai_images.read, openai_images.answer, **images),
        at("/images/edits", openai_images.read_edit, openai_images.answer, **images),
        at("/audio/transcriptions", openai_audio.read, openai_audio.answer, events=openai_audio.events, **heard),
        at("/audio/translations", openai_audio.read_translation, openai_audio.answer, **heard),
        at(
            "/audio/speech",
            openai_audio.read_speech,
            openai_audio.answer_speech,
            events=openai_audio.events_of_speech,
            **spoken,
        ),
    )
    if azure:
        return both
    judge, order = openai_moderations, rerank
    return (
        *both,
        at("/images/variations", openai_images.read_variation, openai_images.answer, usage=openai_images.usage),
        at("/moderations", judge.read, judge.answer, usage=judge.usage),
        at("/rerank", order.read, order.answer, usage=order.usage),
    )


SPEAKERS: Final[tuple[Speaker, ...]] = (
    *_anthropic(),
    *_gemini(),
    *_responses("/v1", azure=False),
    *_responses("/openai/v1", azure=True),
    *_kept("/v1"),
    *_kept("/openai/v1", "azure."),
    *_media("/v1"),
    *_media("/openai/v1", "azure."),
    *_media("(?:/openai)?/deployments/(?P<model>[^/]+)", "deployment."),
)
