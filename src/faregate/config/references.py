"""Secrets stand outside the configuration file: ``${NAME}`` is a variable, ``file:PATH`` the content of a file."""

import re
from pathlib import Path
from typing import NamedTuple

from faregate.config.files import NotRegular, read_file
from faregate.config.tree import Environment, Referred

#: Certificates and keys are smaller; larger means that the wrong file was named.
REFERENCE_BYTES_MAX = 64 * 1024

#: A text that begins with ``file:`` and is none: its first ``$`` is dropped.
_LITERAL_FILE = re.compile(r"\$+file:")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Unresolved(NamedTuple):
    """Why a reference leads nowhere."""

    code: str
    problem: str
    expected: str = ""
    hint: str = ""


def escaped(text: str) -> str:
    """A text as it has to be written so that it is read as itself and follows nothing."""
    if text.startswith("file:") or _LITERAL_FILE.match(text):
        text = "$" + text
    return text.replace("${", "$${")


class References:
    """Follows the references of one file."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def follow(self, text: str) -> str | Unresolved:
        """``text`` with its references replaced: a ``Referred`` where there was one.

        ``$${`` stands for ``${``, and ``$file:`` at the beginning for ``file:``.
        """
        if text.startswith("file:"):
            return self._file(text.removeprefix("file:"))
        if _LITERAL_FILE.match(text):
            text = text[1:]
        if "${" not in text:
            return text
        parts: list[str] = []
        end = 0
        replaced = False
        for match in _REFERENCE.finditer(text):
            parts.append(text[end : match.start()])
            end = match.end()
            if match[0] == "$${":
                parts.append("${")
                continue
            value = self._variable(match[1])
            if isinstance(value, Unresolved):
                return value
            parts.append(value)
            replaced = True
        parts.append(text[end:])
        joined = "".join(parts)
        return Referred(joined) if replaced else joined

    def _variable(self, name: str | None) -> str | Unresolved:
        if name is None or not _NAME.fullmatch(name):
            return Unresolved("CFG-ENV", "a ${ without the name of a variable", "${NAME}", "write $${ for a literal ${")
        value = self._environment.get(name)
        if value is None:
            return Unresolved(
                "CFG-ENV", f"the variable {name} is not set", hint=f"set {name} where Faregate is started"
            )
        if not value.strip():
            return Unresolved("CFG-ENV", f"the variable {name} is empty", hint=f"set {name} where Faregate is started")
        if "${" in value:
            return Unresolved(
                "CFG-ENV", f"the variable {name} holds a reference itself", "a value", "references do not nest"
            )
        return value

    def _file(self, name: str) -> str | Unresolved:
        path = self._folder / name.strip()
        try:
            content, _ = read_file(path, REFERENCE_BYTES_MAX)
        except NotRegular as error:
            return Unresolved("CFG-REF", f"{path}: {error}", "a file with the value")
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            return Unresolved("CFG-REF", f"{path} cannot be read: {reason}", "a file with the value")
        except ValueError:
            return Unresolved("CFG-REF", "this is not a path", "file:PATH")
        if len(content) > REFERENCE_BYTES_MAX:
            return Unresolved("CFG-REF", f"{path} is larger than 64 KiB", "a file with nothing but the value")
        try:
            value = content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            return Unresolved("CFG-REF", f"{path} is not UTF-8 text", "a file with nothing but the value")
        if not value.strip():
            return Unresolved("CFG-REF", f"{path} is empty", "a file with the value")
        return Referred(value)
