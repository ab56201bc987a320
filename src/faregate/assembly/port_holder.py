"""Which process listens on a port, as far as the kernel tells: on Linux, of processes that whoever asks may look at."""

import contextlib
import ipaddress
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")

_LISTENS: Final = "0A"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def port_holder(host: str, port: int, proc: Path = PROC) -> int | None:
    """The id of a process that keeps others from listening at an address; ``None`` where nobody can tell.

    ``host`` is a literal address.
    """
    try:
        wanted: _Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    sockets = {f"socket:[{inode}]" for address, inode in _listening(port, proc) if _meet(address, wanted)}
    return min(_holding(sockets, proc), default=None) if sockets else None


def _listening(port: int, proc: Path) -> Iterator[tuple[_Address, str]]:
    """Address and inode of each socket that listens on a port."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if len(fields) > 9 and fields[3] == _LISTENS:
                words, _, number = fields[1].partition(":")
                if int(number, 16) == port:
                    yield _address(bytes.fromhex(words)), fields[9]


def _address(words: bytes) -> _Address:
    """An address of the kernel's table: words of 32 bits, each with its lowest byte first."""
    plain = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
    return ipaddress.IPv6Address(plain) if len(plain) == 16 else ipaddress.IPv4Address(plain)


def _meet(one: _Address, other: _Address) -> bool:
    return _plain(one) == _plain(other) or one.is_unspecified or other.is_unspecified


def _plain(address: _Address) -> _Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _holding(sockets: Collection[str], proc: Path) -> Iterator[int]:
    """The processes that have one of the sockets open, of those whose files may be looked at."""
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        # It may have ended meanwhile, or be another user's.
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        yield int(process.name)
