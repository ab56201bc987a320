"""``HOST:PORT`` as people write it, and back."""

from typing import NamedTuple

from faregate.config.values import is_address
from faregate.errors import UsageError


class HostPort(NamedTuple):
    """An address to listen on; port 0 takes a free one."""

    host: str
    port: int


def read_address(option: str, text: str) -> HostPort:
    """An address from ``option``.

    Raises:
        UsageError: it is none; the message has an example.
    """
    example = f"; write it as 127.0.0.1:4000 or [::1]:4000, e.g. {option} 127.0.0.1:4000"
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        if not bracket or not is_address(host):
            raise UsageError(f"{option}: {text[:64]} is not an address{example}", code="value")
    else:
        host, colon, port = text.rpartition(":")
        if ":" in host or not colon:
            why = "an IPv6 address needs brackets" if text.count(":") > 1 else "the port is missing"
            raise UsageError(f"{option}: {why}{example}", code="value")
    if not host or any(character.isspace() or character in "/?#@" for character in host):
        raise UsageError(f"{option}: {text[:64]} has no usable host{example}", code="value")
    if not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        raise UsageError(f"{option}: {port[:16]} is not a port from 0 to 65535{example}", code="value")
    return HostPort(host, int(port))


def url_of(host: str, port: int, *, tls: bool) -> str:
    """The URL under which this machine reaches a listener."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    bracketed = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if tls else 'http'}://{bracketed}:{port}"
