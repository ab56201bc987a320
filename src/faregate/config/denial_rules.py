"""Rules of what refusals and answers say beside the usual: denials that do not exist, words nobody replaces, headers.

``check_denials`` yields findings by path, as the rules in ``rules`` do.
"""

from collections.abc import Iterator
from typing import Any, Final

from faregate.config.findings import Path, Ruled, did_you_mean, quoted
from faregate.config.schema import Config
from faregate.core.limits.denials import BUILT_IN, WORDS, unknown_words

#: Headers that frame an answer, tell the truth about it, or are somebody else's to set.
RESERVED_HEADERS: Final = frozenset(
    """
    connection content-length content-type content-encoding transfer-encoding keep-alive te trailer upgrade date
    retry-after x-should-retry x-request-id allow set-cookie authorization
    """.split()
)
_RESERVED_PREFIXES: Final = ("x-faregate-", "x-ratelimit-", "x-provider-")

_HEADER_CHARACTERS_MAX: Final = 256


def check_denials(config: Config) -> Iterator[Ruled]:
    """Everything that is wrong with ``limits.denials``, with who chooses them, and with names of headers."""
    for name, denial in config.limits.denials.items():
        path: Path = ("limits", "denials", name)
        yield from _words(denial.body, (*path, "body"))
        for header, text in denial.headers.items():
            yield from _header_name(header, (*path, "headers", header))
            yield from _words(text, (*path, "headers", header))
            if len(text) > _HEADER_CHARACTERS_MAX or not text.isascii() or not text.isprintable():
                expected = f"at most {_HEADER_CHARACTERS_MAX} printable ASCII characters"
                yield Ruled("CFG-RANGE", (*path, "headers", header), "is no value of a header", expected)
    known = [*config.limits.denials, *BUILT_IN]
    for code, chosen in config.limits.denial.model_dump().items():
        if chosen is not None and chosen not in known:
            problem = f"no denial is called {chosen}"
            expected = f"one of: {', '.join(known[:20])}"
            yield Ruled("CFG-REF", ("limits", "denial", code), problem, expected, did_you_mean(chosen, known))
    seen: dict[str, str] = {}
    for key, header in config.gateway.headers.model_dump().items():
        if header is None:
            continue
        path = ("gateway", "headers", key)
        yield from _header_name(header, path)
        if header in seen:
            yield Ruled("CFG-CONFLICT", path, f"{header} is the name of gateway.headers.{seen[header]} already")
        seen[header] = key


def _header_name(name: str, path: Path) -> Iterator[Ruled]:
    if name in RESERVED_HEADERS or name.startswith(_RESERVED_PREFIXES):
        yield Ruled("CFG-CONFLICT", path, f"{quoted(name)} is set by the gateway itself", "another name")


def _words(value: Any, path: Path) -> Iterator[Ruled]:
    """Words in braces that nobody would replace."""
    if isinstance(value, str):
        for word in unknown_words(value):
            expected = f"one of: {', '.join(WORDS)}"
            problem = f"{quoted('{' + word + '}')} stands for nothing"
            yield Ruled("CFG-RANGE", path, problem, expected, did_you_mean(word, WORDS))
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _words(below, (*path, name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _words(below, (*path, index))
