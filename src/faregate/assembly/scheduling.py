"""How the planes share a core: the gate's event loop asks for short slices, so that it runs as soon as it is woken, and
what can wait for a moment runs in idle time.

Linux from 6.12 on lets a task that asks for a short slice interrupt one that has a longer one; without that, whatever
computes on the same core (the projection, a neighbour) keeps it for some milliseconds while a request waits. It takes
no more of the core than before. Elsewhere nothing changes. (``Documentation/scheduler/sched-eevdf.rst``; the system
call is ``sched_setattr(2)``, which Python has no function for.)
"""

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress

#: The shortest slice that the kernel grants.
SLICE_NANOS = 100_000

#: Numbers of ``sched_setattr`` by machine.
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}

#: ``struct sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")

_SCHED_OTHER = 0


def prefer_short_slices() -> bool:
    """Ask for them, for the calling thread; false where the system does not take the question."""
    number = _SET_ATTRIBUTES.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, SLICE_NANOS, 0, 0)
    system = ctypes.CDLL(None)
    return bool(system.syscall(number, 0, ctypes.c_char_p(attributes), 0) == 0)


def use_idle_time() -> bool:
    """Run the calling thread only while nothing else wants its core; false where the system does not take it.

    In general there is no way back without privileges (``sched(7)``): what must go on is for another thread.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return True
    return False
