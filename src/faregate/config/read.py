"""A configuration file → a ``Tree``: bytes, then YAML nodes, then plain values. Nothing is ever constructed from a tag.

YAML is parsed to nodes only, because nodes keep their places and the way each scalar was written; the surprises of
YAML 1.1 (``no``, ``0755``, ``1_000``, sexagesimal numbers, tags, merges onto lists, alias bombs) are refused by name
instead of being read as something else.
"""

import functools
import os
import re
import stat
from pathlib import Path as FilePath
from typing import Any

import yaml

from faregate.config.files import NotRegular, read_file
from faregate.config.findings import Finding, Invalid, Path, Place, key_text, quoted
from faregate.config.references import References
from faregate.config.tree import Environment, Node, PlainNumber, Scalar, Tree, empty_tree

#: Ten times the largest configuration we can imagine; a bound on memory and time.
FILE_BYTES_MAX = 4 * 1024 * 1024
#: Counted after aliases are followed, so that an alias bomb ends here and not in memory.
NODES_MAX = 10_000
DEPTH_MAX = 32
#: A mapping that merges itself would otherwise never end.
MERGES_MAX = 200

_DECIMAL_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL_POINT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")
_UNDERSCORED = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?")
_OTHER_BASE = re.compile(r"[-+]?0[0-9]+|[-+]?0[xXoObB][0-9a-fA-F_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_FOLDED_BOOLEANS = frozenset(("y", "yes", "n", "no", "on", "off"))
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_STANDARD_TAG = "tag:yaml.org,2002:"


def read_bytes(file: FilePath, bytes_max: int = FILE_BYTES_MAX) -> tuple[bytes, bool]:
    """The content of a configuration file, and whether everybody on the machine may read it.

    Raises:
        Invalid: CFG-IO: it is not there, is a folder, may not be read, or is larger than ``bytes_max``.
    """
    place = Place(str(file))
    try:
        content, mode = read_file(file, bytes_max)
    except FileNotFoundError:
        hint = "write one with `faregate init`, or name another with --config"
        raise Invalid([Finding("CFG-IO", place, "", "the file does not exist", hint=hint)]) from None
    except NotRegular as error:
        raise Invalid([Finding("CFG-IO", place, "", str(error), "a YAML file")]) from None
    except OSError as error:
        raise Invalid([_unreadable(file, place, error)]) from None
    if len(content) > bytes_max:
        raise Invalid([Finding("CFG-IO", place, "", "the file is too large", f"at most {bytes_max >> 20} MiB")])
    return content, bool(mode & stat.S_IROTH)


def _unreadable(file: FilePath, place: Place, error: OSError) -> Finding:
    try:
        mode = f"its mode is {stat.S_IMODE(file.stat().st_mode):04o}, "
    except OSError:
        mode = ""
    problem = f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    return Finding("CFG-IO", place, "", problem, hint=f"{mode}this process runs as uid {os.geteuid()}")


def parse(
    content: bytes, source: str, environment: Environment, folder: FilePath, nodes_max: int = NODES_MAX
) -> tuple[Tree, list[Finding]]:
    """The tree of a file's content, with ``${NAME}`` and ``file:`` references followed.

    Findings of single values are returned beside the tree, so that they can be told together with everything else.
    ``folder`` is where relative ``file:`` references start.

    Raises:
        Invalid: the content is not one YAML mapping.
    """
    text = _decode(content, source)
    try:
        loader: Any = functools.partial(_Loader, nodes_max=nodes_max)
        documents = list(yaml.compose_all(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        raise Invalid([_syntax(error, source)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        problem = "a control character" if error.position else "the file is binary"
        raise Invalid([Finding("CFG-SYNTAX", Place(source, line, column), "", problem, "UTF-8 text")]) from None
    except RecursionError:
        raise Invalid([Finding("CFG-SYNTAX", Place(source, 1, 1), "", f"nested more than {DEPTH_MAX} deep")]) from None
    if len(documents) > 1:
        place = _place(documents[1], source)
        raise Invalid([Finding("CFG-SYNTAX", place, "", "a second document starts here", "one document in the file")])
    if not documents or _is_null(documents[0]):
        return empty_tree(source), []
    if not isinstance(documents[0], yaml.MappingNode):
        place = _place(documents[0], source)
        raise Invalid([Finding("CFG-TYPE", place, "", "the file is not a mapping", "keys such as `providers:`")])
    reading = _Reading(source, References(environment, folder), nodes_max)
    return reading.tree(documents[0]), reading.findings


def _decode(content: bytes, source: str) -> str:
    place = Place(source, 1, 1)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Invalid([Finding("CFG-SYNTAX", place, "", "the file is UTF-16", "UTF-8", "save it as UTF-8")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        place = Place(source, line, column)
        raise Invalid([Finding("CFG-SYNTAX", place, "", "bytes that are not UTF-8", "UTF-8 text")]) from None
    if "\0" in text:
        raise Invalid([Finding("CFG-SYNTAX", place, "", "the file is binary", "UTF-8 text")])
    return text


def _place(node: yaml.Node, source: str) -> Place:
    return Place(source, node.start_mark.line + 1, node.start_mark.column + 1)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS


def _syntax(error: yaml.MarkedYAMLError, source: str) -> Finding:
    """A scanner's or parser's complaint, at the place where what it complains of began."""
    problem = error.problem or "not YAML"
    mark = error.problem_mark or error.context_mark
    hint = ""
    if "'\\t'" in problem:
        problem, hint = "a tab in the indentation", "use spaces"
    elif error.context and "quoted scalar" in error.context and error.context_mark:
        mark, problem = error.context_mark, "the quote that opens here is never closed"
    elif error.context:
        problem = f"{problem} {error.context}"
    place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source, 1, 1)
    return Finding("CFG-SYNTAX", place, "", problem.replace("\n", " "), hint=hint)


class _Loader(yaml.SafeLoader):
    """Composes nodes and gives up early on files with too many of them: composing is the slow part."""

    def __init__(self, stream: str, nodes_max: int) -> None:
        super().__init__(stream)
        self._composed = 0
        self._nodes_max = nodes_max

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node, with everything below it."""
        self._composed += 1
        if self._composed > 2 * self._nodes_max:
            # Twice, because keys are nodes too.
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {self._nodes_max:,} values", event.start_mark)
        composed: yaml.Node | None = super().compose_node(parent, index)
        return composed


class _Reading:
    """One walk over the nodes of a file."""

    def __init__(self, source: str, references: References, nodes_max: int) -> None:
        self.source = source
        self._nodes_max = nodes_max
        self.findings: list[Finding] = []
        self._references = references
        self._count = 0
        self._merges = 0
        self._keys: dict[Path, Place] = {}
        self._values: dict[Path, Place] = {}

    def tree(self, root: yaml.MappingNode) -> Tree:
        node = self._mapping(root, ())
        self._values[()] = Place(self.source, 1, 1)
        return Tree(node, self.source, self._keys, self._values)

    def _report(self, code: str, node: yaml.Node, path: Path, problem: str, expected: str = "", hint: str = "") -> None:
        self.findings.append(Finding(code, _place(node, self.source), key_text(path), problem, expected, hint))

    def _node(self, node: yaml.Node, path: Path) -> Node:
        self._values[path] = _place(node, self.source)
        self._count += 1
        if self._count > self._nodes_max or len(path) > DEPTH_MAX:
            problem = f"more than {self._nodes_max:,} values, counting every use of an alias"
            if len(path) > DEPTH_MAX:
                problem = f"nested more than {DEPTH_MAX} deep"
            raise Invalid([Finding("CFG-SYNTAX", _place(node, self.source), key_text(path), problem)])
        if isinstance(node, yaml.MappingNode):
            self._refuse_tag(node, path, "map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, path, "seq")
            return [self._node(below, (*path, index)) for index, below in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _refuse_tag(self, node: yaml.Node, path: Path, kind: str) -> None:
        if node.tag not in (_STANDARD_TAG + kind, "!"):
            self._report("CFG-SYNTAX", node, path, f"the tag {quoted(node.tag)} is not allowed", "a plain value")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Node]:
        seen: dict[str, Place] = {}
        read: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = _place(key_node, self.source)
            if key_node.tag == _STANDARD_TAG + "merge" and key_node.style is None:
                merged.update(self._merge(value_node, path))
                continue
            if not isinstance(key_node, yaml.ScalarNode) or _is_null(key_node):
                self._report("CFG-SYNTAX", key_node, (*path, "?"), "this key is not text", "a name")
                continue
            key = key_node.value
            below = (*path, key)
            if key in seen:
                problem = f"the key stands twice, on lines {seen[key].line} and {place.line}"
                self._report("CFG-SYNTAX", key_node, below, problem, "each key once")
                continue
            seen[key] = self._keys[below] = place
            read[key] = self._node(value_node, below)
        return merged | read

    def _merge(self, node: yaml.Node, path: Path) -> dict[str, Node]:
        """The keys that ``<<`` brings in; they have the place where they are used."""
        if not isinstance(node, yaml.MappingNode):
            self._report("CFG-SYNTAX", node, (*path, "<<"), "only a mapping can be merged", "an alias of a mapping")
            return {}
        self._merges += 1
        if self._merges > MERGES_MAX:
            place = _place(node, self.source)
            raise Invalid([Finding("CFG-SYNTAX", place, key_text(path), f"more than {MERGES_MAX} merges")])
        return self._mapping(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Scalar:
        text: str = node.value
        if node.style is not None:
            self._refuse_tag(node, path, "str")
            return self._text(node, text, path)
        # An explicit tag shows in nothing but its difference from what the text alone would have been resolved to.
        self._refuse_tag(node, path, _implicit_tag(text))
        return self._plain(node, text, path)

    def _plain(self, node: yaml.ScalarNode, text: str, path: Path) -> Scalar:
        """An unquoted scalar: what it looks like, where that is what everybody reads in it."""
        if text in _NULLS:
            return None
        if text in ("true", "True", "TRUE"):
            return True
        if text in ("false", "False", "FALSE"):
            return False
        if _DECIMAL_WHOLE.fullmatch(text) and len(text) <= 20:
            return int(text)
        if text.lower() in _FOLDED_BOOLEANS:
            self._report(
                "CFG-TYPE",
                node,
                path,
                f"a bare {text} is read as true or false by YAML",
                hint=f'quote it ("{text}") where a text is wanted, else write true or false',
            )
            return text
        if _UNDERSCORED.fullmatch(text):
            plain = text.replace("_", "")
            self._report("CFG-TYPE", node, path, f"{text} has underscores", hint=f"write {plain}, or quote it")
            return text
        if _OTHER_BASE.fullmatch(text):
            self._report(
                "CFG-TYPE",
                node,
                path,
                f"{text} is read as another number by YAML",
                hint="quote it, or write it in decimal",
            )
            return text
        if _SEXAGESIMAL.fullmatch(text):
            self._report("CFG-TYPE", node, path, f"{text} is read as a number in base 60 by YAML", hint="quote it")
            return text
        if _DECIMAL_POINT.fullmatch(text):
            return PlainNumber(text)
        return self._text(node, text, path)

    def _text(self, node: yaml.ScalarNode, text: str, path: Path) -> Scalar:
        followed = self._references.follow(text)
        if isinstance(followed, str):
            return followed
        self._report(followed.code, node, path, followed.problem, followed.expected, followed.hint)
        return ""


def _implicit_tag(text: str) -> str:
    """What YAML 1.1 takes a plain scalar for."""
    tag: str = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag.removeprefix(_STANDARD_TAG)
