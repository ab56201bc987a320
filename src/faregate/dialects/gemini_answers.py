"""What Gemini's answers and the events of their streams say they used.

Owns the leaves of ``usageMetadata``, the searches that are billed, and the text that counts where no usage is told.
Knows the fields of this one wire format (Google, "Gemini API", "Generating content": ``UsageMetadata``).
"""

from typing import Any, Final, NamedTuple

import msgspec

from faregate.core.metering.meter import Event, Report
from faregate.core.usage import COUNT_MAX, NO_USAGE, Contradiction, Measure, Usage, measures
from faregate.dialects import answers
from faregate.dialects.gemini_shapes import Answer, Candidate
from faregate.dialects.jsonbody import DECODING_ERRORS

#: Families that bill a search once for each prompt; later ones bill each query, whose number nothing bounds (Google,
#: "Gemini Developer API pricing": grounded prompts up to 2.5, search queries from 3 on).
SEARCH_ONCE: Final = ("gemini-1.", "gemini-2.")

#: Service tiers by what they are called, in lower case.
TIERS: Final = {"": "", "unspecified": "", "standard": "", "flex": "flex", "priority": "priority"}

_encode = msgspec.json.Encoder().encode

# -- usage ------------------------------------------------------------------------------------------------------------

_COUNTS: Final = (
    "promptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
)
#: What is known of a usage report; any other member that says something may be billed.
_KNOWN: Final = frozenset(
    (
        *_COUNTS,
        *("totalTokenCount", "promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails"),
        *("toolUsePromptTokensDetails", "trafficType", "serviceTier"),
    )
)
#: Video is billed as pictures are, and a document as the text and pictures that it holds, which are text, too.
_KIND_OF: Final = {
    "MODALITY_UNSPECIFIED": "text",
    "TEXT": "text",
    "DOCUMENT": "text",
    "IMAGE": "image",
    "VIDEO": "image",
    "AUDIO": "audio",
}

_MISSING: Final = "input tokens are missing"


class _Kinds(NamedTuple):
    """A count by what it counts."""

    text: int
    image: int
    audio: int


#: A report of these alone, whose details are all text, needs no look at kinds of tokens.
_PLAIN: Final = frozenset(
    (
        *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"),
        *("promptTokensDetails", "candidatesTokensDetails", "trafficType"),
    )
)


def _plain(told: dict[str, Any]) -> Usage | None:
    """The leaves of a report that says text and thoughts alone and adds up, as nearly all do; else ``None``."""
    prompt, candidates = told.get("promptTokenCount"), told.get("candidatesTokenCount", 0)
    thoughts, total = told.get("thoughtsTokenCount", 0), told.get("totalTokenCount")
    if not (
        type(prompt) is type(candidates) is type(thoughts) is type(total) is int
        and prompt >= 0 <= candidates
        and thoughts >= 0
        and prompt + candidates + thoughts == total <= COUNT_MAX
        and _PLAIN.issuperset(told)
    ):
        return None
    for name, whole in (("promptTokensDetails", prompt), ("candidatesTokensDetails", candidates)):
        details = told.get(name)
        if details is not None and details != [{"modality": "TEXT", "tokenCount": whole}]:
            return None
    return Usage(prompt, 0, 0, 0, candidates, thoughts)


def _understood(told: dict[str, Any], searches: int, outputs: bool = True) -> tuple[Usage | Contradiction, int]:
    """The leaves of a usage report, and how much of it nobody knows."""
    if not searches:
        usage = _plain(told)
        if usage is not None:
            return usage, 0
    return leaves(told, searches, outputs=outputs), unknown(told)


def leaves(told: dict[str, Any], searches: int = 0, *, outputs: bool = True) -> Usage | Contradiction:
    """The disjoint leaves of a usage report.

    ``promptTokenCount`` includes what came from a cache; thoughts and what tools brought come on top, and
    ``totalTokenCount`` is the sum of the four. A count of 0 is left out by the provider.
    """
    counts: list[int] = []
    for name in _COUNTS:
        value = told.get(name)
        count = _count(value, name)
        if isinstance(count, Contradiction):
            return count
        counts.append(count)
    prompt, cached, candidates, thoughts, tools = counts
    total = told.get("totalTokenCount")
    if told.get("promptTokenCount") is None and (total or not outputs):
        return Contradiction(_MISSING)
    if total is not None and (type(total) is not int or total != prompt + candidates + thoughts + tools):
        return Contradiction("total tokens are not the sum of input and output tokens")
    if cached > prompt:
        return Contradiction("cached tokens exceed input tokens")
    read = _split(prompt, told.get("promptTokensDetails"), "input")
    fetched = _split(tools, told.get("toolUsePromptTokensDetails"), "tool input")
    said = _split(candidates, told.get("candidatesTokensDetails"), "output")
    for kinds in (read, fetched, said):
        if isinstance(kinds, Contradiction):
            return kinds
    assert isinstance(read, _Kinds)
    assert isinstance(fetched, _Kinds)
    assert isinstance(said, _Kinds)
    kept = _cached(cached, read, told.get("cacheTokensDetails"))
    if isinstance(kept, Contradiction):
        return kept
    other = measures(
        (
            Measure("input_image_tokens", "", read.image - kept.image + fetched.image),
            Measure("cached_input_audio_tokens", "", kept.audio),
            Measure("cached_input_image_tokens", "", kept.image),
            Measure("output_image_tokens", "", said.image),
            Measure("web_searches", "", searches),
        )
    )
    text = read.text - kept.text + fetched.text
    audio = read.audio - kept.audio + fetched.audio
    return Usage(text, kept.text, 0, audio, said.text, thoughts, said.audio, other)


def _count(value: Any, what: str) -> int | Contradiction:
    if value is None:
        return 0
    if type(value) is not int:
        return Contradiction(f"{what} is not a whole number")
    return value if 0 <= value <= COUNT_MAX else Contradiction(f"{what} is outside 0 to {COUNT_MAX}")


def _split(total: int, details: Any, what: str) -> _Kinds | Contradiction:
    """A count by its details; what they leave open is text, where they say more it is a contradiction."""
    image = audio = text = 0
    for each in details if isinstance(details, list) else ():
        if not isinstance(each, dict):
            return Contradiction(f"details of {what} tokens are not objects")
        count = _count(each.get("tokenCount"), f"the detail of {what} tokens")
        if isinstance(count, Contradiction):
            return count
        kind = _kind_of(each)
        if kind == "image":
            image += count
        elif kind == "audio":
            audio += count
        else:
            text += count
    if image + audio + text > total:
        return Contradiction(f"details of {what} tokens exceed {what} tokens")
    return _Kinds(total - image - audio, image, audio)


def _kind_of(detail: dict[str, Any]) -> str:
    modality = detail.get("modality")
    return _KIND_OF.get(modality, "") if isinstance(modality, str) else "text"


def _cached(cached: int, read: _Kinds, details: Any) -> _Kinds | Contradiction:
    """What came from a cache; without details it is text as far as there was any."""
    if not isinstance(details, list) or not details:
        text = min(cached, read.text)
        image = min(cached - text, read.image)
        return _Kinds(text, image, cached - text - image)
    kinds = _split(cached, details, "cached")
    if isinstance(kinds, _Kinds) and any(mine > all_ for mine, all_ in zip(kinds, read, strict=True)):
        return Contradiction("cached tokens of a kind exceed its input tokens")
    return kinds


def unknown(told: dict[str, Any]) -> int:
    """How many members and modalities of a usage report nobody here knows how to bill."""
    strangers = sum(told[name] not in (None, 0, "") for name in told.keys() - _KNOWN)
    for name, details in told.items():
        if name.endswith("Details") and name in _KNOWN and isinstance(details, list):
            strangers += sum(isinstance(each, dict) and not _kind_of(each) for each in details)
    return strangers


def _tier(told: dict[str, Any]) -> str:
    tier = told.get("serviceTier")
    return TIERS.get(tier.lower(), "") if isinstance(tier, str) else ""


def _searches(candidates: list[Candidate] | None, model: str) -> int:
    """Searches that are billed: one for the whole prompt, or each query, as the model's family has it."""
    queries: set[str] = set()
    for candidate in candidates or ():
        grounding = candidate.groundingMetadata
        if grounding is not None:
            queries.update(grounding.webSearchQueries or (), grounding.imageSearchQueries or ())
    if not queries:
        return 0
    queries.discard("")
    return min(len(queries), 1) if model.startswith(SEARCH_ONCE) else len(queries)


_answer = msgspec.json.Decoder(Answer).decode


def report_of(body: bytes) -> Report:
    """What a whole answer reports. Never raises."""
    return _report(body, outputs=True)


def report_of_embedding(body: bytes) -> Report:
    """What the answer to an embedding reports; older models tell nothing. Never raises."""
    return _report(body, outputs=False)


def report_of_count(body: bytes) -> Report:
    """A count of tokens used nothing, whatever it says. Never raises."""
    return Report(NO_USAGE)


def _report(body: bytes, outputs: bool) -> Report:
    searches = 0
    try:
        answer = _answer(body)
        told: Any = answer.usageMetadata
        model, id = answers.short(answer.modelVersion), answers.short(answer.responseId)
        searches = _searches(answer.candidates, model)
    except DECODING_ERRORS:
        value = answers.loose(body)
        if not isinstance(value, dict):
            return Report(None, "the answer is not a JSON object")
        told = value.get("usageMetadata")
        model, id = answers.short(value.get("modelVersion")), answers.short(value.get("responseId"))
    if told is None:
        return Report(None, "", model, id)
    if not isinstance(told, dict):
        return Report(None, "the usage report is not an object", model, id)
    usage, strangers = _understood(told, searches, outputs)
    if isinstance(usage, Contradiction):
        return Report(None, usage.rule, model, id, _tier(told), strangers)
    return Report(usage, "", model, id, _tier(told), strangers)


def _said(candidates: list[Candidate] | None) -> str:
    """The text of an answer that is billed as output: text, thoughts, calls of functions, code."""
    texts: list[str] = []
    for candidate in candidates or ():
        content = candidate.content
        for part in (content.parts if content is not None else None) or ():
            if part.text:
                texts.append(part.text)
            called = (part.functionCall, part.executableCode)
            texts += [_encode(each).decode() for each in called if each is not None]
    return "".join(texts)


def answer_text(body: bytes) -> str:
    """The text of a whole answer that is billed as output, all candidates one after the other."""
    try:
        return _said(_answer(body).candidates)
    except DECODING_ERRORS:
        value = answers.loose(body)
        candidates = _loose_candidates(value) if isinstance(value, dict) else []
        return "".join(answers.texts_of([each.get("content") for each in candidates]))


def _loose_candidates(value: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = value.get("candidates")
    return [each for each in candidates if isinstance(each, dict)] if isinstance(candidates, list) else []


# -- streams ----------------------------------------------------------------------------------------------------------


class GenerateEvents:
    """Understands the events of one stream; see ``EventDecoder``. Each is an answer of its own, with all usage so far.

    What it keeps are the searches: they are told once, and not in the event that tells the usage last.
    """

    __slots__ = ("_searches", "_told")

    def __init__(self) -> None:
        self._searches = 0
        self._told: dict[str, Any] | None = None

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """Never only text: every event may be the last that tells usage."""
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        try:
            answer = _answer(payload)
        except DECODING_ERRORS:
            return self._odd(payload)
        model = answers.short(answer.modelVersion)
        self._searches = max(self._searches, _searches(answer.candidates, model))
        text = _said(answer.candidates)
        finished = sum(candidate.finishReason is not None for candidate in answer.candidates or ())
        return self._event(text, finished, answer.usageMetadata, answer.error is not None, model, answer.responseId)

    def _event(
        self, text: str, finished: int, told: dict[str, Any] | None, error: bool, model: str, id: str | None
    ) -> Event:
        if told is not None:
            self._told = told
        elif not self._searches:
            return Event(text, finished, None, not text, error, model, answers.short(id))
        elif not text:
            # A search that is told last is part of what was told before.
            told = self._told
        if told is None:
            return Event(text, finished, None, not text, error, model, answers.short(id))
        usage, strangers = _understood(told, self._searches)
        return Event(text, finished, usage, not text, error, model, answers.short(id), False, _tier(told), strangers)

    def _odd(self, payload: bytes) -> Event:
        """What an event says that does not fit the documented shape."""
        value = answers.loose(payload)
        if not isinstance(value, dict):
            return Event(malformed=True)
        told = value.get("usageMetadata")
        candidates = _loose_candidates(value)
        text = "".join(answers.texts_of([each.get("content") for each in candidates]))
        error = value.get("error") is not None
        if told is not None and not isinstance(told, dict):
            return Event(text, usage=Contradiction("the usage report is not an object"), error=error)
        finished = sum(each.get("finishReason") is not None for each in candidates)
        return self._event(text, finished, told, error, "", None)
