"""Services behind the gate as the API shows them."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from faregate.console.shapes.values import Applied, Cursor, Dollars, Id, Source, Time


class UnitsOfService(TypedDict):
    """Units that a service tells in a header of its answers."""

    header: str
    price: Dollars
    per: int
    max: int
    name: str | None


class ComputeOfService(TypedDict):
    """Busy time × share of the memory × price of the machine."""

    rate_per_hour: Dollars
    memory_gb: str
    memory_gb_total: str


class FlopsOfService(TypedDict):
    """Operations on numbers."""

    price_per_teraflop: Dollars
    per_call: int | None
    header: str | None
    max: int | None


class PriceOfService(TypedDict):
    """What a call costs; everything that is not `null` is added up."""

    per_call: Dollars | None
    per_second: Dollars | None
    per_million_bytes_in: Dollars | None
    per_million_bytes_out: Dollars | None
    units: UnitsOfService | None
    compute: ComputeOfService | None
    flops: FlopsOfService | None


class Service(TypedDict):
    """An HTTP service behind the gate."""

    id: Id
    name: str
    base_url: str
    #: Where its secret begins and ends; `null` where it has none.
    api_key: str | None
    api_key_header: str
    methods: list[str]
    #: Beginnings of the paths that callers may use; empty for all.
    paths: list[str]
    headers: list[str]
    price: PriceOfService
    max_duration: str
    #: `null` where the gateway's own bound holds.
    max_request_bytes: int | None
    max_answer_bytes: int | None
    bill_errors: bool
    connect_timeout: str
    connections_max: int
    allow_http: bool
    allow_private: bool
    state: Literal["active", "disabled"]
    source: Source
    created_at: Time | None
    updated_at: Time | None
    applied: NotRequired[Applied]


class Services(TypedDict):
    """A page of services; the first one begins with those of the configuration file."""

    data: list[Service]
    next_cursor: Cursor
