"""The tokenizer service: reads a question of ``/api/tokenize`` and makes its answer. Knows no port and no HTTP.

A question has an ``input`` (a text, a list of texts, or a list of messages with their ``tools``) and a ``model`` or an
``encoding``. A list is answered text by text; messages are counted by the rule of ``prompts``, so that the count equals
the provider's ``usage.prompt_tokens`` for the models that it is known for (``exact``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from faregate.errors import Problem
from faregate.ports import PromptCount

#: As in the service that this one stands in for.
DEFAULT_MODEL: Final = "gpt-3.5-turbo"

TEXTS_MAX: Final = 2_048
#: Characters of all texts together; a body is bounded by whoever reads it.
CHARACTERS_MAX: Final = 1_048_576
MODEL_CHARACTERS_MAX: Final = 256
#: Of more tokens only the count is told: an answer has many bytes for each.
TOKENS_SHOWN_MAX: Final = 32_768

_KNOWN: Final = frozenset(("input", "model", "tools", "encoding"))
_INVALID: Final = 422


class Words(Protocol):
    """The part of the tokenizer that answers are made with."""

    def count(self, text: str, encoding: str) -> int:
        """Tokens of ``text``."""
        ...

    def encode(self, text: str, encoding: str) -> tuple[list[int], list[str]]:
        """Ids and texts of its tokens."""
        ...

    def encoding_of(self, model: str) -> str:
        """The encoding of a model, empty where none is known."""
        ...

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any], model: str) -> PromptCount:
        """Input tokens of a chat."""
        ...


def answer(
    asked: Mapping[str, Any], model_of: Callable[[str], str], words: Words, encodings: Sequence[str], fallback: str
) -> dict[str, Any] | Problem:
    """The answer, or why there is none; every refusal has status 422."""
    fault = _fault(asked, encodings)
    if fault is not None:
        return fault
    told, model = asked["input"], asked.get("model") or DEFAULT_MODEL
    meant = model_of(model)
    encoding = asked.get("encoding") or words.encoding_of(meant)
    known = bool(encoding)
    encoding = encoding or fallback
    found: dict[str, Any] = {"model": model, "encoding": encoding, "fallback": not known}
    if not known:
        found["note"] = f"The encoding of this model is not known; counted by {fallback}."
    if isinstance(told, str):
        return found | _of_text(told, encoding, words)
    if told and isinstance(told[0], Mapping):
        return found | _of_messages(told, asked.get("tools") or [], meant, encoding, words)
    return found | _of_list(told, encoding, words)


def _of_text(text: str, encoding: str, words: Words) -> dict[str, Any]:
    count = words.count(text, encoding)
    if count > TOKENS_SHOWN_MAX:
        return {"count": count, "ids": None, "strings": None}
    ids, strings = words.encode(text, encoding)
    return {"count": len(ids), "ids": ids, "strings": strings}


def _of_list(texts: Sequence[str], encoding: str, words: Words) -> dict[str, Any]:
    counts = [words.count(text, encoding) for text in texts]
    shown = _taken_apart(texts, counts, encoding, words)
    return {"count": sum(counts), "counts": counts, **shown}


def _of_messages(
    messages: Sequence[Any], tools: Sequence[Any], model: str, encoding: str, words: Words
) -> dict[str, Any]:
    """The count of the whole prompt; ids and strings are those of each message's own text."""
    prompt = words.prompt(messages, tools, model)
    texts = [_text_of(message) for message in messages]
    shown = _taken_apart(texts, [words.count(text, encoding) for text in texts], encoding, words)
    return {
        "count": prompt.tokens,
        "exact": prompt.exact,
        "counts": list(prompt.messages),
        "tools_and_priming": prompt.tokens - sum(prompt.messages),
        **shown,
    }


def _taken_apart(texts: Sequence[str], counts: Sequence[int], encoding: str, words: Words) -> dict[str, Any]:
    if sum(counts) > TOKENS_SHOWN_MAX:
        return {"ids": None, "strings": None}
    pairs = [words.encode(text, encoding) for text in texts]
    return {"ids": [ids for ids, _ in pairs], "strings": [strings for _, strings in pairs]}


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


# -- what may be asked -------------------------------------------------------------------------------------------------


def _fault(asked: Mapping[str, Any], encodings: Sequence[str]) -> Problem | None:
    for name in asked:
        if name not in _KNOWN:
            rule = f"expected any of {', '.join(sorted(_KNOWN))}"
            return _problem("field_unknown", "", f"unknown field; {rule}")
    for name in ("model", "encoding"):
        value = asked.get(name)
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= MODEL_CHARACTERS_MAX):
            return _problem("field_type", name, f"expected 1 to {MODEL_CHARACTERS_MAX} characters")
    if asked.get("encoding") is not None and asked["encoding"] not in encodings:
        return _problem("field_enum", "encoding", f"expected one of {', '.join(encodings)}")
    if asked.get("input") is None:
        return _problem("field_missing", "input", "expected a text, a list of texts or a list of messages")
    told = asked["input"]
    fault = _input_fault(told) or _tools_fault(asked.get("tools"), told)
    if fault is None and asked.get("encoding") is not None and isinstance(told, list) and isinstance(told[0], dict):
        return _problem("field_conflict", "encoding", "messages are counted by their model's encoding")
    return fault


def _input_fault(told: Any) -> Problem | None:
    if isinstance(told, str):
        return _length_fault(len(told))
    if not isinstance(told, list) or not told:
        return _problem("field_type", "input", "expected a text, or a list that is not empty")
    if len(told) > TEXTS_MAX:
        return _problem("field_range", "input", f"expected at most {TEXTS_MAX} entries")
    kind = type(told[0])
    if kind not in (str, dict) or any(type(each) is not kind for each in told):
        return _problem("field_type", "input", "expected texts only, or messages only")
    if kind is str:
        return _length_fault(sum(len(each) for each in told))
    if any(not isinstance(each.get("role"), str) for each in told):
        return _problem("field_missing", "input", "each message needs its role")
    return _length_fault(sum(len(_text_of(each)) for each in told))


def _length_fault(characters: int) -> Problem | None:
    if characters <= CHARACTERS_MAX:
        return None
    return _problem("field_range", "input", f"expected at most {CHARACTERS_MAX} characters together")


def _tools_fault(tools: Any, told: Any) -> Problem | None:
    if tools is None:
        return None
    if not isinstance(tools, list) or any(not isinstance(each, dict) for each in tools):
        return _problem("field_type", "tools", "expected a list of tools")
    if len(tools) > TEXTS_MAX:
        return _problem("field_range", "tools", f"expected at most {TEXTS_MAX} tools")
    if not (isinstance(told, list) and isinstance(told[0], dict)):
        return _problem("field_conflict", "tools", "tools go with messages")
    return None


def _problem(code: str, field: str, rule: str) -> Problem:
    return Problem(code, f"{field}: {rule}." if field else f"{rule}.", field or None, status=_INVALID)
