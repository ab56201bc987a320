"""The tree that a configuration file is, with the place of every key and value, before anybody asks what it means.

Text that was not written in the file itself keeps that fact (``Referred``), and so does a plain number with a point
(``PlainNumber``): YAML would read ``1.10`` as 1.1, so it may stand only where a number is wanted.
"""

from collections.abc import Mapping
from typing import NamedTuple

from faregate.config.findings import Path, Place


class Referred(str):
    """Text that came from the environment or from a file that the configuration names."""

    __slots__ = ()


class PlainNumber(str):
    """A number with a point or an exponent, as written."""

    __slots__ = ()


Scalar = str | int | bool | None
#: A node is a scalar, a list of nodes or a mapping of text to nodes.
Node = Scalar | list["Node"] | dict[str, "Node"]


class Tree(NamedTuple):
    """The nodes of a file, and where each stands; ``keys`` holds the places of keys, ``values`` those of values."""

    root: dict[str, Node]
    source: str
    keys: dict[Path, Place]
    values: dict[Path, Place]

    def place(self, path: Path) -> Place:
        """Where a value stands, or the nearest thing around it."""
        while path:
            if path in self.values:
                return self.values[path]
            path = path[:-1]
        return self.values.get((), Place(self.source))

    def key_place(self, path: Path) -> Place:
        """Where a key stands, or the nearest thing around it."""
        return self.keys.get(path) or self.place(path)

    def at(self, path: Path) -> Node:
        """The node at a path, ``None`` where there is none."""
        node: Node = self.root
        for part in path:
            if isinstance(node, dict) and isinstance(part, str):
                node = node.get(part)
            elif isinstance(node, list) and isinstance(part, int) and part < len(node):
                node = node[part]
            else:
                return None
        return node

    def put(self, path: Path, value: Scalar, place: Place) -> None:
        """Set a value below the root, making the mappings on the way; what is not a mapping there is replaced."""
        node = self.root
        for depth, part in enumerate(path[:-1], start=1):
            below = node.get(str(part))
            if not isinstance(below, dict):
                below = {}
                node[str(part)] = below
                self.values[path[:depth]] = place
            node = below
        node[str(path[-1])] = value
        self.values[path] = self.keys[path] = place


def empty_tree(source: str) -> Tree:
    """A tree without any key."""
    return Tree({}, source, {}, {(): Place(source, 1, 1)})


Environment = Mapping[str, str]
