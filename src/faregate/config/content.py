"""The settings of what is kept of prompts and answers, and of what is taken out of them before."""

from typing import Annotated, Literal

from pydantic import Field

from faregate.config.section import Section
from faregate.config.values import Duration, Name, Size, Text, Whole
from faregate.core.redaction import ACTIONS, BUILT_IN


class ContentRule(Section):
    """Something that shall not leave the house, or shall not be kept."""

    name: Name = Field(description="what stands in the place of a match, in brackets; also in headers and records")
    pattern: Text | None = Field(default=None, description="a regular expression in RE2's syntax", max_length=1_000)
    builtin: Literal[tuple(BUILT_IN)] | None = Field(  # type: ignore[valid-type]
        default=None, description="a pattern that ships with Faregate, instead of your own"
    )
    action: Literal[ACTIONS] = Field(  # type: ignore[valid-type]
        description="redact: replace each match; block: refuse the call, or keep no text; warn: only say so"
    )
    apply: Literal["provider", "log", "both"] = Field(
        default="both", description="to requests before a provider gets them, to texts before they are kept, or to both"
    )


class Content(Section):
    """What is kept of prompts and answers."""

    default: Literal["off", "metadata", "full"] = Field(
        default="off",
        description="for keys and products that say nothing else; metadata: lengths and matches, full: also the texts",
    )
    characters_max: Annotated[Whole, Field(ge=256, le=1_000_000)] = Field(
        default=32_768, description="characters of a prompt, and of an answer, beyond which the rest is not kept"
    )
    retention: Duration | None = Field(
        default=None, description="how long contents are kept; without it no text ever is, whatever a key says"
    )
    bytes_max: Size = Field(
        default=4 * 1024**3,
        description="bytes of all that is kept; beyond it the oldest goes before its time",
        ge=2**20,
    )
    redaction: tuple[ContentRule, ...] = Field(default=(), description="rules, tried in this order", max_length=50)
