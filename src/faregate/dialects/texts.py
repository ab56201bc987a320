"""What people read in a request or an answer: the words of a conversation, out of every wire format that passes here.

For the log of contents, not for counting: pictures and sounds are named and left out, and whatever has no known shape
stays as it is. Bytes that are no text are none.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from faregate.dialects.jsonbody import BOM, DECODING_ERRORS

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

#: Deeper content is not looked into; that of real calls is four levels deep.
DEPTH_MAX: Final = 16

#: Parts that are no text, by what their type or member begins with → how they are called.
_OTHERS: Final = (
    ("image", "picture"), ("input_image", "picture"), ("inline", "attachment"), ("input_audio", "recording"),
    ("audio", "recording"), ("input_file", "file"), ("file", "file"), ("document", "file"), ("video", "film"),
)  # fmt: skip


def request_text(body: bytes) -> str:
    """What a request asks: its instructions, messages, prompt or input; else the body as it is."""
    value = _loose(body)
    if not isinstance(value, dict):
        return raw_text(body)
    parts: list[str] = []
    for name in ("system", "instructions", "systemInstruction", "system_instruction"):
        text = _content(value.get(name))
        if text:
            parts.append(f"system: {text}")
    for name in ("messages", "input", "contents", "content", "requests"):
        parts += _turns(value.get(name))
    for name in ("prompt", "query", "documents", "suffix"):
        text = _content(value.get(name))
        if text:
            parts.append(text)
    return "\n\n".join(parts) or raw_text(body)


def answer_text(body: bytes) -> str:
    """What an answer says, of all its choices; an error as it is told; else the body as it is."""
    value = _loose(body)
    if not isinstance(value, dict):
        return raw_text(body)
    parts = [_message(each.get("message")) or _content(each.get("text")) for each in _listed(value.get("choices"))]
    parts += [_message(item) for item in _listed(value.get("output"))]
    if not any(parts):
        parts.append(_content(value.get("output_text")))
    if value.get("type") == "message":
        parts.append(_message(value))
    parts += [_message(candidate.get("content")) for candidate in _listed(value.get("candidates"))]
    if isinstance(value.get("text"), str):
        parts.append(value["text"])
    error = value.get("error")
    if error:
        parts.append(error if isinstance(error, str) else _encode(error).decode("utf-8", "replace"))
    parts += _made(value.get("data"))
    return "\n\n".join(part for part in parts if part) or raw_text(body)


def choice_pieces(payload: bytes) -> list[tuple[int, str]]:
    """The text that one event of a stream adds to each of several choices, by their index; none for other formats."""
    value = _loose(payload)
    if not isinstance(value, dict):
        return []
    pieces = []
    for choice in _listed(value.get("choices")):
        index = choice.get("index", 0)
        text = _message(choice.get("delta")) or _content(choice.get("text"))
        if text and isinstance(index, int):
            pieces.append((index, text))
    return pieces


def raw_text(body: bytes) -> str:
    """Bytes as text, where they are text; else nothing."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text


def _loose(body: bytes) -> Any:
    try:
        return _decode(body.removeprefix(BOM))
    except DECODING_ERRORS:
        return None


def _listed(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def _turns(value: Any) -> list[str]:
    """Each turn of a conversation with who speaks; a text, or a list of texts, as it is."""
    if not isinstance(value, list):
        text = _content(value)
        return [text] if text else []
    turns = []
    for each in value:
        text = _message(each) if isinstance(each, dict) else _content(each)
        if text:
            role = each.get("role") if isinstance(each, dict) else None
            turns.append(f"{role}: {text}" if isinstance(role, str) else text)
    return turns


def _message(value: Any) -> str:
    """One message, or one item of an answer: its text, what it refuses, and which tools it calls."""
    if not isinstance(value, dict):
        return _content(value)
    parts = [_content(value[name]) for name in ("content", "parts", "refusal", "summary") if name in value]
    parts += [_called(call.get("function")) for call in _listed(value.get("tool_calls"))]
    if value.get("type") == "function_call" or "function_call" in value:
        parts.append(_called(value.get("function_call", value)))
    if isinstance(value.get("output"), str | list):
        parts.append(_content(value["output"]))
    if not any(parts):
        parts = [_part(value)]
    return "\n".join(part for part in parts if part)


def _called(function: Any) -> str:
    if not isinstance(function, dict):
        return ""
    arguments = function.get("arguments", "")
    text = arguments if isinstance(arguments, str) else _encode(arguments).decode("utf-8", "replace")
    return f"{function.get('name', '')}({text})"


def _content(value: Any, depth: int = 0) -> str:
    """The text of a content, which is a text, a part, or a list of them."""
    if isinstance(value, str):
        return value
    if depth > DEPTH_MAX:
        return ""
    if isinstance(value, list):
        return "\n".join(text for each in value if (text := _content(each, depth + 1)))
    if isinstance(value, dict):
        return _part(value, depth)
    return ""


def _part(value: dict[str, Any], depth: int = 0) -> str:
    for name in ("text", "refusal", "thinking", "transcript"):
        text = value.get(name)
        if isinstance(text, str) and text:
            return text
    for name in ("functionCall", "functionResponse", "input", "args"):
        if isinstance(value.get(name), dict):
            return _encode({key: value[key] for key in ("name", name) if key in value}).decode("utf-8", "replace")
    for name in ("content", "parts"):
        if name in value:
            return _content(value[name], depth + 1)
    kind = value.get("type")
    words = (kind,) if isinstance(kind, str) else tuple(value)
    for word in words:
        for beginning, called in _OTHERS:
            if word.startswith(beginning):
                return f"[{called}]"
    return ""


def _made(value: Any) -> Iterator[str]:
    """What is not words: pictures with how they were described, and vectors by their number."""
    vectors = 0
    for each in _listed(value):
        if "embedding" in each:
            vectors += 1
        elif "b64_json" in each or "url" in each:
            described = each.get("revised_prompt")
            yield f"[picture] {described}" if isinstance(described, str) else "[picture]"
    if vectors:
        yield f"[{vectors} vectors]"
