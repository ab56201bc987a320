"""Services of the configuration, and those made by the API → what the catalogue is compiled from."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import msgspec

from faregate.assembly.made import OpenSecret, own_secret
from faregate.catalogue.declared import DeclaredService
from faregate.config.schema import Config
from faregate.config.secret_box import service_place
from faregate.config.services import PlainService, Service, ServicePrice, service_of
from faregate.control import Provider, masked_of
from faregate.core import money
from faregate.core.metering.service import ServiceTerms, Told
from faregate.core.pricing.compute import ServicePrices, service_rates
from faregate.core.usage import COUNT_MAX, Measure
from faregate.dialects.operations import HTTP
from faregate.ports import Row

#: Operations on numbers are counted in thousand millions.
_FLOPS_PER_GIGAFLOP = 10**9


def declared_services(config: Config, folder: Path, proxy_for: Callable[[str], str]) -> tuple[DeclaredService, ...]:
    """All services; ``proxy_for`` says which proxy a URL is reached through where its service does not."""

    def place_of(service: Service) -> Provider:
        secret = service.api_key.get_secret_value() if service.api_key is not None else ""
        proxy = service.proxy if service.proxy is not None else proxy_for(service.base_url)
        ca_file = str(folder / service.ca_file) if service.ca_file else ""
        return msgspec.structs.replace(_provider(service, secret, proxy), ca_file=ca_file)

    return tuple(
        DeclaredService(
            place_of(service),
            _terms(service, config.gateway.body_bytes_max),
            service_rates(_prices(service.price)),
        )
        for service in config.services
    )


def made_services(
    rows: Sequence[Row], body_bytes_max: int, open_secret: OpenSecret, proxy_for: Callable[[str], str]
) -> tuple[DeclaredService, ...]:
    """Services of the books; ``body_bytes_max`` is the largest body that the gateway takes at all.

    One whose secret does not open waits for a credential that never comes, as a provider does.
    """

    def declared_of(row: Row) -> DeclaredService:
        service = service_of(row["name"], row["base_url"], row["rule"])
        secret, closed = own_secret(row, service_place(row["id"], row["base_url"]), open_secret)
        place = _provider(service, secret, proxy_for(row["base_url"]))
        return DeclaredService(
            msgspec.structs.replace(place, renewed=closed, reach=row["reach"]),
            _terms(service, body_bytes_max),
            service_rates(_prices(service.price)),
            "services of the API",
        )

    return tuple(map(declared_of, rows))


def _provider(service: PlainService, secret: str, proxy: str) -> Provider:
    credential: dict[str, str] = {}
    if secret:
        scheme = "Bearer " if service.api_key_header == "authorization" else ""
        credential = {service.api_key_header: scheme + secret}
    return Provider(
        name=service.name,
        kind=HTTP,
        base_url=service.base_url,
        credential=credential,
        connect_timeout_ms=service.connect_timeout,
        # A service may be silent for as long as it may run.
        first_byte_timeout_ms=service.max_duration,
        idle_timeout_ms=service.max_duration,
        total_timeout_ms=service.max_duration,
        proxy=proxy,
        connections_max=service.connections_max,
        masked=masked_of(secret),
    )


def _terms(service: PlainService, body_bytes_max: int) -> ServiceTerms:
    price = service.price
    told: list[Told] = []
    fixed: list[Measure] = []
    if price.units is not None:
        told.append(Told("units", price.units.name or "", price.units.header, price.units.max))
    if price.flops is not None and price.flops.per_call is not None:
        fixed.append(Measure("gigaflops", "", -(-price.flops.per_call // _FLOPS_PER_GIGAFLOP)))
    elif price.flops is not None and price.flops.header is not None and price.flops.max is not None:
        most = -(-price.flops.max // _FLOPS_PER_GIGAFLOP)
        told.append(Told("gigaflops", "", price.flops.header, most, _FLOPS_PER_GIGAFLOP))
    return ServiceTerms(
        methods=tuple(dict.fromkeys(service.methods)),
        paths=service.paths,
        headers=service.headers,
        duration_ms_max=service.max_duration,
        request_bytes_max=min(service.max_request_bytes or body_bytes_max, COUNT_MAX),
        answer_bytes_max=service.max_answer_bytes or COUNT_MAX,
        told=tuple(told),
        fixed=tuple(fixed),
        bill_errors=service.bill_errors,
    )


def _prices(price: ServicePrice) -> ServicePrices:
    units, compute, flops = price.units, price.compute, price.flops
    return ServicePrices(
        per_call=_picos(price.per_call),
        per_second=_picos(price.per_second),
        per_million_bytes_in=_picos(price.per_million_bytes_in),
        per_million_bytes_out=_picos(price.per_million_bytes_out),
        units=(units.name or "", money.picos(units.price), units.per) if units is not None else None,
        per_machine_hour=money.picos(compute.rate_per_hour) if compute is not None else 0,
        share=Fraction(compute.memory_gb) / Fraction(compute.memory_gb_total) if compute is not None else Fraction(0),
        per_teraflop=money.picos(flops.price_per_teraflop) if flops is not None else None,
    )


def _picos(price: str | None) -> int:
    return money.picos(price) if price is not None else 0
