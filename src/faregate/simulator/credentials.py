"""Checks that a credential is there and right, and remembers which one it was without keeping it. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

#: Headers whose values never stand in the truth log.
SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key"}
)
#: Where OpenAI and Azure look for it.
BEARER = ("authorization",)
AZURE = ("api-key", "authorization")
HEADER_CHARACTERS_MAX = 512


@lru_cache(maxsize=4096)
def described(header: str, secret: str) -> Mapping[str, str]:
    """Where a credential came from, its SHA-256 and its last four characters (none of a short one)."""
    last = secret[-4:] if len(secret) >= 12 else ""
    return {"header": header, "sha256": sha256(secret.encode("latin-1")).hexdigest(), "last4": last}


def found(headers: list[tuple[str, str]], accepted: tuple[str, ...]) -> tuple[str, str] | None:
    """The header and the secret a caller shows in one of the accepted headers; ``authorization`` is a bearer token."""
    for name, value in headers:
        if name not in accepted:
            continue
        if name != "authorization":
            return name, value
        if value[:7].lower() == "bearer " and value[7:].strip():
            return name, value[7:].strip()
    return None


def safe(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """All headers as the truth log keeps them: long values cut, secrets described."""
    return [
        (name, _described_value(name, value) if name in SECRET_HEADERS else value[:HEADER_CHARACTERS_MAX])
        for name, value in headers
    ]


@lru_cache(maxsize=4096)
def _described_value(name: str, value: str) -> str:
    facts = described(name, value.split(" ", 1)[-1])
    return f"sha256:{facts['sha256']} last4:{facts['last4']}"
