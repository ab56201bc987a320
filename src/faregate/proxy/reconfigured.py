"""Other settings and another catalogue for a gate that runs: both from one moment on, or neither.

Everything that can go wrong is done first. Connections, running calls, what is held and what was counted stay as they
are; a call that runs ends by what it began with, as far as that was decided. What needs another process (where it
listens, the journal, how many values are counted) is not looked at here: the settings that come keep it.
"""

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from faregate.config.settings import GateSettings
from faregate.control import Catalogue, Load
from faregate.proxy.brakes import GateBrakes
from faregate.proxy.denials import Denials
from faregate.proxy.entry import takes_uploads
from faregate.proxy.http1 import Bounds
from faregate.proxy.limit_headers import LimitHeaders

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate


class Derived(NamedTuple):
    """What the gate works by that follows from its settings alone."""

    bounds: Bounds
    peppers: tuple[bytes, ...]
    #: Streams hold in steps instead of all that they may ever cost.
    steps: bool
    denials: Denials
    limit_headers: LimitHeaders


def derived(settings: GateSettings) -> Derived:
    """What follows from settings.

    Raises:
        ValueError, KeyError, OSError: they cannot be used.
    """
    bounds = Bounds(
        settings.header_bytes_max,
        settings.headers_max,
        settings.uri_bytes_max,
        settings.body_bytes_max,
        settings.upload_bytes_max,
        takes_uploads,
    )
    peppers = tuple(bytes.fromhex(secret) for _, secret in settings.peppers)
    return Derived(bounds, peppers, settings.stream_hold == "steps", Denials(settings), LimitHeaders(settings))


def reconfigure(gate: "Gate", settings: GateSettings, catalogue: Catalogue | None) -> None:
    """Let ``gate`` work by ``settings`` and, where one is given, by ``catalogue``.

    Raises:
        ValueError, KeyError, OSError: they cannot be used; the gate works on as before.
    """
    before = gate.settings
    # What only a new process can change, and how this one calls its folder.
    settings = msgspec.structs.replace(
        settings,
        host=before.host,
        port=before.port,
        data_dir=before.data_dir,
        durability=before.durability,
        tls=before.tls,
        limits_each_max=before.limits_each_max,
        journal_segment_bytes=before.journal_segment_bytes,
        sync_interval_ms=before.sync_interval_ms,
    )
    found = derived(settings)
    brakes = gate.brakes
    if settings.brake != before.brake:
        # Keys that are braked are limits by now, or will be as soon as they trip it again.
        brakes = GateBrakes(settings.brake, gate.metrics) if settings.brake is not None else None
    if catalogue is not None:
        gate.apply(Load(gate.snapshot.sequence, catalogue=catalogue))
    gate.settings = settings
    gate.adopt(found)
    gate.brakes = brakes
    gate.keep_contents()
    if gate.cache is not None and settings.cache is not None:
        gate.cache.adopt(settings.cache)
    gate.judge()
