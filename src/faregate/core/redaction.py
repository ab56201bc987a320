"""What is found in texts by rules, and what becomes of it.

Rules are tried in their order, each on what the ones before it left. How a pattern is searched for is not known here:
whoever makes a rule passes in something that can. Of what matches a pattern, a check may accept only a part, as most
long numbers are no numbers of cards.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

#: ``redact`` replaces a match, ``block`` lets nothing through that has one, ``warn`` only tells of it.
ACTIONS: Final = ("redact", "warn", "block")


class Pattern(Protocol):
    """Something that can be searched for in linear time."""

    @property
    def anchored(self) -> bool:
        """Whether it may match by where a text begins or ends, so that texts cannot be searched as one."""
        ...

    def spans(self, text: str) -> Iterable[tuple[int, int]]:
        """Where it matches, from left to right, without overlaps."""
        ...


class BuiltIn(NamedTuple):
    """A pattern that ships with Faregate, in the syntax of RE2, and what its matches must meet besides."""

    pattern: str
    check: str = ""


_KEYS: Final = (
    r"\bsk-[A-Za-z0-9_-]{16,200}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{36,255}",
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}",
    r"\bglpat-[A-Za-z0-9_-]{20,64}",
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,250}",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\bsk_live_[0-9A-Za-z]{16,99}",
    r"\beyJ[A-Za-z0-9_-]{8,1000}\.eyJ[A-Za-z0-9_-]{8,1000}\.[A-Za-z0-9_-]{8,1000}",
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]*-----END [A-Z ]{0,32}PRIVATE KEY-----)?",
)

#: By the name that configurations use.
BUILT_IN: Final[dict[str, BuiltIn]] = {
    "email": BuiltIn(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"),
    "card": BuiltIn(r"\b\d(?:[ -]?\d){12,18}\b", "card"),
    # Written for abroad, or with the zero or the brackets of an area: a plain row of digits is anything.
    "phone": BuiltIn(
        r"(?:\+|\b00)[1-9](?:[ ./-]?\(?\d\)?){6,16}"
        r"|\(\d{2,5}\)[ .-]?\d{2,5}(?:[ .-]?\d{2,5}){1,3}"
        r"|\b0\d{1,5}[ /-]\d{2,9}(?:[ -]?\d{2,9}){0,3}\b"
        r"|\b\d{3}[.-]\d{3}[.-]\d{4}\b",
        "phone",
    ),
    "key": BuiltIn("|".join(_KEYS)),
    "iban": BuiltIn(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", "iban"),
}


class Rule(NamedTuple):
    """What to look for, under which name, and what to do about it."""

    name: str
    pattern: Pattern
    action: str
    #: A key of ``CHECKS``, empty where every match counts.
    check: str = ""


class Found(NamedTuple):
    """That a rule matched, and how often."""

    name: str
    action: str
    times: int


class Redacted(NamedTuple):
    """A text as the rules leave it, and what they found in it."""

    text: str
    found: tuple[Found, ...] = ()

    @property
    def blocked_by(self) -> str:
        """The first rule that lets nothing through; empty where none does."""
        return next((each.name for each in self.found if each.action == "block"), "")


def redacted(text: str, rules: Sequence[Rule]) -> Redacted:
    """``text`` with its matches replaced where a rule says so; a text that is blocked comes back as it is."""
    found: list[Found] = []
    for rule in rules:
        places = _places(rule, text)
        if places:
            found.append(Found(rule.name, rule.action, len(places)))
            if rule.action == "redact":
                text = _replaced(text, places, f"[{rule.name}]")
    return Redacted(text, tuple(found))


def matches_any(text: str, rules: Sequence[Rule]) -> bool:
    """Whether some rule matches; cheaper than finding out all."""
    return any(_places(rule, text, first=True) for rule in rules)


def added(found: Iterable[Found]) -> tuple[Found, ...]:
    """What was found in several texts, each rule once, in the order of the first finds."""
    sums: dict[tuple[str, str], int] = {}
    for each in found:
        sums[each.name, each.action] = sums.get((each.name, each.action), 0) + each.times
    return tuple(Found(name, action, times) for (name, action), times in sums.items())


def _places(rule: Rule, text: str, *, first: bool = False) -> list[tuple[int, int]]:
    check = CHECKS.get(rule.check)
    places: list[tuple[int, int]] = []
    for start, end in rule.pattern.spans(text):
        length = end - start if check is None else check(text[start:end])
        if length:
            places.append((start, start + length))
            if first:
                break
    return places


def _replaced(text: str, places: Sequence[tuple[int, int]], instead: str) -> str:
    parts: list[str] = []
    at = 0
    for start, end in places:
        parts += (text[at:start], instead)
        at = end
    return "".join((*parts, text[at:]))


def _card(text: str) -> int:
    """All of it, where its digits meet the checksum of cards (ISO/IEC 7812, Luhn)."""
    digits = [int(each) for each in text if each in "0123456789"]
    if not 13 <= len(digits) <= 19 or not any(digits):
        return 0
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return 0 if total % 10 else len(text)


def _phone(text: str) -> int:
    """All of it, where it has as many digits as numbers of telephones have (ITU-T E.164)."""
    digits = sum(each in "0123456789" for each in text)
    return len(text) if 7 <= digits <= 17 else 0


def _iban(text: str) -> int:
    """As much of its beginning as is an account's number (ISO 13616): words in capitals may follow it."""
    for end in range(len(text), 14, -1):
        account = text[:end].replace(" ", "")
        if 15 <= len(account) <= 34 and text[end - 1] != " " and _meets_97(account):
            return end
    return 0


def _meets_97(account: str) -> bool:
    turned = account[4:] + account[:4]
    return int("".join(str(int(each, 36)) for each in turned)) % 97 == 1


#: What a match must meet besides: a match → how many of its first characters count, 0 for none.
CHECKS: Final = {"card": _card, "phone": _phone, "iban": _iban}
