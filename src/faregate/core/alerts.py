"""What people are told of, where that goes, and how often it is tried.

Closed sets that configuration and API share, the values that pass between the books and whoever sends, and the waits
between tries as functions of their number. Knows no clock and no network.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_SECOND = 1_000_000_000

#: Kind → what it tells. ``test`` is what somebody sends to see whether a channel works.
KINDS: Final[Mapping[str, str]] = {
    "threshold": "a share of a limit is spent, or will be by the end of its window",
    "limit_reached": "a limit is spent, or lets nothing through any more",
    "low_balance": "little is left of a limit that never starts anew",
    "unpriced": "calls were refused, or billed provisionally, for want of a price",
    "unknowns": "many calls, or much money, wait to be learnt the outcome of",
    "anomaly": "a key was braked because it spends unlike itself",
    "budget_stop": "an alert from outside acted on a product",
    "test": "nothing happened: somebody tries the channels",
}

#: Mildest first.
SEVERITIES: Final = ("info", "warning", "critical")

#: The first wait after a try that failed; each one after it is twice as long, up to the longest.
PAUSE_MIN_NANOS: Final = 5 * _SECOND
PAUSE_MAX_NANOS: Final = 3_600 * _SECOND

#: After a day of tries an alert is old news: whoever looks at the list sees that it was not delivered.
GIVEN_UP_AFTER_NANOS: Final = 24 * 3_600 * _SECOND


#: Of the secret by which a webhook is signed: shorter ones can be guessed, longer ones hold nothing more.
CHANNEL_SECRET_CHARACTERS: Final = (24, 256)
#: Of the address of a channel.
CHANNEL_URL_CHARACTERS_MAX: Final = 2_000


class AddressFault(NamedTuple):
    """Why alerts cannot be sent to an address: the public code, and a sentence that does not repeat the address."""

    code: str
    message: str


class Channel(NamedTuple):
    """Where alerts go. Address and secret are never shown, logged or sent anywhere else."""

    id: str
    name: str
    #: ``webhook`` or ``apprise``.
    kind: str
    url: str
    secret: str = ""


class Parcel(NamedTuple):
    """One alert on its way to one channel."""

    alert: str
    channel: Channel
    #: What it says, as plain JSON values: at least ``id``, ``kind``, ``severity`` and ``message``.
    told: Mapping[str, Any]


class Unpriced(NamedTuple):
    """A call without a price: the model that was asked for, whether it was refused, and whose it was."""

    model: str
    #: ``refused``, or ``provisional``: billed at a ceiling until the price is known.
    how: str
    key: str


class Waiting(NamedTuple):
    """Calls whose outcome is not known, what they hold in nano-dollars, and usage without a price by unit."""

    calls: int
    nanos: int
    unpriced: Mapping[str, int]


def pause_nanos(tries: int) -> int:
    """How long to wait after so many tries that failed, of which there is at least one."""
    # The shift is bounded, for nobody needs numbers of a thousand digits.
    return min(PAUSE_MIN_NANOS << min(tries - 1, 30), PAUSE_MAX_NANOS)
