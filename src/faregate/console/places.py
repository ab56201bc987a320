"""``/api/v1/providers|deployments|models``: where calls can go, as compiled now, without any secret."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.paging import single_values
from faregate.console.prices import compiled
from faregate.console.reading import in_thread
from faregate.console.writing import console_of
from faregate.control import Catalogue

router = APIRouter(tags=["places"])


async def _catalogue(request: Request) -> Catalogue:
    single_values(request, ())
    console = console_of(request)
    return await in_thread(lambda: compiled(console))


@router.get("/providers")
async def list_providers(request: Request) -> dict[str, Any]:
    """Accounts at model services; credentials stay where they are."""
    catalogue = await _catalogue(request)
    rows = [
        {
            "name": each.name,
            "kind": each.kind,
            "base_url": each.base_url,
            "can_be_asked": bool(each.lookup),
            "client_gone": each.client_gone or None,
        }
        for each in catalogue.providers
    ]
    return {"data": rows, "next_cursor": None}


@router.get("/deployments")
async def list_deployments(request: Request) -> dict[str, Any]:
    """Places to send a call to."""
    catalogue = await _catalogue(request)
    rows = [
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
    ]
    return {"data": rows, "next_cursor": None}


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Names that callers may use, and where each goes, in order."""
    catalogue = await _catalogue(request)
    rows = [{"name": each.model, "to": list(each.to)} for each in catalogue.routes]
    return {"data": rows, "next_cursor": None}
