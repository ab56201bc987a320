"""The rules of one service behind the gate: what has a price has a maximum, and nothing is free by accident."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple
from urllib.parse import urlsplit

from faregate.config.findings import Path, Ruled
from faregate.config.schema import Config
from faregate.config.services import PlainService, ServiceFlops
from faregate.config.values import is_loopback
from faregate.core import money
from faregate.core.metering.service import may_authenticate, may_pass, may_tell
from faregate.core.pricing.compute import busy_rate

#: A day: longer work is a job, not a call.
_DURATION_MS_MAX = 86_400_000

#: Numbers of a rate card are kept and sent as 64-bit integers.
_INTEGER_MAX = 2**63 - 1


class Surroundings(NamedTuple):
    """What a service has to fit in with."""

    #: Name that something else has → what that is, such as ``providers[0]``.
    taken: Mapping[str, str]
    #: Name and port of each listener of this installation.
    listeners: tuple[tuple[str, int], ...]
    #: The largest body that the gateway takes at all.
    body_bytes_max: int
    #: The service's address was looked up, and leads to this machine.
    at_home: bool = False


def surroundings_of(config: Config) -> Surroundings:
    """What a service of the configuration has to fit in with; of names that are taken twice the first one counts."""
    taken: dict[str, str] = {}
    named = {
        "providers": [provider.name for provider in config.providers],
        "deployments": [deployment.name for deployment in config.deployments],
        "models": [model.name for model in config.models],
    }
    for key, names in named.items():
        for index, name in enumerate(names):
            taken.setdefault(name, f"{key}[{index}]")
    return Surroundings(taken, listeners_of(config), config.gateway.body_bytes_max)


def listeners_of(config: Config) -> tuple[tuple[str, int], ...]:
    """Name and port of each listener that a configuration makes."""
    return ("gateway", config.gateway.port), ("console", config.console.port)


def check_service(service: PlainService, path: Path, around: Surroundings) -> Iterator[Ruled]:
    """What is wrong with a service, beside where it is."""
    if service.name in around.taken:
        # Reports call provider, deployment and model of a service by its name, so nothing else may have it.
        problem = f"{service.name} is the name of {around.taken[service.name]} already"
        yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "a name of its own")
    yield from _address(service, path, around)
    yield from _headers(service, path)
    yield from _maximums(service, path, around.body_bytes_max)
    yield from _price(service, path)


def _address(service: PlainService, path: Path, around: Surroundings) -> Iterator[Ruled]:
    parts = urlsplit(service.base_url)
    if any(segment in ("", ".", "..") for segment in parts.path.strip("/").split("/")) and parts.path.strip("/"):
        yield Ruled("CFG-RANGE", (*path, "base_url"), "its path has dot or empty segments", "plain segments, e.g. /v1")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for name, own in around.listeners:
        if port == own and (around.at_home or is_loopback(parts.hostname or "")):
            problem = f"this is the {name} of this installation itself"
            yield Ruled("CFG-UNSAFE", (*path, "base_url"), problem, "the address of the service")


def _headers(service: PlainService, path: Path) -> Iterator[Ruled]:
    for index, name in enumerate(service.headers):
        if not may_pass(name):
            problem = f"{name} never passes: it is about one connection, or about who calls"
            yield Ruled("CFG-UNSAFE", (*path, "headers", index), problem, "a header of the service's own")
    if not may_authenticate(service.api_key_header):
        yield Ruled("CFG-RANGE", (*path, "api_key_header"), f"{service.api_key_header} carries no credential")
    for key, told in (("units", service.price.units), ("flops", service.price.flops)):
        if told is not None and told.header and not may_tell(told.header):
            yield Ruled("CFG-RANGE", (*path, "price", key, "header"), f"{told.header} tells something else")
    if service.api_key is not None and service.api_key_header in service.headers and may_pass(service.api_key_header):
        at = service.headers.index(service.api_key_header)
        yield Ruled("CFG-CONFLICT", (*path, "headers", at), "it carries the service's credential, which is ours alone")


def _maximums(service: PlainService, path: Path, largest: int) -> Iterator[Ruled]:
    """What is priced is bounded: without that no call could be held for at its most."""
    if service.max_duration > _DURATION_MS_MAX:
        yield Ruled("CFG-RANGE", (*path, "max_duration"), "no call is that long", "at most 24h")
    if service.max_request_bytes is not None and service.max_request_bytes > largest:
        problem = f"is more than gateway.body_bytes_max ({largest}), so such a body could never come in"
        yield Ruled("CFG-CONFLICT", (*path, "max_request_bytes"), problem)
    if service.price.per_million_bytes_out is not None and service.max_answer_bytes is None:
        problem = "bytes out have a price and no maximum, so no call could be held for"
        hint = "set max_answer_bytes; longer answers are cut there"
        yield Ruled("CFG-MISSING", (*path, "price", "per_million_bytes_out"), problem, hint=hint)
    if service.price.flops is not None:
        yield from _flops(service.price.flops, (*path, "price", "flops"))


def _flops(flops: ServiceFlops, path: Path) -> Iterator[Ruled]:
    if (flops.per_call is None) == (flops.header is None):
        problem = "says nothing of how many" if flops.per_call is None else "has both per_call and header"
        yield Ruled("CFG-CONFLICT", path, problem, "per_call, or header with max")
    elif flops.header is not None and flops.max is None:
        problem = "operations that a header tells have no maximum, so no call could be held for"
        yield Ruled("CFG-MISSING", (*path, "max"), problem, hint="set the most that one call can do")
    elif flops.header is None and flops.max is not None:
        yield Ruled("CFG-CONFLICT", (*path, "max"), "per_call is exact already", "it without max")


def _price(service: PlainService, path: Path) -> Iterator[Ruled]:
    price = service.price
    if not any(value is not None for value in price.model_dump().values()):
        hint = 'a service that is meant to be free has per_call: "0"'
        yield Ruled("CFG-MISSING", (*path, "price"), "names no price", "at least one", hint)
    compute = price.compute
    if compute is None:
        return
    memory, total = Fraction(compute.memory_gb), Fraction(compute.memory_gb_total)
    if memory > total:
        problem = "is more than memory_gb_total: no service takes more than the machine has"
        yield Ruled("CFG-CONFLICT", (*path, "price", "compute", "memory_gb"), problem)
    per_second = money.picos(price.per_second) if price.per_second is not None else 0
    rate = busy_rate(per_second, money.picos(compute.rate_per_hour), memory / total)
    if max(rate.pico, rate.per) > _INTEGER_MAX:
        problem = "share and price make numbers that no rate card holds"
        yield Ruled("CFG-RANGE", (*path, "price", "compute"), problem, "fewer decimals, or a smaller price")
