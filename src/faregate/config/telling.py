"""A configuration as the settings that it makes, and how two of them differ, told without their secrets.

What is the default is not told. Of a secret, and of whatever came from a reference, only a mask is: a keyed mark beside
it tells one from another, and is never shown.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import SecretStr

from faregate.config.findings import Path, key_text
from faregate.config.schema import Config
from faregate.config.secret_box import masked
from faregate.config.tree import Referred, Tree

#: So many settings of one change are told, and how many more there are; of each, so many characters.
PATHS_MAX: Final = 200
CHARACTERS_MAX: Final = 200

#: In the place of settings that are too many.
MORE: Final = "…"

#: Settings that may hold a secret although they are not one: a proxy's password, an argument of a program.
_GUARDED: Final = frozenset(("proxy", "command"))

#: What tells one entry of a list from another where it has no name.
_IDENTITY: Final = ("provider", "model", "unit", "variant", "service_tier", "effective_from")

#: Path and text → a mark that is another for each text, and from which nobody finds the text without the key.
Mark = Callable[[str, str], str]

Value = str | int | bool | None


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """A setting as it is shown; ``mark`` stands for all of it where that is less."""

    shown: Value | list[Value] | dict[str, str]
    mark: str = ""


#: By path, such as ``providers[openai].timeouts.total``.
Settings = Mapping[str, Setting]


class Difference(NamedTuple):
    """The settings that differ, by path, as they were and as they are; what has no default and is not set is left out.

    ``before`` is ``None`` where nobody knows what there was.
    """

    before: dict[str, Any] | None
    after: dict[str, Any]


def references(tree: Tree) -> frozenset[str]:
    """The paths of values that came from the environment or from a file, by number in lists."""
    return frozenset(key_text(path) for path in _referred(tree.root, ()))


def _referred(node: object, path: Path) -> Iterator[Path]:
    if isinstance(node, dict):
        for name, below in node.items():
            yield from _referred(below, (*path, name))
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from _referred(below, (*path, index))
    elif isinstance(node, Referred):
        yield path


def settings_of(config: Config, referred: Collection[str], mark: Mark) -> Settings:
    """The settings of a configuration that are not the default; ``referred`` as ``references`` gives it."""
    return dict(_settings(config.model_dump(exclude_defaults=True), "", "", frozenset(referred), mark))


def difference(before: Settings | None, after: Settings) -> Difference | None:
    """How two configurations differ; ``None`` where they do not."""
    known = before if before is not None else {}
    paths = sorted(path for path in known.keys() | after.keys() if known.get(path) != after.get(path))
    if not paths and before is not None:
        return None
    told = paths[:PATHS_MAX]
    was, now = _shown(known, told), _shown(after, told)
    if more := len(paths) - len(told):
        was[MORE] = now[MORE] = f"and {more} more"
    return Difference(was if before is not None else None, now)


def _shown(settings: Settings, paths: Sequence[str]) -> dict[str, Any]:
    found = {path: settings.get(path) or _defaults().get(path) for path in paths}
    return {_short(path): setting.shown for path, setting in found.items() if setting is not None}


@cache
def _defaults() -> Settings:
    """What a setting is that nobody set, where that does not depend on others."""
    return dict(_settings(Config.model_construct().model_dump(), "", "", frozenset(), lambda path, text: ""))


def _settings(
    node: Any, path: str, numbered: str, referred: frozenset[str], mark: Mark
) -> Iterator[tuple[str, Setting]]:
    """The settings at and below a node; ``numbered`` is its path as the tree of the file has it."""
    name = path.rpartition(".")[2]
    if isinstance(node, SecretStr):
        text = node.get_secret_value()
        yield path, Setting(masked(text), mark(path, text))
    elif node is not None and (name in _GUARDED or numbered in referred or _holds_referred(node, numbered, referred)):
        text = node if isinstance(node, str) else json.dumps(node)
        yield path, Setting(masked(text), mark(path, text))
    elif isinstance(node, dict) and node:
        for key, below in node.items():
            dot = "." if path else ""
            yield from _settings(below, f"{path}{dot}{key}", f"{numbered}{dot}{key}", referred, mark)
    elif isinstance(node, list | tuple) and any(isinstance(each, dict) for each in node):
        names = _names(node)
        if all(isinstance(each, dict) and "name" in each for each in node):
            # Their order counts, and that one came or went is seen at once.
            yield path, _told(path, names, mark)
        for index, (each, one) in enumerate(zip(node, names, strict=True)):
            yield from _settings(each, f"{path}[{one}]", f"{numbered}[{index}]", referred, mark)
    else:
        yield path, _told(path, list(node) if isinstance(node, tuple) else node, mark)


def _holds_referred(node: Any, numbered: str, referred: frozenset[str]) -> bool:
    """Whether an entry of a list of single values came from a reference: then none of them is told."""
    return isinstance(node, list | tuple) and any(f"{numbered}[{index}]" in referred for index in range(len(node)))


def _names(entries: Sequence[Any]) -> list[str]:
    """What each entry of a list is called in paths: its name, or what it is of; its number where that is not enough."""
    names = []
    for index, each in enumerate(entries):
        given = each if isinstance(each, dict) else {}
        name = given.get("name") or "/".join(str(given[part]) for part in _IDENTITY if given.get(part))
        names.append(name or str(index))
    often = Counter(names)
    return [name if often[name] == 1 else f"{name} {index}" for index, name in enumerate(names)]


def _told(path: str, value: Any, mark: Mark) -> Setting:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > CHARACTERS_MAX:
        return Setting(_short(text), mark(path, text))
    return Setting(value)


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else f"{text[:CHARACTERS_MAX]}…"
