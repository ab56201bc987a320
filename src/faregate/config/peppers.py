"""How the peppers of ``secrets.json`` change: a new one in front, an old one out when no key hangs on it any more.

The first pepper makes new digests, all are tried. A running installation knows those that it has read.
"""

import json
from pathlib import Path
from typing import Final

import msgspec

from faregate.config.secrets import PEPPER_BYTES, Pepper, RandomBytes, Secrets, write_private
from faregate.errors import Conflict, NotFound, Unsafe

#: Each pepper is tried for every credential that no earlier one knows, so there are never many.
PEPPERS_MAX: Final = 4


def with_new_pepper(secrets: Secrets, random_bytes: RandomBytes) -> Secrets:
    """The secrets with a new pepper in front of the others.

    Raises:
        Conflict: there are ``PEPPERS_MAX`` already.
    """
    if len(secrets.peppers) >= PEPPERS_MAX:
        raise Conflict(f"there are {PEPPERS_MAX} peppers already", hint="retire one on which no key hangs")
    # Numbers only go up, so that what is noted of a retired one never names another.
    numbers = [int(each.id[1:]) for each in secrets.peppers if each.id[:1] == "p" and each.id[1:].isdecimal()]
    fresh = f"p{max(numbers, default=0) + 1}"
    pepper = Pepper(fresh, random_bytes(PEPPER_BYTES).hex())
    return msgspec.structs.replace(secrets, peppers=(pepper, *secrets.peppers))


def without_pepper(secrets: Secrets, wanted: str) -> Secrets:
    """The secrets without one pepper; keys whose digests it made fail from the next start or reload on.

    Raises:
        NotFound: there is none of this id.
        Unsafe: it is the one that makes new digests.
    """
    left = tuple(pepper for pepper in secrets.peppers if pepper.id != wanted)
    if len(left) == len(secrets.peppers):
        raise NotFound(f"there is no pepper {wanted[:64]}")
    if secrets.peppers[0].id == wanted:
        raise Unsafe(f"pepper {wanted} makes the digests of new keys", hint="rotate the pepper first")
    return msgspec.structs.replace(secrets, peppers=left)


def write_secrets(file: Path, secrets: Secrets) -> None:
    """Write the secrets in the place of those that are there.

    Raises:
        ConfigError: CFG-STORE: they cannot be written.
    """
    write_private(file, json.dumps(msgspec.to_builtins(secrets), indent=1).encode() + b"\n")
