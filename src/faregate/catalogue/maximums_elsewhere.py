"""How long contexts and answers of Anthropic's and Google's models can be, each with the page it was read from.

Numbers of pages that could not be looked up are recalled, and rounded upwards where two are told: a bound is never
guessed downwards. How a name is found is ``maximums``' to know.
"""

import re
from typing import Final

from faregate.catalogue.model_facts import EMBED, GENERATE, MESSAGES, ModelFacts

# _CLAUDE below stands for https://platform.claude.com/docs/en/about-claude/models/overview


def _claude(context: int, output: int) -> ModelFacts:
    return ModelFacts(context, output, "", MESSAGES)


#: Family → facts; a name belongs to it when nothing but a date or ``latest`` comes after it.
ANTHROPIC: Final[dict[str, ModelFacts]] = {
    "claude-fable-5": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-11-21
    "claude-fable-5-1": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-11-21
    "claude-fable-5-2": _claude(1_000_000, 128_000),  # recalled
    "claude-mythos-5": _claude(1_000_000, 128_000),  # recalled
    "claude-mythos-5-1": _claude(1_000_000, 128_000),  # recalled
    "claude-mythos-5-2": _claude(1_000_000, 128_000),  # recalled
    "claude-opus-5-5": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-11-21
    "claude-opus-5": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-11-21
    "claude-sonnet-5-5": _claude(1_000_000, 128_000),  # recalled
    "claude-sonnet-5": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-11-21
    "claude-haiku-5-5": _claude(1_000_000, 128_000),  # recalled
    "claude-opus-4-8": _claude(1_000_000, 128_000),  # recalled
    "claude-opus-4-7": _claude(1_000_000, 128_000),  # _CLAUDE, 2026-05-09
    "claude-opus-4-6": _claude(1_000_000, 128_000),  # recalled
    "claude-sonnet-4-6": _claude(1_000_000, 128_000),  # _CLAUDE says 64,000 in May and 128,000 later
    "claude-haiku-4-5": _claude(200_000, 64_000),  # _CLAUDE, 2026-11-21
    # A beta header raises their contexts to a million tokens.
    "claude-opus-4-5": _claude(1_000_000, 64_000),  # recalled
    "claude-sonnet-4-5": _claude(1_000_000, 64_000),  # recalled
    "claude-sonnet-4": _claude(1_000_000, 64_000),  # recalled
    "claude-sonnet-4-0": _claude(1_000_000, 64_000),  # recalled
    "claude-opus-4-1": _claude(200_000, 32_000),  # recalled
    "claude-opus-4": _claude(200_000, 32_000),  # recalled
    "claude-opus-4-0": _claude(200_000, 32_000),  # recalled
    # With a beta header; 64,000 without.
    "claude-3-7-sonnet": _claude(200_000, 128_000),  # recalled
    "claude-3-5-sonnet": _claude(200_000, 8_192),  # recalled
    "claude-3-5-haiku": _claude(200_000, 8_192),  # recalled
    "claude-3-opus": _claude(200_000, 4_096),  # recalled
    "claude-3-sonnet": _claude(200_000, 4_096),  # recalled
    "claude-3-haiku": _claude(200_000, 4_096),  # recalled
}

# _GEMINI below stands for https://ai.google.dev/gemini-api/docs/models/


def _gemini(context: int, output: int) -> ModelFacts:
    return ModelFacts(context, output, "", GENERATE)


#: Models of Google's, by the first pattern that is found in a name.
GEMINI: Final[tuple[tuple[re.Pattern[str], ModelFacts], ...]] = tuple(
    (re.compile(pattern), facts)
    for pattern, facts in (
        # They speak over WebSockets.
        (r"-live|-native-audio|-streaming", ModelFacts(0, 0, "", ())),
        # One text has at most 2,048 tokens (later 8,192); as the bound of a call with several it would be too low.
        (r"^(?:gemini-)?(?:text-)?embedding", ModelFacts(0, 0, "", EMBED)),
        # _GEMINI + gemini-4-argon: one limit for input and output together
        (r"^gemini-4-", _gemini(1_048_576, 1_048_576)),
        (r"-tts", _gemini(32_768, 32_768)),  # recalled: 8,192 and 16,384 for the first ones
        (r"-image|nano-banana", _gemini(131_072, 65_536)),  # recalled: up to 65,536 and 32,768
        # _GEMINI + gemini-2.5-pro, gemini-3.1-pro-preview, gemini-3.7-flash, gemini-3.8-flash
        (r"^gemini-(?:2\.5|3|3\.\d)-(?:pro|flash)|^gemini-(?:pro|flash|flash-lite)-latest", _gemini(1_048_576, 65_536)),
        (r"^gemini-robotics-er", _gemini(1_048_576, 65_536)),  # recalled
        (r"^gemini-2\.0-flash", _gemini(1_048_576, 8_192)),  # _GEMINI + gemini-2.0-flash
        (r"^gemini-(?:1\.5-pro|pro-1\.5)", _gemini(2_097_152, 8_192)),  # recalled
        (r"^gemini-(?:1\.5-flash|flash-1\.5)", _gemini(1_048_576, 8_192)),  # recalled
        (r"^gemini-(?:1\.0-)?pro", _gemini(32_768, 8_192)),  # recalled
    )
)
