"""Addresses where no connection comes about: F01 (refused) and F02 (hangs). Plain sockets, no event loop."""

import contextlib
import socket
from typing import Self

HOST = "127.0.0.1"


class Refuser:
    """A port that refuses every connection, kept from all others while it lives (F01)."""

    def __init__(self) -> None:
        # Bound and never listened on: the kernel answers with a reset, and hands the port to nobody else.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind((HOST, 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlackHole:
    """A port where connecting hangs: its queue is full and nobody accepts (F02)."""

    #: A queue of one holds one or two connections, depending on the kernel.
    FILL_MAX = 16

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((HOST, 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fill: list[socket.socket] = []
        while len(self._fill) < self.FILL_MAX and self._take():
            pass

    def _take(self) -> bool:
        """Take one place in the queue; ``False`` when there was none left."""
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.settimeout(0.1)
        self._fill.append(taken)
        with contextlib.suppress(TimeoutError):
            taken.connect((HOST, self.port))
            return True
        return False

    def close(self) -> None:
        """Give the port back; connections that hang are refused from now on."""
        for taken in self._fill:
            taken.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
