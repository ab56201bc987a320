"""How many input tokens a chat has: texts, names, tools and pictures, by the rules that OpenAI published.

Sources: OpenAI cookbook, "How to count tokens with tiktoken", sections 6 (messages) and 7 (tools), whose figures equal
``usage.prompt_tokens`` of the models named there; OpenAI, "Images and vision", calculating costs. Tools beyond a flat
list of described properties and models beyond those named are counted by the same rules, which is then an estimate.
Counting texts is an argument; what a model is called elsewhere is not known here.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from faregate.ports import PromptCount

Count = Callable[[str], int]
#: Address of a picture, and whether it is to be seen in low detail → its tokens.
Picture = Callable[[str, bool], int]

MESSAGE_TOKENS: Final = 3
NAME_TOKENS: Final = 1
#: Every answer is primed with the assistant's opening.
PRIMING_TOKENS: Final = 3

#: Around each function, its properties as a whole, each property, its choices, each choice, and all functions.
FUNCTION_TOKENS: Final = {"cl100k_base": 10, "o200k_base": 7}
PROPERTIES_TOKENS: Final = 3
PROPERTY_TOKENS: Final = 3
CHOICES_TOKENS: Final = -3
CHOICE_TOKENS: Final = 3
TOOLS_TOKENS: Final = 12

#: Models for which the rules are known to give the provider's own figure.
_VERIFIED: Final = re.compile(r"gpt-(?:3\.?5-turbo|4|4o|4o-mini)(?:-(?:0613|1106|0125|\d{4}-\d{2}-\d{2}))?")

_PLAIN_MESSAGE: Final = frozenset(("role", "content", "name"))


def count_prompt(
    messages: Sequence[Any], tools: Sequence[Any], model: str, encoding: str, count: Count, picture: Picture
) -> PromptCount:
    """Input tokens of ``messages`` (objects with ``role`` and ``content``) and ``tools`` (function tools)."""
    exact = _VERIFIED.fullmatch(model.lower()) is not None
    counts: list[int] = []
    for message in messages:
        tokens, known = _message_tokens(message, count, picture)
        exact = exact and known
        counts.append(tokens)
    total = sum(counts) + PRIMING_TOKENS
    if tools:
        tokens, known = _tools_tokens(tools, FUNCTION_TOKENS.get(encoding, 10), count)
        total += tokens
        exact = exact and known
    return PromptCount(total, exact, tuple(counts))


def _message_tokens(message: Any, count: Count, picture: Picture) -> tuple[int, bool]:
    """Tokens of one message, and whether it holds nothing that the rule does not speak of."""
    if not isinstance(message, Mapping):
        return MESSAGE_TOKENS + count(_json(message)), False
    tokens = MESSAGE_TOKENS + (NAME_TOKENS if message.get("name") is not None else 0)
    exact = _PLAIN_MESSAGE.issuperset(message)
    for name, value in message.items():
        if isinstance(value, str):
            tokens += count(value)
        elif name == "content" and isinstance(value, Sequence):
            for part in value:
                more, known = _part_tokens(part, count, picture)
                tokens += more
                exact = exact and known
        elif value is not None:
            # Calls of tools and the like: the model reads them in a notation of about this length.
            tokens += count(_json(value))
            exact = False
    return tokens, exact


def _part_tokens(part: Any, count: Count, picture: Picture) -> tuple[int, bool]:
    if isinstance(part, str):
        return count(part), False
    if not isinstance(part, Mapping):
        return count(_json(part)), False
    image = part.get("image_url")
    if image is None:
        text = part.get("text", part.get("refusal"))
        if isinstance(text, str):
            return count(text), part.get("type") == "text"
        return count(_json(part)), False
    url = image.get("url") if isinstance(image, Mapping) else image
    detail = image.get("detail") if isinstance(image, Mapping) else None
    return picture(url if isinstance(url, str) else "", detail == "low"), False


def _tools_tokens(tools: Sequence[Any], function_tokens: int, count: Count) -> tuple[int, bool]:
    tokens, exact = TOOLS_TOKENS, True
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            tokens += count(_json(tool))
            exact = False
            continue
        more, known = _function_tokens(function, count)
        tokens += function_tokens + more
        exact = exact and known
    return tokens, exact


def _function_tokens(function: Mapping[str, Any], count: Count) -> tuple[int, bool]:
    tokens = count(f"{function['name']}:{_sentence(function.get('description'))}")
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    exact = isinstance(function.get("description"), str)
    if not isinstance(properties, Mapping) or not properties:
        return tokens, exact
    tokens += PROPERTIES_TOKENS
    for name, told in properties.items():
        schema = told if isinstance(told, Mapping) else {}
        kind = schema.get("type")
        tokens += PROPERTY_TOKENS
        choices = schema.get("enum")
        if isinstance(choices, Sequence) and not isinstance(choices, str):
            tokens += CHOICES_TOKENS
            tokens += sum(CHOICE_TOKENS + count(each if isinstance(each, str) else _json(each)) for each in choices)
        tokens += count(
            f"{name}:{kind if isinstance(kind, str) else _json(kind)}:{_sentence(schema.get('description'))}"
        )
        beyond = {key: value for key, value in schema.items() if key not in ("type", "description", "enum")}
        if beyond:
            # Nested objects, items and bounds: the rule does not speak of them.
            tokens += count(_json(beyond))
        exact = exact and not beyond and {"type", "description"} <= set(schema)
    return tokens, exact


def _sentence(text: Any) -> str:
    """A description as it is read: without its full stop."""
    return text.removesuffix(".") if isinstance(text, str) else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
