"""How many input tokens a call has at one place: counted where the model's encoding is known, else bounded.

The upper end is what the gate would hold near a limit. The two ends meet only where it is known how the provider
counts: at OpenAI and Azure themselves, for text that nothing is added to. Everybody else may count in a way of their
own, and nothing is promised about that but that it stays within the bound.
"""

from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from faregate.console.drafts import Draft
from faregate.console.problems import ApiProblem
from faregate.control import Deployment, Provider
from faregate.core.pricing.quote import Span
from faregate.dialects import answers
from faregate.ports import Tokenizer

#: Hosts whose way of counting is published.
_HOSTS: Final = ("api.openai.com",)
_DOMAINS: Final = (".openai.azure.com", ".api.openai.com")

#: Members of a chat that add nothing to what its messages and tools are counted as.
_ADD_NOTHING: Final = frozenset(
    """
    model messages tools stream stream_options max_tokens max_completion_tokens n user temperature top_p stop seed
    frequency_penalty presence_penalty logit_bias logprobs top_logprobs store service_tier metadata safety_identifier
    prompt_cache_key
    """.split()
)


class InputTokens(NamedTuple):
    """At least and at most, and how that is known: ``exact``, ``counted``, ``bytes`` or ``context``."""

    span: Span
    method: str


def input_tokens(draft: Draft, place: Deployment, provider: Provider, tokenizer: Tokenizer | None) -> InputTokens:
    """Input tokens of a call at one place.

    Raises:
        ApiProblem: ``feature_unbounded``: what the model reads has no bound there.
    """
    call, dialect = draft.call, draft.dialect
    if call.whole_context or call.turns > 1:
        if not place.context_tokens_max:
            rule = f"input whose length depends on {place.model} cannot be bounded; its context window is not known"
            raise ApiProblem("feature_unbounded", rule, field="request")
        return InputTokens(Span(0, max(call.input_tokens_max, place.context_tokens_max) * call.turns), "context")
    # What is billed by images, characters or seconds is reported without any token.
    least = 1 if call.input_tokens_max and not (draft.figures or call.declared) else 0
    if tokenizer is None or not place.encoding or draft.figures or dialect is None:
        return InputTokens(Span(min(least, call.input_tokens_max), call.input_tokens_max), "bytes")
    tokens = sum(tokenizer.count(text, place.encoding) for text in dialect.prompt_text(draft.body))
    most = min(tokens + dialect.prompt_tokens_overhead(draft.body), call.input_tokens_max)
    exact = _exact(draft, place, tokenizer, tokens) if _counts_as_published(provider) else None
    if exact is not None and least <= exact <= most:
        return InputTokens(Span(exact, most), "exact" if exact == most else "counted")
    return InputTokens(Span(min(least, most), most), "counted")


def _counts_as_published(provider: Provider) -> bool:
    host = urlsplit(provider.base_url).hostname or ""
    return host in _HOSTS or host.endswith(_DOMAINS)


def _exact(draft: Draft, place: Deployment, tokenizer: Tokenizer, tokens: int) -> int | None:
    """The very figure that the provider will report, where that is known."""
    name, members = draft.operation.name, draft.call.members
    assert draft.dialect is not None
    if name == "embeddings" or (name == "completions" and "suffix" not in members):
        return tokens + draft.dialect.prompt_tokens_overhead(draft.body)
    if name != "chat.completions" or not _ADD_NOTHING.issuperset(members):
        return None
    body: Any = answers.loose(draft.body)
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return None
    tools = body.get("tools") or []
    found = tokenizer.prompt(body["messages"], tools if isinstance(tools, list) else [], place.model)
    return found.tokens if found.exact else None
