"""``/api/v1/places``: where calls can go as compiled now: what is declared, what was made, what providers offer."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.describing import answers, asks
from faregate.console.paging import single_values
from faregate.console.prices import compiled
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.writing import console_of

router = APIRouter(tags=["places"])


@router.get("/places")
@needs("providers.read")
@asks()
@answers(shapes.Places)
async def list_places(request: Request) -> dict[str, Any]:
    """Providers, deployments and names of models that act now, without any secret.

    A provider that takes any model by its name offers a deployment for each that has a price.
    """
    single_values(request)
    console = console_of(request)
    catalogue = await in_thread(lambda: compiled(console))
    return {
        "providers": [
            {
                "name": each.name,
                "kind": each.kind,
                "base_url": each.base_url,
                "can_be_asked": bool(each.lookup),
                "client_gone": each.client_gone or None,
            }
            for each in catalogue.providers
        ],
        "deployments": [
            {
                "name": each.name,
                "provider": each.provider,
                "upstream_model": each.upstream_model,
                "model": each.model,
                "priced": bool(each.cards),
                "max_output_tokens": each.output_tokens_max or None,
                "operations": list(each.operations),
            }
            for each in catalogue.deployments
        ],
        "models": [{"name": each.model, "to": list(each.to)} for each in catalogue.routes],
    }
