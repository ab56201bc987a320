"""OpenAI text completions, the older format: what a call asks, what an answer used, what a stream's event says."""

from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Event
from faregate.dialects import answers, fields
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, kind_of, members
from faregate.dialects.quoting import expected, unbounded
from faregate.dialects.shapes import Chunk, CompletionChoice, LooseChunk, PlainChunk, PlainCompletionChoice
from faregate.errors import Problem

OPERATION: Final = "completions"

#: Most prompts in one call, as OpenAI has it.
PROMPTS_MAX: Final = 2048

_COMMON: Final = frozenset(
    """
    model prompt stream stream_options max_tokens n best_of user temperature top_p stop seed suffix echo logprobs
    frequency_penalty presence_penalty logit_bias
    """.split()
)

_FEATURES: Final = {"background": ("background answers", "leave it out")}

#: What a text and a list begin with.
_QUOTE: Final = 0x22
_BRACKET: Final = 0x5B

_values = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused; ``model`` is the name that the path gave (Azure)."""
    del forbid_private_urls  # This format holds no addresses; the argument is every dialect's.
    found = members(body, "prompt")
    if isinstance(found, Problem):
        return found
    tier = ""
    if not _COMMON.issuperset(found):
        problem = fields.steering(found) or fields.refuse_present(found, _FEATURES)
        if problem is not None:
            return problem
        asked = fields.service_tier(found)
        if isinstance(asked, Problem):
            return asked
        tier = asked
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    # With echo a cap of 0 asks for the prompt's own probabilities.
    cap = fields.cap(found, least=0 if "echo" in found else 1)
    if isinstance(cap, Problem):
        return cap
    choices = _choices(found)
    if isinstance(choices, Problem):
        return choices
    streamed = fields.stream(found)
    if isinstance(streamed, Problem):
        return streamed
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    return Call(
        OPERATION,
        name,
        streamed[0],
        streamed[1],
        choices,
        cap[0],
        cap[1],
        len(body),
        0,
        True,
        user,
        tuple(found),
        service_tier=tier,
    )


def _choices(found: Members) -> int | Problem:
    """How many answers are billed: for each prompt ``best_of`` candidates, or ``n`` where that is more."""
    each = fields.choices(found)
    if isinstance(each, Problem):
        return each
    prompts = count_inputs(found.get("prompt"), "prompt", PROMPTS_MAX)
    return prompts if isinstance(prompts, Problem) else each * prompts


def count_inputs(value: msgspec.Raw | None, path: str, most: int) -> int | Problem:
    """How many inputs a text, a list of texts, a list of tokens or a list of such lists is."""
    if value is None or (len(value) == 4 and bytes(value) == b"null"):
        return 1
    kind = kind_of(value)
    if kind == "a string":
        return 1
    if kind != "an array":
        return expected("field_type", path, "text, a list of texts or tokens", kind)
    try:
        items = _values(value)
    except DECODING_ERRORS:
        return expected("field_type", path, "text, a list of texts or tokens", "something else")
    if not items:
        return expected("field_range", path, "at least one input", "an empty list")
    if kind_of(items[0]) == "a number":
        return 1
    if len(items) > most:
        return expected("field_range", path, f"at most {most} inputs", str(len(items)))
    for index, item in enumerate(items):
        first = memoryview(item)[0]
        # Other services take pictures here, whose tokens no byte bounds.
        if first != _QUOTE and (first != _BRACKET or b"{" in bytes(item)):
            return unbounded(f"{path}[{index}]", "something else than text", "send texts or tokens")
    return len(items)


# -- exact counting, off the hot path ---------------------------------------------------------------------------------


def prompt_text(body: bytes) -> list[str]:
    """The prompts and the suffix as text; prompts given as tokens are counted by ``prompt_tokens_overhead``."""
    value = answers.loose(body)
    if not isinstance(value, dict):
        return []
    return answers.texts_of([value.get("prompt"), value.get("suffix")])


def prompt_tokens_overhead(body: bytes) -> int:
    """Input tokens that are not in ``prompt_text``: those of prompts given as tokens."""
    value = answers.loose(body)
    return tokens_in(value.get("prompt")) if isinstance(value, dict) else 0


def tokens_in(value: Any) -> int:
    """How many token numbers a prompt or input holds."""
    if isinstance(value, list):
        return sum(tokens_in(part) for part in value)
    return 1 if type(value) is int else 0


# -- streams ----------------------------------------------------------------------------------------------------------


_chunk = msgspec.json.Decoder(Chunk[CompletionChoice]).decode
_loose_chunk = msgspec.json.Decoder(LooseChunk[CompletionChoice]).decode
_plain_chunks = msgspec.json.Decoder(PlainChunk[PlainCompletionChoice]).decode_lines


class CompletionEvents:
    """Understands the events of a stream; see ``EventDecoder``."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        # All in one call, which takes half as long as one for each.
        lines = answers.object_lines(payloads)
        try:
            chunks = _plain_chunks(lines)
        except DECODING_ERRORS:
            return None
        return "".join([chunk.choices[0].text for chunk in chunks]) if len(chunks) == len(payloads) else None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        chunk: Chunk[CompletionChoice] | LooseChunk[CompletionChoice]
        try:
            chunk = _chunk(payload)
        except DECODING_ERRORS:
            try:
                # Some servers tell more in a usage report than is documented.
                chunk = _loose_chunk(payload)
            except DECODING_ERRORS:
                return answers.odd_event(payload)
        choices = chunk.choices
        finished = sum(choice.finish_reason is not None for choice in choices)
        text = "".join(choice.text for choice in choices if choice.text)
        if choices and not finished and chunk.usage is None and chunk.error is None:
            return text
        return answers.event_of(chunk, payload, text, finished)


decode_event: Final[CompletionEvents] = CompletionEvents()


def answer_text(body: bytes) -> str:
    """The text of a whole answer, all choices one after the other."""
    value = answers.loose(body)
    choices = value.get("choices") if isinstance(value, dict) else None
    return "".join(answers.texts_of(choices))
