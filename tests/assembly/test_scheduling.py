"""Short slices for the gate's event loop, idle time for what can wait."""

import os
import platform
import subprocess
import sys

import pytest

#: Asks for short slices and reads back what the kernel noted: (taken, policy, nice, slice in nanoseconds).
ASK = """
import ctypes, os, platform, struct
from faregate.assembly.scheduling import prefer_short_slices
os.nice(3)
taken = prefer_short_slices()
room = ctypes.create_string_buffer(48)
number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
ctypes.CDLL(None).syscall(number, 0, room, 48, 0)
size, policy, flags, nice, priority, runtime, deadline, period = struct.unpack("=IIQiIQQQ", room.raw)
print(taken, policy, nice, runtime)
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="Linux only")
def test_the_kernel_notes_the_short_slice() -> None:
    """The question is taken, policy and nice stay, and kernels that know slices (6.12 and newer) note 0.1 ms."""
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.split()
    major, minor = (int(part) for part in platform.release().split(".")[:2])

    assert told[:3] == ["True", "0", "3"]
    if (major, minor) >= (6, 12):
        assert told[3] == "100000"


#: Two threads, one of which uses idle time: (taken, its policy, the policy of the other).
ASK_IDLE = """
import os, threading
from faregate.assembly.scheduling import use_idle_time
found = []
thread = threading.Thread(target=lambda: found.extend((use_idle_time(), os.sched_getscheduler(0))))
thread.start()
thread.join()
print(*found, os.sched_getscheduler(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_idle_time_is_for_the_thread_that_asks() -> None:
    """The thread that asks is run in idle time; the others of its process are not."""
    told = subprocess.run([sys.executable, "-c", ASK_IDLE], capture_output=True, text=True, check=True).stdout.split()

    assert told == ["True", str(os.SCHED_IDLE), str(os.SCHED_OTHER)]
