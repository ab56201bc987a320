"""OpenAI moderations: what a call asks and what an answer used. There is no stream and no billed output.

OpenAI bills nothing for them; that is a price like any other, of 0 for each request, which somebody has to write down.
"""

from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.dialects import answers, fields, media_usage
from faregate.dialects.attachments import IMAGE_TOKENS_MAX, Attached
from faregate.dialects.jsonbody import DECODING_ERRORS, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "moderations"

#: Asked for where a call names no model (API reference, moderations).
DEFAULT_MODEL: Final = "omni-moderation-latest"

INPUTS_MAX: Final = 2048

_COMMON: Final = frozenset(("model", "input"))

_inputs = msgspec.json.Decoder(str | list[Any]).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused; ``model`` is the name that the path gave, if it gave one."""
    found = members(body, "input")
    if isinstance(found, Problem):
        return found
    if not _COMMON.issuperset(found):
        problem = fields.steering(found)
        if problem is not None:
            return problem
    name = model or (fields.name(found["model"], "model") if "model" in found else DEFAULT_MODEL)
    if isinstance(name, Problem):
        return name
    if "input" not in found:
        return missing("input", "text, a list of texts, or a list of parts")
    try:
        inputs = _inputs(found["input"])
    except DECODING_ERRORS:
        return expected("field_type", "input", "text, a list of texts, or a list of parts", "something else")
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    tier = fields.service_tier(found)
    if isinstance(tier, Problem):
        return tier
    attached = Attached(forbid_private_urls)
    if isinstance(inputs, list):
        if not 0 < len(inputs) <= INPUTS_MAX:
            return expected("field_range", "input", f"1 to {INPUTS_MAX} inputs", str(len(inputs)))
        for index, part in enumerate(inputs):
            problem = _take(part, f"input[{index}]", attached)
            if problem is not None:
                return problem
    return Call(
        OPERATION,
        name,
        input_tokens_max=len(body) + attached.tokens,
        has_output=False,
        end_user=user,
        members=tuple(found),
        media=attached.media,
        service_tier=tier,
        sealed=True,
    )


def _take(part: Any, where: str, attached: Attached) -> Problem | None:
    """Take one input: text, or a part with text or an image."""
    if isinstance(part, str):
        return None
    if not isinstance(part, dict):
        return expected("field_type", where, "text or a part", "something else")
    kind = part.get("type")
    if kind == "text" and part.get("image_url") is None:
        return None
    if kind != "image_url":
        return unbounded(where, f"a part of type {echo(kind)}", "use text and image_url parts")
    image = part.get("image_url")
    return attached.image(image.get("url") if isinstance(image, dict) else image, False, f"{where}.image_url.url")


def usage_of(body: bytes) -> Report:
    """What an answer reports: some services tokens, OpenAI's nothing, so that its input is counted by us.

    Where only calls have a price that count costs nothing; where tokens have one, silence does not make them free.
    """
    answer = media_usage.read(body)
    if answer is None:
        return media_usage.report(None, None)
    usage, unknown = media_usage.leaves(answer.usage, "text")
    return media_usage.report(answer, usage, unknown)


def prompt_text(body: bytes) -> list[str]:
    """The inputs as text; images are counted as overhead."""
    value = answers.loose(body)
    inputs = value.get("input") if isinstance(value, dict) else None
    parts = inputs if isinstance(inputs, list) else [inputs]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the tokens of images."""
    value = answers.loose(body)
    inputs = value.get("input") if isinstance(value, dict) else None
    parts = inputs if isinstance(inputs, list) else ()
    return IMAGE_TOKENS_MAX * sum(isinstance(part, dict) and part.get("image_url") is not None for part in parts)
