"""The installation's own secrets: the pepper under which keys are digested, and what the console marks with.

They are made at the first start, kept in the data folder for its owner only, and never leave this machine. Losing the
pepper makes every key useless, so a backup of the books is only half of one without this file.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from faregate.config.files import read_file
from faregate.config.folder import DataFolder
from faregate.errors import ConfigError

PEPPER_BYTES = 32
ENCRYPTION_BYTES = 32
_INSTALLATION_BYTES = 16
_FILE_BYTES_MAX = 64 * 1024

#: Makes so many unpredictable bytes.
RandomBytes = Callable[[int], bytes]


class Pepper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One HMAC key; ``id`` tells peppers apart in messages and is no secret."""

    id: str
    key: str

    def __repr__(self) -> str:
        return f"Pepper(id={self.id!r})"


class EncryptionKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key that secrets in the books are encrypted with: 32 bytes in base64, as `openssl rand -base64 32` makes."""

    id: str
    key: str

    def __repr__(self) -> str:
        return f"EncryptionKey(id={self.id!r})"


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them. The first pepper makes new digests, the others only recognise old ones."""

    peppers: tuple[Pepper, ...]
    #: Marks cursors, and calls that were reported from outside: with another one these could be booked a second time.
    session: str
    #: Tells this installation from others: a secret that was sealed in one does not open in another.
    installation: str = ""
    #: The first seals secrets in the books, the others only open what they sealed. Files of before have none.
    encryption: tuple[EncryptionKey, ...] = ()

    def __repr__(self) -> str:
        return f"Secrets({len(self.peppers)} peppers)"


class Kept(NamedTuple):
    """Secrets, and whether they were made just now."""

    secrets: Secrets
    made: bool


def secrets_of(folder: DataFolder, random_bytes: RandomBytes) -> Kept:
    """The secrets of a data folder, made where there are neither secrets nor books yet.

    Raises:
        ConfigError: CFG-SECRET: they cannot be used, or are missing beside books whose keys need them.
    """
    if folder.books.exists() and not folder.secrets.exists():
        raise ConfigError(
            f"{folder.secrets} is missing, and without its pepper every key in the books would fail",
            code="CFG-SECRET",
            hint="restore it from where you keep your backups",
        )
    return keep_secrets(folder.secrets, random_bytes)


def keep_secrets(file: Path, random_bytes: RandomBytes) -> Kept:
    """Read the secrets, or make them where there are none yet.

    Raises:
        ConfigError: CFG-SECRET: the file is open to others, or is not what this program wrote.
    """
    try:
        kept = read_secrets(file)
    except FileNotFoundError:
        secrets = Secrets((Pepper("p1", random_bytes(PEPPER_BYTES).hex()),), random_bytes(PEPPER_BYTES).hex())
        return Kept(_with_encryption(file, secrets, random_bytes), made=True)
    if kept.encryption:
        return Kept(kept, made=False)
    # An installation of before there was anything to encrypt.
    return Kept(_with_encryption(file, kept, random_bytes), made=False)


def _with_encryption(file: Path, secrets: Secrets, random_bytes: RandomBytes) -> Secrets:
    """``secrets`` with what secrets in the books are encrypted by, written to the file before anybody relies on it."""
    key = EncryptionKey("e1", base64.b64encode(random_bytes(ENCRYPTION_BYTES)).decode())
    installation = secrets.installation or random_bytes(_INSTALLATION_BYTES).hex()
    whole = msgspec.structs.replace(secrets, installation=installation, encryption=(key,))
    write_private(file, json.dumps(msgspec.to_builtins(whole), indent=1).encode() + b"\n")
    return whole


def read_secrets(file: Path) -> Secrets:
    """The secrets that were made before.

    Raises:
        FileNotFoundError: none were made yet.
        ConfigError: CFG-SECRET or CFG-CONFLICT: they cannot be used.
    """
    content = read_private(file)
    try:
        secrets = msgspec.json.decode(content, type=Secrets)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _unusable(f"{file} is damaged", "restore it from where you keep your backups") from None
    if not secrets.peppers:
        raise _unusable(f"{file}: there is no pepper", "restore the file")
    _refuse_weak(secrets, file)
    ids = [pepper.id for pepper in secrets.peppers]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{file}: two peppers have the same id", code="CFG-CONFLICT", hint="give each its own id")
    _check_encryption(secrets.encryption, file)
    return secrets


#: Random secrets of this length have fewer different bytes once in 10**30 times; what people type has.
_DIFFERENT_BYTES_MIN = 12


_MAKE_ONE = "make one with `openssl rand -hex 32`; keys that were made under a pepper need it beside the new one"


def _refuse_weak(secrets: Secrets, file: Path) -> None:
    """Refuse a secret that somebody typed: who guesses the pepper can try keys without asking, who guesses the session
    secret can forge cursors.
    """
    named = [("the session secret", secrets.session)]
    named += [(f"the pepper {pepper.id}", pepper.key) for pepper in secrets.peppers]
    for name, text in named:
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            problem = f"{file}: {name} is weak: it is no random bytes in hex, but something that was typed"
            raise _unusable(problem, _MAKE_ONE) from None
        if len(secret) != PEPPER_BYTES:
            raise _unusable(f"{file}: {name} is not {PEPPER_BYTES} bytes in hex", f"restore it, or {_MAKE_ONE}")
        if len(set(secret)) < _DIFFERENT_BYTES_MIN:
            raise _unusable(f"{file}: {name} is weak: it can be guessed", _MAKE_ONE)


def _check_encryption(keys: tuple[EncryptionKey, ...], file: Path) -> None:
    for each in keys:
        try:
            content = base64.b64decode(each.key, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        hint = "make one with `openssl rand -base64 32`, or restore the file"
        if len(content) != ENCRYPTION_BYTES:
            raise _unusable(f"{file}: the encryption key {each.id} is not {ENCRYPTION_BYTES} bytes in base64", hint)
        if len(set(content)) < _DIFFERENT_BYTES_MIN:
            raise _unusable(f"{file}: the encryption key {each.id} can be guessed", hint)
        if ":" in each.id or not each.id:
            raise _unusable(f"{file}: the id of an encryption key is empty or has a colon", "name it such as e2")
    if len({each.id for each in keys}) != len(keys):
        raise ConfigError(
            f"{file}: two encryption keys have the same id", code="CFG-CONFLICT", hint="give each its own id"
        )


def read_private(file: Path) -> bytes:
    """The content of a file that only its owner may read.

    Raises:
        FileNotFoundError: it is not there.
        ConfigError: CFG-SECRET: others may read it, or it cannot be read.
    """
    try:
        content, mode = read_file(file, _FILE_BYTES_MAX)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _unusable(f"{file} cannot be read: {reason}", f"it must belong to uid {os.geteuid()}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _unusable(f"{file} is open to other users (mode {mode:04o})", f"chmod 600 {file}")
    return content


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all, and on disk before anybody relies on it.

    Raises:
        ConfigError: CFG-STORE: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            draft.replace(file)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise ConfigError(f"{file} cannot be written: {reason}", code="CFG-STORE", hint="look at its folder") from None


def _unusable(problem: str, hint: str) -> ConfigError:
    return ConfigError(problem, code="CFG-SECRET", hint=hint)
