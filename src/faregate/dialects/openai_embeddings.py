"""OpenAI embeddings: what a call asks and what an answer used. There is no stream and no billed output."""

from typing import Final

from faregate.core.call import Call
from faregate.core.metering.meter import Event
from faregate.dialects import answers, fields
from faregate.dialects.jsonbody import members
from faregate.dialects.openai_completions import count_inputs, tokens_in
from faregate.dialects.quoting import missing
from faregate.errors import Problem

OPERATION: Final = "embeddings"

#: Most inputs in one call, as OpenAI has it.
INPUTS_MAX: Final = 2048

_COMMON: Final = frozenset(("model", "input", "user", "encoding_format", "dimensions"))

#: What other services embed instead of ``input`` (vLLM, "Embeddings API", chat embeddings).
_FEATURES: Final = {
    "messages": ("the embedding of chats", "send their texts as input"),
    "images": ("the embedding of pictures", "send texts as input"),
}


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused; ``model`` is the name that the path gave (Azure)."""
    del forbid_private_urls  # This format holds no addresses; the argument is every dialect's.
    found = members(body, "input")
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
    if "input" not in found:
        return missing("input", "text, a list of texts or tokens")
    inputs = count_inputs(found["input"], "input", INPUTS_MAX)
    if isinstance(inputs, Problem):
        return inputs
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    return Call(OPERATION, name, False, False, 1, None, "", len(body), 0, False, user, tuple(found), service_tier=tier)


def prompt_text(body: bytes) -> list[str]:
    """The inputs as text; inputs given as tokens are counted by ``prompt_tokens_overhead``."""
    value = answers.loose(body)
    return answers.texts_of(value.get("input")) if isinstance(value, dict) else []


def prompt_tokens_overhead(body: bytes) -> int:
    """Input tokens that are not in ``prompt_text``: those of inputs given as tokens."""
    value = answers.loose(body)
    return tokens_in(value.get("input")) if isinstance(value, dict) else 0


class NoEvents:
    """An answer of embeddings is never streamed; whatever comes as an event is read loosely."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """No event says nothing but text."""
        del payloads
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        return answers.odd_event(payload)


decode_event: Final[NoEvents] = NoEvents()


def answer_text(body: bytes) -> str:
    """Embeddings hold no billed text."""
    del body
    return ""
