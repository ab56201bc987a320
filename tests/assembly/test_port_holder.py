"""Who listens on a port, as the kernel's own tables tell."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from faregate.assembly.port_holder import port_holder

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = (
    "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 777 1 0 100 0 0 10 0\n"
)


def kernel(folder: Path, table: str, local: str, state: str = "0A") -> Path:
    """What the kernel shows where process 42 has one socket."""
    (folder / "net").mkdir(parents=True)
    (folder / "net" / table).write_text(HEAD + LINE.format(local=local, state=state))
    (folder / "42" / "fd").mkdir(parents=True)
    (folder / "42" / "fd" / "3").symlink_to("socket:[777]")
    return folder


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_process_that_listens_here_is_found(host: str) -> None:
    """By the real tables: this very process."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no such address")
        taken.listen()

        assert port_holder(host, taken.getsockname()[1]) == os.getpid()


@pytest.mark.parametrize(
    ("table", "local", "host"),
    [
        ("tcp", "0100007F:0FA0", "127.0.0.1"),
        ("tcp", "00000000:0FA0", "127.0.0.1"),
        ("tcp", "0100007F:0FA0", "0.0.0.0"),
        ("tcp6", "00000000000000000000000000000000:0FA0", "127.0.0.1"),
        ("tcp6", "0000000000000000FFFF00000100007F:0FA0", "127.0.0.1"),
        ("tcp6", "00000000000000000000000001000000:0FA0", "::1"),
    ],
)
def test_one_on_an_address_that_meets_ours_is_meant(tmp_path: Path, table: str, local: str, host: str) -> None:
    """The same, or all of them, or one within the other family."""
    assert port_holder(host, 4000, kernel(tmp_path, table, local)) == 42


@pytest.mark.parametrize(
    ("local", "state"), [("0200007F:0FA0", "0A"), ("0100007F:0FA1", "0A"), ("0100007F:0FA0", "01")]
)
def test_nobody_else_is_blamed(tmp_path: Path, local: str, state: str) -> None:
    """Another address, another port, a connection."""
    assert port_holder("127.0.0.1", 4000, kernel(tmp_path, "tcp", local, state)) is None


def test_where_nobody_may_look_nobody_is_named(tmp_path: Path) -> None:
    """Another user's process; a system without such tables."""
    whole = kernel(tmp_path / "proc", "tcp", "0100007F:0FA0")
    (whole / "42" / "fd" / "3").unlink()
    (whole / "42" / "fd").rmdir()

    assert port_holder("127.0.0.1", 4000, whole) is None
    assert port_holder("127.0.0.1", 4000, tmp_path / "none") is None
