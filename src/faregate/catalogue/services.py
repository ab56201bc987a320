"""A service behind the gate → the deployment that the gate calls it by.

Its prices stand where it is declared, with what the operator set since laid over them, as over the list price of a
model. Everything that is measured of a call has a rate, if only one of nothing.
"""

from collections.abc import Sequence

from faregate.catalogue.bundled import ListPrice, Stretch
from faregate.catalogue.declared import DeclaredService, PriceRow
from faregate.catalogue.timeline import successive_cards
from faregate.control import Deployment
from faregate.core.pricing.card import Tier


def deployment_of(service: DeclaredService, rows: Sequence[PriceRow]) -> Deployment:
    """The one place of a service: provider, deployment, model and operation all have its name."""
    name = service.provider.name
    written = ListPrice((Stretch(0, 0, (Tier(0, service.rates),)),), service.source, 0)
    return Deployment(
        name=name,
        provider=name,
        upstream_model=name,
        model=name,
        cards=successive_cards(name, name, written, rows),
        operations=(name,),
        service=service.terms,
    )
