"""Starting pinned processes and reading what they cost from /proc. Linux only; knows nothing of gateways."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 15.0


class Cost(NamedTuple):
    """What a set of processes has used so far: CPU seconds, and kilobytes of memory as a proportional share."""

    cpu_seconds: float
    pss_kb: int


def pinned(core: int) -> Callable[[], None]:
    """A hook for a child process that ties it, and all that it starts, to one core."""
    return lambda: os.sched_setaffinity(0, {core})


def start(command: Sequence[str], core: int, log: IO[bytes], **more: object) -> subprocess.Popen[bytes]:
    """Start a long-running process on ``core`` in a session of its own; its output goes to ``log``."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=pinned(core),
        start_new_session=True,
        **more,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then insist, together with what it started."""
    if process.poll() is not None:
        return
    family = tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in reversed(family):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the process name, which may itself hold blanks and brackets."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def tree(pid: int) -> list[int]:
    """``pid`` and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def kernel_threads(names: Sequence[str]) -> list[int]:
    """The kernel's own threads (children of kthreadd, which is 2) whose name begins with one of these."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name = Path(f"/proc/{entry}/comm").read_text()
                if name.startswith(tuple(names)) and _stat(int(entry))[1] == "2":
                    found.append(int(entry))
            except OSError:
                continue
    return sorted(found)


def threads(names: Sequence[str]) -> list[int]:
    """The threads of the processes whose name is one of these."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if Path(f"/proc/{entry}/comm").read_text().rstrip("\n") in names:
                    found += [int(thread) for thread in os.listdir(f"/proc/{entry}/task")]
            except OSError:
                continue
    return sorted(found)


def command_line(pid: int) -> list[str]:
    """The arguments a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def cost(pids: Sequence[int]) -> Cost:
    """What these processes have used; one that is gone counts nothing."""
    ticks = 0
    pss = 0
    for pid in pids:
        try:
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    pss += int(line.split()[1])
        except OSError:
            continue
    return Cost(ticks / TICKS_PER_SECOND, pss)


def stolen_seconds(core: int) -> float:
    """How long the hypervisor has kept this core from the machine, while there was work for it."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            return int(line.split()[8]) / TICKS_PER_SECOND
    return 0.0


def free_port() -> int:
    """A port of loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(what: str, ready: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes] | None) -> None:
    """Ask ``ready`` until it says yes.

    Raises:
        RuntimeError: the process ended, or the time is over.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with {process.returncode}")
        if ready():
            return
        time.sleep(0.1)
    raise RuntimeError(f"{what}: not ready after {seconds:.0f} s")
