"""Rules of what may be kept of calls: texts have an end, and what is looked for can be found in linear time."""

from collections.abc import Iterator

from faregate.config.content import ContentRule
from faregate.config.findings import Path, Ruled
from faregate.config.patterns import PatternError, finder
from faregate.config.schema import Config
from faregate.config.settings import ContentRuleSettings, ContentSettings
from faregate.core.redaction import BUILT_IN


def check_content(config: Config) -> Iterator[Ruled]:
    """Everything that is wrong with ``content``."""
    content = config.content
    if content.default == "full" and content.retention is None:
        hint = "say how long texts are kept, such as retention: 30d"
        yield Ruled("CFG-MISSING", ("content", "retention"), "is missing, and content.default is full", hint=hint)
    named: dict[str, int] = {}
    for index, rule in enumerate(content.redaction):
        path: Path = ("content", "redaction", index)
        if rule.name in named:
            problem = f"{rule.name} is the name of content.redaction[{named[rule.name]}] already"
            yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "names that differ")
        named.setdefault(rule.name, index)
        yield from _searchable(rule, path)


def _searchable(rule: ContentRule, path: Path) -> Iterator[Ruled]:
    if (rule.pattern is None) == (rule.builtin is None):
        problem = "says what to look for twice" if rule.pattern is not None else "does not say what to look for"
        yield Ruled("CFG-CONFLICT" if rule.pattern is not None else "CFG-MISSING", path, problem, "pattern or builtin")
        return
    if rule.pattern is None:
        return
    try:
        pattern = finder(rule.pattern)
    except PatternError as error:
        hint = "it is searched for in linear time, so it has no look-around and no back-references"
        yield Ruled("CFG-RANGE", (*path, "pattern"), str(error), "a regular expression in RE2's syntax", hint)
        return
    if next(iter(pattern.spans("")), None) is not None:
        yield Ruled("CFG-RANGE", (*path, "pattern"), "matches nothing at all, which stands everywhere", "some text")


def content_settings(config: Config) -> ContentSettings | None:
    """What the gate goes by; ``None`` where nothing may ever be kept or looked for, so that calls pass unseen."""
    content = config.content
    if content.default == "off" and content.retention is None and not content.redaction:
        return None
    return ContentSettings(
        content.default,
        content.characters_max,
        content.retention or 0,
        tuple(_told(rule) for rule in content.redaction),
    )


def _told(rule: ContentRule) -> ContentRuleSettings:
    if rule.builtin is not None:
        known = BUILT_IN[rule.builtin]
        return ContentRuleSettings(rule.name, known.pattern, rule.action, rule.apply, known.check)
    assert rule.pattern is not None
    return ContentRuleSettings(rule.name, rule.pattern, rule.action, rule.apply)
