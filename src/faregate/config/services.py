"""HTTP services behind the gate: where they are, what may be asked of them, and what a call costs."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from faregate.config.section import Section
from faregate.config.values import (
    Duration,
    Flag,
    Gigabytes,
    Header,
    Name,
    PathPrefix,
    Price,
    Proxy,
    Secret,
    Size,
    Text,
    Url,
    Whole,
)
from faregate.core.metering.service import METHODS

_Bound = Annotated[Whole, Field(ge=1)]
_Bytes = Annotated[Size, Field(le=1_000_000_000)]
_Flops = Annotated[Whole, Field(ge=1, le=10**18)]


class ServiceUnits(Section):
    """Units that a service tells in a header of its answers."""

    header: Header = Field(description="header of the answer that tells how many, as a whole number")
    price: Price = Field(description="dollars")
    per: _Bound = Field(default=1, description="how many units the price is for", le=1_000_000_000)
    max: _Bound = Field(
        description="most units of one call: held, and billed where the header is missing or cannot be true",
        le=1_000_000_000,
    )
    name: Name | None = Field(default=None, description="what the units are, such as pages; shown in records")


class ServiceCompute(Section):
    """Busy time × share of the memory × price of the machine."""

    rate_per_hour: Price = Field(description="dollars of the whole machine for an hour")
    memory_gb: Gigabytes = Field(description="memory of the machine, or of its accelerator, that the service takes")
    memory_gb_total: Gigabytes = Field(description="memory of the machine, or of its accelerator")


class ServiceFlops(Section):
    """Operations on numbers, declared for every call or told by the answer."""

    price_per_teraflop: Price = Field(description="dollars for a million million operations")
    per_call: _Flops | None = Field(default=None, description="operations of every call")
    header: Header | None = Field(
        default=None, description="header of the answer that tells how many, as a whole number"
    )
    max: _Flops | None = Field(default=None, description="with header: most operations of one call")


class ServicePrice(Section):
    """What a call of a service costs; everything that is given is added up."""

    per_call: Price | None = Field(default=None, description="dollars for each call that ran")
    per_second: Price | None = Field(
        default=None, description="dollars for a second of busy time, which is billed by the millisecond"
    )
    per_million_bytes_in: Price | None = Field(
        default=None, description="dollars for a million bytes of request bodies"
    )
    per_million_bytes_out: Price | None = Field(default=None, description="dollars for a million bytes of answers")
    units: ServiceUnits | None = Field(default=None, description="units that the service tells itself")
    compute: ServiceCompute | None = Field(default=None, description="busy time by share of a machine")
    flops: ServiceFlops | None = Field(default=None, description="operations on numbers")


Methods = Annotated[
    tuple[Literal[METHODS], ...],  # type: ignore[valid-type]
    Field(min_length=1, max_length=len(METHODS)),
]
Paths = Annotated[tuple[PathPrefix, ...], Field(max_length=256)]
Headers = Annotated[tuple[Header, ...], Field(max_length=64)]
Connections = _Bound
LargestBody = _Bytes


class PlainService(Section):
    """Any HTTP service, reached through the gateway below ``/services/{name}``: what the file and the API say alike."""

    name: Name = Field(description="how paths, keys, limits and reports call it")
    base_url: Url = Field(description="where it is; https, or http on loopback")
    api_key: Secret | None = Field(default=None, description="its credential, as ${NAME} or file:PATH")
    api_key_header: Header = Field(
        default="authorization", description="header of the credential; in authorization it is a bearer token"
    )
    methods: Methods = Field(default=("GET", "POST"), description="methods that callers may use")
    paths: Paths = Field(default=(), description="beginnings of the paths that callers may use; default: all")
    headers: Headers = Field(default=(), description="headers that pass in both directions beside the usual ones")
    price: ServicePrice = Field(description="what a call costs")
    max_duration: Duration = Field(description="when a call is ended; its busy time costs no more than that")
    max_request_bytes: LargestBody | None = Field(
        default=None, description="largest body of a request; default: gateway.body_bytes_max"
    )
    max_answer_bytes: LargestBody | None = Field(
        default=None, description="largest answer; longer ones are cut; needed where bytes out have a price"
    )
    bill_errors: Flag = Field(default=False, description="errors of the service cost what ran, too")
    connect_timeout: Duration = Field(default=5_000, description="how long to wait for its connection")
    allow_http: Flag = Field(default=False, description="allow plain http to another machine")
    allow_private: Flag = Field(default=False, description="allow a private address")
    connections_max: Connections = Field(default=2_000, description="connections to it at once")


class Service(PlainService):
    """A service of the configuration file, which alone names files and proxies of the machine."""

    ca_file: Text = Field(default="", description="PEM file with the authorities to trust instead of the system's")
    proxy: Proxy | None = Field(
        default=None,
        repr=False,
        description='proxy to reach it through; default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY; "" for none',
    )


#: What is kept of a service elsewhere than in its rule, or not at all.
_NO_RULE: Final = frozenset({"name", "base_url", "api_key", "ca_file", "proxy"})

#: What a rule may say, in the order of the configuration.
RULE_FIELDS: Final = tuple(name for name in PlainService.model_fields if name not in _NO_RULE)


def service_of(name: str, base_url: str, rule: Mapping[str, Any], secret: str = "") -> PlainService:
    """A service by its rule, as ``rule_as_sent`` gave it; ``secret`` may be sealed, and is empty where it has none."""
    return PlainService.model_validate({"name": name, "base_url": base_url, "api_key": secret or None, **rule})


def rule_as_sent(service: PlainService) -> dict[str, Any]:
    """All that was said of how a service is called and priced, as JSON in the form of the configuration."""
    return {
        name: value
        for name, value in service.model_dump(mode="json", exclude_unset=True, exclude={*_NO_RULE}).items()
        if value is not None
    }


def rule_in_full(service: PlainService) -> dict[str, Any]:
    """The same with what is as usual; ``None`` stands for what has no price, or no bound of its own."""
    return service.model_dump(mode="json", exclude={*_NO_RULE})


def rule_in_short(service: PlainService) -> dict[str, Any]:
    """The same without what is as usual: two rules that mean the same are equal."""
    told = service.model_dump(mode="json", exclude_defaults=True, exclude={*_NO_RULE})
    return {name: _shortest(value) if name == "price" else value for name, value in told.items()}


def usual_rule() -> dict[str, Any]:
    """What holds where a rule says nothing."""
    told = PlainService.model_construct().model_dump(mode="json", exclude={*_NO_RULE})
    return {name: value for name, value in told.items() if value is not None}


def _shortest(price: dict[str, Any]) -> dict[str, Any]:
    """A price in which each decimal ends with its last digit that counts."""
    return {name: value if name == "name" else _ended(value) for name, value in price.items()}


def _ended(value: Any) -> Any:
    if isinstance(value, dict):
        return _shortest(value)
    return value.rstrip("0").rstrip(".") if isinstance(value, str) and "." in value else value
