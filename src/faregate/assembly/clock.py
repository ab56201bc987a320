"""The system's clocks behind the ``Clock`` port."""

import time


class SystemClock:
    """The machine's own two clocks, as the built-in functions themselves: they are read several times per request."""

    __slots__ = ()

    #: Nanoseconds since 1970 UTC.
    wall_nanos = staticmethod(time.time_ns)
    #: Nanoseconds of a clock that never steps back.
    monotonic_nanos = staticmethod(time.monotonic_ns)
